"""The laboratory: ordinary ipywidgets controls, linked in the browser to one view that draws.

Without a kernel (the rendered book) the controls still move the view over the measured table. With one,
*Train* trains the chosen network with torch in a thread and the view shows how it goes.
"""

from __future__ import annotations

import math
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


class View(anywidget.AnyWidget):
    """What the laboratory draws (lab.js). Every trait is synced; settings are indices into the lists beside them."""

    _esm = Path(__file__).with_name("lab.js")
    _css = Path(__file__).with_name("lab.css")

    table = traitlets.Dict().tag(sync=True)
    inits: traitlets.List[str] = traitlets.List().tag(sync=True)
    init_labels: traitlets.List[str] = traitlets.List().tag(sync=True)
    colors: traitlets.List[str] = traitlets.List().tag(sync=True)
    widths: traitlets.List[int] = traitlets.List().tag(sync=True)
    depths: traitlets.List[int] = traitlets.List().tag(sync=True)
    init_index = traitlets.Int(0).tag(sync=True)
    width_index = traitlets.Int(0).tag(sync=True)
    depth_index = traitlets.Int(0).tag(sync=True)
    x_index = traitlets.Int(0).tag(sync=True)
    y_index = traitlets.Int(0).tag(sync=True)
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
        init, width, depth: the setting to start with; one that the atlas holds.
        atlas: the measured table to draw.
        device: where *Train* trains: "auto" (CUDA, else MPS, else CPU) or a torch device.

    Raises ValueError for a value that the table does not hold, or an unusable device.
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
        atlas: str = "digits",
        device: str = "auto",
    ) -> None:
        measured = load_atlas(atlas)
        inits, widths, depths = (list(dict.fromkeys(sorted(set(measured[column])))) for column in ("init", "width", "depth"))
        inits.sort(key=list(COLORS).index)
        check_choice("x", x, tuple(AXES))
        check_choice("y", y, tuple(MEASURES))
        check_choice("init", init, tuple(inits))
        for name, value, held in (("width", width, widths), ("depth", depth, depths)):
            if value not in held:
                raise ValueError(f"{name} must be one that the atlas holds ({', '.join(map(str, held))}), not {value!r}.")
        resolve_device(device)
        labels = [get_initialization(name).label if "^" not in name else name.replace("m^-", "m^−") for name in inits]

        self._data = load_data(atlas)
        self._device = device
        self._worker: threading.Thread | None = None
        self._stop = threading.Event()
        self.view = View(
            table=_table(measured, inits, widths, depths, inputs=self._data.inputs, outputs=self._data.classes),
            inits=inits,
            init_labels=labels,
            colors=[COLORS[name] for name in inits],
            widths=widths,
            depths=depths,
            init_index=inits.index(init),
            width_index=widths.index(width),
            depth_index=depths.index(depth),
            x_index=list(AXES).index(x),
            y_index=list(MEASURES).index(y),
        )
        self.view.on_msg(self._on_message)
        asked = [ipywidgets.HTML(f"<strong>{escape(question)}</strong>")] if question else []
        super().__init__([*asked, self._controls(labels), self.view])

    def _controls(self, labels: list[str]) -> ipywidgets.Widget:
        """The controls, linked in the browser: `jslink` needs no kernel (selections sync their index)."""
        view, style, layout = self.view, {"description_width": "6.6em"}, {"width": "auto"}
        common: dict[str, Any] = {"style": style, "layout": layout}
        chosen = {
            "width_index": ipywidgets.SelectionSlider(options=view.widths, description="width m", **common),
            "depth_index": ipywidgets.SelectionSlider(options=view.depths, description="depth L", **common),
            "init_index": ipywidgets.Dropdown(options=labels, description="init", **common),
            "x_index": ipywidgets.Dropdown(options=list(AXES.values()), description="against", **common),
            "y_index": ipywidgets.Dropdown(options=list(MEASURES.values()), description="large plot", **common),
        }
        typed = {
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
        for control in (*chosen.values(), *typed.values()):
            control.tooltip = control.description
        return ipywidgets.Box([*chosen.values(), *typed.values()]).add_class("rnb-controls")

    def _on_message(self, _: View, message: dict[str, Any], buffers: object) -> None:
        if message.get("kind") == "train":
            setting = message["setting"]
            self.train(**(setting | {"init": self.view.inits[setting["init"]]}))
        elif message.get("kind") == "stop":
            self.stop()

    def train(self, *, init: str, width: int, depth: int, lr: float, epochs: int, seed: int) -> threading.Thread:
        """Train one network in the background; ends the run before it. Its point joins the plot when it is done.

        Returns the thread, to wait for. An invalid setting, or an exception on the way, shows in the view.
        """
        self.stop()
        before, stop = self._worker, threading.Event()
        self._stop = stop

        def work() -> None:
            if before is not None:
                before.join()
            try:
                self._train(stop, init=init, width=width, depth=depth, lr=lr, epochs=epochs, seed=seed)
            except Exception as error:  # the reader must see it, whatever it is
                traceback.print_exc(file=sys.stderr)
                self.view.progress = {"running": False}
                self.view.error = f"{type(error).__name__}: {error}"

        self.view.error = ""
        self._worker = threading.Thread(target=work, daemon=True)
        self._worker.start()
        return self._worker

    def stop(self) -> None:
        """End the run in progress, if any, at its next step."""
        self._stop.set()

    def _train(self, stop: threading.Event, *, init: str, width: int, depth: int, lr: float, epochs: int, seed: int) -> None:
        check_count("epochs", epochs)
        check_real("lr", lr)
        network = fully_connected(
            init, inputs=self._data.inputs, width=width, depth=depth, outputs=self._data.classes, seeds=[seed], device=self._device
        )
        diverged_at: list[int] = []

        def show(rows: Rows) -> None:
            (row,) = rows
            if row["diverged"]:
                diverged_at.append(row["epoch"])
                stop.set()
            self.view.progress = _finite(row | {"running": True, "epochs": epochs})

        run = train(network, self._data, epochs=epochs, lr=lr, on_epoch=show, stop=stop)
        last = run.history.iloc[-1].to_dict()
        if diverged_at:
            message = f"Diverged at epoch {diverged_at[0]}."
        elif run.stopped:
            message = f"Stopped at epoch {int(last['epoch'])} of {epochs}."
        else:
            point = {"init": self.view.inits.index(init), "width": width, "depth": depth, "lr": lr, "epochs": epochs, "seed": seed}
            self.view.runs = [*self.view.runs, _finite(point | {name: last[name] for name in MEASURES})]
            message = f"Done: P/ε = {last['stability']:.3g}, κ = {last['lazy_ratio']:.3g}, accuracy {last['test_accuracy']:.3g}."
        self.view.progress = {"running": False, "message": message}


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN: None stands for it."""
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()}


def _table(measured: pd.DataFrame, inits: list[str], widths: list[int], depths: list[int], *, inputs: int, outputs: int) -> dict[str, Any]:
    """The atlas as the view draws it: a column a list, a row each (init, depth, width); None where nothing was measured."""
    key = ["init", "depth", "width"]
    grid = pd.MultiIndex.from_product([inits, depths, widths], names=key).to_frame(index=False)
    for value in MEASURES:
        summary = over_seeds(measured, key, value).rename(columns={"mean": value, "error": f"{value}_error"})
        grid = grid.drop(columns="n", errors="ignore").merge(summary, on=key, how="left")
    exact = [
        theory.stability_at_initialization(init, inputs=inputs, width=width, depth=depth, outputs=outputs)
        for init, depth, width in grid[key].itertuples(index=False)
    ]
    columns = grid.assign(exact=pd.Series(exact, dtype=float), init=grid.init.map(inits.index), n=grid.n.fillna(0).astype(int))
    return {str(name): [None if pd.isna(v) else _rounded(v) for v in column.tolist()] for name, column in columns.items()}


def _rounded(value: float) -> float:
    """Five digits are more than a plot shows, and a third of the page's weight."""
    return value if isinstance(value, int) else float(f"{value:.5g}")
