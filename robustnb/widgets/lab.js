// The laboratory's view: it draws the measured table, the exact values, the reader's runs and the run under way.
// All its state lives in the model, so that ipywidgets controls linked in the browser (jslink) move it with no
// kernel behind; what trains is the kernel (lab.py) or else the page (page.js), which write the same traits.
// @ts-check

/**
 * @typedef {{init: number[], depth: number[], width: number[], n: number[]} &
 *   Record<`${Measure}${"" | "_error"}`, (number | null)[]>} Table  columns of equal length; init is an index into `series`
 * @typedef {{name: string, label: string, color: string}} Series
 * @typedef {Setting & Record<Measure, number | null>} Finished
 */

const MEASURES = /** @type {const} */ (["stability", "lazy_ratio", "test_accuracy"]);
const AXES = /** @type {const} */ (["width", "depth"]);
const LIVE = /** @type {const} */ (["train_loss", "test_accuracy", "stability", "lazy_ratio"]);
const SHARED = ["init_index", "width_index", "depth_index", "c", "x_index", "y_index", "lr", "epochs", "seed"];

/** The page's engine of each model that has no kernel. @type {WeakMap<Model, PageEngine>} */
const engines = new WeakMap();

/** Is there a kernel behind this model? @param {Model} model */
const live = (model) => Boolean(model.widget_manager?.kernel);

/** Ask whatever trains for this model. @param {Model} model @param {any} message */
function ask(model, message) {
  if (live(model)) return model.send(message);
  if (!engines.has(model)) engines.set(model, new PageEngine(model));
  /** @type {PageEngine} */ (engines.get(model)).handle(message);
}

/** The laboratories' settings in the page's address: #section~name=1,4,6,…~other=… @returns {[string, Map<string, string>]} */
function readAddress() {
  let text = location.hash.slice(1);
  try {
    text = decodeURIComponent(text);
  } catch {
    // A stray % is no reason to draw nothing.
  }
  const [anchor, ...labs] = text.split("~");
  return [anchor, new Map(labs.map((lab) => /** @type {[string, string]} */ (lab.split("=", 2))))];
}

/** Put the model's settings into the page's address, beside what is there. @param {Model} model */
function writeAddress(model) {
  const [anchor, labs] = readAddress();
  labs.set(model.get("name"), SHARED.map((trait) => model.get(trait)).join(","));
  history.replaceState(null, "", `#${[anchor, ...[...labs].map(([name, values]) => `${name}=${values}`)].join("~")}`);
}

/** Take the settings from the page's address, if it has some for this laboratory. Returns a note if it cannot be read. @param {Model} model */
function fromAddress(model) {
  const [anchor, labs] = readAddress();
  const text = labs.get(model.get("name"));
  if (text === undefined) return "";
  const values = text.split(",").map((value) => (value.trim() === "" ? NaN : Number(value)));
  const limits = [model.get("kinds").length, model.get("widths").length, model.get("depths").length, 0, AXES.length, MEASURES.length];
  const valid = values.length === SHARED.length && values.every((value, i) => Number.isFinite(value) && value >= 0
    && (!limits[i] || (Number.isInteger(value) && value < limits[i])));
  if (!valid) return "The settings in this page's address could not be read, and were ignored.";
  SHARED.forEach((trait, i) => model.set(trait, values[i]));
  document.getElementById(anchor)?.scrollIntoView();
  return "";
}

const SHAPES = ["rises", "falls", "rises, then falls", "falls, then rises"];

