// The chart: a canvas that shows candles and feature panes, and moves under mouse, fingers and keys.
import { Painter, axisWidth, colours, layout } from "/page/paint.js";
import { Viewport } from "/page/viewport.js";

const SLOT = 9; // Pixels of a candle before the reader zooms.
const CALM = matchMedia("(prefers-reduced-motion: reduce)");

export class Chart {
  /** onHover: gets a candle, or null. onView: called when what is seen changes. */
  constructor(box, { onHover, onView }) {
    this.box = box;
    this.canvas = box.querySelector("canvas");
    this.viewport = new Viewport();
    this.store = null;
    this.features = [];
    this.hover = null;
    this.heals = new Map();
    this.pointers = new Map();
    this.handlers = { onHover, onView };
    this.paint = colours();
    new ResizeObserver(() => this.#resize()).observe(box);
    document.addEventListener("themechange", () => {
      this.paint = colours();
      this.redraw();
    });
    this.#listen();
    this.#resize();
  }

  show(store) {
    this.store = store;
    this.hover = null;
    this.heals.clear();
    this.viewport.count = store.list.length;
    this.viewport.reset(this.#slots());
    this.redraw();
  }

  /** Candles came, or changed. */
  refresh() {
    this.viewport.resize(this.store.list.length);
    this.redraw();
  }

  /** So many older candles came in front of the others. */
  extend(count) {
    this.viewport.shift(count);
    this.redraw();
  }

  setFeatures(features) {
    this.features = features;
    this.redraw();
  }

  /** A candle has just been repaired: let it be seen. */
  heal(time) {
    if (!CALM.matches) this.heals.set(time, performance.now());
  }

  follow() {
    this.viewport.follow();
    this.redraw();
  }

  /** The candles that can be seen now. */
  seen() {
    const [first, after] = this.viewport.span;
    return this.store ? this.store.list.slice(first, after) : [];
  }

  redraw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      if (this.store) this.#draw();
      this.handlers.onView();
    });
  }

  #draw() {
    const { width, height } = this;
    const context = this.canvas.getContext("2d");
    this.area = layout(width, height, this.features.length, axisWidth(context, this.store.list));
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    const painter = new Painter(context, {
      candles: this.store.list,
      stepUs: this.store.stepUs,
      viewport: this.viewport,
      features: this.features,
      area: this.area,
      paint: this.paint,
      hover: this.hover,
      heals: this.heals,
      now: performance.now(),
      width,
      height,
    });
    if (painter.draw()) this.redraw();
  }

  #slots() {
    return Math.round(this.#plot() / SLOT);
  }

  #resize() {
    this.width = Math.max(this.box.clientWidth, 200);
    this.height = Math.max(this.box.clientHeight, 160);
    this.ratio = Math.min(window.devicePixelRatio || 1, 3);
    this.canvas.width = Math.round(this.width * this.ratio);
    this.canvas.height = Math.round(this.height * this.ratio);
    this.viewport.fit(this.#slots());
    // At once: a canvas that was resized is empty.
    if (this.store) this.#draw();
  }

  #listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => this.#up(event));
    canvas.addEventListener("pointerleave", () => this.#point(null));
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("dblclick", () => this.#reset());
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  #down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event.clientX);
    if (event.pointerType !== "mouse") this.#point(event);
  }

  #move(event) {
    const before = this.pointers.get(event.pointerId);
    if (before === undefined) {
      this.#point(event);
      return;
    }
    if (this.pointers.size === 2) {
      this.#pinch(event, before);
    } else {
      this.viewport.move(((before - event.clientX) / this.#plot()) * this.viewport.width);
      if (event.pointerType === "mouse") this.#point(event);
    }
    this.pointers.set(event.pointerId, event.clientX);
    this.redraw();
  }

  #pinch(event, before) {
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
    const [was, is] = [Math.abs(before - other), Math.abs(event.clientX - other)];
    const middle = (event.clientX + other) / 2 - this.canvas.getBoundingClientRect().left;
    if (was > 8 && is > 8) this.viewport.zoom(was / is, this.#placeAt(middle));
  }

  #up(event) {
    this.pointers.delete(event.pointerId);
  }

  #wheel(event) {
    // A page that cannot be scrolled past its chart is no fun: plain wheels zoom only with the chart in focus or a key.
    const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (!sideways && !event.ctrlKey && !event.shiftKey && document.activeElement !== this.canvas) return;
    event.preventDefault();
    const delta = event.deltaMode === 1 ? 16 : 1;
    if (sideways) this.viewport.move(((event.deltaX * delta) / this.#plot()) * this.viewport.width);
    else this.viewport.zoom(Math.exp(((event.deltaY || event.deltaX) * delta) / 400), this.#placeAt(event.offsetX));
    this.redraw();
  }

  #key(event) {
    const steps = {
      ArrowLeft: () => this.viewport.move(-this.viewport.width * 0.1),
      ArrowRight: () => this.viewport.move(this.viewport.width * 0.1),
      "+": () => this.viewport.zoom(0.8, this.viewport.right),
      "=": () => this.viewport.zoom(0.8, this.viewport.right),
      "-": () => this.viewport.zoom(1.25, this.viewport.right),
      Home: () => this.viewport.move(-this.viewport.count),
      End: () => this.viewport.follow(),
    };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    steps[event.key]();
    this.redraw();
  }

  #reset() {
    this.viewport.reset(this.#slots());
    this.redraw();
  }

  #plot() {
    return this.area?.plot ?? this.width;
  }

  #placeAt(x) {
    return this.viewport.left + (x / this.#plot()) * this.viewport.width;
  }

  #point(event) {
    if (event === null) {
      this.hover = null;
    } else {
      const box = this.canvas.getBoundingClientRect();
      const place = Math.floor(this.#placeAt(event.clientX - box.left));
      this.hover = { place, y: event.clientY - box.top };
    }
    const candle = this.hover ? (this.store?.list[this.hover.place] ?? null) : null;
    this.handlers.onHover(candle);
    this.redraw();
  }
}
