// The page's engine: trains one network of eq. (2) in a worker, with jax-js, on WebAssembly or WebGPU.
// The same mathematics and the same history rows as robustnb/training.py; bundled with jax-js when the book is built.
// @ts-check

import { defaultDevice, init, jit, jvp, nn, numpy as np, random, valueAndGrad } from "@jax-js/jax";

/**
 * @typedef {import("@jax-js/jax").numpy.Array} Tensor
 * @typedef {{x: Float32Array, y: Uint8Array, train: number, inputs: number, classes: number}} Data  images row by row, the training set first
 * @typedef {{init: string, betas: [number, number, number], width: number, depth: number, lr: number, epochs: number, seed: number}} Setting
 * @typedef {{weights?: Float32Array[], order?: number[], delta?: Float32Array}} Given  what a test fixes instead of the seed
 * @typedef {{epoch: number, train_loss: number, train_accuracy: number, test_accuracy: number, stability: number,
 *   stability_error: number, lazy_ratio: number, diverged: boolean}} Row
 */

const BATCH = 64;
const EXPLODED = 1000; // as in training.py

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

/** One step of SGD, and the highest loss so far. Arrays move: a value used twice is passed as `.ref` the first time. */
const step = jit((/** @type {Tensor[]} */ weights, /** @type {Tensor} */ highest, /** @type {Tensor} */ x, /** @type {Tensor} */ y, /** @type {Tensor} */ lr) => {
  const [value, gradients] = valueAndGrad(loss)(weights.map((w) => w.ref), x, y);
  const moved = weights.map((w, i) => w.sub(gradients[i].mul(lr.ref)));
  lr.dispose();
  return [moved, np.maximum(highest, value)];
});

const outputs = jit(forward);

/** f(x) and J(x) δ. */
const withPerturbation = jit((/** @type {Tensor[]} */ weights, /** @type {Tensor} */ x, /** @type {Tensor} */ delta) =>
  jvp((/** @type {Tensor} */ z) => forward(weights, z), [x], [delta]),
);

/** Let messages in. A message to oneself does not wait as long as a timer does. */
const pause = () => new Promise((resolve) => {
  const channel = new MessageChannel();
  channel.port1.onmessage = () => { channel.port1.close(); resolve(undefined); };
  channel.port2.postMessage(0);
});

export class Trainer {
  /** @param {Data} data @param {Setting} setting @param {Given} given */
  constructor(data, setting, given = {}) {
    this.data = data;
    this.setting = setting;
    this.given = given;
    this.epoch = 0;
    this.sizes = [data.inputs, ...Array(setting.depth - 1).fill(setting.width), data.classes];
    // A key for each weight matrix, one for δ, and one for the order of each epoch.
    this.keys = random.split(random.key(setting.seed), setting.depth + 1 + setting.epochs);
    this.weights = this.sizes.slice(1).map((fanOut, layer) => this.draw(layer, this.sizes[layer], fanOut));
    this.highest = np.array(0);
    this.limit = Infinity;
  }

  /** @param {number} index */
  key(index) {
    return this.keys.ref.slice(index);
  }

  /** A weight matrix (fan_in, fan_out) at initialization. @param {number} layer @param {number} fanIn @param {number} fanOut */
  draw(layer, fanIn, fanOut) {
    const { betas, depth } = this.setting;
    if (this.given.weights) return np.array(this.given.weights[layer], { shape: [fanIn, fanOut] });
    const beta = betas[layer === 0 ? 0 : layer === depth - 1 ? 2 : 1];
    return random.normal(this.key(layer), [fanIn, fanOut]).mul(beta);
  }

  /** What is fixed for the whole run: W(0), to measure κ against, and a δ for each test image. */
  async start() {
    this.initial = await Promise.all(this.weights.map((w) => w.ref.data()));
    const { inputs, y, train } = this.data;
    this.delta = this.given.delta ?? (await ball(y.length - train, inputs, this.key(this.setting.depth)));
    return this.measure();
  }

  /** The training images in the order of this epoch. @returns {Promise<number[]>} */
  async order() {
    if (this.given.order) return this.given.order;
    return Array.from(await random.permutation(this.key(this.setting.depth + 1 + this.epoch), this.data.train).data());
  }

  /** One pass over the training data. False if `stopped()` turned true on the way. @param {() => boolean} stopped */
  async train(stopped) {
    const order = await this.order();
    let sliceEnd = performance.now() + 40;
    for (let from = 0; from < order.length; from += BATCH) {
      this.step(order.slice(from, from + BATCH));
      if (performance.now() > sliceEnd) {
        await pause();
        if (stopped()) return false;
        sliceEnd = performance.now() + 40;
      }
    }
    this.epoch += 1;
    await pause(); // a small network's epoch is shorter than a slice
    return true;
  }

