import os

# The tensors here are small: more threads only get in each other's way, in the processes that tests start, too. Torch reads it once.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from plain import few_digits

from robustnb import FCN, Dataset, fully_connected, train


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return few_digits()


@pytest.fixture(scope="session")
def trained(digits: Dataset) -> FCN:
    """Three members that have learned 200 digits: about 9 in 10 of the test digits right."""
    network = fully_connected("he", inputs=64, width=32, depth=3, outputs=10, seeds=(0, 1, 2))
    return train(network, digits, epochs=40, lr=0.1).network
