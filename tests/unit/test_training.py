import json
import math
import subprocess
import sys
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from threading import Event

import pandas as pd
import pytest
import torch
from plain import INITS, as_module, few_digits
from torch import nn

from robustnb import (
    fully_connected,
    gradient_descent,
    is_untrained,
    lazy_ratio,
    load_data,
    paper_lr,
    perturbation_stability,
    train,
    two_classes,
)
from robustnb.stability import cross_entropy

COLUMNS = {
    "epoch",
    "init_seed",
    "batch_seed",
    "lr",
    "train_loss",
    "train_accuracy",
    "test_accuracy",
    "stability",
    "stability_error",
    "lazy_ratio",
    "untrained",
    "diverged",
    "seconds",
}
MEASUREMENTS = ["train_loss", "train_accuracy", "test_accuracy", "stability", "stability_error", "lazy_ratio"]


def small(init="he", **changes):
    return fully_connected(init, **({"inputs": 64, "width": 16, "depth": 3, "outputs": 10, "seeds": (0, 1, 2)} | changes))


def plain_loop(module, data, *, epochs, lr, loss, batch_size, batch_seed):
    """One network, trained as a torch tutorial would."""
    optimizer = torch.optim.SGD(module.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(batch_seed)
    for _ in range(epochs):
        for batch in torch.randperm(len(data.x_train), generator=generator).split(batch_size):
            f, y = module(data.x_train[batch]), data.y_train[batch]
            of_batch = (
                nn.functional.cross_entropy(f, y) if loss == "cross_entropy" else 0.5 * (f - torch.eye(10)[y]).square().sum() / len(y)
            )
            optimizer.zero_grad()
            of_batch.backward()
            optimizer.step()


def flat(weights):
    return torch.cat([weight.flatten() for weight in weights])


# The trainer against a plain loop


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
@pytest.mark.parametrize("init", INITS)
def test_members_trained_at_once_are_those_of_separate_plain_loops(init, loss):
    # In double precision, so that the small moves of the non-lazy weights are compared and not their rounding.
    data, network = few_digits(dtype=torch.float64), small(init, dtype=torch.float64)
    settings = {"epochs": 1, "lr": 0.05, "loss": loss, "batch_size": 64, "batch_seed": 5}  # 200 inputs: a last batch of 8
    run = train(network, data, **settings)
    for member in range(3):
        module = as_module(network, member)
        plain_loop(module, data, **settings)
        start = flat(weight[member] for weight in network.weights)
        moved = flat(weight[member] for weight in run.network.weights) - start
        expected = flat(parameter.detach().T for parameter in module.parameters()) - start
        assert expected.norm() > 0
        assert (moved - expected).norm() < 1e-5 * expected.norm()


def test_in_single_precision_members_agree_with_plain_loops_too(digits):
    network = small()
    settings = {"epochs": 2, "lr": 0.1, "loss": "cross_entropy", "batch_size": 64, "batch_seed": 0}
    run = train(network, digits, **settings)
    for member in range(3):
        module = as_module(network, member)
        plain_loop(module, digits, **settings)
        for weight, parameter in zip(run.network.weights, module.parameters(), strict=True):
            assert (weight[member] - parameter.T).norm() < 1e-5 * parameter.norm()


def test_a_batch_size_above_the_number_of_inputs_is_one_full_step(digits):
    network = small(seeds=(0,))
    run = train(network, digits, epochs=1, lr=0.1, batch_size=1000)
    module = as_module(network)
    nn.functional.cross_entropy(module(digits.x_train), digits.y_train).backward()
    for before, after, parameter in zip(network.weights, run.network.weights, module.parameters(), strict=True):
        torch.testing.assert_close(after[0], before[0] - 0.1 * parameter.grad.T, rtol=1e-5, atol=1e-6)


# What a run returns


def test_history_has_a_row_for_each_epoch_and_member(digits):
    run = train(small(seeds=(4, 7)), digits, epochs=3, lr=0.1, batch_seed=9)
    assert set(run.history.columns) == COLUMNS
    assert run.history[["epoch", "init_seed"]].values.tolist() == [[epoch, seed] for epoch in range(4) for seed in (4, 7)]
    assert set(run.history.batch_seed) == {9}
    assert run.history.lr.tolist() == [0, 0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    assert not run.history.diverged.any()
    assert run.history.seconds.is_monotonic_increasing
    assert not run.stopped
    assert run.final.init_seed.tolist() == [4, 7]
    assert run.final.epoch.tolist() == [3, 3]


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_history_ends_with_the_measurements_of_the_returned_network(digits, loss):
    run = train(small(), digits, epochs=2, lr=0.05, loss=loss)
    f, y = run.network(digits.x_train), digits.y_train
    losses = cross_entropy(f, y) if loss == "cross_entropy" else 0.5 * (f - torch.eye(10)[y]).square().sum(dim=2)
    stability = perturbation_stability(run.network, digits.probe)
    expected = {
        "train_loss": losses.mean(dim=1),
        "train_accuracy": (f.argmax(dim=2) == y).float().mean(dim=1),
        "test_accuracy": (run.network(digits.x_test).argmax(dim=2) == digits.y_test).float().mean(dim=1),
        "stability": stability.value,
        "stability_error": stability.standard_error,
        "lazy_ratio": lazy_ratio(run.network, run.initial),
    }
    for column, values in expected.items():
        assert run.final[column].tolist() == pytest.approx(values.tolist(), rel=1e-5), column


def test_large_data_are_measured_in_blocks_as_a_whole(digits):
    data = replace(digits, x_train=digits.x_train.repeat(21, 1), y_train=digits.y_train.repeat(21))  # 4,200 inputs: blocks of 2,048
    whole, once = (train(small(), each, epochs=0, lr=0.1).history for each in (data, digits))
    for column in MEASUREMENTS:
        assert whole[column].tolist() == pytest.approx(once[column].tolist(), rel=1e-5), column


def test_epoch_0_is_the_initialization(digits):
    network = small()
    run = train(network, digits, epochs=1, lr=0.1)
    start = run.history[run.history.epoch == 0]
    assert start.lazy_ratio.tolist() == [0, 0, 0]
    assert start.stability.tolist() == perturbation_stability(network, digits.probe).value.tolist()
    assert (run.final.lazy_ratio > 0).all()


def test_training_learns(digits):
    run = train(small(width=32), digits, epochs=40, lr=0.1)
    start = run.history[run.history.epoch == 0]
    assert (run.final.train_loss < start.train_loss.min() / 4).all()
    assert (run.final.test_accuracy > 0.8).all()


def test_the_network_given_is_left_as_it_was(digits):
    network = small()
    before = [weight.clone() for weight in network.weights]
    run = train(network, digits, epochs=1, lr=0.1)
    assert run.initial is network
    assert all(torch.equal(now, then) for now, then in zip(network.weights, before, strict=True))
    assert not any(torch.equal(now, then) for now, then in zip(run.network.weights, before, strict=True))


def test_another_batch_seed_gives_another_run(digits):
    first, other = (train(small(), digits, epochs=1, lr=0.1, batch_seed=seed) for seed in (0, 1))
    assert not torch.equal(first.network.weights[0], other.network.weights[0])


# Learning rates


def test_a_rate_of_zero_changes_nothing(digits):
    network = small()
    run = train(network, digits, epochs=2, lr=0)
    assert all(torch.equal(now, then) for now, then in zip(run.network.weights, network.weights, strict=True))
    assert (run.history.groupby("init_seed")[MEASUREMENTS].nunique() == 1).all(axis=None)


def test_the_papers_schedule():
    assert [paper_lr(epoch) for epoch in (1, 10, 11, 20, 21, 50)] == pytest.approx([1e-3, 1e-3, 8e-4, 8e-4, 6.4e-4, 1e-3 * 0.8**4])


def test_a_function_gives_the_rate_of_each_epoch(digits):
    network = small()
    scheduled = train(network, digits, epochs=3, lr=lambda epoch: {1: 0.1, 2: 0.0, 3: 0.05}[epoch])
    assert scheduled.history.lr.tolist() == [0, 0, 0, 0.1, 0.1, 0.1, 0, 0, 0, 0.05, 0.05, 0.05]
    kappa = scheduled.history.pivot_table(index="epoch", columns="init_seed", values="lazy_ratio")
    assert (kappa.loc[1] == kappa.loc[2]).all()
    assert (kappa.loc[3] != kappa.loc[2]).all()
    first = train(network, digits, epochs=1, lr=0.1)
    assert first.final.lazy_ratio.tolist() == kappa.loc[1].tolist()


# Memory


def test_a_runs_memory_is_twice_the_parameters_the_data_and_one_batch_and_does_not_grow():
    script = Path(__file__).parents[2] / "benchmarks" / "memory.py"
    done = subprocess.run([sys.executable, str(script), "128", "3", "8"], capture_output=True, encoding="utf-8", check=True)
    measured = json.loads(done.stdout)
    assert measured["peak"] < 1.3 * measured["budget"]
    first, *_, last = measured["after_each_epoch"][1:]
    assert last - first < 0.1 * measured["budget"]


# Stopping


def test_a_stop_set_before_the_start_leaves_the_initialization(digits):
    stop, network = Event(), small()
    stop.set()
    run = train(network, digits, epochs=5, lr=0.1, stop=stop)
    assert run.stopped
    assert set(run.history.epoch) == {0}
    assert all(torch.equal(now, then) for now, then in zip(run.network.weights, network.weights, strict=True))


def test_a_stop_from_on_epoch_keeps_the_finished_epochs(digits):
    stop, seen = Event(), []

    def watch(rows):
        seen.append(rows)
        if rows[0]["epoch"] == 2:
            stop.set()

    stopped = train(small(), digits, epochs=10, lr=0.1, on_epoch=watch, stop=stop)
    whole = train(small(), digits, epochs=2, lr=0.1)
    assert stopped.stopped
    assert not whole.stopped
    assert [[row["epoch"] for row in rows] for rows in seen] == [[0] * 3, [1] * 3, [2] * 3]
    assert [row for rows in seen for row in rows] == stopped.history.to_dict("records")
    pd.testing.assert_frame_equal(stopped.history.drop(columns="seconds"), whole.history.drop(columns="seconds"))
    assert all(torch.equal(a, b) for a, b in zip(stopped.network.weights, whole.network.weights, strict=True))


def test_a_stop_after_the_last_epoch_comes_too_late(digits):
    stop = Event()
    run = train(small(), digits, epochs=2, lr=0.1, on_epoch=lambda rows: rows[0]["epoch"] == 2 and stop.set(), stop=stop)
    assert stop.is_set()
    assert not run.stopped
    assert set(run.history.epoch) == {0, 1, 2}


def test_a_stop_within_an_epoch_returns_the_network_of_the_last_finished_epoch(digits):
    # Set at the seventh look, as when a reader presses the button: 4 steps are an epoch.
    stop, looks = Event(), count()
    stop.is_set = lambda: next(looks) >= 6
    run = train(small(), digits, epochs=10, lr=0.1, stop=stop)
    assert run.stopped
    assert run.final.epoch.tolist() == [1, 1, 1]
    assert lazy_ratio(run.network, run.initial).tolist() == pytest.approx(run.final.lazy_ratio.tolist(), rel=1e-6)


# Divergence


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_members_that_diverge_are_reported(digits, loss):
    run = train(small(width=64, depth=5), digits, epochs=2, lr=1e6, loss=loss)
    start, after = run.history[run.history.epoch == 0], run.history[run.history.epoch > 0]
    assert not start.diverged.any()
    assert start[MEASUREMENTS].notna().all(axis=None)
    assert after.diverged.all()
    assert after[MEASUREMENTS].isna().all(axis=None)


# Networks with one output


def test_a_network_with_one_output_can_be_trained(digits):
    data = replace(digits, y_train=torch.zeros_like(digits.y_train), y_test=torch.zeros_like(digits.y_test), classes=1)
    run = train(small(outputs=1), data, epochs=3, lr=0.02, loss="squared")
    losses = run.history.pivot_table(index="epoch", columns="init_seed", values="train_loss")
    assert (losses.diff().dropna() < 0).all(axis=None)


# Gradient descent, step by step

TASK = two_classes(load_data("digits", normalize="unit"), 3, 8, n=30)


def one_output(init="he", **changes):
    return small(init, outputs=1, dtype=torch.float64, device="cpu", **changes)


@pytest.mark.parametrize("batch_size", [None, 8])
def test_gradient_descent_is_the_plain_loop(batch_size):
    network = one_output()
    *_, last = gradient_descent(network, TASK.x, TASK.y, lr=0.3, steps=10, batch_size=batch_size, batch_seed=2)
    for member in range(3):
        module, generator = as_module(network, member), torch.Generator().manual_seed(2)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.3)
        batches = []
        for _ in range(10):
            if not batches:
                order = torch.arange(30) if batch_size is None else torch.randperm(30, generator=generator)
                batches = list(order.split(batch_size or 30))
            batch = batches.pop(0)
            optimizer.zero_grad()
            (0.5 * nn.functional.mse_loss(module(TASK.x[batch]), TASK.y[batch])).backward()
            optimizer.step()
        plain = torch.cat([parameter.T.flatten() for parameter in module.parameters()])
        torch.testing.assert_close(flat([weight[member] for weight in last.network.weights]), plain.detach(), rtol=1e-10, atol=1e-12)


def test_gradient_descent_yields_the_state_before_each_step_and_the_last():
    network = one_output()
    states = list(gradient_descent(network, TASK.x, TASK.y, lr=0.3, steps=5))
    assert len(states) == 6
    torch.testing.assert_close(states[0].network.weights, network.weights, rtol=0, atol=0)
    for now, then in pairwise(states):
        moved = [w - 0.3 * g for w, g in zip(now.network.weights, now.gradients, strict=True)]
        torch.testing.assert_close(list(then.network.weights), moved, rtol=0, atol=0)
        torch.testing.assert_close(now.residual, now.network(TASK.x) - TASK.y)
        torch.testing.assert_close(now.loss, 0.5 * now.residual.square().mean(dim=(1, 2)))
    assert (states[-1].loss < states[0].loss).all()


def test_gradient_descent_says_that_it_diverged_and_which_members():
    with pytest.raises(FloatingPointError, match=r"diverged at step \d+ \(members of seeds \[0, 1, 2\]\): lr = 1000 is too large"):
        list(gradient_descent(one_output(), TASK.x, TASK.y, lr=1e3, steps=100))


def test_runs_that_have_learned_nothing_are_marked_untrained(digits):
    deep = train(small("m^-1.5", depth=4), digits, epochs=3, lr=0.05).history
    assert deep.untrained.all()
    assert deep.train_loss.to_numpy() == pytest.approx(math.log(10), rel=1e-3)
    learned = train(small(), digits, epochs=10, lr=0.1)
    assert not learned.final.untrained.any()
    dead = small().with_weights([torch.zeros_like(weight) for weight in small().weights])
    assert train(dead, digits, epochs=1, lr=0.1, loss="squared").final.untrained.all()
    gone = train(small(), digits, epochs=1, lr=1e9).final
    assert gone.diverged.all()
    assert not gone.untrained.any()


def test_is_untrained_compares_with_the_loss_of_the_output_zero():
    assert is_untrained([0.5, 0.48, 0.47, 0.1, float("nan")], 0.5).tolist() == [True, True, False, False, False]
