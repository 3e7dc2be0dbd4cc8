"""Measured tables as curves, and what a test needs of a curve: samples with one number for each initialization seed."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ._checks import Array, check_count, check_flag, check_one_setting, check_real, check_reals, check_table, shown
from .settings import KEY

# Fewer seeds have no interval worth the name.
LEAST_SEEDS = 3
# Where more are missing, the networks that are left are a selection.
LEAST_SHARE = 7 / 8


def curve(table: pd.DataFrame, x: str, value: str = "stability") -> pd.DataFrame:
    """Logarithms of a measured column: a row for each x, a column for each initialization seed, averaged over batch orders.

    Diverged and untrained networks are left out, since their P/ε says nothing of what training does; of κ ("lazy_ratio") the
    untrained are not, since it says of every network how far it went. So is an x at which those left out are more than one in eight,
    since the others are a selection then, and an x with fewer than LEAST_SEEDS seeds. Raises ValueError if networks of several
    settings would be averaged; only their epochs may differ, as those of `at_loss` do.
    """
    check_table("table", table, x, value, "diverged", "untrained", words=("init_seed",))
    check_one_setting(table, KEY, [x], "epoch")
    learned = ~table.diverged.to_numpy(dtype=bool)
    if value != "lazy_ratio":
        learned &= ~table.untrained.to_numpy(dtype=bool)
    places, row = np.unique(table[x], return_inverse=True)
    seeds, column = np.unique(table.init_seed, return_inverse=True)
    share = np.bincount(row, learned) / np.bincount(row)
    measured = table[value].to_numpy(dtype=float)
    kept = learned & ~np.isnan(measured)
    # Verdicts take hundreds of curves, each of so few rows that pandas' own groups and means would take most of the time.
    cell, shape = (row * len(seeds) + column)[kept], (len(places), len(seeds))
    counts = np.bincount(cell, minlength=math.prod(shape)).reshape(shape)
    sums = np.bincount(cell, measured[kept], math.prod(shape)).reshape(shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Of none the mean is NaN; κ before training is 0.
        logs = np.log(sums / counts)
    rows = (share >= LEAST_SHARE) & ((counts > 0).sum(axis=1) >= LEAST_SEEDS)
    columns = (counts[rows] > 0).any(axis=0)
    index, names = pd.Index(places[rows], name=x), pd.Index(seeds[columns], name="init_seed")
    return pd.DataFrame(logs[rows][:, columns], index, names)


def at_loss(table: pd.DataFrame, loss: float) -> pd.DataFrame:
    """Each network as it was when its training loss first reached `loss`.

    table: as `sweep` gives it, with rows along the way. P/ε and its error, κ, the accuracies and the epoch are interpolated against the
    logarithm of the loss, P/ε, its error and κ on a log scale, between the two rows around that time; κ starts at 0 and is linear there.
    All else is the later row's.
    A setting whose seeds reached that loss in fewer than seven cases of eight has no rows: those that did are a selection.
    """
    check_table("table", table, "train_loss", *_ALONG, words=KEY)
    check_real("loss", loss, exclusive=True)
    rows = table.sort_values("epoch")
    setting = [rows[key] for key in KEY if key not in ("init_seed", "batch_seed", "epoch")]
    network = [*setting, rows.init_seed, rows.batch_seed]
    before = rows[["train_loss", *_ALONG]].groupby(network, sort=False).shift()
    reached = rows.train_loss <= loss
    # A loss that the first row has already says nothing of when it was reached.
    first = reached & (reached.groupby(network, sort=False).cumsum() == 1) & before.train_loss.notna()
    networks = rows.groupby(network, sort=False).ngroup().groupby(setting, sort=False).transform("nunique")
    there = first & (first.groupby(setting, sort=False).transform("sum") >= LEAST_SHARE * networks)
    before, after = before[there], rows[there]
    share = np.log(before.train_loss / loss) / np.log(before.train_loss / after.train_loss)
    found = after.assign(train_loss=loss)
    for column in _ALONG:
        a, b = before[column], after[column]
        found[column] = (1 - share) * a + share * b
        if column in ("stability", "stability_error", "lazy_ratio"):
            found[column] = found[column].mask((a > 0) & (b > 0), a ** (1 - share) * b**share)
    return found.reset_index(drop=True)


# What changes along the way.
_ALONG = ("stability", "stability_error", "lazy_ratio", "train_accuracy", "test_accuracy", "epoch")


def at_end(table: pd.DataFrame) -> pd.DataFrame:
    """Its rows of the last epoch."""
    check_table("table", table, "epoch")
    return table[table.epoch == table.epoch.max()]


def _check_curve(name: str, value: Any) -> None:
    """A table as `curve` gives it, or an error that says so."""
    if not (
        isinstance(value, pd.DataFrame)
        and all(kind.kind in "iuf" for kind in (value.index.dtype, *value.dtypes))
        and value.index.is_monotonic_increasing
        and value.index.is_unique
    ):
        raise TypeError(f"{name} must be a table of numbers with an ascending index of numbers, as curve() gives it, not {shown(value)}.")


def steps(of: pd.DataFrame) -> tuple[Array, ...]:
    """Differences from each row of a curve to the next: a sample for each."""
    _check_curve("of", of)
    return _samples(np.diff(of.to_numpy(dtype=float), axis=0))


def gaps(of: pd.DataFrame, other: pd.DataFrame) -> tuple[Array, ...]:
    """By how much one curve lies above another, at each x that they share."""
    _check_curve("of", of)
    _check_curve("other", other)
    shared = of.index.intersection(other.index)
    return _samples((of.loc[shared] - other.loc[shared]).to_numpy(dtype=float))


def width_steps(table: pd.DataFrame, losses: ArrayLike) -> pd.DataFrame:
    """What P/ε does from each width to the next, of each initialization and depth: after equal epochs, and at equal losses.

    table: as `sweep` gives it, with rows along the way. Returns a row for each init, depth, width, next_width and loss (NaN: at the last
    epoch), over the n seeds that both widths have: the mean change of log P/ε, its standard error, and how many seeds go `up`.
    """
    levels = [check_real("losses", loss, exclusive=True) for loss in check_reals("losses", losses).ravel().tolist()]
    moments = {np.nan: at_end(table)} | {loss: at_loss(table, loss) for loss in levels}
    rows = []
    for loss, at in moments.items():
        for (init, depth), part in at.groupby(["init", "depth"], sort=False):
            of = curve(part, "width")
            for width, wider in pairwise(of.index):
                change = (of.loc[wider] - of.loc[width]).dropna()
                if len(change) >= LEAST_SEEDS:
                    step = {"init": init, "depth": depth, "width": width, "next_width": wider, "loss": loss}
                    over = {"change": change.mean(), "error": change.sem(), "up": (change > 0).sum(), "n": len(change)}
                    rows.append(step | over)
    return pd.DataFrame(rows, columns=["init", "depth", "width", "next_width", "loss", "change", "error", "up", "n"])


def slopes(of: pd.DataFrame, *, log: bool = False) -> Array:
    """Each seed's least-squares slope of a curve against x, or against log x; seeds that some x lacks are left out.

    Raises ValueError for a curve of one row or, with `log`, an x that is not positive.
    """
    _check_curve("of", of)
    check_flag("log", log)
    if len(of) < 2 or (log and of.index[0] <= 0):
        raise ValueError(f"of must have at least two rows{' at positive x' if log else ''}, not {shown(of.index.tolist())}.")
    x = of.index.to_numpy(dtype=float)
    whole = of.dropna(axis=1)
    return np.asarray(np.polyfit(np.log(x) if log else x, whole.to_numpy(), 1)[0])


def peaks(of: pd.DataFrame) -> tuple[tuple[Array, ...], ...]:
    """For each inner row of a curve: by how much the column itself, not its logarithm, lies above the first row, and the last."""
    _check_curve("of", of)
    values = np.exp(of.to_numpy(dtype=float))
    return tuple(parts for row in values[1:-1] if len(parts := _samples(row - values[[0, -1]])) == 2)


def ends_at_top(of: pd.DataFrame) -> bool:
    """Whether a curve's mean over seeds is highest at its last row, so that what it does beyond is not known. False if it is empty."""
    _check_curve("of", of)
    mean = of.mean(axis=1)
    return bool(len(mean) and mean.idxmax() == mean.index[-1])


