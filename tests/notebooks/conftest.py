"""Notebooks run beside each other here: kernels with a thread for every core would wait for one another."""

import pytest


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
