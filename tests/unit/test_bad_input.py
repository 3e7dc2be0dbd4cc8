from dataclasses import replace
from pathlib import Path

import pytest
import torch
from plain import few_digits

from robustnb import (
    fully_connected,
    get_initialization,
    gradient_descent,
    load_data,
    non_lazy,
    perturbation_stability,
    theory,
    train,
    two_classes,
    uniform_in_ball,
)
from robustnb.atlas import get_sweep
from robustnb.initialization import HE, Scales
from robustnb.settings import Setting, grid
from robustnb.stability import attack, error_under_attack, local_lipschitz, probabilistic_robustness, worst_case_loss
from robustnb.sweep import sweep

DIGITS = few_digits(50, 20)
SHAPE = {"inputs": 64, "width": 4, "depth": 2, "outputs": 10}
NAN, INFINITY = float("nan"), float("inf")
X, Y = DIGITS.x_test, DIGITS.y_test


def network(init="he", **changes):
    return fully_connected(init, **(SHAPE | changes))


def training(data=DIGITS, of=None, **changes):
    return train(of or network(), data, **({"epochs": 1, "lr": 0.1} | changes))


def descent(x=X, y=None, **changes):
    targets = torch.zeros(len(X), 10) if y is None else y
    return gradient_descent(network(), x, targets, **({"lr": 0.1, "steps": 1} | changes))


def digits(**parts):
    return replace(DIGITS, **parts)


def theory_of(**changes):
    return theory.stability_at_initialization("he", **(SHAPE | changes))


def spoiled(x, value):
    x = x.clone()
    x[3, 5] = value
    return x


# What is called, the argument's name in the message, and the offending value as the message shows it (or "").
def setting(**changes):
    return Setting(**({"init": "he", "width": 4, "depth": 2, "lr": 0.1, "epochs": 1} | changes))


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
    # small studies
    "a class that is not there": (lambda: two_classes(DIGITS, 0, 10), "positive", "10"),
    "more images than there are": (lambda: two_classes(DIGITS, 0, 1, n=51), "n", "51"),
    "one class twice": (lambda: two_classes(DIGITS, 3, 3), "positive", "3 too"),
    "no images": (lambda: two_classes(DIGITS, 0, 1, n=0), "n", "0"),
    "lr NaN, step by step": (lambda: descent(lr=NAN), "lr", "nan"),
    "steps -1": (lambda: descent(steps=-1), "steps", "-1"),
    "batch size 0, step by step": (lambda: descent(batch_size=0), "batch_size", "0"),
    "inputs of another length": (lambda: descent(x=X[:, :5]), "x", "(20, 5)"),
    "lr beyond the precision, step by step": (lambda: descent(lr=1e300), "lr", "1e+300"),
    "targets with NaN": (lambda: descent(y=spoiled(torch.zeros(len(X), 10), NAN)), "y", "NaN"),
    "classes as targets": (lambda: descent(y=Y), "y", "torch.int64"),
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
    "a standard deviation below 0": (lambda: theory.stability_at_initialization(Scales(-1, 1, 1, 1), **SHAPE), "init", "-1"),
    "alpha 0": (lambda: theory.theorem_1(Scales(1, 1, 1, 0), **SHAPE), "init", "0"),
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
    "sweep on an unknown device": (lambda: sweep([], device="warp"), "device", "'warp'"),
    "sweep of an unknown data set": (lambda: sweep([setting(dataset="cifar")]), "dataset", "'cifar'"),
    "sweep into a folder that is not there": (lambda: sweep([], out=Path("nowhere/x.csv")), "out", "'nowhere/x.csv'"),
    "sweep into a text": (lambda: sweep([], out="x.csv"), "out", "'x.csv'"),
    "sweep on a name": (lambda: sweep([], "digits"), "data", "'digits'"),
    "sweep by a number": (lambda: sweep([], executor=3), "executor", "3"),
    "sweep for -1 minutes": (lambda: sweep([], minutes=-1), "minutes", "-1"),
    "setting of an unknown init": (lambda: setting(init="xavier"), "init", "'xavier'"),
    "setting of an init by value": (lambda: setting(init=HE), "init", "Initialization("),
    "setting of width 0": (lambda: setting(width=0), "width", "0"),
    "setting of width -4": (lambda: setting(width=-4), "width", "-4"),
    "setting of depth 1": (lambda: setting(depth=1), "depth", "1"),
    "setting of epochs -1": (lambda: setting(epochs=-1), "epochs", "-1"),
    "setting of lr NaN": (lambda: setting(lr=NAN), "lr", "nan"),
    "setting of decay -1": (lambda: setting(decay=-1), "decay", "-1"),
    "setting of every 0": (lambda: setting(every=0), "every", "0"),
    "setting of an unknown loss": (lambda: setting(loss="hinge"), "loss", "'hinge'"),
    "setting of an unknown model": (lambda: setting(model="vit"), "model", "'vit'"),
    "setting of a residual network of a depth that it cannot have": (lambda: setting(model="resnet", depth=9), "depth", "not 9"),
    "setting of an unknown normalization": (lambda: setting(normalize="zscore"), "normalize", "'zscore'"),
    "setting without seeds": (lambda: setting(init_seeds=()), "init_seeds", "()"),
    "setting with a seed twice": (lambda: setting(init_seeds=(1, 1)), "init_seeds", "(1, 1)"),
    "setting with one number for seeds": (lambda: setting(init_seeds=3), "init_seeds", "3"),
    "a grid with no widths": (lambda: grid(init="he", width=[], depth=2, lr=0.1, epochs=1), "width", "none"),
    "a grid of something else": (lambda: grid(colour="red"), "grid", "'colour'"),
    "a grid without a depth": (lambda: grid(init="he", width=4, lr=0.1, epochs=1), "grid", "depth"),
    "an unknown sweep": (lambda: get_sweep("cifar"), "name", "'cifar'"),
    "an unknown scale": (lambda: get_sweep("digits", "huge"), "scale", "'huge'"),
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
