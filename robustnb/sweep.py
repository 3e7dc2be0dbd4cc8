"""A grid of settings, trained and measured, into one tidy table that says how each row was made.

    settings = grid(init=["he", "lecun"], width=[16, 64], depth=4, lr=0.05, epochs=50, init_seeds=range(8))
    table = sweep(settings, out=Path("mine.csv"))

The named sweeps behind the book's figures are in `robustnb.atlas`; `python -m robustnb.sweep --list` names them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from ._checks import check_choice, check_count, check_flag, check_real, shown
from .atlas import SCALES, SWEEPS, Sweep, get_sweep
from .convnets import convolutional, plan_of
from .data import DATASETS, NORMALIZATIONS, Dataset, cached_data
from .engine import convolutional_member_bytes, free_bytes, member_bytes
from .networks import fully_connected, resolve_device
from .results import COLUMNS, add, code_version, device_name, joined, keys, locked, make_card, read, write_aside
from .settings import KEY, Setting
from .stability import Network
from .training import stepped_lr, train

# Of the memory that is free, what members in training may take.
SHARE = 0.8


def sweep(
    settings: Sequence[Setting],
    data: Dataset | None = None,
    *,
    out: Path | None = None,
    executor: Executor | None = None,
    device: str = "auto",
    minutes: float | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Train and measure every setting; a row for each network and each epoch asked for (columns: KEY, MEASURED and HOW).

    data: what to train on, if it is not a data set of the book; then each setting's `dataset` must be its name, and `normalize` its own.
    out: a CSV to which each setting's rows are added as they come (written aside, then renamed), and whose rows are not measured
    again; two processes may share it. Returned is then all that it holds.
    executor: trains the settings, in any order, on whatever it has: a process pool, a cluster's. Default: here, one after the other.
    minutes: begin no training after that long; what an executor has been given and cannot take back is still trained.

    Raises, before any training: ValueError for an unusable device, data of another name, or an `out` that is no results file of
    this version; MemoryError if a network is too large for this machine (with an executor: when its turn comes); OSError if the
    folder of `out` cannot be written. OSError if `out` cannot be written later: what it held is still there.
    """
    return _sweep(settings, data, out, executor, device, minutes, progress)


def _sweep(
    settings: Sequence[Setting],
    data: Dataset | None,
    out: Path | None,
    executor: Executor | None,
    device: str,
    minutes: float | None,
    progress: bool,
    *,
    workers: int = 0,
    added: Callable[[], object] = lambda: None,
) -> pd.DataFrame:
    """`sweep`. workers: how many processes of this machine the executor has, so that they share its memory and each is given one
    training at a time; 0: not known. added: called after rows have been written."""
    place = resolve_device(device)
    if not isinstance(settings, Sequence):
        raise TypeError(f"settings must be a sequence of Setting, not {shown(settings)}.")
    check_flag("progress", progress)
    if minutes is not None:
        check_real("minutes", minutes)
    for name, value, kind in (("data", data, Dataset), ("out", out, Path), ("executor", executor, Executor)):
        if not isinstance(value, kind | None):
            raise TypeError(f"{name} must be of type {kind.__name__}, or None, not {shown(value)}.")
    if out is not None and not out.parent.is_dir():
        raise ValueError(f"out must lie in a folder that is there, not {str(out)!r}.")
    for setting in settings:
        if not isinstance(setting, Setting):
            raise TypeError(f"settings must hold values of Setting, not {shown(setting)}.")
        check_choice("dataset", setting.dataset, DATASETS if data is None else (data.name,))
        check_choice("normalize", setting.normalize, NORMALIZATIONS if data is None else (data.normalize,))
        if executor is None or workers:
            members_that_fit(setting, data or cached_data(setting.dataset, setting.normalize), place, max(1, workers))
    table = read(out) if out is not None else pd.DataFrame(columns=COLUMNS)
    jobs = _missing(settings, table)
    if jobs and out is not None:
        with locked(out):
            pass  # Hours of training, to find then that the folder cannot be written?
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    # In whole milliseconds, which add up to the end of the bar.
    costs = {job: max(1, round(1000 * job.seconds)) for job in jobs}
    with tqdm(total=sum(costs.values()), disable=not (progress and jobs), bar_format=_BAR) as bar:
        for job, rows in _results(jobs, data, str(place), executor, deadline, workers):
            if out is not None:
                table = add(out, rows)
                added()
            else:
                table = joined(table, rows)
            bar.set_postfix_str(f"{len(table)} rows; last: {job.init}, m = {job.width}, L = {job.depth}", refresh=False)
            bar.update(costs[job])
    return table


