"""Training at its edges: defined results, reported as what they are; the same bits from the same seeds; members that do not meet."""

import math
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from robustnb import fully_connected, load_data, train
from robustnb.convnets import MODELS, convolutional

from .children import CONTEXT, LONG, outcome

MEASUREMENTS = ["train_loss", "train_accuracy", "test_accuracy", "stability", "stability_error", "lazy_ratio"]
KINDS = ("fcn", *MODELS)
LOSSES = pytest.mark.parametrize("loss", ["cross_entropy", "squared"])


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def few_digits(train_images=60, test_images=30, dtype=torch.float32):
    data = load_data("digits")
    return replace(
        data,
        x_train=data.x_train[:train_images].to(dtype),
        y_train=data.y_train[:train_images],
        x_test=data.x_test[:test_images].to(dtype),
        y_test=data.y_test[:test_images],
    )


DIGITS = few_digits()


def networks(kind="fcn", seeds=(0, 1), **changes):
    if kind == "fcn":
        shape = {"inputs": 64, "width": 16, "depth": 3, "outputs": 10, "device": "cpu"}
        return fully_connected("he", seeds=seeds, **(shape | changes))
    shape = {"channels": 1, "side": 8, "width": 2, "depth": 8, "outputs": 10, "device": "cpu"}
    return convolutional("he", model=kind, seeds=seeds, **(shape | changes))


def without_seconds(history):
    return history.drop(columns="seconds")


def same_bits(one, other):
    pd.testing.assert_frame_equal(without_seconds(one.history), without_seconds(other.history), check_exact=True)
    assert all(torch.equal(a, b) for a, b in zip(one.network.weights, other.network.weights, strict=True))


def is_defined(history):
    """Every measurement is a number, and nothing is called diverged."""
    assert not history.diverged.any()
    assert history[MEASUREMENTS].notna().all(axis=None)
    assert torch.isfinite(torch.tensor(history[MEASUREMENTS].to_numpy())).all()


# Divergence


@LOSSES
@pytest.mark.parametrize("lr", [1e4, 1e38, torch.finfo(torch.float32).max])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_diverges_is_marked_with_nan_and_ends(kind, lr, loss):
    run = train(networks(kind), DIGITS, epochs=20, lr=lr, loss=loss, batch_size=16)
    start, after = run.history[run.history.epoch == 0], run.history[run.history.epoch > 0]
    is_defined(start)
    assert not run.stopped
    if kind == "fcn" or lr > 1e4:  # normalized networks bear much
        assert run.final.diverged.all()
        assert run.final.epoch.max() < 20
    gone = after.diverged
    assert after[gone][MEASUREMENTS].isna().all(axis=None)
    assert after[~gone][MEASUREMENTS].notna().all(axis=None)
    assert not after[gone].untrained.any()
    # What has diverged stays so.
    assert (after.groupby("init_seed").diverged.diff().dropna() != -1).all()


@LOSSES
def test_a_run_whose_last_step_threw_it_away_has_diverged(loss):
    """One step an epoch: no minibatch comes after it, on which the loss would show."""
    run = train(networks(), DIGITS, epochs=1, lr=1e5, loss=loss, batch_size=1000)
    assert run.final.epoch.tolist() == [1, 1]
    assert run.final.diverged.all()
    assert run.final[MEASUREMENTS].isna().all(axis=None)


def test_a_rate_that_the_precision_does_not_have_is_refused():
    seen = []
    for rate in (1e39, lambda _: 1e39):
        with pytest.raises(ValueError, match=r"^lr must be a finite number of at least 0 and at most 3\.4e\+38, not 1e\+39\.$"):
            train(networks(), DIGITS, epochs=1, lr=rate, on_epoch=seen.append)
    assert len(seen) == 1  # of the function, the initialization


# Dead networks


def dead(kind):
    """No unit of the first layer ever says anything: pixels are not negative, its weights are not positive."""
    network = networks(kind)
    return network.with_weights([-network.weights[0].abs(), *network.weights[1:]])


