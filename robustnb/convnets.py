"""Convolutional and residual networks with a members axis, like `FCN`: many networks of one shape, side by side.

What plays the part of m in Table 1 is a layer's fan-in: 9 · channels for a 3×3 convolution, the channels for the last, linear layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ._checks import MOST_LAYERS, check_choice, check_count, check_seeds
from .initialization import Initialization, get_initialization
from .networks import Members, draw, empty, resolve_device

MODELS = ("cnn", "resnet", "scaled_resnet")

# On so many training images batch normalization's means and variances are taken, wherever a network is evaluated.
CALIBRATION = 1000
# Added to a variance before its root is taken, as torch does.
TINY = 1e-5


class Plan(NamedTuple):
    """The convolutions of a network, each (channels out, channels in, stride), how they are joined, and for what images."""

    model: str
    convolutions: tuple[tuple[int, int, int], ...]
    channels: int
    side: int

    @property
    def sides(self) -> list[int]:
        """Height and width of what each convolution gives, in pixels."""
        sides = [self.side]
        for _, _, stride in self.convolutions:
            sides.append(-(-sides[-1] // stride))
        return sides[1:]

    @property
    def activations(self) -> int:
        """Numbers that the convolutions give for one image."""
        return sum(out * side**2 for (out, _, _), side in zip(self.convolutions, self.sides, strict=True))

    @property
    def products(self) -> int:
        """Multiplications of the convolutions for one image."""
        return sum(9 * into * out * side**2 for (out, into, _), side in zip(self.convolutions, self.sides, strict=True))

    @property
    def parameters(self) -> int:
        """Entries of the convolutions' weights."""
        return sum(9 * into * out for out, into, _ in self.convolutions)


