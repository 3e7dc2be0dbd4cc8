"""Training in the page: the same mathematics as torch, and everything the reader can do while it runs."""

import base64
import json
import math
import re
from itertools import product

import numpy as np
import pytest
import torch

from robustnb import fully_connected, is_untrained, lazy_ratio, load_data, theory, uniform_in_ball
from robustnb.initialization import get_initialization
from robustnb.widgets import Laboratory

from ..conftest import LONG
from .conftest import HTML, control, open_page, page_of, press, set_number, status, until

# Runs the page's own engine in a worker of its own, on a backend, with given weights, order and δ; returns rows and final weights.
DRIVE = """
async ([backend, setting, given]) => {
  const load = (name) => new Promise((done, fail) => {
    const tag = Object.assign(document.createElement("script"), {src: "../_static/" + name, onload: done, onerror: fail});
    document.head.append(tag);
  });
  await load("robustnb-digits.js");
  await load("robustnb-engine.js");
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const floats = (text) => new Float32Array(bytes(text).buffer);
  const { pixels, classes, scale, train, inputs } = window.robustnb.digits;
  const data = { x: Float32Array.from(bytes(pixels), (v) => v / scale), y: bytes(classes), train, inputs, classes: 10 };
  const watch = "const M = WebAssembly.Memory, all = [];"
    + "WebAssembly.Memory = function (...a) { const m = new M(...a); all.push(m); return m; };"
    + "self.addEventListener('message', (e) => { if (e.data.kind === 'weigh')"
    + " self.postMessage({ kind: 'weight', bytes: all.reduce((sum, m) => sum + m.buffer.byteLength, 0) }); });";
  const worker = new Worker(URL.createObjectURL(new Blob([watch, window.robustnb.engine])));
  const fixed = given ? { weights: given.weights.map(floats), order: given.order, delta: floats(given.delta) } : undefined;
  const rows = [], memory = [];
  let weights, ran;
  await new Promise((done, fail) => {
    worker.onerror = (event) => fail(new Error(event.message));
    worker.onmessage = ({ data: message }) => {
      if (message.kind === "error") fail(new Error(message.message));
      if (message.kind === "weight") memory.push(message.bytes);
      if (message.kind === "row") { rows.push(message.row); worker.postMessage({ kind: "weigh" }); }
      if (message.kind === "ready") worker.postMessage({ kind: "train", id: "test.1", backend, setting, given: fixed, paused: false });
      if (message.kind === "end") { ({ weights, backend: ran } = message); done(); }
    };
    worker.postMessage({ kind: "load", data });
  });
  worker.terminate();
  const encode = (array) => {
    let text = "";
    for (const byte of new Uint8Array(array.buffer)) text += String.fromCharCode(byte);
    return btoa(text);
  };
  return { rows, memory, ran, weights: weights?.map(encode) };
}
"""
INITS = ["he", "lecun", "ntk", "m^-1.5"]
SHAPES = [(16, 2), (64, 4), (256, 8)]
LR = 0.05
# What one unit that rounding switched on or off can change in five epochs, by depth: about what the worst of 40 runs in torch did.
FLIP = {2: 1e-3, 4: 1e-3, 8: 0.05}


def encode(tensor):
    return base64.b64encode(tensor.contiguous().numpy().astype(np.float32).tobytes()).decode()


def train_in_page(page, backend, start, init, *, order, delta, epochs):
    width, depth = start.width, start.depth
    scales = get_initialization(init).scales(inputs=64, width=width, depth=depth, outputs=10)
    betas = [float(beta) for beta in scales[:3]]
    setting = {"init": init, "betas": betas, "width": width, "depth": depth, "lr": LR, "epochs": epochs, "seed": 0}
    given = {"weights": [encode(weight[0]) for weight in start.weights], "order": order, "delta": encode(delta)}
    result = page.evaluate(DRIVE, [backend, setting, given])
    assert result["ran"] == backend
    shapes = [weight.shape[1:] for weight in start.weights]
    weights = [
        np.frombuffer(base64.b64decode(text), np.float32).reshape(shape) for text, shape in zip(result["weights"], shapes, strict=True)
    ]
    return result["rows"], weights