@LOSSES
def test_a_dead_network_stays_what_it_is_and_is_marked_untrained(loss):
    network = dead("fcn")
    run = train(network, DIGITS, epochs=3, lr=0.1, loss=loss)
    is_defined(run.history)
    assert run.history.untrained.all()
    assert run.history.train_loss.to_numpy() == pytest.approx(math.log(10) if loss == "cross_entropy" else 0.5)
    assert (run.history[["stability", "stability_error", "lazy_ratio"]] == 0).all(axis=None)
    assert all(torch.equal(now, then) for now, then in zip(run.network.weights, network.weights, strict=True))


@LOSSES
def test_a_network_that_is_dead_on_the_data_does_not_touch_its_neighbour(loss):
    network = networks()
    first = torch.stack([network.weights[0][0], -network.weights[0][1].abs()])
    mixed = train(network.with_weights([first, *network.weights[1:]]), DIGITS, epochs=3, lr=0.1, loss=loss)
    alive, gone = (mixed.history[mixed.history.init_seed == seed].reset_index(drop=True) for seed in (0, 1))
    whole = train(network, DIGITS, epochs=3, lr=0.1, loss=loss).history
    pd.testing.assert_frame_equal(
        without_seconds(alive), without_seconds(whole[whole.init_seed == 0].reset_index(drop=True)), check_exact=True
    )
    assert gone.untrained.all()


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_zero_are_measured_and_only_kappa_is_undefined(kind):
    """κ is a share of the initial weights, of which there are none: the one number that is not defined."""
    network = networks(kind)
    run = train(network.with_weights([torch.zeros_like(weight) for weight in network.weights]), DIGITS, epochs=2, lr=0.1)
    assert not run.history.diverged.any()
    assert run.history.untrained.all()
    assert run.history.lazy_ratio.isna().all()
    assert run.history.drop(columns="lazy_ratio").notna().all(axis=None)
    assert (run.history.stability == 0).all()


# Little data, and data that lack something


@LOSSES
@pytest.mark.parametrize("kind", KINDS)
def test_a_rate_of_zero_measures_the_initialization_at_each_epoch(kind, loss):
    run = train(networks(kind), DIGITS, epochs=2, lr=0.0, loss=loss)
    is_defined(run.history)
    # Also where a pass over the data would change an average over them.
    assert (run.history.groupby("init_seed")[MEASUREMENTS].nunique() == 1).all(axis=None)
    assert (run.history.lazy_ratio == 0).all()


@LOSSES
@pytest.mark.parametrize("kind", KINDS)
def test_a_single_training_image_is_learned_or_measured(kind, loss):
    one = replace(DIGITS, x_train=DIGITS.x_train[:1], y_train=DIGITS.y_train[:1])
    run = train(networks(kind), one, epochs=20, lr=0.02, loss=loss)
    is_defined(run.history)
    losses = run.history.pivot_table(index="epoch", columns="init_seed", values="train_loss")
    assert (losses.iloc[-1] < losses.iloc[0]).all()
    assert set(run.history.train_accuracy) <= {0.0, 1.0}


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_larger_than_the_data_is_all_of_them(kind):
    exact, larger, largest = (train(networks(kind), DIGITS, epochs=2, lr=0.05, batch_size=size) for size in (60, 61, 2**53))
    is_defined(exact.history)
    same_bits(exact, larger)
    same_bits(exact, largest)


@LOSSES
@pytest.mark.parametrize("kind", KINDS)
def test_a_class_that_the_data_lack_is_no_hindrance(kind, loss):
    here = DIGITS.y_train != 3
    lacking = replace(DIGITS, x_train=DIGITS.x_train[here], y_train=DIGITS.y_train[here])
    run = train(networks(kind), lacking, epochs=10, lr=0.02, loss=loss)
    is_defined(run.history)
    losses = run.history.pivot_table(index="epoch", columns="init_seed", values="train_loss")
    assert (losses.iloc[-1] < losses.iloc[0]).all()


def test_one_class_in_the_data_is_learned():
    only = replace(DIGITS, y_train=torch.full_like(DIGITS.y_train, 4))
    run = train(networks(), only, epochs=30, lr=0.1)
    is_defined(run.history)
    assert (run.final.train_accuracy == 1).all()


# The same bits


