from dataclasses import replace

import pytest
import torch
from plain import few_digits

from robustnb import fully_connected, get_initialization, load_data, non_lazy, perturbation_stability, theory, train, uniform_in_ball
from robustnb.stability import attack, error_under_attack, local_lipschitz, probabilistic_robustness, worst_case_loss
from robustnb.sweep import Setting, sweep

DIGITS = few_digits(50, 20)
SHAPE = {"inputs": 64, "width": 4, "depth": 2, "outputs": 10}
NAN, INFINITY = float("nan"), float("inf")


def network(init="he", **changes):
    return fully_connected(init, **(SHAPE | changes))


def training(data=DIGITS, of=None, **changes):
    return train(of or network(), data, **({"epochs": 1, "lr": 0.1} | changes))


def digits(**parts):
    return replace(DIGITS, **parts)


def theory_of(**changes):
    return theory.stability_at_initialization("he", **(SHAPE | changes))


def spoiled(x, value):
    x = x.clone()
    x[3, 5] = value
    return x


X, Y = DIGITS.x_test, DIGITS.y_test

# What is called, the argument's name in the message, and the offending value as the message shows it (or "").
CASES = {
    # networks
    "width 0": (lambda: network(width=0), "width", "0"),
    "width -3": (lambda: network(width=-3), "width", "-3"),
    "width 2.5": (lambda: network(width=2.5), "width", "2.5"),
    "width True": (lambda: network(width=True), "width", "True"),
    "width a word": (lambda: network(width="wide"), "width", "'wide'"),
    "depth 1": (lambda: network(depth=1), "depth", "1"),
    "depth True": (lambda: network(depth=True), "depth", "True"),
    "inputs 0": (lambda: network(inputs=0), "inputs", "0"),
    "outputs None": (lambda: network(outputs=None), "outputs", "None"),
    "no seeds": (lambda: network(seeds=()), "seeds", ""),
    "seed -1": (lambda: network(seeds=(0, -1)), "seeds", "-1"),
    "seed True": (lambda: network(seeds=(True,)), "seeds", "True"),
    "seed 1.5": (lambda: network(seeds=(1.5,)), "seeds", "1.5"),
    "seeds a number": (lambda: network(seeds=3), "seeds", "3"),
    "an unknown device": (lambda: network(device="warp"), "device", "'warp'"),
    "a device that is not there": (lambda: network(device="cuda:99"), "device", "'cuda:99'"),
    # initializations
    "an unknown init": (lambda: network("xavier"), "init", "'xavier'"),
    "init in capitals": (lambda: get_initialization("He"), "init", "'He'"),
    "init m^2": (lambda: get_initialization("m^2"), "init", "'m^2'"),
    "init m^-0": (lambda: get_initialization("m^-0"), "init", "'m^-0'"),
    "init 7": (lambda: get_initialization(7), "init", "7"),
    "exponent 0": (lambda: non_lazy(0), "c", "0"),
    "exponent -1": (lambda: non_lazy(-1), "c", "-1"),
    "exponent NaN": (lambda: non_lazy(NAN), "c", "nan"),
    "gamma of width 0": (lambda: get_initialization("he").gamma([4, 0]), "width", "[4, 0]"),
    # formulas
    "theory width 0": (lambda: theory_of(width=0), "width", "0"),
    "theory width 1.5": (lambda: theory_of(width=[4, 1.5]), "width", "[4, 1.5]"),
    "theory width True": (lambda: theory_of(width=True), "width", "True"),
    "theory width a word": (lambda: theory_of(width="wide"), "width", "'wide'"),
    "theory width infinite": (lambda: theory_of(width=INFINITY), "width", "inf"),
    "theory depth 1": (lambda: theory_of(depth=[2, 1]), "depth", "[2, 1]"),
    "theory inputs 0": (lambda: theory_of(inputs=0), "inputs", "0"),
    "theory outputs NaN": (lambda: theory_of(outputs=NAN), "outputs", "nan"),
    "theory init": (lambda: theory.stability_at_initialization("xavier", **SHAPE), "init", "'xavier'"),
    "chi of 0": (lambda: theory.log_mean_chi(0), "k", "0"),
    "ball of dimension 0": (lambda: theory.mean_ball_radius(0), "dimension", "0"),
    "projection in dimension -1": (lambda: theory.mean_absolute_projection(-1), "dimension", "-1"),
    "gain of width 0": (lambda: theory.log_relu_gain(0), "width", "0"),
    # measurements
    "radius -1": (lambda: uniform_in_ball((3, 2), radius=-1, seed=0), "radius", "-1"),
    "radius 0": (lambda: uniform_in_ball((3, 2), radius=0, seed=0), "radius", "0"),
    "radius NaN": (lambda: uniform_in_ball((3, 2), radius=NAN, seed=0), "radius", "nan"),
    "radius True": (lambda: uniform_in_ball((3, 2), radius=True, seed=0), "radius", "True"),
    "radius a word": (lambda: uniform_in_ball((3, 2), radius="0.1", seed=0), "radius", "'0.1'"),
    "attack radius -1": (lambda: attack(network(), X, Y, radius=-1), "radius", "-1"),
    "attack radius NaN": (lambda: worst_case_loss(network(), X, Y, radius=NAN), "radius", "nan"),
    "attack radius infinite": (lambda: error_under_attack(network(), X, Y, radius=INFINITY), "radius", "inf"),
    "attack steps 0": (lambda: attack(network(), X, Y, radius=1, steps=0), "steps", "0"),
    "robustness radius -1": (lambda: probabilistic_robustness(network(), X, radius=-1), "radius", "-1"),
    "robustness samples 0": (lambda: probabilistic_robustness(network(), X, radius=1, samples=0), "samples", "0"),
    "stability of NaN": (lambda: perturbation_stability(network(), spoiled(X, NAN)), "x", ""),
    "stability of infinity": (lambda: perturbation_stability(torch.nn.Linear(64, 2), spoiled(X, INFINITY)), "x", ""),
    "stability at one input": (lambda: perturbation_stability(network(), X[:1]), "x", "1"),
    "stability, wrong inputs": (lambda: perturbation_stability(network(), X[:, :63]), "x", "(20, 63)"),
    "stability, one vector": (lambda: perturbation_stability(network(), X[0]), "x", "(64,)"),
    "Lipschitz, wrong inputs": (lambda: local_lipschitz(network(), X[:, :63]), "x", "(20, 63)"),
    "attack, wrong inputs": (lambda: attack(network(), X[:, :63], Y, radius=1), "x", "(20, 63)"),
    "robustness, wrong inputs": (lambda: probabilistic_robustness(network(), X[:, :63], radius=1), "x", "(20, 63)"),
    "Lipschitz at NaN": (lambda: local_lipschitz(network(), spoiled(X, NAN)), "x", ""),
    "attack at NaN": (lambda: error_under_attack(network(), spoiled(X, NAN), Y, radius=1), "x", ""),
    "robustness at NaN": (lambda: probabilistic_robustness(network(), spoiled(X, NAN), radius=1), "x", ""),
    # training
    "epochs -1": (lambda: training(epochs=-1), "epochs", "-1"),
    "epochs 1.5": (lambda: training(epochs=1.5), "epochs", "1.5"),
    "epochs True": (lambda: training(epochs=True), "epochs", "True"),
    "lr NaN": (lambda: training(lr=NAN), "lr", "nan"),
    "lr negative": (lambda: training(lr=-0.1), "lr", "-0.1"),
    "lr infinite": (lambda: training(lr=INFINITY), "lr", "inf"),
    "lr True": (lambda: training(lr=True), "lr", "True"),
    "lr a word": (lambda: training(lr="fast"), "lr", "'fast'"),
    "lr a function to NaN": (lambda: training(lr=lambda epoch: NAN), "lr", "nan"),
    "lr a function to -1": (lambda: training(lr=lambda epoch: -1.0), "lr", "-1.0"),
    "batch_size 0": (lambda: training(batch_size=0), "batch_size", "0"),
    "batch_size True": (lambda: training(batch_size=True), "batch_size", "True"),
    "batch_seed -1": (lambda: training(batch_seed=-1), "batch_seed", "-1"),
    "an unknown loss": (lambda: training(loss="hinge"), "loss", "'hinge'"),
    "NaN in training data": (lambda: training(digits(x_train=spoiled(DIGITS.x_train, NAN))), "data.x_train", ""),
    "infinity in test data": (lambda: training(digits(x_test=spoiled(X, INFINITY))), "data.x_test", ""),
    "no training data": (lambda: training(digits(x_train=DIGITS.x_train[:0], y_train=DIGITS.y_train[:0])), "data.x_train", ""),
    "one test input": (lambda: training(digits(x_test=X[:1], y_test=Y[:1])), "data.x_test", "1"),
    "fewer labels than inputs": (lambda: training(digits(y_train=DIGITS.y_train[:49])), "data.y_train", "49"),
    "a label out of range": (lambda: training(digits(y_train=DIGITS.y_train + 1)), "data.y_train", "10"),
    "data in another precision": (lambda: training(of=network(dtype=torch.float64)), "data.x_train", "float32"),
    "data of other inputs": (lambda: training(digits(x_train=DIGITS.x_train[:, :63])), "data", "63"),
    "data of other classes": (lambda: training(of=network(outputs=3)), "data", "10"),
    # data and sweeps
    "an unknown data set": (lambda: load_data("cifar"), "name", "'cifar'"),
    "an unknown normalization": (lambda: load_data("digits", normalize="zscore"), "normalize", "'zscore'"),
    "sweep on an unknown device": (lambda: sweep([], seeds=(0,), device="warp"), "device", "'warp'"),
    "sweep of an unknown init": (lambda: sweep([Setting("xavier", 4, 2, 0.1, 1)], seeds=(0,), device="cpu"), "init", "'xavier'"),
}


@pytest.mark.parametrize(("call", "argument", "value"), CASES.values(), ids=CASES)
def test_a_bad_argument_is_refused_in_one_sentence_that_names_it(call, argument, value):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    message = str(caught.value)
    assert message.startswith(f"{argument} ")
    assert value in message.removeprefix(argument)
    assert message.endswith(".")
    assert ". " not in message
    assert "\n" not in message


def test_training_refuses_before_any_work():
    seen = []
    with pytest.raises(ValueError, match="data"):
        training(digits(x_test=spoiled(X, NAN)), on_epoch=seen.append)
    assert seen == []
