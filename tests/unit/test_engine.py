"""The engine against the plain loop, on shapes drawn at random."""

import gc
from itertools import count

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import as_module
from torch import nn

import robustnb.engine
from robustnb import FCN, fully_connected
from robustnb.engine import Engine, member_bytes
from robustnb.settings import Setting
from robustnb.sweep import members_that_fit, sweep

# Largest difference, in shares of the layer's largest weight: rounding of a few dozen steps. Measured here: up to 2e-6 and 4e-15.
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}


@st.composite
def tasks(draw):
    """Networks of some shape, inputs and classes, and how to train them."""
    shape = {name: draw(st.integers(1, most)) for name, most in (("inputs", 12), ("width", 20), ("outputs", 11))}
    network = fully_connected(
        draw(st.sampled_from(["he", "lecun", "ntk", "m^-0.5"])),
        **shape,
        depth=draw(st.integers(2, 5)),
        seeds=range(draw(st.sampled_from([1, 2, 7]))),
        device="cpu",
        dtype=draw(st.sampled_from([torch.float32, torch.float64])),
    )
    n = draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    x = torch.randn(n, network.inputs, generator=generator).to(network.dtype)
    y = torch.randint(network.outputs, (n,), generator=generator)
    order = torch.randperm(n, generator=generator)
    return network, x, y, order, draw(st.integers(1, 45)), draw(st.sampled_from(["cross_entropy", "squared"]))


def plain_step(module, alpha, x, y, loss, lr):
    """One step as a torch tutorial would take it; returns the loss before it."""
    f = module(x) / alpha
    value = nn.functional.cross_entropy(f, y) if loss == "cross_entropy" else 0.5 * (f - torch.eye(f.shape[1])[y]).square().sum() / len(y)
    module.zero_grad()
    value.backward()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.sub_(lr * parameter.grad)
    return value.item()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(tasks())
def test_an_epoch_is_that_of_the_plain_loop(task):
    network, x, y, order, batch_size, loss = task
    engine = Engine(network, x, y, loss)
    assert engine.epoch(order, batch_size, 0.05, lambda: False)
    for member in range(network.members):
        module, losses = as_module(network, member), []
        for batch in order.split(batch_size):
            losses.append(plain_step(module, network.alpha, x[batch], y[batch], loss, 0.05))
        for weight, parameter in zip(engine.network.weights, module.parameters(), strict=True):
            scale = float(parameter.detach().abs().max()) or 1.0
            torch.testing.assert_close(weight[member], parameter.detach().T, rtol=0, atol=TOLERANCE[network.dtype] * scale)
        assert engine.worst[member].item() == pytest.approx(max(losses), rel=1e-4, abs=1e-6)


def test_members_with_scales_of_their_own_are_trained_as_if_alone():
    network = fully_connected("he", inputs=8, width=16, depth=3, outputs=4, seeds=(0, 1), dtype=torch.float64, device="cpu")
    x, y = torch.randn(30, 8, dtype=torch.float64), torch.arange(30) % 4
    scaled = FCN(network.weights, network.seeds, alpha=torch.tensor([2.0, 0.5], dtype=torch.float64).reshape(2, 1, 1))
    together = Engine(scaled, x, y, "squared")
    together.epoch(torch.arange(30), 7, 0.1, lambda: False)
    for member, alpha in enumerate((2.0, 0.5)):
        alone = Engine(FCN(tuple(weight[member : member + 1] for weight in network.weights), (member,), alpha), x, y, "squared")
        alone.epoch(torch.arange(30), 7, 0.1, lambda: False)
        for one, many in zip(alone.network.weights, together.network.weights, strict=True):
            torch.testing.assert_close(one[0], many[member])


