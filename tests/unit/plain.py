"""What the tests compare with: the same networks in plain torch, and small slices of the digits."""

from dataclasses import replace

import torch
from torch import nn

from robustnb import FCN, Dataset, load_data
from robustnb.initialization import NAMED

INITS = (*NAMED, "m^-1", "m^-1.5")


def as_module(network: FCN, member: int = 0) -> nn.Sequential:
    """One member as a Sequential of Linear(bias=False) and ReLU, its weights copied."""
    layers = []
    for weight in network.weights:
        linear = nn.Linear(weight.shape[1], weight.shape[2], bias=False, dtype=weight.dtype)
        linear.weight.data = weight[member].T.clone()
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def few_digits(train: int = 200, test: int = 100, dtype: torch.dtype = torch.float32) -> Dataset:
    data = load_data("digits")
    return replace(
        data,
        x_train=data.x_train[:train].to(dtype),
        y_train=data.y_train[:train],
        x_test=data.x_test[:test].to(dtype),
        y_test=data.y_test[:test],
    )
