"""Figures to slide through: one drawn for each value, all in the page, so that the slider needs no kernel."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Any, TypeVar, cast

import ipywidgets
import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from .._checks import shown

T = TypeVar("T")


def slides(description: str, options: Sequence[tuple[str, T]], draw: Callable[[T], tuple[Figure, str]]) -> ipywidgets.Widget:
    """A slider over `options`, (label, value) pairs, that shows for each the figure that `draw(value)` returned.

    draw returns a matplotlib figure and its alternative text. Every figure is drawn now and travels with the page.
    """
    if not isinstance(description, str):
        raise TypeError(f"description must be a text, not {shown(description)}.")
    pairs = isinstance(options, Sequence) and all(
        isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in options
    )
    if not pairs or not options:
        raise TypeError(f"options must hold pairs (label, value), at least one, not {shown(options)}.")
    if not callable(draw):
        raise TypeError(f"draw must be a function of one value, not {shown(draw)}.")
    pictures = [_picture(*draw(value)) for _, value in options]
    slider = ipywidgets.SelectionSlider(
        options=[label for label, _ in options],
        description=description,
        layout={"width": "min(100%, 40em)"},
        style={"description_width": "initial"},
    ).add_class("rnb-slides")
    stack = ipywidgets.Stack(pictures, selected_index=0)
    ipywidgets.jslink((slider, "index"), (stack, "selected_index"))
    return ipywidgets.VBox([slider, stack])


# Text stays text: glyphs as paths would be half of each picture. Verdana has nearly the widths of matplotlib's own font.
AS_TEXT: Any = {"svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"]}


def _picture(figure: Figure, alt: str) -> ipywidgets.HTML:
    buffer, canvas = io.StringIO(), cast(Any, FigureCanvasSVG(figure))
    with mpl.rc_context(AS_TEXT):
        # savefig would draw it twice, first for the layout, which the second time finds for itself.
        canvas.print_svg(buffer, metadata={"Date": None})
    plt.close(figure)
    # As text, and with single quotes: so the page's compression sees what its pictures have in common.
    source = compact_svg(buffer.getvalue()).replace('"', "'")
    for character, code in (("%", "%25"), ("#", "%23"), ("&", "%26")):
        source = source.replace(character, code)
    return ipywidgets.HTML(f'<img class="rnb-slide" style="max-width: 100%" alt="{escape(alt)}" src="data:image/svg+xml,{source}">')


def compact_svg(svg: str) -> str:
    """matplotlib's picture in less than half the bytes: tenths of a point, the fonts named once, without comments, layout, groups
    and names that say nothing.

    Numbers below 1 stay, since they scale. In a compressed page a picture below 32 kB hardly costs more than its difference
    from the one before.
    """
    for pattern, short in (
        (r"<!--.*?-->|<metadata>.*?</metadata>|<\?xml.*?\?>|<!DOCTYPE.*?>", ""),
        (r">\s+<", "><"),
    ):
        svg = re.sub(pattern, short, svg, flags=re.DOTALL)
    svg = re.sub(r"<[^>]*>", lambda tag: _compact_tag(tag[0]), svg)
    # Markers and frames are named by hashes: a number for each.
    names: dict[str, str] = {}
    svg = re.sub(r'(?<=["#])[mp][0-9a-f]{10}(?=[")])', lambda name: names.setdefault(name[0], f"{name[0][0]}{len(names)}"), svg)
    return _without_bare_groups(svg.replace("</style>", "text{font-family:DejaVu Sans,Verdana,sans-serif}</style>", 1)).strip()


def _compact_tag(tag: str) -> str:
    for pattern, short in (
        (r"(?<![\d.])([1-9]\d*\.\d)\d+", r"\1"),
        (r"(\d)\.0(?=[ \n\"')])", r"\1"),
        (r"\s+", " "),
        (r'(?<=<g) id="[^"]*"', ""),
        (r"xlink:href", "href"),
        (r"font-family: [^;\"]*;? ?", ""),
        (r' transform="rotate\(-0 [^)]*\)"', ""),
        (r" (?=[MLQCz] )|(?<=[MLQC]) |(?<=[;:]) ", ""),
    ):
        tag = re.sub(pattern, short, tag)
    return tag


def _without_bare_groups(svg: str) -> str:
    """The same without groups that say nothing of what is in them."""
    kept: list[bool] = []

    def shorten(tag: re.Match[str]) -> str:
        if tag[0] != "</g>":
            kept.append(tag[0] != "<g>")
        return tag[0] if (kept[-1] if tag[0] != "</g>" else kept.pop()) else ""

    return re.sub(r"<g>|<g [^>]*>|</g>", shorten, svg)
