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
from typing import Any, TypedDict

import ipywidgets
import torch

from .._checks import check_choice, check_count, check_flag, check_real, shown
from ..atlas import SWEEPS, load_atlas
from ..data import DATASETS, load_data
from ..initialization import Initialization, get_initialization
from ..networks import fully_connected, resolve_device
from ..stability import Network
from ..training import Rows, train
from .view import AXES, DEPTHS, KINDS, MEASURES, RANGES, WIDTHS, View, make_view, rounded


class Setting(TypedDict):
    """One network to train: init is an index into `KINDS`; c matters to m^-c alone; seed fixes W(0) and the batch order."""

    init: int
    c: float
    width: int
    depth: int
    lr: float
    epochs: int
    seed: int


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
        opening = _opening(x, y, init, width, depth)
        resolve_device(device)

        self._data = load_data(atlas)
        self._device = device
        name = re.sub(r"[^a-z0-9]+", "-", question.lower()).strip("-")[:32] or "lab"
        # Wider ones have too few seeds for a band.
        self.view = make_view(self._data, load_atlas(atlas).query("width <= 256"), name=name, predict=predict, **opening)
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
            # With the training's thread shut out: a progress that is read here must not be written over its last word.
            with self.view.lock:
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
        return [[[rounded(v) for v in row] for row in rows] for rows in f.unflatten(0, (len(x), len(radii))).tolist()]


def _opening(x: str, y: str, init: str | Initialization, width: int, depth: int) -> dict[str, Any]:
    """The traits of the view that say where it begins; ValueError for what the controls do not have."""
    check_choice("x", x, tuple(AXES))
    check_choice("y", y, tuple(MEASURES))
    for name, value, held in (("width", width, WIDTHS), ("depth", depth, DEPTHS)):
        if not isinstance(value, int) or value not in held:
            raise ValueError(f"{name} must be one of {', '.join(map(str, held))}, not {shown(value)}.")
    kind, power, exponent = get_initialization(init).name.partition("m^-")
    c, (low, high, step) = float(exponent) if power else View.c.default_value, RANGES["c"]
    if not low <= c <= high or c % step:
        raise ValueError(f"init must have an exponent from {low:g} to {high:g} in steps of {step:g}, not {init!r}.")
    of = {
        "x": (AXES, x),
        "y": (MEASURES, y),
        "init": (KINDS, "m^-c" if power else kind),
        "width": (WIDTHS, width),
        "depth": (DEPTHS, depth),
    }
    return {"c": c} | {f"{name}_index": list(values).index(value) for name, (values, value) in of.items()}


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
