"""The book's figures: one function a figure, drawn from tidy tables, in one palette."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.rcsetup import cycler
from matplotlib.ticker import NullFormatter, NullLocator
from matplotlib_inline.backend_inline import set_matplotlib_formats

from . import theory
from ._checks import check_choice, check_count, check_counts, check_one_setting, check_table, shown
from .initialization import get_initialization
from .settings import KEY

# Okabe and Ito's colours, safe for colour-blind readers, with a marker for each; shared with the widgets.
COLORS = {
    "he": "#0072B2",
    "lecun": "#D55E00",
    "ntk": "#009E73",
    "m^-1": "#CC79A7",
    "m^-1.5": "#A97800",
    "m^-2": "#56B4E9",
    "m^-2.5": "#757575",
}
MARKERS = {"he": "o", "lecun": "s", "ntk": "^", "m^-1": "D", "m^-1.5": "v", "m^-2": "P", "m^-2.5": "X"}
SEQUENCE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#A97800", "#56B4E9")

AXIS_LABELS = {
    "stability": r"$P/\epsilon$ (larger = less stable)",
    "lazy_ratio": r"lazy training ratio $\kappa$",
    "test_accuracy": "accuracy on test data",
    "train_loss": "training loss (cross-entropy, nats)",
    "train_accuracy": "accuracy on training data",
    "epoch": "epochs of training",
    "width": "width $m$ (neurons in a layer)",
    "depth": "depth $L$ (weight matrices)",
}


def use_style() -> None:
    """The book's style: figures as vectors, with a light grid, in the palette; tables whose words are not cut. Call once a notebook."""
    set_matplotlib_formats("svg")
    pd.set_option("display.max_colwidth", None)
    mpl.rcParams.update(
        {
            # On a log axis 0.2 and 20 are plain numbers; from 100 and 0.01 on they are powers of ten.
            "axes.formatter.min_exponent": 2,
            "axes.grid": True,
            "axes.prop_cycle": cycler(color=SEQUENCE),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "figure.constrained_layout.use": True,
            "figure.figsize": (7.2, 4.0),
            "font.size": 11,
            "grid.alpha": 0.3,
            "legend.frameon": False,
            # The same bytes for the same figure, so that the rendered book can be compared.
            "svg.hashsalt": "robustnb",
        }
    )


def over_seeds(table: pd.DataFrame, by: str | list[str], value: str = "stability") -> pd.DataFrame:
    """Mean, standard error and number n of seeds of one measured column, for each setting; runs that diverged are left out.

    Columns: those of `by`, then mean, error, n, and untrained, the number of those n that have mostly learned nothing
    (`is_untrained`). The seeds are those of the initialization, each averaged over its batch orders; the error is over them (NaN
    for a single one). Raises ValueError if networks of several settings would be averaged.
    """
    by = [by] if isinstance(by, str) else by
    if not isinstance(by, list) or not by:
        raise TypeError(f"by must name a column or hold a list of names, not {shown(by)}.")
    check_table("table", table, "untrained", "diverged", words=(*by, "init_seed"))
    check_table("table", table, value)
    kept = table[~table.diverged.astype(bool)]
    check_one_setting(kept, KEY, by)
    seeds = kept.groupby([*by, "init_seed"])[[value, "untrained"]].mean().assign(untrained=lambda of: of.untrained > 0.5)
    groups = seeds.groupby(by)
    summary = groups[value].agg(mean="mean", error="sem", n="count")
    return summary.assign(untrained=groups["untrained"].sum().astype(int)).reset_index()


def against(axes: Axes, table: pd.DataFrame, x: str, value: str = "stability", *, label: str = "", **style: Any) -> pd.DataFrame:
    """Draw mean ± 2 standard errors over seeds of one column against "width", "depth" or "epoch"; returns what was drawn.

    A hollow marker says that most of the seeds there are untrained.
    """
    _check_axes(axes)
    check_choice("x", x, ("width", "depth", "epoch"))
    summary = over_seeds(table, x, value)
    if summary.empty:
        raise ValueError("table must hold at least one network that did not diverge, not none.")
    n = sorted(set(summary.n))
    seeds = f"n = {n[0]}" if len(n) == 1 else f"n = {n[0]} to {n[-1]}"
    look: dict[str, Any] = {"marker": "o", "markersize": 5} | style
    (line,) = axes.plot(summary[x], summary["mean"], label=f"{label} ({seeds})".strip(), **look)
    hollow = summary[2 * summary.untrained > summary.n]
    axes.plot(hollow[x], hollow["mean"], **(look | {"linestyle": "none", "color": line.get_color(), "markerfacecolor": "white"}))
    low = summary["mean"] - 2 * summary["error"]
    if not value.endswith("accuracy"):
        # On a log axis a band cannot reach below zero; it ends at a tenth of the mean.
        low = low.clip(lower=summary["mean"] / 10)
    axes.fill_between(summary[x], low, summary["mean"] + 2 * summary["error"], color=line.get_color(), alpha=0.18, linewidth=0)
    axes.set_xlabel(AXIS_LABELS[x])
    axes.set_ylabel(AXIS_LABELS.get(value, ""))
    if x == "width":
        width_axis(axes, sorted(set(table.width)))
    return summary


def _check_axes(axes: Any) -> None:
    if not isinstance(axes, Axes):
        raise TypeError(f"axes must be matplotlib Axes, not {shown(axes)}.")


def _check_widths(widths: Any) -> None:
    if check_counts("widths", widths, ndim=1).ndim > 1:
        raise ValueError(f"widths must be one row of whole numbers, not {shown(widths)}.")


def width_axis(axes: Axes, widths: Sequence[int]) -> None:
    """A log axis of widths, with a tick at each power of two that was measured."""
    _check_axes(axes)
    _check_widths(widths)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(widths), [str(width) for width in widths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def exact_at_initialization(axes: Axes, init: str, widths: Sequence[int], depth: int, *, inputs: int, outputs: int, **style: Any) -> None:
    """Draw the exact P/ε before training against width, as a dashed line."""
    _check_axes(axes)
    _check_widths(widths)
    check_count("depth", depth, least=2)
    value = theory.stability_at_initialization(init, inputs=inputs, width=widths, depth=depth, outputs=outputs)
    axes.plot(widths, value, **({"linestyle": "--", "label": "exact, before training"} | style))


def init_style(init: str) -> dict[str, Any]:
    """Colour, marker and label of an initialization's curve, the same in every figure."""
    check_choice("init", init, tuple(COLORS))
    return {"color": COLORS[init], "marker": MARKERS[init], "label": get_initialization(init).label}
