"""Sentences that the pages type about measured tables: each is on its page as quoted, and the committed tables bear it out.

A test a page, or a part of one, in the files test_sentences_*.py. `says` looks up the quotations, so that a sentence cannot change
without its test; what follows it is what the sentence claims. Numbers in sentences are computed on the pages themselves and need no
test there.
"""

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from robustnb import theory, trends
from robustnb.atlas import load_atlas

BOOK = Path(__file__).parents[2] / "book"
DEPTHS = [2, 3, 4, 5, 6, 8, 10]


@cache
def text(page):
    """What a page's source says, alternative texts of its figures included, as one line."""
    path = BOOK / page
    if path.suffix == ".md":
        parts = [path.read_text(encoding="utf-8")]
    else:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        parts = ["".join(cell["source"]) for cell in cells]
        parts += [cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "") for cell in cells]
    return re.sub(r"\s+", " ", " ".join(parts))


def says(page, *sentences):
    for sentence in sentences:
        assert sentence in text(page), f"{page} no longer says: {sentence}"


def means(table, init, *, value="stability", seeds=8, model="fcn"):
    """Mean of one column: a row a depth, a column a width."""
    rows = table[(table.init == init) & (table.init_seed < seeds) & (table.model == model)]
    return rows.pivot_table(value, index="depth", columns="width")


def ntk_over_he(table):
    """P/ε under NTK over that under He, at the widths that all seeds have: a row a depth, a column a width; geometric means over seeds."""
    rows = {}
    for depth in DEPTHS:
        of = table[table.depth == depth]
        ntk, he = (trends.curve(of[of.init == init], "width") for init in ("ntk", "he"))
        rows[depth] = (ntk - he).dropna(axis=1, how="all").dropna().mean(axis=1).pipe(np.exp)
    return pd.DataFrame(rows).T


@cache
def digits():
    return load_atlas("digits")


def before(init, **shape):
    return theory.stability_at_initialization(init, inputs=64, outputs=10, **shape)
