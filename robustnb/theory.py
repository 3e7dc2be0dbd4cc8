"""The book's formulas: arrays in, arrays out; every argument broadcasts. Only numpy and scipy.

Each docstring gives the formula and how sure it is: *exact* (proved, checked by simulation) or
*order* (the paper's bound, right up to constants).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln, logsumexp

from ._checks import check_counts
from .initialization import Array, Initialization, get_initialization


def log_mean_chi(k: ArrayLike) -> Array:
    """log E‖g‖ for g ~ N(0, I_k): E χ_k = √2 Γ((k+1)/2) / Γ(k/2). Exact. k ≥ 1, any shape."""
    k = check_counts("k", k)
    return np.asarray(0.5 * np.log(2) + gammaln((k + 1) / 2) - gammaln(k / 2))


def mean_ball_radius(dimension: ArrayLike) -> Array:
    """E‖δ‖ = d/(d+1) for δ uniform in the unit ball of R^d. Exact. dimension d ≥ 1, any shape."""
    d = check_counts("dimension", dimension)
    return np.asarray(d / (d + 1))


def mean_absolute_projection(dimension: ArrayLike) -> Array:
    """E|u_1| = Γ(d/2) / (√π Γ((d+1)/2)) for u uniform on the unit sphere of R^d. Exact. dimension d ≥ 1, any shape.

    With it P/ε of a network with one output needs no sampling over δ:
    E‖J δ‖/ε = ‖J‖ · d/(d+1) · E|u_1|.
    """
    d = check_counts("dimension", dimension)
    return np.asarray(np.exp(gammaln(d / 2) - gammaln((d + 1) / 2)) / np.sqrt(np.pi))


def log_relu_gain(width: ArrayLike) -> Array:
    """log of E √(χ²_ω), ω ~ Bin(m, ½): what one ReLU layer of m unit-variance neurons does to a norm, on average.

    Σ_{k=1}^m C(m, k) 2^{−m} E χ_k, summed in the log domain (derived here, from Lemma 2). Exact. As
    m → ∞ the gain tends to √(m/2) from below. width m ≥ 1, any shape; costs O(m) for each distinct m.
    """
    m = check_counts("width", width)
    distinct, place = np.unique(m, return_inverse=True)
    gains = np.empty_like(distinct)
    for i, each in enumerate(distinct):
        k = np.arange(1, int(each) + 1)
        log_binomial = gammaln(each + 1) - gammaln(k + 1) - gammaln(each - k + 1) - each * np.log(2)
        gains[i] = logsumexp(log_binomial + log_mean_chi(k))
    return np.asarray(gains[place].reshape(m.shape))


def _log_stability(
    init: str | Initialization, inputs: ArrayLike, width: ArrayLike, depth: ArrayLike, outputs: ArrayLike, log_gain: Array
) -> Array:
    """log P/ε at initialization when each of the L − 1 ReLU layers multiplies the mean norm by β_l exp(log_gain)."""
    scales = get_initialization(init).scales(inputs=inputs, width=width, depth=depth, outputs=outputs)
    hidden = np.asarray(depth, dtype=np.float64) - 2
    return np.asarray(
        np.log(mean_ball_radius(inputs))
        - np.log(scales.alpha)
        + np.log(scales.beta_first)
        + hidden * np.log(scales.beta)
        + np.log(scales.beta_last)
        + (hidden + 1) * log_gain
        + log_mean_chi(outputs)
    )


def log_stability_at_initialization(
    init: str | Initialization, *, inputs: ArrayLike, width: ArrayLike, depth: ArrayLike, outputs: ArrayLike
) -> Array:
    """Natural logarithm of `stability_at_initialization`: finite where the value itself leaves float64's range."""
    return _log_stability(init, inputs, width, depth, outputs, log_relu_gain(width))


def stability_at_initialization(
    init: str | Initialization, *, inputs: ArrayLike, width: ArrayLike, depth: ArrayLike, outputs: ArrayLike
) -> Array:
    """P(f_0, ε)/ε of a network of eq. (2) at initialization, at any finite width. Exact; derived here.

    P/ε = d/(d+1) · (1/α) · β_1 β^{L−2} β_L · g_m^{L−1} · E χ_o, with g_m the ReLU gain of `log_relu_gain`
    (§3.1 of the book; it rests on Lemmas 1 and 2). The same for every fixed input x ≠ 0.

    inputs d, width m, depth L ≥ 2, outputs o: whole numbers or arrays that broadcast together.
    """
    return np.asarray(np.exp(log_stability_at_initialization(init, inputs=inputs, width=width, depth=depth, outputs=outputs)))


class Theorem1(NamedTuple):
    """The two terms of Theorem 1, arrays of one shape; `total` is their sum."""

    training: Array
    initialization: Array

    @property
    def total(self) -> Array:
        return np.asarray(self.training + self.initialization)


def theorem_1(init: str | Initialization, *, inputs: ArrayLike, width: ArrayLike, depth: ArrayLike, outputs: ArrayLike) -> Theorem1:
    """Theorem 1: an upper bound on P/ε of trained lazy networks, of right order in m, L, d, o; its constants are suppressed.

    P/ε ≲ (1/α) (√(L³ m² β_1² β_L²) e^{−m/L³} + √(m o β_1² β_L²)) γ^{L−2}, γ = β √(m/2). The first term is what
    training moves, the second what initialization gives. Order: only shapes and exponents mean something.
    Arguments as in `stability_at_initialization`.
    """
    m, depth = check_counts("width", width), check_counts("depth", depth, least=2)
    scales = get_initialization(init).scales(inputs=inputs, width=width, depth=depth, outputs=outputs)
    common = scales.beta_first * scales.beta_last * (scales.beta * np.sqrt(m / 2)) ** (depth - 2) / scales.alpha
    training = common * depth**1.5 * m * np.exp(-m / depth**3)
    initialization = common * np.sqrt(m * check_counts("outputs", outputs))
    return Theorem1(*np.broadcast_arrays(training, initialization))


def wide_stability_at_initialization(
    init: str | Initialization, *, inputs: ArrayLike, width: ArrayLike, depth: ArrayLike, outputs: ArrayLike
) -> Array:
    """P/ε at initialization as m → ∞: `stability_at_initialization` with √(m/2) for the ReLU gain. Exact in the limit.

    For LeCun, He and NTK the width cancels and this is the limit itself; for m^(−c) it is the leading
    order in m. Arguments as there.
    """
    log_gain = np.asarray(0.5 * np.log(check_counts("width", width) / 2))
    return np.asarray(np.exp(_log_stability(init, inputs, width, depth, outputs, log_gain)))
