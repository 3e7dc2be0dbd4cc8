"""The laboratory's view: what it draws, as traits that the browser has, and what it is told once, of tables, digits and limits."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import pandas as pd
import traitlets
from matplotlib.markers import MarkerStyle
from matplotlib.transforms import Affine2D

from .. import theory
from ..data import Dataset
from ..figures import COLORS, MARKERS, over_seeds
from ..initialization import NAMED
from ..stability import uniform_in_ball

AXES = {"width": "width m", "depth": "depth L"}
MEASURES = {"stability": "P/ε", "lazy_ratio": "κ", "test_accuracy": "accuracy"}
# Their places are in the addresses that readers keep: any further one comes last.
KINDS = {"he": "He", "lecun": "LeCun", "ntk": "NTK", "m^-c": "m⁻ᶜ"} | {name: one.label for name, one in NAMED.items()}
WIDTHS = [2**k for k in range(2, 11)]
DEPTHS = list(range(2, 11))
# Of the numbers that the reader types: least, greatest, step; whole numbers have a whole step.
RANGES: dict[str, tuple[float, float, float]] = {
    "c": (0.5, 3, 0.5),
    "lr": (0, 1e9, 0.01),
    "epochs": (1, 1000, 1),
    "seed": (0, 2**31 - 1, 1),
}
# Radii at which the view shows a perturbed digit and the outputs for it.
RADII = [k / 10 for k in range(31)]

_SUPERSCRIPTS = str.maketrans("0123456789.", "⁰¹²³⁴⁵⁶⁷⁸⁹·")
_HERE = Path(__file__).parent
_MODULES = ("plot.js", "curves.js", "page.js", "session.js", "content.js", "sketch.js", "guess.js", "digit.js", "bench.js", "lab.js")


class View(anywidget.AnyWidget):
    """What the laboratory draws (lab.js and the scripts beside it). Every trait is synced; settings are indices into the lists."""

    # One module from plain scripts, so that it needs no bundler and no second request.
    _esm = "\n".join((_HERE / name).read_text(encoding="utf-8") for name in _MODULES)
    _css = (_HERE / "lab.css").read_text(encoding="utf-8")  # not as a path: anywidget would watch it, and keep every view alive

    table = traitlets.Dict().tag(sync=True)
    series: traitlets.List[dict[str, str]] = traitlets.List().tag(sync=True)
    shape = traitlets.Dict().tag(sync=True)
    name = traitlets.Unicode().tag(sync=True)
    predict = traitlets.Bool(False).tag(sync=True)
    digits = traitlets.Dict().tag(sync=True)
    limits = traitlets.Dict().tag(sync=True)
    kinds: traitlets.List[str] = traitlets.List(list(KINDS)).tag(sync=True)
    widths: traitlets.List[int] = traitlets.List(WIDTHS).tag(sync=True)
    depths: traitlets.List[int] = traitlets.List(DEPTHS).tag(sync=True)
    init_index = traitlets.Int(0).tag(sync=True)
    width_index = traitlets.Int(0).tag(sync=True)
    depth_index = traitlets.Int(0).tag(sync=True)
    x_index = traitlets.Int(0).tag(sync=True)
    y_index = traitlets.Int(0).tag(sync=True)
    c = traitlets.Float(1.5).tag(sync=True)
    lr = traitlets.Float(0.05).tag(sync=True)
    epochs = traitlets.Int(50).tag(sync=True)
    seed = traitlets.Int(0).tag(sync=True)
    runs: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    progress = traitlets.Dict().tag(sync=True)
    moves = traitlets.Dict().tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        # The thread that trains and the kernel's own both write traits, and ipywidgets guards neither from the other.
        self.lock = threading.RLock()
        super().__init__(**traits)

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """What the browser changed."""
        with self.lock:
            super().set_state(sync_data)


def make_view(data: Dataset, measured: pd.DataFrame, **opening: Any) -> View:
    """A view of one measured table, of networks on these data; `opening`: its traits that say where it begins."""
    inits = list(COLORS)
    return View(
        table=_table(measured, inits),
        series=[{"name": name, "label": _label(name), "color": COLORS[name], "marker": _marker(name)} for name in inits],
        shape=_shape(data.inputs, data.classes),
        digits=_digits(data),
        limits=_limits(),
        **opening,
    )


def _label(init: str) -> str:
    return KINDS.get(init) or f"m⁻{init[3:].translate(_SUPERSCRIPTS)}"


def _marker(init: str) -> str:
    """The outline of its marker in the figures, eight pixels wide, as SVG has it."""
    marker = MarkerStyle(MARKERS[init])
    outline = marker.get_path().transformed(marker.get_transform() + Affine2D().scale(8, -8)).to_polygons()
    return "".join(f"M{'L'.join(f'{x:.1f},{y:.1f}' for x, y in np.asarray(polygon).tolist())}Z" for polygon in outline)


def _shape(inputs: int, outputs: int) -> dict[str, Any]:
    """What the view needs for the exact value at initialization: d, o, E‖δ‖/ε, E χ_o and each width's ReLU gain."""
    gain = theory.log_relu_gain(WIDTHS).tolist()
    chi = float(theory.log_mean_chi(outputs))
    return {"inputs": inputs, "outputs": outputs, "ball": float(theory.mean_ball_radius(inputs)), "log_chi": chi, "log_gain": gain}


def _digits(data: Dataset) -> dict[str, Any]:
    """For each class its first test image x, and a perturbation δ uniform in the unit ball: the view shows x + ε δ at the radii."""
    rows = [int((data.y_test == label).nonzero()[0]) for label in range(data.classes)]
    deltas = uniform_in_ball((data.classes, data.inputs), radius=1.0, seed=0)
    columns = {"pixels": data.x_test[rows].tolist(), "deltas": deltas.tolist()}
    lists = {name: [[rounded(v) for v in row] for row in rows] for name, rows in columns.items()}
    return lists | {"labels": list(range(data.classes)), "radii": RADII, "side": math.isqrt(data.inputs)}


def _limits() -> dict[str, tuple[float, float, bool]]:
    """Least and greatest value of each setting, and whether it must be whole: what an address may hold."""
    sizes = {"init": KINDS, "width": WIDTHS, "depth": DEPTHS, "x": AXES, "y": MEASURES}
    indices = {f"{name}_index": (0, len(values) - 1, True) for name, values in sizes.items()}
    return indices | {name: (low, high, isinstance(step, int)) for name, (low, high, step) in RANGES.items()}


def _table(measured: pd.DataFrame, inits: list[str]) -> dict[str, Any]:
    """The atlas as the view draws it: means and standard errors over seeds, a column a list; init is an index into `inits`."""
    key = ["init", "depth", "width"]
    table = measured[[*key, "lr", "epoch"]].drop_duplicates().sort_values(key)
    for value in MEASURES:
        summary = over_seeds(measured, key, value).rename(columns={"mean": value, "error": f"{value}_error"})
        table = table.drop(columns=["n", "untrained"], errors="ignore").merge(summary, on=key, how="left")
    counts = table[["n", "untrained"]].fillna(0).astype(int)
    columns = table.assign(init=table.init.map(inits.index), **counts)
    return {str(name): [None if pd.isna(v) else rounded(v) for v in column.tolist()] for name, column in columns.items()}


def rounded(value: float) -> float:
    """Five digits are more than a plot shows, and a third of the page's weight."""
    return value if isinstance(value, int) else float(f"{value:.5g}")
