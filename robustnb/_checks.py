"""Checks at the door: one sentence that names the argument, its value and what is allowed."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import numpy as np


def check_count(name: str, value: Any, *, least: int = 1) -> int:
    """A whole number of at least `least`, or an error that says so."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    if value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    return int(value)


def check_counts(name: str, value: Any, *, least: int = 1) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A whole number or an array of them, each at least `least`, as floats; or an error that says so."""
    try:
        counts = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        counts = np.asarray(np.nan)
    valid = np.isfinite(counts) & (counts == np.floor(counts)) & (counts >= least)
    if isinstance(value, bool) or not valid.all():
        raise ValueError(f"{name} must hold whole numbers of at least {least}, not {value!r}.")
    return counts


def check_real(name: str, value: Any, *, least: float = 0.0, exclusive: bool = False) -> float:
    """A finite number of at least (or, with `exclusive`, above) `least`, or an error that says so."""
    allowed = f"a finite number {'above' if exclusive else 'of at least'} {least:g}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be {allowed}, not {value!r}.")
    number = float(value)
    if not math.isfinite(number) or number < least or (exclusive and number == least):
        raise ValueError(f"{name} must be {allowed}, not {value!r}.")
    return number


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of `choices`, or an error that lists them."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}.")
    return str(value)
