// Random numbers from a seed, drawn on the CPU: the same on every backend, and nothing to compile before a run can start.
// @ts-check

/** @typedef {() => number} Generator  uniform in [0, 1) at each call */

/** The generator sfc32 (Doty-Humphrey), 32 bits at a time. @param {number} seed a whole number below 2^32 @returns {Generator} */
export function generator(seed) {
  let [a, b, c, counter] = [0x9e3779b9, seed | 0, 0x243f6a88, 1];
  const next = () => {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return (sum >>> 0) / 2 ** 32;
  };
  for (let k = 0; k < 20; k++) next(); // near seeds must have parted
  return next;
}

/** n numbers from N(0, scale²), by Box and Muller. @param {Generator} uniform @param {number} n @param {number} scale */
export function normals(uniform, n, scale) {
  const values = new Float32Array(n);
  for (let i = 0; i < n; i += 2) {
    const radius = scale * Math.sqrt(-2 * Math.log(1 - uniform()));
    const angle = 2 * Math.PI * uniform();
    values[i] = radius * Math.cos(angle);
    if (i + 1 < n) values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}

/** count vectors uniform in the unit ball of R^d, row by row: a Gaussian direction, length U^(1/d). @param {Generator} uniform
 * @param {number} count @param {number} d */
export function ball(uniform, count, d) {
  const vectors = normals(uniform, count * d, 1);
  for (let i = 0; i < count; i++) {
    const row = vectors.subarray(i * d, (i + 1) * d);
    const factor = uniform() ** (1 / d) / Math.hypot(...row);
    row.forEach((v, j) => { row[j] = v * factor; });
  }
  return vectors;
}

/** Put the array into a new order, all orders alike (Fisher and Yates). @param {Generator} uniform @param {number[]} order */
export function shuffle(uniform, order) {
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(uniform() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