def train_in_torch(start, data, *, order, delta, epochs, dtype, summing=0):
    """The plain loop, in a given precision: a network and its (loss, P/ε) after each epoch, from epoch 0 on.

    `summing` seeds the order in which each minibatch is summed up: the same mathematics, with other rounding.
    """
    generator = torch.Generator().manual_seed(summing)
    weights = [weight.to(dtype) for weight in start.weights]
    x, y = data.x_train.to(dtype), data.y_train
    history = []
    for epoch in range(epochs + 1):
        if epoch:
            for rows in torch.tensor(order).split(64):
                batch = rows[torch.randperm(len(rows), generator=generator)]
                variables = [w.detach().requires_grad_() for w in weights]
                loss = torch.nn.functional.cross_entropy(start.with_weights(variables)(x[batch])[0], y[batch])
                weights = [(w - LR * g).detach() for w, g in zip(weights, torch.autograd.grad(loss, variables), strict=True)]
        network = start.with_weights(weights)
        loss = torch.nn.functional.cross_entropy(network(x)[0], y).item()
        history.append((loss, network.jvp(data.x_test.to(dtype), delta.to(dtype))[1].norm(dim=-1).mean().item()))
    return network, np.array(history)


@pytest.fixture
def engine(backend, request, server):
    """A page without a laboratory, to compute on this backend there."""
    watched = request.getfixturevalue("gpu_watched" if backend == "webgpu" else "watched")
    yield open_page(watched, server if backend == "webgpu" else HTML.as_uri(), "book/bibliography")
    assert watched.trouble == []


def cases(*, epochs):
    """Backend, initialization, width and depth. Those with which `make test` would spend long are for `make test-long`.

    The first weights come from outside: an initialization changes their size, and not how the page computes.
    """
    for backend, init, (width, depth) in product(("wasm", "webgpu"), INITS, SHAPES):
        soon = depth == 2 or init != "m^-1.5"  # deep non-lazy networks do not leave zero in five epochs
        minutes = backend == "webgpu" and width * epochs > 320  # on an adapter in software
        quick = width == 16 and (backend == "wasm" or init == "he")
        quick |= backend == "wasm" and init == "he" and width * epochs <= 320
        if soon and not minutes and (quick or LONG):
            yield backend, init, width, depth


@pytest.mark.long
@pytest.mark.parametrize(("backend", "init", "width", "depth"), list(cases(epochs=1)))
def test_one_step_in_the_page_is_one_step_in_torch(backend, init, width, depth, engine):
    data = load_data("digits")
    start = fully_connected(init, inputs=64, width=width, depth=depth, outputs=10, device="cpu")
    delta = uniform_in_ball(tuple(data.x_test.shape), radius=1.0, seed=0).float()
    order = list(range(64))
    rows, moved = train_in_page(engine, backend, start, init, order=order, delta=delta, epochs=1)

    stepped, expected = train_in_torch(start, data, order=order, delta=delta, epochs=1, dtype=torch.float64)
    for ours, theirs in zip(moved, stepped.weights, strict=True):
        assert np.abs(ours - theirs[0].numpy()).max() < 1e-6
    assert [row["stability"] for row in rows] == pytest.approx(list(expected[:, 1]), rel=1e-4)
    assert [row["train_loss"] for row in rows] == pytest.approx(list(expected[:, 0]), rel=1e-4)
    original = start.with_weights([weight.double() for weight in start.weights])
    assert rows[1]["lazy_ratio"] == pytest.approx(lazy_ratio(stepped, original).item(), rel=1e-4)
    lengths = stepped.jvp(data.x_test.double(), delta.double())[1][0].norm(dim=-1)
    assert rows[1]["stability_error"] == pytest.approx(lengths.std().item() / len(lengths) ** 0.5, rel=1e-4)
    for part, x, y in (("train", data.x_train, data.y_train), ("test", data.x_test, data.y_test)):
        right = (stepped(x.double())[0].argmax(dim=-1) == y).double().mean().item()
        assert rows[1][f"{part}_accuracy"] == pytest.approx(right, abs=1.5 / len(y))  # one image may lie on the boundary
    assert [row["untrained"] for row in rows] == is_untrained(expected[:, 0], math.log(10)).tolist()


