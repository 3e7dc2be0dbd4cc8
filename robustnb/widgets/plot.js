// The laboratory's drawing: scales, axes, lines and bands as SVG. A plain script, joined with the others into one module (lab.py).
// @ts-check

/**
 * @typedef {"stability" | "lazy_ratio" | "test_accuracy"} Measure
 * @typedef {{title: string, short: string, log: boolean}} Axis
 * @typedef {{x: number, y: number, low?: number, high?: number, hollow?: boolean, label?: string}} Point  hollow: untrained
 * @typedef {{points: Point[], style: string, color: string, marker?: string, name: string}} Line
 * @typedef {ReturnType<typeof scale>} Scale
 * @typedef {{left: number, right: number, top: number, bottom: number, x: Scale, y: Scale}} Frame
 */

const SVG = "http://www.w3.org/2000/svg";
/** @type {Record<Measure | "width" | "depth" | "epoch" | "train_loss", Axis>} */
const SCALES = {
  stability: { title: "P/ε after training (larger = less stable)", short: "P/ε", log: true },
  lazy_ratio: { title: "lazy training ratio κ (smaller = lazier)", short: "lazy ratio κ", log: true },
  test_accuracy: { title: "accuracy on test data", short: "accuracy", log: false },
  width: { title: "width m (neurons in a layer)", short: "width", log: true },
  depth: { title: "depth L (weight matrices)", short: "depth", log: false },
  epoch: { title: "epoch", short: "epoch", log: false },
  train_loss: { title: "loss on training data", short: "loss", log: true },
};
const UNMEASURED = "var(--rnb-ink)"; // for an initialization that has no colour of its own
const CROSS = "M-6,-6L6,6M-6,6L6,-6";
const RING = "M-5,0A5,5 0 1,0 5,0A5,5 0 1,0 -5,0Z"; // in its place for a run that has learned nothing

/** @param {Element} node @param {Record<string, string | number>} attributes */
function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
}

/** @param {string} tag @param {Record<string, string | number>} [attributes] @param {string} [text] @returns {SVGElement} */
function svg(tag, attributes = {}, text) {
  const node = /** @type {SVGElement} */ (document.createElementNS(SVG, tag));
  set(node, attributes);
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

/** A paragraph for a message that a screen reader speaks when it changes. @param {string} className @param {string} [role] */
function spoken(className, role = "status") {
  const node = html("p", className);
  node.setAttribute("role", role);
  return node;
}

/** Put a text where it is spoken, once: one that is set anew is spoken anew. @param {HTMLElement} node @param {string} text */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A button; while it is off it stays where the keyboard can find it. @param {string} name @param {() => void} press
 * @param {(act: () => void) => void} attempt does it, and shows what goes wrong */
function button(name, press, attempt) {
  const node = html("button", `rnb-button rnb-${name.split(" ")[0].toLowerCase()}`, name);
  node.type = "button";
  node.addEventListener("click", () => { if (node.ariaDisabled !== "true") attempt(press); });
  return node;
}

/** @param {HTMLElement} node @param {boolean} on */
const enable = (node, on) => node.setAttribute("aria-disabled", String(!on));

/** A number as a reader wants it: three significant digits, no exponent unless it is needed. @param {number | null} value */
function format(value, digits = 3) {
  if (value === null || !Number.isFinite(value)) return "–";
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5)) {
    const [mantissa, exponent] = value.toExponential(1).split("e");
    return `${mantissa === "1.0" ? "" : `${mantissa} · `}10${superscript(Number(exponent))}`;
  }
  return String(Number(value.toPrecision(digits)));
}

/** @param {number} n */
const superscript = (n) => [...String(n)].map((c) => (c === "." ? "·" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(c)] ?? "⁻")).join("");

/**
 * A scale from data to pixels with its ticks: powers of ten or of two on log axes, round numbers on linear ones. It holds finite values,
 * on log axes those above 0.
 * @param {number[]} values @param {boolean} log @param {number} start @param {number} end @param {number[]} [fixed] the ticks, if given
 */
