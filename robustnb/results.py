"""A results file: its columns, how rows are added to it whatever happens meanwhile, and the card that says how it was made."""

from __future__ import annotations

import errno
import functools
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock

from .atlas import Sweep
from .data import cached_data
from .settings import KEY

# A table's columns: settings.KEY names a network and how long it was trained; these were measured then (see `training.Run`); …
MEASURED = ("stability", "stability_error", "lazy_ratio", "train_loss", "train_accuracy", "test_accuracy", "untrained", "diverged")
# … and these say by what: seconds are those of one network's training, when `members` trained side by side.
HOW = ("seconds", "device", "code_version", "date")
COLUMNS = [*KEY, *MEASURED, *HOW]
_WORDS = ("dataset", "normalize", "model", "init", "loss")


def read(path: Path) -> pd.DataFrame:
    """The rows that a results file holds, if it is there."""
    try:
        if not path.exists():
            return pd.DataFrame(columns=COLUMNS)
        # Words as they were written: the name of someone's data may be "2024" or "NA".
        table = pd.read_csv(path, dtype=dict.fromkeys(_WORDS, str), keep_default_na=False, na_values=[""])
    except OSError as error:
        raise OSError(error.errno, f"{path} could not be read: {error.strerror}.") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"out must be a results file, but {path} cannot be read as one ({error}).") from error
    if list(table.columns) != COLUMNS:
        odd = sorted(set(table.columns) ^ set(COLUMNS)) or ["another order"]
        raise ValueError(f"out must be a results file of this version, but {path} differs in its columns ({', '.join(odd)}).")
    return table


def add(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """Add rows to a results file, unless another process has added them before; returns all that it holds then."""
    with locked(path):
        write_aside(path, joined(read(path), rows).to_csv(index=False, float_format="%.6g", lineterminator="\n"))
        return read(path)


def joined(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Both, each row once."""
    return pd.concat([table, rows] if len(table) else [rows], ignore_index=True).drop_duplicates([*KEY], ignore_index=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Meanwhile no other process writes a results file, or its card; OSError if its folder cannot be written."""
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire()
    except OSError as error:
        raise OSError(error.errno, f"{path} could not be written: {_why(error)}. What it held before is still there.") from error
    try:
        yield
    finally:
        lock.release()


def _why(error: OSError) -> str | None:
    return "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else error.strerror


def write_aside(path: Path, text: str) -> None:
    """Write a text file so that it is whole at any moment: aside, to the disk, then renamed. OSError if that cannot be done."""
    aside = path.with_name(path.name + ".part")
    try:
        with aside.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise OSError(error.errno, f"{path} could not be written: {_why(error)}. What it held before is still there.") from error
    finally:
        aside.unlink(missing_ok=True)


def device_name(device: torch.device) -> str:
    """What a table says of the device: the GPU's name, or the processor and how many threads torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"


@functools.cache
def code_version() -> str:
    """The package's version, with the commit when it runs from a checkout ("0.1.0+g1a2b3c4", "-dirty" if edited)."""
    root = Path(__file__).parents[1]
    released = version("robustnb")
    if not (root / ".git").exists():
        return released
    command = ["git", "--no-optional-locks", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        described = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    except FileNotFoundError:
        return released
    return f"{released}+g{described.stdout.strip()}" if described.returncode == 0 else released


# Of the trainings side by side in one process each has its share: so with one thread these are core seconds.
SECONDS_ARE = "the wall time of each process’s trainings, added up; of as many threads as `device` says"


def make_card(command: str, named: Sweep, table: pd.DataFrame) -> dict[str, object]:
    """What is said beside a table of a named sweep about how it was made: by which command last, if several added to it."""
    asked = {setting.keys(seed)[-1] for setting in named.settings for seed in setting.init_seeds}
    return {
        "item": named.item,
        "about": named.about,
        "cut": named.cut,
        "command": command,
        "rows": len(table),
        "networks_missing": len(asked.difference(keys(table))),
        "code_version": ", ".join(sorted(set(table.code_version))),
        "torch": torch.__version__,
        "device": ", ".join(sorted(set(table.device))),
        "date": " to ".join(sorted({table.date.min(), table.date.max()})),
        # The last row of a training says how long all of it took.
        "training_seconds": round(float(table.seconds[[key in asked for key in keys(table)]].sum()), 1),
        "seconds_are": SECONDS_ARE,
        "data_checksum": {name: cached_data(name, "pixels").checksum for name in sorted(set(table.dataset))},
        "init_seeds": sorted(set(table.init_seed.tolist())),
        "batch_seeds": sorted(set(table.batch_seed.tolist())),
    }


def keys(table: pd.DataFrame) -> list[tuple[object, ...]]:
    """What names each row: its values of KEY."""
    return [tuple(row) for row in table[[*KEY]].itertuples(index=False)]
