"""Run all benchmarks: a table for each question, and all numbers as JSON. `make bench` calls it::

python -m benchmarks --out book/atlas/speed.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from robustnb import FCN, fully_connected, load_data, perturbation_stability, stability_by_gram, train, uniform_in_ball
from robustnb.results import code_version, device_name, write_aside

from . import peers
from .peers import BATCH, INPUTS, OUTPUTS, Steps, Work

WIDTHS, DEPTHS, MEMBERS = (16, 64, 256, 1024), (2, 6, 10), (1, 4, 16)
ROUNDS = 5
ROUND_SECONDS = 0.06

Rows = list[dict[str, Any]]


def race(contestants: dict[str, Steps], *, rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds a step of each contestant."""
    return heats(contestants, rounds).median().to_dict()


def heats(contestants: dict[str, Steps], rounds: int = ROUNDS) -> pd.DataFrame:
    """Seconds a step of each contestant in each round: some steps of each in turn, and again, so that a slow moment strikes all."""
    first = next(iter(contestants.values()))
    first(1)
    steps = int(min(200, max(1, ROUND_SECONDS / _seconds(partial(first, 1)))))
    for run in contestants.values():
        run(steps)
    return pd.DataFrame([{name: _seconds(partial(run, steps)) / steps for name, run in contestants.items()} for _ in range(rounds)])


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def training(x: Tensor, y: Tensor) -> Rows:
    """Microseconds a step and network: this book's engine, its peers, and its matrix products alone (`share`: products / engine)."""
    rows = []
    for width in WIDTHS:
        for depth in DEPTHS:
            for members in MEMBERS:
                work = Work(width, depth, members, x, y)
                makers = {"engine": peers.engine, "products": peers.products, "vmap": peers.vmap, "jax": peers.jax_scan}
                contestants = {name: maker(work).run for name, maker in makers.items()}
                if members in (1, MEMBERS[-1]):
                    contestants["textbook"] = partial(_in_turn, peers.textbook(work).run, members)
                measured = heats(contestants)
                times = (1e6 * measured.median() / members).round(2).to_dict()
                share = round(float((measured["products"] / measured["engine"]).median()), 3)
                shape = {"width": width, "depth": depth, "members": members}
                rows.append(shape | times | {"share": share, "gflop": work.flops / 1e9})
                print("  ", rows[-1], file=sys.stderr, flush=True)
    return rows


def _in_turn(one: Steps, members: int, steps: int) -> None:
    """The textbook loop takes its members one after the other: a step of all is that many steps of one."""
    for _ in range(members):
        one(steps)


def same(x: Tensor, y: Tensor) -> None:
    """Stop if not all contestants come to the same weights: they would not have done the same work."""
    work, steps = Work(16, 4, 3, x, y), 5
    ours = peers.engine(work)
    ours.run(steps)
    others = [peers.vmap, peers.jax_scan, peers.members_axis, peers.by_hand, partial(peers.by_hand, shared=True), peers.no_loader]
    for maker in others:
        theirs = maker(work)
        theirs.run(steps)
        for weight, mine, start in zip(theirs.weights(), ours.weights(), work.network.weights, strict=True):
            moved = (mine - start)[: len(weight)]
            if (weight - start[: len(weight)] - moved).norm() > 1e-3 * moved.norm():
                raise SystemExit(f"{maker} and the engine do not come to the same weights.")


def ladder(x: Tensor, y: Tensor) -> Rows:
    """What each idea buys: microseconds a step and network, 16 members, from the textbook loop to the engine."""
    rows = []
    for width, depth in ((16, 2), (16, 6), (64, 6), (256, 2), (256, 6)):
        work = Work(width, depth, 16, x, y)
        rungs = {
            "textbook loop": partial(_in_turn, peers.textbook(work).run, 16),
            "no DataLoader": partial(_in_turn, peers.no_loader(work).run, 16),
            "members axis": peers.members_axis(work).run,
            "backward by hand, fused update": peers.by_hand(work).run,
            "shared first layer": peers.by_hand(work, shared=True).run,
            "engine": peers.engine(work).run,
        }
        times = {name: round(1e6 * seconds / 16, 2) for name, seconds in race(rungs).items()}
        rows.append({"width": width, "depth": depth} | times)
    return rows


