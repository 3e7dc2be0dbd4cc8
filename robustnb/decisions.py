"""How a claim is decided from measurements: one t-test a condition, and Holm's correction over all of them.

A claim is split into conditions, each about the mean over initialization seeds of one number, such as the slope of log P/ε
against the depth. The test is exact for numbers that are normal with one spread. (A few seeds have several batch orders, which makes
their numbers a little less spread.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

from ._checks import Array, check_choice, check_reals, shown
from .trends import ends_at_top, peaks

# The chance that any of all conditions gets a wrong answer.
ERROR_RATE = 0.05

# Bounds on logarithms. What is called flat, or the same, goes less than a quarter up or down.
BELOW, ABOVE, TENFOLD = (-np.inf, 0.0), (0.0, np.inf), (float(np.log(10)), np.inf)
SAME = (float(np.log(1 / 1.25)), float(np.log(1.25)))

# A sample that varies by less has no spread to test by: tables hold six digits.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Condition:
    """One test of a claim: whether means over seeds lie within `bounds`.

    item: of the paper ("Fig. 4a"); page: where the book shows it; where and when: data and training, and the networks of which the
    condition speaks; statistic: what the numbers are, in words. alternatives: samples, a number a seed; the condition is met if
    there is one alternative all of whose samples have their mean within the bounds. ratio: the numbers are logarithms of what the
    statistic names. open_end: what was measured ends too early to refute the claim, as a rise refutes no fall that would come later;
    the answer is then "yes" or "open".
    """

    item: str
    page: str
    claim: str
    where: str
    when: str
    statistic: str
    alternatives: tuple[tuple[Array, ...], ...]
    bounds: tuple[float, float]
    ratio: bool = False
    open_end: bool = False


def rise_and_fall(of: pd.DataFrame, x: str) -> dict[str, Any]:
    """Of a condition that a curve rises and then falls with x: its last fields. One that ends at its top may fall beyond.

    of: as `trends.curve` gives it; x is "width" or "depth".
    """
    words = f"P/ε at an inner {check_choice('x', x, ('width', 'depth'))} less that at either end"
    return {"statistic": words, "alternatives": peaks(of), "bounds": ABOVE, "open_end": ends_at_top(of)}


def decide(conditions: list[Condition]) -> pd.DataFrame:
    """A row for each condition: its words, n (of the sample that decides), value, low and high, least and most, p, p_holm and the answer.

    Value and its 95 % interval (not corrected) are those of the sample that decides: of the best alternative, the weakest part.
    p is two-sided; the answer is "yes" or "no" if Holm's corrected p is at most ERROR_RATE, else "open".
    """
    if not isinstance(conditions, list) or not all(isinstance(condition, Condition) for condition in conditions):
        raise TypeError(f"conditions must be a list of Condition, not {shown(conditions)}.")
    if not conditions:
        raise ValueError("conditions must hold at least one, not none.")
    for condition in conditions:
        samples = [sample for parts in condition.alternatives for sample in parts]
        if not all(condition.alternatives) or not samples or not all(len(s) > 1 and np.isfinite(s).all() for s in samples):
            raise ValueError(f"conditions must have samples of at least two finite numbers, but {condition.claim!r} has none, or others.")
    rows = []
    for condition in conditions:
        p_yes, p_no, sample = _test(condition)
        p_no = 1.0 if condition.open_end else p_no
        mean, n = sample.mean(), len(sample)
        half = stdtrit(n - 1, 0.975) * sample.std(ddof=1) / np.sqrt(n)
        unit = np.exp if condition.ratio else np.asarray
        value, low, high, least, most = (float(unit(number)) for number in (mean, mean - half, mean + half, *condition.bounds))
        words = {name: getattr(condition, name) for name in ("item", "page", "claim", "where", "when", "statistic", "ratio")}
        numbers = {"n": n, "value": value, "low": low, "high": high, "least": least, "most": most}
        rows.append(words | numbers | {"p": min(1.0, 2 * min(p_yes, p_no)), "leans": "yes" if p_yes < p_no else "no"})
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table.p)
    table["answer"] = table.leans.where(table.p_holm <= ERROR_RATE, "open")
    return table.drop(columns="leans")


def _test(condition: Condition) -> tuple[float, float, Array]:
    """p for the condition, p against it, and the sample that decides."""
    best: tuple[float, float, Array] | None = None
    for parts in condition.alternatives:
        tests = [_within(sample, *condition.bounds) for sample in parts]
        weakest = int(np.argmax([yes for yes, _ in tests]))
        # All parts must hold, so the weakest decides; any of them may fail (Bonferroni).
        yes, no = tests[weakest][0], min(1.0, len(tests) * min(no for _, no in tests))
        if best is None or yes < best[0]:
            best = (yes, max(no, best[1]) if best else no, parts[weakest])
        else:
            best = (best[0], max(no, best[1]), best[2])
    assert best is not None
    return min(1.0, len(condition.alternatives) * best[0]), best[1], best[2]


def _within(sample: Array, least: float, most: float) -> tuple[float, float]:
    """One-sided p that the mean lies within the bounds, and that it does not; 1 for both if the sample does not vary."""
    spread = sample.std(ddof=1)
    if not spread > ROUNDING:
        return 1.0, 1.0
    low, high = ((sample.mean() - bound) / spread * np.sqrt(len(sample)) for bound in (least, most))
    # Each tail of Student's t by itself: 1 less a number near 1 would be 0.
    (below, not_below), (not_above, above) = (stdtr(len(sample) - 1, (t, -t)) for t in (low, high))
    bounds = np.isfinite([least, most]).sum()
    return max(not_below, not_above), min(1.0, bounds * min(below, above))


def holm(p: ArrayLike) -> Array:
    """Holm's (1979) correction: with it, the chance of any wrong rejection is at most the level, whatever the dependence."""
    p = check_reals("p", p, least=0, ndim=1)
    if p.ndim > 1 or (p > 1).any():
        raise ValueError(f"p must hold probabilities in one axis, not {shown(p)}.")
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected
