"""The paper's claims, and the book's own, split into conditions that the atlas decides (see `decisions`)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pandas as pd

from ._checks import Array
from .atlas import NON_LAZY, load_atlas, measured
from .convolutional_claims import convolutional_claims
from .decisions import ABOVE, BELOW, SAME, TENFOLD, Condition, rise_and_fall
from .evidence import PAPER_DEPTHS, at_equal_epochs_and_loss, at_equal_loss, convolutional, settings, two_layers, with_ntk
from .initialization import get_initialization
from .settings import SHAPES
from .theory import log_stability_at_initialization, parameter_count
from .trends import LEAST_SEEDS, at_end, curve, gaps, peak_exponent, slopes, steps

# As `evidence` gives them, each with a few words on data and training.
Tables = tuple[tuple[str, pd.DataFrame], ...]


def claims() -> Iterator[Condition]:
    """What the theory says of networks, and the figures of Chapter 5 and Appendix E."""
    widths_and_depths, equal, two = tuple(settings()), tuple(at_equal_loss()), tuple(two_layers())
    yield from _theory(widths_and_depths, two)
    yield from _lazy_ratio(two)
    yield from _width(widths_and_depths, equal)
    yield from _depth(widths_and_depths, equal)
    yield from _more(two)
    yield from convolutional_claims(convolutional())


def _theory(tables: Tables, two: Tables) -> Iterator[Condition]:
    """Table 1 and Theorems 1 to 3, as far as networks can speak for or against them."""
    if "digits_depths" in measured():
        start = load_atlas("digits_depths").query("epoch == 0 and width == 128")
        # LeCun's networks of the same seeds are the same but for a factor.
        for depth in (2, 10):
            sample = _over_start(start[(start.init == "he") & (start.depth == depth)])
            claim, words = "The exact P before training is that of networks", "P/ε over its exact mean"
            when = f"He, m = 128, L = {depth}"
            yield Condition("This book", "setting", claim, "digits, before training", when, words, ((sample,),), SAME, ratio=True)
    for where, table in tables:
        # At m = 256 these are beyond Theorem 1's transition (`theory.plateau_width`), deeper ones are not.
        for depth in (2, 3):
            wide = at_end(table).query("init == 'he' and width == 256 and depth == @depth and not untrained and not diverged")
            if wide.init_seed.nunique() >= LEAST_SEEDS:
                claim, words = "Wide networks end with the P they began with", "P/ε over its exact mean before training"
                sample = _over_start(wide)
                yield Condition("This book", "lazy", claim, where, f"He, m = 256, L = {depth}", words, ((sample,),), SAME, ratio=True)
    for where, table in two:
        for init in ("m^-2", "m^-2.5"):
            of = curve(at_end(table[table.init == init]), "width", "lazy_ratio")
            samples = tuple(row.dropna().to_numpy() for _, row in of.iterrows())
            claim, words = "From starts as small as m⁻² the weights move by more than their length", "κ"
            yield Condition("Theorem 2", "non_lazy", claim, where, f"{init}, all widths", words, (samples,), ABOVE, ratio=True)
    for where, table in two:
        first = int(table.epoch[table.epoch > 0].min())
        # What is untrained belongs here. Early means: before half of the loss of the output 0 is gone, at a width.
        early = table[(table.epoch == first) & ~table.diverged.astype(bool)]
        early = early[early.groupby(["init", "width"]).train_loss.transform("mean") > np.log(10) / 2]
        for init in ("m^-1.5", "m^-2", "m^-2.5"):
            of = early[early.init == init].pivot_table("stability", "width", "init_seed").apply(np.log)
            if len(of) > 1:
                claim, words, when = "Early in non-lazy training P falls with width", "exponent of P/ε in m", f"{init}, epoch {first}"
                yield Condition("Theorem 3", "early_training", claim, where, when, words, ((slopes(of, log=True),),), BELOW)


def _over_start(table: pd.DataFrame) -> Array:
    """log of P/ε over its exact mean before training, for networks of one initialization and shape: a number for each seed."""
    one = table.iloc[0]
    data = SHAPES[one.dataset]
    exact = log_stability_at_initialization(one.init, inputs=data.inputs, width=int(one.width), depth=int(one.depth), outputs=data.classes)
    return np.asarray(np.log(table.groupby("init_seed").stability.mean()) - exact)


def _lazy_ratio(two: Tables) -> Iterator[Condition]:
    """Figs. 2 and 3: κ in time and against width."""
    page = "experiments_lazy_ratio"
    for where, table in two:
        end = int(table.epoch.max())
        half = min(table.epoch, key=lambda epoch: abs(2 * epoch - end))
        for width in (8, 64, 512):
            of = curve(table[(table.init == "he") & (table.width == width)], "epoch", "lazy_ratio")
            change = steps(of[of.index.isin((half, end))])
            words = f"κ after {end} epochs over κ after {half}"
            claim = "He: κ changes by less than a quarter in the second half of training"
            yield Condition("Fig. 2a", page, claim, where, f"m = {width}", words, (change,), SAME, ratio=True)
        # κ is 0 before training; and only at a constant rate, as in the first ten epochs, may one expect a straight line.
        steady = table[(table.width == 64) & (table.epoch > 0) & ((table.decay == 1) | (table.epoch <= 10))]
        for init in NON_LAZY:
            of = curve(steady[steady.init == init], "epoch", "lazy_ratio")
            if len(of) > 1:
                claim, words = "Non-lazy: κ grows about linearly in time", "exponent of κ in the epoch"
                yield Condition("Fig. 3a", page, claim, where, f"{init}, m = 64", words, ((slopes(of, log=True),),), (0.8, 1.2))
    for where, table in two:
        last = at_end(table)
        lazy = curve(last[last.init == "he"], "width", "lazy_ratio")
        words = "κ from one width to the next"
        yield Condition("Fig. 2b", page, "He: κ falls with width", where, "all widths", words, (steps(lazy),), BELOW, ratio=True)
        for init in NON_LAZY:
            of = curve(last[last.init == init], "width", "lazy_ratio")
            higher = gaps(of, lazy)
            claim = "Non-lazy: κ is more than ten times that of He"
            yield Condition("Fig. 3b", page, claim, where, init, "κ over κ under He, all widths", (higher,), TENFOLD, ratio=True)
            claim = "Non-lazy: κ falls with width, as under He"
            yield Condition("Fig. 3b", page, claim, where, init, words, (steps(of),), BELOW, ratio=True)


def _width(tables: Tables, equal: Tables) -> Iterator[Condition]:
    """Figs. 4a and 4b: P/ε against width."""
    page = "experiments_width"
    lines = {where: _by_depth(table[table.init == "he"]) for where, table in tables}
    for where, curves in lines.items():
        for depth, of in curves.items():
            claim = "He: P rises and then falls with width"
            yield Condition("Fig. 4a", page, claim, where, f"L = {depth}", **rise_and_fall(of, "width"))
        depths, exponents = peak_exponent(curves)
        if len(exponents):
            claim, words = "The peak lies at a width of order L³", "exponent of the peak’s width in L"
            when = f"L = {', '.join(map(str, depths))}"
            yield Condition("Theorem 1", page, claim, where, when, words, ((exponents,),), (2.5, 3.5))
    for where, table in tables:
        yield from _regimes(where, table.dataset.iloc[0], lines[where])
    for where, table in equal:
        for init in ("he", "lecun"):
            for depth, of in _by_depth(table[table.init == init]).items():
                claim, words = "At an equal loss P falls with width", f"P/ε from one width to the next, from m = {of.index.min()} on"
                when = f"{get_initialization(init).label}, L = {depth}"
                yield Condition("This book", page, claim, where, when, words, (steps(of),), BELOW, ratio=True)
    for where, when, table in at_equal_epochs_and_loss():
        lazy = curve(table[table.init == "he"], "width")
        for init in NON_LAZY:
            of = curve(table[table.init == init], "width")
            claim, words = "Non-lazy: P is below that of He", "P/ε over that under He, all widths"
            yield Condition("Fig. 4b", page, claim, where, f"{when}, {init}", words, (gaps(of, lazy),), BELOW, ratio=True)
            # Fig. 4b has the paper's typical case, Fig. 9 the others.
            item, shown = ("Fig. 4b", page) if init == "m^-2" else ("Fig. 9", "more_non_lazy")
            claim, words = "Non-lazy: P falls with width", "P/ε from one width to the next"
            yield Condition(item, shown, claim, where, f"{when}, {init}", words, (steps(of),), BELOW, ratio=True)


def _by_depth(table: pd.DataFrame) -> dict[int, pd.DataFrame]:
    """P/ε against width, a curve for each depth."""
    return {depth: curve(table[table.depth == depth], "width") for depth in sorted(set(table.depth))}


def _regimes(where: str, dataset: str, curves: dict[int, pd.DataFrame]) -> Iterator[Condition]:
    """The paper's abstract: width on either side of as many weights as training images; Section 1: and in the end."""
    data = SHAPES[dataset]
    for depth in sorted({*PAPER_DEPTHS} & {*curves}):
        of = curves[depth]
        weights = parameter_count(inputs=data.inputs, width=of.index, depth=depth, outputs=data.classes)
        words = "P/ε from one width to the next"
        for claim, part, bounds in (
            ("Fewer weights than images: P rises with width", of[weights < data.images], ABOVE),
            ("More weights than images: P falls with width", of[weights > data.images], BELOW),
        ):
            samples = (steps(part),)
            yield Condition("Abstract", "experiments_width", claim, where, f"He, L = {depth}", words, samples, bounds, ratio=True)
        claim = "In the last doubling of the width P changes by less than a quarter"
        if len(of) > 1:
            words = f"P/ε at m = {of.index[-1]} over that at m = {of.index[-2]}"
            last = (steps(of.iloc[-2:]),)
            yield Condition("Section 1", "experiments_width", claim, where, f"He, L = {depth}", words, last, SAME, ratio=True)


def _depth(tables: Tables, equal: Tables) -> Iterator[Condition]:
    """Figs. 5a and 5b: P/ε against depth."""
    claims = (("Fig. 5a", "he", "He: P rises with depth", ABOVE), ("Fig. 5b", "lecun", "LeCun: P falls with depth", BELOW))
    for item, init, claim, bounds in claims:
        for where, table in (*tables, *equal):
            for width in (16, 64, 256):
                of = curve(table[(table.init == init) & (table.width == width)], "depth")
                if len(of) > 2:
                    when, words = f"m = {width}", "P/ε from L to L + 1, by a straight line through log P/ε"
                    yield Condition(item, "experiments_depth", claim, where, when, words, ((slopes(of),),), bounds, ratio=True)

    for where, table in (*tables, *equal):
        for init in ("he", "lecun"):
            of = curve(table[(table.init == init) & (table.width == 64)], "depth")
            if len(of) > 2:
                claim, when = "P rises and then falls with depth", f"{get_initialization(init).label}, m = 64"
                yield Condition("Conclusions", "experiments_depth", claim, where, when, **rise_and_fall(of, "depth"))
    for where, table in tables:
        for depth in PAPER_DEPTHS:
            of = curve(table[(table.init == "lecun") & (table.depth == depth)], "width")
            claim = "LeCun: P rises and then falls with width"
            yield Condition("Fig. 5b", "experiments_depth", claim, where, f"L = {depth}", **rise_and_fall(of, "width"))


