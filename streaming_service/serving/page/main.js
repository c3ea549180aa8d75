// The page: what the reader chose, and everything that follows from it.
import { CandleStore } from "/page/candles.js";
import { Chart } from "/page/chart.js";
import { byId, fill, make, say } from "/page/dom.js";
import { clockText, nameOf } from "/page/format.js";
import { showAlerts, showBook, showFeeds, showGaps, showSinks } from "/page/panels.js";
import { showCandle, showLegend, showPrice, showTitle } from "/page/readout.js";
import { Channel, getJson, poll } from "/page/transport.js";

const LOADED = 500;
const MOST_PANES = 4;
const COLOURS = ["#4f9cf9", "#e0a93b", "#b07cf0", "#33b8b0"];
const SECONDS = { s: 1, m: 60, h: 3600 };
// What the page shows of every candle; feature panes add to it.
const COLUMNS = "open,high,low,close,volume,trade_count,quality,coverage,gap_ms,revision";

const state = {
  instruments: [],
  timeframes: [],
  columns: [],
  instrument: "",
  timeframe: "",
  panes: [],
  store: new CandleStore(1),
  channel: null,
  hovered: null,
  socket: "connecting",
  health: null,
  clock: null,
  complete: false,
  loading: false,
};

const chart = new Chart(byId("canvas"), {
  onHover: (candle) => {
    state.hovered = candle;
    showCandle(candle, state.store, state.panes);
  },
  onView: () => {
    showLegend(chart.seen());
    byId("follow").hidden = chart.viewport.following;
    byId("empty").hidden = state.store.list.length > 0;
    if (chart.viewport.left < 10) loadOlder();
  },
});

/** Take messages or rows in, and show what changed. */
function take(rows, isFinal) {
  for (const row of rows) {
    const before = state.store.put(row, isFinal);
    if (before?.isFinal && before.quality === "GAPPED" && row.quality !== "GAPPED") chart.heal(row.timestamp);
  }
  showPrice(state.store);
  showCandle(state.hovered && state.store.at(state.hovered.time), state.store, state.panes);
  chart.refresh();
}

const wanted = () => [COLUMNS, ...state.panes.map((pane) => pane.name)].join(",");

async function load(query = {}) {
  const { instrument, timeframe } = state;
  try {
    const found = await getJson("/api/candles", { instrument, timeframe, columns: wanted(), limit: LOADED, ...query });
    return instrument === state.instrument && timeframe === state.timeframe ? found.rows : [];
  } catch (error) {
    say(byId("empty"), error.message);
    return [];
  }
}

/** Candles before those that are there, when the reader goes back to them. */
async function loadOlder() {
  const [first] = state.store.list;
  if (!first || state.loading || state.complete) return;
  state.loading = true;
  const { store } = state;
  const rows = await load({ to: first.time });
  state.loading = false;
  if (store !== state.store) return;
  state.complete = rows.length === 0;
  const before = store.list.length;
  for (const row of rows) store.put(row);
  if (store.list.length > before) chart.extend(store.list.length - before);
}

/** Show another series, or the same one anew. */
function open() {
  state.channel?.close();
  const step = Number.parseInt(state.timeframe, 10) * SECONDS[state.timeframe.at(-1)] * 1e6;
  state.store = new CandleStore(step);
  state.hovered = null;
  state.complete = false;
  state.loading = false;
  chart.show(state.store);
  showTitle(state.instrument, state.timeframe);
  showCandle(null, state.store, state.panes);
  say(byId("price"), "–");
  say(byId("change"), "");
  say(byId("empty"), "Waiting for candles…");
  showBook(null, 0);
  fill(byId("gaps"));
  const { store } = state;
  const merge = (rows, isFinal) => store === state.store && take(rows, isFinal);
  // The socket first: what is published while the stored candles are read is not missed.
  state.channel = new Channel(`candles:${state.instrument}:${state.timeframe}`, {
    history: 100,
    onMessage: (message) => merge([message], message.is_final),
    onHole: async () => merge(await load(), true),
    onState: (socket) => {
      state.socket = socket;
      showStatus();
    },
  });
  load().then((rows) => rows.length && merge(rows, true));
  remember();
  refreshBook();
  refreshGaps();
}