def test_a_recorded_step_is_taken_once_and_on_the_inputs_of_its_turn(monkeypatch):
    """What CUDA does, on the CPU: recording runs nothing, and a replay does what was recorded, on the same tensors."""
    network = fully_connected("he", inputs=8, width=16, depth=3, outputs=4, seeds=(0, 1), device="cpu")
    x, y = torch.randn(50, 8), torch.arange(50) % 4
    plain = Engine(network, x, y, "cross_entropy")
    recorded, replays = [], []

    def record(run):
        recorded.append(run)
        return lambda: (replays.append(run), run())

    both = []
    for engine in (plain, Engine(network, x, y, "cross_entropy")):
        for epoch, lr in enumerate((0.1, 0.05)):
            order = torch.randperm(50, generator=torch.Generator().manual_seed(epoch))
            engine.epoch(order, 16, lr, lambda: False)  # three batches of 16, and one of 2
        both.append(engine)
        monkeypatch.setattr(robustnb.engine, "RECORDED", ("cpu",))
        monkeypatch.setattr(robustnb.engine, "_record", record)
    for one, other in zip(both[0].network.weights, both[1].network.weights, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(both[0].worst, both[1].worst)
    assert len(recorded) == 2  # one step of each size
    assert len(replays) == 8 - 2  # all but the first of each size


def test_a_step_makes_nothing_that_stays():
    network = fully_connected("he", inputs=64, width=32, depth=4, outputs=10, seeds=range(4), device="cpu")
    engine = Engine(network, torch.randn(200, 64), torch.arange(200) % 10, "cross_entropy")
    order = torch.arange(200)
    engine.epoch(order, 64, 0.1, lambda: False)

    def tensors():
        gc.collect()
        return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())

    before = tensors(), [weight.data_ptr() for weight in engine.network.weights]
    engine.epoch(order, 64, 0.05, lambda: False)
    assert (tensors(), [weight.data_ptr() for weight in engine.network.weights]) == before


def test_a_stop_ends_an_epoch_before_its_next_step():
    network = fully_connected("he", inputs=4, width=8, depth=2, outputs=3, device="cpu")
    x, y, looks = torch.randn(40, 4), torch.arange(40) % 3, count()
    engine, two_steps = Engine(network, x, y, "squared"), Engine(network, x, y, "squared")
    assert not engine.epoch(torch.arange(40), 10, 0.1, lambda: next(looks) == 2)
    two_steps.epoch(torch.arange(20), 10, 0.1, lambda: False)
    assert all(torch.equal(one, other) for one, other in zip(engine.network.weights, two_steps.network.weights, strict=True))


# Members and memory

SETTING = Setting("he", width=32, depth=3, lr=0.05, epochs=1, init_seeds=tuple(range(5)))


def test_a_members_bytes_are_those_of_its_tensors():
    network = fully_connected("he", inputs=64, width=32, depth=5, outputs=10, device="cpu")
    engine = Engine(network, torch.randn(100, 64), torch.arange(100) % 10, "cross_entropy")
    engine.epoch(torch.arange(64), 64, 0.1, lambda: False)
    step = engine._steps[64]
    activations = [step._f, step._error, *(t for parts in step._down for t in (parts[3], parts[4]))]
    held = {t.data_ptr(): t.nbytes for t in (*network.weights, *engine.network.weights, *activations)}
    needed = member_bytes(inputs=64, width=32, depth=5, outputs=10, batch_size=64)
    assert sum(held.values()) <= needed <= 1.1 * sum(held.values())


def test_a_sweep_that_does_not_fit_is_split_and_measures_the_same(monkeypatch, digits):
    whole = sweep([SETTING], device="cpu")
    one = member_bytes(inputs=64, width=32, depth=3, outputs=10, batch_size=64)
    monkeypatch.setattr(robustnb.sweep, "free_bytes", lambda _: int(2.6 * one))
    assert members_that_fit(SETTING, digits, torch.device("cpu")) == 2
    split = sweep([SETTING], device="cpu")
    assert split.init_seed.tolist() == [0, 1, 2, 3, 4]
    assert split.stability.tolist() == pytest.approx(whole.stability.tolist(), rel=1e-5)
