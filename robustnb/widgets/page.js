// Without a kernel: training in the page itself, by one worker that all laboratories of the page share.
// It writes the same traits as lab.py does with a kernel, so that the view need not know who trains.
// @ts-check

/**
 * @typedef {{init: number, c: number, width: number, depth: number, lr: number, epochs: number, seed: number}} Setting
 * @typedef {{get: (name: string) => any, set: (name: string, value: any) => void, save_changes: () => void,
 *   on: (event: string, f: () => void) => void, off: (event: string, f: () => void) => void,
 *   send: (message: any) => void, widget_manager: any}} Model
 */

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

/** @param {string} text base64 */
function bytes(text) {
  const decoded = atob(text);
  const array = new Uint8Array(decoded.length);
  for (let i = 0; i < array.length; i++) array[i] = decoded.charCodeAt(i);
  return array;
}

/** The page's worker, started once, whatever laboratory asks first. @returns {Promise<Worker>} */
function pageWorker() {
  const page = /** @type {any} */ (window);
  page.robustnb ??= {};
  page.robustnb.worker ??= (async () => {
    await Promise.all([script("robustnb-digits.js"), script("robustnb-engine.js")]);
    const { pixels, classes, scale, train, inputs } = page.robustnb.digits;
    const address = URL.createObjectURL(new Blob([page.robustnb.engine]));
    const worker = new Worker(address);
    const x = new Float32Array(bytes(pixels)).map((v) => v / scale);
    const data = { x, y: bytes(classes), train, inputs, classes: 10 };
    try {
      worker.postMessage({ kind: "load", data });
      await new Promise((resolve, reject) => {
        worker.onmessage = ({ data: message }) => (message.kind === "ready" ? resolve(undefined) : reject(new Error(message.message)));
        worker.onerror = (event) => reject(new Error(event.message));
      });
    } catch (error) {
      worker.terminate();
      throw error;
    } finally {
      URL.revokeObjectURL(address);
    }
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

const BACKENDS = { wasm: "WebAssembly", webgpu: "WebGPU" };

class PageEngine {
  /** @param {Model} model */
  constructor(model) {
    this.model = model;
    this.id = 0;
    this.stopped = false;
    /** What the reader must know of this run. */
    this.note = "";
    /** @type {Worker | undefined} */
    this.worker = undefined;
  }

  /** @param {any} message what the view would send to a kernel */
  async handle(message) {
    if (message.kind !== "train") return this.direct(message);
    const id = (this.id = nextRun());
    try {
      await this.train(id, message.settings, Boolean(message.paused));
    } catch (error) {
      // A late error of a run that another has followed does not end that one.
      if (this.id === id) this.write({ error: String(error), progress: { running: false } });
    }
  }

  /** Pause, step, resume, stop or reset. @param {any} message */
  direct(message) {
    if (message.kind === "reset") this.write({ runs: [], progress: {}, moves: {}, error: "" });
    if (message.kind === "pause" || message.kind === "step" || message.kind === "resume") {
      this.write({ progress: { ...this.model.get("progress"), paused: message.kind !== "resume" } });
    }
    if (message.kind === "stop" || message.kind === "reset") this.stopped = true;
    if (this.id) this.worker?.postMessage({ kind: message.kind === "reset" ? "stop" : message.kind, id: this.id });
    if (message.kind === "reset") this.id = 0; // nothing that the run still sends is heard
  }

  /** Train these settings one after the other. @param {number} id @param {Setting[]} settings @param {boolean} paused wait before the first epoch */
  async train(id, settings, paused) {
    [this.stopped, this.note] = [false, ""];
    this.write({ error: "", progress: { running: true, paused, epochs: settings[0].epochs, run: 1, of: settings.length } });
    this.worker = await pageWorker();
    const { inputs } = /** @type {any} */ (window).robustnb.digits;
    if (this.model.get("shape").inputs !== inputs) throw new Error("The page has the digits only: to train on other data, open the notebook.");
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
          const state = { ...row, running: true, paused, epochs: setting.epochs, run, of, setting, note: this.note };
          if (this.id === id && !this.stopped) this.write({ progress: state });
        } else if (message.kind === "fallback") {
          if (this.id === id) this.note = "The graphics device failed: trained anew in WebAssembly.";
        } else {
          worker.removeEventListener("message", listener);
          if (message.kind === "error") reject(new Error(message.message));
          else resolve(this.finish(id, setting, row, message, run, of));
        }
      };
      worker.addEventListener("message", listener);
      const { inputs, outputs } = this.model.get("shape");
      const { paused } = this.model.get("progress");
      worker.postMessage({
        kind: "train",
        id: key,
        paused: Boolean(paused),
        backend: /** @type {any} */ (window).robustnb.backend, // for whoever wants to compare: "wasm" or "webgpu"
        probe: perturbed(this.model.get("digits")),
        setting: { ...setting, init: kind, betas: betas(kind, setting.c, inputs, setting.width, outputs) },
      });
    });
  }

  /** @param {number} id @param {Setting} setting @param {any} row the last @param {any} end the worker's last message
   * @param {number} run @param {number} of */
  finish(id, setting, row, end, run, of) {
    if (this.id !== id) return false;
    const { stopped } = end;
    if (!stopped && !row.diverged) {
      const { stability, lazy_ratio, test_accuracy, untrained } = row;
      const { outputs } = this.model.get("shape");
      this.write({
        runs: [...this.model.get("runs"), { ...setting, stability, lazy_ratio, test_accuracy, untrained, engine: end.backend }],
        moves: { setting, stability, outputs: nested(end.outputs, this.model.get("digits").radii.length, outputs) },
      });
    }
    // A stop, or another laboratory's Train, may come when this network has no step left at which it could end.
    const last = stopped || run === of || this.stopped || /** @type {any} */ (window).robustnb.lastRun !== id;
    const message = [this.note, outcome(row, end, setting.epochs)].filter(Boolean).join(" ");
    const { paused } = this.model.get("progress");
    this.write({ progress: { running: !last, paused, run, of, message } });
    return !last;
  }

  /** @param {Record<string, any>} traits */
  write(traits) {
    for (const [name, value] of Object.entries(traits)) this.model.set(name, value);
  }
}

