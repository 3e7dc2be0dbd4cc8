"""Imported by a notebook's first cell, it makes training cheap and leaves all else: sweeps, seeds, rates, epochs and steps are those
that the notebook asks for, and are checked as ever. But a sweep that would take more than a minute, and whatever trains on more than
the digits, sees few images; and networks are narrow, whatever width their rows have.
"""

from dataclasses import replace

import robustnb
import robustnb.sweep as sweeps
from robustnb import Dataset, networks, training

IMAGES, TESTED, WIDTH, DIGITS, SECONDS = 256, 20, 128, 1437, 60


def few(data):
    parts = {"x_train": IMAGES, "y_train": IMAGES, "x_test": TESTED, "y_test": TESTED}
    return replace(data, **{name: getattr(data, name)[:count] for name, count in parts.items()})


def train_on_few(network, data, *, whole=training.train, **how):
    return whole(network, few(data), **how)


def train(network, data, *, whole=training.train, **how):
    large = isinstance(data, Dataset) and len(data.x_train) > DIGITS
    return whole(network, few(data) if large else data, **how)


def sweep(settings, *data, whole=sweeps.sweep, **how):
    long = sum(setting.seconds for setting in settings) > SECONDS
    sweeps.train = train_on_few if long else train
    return whole(settings, *data, **how)


def narrow(init, *, width, whole=networks.fully_connected, **shape):
    return whole(init, width=min(width, WIDTH), **shape)


sweeps.sweep = sweep
robustnb.train = training.train = train
robustnb.fully_connected = networks.fully_connected = sweeps.fully_connected = narrow
