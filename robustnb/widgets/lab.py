"""The laboratory: ordinary ipywidgets controls, linked in the browser to one view that draws.

Two engines can train for it, with the same history rows: torch in a thread of the kernel (here), or, where there is
no kernel, the page itself (page.js and engine.js). The view shows what either of them writes into its traits.
"""

from __future__ import annotations

import math
import re
import sys
import threading
import traceback
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import pandas as pd
import traitlets

from .. import theory
from .._checks import check_choice, check_count, check_real
from ..data import load_data
from ..figures import COLORS, over_seeds
from ..initialization import get_initialization
from ..networks import fully_connected, resolve_device
from ..sweep import load_atlas
from ..training import Rows, train

AXES = {"width": "width m", "depth": "depth L"}
MEASURES = {"stability": "P/ε", "lazy_ratio": "κ", "test_accuracy": "accuracy"}
KINDS = {"he": "He", "lecun": "LeCun", "ntk": "NTK", "m^-c": "m^−c"}
WIDTHS = [2**k for k in range(2, 11)]
DEPTHS = list(range(2, 11))

_HERE = Path(__file__).parent


class View(anywidget.AnyWidget):
    """What the laboratory draws (plot.js, page.js, lab.js). Every trait is synced; settings are indices into the lists beside them."""

    # One module from three plain scripts, so that it needs no bundler and no second request.
    _esm = "\n".join((_HERE / name).read_text() for name in ("plot.js", "page.js", "lab.js"))
    _css = _HERE / "lab.css"

    table = traitlets.Dict().tag(sync=True)
    series: traitlets.List[dict[str, str]] = traitlets.List().tag(sync=True)
    shape = traitlets.Dict().tag(sync=True)
    name = traitlets.Unicode().tag(sync=True)
    predict = traitlets.Bool(False).tag(sync=True)
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
    error = traitlets.Unicode().tag(sync=True)