/** Which of SHAPES a measured curve has; a turn counts if it exceeds two standard errors. @param {Point[]} points */
function shapeOf(points) {
  const surely = (/** @type {Point} */ a, /** @type {Point} */ b) => a.y - b.y > Math.hypot(a.y - (a.low ?? a.y), b.y - (b.low ?? b.y));
  const [first, last] = [points[0], points[points.length - 1]];
  const top = points.reduce((a, b) => (b.y > a.y ? b : a));
  const bottom = points.reduce((a, b) => (b.y < a.y ? b : a));
  if (surely(top, first) && surely(top, last)) return 2;
  if (surely(first, bottom) && surely(last, bottom)) return 3;
  return last.y > first.y ? 0 : 1;
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
  const [train, sweep, pause, step, stop, reset, copy] = ["Train", "Sweep", "Pause", "Step", "Stop", "Reset", "Copy points as CSV"].map((name) => {
    const button = html("button", `rnb-button rnb-${name.split(" ")[0].toLowerCase()}`, name);
    button.type = "button";
    return button;
  });
  const progress = html("progress", "rnb-progress");
  progress.setAttribute("aria-label", "training progress");
  const status = html("p", "rnb-status");
  status.setAttribute("role", "status");
  const error = html("p", "rnb-error");
  error.setAttribute("role", "alert");
  bench.append(train, sweep, pause, step, stop, reset, copy, progress);
  const curves = html("div", "rnb-live");
  const charts = LIVE.map(() => svg("svg", { role: "img", class: "rnb-small" }));
  const hint = html("p", "rnb-note", "Press Train: loss, accuracy, P/ε and κ appear here, epoch by epoch.");
  curves.append(hint, ...charts);
  const guess = html("fieldset", "rnb-guess");
  const answer = html("p", "rnb-answer");
  answer.setAttribute("role", "status");
  const details = html("details", "rnb-numbers");
  const numbers = html("table");
  details.append(html("summary", "", "The numbers behind this plot"), numbers);
  root.append(guess, answer, readout, plots, legend, bench, status, error, curves, details);
  el.append(root);

  /** The rows of the run under way, or of the last. @type {any[]} */
  let history = [];
  /** Where a preset asks for a prediction, what was measured stays hidden until it is made. */
  let revealed = !model.get("predict");
  let note = live(model) ? "" : fromAddress(model);

  /** @returns {Setting} */
  const setting = () => ({
    init: model.get("init_index"),
    c: model.get("c"),
    width: model.get("widths")[model.get("width_index")],
    depth: model.get("depths")[model.get("depth_index")],
    lr: model.get("lr"),
    epochs: model.get("epochs"),
    seed: model.get("seed"),
  });

  /** The name under which the table holds a setting's initialization. @param {Setting} chosen */
  const nameOf = (chosen) => (model.get("kinds")[chosen.init] === "m^-c" ? `m^-${chosen.c}` : model.get("kinds")[chosen.init]);

  /** @param {Setting} chosen @returns {Series} */
  function seriesOf(chosen) {
    const name = nameOf(chosen);
    const found = model.get("series").find((/** @type {Series} */ series) => series.name === name);
    return found ?? { name, label: name.replace("m^-", "m^−"), color: "#CC79A7" };
  }

  /** P/ε before training, exactly (theory.py: stability_at_initialization). @param {Setting} chosen */
  function exact({ init, c, width, depth }) {
    const { inputs, outputs, ball, log_chi, log_gain } = model.get("shape");
    const [first, hidden, last] = betas(model.get("kinds")[init], c, inputs, width, outputs).map(Math.log);
    return ball * Math.exp(first + (depth - 2) * hidden + last + (depth - 1) * log_gain[model.get("widths").indexOf(width)] + log_chi);
  }

  /** The table's rows for one initialization, along the x axis, with the other coordinate as chosen.
   * @param {string} name @param {"width" | "depth"} x @param {Setting} chosen */
  function curve(name, x, chosen) {
    /** @type {Table} */
    const table = model.get("table");
    const other = x === "width" ? "depth" : "width";
    const init = model.get("series").findIndex((/** @type {Series} */ series) => series.name === name);
    return table.init
      .map((_, row) => row)
      .filter((row) => table.init[row] === init && table[other][row] === chosen[other])
      .sort((a, b) => table[x][a] - table[x][b]);
  }

  /** @param {Measure} y @param {"width" | "depth"} x @param {Setting} chosen @returns {Line[]} */
  function linesFor(y, x, chosen) {
    const table = model.get("table");
    const own = seriesOf(chosen);
    /** @type {Line[]} */
    const lines = (revealed ? model.get("series") : []).map((/** @type {Series} */ { name, label, color }, /** @type {number} */ i) => ({
      points: curve(name, x, chosen).filter((row) => table[y][row] !== null).map((row) => {
        const [mean, error] = [table[y][row], table[`${y}_error`][row]];
        return { x: table[x][row], y: mean, low: mean - 2 * error, high: mean + 2 * error };
      }),
      style: name === own.name ? "chosen" : "other",
      color,
      marker: MARKERS[i % MARKERS.length],
      name: label,
    }));
    lines.sort((a, b) => Number(a.style === "chosen") - Number(b.style === "chosen"));
    if (y === "stability") {
      const points = model.get(`${x}s`).map((/** @type {number} */ v) => ({ x: v, y: exact({ ...chosen, [x]: v }) }));
      lines.unshift({ points, style: "exact", color: own.color, name: `${own.label} before training, exact` });
    }
    return lines.filter((line) => line.points.length);
  }

  /** The reader's runs that belong into this plot. @param {"width" | "depth"} x @param {Setting} chosen @returns {Finished[]} */
  function mine(x, chosen) {
    const other = x === "width" ? "depth" : "width";
    return model.get("runs").filter((/** @type {Finished} */ r) => nameOf(r) === nameOf(chosen) && r[other] === chosen[other]);
  }

  function redraw() {
    const chosen = setting();
    const x = AXES[model.get("x_index")];
    const first = MEASURES[model.get("y_index")];
    /** @type {Table} */
    const table = model.get("table");
    const own = seriesOf(chosen);
    const rows = curve(own.name, x, chosen);
    const row = rows.find((r) => table[x][r] === chosen[x]);
    const runs = revealed ? mine(x, chosen) : [];
    redrawGuess(x, first, own);

    readout.hidden = details.hidden = !revealed;
    readout.replaceChildren(html("strong", "", `${own.label}, width ${chosen.width}, depth ${chosen.depth}`), row !== undefined && table.n[row]
      ? `: P/ε = ${format(table.stability[row])} ± ${format(table.stability_error[row], 2)} after training (mean and standard error of ${table.n[row]} seeds), `
        + `${format(exact(chosen))} before (exact). κ = ${format(table.lazy_ratio[row])}, accuracy ${format(table.test_accuracy[row])}.`
      : `: not in the measured table; train it. P/ε before training is ${format(exact(chosen))} (exact).`);

    const total = plots.clientWidth || 640;
    const wide = total > 620;
    const mainWidth = wide ? Math.round(total * 0.64) : total;
    const smallWidth = wide ? total - mainWidth - 12 : Math.round((total - 12) / 2);
    for (const [i, y] of [first, ...MEASURES.filter((m) => m !== first)].entries()) {
      const lines = linesFor(y, x, chosen);
      draw([main, ...side][i], {
        width: i ? smallWidth : mainWidth,
        height: i ? (wide ? 163 : 150) : wide ? 338 : 280,
        x: SCALES[x], y: SCALES[y], ticks: model.get(`${x}s`), lines, chosen: chosen[x], compact: i > 0,
        runs: runs.filter((r) => r[y] !== null).map((r) => ({ x: r[x], y: /** @type {number} */ (r[y]) })),
        description: describe(lines, x, y, `${own.label}, ${x === "width" ? `depth ${chosen.depth}` : `width ${chosen.width}`}`),
      });
    }
    redrawLegend(linesFor(first, x, chosen), runs.length);
    redrawNumbers(rows, x, table, chosen);
    redrawBench();
    redrawCurves();
    requestAnimationFrame(nameSliders);
  }

  /** ipywidgets' sliders tell a screen reader neither their name nor the value that they show. */
  function nameSliders() {
    for (const slider of root.closest(".widget-vbox")?.querySelectorAll(".rnb-controls .widget-slider") ?? []) {
      const handle = slider.querySelector(".noUi-handle");
      handle?.setAttribute("aria-label", slider.querySelector("label")?.textContent ?? "");
      handle?.setAttribute("aria-valuetext", slider.querySelector(".widget-readout")?.textContent ?? "");
    }
  }

  /** Ask for the prediction, until it is made. @param {"width" | "depth"} x @param {Measure} y @param {Series} own */
  function redrawGuess(x, y, own) {
    guess.hidden = revealed;
    if (revealed) return;
    const other = x === "width" ? `depth ${setting().depth}` : `width ${setting().width}`;
    guess.replaceChildren(html("legend", "", `Predict first: as the ${x} grows, ${SCALES[y].short} of trained networks (${own.label}, ${other}) …`));
    for (const [i, shape] of SHAPES.entries()) {
      const button = html("button", "rnb-button", shape);
      button.type = "button";
      button.addEventListener("click", () => reveal(i, x, y));
      guess.append(button);
    }
  }

  /** Show what was measured, beside what the reader expected. @param {number} expected @param {"width" | "depth"} x @param {Measure} y */
  function reveal(expected, x, y) {
    revealed = true;
    const line = linesFor(y, x, setting()).find(({ style }) => style === "chosen");
    const measured = line ? shapeOf(line.points) : -1;
    const top = line?.points.reduce((a, b) => (b.y > a.y ? b : a));
    const peak = measured === 2 && top ? `, with its peak at ${x} ${top.x}` : "";
    answer.textContent = measured < 0
      ? `You expected: ${SHAPES[expected]}. This setting was not measured: train it.`
      : measured === expected
        ? `Well seen: it ${SHAPES[measured]}${peak}.`
        : `You expected that it ${SHAPES[expected]}. Measured, it ${SHAPES[measured]}${peak}. Now look for a reason: the accuracy beside it may help.`;
    redraw();
  }

  /** The plot in words. @param {Line[]} lines @param {"width" | "depth"} x @param {Measure} y @param {string} which */
  function describe(lines, x, y, which) {
    const line = lines.find((l) => l.style === "chosen") ?? lines.find((l) => l.style === "exact");
    const start = `${SCALES[y].title} against ${SCALES[x].title}. `;
    if (!line) return `${start}${which}: nothing measured at ${x} ${setting()[x]}.`;
    const extreme = line.points.reduce((a, b) => (b.y > a.y ? b : a));
    const [a, b] = [line.points[0], line.points[line.points.length - 1]];
    return `${start}${line.name}: ${format(a.y)} at ${x} ${a.x}, largest ${format(extreme.y)} at ${x} ${extreme.x}, ${format(b.y)} at ${x} ${b.x}.`;
  }

  /** @param {Line[]} lines @param {number} runs */
  function redrawLegend(lines, runs) {
    const entries = [...lines].sort((a, b) => Number(a.style !== "chosen") - Number(b.style !== "chosen"));
    legend.replaceChildren(...entries.map((line) => {
      const item = html("li");
      item.append(legendKey(line), line.name);
      return item;
    }));
    if (runs) {
      const item = html("li");
      const key = svg("svg", { width: 16, height: 14, "aria-hidden": "true" });
      key.append(svg("path", { d: CROSS, transform: "translate(8,7)", class: "rnb-mine" }));
      item.append(key, "your runs");
      legend.append(item);
    }
    legend.append(html("li", "rnb-note", "band: ± 2 standard errors over seeds"));
  }

  /** @param {number[]} rows @param {"width" | "depth"} x @param {Table} table @param {Setting} chosen */
  function redrawNumbers(rows, x, table, chosen) {
    const head = html("tr");
    for (const title of [SCALES[x].short, "P/ε", "± s.e.", "P/ε before (exact)", "κ", "accuracy", "seeds"]) {
      const cell = html("th", "", title);
      cell.scope = "col";
      head.append(cell);
    }
    const body = rows.map((row) => {
      const line = html("tr");
      const before = exact({ ...chosen, [x]: table[x][row] });
      const values = [table.stability[row], table.stability_error[row], before, table.lazy_ratio[row], table.test_accuracy[row]];
      for (const text of [String(table[x][row]), ...values.map((v) => format(v)), String(table.n[row])]) line.append(html("td", "", text));
      return line;
    });
    numbers.replaceChildren(head, ...body);
  }

  function redrawBench() {
    const { lr, epochs, seed, ...chosen } = setting();
    const state = model.get("progress");
    const running = Boolean(state.running);
    const next = `Next: ${seriesOf(setting()).label}, width ${chosen.width}, depth ${chosen.depth}; learning rate ${lr}, ${epochs} epochs, seed ${seed}.`;
    pause.textContent = state.paused ? "Resume" : "Pause";
    pause.disabled = stop.disabled = !running;
    copy.disabled = model.get("runs").length === 0;
    sweep.textContent = `Sweep the ${AXES[model.get("x_index")]}`;
    progress.max = (state.of ?? 1) * (state.epochs ?? 1);
    progress.value = ((state.run ?? 1) - 1) * (state.epochs ?? 1) + (state.epoch ?? 0);
    progress.style.visibility = running ? "visible" : "hidden";
    const which = state.of > 1 ? `Network ${state.run} of ${state.of}, width ${state.setting?.width ?? "…"}, depth ${state.setting?.depth ?? "…"}. ` : "";
    status.textContent = running && state.train_loss !== undefined
      ? `${which}Epoch ${state.epoch} of ${state.epochs}: loss ${format(state.train_loss)}, P/ε ${format(state.stability)}, κ ${format(state.lazy_ratio)}.`
      : running ? "Starting …" : [note, state.message, next].filter(Boolean).join(" ");
    error.textContent = model.get("error");
  }

  function redrawCurves() {
    hint.hidden = history.length > 0;
    const gap = 12;
    const columns = curves.clientWidth > 620 ? 4 : 2;
    const width = Math.floor(((curves.clientWidth || 640) - gap * (columns - 1)) / columns);
    for (const [i, y] of LIVE.entries()) {
      charts[i].toggleAttribute("hidden", history.length === 0);
      if (!history.length) continue;
      const points = history.filter((row) => row[y] !== null).map((row) => ({ x: row.epoch, y: row[y] }));
      const line = { points, style: "chosen", color: seriesOf(history[0].setting ?? setting()).color, name: SCALES[y].short };
      const latest = points.length ? format(points[points.length - 1].y) : "none";
      draw(charts[i], {
        width, height: 130, x: SCALES.epoch, y: SCALES[y], lines: [line], compact: true,
        description: `${SCALES[y].title} against epochs: ${latest} at epoch ${history[history.length - 1].epoch}.`,
      });
    }
  }

  function progressed() {
    const state = model.get("progress");
    if (state.epoch === 0 || (!state.running && !state.message)) history = [];
    if (state.train_loss !== undefined && history[history.length - 1]?.epoch !== state.epoch) history.push(state);
    redrawBench();
    redrawCurves();
  }

  /** To move the exponent is to choose the family that has one. */
  function powerChosen() {
    model.set("init_index", model.get("kinds").indexOf("m^-c"));
    model.save_changes();
  }

  function changed() {
    note = "";
    if (!live(model)) writeAddress(model);
    redraw();
  }

  train.addEventListener("click", () => ask(model, { kind: "train", settings: [setting()] }));
  sweep.addEventListener("click", () => {
    const x = AXES[model.get("x_index")];
    // A thousand neurons in each of ten layers would take minutes: a sweep stays where it can be watched.
    const values = model.get(`${x}s`).filter((/** @type {number} */ v) => x === "depth" || v <= 256);
    ask(model, { kind: "train", settings: values.map((/** @type {number} */ v) => ({ ...setting(), [x]: v })) });
  });
  pause.addEventListener("click", () => ask(model, { kind: model.get("progress").paused ? "resume" : "pause" }));
  step.addEventListener("click", () => {
    const running = model.get("progress").running;
    ask(model, running ? { kind: "step" } : { kind: "train", settings: [setting()], paused: true });
  });
  stop.addEventListener("click", () => ask(model, { kind: "stop" }));
  reset.addEventListener("click", () => { history = []; ask(model, { kind: "reset" }); });
  copy.addEventListener("click", () => {
    const columns = ["width", "depth", "lr", "epochs", "seed", ...MEASURES];
    const lines = model.get("runs").map((/** @type {any} */ run) => [nameOf(run), ...columns.map((name) => run[name])].join(","));
    copyText([["init", ...columns].join(","), ...lines].join("\n"));
    note = `${lines.length} points copied.`;
    redrawBench();
  });

  /** @type {[string[], () => void][]} */
  const listeners = [[["runs"], redraw], [["progress"], progressed], [["error"], redrawBench], [["c"], powerChosen], [SHARED, changed]];
  const events = listeners.map(([names, f]) => /** @type {[string, () => void]} */ ([names.map((name) => `change:${name}`).join(" "), f]));
  for (const [names, f] of events) model.on(names, f);
  const resized = new ResizeObserver(redraw);
  resized.observe(plots);
  redraw();
  return () => {
    resized.disconnect();
    for (const [names, f] of events) model.off(names, f);
    ask(model, { kind: "stop" });
  };
}

/** To the clipboard; a page opened from a disk has no Clipboard API, so through a selection there. @param {string} text */
function copyText(text) {
  if (navigator.clipboard) return void navigator.clipboard.writeText(text);
  const area = html("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

export default { render };
