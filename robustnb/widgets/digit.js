// What stability means, on one digit: the digit, its perturbed copy, and how the outputs of the network just trained move.
// @ts-check

/**
 * @typedef {{pixels: number[][], deltas: number[][], labels: number[], radii: number[], side: number}} Digits  pixels from 0 to 1
 * @typedef {{setting?: Setting, stability?: number, outputs?: number[][][]}} Moves  f(x + ε δ) for each digit and radius; empty before a run
 */

class DigitPanel {
  /** @param {Session} session @param {(act: () => void) => void} attempt does it, and shows what goes wrong */
  constructor(session, attempt) {
    this.session = session;
    this.model = session.model;
    /** @type {Digits} */
    const digits = this.model.get("digits");
    this.root = html("section", "rnb-digit");
    this.root.setAttribute("aria-label", "One digit and its perturbed copy");
    this.pictures = ["the digit x", "x + ε δ"].map((name) => {
      const figure = html("figure");
      const canvas = html("canvas");
      canvas.width = canvas.height = digits.side;
      canvas.setAttribute("role", "img");
      figure.append(canvas, html("figcaption", "", name));
      this.root.append(figure);
      return canvas;
    });
    this.which = html("select");
    digits.labels.forEach((label, i) => this.which.append(new Option(String(label), String(i))));
    this.radius = html("input");
    set(this.radius, { type: "range", min: 0, max: digits.radii.length - 1, value: Math.round(digits.radii.length / 2) });
    const controls = html("div", "rnb-digit-controls");
    const [digitLabel, radiusLabel] = [html("label", "", "digit "), html("label", "", "radius ε ")];
    this.reading = html("output");
    digitLabel.append(this.which);
    radiusLabel.append(this.radius, this.reading);
    this.caption = html("p");
    controls.append(digitLabel, radiusLabel, this.caption);
    this.plot = svg("svg", { role: "img", class: "rnb-small" });
    this.root.append(this.plot, controls);
    for (const control of [this.which, this.radius]) control.addEventListener("input", () => attempt(() => this.redraw()));
  }

  redraw() {
    /** @type {Digits} */
    const { pixels, deltas, labels, radii } = this.model.get("digits");
    const [k, r] = [Number(this.which.value), Number(this.radius.value)];
    const radius = radii[r];
    this.reading.textContent = format(radius);
    this.radius.setAttribute("aria-valuetext", format(radius));
    paint(this.pictures[0], pixels[k], `The digit ${labels[k]}`);
    paint(this.pictures[1], pixels[k].map((v, i) => v + radius * deltas[k][i]), `The same digit, perturbed at radius ${format(radius)}`);
    /** @type {Moves} */
    const { setting, stability = NaN, outputs } = this.model.get("moves");
    const [before, after] = [outputs?.[k][0], outputs?.[k][r]];
    this.drawOutputs(before, after, radius);
    if (!setting || !before || !after) {
      this.caption.textContent = "Train a network: here you will see how far its ten outputs move when the digit is perturbed.";
      return;
    }
    const moved = Math.hypot(...after.map((v, i) => v - before[i]));
    const [was, is] = [before, after].map((f) => f.indexOf(Math.max(...f)));
    const each = radius ? `, ${format(moved / radius)} per unit radius` : "";
    this.caption.textContent = `${this.session.titleOf(setting)}: the output moves by ${format(moved)}${each}. `
      + (was === is ? `Read as ${is} before and after.` : `Read as ${was} before, as ${is} after.`)
      + ` P/ε = ${format(stability)} is the mean of such movements over test images and perturbations, for small ε.`;
  }

  /** Each of the outputs before (ring) and after (dot), if there are some. @param {number[] | undefined} before @param {number[] | undefined} after @param {number} radius */
  drawOutputs(before, after, radius) {
    const [width, height] = [300, 130];
    const ys = scale(this.model.get("moves").outputs?.[Number(this.which.value)].flat() ?? [-1, 1], false, height - 20, 22);
    // Where a network has hardly left 0, the labels are as long as -2.5 · 10⁻¹³.
    const longest = Math.max(...ys.ticks.map((tick) => format(tick).length));
    const [left, right] = [Math.max(34, 8 + 5.6 * longest), width - 8];
    this.plot.replaceChildren();
    const words = before && after
      ? `Outputs for the classes 0 to 9: before ${before.map((v) => format(v, 2)).join(", ")}; after ${after.map((v) => format(v, 2)).join(", ")}.`
      : "Outputs for the classes 0 to 9: nothing trained yet.";
    set(this.plot, { width, height, viewBox: `0 0 ${width} ${height}`, "aria-label": words });
    this.plot.append(svg("text", { x: 4, y: 14, class: "rnb-title" }, `output of each class at ε = 0 (ring), ε = ${format(radius)} (dot)`));
    yAxis(this.plot, left, right, ys);
    for (let i = 0; i < 10; i++) {
      const x = left + ((i + 0.5) * (right - left)) / 10;
      this.plot.append(svg("text", { x, y: height - 5, class: "rnb-tick", "text-anchor": "middle" }, String(i)));
      if (!before || !after) continue;
      this.plot.append(
        svg("line", { x1: x, x2: x, y1: ys.place(before[i]), y2: ys.place(after[i]), class: "rnb-moved" }),
        svg("circle", { cx: x, cy: ys.place(before[i]), r: 4.5, class: "rnb-before" }),
        svg("circle", { cx: x, cy: ys.place(after[i]), r: 3, class: "rnb-after" }),
      );
    }
  }
}

/** Pixels in grey: 0 is light, 1 is dark, and a perturbation can go beyond both. @param {HTMLCanvasElement} canvas @param {number[]} pixels
 * @param {string} name */
function paint(canvas, pixels, name) {
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = context.createImageData(canvas.width, canvas.height);
  pixels.forEach((v, i) => image.data.set([...Array(3).fill(255 * (1 - (v + 0.3) / 1.6)), 255], 4 * i));
  context.putImageData(image, 0, 0);
  canvas.setAttribute("aria-label", name);
}