def _samples(differences: Array) -> tuple[Array, ...]:
    """Of each row the seeds that both had; none if they are too few."""
    samples = (row[~np.isnan(row)] for row in differences)
    return tuple(sample for sample in samples if len(sample) >= LEAST_SEEDS)


def peak_place(of: pd.DataFrame) -> float:
    """Where a curve's mean over seeds is highest: of a parabola through its highest point and that point's neighbours, over log x.

    NaN if the highest point is the first or the last, or there is none.
    """
    _check_curve("of", of)
    return _highest(of)


def _highest(of: pd.DataFrame) -> float:
    mean = of.mean(axis=1)
    k = int(np.argmax(mean)) if len(mean) else 0
    if k in (0, len(mean) - 1):
        return float("nan")
    x, y = np.log(mean.index[k - 1 : k + 2].to_numpy(dtype=float)), mean.iloc[k - 1 : k + 2]
    second, first, _ = np.polyfit(x - x[1], y, 2)
    return float(np.exp(x[1] - first / (2 * second)))


def peak_exponent(curves: dict[int, pd.DataFrame]) -> tuple[list[int], Array]:
    """The exponent of the peak's place in the depth: by a straight line through the logarithms of both.

    curves: against width, by depth. Returns the depths whose peak lies inside the range, whichever seed is left out, and the
    jackknife's pseudo-values of the exponent, a number for each seed: their mean is the estimate, and a t-test holds for them to a
    good approximation. None if there are fewer than three such depths.
    """
    if not isinstance(curves, dict):
        raise TypeError(f"curves must be a dictionary of curves by depth, not {shown(curves)}.")
    for depth, of in curves.items():
        check_count("curves", depth)
        _check_curve("curves", of)
    seeds = sorted(set.intersection(*(set(of.columns) for of in curves.values()))) if curves else []
    # With all seeds, and without each of them.
    kept = [seeds, *([seed for seed in seeds if seed != left_out] for left_out in seeds)]
    places = [{depth: _highest(of[some]) for depth, of in curves.items()} for some in kept]
    depths = [depth for depth in curves if all(np.isfinite(place[depth]) for place in places)]
    if len(depths) < 3 or len(seeds) < LEAST_SEEDS:
        return depths, np.array([])
    whole, *parts = (np.polyfit(np.log(depths), np.log([place[depth] for depth in depths]), 1)[0] for place in places)
    return depths, np.array([len(seeds) * whole - (len(seeds) - 1) * part for part in parts])
