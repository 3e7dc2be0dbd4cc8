"""Whatever a public function is given: a result, or one sentence that names the argument."""

import importlib
import inspect
import math
import os
import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from plain import few_digits

import robustnb
from robustnb import decisions, figures, kernels, stability, theory, trends, verdicts
from robustnb.atlas import get_sweep, load_atlas, load_card, to_fit
from robustnb.decisions import Condition
from robustnb.networks import resolve_device
from robustnb.settings import Setting, grid
from robustnb.sweep import sweep
from robustnb.widgets import Laboratory, slides

DIGITS = few_digits(30, 10)
SHAPE = {"inputs": 64, "width": 4, "depth": 3, "outputs": 10}
NETWORK = robustnb.fully_connected("he", **SHAPE, seeds=(0, 1), device="cpu")
X, Y = DIGITS.x_test, DIGITS.y_test
FORMULA = {"init": "he"} | SHAPE
ATTACK = {"network": NETWORK, "x": X, "y": Y, "radius": 0.5, "steps": 2}
KERNEL = {"x": X.numpy(), "z": X[:3].numpy(), "init": "he", "width": 8, "depth": 3}
RESPONSE = {"x": X[:3].numpy(), "x_train": X.numpy(), "init": "he", "width": 8, "depth": 3, "lr": 0.01, "steps": 5}
SETTING = {"init": "he", "width": 4, "depth": 2, "lr": 0.1, "epochs": 1}
SETTING |= {"decay": 0.5, "every": 1, "dataset": "digits", "normalize": "unit", "model": "fcn", "loss": "squared"}
SETTING |= {"batch_size": 700, "batch_seed": 0, "init_seeds": (0,)}
TABLE = load_atlas("digits_rates").query("init == 'he'")
ALONG = load_atlas("digits_depths").query("init == 'he' and depth == 2 and width < 64")
CURVE = trends.curve(TABLE, "lr")
AXES = Figure().subplots()
PAGE = "experiments_width"
CONDITION = Condition("Fig. 0", PAGE, "a claim", "digits", "L = 2", "a number", ((np.array([0.1, 0.2, 0.4]),),), (0.0, 1.0))
CLAIMS = decisions.decide([CONDITION])


def twice(f):
    """Of a generator, the first two."""
    return lambda **given: [pair[0] for pair in zip(f(**given), range(2), strict=False)]


