// The laboratory's view: it draws the measured table, the theory's curves, the reader's runs and the run under way.
// What there is to know lies in the model's traits, so that ipywidgets controls linked in the browser (jslink) move it with
// no kernel behind; what trains is the kernel (lab.py) or else the page (page.js), which write the same traits.
// @ts-check

const MEASURES = /** @type {const} */ (["stability", "lazy_ratio", "test_accuracy"]);
const LIVE = /** @type {const} */ (["train_loss", "test_accuracy", "stability", "lazy_ratio"]);
// A thousand neurons in each of ten layers would take minutes: a sweep stays where it can be watched.
const SWEPT = 256;

/** @param {HTMLElement} node @param {boolean} on */
const enable = (node, on) => node.setAttribute("aria-disabled", String(!on));

/** A paragraph for a message that a screen reader speaks when it changes. @param {string} className @param {string} [role] */
function spoken(className, role = "status") {
  const node = html("p", className);
  node.setAttribute("role", role);
  return node;
}

class View {
  /** @param {Session} session @param {HTMLElement} el */
  constructor(session, el) {
    this.session = session;
    this.model = session.model;
    this.root = html("div", "rnb-lab");
    this.readout = html("p", "rnb-readout");
    this.answer = spoken("rnb-answer");
    this.answer.tabIndex = -1;
    this.plots = html("div", "rnb-plots");
    const side = html("div", "rnb-side");
    const main = html("div", "rnb-main");
    this.panels = MEASURES.map((_, i) => svg("svg", { role: "img", class: i ? "rnb-small" : "rnb-large" }));
    this.sketch = new Sketch(() => this.later());
    main.append(this.panels[0], this.sketch.svg);
    side.append(...this.panels.slice(1));
    this.plots.append(main, side);
    this.legend = html("ul", "rnb-legend");
    this.guess = this.guessing();
    this.buttons = {
      train: this.button("Train", () => this.train([this.setting])),
      sweep: this.button("Sweep", () => this.train(this.sweepSettings())),
      pause: this.button("Pause", () => session.ask({ kind: this.progress.paused ? "resume" : "pause" })),
      step: this.button("Step", () => (this.progress.running ? session.ask({ kind: "step" }) : this.train([this.setting], true))),
      stop: this.button("Stop", () => session.ask({ kind: "stop" })),
      reset: this.button("Reset", () => { session.history = []; session.ask({ kind: "reset" }); }),
      copy: this.button("Copy points as CSV", () => this.copy()),
    };
    this.bar = html("progress", "rnb-progress");
    this.bar.setAttribute("aria-label", "training progress");
    const bench = html("div", "rnb-bench");
    bench.append(...Object.values(this.buttons), this.bar);
    this.status = html("p", "rnb-status");
    this.voice = spoken("rnb-voice");
    this.error = spoken("rnb-error", "alert");
    this.curves = html("div", "rnb-live");
    this.hint = html("p", "rnb-note", "Press Train: loss, accuracy, P/ε and κ appear here, epoch by epoch.");
    this.charts = LIVE.map(() => svg("svg", { role: "img", class: "rnb-small" }));
    this.curves.append(this.hint, ...this.charts);
    this.digit = new DigitPanel(session, (act) => this.attempt(act));
    this.details = html("details", "rnb-numbers");
    this.numbers = html("table");
    this.details.append(html("summary", "", "The numbers behind this plot"), this.numbers);
    this.details.addEventListener("toggle", () => this.later());
    this.root.append(this.guess, this.answer, this.readout, this.plots, this.legend, bench, this.status, this.voice, this.error, this.curves,
      this.digit.root, this.details);
    el.append(this.root);

    /** What must be drawn at the next frame. */
    this.waiting = { all: false, progress: false };
    this.scheduled = false;
    // Readers who asked for less motion get the moving curves twice a second, not at every frame.
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    /** @type {[string, () => void][]} */
    this.events = [
      ["change:progress", () => this.later("progress")],
      ["change:runs", () => this.later()],
      ["change:moves", () => this.attempt(() => this.digit.redraw())],
      ["change:error", () => this.later()],
      [SHARED.map((name) => `change:${name}`).join(" "), () => this.later()],
    ];
    for (const [names, f] of this.events) this.model.on(names, f);
    this.resized = new ResizeObserver(() => this.later());
    this.resized.observe(this.plots);
    session.opened();
    this.digit.redraw();
    this.redraw();
  }

