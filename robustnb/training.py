"""Plain SGD on many members at once: `train` with a history row an epoch, `gradient_descent` step by step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from tqdm.auto import tqdm

from ._checks import check_broadcast, check_choice, check_count, check_flag, check_numbers, check_real, shown
from .data import Dataset
from .engine import engine_for, losses_on
from .networks import FCN
from .stability import Network, check_classes, check_inputs, check_network, is_finite, lazy_ratio, perturbation_stability

LOSSES = ("cross_entropy", "squared")

# A minibatch loss this many times that before training means that the run has diverged.
EXPLODED = 1000
# A network whose training loss is still above this share of the loss of the output 0 has not left the saddle there.
UNTRAINED = 0.95

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """What `train` returns.

    `history` has a row for each epoch that was measured (0 is the initialization) and member: epoch, init_seed, batch_seed, lr,
    train_loss, train_accuracy, test_accuracy, stability (P/ε), stability_error (its standard error over inputs),
    lazy_ratio (κ), untrained (see `is_untrained`), diverged, seconds. `stopped` says that a stop was asked for before the last epoch.
    """

    network: Network
    initial: Network
    history: pd.DataFrame
    stopped: bool

    @property
    def final(self) -> pd.DataFrame:
        """The history's last row of each member."""
        return self.history[self.history.epoch == self.history.epoch.max()].reset_index(drop=True)


