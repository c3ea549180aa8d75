// Where lines of a scale stand, and what they say. No canvas here.
import { US_PER_S, clockText, decimalsFor, partsOf } from "/page/format.js";

/** The step of a scale of about `count` lines over `span`: 1, 2, 2.5 or 5 times a power of ten. */
export function niceStep(span, count) {
  if (!(span > 0)) return 1;
  const rough = span / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const factor = [1, 2, 2.5, 5, 10].find((each) => each * power >= rough * 0.999);
  return factor * power;
}

/** Values of the lines of a scale from `low` to `high`, and the decimals that tell them apart. */
export function valueLines(low, high, count) {
  const step = niceStep(high - low, count);
  const lines = [];
  for (let index = Math.ceil(low / step); index * step <= high; index += 1) lines.push(index * step || 0); // Never -0.
  return { lines, decimals: decimalsFor(step) };
}

/** Low and high of what is seen, with room above and below; null where there is nothing. */
export function rangeOf(values, room = 0.08) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return null;
  // Values that differ by no more than their rounding are one value.
  const flat = high - low <= Math.abs(high) * 1e-9;
  const span = flat ? Math.abs(high) * 0.001 || 1 : high - low;
  return { low: low - span * room, high: high + span * room };
}

const STEPS_S = [
  15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800, 1209600, 2592000,
];

/** The round step in microseconds whose labels, `perLabel` candles of `stepUs` apart at least, do not touch. */
export function timeStep(stepUs, perLabel) {
  const least = (stepUs / US_PER_S) * perLabel;
  return (STEPS_S.find((each) => each >= least) ?? Math.ceil(least / 2592000) * 2592000) * US_PER_S;
}

/** The label of a time line: the clock, or the day where one begins. */
export function timeLabel(timeUs, stepUs) {
  const parts = partsOf(timeUs);
  const midnight = parts.clock === "00:00" && parts.seconds === "00";
  if (midnight) return { text: parts.day === "1 Jan" ? parts.year : parts.day, strong: true };
  return { text: clockText(timeUs, stepUs < 60 * US_PER_S), strong: false };
}
