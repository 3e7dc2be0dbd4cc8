"""The initializations of Table 1, as small frozen values.

A network of eq. (2) starts from independent Gaussian weights. An initialization says how wide each
Gaussian is: standard deviation β_1 for the first weight matrix, β for the hidden ones, β_L for the
last, and α for the factor 1/α on the output. Look one up by name with `get_initialization`:
``"lecun"``, ``"he"``, ``"ntk"``, or ``"m^-1.5"`` (any exponent) for the non-lazy family.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ._checks import Array, check_counts, check_real, check_shape, shown


class Scales(NamedTuple):
    """Standard deviations β_1, β, β_L of the weights, and α; arrays that broadcast together."""

    beta_first: Array
    beta: Array
    beta_last: Array
    alpha: Array


@dataclass(frozen=True)
class Initialization:
    """One row of Table 1: how the weights' standard deviations follow from the network's shape."""

    name: str  # as code and tables write it: "he", "m^-1.5"
    label: str  # as figures write it: "He", "$m^{-1.5}$"
    betas: Callable[[Array, Array, Array], tuple[Array, Array, Array]] = field(repr=False, compare=False)

    def scales(self, *, inputs: ArrayLike, width: ArrayLike, depth: ArrayLike, outputs: ArrayLike) -> Scales:
        """β_1, β, β_L and α for networks of these shapes (Table 1).

        inputs d, width m, depth L and outputs o are whole numbers or arrays that broadcast together;
        d, m, o ≥ 1 and L ≥ 2. No rule of Table 1 makes use of L, and all of them have α = 1.
        """
        d, m, layers, o = check_shape(inputs, width, depth, outputs)
        beta_first, beta, beta_last = self.betas(d, m, o)
        return Scales(beta_first, beta, beta_last, np.ones_like(layers))

    def gamma(self, width: ArrayLike) -> Array:
        """γ = β √(m/2): the factor by which one wide hidden layer scales the norm of a perturbation (derived here)."""
        m = check_counts("width", width)
        one = np.ones_like(m)
        gamma: Array = self.betas(one, m, one)[1] * np.sqrt(m / 2)
        return gamma


def _lecun(d: Array, m: Array, o: Array) -> tuple[Array, Array, Array]:
    return np.sqrt(1 / d), np.sqrt(1 / m), np.sqrt(1 / m)


def _he(d: Array, m: Array, o: Array) -> tuple[Array, Array, Array]:
    return np.sqrt(2 / d), np.sqrt(2 / m), np.sqrt(2 / m)


def _ntk(d: Array, m: Array, o: Array) -> tuple[Array, Array, Array]:
    return np.sqrt(2 / m), np.sqrt(2 / m), np.sqrt(1 / o)


def _power(exponent: float, d: Array, m: Array, o: Array) -> tuple[Array, Array, Array]:
    beta = m**-exponent
    return beta, beta, beta


LECUN = Initialization("lecun", "LeCun", _lecun)
HE = Initialization("he", "He", _he)
NTK = Initialization("ntk", "NTK", _ntk)
# All that have a name of their own: tests, messages and the laboratory's list follow from it.
NAMED = {one.name: one for one in (LECUN, HE, NTK)}


def non_lazy(c: float) -> Initialization:
    """The family of §5.1: every weight has standard deviation m^(−c), c > 0; c = 2 is the paper's typical case."""
    c = check_real("c", c, exclusive=True)
    return Initialization(f"m^-{np.format_float_positional(c, trim='-')}", f"$m^{{-{c:g}}}$", partial(_power, c))


def get_initialization(init: str | Initialization) -> Initialization:
    """The initialization of that name: "lecun", "he", "ntk" or "m^-c" (as "m^-1.5"); a value passes through.

    Raises ValueError for any other name.
    """
    if isinstance(init, Initialization):
        return init
    power = re.fullmatch(r"m\^-(\d+(?:\.\d+)?)", init) if isinstance(init, str) else None
    if power and float(power[1]) > 0:
        return non_lazy(float(power[1]))
    if not isinstance(init, str) or init not in NAMED:
        names = ", ".join(f'"{name}"' for name in NAMED)
        raise ValueError(f'init must be {names} or "m^-c" with c > 0 (as "m^-1.5"), not {shown(init)}.')
    return NAMED[init]
