"""What the atlas says of the paper's claims: the conditions into which each is split, and the verdicts on them (see `decisions`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import groupby, product
from operator import itemgetter

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ._checks import check_choice, check_table
from .atlas import NON_LAZY, load_atlas, measured
from .convolutional_claims import convolutional_claims
from .decisions import ABOVE, BELOW, SAME, TENFOLD, Condition, decide
from .initialization import get_initialization
from .settings import KEY, SHAPES
from .theory import log_stability_at_initialization, parameter_count
from .trends import LEAST_SEEDS, at_end, at_loss, curve, ends_at_top, gaps, peak_exponent, peaks, slopes, steps

Array = NDArray[np.float64]

# Of the paper's figures.
PAPER_DEPTHS = (2, 4, 6, 8, 10)

# What is said of a claim, by whether some of its conditions are met, some are not, and some are left open.
VERDICTS = {
    (True, False, False): "holds",
    (True, False, True): "holds where decided",
    (True, True, False): "holds only in part",
    (True, True, True): "holds only in part",
    (False, True, False): "does not hold",
    (False, True, True): "does not hold where decided",
    (False, False, True): "not decided",
}


@cache
def verdicts() -> pd.DataFrame:
    """Every condition of every claim, decided on the atlas: see `decide`. Only what was measured is there."""
    return decide([condition for condition in claims() if _has_seeds(condition)])


def _has_seeds(condition: Condition) -> bool:
    """Whether each alternative has samples, and each of these enough seeds."""
    return all(parts and all(len(sample) >= LEAST_SEEDS for sample in parts) for parts in condition.alternatives or [()])


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each claim, of `decide`'s rows: item, page, claim, verdict, for each answer (yes, no, open) where it was given, and how
    many conditions there are, and how many of them are left open."""
    check_table("table", table, words=("item", "page", "claim", "where", "when", "answer"))
    rows = []
    for (item, page, claim), parts in table.groupby(["item", "page", "claim"], sort=False):
        given = {answer: _places(parts[parts.answer == answer]) for answer in ("yes", "no", "open")}
        verdict = VERDICTS[bool(given["yes"]), bool(given["no"]), bool(given["open"])]
        counts = {"conditions": len(parts), "undecided": int((parts.answer == "open").sum())}
        rows.append({"item": item, "page": page, "claim": claim, "verdict": verdict} | given | counts)
    return pd.DataFrame(rows)


def tally(claims: pd.DataFrame) -> str:
    """How many of the paper's claims hold, of `summary`'s rows, in one sentence."""
    check_table("claims", claims, "conditions", "undecided", words=("item", "verdict"))
    paper = claims[claims["item"] != "This book"]
    counts = paper.verdict.value_counts()
    single = ((paper.verdict == "holds where decided") & (paper.conditions - paper.undecided == 1)).sum()

    def of(verdict: str, one: str, more: str) -> str:
        count = int(counts.get(verdict, 0))
        return f"{count} {one if count == 1 else more}"

    return (
        f"Of the paper’s {counts.sum()} claims, {of('holds', 'holds', 'hold')} and {of('holds where decided', 'holds', 'hold')} "
        f"where the data decide ({single} of them by a single condition); {of('holds only in part', 'holds', 'hold')} only in part; "
        f"{of('does not hold', 'does', 'do')} not hold and {of('does not hold where decided', 'does', 'do')} not where the data decide; "
        f"{of('not decided', 'is', 'are')} not decided."
    )


def _places(parts: pd.DataFrame) -> str:
    """ "digits, trained to fit (L = 2, 3; all widths); …" """
    return "; ".join(f"{where} ({_listed(group.when)})" for where, group in parts.groupby("where", sort=False))


def _listed(words: Iterable[str]) -> str:
    """What differs in its last word only is said once: "L = 2", "L = 3" as "L = 2, 3"."""
    pairs = (word.rpartition(" ")[::2] for word in words)
    groups = ((head, [last for _, last in group]) for head, group in groupby(pairs, key=itemgetter(0)))
    return "; ".join(f"{head} {', '.join(lasts)}".strip() for head, lasts in groups)