  close() {
    this.resized.disconnect();
    for (const [names, f] of this.events) this.model.off(names, f);
    this.session.closed();
  }

  /** What goes wrong where the reader has only moved something must reach the reader, and go on to whoever tests the page.
   * @param {() => void} act */
  attempt(act) {
    try {
      act();
    } catch (error) {
      this.error.textContent = `The laboratory failed. ${error}`;
      throw error;
    }
  }

  /** A button; while it is off it stays where the keyboard can find it. @param {string} name @param {() => void} press */
  button(name, press) {
    const node = html("button", `rnb-button rnb-${name.split(" ")[0].toLowerCase()}`, name);
    node.type = "button";
    node.addEventListener("click", () => { if (node.ariaDisabled !== "true") this.attempt(press); });
    return node;
  }

  get setting() { return this.session.setting(); }
  get progress() { return this.model.get("progress"); }
  /** @returns {"width" | "depth"} */
  get x() { return AXES[this.model.get("x_index")]; }
  /** @returns {Measure} the large plot's */
  get y() { return MEASURES[this.model.get("y_index")]; }
  get other() { return this.x === "width" ? /** @type {const} */ ("depth") : /** @type {const} */ ("width"); }

  /** Redraw at the next frame, however many changes come before it. @param {"all" | "progress"} [what] */
  later(what = "all") {
    this.waiting[what] = true;
    if (this.scheduled) return;
    this.scheduled = true;
    const frame = () => requestAnimationFrame(() => {
      const { all } = this.waiting;
      this.scheduled = false;
      this.waiting = { all: false, progress: false };
      this.attempt(() => (all ? this.redraw() : this.redrawRun()));
    });
    if (what === "progress" && this.calm.matches && this.progress.running) setTimeout(frame, 500);
    else frame();
  }

  /** @param {Setting[]} settings @param {boolean} [paused] */
  train(settings, paused = false) {
    this.session.ask({ kind: "train", settings, paused });
  }

  sweepSettings() {
    const values = this.model.get(`${this.x}s`).filter((/** @type {number} */ v) => this.x === "depth" || v <= SWEPT);
    return values.map((/** @type {number} */ v) => ({ ...this.setting, [this.x]: v }));
  }

  copy() {
    const columns = ["width", "depth", "lr", "epochs", "seed", ...MEASURES, "untrained", "engine"];
    const lines = this.model.get("runs").map((/** @type {any} */ run) => [this.session.nameOf(run), ...columns.map((name) => run[name])].join(","));
    copyText([["init", ...columns].join(","), ...lines].join("\n")).then(
      () => { this.session.note = `${lines.length} points copied.`; },
      () => { this.session.note = "The browser did not allow copying."; },
    ).finally(() => { this.voice.textContent = this.session.note; this.later(); });
  }

  // ── curves ──

  /** P/ε before training, exactly. @param {Setting} chosen */
  exact({ init, c, width, depth }) {
    const shape = this.model.get("shape");
    return exactStability(shape, this.model.get("kinds")[init], c, width, depth, shape.log_gain[this.model.get("widths").indexOf(width)]);
  }

  /** The table's rows for one initialization, along the x axis, with the other coordinate as chosen. @param {string} name */
  rows(name) {
    /** @type {Table} */
    const table = this.model.get("table");
    const { x, other, setting } = this;
    const init = this.model.get("series").findIndex((/** @type {Series} */ series) => series.name === name);
    return table.init
      .map((_, row) => row)
      .filter((row) => table.init[row] === init && table[other][row] === setting[other])
      .sort((a, b) => table[x][a] - table[x][b]);
  }