def weights_and_history(kind, seeds=(0, 1, 2)):
    run = train(networks(kind, seeds), DIGITS, epochs=3, lr=0.1, batch_size=16, batch_seed=3)
    return [weight.numpy() for weight in run.network.weights], without_seconds(run.history), torch.get_num_threads()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seeds_give_the_same_bits_in_one_process_in_another_and_in_a_pool(kind):
    here, history, threads = weights_and_history(kind)
    again = [weights_and_history(kind)]
    status, there = outcome(weights_and_history, kind)
    assert status == "returned", there
    again.append(there)
    with ProcessPoolExecutor(2, mp_context=CONTEXT) as pool:
        again += [future.result() for future in [pool.submit(weights_and_history, kind) for _ in range(4)]]
    for weights, other, their_threads in again:
        assert their_threads == threads  # one: see conftest.py
        assert all((a == b).all() for a, b in zip(weights, here, strict=True))
        pd.testing.assert_frame_equal(other, history, check_exact=True)


# Members


@pytest.fixture(params=KINDS)
def neighbours(request):
    """Networks of four members, and the same with another second one: of other values, of NaN, of infinities, dead, in other sizes."""
    network = networks(request.param, seeds=(0, 1, 2, 3))
    other = networks(request.param, seeds=(0, 9, 2, 3))

    def with_second(change):
        return network.with_weights([torch.stack([w[0], change(w[1]), w[2], w[3]]) for w in network.weights])

    changes = {"NaN": lambda w: w * math.nan, "infinite": lambda w: w * math.inf, "dead": lambda w: 0 * w, "large": lambda w: 1e12 * w}
    return network, {"of another seed": other} | {name: with_second(change) for name, change in changes.items()}


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"] if LONG else ["cross_entropy"])
def test_what_a_member_holds_does_not_change_a_bit_of_the_others(neighbours, loss):
    network, others = neighbours
    alone = train(network, DIGITS, epochs=3, lr=0.05, loss=loss, batch_size=16)
    for name, other in others.items():
        run = train(other, DIGITS, epochs=3, lr=0.05, loss=loss, batch_size=16)
        for member in (0, 2, 3):
            for a, b in zip(alone.network.weights, run.network.weights, strict=True):
                assert torch.equal(a[member], b[member]), name
            rows = [without_seconds(each.history.iloc[member::4].reset_index(drop=True)) for each in (alone, run)]
            pd.testing.assert_frame_equal(*rows, check_exact=True, obj=name)
        assert name not in ("NaN", "infinite") or run.history.diverged[1]


def furthest(one, other, pairs):
    """By how much of its norm a layer of a member differs at most, and by how much of itself a loss or a stability."""
    layers, numbers = 0.0, 0.0
    for a, b in zip(one.network.weights, other.network.weights, strict=True):
        layers = max([layers, *(float((a[i] - b[k]).norm() / a[i].norm()) for i, k in pairs)])
    for i, k in pairs:
        rows = [each.history.iloc[m :: each.network.members][["train_loss", "stability"]].to_numpy() for each, m in ((one, i), (other, k))]
        # A dead network has a stability of 0 both times.
        shares = np.divide(rows[0] - rows[1], rows[1], out=np.zeros_like(rows[0]), where=rows[0] != rows[1])
        numbers = max(numbers, float(abs(shares).max()))
    return layers, numbers


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"] if LONG else ["cross_entropy"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_how_many_members_there_are_changes_no_more_than_a_rounding(kind, dtype, loss):
    """As the docstring of `train` says; ten times what it states, for other processors."""
    data, many = few_digits(dtype=dtype), tuple(range(8))
    settings = {"epochs": 2, "lr": 0.05 if kind == "fcn" else 0.02, "loss": loss, "batch_size": 16}
    bound = 5e-6 if dtype == torch.float32 else 5e-15
    for width in (2, 5, 16, 64) if LONG else (5,):
        together = train(networks(kind, many, dtype=dtype, width=width), data, **settings)
        for seeds in ((0,), (7,), (1, 0), (2, 3, 4)):
            fewer = train(networks(kind, seeds, dtype=dtype, width=width), data, **settings)
            layers, numbers = furthest(together, fewer, [(seed, k) for k, seed in enumerate(seeds)])
            assert layers <= bound
            assert numbers <= 20 * bound