def numbers(page: str) -> pd.DataFrame:
    """The conditions that one page of the book decides, as a reader wants them: with what was asked, and the value's 95 % interval."""
    table = _on(page)
    asked = [
        f"above {low:.3g}" if most == np.inf else f"below {most:.3g}" if low in (0, -np.inf) else f"{low:.3g} to {most:.3g}"
        for low, most in zip(table.least, table.most, strict=True)
    ]
    values = [f"{row.value:.3g} [{row.low:.3g}, {row.high:.3g}]" for row in table.itertuples()]
    return pd.DataFrame(
        {
            "": table["item"],
            "claim": table.claim,
            "where": table["where"] + ", " + table.when,
            "number": table.statistic,
            "value [95 %]": values,
            "asked": asked,
            "n": table.n,
            "p": [f"{p:.2g}" for p in table.p],
            "p, Holm": [f"{p:.2g}" for p in table.p_holm],
            "answer": table.answer,
        }
    ).reset_index(drop=True)


def _on(page: str) -> pd.DataFrame:
    check_choice("page", page, tuple(verdicts().page.unique()))
    return verdicts().query("page == @page")


def report(page: str) -> str:
    """The verdicts that one page of the book shows, in Markdown."""
    return bullets(summary(_on(page)))


def bullets(claims: pd.DataFrame) -> str:
    """`summary`'s rows in Markdown: of each claim its verdict, and where it got which answer; where it got none is folded away."""
    check_table("claims", claims, "conditions", "undecided", words=("item", "claim", "verdict", "yes", "no", "open"))
    lines = []
    for _, row in claims.iterrows():
        said = {"yes": "It holds for", "no": "It does not for"}
        decided = "".join(f" {words} {row[answer]}." for answer, words in said.items() if row[answer])
        lines.append(f"- **{row['item']}. {row.claim}: {row.verdict}.**{decided}\n")
        if row.open:
            head = f"Not decided: {row.undecided} of {row.conditions} conditions"
            # The empty lines make what is inside Markdown again.
            lines.append(f"  <details><summary>{head}</summary>\n\n  {row.open}\n\n  </details>\n")
    return re.sub(r"m\^-([\d.]*\d)", r"$m^{-\1}$", "\n".join(lines))


# What was trained how: a table of the atlas, and how its rows are told apart.
def settings() -> Iterator[tuple[str, pd.DataFrame]]:
    """The tables over width and depth, each with a few words on data and training."""
    names = {
        "digits": "digits, trained to fit",
        "digits_squared": "digits, trained to fit with the squared loss",
        "digits_paper": "digits, the paper’s schedule",
        "mnist": "MNIST, trained to fit",
        "mnist_paper": "MNIST, the paper’s schedule",
    }
    for name, where in names.items():
        if name in measured():
            table = load_atlas(name)
            wider = [load_atlas(other) for other in ("mnist_he_512", "mnist_wide") if name.startswith("mnist") and other in measured()]
            whole = pd.concat([table, *(of[of.decay == table.decay.iloc[0]] for of in wider)])
            yield where, whole.drop_duplicates([*KEY], ignore_index=True)


def at_equal_loss() -> Iterator[tuple[str, pd.DataFrame]]:
    """The digits over width and depth, each network as it was when its training loss first reached one of two values."""
    if "digits_depths" in measured():
        # The first lies where with two and four layers also networks of width 8 come to.
        for loss in (0.7, EQUAL_LOSS["digits, trained to fit"]):
            # They got there at different epochs.
            yield f"digits, at a loss of {loss}", at_loss(load_atlas("digits_depths"), loss).assign(epoch=0)


def two_layers() -> Iterator[tuple[str, pd.DataFrame]]:
    """Two layers, lazy and non-lazy, measured along the way; the words are keys of EQUAL_LOSS."""
    if "digits_two_layers" in measured():
        yield "digits, trained to fit", load_atlas("digits_two_layers")
    if "mnist_two_layers" in measured():
        table = load_atlas("mnist_two_layers")
        parts = {"MNIST, trained to fit": table[table.decay == 1], "MNIST, the paper’s schedule": table[table.decay != 1]}
        yield from ((where, part) for where, part in parts.items() if len(part))


