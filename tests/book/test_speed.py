"""Promises about time and weight; run with nothing beside them."""

import gzip
import statistics
import subprocess

import pytest

from robustnb.widgets import Laboratory

from ..conftest import LONG
from .conftest import HTML, ROOT, control, open_page, page_of, press, set_number, status, until

pytestmark = pytest.mark.alone
# Nothing runs beside these tests, so that each second counts twice. In `make test` are those that a reader would be the first to feel.
in_long_profile = pytest.mark.skipif(not LONG, reason="make test-long: seconds with nothing beside them")

BARE = """
async ([code, width, depth, betas]) => {
  const load = (name) => new Promise((done, fail) => {
    const tag = Object.assign(document.createElement("script"), {src: "../_static/" + name, onload: done, onerror: fail});
    document.head.append(tag);
  });
  await load("robustnb-digits.js");
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const { pixels, classes, scale, train, inputs } = window.robustnb.digits;
  const data = { x: Float32Array.from(bytes(pixels), (v) => v / scale), y: bytes(classes), train, inputs, classes: 10 };
  const answer = "; self.onmessage = ({ data }) => bare.compare(...data).then((r) => postMessage(r), (e) => postMessage(String(e)));";
  const worker = new Worker(URL.createObjectURL(new Blob([code, answer])));
  return new Promise((done) => { worker.onmessage = (event) => done(event.data); worker.postMessage([data, width, depth, betas, 200]); });
}
"""


@pytest.fixture(scope="module")
def bare():
    command = ["node", ROOT / "node_modules" / ".bin" / "esbuild", ROOT / "tests" / "book" / "bare.js", "--bundle", "--format=iife"]
    return subprocess.run([*command, "--global-name=bare"], capture_output=True, encoding="utf-8", check=True).stdout


@in_long_profile
@pytest.mark.parametrize(("width", "depth"), [(64, 2), (64, 8)])
def test_the_page_trains_at_60_percent_of_a_bare_loop_s_speed(width, depth, bare, watched):
    page = open_page(watched, HTML.as_uri(), "book/bibliography")
    betas = [(2 / 64) ** 0.5, (2 / width) ** 0.5, (2 / width) ** 0.5]
    ratios = page.evaluate(BARE, [bare, width, depth, betas])
    assert statistics.median(ratios) >= 0.6


def test_a_run_starts_at_once(watched):
    """Within 0.3 s of the press: it says so, and, once the engine is there, its first row is drawn."""
    page = open_page(watched, HTML.as_uri(), "book/index")
    set_number(page, "epochs", 10)
    timed = """() => new Promise((done) => {
      const status = document.querySelector(".rnb-status");
      const pressed = performance.now(), seen = {};
      new MutationObserver(() => {
        for (const text of ["Starting", "Epoch"]) if (status.innerText.includes(text)) seen[text] ??= performance.now() - pressed;
        if (seen.Epoch) done(seen);
      }).observe(status, { childList: true, characterData: true, subtree: true });
      document.querySelector(".rnb-train").click();
    })"""
    first = page.evaluate(timed)
    assert first["Starting"] < 300
    until(page, "Done: ")
    later = []
    for _ in range(3):
        later.append(page.evaluate(timed)["Epoch"])
        until(page, "Done: ")
    assert min(later) < 300


@pytest.mark.parametrize("width", [1200, *([400] if LONG else [])])
def test_nothing_shifts_and_nothing_freezes_while_a_network_trains(width, watched):
    page = watched.page
    page.set_viewport_size({"width": width, "height": 2400})
    open_page(watched, HTML.as_uri(), "book/index")
    for _ in range(4):
        control(page, "width m", "slider").press("ArrowRight")  # to 256
    set_number(page, "epochs", 3)
    page.evaluate("""() => {
      window.shifts = []; window.tasks = [];
      const lab = document.querySelector(".rnb-lab");
      const inside = (shift) => shift.sources.some((source) => lab.contains(source.node));
      new PerformanceObserver((list) => window.shifts.push(...list.getEntries().filter(inside).map((e) => e.value)))
        .observe({ type: "layout-shift" });
      new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((e) => e.duration))).observe({ type: "longtask" });
    }""")
    press(page, "Train")
    until(page, "Done: ")
    page.wait_for_timeout(300)
    assert page.evaluate("window.shifts") == []
    assert [task for task in page.evaluate("window.tasks") if task > 100] == []


