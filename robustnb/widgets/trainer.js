// Trains one network of eq. (2) with jax-js: the same mathematics and the same history rows as robustnb/training.py.
// @ts-check

import "./instances.js";

import { defaultDevice, jit, jvp, nn, numpy as np, valueAndGrad } from "@jax-js/jax";

import { ball, generator, normals, shuffle } from "./random.js";

/**
 * @typedef {import("@jax-js/jax").numpy.Array} Tensor
 * @typedef {{x: Float32Array, y: Uint8Array, train: number, inputs: number, classes: number}} Data  images row by row, the training set first
 * @typedef {{init: string, betas: [number, number, number], width: number, depth: number, lr: number, epochs: number, seed: number}} Setting
 * @typedef {{weights?: Float32Array[], order?: number[], delta?: Float32Array}} Given  what a test fixes instead of the seed
 * @typedef {{epoch: number, train_loss: number, train_accuracy: number, test_accuracy: number, stability: number,
 *   stability_error: number, lazy_ratio: number, untrained: boolean, diverged: boolean}} Row
 */

export const BATCH = 64;
const BLOCK = 180; // images measured at once: the digits' 1,437 and 360 fill 8 and 2 such blocks
const EXPLODED = 1000; // as in training.py, and so is this
const UNTRAINED = 0.95;
const SLICE = 40; // ms of work between two looks at the messages

/** @param {Tensor[]} weights @param {Tensor} x */
function forward(weights, x) {
  let h = x;
  for (const weight of weights.slice(0, -1)) h = nn.relu(np.matmul(h, weight));
  return np.matmul(h, weights[weights.length - 1]);
}

/** Mean cross-entropy; y is one-hot. @param {Tensor[]} weights @param {Tensor} x @param {Tensor} y */
function loss(weights, x, y) {
  const batch = x.shape[0];
  return nn.logSoftmax(forward(weights, x), -1).mul(y).sum().mul(-1 / batch);
}

/** One step of SGD, and the highest loss so far. Arrays move: a value used twice is passed as `.ref` the first time.
 * @param {Tensor[]} weights @param {Tensor} highest @param {Tensor} x @param {Tensor} y @param {Tensor} lr */
function step(weights, highest, x, y, lr) {
  const [value, gradients] = valueAndGrad(loss)(weights.map((w) => w.ref), x, y);
  const moved = weights.map((w, i) => w.sub(gradients[i].mul(lr.ref)));
  lr.dispose();
  return [moved, np.maximum(highest, value)];
}

/** f(x) and J(x) δ. @param {Tensor[]} weights @param {Tensor} x @param {Tensor} delta */
function withPerturbation(weights, x, delta) {
  return jvp((/** @type {Tensor} */ z) => forward(weights, z), [x], [delta]);
}

/** Compiled for each backend apart: the constants of a compiled function stay on the backend that it first ran on.
 * @type {Map<string, {step: any, outputs: any, withPerturbation: any}>} */
const functions = new Map();

function compiled() {
  const backend = defaultDevice();
  const found = functions.get(backend) ?? { step: jit(step), outputs: jit(forward), withPerturbation: jit(withPerturbation) };
  functions.set(backend, found);
  return found;
}

/** Let messages in. A message to oneself does not wait as long as a timer does. */
export const pause = () => new Promise((resolve) => {
  const channel = new MessageChannel();
  channel.port1.onmessage = () => { channel.port1.close(); resolve(undefined); };
  channel.port2.postMessage(0);
});

/** Thrown within a run that was told to stop. */
export const STOPPED = Symbol("stopped");