@dataclass(frozen=True)
class ConvNet(Members):
    """Convolutional ReLU networks without biases, f(x) = (1/α) W_L · mean over pixels of the last activations.

    plan.model "cnn": L − 1 convolutions 3×3, each followed by φ. "resnet": He et al.'s (2016) form for CIFAR, L = 6n + 2: a
    convolution, then n blocks of two at each of m, 2m and 4m channels, around each of which the signal is carried unchanged (halved
    in size by every second pixel, filled up with zero channels), with batch normalization after each convolution.
    "scaled_resnet": the same without normalization; each block's output is multiplied by 1/√(2 · blocks) before it is
    added, so that the signal grows at most e-fold in second moment, and there is no φ after the sum (but one after the last).

    `weights` holds the convolutions, (members, channels out, channels in, 3, 3), and W_L, (members, outputs, channels); `gains` each
    normalization's factor and shift, `statistics` the mean and variance by which it normalizes in evaluation, each
    (members, 2, channels).
    """

    plan: Plan
    alpha: float = 1.0
    gains: tuple[Tensor, ...] = ()
    statistics: tuple[Tensor, ...] = ()

    @property
    def inputs(self) -> int:
        return self.plan.channels * self.plan.side**2

    @property
    def outputs(self) -> int:
        return self.weights[-1].shape[1]

    @property
    def width(self) -> int:
        """m: channels of the first convolution."""
        return self.plan.convolutions[0][0]

    @property
    def block(self) -> int:
        """How many inputs to pass at once: a layer's activations then take 4 MiB (64 MiB on a GPU), or are those of 16 inputs."""
        pixels = (self.plan.side // self.plan.convolutions[0][2]) ** 2
        numbers = 2**24 if self.device.type == "cuda" else 2**20
        return max(16, numbers // (self.members * self.width * pixels))

    def clone(self) -> ConvNet:
        """The same networks in memory of their own."""
        weights, gains, statistics = (tuple(part.clone() for part in parts) for parts in (self.weights, self.gains, self.statistics))
        return replace(self, weights=weights, gains=gains, statistics=statistics)

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs f(x) in evaluation: (members, batch, outputs), for x of shape (batch, inputs) or (members, batch, inputs)."""
        return _forward(self, x, _Layers(self, self.statistics))

    def in_training(self, x: Tensor) -> Tensor:
        """f(x) with batch normalization by the batch's own means and variances."""
        return _forward(self, x, _Layers(self, None))

    @torch.no_grad()
    def calibrated(self, x: Tensor) -> ConvNet:
        """The same networks, normalizing in evaluation by the means and variances of these inputs, (batch, inputs).

        In place of a running average, so that a network has them before training, too. Without normalization: the same value.
        """
        layers = _Layers(self, None)
        if self.gains:
            _forward(self, x[:CALIBRATION], layers)
        return replace(self, statistics=tuple(layers.seen))

    @torch.no_grad()
    def jvp(self, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        """f(x) and J(x) δ in evaluation, each (members, batch, outputs), in one pass that carries δ beside x (see `FCN.jvp`)."""
        f, moved = _forward(self, torch.cat([x, delta], dim=-2), _Layers(self, self.statistics, pairs=True)).chunk(2, dim=1)
        return f, moved


class _Layers:
    """One pass through the layers of all members, whose channels lie side by side: h is (batch, members · channels, side, side).

    statistics: of the normalizations, or None for those of the batch, which are then kept in `seen` if no gradient is needed.
    pairs: the second half of the batch is not inputs but what is carried beside the first.
    """

    def __init__(self, network: ConvNet, statistics: tuple[Tensor, ...] | None, *, pairs: bool = False) -> None:
        if network.gains and statistics == ():
            raise ValueError("network must know its means and variances before it is evaluated: network.calibrated(x) takes them from x.")
        self._members, self._pairs = network.members, pairs
        self._weights, self._gains = iter(network.weights), iter(network.gains)
        self._statistics: Iterator[Tensor] | None = None if statistics is None else iter(statistics)
        self.seen: list[Tensor] = []

    def convolve(self, h: Tensor, stride: int = 1) -> Tensor:
        weight = next(self._weights)
        # The same inputs for all members: one convolution with all their channels.
        groups = h.shape[1] // weight.shape[2]
        return F.conv2d(h, weight.flatten(0, 1), stride=stride, padding=1, groups=groups)

    def normalize(self, h: Tensor) -> Tensor:
        factor, shift = next(self._gains).transpose(0, 1).flatten(1)
        if self._statistics is None:
            if not torch.is_grad_enabled():
                variance, mean = torch.var_mean(h, (0, 2, 3), correction=0)
                self.seen.append(torch.stack([mean, variance]).unflatten(1, (self._members, -1)).transpose(0, 1))
            return F.batch_norm(h, None, None, factor, shift, training=True, eps=TINY)
        mean, variance = next(self._statistics).transpose(0, 1).flatten(1)
        h, v = h.chunk(2) if self._pairs else (h, None)
        h = F.batch_norm(h, mean, variance, factor, shift, eps=TINY)
        return h if v is None else torch.cat([h, v * (factor * (variance + TINY).rsqrt())[:, None, None]])

    def rectify(self, h: Tensor) -> Tensor:
        if not self._pairs:
            return h.relu()
        h, v = h.chunk(2)
        return torch.cat([h.relu(), v * (h >= 0)])

    def shorten(self, h: Tensor, channels: int) -> Tensor:
        """Every second pixel of every second row, with channels of zeros behind a member's own."""
        h = h[:, :, ::2, ::2].unflatten(1, (self._members, -1))
        return F.pad(h, (0, 0, 0, 0, 0, channels - h.shape[2])).flatten(1, 2)

    def output(self, h: Tensor) -> Tensor:
        """(members, batch, outputs)."""
        return h.mean((2, 3)).unflatten(1, (self._members, -1)).transpose(0, 1) @ next(self._weights).mT


def _forward(network: ConvNet, x: Tensor, layers: _Layers) -> Tensor:
    plan = network.plan
    image = (plan.channels, plan.side, plan.side)
    h = x.unflatten(1, image) if x.ndim == 2 else x.transpose(0, 1).unflatten(2, image).flatten(1, 2)
    if plan.model == "cnn":
        for _, _, stride in plan.convolutions:
            h = layers.rectify(layers.convolve(h, stride))
        return layers.output(h) / network.alpha
    normalize = layers.normalize if plan.model == "resnet" else lambda h: h
    (_, _, stride), *blocks = plan.convolutions
    h = layers.rectify(normalize(layers.convolve(h, stride)))
    share = len(blocks) ** -0.5  # blocks of two convolutions: 1/√(2 · blocks)
    for channels, _, stride in blocks[::2]:
        branch = normalize(layers.convolve(layers.rectify(normalize(layers.convolve(h, stride)))))
        h = h if stride == 1 else layers.shorten(h, channels)
        h = layers.rectify(h + branch) if plan.model == "resnet" else h + share * branch
    return layers.output(h if plan.model == "resnet" else layers.rectify(h)) / network.alpha


def plan_of(model: str, *, channels: int, side: int, width: int, depth: int) -> Plan:
    """The convolutions of such a network (see `convolutional`, for arguments and errors)."""
    check_choice("model", model, MODELS)
    channels, side, width = check_count("channels", channels), check_count("side", side), check_count("width", width)
    depth = check_count("depth", depth, least=2, most=MOST_LAYERS)
    if model == "cnn":
        return Plan(model, ((width, channels, 2 if side > 16 else 1), *[(width, width, 1)] * (depth - 2)), channels, side)
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth must be 8, 14, 20 or any other 6n + 2 for a residual network, not {depth}.")
    stages = [(width * 2**stage, width * 2 ** max(stage - 1, 0), 2 if stage else 1) for stage in range(3)]
    blocks = (depth - 2) // 6
    parts = [[(out, into, stride), *[(out, out, 1)] * (2 * blocks - 1)] for out, into, stride in stages]
    return Plan(model, ((width, channels, 1), *(convolution for part in parts for convolution in part)), channels, side)


def convolutional(
    init: str | Initialization,
    *,
    model: str,
    channels: int,
    side: int,
    width: int,
    depth: int,
    outputs: int,
    seeds: Sequence[int] = (0,),
    device: str | torch.device = "auto",
    dtype: torch.dtype = torch.float32,
) -> ConvNet:
    """Convolutional or residual networks at initialization, one member for each seed, drawn as `fully_connected` does.

    model: one of MODELS, for images of so many channels and side × side pixels. width: channels of the first convolution. depth: L,
    at least 2; 6n + 2 with n ≥ 1 for residual networks. Images larger than 16 × 16 are halved by the first convolution of a
    "cnn". β follows Table 1 with a layer's fan-in for d and m.

    Raises ValueError for an unknown model, init or device, or a size out of range, MemoryError if the weights would not fit.
    """
    rule = get_initialization(init)
    plan = plan_of(model, channels=channels, side=side, width=width, depth=depth)
    outputs, seeds, place = check_count("outputs", outputs), check_seeds("seeds", seeds), resolve_device(device)
    shapes = [*[(out, into, 3, 3) for out, into, _ in plan.convolutions], (outputs, plan.convolutions[-1][0])]
    weights = empty(shapes, len(seeds), dtype)
    draw(weights, _betas(rule, shapes, width), seeds)
    gains: list[Tensor] = []
    if model == "resnet":
        gains = [torch.tensor([[1.0], [0.0]], dtype=dtype, device=place).repeat(len(seeds), 1, out) for out, _, _ in plan.convolutions]
    return ConvNet(tuple(weight.to(place) for weight in weights), seeds, plan, gains=tuple(gains))


def _betas(rule: Initialization, shapes: list[tuple[int, ...]], width: int) -> list[float]:
    """Table 1's standard deviation of each weight, its fan-in for d or m; NTK's first layer has no m of its own: 9 · width."""
    outputs, first, *rest = shapes[-1][0], *(math.prod(shape[1:]) for shape in shapes)
    d, m, o = (np.array(numbers, dtype=float) for numbers in ([first] * len(shapes), [9 * width, *rest], [outputs] * len(shapes)))
    of_first, of_hidden, of_last = rule.betas(d, m, o)
    return [float(of_first[0]), *map(float, of_hidden[1:-1]), float(of_last[-1])]