@pytest.mark.long
@pytest.mark.parametrize(("backend", "init", "width", "depth"), list(cases(epochs=5)))
def test_five_epochs_in_the_page_stay_as_close_as_single_precision_can(backend, init, width, depth, engine):
    """Training amplifies rounding, the deeper the more: the page may be off by 5 times as much as torch in 32 bits is.

    How far off one run in 32 bits is, is luck: the largest of five that round differently is taken. It is mostly none at all, until a
    unit changes sides (FLIP).
    """
    data = load_data("digits")
    start = fully_connected(init, inputs=64, width=width, depth=depth, outputs=10, device="cpu")
    delta = uniform_in_ball(tuple(data.x_test.shape), radius=1.0, seed=0).float()
    order = torch.randperm(len(data.x_train), generator=torch.Generator().manual_seed(0)).tolist()
    rows, _ = train_in_page(engine, backend, start, init, order=order, delta=delta, epochs=5)

    _, double = train_in_torch(start, data, order=order, delta=delta, epochs=5, dtype=torch.float64)
    single = [
        train_in_torch(start, data, order=order, delta=delta, epochs=5, dtype=torch.float32, summing=summing)[1] for summing in range(5)
    ]
    rounding = np.abs(np.array(single) - double)[:, -1].max(axis=0)
    ours = np.array([rows[-1]["train_loss"], rows[-1]["stability"]])
    assert (np.abs(ours - double[-1]) <= 5 * rounding + FLIP[depth] * np.abs(double[-1])).all()


def test_the_page_draws_the_initializations_that_theory_knows(watched):
    """P/ε before training, over 8 seeds of wide networks, within 6 standard errors of the exact value."""
    page = open_page(watched, HTML.as_uri(), "book/bibliography")
    width, depth = 128, 2
    scales = get_initialization("he").scales(inputs=64, width=width, depth=depth, outputs=10)
    settings = [
        {"init": "he", "betas": [float(b) for b in scales[:3]], "width": width, "depth": depth, "lr": 0.0, "epochs": 1, "seed": seed}
        for seed in range(8)
    ]
    values = np.array([page.evaluate(DRIVE, ["wasm", setting, None])["rows"][0]["stability"] for setting in settings])
    exact = theory.stability_at_initialization("he", inputs=64, width=width, depth=depth, outputs=10)
    assert abs(values.mean() - exact) < 6 * values.std(ddof=1) / np.sqrt(len(values)) < 0.1 * exact


def test_memory_is_flat_over_epochs(watched):
    page = open_page(watched, HTML.as_uri(), "book/bibliography")
    setting = {"init": "he", "betas": [0.18, 0.25, 0.25], "width": 32, "depth": 4, "lr": 0.01, "epochs": 120, "seed": 0}
    memory = page.evaluate(DRIVE, ["wasm", setting, None])["memory"]
    assert len(memory) >= 100
    assert memory[-1] == memory[20] > 0


def test_without_an_adapter_the_page_trains_in_webassembly(watched):
    page = open_page(watched, HTML.as_uri(), "book/index")
    set_number(page, "epochs", 1)
    press(page, "Train")
    until(page, "Trained in this page, by WebAssembly.")


# Puts a script before the engine, in the page's worker.
BEFORE_THE_ENGINE = """
const Plain = window.Blob;
window.Blob = function (parts, options) {
  return new Plain(String(parts[0]).includes("requestDevice") ? [%s, ...parts] : parts, options);
};
"""
SLOW_WEBGPU = """
if (self.GPUBuffer) {
  const map = GPUBuffer.prototype.mapAsync;
  GPUBuffer.prototype.mapAsync = async function (...a) {
    await new Promise((done) => setTimeout(done, 2000));
    return map.apply(this, a);
  };
}
"""
SLOW_WEBASSEMBLY = """
const Instance = WebAssembly.Instance;
WebAssembly.Instance = function (...a) {
  const kernel = new Instance(...a).exports.kernel;
  return { exports: { kernel: (...b) => { for (const end = performance.now() + 50; performance.now() < end;); return kernel(...b); } } };
};
"""


