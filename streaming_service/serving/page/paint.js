// Draws the panes on a canvas. Everything it needs is handed over; it keeps nothing.
import { rangeOf, timeLabel, timeStep, valueLines } from "/page/axes.js";
import { compact, decimalsOf, fixed } from "/page/format.js";

const RIBBON = 7;
const GAP = 8;
const HEAL_MS = 1800;
const FONT = '11px ui-sans-serif, Inter, system-ui, "Segoe UI", sans-serif';

/** Colours of the style sheet, by the names of its variables. */
export function colours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["panel", "grid", "text", "muted", "faint", "up", "down", "accent", "gapped", "repaired", "partial", "quiet", "complete"];
  return Object.fromEntries(names.map((name) => [name, read(name)]));
}

/** Room that the scale on the right needs for the prices of these candles. */
export function axisWidth(context, candles) {
  context.font = FONT;
  const closes = candles.slice(-40).map((candle) => candle.close);
  const text = fixed(Math.max(...closes, 0), decimalsOf(closes));
  return Math.max(46, Math.ceil(context.measureText(text).width) + 18);
}

/** Heights of the panes, top to bottom: price, ribbon, volume, features, time axis. axis: width of the scale. */
export function layout(width, height, features, axis) {
  const times = 22;
  const feature = features ? Math.min(110, Math.max(64, (height - times) * (features > 2 ? 0.16 : 0.2))) : 0;
  const volume = Math.max(34, (height - times - features * feature) * 0.15);
  const price = height - times - features * feature - volume - RIBBON - GAP;
  let top = price;
  const ribbon = { top: top + 2, height: RIBBON };
  top += RIBBON + GAP;
  const panes = [{ kind: "price", top: 0, height: price }, { kind: "volume", top, height: volume }];
  top += volume;
  for (let index = 0; index < features; index += 1) {
    panes.push({ kind: "feature", index, top: top + GAP, height: feature - GAP });
    top += feature;
  }
  return { plot: width - axis, axis, ribbon, panes, times: { top, height: times } };
}

export class Painter {
  constructor(context, scene) {
    Object.assign(this, scene); // candles, viewport, features, area, width, height, paint, hover, heals, now, stepUs
    this.context = context;
    this.slot = this.area.plot / this.viewport.width;
    [this.first, this.after] = this.viewport.span;
    this.seen = this.candles.slice(this.first, this.after);
  }

  x(place) {
    return (place + 0.5 - this.viewport.left) * this.slot;
  }

  /** Draw everything; returns whether something is still moving. */
  draw() {
    const { context } = this;
    for (const [time, since] of this.heals) if (this.now - since > HEAL_MS) this.heals.delete(time);
    context.clearRect(0, 0, this.width, this.height);
    context.font = FONT;
    context.textBaseline = "middle";
    this.#times();
    for (const pane of this.area.panes) {
      this.#clipped(pane, () => this[pane.kind](pane));
      this.#scale(pane);
    }
    this.#ribbon();
    this.#lastPrice();
    this.#cross();
    return this.heals.size > 0;
  }

  price(pane) {
    const range = rangeOf(this.seen.flatMap((candle) => [candle.low, candle.high]));
    pane.range = range;
    pane.decimals = decimalsOf(this.seen.slice(-40).map((candle) => candle.close));
    if (range === null) return;
    pane.y = scaled(pane, range);
    this.#grid(pane);
    this.seen.forEach((candle, index) => this.#shade(pane, candle, this.x(this.first + index)));
    this.seen.forEach((candle, index) => this.#candle(pane, candle, this.x(this.first + index)));
  }

  volume(pane) {
    const high = Math.max(...this.seen.map((candle) => candle.volume), 0);
    pane.range = high > 0 ? { low: 0, high: high * 1.1 } : null;
    if (pane.range === null) return;
    pane.y = scaled(pane, pane.range);
    const width = this.#body();
    this.seen.forEach((candle, index) => {
      if (!(candle.volume > 0)) return;
      this.context.fillStyle = this.paint[candle.close >= candle.open ? "up" : "down"];
      this.context.globalAlpha = candle.isFinal ? 0.5 : 0.28;
      const top = Math.min(pane.y(candle.volume), pane.top + pane.height - 1);
      this.context.fillRect(this.x(this.first + index) - width / 2, top, width, pane.top + pane.height - top);
    });
    this.context.globalAlpha = 1;
  }

  feature(pane) {
    const { name, colour } = this.features[pane.index];
    const values = this.seen.map((candle) => numberOf(candle.values[name]));
    pane.name = name;
    pane.range = rangeOf(values, 0.12);
    if (pane.range === null) return;
    pane.y = scaled(pane, pane.range);
    this.#grid(pane, Math.max(2, Math.floor(pane.height / 26)));
    this.#line(pane, values, colour);
    this.context.fillStyle = colour;
    this.context.textAlign = "left";
    this.context.fillText(name, 8, pane.top + 8);
  }

  #line(pane, values, colour) {
    const { context } = this;
    context.strokeStyle = colour;
    context.lineWidth = 1.5;
    context.lineJoin = "round";
    context.beginPath();
    let drawing = false;
    values.forEach((value, index) => {
      if (!Number.isFinite(value)) {
        drawing = false;
        return;
      }
      const [x, y] = [this.x(this.first + index), pane.y(value)];
      if (drawing) context.lineTo(x, y);
      else context.moveTo(x, y);
      drawing = true;
      const alone = !Number.isFinite(values[index - 1]) && !Number.isFinite(values[index + 1]);
      if (alone) context.rect(x - 1, y - 1, 2, 2);
    });
    context.stroke();
    context.lineWidth = 1;
  }

  /** The column behind a candle whose feed was not whole. */
  #shade(pane, candle, x) {
    const { context } = this;
    const [left, width] = [x - this.slot / 2, this.slot];
    const healing = this.#healing(candle);
    if (candle.quality === "GAPPED" || healing > 0) {
      context.globalAlpha = candle.quality === "GAPPED" ? 0.16 : 0.22 * healing;
      context.fillStyle = this.paint[candle.quality === "GAPPED" ? "gapped" : "repaired"];
      context.fillRect(left, pane.top, width, pane.height);
      if (candle.quality === "GAPPED") this.#hatch(left, width, pane);
    } else if (candle.quality === "REPAIRED" || candle.quality === "PARTIAL") {
      context.globalAlpha = 0.07;
      context.fillStyle = this.paint[candle.quality.toLowerCase()];
      context.fillRect(left, pane.top, width, pane.height);
    }
    context.globalAlpha = 1;
  }

