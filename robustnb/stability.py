"""Perturbation stability (Definitions 1 and 3), the other metrics of §3.2, and the lazy training ratio (§5.2).

Larger perturbation stability means *less* robust on average. P is linear in the radius ε, so it is
always given per unit radius, P/ε. Networks are `FCN` or `ConvNet` values; results have one value a member.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from . import theory
from ._checks import check_count, check_real, shown
from .convnets import ConvNet
from .networks import FCN

# How many numbers a temporary copy may have where a large tensor is looked at in parts.
PART = 2**19


# Networks with a members axis.
Network = FCN | ConvNet


class Stability(NamedTuple):
    """P/ε and its standard error over the inputs; each of shape (members,), or () for a torch module.

    The error is that of one network's average over inputs and perturbations. How far networks of different
    seeds lie apart is another matter, and is computed from the values of several members.
    """

    value: Tensor
    standard_error: Tensor


def uniform_in_ball(shape: tuple[int, ...], *, radius: float, seed: int) -> Tensor:
    """Vectors uniform in the ℓ2 ball of that radius in R^d: a tensor of `shape` = (…, d), float64, on the CPU.

    A Gaussian direction times radius · U^(1/d). Raises ValueError for a radius that is not above 0.
    """
    radius, seed = check_real("radius", radius, exclusive=True), check_count("seed", seed, least=0)
    if not isinstance(shape, tuple) or not shape:
        raise TypeError(f"shape must be a tuple of whole numbers, (…, d), not {shown(shape)}.")
    shape = (*(check_count("shape", size, least=0) for size in shape[:-1]), check_count("shape", shape[-1]))
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(shape, generator=generator, dtype=torch.float64)
    length = torch.rand((*shape[:-1], 1), generator=generator, dtype=torch.float64) ** (1 / shape[-1])
    return radius * length * direction / direction.norm(dim=-1, keepdim=True)


def perturbation_stability(network: Network | nn.Module, x: Tensor, *, seed: int = 0) -> Stability:
    """P/ε = E‖J(x) δ‖ / ε (Definitions 1 and 3), averaged over the inputs x, with its standard error.

    network: an `FCN` or a `ConvNet`, or a torch module that maps a batch to one tensor, a row for each input (it is measured in
    evaluation mode, by the parts of torch that have a derivative in forward mode).
    x: (batch, …) inputs, on the network's device. One δ an input, uniform in the unit ball and fixed by `seed`,
    is carried forward beside the input. With one output the average over δ is known, so none is drawn:
    E‖J δ‖ = ‖J‖ · d/(d+1) · E|u_1| (`theory.mean_absolute_projection`). P here is one network's own;
    average over members for the expectation over W that Definition 1 takes.

    The book's convention for x: the first 1,000 test inputs (`Dataset.probe`).
    """
    check_count("seed", seed, least=0)
    if isinstance(network, nn.Module):
        _check_tensor(x)
    elif isinstance(network, Network):
        check_inputs(network, x)
    else:
        raise TypeError(f"network must be an FCN, a ConvNet or a torch.nn.Module, not {shown(network)}.")
    _check_several(x)
    return _average(_lengths_of_module(network, x, seed) if isinstance(network, nn.Module) else _lengths_of_members(network, x, seed))


def _check_several(x: Tensor) -> None:
    if x.ndim < 2 or len(x) < 2:
        raise ValueError(f"x must hold at least 2 inputs, for a standard error, but its shape is {tuple(x.shape)}.")


def _average(lengths: Tensor) -> Stability:
    return Stability(lengths.mean(-1), lengths.std(-1) / math.sqrt(lengths.shape[-1]))


def stability_by_gram(network: Network, x: Tensor) -> Stability:
    """What `perturbation_stability` estimates, with the average over δ done exactly (`theory.mean_image_length`).

    x: (batch, inputs). It takes a backward pass for each output: worth it where one would otherwise average over many δ, for the
    last digit of one network. What is left of the standard error is due to the choice of the inputs.
    """
    check_inputs(network, x)
    _check_several(x)
    lengths = []
    for inputs in x.split(network.block):
        rows = jacobian(network, inputs).cpu().double()  # there is no float64 on MPS
        spectrum = torch.linalg.eigvalsh(rows @ rows.mT).numpy()
        lengths.append(torch.from_numpy(theory.mean_image_length(spectrum, network.inputs)))
    return _average(torch.cat(lengths, dim=1).to(x))


def _lengths_of_members(network: Network, x: Tensor, seed: int) -> Tensor:
    """‖J(x) δ‖ (or its mean over δ, where that is known) for every member and input: (members, batch)."""
    blocks = x.split(network.block)
    if network.outputs == 1:
        lengths = [jacobian(network, inputs).flatten(2).norm(dim=-1) for inputs in blocks]
        return torch.cat(lengths, dim=1) * _mean_projection(network.inputs)
    deltas = _perturbations_like(x, seed).split(network.block)
    with torch.no_grad():
        lengths = [network.jvp(inputs, delta)[1].norm(dim=-1) for inputs, delta in zip(blocks, deltas, strict=True)]
    return torch.cat(lengths, dim=1)


def _lengths_of_module(module: nn.Module, x: Tensor, seed: int) -> Tensor:
    """The same for a torch module: (batch,)."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with _differentiable_kernels():
            try:
                with torch.no_grad():
                    # Two, since a module may squeeze the axis of one; copies, since it may work in place.
                    f = module(x[:2].clone())
            except (RuntimeError, TypeError, IndexError) as error:
                raise ValueError(f"x must be a batch that the module takes, not {shown(x)} (torch says: {_first_line(error)}).") from error
            if not isinstance(f, Tensor) or f.ndim == 0 or len(f) != 2:
                raise TypeError(f"network must return one tensor, a row for each input, not {shown(f)}: wrap it in a module that does.")
            if f[0].numel() == 1:
                variable = x.detach().requires_grad_()
                with torch.enable_grad():
                    total = module(variable.clone()).sum()
                    if not total.requires_grad:
                        raise ValueError("network must have an output that depends on x by parts of torch that have a derivative.")
                    (gradient,) = torch.autograd.grad(total, variable, materialize_grads=True)
                return gradient.flatten(1).norm(dim=1) * _mean_projection(x[0].numel())
            with torch.no_grad():
                moved = _moved(module, x.clone(), _perturbations_like(x, seed))
            return moved.flatten(1).norm(dim=1)
    finally:
        for part, training in modes.items():
            part.training = training


