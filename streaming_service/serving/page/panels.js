// The panels beside the chart, each drawn from one document of the service.
import { byId, fill, make, say } from "/page/dom.js";
import { age, clockText, compact, decimalsOf, fixed, nameOf } from "/page/format.js";

const LEVELS = 5;
const SHOWN_STREAMS = 60;
const SHOWN_GAPS = 8;

/** Five levels a side: asks on top, the spread between, bids below; bars show the amounts. */
export function showBook(book, nowUs) {
  const parent = byId("book");
  if (book === null) {
    fill(parent, make("p", { class: "nothing" }, "No book of this instrument"));
    say(byId("book-age"), "");
    return;
  }
  const asks = book.asks.slice(0, LEVELS);
  const bids = book.bids.slice(0, LEVELS);
  const most = Math.max(...asks.map(([, amount]) => amount), ...bids.map(([, amount]) => amount), 0);
  const decimals = decimalsOf([...asks, ...bids].map(([price]) => price));
  const rows = (levels, side) =>
    levels.map(([price, amount]) => {
      const row = make(
        "div",
        { class: `level ${side}` },
        make("i", { class: "bar" }),
        make("span", { class: "number" }, fixed(price, decimals)),
        make("span", { class: "number" }, compact(amount)),
      );
      row.firstChild.style.width = `${most > 0 ? (100 * amount) / most : 0}%`;
      return row;
    });
  const head = make("div", { class: "level head" }, make("span", {}, "Price"), make("span", {}, "Amount"));
  parent.replaceChildren(head, ...rows(asks, "ask").reverse(), spreadRow(asks, bids, decimals), ...rows(bids, "bid"), balance(asks, bids));
  say(byId("book-age"), `${age(Math.max(0, (nowUs - book.local_timestamp) / 1e6))} ago`);
}

function spreadRow(asks, bids, decimals) {
  if (!asks.length || !bids.length) return make("div", { class: "spread" }, "one side is empty");
  const [ask, bid] = [asks[0][0], bids[0][0]];
  const points = ((ask - bid) / ((ask + bid) / 2)) * 1e4;
  return make(
    "div",
    { class: "spread" },
    make("b", { class: "number" }, fixed((ask + bid) / 2, Math.min(decimals + 1, 8))),
    make("span", {}, `spread ${fixed(ask - bid, decimals)} · ${points.toFixed(points < 1 ? 2 : 1)} bp`),
  );
}

function balance(asks, bids) {
  const sum = (levels) => levels.reduce((total, [, amount]) => total + amount, 0);
  const [ask, bid] = [sum(asks), sum(bids)];
  const share = ask + bid > 0 ? (100 * bid) / (ask + bid) : 50;
  const bar = make("div", { class: "balance" }, make("i", {}), make("span", {}, `${share.toFixed(0)} % bid`), make("span", {}, `${(100 - share).toFixed(0)} % ask`));
  bar.firstChild.style.width = `${share}%`;
  return bar;
}

export function showAlerts(alerts) {
  const rows = alerts.map((alert) =>
    make(
      "li",
      { class: `alert ${alert.severity === "critical" ? "critical" : "warning"}` },
      make("b", {}, words(alert.name)),
      make("time", {}, `since ${clockText(alert.since_us)}`),
      make("span", { class: "detail", title: alert.text }, make("span", { class: "subject" }, streamName(alert.subject)), ` · ${alert.text}`),
    ),
  );
  if (!rows.length) rows.push(make("li", { class: "all-well" }, make("i", {}), "Nothing is wrong"));
  fill(byId("alerts"), ...rows);
  const count = byId("alert-count");
  say(count, alerts.length ? String(alerts.length) : "");
  count.dataset.worst = alerts[0]?.severity ?? "";
}

const words = (name) => name.replace(/(?<=[a-z])(?=[A-Z])/g, " ");

function streamName(subject) {
  const [key, type] = subject.split("/");
  return key.split(":").length === 3 ? `${nameOf(key).symbol}${type ? ` ${typeName(type)}` : ""}` : subject;
}

const typeName = (type) =>
  ({ trades: "trades", book_snapshot_5: "book", derivative_ticker: "ticker", liquidations: "liquidations", options_chain: "options" })[type] ?? type;