def convolutional() -> Iterator[tuple[str, pd.DataFrame]]:
    """The tables of convolutional and residual networks, one kind each, with a few words on networks and data."""
    kinds = {"cnn": "CNN", "resnet": "ResNet", "scaled_resnet": "ResNet without normalization"}
    for name in ("digits_cnn", "digits_resnet", "cifar_resnet"):
        if name in measured():
            table, data = load_atlas(name), "digits" if name.startswith("digits") else "CIFAR-10, first 6,068 images"
            yield from ((f"{kinds[str(model)]}, {data}", of) for model, of in table.groupby("model", sort=False))


def claims() -> Iterator[Condition]:
    """What the theory says of networks, and the figures of Chapter 5 and Appendix E."""
    yield from _theory()
    yield from _lazy_ratio()
    yield from _width()
    yield from _depth()
    yield from _more()
    yield from convolutional_claims(convolutional())


# Training losses, cross-entropy in nats, at which to compare: as low as most networks came, and later than the first row. That of MNIST
# with the paper's schedule was chosen before there was a table, from the losses of a trial with two widths.
EQUAL_LOSS = {"digits, trained to fit": 0.2, "MNIST, trained to fit": 0.1, "MNIST, the paper’s schedule": 0.7}


def _theory() -> Iterator[Condition]:
    """Table 1 and Theorems 1 to 3, as far as networks can speak for or against them."""
    if "digits_depths" in measured():
        start = load_atlas("digits_depths").query("epoch == 0 and width == 128")
        # LeCun's networks of the same seeds are the same but for a factor.
        for depth in (2, 10):
            sample = _over_start(start[(start.init == "he") & (start.depth == depth)])
            claim, words = "The exact P before training is that of networks", "P/ε over its exact mean"
            when = f"He, m = 128, L = {depth}"
            yield Condition("This book", "setting", claim, "digits, before training", when, words, ((sample,),), SAME, ratio=True)
    for where, table in settings():
        # At m = 256 these are beyond Theorem 1's transition (`theory.plateau_width`), deeper ones are not.
        for depth in (2, 3):
            wide = at_end(table).query("init == 'he' and width == 256 and depth == @depth and not untrained and not diverged")
            if wide.init_seed.nunique() >= LEAST_SEEDS:
                claim, words = "Wide networks end with the P they began with", "P/ε over its exact mean before training"
                sample = _over_start(wide)
                yield Condition("This book", "lazy", claim, where, f"He, m = 256, L = {depth}", words, ((sample,),), SAME, ratio=True)
    for where, table in two_layers():
        for init in ("m^-2", "m^-2.5"):
            of = curve(at_end(table[table.init == init]), "width", "lazy_ratio")
            samples = tuple(row.dropna().to_numpy() for _, row in of.iterrows())
            claim, words = "From starts as small as m⁻² the weights move by more than their length", "κ"
            yield Condition("Theorem 2", "non_lazy", claim, where, f"{init}, all widths", words, (samples,), ABOVE, ratio=True)
    for where, table in two_layers():
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
    exact = log_stability_at_initialization(
        one.init, inputs=data.channels * data.side**2, width=int(one.width), depth=int(one.depth), outputs=data.classes
    )
    return np.asarray(np.log(table.groupby("init_seed").stability.mean()) - exact)


def _lazy_ratio() -> Iterator[Condition]:
    """Figs. 2 and 3: κ in time and against width."""
    page = "experiments_lazy_ratio"
    for where, table in two_layers():
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
    for where, table in two_layers():
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


def _width() -> Iterator[Condition]:
    """Figs. 4a and 4b: P/ε against width."""
    page = "experiments_width"
    for where, table in settings():
        he = table[table.init == "he"]
        for depth in sorted(set(he.depth)):
            of = curve(he[he.depth == depth], "width")
            claim = "He: P rises and then falls with width"
            yield Condition("Fig. 4a", page, claim, where, f"L = {depth}", *_peak(of, "width"))
        depths, exponents = peak_exponent({depth: curve(he[he.depth == depth], "width") for depth in sorted(set(he.depth))})
        if len(exponents):
            claim, words = "The peak lies at a width of order L³", "exponent of the peak’s width in L"
            when = f"L = {', '.join(map(str, depths))}"
            yield Condition("Theorem 1", page, claim, where, when, words, ((exponents,),), (2.5, 3.5))
    yield from _regimes()
    for where, table in at_equal_loss():
        for init in ("he", "lecun"):
            for depth in sorted(set(table.depth)):
                of = curve(table[(table.init == init) & (table.depth == depth)], "width")
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


