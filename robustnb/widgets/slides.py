"""Figures to slide through: one drawn for each value, all in the page, so that the slider needs no kernel."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from html import escape
from typing import TypeVar

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

T = TypeVar("T")


def slides(description: str, options: Sequence[tuple[str, T]], draw: Callable[[T], tuple[Figure, str]]) -> ipywidgets.Widget:
    """A slider over `options`, (label, value) pairs, that shows for each the figure that `draw(value)` returned.

    draw returns a matplotlib figure and its alternative text. Every figure is drawn now and travels with the page.
    """
    pictures = [_picture(*draw(value)) for _, value in options]
    slider = ipywidgets.SelectionSlider(
        options=[label for label, _ in options],
        description=description,
        layout={"width": "min(100%, 30em)"},
        style={"description_width": "initial"},
    )
    stack = ipywidgets.Stack(pictures, selected_index=0)
    ipywidgets.jslink((slider, "index"), (stack, "selected_index"))
    return ipywidgets.VBox([slider, stack])


def _picture(figure: Figure, alt: str) -> ipywidgets.HTML:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    source = base64.b64encode(buffer.getvalue()).decode()
    return ipywidgets.HTML(f'<img class="rnb-slide" style="max-width: 100%" alt="{escape(alt)}" src="data:image/svg+xml;base64,{source}">')