function scale(values, log, start, end, fixed) {
  const holds = (/** @type {number} */ v) => Number.isFinite(v) && (!log || v > 0);
  const held = values.filter(holds);
  let [low, high] = [Math.min(...held), Math.max(...held)];
  if (!(high > low)) [low, high] = log ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
  if (!Number.isFinite(low)) [low, high] = [0.1, 1];
  const f = log ? Math.log10 : (/** @type {number} */ v) => v;
  const margin = (f(high) - f(low)) * 0.06;
  const [from, to] = [f(low) - margin, f(high) + margin];
  const place = (/** @type {number} */ v) => start + ((f(v) - from) / (to - from)) * (end - start);
  const value = (/** @type {number} */ at) => {
    const v = from + ((at - start) / (end - start)) * (to - from);
    return log ? 10 ** v : v;
  };
  const ticks = fixed ?? (log ? logTicks(from, to) : linearTicks(from, to));
  return { holds, place, value, ticks: ticks.length > 1 ? ticks : linearTicks(low, high) };
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

/** Grid lines across the plot, with their labels. @param {Element} root @param {number} left @param {number} right @param {Scale} scale */
function yAxis(root, left, right, { ticks, place }) {
  for (const tick of ticks) {
    const at = place(tick);
    root.append(
      svg("line", { x1: left, x2: right, y1: at, y2: at, class: "rnb-grid" }),
      svg("text", { x: left - 6, y: at + 4, class: "rnb-tick", "text-anchor": "end" }, format(tick)),
    );
  }
}

/** A grid line at each tick, with a label where there is room for one. @param {Element} root @param {Frame} frame */
function xAxis(root, { left, right, top, bottom, x: { ticks, place } }) {
  const every = Math.ceil((ticks.length * 34) / (right - left));
  for (const [i, tick] of ticks.entries()) {
    const at = place(tick);
    root.append(svg("line", { x1: at, x2: at, y1: top, y2: bottom, class: "rnb-grid" }));
    if (i % every === 0) root.append(svg("text", { x: at, y: bottom + 15, class: "rnb-tick", "text-anchor": "middle" }, String(tick)));
  }
}

/** A line through these places, with its marker at some. @param {Line} line @param {{x: number, y: number}[]} places
 * @param {{x: number, y: number, hollow?: boolean}[]} marked */
function stroke({ style, color, name, marker }, places, marked) {
  const group = svg("g", { class: `rnb-line rnb-${style}`, style: `color: ${color}`, "data-name": name });
  group.append(svg("polyline", { points: places.map(({ x, y }) => `${x},${y}`).join(" ") }));
  if (marker) {
    for (const { x, y, hollow } of marked) {
      group.append(svg("path", { d: marker, transform: `translate(${x},${y})`, class: hollow ? "rnb-hollow" : "" }));
    }
  }
  return group;
}

/** The key of one line in the legend. @param {Line} line */
function legendKey(line) {
  const key = svg("svg", { width: 30, height: 12, "aria-hidden": "true" });
  key.append(stroke(line, [{ x: 0, y: 6 }, { x: 30, y: 6 }], [{ x: 15, y: 6 }]));
  return key;
}

/** One line on its band, and a ring around the chosen setting. @param {Line} line @param {Frame} frame @param {number} [chosen] */
function lineOf(line, { x, y }, chosen) {
  const shown = line.points.filter((p) => y.holds(p.y)).map((p) => ({ ...p, at: p.x, x: x.place(p.x), y: y.place(p.y) }));
  const group = stroke(line, shown, shown);
  const edges = shown.flatMap(({ x, low, high }) => (low === undefined || high === undefined ? [] : [{ x, low: y.place(low), high: y.place(high) }]));
  if (edges.length > 1) {
    const points = [...edges.map(({ x, high }) => `${x},${high}`), ...edges.map(({ x, low }) => `${x},${low}`).reverse()];
    group.prepend(svg("polygon", { points: points.join(" "), class: "rnb-band" }));
  }
  const here = line.style === "chosen" && shown.find((p) => p.at === chosen);
  if (here) group.append(svg("circle", { cx: here.x, cy: here.y, r: 8, class: "rnb-here" }));
  return group;
}

/**
 * One plot, drawn anew: axes, lines with bands and markers, the reader's runs, and the chosen setting's rule.
 * Returns the frame within the axes, and its scales. `xSpan` and `ySpan` are what the axes must show beside the points.
 * @param {Element} root an svg element
 * @param {{width: number, height: number, x: Axis, y: Axis, ticks?: number[], lines: Line[], runs?: Point[], chosen?: number,
 *   xSpan?: number[], ySpan?: number[], description: string, compact: boolean, empty?: string}} plot
 * @returns {Frame}
 */
function draw(root, { width, height, x, y, ticks, lines, runs = [], chosen, xSpan = [], ySpan = [], description, compact, empty = "" }) {
  const [left, right, top, bottom] = compact ? [44, width - 12, 22, height - 24] : [56, width - 12, 26, height - 40];
  const points = lines.flatMap((line) => line.points).concat(runs);
  const xs = scale(ticks ?? points.map((p) => p.x).concat(xSpan), x.log, left, right, ticks);
  const ys = scale(points.flatMap((p) => [p.y, p.low ?? p.y, p.high ?? p.y]).concat(ySpan), y.log, bottom, top);
  const frame = { left, right, top, bottom, x: xs, y: ys };
  const centered = { x: (left + right) / 2, "text-anchor": "middle" };

  root.replaceChildren();
  set(root, { viewBox: `0 0 ${width} ${height}`, width, height, "aria-label": description });
  root.append(svg("text", { x: 4, y: 14, class: "rnb-title" }, compact ? y.short : y.title));
  xAxis(root, frame);
  yAxis(root, left, right, ys);
  if (!compact) root.append(svg("text", { ...centered, y: height - 6, class: "rnb-title" }, x.title));
  if (chosen !== undefined) root.append(svg("line", { x1: xs.place(chosen), x2: xs.place(chosen), y1: top, y2: bottom, class: "rnb-rule" }));
  if (!points.length) {
    const words = svg("text", { ...centered, y: height / 2, class: "rnb-empty" });
    // On a phone its last word has a line of its own.
    const lines = empty.length * 7 > right - left ? empty.split(/(?<= )(?=\S+$)/) : [empty];
    words.append(...lines.map((line, i) => svg("tspan", { x: centered.x, dy: i ? "1.2em" : 0 }, line)));
    root.append(words);
  }
  root.append(...lines.map((line) => lineOf(line, frame, chosen)));
  for (const run of runs.filter((p) => ys.holds(p.y))) {
    const [at, height] = [xs.place(run.x), ys.place(run.y)];
    root.append(svg("path", { d: run.hollow ? RING : CROSS, transform: `translate(${at},${height})`, class: "rnb-mine" }));
    const side = at < right - 60 ? { x: at + 10, "text-anchor": "start" } : { x: at - 10, "text-anchor": "end" };
    if (run.label) root.append(svg("text", { ...side, y: height + 4, class: "rnb-tick" }, run.label));
  }
  return frame;
}
