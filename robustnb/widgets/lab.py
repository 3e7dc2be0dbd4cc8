"""The laboratory: ordinary ipywidgets controls, linked in the browser to one view that draws.

Two engines can train for it, with the same history rows: torch in a thread of the kernel (here), or, where there is
no kernel, the page itself (page.js and engine.js). The view shows what either of them writes into its traits.
"""

from __future__ import annotations

import atexit
import math
import re
import threading
import traceback
import weakref
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, TypedDict

import anywidget
import ipywidgets
import pandas as pd
import torch
import traitlets
from matplotlib.markers import MarkerStyle
from matplotlib.transforms import Affine2D

from .. import theory
from .._checks import check_choice, check_count, check_flag, check_real, shown
from ..atlas import SWEEPS, load_atlas
from ..data import DATASETS, Dataset, load_data
from ..figures import COLORS, MARKERS, over_seeds
from ..initialization import NAMED, Initialization, get_initialization
from ..networks import fully_connected, resolve_device
from ..stability import Network, uniform_in_ball
from ..training import Rows, train

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


class Setting(TypedDict):
    """One network to train: init is an index into `KINDS`; c matters to m^-c alone; seed fixes W(0) and the batch order."""

    init: int
    c: float
    width: int
    depth: int
    lr: float
    epochs: int
    seed: int


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


