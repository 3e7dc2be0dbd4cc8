"""The book's formulas: arrays in, arrays out; every argument broadcasts. Only numpy and scipy.

Each docstring gives the formula and how sure it is: *exact* (proved, checked by simulation), *bound* (proved, with its
constants, checked by simulation) or *order* (the paper's bound, right up to constants).

Where a formula asks for `init`, a name of Table 1 is meant, an `Initialization`, or `Scales(β_1, β, β_L, α)` for any other choice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma, gammaln, lambertw, loggamma, logsumexp, poch, polygamma

from ._checks import (
    MOST_LAYERS,
    Array,
    check_broadcast,
    check_count,
    check_counts,
    check_matrix,
    check_real,
    check_reals,
    check_shape,
    shown,
)
from .initialization import Initialization, Scales, get_initialization

# A name of Table 1, an initialization, or the standard deviations themselves.
Init = str | Initialization | Scales


def log_mean_chi(k: ArrayLike) -> Array:
    """log E‖g‖ for g ~ N(0, I_k): E χ_k = √2 Γ((k+1)/2) / Γ(k/2). Exact. k ≥ 1, any shape."""
    k = check_counts("k", k)
    return np.asarray(0.5 * np.log(2) + np.log(poch(k / 2, 0.5)))


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
    return np.asarray(1 / (poch(d / 2, 0.5) * np.sqrt(np.pi)))


def mean_image_length(eigenvalues: ArrayLike, dimension: ArrayLike) -> Array:
    """E‖J δ‖ for δ uniform in the unit ball of R^d, from the eigenvalues λ of the o×o Gram matrix J Jᵀ.

    A direction is a Gaussian divided by its length, which does not depend on it, so E‖J δ‖ = d/(d+1) · E √Q / E χ_d with
    Q = Σ λ_k g_k² (derived here; `mean_root`). Exact, up to a quadrature of 64 points (relative error below 1e-7).
    eigenvalues ≥ 0: (…, o), dimension d ≥ 1: any shape that broadcasts with the rest.
    """
    spectrum, d = np.maximum(check_reals("eigenvalues", eigenvalues, ndim=1), 0), check_counts("dimension", dimension)
    check_broadcast(eigenvalues=spectrum.sum(axis=-1), dimension=d)
    return np.asarray(mean_ball_radius(d) * mean_root(spectrum, np.zeros_like(spectrum)) / np.exp(log_mean_chi(d)))


def mean_root(variances: ArrayLike, squares: ArrayLike) -> Array:
    """E √Q for Q = Σ_k (μ_k + √λ_k g_k)², g standard normal: (1/√π) ∫_0^∞ (1 − E e^{−s² Q}) s^{−2} ds, where
    E e^{−s² Q} = Π_k (1 + 2 λ_k s²)^{−1/2} exp(−μ_k² s²/(1 + 2 λ_k s²)). Exact, up to a quadrature of 64 points.

    variances λ_k ≥ 0 and squares μ_k²: (…, k) each. Returns (…).
    """
    parts = check_broadcast(
        variances=check_reals("variances", variances, least=0, ndim=1), squares=check_reals("squares", squares, least=0, ndim=1)
    )
    scale = np.sqrt(2 * (parts[0] + parts[1]).sum(axis=-1))[..., None]
    variance, square = (np.divide(part, scale**2, out=np.zeros_like(part), where=scale > 0)[..., None] for part in parts)
    # s · scale = u/(1 − u) maps the half line to (0, 1), where the integrand is smooth.
    u, weight = (half / 2 for half in np.polynomial.legendre.leggauss(64))
    s = (u + 0.5) / (0.5 - u)
    spread = 2 * variance * s**2
    decay = np.exp(-(0.5 * np.log1p(spread) + square * s**2 / (1 + spread)).sum(axis=-2))
    return np.asarray(scale[..., 0] / np.sqrt(np.pi) * ((1 - decay) / (u + 0.5) ** 2 @ weight))


def convolution_second_moment(q: ArrayLike, *, beta: float, channels: int, stride: int = 1) -> Array:
    """E z(p)² of a 3×3 convolution with zero padding, at each pixel p: β² c Σ_{p' in p's window} q(p') (derived here). Exact.

    q: (height, width), the mean square over the c input channels at each pixel; in expectation, if layers came before. z is
    symmetric given its input, so half of it is left after φ; and as much of a perturbation, which φ' lets pass where φ lets pass the
    signal: one formula for both, at any width.
    """
    beta, channels, stride = check_real("beta", beta), check_count("channels", channels), check_count("stride", stride)
    q = np.pad(check_matrix("q", q), 1)
    height, width = (size - 2 for size in q.shape)
    windows = sum(q[i : i + height : stride, j : j + width : stride] for i in range(3) for j in range(3))
    return np.asarray(np.square(beta) * channels * windows)


# From here on the sum of `log_relu_gain` loses more to rounding than two terms of its expansion leave out.
WIDE = 2**20


def log_relu_gain(width: ArrayLike) -> Array:
    """log of E √(χ²_ω), ω ~ Bin(m, ½): what one ReLU layer of m unit-variance neurons does to a norm, on average.

    Σ_{k=1}^m C(m, k) 2^{−m} E χ_k, summed in the log domain (derived here, from Lemma 2). Exact. As
    m → ∞ the gain tends to √(m/2) from below. width m ≥ 1, any shape; costs O(m) for each distinct m ≤ WIDE. Above that it is
    √(m/2) (1 − 5/(8m)), by the mean m/2 and the variance 5m/4 of χ²_ω, which leaves out a part of order 1/m².
    """
    m = check_counts("width", width)
    distinct, place = np.unique(m, return_inverse=True)
    gains = np.asarray(0.5 * np.log(distinct / 2) + np.log1p(-5 / (8 * distinct)))
    for i, each in enumerate(distinct[distinct <= WIDE]):
        k = np.arange(1, int(each) + 1)
        log_binomial = gammaln(each + 1) - gammaln(k + 1) - gammaln(each - k + 1) - each * np.log(2)
        gains[i] = logsumexp(log_binomial + log_mean_chi(k))
    return np.asarray(gains[place].reshape(m.shape))


def _positive(name: str, value: ArrayLike) -> Array:
    numbers = check_reals(name, value)
    if not (numbers > 0).all():
        raise ValueError(f"{name} must hold numbers above 0, not {shown(value)}.")
    return numbers


def _scales(init: Init, inputs: ArrayLike, width: ArrayLike, depth: ArrayLike, outputs: ArrayLike) -> Scales:
    if isinstance(init, Scales):
        return Scales(*(_positive("init", scale) for scale in init))
    return get_initialization(init).scales(inputs=inputs, width=width, depth=depth, outputs=outputs)


def _log_stability(
    init: Init, inputs: ArrayLike, width: ArrayLike, depth: ArrayLike, outputs: ArrayLike, gain: Callable[[Array], Array]
) -> Array:
    """log P/ε at initialization when each of the L − 1 ReLU layers multiplies the mean norm by β_l exp(gain(m))."""
    d, m, layers, o = check_shape(inputs, width, depth, outputs)
    scales, log_gain = _scales(init, d, m, layers, o), gain(m)
    hidden = layers - 2
    return np.asarray(
        np.log(mean_ball_radius(d))
        - np.log(scales.alpha)
        + np.log(scales.beta_first)
        + hidden * np.log(scales.beta)
        + np.log(scales.beta_last)
        + (hidden + 1) * log_gain
        + log_mean_chi(o)
    )


def log_stability_at_initialization(init: Init, *, inputs: ArrayLike, width: ArrayLike, depth: ArrayLike, outputs: ArrayLike) -> Array:
    """Natural logarithm of `stability_at_initialization`: finite where the value itself leaves float64's range."""
    return _log_stability(init, inputs, width, depth, outputs, log_relu_gain)


def stability_at_initialization(init: Init, *, inputs: ArrayLike, width: ArrayLike, depth: ArrayLike, outputs: ArrayLike) -> Array:
    """P(f_0, ε)/ε of a network of eq. (2) at initialization, at any finite width. Exact; derived here.

    P/ε = d/(d+1) · (1/α) · β_1 β^{L−2} β_L · g_m^{L−1} · E χ_o, with g_m the ReLU gain of `log_relu_gain`
    (§3.1 of the book; it rests on Lemmas 1 and 2). The same for every fixed input x ≠ 0.

    inputs d, width m, depth L ≥ 2, outputs o: whole numbers or arrays that broadcast together.
    """
    return np.asarray(np.exp(log_stability_at_initialization(init, inputs=inputs, width=width, depth=depth, outputs=outputs)))


def log_variance_at_initialization(*, width: ArrayLike, depth: ArrayLike, outputs: ArrayLike) -> Array:
    """Variance over networks of log ‖J_0(x) u‖, u a fixed unit vector, given that no layer is all off. Exact (derived here).

    (L − 1) Var(½ log χ²_ω | ω ≥ 1) + ¼ ψ'(o/2), ω ~ Bin(m, ½): no initialization is in it. The first term is near 5 (L − 1)/(4 m). With
    the number of inputs in the place of `outputs` it is that of log P/ε at one input, for one output.
    width m ≥ 1, depth L ≥ 2, outputs o ≥ 1: any shapes that broadcast; costs O(√m) for each distinct m ≤ WIDE, above which 5/(4 m) stands
    for a layer's variance and leaves out a part of order 1/m².
    """
    m, layers, o = check_broadcast(
        width=check_counts("width", width), depth=check_counts("depth", depth, least=2), outputs=check_counts("outputs", outputs)
    )
    distinct, place = np.unique(m, return_inverse=True)
    layer = np.array([_log_moments(int(each))[1] if each <= WIDE else 5 / (4 * each) for each in distinct])[place.reshape(m.shape)]
    return np.asarray((layers - 1) * layer + polygamma(1, o / 2) / 4)


def move_cdf_at_initialization(values: ArrayLike, init: Init, *, inputs: int, width: int, depth: int, outputs: int) -> Array:
    """Share of networks at initialization with ‖J_0(x) u‖ ≤ values, u a fixed unit vector, x ≠ 0. Exact; derived here.

    ‖J_0(x) u‖ = (1/α) β_1 β^{L−2} β_L √X_1 ⋯ √X_{L−1} χ_o in law, X_l ~ χ²_ω with ω ~ Bin(m, ½), all factors independent. Its logarithm
    is a sum with a known characteristic function; the distribution function comes from it by Gil-Pelaez's integral (error below 1e-9).
    At 0 it has an atom, 1 − (1 − 2^{−m})^{L−1}: a layer is all off.

    values: any shape. The sizes are single numbers, width at most WIDE; arguments else as in `stability_at_initialization`.
    """
    sizes, values = _sizes(inputs, width, depth, outputs), check_reals("values", values)
    return _product_cdf(values, -_log_scale(init, sizes), width=sizes[1], depth=sizes[2], freedom=sizes[3])


def stability_cdf_at_initialization(values: ArrayLike, init: Init, *, inputs: int, width: int, depth: int) -> Array:
    """Share of networks of one output whose P/ε at one input is ≤ values, at initialization (Definition 3). Exact; derived here.

    P/ε = d/(d+1) E|u_1| ‖J_0(x)‖, and ‖J_0(x)‖ = (1/α) β_1 β^{L−2} β_L √X_1 ⋯ √X_{L−1} χ_d in law: as in `move_cdf_at_initialization`, with
    χ_d for χ_o. The same at every x ≠ 0. values: any shape; other arguments as there.
    """
    sizes, values = _sizes(inputs, width, depth, 1), check_reals("values", values)
    direction = np.log(mean_ball_radius(sizes[0]) * mean_absolute_projection(sizes[0]))
    return _product_cdf(values, -_log_scale(init, sizes) - direction, width=sizes[1], depth=sizes[2], freedom=sizes[0])


def _sizes(inputs: int, width: int, depth: int, outputs: int) -> tuple[int, int, int, int]:
    return (
        check_count("inputs", inputs),
        check_count("width", width, most=WIDE),
        check_count("depth", depth, least=2, most=MOST_LAYERS),
        check_count("outputs", outputs),
    )


def _log_scale(init: Init, sizes: tuple[int, int, int, int]) -> Array:
    """log of β_1 β^{L−2} β_L/α, a single number."""
    first, hidden, last, alpha = _scales(init, *sizes)
    log_scale = np.log(first) + (sizes[2] - 2) * np.log(hidden) + np.log(last) - np.log(alpha)
    if log_scale.ndim:
        raise ValueError(f"init must hold a single number for each scale, not {shown(init)}.")
    return np.asarray(log_scale)


def _active(width: int) -> tuple[Array, Array]:
    """How many neurons of a layer are on, given that one is: k, and log C(m, k) 2^{−m}/(1 − 2^{−m}), where it matters to 1e-18."""
    reach = 5 * np.sqrt(width) + 45
    k = np.arange(max(1, np.floor(width / 2 - reach)), min(width, np.ceil(width / 2 + reach)) + 1)
    log_share = gammaln(width + 1) - gammaln(k + 1) - gammaln(width - k + 1) - width * np.log(2) - np.log1p(-(2.0**-width))
    return k, log_share


def _log_moments(width: int) -> tuple[float, float]:
    """Mean and variance of ½ log χ²_ω, given ω ≥ 1."""
    k, log_share = _active(width)
    share = np.exp(log_share)
    means = 0.5 * (np.log(2) + digamma(k / 2))
    mean = share @ means
    return float(mean), float(share @ (polygamma(1, k / 2) / 4 + (means - mean) ** 2))


def _product_cdf(values: Array, log_factor: Array, *, width: int, depth: int, freedom: int) -> Array:
    """P(√X_1 ⋯ √X_{L−1} χ_freedom ≤ values · factor), with the atom at 0."""
    k, log_share = _active(width)
    mean, variance = _log_moments(width)
    mean = (depth - 1) * mean + 0.5 * (np.log(2) + digamma(freedom / 2))
    variance = (depth - 1) * variance + polygamma(1, freedom / 2) / 4
    # A sum over frequencies repeats itself with the period 2·half. The tail to the left is the longer one: e^{−k s} for the least k.
    half = 15 * np.sqrt(variance) + (45 + 3 * depth) / min(freedom, k[0])
    step, blocks = np.pi / half, []
    for first in range(0, 2**20, 256):
        t = (first + np.arange(256) + 0.5) * step
        each = loggamma((k + 1j * t[:, None]) / 2) - gammaln(k / 2)
        layer = np.exp(log_share + each).sum(axis=1)
        last = np.exp(loggamma((freedom + 1j * t) / 2) - gammaln(freedom / 2))
        # √2 of each factor and the mean of all, as one phase.
        blocks.append((t, layer ** (depth - 1) * last * np.exp(1j * t * (0.5 * depth * np.log(2) - mean))))
        if np.abs(blocks[-1][1]).max() < 1e-14:
            break
    t, transform = (np.concatenate(part) for part in zip(*blocks, strict=True))
    alive = np.exp((depth - 1) * np.log1p(-(2.0**-width)))
    log_values = np.log(values, out=np.full(values.shape, -np.inf), where=values > 0) + log_factor
    away = np.clip(log_values.ravel() - mean, -half, half)
    cdf = np.empty(away.shape)
    for part in np.array_split(np.arange(away.size), max(1, away.size // 1024)):
        cdf[part] = 0.5 - ((np.exp(-1j * t * away[part, None]) * transform).imag / t).sum(axis=1) * step / np.pi
    cdf = np.where(away <= -half, 0, np.where(away >= half, 1, np.clip(cdf, 0, 1))).reshape(values.shape)
    return np.asarray(np.where(values < 0, 0, 1 - alive * (1 - cdf)))


class Theorem1(NamedTuple):
    """The two terms of Theorem 1, arrays of one shape; `total` is their sum."""

    training: Array
    initialization: Array

    @property
    def total(self) -> Array:
        return np.asarray(self.training + self.initialization)


def gamma_regime(gamma: ArrayLike) -> NDArray[np.str_]:
    """What depth does to Theorem 1's bound at fixed width, by γ = β √(m/2) (`Initialization.gamma`): §4.1.

    "helps exponentially" for γ < 1 (LeCun), "hurts polynomially" for γ = 1 (He, NTK; to 1e-9), "hurts exponentially" for γ > 1.
    Order: the regimes are those of the bound, as L grows. γ ≥ 0, any shape.
    """
    g = check_reals("gamma", gamma, least=0)
    return np.where(
        np.isclose(g, 1, rtol=0, atol=1e-9), "hurts polynomially", np.where(g < 1, "helps exponentially", "hurts exponentially")
    )


def theorem_1(init: Init, *, inputs: ArrayLike, width: ArrayLike, depth: ArrayLike, outputs: ArrayLike) -> Theorem1:
    """Theorem 1: an upper bound on P/ε of trained lazy networks, of right order in m, L, d, o; its constants are suppressed.

    P/ε ≲ (1/α) (√(L³ m² β_1² β_L²) e^{−m/L³} + √(m o β_1² β_L²)) γ^{L−2}, γ = β √(m/2). The first term is what
    training moves (Lemma 4), the second what initialization gives (Lemma 5). With the initializations of Table 1 it is
    that table's last column. Order: only shapes and exponents mean something. Arguments as in `stability_at_initialization`.
    """
    d, m, layers, o = check_shape(inputs, width, depth, outputs)
    scales = _scales(init, d, m, layers, o)
    common = scales.beta_first * scales.beta_last * (scales.beta * np.sqrt(m / 2)) ** (layers - 2) / scales.alpha
    return Theorem1(common * layers**1.5 * m * np.exp(-m / layers**3), common * np.sqrt(m * o))


def peak_width(depth: ArrayLike) -> Array:
    """m = L³/2, where Theorem 1's bound peaks in width for LeCun, He and NTK, whose first term goes like √m e^{−m/L³}.

    Exact for that expression, of which the exponent's own constant is not known: only its growth with L³ means something.
    depth L ≥ 2, any shape.
    """
    return np.asarray(check_counts("depth", depth, least=2) ** 3 / 2)


def plateau_width(depth: ArrayLike, outputs: ArrayLike = 1) -> Array:
    """The width above which Theorem 1's first term lies below its second: the end of the phase transition.

    Their ratio √(L³ m/o) e^{−m/L³} is the same for every initialization; it is 1 at m = −(L³/2) W(−2o/L⁶), with Lambert's
    W on its lower branch, near (L³/2) ln(L³ m/o). NaN where the first term is below at every width (o > L⁶/(2e)).
    depth L ≥ 2, outputs o ≥ 1, any shapes.
    """
    layers, o = check_broadcast(depth=check_counts("depth", depth, least=2), outputs=check_counts("outputs", outputs))
    cube = layers**3
    argument = -2 * o / cube**2
    inside = argument >= -np.exp(-1)
    width = -cube / 2 * lambertw(np.where(inside, argument, -np.exp(-1)), k=-1).real
    return np.asarray(np.where(inside, width, np.nan))


class Table2(NamedTuple):
    """Three upper bounds on P/ε as orders, arrays of one shape."""

    ours: Array
    wu: Array
    huang: Array


def table_2(*, width: ArrayLike, depth: ArrayLike) -> Table2:
    """Table 2: bounds on P/ε for NTK initialization with one output and d of the order of m, all as orders.

    ours (Theorem 1): √(L³ m) e^{−m/L³} + 1. Wu et al. (2021): L² m^{1/3} √(ln m) + √(m L). Huang et al. (2021):
    2^{(3L−5)/2} √m. width m ≥ 1, depth L ≥ 2: any shapes that broadcast.
    """
    m, layers = check_broadcast(width=check_counts("width", width), depth=check_counts("depth", depth, least=2))
    ours = np.sqrt(layers**3 * m) * np.exp(-m / layers**3) + 1
    wu = layers**2 * np.cbrt(m) * np.sqrt(np.log(m)) + np.sqrt(m * layers)
    return Table2(ours, wu, 2 ** ((3 * layers - 5) / 2) * np.sqrt(m))


def parameter_count(*, inputs: ArrayLike, width: ArrayLike, depth: ArrayLike, outputs: ArrayLike) -> Array:
    """p = d m + (L − 2) m² + m o, the number of weights of a network of eq. (2). Exact."""
    d, m, layers, o = check_shape(inputs, width, depth, outputs)
    return np.asarray(d * m + (layers - 2) * m**2 + m * o)


def law_of_robustness(*, samples: ArrayLike, inputs: ArrayLike, parameters: ArrayLike) -> Array:
    """Bubeck and Sellke (2021): a network that fits noisy labels has a Lipschitz constant ≳ √(n d / p). Order, a *lower* bound.

    For isoperimetric data, label noise, a fit below the noise level and polynomially bounded weights, up to logarithms. With
    p ≈ m d weights of two layers it is √(n/m). samples n, inputs d, parameters p ≥ 1: any shapes that broadcast.
    """
    numbers = {"samples": samples, "inputs": inputs, "parameters": parameters}
    n, d, p = check_broadcast(**{name: check_counts(name, number) for name, number in numbers.items()})
    return np.asarray(np.sqrt(n * d / p))


def jensen_bound(init: Init, *, inputs: ArrayLike, width: ArrayLike, depth: ArrayLike, outputs: ArrayLike) -> Array:
    """Lemma 5: P(f_0, ε)/ε ≤ (1/α) √(m o β_1² β_L² / 2) γ^{L−2}, the root of the second moment. Bound (derived here).

    The second moment itself is E‖J_0 δ‖² = ε² d/(d+2) times this squared, so that for few layers and many inputs little is lost.
    Arguments as in `stability_at_initialization`.
    """
    d, m, layers, o = check_shape(inputs, width, depth, outputs)
    scales = _scales(init, d, m, layers, o)
    log_gamma = np.log(scales.beta) + 0.5 * np.log(m / 2)
    first = 0.5 * np.log(m * o / 2) + np.log(scales.beta_first) + np.log(scales.beta_last) - np.log(scales.alpha)
    return np.asarray(np.exp(first + (layers - 2) * log_gamma))


def theorem_2(init: Init, *, inputs: ArrayLike, width: ArrayLike, depth: ArrayLike, outputs: ArrayLike = 1) -> Array:
    """Theorem 2's condition as a number: α / (m^{3/2} Σ_l β_l)^L. Training to a small risk is non-lazy where it is ≫ 1. Order.

    ‖W_l(0)‖_F is nearer to m β_l, so m^{3/2} asks for more than is needed: `least_movement` gives explicit constants.
    Arguments as in `stability_at_initialization`; the theorem is for one output.
    """
    d, m, layers, o = check_shape(inputs, width, depth, outputs)
    scales = _scales(init, d, m, layers, o)
    sum_of_betas = scales.beta_first + (layers - 2) * scales.beta + scales.beta_last
    return np.asarray(np.exp(np.log(scales.alpha) - layers * np.log(m**1.5 * sum_of_betas)))


def critical_exponent(*, width: ArrayLike, depth: ArrayLike, power: float = 1.5) -> Array:
    """c = 3/2 + log_m L: for β_l = m^{−c} and α = 1, Theorem 2's number (`theorem_2`) exceeds 1 for larger c. Exact for that expression.

    power: of m in the condition; 3/2 as the theorem has it, 1 for the order of the explicit companion. width m ≥ 2, depth L ≥ 2.
    """
    m, layers = check_broadcast(width=check_counts("width", width, least=2), depth=check_counts("depth", depth, least=2))
    return np.asarray(check_real("power", power) + np.log(layers) / np.log(m))


def least_movement(norms: ArrayLike, reach: ArrayLike, imbalance: ArrayLike = 0.0) -> Array:
    """How far each layer must have moved for the output that was reached: a lower bound on ‖W_l(T) − W_l(0)‖_F. Bound (derived here).

    The explicit companion of Theorem 2, for (stochastic) gradient descent on any loss of the outputs. With
    reach R = α ‖f_T(x)‖/‖x‖ for any one x, ‖W_l(T)‖_F² ≥ ‖W_l(0)‖_F² + R^{2/L} − mean_k ‖W_k(0)‖_F² + q_l − mean_k q_k, where
    q_l = Σ_s η_s² ‖G_l(s)‖_F² sums the squared steps of the layer (0 for gradient flow). 0 where nothing follows.

    norms: ‖W_l(0)‖_F, shape (…, L); reach: (…); imbalance: q_l, (…, L). Returns (…, L).
    """
    start, q = check_broadcast(norms=check_reals("norms", norms, least=0, ndim=1) ** 2, imbalance=check_reals("imbalance", imbalance))
    _, reach = check_broadcast(norms=start.sum(-1), reach=check_reals("reach", reach, least=0))
    grown = reach[..., None] ** (2 / max(1, start.shape[-1])) - start.mean(-1, keepdims=True)
    end = start + grown + q - q.mean(-1, keepdims=True)
    return np.asarray(np.maximum(np.sqrt(np.maximum(end, 0)) - np.sqrt(start), 0))


def growth_rate(x: ArrayLike, residual: ArrayLike, alpha: ArrayLike = 1.0) -> Array:
    """K = ‖X‖_2 ‖f − y‖_2 / (α B): the fastest relative growth of a neuron of a two-layer network with one output. Bound (derived here).

    For the squared loss ½ (f − y)², averaged over a batch of B: a step of size η multiplies no neuron's |a_r| + ‖w_r‖ by more than
    1 + η K ≤ e^{η K}. x: X, (B, d); residual: f − y, (…, B). Returns (…).
    """
    x, r = check_matrix("x", x), check_reals("residual", residual, ndim=1)
    if r.shape[-1] != len(x):
        raise ValueError(f"residual must have shape (…, {len(x)}) to fit x, not {r.shape}.")
    lengths, alpha = check_broadcast(residual=np.linalg.norm(r, axis=-1), alpha=_positive("alpha", alpha))
    return np.asarray(np.linalg.norm(x, 2) * lengths / (alpha * len(x)))


def neuron_mass(first: ArrayLike, last: ArrayLike) -> Array:
    """Σ_r (|a_r| + ‖w_r‖)² of a two-layer network with one output. first: w_r as columns (…, d, m); last: a_r, (…, m). Exact."""
    w, a = check_reals("first", first, ndim=2), check_reals("last", last, ndim=1)
    lengths, a = check_broadcast(first=np.linalg.norm(w, axis=-2), last=a)
    return np.asarray(((np.abs(a) + lengths) ** 2).sum(-1))


def mean_neuron_mass(init: Init, *, inputs: ArrayLike, width: ArrayLike) -> Array:
    """E Σ_r (|a_r| + ‖w_r‖)² at initialization: m (d β_1² + 2 β_1 β_L E χ_d √(2/π) + β_L²). Exact (derived here).

    For m^{−c} it is m^{1−2c} times a number that depends on d alone: the rate of Theorem 3's companion. inputs d, width m ≥ 1.
    """
    d, m, layers, o = check_shape(inputs, width, 2, 1)
    first, _, last, _ = _scales(init, d, m, layers, o)
    mixed = 2 * first * last * np.exp(log_mean_chi(d)) * np.sqrt(2 / np.pi)
    return np.asarray(m * (d * first**2 + mixed + last**2))


def early_stability_bound(mass: ArrayLike, growth: ArrayLike, *, inputs: ArrayLike, alpha: ArrayLike = 1.0) -> Array:
    """P(f_t, ε)/ε ≤ d/(d+1) · E|u_1| · e^{2 growth}/(4α) · mass: the explicit companion of Theorem 3. Bound (derived here).

    For two-layer networks with one output on the squared loss, for every law of x and every t. mass: `neuron_mass` at t = 0, or its mean;
    growth: Σ_s η_s K_s with `growth_rate` at each step (K t for gradient flow). All broadcast.
    """
    numbers = {"mass": check_reals("mass", mass, least=0), "growth": check_reals("growth", growth)}
    mass, growth, d, alpha = check_broadcast(**numbers, inputs=check_counts("inputs", inputs), alpha=_positive("alpha", alpha))
    direction = mean_ball_radius(d) * mean_absolute_projection(d)
    return np.asarray(direction * np.exp(2 * growth) / (4 * alpha) * mass)


def two_layer_gram(x: ArrayLike, first: ArrayLike, last: ArrayLike, alpha: ArrayLike = 1.0) -> Array:
    """H of Lemma 6, the tangent kernel of a two-layer network with one output: df/dt = −H (f − y) under gradient flow on ½‖f − y‖².

    H_ij = (1/α²) Σ_r [a_r² 1{w_r·x_i ≥ 0} 1{w_r·x_j ≥ 0} x_i·x_j + φ(w_r·x_i) φ(w_r·x_j)], a sum over neurons without 1/m. Exact.
    x: (n, d); first: w_r as columns (…, d, m); last: a_r, (…, m). Returns (…, n, n).
    """
    x, w, a = check_matrix("x", x), check_reals("first", first, ndim=2), check_reals("last", last, ndim=1)
    if w.shape[-2] != x.shape[1]:
        raise ValueError(f"first must have shape (…, {x.shape[1]}, m) to fit x, not {w.shape}.")
    _, a = check_broadcast(first=w[..., 0, :], last=a)
    check_broadcast(first=a[..., 0], alpha=_positive("alpha", alpha))
    before = x @ w
    gates = (before >= 0) * a[..., None, :]
    h = np.maximum(before, 0)
    gram = (gates @ np.swapaxes(gates, -1, -2)) * (x @ x.T) + h @ np.swapaxes(h, -1, -2)
    return np.asarray(gram / np.asarray(alpha)[..., None, None] ** 2)


def mean_two_layer_gram(x: ArrayLike, init: Init, *, width: ArrayLike) -> Array:
    """H^∞ of Lemma 7: the mean of `two_layer_gram` at initialization, by arc-cosine kernels (Cho and Saul, 2009). Exact.

    With θ the angle between x_i and x_j: (m/(2π α²)) [β_L² (π − θ) x_i·x_j + β_1² ‖x_i‖ ‖x_j‖ (sin θ + (π − θ) cos θ)].
    x: (n, d), without rows of zeros; width m ≥ 1, any shape (…). Returns (…, n, n).
    """
    x = check_matrix("x", x, directions=True)
    d, m, layers, o = check_shape(x.shape[1], width, 2, 1)
    scales = _scales(init, d, m, layers, o)
    first, last, alpha = (np.asarray(scale)[..., None, None] for scale in (scales.beta_first, scales.beta_last, scales.alpha))
    norms = np.linalg.norm(x, axis=1)
    u = x / norms[:, None]
    # arccos would lose half of the digits near 0 and π.
    theta = 2 * np.arctan2(np.linalg.norm(u[:, None] - u, axis=-1), np.linalg.norm(u[:, None] + u, axis=-1))
    gates, values = (np.pi - theta) * np.cos(theta), np.sin(theta) + (np.pi - theta) * np.cos(theta)
    return np.asarray(m[..., None, None] / (2 * np.pi * alpha**2) * norms[:, None] * norms * (last**2 * gates + first**2 * values))


def gram_drift_bound(
    *,
    samples: ArrayLike,
    width: ArrayLike,
    beta: ArrayLike,
    weight_movement: ArrayLike,
    output_movement: ArrayLike,
    alpha: ArrayLike = 1.0,
) -> Array:
    """Lemma 8 with constants: E sup ‖H − H(0)‖_2 ≤ (n² m/α²)(2√(2/π) β (R_a + (3/2) R_w) + R_a² + R_w²). Bound (derived here).

    The mean is over an initialization with β_1 = β_L = β; the supremum over all networks with ‖w_r − w_r(0)‖ ≤ R_w
    (`weight_movement`) and |a_r − a_r(0)| ≤ R_a (`output_movement`) for every neuron r; inputs of unit length. All broadcast.
    """
    lengths = {"beta": beta, "weight_movement": weight_movement, "output_movement": output_movement}
    n, m, alpha, b, r_w, r_a = check_broadcast(
        samples=check_counts("samples", samples),
        width=check_counts("width", width),
        alpha=_positive("alpha", alpha),
        **{name: check_reals(name, length, least=0) for name, length in lengths.items()},
    )
    inside = 2 * np.sqrt(2 / np.pi) * b * (r_a + 1.5 * r_w) + r_a**2 + r_w**2
    return np.asarray(n**2 * m / alpha**2 * inside)


def wide_stability_at_initialization(init: Init, *, inputs: ArrayLike, width: ArrayLike, depth: ArrayLike, outputs: ArrayLike) -> Array:
    """P/ε at initialization as m → ∞: `stability_at_initialization` with √(m/2) for the ReLU gain. Exact in the limit.

    For LeCun, He and NTK the width cancels and this is the limit itself; for m^(−c) it is the leading
    order in m. Arguments as there.
    """
    return np.asarray(np.exp(_log_stability(init, inputs, width, depth, outputs, lambda m: np.asarray(0.5 * np.log(m / 2)))))