/** x + ε δ for each digit and each radius, row by row. @param {Digits} digits */
function perturbed({ pixels, deltas, radii }) {
  return Float32Array.from(pixels.flatMap((x, k) => radii.flatMap((radius) => x.map((v, i) => v + radius * deltas[k][i]))));
}

/** The outputs of those rows: [digit][radius][class]. @param {Float32Array} outputs @param {number} radii @param {number} classes @returns {number[][][]} */
function nested(outputs, radii, classes) {
  const rows = Array.from({ length: outputs.length / classes }, (_, i) => [...outputs.subarray(i * classes, (i + 1) * classes)]);
  return Array.from({ length: rows.length / radii }, (_, k) => rows.slice(k * radii, (k + 1) * radii));
}

/** How a run ended, in the words that lab.py uses. @param {any} row @param {{stopped: boolean, backend: "wasm" | "webgpu"}} end @param {number} epochs */
function outcome(row, { stopped, backend }, epochs) {
  if (row.diverged) return `Diverged at epoch ${row.epoch}.`;
  if (stopped) return `Stopped at epoch ${row.epoch} of ${epochs}.`;
  const [stability, ratio, accuracy] = [row.stability, row.lazy_ratio, row.test_accuracy].map((v) => Number(v.toPrecision(3)));
  const untrained = row.untrained ? " Untrained: its loss is still that of the output 0, so its P/ε and κ say little." : "";
  return `Done: P/ε = ${stability}, κ = ${ratio}, accuracy ${accuracy}.${untrained} Trained in this page, by ${BACKENDS[backend]}.`;
}