class Laboratory(ipywidgets.VBox):  # type: ignore[misc]
    """A laboratory, set up for a chapter by a few opening values.

    Args:
        question: what the reader should find out; shown above the controls.
        x: "width" or "depth", the axis to start with.
        y: "stability", "lazy_ratio" or "test_accuracy", the measure that starts in the large plot.
        init: the initialization to start with ("he", "m^-1.5").
        width, depth: a power of two from 4 to 1024; a whole number from 2 to 10.
        predict: hide what was measured until the reader has said what to expect.
        atlas: the measured table to draw.
        device: where *Train* trains: "auto" (CUDA, else CPU) or a torch device.

    Raises ValueError for a value out of range, or an unusable device.
    """

    def __init__(
        self,
        question: str = "",
        *,
        x: str = "width",
        y: str = "stability",
        init: str | Initialization = "he",
        width: int = 64,
        depth: int = 4,
        predict: bool = False,
        atlas: str = "digits",
        device: str = "auto",
    ) -> None:
        self._worker: threading.Thread | None = None
        self._run = _Run()  # first of all, since Python closes even what could not be made
        self._links: list[ipywidgets.Widget] = []
        if not isinstance(question, str):
            raise TypeError(f"question must be a text, not {shown(question)}.")
        check_flag("predict", predict)
        check_choice("atlas", atlas, tuple(name for name in DATASETS if name in SWEEPS))
        measured = load_atlas(atlas)
        # Wider ones have too few seeds for a band.
        measured = measured[measured.width <= 256]
        check_choice("x", x, tuple(AXES))
        check_choice("y", y, tuple(MEASURES))
        init = get_initialization(init).name
        for name, value, held in (("width", width, WIDTHS), ("depth", depth, DEPTHS)):
            if not isinstance(value, int) or value not in held:
                raise ValueError(f"{name} must be one of {', '.join(map(str, held))}, not {shown(value)}.")
        resolve_device(device)
        kind, c = ("m^-c", float(init[3:])) if init.startswith("m^-") else (init, 1.5)
        low, high, step = RANGES["c"]
        if not low <= c <= high or c % step:
            raise ValueError(f"init must have an exponent from {low:g} to {high:g} in steps of {step:g}, not {init!r}.")
        inits = sorted(set(measured.init), key=list(COLORS).index)

        self._data = load_data(atlas)
        self._device = device
        self.view = View(
            table=_table(measured, inits),
            series=[{"name": name, "label": _label(name), "color": COLORS[name], "marker": _marker(name)} for name in inits],
            shape=_shape(self._data.inputs, self._data.classes),
            digits=_digits(self._data),
            limits=_limits(),
            name=re.sub(r"[^a-z0-9]+", "-", question.lower()).strip("-")[:32] or "lab",
            predict=predict,
            init_index=list(KINDS).index(kind),
            c=c,
            width_index=WIDTHS.index(width),
            depth_index=DEPTHS.index(depth),
            x_index=list(AXES).index(x),
            y_index=list(MEASURES).index(y),
        )
        self._log = ipywidgets.Output()
        self.view.on_msg(self._on_message)
        _LABORATORIES.add(self)
        asked = [ipywidgets.HTML(f"<strong>{escape(question)}</strong>")] if question else []
        super().__init__([*asked, self._controls(), self.view, self._log])

    def _controls(self) -> ipywidgets.Widget:
        """The controls, linked in the browser: `jslink` needs no kernel (selections sync their index)."""
        view, style, layout = self.view, {"description_width": "6.6em"}, {"width": "auto"}
        common: dict[str, Any] = {"style": style, "layout": layout}
        chosen = {
            "width_index": ipywidgets.SelectionSlider(options=WIDTHS, description="width m", **common),
            "depth_index": ipywidgets.SelectionSlider(options=DEPTHS, description="depth L", **common),
            "init_index": ipywidgets.Dropdown(options=list(KINDS.values()), description="init", **common),
            "x_index": ipywidgets.Dropdown(options=list(AXES.values()), description="against", **common),
            "y_index": ipywidgets.Dropdown(options=list(MEASURES.values()), description="large plot", **common),
        }
        typed = {
            trait: (ipywidgets.BoundedIntText if isinstance(step, int) else ipywidgets.BoundedFloatText)(
                min=low, max=high, step=step, description=name, **common
            )
            for (trait, (low, high, step)), name in zip(RANGES.items(), ("exponent c", "learning rate", "epochs", "seed"), strict=True)
        }
        for trait, control in chosen.items():
            control.index = getattr(view, trait)
            self._links.append(ipywidgets.jslink((control, "index"), (view, trait)))
        for trait, control in typed.items():
            control.value = getattr(view, trait)
            self._links.append(ipywidgets.jslink((control, "value"), (view, trait)))
        controls = chosen | typed
        for control in controls.values():
            control.tooltip = control.description
        for control in typed.values():  # what is typed out of its range is moved into it without a word
            control.tooltip += f", from {control.min:,.10g} to {control.max:,.10g}"
        order = ("width_index", "depth_index", "init_index", "c", "x_index", "y_index", "lr", "epochs", "seed")
        return ipywidgets.Box([controls[name] for name in order]).add_class("rnb-controls")

    def _on_message(self, _: View, message: dict[str, Any], buffers: object) -> None:
        try:
            self._answer(message)
        except Exception as error:
            self._fail(self._run, error)

    def _answer(self, message: dict[str, Any]) -> None:
        """Do what a button of the view asks for."""
        kind = message.get("kind")
        if kind == "train":
            self.train(message["settings"], paused=bool(message.get("paused")))
        elif kind == "stop":
            self.stop()
        elif kind == "reset":
            self.stop()
            self._run = _Run()
            self._show(self._run, runs=[], progress={}, moves={}, error="")
        elif kind in ("pause", "resume", "step"):
            self._run.paused = kind != "resume"
            self._run.go.clear() if kind == "pause" else self._run.go.set()
            if self.view.progress.get("running"):
                self._show(self._run, progress=self.view.progress | {"paused": self._run.paused})

    def _show(self, run: _Run, **traits: Any) -> None:
        """Write into the view, unless another run has taken its place."""
        with self.view.lock:
            if run is self._run:
                for name, value in traits.items():
                    setattr(self.view, name, value)

    def _fail(self, run: _Run, error: Exception) -> None:
        """The reader must see it, whatever it is; and what runs notebooks, which looks for such outputs."""
        name, trace = type(error).__name__, "".join(traceback.format_exception(error)).splitlines()
        self._log.outputs = ({"output_type": "error", "ename": name, "evalue": str(error), "traceback": trace},)
        self._show(run, progress={"running": False}, error=f"{name}: {error}")

    def train(self, settings: list[Setting], *, paused: bool = False) -> threading.Thread:
        """Train these networks in the background, one after the other; ends what trained before. Each adds its point.

        With `paused` the first waits before its first epoch. Returns the thread, to wait for. An invalid setting, or
        an exception on the way, shows in the view, and with its traceback under it.
        """
        self.stop()
        before, run = self._worker, _Run(paused=paused)
        self._run = run

        def work() -> None:
            if before is not None:
                before.join()
            try:
                for k, setting in enumerate(settings):
                    if run.stop.is_set():
                        break
                    self._train(run, setting, {"run": k + 1, "of": len(settings)})
                message = self.view.progress.get("message", "Stopped before the first epoch.")
                self._show(run, progress=self.view.progress | {"running": False, "message": message})
            except Exception as error:
                self._fail(run, error)

        self._log.outputs = ()
        self._show(run, error="", progress={"running": True, "paused": paused, "run": 1, "of": len(settings)})
        self._worker = threading.Thread(target=work, daemon=True)
        self._worker.start()
        return self._worker

    def stop(self) -> None:
        """End what trains, if anything, at its next step."""
        self._run.stop.set()
        self._run.go.set()

    def close(self) -> None:
        """End what trains, and take the laboratory away, with all that it is made of."""
        self.stop()
        if self.comm is not None:
            for part in (*self._links, *_parts(self)):
                part.close()
        super().close()

    def _train(self, run: _Run, setting: Setting, place: dict[str, int]) -> None:
        """Train one network and show how it goes; `place` says which of how many it is."""
        epochs = check_count("epochs", setting["epochs"])
        lr = check_real("lr", setting["lr"])
        kind = check_choice("init", dict(enumerate(KINDS)).get(setting["init"], setting["init"]), tuple(KINDS))
        network = fully_connected(
            f"m^-{setting['c']:g}" if kind == "m^-c" else kind,
            inputs=self._data.inputs,
            width=setting["width"],
            depth=setting["depth"],
            outputs=self._data.classes,
            seeds=[setting["seed"]],
            device=self._device,
        )

        def show(rows: Rows) -> None:
            (row,) = rows
            self._show(run, progress=_finite(row | place | {"running": True, "paused": run.paused, "epochs": epochs, "setting": setting}))
            if row["epoch"] < epochs and not row["diverged"]:
                run.wait()

        result = train(network, self._data, epochs=epochs, lr=lr, batch_seed=setting["seed"], on_epoch=show, stop=run.stop)
        last = result.history.iloc[-1].to_dict()
        if last["diverged"]:
            message = f"Diverged at epoch {int(last['epoch'])}."
        elif result.stopped:
            message = f"Stopped at epoch {int(last['epoch'])} of {epochs}."
        else:
            engine = f"torch on {network.device.type}"
            point = setting | {name: last[name] for name in (*MEASURES, "untrained")} | {"engine": engine}
            self._show(
                run,
                runs=[*self.view.runs, point],
                moves={"setting": setting, "stability": last["stability"], "outputs": self._outputs(result.network)},
            )
            stability, ratio, accuracy = (last[name] for name in MEASURES)
            untrained = " Untrained: its loss is still that of the output 0, so its P/ε and κ say little." if last["untrained"] else ""
            message = f"Done: P/ε = {stability:.3g}, κ = {ratio:.3g}, accuracy {accuracy:.3g}.{untrained} Trained by {engine}."
        more = place["run"] < place["of"] and not result.stopped
        self._show(run, progress=place | {"running": more, "paused": run.paused, "message": message})

    def _outputs(self, network: Network) -> list[Any]:
        """f(x + ε δ) for each of the view's digits and radii: nested lists (digits, radii, classes)."""
        digits = self.view.digits
        x, delta = (torch.tensor(digits[name], dtype=network.dtype, device=network.device)[:, None] for name in ("pixels", "deltas"))
        radii = torch.tensor(digits["radii"], dtype=network.dtype, device=network.device)[:, None]
        with torch.no_grad():
            f = network((x + radii * delta).flatten(0, 1))[0]
        return [[[_rounded(v) for v in row] for row in rows] for rows in f.unflatten(0, (len(x), len(radii))).tolist()]