# By the work that is done, of which wide networks take the most.
_BAR = "{percentage:3.0f}% |{bar}| {elapsed}, about {remaining} left; {postfix}"


def _missing(settings: Sequence[Setting], table: pd.DataFrame) -> list[Setting]:
    """What is still to be trained, each network once."""
    done = set(keys(table))
    jobs = []
    for setting in settings:
        seeds = tuple(seed for seed in setting.init_seeds if not done.issuperset(setting.keys(seed)))
        for seed in seeds:
            done.update(setting.keys(seed))
        if seeds:
            jobs.append(Setting(**(asdict(setting) | {"init_seeds": seeds})))
    return jobs


def _results(
    jobs: list[Setting], data: Dataset | None, device: str, executor: Executor | None, deadline: float | None, workers: int
) -> Iterator[tuple[Setting, pd.DataFrame]]:
    """Each job with its rows, as they come."""

    def late() -> bool:
        return deadline is not None and time.monotonic() >= deadline

    if executor is None:
        for job in jobs:
            if late():
                return
            yield job, _measure(job, data, device)
        return
    # A process pool takes one more than it has processes out of reach: given no more than these, none begins when time is up.
    waiting, most = [*jobs], workers or len(jobs)
    futures: dict[Future[pd.DataFrame], Setting] = {}
    pending, failure = set[Future[pd.DataFrame]](), None
    try:
        while waiting or pending:
            ending = failure or late()
            if ending:
                waiting, pending = [], {future for future in pending if not future.cancel()}
            while waiting and len(pending) < most:
                future = executor.submit(_measure, waiting[0], data, device, max(1, workers))
                futures[future] = waiting.pop(0)
                pending.add(future)
            if not pending:
                break
            # Until time is up, so that what has not begun by then is taken back.
            left = None if ending or deadline is None else max(0.0, deadline - time.monotonic())
            done, pending = wait(pending, left, FIRST_COMPLETED)
            for future in done:
                failure = failure or future.exception()
                if future.exception() is None:
                    yield futures[future], future.result()
    finally:
        for future in pending:
            future.cancel()
    if failure:
        raise failure


def members_that_fit(setting: Setting, data: Dataset, device: torch.device, processes: int = 1) -> int:
    """How many networks of this setting can train side by side in four fifths of the memory that is free; MemoryError if none can.

    processes: how many share that memory.
    """
    shape, free = {"width": setting.width, "depth": setting.depth}, free_bytes(device) // processes
    if setting.model == "fcn":
        each = member_bytes(inputs=data.inputs, outputs=data.classes, **shape, batch_size=setting.batch_size)
    else:
        each = convolutional_member_bytes(plan_of(setting.model, channels=data.channels, side=data.side, **shape), setting.batch_size)
    if each > SHARE * free:
        shared = f" for each of {processes} processes" if processes > 1 else ""
        raise MemoryError(f"{setting} needs {each / 2**30:.1f} GiB for one network, of which {free / 2**30:.1f} GiB are free{shared}.")
    return int(SHARE * free) // each


def _measure(setting: Setting, data: Dataset | None, device: str, processes: int = 1) -> pd.DataFrame:
    """Train all networks of a setting: the rows of a table. It may run in another process, on another machine."""
    data = data or cached_data(setting.dataset, setting.normalize)
    place = resolve_device(device)
    many = members_that_fit(setting, data, place, processes)
    tables = [_train(setting, setting.init_seeds[k : k + many], data, place) for k in range(0, len(setting.init_seeds), many)]
    return pd.concat(tables, ignore_index=True)


def _train(setting: Setting, seeds: Sequence[int], data: Dataset, device: torch.device) -> pd.DataFrame:
    run = train(
        _network(setting, seeds, data, device),
        data,
        epochs=setting.epochs,
        lr=stepped_lr(setting.lr, setting.decay),
        loss=setting.loss,
        batch_size=setting.batch_size,
        batch_seed=setting.batch_seed,
        every=setting.every or max(1, setting.epochs),
    )
    # Training ends early if all have diverged: so they stay.
    along = dict(iter(run.history.groupby("epoch")))
    rows = pd.concat([along.get(epoch, run.final).assign(epoch=epoch) for epoch in setting.measured])
    rows = rows.assign(seconds=(rows.seconds / len(seeds)).round(4))
    same = {name: value for name, value in asdict(setting).items() if name in KEY}
    how = {"device": device_name(device), "code_version": code_version(), "date": datetime.now(UTC).date().isoformat()}
    return rows.assign(**same, **how)[COLUMNS].reset_index(drop=True)