def stepped_lr(first: float, decay: float) -> Callable[[int], float]:
    """A learning rate for each epoch (1, 2, …): `first`, multiplied by `decay` every ten epochs."""
    first, decay = check_real("first", first), check_real("decay", decay)
    return lambda epoch: first * decay ** ((check_count("epoch", epoch) - 1) // 10)


# The paper's schedule (§5.1, restored): 0.001 for epochs 1 to 10, then ×0.8 every 10 epochs.
paper_lr = stepped_lr(1e-3, 0.8)


def is_untrained(loss: ArrayLike, zero_loss: ArrayLike) -> NDArray[np.bool_]:
    """Whether a training loss is still at least UNTRAINED times that of a network whose output is always 0.

    So it is at the start, for a network that died, and for a deep network with tiny weights, which stays near the saddle at
    zero for long. Its stability is small because it has learned nothing. NaN (a diverged run) is not untrained.
    """
    reached, zero = check_broadcast(loss=check_numbers("loss", loss), zero_loss=check_numbers("zero_loss", zero_loss))
    return np.asarray(reached >= UNTRAINED * zero)


def train(
    network: Network,
    data: Dataset,
    *,
    epochs: int,
    lr: float | Callable[[int], float],
    loss: str = "cross_entropy",
    batch_size: int = 64,
    batch_seed: int = 0,
    every: int = 1,
    progress: bool = False,
    on_epoch: Callable[[Rows], None] | None = None,
    stop: Event | None = None,
) -> Run:
    """Train all members of `network` on `data` by plain mini-batch SGD; `network` itself is left as it was.

    Members share each minibatch; `batch_seed` fixes their order. lr is a number, or a function of the epoch
    (1, 2, …) such as `paper_lr`. loss is "cross_entropy", or "squared": ½‖f − one-hot‖², averaged over the batch.
    Measured are epoch 0, every `every`-th and the last; on_epoch is called with the history rows of each that is. Once `stop` is
    set, training ends at the next step and keeps what was measured. A member is marked `diverged`, with NaN measurements, from the
    epoch on in which its loss or stability is no longer finite, or its loss on a minibatch exceeds EXPLODED times the loss before
    training (or 1, if that is less), or its measured training loss does. Training ends when all have.

    The same arguments give the same bits on one machine with one number of threads. What other members hold never enters a member's
    arithmetic: as long as there are as many of them, in the same places, its bits stay whatever they are. How many there are can
    change the order in which a product is summed, and so how it is rounded: measured with 1 to 12 of them, in two epochs at a rate
    of 0.05, that moved a layer by at most 4e-7 of its norm in single precision, and some 1e-16 in double. Where training is unstable
    (a rate near divergence, many epochs) it grows as any rounding does, until the runs are two draws of one experiment.

    Raises ValueError or TypeError, before any work, for an argument out of range or data that do not fit.
    """
    _check_parts(network, data, lr, loss, on_epoch, stop)
    check_flag("progress", progress)
    epochs = check_count("epochs", epochs, least=0)
    batch_size = check_count("batch_size", batch_size)
    batch_seed = check_count("batch_seed", batch_seed, least=0)
    every = check_count("every", every)

    data = data.to(network.device)
    engine = engine_for(network, data.x_train, data.y_train, loss)
    finished = network
    generator = torch.Generator().manual_seed(batch_seed)
    history: Rows = []
    diverged = torch.zeros(network.members, dtype=torch.bool, device=network.device)
    limit = torch.full_like(engine.worst, torch.inf)
    started = time.perf_counter()

    for epoch in tqdm(range(epochs + 1), desc="epochs", disable=not progress, leave=False):
        step_size = 0.0
        if epoch:
            step_size = _check_lr(lr(epoch), network) if callable(lr) else lr
            order = torch.randperm(len(data.x_train), generator=generator)
            if not engine.epoch(order, batch_size, step_size, stop.is_set if stop else lambda: False):
                break
            # Weights that were thrown far away can leave a dead network, with a loss as harmless as before training.
            diverged |= ~(engine.worst <= limit)
            if epoch % every and epoch < epochs and not diverged.all():
                continue
        # Only who can stop within an epoch needs a copy of the weights at the end of the last.
        finished = engine.network if stop is None else engine.network.clone()
        rows, losses, diverged = _measure(finished, network, data, loss, diverged, limit)
        if epoch == 0:
            limit = EXPLODED * losses.clamp_min(1)
        how = {"epoch": epoch, "batch_seed": batch_seed, "lr": step_size, "seconds": time.perf_counter() - started}
        rows = [how | row for row in rows]
        history += rows
        if on_epoch:
            on_epoch(rows)
        if diverged.all():
            break

    stopped = stop is not None and stop.is_set() and history[-1]["epoch"] < epochs and not diverged.all()
    return Run(finished, network, pd.DataFrame(history), stopped=bool(stopped))


class Step(NamedTuple):
    """What `gradient_descent` yields: the networks before a step, and what the step is made of.

    x: the minibatch (batch, inputs); residual: f − y on it (members, batch, outputs); gradients: those of the mean
    loss, one tensor a layer, as the weights are.
    """

    network: FCN
    x: Tensor
    residual: Tensor
    gradients: tuple[Tensor, ...]

    @property
    def loss(self) -> Tensor:
        """½‖f − y‖², averaged over the minibatch: (members,)."""
        return 0.5 * self.residual.square().sum(dim=-1).mean(dim=-1)


def gradient_descent(
    network: FCN, x: Tensor, y: Tensor, *, lr: float, steps: int, batch_size: int | None = None, batch_seed: int = 0
) -> Iterator[Step]:
    """Plain (stochastic) gradient descent on the squared loss ½‖f − y‖², averaged over the batch, for small studies of every step.

    x: (n, inputs), y: real targets (n, outputs). Yields steps + 1 states: before each step, and after the last. The whole data
    are one batch unless batch_size says less; then `batch_seed` fixes the order, drawn anew in each pass.

    Raises ValueError for data that do not fit, FloatingPointError as soon as a member diverges (as `train` defines it).
    """
    check_inputs(network, x)
    lr, steps = _check_lr(lr, network), check_count("steps", steps, least=0)
    if not isinstance(y, Tensor) or y.shape != (len(x), network.outputs) or y.dtype != network.dtype:
        raise ValueError(f"y must hold real targets of shape {(len(x), network.outputs)} and type {network.dtype}, not {shown(y)}.")
    if not is_finite(y):
        raise ValueError("y must hold finite numbers only, but it has NaN or infinite entries.")
    batch_seed = check_count("batch_seed", batch_seed, least=0)
    size = len(x) if batch_size is None else check_count("batch_size", batch_size)
    return _descend(network, x, y, lr, steps, size, torch.Generator().manual_seed(batch_seed))


def _descend(network: FCN, x: Tensor, y: Tensor, lr: float, steps: int, size: int, generator: torch.Generator) -> Iterator[Step]:
    batches: list[Tensor] = []
    limit = torch.full((network.members,), torch.inf, dtype=network.dtype, device=network.device)
    for step in range(steps + 1):
        if not batches:
            whole = torch.arange(len(x)) if size >= len(x) else torch.randperm(len(x), generator=generator)
            batches = list(whole.to(x.device).split(size))
        batch = batches.pop(0)
        now = Step(network, x[batch], *_gradients(network, x[batch], y[batch]))
        if step == 0:
            limit = EXPLODED * now.loss.clamp_min(1)
        lost = ~(now.loss <= limit)
        if lost.any():
            seeds = [seed for seed, gone in zip(network.seeds, lost.tolist(), strict=True) if gone]
            raise FloatingPointError(f"gradient_descent diverged at step {step} (members of seeds {seeds}): lr = {lr:g} is too large.")
        yield now
        network = network.with_weights([w - lr * g for w, g in zip(network.weights, now.gradients, strict=True)])


@torch.enable_grad()
def _gradients(network: FCN, x: Tensor, y: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The residual f − y, and the gradients of each member's mean loss ½‖f − y‖² over the batch.

    By torch, since `Engine` is several times as fast because it never holds a gradient.
    """
    variables = [weight.detach().requires_grad_() for weight in network.weights]
    residual = network.with_weights(variables)(x) - y
    # The members' losses do not mix: the gradient of their sum is all members' gradients at once.
    return residual.detach(), torch.autograd.grad(0.5 * residual.square().sum() / len(x), variables)


def _zero_loss(outputs: int, loss: str) -> float:
    """The loss of the output 0 on classes."""
    return math.log(outputs) if loss == "cross_entropy" else 0.5


@torch.no_grad()
def _measure(network: Network, initial: Network, data: Dataset, loss: str, diverged: Tensor, limit: Tensor) -> tuple[Rows, Tensor, Tensor]:
    """A history row for each member, its training loss, and whether it has diverged: then, or with a loss above its limit, it gets
    NaN measurements."""
    losses, train_hits = _evaluate(network, data.x_train, data.y_train, loss)
    _, test_hits = _evaluate(network, data.x_test, data.y_test, loss)
    stability = perturbation_stability(network, data.probe)
    diverged = diverged | ~torch.isfinite(losses) | ~(losses <= limit) | ~torch.isfinite(stability.value)
    columns = {
        "train_loss": losses,
        "train_accuracy": train_hits,
        "test_accuracy": test_hits,
        "stability": stability.value,
        "stability_error": stability.standard_error,
        "lazy_ratio": lazy_ratio(network, initial),
    }
    table = torch.stack(list(columns.values())).masked_fill(diverged, torch.nan).cpu().double()
    untrained = is_untrained(table[0], _zero_loss(network.outputs, loss))
    rows = [
        {"init_seed": seed}
        | dict(zip(columns, table[:, member].tolist(), strict=True))
        | {"untrained": bool(untrained[member]), "diverged": bool(diverged[member])}
        for member, seed in enumerate(network.seeds)
    ]
    return rows, losses, diverged


def _evaluate(network: Network, x: Tensor, y: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    """Mean loss and accuracy of every member, in blocks that keep activations small."""
    losses = torch.zeros(network.members, device=x.device, dtype=network.dtype)
    hits = torch.zeros_like(losses)
    for inputs, classes in zip(x.split(network.block), y.split(network.block), strict=True):
        f = network(inputs)
        losses += losses_on(f, classes, loss).sum(dim=1)
        hits += (f.argmax(dim=-1) == classes).sum(dim=1)
    return losses / len(x), hits / len(x)


def _check_lr(lr: object, network: Network) -> float:
    # A larger number does not exist in the weights' precision.
    return check_real("lr", lr, most=torch.finfo(network.dtype).max)


def _check_parts(network: Network, data: Dataset, lr: object, loss: str, on_epoch: object, stop: object) -> None:
    """What `train` is to work with and to call is of the right kind, and the data fit the network and hold finite numbers."""
    check_network("network", network)
    check_choice("loss", loss, LOSSES)
    if not callable(lr):
        _check_lr(lr, network)
    if not isinstance(data, Dataset):
        raise TypeError(f"data must be a Dataset, not {shown(data)}.")
    if not (on_epoch is None or callable(on_epoch)):
        raise TypeError(f"on_epoch must be a function or None, not {shown(on_epoch)}.")
    if not isinstance(stop, Event | None):
        raise TypeError(f"stop must be a threading.Event or None, not {shown(stop)}.")
    if data.inputs != network.inputs or data.classes != network.outputs:
        raise ValueError(
            f"data must have {network.inputs} inputs and {network.outputs} classes to fit the network, "
            f"but {data.name} has {data.inputs} and {data.classes}."
        )
    for part, x, y, least in (("train", data.x_train, data.y_train, 1), ("test", data.x_test, data.y_test, 2)):
        if len(x) < least:
            raise ValueError(f"data.x_{part} must hold at least {least} inputs, not {len(x)}.")
        if x.dtype != network.dtype:
            raise ValueError(f"data.x_{part} must be of type {network.dtype}, as the network is, not {x.dtype}.")
        if not is_finite(x):
            raise ValueError(f"data.x_{part} must hold finite numbers only, but it has NaN or infinite entries.")
        check_classes(f"data.y_{part}", y, len(x), data.classes)
