"""Networks with a leading members axis: many networks of one shape, side by side in the same tensors.

A member is one network. Everything a network computes carries the members axis first, so that training
sixteen seeds is one batched matrix product a layer, on a CPU or a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import psutil
import torch
from torch import Tensor

from ._checks import MOST_LAYERS, check_count, check_seeds, shown
from .initialization import Initialization, get_initialization


@dataclass(frozen=True)
class Members:
    """What networks of every kind have that lie side by side: weights with the members axis in front, and a seed for each member."""

    weights: tuple[Tensor, ...]
    seeds: tuple[int, ...]

    @property
    def members(self) -> int:
        return len(self.weights[0])

    @property
    def depth(self) -> int:
        """L, the number of weights."""
        return len(self.weights)

    @property
    def device(self) -> torch.device:
        return self.weights[0].device

    @property
    def dtype(self) -> torch.dtype:
        return self.weights[0].dtype

    def with_weights(self, weights: Sequence[Tensor]) -> Self:
        """The same networks with other weights."""
        return replace(self, weights=tuple(weights))


@dataclass(frozen=True)
class FCN(Members):
    """Fully connected ReLU networks of eq. (2): f(x) = (1/α) W_L φ(W_{L−1} ⋯ φ(W_1 x)), without biases.

    `weights` holds W_1 … W_L, each transposed and with the members axis in front: (members, fan_in, fan_out),
    so that a layer is ``h @ W``. `seeds` are the initialization seeds, one a member. `alpha` is a number, or
    one for each member: (members, 1, 1).
    """

    alpha: float | Tensor = 1.0

    @property
    def inputs(self) -> int:
        return self.weights[0].shape[1]

    @property
    def outputs(self) -> int:
        return self.weights[-1].shape[2]

    @property
    def width(self) -> int:
        return self.weights[0].shape[2]

    @property
    def block(self) -> int:
        """How many inputs to pass at once: a hidden layer's activations then take 2 MiB (64 MiB on a GPU), or are those of 64 inputs."""
        numbers = 2**24 if self.device.type == "cuda" else 2**19
        return max(64, numbers // (self.members * self.width))

    def clone(self) -> FCN:
        """The same networks in memory of their own."""
        return self.with_weights([weight.clone() for weight in self.weights])

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs f(x): (members, batch, outputs), for x of shape (batch, inputs) or (members, batch, inputs)."""
        h = x.mT
        for weight in self.weights[:-1]:
            h = _layer(weight, h).relu_()
        return (_layer(self.weights[-1], h) / self.alpha).mT

    @torch.no_grad()
    def jvp(self, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        """f(x) and J(x) δ, each (members, batch, outputs), in one forward pass and without a Jacobian.

        Carries v_0 = δ, v_l = D_l W_l v_{l−1} beside h_l = D_l W_l h_{l−1}, with D_l = diag(1{W_l h_{l−1} ≥ 0})
        (Definition 2). x and delta: (batch, inputs) or (members, batch, inputs).
        """
        h, v = x.mT, delta.mT
        for weight in self.weights[:-1]:
            h, v = _layer(weight, h), _layer(weight, v)
            # `v * (h >= 0)`, six times as fast; the two differ at subnormal h only.
            v = torch.ops.aten.threshold_backward.grad_input(v, h, -torch.finfo(h.dtype).tiny, grad_input=v)
            h = h.relu_()
        return (_layer(self.weights[-1], h) / self.alpha).mT, (_layer(self.weights[-1], v) / self.alpha).mT


def _layer(weight: Tensor, h: Tensor) -> Tensor:
    """W h of every member, features first: (members, fan_out, batch), for h (fan_in, batch) or (members, fan_in, batch)."""
    if h.ndim == 2:  # the same inputs for all members: one matrix product
        return (weight.mT.flatten(0, 1) @ h).unflatten(0, (len(weight), -1))
    return weight.mT @ h


def fully_connected(
    init: str | Initialization,
    *,
    inputs: int,
    width: int,
    depth: int,
    outputs: int,
    seeds: Sequence[int] = (0,),
    device: str | torch.device = "auto",
    dtype: torch.dtype = torch.float32,
) -> FCN:
    """Fully connected networks at initialization (eq. (2), Table 1), one member for each seed.

    Weights are drawn on the CPU, in double precision, from one generator a seed: a seed gives the same
    member in any company, on any device. `device` is "auto" (CUDA, else CPU) or a torch device.

    Raises ValueError for an unknown init or device, or a size out of range (inputs, width, outputs ≥ 1, depth ≥ 2), MemoryError if
    the weights would not fit into the memory that is free.
    """
    rule = get_initialization(init)
    inputs, width, outputs = check_count("inputs", inputs), check_count("width", width), check_count("outputs", outputs)
    depth = check_count("depth", depth, least=2, most=MOST_LAYERS)
    seeds, place = check_seeds("seeds", seeds), resolve_device(device)

    scales = rule.scales(inputs=inputs, width=width, depth=depth, outputs=outputs)
    betas = [float(scales.beta_first), *[float(scales.beta)] * (depth - 2), float(scales.beta_last)]
    sizes = [inputs, *[width] * (depth - 1), outputs]
    # In memory a weight is the matrix of the text; its transpose is a view.
    weights = [weight.mT for weight in empty([(fan_out, fan_in) for fan_in, fan_out in pairwise(sizes)], len(seeds), dtype)]
    draw(weights, betas, seeds)
    return FCN(tuple(weight.to(place) for weight in weights), seeds, float(scales.alpha))


def empty(shapes: Sequence[tuple[int, ...]], members: int, dtype: torch.dtype) -> list[Tensor]:
    """Weights of these shapes, with the members axis in front, not filled yet; MemoryError if they do not fit into what is free."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating-point type of torch, not {shown(dtype)}.")
    needed, free = dtype.itemsize * members * sum(map(math.prod, shapes)), psutil.virtual_memory().available
    if needed > free:
        raise MemoryError(f"width must be smaller: the weights need {needed / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB are free.")
    return [torch.empty(members, *shape, dtype=dtype) for shape in shapes]


def draw(weights: Sequence[Tensor], betas: Sequence[float], seeds: Sequence[int]) -> None:
    """Fill weights, (members, …) each, with Gaussians of standard deviations β: in double precision, from one generator a seed.

    `uniform_in_ball` draws a perturbation for each input from the same stream: were a neuron's weights to lie beside each other here, as
    a perturbation's entries do there, those of one seed would be parallel. They do not, but in layers of
    one neuron: W_1 fills up along the neurons.
    """
    for member, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        for weight, beta in zip(weights, betas, strict=True):
            weight[member] = beta * torch.randn(weight.shape[1:], generator=generator, dtype=torch.float64)


def resolve_device(device: str | torch.device) -> torch.device:
    """The torch device: "auto" is CUDA if there is one, else CPU. Raises ValueError if it cannot be used here."""
    if isinstance(device, str) and device == "auto":
        # Not MPS, on which nothing here was ever run: who wants it gives its name.
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(f'device must be "auto" or a torch device that this machine has, not {shown(device)}.') from error
    return place
