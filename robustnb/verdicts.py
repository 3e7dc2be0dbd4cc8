"""What the atlas says of the paper's claims: the verdicts on them, as tables and in words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from itertools import groupby
from operator import itemgetter

import numpy as np
import pandas as pd

from ._checks import check_choice, check_table
from .claims import claims
from .decisions import Condition, decide
from .trends import LEAST_SEEDS

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


def verdicts() -> pd.DataFrame:
    """Every condition of every claim, decided on the atlas: see `decide`. Only what was measured is there."""
    return _verdicts().copy()


@cache
def _verdicts() -> pd.DataFrame:
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
