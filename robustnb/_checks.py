"""Checks at the door: one sentence that names the argument, its value and what is allowed."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# No count of things in memory is larger, and no network here is deeper.
MOST = 2**53
MOST_LAYERS = 10_000


def shown(value: Any) -> str:
    """A value as a message shows it: in one line, not too long."""
    if getattr(value, "ndim", 0):
        kind = "an array" if isinstance(value, np.ndarray) else "one"
        return f"{kind} of shape {tuple(value.shape)} and type {getattr(value, 'dtype', type(value).__name__)}"
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"{text[:40].splitlines()[0]}… ({type(value).__name__})"


def check_count(name: str, value: Any, *, least: int = 1, most: int = MOST) -> int:
    """A whole number of at least `least` and at most `most`, or an error that says so."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number of at least {least}, not {shown(value)}.")
    count = int(value)
    if not least <= count <= most:
        bound = f"at least {least}" if count < least else f"at most {most:,}"
        raise ValueError(f"{name} must be a whole number of {bound}, not {shown(value)}.")
    return count


def check_seeds(name: str, value: Any) -> tuple[int, ...]:
    """Seeds, whole numbers of at least 0 and at least one; or an error that says so."""
    try:
        seeds = tuple(value)
    except TypeError as error:
        raise TypeError(f"{name} must be a tuple or another sequence of whole numbers, as (0, 1), not {shown(value)}.") from error
    if not seeds:
        raise ValueError(f"{name} must hold at least one whole number, not {shown(value)}.")
    return tuple(check_count(name, seed, least=0) for seed in seeds)


def check_flag(name: str, value: Any) -> bool:
    """True or False, or an error that says so."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {shown(value)}.")
    return value


def check_counts(name: str, value: Any, *, least: int = 1, ndim: int = 0) -> Array:
    """A whole number or an array of them, each at least `least`, as floats, with at least `ndim` axes; or an error that says so."""
    counts = _numbers(value)
    if counts is None or counts.ndim < ndim or not (np.isfinite(counts) & (counts == np.floor(counts)) & (counts >= least)).all():
        raise ValueError(f"{name} must hold whole numbers of at least {least}{_axes(ndim)}, not {shown(value)}.")
    return counts


def check_reals(name: str, value: Any, *, least: float = -math.inf, ndim: int = 0) -> Array:
    """A finite number or an array of them, each at least `least`, as floats, with at least `ndim` axes; or an error that says so."""
    numbers = _numbers(value)
    if numbers is None or numbers.ndim < ndim or not (np.isfinite(numbers) & (numbers >= least)).all():
        bound = "" if least == -math.inf else f" of at least {least:g}"
        raise ValueError(f"{name} must hold finite numbers{bound}{_axes(ndim)}, not {shown(value)}.")
    return numbers


def check_matrix(name: str, value: Any, *, directions: bool = False) -> Array:
    """A matrix of finite numbers that is not empty and, with `directions`, has no row of zeros; or an error that says so."""
    matrix = check_reals(name, value)
    if matrix.ndim != 2 or 0 in matrix.shape or (directions and not matrix.any(axis=1).all()):
        raise ValueError(f"{name} must be a matrix that is not empty{' and has no row of zeros' * directions}, not {shown(value)}.")
    return matrix


def _axes(ndim: int) -> str:
    return f" in at least {ndim} {'axis' if ndim == 1 else 'axes'}" if ndim else ""


def check_numbers(name: str, value: Any) -> Array:
    """A number or an array of them, NaN and infinities among it, as floats; or an error that says so."""
    numbers = _numbers(value)
    if numbers is None:
        raise TypeError(f"{name} must hold real numbers, not {shown(value)}.")
    return numbers


def _numbers(value: Any) -> Array | None:
    """Whole or real numbers as an array of floats; None for anything else, truth values and words among it."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        return None
    return array.astype(np.float64) if array.dtype.kind in "iuf" else None


def check_broadcast(**arrays: Array) -> tuple[Array, ...]:
    """The arrays, broadcast together, or an error that names their shapes."""
    try:
        return tuple(np.broadcast_arrays(*arrays.values()))
    except ValueError as error:
        first, *others = arrays
        shapes = ", ".join(str(array.shape) for array in arrays.values())
        raise ValueError(f"{first} must broadcast with {', '.join(others)}, but their shapes are {shapes}.") from error


def check_shape(inputs: Any, width: Any, depth: Any, outputs: Any) -> tuple[Array, ...]:
    """The numbers that make a network's shape, broadcast together, or an error that says which is none."""
    return check_broadcast(
        inputs=check_counts("inputs", inputs),
        width=check_counts("width", width),
        depth=check_counts("depth", depth, least=2),
        outputs=check_counts("outputs", outputs),
    )


def check_real(name: str, value: Any, *, least: float = 0.0, exclusive: bool = False, most: float = math.inf) -> float:
    """A finite number of at least (or, with `exclusive`, above) `least` and at most `most`, or an error that says so."""
    allowed = f"a finite number {'above' if exclusive else 'of at least'} {least:g}{'' if most == math.inf else f' and at most {most:.2g}'}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be {allowed}, not {shown(value)}.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or not least <= number <= most or (exclusive and number == least):
        raise ValueError(f"{name} must be {allowed}, not {shown(value)}.")
    return number


def check_table(name: str, value: Any, *columns: str, words: tuple[str, ...] = ()) -> None:
    """A pandas table with these columns of numbers and, in `words`, of anything; or an error that says which it lacks."""
    held = getattr(value, "dtypes", None)
    if getattr(value, "ndim", 0) != 2 or held is None:
        raise TypeError(f"{name} must be a table (pandas.DataFrame), not {shown(value)}.")
    for column in (*columns, *words):
        if not isinstance(column, str) or list(value.columns).count(column) != 1:
            raise ValueError(f"{name} must have one column {shown(column)}, not {shown(list(value.columns))}.")
        if column in columns and held[column].kind not in "biuf":
            raise TypeError(f"{name} must hold numbers in its column {column!r}, not {held[column]}.")


def check_one_setting(table: Any, settings: tuple[str, ...], by: list[str], *but: str) -> None:
    """ValueError if a table has several settings, by these of its columns, for one value of `by`: averages would mix them.

    Seeds may differ, and the columns of `but`.
    """
    for column in settings:
        if column not in table or column in (*by, *but, "init_seed", "batch_seed"):
            continue
        values = table[column].to_numpy()
        if not (values == values[:1]).all() and (table.groupby(by)[column].nunique() > 1).any():
            held = ", ".join(map(str, sorted(set(values))))
            raise ValueError(f"table must hold one {column} for each {' and '.join(by)}, not {held}.")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of `choices`, or an error that lists them."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {shown(value)}.")
    return value
