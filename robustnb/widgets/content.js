// What belongs into the laboratory's plots at the settings on the controls: the measured table, theory's curves, the reader's
// prediction and runs. Nothing is drawn here.
// @ts-check

class Content {
  /** @param {Session} session */
  constructor(session) {
    this.session = session;
    this.model = session.model;
  }

  /** P/ε before training, exactly. @param {Setting} chosen */
  exact({ init, c, width, depth }) {
    const shape = this.model.get("shape");
    return exactStability(shape, this.model.get("kinds")[init], c, width, depth, shape.log_gain[this.model.get("widths").indexOf(width)]);
  }

  /** The table's rows for one initialization, along the x axis, with the other coordinate as chosen. @param {string} name */
  rows(name) {
    /** @type {Table} */
    const table = this.model.get("table");
    const { x, other, setting } = this.session;
    const init = this.model.get("series").findIndex((/** @type {Series} */ series) => series.name === name);
    return table.init
      .map((_, row) => row)
      .filter((row) => table.init[row] === init && table[other][row] === setting[other])
      .sort((a, b) => table[x][a] - table[x][b]);
  }

  /** The measured lines, the chosen initialization's last. @param {Measure} y @returns {Line[]} */
  measured(y) {
    const table = this.model.get("table");
    const { x, setting } = this.session;
    const chosen = this.session.nameOf(setting);
    /** @type {Line[]} */
    const lines = this.model.get("series").map((/** @type {Series} */ { name, label, color, marker }) => ({
      points: this.rows(name).filter((row) => table[y][row] !== null).map((row) => {
        const [mean, error] = [table[y][row], table[`${y}_error`][row]];
        // As in figures.py: on a log axis a band cannot reach below zero; it ends at a tenth of the mean.
        const low = SCALES[y].log ? Math.max(mean - 2 * error, mean / 10) : mean - 2 * error;
        return { x: table[x][row], y: mean, low, high: mean + 2 * error, hollow: 2 * table.untrained[row] > table.n[row] };
      }),
      style: name === chosen ? "chosen" : "other",
      color,
      marker,
      name: label,
    }));
    return lines.filter((line) => line.points.length).sort((a, b) => Number(a.style === "chosen") - Number(b.style === "chosen"));
  }

  /** What theory says of P/ε: the exact value before training, and the shape of Theorem 1's bound for trained lazy networks, drawn at
   * the height of what was measured, since its constants are unknown. @param {Line[]} measured @returns {Line[]} */
  theory(measured) {
    const { x, setting } = this.session;
    const own = this.session.seriesOf(setting);
    /** @type {number[]} */
    const values = this.model.get(`${x}s`);
    const exact = values.map((v) => ({ x: v, y: this.exact({ ...setting, [x]: v }) }));
    const lines = [{ points: exact, style: "exact", color: own.color, name: `${own.label} before training, exact` }];
    const kind = this.model.get("kinds")[setting.init];
    if (kind === "m^-c") return lines;
    const bound = (/** @type {number} */ v) =>
      theorem1(this.model.get("shape"), kind, x === "width" ? v : setting.width, x === "depth" ? v : setting.depth);
    const anchor = measured.find((line) => line.style === "chosen")?.points ?? exact;
    const factor = geometricMean(anchor.map((p) => p.y / bound(p.x)));
    const points = values.map((v) => ({ x: v, y: factor * bound(v) }));
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
    const { x, setting, other } = this.session;
    return [this.session.nameOf(setting), x, y, setting[other]].join(" ");
  }

  drawnPoints() {
    return [...this.session.drawn.points].map(([x, y]) => ({ x, y })).sort((a, b) => a.x - b.x);
  }

  /** The reader's runs that belong into this plot. @returns {Finished[]} */
  mine() {
    const { setting, other } = this.session;
    const name = this.session.nameOf(setting);
    return this.model.get("runs").filter((/** @type {Finished} */ r) => this.session.nameOf(r) === name && r[other] === setting[other]);
  }

  /** What is the same along the x axis, in words. */
  get fixed() {
    const { setting, other } = this.session;
    return `${this.session.seriesOf(setting).label}, ${other} ${setting[other]}`;
  }

  /** A neutral range to draw a prediction in: whole powers of ten around what will be drawn, or all of a fraction. @param {Measure} y */
  span(y) {
    if (!SCALES[y].log) return [0, 1];
    const values = [...this.measured(y), ...(y === "stability" ? this.theory([]) : [])].flatMap((line) => line.points.map((p) => p.y)).filter((v) => v > 0);
    return [10 ** Math.floor(Math.log10(Math.min(...values))), 10 ** Math.ceil(Math.log10(Math.max(...values)))];
  }

  /** The plot in words. @param {Line[]} lines @param {Measure} y */
  describe(lines, y) {
    const { x } = this.session;
    const line = lines.find((l) => l.style === "chosen") ?? lines.find((l) => l.style === "exact");
    const start = `${SCALES[y].title} against ${SCALES[x].title}. `;
    if (!line) return start + (this.session.revealed ? `${this.fixed}: nothing measured.` : "It is shown after your prediction.");
    const extreme = line.points.reduce((a, b) => (b.y > a.y ? b : a));
    const [a, b] = [line.points[0], line.points[line.points.length - 1]];
    return `${start}${line.name}: ${format(a.y)} at ${x} ${a.x}, largest ${format(extreme.y)} at ${x} ${extreme.x}, ${format(b.y)} at ${x} ${b.x}.`;
  }
}
