"""The atlas: the named sweeps behind the book's figures, and the tables that they gave.

`book/atlas/` holds a CSV for each, with a JSON card that says how it was made. `scale="full"` is what the atlas holds;
`scale="quick"` is a small version of the same question on the bundled digits, for a notebook. To measure one, or go on with one::

    python -m robustnb.sweep mnist --scale full --out book/atlas/mnist.csv --workers 2 --minutes 8
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ._checks import check_choice
from .settings import Setting, grid

SCALES = ("quick", "full")
LAZY = ("he", "lecun", "ntk")
NON_LAZY = ("m^-1", "m^-1.5", "m^-2", "m^-2.5")
DEPTHS = (2, 3, 4, 5, 6, 8, 10)

# The paper's schedule (§5.1, restored) and number of epochs.
PAPER = {"lr": 0.001, "decay": 0.8, "epochs": 50}
# Trained to fit: for each initialization the least of RATES at which networks of width 64 (depth 4; 2 for the non-lazy ones) classify
# FITTED of the training images correctly after so many epochs, on average over 4 seeds. The tables "…_rates" show it.
RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
FITTED = 0.985
FIT_EPOCHS = {"digits": 50, "mnist": 15}
FIT_LR = {
    "digits": {"he": 0.05, "lecun": 0.05, "ntk": 0.02, "m^-1": 0.2, "m^-1.5": 0.5, "m^-2": 0.5, "m^-2.5": 0.5},
    "mnist": {"he": 0.05, "lecun": 0.05, "ntk": 0.05, "m^-1": 0.1, "m^-1.5": 0.2, "m^-2": 0.2, "m^-2.5": 0.2},
}
# Convolutional networks are trained for CONV_EPOCHS, at the least of a few rates whose training accuracy comes within NEAR_BEST of the
# best of them: CONV_LR, chosen for each data set, model and initialization at one shape. CONV_TRIAL: its width and depth, and the rates.
RESNET_RATES = (0.05, 0.1, 0.2, 0.5, 1.0)
NEAR_BEST = 0.01
CONV_TRIAL: dict[str, dict[str, tuple[int, int, tuple[float, ...]]]] = {
    # Without normalization or shortcuts it is the deepest that is the most easily thrown off.
    "digits": {"cnn": (16, 10, (0.02, 0.05, 0.1, 0.2)), "resnet": (8, 8, RESNET_RATES), "scaled_resnet": (8, 8, RESNET_RATES)},
    "cifar10_sample": {"resnet": (4, 8, RESNET_RATES)},
}
CONV_EPOCHS = {"digits": {"cnn": 100, "resnet": 20, "scaled_resnet": 20}, "cifar10_sample": {"resnet": 10}}
CONV_LR: dict[str, dict[str, dict[str, float]]] = {
    "digits": {
        "cnn": {"he": 0.05},
        "resnet": {"he": 0.05, "m^-1": 0.05, "m^-2": 0.05},
        "scaled_resnet": {"he": 0.2},
    },
    "cifar10_sample": {"resnet": {"he": 1.0, "m^-2": 1.0}},
}


@dataclass(frozen=True)
class Sweep:
    """A named sweep: the paper's item that it stands behind, what it measures, what was cut and why, and its settings."""

    item: str
    about: str
    cut: str
    settings: tuple[Setting, ...]


def to_fit(dataset: str, init: str) -> dict[str, float | int]:
    """How networks of this initialization are trained to fit: lr and epochs, as `Setting` takes them."""
    check_choice("dataset", dataset, tuple(FIT_LR))
    check_choice("init", init, tuple(FIT_LR[dataset]))
    return {"lr": FIT_LR[dataset][init], "epochs": FIT_EPOCHS[dataset]}


def get_sweep(name: str, scale: str = "full") -> Sweep:
    """The sweep of that name. Raises ValueError for an unknown name or scale (see SWEEPS, SCALES)."""
    check_choice("name", name, tuple(SWEEPS))
    return SWEEPS[name](check_choice("scale", scale, SCALES) == "quick")


def _widths(low: int, high: int) -> list[int]:
    """Powers of two, their exponents from low to high."""
    return [2**k for k in range(low, high + 1)]


