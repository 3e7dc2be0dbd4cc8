"""What the atlas says of the paper's claims on convolutional and residual networks, as conditions for `decisions`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pandas as pd

from .atlas import load_atlas
from .decisions import ABOVE, Condition, rise_and_fall
from .settings import SHAPES
from .trends import at_end, curve, slopes

# What is called a similar accuracy.
SIMILAR = (-0.02, 0.02)


def convolutional_claims(tables: Iterable[tuple[str, pd.DataFrame]]) -> Iterator[Condition]:
    """Figs. 7 and 8, and Table 4, on tables as `evidence.convolutional` gives them."""
    for where, table in tables:
        last = at_end(table)
        yield from _deeper_is_less_stable(where, last[last.init == "he"])
        if where.startswith("CNN"):
            if where.endswith("digits"):
                yield from _beside_fully_connected(where, last)
        else:
            yield from _peak_of_residual_networks(where, last[last.init == "he"])
            yield from _similar_accuracy(where, last)


def _deeper_is_less_stable(where: str, he: pd.DataFrame) -> Iterator[Condition]:
    item, page = ("Fig. 7", "more_convolutional") if where.startswith("CNN") else ("Fig. 8", "more_residual")
    claim = f"{where.split(maxsplit=1)[0].strip(',')}: P rises with depth"
    for width in sorted(set(he.width)):
        of = curve(he[he.width == width], "depth")
        if len(of) > 2:
            words = "P/ε from L to L + 1, by a straight line through log P/ε"
            yield Condition(item, page, claim, where, f"m = {width}", words, ((slopes(of),),), ABOVE, ratio=True)


def _beside_fully_connected(where: str, last: pd.DataFrame) -> Iterator[Condition]:
    """Fig. 7: what depth changes in convolutional networks, over what it changes in those of the digits' first table."""
    dense = at_end(load_atlas("digits"))
    dense = dense[dense.init_seed.isin(last.init_seed)]
    for width in (8, 16, 32):
        of, other = (curve(each[(each.init == "he") & (each.width == width)], "depth") for each in (last, dense))
        shared = of.index.intersection(other.index)
        if len(shared) > 1:
            low, high = shared[0], shared[-1]
            more = ((of.loc[high] - of.loc[low]) - (other.loc[high] - other.loc[low])).dropna().to_numpy()
            claim = "Depth matters more than in fully connected networks"
            words = f"P/ε at L = {high} over that at L = {low}, over the same ratio of FCN"
            yield Condition("Fig. 7", "more_convolutional", claim, where, f"m = {width}", words, ((more,),), ABOVE, ratio=True)


def _peak_of_residual_networks(where: str, he: pd.DataFrame) -> Iterator[Condition]:
    for depth in sorted(set(he.depth)):
        of = curve(he[he.depth == depth], "width")
        claim = "ResNet: P rises and then falls with width"
        yield Condition("Fig. 8", "more_residual", claim, where, f"L = {depth}", **rise_and_fall(of, "width"))


def _similar_accuracy(where: str, last: pd.DataFrame) -> Iterator[Condition]:
    """Table 4: non-lazy networks beside those under He of the same shape and seed; one that diverged answers as chance does."""
    chance = 1 / SHAPES[last.dataset.iloc[0]].classes
    accuracy = last.assign(accuracy=last.test_accuracy.fillna(chance)).set_index(["init", "width", "depth", "init_seed"]).accuracy
    for init in ("m^-1", "m^-2"):
        if {"he", init} <= set(last.init):
            for depth, gap in (accuracy[init] - accuracy["he"]).dropna().groupby("depth"):
                claim, words = "Non-lazy training reaches a similar accuracy", "accuracy on test data less that under He"
                yield Condition("Table 4", "more_accuracy", claim, where, f"{init}, L = {depth}", words, ((gap.to_numpy(),),), SIMILAR)
