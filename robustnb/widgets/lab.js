// The laboratory's view: it draws the measured table, the exact values and the reader's runs, and asks the
// kernel, if there is one, to train. All its state lives in the model, so that ipywidgets controls linked
// in the browser (jslink) move it with no kernel behind.
// @ts-check

/**
 * @typedef {"stability" | "lazy_ratio" | "test_accuracy"} Measure
 * @typedef {{init: number[], depth: number[], width: number[], n: number[], exact: number[]} &
 *   Record<`${Measure}${"" | "_error"}`, (number | null)[]>} Table  columns of equal length
 * @typedef {{init: number, width: number, depth: number, lr: number, epochs: number, seed: number}} Setting
 * @typedef {Setting & Record<Measure, number | null> & {diverged_at: number | null}} Finished
 * @typedef {{x: number, y: number, low?: number, high?: number}} Point
 * @typedef {{points: Point[], style: string, color: string, marker?: string, name: string}} Line
 */

const SVG = "http://www.w3.org/2000/svg";
const MEASURES = /** @type {const} */ (["stability", "lazy_ratio", "test_accuracy"]);
const AXES = /** @type {const} */ (["width", "depth"]);
/** @type {Record<Measure | "width" | "depth", {title: string, short: string, log: boolean}>} */
const SCALES = {
  stability: { title: "P/ε after training (larger = less stable)", short: "P/ε", log: true },
  lazy_ratio: { title: "lazy training ratio κ (smaller = lazier)", short: "lazy ratio κ", log: true },
  test_accuracy: { title: "accuracy on test data", short: "accuracy", log: false },
  width: { title: "width m (neurons in a layer)", short: "width", log: true },
  depth: { title: "depth L (weight matrices)", short: "depth", log: false },
};
// One shape for each initialization, so that lines can be told apart without their colours.
const MARKERS = ["M-4,0A4,4 0 1,0 4,0A4,4 0 1,0 -4,0Z", "M-4,-4H4V4H-4Z", "M0,-5L5,4H-5Z", "M0,-5.5L5.5,0L0,5.5L-5.5,0Z", "M0,5L5,-4H-5Z"];

/** @param {string} tag @param {Record<string, string | number>} [attributes] @param {string} [text] */
function svg(tag, attributes = {}, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  if (text !== undefined) node.textContent = text;
  return node;
}

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag @param {string} [className] @param {string} [text]
 */
function html(tag, className = "", text = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

/** A number as a reader wants it: three significant digits, no exponent unless it is needed. @param {number | null} value */
function format(value, digits = 3) {
  if (value === null || !Number.isFinite(value)) return "–";
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5)) {
    const [mantissa, exponent] = value.toExponential(1).split("e");
    return `${mantissa} · 10${superscript(Number(exponent))}`;
  }
  return String(Number(value.toPrecision(digits)));
}

/** @param {number} n */
const superscript = (n) => [...String(n)].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(c)] ?? "⁻").join("");

/**
 * A scale from data to pixels with its ticks: powers of ten or of two on log axes, round numbers on linear ones.
 * @param {number[]} values @param {boolean} log @param {number} start @param {number} end @param {number[]} [fixed] the ticks, if given
 */
function scale(values, log, start, end, fixed) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (!(high > low)) [low, high] = log ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
  if (!Number.isFinite(low)) [low, high] = [0.1, 1];
  const f = log ? Math.log10 : (/** @type {number} */ v) => v;
  const margin = (f(high) - f(low)) * 0.06;
  const [from, to] = [f(low) - margin, f(high) + margin];
  const place = (/** @type {number} */ v) => start + ((f(v) - from) / (to - from)) * (end - start);
  return { place, ticks: fixed ?? (log ? logTicks(from, to) : linearTicks(from, to)) };
}