def _digits_settings(quick: bool, *, paper: bool, loss: str = "cross_entropy") -> tuple[Setting, ...]:
    shapes = [(init, depth) for init in LAZY for depth in DEPTHS]
    shapes += [(init, 2) for init in NON_LAZY] + [("m^-1", 3), ("m^-1", 4)]
    settings: list[Setting] = []
    for width in _widths(2, 9):
        for init, depth in shapes:
            how: dict[str, Any] = {"init": init, "depth": depth, "loss": loss} | (PAPER if paper else to_fit("digits", init))
            if width <= 2**7:
                settings += grid(width=width, batch_seed=[0, 1], init_seeds=tuple(range(8)), **how)
            elif loss == "cross_entropy":
                settings += grid(width=width, init_seeds=tuple(range(8 if width == 2**8 else 2)), **how)
    if loss == "cross_entropy":
        # Whether P/ε rises and then falls is asked of He alone, at every depth: a question that needs more seeds.
        how = PAPER if paper else to_fit("digits", "he")
        settings += grid(init="he", width=_widths(2, 8), depth=[*DEPTHS], init_seeds=tuple(range(8, 24)), **how)
        for init, depth in shapes:
            if depth == 2:
                how = PAPER if paper else to_fit("digits", init)
                settings += grid(init=init, width=_widths(10, 11), depth=2, init_seeds=(0, 1), **how)
    if quick:
        wanted = {("he", 2), ("he", 6), ("lecun", 2), ("lecun", 6), ("m^-1", 2)}
        few = [s for s in settings if (s.init, s.depth) in wanted and s.width <= 64 and s.batch_seed == s.init_seeds[0] == 0]
        return tuple(Setting(**(vars(s) | {"init_seeds": (0, 1, 2)})) for s in few)
    return tuple(settings)


def _digits(quick: bool) -> Sweep:
    about = "Digits, trained to fit: 50 epochs of SGD at a constant rate, one for each initialization (FIT_LR)."
    return Sweep("Figs. 4, 5, 9, 10", about, _CUT_DIGITS, _digits_settings(quick, paper=False))


def _digits_paper(quick: bool) -> Sweep:
    about = "Digits, with the paper's schedule: 50 epochs of SGD at 0.001, ×0.8 every ten epochs after the first ten."
    return Sweep("Figs. 4, 5, 9, 10", about, _CUT_DIGITS, _digits_settings(quick, paper=True))


def _digits_squared(quick: bool) -> Sweep:
    about = "Digits, trained to fit with the squared loss of the theory; rates and epochs are those for cross-entropy."
    cut = "Widths above 128: where the tables with cross-entropy, beside which this one stands, begin to have fewer seeds."
    return Sweep("beside Figs. 4, 5", about, cut, _digits_settings(quick, paper=False, loss="squared"))


_CUT_DIGITS = "Above width 128 one batch order, above 256 two seeds, above 512 two layers only: their cost grows as m²L."


def _mnist_settings(inits: Sequence[str], *, paper: bool) -> tuple[Setting, ...]:
    settings: list[Setting] = []
    for width in _widths(2, 8):
        for init in inits:
            how = PAPER if paper else to_fit("mnist", init)
            seeds = tuple(range(5 if width <= 2**7 else 3))
            settings += grid(dataset="mnist", init=init, width=width, depth=[*DEPTHS], init_seeds=seeds, **how)
    return tuple(settings)


def _quick_depths(inits: Sequence[str]) -> tuple[Setting, ...]:
    """A version of a sweep over width and depth that a notebook can measure in seconds: digits, trained to fit."""
    how = [to_fit("digits", init) for init in inits]
    return tuple(
        setting
        for init, rate in zip(inits, how, strict=True)
        for setting in grid(init=init, width=_widths(3, 6), depth=[2, 4, 8], init_seeds=(0, 1, 2), **(rate | {"epochs": 15}))
    )


def _mnist(quick: bool) -> Sweep:
    settings = _quick_depths(("he", "lecun")) if quick else _mnist_settings(("he", "lecun"), paper=False)
    about = "MNIST, trained to fit: 15 epochs of SGD at a constant rate, one for each initialization (FIT_LR)."
    return Sweep("Figs. 4a, 5", about, _CUT_MNIST, settings)


def _mnist_paper(quick: bool) -> Sweep:
    settings = _quick_depths(("he", "lecun")) if quick else _mnist_settings(("he", "lecun"), paper=True)
    about = "MNIST, with the paper's schedule: 50 epochs of SGD at 0.001, ×0.8 every ten epochs after the first ten."
    return Sweep("Figs. 4a, 5", about, _CUT_MNIST, settings)


