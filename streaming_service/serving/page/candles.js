// The candles of one instrument and timeframe, each once, as it stands now.

export const QUALITIES = ["COMPLETE", "QUIET", "PARTIAL", "GAPPED", "REPAIRED"];

const TOP = new Set(["v", "type", "sequence", "is_final", "hft_features"]);

/** A candle out of a message or a row of REST; both have columns by name. */
function candleOf(columns, isFinal) {
  const values = { ...columns };
  for (const name of TOP) delete values[name];
  Object.assign(values, columns.hft_features);
  return {
    time: columns.timestamp,
    open: columns.open,
    high: columns.high,
    low: columns.low,
    close: columns.close,
    volume: columns.volume ?? 0,
    trades: columns.trade_count ?? 0,
    quality: columns.quality ?? "COMPLETE",
    coverage: columns.coverage ?? 1,
    gapMs: columns.gap_ms ?? 0,
    revision: columns.revision ?? 0,
    isFinal,
    values,
  };
}

export class CandleStore {
  constructor(stepUs) {
    this.stepUs = stepUs;
    this.list = [];
    this.revised = 0;
    this.places = new Map();
  }

  get last() {
    return this.list[this.list.length - 1];
  }

  at(time) {
    return this.list[this.places.get(time)];
  }

  /** Take a candle in, unless a newer revision is there. Returns what it replaced, null where it is new, or undefined. */
  put(columns, isFinal = true) {
    const candle = candleOf(columns, isFinal);
    if (!Number.isFinite(candle.close)) return undefined;
    const place = this.places.get(candle.time);
    const before = this.list[place];
    if (before === undefined) {
      this.#insert(candle);
      return null;
    }
    if (before.isFinal && !isFinal) return undefined;
    if (before.isFinal && isFinal) {
      if (candle.revision < before.revision) return undefined;
      if (candle.revision > before.revision) this.revised += 1;
      // A message has the published columns, a row those that were asked for: what only one of them has stays.
      if (candle.revision === before.revision) candle.values = { ...before.values, ...candle.values };
    }
    this.list[place] = candle;
    return before;
  }

  #insert(candle) {
    const last = this.last;
    if (last === undefined || candle.time > last.time) {
      this.places.set(candle.time, this.list.push(candle) - 1);
      return;
    }
    this.list.push(candle);
    this.list.sort((one, other) => one.time - other.time);
    this.places = new Map(this.list.map((each, place) => [each.time, place]));
  }
}