  /** The measured lines, the chosen initialization's last. @param {Measure} y @returns {Line[]} */
  measured(y) {
    const table = this.model.get("table");
    const { x } = this;
    const chosen = this.session.nameOf(this.setting);
    /** @type {Line[]} */
    const lines = this.model.get("series").map((/** @type {Series} */ { name, label, color }, /** @type {number} */ i) => ({
      points: this.rows(name).filter((row) => table[y][row] !== null).map((row) => {
        const [mean, error] = [table[y][row], table[`${y}_error`][row]];
        // As in figures.py: on a log axis a band cannot reach below zero; it ends at a tenth of the mean.
        const low = SCALES[y].log ? Math.max(mean - 2 * error, mean / 10) : mean - 2 * error;
        return { x: table[x][row], y: mean, low, high: mean + 2 * error, hollow: 2 * table.untrained[row] > table.n[row] };
      }),
      style: name === chosen ? "chosen" : "other",
      color,
      marker: MARKERS[i % MARKERS.length],
      name: label,
    }));
    return lines.filter((line) => line.points.length).sort((a, b) => Number(a.style === "chosen") - Number(b.style === "chosen"));
  }

  /** What theory says of P/ε: the exact value before training, and the shape of Theorem 1's bound for trained lazy networks, drawn at
   * the height of what was measured, since its constants are unknown. @param {Line[]} measured @returns {Line[]} */
  theory(measured) {
    const { x, setting } = this;
    const own = this.session.seriesOf(setting);
    /** @type {number[]} */
    const values = this.model.get(`${x}s`);
    const exact = values.map((v) => ({ x: v, y: this.exact({ ...setting, [x]: v }) }));
    const lines = [{ points: exact, style: "exact", color: own.color, name: `${own.label} before training, exact` }];
    const kind = this.model.get("kinds")[setting.init];
    if (kind === "m^-c") return lines;
    const bound = values.map((v) => ({ x: v, y: theorem1(this.model.get("shape"), kind, x === "width" ? v : setting.width, x === "depth" ? v : setting.depth) }));
    const anchor = measured.find((line) => line.style === "chosen")?.points ?? exact;
    const at = new Map(bound.map((p) => [p.x, p.y]));
    const factor = geometricMean(anchor.map((p) => p.y / /** @type {number} */ (at.get(p.x))));
    const points = bound.map((p) => ({ x: p.x, y: factor * p.y }));
    return [{ points, style: "shape", color: own.color, name: "Theorem 1, its shape only (its constants are unknown)" }, ...lines];
  }

  /** Everything in the plot of y. @param {Measure} y @returns {Line[]} */
  lines(y) {
    const measured = this.session.revealed ? this.measured(y) : [];
    const theory = y === "stability" ? this.theory(measured) : [];
    const { key, points } = this.session.drawn;
    /** @type {Line[]} */
    const guess = this.session.revealed && key === this.plotKey(y) && points.size
      ? [{ points: this.drawnPoints(), style: "drawn", color: "var(--rnb-ink)", name: "your prediction" }] : [];
    return [...theory, ...measured, ...guess];
  }

  /** Which plot a prediction belongs to. @param {Measure} y */
  plotKey(y) {
    return [this.session.nameOf(this.setting), this.x, y, this.setting[this.other]].join(" ");
  }

  drawnPoints() {
    return [...this.session.drawn.points].map(([x, y]) => ({ x, y })).sort((a, b) => a.x - b.x);
  }

  /** The reader's runs that belong into this plot. @returns {Finished[]} */
  mine() {
    const { setting, other } = this;
    const name = this.session.nameOf(setting);
    return this.model.get("runs").filter((/** @type {Finished} */ r) => this.session.nameOf(r) === name && r[other] === setting[other]);
  }

  // ── drawing ──

