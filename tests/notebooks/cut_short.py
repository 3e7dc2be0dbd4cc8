"""Imported by a notebook's first cell, it makes training cheap and leaves all else: sweeps, seeds, rates, epochs and steps are those
that the notebook asks for, and are checked as ever. But sweeps, and what trains on more than the digits, see few images, and networks
that the notebook itself makes are narrow.
"""

from dataclasses import replace

import robustnb
import robustnb.sweep
from robustnb import Dataset, networks, training

IMAGES, TESTED, WIDTH, DIGITS = 64, 20, 128, 1437


def few(data):
    parts = {"x_train": IMAGES, "y_train": IMAGES, "x_test": TESTED, "y_test": TESTED}
    return replace(data, **{name: getattr(data, name)[:count] for name, count in parts.items()})


def train_in_a_sweep(network, data, *, whole=training.train, **how):
    return whole(network, few(data), **how)


def train(network, data, *, whole=training.train, **how):
    large = isinstance(data, Dataset) and len(data.x_train) > DIGITS
    return whole(network, few(data) if large else data, **how)


def narrow(init, *, width, whole=networks.fully_connected, **shape):
    return whole(init, width=min(width, WIDTH), **shape)


# A sweep builds its own networks, and trains them with the name that its module knows.
robustnb.sweep.train = train_in_a_sweep
robustnb.train = training.train = train
robustnb.fully_connected = networks.fully_connected = narrow