@pytest.mark.long
@pytest.mark.parametrize(("slowed", "trains"), [(SLOW_WEBGPU, "WebAssembly"), (SLOW_WEBASSEMBLY, "WebGPU")] if LONG else [])
def test_the_faster_backend_trains(slowed, trains, gpu_watched, server):
    """Which of the two is faster on this machine is luck, so one is made slow, by seconds a step."""
    gpu_watched.page.add_init_script(BEFORE_THE_ENGINE % json.dumps(slowed))
    page = open_page(gpu_watched, server, "book/index")
    set_number(page, "epochs", 1)
    for _ in range(2):
        page.get_by_role("slider", name="width m").first.press("ArrowRight")  # to 64, where no backend is fast enough untried
    press(page, "Train")
    until(page, "Trained in this page, by", timeout=180_000)
    assert f"Trained in this page, by {trains}." in status(page)
    assert gpu_watched.trouble == []


# Lets a test destroy the graphics device that the page's worker got.
LOSE = """
if (self.GPUAdapter) {
  const ask = GPUAdapter.prototype.requestDevice;
  GPUAdapter.prototype.requestDevice = async function (...a) {
    const device = await ask.apply(this, a);
    self.addEventListener("message", (e) => { if (e.data.kind === "lose") device.destroy(); });
    return device;
  };
}
"""


def test_a_lost_graphics_device_falls_back_to_webassembly_and_says_so(gpu_watched, server):
    gpu_watched.page.add_init_script(BEFORE_THE_ENGINE % json.dumps(LOSE) + 'window.robustnb = { backend: "webgpu" };')
    page = open_page(gpu_watched, server, "book/index")
    set_number(page, "epochs", 6)
    press(page, "Train")
    until(page, "Epoch 1 of 6")
    page.evaluate("window.robustnb.worker.then((worker) => worker.postMessage({ kind: 'lose' }))")
    until(page, "Done: ")
    assert status(page).startswith("The graphics device failed: trained anew in WebAssembly. Done: ")
    press(page, "Train")
    until(page, "Epoch")
    until(page, "Trained in this page, by WebAssembly.")
    assert page.locator(".rnb-main .rnb-mine").count() == 2
    assert gpu_watched.trouble == []


# In place of the page's worker, one that does nothing; what it would answer, the test says.
SILENT = """() => {
  const worker = new EventTarget();
  const asked = [];
  worker.postMessage = (message) => { if (message.kind === "train") asked.push(message.id); };
  const answer = (data) => worker.dispatchEvent(new MessageEvent("message", { data }));
  Object.assign(window.robustnb, { worker: Promise.resolve(worker), digits: { inputs: 64 }, answer, asked });
}"""


def test_train_trains_in_the_page_and_leaves_its_point(lab_page):
    assert lab_page.evaluate("Object.keys(window.robustnb)") == ["view"]  # neither engine nor digits are loaded before
    set_number(lab_page, "epochs", 20)
    press(lab_page, "Train")
    until(lab_page, "Done: ")
    assert lab_page.locator(".rnb-main .rnb-mine").count() == 1
    stability, accuracy = re.search(r"P/ε = ([\d.]+), .* accuracy ([\d.]+)\.", status(lab_page)).groups()
    assert 1 < float(stability) < 8
    assert float(accuracy) > 0.6
    charts = lab_page.locator(".rnb-live svg")
    assert charts.count() == 4
    assert all("at epoch 20." in chart.get_attribute("aria-label") for chart in charts.all())


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(lab_page):
    set_number(lab_page, "epochs", 3)
    results = []
    for run, seed in enumerate((5, 5, 6), start=1):
        set_number(lab_page, "seed", seed)
        press(lab_page, "Train")
        lab_page.wait_for_function(f"document.querySelectorAll('.rnb-main .rnb-mine').length === {run}", timeout=60_000)
        until(lab_page, "Done: ")
        results.append(re.search(r"Done: [^.]+\.\d+", status(lab_page))[0])
    assert results[0] == results[1] != results[2]
    # Of one rate no cross says which; of several each does.
    rates = lab_page.locator(".rnb-main text", has_text=re.compile(r"^rate "))
    assert rates.count() == 0
    set_number(lab_page, "learning rate", 0.2)
    press(lab_page, "Train")
    lab_page.wait_for_function("document.querySelectorAll('.rnb-main .rnb-mine').length === 4", timeout=60_000)
    assert rates.all_text_contents() == ["rate 0.05"] * 3 + ["rate 0.2"]