def _more(two: Tables) -> Iterator[Condition]:
    """Figs. 6, 9 and 10."""
    if "mnist_long" in measured():
        table = load_atlas("mnist_long")
        changes = (
            ("accuracy", "test_accuracy", "test accuracy after 200 epochs less that after 50", (-0.01, 0.01)),
            ("loss", "train_loss", "training loss after 200 epochs over that after 50", SAME),
        )
        for (name, column, words, bounds), (width, depth) in product(changes, ((32, 4), (64, 8))):
            shape = table[(table.width == width) & (table.depth == depth) & table.epoch.isin((50, 200))]
            of = shape.pivot(index="epoch", columns="init_seed", values=column)
            claim, when, ratio = f"The {name} hardly changes after epoch 50", f"m = {width}, L = {depth}", name == "loss"
            samples = (steps(of.apply(np.log) if ratio else of),)
            yield Condition("Fig. 6", "more_epochs", claim, "MNIST, the paper’s schedule", when, words, samples, bounds, ratio)
    for where, table in two:
        last = at_end(table[table.width == 128])
        least = curve(last[last.init == "m^-2.5"], "width")
        for init, exponent in (("m^-1", -3), ("m^-1.5", -2)):
            for difference in gaps(least, curve(last[last.init == init], "width")):
                # m^(1 − 2c), the order of Section 4.3's bound at a fixed early time.
                share = difference / (exponent * np.log(128))
                claim, words = "Non-lazy initializations differ less than powers of m", "share of m^(1 − 2c) between the two"
                when = f"m = 128, {init} and m^-2.5"
                yield Condition("Fig. 9", "more_non_lazy", claim, where, when, words, ((share,),), (-np.inf, 1.0))
    for where, table in with_ntk():
        for depth in sorted(set(table.depth)):
            he, ntk = (curve(table[(table.init == init) & (table.depth == depth)], "width") for init in ("he", "ntk"))
            # At the widths that all seeds have.
            mean = (ntk - he).dropna(axis=1, how="all").dropna().mean().to_numpy()
            words = "P/ε over that under He, geometric mean over widths"
            if depth == 2:
                claim, words, either = "NTK: at L = 2 P is unlike that under He", f"{words}, or its inverse", ((mean,), (-mean,))
                yield Condition("Fig. 10", "more_ntk", claim, where, "L = 2", words, either, (SAME[1], np.inf), ratio=True)
            else:
                claim = "NTK: P is like that under He"
                yield Condition("Fig. 10", "more_ntk", claim, where, f"L = {depth}", words, ((mean,),), SAME, ratio=True)
            if depth in PAPER_DEPTHS:
                claim = "NTK: P rises and then falls with width"
                yield Condition("Fig. 10", "more_ntk", claim, where, f"L = {depth}", **rise_and_fall(ntk, "width"))
