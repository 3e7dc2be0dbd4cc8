"""What the atlas says of the paper's claims: the conditions into which each is split, and the verdicts on them (see `decisions`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import groupby
from operator import itemgetter

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ._checks import check_choice, check_table
from .atlas import NON_LAZY, load_atlas, measured
from .decisions import Condition, decide
from .initialization import get_initialization
from .settings import SHAPES
from .theory import log_stability_at_initialization
from .trends import LEAST_SEEDS, at_loss, curve, gaps, peak_exponent, peaks, slopes, steps

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
    return decide([condition for condition in claims() if condition.alternatives and all(condition.alternatives)])


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each claim, of `decide`'s rows: item, page, claim, verdict, and for each answer (yes, no, open) where it was given."""
    check_table("table", table, words=("item", "page", "claim", "where", "when", "answer"))
    rows = []
    for (item, page, claim), parts in table.groupby(["item", "page", "claim"], sort=False):
        given = {answer: _places(parts[parts.answer == answer]) for answer in ("yes", "no", "open")}
        verdict = VERDICTS[bool(given["yes"]), bool(given["no"]), bool(given["open"])]
        rows.append({"item": item, "page": page, "claim": claim, "verdict": verdict} | given)
    return pd.DataFrame(rows)


def tally(claims: pd.DataFrame) -> str:
    """How many of the paper's claims hold, of `summary`'s rows, in one sentence."""
    check_table("claims", claims, words=("item", "verdict"))
    counts = claims[claims["item"] != "This book"].verdict.value_counts()
    of = {verdict: int(counts.get(verdict, 0)) for verdict in VERDICTS.values()}
    return (
        f"Of the paper’s {counts.sum()} claims, {of['holds']} hold and {of['holds where decided']} hold where the data decide; "
        f"{of['holds only in part']} hold only in part; {of['does not hold']} do not hold and {of['does not hold where decided']} do not "
        f"where the data decide; {of['not decided']} are not decided."
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
    claims = summary(_on(page))
    words = {"yes": "It holds for", "no": "It does not for", "open": "Not decided:"}
    return "\n".join(
        f"- **{row['item']}. {row.claim}: {row.verdict}.** " + " ".join(f"{words[key]} {row[key]}." for key in words if row[key])
        for _, row in claims.iterrows()
    )


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
    yield from ((where, load_atlas(name)) for name, where in names.items() if name in measured())


def at_equal_loss() -> Iterator[tuple[str, pd.DataFrame]]:
    """The digits over width and depth, each network as it was when its training loss first reached that of EQUAL_LOSS."""
    if "digits_depths" in measured():
        loss = EQUAL_LOSS["digits, trained to fit"]
        # They got there at different epochs.
        yield f"digits, at a loss of {loss}", at_loss(load_atlas("digits_depths"), loss).assign(epoch=0)


def two_layers() -> Iterator[tuple[str, pd.DataFrame]]:
    """Two layers, lazy and non-lazy, measured along the way; the words are keys of EQUAL_LOSS."""
    if "digits_two_layers" in measured():
        yield "digits, trained to fit", load_atlas("digits_two_layers")
    if "mnist_two_layers" in measured():
        table = load_atlas("mnist_two_layers")
        yield "MNIST, trained to fit", table[table.decay == 1]
        yield "MNIST, the paper’s schedule", table[table.decay != 1]


def at_end(table: pd.DataFrame) -> pd.DataFrame:
    """Its rows of the last epoch."""
    check_table("table", table, "epoch")
    return table[table.epoch == table.epoch.max()]


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
    yield from _convolutional()


# Training losses, cross-entropy in nats, at which to compare: as low as most networks came, and later than the first row.
EQUAL_LOSS = {"digits, trained to fit": 0.2, "MNIST, trained to fit": 0.1, "MNIST, the paper’s schedule": 0.4}

# Bounds on logarithms. What is called flat, or the same, goes less than a quarter up or down.
BELOW, ABOVE, TENFOLD = (-np.inf, 0.0), (0.0, np.inf), (float(np.log(10)), np.inf)
SAME = (float(np.log(1 / 1.25)), float(np.log(1.25)))


def _theory() -> Iterator[Condition]:
    """Table 1 and Theorems 1 to 3, as far as networks can speak for or against them."""
    if "digits_depths" in measured():
        start = load_atlas("digits_depths").query("epoch == 0 and width == 128")
        # LeCun's networks of the same seeds are the same but for a factor.
        for depth in (2, 10):
            sample = _over_start(start[(start.init == "he") & (start.depth == depth)])
            claim, words = "The exact P before training is that of networks", "P/ε over its exact mean"
            when = f"He, m = 128, L = {depth}"
            yield Condition("Table 1", "setting", claim, "digits, before training", when, words, ((sample,),), SAME, ratio=True)
    for where, table in settings():
        for depth in (2, 10):
            wide = at_end(table).query("init == 'he' and width == 256 and depth == @depth and not untrained and not diverged")
            if wide.init_seed.nunique() >= LEAST_SEEDS:
                claim, words = "Wide networks end with the P they began with", "P/ε over its exact mean before training"
                sample = _over_start(wide)
                yield Condition("Theorem 1", "lazy", claim, where, f"He, m = 256, L = {depth}", words, ((sample,),), SAME, ratio=True)
    for where, table in two_layers():
        last = at_end(table)
        for init in ("m^-2", "m^-2.5"):
            of = curve(last[last.init == init], "width", "lazy_ratio")
            samples = tuple(row.dropna().to_numpy() for _, row in of.iterrows())
            claim, words = "Where its condition holds, the weights move by more than their length", "κ"
            yield Condition("Theorem 2", "non_lazy", claim, where, f"{init}, all widths", words, (samples,), ABOVE, ratio=True)
    for where, table in two_layers():
        first = int(table.epoch[table.epoch > 0].min())
        # Early means before much is learned, so what is untrained belongs here.
        early = table[(table.epoch == first) & ~table.diverged.astype(bool)]
        for init in ("m^-1.5", "m^-2", "m^-2.5"):
            of = early[early.init == init].pivot_table("stability", "width", "init_seed").apply(np.log)
            claim, words = "Early in non-lazy training P falls with width", "exponent of P/ε in m"
            when = f"{init}, epoch {first}"
            yield Condition("Theorem 3", "early_training", claim, where, when, words, ((slopes(of, log=True),),), BELOW)


def _over_start(table: pd.DataFrame) -> NDArray[np.float64]:
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
            yield Condition("Fig. 2a", page, "He: κ is flat in time", where, f"m = {width}", words, (change,), SAME, ratio=True)
        for init in NON_LAZY:
            # κ is 0 before training; and only at a constant rate may one expect a straight line.
            of = curve(table[(table.init == init) & (table.width == 64) & (table.epoch > 0)], "epoch", "lazy_ratio")
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
    equal = [*at_equal_loss()]
    for where, table in (*settings(), *equal):
        he = table[table.init == "he"]
        for depth in sorted(set(he.depth)):
            of = curve(he[he.depth == depth], "width")
            claim, words = "He: P rises and then falls with width", "P/ε at an inner width less that at either end"
            yield Condition("Fig. 4a", page, claim, where, f"L = {depth}", words, peaks(of), ABOVE)
        depths, exponents = peak_exponent({depth: curve(he[he.depth == depth], "width") for depth in sorted(set(he.depth))})
        if len(exponents):
            claim, words = "The peak lies at a width of order L³", "exponent of the peak’s width in L"
            when = f"L = {', '.join(map(str, depths))}"
            yield Condition("Theorem 1", page, claim, where, when, words, ((exponents,),), (2.5, 3.5))
    for where, table in equal:
        for init in ("he", "lecun"):
            for depth in sorted(set(table.depth)):
                of = curve(table[(table.init == init) & (table.depth == depth)], "width")
                claim, words = "P falls with width from the start", "P/ε from one width to the next"
                when = f"{get_initialization(init).label}, L = {depth}"
                yield Condition("This book", page, claim, where, when, words, (steps(of),), BELOW, ratio=True)
    for where, when, table in at_equal_epochs_and_loss():
        lazy = curve(table[table.init == "he"], "width")
        for init in NON_LAZY:
            of = curve(table[table.init == init], "width")
            claim, words = "Non-lazy: P is below that of He", "P/ε over that under He, all widths"
            yield Condition("Fig. 4b", page, claim, where, f"{when}, {init}", words, (gaps(of, lazy),), BELOW, ratio=True)
            claim, words = "Non-lazy: P falls with width", "P/ε from one width to the next"
            yield Condition("Fig. 4b", page, claim, where, f"{when}, {init}", words, (steps(of),), BELOW, ratio=True)


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
                claim, words = "P rises and then falls with depth", "P/ε at an inner depth less that at either end"
                when = f"{get_initialization(init).label}, m = 64"
                yield Condition("Conclusions", "experiments_depth", claim, where, when, words, peaks(of), ABOVE)


def _more() -> Iterator[Condition]:
    """Figs. 6, 9 and 10."""
    if "mnist_long" in measured():
        table = load_atlas("mnist_long")
        for width, depth in ((32, 4), (64, 8)):
            shape = table[(table.width == width) & (table.depth == depth)].pivot(index="epoch", columns="init_seed", values="test_accuracy")
            change = steps(shape.loc[[50, 200]])
            claim, words = "The accuracy hardly changes after epoch 50", "accuracy after 200 epochs less that after 50"
            yield Condition(
                "Fig. 6", "more_epochs", claim, "MNIST, the paper’s schedule", f"m = {width}, L = {depth}", words, (change,), (-0.01, 0.01)
            )
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
            when, words = f"L = {depth}", "P/ε over that under He, geometric mean over widths"
            mean = (ntk - he).dropna(how="all").mean().dropna().to_numpy()
            yield Condition("Fig. 10", "more_ntk", "NTK: P is like that under He", where, when, words, ((mean,),), SAME, ratio=True)


# What is called a similar accuracy.
SIMILAR = (-0.02, 0.02)


def _convolutional() -> Iterator[Condition]:
    """Figs. 7 and 8, and Table 4."""
    for where, table in convolutional():
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
        claim, words = "ResNet: P rises and then falls with width", "P/ε at an inner width less that at either end"
        yield Condition("Fig. 8", "more_residual", claim, where, f"L = {depth}", words, peaks(of), ABOVE)


def _similar_accuracy(where: str, last: pd.DataFrame) -> Iterator[Condition]:
    """Table 4: non-lazy networks beside those under He of the same shape and seed."""
    lazy = last[last.init == "he"].set_index(["width", "depth", "init_seed"]).test_accuracy
    for init in ("m^-1", "m^-2"):
        other = last[last.init == init].set_index(["width", "depth", "init_seed"]).test_accuracy
        for depth, gap in (other - lazy).dropna().groupby("depth"):
            claim, words = "Non-lazy training reaches a similar accuracy", "accuracy on test data less that under He"
            yield Condition("Table 4", "more_accuracy", claim, where, f"{init}, L = {depth}", words, ((gap.to_numpy(),),), SIMILAR)


def with_ntk() -> Iterator[tuple[str, pd.DataFrame]]:
    """The tables of `settings` that know NTK, too."""
    for where, table in settings():
        if "ntk" in set(table.init):
            yield where, table
        elif where.startswith("MNIST") and "mnist_ntk" in measured():
            ntk = load_atlas("mnist_ntk")
            yield where, pd.concat([table, ntk[ntk.decay == table.decay.iloc[0]]])
