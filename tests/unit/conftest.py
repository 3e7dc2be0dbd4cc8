import pytest
import torch
from plain import few_digits

from robustnb import FCN, Dataset, fully_connected, train


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    # The tensors here are small: more threads only get in each other's way.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return few_digits()


@pytest.fixture(scope="session")
def trained(digits: Dataset) -> FCN:
    """Three members that have learned 200 digits: about 9 in 10 of the test digits right."""
    network = fully_connected("he", inputs=64, width=32, depth=3, outputs=10, seeds=(0, 1, 2))
    return train(network, digits, epochs=40, lr=0.1).network
