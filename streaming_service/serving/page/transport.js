// The service's two ways of speaking: documents over HTTP, and candles over a socket that comes back by itself.

const FIRST_WAIT_MS = 300;
const LONGEST_WAIT_MS = 10_000;

/** A JSON document; throws with the service's own words when it refuses. */
export async function getJson(path, query = {}) {
  const address = new URL(path, document.baseURI);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null) address.searchParams.set(name, value);
  }
  const response = await fetch(address, { cache: "no-store", credentials: "same-origin" });
  if (response.status === 401) location.reload(); // The session ended: the page to sign in on comes instead.
  const body = await response.json();
  if (!response.ok) throw new Error(body.error ?? `HTTP ${response.status}`);
  return body;
}

/** Calls `work` every so often while the page is seen; a slow answer delays the next call instead of piling up. */
export function poll(work, everyMs) {
  let stopped = false;
  const turn = async () => {
    if (stopped) return;
    if (!document.hidden) await work();
    setTimeout(turn, everyMs);
  };
  turn();
  return () => {
    stopped = true;
  };
}

/**
 * The channel of one series. Goes on where it was after every break; when messages cannot be had any more, `onHole` is
 * told, and stored candles have to be read.
 */
export class Channel {
  constructor(name, { history, onMessage, onHole, onState }) {
    this.name = name;
    this.history = history;
    this.handlers = { onMessage, onHole, onState };
    this.sequence = null;
    this.failures = 0;
    this.closed = false;
    this.#connect();
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.socket?.close(1000);
  }

  #connect() {
    const address = new URL("/ws", document.baseURI);
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    address.searchParams.set("channels", this.name);
    address.searchParams.set("open", "1");
    address.searchParams.set("policy", "drop_oldest");
    if (this.sequence === null) address.searchParams.set("history", this.history);
    else address.searchParams.set("since", `${this.name}@${this.sequence}`);
    this.socket = new WebSocket(address);
    this.socket.addEventListener("open", () => {
      this.failures = 0;
      this.handlers.onState("open");
    });
    this.socket.addEventListener("message", (event) => this.#take(JSON.parse(event.data)));
    this.socket.addEventListener("close", () => this.#retry());
  }

  #take(message) {
    if (this.closed) return;
    if (message.type === "gap" || message.type === "dropped") {
      this.sequence = message.to;
      this.handlers.onHole(message);
      return;
    }
    if (message.type !== "candle") return;
    if (message.is_final) this.sequence = message.sequence;
    this.handlers.onMessage(message);
  }

  #retry() {
    if (this.closed) return;
    this.handlers.onState("closed");
    // Full jitter, so that a restarted service is not met by everybody at once.
    const waitMs = Math.random() * Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.failures) + 50;
    this.failures += 1;
    this.timer = setTimeout(() => this.#connect(), waitMs);
  }
}