export function showGaps(gaps, nowUs) {
  const rows = gaps
    .slice(-SHOWN_GAPS)
    .reverse()
    .map((gap) =>
      make(
        "li",
        { class: "gap", "data-ending": gap.ending },
        make("b", { class: "badge" }, gap.kind === "not_running" && gap.ending === "open" ? "not running" : gap.ending),
        make("span", { class: "number" }, `${clockText(gap.from)} – ${gap.to === null ? "now" : clockText(gap.to)}`),
        make("span", { class: "detail" }, `${age(((gap.to ?? nowUs) - gap.from) / 1e6)} · ${typeName(gap.data_type)} · ${gap.reason}`),
      ),
    );
  if (gaps.length > SHOWN_GAPS) rows.push(make("li", { class: "more" }, `and ${gaps.length - SHOWN_GAPS} before`));
  if (!rows.length) rows.push(make("li", { class: "all-well" }, make("i", {}), "No gap"));
  fill(byId("gaps"), ...rows);
}

/** One line per stream, those of the instrument on show first. */
export function showFeeds(health, instrument) {
  const streams = Object.entries(health.data_types ?? {}).flatMap(([type, report]) =>
    Object.entries(report.instruments ?? {}).map(([key, stream]) => ({ key, type, stream })),
  );
  const rank = ({ key, stream }) => (key === instrument ? 0 : stream.status === "live" ? 2 : 1);
  streams.sort((one, other) => rank(one) - rank(other) || one.key.localeCompare(other.key));
  const rows = streams.slice(0, SHOWN_STREAMS).map(({ key, type, stream }) => {
    const name = nameOf(key);
    return make(
      "tr",
      { "data-status": stream.status },
      make("th", { scope: "row", title: `${key}/${type}: ${stream.status}` }, make("i", { class: "dot" }), make("span", {}, name.symbol, make("small", {}, `${typeName(type)} · ${name.place}`))),
      make("td", { class: "number" }, age(stream.last_tick_age_s)),
      make("td", { class: "number" }, compact(stream.ticks_per_s)),
      make("td", { class: "number" }, stream.lag_s === null ? "–" : age(stream.lag_s)),
      make("td", { class: `number ${stream.gaps ? "some" : ""}` }, String(stream.gaps)),
      make("td", { class: `number ${stream.errors ? "some" : ""}` }, String(stream.errors)),
    );
  });
  fill(byId("feeds"), head("Stream", "Last tick", "Per s", "Lag", "Gaps", "Invalid"), make("tbody", {}, ...rows));
  const live = streams.filter(({ stream }) => stream.status === "live").length;
  say(byId("feeds-note"), `${live} of ${streams.length} live`);
}

/** What a sink tells of itself: rows it holds until the other side has them, and its trouble. One section, or one per table. */
function toldBy(section) {
  if (section === undefined) return { waiting: null, trouble: false, error: "" };
  const parts = [section].flat();
  const errors = parts.map((part) => part.last_error).filter(Boolean);
  const trouble = parts.some((part) => part.connected === false || part.trouble_s > 0);
  const held = parts.map((part) => part.buffered_rows ?? part.waiting_rows);
  const waiting = held.every((rows) => rows === undefined) ? null : held.reduce((sum, rows) => sum + (rows ?? 0), 0);
  return { waiting, trouble, error: errors.join("; ") };
}

export function showSinks(health) {
  const rows = Object.entries(health.sinks ?? {}).map(([name, sink]) => {
    const told = toldBy(health[name]);
    const failing = sink.failed > 0 || sink.dropped > 0 || sink.errors > 0;
    return make(
      "tr",
      { "data-status": told.trouble ? "stale" : failing ? "waiting" : "live" },
      make("th", { scope: "row", title: told.error }, make("i", { class: "dot" }), make("span", {}, name)),
      make("td", { class: "number" }, compact(sink.queue_depth ?? 0)),
      make("td", { class: `number ${told.trouble ? "some" : ""}` }, told.waiting === null ? "–" : compact(told.waiting)),
      make("td", { class: "number" }, compact(sink.written ?? 0)),
      make("td", { class: `number ${sink.dropped ? "some" : ""}` }, compact(sink.dropped ?? 0)),
      make("td", { class: `number ${sink.failed ? "some" : ""}` }, compact(sink.failed ?? 0)),
      make("td", { class: `number ${sink.errors ? "some" : ""}`, title: `${sink.retries ?? 0} retries` }, compact(sink.errors ?? 0)),
    );
  });
  fill(byId("sinks"), head("Sink", "Queue", "Held", "Written", "Dropped", "Failed", "Errors"), make("tbody", {}, ...rows));
  say(byId("sinks-note"), `${compact(health.candles ?? 0)} candles · ${compact(health.revisions ?? 0)} revisions`);
}

const head = (...names) =>
  make("thead", {}, make("tr", {}, ...names.map((name, place) => make("th", { scope: "col", class: place ? "number" : "" }, name))));
