// A bare loop on WebAssembly, without pauses, batches to gather or messages: what the page's own trainer is measured against.
import { defaultDevice, init, jit, nn, numpy as np, random, valueAndGrad } from "@jax-js/jax";

import { BATCH, Trainer } from "../../robustnb/widgets/trainer.js";

function loss(weights, x, y) {
  const last = weights.length - 1;
  let h = x;
  for (let l = 0; l < last; l++) h = nn.relu(np.matmul(h, weights[l]));
  return nn.logSoftmax(np.matmul(h, weights[last]), -1).mul(y).sum().mul(-1 / BATCH);
}

const step = jit((weights, x, y) => {
  const [value, gradients] = valueAndGrad(loss)(weights.map((w) => w.ref), x, y);
  return [value, ...weights.map((w, l) => w.sub(gradients[l].mul(0.05)))];
});

/** Steps a second of the page's trainer, over those of the bare loop, for the same network: one ratio a round. */
export async function compare(data, width, depth, betas, steps) {
  await init("wasm");
  defaultDevice("wasm");
  const setting = { init: "he", betas, width, depth, lr: 0.05, epochs: 1000, seed: 0 };
  const trainer = new Trainer(data, setting);
  await trainer.start();
  await trainer.train();

  const x = random.normal(random.key(0), [BATCH, data.inputs]);
  const y = nn.oneHot(np.zeros([BATCH]).astype(np.int32), data.classes);
  let weights = trainer.weights.map((w) => w.ref);
  const bare = async () => {
    const start = performance.now();
    for (let k = 0; k < steps; k++) {
      let value;
      [value, ...weights] = step(weights, x.ref, y.ref);
      await value.blockUntilReady();
      value.dispose();
    }
    return (1000 * steps) / (performance.now() - start);
  };
  const page = async () => {
    const start = performance.now();
    const epochs = Math.ceil((steps * BATCH) / data.train);
    for (let epoch = 0; epoch < epochs; epoch++) await trainer.train();
    return (1000 * epochs * Math.ceil(data.train / BATCH)) / (performance.now() - start);
  };
  await bare(); // compiles
  const ratios = [];
  for (let round = 0; round < 7; round++) ratios.push((await page()) / (await bare()));
  return ratios;
}