def test_pause_step_resume_stop_and_reset(lab_page):
    set_number(lab_page, "epochs", 900)
    press(lab_page, "Step")
    until(lab_page, "Epoch 0 of 900")
    press(lab_page, "Step")
    until(lab_page, "Epoch 1 of 900")
    lab_page.wait_for_timeout(400)
    assert "Epoch 1 of 900" in status(lab_page)
    press(lab_page, "Resume")
    until(lab_page, "Epoch 3")
    press(lab_page, "Pause")
    lab_page.wait_for_timeout(400)
    paused = status(lab_page)
    lab_page.wait_for_timeout(400)
    assert status(lab_page) == paused
    press(lab_page, "Stop")
    until(lab_page, "Stopped at epoch")
    assert lab_page.locator(".rnb-main .rnb-mine").count() == 0
    press(lab_page, "Reset")
    lab_page.wait_for_function("!document.querySelector('.rnb-status').innerText.includes('Stopped')")


def test_a_sweep_fills_the_plot_and_stop_ends_it(lab_page):
    set_number(lab_page, "epochs", 1)
    press(lab_page, "Sweep the width")
    lab_page.wait_for_function("document.querySelectorAll('.rnb-main .rnb-mine').length === 7", timeout=60_000)
    set_number(lab_page, "epochs", 500)
    press(lab_page, "Sweep the width")
    until(lab_page, "Network 1 of 7")
    press(lab_page, "Stop")
    until(lab_page, "Stopped at epoch")
    lab_page.wait_for_timeout(300)
    assert lab_page.locator(".rnb-main .rnb-mine").count() == 7


def test_a_run_that_diverges_says_so_and_earlier_points_stay(lab_page):
    set_number(lab_page, "epochs", 2)
    press(lab_page, "Train")
    until(lab_page, "Done: ")
    set_number(lab_page, "learning rate", 1000000)
    press(lab_page, "Train")
    until(lab_page, "Diverged at epoch 1.")
    assert lab_page.locator(".rnb-main .rnb-mine").count() == 1


def test_train_again_ends_the_run(watched):
    page = open_page(watched, HTML.as_uri(), "book/index")
    set_number(page, "epochs", 900)
    press(page, "Train")
    until(page, "Epoch ")
    set_number(page, "epochs", 2)
    press(page, "Train")
    until(page, "Done: ")
    assert page.locator(".rnb-main .rnb-mine").count() == 1
    assert watched.trouble == []


def test_a_late_error_of_a_run_does_not_end_the_next_one(lab_page):
    lab_page.evaluate(SILENT)
    for _ in range(2):
        press(lab_page, "Train")
        until(lab_page, "Starting …")
    for run, error in ((1, ""), (2, "Error: of run 2")):
        lab_page.evaluate(f"window.robustnb.answer({{ kind: 'error', id: '{run}.1', message: 'of run {run}' }})")
        lab_page.wait_for_timeout(200)
        assert lab_page.locator(".rnb-error").inner_text() == error
        assert lab_page.locator(".rnb-stop").get_attribute("aria-disabled") == str(bool(error)).lower()


# What a worker sends of a network's last epoch, and of its end.
LAST_ROW = """(id) => window.robustnb.answer({ kind: "row", id, row:
  { epoch: 50, train_loss: 0.1, test_accuracy: 0.9, stability: 2, lazy_ratio: 1, untrained: false, diverged: false } })"""
END = """(id) => window.robustnb.answer({ kind: "end", id, stopped: false, backend: "wasm", outputs: new Float32Array(10 * 31 * 10) })"""


