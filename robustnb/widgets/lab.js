// The laboratory's view: plots with their legend, readout and numbers, around what draws itself; and when each is drawn anew.
// What there is to know lies in the model's traits, so that ipywidgets controls linked in the browser (jslink) move it with
// no kernel behind; what trains is the kernel (lab.py) or else the page (page.js), which write the same traits.
// @ts-check

class View {
  /** @param {Session} session @param {HTMLElement} el */
  constructor(session, el) {
    this.session = session;
    this.model = session.model;
    this.content = new Content(session);
    const [attempt, later] = [(/** @type {() => void} */ act) => this.attempt(act), () => this.later()];
    const guess = this.guess = new Guess(session, this.content, attempt, later, () => this.redraw());
    const bench = this.bench = new Bench(session, attempt, later);
    this.digit = new DigitPanel(session, attempt);
    this.root = html("div", "rnb-lab");
    this.readout = html("p", "rnb-readout");
    this.plots = html("div", "rnb-plots");
    const side = html("div", "rnb-side");
    const main = html("div", "rnb-main");
    this.panels = MEASURES.map((_, i) => svg("svg", { role: "img", class: i ? "rnb-small" : "rnb-large" }));
    main.append(this.panels[0], guess.sketch.svg);
    side.append(...this.panels.slice(1));
    this.plots.append(main, side);
    this.legend = html("ul", "rnb-legend");
    this.fault = spoken("rnb-fault", "alert");
    this.details = html("details", "rnb-numbers");
    this.numbers = html("table");
    this.details.append(html("summary", "", "The numbers behind this plot"), this.numbers);
    this.details.addEventListener("toggle", later);
    this.root.append(guess.root, guess.answer, this.readout, this.plots, this.legend, ...bench.parts, this.fault, this.digit.root, this.details);
    el.append(this.root);

    this.scheduled = false;
    /** Must the next frame draw more than the run? */
    this.whole = false;
    // Readers who asked for less motion get the moving curves twice a second, not at every frame.
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    /** @type {[string, () => void][]} */
    this.events = [
      ["change:progress", () => this.later("progress")],
      [["runs", "moves", "error", ...SHARED].map((name) => `change:${name}`).join(" "), later],
    ];
    for (const [names, f] of this.events) this.model.on(names, f);
    this.resized = new ResizeObserver(later);
    this.resized.observe(this.plots);
    session.opened();
    this.redraw();
  }

  close() {
    this.resized.disconnect();
    for (const [names, f] of this.events) this.model.off(names, f);
    this.session.closed();
  }

  /** What goes wrong where the reader has only moved something must reach the reader, and go on to whoever tests the page.
   * @param {() => void} act @param {string} [otherwise] what stands there when all goes well */
  attempt(act, otherwise = "") {
    let fault = otherwise;
    try {
      act();
    } catch (error) {
      fault = `The laboratory failed. ${error}`;
      throw error;
    } finally {
      say(this.fault, fault);
    }
  }

  /** Redraw at the next frame, however many changes come before it. @param {"all" | "progress"} [what] */
  later(what = "all") {
    this.whole ||= what === "all";
    if (this.scheduled) return;
    this.scheduled = true;
    const frame = () => requestAnimationFrame(() => {
      const { whole } = this;
      this.scheduled = this.whole = false;
      if (whole) this.attempt(() => this.redraw());
      else this.attempt(() => this.bench.redraw(), this.fault.textContent ?? ""); // a row of the run mends nothing else
    });
    if (what === "progress" && this.calm.matches && this.bench.progress.running) setTimeout(frame, 500);
    else frame();
  }

  redraw() {
    const { session, content } = this;
    const { x, y: first, setting } = session;
    const runs = session.revealed ? content.mine() : [];
    // Crosses of several rates say which is whose.
    const several = new Set(runs.map((r) => r.lr)).size > 1;
    const total = this.plots.clientWidth || 640;
    const wide = total > 620;
    const mainWidth = wide ? Math.round(total * 0.64) : total;
    const smallWidth = wide ? total - mainWidth - 12 : Math.round((total - 12) / 2);
    for (const [i, y] of [first, ...MEASURES.filter((m) => m !== first)].entries()) {
      const lines = content.lines(y);
      const [width, height] = i ? [smallWidth, wide ? 163 : 150] : [mainWidth, wide ? 338 : 280];
      const frame = draw(this.panels[i], {
        width, height,
        x: SCALES[x], y: SCALES[y], ticks: this.model.get(`${x}s`), lines, chosen: setting[x], compact: i > 0,
        empty: session.revealed ? "not measured" : i ? "after your prediction" : "",
        ySpan: session.revealed || i ? [] : content.span(y),
        runs: runs.filter((r) => r[y] !== null).map((r) => (
          { x: r[x], y: /** @type {number} */ (r[y]), hollow: r.untrained, label: several && i === 0 ? `rate ${r.lr}` : "" }
        )),
        description: content.describe(lines, y),
      });
      if (i === 0) {
        this.redrawLegend(lines);
        this.guess.redraw(frame, width, height);
      }
    }
    this.redrawReadout();
    this.bench.redraw();
    this.digit.redraw();
    if (session.live) requestAnimationFrame(() => nameSliders(this.root.closest(".widget-vbox") ?? this.root));
  }

  redrawReadout() {
    const { session, content } = this;
    const { x, setting } = session;
    /** @type {Table} */
    const table = this.model.get("table");
    const rows = content.rows(session.nameOf(setting));
    const row = rows.find((r) => table[x][r] === setting[x]);
    this.readout.hidden = this.details.hidden = !session.revealed;
    const before = format(content.exact(setting));
    this.readout.replaceChildren(html("strong", "", session.titleOf(setting)), row === undefined
      ? `: not in the table drawn here; train it. P/ε before training is ${before} (exact).`
      : table.n[row]
        ? `: P/ε = ${format(table.stability[row])} ± ${format(table.stability_error[row], 2)} after ${table.epoch[row]} epochs at rate ${table.lr[row]} (mean and standard error of ${table.n[row]} seeds), `
          + `${before} before (exact). κ = ${format(table.lazy_ratio[row])}, accuracy ${format(table.test_accuracy[row])}.`
          + (table.untrained[row] ? ` ${table.untrained[row]} of the ${table.n[row]} are untrained: they have learned nothing.` : "")
        : `: every measured run diverged. P/ε before training is ${before} (exact).`);
    if (this.details.open) this.redrawNumbers(rows, table);
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
    const { x, setting } = this.session;
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
      const before = this.content.exact({ ...setting, [x]: table[x][row] });
      const values = [table.stability[row], table.stability_error[row], before, table.lazy_ratio[row], table.test_accuracy[row]];
      line.append(first, ...[...values.map((v) => format(v)), String(table.n[row]), String(table.untrained[row])].map((text) => html("td", "", text)));
      return line;
    });
    const caption = html("caption", "", `Means over seeds of trained networks: ${this.content.fixed}`);
    this.numbers.replaceChildren(caption, head, ...body);
  }
}

/** ipywidgets' sliders tell a screen reader neither their name nor the value that they show.
 * @param {ParentNode} within the book's pages name all of theirs (book/widgets.js) */
export function nameSliders(within) {
  for (const slider of within.querySelectorAll(".widget-slider")) {
    const handle = slider.querySelector(".noUi-handle");
    handle?.setAttribute("aria-label", slider.querySelector("label")?.textContent ?? "");
    handle?.setAttribute("aria-valuetext", slider.querySelector(".widget-readout")?.textContent ?? "");
  }
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