# Every public function with arguments that are right.
CALLS = {
    robustnb.fully_connected: FORMULA | {"seeds": (0, 1), "device": "cpu", "dtype": torch.float64},
    robustnb.convolutional: {"init": "he", "model": "cnn", "channels": 1, "side": 8, "width": 2, "depth": 8, "outputs": 10}
    | {"seeds": (0,), "device": "cpu"},
    robustnb.get_initialization: {"init": "m^-2"},
    robustnb.non_lazy: {"c": 1.5},
    robustnb.is_untrained: {"loss": 1.0, "zero_loss": 2.0},
    robustnb.load_data: {"name": "digits", "normalize": "unit"},
    robustnb.two_classes: {"data": DIGITS, "negative": 0, "positive": 1, "n": 3},
    robustnb.paper_lr: {"epoch": 3},
    robustnb.stepped_lr: {"first": 0.1, "decay": 0.5},
    robustnb.uniform_in_ball: {"shape": (3, 2), "radius": 1.0, "seed": 0},
    robustnb.perturbation_stability: {"network": NETWORK, "x": X, "seed": 0},
    robustnb.stability_by_gram: {"network": NETWORK, "x": X[:3]},
    robustnb.lazy_ratio: {"network": NETWORK, "initial": NETWORK},
    robustnb.train: {"network": NETWORK, "data": DIGITS, "epochs": 1, "lr": 0.1, "loss": "squared", "batch_size": 16}
    | {"batch_seed": 0, "every": 1, "progress": False, "on_epoch": None, "stop": None},
    robustnb.gradient_descent: {"network": NETWORK, "x": X, "y": torch.zeros(len(X), 10), "lr": 0.1, "steps": 1}
    | {"batch_size": 5, "batch_seed": 0},
    stability.local_lipschitz: {"network": NETWORK, "x": X[:3]},
    stability.lipschitz_bound: {"network": NETWORK},
    stability.attack: ATTACK,
    stability.worst_case_loss: ATTACK,
    stability.error_under_attack: ATTACK,
    stability.probabilistic_robustness: {"network": NETWORK, "x": X, "radius": 0.5, "samples": 2, "seed": 0},
    theory.log_mean_chi: {"k": 3},
    theory.mean_ball_radius: {"dimension": 3},
    theory.mean_absolute_projection: {"dimension": 3},
    theory.mean_image_length: {"eigenvalues": [1.0, 2.0], "dimension": 3},
    theory.mean_root: {"variances": [1.0, 2.0], "squares": [0.0, 3.0]},
    theory.convolution_second_moment: {"q": np.ones((4, 4)), "beta": 0.5, "channels": 2, "stride": 2},
    theory.log_relu_gain: {"width": [4, 8]},
    theory.log_stability_at_initialization: FORMULA,
    theory.stability_at_initialization: FORMULA,
    theory.wide_stability_at_initialization: FORMULA,
    theory.log_variance_at_initialization: {name: SHAPE[name] for name in SHAPE if name != "inputs"},
    theory.move_cdf_at_initialization: FORMULA | {"values": [0.1, 1.0]},
    theory.stability_cdf_at_initialization: {name: FORMULA[name] for name in FORMULA if name != "outputs"} | {"values": [0.1, 1.0]},
    theory.gamma_regime: {"gamma": [0.5, 1.0]},
    theory.theorem_1: FORMULA,
    theory.peak_width: {"depth": 4},
    theory.plateau_width: {"depth": 4, "outputs": 10},
    theory.table_2: {"width": 8, "depth": 4},
    theory.parameter_count: SHAPE,
    theory.law_of_robustness: {"samples": 100, "inputs": 64, "parameters": 1000},
    theory.jensen_bound: FORMULA,
    theory.theorem_2: FORMULA,
    theory.critical_exponent: {"width": 64, "depth": 3, "power": 1.5},
    theory.least_movement: {"norms": [1.0, 2.0], "reach": 3.0, "imbalance": 0.0},
    theory.growth_rate: {"x": X.numpy(), "residual": np.ones(len(X)), "alpha": 1.0},
    theory.neuron_mass: {"first": np.ones((64, 4)), "last": np.ones(4)},
    theory.mean_neuron_mass: {"init": "he", "inputs": 64, "width": 8},
    theory.early_stability_bound: {"mass": 1.0, "growth": 0.1, "inputs": 64, "alpha": 1.0},
    theory.two_layer_gram: {"x": X.numpy(), "first": np.ones((64, 4)), "last": np.ones(4), "alpha": 1.0},
    theory.mean_two_layer_gram: {"x": X.numpy(), "init": "he", "width": 8},
    theory.gram_drift_bound: {"samples": 5, "width": 8, "beta": 0.1, "weight_movement": 0.1, "output_movement": 0.1, "alpha": 1.0},
    kernels.output_kernel: KERNEL,
    kernels.tangent_kernel: KERNEL,
    kernels.gradient_response: RESPONSE,
    kernels.stability_after_training: RESPONSE | {"y": Y.numpy()},
    kernels.mean_gaussian_length: {"mean": [1.0, 2.0], "covariance": [[2.0, 1.0], [1.0, 3.0]]},
    resolve_device: {"device": "cpu"},
    Setting: SETTING,
    grid: SETTING | {"width": [4, 8]},
    get_sweep: {"name": "digits", "scale": "quick"},
    load_atlas: {"name": "digits_rates"},
    load_card: {"name": "digits"},
    to_fit: {"dataset": "digits", "init": "he"},
    sweep: {"settings": (Setting(**SETTING),), "device": "cpu", "minutes": 1.0, "progress": False},
    trends.curve: {"table": TABLE, "x": "lr", "value": "lazy_ratio"},
    trends.at_loss: {"table": ALONG, "loss": 0.5},
    trends.steps: {"of": CURVE},
    trends.gaps: {"of": CURVE, "other": CURVE},
    trends.width_steps: {"table": ALONG, "losses": [1.0, 0.5]},
    trends.slopes: {"of": CURVE, "log": True},
    trends.peaks: {"of": CURVE},
    trends.ends_at_top: {"of": CURVE},
    trends.peak_place: {"of": CURVE},
    trends.peak_exponent: {"curves": {2: CURVE, 4: CURVE, 8: CURVE}},
    decisions.rise_and_fall: {"of": CURVE, "x": "width"},
    decisions.decide: {"conditions": [CONDITION]},
    decisions.holm: {"p": [0.01, 0.2]},
    verdicts.summary: {"table": CLAIMS},
    verdicts.tally: {"claims": verdicts.summary(CLAIMS)},
    verdicts.numbers: {"page": PAGE},
    verdicts.report: {"page": PAGE},
    verdicts.bullets: {"claims": verdicts.summary(CLAIMS)},
    trends.at_end: {"table": TABLE},
    figures.over_seeds: {"table": TABLE, "by": "lr", "value": "stability"},
    figures.against: {"axes": AXES, "table": TABLE.query("lr == 0.05"), "x": "width", "value": "stability"},
    figures.width_axis: {"axes": AXES, "widths": [4, 8]},
    figures.exact_at_initialization: {"axes": AXES, "widths": [4, 8]} | {name: FORMULA[name] for name in FORMULA if name != "width"},
    figures.init_style: {"init": "he"},
    slides: {"description": "a slider", "options": [("one", 1)], "draw": lambda value: (Figure(), "a figure")},
    Laboratory: {"question": "?", "x": "width", "y": "stability", "init": "he", "width": 16, "depth": 2}
    | {"predict": False, "atlas": "digits", "device": "cpu"},
}
# What other modules of the package call, with arguments that were checked at the door.
INTERNAL = {"draw", "empty", "check_network", "check_inputs", "check_classes", "is_finite", "cross_entropy", "jacobian", "plan_of"}
INTERNAL |= {"members_that_fit", "write_aside", "device_name", "make_card", "main", "compact_svg"}
REFUSALS = (ValueError, TypeError, OSError, MemoryError, FloatingPointError)
HUGE = 10**12
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.sampled_from([HUGE, -HUGE, 10**400, math.nan, math.inf, -math.inf, 1e-320, 1e300, 0.5, -0.5, 1j]),
    st.sampled_from(["", "he", "cpu", "digits", "m^-0", "m^-1e9", "no such thing", "3", b"3"]),
    st.sampled_from([[], (), {}, set(), [1, None], [[1], [1, 2]], ["a"], (0, -1), (1.5,), [math.nan], range(3), object(), len]),
    st.sampled_from([(0,), (2, 3), (10, 64), (10, 63), (3, 3, 3), ()]).flatmap(
        lambda shape: st.sampled_from(
            [
                np.zeros(shape),
                np.full(shape, np.nan),
                np.full(shape, "a"),
                torch.ones(shape),
                torch.full(shape, math.inf),
                torch.ones(shape, dtype=torch.int64),
                torch.ones(shape, dtype=torch.float64),
                torch.ones(shape, dtype=torch.complex64),
            ]
        )
    ),
    st.sampled_from([NETWORK, torch.nn.Linear(64, 2), torch.nn.Linear(3, 1), DIGITS, pd.DataFrame(), torch.float16, torch.int64]),
)
EXAMPLES = int(os.environ.get("ROBUSTNB_EXAMPLES", "25"))


