"""The tables that claims are decided on: the atlas's, taken apart and put together, each with a few words on data and training."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from .atlas import load_atlas, measured
from .settings import KEY
from .trends import at_end, at_loss

# Of the paper's figures.
PAPER_DEPTHS = (2, 4, 6, 8, 10)

# Training losses, cross-entropy in nats, at which to compare: as low as most networks came, and later than the first row. That of MNIST
# with the paper's schedule was chosen before there was a table, from the losses of a trial with two widths.
EQUAL_LOSS = {"digits, trained to fit": 0.2, "MNIST, trained to fit": 0.1, "MNIST, the paper’s schedule": 0.7}


def settings() -> Iterator[tuple[str, pd.DataFrame]]:
    """The tables over width and depth, each with a few words on data and training."""
    names = {
        "digits": "digits, trained to fit",
        "digits_squared": "digits, trained to fit with the squared loss",
        "digits_paper": "digits, the paper’s schedule",
        "mnist": "MNIST, trained to fit",
        "mnist_paper": "MNIST, the paper’s schedule",
    }
    for name, where in names.items():
        if name in measured():
            table = load_atlas(name)
            wider = [load_atlas(other) for other in ("mnist_he_512", "mnist_wide") if name.startswith("mnist") and other in measured()]
            whole = pd.concat([table, *(of[of.decay == table.decay.iloc[0]] for of in wider)])
            yield where, whole.drop_duplicates([*KEY], ignore_index=True)


def at_equal_loss() -> Iterator[tuple[str, pd.DataFrame]]:
    """The digits over width and depth, each network as it was when its training loss first reached one of two values."""
    if "digits_depths" in measured():
        # The first lies where with two and four layers also networks of width 8 come to.
        for loss in (0.7, EQUAL_LOSS["digits, trained to fit"]):
            # They got there at different epochs.
            yield f"digits, at a loss of {loss}", at_loss(load_atlas("digits_depths"), loss).assign(epoch=0)


def two_layers() -> Iterator[tuple[str, pd.DataFrame]]:
    """Two layers, lazy and non-lazy, measured along the way; the words are keys of EQUAL_LOSS."""
    if "digits_two_layers" in measured():
        yield "digits, trained to fit", load_atlas("digits_two_layers")
    if "mnist_two_layers" in measured():
        table = load_atlas("mnist_two_layers")
        parts = {"MNIST, trained to fit": table[table.decay == 1], "MNIST, the paper’s schedule": table[table.decay != 1]}
        yield from ((where, part) for where, part in parts.items() if len(part))


def convolutional() -> Iterator[tuple[str, pd.DataFrame]]:
    """The tables of convolutional and residual networks, one kind each, with a few words on networks and data."""
    kinds = {"cnn": "CNN", "resnet": "ResNet", "scaled_resnet": "ResNet without normalization"}
    for name in ("digits_cnn", "digits_resnet", "cifar_resnet"):
        if name in measured():
            table, data = load_atlas(name), "digits" if name.startswith("digits") else "CIFAR-10, first 6,068 images"
            yield from ((f"{kinds[str(model)]}, {data}", of) for model, of in table.groupby("model", sort=False))


def at_equal_epochs_and_loss() -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The tables of `two_layers` twice: at the end, and when the training loss first reached EQUAL_LOSS."""
    for where, table in two_layers():
        yield where, f"after {table.epoch.max()} epochs", at_end(table)
        yield where, f"at a loss of {EQUAL_LOSS[where]}", at_loss(table, EQUAL_LOSS[where])


def with_ntk() -> Iterator[tuple[str, pd.DataFrame]]:
    """The tables of `settings` that know NTK, too."""
    for where, table in settings():
        if "ntk" in set(table.init):
            yield where, table
        elif where.startswith("MNIST") and "mnist_ntk" in measured():
            ntk = load_atlas("mnist_ntk")
            ntk = ntk[ntk.decay == table.decay.iloc[0]]
            if len(ntk):
                yield where, pd.concat([table, ntk])