def _mnist_ntk(quick: bool) -> Sweep:
    settings = _quick_depths(("ntk",)) if quick else _mnist_settings(("ntk",), paper=False) + _mnist_settings(("ntk",), paper=True)
    return Sweep("Fig. 10", "MNIST under NTK, trained to fit and with the paper's schedule.", _CUT_MNIST, settings)


def _mnist_he_512(quick: bool) -> Sweep:
    """The part of mnist_wide that a CPU can measure in an afternoon."""
    if quick:
        return Sweep("Fig. 4a", "As mnist.", "", _quick_depths(("he",)))
    shape: dict[str, Any] = {"dataset": "mnist", "init": "he", "width": 512, "depth": [*DEPTHS], "init_seeds": (0, 1, 2)}
    settings = grid(**shape, **to_fit("mnist", "he")) + grid(**shape, **PAPER)
    about = "MNIST under He at width 512, trained to fit and with the paper's schedule."
    return Sweep(
        "Fig. 4a", about, "LeCun, and widths above 512: see mnist_wide, which takes days on a CPU. Three seeds, for their cost.", settings
    )


def _mnist_wide(quick: bool) -> Sweep:
    if quick:
        return Sweep("Figs. 4a, 5", "As mnist.", "", _quick_depths(("he",)))
    settings: list[Setting] = []
    for width in _widths(9, 14):
        for init in ("he", "lecun"):
            for how in (to_fit("mnist", init), PAPER):
                depths = [*DEPTHS] if width <= 2**12 else [2]
                settings += grid(dataset="mnist", init=init, width=width, depth=depths, init_seeds=(0, 1, 2), **how)
    about = "MNIST at widths from 512 on, trained to fit and with the paper's schedule."
    return Sweep("Figs. 4a, 5", about, "Above width 4096 two layers only: with more, a step costs as m²L.", tuple(settings))


_CUT_MNIST = "Widths above 256, which take hours on a CPU (see mnist_he_512, mnist_wide); at 256 three seeds, below it five."


def _mnist_two_layers(quick: bool) -> Sweep:
    settings: list[Setting] = []
    if quick:
        for init in ("he", "m^-1", "m^-2"):
            how = to_fit("digits", init) | {"epochs": 20, "every": 2}
            settings += grid(init=init, width=_widths(3, 8), depth=2, init_seeds=(0, 1, 2), **how)
    else:
        for width in _widths(3, 10):
            for init in ("he", *NON_LAZY):
                for how in (PAPER | {"every": 2}, to_fit("mnist", init) | {"every": 1}):
                    settings += grid(dataset="mnist", init=init, width=width, depth=2, init_seeds=(0, 1, 2), **how)
    about = "Two layers on MNIST, lazy and non-lazy: trained to fit, measured every epoch; the paper's schedule, every second."
    cut = "Widths above 1024, which take hours each on a CPU (a step costs as m); three seeds, for the same reason."
    return Sweep("Figs. 2, 3, 4b, 9", about, cut, tuple(settings))


def _digits_two_layers(quick: bool) -> Sweep:
    settings: list[Setting] = []
    for init in ("he", *NON_LAZY):
        how = to_fit("digits", init) | {"every": 5}
        settings += grid(init=init, width=_widths(3, 7 if quick else 10), depth=2, init_seeds=tuple(range(3 if quick else 8)), **how)
    about = "Two layers on the digits, lazy and non-lazy, trained to fit; measured every five epochs."
    cut = "Widths above 1024: that of MNIST, beside which this table stands, ends there for its cost."
    return Sweep("Figs. 2, 3, 4b, 9", about, cut, tuple(settings))


def _digits_depths(quick: bool) -> Sweep:
    settings: list[Setting] = []
    for init in ("he", "lecun"):
        how = to_fit("digits", init) | {"every": 5 if quick else 2}
        widths, depths = (_widths(4, 6), [2, 4, 8]) if quick else (_widths(2, 7), [2, 4, 6, 10])
        settings += grid(init=init, width=widths, depth=depths, init_seeds=tuple(range(3 if quick else 16)), **how)
    about = "Digits under He and LeCun, trained to fit; measured every second epoch, so that losses can be matched."
    return Sweep("beyond Figs. 4a, 5", about, "Widths above 128, where nothing new is seen.", tuple(settings))