def fair(name, value):
    """Long work that was asked for is no fault, and neither is what a caller's own function raises."""
    if name in ("epochs", "steps", "samples"):
        return not isinstance(value, int) or value < HUGE
    return name not in ("lr", "on_epoch", "draw") or not callable(value)


def names(function):
    return [*inspect.signature(function).parameters] if function is not grid else [*SETTING]


def test_every_public_function_is_called_here():
    modules = ("initialization", "networks", "convnets", "data", "stability", "theory", "kernels", "training", "settings", "atlas", "sweep")
    modules += ("trends", "decisions", "verdicts", "figures", "widgets.slides")
    for name in modules:
        module = importlib.import_module(f"robustnb.{name}")
        public = {n: f for n, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__ and n[0] != "_"}
        assert {n for n, f in public.items() if inspect.signature(f).parameters and f not in CALLS} <= INTERNAL


@pytest.mark.long
@pytest.mark.parametrize("function", CALLS, ids=lambda function: function.__name__)
def test_a_result_or_one_sentence_that_names_the_argument(function, record_property):
    record_property("cases", EXAMPLES)
    call = twice(function) if inspect.isgeneratorfunction(function) or function is robustnb.gradient_descent else function
    call(**CALLS[function])  # as it is meant

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck])
    @given(st.data())
    def check(data):
        given_ = dict(CALLS[function])
        for name in data.draw(st.lists(st.sampled_from([*given_]), min_size=1, max_size=2, unique=True)):
            given_[name] = data.draw(JUNK.filter(partial(fair, name)))
        try:
            result = call(**given_)
            if isinstance(result, Laboratory):
                result.close()
        except REFUSALS as error:
            message = str(error)
            named = re.match(r"(data\.)?(\w+) ", message)
            assert named, message
            assert named[2] in {*names(function), function.__name__, "x_train", "x_test", "y_train", "y_test"}, message
            assert re.fullmatch(r"[^\n]*\.", message), message
            assert ". " not in message, message

    check()
