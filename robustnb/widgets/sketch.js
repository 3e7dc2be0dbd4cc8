// "Predict, then see": the reader draws the expected curve over a plot, by pointer, touch or arrow keys.
// @ts-check

/** ARIA's numbers have no exponents. @param {number} v */
const decimal = (v) => v.toFixed(20);

class Sketch {
  /** @param {() => void} changed is called after each change of the drawing */
  constructor(changed) {
    this.changed = changed;
    this.svg = svg("svg", { class: "rnb-sketch", role: "group", "aria-label": "Draw the curve that you expect" });
    this.area = svg("rect", { class: "rnb-sketch-area" });
    this.line = svg("polyline");
    this.svg.append(this.area, this.line);
    /** @type {SVGElement[]} */
    this.handles = [];
    /** The drawn curve, y for each x; shared with the session. @type {Map<number, number>} */
    this.points = new Map();
    /** @type {Frame | undefined} */
    this.frame = undefined;
    /** @type {number[]} */
    this.values = [];
    this.listen();
  }

  /** Lie over this plot: a handle at each of the x values. @param {Frame} frame @param {number} width @param {number} height
   * @param {number[]} values @param {Map<number, number>} points @param {Axis} x @param {Axis} y */
  place(frame, width, height, values, points, x, y) {
    [this.frame, this.values, this.points] = [frame, values, points];
    set(this.svg, { width, height, viewBox: `0 0 ${width} ${height}` });
    set(this.area, { x: frame.left, y: frame.top, width: frame.right - frame.left, height: frame.bottom - frame.top });
    while (this.handles.length > values.length) this.handles.pop()?.remove();
    while (this.handles.length < values.length) this.handles.push(this.handle(this.handles.length));
    const [low, high] = [frame.y.value(frame.bottom), frame.y.value(frame.top)];
    for (const [i, handle] of this.handles.entries()) {
      const value = points.get(values[i]);
      set(handle, {
        cx: frame.x.place(values[i]), cy: this.heightOf(i), class: value === undefined ? "rnb-open" : "rnb-set",
        "aria-label": `${y.short} at ${x.short} ${values[i]}`, "aria-valuemin": decimal(low),
        "aria-valuemax": decimal(high), "aria-valuenow": decimal(value ?? frame.y.value(this.heightOf(i))), "aria-valuetext": value === undefined ? "not drawn yet" : format(value, 2),
      });
    }
    this.line.setAttribute("points", values.map((v, i) => (points.has(v) ? `${frame.x.place(v)},${this.heightOf(i)}` : "")).join(" ").trim());
  }

  /** @param {number} index */
  handle(index) {
    const handle = svg("circle", { r: 6, role: "slider", tabindex: index ? -1 : 0, "aria-orientation": "vertical" });
    handle.addEventListener("keydown", (event) => this.key(index, event));
    this.svg.append(handle);
    return handle;
  }

  /** Where handle i is, in pixels from the top. @param {number} i */
  heightOf(i) {
    const frame = /** @type {Frame} */ (this.frame);
    const value = this.points.get(this.values[i]);
    return value === undefined ? (frame.top + frame.bottom) / 2 : frame.y.place(value);
  }

  /** Move handle i there, in pixels from the top. @param {number} i @param {number} at */
  move(i, at) {
    const frame = /** @type {Frame} */ (this.frame);
    this.points.set(this.values[i], frame.y.value(Math.min(Math.max(at, frame.top), frame.bottom)));
  }

  /** Up and down move a handle by a twentieth of the plot, left and right go to its neighbours. @param {number} i @param {KeyboardEvent} event */
  key(i, event) {
    const frame = /** @type {Frame} */ (this.frame);
    const step = (frame.bottom - frame.top) / 20;
    const to = { ArrowLeft: i - 1, ArrowRight: i + 1, Home: 0, End: this.handles.length - 1 }[event.key];
    const by = { ArrowUp: -step, ArrowDown: step }[event.key];
    if (to === undefined && by === undefined) return;
    event.preventDefault();
    event.stopPropagation(); // JupyterLab's own keys
    if (by !== undefined) {
      this.move(i, this.heightOf(i) + by);
      this.changed();
    } else if (this.handles[/** @type {number} */ (to)]) {
      this.handles[i].setAttribute("tabindex", "-1");
      this.handles[/** @type {number} */ (to)].setAttribute("tabindex", "0");
      this.handles[/** @type {number} */ (to)].focus();
    }
  }

  listen() {
    /** The handle that the pointer was at last, and how high. @type {{i: number, at: number} | undefined} */
    let last;
    const draw = (/** @type {PointerEvent} */ event) => {
      const frame = /** @type {Frame} */ (this.frame);
      const box = this.svg.getBoundingClientRect();
      const [across, at] = [event.clientX - box.left, event.clientY - box.top];
      const away = this.values.map((v) => Math.abs(frame.x.place(v) - across));
      const i = away.indexOf(Math.min(...away));
      this.move(i, at);
      // A quick stroke passes several handles between two events.
      const from = last ?? { i, at };
      for (let k = Math.min(i, from.i) + 1; k < Math.max(i, from.i); k++) this.move(k, from.at + ((k - from.i) / (i - from.i)) * (at - from.at));
      last = { i, at };
      this.changed();
    };
    /** What was drawn before this stroke. @type {[number, number][]} */
    let before = [];
    this.area.addEventListener("pointerdown", (event) => {
      this.area.setPointerCapture(event.pointerId);
      last = undefined;
      before = [...this.points];
      draw(event);
    });
    this.area.addEventListener("pointermove", (event) => { if (last) draw(event); });
    this.area.addEventListener("pointerup", () => { last = undefined; });
    // The finger scrolls the page: it was no stroke.
    this.area.addEventListener("pointercancel", () => {
      last = undefined;
      this.points.clear();
      for (const [x, y] of before) this.points.set(x, y);
      this.changed();
    });
  }
}