def scaling(x: Tensor, y: Tensor) -> dict[str, Any]:
    """Seconds of one step of all members, along one axis at a time, and the exponent fitted to them (with its standard error)."""
    base = {"width": 64, "depth": 6, "members": 4}
    axes = {"width": (16, 32, 64, 128, 256, 512, 1024), "depth": (2, 3, 4, 6, 8, 10), "members": (1, 2, 4, 8, 16, 32)}
    found: dict[str, Any] = {}
    for axis, values in axes.items():
        times = [race({"engine": peers.engine(Work(**(base | {axis: value}), x=x, y=y)).run})["engine"] for value in values]
        # The largest half: small networks pay for calls, not for arithmetic.
        slope, error = _slope(values[len(values) // 2 - 1 :], times[len(values) // 2 - 1 :])
        found[axis] = {"values": list(values), "seconds": times, "exponent": slope, "error": error} | {"base": base}
    return found


def _slope(values: tuple[int, ...], times: list[float]) -> tuple[float, float]:
    (slope, _), covariance = np.polyfit(np.log(values), np.log(times), 1, cov=True)
    return float(slope), float(np.sqrt(covariance[0, 0]))


def forward_mode(x: Tensor) -> Rows:
    """Milliseconds a network for 1,000 inputs: a forward pass of all members, forward mode beside it, and P/ε by `torch.func.jacrev`."""
    rows = []
    probe = x[:1000]
    delta = uniform_in_ball(tuple(probe.shape), radius=1.0, seed=0).to(probe)
    for width, depth, members in ((16, 2, 16), (16, 6, 16), (64, 2, 16), (64, 6, 16), (256, 6, 4), (1024, 6, 1)):
        network = _network(width, depth, members)
        pairs = list(zip(probe.split(network.block), delta.split(network.block), strict=True))
        passes: dict[str, Callable[[], object]] = {
            "forward": lambda network=network, pairs=pairs: [network(inputs) for inputs, _ in pairs],
            "forward_mode": lambda network=network, pairs=pairs: [network.jvp(*pair) for pair in pairs],
            "jacrev": partial(_stability_by_jacrev, [weight[0] for weight in network.weights], probe, delta),
        }
        with torch.no_grad():
            times = race({name: (lambda steps, run=run: [run() for _ in range(steps)]) for name, run in passes.items()}, rounds=7)
        times = {name: 1e3 * seconds / (1 if name == "jacrev" else members) for name, seconds in times.items()}
        rows.append({"width": width, "depth": depth, "members": members} | times)
    return rows


def _stability_by_jacrev(weights: list[Tensor], x: Tensor, delta: Tensor) -> Tensor:
    """P/ε of one network as one would write it with `torch.func`."""

    def f(point: Tensor) -> Tensor:
        h = point
        for weight in weights[:-1]:
            h = torch.relu(h @ weight)
        return h @ weights[-1]

    jacobians = torch.func.vmap(torch.func.jacrev(f))(x)
    return torch.einsum("noi,ni->no", jacobians, delta).norm(dim=-1).mean()


def _network(width: int, depth: int, members: int, device: str = "cpu") -> FCN:
    shape = {"inputs": INPUTS, "width": width, "depth": depth, "outputs": OUTPUTS}
    return fully_connected("he", **shape, seeds=range(members), device=device)


def estimators() -> Rows:
    """P/ε of one trained network in three ways, each: milliseconds, and the variance that its random numbers leave in the value."""
    data = load_data("digits")
    shape = {"inputs": data.inputs, "width": 64, "depth": 4, "outputs": data.classes}
    network = train(fully_connected("he", **shape, seeds=[0], device="cpu"), data, epochs=20, lr=0.05).network
    probe = data.probe

    def plain(seed: int) -> float:
        delta = uniform_in_ball(tuple(probe.shape), radius=0.1, seed=seed).to(probe)
        return float((network(probe + delta) - network(probe)).norm(dim=-1).mean() / 0.1)

    def forward(seed: int) -> float:
        return float(perturbation_stability(network, probe, seed=seed).value)

    def gram(_: int) -> float:
        return float(stability_by_gram(network, probe).value)

    rows = []
    for name, estimate in (("plain Monte Carlo", plain), ("forward mode", forward), ("Gram matrix", gram)):
        with torch.no_grad():
            values = [estimate(seed) for seed in range(100)]
            seconds = statistics.median(_seconds(partial(estimate, seed)) for seed in range(20))
        rows.append(
            {"estimator": name, "milliseconds": 1e3 * seconds, "value": float(np.mean(values)), "variance": float(np.var(values, ddof=1))}
        )
    # The inputs are a sample too: what their choice leaves in the value, whatever is done about δ.
    error = float(stability_by_gram(network, probe).standard_error)
    return [row | {"variance_of_inputs": error**2} for row in rows]


def alone() -> dict[str, float]:
    """Milliseconds from the call until the first step of one network has been taken, on the digits (the laboratory's data); median of 9."""
    data = load_data("digits")

    class Watch(Event):
        looks: list[float]

        def is_set(self) -> bool:
            self.looks.append(time.perf_counter())
            return len(self.looks) == 2

    starts = []
    for seed in range(9):
        watch = Watch()
        watch.looks = []
        started = time.perf_counter()
        shape = {"inputs": data.inputs, "width": 64, "depth": 4, "outputs": data.classes}
        train(fully_connected("he", **shape, seeds=[seed], device="cpu"), data, epochs=1, lr=0.05, stop=watch)
        starts.append(1e3 * (watch.looks[1] - started))
    return {"milliseconds": statistics.median(starts)}


def memory() -> Rows:
    """Bytes at the peak of a training run (in a process of its own), beside twice the parameters + data + one batch's activations."""
    rows = []
    for width, depth, members in ((64, 2, 16), (256, 6, 16), (1024, 6, 4)):
        command = [sys.executable, str(Path(__file__).with_name("memory.py")), *map(str, (width, depth, members))]
        measured = json.loads(subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout)
        rows.append({"width": width, "depth": depth, "members": members} | measured)
    return rows


def roof() -> dict[str, float]:
    """What the machine can do at most: GFLOP/s of a large matrix product, GB/s of a large copy."""
    a, big = torch.randn(2000, 2000), torch.randn(2**26)
    target = torch.empty_like(big)
    product, copy = (statistics.median(_seconds(run) for _ in range(9)) for run in (lambda: a @ a, lambda: target.copy_(big)))
    return {"gflops": 2 * 2000**3 / product / 1e9, "gbytes": 2 * big.nbytes / copy / 1e9}


def gpu() -> dict[str, Any]:
    """On a GPU: the engine against the textbook loop there, and a slice of the paper's grid with the cost of all of it."""
    if not torch.cuda.is_available():
        return {"measured": False, "why": "this machine has no CUDA device"}
    x, y = (part.cuda() for part in _inputs(60000))
    work = Work(64, 6, 64, x, y)
    times = race({"engine": peers.engine(work).run, "textbook": peers.textbook(Work(64, 6, 1, x, y)).run})
    slice_: Rows = []
    for width in (2**k for k in range(2, 13)):
        for depth in (2, 6, 10):
            seconds = race({"engine": peers.engine(Work(width, depth, 3, x, y)).run}, rounds=3)["engine"]
            slice_.append({"width": width, "depth": depth, "members": 3, "seconds": seconds})
    # Linear in the depth between the three; 50 epochs of 938 steps, 9 depths, 2 initializations.
    table = pd.DataFrame(slice_).pivot_table(index="width", columns="depth", values="seconds")
    steps = sum(np.interp(depth, table.columns, row) for depth in range(2, 11) for row in table.to_numpy())
    return {
        "measured": True,
        "device": torch.cuda.get_device_name(),
        "microseconds": {"engine": 1e6 * times["engine"] / 64, "textbook": 1e6 * times["textbook"]},
        "slice": slice_,
        "hours_of_the_grid": 2 * steps * 50 * 938 / 3600,
    }


def _inputs(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, INPUTS, generator=generator), torch.randint(OUTPUTS, (n,), generator=generator)


SHAPE = ["width", "depth"]


def ratios(rows: Rows) -> pd.DataFrame:
    """How many times as long the others take, for each shape; and which share of the products' rate the engine reaches."""
    table = pd.DataFrame(rows)
    best = table.groupby(SHAPE)[["engine", "products", "vmap", "jax"]].min()
    sixteen, one = (table[table.members == members].set_index(SHAPE) for members in (16, 1))
    return pd.DataFrame(
        {
            "textbook / ours, 16": sixteen.textbook / sixteen.engine,
            "jax / ours, best": best.jax / best.engine,
            "vmap / ours, best": best.vmap / best.engine,
            "share of the products' rate": table.loc[table.groupby(SHAPE).engine.idxmin()].set_index(SHAPE).share,
            "textbook / ours, 1": one.textbook / one.engine,
            "jax / ours, 1": one.jax / one.engine,
        }
    )


def targets(found: dict[str, Any]) -> Rows:
    """What was aimed at before anything was measured, and in how many of the cells it is met: `worst` is the value that is furthest off."""
    of = ratios(found["training"])
    wide = of.index.get_level_values("width")
    modes, held = pd.DataFrame(found["forward_mode"]), pd.DataFrame(found["memory"])
    grown = [max(row["after_each_epoch"][1:]) / row["after_each_epoch"][1] for row in found["memory"]]
    aims: list[tuple[str, str, float, Any]] = [
        *(
            (f"textbook loop / ours, 16 networks, m = {width}", "at least", least, of["textbook / ours, 16"][wide == width])
            for width, least in ((16, 12), (64, 4), (256, 1.8), (1024, 1.3))
        ),
        *((f"{peer} / ours, best of 1, 4 and 16 networks", "at least", 1, of[f"{peer} / ours, best"]) for peer in ("jax", "vmap")),
        *((f"{peer} / ours, median of all shapes", "at least", 1.15, [of[f"{peer} / ours, best"].median()]) for peer in ("jax", "vmap")),
        ("share of the products' rate, m = 16", "at least", 0.65, of["share of the products' rate"][wide == 16]),
        ("share of the products' rate, m from 64 on", "at least", 0.85, of["share of the products' rate"][wide > 16]),
        ("textbook loop / ours, one network", "at least", 1, of["textbook / ours, 1"]),
        ("milliseconds until one network has taken its first step", "at most", 50, [found["alone"]["milliseconds"]]),
        ("forward mode over a forward pass", "at most", 2.2, modes.forward_mode / modes.forward),
        ("jacrev / forward mode, 10 outputs", "at least", 8, modes.jacrev / modes.forward_mode),
        ("memory at the peak over 2 × parameters + data + a minibatch", "at most", 1.3, held.peak / held.budget),
        ("memory of the last epochs over that after the first", "at most", 1.1, grown),
    ]
    rows = []
    for what, side, bound, values in aims:
        numbers = np.asarray(values, dtype=float)
        met = numbers >= bound if side == "at least" else numbers <= bound
        worst = numbers.min() if side == "at least" else numbers.max()
        rows.append({"what": what, "asked": f"{side} {bound:g}", "worst": float(worst), "met": int(met.sum()), "of": len(numbers)})
    return rows


def report(found: dict[str, Any]) -> None:
    """One table a question, with the ratios that it is about."""
    table, shape = pd.DataFrame(found["training"]), SHAPE
    best = table.groupby(shape)[["engine", "products", "vmap", "jax"]].min()
    sixteen = table[table.members == 16].set_index(shape)
    _print("Microseconds a step and network; best of 1, 4 and 16 members (textbook: 16 in turn)", best.assign(textbook=sixteen.textbook))
    _print("How many times as fast", ratios(found["training"]))
    _print("What each idea buys (microseconds a step and network, 16 members)", pd.DataFrame(found["ladder"]).set_index(shape))
    _print("How a step's cost grows", pd.DataFrame(found["scaling"]).T[["exponent", "error"]])
    modes = pd.DataFrame(found["forward_mode"]).set_index([*shape, "members"])
    modes["of a forward pass"] = modes.forward_mode / modes.forward
    modes["jacrev / ours"] = modes.jacrev / modes.forward_mode
    _print("Perturbation stability (milliseconds a network, 1,000 inputs)", modes)
    ways = pd.DataFrame(found["estimators"]).set_index("estimator")
    _print("Three estimators of P/ε", ways.assign(variance_times_time=ways.variance * ways.milliseconds))
    held = pd.DataFrame(found["memory"]).set_index([*shape, "members"])
    _print("Memory (MB)", (held[["peak", "budget"]] / 1e6).assign(ratio=held.peak / held.budget))
    _print("What was aimed at", pd.DataFrame(found["targets"]).set_index("what"))
    print(f"\nOne network alone has taken its first step after {found['alone']['milliseconds']:.1f} ms.")
    print("GPU:", json.dumps({key: value for key, value in found["gpu"].items() if key != "slice"}))


def _print(title: str, table: pd.DataFrame) -> None:
    print(f"\n{title}\n{table.to_string(float_format=lambda value: f'{value:.3g}')}", flush=True)


def main() -> None:
    """Measure everything, print it, write it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the JSON to write")
    out: Path = parser.parse_args().out
    started = time.perf_counter()
    x, y = _inputs(20000)
    same(x, y)
    found: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {device_name(torch.device('cpu'))}",
        "versions": {name: version(name) for name in ("torch", "jax", "jaxlib", "numpy")} | {"python": platform.python_version()},
        "code_version": code_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "batch": BATCH,
        "rounds": ROUNDS,
        "roof": roof(),
        "training": training(x, y),
        "ladder": ladder(x, y),
        "scaling": scaling(x, y),
        "forward_mode": forward_mode(x),
        "estimators": estimators(),
        "alone": alone(),
        "memory": memory(),
        "gpu": gpu(),
    }
    found |= {"targets": targets(found), "seconds": time.perf_counter() - started}
    report(found)
    write_aside(out, json.dumps(found, indent=1) + "\n")
    print(f"\n{out}: {found['seconds']:.0f} s")


if __name__ == "__main__":
    main()