def _peak(of: pd.DataFrame, x: str) -> tuple[str, tuple[tuple[Array, ...], ...], tuple[float, float], bool, bool]:
    """Of a condition that a curve rises and then falls: its last five fields. One that ends at its top may fall beyond."""
    return f"P/ε at an inner {x} less that at either end", peaks(of), ABOVE, False, ends_at_top(of)


def _regimes() -> Iterator[Condition]:
    """The paper's abstract: width on either side of as many weights as training images; Section 1: and in the end."""
    for where, table in settings():
        shape = SHAPES[table.dataset.iloc[0]]
        for depth in PAPER_DEPTHS:
            of = curve(table[(table.init == "he") & (table.depth == depth)], "width")
            weights = parameter_count(inputs=shape.channels * shape.side**2, width=of.index, depth=depth, outputs=shape.classes)
            words = "P/ε from one width to the next"
            for claim, part, bounds in (
                ("Fewer weights than images: P rises with width", of[weights < shape.images], ABOVE),
                ("More weights than images: P falls with width", of[weights > shape.images], BELOW),
            ):
                samples = (steps(part),)
                yield Condition("Abstract", "experiments_width", claim, where, f"He, L = {depth}", words, samples, bounds, ratio=True)
            claim = "In the last doubling of the width P changes by less than a quarter"
            words = "P/ε at the largest width over that at half of it"
            last = (steps(of.iloc[-2:]),) if len(of) > 1 else ()
            yield Condition("Section 1", "experiments_width", claim, where, f"He, L = {depth}", words, last, SAME, ratio=True)


def at_equal_epochs_and_loss() -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The tables of `two_layers` twice: at the end, and when the training loss first reached EQUAL_LOSS."""
    for where, table in two_layers():
        yield where, f"after {table.epoch.max()} epochs", at_end(table)
        yield where, f"at a loss of {EQUAL_LOSS[where]}", at_loss(table, EQUAL_LOSS[where])


def _depth() -> Iterator[Condition]:
    """Figs. 5a and 5b: P/ε against depth."""
    claims = (("Fig. 5a", "he", "He: P rises with depth", ABOVE), ("Fig. 5b", "lecun", "LeCun: P falls with depth", BELOW))
    tables = [*settings(), *at_equal_loss()]
    for item, init, claim, bounds in claims:
        for where, table in tables:
            for width in (16, 64, 256):
                of = curve(table[(table.init == init) & (table.width == width)], "depth")
                if len(of) > 2:
                    when, words = f"m = {width}", "P/ε from L to L + 1, by a straight line through log P/ε"
                    yield Condition(item, "experiments_depth", claim, where, when, words, ((slopes(of),),), bounds, ratio=True)

    for where, table in tables:
        for init in ("he", "lecun"):
            of = curve(table[(table.init == init) & (table.width == 64)], "depth")
            if len(of) > 2:
                claim, when = "P rises and then falls with depth", f"{get_initialization(init).label}, m = 64"
                yield Condition("Conclusions", "experiments_depth", claim, where, when, *_peak(of, "depth"))
    for where, table in settings():
        for depth in PAPER_DEPTHS:
            of = curve(table[(table.init == "lecun") & (table.depth == depth)], "width")
            claim = "LeCun: P rises and then falls with width"
            yield Condition("Fig. 5b", "experiments_depth", claim, where, f"L = {depth}", *_peak(of, "width"))


def _more() -> Iterator[Condition]:
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
    for where, table in two_layers():
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
                yield Condition("Fig. 10", "more_ntk", claim, where, f"L = {depth}", *_peak(ntk, "width"))


def with_ntk() -> Iterator[tuple[str, pd.DataFrame]]:
    """The tables of `settings` that know NTK, too."""
    for where, table in settings():
        if "ntk" in set(table.init):
            yield where, table
        elif where.startswith("MNIST") and "mnist_ntk" in measured():
            ntk = load_atlas("mnist_ntk")
            ntk = ntk[ntk.decay == table.decay.iloc[0]]
            if len(ntk):
                yield where, pd.concat([table, ntk])