function remember() {
  const address = new URL(location);
  address.hash = new URLSearchParams({
    i: state.instrument,
    t: state.timeframe,
    p: state.panes.map((pane) => pane.name).join(","),
  }).toString();
  history.replaceState(null, "", address);
}

function showStatus() {
  const pill = byId("status");
  const [name, text] =
    state.socket !== "open"
      ? ["closed", state.socket === "closed" ? "Reconnecting" : "Connecting"]
      : state.health === null
        ? ["closed", "No answer"]
        : state.health.draining
          ? ["degraded", "Stopping"]
          : { ok: ["live", "Live"], degraded: ["degraded", "Degraded"], starting: ["starting", "Starting"] }[
              state.health.status
            ] ?? ["degraded", state.health.status];
  pill.dataset.state = name;
  say(pill.lastElementChild, text);
}

/** The clock of the service as it runs between two reports, at the speed it has. */
function serviceNow() {
  const { clock } = state;
  return clock ? clock.us + (performance.now() - clock.at) * clock.perMs : 0;
}

function setClock(us) {
  const at = performance.now();
  const before = state.clock;
  const perMs = before && at > before.at && us > before.us ? (us - before.us) / (at - before.at) : (before?.perMs ?? 1000);
  state.clock = { us, at, perMs };
}

async function refreshHealth() {
  try {
    state.health = await getJson("/health");
    setClock(state.health.service_time_us ?? Date.now() * 1000);
    showFeeds(state.health, state.instrument);
    showSinks(state.health);
    showAlerts((await getJson("/api/alerts")).alerts);
  } catch {
    state.health = null;
  }
  showStatus();
}

async function refreshBook() {
  const { instrument } = state;
  const has = state.instruments.find((each) => each.instrument === instrument)?.data_types.includes("book_snapshot_5");
  if (!has) return;
  try {
    const book = await getJson("/api/book", { instrument });
    if (instrument === state.instrument) showBook(book, serviceNow());
  } catch {
    // None has come yet, or the service is away, which the status says.
  }
}

async function refreshGaps() {
  const { instrument } = state;
  try {
    const { gaps } = await getJson("/api/gaps", { instrument });
    if (instrument === state.instrument) showGaps(gaps, serviceNow());
  } catch {
    // As above.
  }
}

/** Columns that are not published come from stored candles only, so they are asked for now and then. */
async function refreshStored() {
  const published = (name) => state.columns.find((column) => column.name === name)?.published;
  if (state.panes.some((pane) => !published(pane.name))) take(await load({ limit: 50 }), true);
}

function showTimeframes() {
  fill(
    byId("timeframes"),
    ...state.timeframes.map((timeframe) =>
      make("button", { type: "button", role: "radio", "data-timeframe": timeframe, "aria-checked": String(timeframe === state.timeframe) }, timeframe),
    ),
  );
}

function showInstruments() {
  const groups = Map.groupBy
    ? Map.groupBy(state.instruments, (each) => nameOf(each.instrument).place)
    : state.instruments.reduce((map, each) => {
        const { place } = nameOf(each.instrument);
        return map.set(place, [...(map.get(place) ?? []), each]);
      }, new Map());
  const option = (each) => make("option", { value: each.instrument, selected: each.instrument === state.instrument }, each.symbol);
  fill(byId("instrument"), ...[...groups].map(([place, members]) => make("optgroup", { label: place }, ...members.map(option))));
  byId("instrument").value = state.instrument;
}