# Milliseconds from a slider's key to the drawing in its laboratory, several times.
FOLLOWED = """async ([lab, moves]) => {
  const handle = document.querySelectorAll(".rnb-controls")[lab].querySelector(".noUi-handle");
  const plot = document.querySelectorAll(".rnb-large")[lab];
  const times = [];
  for (let k = 0; k < moves; k++) {
    const start = performance.now();
    const drawn = new Promise((done) => {
      const watch = new MutationObserver(() => { watch.disconnect(); done(performance.now() - start); });
      watch.observe(plot, { childList: true });
    });
    handle.dispatchEvent(new KeyboardEvent("keydown", { key: k % 2 ? "ArrowLeft" : "ArrowRight", bubbles: true }));
    times.push(await drawn);
    await new Promise((done) => setTimeout(done, 60));
  }
  return times;
}"""


def test_a_control_is_followed_by_its_drawing_within_50_ms(watched):
    page = open_page(watched, HTML.as_uri(), "book/index")
    assert statistics.median(page.evaluate(FOLLOWED, [0, 12])) < 50


@in_long_profile
def test_six_laboratories_on_a_page_draw_and_follow_while_one_trains(watched, tmp_path):
    """Each slider is followed by its drawing within 100 ms (median of five), while a network of width 256 trains in another one."""
    page = watched.page
    page.goto(page_of([Laboratory(f"Number {k}?", width=64, depth=4) for k in range(6)], tmp_path))
    for lab in range(6):
        page.locator(".rnb-lab").nth(lab).locator(".rnb-large polyline").nth(4).wait_for(state="attached", timeout=30_000)
    for _ in range(2):
        control(page, "width m", "slider", lab=5).press("ArrowRight")  # to 256
    set_number(page, "epochs", 900, lab=5)
    press(page, "Train", lab=5)
    until(page, "Epoch 1 ", lab=5)
    medians = [statistics.median(page.evaluate(FOLLOWED, [lab, 5])) for lab in range(5)]
    assert "Epoch" in status(page, lab=5)
    press(page, "Stop", lab=5)
    until(page, "Stopped at epoch", lab=5)
    assert max(medians) < 100, medians
    assert watched.trouble == []


def test_a_first_visit_is_light_and_soon_usable(browser, server):
    """At most 1.5 MB compressed before Train is pressed, and no engine among it; usable within 2 s.

    Or, on a machine that needs over half a second for a page without a laboratory, within four times what it needs for that.
    """
    bare, seconds = [], []
    for _ in range(5):
        bare.append(first_visit(browser, f"{server}/book/bibliography.html", "article")[0])
        soon, bodies = first_visit(browser, f"{server}/book/index.html", ".rnb-lab svg polyline")
        seconds.append(soon)
        assert {name for name in bodies if name.startswith("robustnb-")} == {"robustnb-view.js"}
        assert sum(bodies.values()) <= 1.5e6
        if min(seconds) < max(2, 4 * min(bare)):
            return
    pytest.fail(f"usable after {seconds} s, a page without a laboratory after {bare} s")


def first_visit(browser, url, usable):
    """With nothing cached: seconds until what is `usable` is there, and what was loaded, with its compressed size."""
    context = browser.new_context()
    page = context.new_page()
    responses = {}
    page.on("response", lambda response: responses.setdefault(response.url, response))
    page.goto(url)
    page.locator(usable).first.wait_for(state="attached", timeout=30_000)
    seconds = page.evaluate("performance.now()") / 1000
    page.wait_for_load_state("networkidle")
    sizes = {url.rpartition("/")[2]: len(gzip.compress(response.body())) for url, response in responses.items() if response.ok}
    context.close()
    return seconds, sizes


@in_long_profile
def test_a_pressed_control_does_not_wait_for_training(watched):
    """The page stays quick while a wide network trains: the drawing still follows within 50 ms (median)."""
    page = open_page(watched, HTML.as_uri(), "book/index")
    for _ in range(4):
        control(page, "width m", "slider").press("ArrowRight")
    set_number(page, "epochs", 900)
    press(page, "Train")
    until(page, "Epoch 1 ")
    gaps = page.evaluate("""() => new Promise((done) => {
      const gaps = []; let last = performance.now();
      const frame = (now) => { gaps.push(now - last); last = now; if (gaps.length < 60) requestAnimationFrame(frame); else done(gaps); };
      requestAnimationFrame(frame);
    })""")
    press(page, "Stop")
    assert statistics.median(gaps) < 50
