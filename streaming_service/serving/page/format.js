// Numbers and times as people read them.

export const US_PER_S = 1e6;

const groups = new Map();

function grouped(digits) {
  if (!groups.has(digits)) {
    groups.set(
      digits,
      new Intl.NumberFormat("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }),
    );
  }
  return groups.get(digits);
}

/** Decimals that multiples of `step` are written with: 1 for 0.5, 2 for 0.25. */
export function decimalsFor(step) {
  for (let digits = 0; digits < 10; digits += 1) {
    const scaled = step * 10 ** digits;
    if (Math.abs(scaled - Math.round(scaled)) < 1e-6 * scaled) return digits;
  }
  return 10;
}

/** Decimals that the values are really written with, eight at most. */
export function decimalsOf(values) {
  let most = 0;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    const text = String(Math.abs(value));
    const point = text.indexOf(".");
    if (text.includes("e-")) return 8;
    if (point >= 0) most = Math.max(most, text.length - point - 1);
  }
  return Math.min(most, 8);
}

export const fixed = (value, digits) => (Number.isFinite(value) ? grouped(digits).format(value) : "–");

/** Four significant digits with a unit letter: 12.35K. */
export function compact(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  for (const [limit, letter] of [
    [1e12, "T"],
    [1e9, "B"],
    [1e6, "M"],
    [1e4, "K"],
  ]) {
    if (size >= limit) {
      const scaled = value / (letter === "K" ? 1e3 : limit);
      return `${scaled.toFixed(Math.abs(scaled) >= 100 ? 1 : 2)}${letter}`;
    }
  }
  if (size === 0 || size >= 1000) return fixed(value, 0);
  if (size >= 1) return String(Number(value.toFixed(size >= 100 ? 1 : 3)));
  return String(Number(value.toPrecision(4)));
}

/** Seconds as an age: 0.24 s, 12 s, 3 m 20 s. */
export function age(seconds) {
  if (seconds === null || seconds === undefined) return "never";
  if (seconds < 0) return "0 s";
  if (seconds < 10) return `${seconds.toFixed(seconds < 1 ? 2 : 1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} m`;
}

const two = (number) => String(number).padStart(2, "0");
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** Parts of a time in microseconds, UTC. */
export function partsOf(timeUs) {
  const date = new Date(timeUs / 1e3);
  return {
    clock: `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}`,
    seconds: two(date.getUTCSeconds()),
    day: `${date.getUTCDate()} ${MONTHS[date.getUTCMonth()]}`,
    year: String(date.getUTCFullYear()),
  };
}

export function clockText(timeUs, withSeconds = true) {
  const parts = partsOf(timeUs);
  return withSeconds ? `${parts.clock}:${parts.seconds}` : parts.clock;
}

export function timeText(timeUs, stepUs) {
  const parts = partsOf(timeUs);
  return `${parts.day} ${clockText(timeUs, stepUs < 60 * US_PER_S)}`;
}

const KINDS = { SPOT_PAIR: "spot" };

/** A canonical key as people say it: BTC-USDT, and where. */
export function nameOf(key) {
  const [venue, kind, symbol] = key.split(":");
  return { symbol, place: `${titled(venue)} ${KINDS[kind] ?? kind.replaceAll("_", " ").toLowerCase()}` };
}

const titled = (text) =>
  text
    .toLowerCase()
    .split("-")
    .map((word) => word.charAt(0).toUpperCase() + word.slice(1))
    .join(" ");