function showPanes() {
  chart.setFeatures(state.panes);
  byId("canvas").dataset.panes = String(state.panes.length);
  byId("chips").replaceChildren(
    ...state.panes.map(({ name, colour }) => {
      const column = state.columns.find((each) => each.name === name);
      const chip = make(
        "button",
        { type: "button", class: "chip", "data-name": name, title: `${column?.description ?? ""}\nClick to remove` },
        make("i", {}),
        name,
        make("output", { class: "number" }, "–"),
        make("span", { "aria-hidden": "true" }, "×"),
        make("span", { class: "sr" }, "remove"),
      );
      chip.firstChild.style.background = colour;
      return chip;
    }),
  );
  const add = byId("add-pane");
  add.disabled = state.panes.length >= MOST_PANES;
  const taken = new Set(state.panes.map((pane) => pane.name));
  const numeric = state.columns.filter((column) => !["string", "timestamp[us,UTC]"].includes(column.dtype) && !taken.has(column.name));
  const groups = new Map();
  for (const column of numeric) groups.set(column.group, [...(groups.get(column.group) ?? []), column]);
  fill(
    add,
    make("option", { value: "" }, "+ Pane"),
    ...[...groups].map(([group, members]) =>
      make("optgroup", { label: group }, ...members.map((column) => make("option", { value: column.name, title: column.description }, column.name))),
    ),
  );
  add.value = "";
  showCandle(state.hovered, state.store, state.panes);
}

async function setPanes(names) {
  const free = COLOURS.filter((colour) => !state.panes.some((pane) => pane.colour === colour && names.includes(pane.name)));
  state.panes = names.map((name) => state.panes.find((pane) => pane.name === name) ?? { name, colour: free.shift() });
  showPanes();
  remember();
  // Candles that came with other columns get these too.
  const limit = Math.min(Math.max(state.store.list.length, LOADED), 5000);
  const rows = await load({ limit });
  if (rows.length) take(rows, true);
}

function listen() {
  byId("instrument").addEventListener("change", (event) => {
    state.instrument = event.target.value;
    open();
  });
  byId("timeframes").addEventListener("click", (event) => {
    const { timeframe } = event.target.dataset;
    if (!timeframe || timeframe === state.timeframe) return;
    state.timeframe = timeframe;
    showTimeframes();
    open();
  });
  byId("add-pane").addEventListener("change", (event) => {
    const name = event.target.value;
    event.target.value = "";
    if (name) setPanes([...state.panes.map((pane) => pane.name), name]);
  });
  byId("chips").addEventListener("click", (event) => {
    const name = event.target.closest("[data-name]")?.dataset.name;
    if (name) setPanes(state.panes.map((pane) => pane.name).filter((each) => each !== name));
  });
  byId("follow").addEventListener("click", () => chart.follow());
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) refreshHealth();
  });
}

async function begin() {
  listen();
  for (;;) {
    try {
      const [instruments, columns] = await Promise.all([getJson("/api/instruments"), getJson("/api/columns")]);
      Object.assign(state, instruments, columns);
      break;
    } catch {
      state.socket = "closed";
      showStatus();
      await new Promise((done) => setTimeout(done, 1000));
    }
  }
  const chosen = new URLSearchParams(location.hash.slice(1));
  const known = state.instruments.map((each) => each.instrument);
  state.instrument = known.includes(chosen.get("i")) ? chosen.get("i") : (known[0] ?? "");
  state.timeframe = state.timeframes.includes(chosen.get("t")) ? chosen.get("t") : state.timeframes.includes("1m") ? "1m" : (state.timeframes[0] ?? "");
  const names = state.columns.map((column) => column.name);
  const panes = (chosen.get("p") ?? "rsi_5").split(",").filter((name) => names.includes(name)).slice(0, MOST_PANES);
  state.panes = panes.map((name, place) => ({ name, colour: COLOURS[place] }));
  showInstruments();
  showTimeframes();
  showPanes();
  if (!state.instrument) {
    say(byId("empty"), "The service has no instruments");
    return;
  }
  open();
  poll(refreshHealth, 1500);
  poll(refreshBook, 500);
  poll(refreshGaps, 3000);
  poll(refreshStored, 6000);
  setInterval(() => state.clock && say(byId("clock"), clockText(serviceNow())), 250);
}

begin();