def test_a_stop_after_a_network_s_last_step_ends_the_sweep(lab_page):
    lab_page.evaluate(SILENT)
    press(lab_page, "Sweep the width")
    lab_page.wait_for_function("window.robustnb.asked.length === 1")
    lab_page.evaluate(LAST_ROW, "1.1")
    press(lab_page, "Stop")
    lab_page.evaluate(END, "1.1")
    until(lab_page, "Network 1 of 7. Done: P/ε = 2")
    lab_page.wait_for_timeout(200)
    assert lab_page.evaluate("window.robustnb.asked") == ["1.1"]
    assert lab_page.locator(".rnb-stop").get_attribute("aria-disabled") == "true"


def test_what_comes_after_a_reset_is_not_heard(lab_page):
    lab_page.evaluate(SILENT)
    press(lab_page, "Sweep the width")
    lab_page.wait_for_function("window.robustnb.asked.length === 1")
    lab_page.evaluate(LAST_ROW, "1.1")
    until(lab_page, "Epoch 50")
    press(lab_page, "Reset")
    lab_page.evaluate(END, "1.1")
    lab_page.wait_for_timeout(300)
    assert status(lab_page).startswith("Next: ")
    assert lab_page.locator(".rnb-main .rnb-mine").count() == 0
    assert lab_page.evaluate("window.robustnb.asked") == ["1.1"]
    press(lab_page, "Train")
    lab_page.wait_for_function("window.robustnb.asked.length === 2")


def test_a_sweep_ends_when_another_laboratory_trains(watched, tmp_path):
    labs = [Laboratory(question, width=8, depth=2) for question in ("The first?", "The second?")]
    page = watched.page
    page.goto(page_of(labs, tmp_path))
    page.locator(".rnb-lab svg polyline").nth(20).wait_for(state="attached")
    page.evaluate(SILENT)
    press(page, "Sweep the width", lab=0)
    page.wait_for_function("window.robustnb.asked.length === 1")
    page.evaluate(LAST_ROW, "1.1")
    press(page, "Train", lab=1)
    page.wait_for_function("window.robustnb.asked.length === 2")
    page.evaluate(END, "1.1")
    until(page, "Done: P/ε = 2", lab=0)
    page.wait_for_timeout(200)
    assert page.evaluate("window.robustnb.asked") == ["1.1", "2.1"]
    assert watched.trouble == []


def test_progress_goes_forward_from_network_to_network(lab_page):
    lab_page.evaluate(SILENT)
    press(lab_page, "Sweep the width")
    seen = []
    for run in (1, 2):
        lab_page.wait_for_function(f"window.robustnb.asked.length === {run}")
        for message in (LAST_ROW, END):
            lab_page.evaluate(message, f"1.{run}")
            lab_page.wait_for_timeout(100)
            seen.append(lab_page.locator(".rnb-progress").evaluate("bar => bar.value / bar.max"))
    assert seen == pytest.approx([1 / 7, 1 / 7, 2 / 7, 2 / 7])


def test_a_long_run_says_how_long_it_will_take(lab_page):
    set_number(lab_page, "epochs", 1000)
    for _ in range(2):
        control(lab_page, "width m", "slider").press("ArrowRight")
    press(lab_page, "Train")
    until(lab_page, "left.")
    assert re.search(r"κ [^ ]+\. About \d+ (s|min) left\.$", status(lab_page))
    lab_page.wait_for_timeout(1000)
    press(lab_page, "Pause")
    lab_page.wait_for_timeout(400)
    assert "left" not in status(lab_page)
    press(lab_page, "Stop")


def test_a_laboratory_of_other_data_is_not_trained_on_the_digits(watched, tmp_path):
    lab = Laboratory("Other data?", width=4, depth=2, device="cpu")
    lab.view.shape = lab.view.shape | {"inputs": 784}
    watched.page.goto(page_of([lab], tmp_path))
    watched.page.locator(".rnb-lab svg polyline").first.wait_for(state="attached", timeout=30_000)
    press(watched.page, "Train")
    watched.page.locator(".rnb-error", has_text="The page has the digits only").wait_for(timeout=60_000)
    assert watched.page.locator(".rnb-main .rnb-mine").count() == 0