  /** One step on these images. @param {number[]} rows */
  step(rows) {
    const { inputs, classes, x, y } = this.data;
    const images = new Float32Array(rows.length * inputs);
    const targets = new Float32Array(rows.length * classes);
    rows.forEach((row, i) => {
      images.set(x.subarray(row * inputs, (row + 1) * inputs), i * inputs);
      targets[i * classes + y[row]] = 1;
    });
    const [weights, highest] = step(
      this.weights,
      this.highest,
      np.array(images, { shape: [rows.length, inputs] }),
      np.array(targets, { shape: [rows.length, classes] }),
      np.array(this.setting.lr),
    );
    [this.weights, this.highest] = [/** @type {Tensor[]} */ (weights), /** @type {Tensor} */ (highest)];
  }

  /** Images from..to in blocks of BATCH, the last filled up with zeros, so that one compiled function serves all.
   * @param {Float32Array} source @param {number} from @param {number} to */
  *blocks(source, from, to) {
    const { inputs } = this.data;
    for (let start = from; start < to; start += BATCH) {
      const block = new Float32Array(BATCH * inputs);
      block.set(source.subarray(start * inputs, Math.min(start + BATCH, to) * inputs));
      yield { start, count: Math.min(BATCH, to - start), tensor: np.array(block, { shape: [BATCH, inputs] }) };
    }
  }

  /** The history row of the network as it is now. @returns {Promise<Row>} */
  async measure() {
    const { x, y, train, classes, inputs } = this.data;
    let [lossSum, hits] = [0, 0];
    for (const block of this.blocks(x, 0, train)) {
      const f = await outputs(this.weights.map((w) => w.ref), block.tensor).data();
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
      const [f, moved] = withPerturbation(this.weights.map((w) => w.ref), block.tensor, /** @type {any} */ (deltas.next().value).tensor);
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
    for (const array of [...this.weights, this.highest, this.keys]) array.dispose();
  }
}

/** Uniform in the unit ball: a Gaussian direction, length U^(1/d). @param {number} count @param {number} d @param {Tensor} key */
async function ball(count, d, key) {
  const keys = random.split(key, 2);
  const delta = /** @type {Float32Array} */ (await random.normal(keys.ref.slice(0), [count, d]).data());
  const lengths = await random.uniform(keys.slice(1), [count]).data();
  for (let i = 0; i < count; i++) {
    const row = delta.subarray(i * d, (i + 1) * d);
    const factor = lengths[i] ** (1 / d) / norm(row);
    row.forEach((v, j) => { row[j] = v * factor; });
  }
  return delta;
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

// The worker's side: one run at a time, told what to do by messages (see page.js).
/** @type {Data} */
let data;
/** @type {{id: string, stopped: boolean, paused: boolean, wake: () => void}} */
let run = { id: "", stopped: true, paused: false, wake: () => {} };

/** Train, a row posted for each epoch, until the last, divergence or a stop. @param {string} id @param {Setting} setting @param {Given} given
 * @param {boolean} paused */
async function train(id, setting, given, paused) {
  const mine = (run = { id, stopped: false, paused, wake: () => {} });
  const trainer = new Trainer(data, setting, given);
  let row = await trainer.start();
  self.postMessage({ kind: "row", id, row });
  while (row.epoch < setting.epochs && !row.diverged) {
    if (mine.paused && !mine.stopped) await new Promise((resolve) => { mine.wake = () => resolve(undefined); });
    if (mine.stopped || !(await trainer.train(() => mine.stopped))) break;
    row = await trainer.measure();
    self.postMessage({ kind: "row", id, row });
  }
  const weights = await Promise.all(trainer.weights.map((w) => w.ref.data()));
  self.postMessage({ kind: "end", id, stopped: mine.stopped && row.epoch < setting.epochs && !row.diverged, weights });
  trainer.dispose();
}

self.onmessage = async ({ data: message }) => {
  try {
    if (message.kind === "load") {
      await init(message.backend);
      defaultDevice(message.backend);
      data = message.data;
      self.postMessage({ kind: "ready", backend: message.backend });
    } else if (message.kind === "train") {
      run.stopped = true;
      run.wake();
      await train(message.id, message.setting, message.given, message.paused);
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
  } catch (error) {
    self.postMessage({ kind: "error", id: message.id, message: String(error) });
  }
};