/** @param {number} from @param {number} to */
function logTicks(from, to) {
  const steps = to - from > 2.2 ? [1] : to - from > 0.9 ? [1, 3] : to - from > 0.35 ? [1, 2, 5] : [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8];
  const skip = Math.max(1, Math.ceil((to - from) / 6));
  const ticks = [];
  for (let decade = Math.floor(from); decade <= to; decade++) {
    if (steps.length === 1 && decade % skip) continue;
    for (const step of steps) {
      const value = step * 10 ** decade;
      if (Math.log10(value) >= from && Math.log10(value) <= to) ticks.push(value);
    }
  }
  return ticks;
}

/** @param {number} from @param {number} to */
function linearTicks(from, to) {
  const rough = (to - from) / 4;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * ([1, 2, 5, 10].find((s) => s * unit >= rough) ?? 10);
  const ticks = [];
  for (let k = Math.ceil(from / step); k * step <= to; k++) ticks.push(Number((k * step).toPrecision(6)));
  return ticks;
}

/**
 * One plot, drawn anew: axes, lines with bands and markers, and the chosen setting's rule.
 * @param {Element} root an svg element @param {{width: number, height: number, x: "width" | "depth", y: Measure,
 *   ticks: number[], lines: Line[], runs: Point[], chosen: number, color: string, description: string, compact: boolean}} plot
 */
function draw(root, plot) {
  const { width, height, lines, runs } = plot;
  const margin = { left: plot.compact ? 44 : 56, right: 12, top: plot.compact ? 22 : 26, bottom: plot.compact ? 24 : 40 };
  const points = lines.flatMap((line) => line.points).concat(runs);
  const positive = (/** @type {number} */ v) => !SCALES[plot.y].log || v > 0;
  const heights = points.flatMap((p) => [p.y, p.low ?? p.y, p.high ?? p.y]).filter(positive);
  const xs = scale(plot.ticks, SCALES[plot.x].log, margin.left, width - margin.right, plot.ticks);
  const ys = scale(heights, SCALES[plot.y].log, height - margin.bottom, margin.top);

  root.replaceChildren();
  root.setAttribute("viewBox", `0 0 ${width} ${height}`);
  root.setAttribute("width", String(width));
  root.setAttribute("height", String(height));
  root.setAttribute("aria-label", plot.description);
  root.append(svg("text", { x: 4, y: 14, class: "rnb-title" }, SCALES[plot.y][plot.compact ? "short" : "title"]));
  const every = plot.compact ? 2 : 1;
  for (const [i, tick] of plot.ticks.entries()) {
    const x = xs.place(tick);
    root.append(svg("line", { x1: x, x2: x, y1: margin.top, y2: height - margin.bottom, class: "rnb-grid" }));
    if (i % every === 0) root.append(svg("text", { x, y: height - margin.bottom + 15, class: "rnb-tick", "text-anchor": "middle" }, String(tick)));
  }
  for (const tick of ys.ticks) {
    const y = ys.place(tick);
    root.append(svg("line", { x1: margin.left, x2: width - margin.right, y1: y, y2: y, class: "rnb-grid" }));
    root.append(svg("text", { x: margin.left - 6, y: y + 4, class: "rnb-tick", "text-anchor": "end" }, format(tick)));
  }
  if (!plot.compact) {
    root.append(svg("text", { x: (margin.left + width - margin.right) / 2, y: height - 6, class: "rnb-title", "text-anchor": "middle" }, SCALES[plot.x].title));
  }
  const rule = xs.place(plot.chosen);
  root.append(svg("line", { x1: rule, x2: rule, y1: margin.top, y2: height - margin.bottom, class: "rnb-rule" }));

  for (const line of lines) {
    const shown = line.points.filter((p) => positive(p.y));
    const floor = Math.min(...heights);
    const group = svg("g", { class: `rnb-line rnb-${line.style}`, style: `color: ${line.color}`, "data-name": line.name });
    const banded = shown.filter((p) => p.low !== undefined && p.high !== undefined);
    if (banded.length > 1) {
      const top = banded.map((p) => `${xs.place(p.x)},${ys.place(/** @type {number} */ (p.high))}`);
      const bottom = banded.map((p) => `${xs.place(p.x)},${ys.place(Math.max(/** @type {number} */ (p.low), floor))}`).reverse();
      group.append(svg("polygon", { points: [...top, ...bottom].join(" "), class: "rnb-band" }));
    }
    group.append(svg("polyline", { points: shown.map((p) => `${xs.place(p.x)},${ys.place(p.y)}`).join(" ") }));
    if (line.marker) {
      for (const p of shown) {
        group.append(svg("path", { d: line.marker, transform: `translate(${xs.place(p.x)},${ys.place(p.y)})` }));
      }
    }
    root.append(group);
  }
  const here = lines.find((line) => line.style === "chosen")?.points.find((p) => p.x === plot.chosen);
  if (here && positive(here.y)) root.append(svg("circle", { cx: rule, cy: ys.place(here.y), r: 8, class: "rnb-here" }));
  for (const run of runs.filter((p) => positive(p.y))) {
    root.append(svg("path", { d: "M-6,-6L6,6M-6,6L6,-6", transform: `translate(${xs.place(run.x)},${ys.place(run.y)})`, class: "rnb-mine" }));
  }
}