  redraw() {
    const { x, setting, session } = this;
    const own = session.seriesOf(setting);
    const first = this.y;
    const runs = session.revealed ? this.mine() : [];
    const total = this.plots.clientWidth || 640;
    const wide = total > 620;
    const mainWidth = wide ? Math.round(total * 0.64) : total;
    const smallWidth = wide ? total - mainWidth - 12 : Math.round((total - 12) / 2);
    for (const [i, y] of [first, ...MEASURES.filter((m) => m !== first)].entries()) {
      const lines = this.lines(y);
      const [width, height] = i ? [smallWidth, wide ? 163 : 150] : [mainWidth, wide ? 338 : 280];
      const frame = draw(this.panels[i], {
        width, height,
        x: SCALES[x], y: SCALES[y], ticks: this.model.get(`${x}s`), lines, chosen: setting[x], compact: i > 0,
        empty: session.revealed ? "not measured" : i ? "after your prediction" : "",
        ySpan: session.revealed || i ? [] : this.span(y),
        runs: runs.filter((r) => r[y] !== null).map((r) => ({ x: r[x], y: /** @type {number} */ (r[y]), hollow: r.untrained })),
        description: this.describe(lines, y, `${own.label}, ${this.other} ${setting[this.other]}`),
      });
      if (i === 0) {
        this.redrawLegend(lines);
        this.redrawGuess(frame, width, height, own);
      }
    }
    this.redrawReadout(own);
    this.redrawRun();
    requestAnimationFrame(() => this.nameSliders());
  }

  /** A neutral range to draw a prediction in: whole powers of ten around what was measured, or all of a fraction. @param {Measure} y */
  span(y) {
    if (!SCALES[y].log) return [0, 1];
    const values = [...this.measured(y), ...this.theory([])].flatMap((line) => line.points.map((p) => p.y)).filter((v) => v > 0);
    return [10 ** Math.floor(Math.log10(Math.min(...values))), 10 ** Math.ceil(Math.log10(Math.max(...values)))];
  }

  /** @param {Series} own */
  redrawReadout(own) {
    const { setting, x } = this;
    /** @type {Table} */
    const table = this.model.get("table");
    const rows = this.rows(own.name);
    const row = rows.find((r) => table[x][r] === setting[x]);
    this.readout.hidden = this.details.hidden = !this.session.revealed;
    const before = format(this.exact(setting));
    this.readout.replaceChildren(html("strong", "", `${own.label}, width ${setting.width}, depth ${setting.depth}`), row === undefined
      ? `: not in the measured table; train it. P/ε before training is ${before} (exact).`
      : table.n[row]
        ? `: P/ε = ${format(table.stability[row])} ± ${format(table.stability_error[row], 2)} after ${table.epoch[row]} epochs at rate ${table.lr[row]} (mean and standard error of ${table.n[row]} seeds), `
          + `${before} before (exact). κ = ${format(table.lazy_ratio[row])}, accuracy ${format(table.test_accuracy[row])}.`
          + (table.untrained[row] ? ` ${table.untrained[row]} of the ${table.n[row]} are untrained: they have learned nothing.` : "")
        : `: every measured run diverged. P/ε before training is ${before} (exact).`);
    if (this.details.open) this.redrawNumbers(rows, table);
  }

  /** The plot in words. @param {Line[]} lines @param {Measure} y @param {string} which */
  describe(lines, y, which) {
    const { x } = this;
    const line = lines.find((l) => l.style === "chosen") ?? lines.find((l) => l.style === "exact");
    const start = `${SCALES[y].title} against ${SCALES[x].title}. `;
    if (!line) return `${start}${which}: nothing measured at ${x} ${this.setting[x]}.`;
    const extreme = line.points.reduce((a, b) => (b.y > a.y ? b : a));
    const [a, b] = [line.points[0], line.points[line.points.length - 1]];
    return `${start}${line.name}: ${format(a.y)} at ${x} ${a.x}, largest ${format(extreme.y)} at ${x} ${extreme.x}, ${format(b.y)} at ${x} ${b.x}.`;
  }

  /** @param {Line[]} lines */
  redrawLegend(lines) {
    const entries = [...lines].sort((a, b) => Number(a.style !== "chosen") - Number(b.style !== "chosen"));
    this.legend.replaceChildren(...entries.map((line) => {
      const item = html("li");
      item.append(legendKey(line), line.name);
      return item;
    }));
    if (!this.session.revealed) return;
    const item = html("li");
    const key = svg("svg", { width: 16, height: 14, "aria-hidden": "true" });
    key.append(svg("path", { d: CROSS, transform: "translate(8,7)", class: "rnb-mine" }));
    item.append(key, "your runs");
    this.legend.append(item, html("li", "rnb-note", "band: ± 2 standard errors over seeds; hollow: untrained (most seeds, or your run)"));
  }