def _mnist_long(quick: bool) -> Sweep:
    how: dict[str, Any] = {"dataset": "mnist", "every": 5} | PAPER | {"epochs": 200}
    if quick:
        how = {"lr": 0.02, "epochs": 60, "every": 4}
    how |= {"init": "he", "init_seeds": (0, 1, 2) if quick else tuple(range(8))}
    settings = grid(width=32, depth=4, **how) + grid(width=64, depth=8, **how)
    about = "Two shapes under He on MNIST for 200 epochs of the paper's schedule; measured every five epochs."
    return Sweep("Fig. 6", about, "", settings)


def _rates(dataset: str, quick: bool) -> Sweep:
    settings: list[Setting] = []
    for init in (*LAZY, *NON_LAZY):
        shape = {"dataset": "digits" if quick else dataset, "init": init, "width": 64, "depth": 4 if init in LAZY else 2}
        rates, epochs = ([0.02, 0.2], 5) if quick else ([*RATES], FIT_EPOCHS[dataset])
        settings += grid(**shape, lr=rates, epochs=epochs, init_seeds=(0,) if quick else (0, 1, 2, 3))
    about = f"The choice of the learning rate at which each initialization is trained to fit {dataset}: see FIT_LR."
    return Sweep("trained to fit", about, "", tuple(settings))


def _digits_peak(quick: bool) -> Sweep:
    """One thing changed at a time."""
    base = {"init": "he", "width": _widths(2, 6) if quick else _widths(2, 8), "init_seeds": (0, 1, 2) if quick else tuple(range(8))}
    changes: tuple[dict[str, Any], ...] = (
        {"lr": [0.005, 0.02, 0.05], "epochs": 50},
        {"lr": 0.05, "epochs": [5, 15, 150]},
        {"lr": 0.05, "epochs": 50, "normalize": "unit"},
    )
    if quick:
        changes = ({"lr": [0.02, 0.05], "epochs": 15},)
    depths = [2, 6] if quick else [2, 4, 6, 8]
    settings = tuple(setting for change in changes for setting in grid(**base, depth=depths, **change))
    about = "Digits under He: the place of the peak in width when learning rate, epochs or the scale of the inputs change."
    cut = "Widths above 256, since their cost grows as m²L and the peaks that can be placed lie far below; He alone, of which Fig. 4a is."
    return Sweep("beyond Fig. 4a", about, cut, settings)


def _convolutional_rates(quick: bool) -> Sweep:
    settings: list[Setting] = []
    for dataset, trials in CONV_TRIAL.items():
        for model, (width, depth, rates) in trials.items():
            how: dict[str, Any] = {"lr": [*rates], "epochs": CONV_EPOCHS[dataset][model], "init_seeds": (0, 1)}
            if quick:
                how |= {"lr": rates[-1], "epochs": 1, "init_seeds": (0,)}
            for init in CONV_LR[dataset][model]:
                settings += grid(dataset="digits" if quick else dataset, model=model, init=init, width=width, depth=depth, **how)
    about = "The choice of the learning rate at which each convolutional network is trained: see CONV_LR."
    return Sweep("Figs. 7, 8", about, "", tuple(dict.fromkeys(settings)))