export class Trainer {
  /** @param {Data} data @param {Setting} setting @param {Given} given @param {() => boolean} stopped is asked between slices of work */
  constructor(data, setting, given = {}, stopped = () => false) {
    this.compiled = compiled();
    this.data = data;
    this.setting = setting;
    this.given = given;
    this.stopped = stopped;
    this.sliceEnd = performance.now() + SLICE;
    this.epoch = 0;
    this.sizes = [data.inputs, ...Array(setting.depth - 1).fill(setting.width), data.classes];
    this.uniform = generator(setting.seed);
    this.order = Array.from({ length: data.train }, (_, i) => i);
    this.weights = this.sizes.slice(1).map((fanOut, layer) => this.draw(layer, this.sizes[layer], fanOut));
    this.highest = np.array(0);
    this.lr = np.array(setting.lr);
    // A minibatch and its one-hot classes: jax-js copies them, so that one pair of arrays serves every step.
    this.images = new Float32Array(BATCH * data.inputs);
    this.targets = new Float32Array(BATCH * data.classes);
    this.limit = Infinity;
  }

  /** A weight matrix (fan_in, fan_out) at initialization. @param {number} layer @param {number} fanIn @param {number} fanOut */
  draw(layer, fanIn, fanOut) {
    const { betas, depth } = this.setting;
    const beta = betas[layer === 0 ? 0 : layer === depth - 1 ? 2 : 1];
    const values = this.given.weights?.[layer] ?? normals(this.uniform, fanIn * fanOut, beta);
    return np.array(values, { shape: [fanIn, fanOut] });
  }

  /** Every SLICE, let messages in; throws STOPPED if one of them was a stop. */
  async breathe() {
    if (performance.now() < this.sliceEnd) return;
    await pause();
    if (this.stopped()) throw STOPPED;
    this.sliceEnd = performance.now() + SLICE;
  }

  /** What is fixed for the whole run: W(0), to measure κ against, and a δ for each test image (the same for every seed). */
  async start() {
    this.initial = await Promise.all(this.weights.map((w) => w.ref.data()));
    const { inputs, y, train } = this.data;
    this.delta = this.given.delta ?? ball(generator(0), y.length - train, inputs);
    return this.measure();
  }

  /** One pass over the training data. */
  async train() {
    const order = this.given.order ?? shuffle(this.uniform, this.order);
    for (let from = 0; from < order.length; from += BATCH) {
      await this.step(order.slice(from, from + BATCH));
      await this.breathe();
    }
    this.epoch += 1;
  }

  /** One step on these images. @param {number[]} rows */
  async step(rows) {
    const { inputs, classes, x, y } = this.data;
    const images = this.images.subarray(0, rows.length * inputs);
    const targets = this.targets.subarray(0, rows.length * classes).fill(0);
    rows.forEach((row, i) => {
      images.set(x.subarray(row * inputs, (row + 1) * inputs), i * inputs);
      targets[i * classes + y[row]] = 1;
    });
    const [weights, highest] = this.compiled.step(
      this.weights,
      this.highest,
      np.array(images, { shape: [rows.length, inputs] }),
      np.array(targets, { shape: [rows.length, classes] }),
      this.lr.ref,
    );
    [this.weights, this.highest] = [/** @type {Tensor[]} */ (weights), /** @type {Tensor} */ (highest)];
    // jax-js queues work until somebody asks for its result; to carry a long queue along costs more than the work itself.
    await this.weights[0].blockUntilReady();
  }

  /** Images from..to in blocks of BLOCK, the last filled up with zeros, so that one compiled function serves all.
   * @param {Float32Array} source @param {number} from @param {number} to */
  *blocks(source, from, to) {
    const { inputs } = this.data;
    for (let start = from; start < to; start += BLOCK) {
      const block = new Float32Array(BLOCK * inputs);
      block.set(source.subarray(start * inputs, Math.min(start + BLOCK, to) * inputs));
      // Its array is made where it is used at once: one that a stop comes upon would never be freed.
      yield { start, count: Math.min(BLOCK, to - start), tensor: () => np.array(block, { shape: [BLOCK, inputs] }) };
    }
  }

  /** f of one block. @param {() => Tensor} block @returns {Promise<Float32Array>} */
  async outputs(block) {
    await this.breathe();
    return /** @type {Promise<Float32Array>} */ (this.compiled.outputs(this.weights.map((w) => w.ref), block()).data());
  }