class Laboratory(ipywidgets.VBox):  # type: ignore[misc]
    """A laboratory, set up for a chapter by a few opening values.

    Args:
        question: what the reader should find out; shown above the controls.
        x: "width" or "depth", the axis to start with.
        y: "stability", "lazy_ratio" or "test_accuracy", the measure that starts in the large plot.
        init: the initialization to start with, by name ("he", "m^-1.5").
        width, depth: a power of two from 4 to 1024; a whole number from 2 to 10.
        predict: hide what was measured until the reader has said what to expect.
        atlas: the measured table to draw.
        device: where *Train* trains: "auto" (CUDA, else MPS, else CPU) or a torch device.

    Raises ValueError for a value out of range, or an unusable device.
    """

    def __init__(
        self,
        question: str = "",
        *,
        x: str = "width",
        y: str = "stability",
        init: str = "he",
        width: int = 64,
        depth: int = 4,
        predict: bool = False,
        atlas: str = "digits",
        device: str = "auto",
    ) -> None:
        measured = load_atlas(atlas)
        check_choice("x", x, tuple(AXES))
        check_choice("y", y, tuple(MEASURES))
        get_initialization(init)
        for name, value, held in (("width", width, WIDTHS), ("depth", depth, DEPTHS)):
            if value not in held:
                raise ValueError(f"{name} must be one of {', '.join(map(str, held))}, not {value!r}.")
        resolve_device(device)
        kind, c = ("m^-c", float(init[3:])) if init.startswith("m^-") else (init, 1.5)
        inits = sorted(set(measured.init), key=list(COLORS).index)

        self._data = load_data(atlas)
        self._device = device
        self._worker: threading.Thread | None = None
        self._run = _Run()
        self.view = View(
            table=_table(measured, inits),
            series=[{"name": name, "label": _label(name), "color": COLORS[name]} for name in inits],
            shape=_shape(self._data.inputs, self._data.classes),
            name=re.sub(r"[^a-z0-9]+", "-", question.lower()).strip("-")[:32] or "lab",
            predict=predict,
            init_index=list(KINDS).index(kind),
            c=c,
            width_index=WIDTHS.index(width),
            depth_index=DEPTHS.index(depth),
            x_index=list(AXES).index(x),
            y_index=list(MEASURES).index(y),
        )
        self.view.on_msg(self._on_message)
        asked = [ipywidgets.HTML(f"<strong>{escape(question)}</strong>")] if question else []
        super().__init__([*asked, self._controls(), self.view])

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
            "c": ipywidgets.BoundedFloatText(min=0.5, max=3, step=0.5, description="exponent c", **common),
            "lr": ipywidgets.BoundedFloatText(min=0, max=1e9, step=0.01, description="learning rate", **common),
            "epochs": ipywidgets.BoundedIntText(min=1, max=1000, description="epochs", **common),
            "seed": ipywidgets.BoundedIntText(min=0, max=2**31 - 1, description="seed", **common),
        }
        for trait, control in chosen.items():
            control.index = getattr(view, trait)
            ipywidgets.jslink((control, "index"), (view, trait))
        for trait, control in typed.items():
            control.value = getattr(view, trait)
            ipywidgets.jslink((control, "value"), (view, trait))
        controls = chosen | typed
        for control in controls.values():
            control.tooltip = control.description
        order = ("width_index", "depth_index", "init_index", "c", "x_index", "y_index", "lr", "epochs", "seed")
        return ipywidgets.Box([controls[name] for name in order]).add_class("rnb-controls")

    def _on_message(self, _: View, message: dict[str, Any], buffers: object) -> None:
        kind = message.get("kind")
        if kind == "train":
            self.train(message["settings"], paused=bool(message.get("paused")))
        elif kind in ("stop", "reset"):
            self.stop()
            if kind == "reset":
                self.view.runs, self.view.progress, self.view.error = [], {}, ""
        elif kind in ("pause", "resume", "step"):
            self._run.paused = kind != "resume"
            self._run.go.clear() if kind == "pause" else self._run.go.set()
            self.view.progress = self.view.progress | {"paused": self._run.paused}

    def train(self, settings: list[dict[str, Any]], *, paused: bool = False) -> threading.Thread:
        """Train these networks in the background, one after the other; ends what trained before. Each adds its point.

        A setting holds init (an index into `KINDS`), c, width, depth, lr, epochs and seed. With `paused` the first
        waits before its first epoch. Returns the thread, to wait for. An invalid setting, or an exception on the
        way, shows in the view and in the kernel's log.
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
            except Exception as error:  # the reader must see it, whatever it is
                traceback.print_exc(file=sys.stderr)
                self.view.progress = {"running": False}
                self.view.error = f"{type(error).__name__}: {error}"

        self.view.error = ""
        self._worker = threading.Thread(target=work, daemon=True)
        self._worker.start()
        return self._worker

    def stop(self) -> None:
        """End what trains, if anything, at its next step."""
        self._run.stop.set()
        self._run.go.set()

    def _train(self, run: _Run, setting: dict[str, Any], place: dict[str, int]) -> None:
        """Train one network and show how it goes; `place` says which of how many it is."""
        epochs = check_count("epochs", setting["epochs"])
        lr = check_real("lr", setting["lr"])
        kind = list(KINDS)[setting["init"]]
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
            self.view.progress = _finite(row | place | {"running": True, "paused": run.paused, "epochs": epochs, "setting": setting})
            if row["epoch"] < epochs and not row["diverged"]:
                run.wait()

        result = train(network, self._data, epochs=epochs, lr=lr, on_epoch=show, stop=run.stop)
        last = result.history.iloc[-1].to_dict()
        if last["diverged"]:
            message = f"Diverged at epoch {int(last['epoch'])}."
        elif result.stopped:
            message = f"Stopped at epoch {int(last['epoch'])} of {epochs}."
        else:
            self.view.runs = [*self.view.runs, setting | {name: last[name] for name in MEASURES}]
            message = f"Done: P/ε = {last['stability']:.3g}, κ = {last['lazy_ratio']:.3g}, accuracy {last['test_accuracy']:.3g}."
        self.view.progress = {"running": place["run"] < place["of"] and not result.stopped, "message": message}


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
    return KINDS.get(init) or init.replace("m^-", "m^−")


def _shape(inputs: int, outputs: int) -> dict[str, Any]:
    """What the view needs for the exact value at initialization: d, o, E‖δ‖/ε, E χ_o and each width's ReLU gain."""
    gain = theory.log_relu_gain(WIDTHS).tolist()
    chi = float(theory.log_mean_chi(outputs))
    return {"inputs": inputs, "outputs": outputs, "ball": float(theory.mean_ball_radius(inputs)), "log_chi": chi, "log_gain": gain}


def _table(measured: pd.DataFrame, inits: list[str]) -> dict[str, Any]:
    """The atlas as the view draws it: means and standard errors over seeds, a column a list; init is an index into `inits`."""
    key = ["init", "depth", "width"]
    table = measured[key].drop_duplicates().sort_values(key)
    for value in MEASURES:
        summary = over_seeds(measured, key, value).rename(columns={"mean": value, "error": f"{value}_error"})
        table = table.drop(columns="n", errors="ignore").merge(summary, on=key, how="left")
    columns = table.assign(init=table.init.map(inits.index), n=table.n.fillna(0).astype(int))
    return {str(name): [None if pd.isna(v) else _rounded(v) for v in column.tolist()] for name, column in columns.items()}


def _rounded(value: float) -> float:
    """Five digits are more than a plot shows, and a third of the page's weight."""
    return value if isinstance(value, int) else float(f"{value:.5g}")