def _network(setting: Setting, seeds: Sequence[int], data: Dataset, device: torch.device) -> Network:
    shape: dict[str, Any] = {"width": setting.width, "depth": setting.depth, "outputs": data.classes, "seeds": seeds, "device": device}
    if setting.model == "fcn":
        return fully_connected(setting.init, inputs=data.inputs, **shape)
    return convolutional(setting.init, model=setting.model, channels=data.channels, side=data.side, **shape)


def _alone_on_a_core() -> None:
    """Of a process pool: one thread in each, and none outlives who started it, who alone answers Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _time(seconds: float) -> str:
    return f"{seconds:.0f} core seconds" if seconds < 60 else f"{seconds / 3600:.2f} core hours"


def _interrupted(*_: object) -> None:
    """Ctrl-C ends it here and now, and its processes with it: a KeyboardInterrupt can get lost on its way up, a results file cannot."""
    os.write(2, b"\nInterrupted. What was measured is kept: give the same command again to go on.\n")
    os._exit(128 + signal.SIGINT)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure a named sweep of the book into a CSV and its card; run again, it goes on where it was."""
    parser = argparse.ArgumentParser(prog="python -m robustnb.sweep", description=main.__doc__)
    parser.add_argument("name", nargs="?", help="which sweep: --list names them")
    parser.add_argument("--list", action="store_true", help="name the sweeps, with about what each costs, and end")
    parser.add_argument("--scale", default="full", help="quick or full (default)")
    parser.add_argument("--out", type=Path, help="the CSV to write, or to go on with; its card lies beside it")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, …")
    parser.add_argument("--workers", type=int, default=0, help="processes of one thread each; 0 (default): train in this one")
    parser.add_argument("--minutes", type=float, help="begin no training after that long")
    chosen = parser.parse_args(arguments)
    if chosen.list:
        for name in SWEEPS:
            for scale in SCALES:
                named = get_sweep(name, scale)
                seconds = sum(setting.seconds for setting in named.settings)
                networks = sum(len(setting.init_seeds) for setting in named.settings)
                print(f"{name:20} {scale:6} {networks:5} networks {_time(seconds):>18}  {named.item}")
        return
    try:
        if chosen.name is None or chosen.out is None:
            raise ValueError("NAME and --out must be given, or --list.")
        if chosen.out.suffix != ".csv":
            raise ValueError(f"--out must name a .csv file, beside which its card can lie, not {chosen.out}.")
        named = get_sweep(chosen.name, chosen.scale)
        check_count("workers", chosen.workers, least=0)
        _measure_named(chosen, named)
    except (ValueError, MemoryError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")
    except BrokenProcessPool:
        sys.exit(
            f"{parser.prog}: A process of --workers ended before its time, as it does where memory runs out. What was measured is kept: "
            "give the same command again, with fewer of them."
        )


def _measure_named(chosen: argparse.Namespace, named: Sweep) -> None:
    started = time.perf_counter()
    command = f"python -m robustnb.sweep {chosen.name} --scale {chosen.scale} --out {chosen.out.name}"
    command += f" --workers {chosen.workers}" if chosen.workers else ""

    def write_card() -> dict[str, object]:
        """Beside the rows that are there, so that a card says of what it lies beside whenever the sweep is killed."""
        with locked(chosen.out):
            # Another process may have added rows.
            card = make_card(command, named, read(chosen.out))
            write_aside(chosen.out.with_suffix(".json"), json.dumps(card, indent=2) + "\n")
        return card

    arguments = (named.settings, None, chosen.out)
    if chosen.workers:
        # Interrupted, a pool leaves its semaphores to Python's tracker, which would warn of them.
        sys.warnoptions.append("ignore:resource_tracker:UserWarning")
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(chosen.workers, mp_context=context, initializer=_alone_on_a_core) as executor:
            table = _sweep(*arguments, executor, chosen.device, chosen.minutes, True, workers=chosen.workers, added=write_card)
    else:
        table = _sweep(*arguments, None, chosen.device, chosen.minutes, True, added=write_card)
    seconds = f"{time.perf_counter() - started:.1f} s"
    if table.empty:
        print(f"No rows yet, and so no card; {seconds}", file=sys.stderr)
        return
    # Also where nothing was left to measure.
    card = write_card()
    print(f"{card['rows']} rows in {chosen.out}; {card['networks_missing']} networks still missing; {seconds}", file=sys.stderr)


if __name__ == "__main__":
    # Under its own name, by which other processes know it.
    from robustnb.sweep import _interrupted as interrupted
    from robustnb.sweep import main as run

    signal.signal(signal.SIGINT, interrupted)
    run()