  /** @param {number[]} rows @param {Table} table */
  redrawNumbers(rows, table) {
    const { x, setting } = this;
    const head = html("tr");
    for (const title of [SCALES[x].short, "P/ε", "± s.e.", "P/ε before (exact)", "κ", "accuracy", "seeds", "untrained"]) {
      const cell = html("th", "", title);
      cell.scope = "col";
      head.append(cell);
    }
    const body = rows.map((row) => {
      const line = html("tr");
      const first = html("th", "", String(table[x][row]));
      first.scope = "row";
      const before = this.exact({ ...setting, [x]: table[x][row] });
      const values = [table.stability[row], table.stability_error[row], before, table.lazy_ratio[row], table.test_accuracy[row]];
      line.append(first, ...[...values.map((v) => format(v)), String(table.n[row]), String(table.untrained[row])].map((text) => html("td", "", text)));
      return line;
    });
    const caption = html("caption", "", `Means over seeds of trained networks: ${this.session.seriesOf(setting).label}, ${this.other} ${setting[this.other]}`);
    this.numbers.replaceChildren(caption, head, ...body);
  }

  /** ipywidgets' sliders tell a screen reader neither their name nor the value that they show. */
  nameSliders() {
    for (const slider of this.root.closest(".widget-vbox")?.querySelectorAll(".rnb-controls .widget-slider") ?? []) {
      const handle = slider.querySelector(".noUi-handle");
      handle?.setAttribute("aria-label", slider.querySelector("label")?.textContent ?? "");
      handle?.setAttribute("aria-valuetext", slider.querySelector(".widget-readout")?.textContent ?? "");
    }
  }

  // ── the run ──

  redrawRun() {
    const { lr, epochs, seed, width, depth } = this.setting;
    const { session, buttons, bar } = this;
    const state = this.progress;
    const running = Boolean(state.running);
    const next = `Next: ${session.seriesOf(this.setting).label}, width ${width}, depth ${depth}; learning rate ${lr}, ${epochs} epochs, seed ${seed}.`;
    buttons.pause.textContent = state.paused ? "Resume" : "Pause";
    enable(buttons.pause, running);
    enable(buttons.stop, running);
    enable(buttons.copy, this.model.get("runs").length > 0);
    buttons.sweep.textContent = `Sweep the ${this.x}`;
    bar.max = (state.of ?? 1) * (state.epochs ?? 1);
    bar.value = ((state.run ?? 1) - 1) * (state.epochs ?? 1) + (state.epoch ?? 0);
    bar.style.visibility = running ? "visible" : "hidden";
    const which = state.of > 1 ? `Network ${state.run} of ${state.of}, width ${state.setting?.width ?? "…"}, depth ${state.setting?.depth ?? "…"}. ` : "";
    this.status.textContent = running && state.train_loss !== undefined
      ? `${[state.note, which].filter(Boolean).join(" ")}Epoch ${state.epoch} of ${state.epochs}: loss ${format(state.train_loss)}, `
        + `P/ε ${format(state.stability)}, κ ${format(state.lazy_ratio)}.`
      : running ? "Starting …" : [session.note, state.message, next].filter(Boolean).join(" ");
    // Spoken: the start, each quarter, the end.
    const quarter = Math.floor((4 * bar.value) / bar.max);
    const words = running ? (quarter ? `Training: ${25 * quarter} percent.` : "Training.") : (state.message ?? "");
    if (this.voice.textContent !== words && (running || state.message)) this.voice.textContent = words;
    this.error.textContent = this.model.get("error");
    this.redrawCurves();
  }

