// "Predict, then see": the question, the reader's answer in a drawing or in a word, and what the table says to it.
// @ts-check

class Guess {
  /** @param {Session} session @param {Content} content @param {(act: () => void) => void} attempt does it, and shows what goes wrong
   * @param {() => void} changed is called after each change of the drawing
   * @param {() => void} drawNow draws everything at once: only then can the answer take the focus */
  constructor(session, content, attempt, changed, drawNow) {
    this.session = session;
    this.content = content;
    this.drawNow = drawNow;
    this.root = html("fieldset", "rnb-guess");
    this.question = html("legend");
    this.show = button("Show what was measured", () => this.reveal(content.drawnPoints()), attempt);
    const choices = SHAPES.map((shape) => button(shape, () => this.reveal(shape), attempt));
    this.root.append(this.question, this.show, html("span", "", "or choose: it"), ...choices);
    this.answer = spoken("rnb-answer");
    this.answer.tabIndex = -1;
    /** Lies over the large plot. */
    this.sketch = new Sketch(changed);
  }

  /** @param {Frame} frame @param {number} width @param {number} height */
  redraw(frame, width, height) {
    const { session, content } = this;
    const { x, y } = session;
    this.root.hidden = session.revealed;
    this.sketch.svg.toggleAttribute("hidden", session.revealed);
    // The answer is about one plot.
    say(this.answer, session.drawn.key === content.plotKey(y) ? session.answer : "");
    if (session.revealed) return;
    const key = content.plotKey(y);
    if (session.drawn.key !== key) session.drawn = { key, points: new Map() };
    this.question.textContent = `Predict first: draw into the plot how ${SCALES[y].short} of trained networks `
      + `(${content.fixed}) changes as the ${x} grows (pointer, touch, or Tab and the arrow keys).`;
    enable(this.show, session.drawn.points.size > 1);
    this.sketch.place(frame, width, height, session.model.get(`${x}s`), session.drawn.points, SCALES[x], SCALES[y]);
  }

  /** Show what was measured, beside what the reader expected: a drawn curve, or one of SHAPES. @param {Point[] | string} expected */
  reveal(expected) {
    const { session } = this;
    const { x, y } = session;
    const line = this.content.measured(y).find(({ style }) => style === "chosen");
    const measured = line ? SHAPES[shapeOf(line.points)] : "";
    const top = line?.points.reduce((a, b) => (b.y > a.y ? b : a));
    const peak = measured === SHAPES[2] && top ? `, with its peak at ${x} ${top.x}` : "";
    // A hand is not steadier than a twentieth.
    const steady = typeof expected === "string" ? [] : expected.map((p) => ({ ...p, low: p.y * 0.95 }));
    const shape = typeof expected === "string" ? expected : SHAPES[shapeOf(steady)];
    const distance = line ? distanceOf(steady, line.points, SCALES[y].log) : "";
    const verdict = !measured
      ? `You expected that it ${shape}. This setting was not measured: train it.`
      : measured === shape
        ? `Well seen: it ${measured}${peak}.`
        : `You expected that it ${shape}. Measured, it ${measured}${peak}. Now look for a reason: the accuracy beside it may help.`;
    session.answer = `${verdict} ${distance}`.trim();
    session.revealed = true;
    this.drawNow();
    this.answer.focus();
  }
}
