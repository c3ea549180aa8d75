// What is written around the chart: the price, the candle under the pointer, the legend of qualities.
import { QUALITIES } from "/page/candles.js";
import { byId, fill, make, say } from "/page/dom.js";
import { age, compact, decimalsOf, fixed, nameOf, timeText } from "/page/format.js";
import { numberOf } from "/page/paint.js";

const MEANINGS = {
  COMPLETE: "the feed was whole",
  QUIET: "no trades, and the feed proved alive",
  PARTIAL: "the service started or stopped inside",
  GAPPED: "part of the feed is missing",
  REPAIRED: "was gapped; the missing trades were fetched",
};

export function showTitle(instrument, timeframe) {
  const name = nameOf(instrument);
  fill(byId("title"), name.symbol, make("small", {}, `${name.place} · ${timeframe}`));
}

export function showPrice(store) {
  const { last } = store;
  if (!last) return;
  const decimals = decimalsOf(store.list.slice(-40).map((candle) => candle.close));
  const before = store.list[store.list.length - 2];
  say(byId("price"), fixed(last.close, decimals));
  const change = byId("change");
  const difference = before ? last.close - before.close : 0;
  const sign = difference > 0 ? "+" : difference < 0 ? "−" : "";
  const share = before ? Math.abs((100 * difference) / before.close) : 0;
  const percent = share > 0 && share < 0.01 ? Number(share.toPrecision(1)).toFixed(Math.min(8, Math.ceil(-Math.log10(share)))) : share.toFixed(2);
  say(change, `${sign}${fixed(Math.abs(difference), decimals)} (${sign}${percent} %)`);
  change.dataset.way = difference > 0 ? "up" : difference < 0 ? "down" : "";
  document.title = `${fixed(last.close, decimals)} · Market data`;
}

/** Open, high, low, close, volume and quality of a candle, and the values of the panes. */
export function showCandle(candle, store, features) {
  const shown = candle ?? store.last;
  if (!shown) {
    fill(byId("ohlc"));
    return;
  }
  const decimals = decimalsOf([shown.open, shown.high, shown.low, shown.close]);
  const way = shown.close >= shown.open ? "up" : "down";
  const entry = (name, text, attributes = {}) => make("div", attributes, make("dt", {}, name), make("dd", { class: "number" }, text));
  const quality = shown.isFinal ? shown.quality : "OPEN";
  const told = [quality];
  if (shown.isFinal && shown.gapMs > 0) told.push(`${age(shown.gapMs / 1e3)} gap`);
  if (shown.revision > 0) told.push(`r${shown.revision}`);
  fill(
    byId("ohlc"),
    entry("Time", timeText(shown.time, store.stepUs), { class: "time" }),
    ...["open", "high", "low", "close"].map((name) => entry(name[0].toUpperCase(), fixed(shown[name], decimals), { "data-way": way, title: name })),
    entry("Vol", compact(shown.volume)),
    entry("Trades", fixed(shown.trades, 0)),
    make("div", { class: "quality", "data-quality": quality, title: MEANINGS[quality] ?? "in progress" }, make("dt", { class: "sr" }, "Quality"), make("dd", {}, told.join(" · "))),
  );
  for (const { name } of features) {
    const value = document.querySelector(`#chips [data-name="${CSS.escape(name)}"] output`);
    if (value) say(value, compact(numberOf(shown.values[name])));
  }
}

/** How many of the candles that are seen have which quality. */
export function showLegend(seen) {
  const counts = Object.fromEntries(QUALITIES.map((quality) => [quality, 0]));
  for (const candle of seen) if (candle.isFinal && candle.quality in counts) counts[candle.quality] += 1;
  fill(
    byId("legend"),
    ...QUALITIES.map((quality) =>
      make(
        "li",
        { "data-quality": quality, class: counts[quality] ? "" : "none", title: MEANINGS[quality] },
        make("i", {}),
        make("span", {}, quality.charAt(0) + quality.slice(1).toLowerCase()),
        make("b", { class: "number" }, String(counts[quality])),
      ),
    ),
  );
}