def test_settings_live_in_the_address_and_section_anchors_keep_working(watched):
    page = open_page(watched, HTML.as_uri(), "book/index")
    page.goto(page.url + "#how-to-read")
    set_number(page, "seed", 42)
    assert page.url.partition("#")[2].startswith("how-to-read~")
    control(page, "exponent c", "number").fill("2")
    control(page, "exponent c", "number").press("Enter")
    until(page, "m⁻², width 16")  # to move the exponent is to choose its family
    control(page, "init", "list").select_option(label="LeCun")
    set_number(page, "epochs", 7)
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    page.locator(".rnb-lab svg polyline").first.wait_for(state="attached")
    until(page, "LeCun, width 16, depth 8; learning rate 0.05, 7 epochs, seed 42")
    assert control(page, "exponent c", "number").input_value() == "2"
    assert control(page, "init", "list").evaluate("s => s.selectedOptions[0].label") == "LeCun"
    seed = page.locator(".rnb-controls > .lm-Widget", has=page.get_by_text("seed", exact=True)).locator("input")
    assert seed.input_value() == "42"
    page.goto("about:blank")
    page.goto(re.sub(r"=.*", "=nonsense,1", address))
    page.locator(".rnb-lab svg polyline").first.wait_for(state="attached")
    until(page, "could not be read")
    assert watched.trouble == []


def test_an_address_typed_over_the_page_s_own_and_a_link_to_a_section_move_the_laboratory_as_they_say(watched):
    page = open_page(watched, HTML.as_uri(), "book/index")
    page.evaluate("location.hash = '#how-to-read'")
    page.wait_for_timeout(200)
    assert page.url.endswith("#how-to-read")  # nothing was moved: nothing to keep
    set_number(page, "seed", 42)
    settings = page.url.partition("~")[2]
    page.evaluate("location.hash = '#how-to-read'")
    page.wait_for_function("settings => location.hash.endsWith(settings)", arg=settings)
    other = re.sub(r",\d+,42$", ",30,77", settings)
    page.evaluate("settings => { location.hash = '#~' + settings; }", other)
    until(page, "30 epochs, seed 77")
    assert control(page, "seed", "number").input_value() == "77"
    assert watched.trouble == []


def test_points_are_copied_as_csv(browser, server):
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(f"{server}/book/index.html")
    page.locator(".rnb-lab svg polyline").first.wait_for(state="attached", timeout=30_000)
    set_number(page, "epochs", 1)
    press(page, "Train")
    until(page, "Done: ")
    press(page, "Copy points")
    until(page, "1 points copied")
    page.wait_for_timeout(300)
    assert page.locator(".rnb-voice").inner_text() == "1 points copied."  # still, so that it can be read out
    header, line = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert header == "init,width,depth,lr,epochs,seed,stability,lazy_ratio,test_accuracy,untrained,engine"
    assert line.startswith("he,16,8,0.05,1,0,")
    assert line.endswith(",wasm")
    context.close()


def test_a_run_before_the_prediction_says_why_it_is_not_seen(watched):
    page = open_page(watched, HTML.as_uri(), "book/introduction")
    set_number(page, "epochs", 1)
    press(page, "Train")
    until(page, "Runs appear in the plots after the prediction.")
    assert page.locator(".rnb-main .rnb-mine").count() == 0
    page.get_by_role("button", name="falls", exact=True).click()
    assert "after the prediction" not in status(page)
    assert page.locator(".rnb-main .rnb-mine").count() == 1


def test_the_reader_predicts_and_then_sees(watched):
    page = open_page(watched, HTML.as_uri(), "book/introduction")
    assert page.locator(".rnb-line.rnb-chosen").count() == 0  # nothing measured is shown yet
    assert page.locator(".rnb-line.rnb-exact").count() >= 1
    page.get_by_role("button", name="rises", exact=True).focus()
    page.keyboard.press("Enter")
    page.locator(".rnb-plots .rnb-chosen").first.wait_for(state="attached")
    answer = page.locator(".rnb-answer").inner_text()
    assert answer.startswith("You expected that it rises. Measured, it rises, then falls, with its peak at width 8.")
    assert not page.locator(".rnb-guess").is_visible()
    page.reload()
    page.get_by_role("button", name="rises, then falls").click()
    assert "Well seen" in page.locator(".rnb-answer").inner_text()
    assert watched.trouble == []