def _moved(module: nn.Module, x: Tensor, delta: Tensor) -> Tensor:
    """J(x) δ; ValueError if a part of the module has no derivative in forward mode."""
    try:
        moved: Tensor = torch.func.jvp(module, (x,), (delta,))[1]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ValueError(f"network must have derivatives in forward mode throughout (torch says: {_first_line(error)}).") from error
    return moved


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


# What it changes belongs to the process: in two threads at once, the second would take the first one's for what was there.
_ALONE = threading.Lock()


@contextmanager
def _differentiable_kernels() -> Iterator[None]:
    """Attention and recurrent layers by torch's plain kernels: the fused ones have no derivative in forward mode."""
    with _ALONE:
        fused, mkldnn = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
        torch.backends.mha.set_fastpath_enabled(False)
        torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
        try:
            with sdpa_kernel(SDPBackend.MATH):
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)
            torch.backends.mkldnn.enabled = mkldnn


def _perturbations_like(x: Tensor, seed: int) -> Tensor:
    return _perturbations(len(x), x[0].numel(), seed).to(x, copy=True).reshape(x.shape)


@functools.lru_cache(maxsize=2)
def _perturbations(n: int, dimension: int, seed: int) -> Tensor:
    """Drawn once for all the epochs of a run: drawing takes as long as the rest of a measurement of a small network."""
    return uniform_in_ball((n, dimension), radius=1.0, seed=seed)


