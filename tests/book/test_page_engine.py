"""Training in the page: the same mathematics as torch, and everything the reader can do while it runs."""

import base64
import re

import numpy as np
import pytest
import torch

from robustnb import fully_connected, lazy_ratio, load_data, uniform_in_ball
from robustnb.initialization import get_initialization

from .conftest import HTML, open_page

# Runs the page's own engine in a worker of its own, with given weights, order and δ.
DRIVE = """
async ([setting, weights, order, delta, steps]) => {
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
  const worker = new Worker(URL.createObjectURL(new Blob([window.robustnb.engine])));
  const rows = [];
  let weightsNow;
  await new Promise((done, fail) => {
    worker.onerror = (event) => fail(new Error(event.message));
    worker.onmessage = ({ data: message }) => {
      if (message.kind === "error") fail(new Error(message.message));
      if (message.kind === "row") rows.push(message.row);
      if (message.kind === "end") { weightsNow = message.weights; done(); }
    };
    worker.postMessage({ kind: "load", backend: "wasm", data });
    const given = { weights: weights.map(floats), order, delta: floats(delta) };
    worker.postMessage({ kind: "train", id: "test", setting, given, paused: false });
  });
  worker.terminate();
  const encode = (array) => {
    let text = "";
    for (const byte of new Uint8Array(array.buffer)) text += String.fromCharCode(byte);
    return btoa(text);
  };
  return [rows, weightsNow.map(encode)];
}
"""


def encode(tensor):
    return base64.b64encode(tensor.contiguous().numpy().astype(np.float32).tobytes()).decode()


@pytest.mark.parametrize("init", ["he", "lecun", "ntk", "m^-1.5"])
@pytest.mark.parametrize(("width", "depth"), [(16, 2), (64, 4), (256, 8)])
def test_one_step_in_the_page_is_one_step_in_torch(init, width, depth, watched):
    if init == "m^-1.5" and depth > 2:
        pytest.skip("deep non-lazy networks do not leave zero in one step")
    page = open_page(watched, HTML.as_uri(), "book/bibliography")
    data = load_data("digits")
    start = fully_connected(init, inputs=64, width=width, depth=depth, outputs=10, device="cpu")
    scales = get_initialization(init).scales(inputs=64, width=width, depth=depth, outputs=10)
    delta = uniform_in_ball(tuple(data.x_test.shape), radius=1.0, seed=0).float()
    order, lr = list(range(64)), 0.05
    setting = {"init": init, "betas": [float(b) for b in scales[:3]], "width": width, "depth": depth, "lr": lr, "epochs": 1, "seed": 0}
    given = [encode(weight[0]) for weight in start.weights]
    (before, after), moved = page.evaluate(DRIVE, [setting, given, order, encode(delta), 1])

    weights = [weight.double().requires_grad_() for weight in start.weights]
    x, y = data.x_train[order].double(), data.y_train[order]
    loss = torch.nn.functional.cross_entropy(start.with_weights(weights)(x)[0], y)
    gradients = torch.autograd.grad(loss, weights)
    stepped = start.with_weights([(w - lr * g).detach() for w, g in zip(weights, gradients, strict=True)])
    for ours, theirs in zip(moved, stepped.weights, strict=True):
        page_weight = np.frombuffer(base64.b64decode(ours), np.float32).reshape(theirs.shape[1:])
        assert np.abs(page_weight - theirs[0].numpy()).max() < 1e-6
    original = start.with_weights([w.detach() for w in weights])
    for row, network in ((before, original), (after, stepped)):
        stability = network.jvp(data.x_test.double(), delta.double())[1].norm(dim=-1).mean().item()
        assert row["stability"] == pytest.approx(stability, rel=1e-4)
    assert after["lazy_ratio"] == pytest.approx(lazy_ratio(stepped, original).item(), rel=1e-4)
    assert watched.trouble == []


def status(page):
    return page.locator(".rnb-status").first.inner_text()


def until(page, text, timeout=60_000):
    page.wait_for_function("text => document.querySelector('.rnb-status').innerText.includes(text)", arg=text, timeout=timeout)


def press(page, name):
    page.get_by_role("button", name=name).first.click()


def set_number(page, label, value):
    field = page.locator(".rnb-controls > .lm-Widget", has=page.get_by_text(label, exact=True)).first.locator("input")
    field.fill(str(value))
    field.press("Enter")
    until(page, str(value))


@pytest.fixture
def lab_page(watched):
    page = open_page(watched, HTML.as_uri(), "book/index")
    yield page
    assert watched.trouble == []


def test_train_trains_in_the_page_and_leaves_its_point(lab_page):
    assert lab_page.evaluate("Object.keys(window.robustnb ?? {}).length") == 0  # nothing is loaded before
    set_number(lab_page, "epochs", 20)
    press(lab_page, "Train")
    until(lab_page, "Epoch ")
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
    assert lab_page.locator(".rnb-mine").count() == 0
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


def test_a_second_laboratory_takes_over_the_page_s_worker(watched):
    page = open_page(watched, HTML.as_uri(), "book/index")
    set_number(page, "epochs", 900)
    press(page, "Train")
    until(page, "Epoch 1 ")
    set_number(page, "epochs", 2)
    press(page, "Train")
    until(page, "Done: ")
    assert page.locator(".rnb-main .rnb-mine").count() == 1
    assert watched.trouble == []


def test_settings_live_in_the_address_and_section_anchors_keep_working(watched):
    page = open_page(watched, HTML.as_uri(), "book/index")
    page.goto(page.url + "#how-to-read")
    set_number(page, "seed", 42)
    assert page.url.partition("#")[2].startswith("how-to-read~")
    set_number(page, "epochs", 7)
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    page.locator(".rnb-lab svg polyline").first.wait_for(state="attached")
    until(page, "7 epochs, seed 42")
    seed = page.locator(".rnb-controls > .lm-Widget", has=page.get_by_text("seed", exact=True)).locator("input")
    assert seed.input_value() == "42"
    page.goto("about:blank")
    page.goto(re.sub(r"=.*", "=nonsense,1", address))
    page.locator(".rnb-lab svg polyline").first.wait_for(state="attached")
    until(page, "could not be read")
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
    header, line = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert header == "init,width,depth,lr,epochs,seed,stability,lazy_ratio,test_accuracy"
    assert line.startswith("he,16,8,0.05,1,0,")
    context.close()


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