  #hatch(left, width, pane) {
    const { context } = this;
    context.save();
    context.beginPath();
    context.rect(left, pane.top, width, pane.height);
    context.clip();
    context.globalAlpha = 0.3;
    context.strokeStyle = this.paint.gapped;
    context.beginPath();
    // Lines of one family over the whole plot, so that neighbours join.
    for (let at = left - ((left + pane.height) % 9) - pane.height; at < left + width; at += 9) {
      context.moveTo(at, pane.top + pane.height);
      context.lineTo(at + pane.height, pane.top);
    }
    context.stroke();
    context.restore();
  }

  #candle(pane, candle, x) {
    const { context } = this;
    const rises = candle.close >= candle.open;
    const idle = candle.quality === "QUIET" || !(candle.trades > 0);
    const colour = idle ? this.paint.quiet : this.paint[rises ? "up" : "down"];
    const width = this.#body();
    const [top, bottom] = [pane.y(Math.max(candle.open, candle.close)), pane.y(Math.min(candle.open, candle.close))];
    context.strokeStyle = context.fillStyle = colour;
    context.globalAlpha = candle.isFinal ? 1 : 0.65;
    const middle = Math.round(x - 0.5) + 0.5;
    context.lineWidth = width > 9 ? 1.4 : 1;
    context.beginPath();
    context.moveTo(middle, pane.y(candle.high));
    context.lineTo(middle, top);
    context.moveTo(middle, bottom);
    context.lineTo(middle, pane.y(candle.low));
    context.stroke();
    const height = Math.max(bottom - top, 1.4);
    const hollow = width > 3 && (candle.quality === "PARTIAL" || candle.quality === "GAPPED" || !candle.isFinal);
    if (hollow) {
      context.fillStyle = this.paint.panel;
      context.fillRect(x - width / 2, top, width, height);
      if (!candle.isFinal) context.setLineDash([2, 2]);
      context.strokeRect(x - width / 2 + 0.5, top + 0.5, Math.max(width - 1, 1), Math.max(height - 1, 0.5));
      context.setLineDash([]);
    } else {
      context.fillRect(x - width / 2, top, width, height);
    }
    context.globalAlpha = 1;
    context.lineWidth = 1;
  }

  /** The strip that tells the quality of every candle, whatever its price does. */
  #ribbon() {
    const { context } = this;
    const { top, height } = this.area.ribbon;
    this.seen.forEach((candle, index) => {
      if (!candle.isFinal) return;
      const left = this.x(this.first + index) - this.slot / 2;
      const inset = this.slot > 5 ? 1 : 0;
      const healing = this.#healing(candle);
      context.fillStyle = this.paint[candle.quality.toLowerCase()] ?? this.paint.complete;
      context.globalAlpha = candle.quality === "COMPLETE" ? 0.3 : 1;
      const grown = healing > 0 ? 4 * healing : 0;
      context.fillRect(left + inset, top - grown, Math.max(this.slot - 2 * inset, 0.8), height - 2 + 2 * grown);
    });
    context.globalAlpha = 1;
  }

  #grid(pane, count = Math.max(2, Math.floor(pane.height / 54))) {
    const { context } = this;
    const { lines, decimals } = valueLines(pane.range.low, pane.range.high, count);
    pane.lines = lines;
    pane.lineDecimals = decimals;
    context.strokeStyle = this.paint.grid;
    context.beginPath();
    for (const value of lines) {
      const y = Math.round(pane.y(value)) + 0.5;
      context.moveTo(0, y);
      context.lineTo(this.area.plot, y);
    }
    context.stroke();
  }

  #scale(pane) {
    const { context } = this;
    context.fillStyle = this.paint.muted;
    context.textAlign = "left";
    const left = this.area.plot + 8;
    if (pane.kind === "feature") {
      context.strokeStyle = this.paint.grid;
      context.beginPath();
      context.moveTo(0, Math.round(pane.top - GAP / 2) + 0.5);
      context.lineTo(this.width, Math.round(pane.top - GAP / 2) + 0.5);
      context.stroke();
    }
    if (!pane.range) {
      if (pane.kind === "feature") context.fillText("no values", 8, pane.top + pane.height / 2);
      return;
    }
    if (pane.kind === "volume") {
      context.fillText(compact(pane.range.high / 1.1), left, pane.top + 7);
      return;
    }
    for (const value of pane.lines ?? []) {
      const y = pane.y(value);
      if (y < pane.top + 6 || y > pane.top + pane.height - 6) continue;
      if (pane.kind === "price" && Math.abs(y - pane.y(this.candles[this.candles.length - 1].close)) < 14) continue;
      context.fillText(pane.kind === "price" ? fixed(value, pane.lineDecimals) : compact(value), left, y);
    }
  }

  #times() {
    const { context, area } = this;
    const stepUs = timeStep(this.stepUs, 74 / this.slot);
    context.textAlign = "center";
    let behind = -Infinity;
    for (let place = this.first; place < this.after; place += 1) {
      const timeUs = this.candles[place].time;
      if (timeUs % stepUs !== 0) continue;
      const x = this.x(place);
      const label = timeLabel(timeUs, stepUs);
      const half = context.measureText(label.text).width / 2;
      context.strokeStyle = this.paint.grid;
      context.beginPath();
      context.moveTo(Math.round(x) + 0.5, 0);
      context.lineTo(Math.round(x) + 0.5, area.times.top);
      context.stroke();
      if (x - half < Math.max(behind + 12, 0) || x + half > area.plot) continue;
      behind = x + half;
      context.fillStyle = label.strong ? this.paint.text : this.paint.muted;
      context.fillText(label.text, x, area.times.top + area.times.height / 2 + 1);
    }
  }

  #lastPrice() {
    const candle = this.candles[this.candles.length - 1];
    const pane = this.area.panes[0];
    if (!candle || !pane.range || candle.close < pane.range.low || candle.close > pane.range.high) return;
    const colour = this.paint[candle.close >= candle.open ? "up" : "down"];
    const y = Math.round(pane.y(candle.close)) + 0.5;
    this.context.strokeStyle = colour;
    this.context.setLineDash([2, 3]);
    this.context.globalAlpha = 0.8;
    this.context.beginPath();
    this.context.moveTo(0, y);
    this.context.lineTo(this.area.plot, y);
    this.context.stroke();
    this.context.globalAlpha = 1;
    this.context.setLineDash([]);
    this.#tag(fixed(candle.close, pane.decimals), y, colour, "#fff");
  }

  #cross() {
    if (this.hover === null) return;
    const { context, area } = this;
    const { place, y } = this.hover;
    const x = Math.round(this.x(place)) + 0.5;
    if (x < 0 || x > area.plot) return;
    context.strokeStyle = this.paint.faint;
    context.setLineDash([4, 4]);
    context.beginPath();
    context.moveTo(x, 0);
    context.lineTo(x, area.times.top);
    const pane = area.panes.find((each) => y >= each.top && y <= each.top + each.height);
    if (pane?.y) {
      context.moveTo(0, Math.round(y) + 0.5);
      context.lineTo(area.plot, Math.round(y) + 0.5);
    }
    context.stroke();
    context.setLineDash([]);
    if (pane?.y) {
      const value = pane.range.high - ((y - pane.top) / pane.height) * (pane.range.high - pane.range.low);
      const text = pane.kind === "price" ? fixed(value, Math.min(pane.decimals, 8)) : compact(value);
      this.#tag(text, y, this.paint.faint, this.paint.text);
    }
  }

  #tag(text, y, back, front) {
    const { context } = this;
    context.fillStyle = back;
    context.beginPath();
    context.roundRect(this.area.plot + 2, y - 9, this.area.axis - 4, 18, 4);
    context.fill();
    context.fillStyle = front;
    context.textAlign = "left";
    context.fillText(text, this.area.plot + 8, y + 0.5);
  }

  #clipped(pane, draw) {
    this.context.save();
    this.context.beginPath();
    this.context.rect(0, pane.top, this.area.plot, pane.height);
    this.context.clip();
    draw();
    this.context.restore();
  }

  #body() {
    return Math.max(1, Math.min(this.slot * 0.72, 22));
  }

  /** How fresh the repair of a candle is: 1 just now, 0 long ago. */
  #healing(candle) {
    const since = this.heals.get(candle.time);
    if (since === undefined) return 0;
    return Math.max(1 - (this.now - since) / HEAL_MS, 0);
  }
}

const scaled = (pane, range) => (value) =>
  pane.top + ((range.high - value) / (range.high - range.low)) * pane.height;

export const numberOf = (value) => (typeof value === "boolean" ? Number(value) : typeof value === "number" ? value : NaN);