def _convolutional(
    dataset: str, model: str, shapes: dict[str, tuple[list[int], list[int]]], seeds: int, *, part: int = 1
) -> tuple[Setting, ...]:
    """For each initialization its widths and depths, trained at its rate, measured along the way; or for a part of the epochs, and then."""
    epochs = CONV_EPOCHS[dataset][model] // part
    how: dict[str, Any] = {
        "dataset": dataset,
        "model": model,
        "epochs": epochs,
        "every": None if part > 1 else min(epochs // 5, 10),
        "init_seeds": tuple(range(seeds)),
    }
    return tuple(
        setting
        for init, (widths, depths) in shapes.items()
        for setting in grid(init=init, width=widths, depth=depths, lr=CONV_LR[dataset][model][init], **how)
    )


def _digits_cnn(quick: bool) -> Sweep:
    if quick:
        # These depths bear a higher rate than ten layers do.
        settings = grid(model="cnn", init="he", width=[4, 16], depth=[2, 4, 6], lr=0.2, epochs=15, init_seeds=(0, 1, 2))
    else:
        settings = _convolutional("digits", "cnn", {"he": (_widths(2, 5), [2, 4, 6, 8, 10])}, 10)
    about = "Convolutional networks without biases or normalization on the digits, 100 epochs; measured every ten."
    cut = "Widths above 32 channels: a step costs as m²L, and 32 channels take more than half of the time of the whole table."
    return Sweep("Fig. 7", about, cut, settings)


def _digits_resnet(quick: bool) -> Sweep:
    if quick:
        few = {"he": ([2, 4, 8], [8])}
        settings = _convolutional("digits", "resnet", few, 3, part=4) + _convolutional("digits", "scaled_resnet", few, 3, part=4)
    else:
        of = (_widths(1, 4), [8, 14, 20])
        settings = _convolutional("digits", "resnet", {"he": of, "m^-1": ([8], of[1]), "m^-2": ([8], of[1])}, 10)
        settings += _convolutional("digits", "scaled_resnet", {"he": of}, 10)
    about = "Residual networks on the digits, with batch normalization and without, 20 epochs; measured every four."
    cut = "Widths above 16 channels, depths above 20: a step costs as m²L. Non-lazy ones at width 8 alone: Table 4 compares at one width."
    return Sweep("Fig. 8, Table 4", about, cut, settings)


def _cifar_resnet(quick: bool) -> Sweep:
    if quick:
        return _digits_resnet(quick)
    of = ([4], [8, 14, 20])
    settings = _convolutional("cifar10_sample", "resnet", {"he": of, "m^-2": of}, 8)
    about = "Residual networks with batch normalization on CIFAR-10's first 6,068 images, 10 epochs; measured every two."
    cut = "Other widths, depths above 20 (see resnet110), and most of the images, for their cost: 32 × 32 pixels have 16 times as many"
    cut += " activations as the digits."
    return Sweep("Fig. 8, Table 4", about, cut, settings)


def _resnet110(quick: bool) -> Sweep:
    """What the paper's Table 4 was measured on; at its width we guess."""
    if quick:
        return _digits_resnet(quick)
    shape = {"model": "resnet", "init": ["he", "m^-2"], "width": 16, "depth": 110, "init_seeds": (0, 1, 2)}
    settings = grid(dataset="cifar10", **shape, **PAPER) + grid(dataset="cifar100", **shape, **PAPER)
    return Sweep("Table 4", "ResNet-110 on CIFAR-10 and CIFAR-100 with the paper's schedule.", "", settings)


SWEEPS: dict[str, Callable[[bool], Sweep]] = {
    "digits": _digits,
    "digits_paper": _digits_paper,
    "digits_squared": _digits_squared,
    "digits_two_layers": _digits_two_layers,
    "digits_depths": _digits_depths,
    "digits_peak": _digits_peak,
    "digits_rates": lambda quick: _rates("digits", quick),
    "mnist": _mnist,
    "mnist_paper": _mnist_paper,
    "mnist_two_layers": _mnist_two_layers,
    "mnist_long": _mnist_long,
    "mnist_ntk": _mnist_ntk,
    "mnist_he_512": _mnist_he_512,
    "mnist_wide": _mnist_wide,
    "mnist_rates": lambda quick: _rates("mnist", quick),
    "digits_cnn": _digits_cnn,
    "digits_resnet": _digits_resnet,
    "cifar_resnet": _cifar_resnet,
    "convolutional_rates": _convolutional_rates,
    "resnet110": _resnet110,
}


def load_atlas(name: str) -> pd.DataFrame:
    """The measured table of that name from the atlas that comes with the package.

    Columns, each explained where it is named: `settings.KEY`, what was trained and for how long; `results.MEASURED`, what was measured
    then; `results.HOW`, by what. Raises ValueError for a name that the atlas does not hold (`measured` lists them).
    """
    path = atlas_folder() / f"{check_choice('name', name, measured())}.csv"
    return _parsed(path, path.stat().st_mtime_ns).copy()


@functools.cache
def _parsed(path: Path, _changed: int) -> pd.DataFrame:
    """Verdicts look at each table many times."""
    return pd.read_csv(path)


def load_card(name: str) -> dict[str, object]:
    """How the table of that name was made: command, code version, device, date, data checksum, seeds, and what is missing."""
    card: dict[str, object] = json.loads((atlas_folder() / f"{check_choice('name', name, measured())}.json").read_text(encoding="utf-8"))
    return card


def measured() -> tuple[str, ...]:
    """Names of the sweeps whose tables the atlas holds."""
    folder = atlas_folder()
    return tuple(name for name in SWEEPS if (folder / f"{name}.json").exists())


def atlas_folder() -> Path:
    """Where the atlas lies: inside an installed package, or in `book/atlas` of a checkout."""
    inside = Path(__file__).parent / "atlas"
    return inside if inside.exists() else Path(__file__).parents[1] / "book" / "atlas"
