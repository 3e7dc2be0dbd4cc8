// What a laboratory knows beside its model's traits, one for each model however many views show it; and its settings
// in the page's address.
// @ts-check

/**
 * @typedef {{name: string, label: string, color: string, marker?: string}} Series  marker: an SVG path
 * @typedef {{init: number[], depth: number[], width: number[], lr: number[], epoch: number[], n: number[], untrained: number[]} &
 *   Record<`${Measure}${"" | "_error"}`, (number | null)[]>} Table  columns of equal length; init is an index into `series`
 * @typedef {Setting & {engine: string, untrained: boolean} & Record<Measure, number | null>} Finished
 */

const AXES = /** @type {const} */ (["width", "depth"]);
const MEASURES = /** @type {const} */ (["stability", "lazy_ratio", "test_accuracy"]);
/** The traits that the address holds, in its order. */
const SHARED = ["init_index", "width_index", "depth_index", "c", "x_index", "y_index", "lr", "epochs", "seed"];

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

class Session {
  /** @param {Model} model */
  constructor(model) {
    this.model = model;
    /** Is there a kernel behind it? It trains then; else the page does. */
    this.live = Boolean(model.widget_manager?.kernel);
    this.engine = this.live ? undefined : new PageEngine(model);
    /** The rows of the run under way, or of the last, and when each came (`at`; NaN if a pause followed). @type {any[]} */
    this.history = [];
    /** Where a preset asks for a prediction, what was measured stays hidden until it is made. */
    this.revealed = !model.get("predict");
    /** What the reader drew, and for which plot. @type {{key: string, points: Map<number, number>}} */
    this.drawn = { key: "", points: new Map() };
    this.answer = "";
    this.views = 0;
    this.read = false;
    /** Has a control been moved? Only then does the address hold the settings. */
    this.moved = false;
    this.note = "";
    model.on("change:progress", () => this.progressed());
    // To move the exponent is to choose the family that has one.
    model.on("change:c", () => {
      model.set("init_index", model.get("kinds").indexOf("m^-c"));
      model.save_changes();
    });
    model.on(SHARED.map((name) => `change:${name}`).join(" "), () => {
      this.note = "";
      this.moved = true;
      if (!this.live) this.writeAddress();
    });
    // A link to a section, and an address typed over this one, do not load the page anew.
    if (!this.live) window.addEventListener("hashchange", () => {
      this.note = this.fromAddress();
      if (this.moved) this.writeAddress();
    });
  }

  /** Ask whatever trains. @param {any} message */
  ask(message) {
    this.note = "";
    if (this.engine) this.engine.handle(message);
    else this.model.send(message);
  }

  /** The settings on the controls. @returns {Setting} */
  get setting() {
    const { model } = this;
    return {
      init: model.get("init_index"),
      c: model.get("c"),
      width: model.get("widths")[model.get("width_index")],
      depth: model.get("depths")[model.get("depth_index")],
      lr: model.get("lr"),
      epochs: model.get("epochs"),
      seed: model.get("seed"),
    };
  }

  /** What the plots are drawn against. @returns {"width" | "depth"} */
  get x() { return AXES[this.model.get("x_index")]; }
  /** @returns {Measure} the large plot's */
  get y() { return MEASURES[this.model.get("y_index")]; }
  get other() { return this.x === "width" ? /** @type {const} */ ("depth") : /** @type {const} */ ("width"); }

  /** The name under which the table holds a setting's initialization. @param {Setting} chosen */
  nameOf(chosen) {
    const kind = this.model.get("kinds")[chosen.init];
    return kind === "m^-c" ? `m^-${chosen.c}` : kind;
  }

  /** @param {Setting} chosen @returns {Series} */
  seriesOf(chosen) {
    const name = this.nameOf(chosen);
    const found = this.model.get("series").find((/** @type {Series} */ series) => series.name === name);
    return found ?? { name, label: `m${superscript(-chosen.c)}`, color: UNMEASURED };
  }

  /** A network in a reader's words. @param {Setting} chosen */
  titleOf(chosen) {
    return `${this.seriesOf(chosen).label}, width ${chosen.width}, depth ${chosen.depth}`;
  }

  progressed() {
    const state = this.model.get("progress");
    if (state.epoch === 0 || (!state.running && !state.message)) this.history = [];
    if (state.train_loss !== undefined && this.history[this.history.length - 1]?.epoch !== state.epoch) {
      this.history.push({ ...state, at: performance.now() });
    }
    if (state.paused && this.history.length) this.history[this.history.length - 1].at = NaN;
  }

  /** Seconds to the end of this network, at the pace of its epochs so far (but those with a pause); NaN while too little has been seen. */
  get left() {
    const { history } = this;
    let [epochs, time] = [0, 0];
    for (let i = 1; i < history.length; i++) {
      const took = history[i].at - history[i - 1].at;
      if (Number.isNaN(took)) continue;
      epochs += history[i].epoch - history[i - 1].epoch;
      time += took / 1000;
    }
    const last = history[history.length - 1];
    return time > 1 ? ((last.epochs - last.epoch) * time) / epochs : NaN;
  }

  /** Put the settings into the page's address, beside what is there. */
  writeAddress() {
    const [anchor, labs] = readAddress();
    labs.set(this.model.get("name"), SHARED.map((trait) => this.model.get(trait)).join(","));
    try {
      history.replaceState(null, "", `#${[anchor, ...[...labs].map(([name, values]) => `${name}=${values}`)].join("~")}`);
    } catch {
      // Safari allows a hundred changes in half a minute; the next move will do.
    }
  }

  /** Take the settings from the page's address, if it has some for this laboratory. Returns a note if they cannot be read. */
  fromAddress() {
    const [anchor, labs] = readAddress();
    const text = labs.get(this.model.get("name"));
    if (text === undefined) return "";
    const values = text.split(",").map((value) => (value.trim() === "" ? NaN : Number(value)));
    /** @type {Record<string, [number, number, boolean]>} */
    const limits = this.model.get("limits");
    const valid = values.length === SHARED.length && values.every((value, i) => {
      const [low, high, whole] = limits[SHARED[i]];
      return value >= low && value <= high && (!whole || Number.isInteger(value));
    });
    if (!valid) return "The settings in this page's address could not be read, and were ignored.";
    // From the last to the first: to set c also chooses m^-c, and the init in the address has the last word.
    for (let i = SHARED.length - 1; i >= 0; i--) this.model.set(SHARED[i], values[i]);
    document.getElementById(anchor)?.scrollIntoView();
    return "";
  }

  /** A view more. The first one takes the settings from the address: by then the controls are linked, and follow. */
  opened() {
    this.views += 1;
    if (!this.read && !this.live) this.note = this.fromAddress();
    this.read = true;
  }

  /** A view less: when the last one goes, nobody watches, and the work ends. */
  closed() {
    this.views -= 1;
    if (this.views === 0) this.ask({ kind: "stop" });
  }
}
