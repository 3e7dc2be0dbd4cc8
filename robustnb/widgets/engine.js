// The page's engine: a worker that trains one network at a time, on WebAssembly or WebGPU, told what to do by
// messages (see page.js). Bundled with jax-js when the book is built.
// @ts-check

import { defaultDevice, getWebGPUDevice, init } from "@jax-js/jax";
import { BATCH, STOPPED, Trainer, pause } from "./trainer.js";

/** @typedef {import("./trainer.js").Data} Data */
/** @typedef {import("./trainer.js").Setting} Setting */
/** @typedef {import("./trainer.js").Given} Given */
/** @typedef {{id: string, stopped: boolean, paused: boolean, wake: () => void}} Run */
/** @typedef {"wasm" | "webgpu"} Backend */

const FAST_ENOUGH = 2; // ms a step: an epoch of the digits then takes 50 ms, and no GPU is tried

/** @type {Data} */
let data;
/** What jax-js can compute on here. @type {Backend[]} */
let backends = [];
/** The faster backend of each shape that was tried. @type {Map<string, Backend>} */
const faster = new Map();
/** @type {Run} */
let run = { id: "", stopped: true, paused: false, wake: () => {} };
/** Ends the attempt of the run under way to use the graphics device, which is lost. */
let lost = () => {};
/** Settles when the run before has ended: two at once would mix their backends. */
let before = Promise.resolve();

/** Milliseconds that a step of this shape takes. @param {Run} mine @param {Backend} backend @param {Setting} setting */
async function stepTime(mine, backend, setting) {
  defaultDevice(backend);
  const trainer = new Trainer(data, setting, {}, () => mine.stopped);
  const rows = Array.from({ length: BATCH }, (_, row) => row);
  const steps = async (/** @type {number} */ n) => {
    const start = performance.now();
    for (let k = 0; k < n; k++) {
      await trainer.step(rows);
      await trainer.breathe();
    }
    return (performance.now() - start) / n;
  };
  try {
    await steps(1); // compiles
    const once = await steps(1);
    return once > 25 ? once : await steps(Math.ceil(50 / Math.max(once, 1)));
  } finally {
    trainer.dispose();
  }
}

/** WebGPU where there is one and it is faster for this shape, else WebAssembly. @param {Run} mine @param {Setting} setting
 * @returns {Promise<Backend>} */
async function fastest(mine, setting) {
  if (!backends.includes("webgpu")) return "wasm";
  const shape = `${setting.width},${setting.depth}`;
  const found = faster.get(shape);
  if (found) return found;
  const wasm = await stepTime(mine, "wasm", setting);
  const best = wasm < FAST_ENOUGH || wasm <= (await stepTime(mine, "webgpu", setting)) ? "wasm" : "webgpu";
  faster.set(shape, best);
  return best;
}

/** Train, a row posted for each epoch, until the last, divergence or a stop; then the outputs for the images of `probe`.
 * `backend` says where; if it does not, the faster one is found out.
 * @param {Run} mine @param {{setting: Setting, backend?: Backend, given?: Given, probe?: Float32Array}} message
 * @param {(message: any) => void} post */
async function train(mine, { setting, backend, given, probe }, post) {
  /** @type {Trainer | undefined} */
  let trainer;
  const end = { kind: "end", id: mine.id, stopped: false };
  try {
    backend ??= await fastest(mine, setting);
    defaultDevice(backend);
    trainer = new Trainer(data, setting, given, () => mine.stopped);
    let row = await trainer.start();
    post({ kind: "row", id: mine.id, row });
    while (row.epoch < setting.epochs && !row.diverged) {
      await pause(); // a small network's epoch is shorter than a slice
      if (mine.paused && !mine.stopped) await new Promise((resolve) => { mine.wake = () => resolve(undefined); });
      if (mine.stopped) throw STOPPED;
      await trainer.train();
      row = await trainer.measure();
      post({ kind: "row", id: mine.id, row });
    }
    const weights = given && (await Promise.all(trainer.weights.map((w) => w.ref.data())));
    post({ ...end, backend, weights, outputs: probe && (await trainer.outputsOf(probe)) });
  } catch (reason) {
    if (reason !== STOPPED) throw reason;
    post({ ...end, stopped: true });
  } finally {
    trainer?.dispose();
  }
}

/** Train where it is fastest; a graphics device that fails on the way is given up, and the run begins anew without it.
 * @param {Run} mine @param {any} message */
async function begin(mine, message) {
  const post = (/** @type {any} */ answer) => self.postMessage(answer);
  const onProcessor = { ...message, backend: "wasm" };
  if (!backends.includes("webgpu") || message.backend === "wasm" || mine.stopped) return train(mine, onProcessor, post);
  // What waits for a lost device waits for ever; whatever still comes from there is not heard.
  let heard = true;
  try {
    await new Promise((resolve, reject) => {
      lost = () => reject(new Error("The graphics device was lost."));
      train(mine, message, (answer) => heard && post(answer)).then(resolve, reject);
    });
  } catch {
    heard = false;
    backends = ["wasm"];
    post({ kind: "fallback", id: mine.id });
    await train(mine, onProcessor, post);
  }
}

/** @param {any} message */
async function receive(message) {
  if (message.kind === "load") {
    const found = await init("wasm", "webgpu");
    backends = /** @type {const} */ (["wasm", "webgpu"]).filter((backend) => found.includes(backend));
    if (backends.includes("webgpu")) getWebGPUDevice().lost.then(() => {
      backends = ["wasm"]; // between two runs, too
      lost();
    });
    data = message.data;
    self.postMessage({ kind: "ready", backends });
  } else if (message.kind === "train") {
    run.stopped = true;
    run.wake();
    const mine = (run = { id: message.id, stopped: false, paused: message.paused, wake: () => {} });
    const last = before;
    let over = () => {};
    before = new Promise((resolve) => { over = () => resolve(undefined); });
    await last;
    await begin(mine, message).finally(over);
  } else if (!run.id.startsWith(`${message.id}.`)) {
    // meant for a run that is over
  } else if (message.kind === "stop") {
    run.stopped = true;
    run.wake();
  } else if (message.kind === "pause") {
    run.paused = true;
  } else if (message.kind === "resume" || message.kind === "step") {
    run.paused = message.kind === "step";
    run.wake();
  }
}

self.onmessage = ({ data: message }) => receive(message).catch((error) => {
  self.postMessage({ kind: "error", id: message.id, message: String(error) });
});
