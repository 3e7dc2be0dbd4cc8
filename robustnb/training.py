"""One trainer: mini-batch SGD on many members at once, with a history row an epoch for each member."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from ._checks import check_choice, check_count, check_real
from .data import Dataset
from .networks import FCN
from .stability import cross_entropy, lazy_ratio, perturbation_stability

LOSSES = ("cross_entropy", "squared")

# A minibatch loss this many times that before training means that the run has diverged.
EXPLODED = 1000

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """What `train` returns.

    `history` has a row for each epoch (0 is the initialization) and member: epoch, init_seed, batch_seed, lr,
    train_loss, train_accuracy, test_accuracy, stability (P/ε), stability_error (its standard error over inputs),
    lazy_ratio (κ), diverged, seconds. `stopped` says that a stop was asked for before the last epoch.
    """

    network: FCN
    initial: FCN
    history: pd.DataFrame
    stopped: bool

    @property
    def final(self) -> pd.DataFrame:
        """The history's last row of each member."""
        return self.history[self.history.epoch == self.history.epoch.max()].reset_index(drop=True)


def paper_lr(epoch: int) -> float:
    """The paper's schedule (§5.1, restored): 0.001 for epochs 1 to 10, then ×0.8 every 10 epochs."""
    return float(1e-3 * 0.8 ** ((epoch - 1) // 10))


def train(
    network: FCN,
    data: Dataset,
    *,
    epochs: int,
    lr: float | Callable[[int], float],
    loss: str = "cross_entropy",
    batch_size: int = 64,
    batch_seed: int = 0,
    progress: bool = False,
    on_epoch: Callable[[Rows], None] | None = None,
    stop: Event | None = None,
) -> Run:
    """Train all members of `network` on `data` by plain mini-batch SGD; `network` itself is left as it was.

    Members share each minibatch; `batch_seed` fixes their order. lr is a number, or a function of the epoch
    (1, 2, …) such as `paper_lr`. loss is "cross_entropy", or "squared": ½‖f − one-hot‖², averaged over the batch.
    on_epoch is called with each epoch's history rows (epoch 0 too); once `stop` is set, training ends at the
    next step and keeps the finished epochs. A member is marked `diverged`, with NaN measurements, from the epoch on in
    which its loss or stability is no longer finite, or its loss on a minibatch exceeds EXPLODED times the loss before training
    (or 1, if that is less). Training ends when all have.

    Raises ValueError or TypeError, before any work, for an argument out of range or data that do not fit.
    """
    epochs = check_count("epochs", epochs, least=0)
    batch_size = check_count("batch_size", batch_size)
    batch_seed = check_count("batch_seed", batch_seed, least=0)
    check_choice("loss", loss, LOSSES)
    if not callable(lr):
        check_real("lr", lr)
    _check_data(network, data)

    data = data.to(network.device)
    weights = [weight.clone() for weight in network.weights]
    generator = torch.Generator().manual_seed(batch_seed)
    stop = stop or Event()
    history: Rows = []
    diverged = torch.zeros(network.members, dtype=torch.bool, device=network.device)
    highest = torch.zeros(network.members, dtype=network.dtype, device=network.device)
    limit = torch.full_like(highest, torch.inf)
    started = time.perf_counter()

    for epoch in tqdm(range(epochs + 1), desc="epochs", disable=not progress, leave=False):
        step_size = 0.0
        if epoch:
            step_size = check_real("lr", lr(epoch)) if callable(lr) else lr
            if not _one_epoch(network, weights, data, step_size, loss, batch_size, generator, stop, highest):
                break
            # Weights that were thrown far away can leave a dead network, with a loss as harmless as before training.
            diverged |= ~(highest <= limit)
        finished = network.with_weights([weight.clone() for weight in weights])
        rows = _measure(finished, network, data, loss, diverged)
        seconds = time.perf_counter() - started
        rows = [{"epoch": epoch, "batch_seed": batch_seed, "lr": step_size, "seconds": seconds} | row for row in rows]
        diverged = torch.tensor([row["diverged"] for row in rows], device=network.device)
        if epoch == 0:
            before = torch.tensor([row["train_loss"] for row in rows], dtype=network.dtype, device=network.device)
            limit = EXPLODED * before.clamp_min(1)
        history += rows
        if on_epoch:
            on_epoch(rows)
        if diverged.all():
            break

    stopped = stop.is_set() and history[-1]["epoch"] < epochs and not diverged.all()
    return Run(finished, network, pd.DataFrame(history), stopped=bool(stopped))


def _one_epoch(
    network: FCN,
    weights: list[Tensor],
    data: Dataset,
    lr: float,
    loss: str,
    batch_size: int,
    generator: torch.Generator,
    stop: Event,
    highest: Tensor,
) -> bool:
    """One pass over the training data; updates `weights`, and each member's `highest` minibatch loss, in place.

    False if `stop` was set on the way.
    """
    order = torch.randperm(len(data.x_train), generator=generator).to(network.device)
    for batch in order.split(batch_size):
        if stop.is_set():
            return False
        variables = [weight.detach().requires_grad_() for weight in weights]
        f = network.with_weights(variables)(data.x_train[batch])
        # Each member's loss is its own mean over the batch; their sum's gradient is all members' gradients at once.
        losses = _losses(f, data.y_train[batch], loss).mean(dim=1)
        torch.maximum(highest, losses.detach(), out=highest)
        for weight, gradient in zip(weights, torch.autograd.grad(losses.sum(), variables), strict=True):
            weight.sub_(gradient, alpha=lr)
    return True


def _losses(f: Tensor, y: Tensor, loss: str) -> Tensor:
    """The loss of every member on every input: (members, batch)."""
    if loss == "cross_entropy":
        return cross_entropy(f, y)
    return 0.5 * (f - F.one_hot(y, f.shape[-1])).square().sum(dim=-1)


@torch.no_grad()
def _measure(network: FCN, initial: FCN, data: Dataset, loss: str, diverged: Tensor) -> Rows:
    """A history row for each member; a member that diverged gets NaN measurements."""
    losses, train_hits = _evaluate(network, data.x_train, data.y_train, loss)
    _, test_hits = _evaluate(network, data.x_test, data.y_test, loss)
    stability = perturbation_stability(network, data.probe)
    diverged = diverged | ~torch.isfinite(losses) | ~torch.isfinite(stability.value)
    columns = {
        "train_loss": losses,
        "train_accuracy": train_hits,
        "test_accuracy": test_hits,
        "stability": stability.value,
        "stability_error": stability.standard_error,
        "lazy_ratio": lazy_ratio(network, initial),
    }
    table = torch.stack(list(columns.values())).masked_fill(diverged, torch.nan).double().cpu()
    return [
        {"init_seed": seed} | dict(zip(columns, table[:, member].tolist(), strict=True)) | {"diverged": bool(diverged[member])}
        for member, seed in enumerate(network.seeds)
    ]


def _evaluate(network: FCN, x: Tensor, y: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    """Mean loss and accuracy of every member, in blocks that keep activations small."""
    losses = torch.zeros(network.members, device=x.device, dtype=network.dtype)
    hits = torch.zeros_like(losses)
    for inputs, classes in zip(x.split(2048), y.split(2048), strict=True):
        f = network(inputs)
        losses += _losses(f, classes, loss).sum(dim=1)
        hits += (f.argmax(dim=-1) == classes).sum(dim=1)
    return losses / len(x), hits / len(x)


def _check_data(network: FCN, data: Dataset) -> None:
    """The data fit the network and hold finite numbers, or an error that says what does not."""
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
        if not torch.isfinite(x).all():
            raise ValueError(f"data.x_{part} must hold finite numbers only, but it has NaN or infinite entries.")
        if len(y) != len(x):
            raise ValueError(f"data.y_{part} must hold a class for each of the {len(x)} inputs, not {len(y)}.")
        if y.min() < 0 or y.max() >= data.classes:
            raise ValueError(f"data.y_{part} must hold classes from 0 to {data.classes - 1}, not from {y.min()} to {y.max()}.")
