// Without a kernel: training in the page itself, by one worker that all laboratories of the page share.
// It writes the same traits as lab.py does with a kernel, so that the view need not know who trains.
// @ts-check

/**
 * @typedef {{init: number, c: number, width: number, depth: number, lr: number, epochs: number, seed: number}} Setting
 * @typedef {{get: (name: string) => any, set: (name: string, value: any) => void, save_changes: () => void,
 *   on: (event: string, f: () => void) => void, off: (event: string, f: () => void) => void,
 *   send: (message: any) => void, widget_manager: any}} Model
 */

/** Table 1: β_1, β, β_L for an initialization of that kind, from the shape (d, m, o).
 * @param {string} kind @param {number} c @param {number} d @param {number} m @param {number} o @returns {[number, number, number]} */
function betas(kind, c, d, m, o) {
  if (kind === "lecun") return [Math.sqrt(1 / d), Math.sqrt(1 / m), Math.sqrt(1 / m)];
  if (kind === "he") return [Math.sqrt(2 / d), Math.sqrt(2 / m), Math.sqrt(2 / m)];
  if (kind === "ntk") return [Math.sqrt(2 / m), Math.sqrt(2 / m), Math.sqrt(1 / o)];
  return [m ** -c, m ** -c, m ** -c];
}

/** What the page loads when Train is first pressed: the data and the engine, as classic scripts (they work from a disk).
 * @param {string} name */
function script(name) {
  return new Promise((resolve, reject) => {
    const root = new URL(`${document.documentElement.dataset.content_root ?? "./"}_static/`, document.baseURI);
    const tag = document.createElement("script");
    tag.src = new URL(name, root).href;
    tag.onload = resolve;
    tag.onerror = () => reject(new Error(`${name} could not be loaded: the book is not complete.`));
    document.head.append(tag);
  });
}

/** @param {string} text */
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

/** The page's worker, started once, whatever laboratory asks first. @returns {Promise<Worker>} */
function pageWorker() {
  const page = /** @type {any} */ (window);
  page.robustnb ??= {};
  page.robustnb.worker ??= (async () => {
    await Promise.all([script("robustnb-digits.js"), script("robustnb-engine.js")]);
    const { pixels, classes, scale, train, inputs } = page.robustnb.digits;
    const data = { x: Float32Array.from(bytes(pixels), (v) => v / scale), y: bytes(classes), train, inputs, classes: 10 };
    const worker = new Worker(URL.createObjectURL(new Blob([page.robustnb.engine])));
    worker.postMessage({ kind: "load", backend: "wasm", data });
    await new Promise((resolve, reject) => {
      worker.onmessage = ({ data: message }) => (message.kind === "ready" ? resolve(undefined) : reject(new Error(message.message)));
      worker.onerror = (event) => reject(new Error(event.message));
    });
    return worker;
  })();
  return page.robustnb.worker.catch((/** @type {Error} */ error) => {
    page.robustnb.worker = undefined; // so that the next press tries again
    throw error;
  });
}

/** Runs are numbered page-wide (each model has its own copy of this module), so that laboratories can share the worker. */
function nextRun() {
  const page = /** @type {any} */ (window);
  page.robustnb ??= {};
  page.robustnb.lastRun = (page.robustnb.lastRun ?? 0) + 1;
  return page.robustnb.lastRun;
}

class PageEngine {
  /** @param {Model} model */
  constructor(model) {
    this.model = model;
    this.id = 0;
    this.stopped = false;
    /** @type {Worker | undefined} */
    this.worker = undefined;
  }

  /** @param {any} message what the view would send to a kernel */
  async handle(message) {
    if (message.kind === "train") {
      try {
        await this.train(message.settings, Boolean(message.paused));
      } catch (error) {
        this.write({ error: String(error), progress: { running: false } });
      }
      return;
    }
    if (message.kind === "reset") this.write({ runs: [], progress: {}, error: "" });
    if (message.kind === "pause" || message.kind === "step" || message.kind === "resume") {
      this.write({ progress: { ...this.model.get("progress"), paused: message.kind !== "resume" } });
    }
    if (message.kind === "stop" || message.kind === "reset") this.stopped = true;
    if (this.id) this.worker?.postMessage({ kind: message.kind === "reset" ? "stop" : message.kind, id: this.id });
  }

  /** Train these settings one after the other. @param {Setting[]} settings @param {boolean} paused wait before the first epoch */
  async train(settings, paused) {
    const id = (this.id = nextRun());
    this.stopped = false;
    this.write({ error: "", progress: { running: true, paused, epochs: settings[0].epochs, run: 1, of: settings.length } });
    this.worker = await pageWorker();
    if (this.id === id && this.stopped) this.write({ progress: { running: false, message: "Stopped before the first epoch." } });
    if (this.stopped) return;
    for (const [index, setting] of settings.entries()) {
      if (this.id !== id || !(await this.one(id, setting, index + 1, settings.length))) return;
    }
  }

  /** One network; true if it came to its last epoch. @param {number} id @param {Setting} setting @param {number} run @param {number} of
   * @returns {Promise<boolean>} */
  one(id, setting, run, of) {
    const worker = /** @type {Worker} */ (this.worker);
    const kind = this.model.get("kinds")[setting.init];
    const key = `${id}.${run}`;
    /** @type {any} */
    let row = { epoch: 0 };
    return new Promise((resolve, reject) => {
      const listener = (/** @type {MessageEvent} */ { data: message }) => {
        if (message.id !== key) return;
        if (message.kind === "row") {
          row = message.row;
          const paused = Boolean(this.model.get("progress").paused);
          if (this.id === id && !this.stopped) this.write({ progress: { ...row, running: true, paused, epochs: setting.epochs, run, of, setting } });
        } else {
          worker.removeEventListener("message", listener);
          if (message.kind === "error") reject(new Error(message.message));
          else resolve(this.finish(id, setting, row, message.stopped, run, of));
        }
      };
      worker.addEventListener("message", listener);
      const { inputs, outputs } = this.model.get("shape");
      const { paused } = this.model.get("progress");
      worker.postMessage({
        kind: "train",
        id: key,
        paused: Boolean(paused),
        setting: { ...setting, init: kind, betas: betas(kind, setting.c, inputs, setting.width, outputs) },
      });
    });
  }

  /** @param {number} id @param {Setting} setting @param {any} row @param {boolean} stopped @param {number} run @param {number} of */
  finish(id, setting, row, stopped, run, of) {
    const complete = !stopped && !row.diverged;
    if (complete) {
      const { stability, lazy_ratio, test_accuracy } = row;
      this.write({ runs: [...this.model.get("runs"), { ...setting, stability, lazy_ratio, test_accuracy }] });
    }
    const end = stopped || run === of;
    if (this.id === id) this.write({ progress: { running: !end, run, of, message: outcome(row, stopped, setting.epochs) } });
    return !end;
  }

  /** @param {Record<string, any>} traits */
  write(traits) {
    for (const [name, value] of Object.entries(traits)) this.model.set(name, value);
  }
}

/** How a run ended, in the words that lab.py uses. @param {any} row @param {boolean} stopped @param {number} epochs */
function outcome(row, stopped, epochs) {
  if (row.diverged) return `Diverged at epoch ${row.epoch}.`;
  if (stopped) return `Stopped at epoch ${row.epoch} of ${epochs}.`;
  return `Done: P/ε = ${Number(row.stability.toPrecision(3))}, κ = ${Number(row.lazy_ratio.toPrecision(3))}, accuracy ${Number(row.test_accuracy.toPrecision(3))}.`;
}
