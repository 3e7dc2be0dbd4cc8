"""Memory of one training run, in a process of its own: `python benchmarks/memory.py WIDTH DEPTH MEMBERS` prints JSON, in bytes.

peak: the most that the process held beyond what it held after a first small run. budget: twice the parameters + data + one batch's
activations. after_each_epoch: what it held then.
"""

import json
import os
import sys
import threading

import psutil
import torch

from robustnb import FCN, Dataset, fully_connected, train

# How glibc shares out freed memory is luck, worth half the budget. So: one arena, and what is freed goes back to the system at once.
QUIET = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}


def network(width: int, depth: int, members: int) -> FCN:
    """Networks for inputs like MNIST's."""
    return fully_connected("he", inputs=784, width=width, depth=depth, outputs=10, seeds=range(members), device="cpu")


def data(n: int) -> Dataset:
    """Noise in the form of MNIST."""
    return Dataset("noise", "noise", torch.rand(n, 784), torch.arange(n) % 10, torch.rand(1000, 784), torch.arange(1000) % 10, 10, "")


def main() -> None:
    """Train, and watch from a thread."""
    width, depth, members = map(int, sys.argv[1:])
    train(network(64, 2, 2), data(1000), epochs=1, lr=0.001)
    held = psutil.Process().memory_info
    before, peak, ended = held().rss, [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            peak[0] = max(peak[0], held().rss - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start, given, seen = network(width, depth, members), data(20000), []
    train(start, given, epochs=3, lr=0.001, on_epoch=lambda _: seen.append(held().rss - before))
    ended.set()
    watcher.join()
    parameters = sum(weight.nbytes for weight in start.weights)
    budget = 2 * parameters + 21000 * 784 * 4 + members * width * (depth - 1) * 64 * 4
    print(json.dumps({"peak": peak[0], "budget": budget, "after_each_epoch": seen}))


if __name__ == "__main__":
    if not QUIET.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | QUIET)
    main()
