"""A setting: networks of one shape and how they are trained; and a grid of them."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from itertools import product
from typing import Any, NamedTuple

from ._checks import MOST_LAYERS, check_choice, check_count, check_real, check_seeds, shown
from .convnets import MODELS, plan_of
from .data import NORMALIZATIONS
from .initialization import get_initialization
from .training import LOSSES

# How to read a table of results: these columns name a network and how long it was trained, and so a row.
KEY = (
    *("dataset", "normalize", "model", "init", "width", "depth", "loss", "lr", "decay", "batch_size"),
    *("batch_seed", "init_seed", "epoch"),
)


@dataclass(frozen=True)
class Setting:
    """Networks of one shape, one for each initialization seed, and how they are trained.

    lr: the learning rate of the first ten epochs; every ten epochs it is multiplied by `decay` (1: it is constant; the paper's
    schedule is lr 0.001, decay 0.8). every: measure after each so many epochs, and before the first; None: after the last only.
    model: "fcn" (`fully_connected`), or one of those of `convolutional`, for which width is the channels of the first convolution.
    dataset and normalize, loss, batch_size and batch_seed are as `load_data` and `train` take them.

    Raises ValueError or TypeError for a value out of range.
    """

    init: str
    width: int
    depth: int
    lr: float
    epochs: int
    decay: float = 1.0
    every: int | None = None
    dataset: str = "digits"
    normalize: str = "pixels"
    model: str = "fcn"
    loss: str = "cross_entropy"
    batch_size: int = 64
    batch_seed: int = 0
    init_seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if not isinstance(self.init, str):
            raise TypeError(f"init must be the name of an initialization, not {shown(self.init)}.")
        init = get_initialization(self.init).name
        for name, least in (("width", 1), ("epochs", 0), ("batch_size", 1), ("batch_seed", 0)):
            check_count(name, getattr(self, name), least=least)
        check_count("depth", self.depth, least=2, most=MOST_LAYERS)
        if self.every is not None:
            check_count("every", self.every)
        check_real("lr", self.lr)
        check_real("decay", self.decay)
        check_choice("normalize", self.normalize, NORMALIZATIONS)
        check_choice("model", self.model, ("fcn", *MODELS))
        check_choice("loss", self.loss, LOSSES)
        if self.model != "fcn":
            plan_of(self.model, channels=1, side=8, width=self.width, depth=self.depth)
        seeds = check_seeds("init_seeds", self.init_seeds)
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"init_seeds must hold each seed once, not {shown(self.init_seeds)}.")
        # The name as tables write it, the rates to six digits, as a file holds them.
        rates = {name: float(f"{getattr(self, name):.6g}") for name in ("lr", "decay")}
        for name, value in {"init": init, "init_seeds": seeds, **rates}.items():
            object.__setattr__(self, name, value)

    @property
    def measured(self) -> tuple[int, ...]:
        """The epochs that are measured."""
        return (*(() if self.every is None else range(0, self.epochs, self.every)), self.epochs)

    def keys(self, seed: int) -> list[tuple[object, ...]]:
        """What names each row of this seed, the last one last: its values of KEY."""
        values = vars(self) | {"init_seed": seed}
        return [tuple((values | {"epoch": epoch})[column] for column in KEY) for epoch in self.measured]

    @property
    def seconds(self) -> float:
        """About what training all its seeds takes on one core of a server of 2022: for plans, not for comparisons."""
        shape = SHAPES.get(self.dataset, SHAPES["mnist"])
        steps, members = self.epochs * -(-shape.images // self.batch_size), len(self.init_seeds)
        if self.model != "fcn":
            plan = plan_of(self.model, channels=shape.channels, side=shape.side, width=self.width, depth=self.depth)
            product, activation, layer = CONV_SECONDS[self.model]
            return steps * members * (self.batch_size * (product * plan.products + activation * plan.activations) + layer * self.depth)
        products = 4 * shape.inputs * self.width + 6 * (self.depth - 2) * self.width**2 + 6 * shape.classes * self.width
        each = self.batch_size * (products / 4e10 + 1e-9 * self.depth * self.width)
        return steps * (6e-5 * (1 + self.depth) + 6e-9 * self.batch_size * shape.inputs + members * each)


# What a training step of convolutional networks takes for each product, each activation and each layer: by least squares through the
# relative times of the atlas's tables, to a factor of two.
CONV_SECONDS = {"cnn": (1.2e-10, 5.7e-9, 1.8e-4), "resnet": (4.6e-10, 2.4e-8, 1e-4), "scaled_resnet": (1.2e-10, 0.0, 4.8e-4)}


class _Shape(NamedTuple):
    images: int
    channels: int
    side: int
    classes: int

    @property
    def inputs(self) -> int:
        return self.channels * self.side**2


# Of the training data, without loading them.
SHAPES = {
    "digits": _Shape(1437, 1, 8, 10),
    "mnist": _Shape(60_000, 1, 28, 10),
    "cifar10": _Shape(50_000, 3, 32, 10),
    "cifar10_sample": _Shape(6068, 3, 32, 10),
    "cifar100": _Shape(50_000, 3, 32, 100),
}


def grid(**values: Any) -> tuple[Setting, ...]:
    """Every combination of the values of `Setting`'s fields: a list varies, anything else is the same for all.

    The first list varies slowest. Raises TypeError for an unknown or a missing field, ValueError for an empty list or a value
    out of range.
    """
    known = [field.name for field in fields(Setting)]
    for name, value in values.items():
        if name not in known:
            raise TypeError(f"grid takes {', '.join(known)}, not {name!r}.")
        if isinstance(value, list) and not value:
            raise ValueError(f"{name} must hold at least one value, not none.")
    lacking = [field.name for field in fields(Setting) if field.default is MISSING and field.name not in values]
    if lacking:
        raise TypeError(f"grid needs {', '.join(lacking)} too.")
    axes = [value if isinstance(value, list) else [value] for value in values.values()]
    return tuple(Setting(**dict(zip(values, point, strict=True))) for point in product(*axes))
