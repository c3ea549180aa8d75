// Draws the figure that stands in the page, in the colours of the reader's system.
(() => {
  const { data, layout, palettes } = JSON.parse(document.getElementById("figure").textContent);
  const chart = document.getElementById("chart");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const config = {
    responsive: true,
    scrollZoom: true,
    displaylogo: false,
    // Named one by one: newer versions may bring buttons that send the figure elsewhere.
    modeBarButtons: [["toImage"], ["pan2d", "zoom2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
  };
  // Scales that follow what is seen of them: all whose range the figure leaves open.
  const following = Object.keys(layout).filter((name) => name.startsWith("yaxis") && !layout[name].range);
  let hidden = new Set();

  /** The tree with every `@name` or `@name/opacity` as a colour. */
  function painted(node, palette) {
    if (typeof node === "string") return node.replace(/@([a-z]+\d?)(?:\/([\d.]+))?/g, (_, name, opacity) => colour(palette[name], opacity));
    if (Array.isArray(node)) return typeof node[0] === "number" ? node : node.map((each) => painted(each, palette));
    if (node === null || typeof node !== "object") return node;
    return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, painted(value, palette)]));
  }

  function colour(hex, opacity) {
    if (opacity === undefined) return hex;
    const parts = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    return `rgba(${parts.join(",")},${opacity})`;
  }

  function shapes(palette) {
    return painted(layout.shapes, palette).filter((shape) => !hidden.has(shape.name));
  }

  function palette() {
    return dark.matches ? palettes.dark : palettes.light;
  }

  /** Lowest and highest value of a scale among what opens in [from, to]; bars are stacked. */
  function extent(axis, from, to) {
    const traces = data.filter((trace) => `yaxis${(trace.yaxis ?? "y").slice(1)}` === axis);
    const sums = new Map();
    let [low, high] = [Infinity, -Infinity];
    for (const trace of traces) {
      trace.x.forEach((time, at) => {
        if (time === null || time + (trace.xperiod ?? 0) < from || time > to) return;
        if (trace.type === "bar") sums.set(time, (sums.get(time) ?? 0) + trace.y[at]);
        for (const value of trace.type === "candlestick" ? [trace.low[at], trace.high[at]] : [trace.y[at]]) {
          if (value === null || trace.type === "bar") continue;
          low = Math.min(low, value);
          high = Math.max(high, value);
        }
      });
    }
    if (sums.size > 0) return [0, Math.max(...sums.values()) * 1.08 || 1];
    const margin = (high - low) * 0.06 || Math.abs(high) * 0.001 || 1;
    return low > high ? null : [low - margin, high + margin];
  }

  function follow(changed) {
    if (!Object.keys(changed).some((key) => key.startsWith("xaxis"))) return;
    const [from, to] = chart.layout.xaxis.range.map((time) => (typeof time === "number" ? time : Date.parse(`${time.replace(" ", "T")}Z`)));
    const ranges = following.map((axis) => [`${axis}.range`, extent(axis, from, to)]);
    Plotly.relayout(chart, Object.fromEntries(ranges.filter(([, range]) => range !== null)));
  }

  /** An entry of the legend that stands for shaded time switches that off and on. */
  function toggled(event) {
    const kind = data[event.curveNumber]?.meta?.spans;
    if (kind === undefined) return true;
    if (!hidden.delete(kind)) hidden.add(kind);
    Plotly.update(chart, { opacity: hidden.has(kind) ? 0.3 : 1 }, { shapes: shapes(palette()) }, [event.curveNumber]);
    return false;
  }

  const [start, end] = layout.xaxis.range;
  for (const axis of following) layout[axis].range = extent(axis, start, end) ?? [0, 1];
  Plotly.newPlot(chart, painted(data, palette()), { ...painted(layout, palette()), shapes: shapes(palette()) }, config).then(() => {
    chart.on("plotly_relayout", follow);
    chart.on("plotly_legendclick", toggled);
    chart.on("plotly_doubleclick", () => {
      Plotly.relayout(chart, { "xaxis.range": [start, end] });
      return false;
    });
    dark.addEventListener("change", () => {
      const seen = Object.fromEntries(["xaxis", ...following].map((axis) => [axis, { ...painted(layout[axis], palette()), range: chart.layout[axis].range }]));
      Plotly.react(chart, painted(data, palette()), { ...painted(layout, palette()), ...seen, shapes: shapes(palette()) }, config);
    });
    chart.dataset.drawn = "true";
  });
})();