def _mean_projection(dimension: int) -> float:
    return float(theory.mean_ball_radius(dimension) * theory.mean_absolute_projection(dimension))


def lazy_ratio(network: Network, initial: Network) -> Tensor:
    """κ = Σ_l ‖W_l − W_l(0)‖_F / Σ_l ‖W_l(0)‖_F, one value a member (§5.2). Small is lazy."""
    for name, each in (("network", network), ("initial", initial)):
        check_network(name, each)
    if [weight.shape for weight in network.weights] != [weight.shape for weight in initial.weights]:
        raise ValueError("initial must have the same shape and as many members as network.")
    moved, size = torch.zeros(2, network.members, dtype=network.dtype, device=network.device)
    for now, then in zip(network.weights, initial.weights, strict=True):
        # In parts: the difference of two large layers would take as much memory as a layer.
        part = max(1, PART // now[0].numel())
        pairs = zip(now.split(part), then.split(part), strict=True)
        moved += torch.cat([torch.linalg.vector_norm((a - b).flatten(1), dim=1) for a, b in pairs])
        size += torch.linalg.vector_norm(then.flatten(1), dim=1)
    return moved / size


@torch.enable_grad()
def jacobian(network: Network, x: Tensor) -> Tensor:
    """J(x) = ∂f/∂x by reverse mode: (members, batch, outputs, inputs), for x of shape (batch, inputs)."""
    variable = x.detach().expand(network.members, *x.shape).clone().requires_grad_()
    f = network(variable)
    rows = [torch.autograd.grad(f[..., k].sum(), variable, retain_graph=True)[0] for k in range(network.outputs)]
    return torch.stack(rows, dim=2)


def local_lipschitz(network: Network, x: Tensor) -> Tensor:
    """max over the inputs x of the spectral norm ‖J(x)‖_2: the network's Lipschitz constant near the data (§3.2).

    x: (batch, inputs). Returns (members,).
    """
    check_inputs(network, x)
    return torch.linalg.matrix_norm(jacobian(network, x), ord=2).amax(dim=-1)


def lipschitz_bound(network: FCN) -> Tensor:
    """Π_l ‖W_l‖_2 / α: a Lipschitz constant that holds everywhere, and is far from tight (§3.2). Returns (members,)."""
    if not isinstance(network, FCN):
        raise TypeError(f"network must be an FCN, not {shown(network)}.")
    bound = torch.ones(network.members, device=network.device, dtype=network.dtype)
    for weight in network.weights:
        bound = bound * torch.linalg.matrix_norm(weight, ord=2)
    return bound / torch.as_tensor(network.alpha, device=network.device).flatten()


@torch.enable_grad()
def attack(network: Network, x: Tensor, y: Tensor, *, radius: float, steps: int = 20) -> Tensor:
    """Inputs perturbed to raise the cross-entropy within an ℓ2 ball: projected gradient ascent (Madry et al., 2018).

    x: (batch, inputs), y: (batch,) class numbers, radius > 0. Each of the `steps` moves every input by
    2.5 · radius / steps along its normalized gradient, then back into its ball. Starts from x itself.
    Returns (members, batch, inputs). Pixel bounds are not enforced: the ball is the whole constraint, as in Definition 1.
    """
    check_inputs(network, x)
    check_classes("y", y, len(x), network.outputs)
    radius, steps = _check_radius(radius, x), check_count("steps", steps)
    center = x.detach().expand(network.members, *x.shape)
    delta = torch.zeros_like(center)
    for _ in range(steps):
        variable = (center + delta).requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(network(variable), y).sum(), variable)
        # Divided by its largest entry first: the squares of a small gradient would underflow.
        gradient = gradient / gradient.abs().amax(dim=-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        delta = delta + 2.5 * radius / steps * F.normalize(gradient, dim=-1)
        delta = delta * (radius / delta.norm(dim=-1, keepdim=True).clamp_min(radius))
    return center + delta


def worst_case_loss(network: Network, x: Tensor, y: Tensor, *, radius: float, steps: int = 20) -> Tensor:
    """Mean cross-entropy at the inputs that `attack` finds (Madry et al., 2018). Returns (members,)."""
    with torch.no_grad():
        return cross_entropy(network(attack(network, x, y, radius=radius, steps=steps)), y).mean(dim=-1)


def error_under_attack(network: Network, x: Tensor, y: Tensor, *, radius: float, steps: int = 20) -> Tensor:
    """Fraction of the inputs that `attack` makes the network misclassify (Schmidt et al., 2018). Returns (members,)."""
    with torch.no_grad():
        predicted = network(attack(network, x, y, radius=radius, steps=steps)).argmax(dim=-1)
    return (predicted != y).to(x.dtype).mean(dim=-1)


def probabilistic_robustness(network: Network, x: Tensor, *, radius: float, samples: int = 20, seed: int = 0) -> Tensor:
    """How often a δ uniform in the ball leaves the predicted label as it is (after Robey et al., 2022). Returns (members,)."""
    check_inputs(network, x)
    radius, samples, seed = _check_radius(radius, x), check_count("samples", samples), check_count("seed", seed, least=0)
    with torch.no_grad():
        label = network(x).argmax(dim=-1)
        kept = torch.zeros_like(label)
        for sample in range(samples):
            # Neighbouring seeds share none.
            delta = uniform_in_ball(tuple(x.shape), radius=radius, seed=seed * samples + sample).to(x)
            kept = kept + (network(x + delta).argmax(dim=-1) == label)
    return kept.to(x.dtype).mean(dim=-1) / samples


def cross_entropy(f: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of every member on every input: (members, batch), for outputs f (members, batch, outputs) and classes y (batch,)."""
    return F.cross_entropy(f.mT, y.expand(f.shape[:2]), reduction="none")


def check_network(name: str, network: Network) -> None:
    """An `FCN` or a `ConvNet`, or an error that says so."""
    if not isinstance(network, Network):
        raise TypeError(f"{name} must be an FCN or a ConvNet, not {shown(network)}.")


def check_inputs(network: Network, x: Tensor) -> None:
    """Inputs (batch, inputs) that the network takes, at least one, or an error that says why not."""
    check_network("network", network)
    _check_tensor(x)
    if x.ndim != 2 or x.shape[1] != network.inputs or not len(x):
        raise ValueError(f"x must have shape (batch, {network.inputs}) to fit the network, not {tuple(x.shape)}.")
    if x.dtype != network.dtype or x.device != network.device:
        raise ValueError(f"x must be of type {network.dtype} on {network.device}, as the network is, not {x.dtype} on {x.device}.")


def check_classes(name: str, y: Tensor, n: int, classes: int) -> None:
    """A class for each of n inputs, or an error that says so."""
    whole = isinstance(y, Tensor) and y.dtype == torch.int64 and y.shape == (n,)
    if not whole:
        raise ValueError(f"{name} must hold a class for each of the {n} inputs, of type torch.int64, not {shown(y)}.")
    if y.min() < 0 or y.max() >= classes:
        raise ValueError(f"{name} must hold classes from 0 to {classes - 1}, not from {y.min()} to {y.max()}.")


def _check_tensor(x: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point() or not x.ndim:
        raise TypeError(f"x must be a torch.Tensor of real numbers, (batch, …), not {shown(x)}.")
    if not is_finite(x):
        raise ValueError("x must hold finite numbers only, but it has NaN or infinite entries.")


def _check_radius(radius: float, x: Tensor) -> float:
    """A radius whose square is finite in the precision of x, or an error that says so."""
    return check_real("radius", radius, exclusive=True, most=math.sqrt(torch.finfo(x.dtype).max))


def is_finite(x: Tensor) -> bool:
    """Whether all entries are finite; in parts, since torch makes a copy to look."""
    return all(bool(torch.isfinite(part).all()) for part in x.split(512))