/** @param {{model: any, el: HTMLElement}} context */
function render({ model, el }) {
  const root = html("div", "rnb-lab");
  const readout = html("p", "rnb-readout");
  readout.setAttribute("role", "status");
  const plots = html("div", "rnb-plots");
  const [main, ...side] = MEASURES.map((_, i) => svg("svg", { role: "img", class: i ? "rnb-small" : "rnb-main" }));
  const sideBox = html("div", "rnb-side");
  sideBox.append(...side);
  plots.append(main, sideBox);
  const legend = html("ul", "rnb-legend");
  const bench = html("div", "rnb-bench");
  const train = html("button", "rnb-button rnb-train", "Train");
  const stop = html("button", "rnb-button rnb-stop", "Stop");
  const progress = html("progress", "rnb-progress");
  const status = html("span", "rnb-status");
  status.setAttribute("role", "status");
  progress.setAttribute("aria-label", "epochs trained");
  const error = html("p", "rnb-error");
  error.setAttribute("role", "alert");
  bench.append(train, stop, progress, status);
  const details = html("details", "rnb-numbers");
  const numbers = html("table");
  details.append(html("summary", "", "The numbers behind this plot"), numbers);
  root.append(readout, plots, legend, bench, error, details);
  el.append(root);

  const live = () => Boolean(model.comm_live ?? model.widget_manager?.kernel);

  /** @returns {Setting} */
  const setting = () => ({
    init: model.get("init_index"),
    width: model.get("widths")[model.get("width_index")],
    depth: model.get("depths")[model.get("depth_index")],
    lr: model.get("lr"),
    epochs: model.get("epochs"),
    seed: model.get("seed"),
  });

  /** The rows of the table for one initialization, along the x axis, with the other coordinate as chosen.
   * @param {number} init @param {"width" | "depth"} x @param {Setting} chosen */
  function curve(init, x, chosen) {
    /** @type {Table} */
    const table = model.get("table");
    const other = x === "width" ? "depth" : "width";
    return table.init
      .map((_, row) => row)
      .filter((row) => table.init[row] === init && table[other][row] === chosen[other])
      .sort((a, b) => table[x][a] - table[x][b]);
  }

  /** @param {number[]} rows @param {"width" | "depth"} x @param {Measure} y @returns {Point[]} */
  function measured(rows, x, y) {
    const table = model.get("table");
    return rows
      .filter((row) => table[y][row] !== null)
      .map((row) => {
        const [mean, error] = [table[y][row], table[`${y}_error`][row]];
        return { x: table[x][row], y: mean, low: mean - 2 * error, high: mean + 2 * error };
      });
  }

  /** @param {Measure} y @param {"width" | "depth"} x @param {Setting} chosen @returns {Line[]} */
  function linesFor(y, x, chosen) {
    const table = model.get("table");
    const labels = /** @type {string[]} */ (model.get("init_labels"));
    const colors = model.get("colors");
    const order = labels.map((_, init) => init).sort((a, b) => Number(a === chosen.init) - Number(b === chosen.init));
    /** @type {Line[]} */
    const lines = order.map((init) => ({
      points: measured(curve(init, x, chosen), x, y),
      style: init === chosen.init ? "chosen" : "other",
      color: colors[init],
      marker: MARKERS[init % MARKERS.length],
      name: labels[init],
    }));
    if (y === "stability") {
      const points = curve(chosen.init, x, chosen).map((row) => ({ x: table[x][row], y: table.exact[row] }));
      lines.unshift({ points, style: "exact", color: colors[chosen.init], name: "exact, before training" });
    }
    return lines.filter((line) => line.points.length);
  }

  function redraw() {
    const chosen = setting();
    const x = AXES[model.get("x_index")];
    const other = x === "width" ? "depth" : "width";
    const first = MEASURES[model.get("y_index")];
    const labels = model.get("init_labels");
    const color = model.get("colors")[chosen.init];
    const ticks = model.get(`${x}s`);
    /** @type {Table} */
    const table = model.get("table");
    const rows = curve(chosen.init, x, chosen);
    const row = rows.find((r) => table[x][r] === chosen[x]);
    const mine = model.get("runs").filter((/** @type {Finished} */ r) => r.init === chosen.init && r[other] === chosen[other]);

    const name = `${labels[chosen.init]}, width ${chosen.width}, depth ${chosen.depth}`;
    const exact = row === undefined ? null : table.exact[row];
    const known = row !== undefined && table.stability[row] !== null;
    readout.replaceChildren(html("strong", "", name), known
      ? `: P/ε = ${format(table.stability[row])} ± ${format(table.stability_error[row], 2)} after training (mean and standard error of ${table.n[row]} seeds), `
        + `${format(exact)} before (exact). κ = ${format(table.lazy_ratio[row])}, accuracy ${format(table.test_accuracy[row])}.`
      : `: not in the measured table. P/ε before training is ${format(exact)} (exact).`);

    const total = plots.clientWidth || 640;
    const wide = total > 620;
    const mainWidth = wide ? Math.round(total * 0.64) : total;
    const smallWidth = wide ? total - mainWidth - 12 : Math.round((total - 12) / 2);
    const rest = MEASURES.filter((m) => m !== first);
    for (const [i, y] of [first, ...rest].entries()) {
      const lines = linesFor(y, x, chosen);
      draw([main, ...side][i], {
        width: i ? smallWidth : mainWidth,
        height: i ? (wide ? 163 : 150) : wide ? 338 : 280,
        x, y, ticks, lines, color, chosen: chosen[x], compact: i > 0,
        runs: mine.filter((/** @type {Finished} */ r) => r[y] !== null).map((/** @type {Finished} */ r) => ({ x: r[x], y: r[y] })),
        description: describe(lines, x, y, `${labels[chosen.init]}, ${other} ${chosen[other]}`),
      });
    }
    redrawLegend(linesFor(first, x, chosen), mine.length);
    redrawNumbers(rows, x, table);
    redrawBench();
  }

  /** The plot in words. @param {Line[]} lines @param {"width" | "depth"} x @param {Measure} y @param {string} which */
  function describe(lines, x, y, which) {
    const line = lines.find((l) => l.style === "chosen");
    const start = `${SCALES[y].title} against ${SCALES[x].title}. `;
    if (!line) return `${start}${which}: nothing measured.`;
    const extreme = line.points.reduce((a, b) => (b.y > a.y ? b : a));
    const [a, b] = [line.points[0], line.points[line.points.length - 1]];
    return `${start}${which}: ${format(a.y)} at ${x} ${a.x}, largest ${format(extreme.y)} at ${x} ${extreme.x}, ${format(b.y)} at ${x} ${b.x}.`;
  }

  /** @param {Line[]} lines @param {number} mine */
  function redrawLegend(lines, mine) {
    legend.replaceChildren();
    const entries = [...lines].sort((a, b) => Number(a.style !== "chosen") - Number(b.style !== "chosen"));
    for (const line of entries) {
      const item = html("li");
      const key = svg("svg", { width: 30, height: 12, "aria-hidden": "true" });
      const group = svg("g", { class: `rnb-line rnb-${line.style}`, style: `color: ${line.color}`, transform: "translate(0,6)" });
      group.append(svg("polyline", { points: "0,0 30,0" }));
      if (line.marker) group.append(svg("path", { d: line.marker, transform: "translate(15,0)" }));
      key.append(group);
      item.append(key, line.name);
      legend.append(item);
    }
    if (mine) {
      const item = html("li");
      const key = svg("svg", { width: 16, height: 14, "aria-hidden": "true" });
      key.append(svg("path", { d: "M-5,-5L5,5M-5,5L5,-5", transform: "translate(8,7)", class: "rnb-mine" }));
      item.append(key, "your runs");
      legend.append(item);
    }
    legend.append(html("li", "rnb-note", "band: ± 2 standard errors over seeds"));
  }

  /** @param {number[]} rows @param {"width" | "depth"} x @param {Table} table */
  function redrawNumbers(rows, x, table) {
    const head = html("tr");
    for (const title of [SCALES[x].short, "P/ε", "± s.e.", "P/ε before (exact)", "κ", "accuracy", "seeds"]) {
      const cell = html("th", "", title);
      cell.scope = "col";
      head.append(cell);
    }
    const body = rows.map((row) => {
      const line = html("tr");
      const values = [table.stability[row], table.stability_error[row], table.exact[row], table.lazy_ratio[row], table.test_accuracy[row]];
      for (const text of [String(table[x][row]), ...values.map((v) => format(v)), String(table.n[row])]) line.append(html("td", "", text));
      return line;
    });
    numbers.replaceChildren(head, ...body);
  }

  function redrawBench() {
    const { lr, epochs, seed, init, width, depth } = setting();
    const state = model.get("progress");
    const running = Boolean(state.running);
    train.disabled = !live();
    stop.disabled = !running;
    progress.max = state.epochs || 1;
    progress.value = state.epoch || 0;
    progress.hidden = !running;
    const next = `${model.get("init_labels")[init]}, width ${width}, depth ${depth}; learning rate ${lr}, ${epochs} epochs, seed ${seed}`;
    if (running) {
      status.textContent = `Epoch ${state.epoch} of ${state.epochs}: loss ${format(state.train_loss)}, P/ε ${format(state.stability)}, κ ${format(state.lazy_ratio)}`;
    } else if (state.message) {
      status.textContent = `${state.message} Next: ${next}.`;
    } else {
      status.textContent = live() ? `Next: ${next}.` : `Next: ${next}. Training needs a kernel: open this chapter in JupyterLab.`;
    }
    error.textContent = model.get("error");
  }

  train.addEventListener("click", () => model.send({ kind: "train", setting: setting() }));
  stop.addEventListener("click", () => model.send({ kind: "stop" }));
  const whole = ["table", "runs", "width_index", "depth_index", "init_index", "x_index", "y_index"];
  const bottom = ["lr", "epochs", "seed", "progress", "error"];
  const events = [[whole, redraw], [bottom, redrawBench]].map(([names, f]) => [/** @type {string[]} */ (names).map((n) => `change:${n}`).join(" "), f]);
  for (const [names, f] of events) model.on(names, f);
  const resized = new ResizeObserver(redraw);
  resized.observe(plots);
  redraw();
  return () => {
    resized.disconnect();
    for (const [names, f] of events) model.off(names, f);
  };
}

export default { render };
