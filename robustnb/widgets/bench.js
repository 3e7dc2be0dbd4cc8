// The bench: the buttons, and how the run under way goes, in words, as a bar and as four curves.
// @ts-check

const LIVE = /** @type {const} */ (["train_loss", "test_accuracy", "stability", "lazy_ratio"]);
// A thousand neurons in each of ten layers would take minutes: a sweep stays where it can be watched.
const SWEPT = 256;

class Bench {
  /** @param {Session} session @param {(act: () => void) => void} attempt does it, and shows what goes wrong
   * @param {() => void} changed is called when there is something new to say that no trait says */
  constructor(session, attempt, changed) {
    this.session = session;
    this.model = session.model;
    this.changed = changed;
    const train = (/** @type {Setting[]} */ settings, paused = false) => session.ask({ kind: "train", settings, paused });
    this.buttons = {
      train: button("Train", () => train([session.setting]), attempt),
      sweep: button("Sweep", () => train(this.sweepSettings()), attempt),
      pause: button("Pause", () => session.ask({ kind: this.progress.paused ? "resume" : "pause" }), attempt),
      step: button("Step", () => (this.progress.running ? session.ask({ kind: "step" }) : train([session.setting], true)), attempt),
      stop: button("Stop", () => session.ask({ kind: "stop" }), attempt),
      reset: button("Reset", () => session.ask({ kind: "reset" }), attempt),
      copy: button("Copy points as CSV", () => this.copy(), attempt),
    };
    this.bar = html("progress", "rnb-progress");
    this.bar.setAttribute("aria-label", "training progress");
    const bench = html("div", "rnb-bench");
    bench.append(...Object.values(this.buttons), this.bar);
    this.status = html("p", "rnb-status");
    this.voice = spoken("rnb-voice");
    this.error = spoken("rnb-error", "alert");
    this.curves = html("div", "rnb-live");
    this.hint = html("p", "rnb-note", "Press Train: loss, accuracy, P/ε and κ appear here, epoch by epoch.");
    this.charts = LIVE.map(() => svg("svg", { role: "img", class: "rnb-small" }));
    this.curves.append(this.hint, ...this.charts);
    this.parts = [bench, this.status, this.voice, this.error, this.curves];
  }

  get progress() { return this.model.get("progress"); }

  sweepSettings() {
    const { x, setting } = this.session;
    const values = this.model.get(`${x}s`).filter((/** @type {number} */ v) => x === "depth" || v <= SWEPT);
    return values.map((/** @type {number} */ v) => ({ ...setting, [x]: v }));
  }

  copy() {
    const columns = ["width", "depth", "lr", "epochs", "seed", ...MEASURES, "untrained", "engine"];
    const lines = this.model.get("runs").map((/** @type {any} */ run) => [this.session.nameOf(run), ...columns.map((name) => run[name])].join(","));
    copyText([["init", ...columns].join(","), ...lines].join("\n")).then(
      () => { this.session.note = `${lines.length} points copied.`; },
      () => { this.session.note = "The browser did not allow copying."; },
    ).finally(this.changed);
  }

  redraw() {
    const { session, buttons, bar } = this;
    const { lr, epochs, seed } = session.setting;
    const state = this.progress;
    const running = Boolean(state.running);
    // In a sweep, which network it is.
    const place = state.of > 1 ? `Network ${state.run} of ${state.of}` : "";
    const message = place && state.message ? `${place}. ${state.message}` : state.message;
    const next = `Next: ${session.titleOf(session.setting)}; learning rate ${lr}, ${epochs} epochs, seed ${seed}.`;
    const unseen = !session.revealed && this.model.get("runs").length ? "Runs appear in the plots after the prediction." : "";
    buttons.pause.textContent = state.paused ? "Resume" : "Pause";
    enable(buttons.pause, running);
    enable(buttons.stop, running);
    enable(buttons.copy, this.model.get("runs").length > 0);
    buttons.sweep.textContent = `Sweep the ${session.x}`;
    bar.max = state.of ?? 1;
    // At a network's end there is a message, and no epoch.
    bar.value = (state.run ?? 1) - 1 + (state.message ? 1 : (state.epoch ?? 0) / (state.epochs ?? 1));
    bar.style.visibility = running ? "visible" : "hidden";
    // Of a sweep, how long the wider or deeper ones will take is not known.
    const left = state.paused ? "" : timeLeft(session.left, place && " for this network");
    const which = place && `${place}, width ${state.setting?.width ?? "…"}, depth ${state.setting?.depth ?? "…"}.`;
    const row = `Epoch ${state.epoch} of ${state.epochs}: loss ${format(state.train_loss)}, P/ε ${format(state.stability)}, κ ${format(state.lazy_ratio)}.`;
    const begun = state.train_loss !== undefined;
    const said = !running ? [session.note, message, unseen, next] : begun ? [state.note, which, row, left] : ["Starting …"];
    this.status.textContent = said.filter(Boolean).join(" ");
    // Spoken: the start, each quarter, the end.
    const quarter = Math.floor((4 * bar.value) / bar.max);
    const words = running ? (quarter ? `Training: ${25 * quarter} percent.` : "Training.") : session.note || message;
    if (words) say(this.voice, words);
    say(this.error, this.model.get("error"));
    this.redrawCurves();
  }

  redrawCurves() {
    const { history, setting } = this.session;
    this.hint.hidden = history.length > 0;
    const gap = 12;
    const columns = this.curves.clientWidth > 620 ? 4 : 2;
    const width = Math.floor(((this.curves.clientWidth || 640) - gap * (columns - 1)) / columns);
    for (const [i, y] of LIVE.entries()) {
      this.charts[i].toggleAttribute("hidden", history.length === 0);
      if (!history.length) continue;
      const points = history.filter((row) => row[y] !== null).map((row) => ({ x: row.epoch, y: row[y] }));
      const line = { points, style: "chosen", color: this.session.seriesOf(history[0].setting ?? setting).color, name: SCALES[y].short };
      const latest = points.length ? format(points[points.length - 1].y) : "none";
      draw(this.charts[i], {
        width, height: 130, x: SCALES.epoch, y: SCALES[y], lines: [line], compact: true, xSpan: [0, history[0].epochs],
        description: `${SCALES[y].title} against epochs: ${latest} at epoch ${history[history.length - 1].epoch}.`,
      });
    }
  }
}

/** Roughly how long it will take, if not soon over. @param {number} seconds @param {string} what */
function timeLeft(seconds, what) {
  if (!(seconds >= 5)) return "";
  const time = seconds < 90 ? `${5 * Math.round(seconds / 5)} s` : `${Math.round(seconds / 60)} min`;
  return `About ${time} left${what}.`;
}

/** To the clipboard; a page opened from a disk has no Clipboard API, so through a selection there. @param {string} text */
async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = html("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("copying is not allowed");
}
