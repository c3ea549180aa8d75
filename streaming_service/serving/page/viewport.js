// Which candles are seen: a window over their places, moved and stretched by the reader, or following the newest.

const LEAST = 12;
const ROOM = 3;

export class Viewport {
  constructor() {
    this.count = 0; // Candles there are.
    this.slots = 90; // Candles that there is room for.
    this.width = 90; // Candles seen.
    this.right = 0; // Place of the right edge.
    this.following = true;
    this.chosen = false; // Whether the reader chose the width.
  }

  get left() {
    return this.right - this.width;
  }

  /** Places of the first and behind the last candle to be drawn. */
  get span() {
    return [Math.max(0, Math.floor(this.left)), Math.min(this.count, Math.ceil(this.right))];
  }

  reset(slots) {
    this.chosen = false;
    this.following = true;
    this.fit(slots);
  }

  /** There is room for so many candles; they are seen unless the reader chose otherwise. */
  fit(slots) {
    this.slots = slots;
    this.resize(this.count);
  }

  /** So many candles are there now. A few of them are drawn wider than many. */
  resize(count) {
    this.count = count;
    if (!this.chosen) this.width = Math.max(LEAST, Math.min(this.slots, Math.max(this.slots * 0.4, count + ROOM)));
    if (this.following) this.right = count + ROOM;
    this.#keep();
  }

  /** So many older candles have come in front. */
  shift(count) {
    this.count += count;
    this.right += count;
  }

  move(candles) {
    this.right += candles;
    this.following = this.right >= this.count + ROOM - 0.5;
    this.#keep();
  }

  /** Show `factor` times as many candles around a place that stays where it is. */
  zoom(factor, around) {
    const width = Math.min(Math.max(this.width * factor, LEAST), Math.max(this.count + 2 * ROOM, LEAST * 2, 200));
    const share = (this.right - around) / this.width;
    this.width = width;
    this.chosen = true;
    this.right = this.following ? this.count + ROOM : around + share * width;
    this.#keep();
  }

  follow() {
    this.following = true;
    this.resize(this.count);
  }

  #keep() {
    const most = this.count + ROOM;
    this.right = Math.min(this.right, Math.max(most, this.width));
    this.right = Math.max(this.right, Math.min(this.width * 0.5, most));
  }
}
