"""Wide networks with one output in closed form: their two kernels, and P/ε after training. Only numpy and scipy, as in `theory`.

An infinitely wide network of eq. (2) starts as a Gaussian process with covariance K (`output_kernel`). Trained with small steps on the
squared loss it stays at its linearization, whose kernel Θ (`tangent_kernel`) does not move (Jacot et al., 2018; Lee et al., 2019).
For two layers both kernels are exact means at the width that is given; with more layers they are so up to a part of order 1/m.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ._checks import MOST_LAYERS, Array, check_count, check_matrix, check_real, check_reals, shown
from .initialization import Initialization, get_initialization
from .theory import mean_absolute_projection, mean_ball_radius, mean_root

# Two directions at a smaller angle count as one: in float64 the way from one to the other is lost.
ONE_ANGLE = 1e-7


class Kernel(NamedTuple):
    """k(x, z), shape (p, n), and its gradient in x, shape (p, n, d)."""

    value: Array
    gradient: Array


def output_kernel(x: ArrayLike, z: ArrayLike, init: str | Initialization, *, width: int, depth: int) -> Kernel:
    """K(x, z) = E f_0(x) f_0(z) = (2/(m α²)) Π_l q_l · ‖x‖ ‖z‖ cos θ_{L−1}, with q_l = m β_l²/2, and its gradient in x.

    θ_0 is the angle between x and z; cos θ_l = [sin θ_{l−1} + (π − θ_{l−1}) cos θ_{l−1}]/π (Cho and Saul, 2009).
    x: (p, d), z: (n, d), without rows of zeros; width m ≥ 1, depth L ≥ 2.
    """
    (q, alpha), angles = _gains(init, x, width, depth), _Angles(x, z, depth)
    factor = 2 / width * q.prod() / alpha**2
    return angles.kernel(factor * np.cos(angles.angle[-1]), -factor * np.sin(angles.angle[-1]) * angles.slope[-1])


def tangent_kernel(x: ArrayLike, z: ArrayLike, init: str | Initialization, *, width: int, depth: int) -> Kernel:
    """Θ(x, z) = E Σ_l ⟨∂f/∂W_l(x), ∂f/∂W_l(z)⟩ at the start, and its gradient in x. A sum over weights, without 1/m or 1/n.

    Σ_l c_l ‖x‖ ‖z‖ cos θ_{l−1} Π_{k=l−1}^{L−2} (1 − θ_k/π), c_l = Π_{k≠l} q_k / α², with θ and q of `output_kernel`: the
    recursion of Jacot et al. (2018) in this book's parametrization, where one learning rate gives layer l the share c_l.
    For two layers it is `theory.mean_two_layer_gram`. Where x and z have one direction (or opposite ones) Θ has a kink, a cone: there
    the gradient is the mean over all sides. Arguments as in `output_kernel`.
    """
    (q, alpha), angles = _gains(init, x, width, depth), _Angles(x, z, depth)
    value, slope, passed, slope_of_passed = (np.full(angles.lengths.shape, start) for start in (0.0, 0.0, 1.0, 0.0))
    # From the last layer back: each layer before it has one more factor 1 − θ/π, the share of neurons that let both inputs pass.
    for layer in reversed(range(depth)):
        theta, rate = angles.angle[layer], angles.slope[layer]
        if layer < depth - 1:
            slope_of_passed = slope_of_passed * (1 - theta / np.pi) - passed * rate / np.pi
            passed = passed * (1 - theta / np.pi)
        share = np.delete(q, layer).prod() / alpha**2
        value += share * np.cos(theta) * passed
        slope += share * (np.cos(theta) * slope_of_passed - np.sin(theta) * rate * passed)
    return angles.kernel(value, slope)


def gradient_response(
    x: ArrayLike, x_train: ArrayLike, init: str | Initialization, *, width: int, depth: int, lr: float, steps: float = math.inf
) -> Array:
    """B of ∇f_T(x) = ∇f_0(x) + B (y − f_0(X)), the gradient in x of a wide network after training: (p, d, n).

    B = ∇Θ(x, X) Θ⁻¹ [I − (I − η Θ/n)^T], for T steps of size η on ½‖f − y‖², averaged over the n rows of X (`gradient_descent`;
    Lee et al., 2019; the gradient derived here). Exact for infinite width, where T η m stays fixed. x: (p, d); x_train: X, (n, d).
    Raises ValueError for a rate at which these steps are not stable, η ≥ 2n/λ_max(Θ).
    """
    check_real("lr", lr)
    count = steps if isinstance(steps, float) and steps == math.inf else check_count("steps", steps, least=0)
    on_data = tangent_kernel(x_train, x_train, init, width=width, depth=depth).value
    eigenvalues, vectors = np.linalg.eigh(on_data)
    limit = 2 * len(on_data) / eigenvalues[-1]
    if not lr < limit:
        raise ValueError(f"lr must be below {limit:.3g}, two over the largest eigenvalue of the tangent kernel over n, not {shown(lr)}.")
    seen = eigenvalues > 1e-12 * eigenvalues[-1]  # the rest is rounding: training does not move it
    learned = 1 - (1 - lr * eigenvalues[seen] / len(on_data)) ** count
    inverse = vectors[:, seen] * (learned / eigenvalues[seen]) @ vectors[:, seen].T
    return np.asarray(np.swapaxes(tangent_kernel(x, x_train, init, width=width, depth=depth).gradient, 1, 2) @ inverse)


def stability_after_training(
    x: ArrayLike,
    x_train: ArrayLike,
    y: ArrayLike,
    init: str | Initialization,
    *,
    width: int,
    depth: int,
    lr: float,
    steps: float = math.inf,
) -> Array:
    """P/ε at each x of a wide network after training, averaged over starts: d/(d+1) · E|u_1| · E‖∇f_T(x)‖. Shape (p,).

    ∇f_T(x) is Gaussian, with mean B y and the covariance of ∇f_0(x) − B f_0(X) (derived here), so that no network is trained or drawn.
    y: (n,) targets; y = 0 leaves the part that the start gives. Other arguments, and how sure, as in `gradient_response`.
    """
    response = gradient_response(x, x_train, init, width=width, depth=depth, lr=lr, steps=steps)
    _, d, n = response.shape
    targets = check_reals("y", y)
    if targets.shape != (n,):
        raise ValueError(f"y must have shape ({n},) to fit x_train, not {targets.shape}.")
    (q, alpha), kernel = _gains(init, x, width, depth), output_kernel(x, x_train, init, width=width, depth=depth)
    cross = response @ kernel.gradient
    start = output_kernel(x_train, x_train, init, width=width, depth=depth).value
    # The gradient of the start has independent entries, each with the variance of the output at unit length.
    covariance = (
        2 / width * q.prod() / alpha**2 * np.eye(d) - cross - np.swapaxes(cross, 1, 2) + response @ start @ np.swapaxes(response, 1, 2)
    )
    return np.asarray(mean_ball_radius(d) * mean_absolute_projection(d) * mean_gaussian_length(response @ targets, covariance))


def mean_gaussian_length(mean: ArrayLike, covariance: ArrayLike) -> Array:
    """E‖g‖ for g ~ N(μ, C): `theory.mean_root` in C's eigenbasis. Exact, up to a quadrature of 64 points.

    mean: (…, d); covariance: (…, d, d), symmetric; negative eigenvalues are taken as 0. Returns (…).
    """
    mu, c = check_reals("mean", mean, ndim=1), check_reals("covariance", covariance, ndim=2)
    if c.shape != (*mu.shape, mu.shape[-1]) or not mu.shape[-1]:
        raise ValueError(f"covariance must have shape (…, d, d) where mean has (…, d), not {c.shape} and {mu.shape}.")
    eigenvalues, vectors = np.linalg.eigh(c)
    squares = np.square(np.swapaxes(vectors, -1, -2) @ mu[..., None])[..., 0]
    return mean_root(np.maximum(eigenvalues, 0), squares)


class _Angles:
    """The angles θ_0 … θ_{L−1} of all pairs of x and z, and dθ_l/dθ_0."""

    def __init__(self, x: ArrayLike, z: ArrayLike, depth: int) -> None:
        x, z = check_matrix("x", x, directions=True), check_matrix("z", z, directions=True)
        if x.shape[1] != z.shape[1]:
            raise ValueError(f"x must have as many columns as the other inputs, {z.shape[1]}, not {x.shape[1]}.")
        of_x, self.of_z = np.linalg.norm(x, axis=1), np.linalg.norm(z, axis=1)
        self.lengths, self.along = of_x[:, None] * self.of_z, (x / of_x[:, None])[:, None]
        v = z / self.of_z[:, None]
        # arccos would lose half of the digits near 0 and π.
        theta = 2 * np.arctan2(np.linalg.norm(self.along - v, axis=-1), np.linalg.norm(self.along + v, axis=-1))
        self.across = _over(np.cos(theta)[..., None] * self.along - v, np.sin(theta)[..., None], 0.0)  # ‖x‖ ∇θ_0
        self.angle, self.slope = [theta], [np.ones_like(theta)]
        for _ in range(depth - 1):
            # (1 − cos θ_l)/2, since 1 − cos θ_l has the digits of a small angle and cos θ_l has not.
            half = np.sin(theta / 2) ** 2 - (np.sin(theta) - theta * np.cos(theta)) / (2 * np.pi)
            angle = 2 * np.arcsin(np.sqrt(half))
            self.slope.append(self.slope[-1] * _over((1 - theta / np.pi) * np.sin(theta), np.sin(angle), 1.0))
            self.angle.append(angle)
            theta = angle

    def kernel(self, value: Array, slope: Array) -> Kernel:
        """The kernel ‖x‖ ‖z‖ F(θ_0), from F and its derivative."""
        return Kernel(self.lengths * value, self.of_z[:, None] * (value[..., None] * self.along + slope[..., None] * self.across))


def _over(numerator: Array, sine: Array, otherwise: float) -> Array:
    """The quotient, or its limit (or mean over sides) where the sine says that two directions are one."""
    clear = sine > ONE_ANGLE
    return np.where(clear, numerator / np.where(clear, sine, 1), otherwise)


def _gains(init: str | Initialization, x: ArrayLike, width: int, depth: int) -> tuple[Array, float]:
    """q_l = m β_l²/2 for each of the L layers, and α."""
    shape = {"width": check_count("width", width), "depth": check_count("depth", depth, least=2, most=MOST_LAYERS)}
    first, hidden, last, alpha = get_initialization(init).scales(inputs=check_matrix("x", x, directions=True).shape[1], outputs=1, **shape)
    return width / 2 * np.array([first, *[hidden] * (depth - 2), last]) ** 2, float(alpha)