  redrawCurves() {
    const { history } = this.session;
    this.hint.hidden = history.length > 0;
    const gap = 12;
    const columns = this.curves.clientWidth > 620 ? 4 : 2;
    const width = Math.floor(((this.curves.clientWidth || 640) - gap * (columns - 1)) / columns);
    for (const [i, y] of LIVE.entries()) {
      this.charts[i].toggleAttribute("hidden", history.length === 0);
      if (!history.length) continue;
      const points = history.filter((row) => row[y] !== null).map((row) => ({ x: row.epoch, y: row[y] }));
      const line = { points, style: "chosen", color: this.session.seriesOf(history[0].setting ?? this.setting).color, name: SCALES[y].short };
      const latest = points.length ? format(points[points.length - 1].y) : "none";
      draw(this.charts[i], {
        width, height: 130, x: SCALES.epoch, y: SCALES[y], lines: [line], compact: true, xSpan: [0, history[0].epochs],
        description: `${SCALES[y].title} against epochs: ${latest} at epoch ${history[history.length - 1].epoch}.`,
      });
    }
  }

  // ── predict, then see ──

  /** Built once: what asks for the prediction. */
  guessing() {
    const fieldset = html("fieldset", "rnb-guess");
    this.question = html("legend");
    this.show = this.button("Show what was measured", () => this.reveal(this.drawnPoints()));
    const choices = SHAPES.map((shape) => this.button(shape, () => this.reveal(shape)));
    fieldset.append(this.question, this.show, html("span", "", "or choose: it"), ...choices);
    return fieldset;
  }

  /** @param {Frame} frame @param {number} width @param {number} height @param {Series} own */
  redrawGuess(frame, width, height, own) {
    const { session, x, y, other, setting } = this;
    this.guess.hidden = session.revealed;
    this.sketch.svg.toggleAttribute("hidden", session.revealed);
    this.answer.textContent = session.answer;
    if (session.revealed) return;
    if (session.drawn.key !== this.plotKey(y)) session.drawn = { key: this.plotKey(y), points: new Map() };
    /** @type {HTMLElement} */ (this.question).textContent = `Predict first: draw into the plot how ${SCALES[y].short} of trained networks `
      + `(${own.label}, ${other} ${setting[other]}) changes as the ${x} grows (pointer, touch, or Tab and the arrow keys).`;
    enable(/** @type {HTMLElement} */ (this.show), session.drawn.points.size > 1);
    this.sketch.place(frame, width, height, this.model.get(`${x}s`), session.drawn.points, SCALES[x], SCALES[y]);
  }

  /** Show what was measured, beside what the reader expected: a drawn curve, or one of SHAPES. @param {Point[] | string} expected */
  reveal(expected) {
    const { session, x, y } = this;
    const line = this.measured(y).find(({ style }) => style === "chosen");
    const measured = line ? SHAPES[shapeOf(line.points)] : "";
    const top = line?.points.reduce((a, b) => (b.y > a.y ? b : a));
    const peak = measured === SHAPES[2] && top ? `, with its peak at ${x} ${top.x}` : "";
    // A hand is not steadier than a twentieth.
    const steady = typeof expected === "string" ? [] : expected.map((p) => ({ ...p, low: p.y * 0.95 }));
    const shape = typeof expected === "string" ? expected : SHAPES[shapeOf(steady)];
    const distance = line ? distanceOf(steady, line.points, SCALES[y].log) : "";
    const verdict = !measured
      ? `You expected that it ${shape}. This setting was not measured: train it.`
      : measured === shape
        ? `Well seen: it ${measured}${peak}.`
        : `You expected that it ${shape}. Measured, it ${measured}${peak}. Now look for a reason: the accuracy beside it may help.`;
    session.answer = `${verdict} ${distance}`.trim();
    session.revealed = true;
    this.redraw();
    this.answer.focus();
  }
}

/** To the clipboard; a page opened from a disk has no Clipboard API, so through a selection there. @param {string} text */
async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = html("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("copying is not allowed");
}

export default () => {
  /** @type {Session} */
  let session;
  return {
    /** @param {{model: Model}} context */
    initialize({ model }) {
      session = new Session(model);
      return () => session.ask({ kind: "stop" });
    },
    /** @param {{el: HTMLElement}} context */
    render({ el }) {
      const view = new View(session, el);
      return () => view.close();
    },
  };
};
