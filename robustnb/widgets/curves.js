// The curves that theory knows, and what a curve looks like in words. Pure functions, tested against theory.py.
// @ts-check

/** @typedef {{inputs: number, outputs: number, ball: number, log_chi: number, log_gain: number[]}} Shape  of the data, from lab.py */

/** Table 1: β_1, β, β_L for an initialization of that kind, from the shape (d, m, o).
 * @param {string} kind @param {number} c @param {number} d @param {number} m @param {number} o @returns {[number, number, number]} */
function betas(kind, c, d, m, o) {
  if (kind === "lecun") return [Math.sqrt(1 / d), Math.sqrt(1 / m), Math.sqrt(1 / m)];
  if (kind === "he") return [Math.sqrt(2 / d), Math.sqrt(2 / m), Math.sqrt(2 / m)];
  if (kind === "ntk") return [Math.sqrt(2 / m), Math.sqrt(2 / m), Math.sqrt(1 / o)];
  if (kind === "m^-c") return [m ** -c, m ** -c, m ** -c];
  throw new Error(`No β is known here for ${kind}.`);
}

/** P/ε before training, exactly (theory.py: stability_at_initialization). `logGain` is log_relu_gain at this width.
 * @param {Shape} shape @param {string} kind @param {number} c @param {number} width @param {number} depth @param {number} logGain */
function exactStability(shape, kind, c, width, depth, logGain) {
  const [first, hidden, last] = betas(kind, c, shape.inputs, width, shape.outputs).map(Math.log);
  return shape.ball * Math.exp(first + (depth - 2) * hidden + last + (depth - 1) * logGain + shape.log_chi);
}

/** Theorem 1's order for trained lazy networks (theory.py: theorem_1), its constants suppressed: only its shape means something.
 * @param {Shape} shape @param {string} kind @param {number} width @param {number} depth */
function theorem1(shape, kind, width, depth) {
  const [first, hidden, last] = betas(kind, 0, shape.inputs, width, shape.outputs);
  const moved = Math.sqrt(depth ** 3) * width * first * last * Math.exp(-width / depth ** 3);
  const start = Math.sqrt(width * shape.outputs) * first * last;
  return (moved + start) * (hidden * Math.sqrt(width / 2)) ** (depth - 2);
}

/** @param {number[]} values above 0 */
const geometricMean = (values) => Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);

const SHAPES = ["rises", "falls", "rises, then falls", "falls, then rises"];

/** Which of SHAPES a curve has; a turn counts if it exceeds the points' errors. @param {Point[]} points */
function shapeOf(points) {
  const surely = (/** @type {Point} */ a, /** @type {Point} */ b) => a.y - b.y > Math.hypot(a.y - (a.low ?? a.y), b.y - (b.low ?? b.y));
  const [first, last] = [points[0], points[points.length - 1]];
  const top = points.reduce((a, b) => (b.y > a.y ? b : a));
  const bottom = points.reduce((a, b) => (b.y < a.y ? b : a));
  if (surely(top, first) && surely(top, last)) return 2;
  if (surely(first, bottom) && surely(last, bottom)) return 3;
  return last.y > first.y ? 0 : 1;
}

/** How far a drawn curve is from the measured one, in words: a factor on a log axis, a difference on a linear one.
 * @param {Point[]} drawn @param {Point[]} measured @param {boolean} log */
function distanceOf(drawn, measured, log) {
  const pairs = measured.flatMap(({ x, y }) => drawn.filter((p) => p.x === x).map((p) => [y, p.y]));
  if (!pairs.length) return "";
  const apart = pairs.reduce((sum, [y, guess]) => sum + Math.abs(log ? Math.log(guess / y) : guess - y), 0) / pairs.length;
  return log ? `On average your curve is a factor of ${format(Math.exp(apart), 2)} away.` : `On average your curve is ${format(apart, 2)} away.`;
}