  /** f of these images, row by row. @param {Float32Array} images */
  async outputsOf(images) {
    const { inputs, classes } = this.data;
    const f = new Float32Array((images.length / inputs) * classes);
    for (const block of this.blocks(images, 0, images.length / inputs)) {
      f.set((await this.outputs(block.tensor)).subarray(0, block.count * classes), block.start * classes);
    }
    return f;
  }

  /** The history row of the network as it is now. @returns {Promise<Row>} */
  async measure() {
    const { x, y, train, classes, inputs } = this.data;
    let [lossSum, hits] = [0, 0];
    for (const block of this.blocks(x, 0, train)) {
      const f = await this.outputs(block.tensor);
      for (let i = 0; i < block.count; i++) {
        const scores = f.subarray(i * classes, (i + 1) * classes);
        lossSum += crossEntropy(scores, y[block.start + i]);
        hits += Number(argmax(scores) === y[block.start + i]);
      }
    }
    /** @type {number[]} */
    const lengths = [];
    let testHits = 0;
    const deltas = this.blocks(/** @type {Float32Array} */ (this.delta), 0, y.length - train);
    for (const block of this.blocks(x, train, y.length)) {
      const delta = /** @type {any} */ (deltas.next().value);
      const [f, moved] = this.compiled.withPerturbation(this.weights.map((w) => w.ref), block.tensor(), delta.tensor());
      const [scores, moves] = [await f.data(), await moved.data()];
      for (let i = 0; i < block.count; i++) {
        testHits += Number(argmax(scores.subarray(i * classes, (i + 1) * classes)) === y[block.start + i]);
        lengths.push(norm(moves.subarray(i * classes, (i + 1) * classes)));
      }
    }
    const n = lengths.length;
    const mean = lengths.reduce((a, b) => a + b, 0) / n;
    const variance = lengths.reduce((a, b) => a + (b - mean) ** 2, 0) / (n - 1);
    const row = {
      epoch: this.epoch,
      train_loss: lossSum / train,
      train_accuracy: hits / train,
      test_accuracy: testHits / (y.length - train),
      stability: mean,
      stability_error: Math.sqrt(variance / n),
      lazy_ratio: await this.lazyRatio(),
      untrained: lossSum / train >= UNTRAINED * Math.log(classes),
      diverged: false,
    };
    if (this.epoch === 0) this.limit = EXPLODED * Math.max(row.train_loss, 1);
    const highest = (await this.highest.ref.data())[0];
    row.diverged = !(highest <= this.limit && row.train_loss <= this.limit && Number.isFinite(row.stability));
    return row;
  }

  /** κ = Σ‖W_l − W_l(0)‖ / Σ‖W_l(0)‖. */
  async lazyRatio() {
    let [moved, start] = [0, 0];
    for (const [layer, weight] of this.weights.entries()) {
      const now = await weight.ref.data();
      const then = /** @type {any} */ (this.initial)[layer];
      moved += norm(now.map((/** @type {number} */ w, /** @type {number} */ i) => w - then[i]));
      start += norm(then);
    }
    return moved / start;
  }

  dispose() {
    for (const array of [...this.weights, this.highest, this.lr]) array.dispose();
  }
}

/** @param {ArrayLike<number>} v */
function norm(v) {
  let sum = 0;
  for (let i = 0; i < v.length; i++) sum += v[i] * v[i];
  return Math.sqrt(sum);
}

/** @param {ArrayLike<number>} scores */
function argmax(scores) {
  let best = 0;
  for (let i = 1; i < scores.length; i++) if (scores[i] > scores[best]) best = i;
  return best;
}

/** −log softmax(scores)[label] @param {ArrayLike<number>} scores @param {number} label */
function crossEntropy(scores, label) {
  const top = scores[argmax(scores)];
  let sum = 0;
  for (let i = 0; i < scores.length; i++) sum += Math.exp(scores[i] - top);
  return Math.log(sum) - (scores[label] - top);
}