def _parts(widget: ipywidgets.Widget) -> Iterator[ipywidgets.Widget]:
    """What a widget is made of: ipywidgets closes none of it with the widget."""
    for part in (*getattr(widget, "children", ()), getattr(widget, "layout", None), getattr(widget, "style", None)):
        if isinstance(part, ipywidgets.Widget):
            yield from _parts(part)
            yield part


_LABORATORIES: weakref.WeakSet[Laboratory] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """A thread inside torch while Python goes away would abort it."""
    for laboratory in list(_LABORATORIES):
        laboratory.stop()
        if laboratory._worker is not None:
            laboratory._worker.join(timeout=10)


class _Run:
    """How the reader's buttons reach the thread that trains."""

    def __init__(self, *, paused: bool = False) -> None:
        self.stop = threading.Event()
        self.go = threading.Event()
        self.paused = paused
        if not paused:
            self.go.set()

    def wait(self) -> None:
        """If paused, wait for the next resume, step or stop."""
        self.go.wait()
        if self.paused:
            self.go.clear()


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN: None stands for it."""
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()}


def _label(init: str) -> str:
    return KINDS.get(init) or f"m⁻{init[3:].translate(_SUPERSCRIPTS)}"


def _marker(init: str) -> str:
    """The outline of its marker in the figures, eight pixels wide, as SVG has it."""
    marker = MarkerStyle(MARKERS[init])
    outline = marker.get_path().transformed(marker.get_transform() + Affine2D().scale(8, -8)).to_polygons()
    return "".join(f"M{'L'.join(f'{x:.1f},{y:.1f}' for x, y in polygon)}Z" for polygon in outline)


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
    rounded = {name: [[_rounded(v) for v in row] for row in rows] for name, rows in columns.items()}
    return rounded | {"labels": list(range(data.classes)), "radii": RADII, "side": math.isqrt(data.inputs)}


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
    return {str(name): [None if pd.isna(v) else _rounded(v) for v in column.tolist()] for name, column in columns.items()}


def _rounded(value: float) -> float:
    """Five digits are more than a plot shows, and a third of the page's weight."""
    return value if isinstance(value, int) else float(f"{value:.5g}")
