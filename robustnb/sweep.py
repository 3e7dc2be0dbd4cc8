"""A grid of settings, trained and measured, into one tidy table that says how each row was made.

The *atlas* (`book/atlas/`) holds such tables, each a CSV with a JSON card. To measure one again::

    python -m robustnb.sweep digits --out digits.csv
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from ._checks import check_choice
from .data import Dataset, load_data
from .networks import fully_connected, resolve_device
from .training import train

# How to read a table: these columns name what was trained, and so a row; the rest was measured.
KEY = ("dataset", "model", "init", "width", "depth", "loss", "lr", "epochs", "batch_size", "batch_seed", "init_seed")
MEASURED = ("stability", "stability_error", "lazy_ratio", "train_loss", "train_accuracy", "test_accuracy", "diverged")


@dataclass(frozen=True)
class Setting:
    """One network and how it is trained; only the initialization seed is left open."""

    init: str
    width: int
    depth: int
    lr: float
    epochs: int
    dataset: str = "digits"
    model: str = "fcn"
    loss: str = "cross_entropy"
    batch_size: int = 64
    batch_seed: int = 0


@dataclass(frozen=True)
class Sweep:
    """A named sweep: what it measures, in words, and its settings and initialization seeds."""

    about: str
    settings: tuple[Setting, ...]
    seeds: tuple[int, ...]


def _digits() -> Sweep:
    widths = tuple(2**k for k in range(2, 9))
    lazy = [(init, lr, depth) for init, lr in (("he", 0.05), ("lecun", 0.05), ("ntk", 0.02)) for depth in (2, 3, 4, 6, 8, 10)]
    non_lazy = [(init, 0.05, 2) for init in ("m^-1", "m^-1.5")]
    return Sweep(
        "Digits, trained to fit: 50 epochs of SGD at a constant rate, the same for all shapes: 0.05, but 0.02 for NTK, whose "
        "gradients grow with width. Picked by hand after a look at 0.002 to 0.2, mostly at width 64, depth 4.",
        tuple(Setting(init=init, width=width, depth=depth, lr=lr, epochs=50) for width in widths for init, lr, depth in lazy + non_lazy),
        tuple(range(8)),
    )


SWEEPS = {"digits": _digits}


def sweep(
    settings: Sequence[Setting], *, seeds: Sequence[int], out: Path | None = None, device: str = "auto", progress: bool = False
) -> pd.DataFrame:
    """Train and measure every setting for every initialization seed; a row for each (columns: KEY, MEASURED and how).

    With `out`, rows are saved to that CSV as each setting ends (written aside, then renamed), and settings
    whose rows it already holds are not trained again.
    """
    place = resolve_device(device)
    table = pd.read_csv(out) if out is not None and out.exists() else pd.DataFrame(columns=[*KEY])
    done = {tuple(row) for row in table[[*KEY]].itertuples(index=False)}
    wanted = [(setting, [seed for seed in seeds if _key(setting, seed) not in done]) for setting in settings]
    wanted = [(setting, missing) for setting, missing in wanted if missing]
    data = {name: load_data(name) for name in {setting.dataset for setting, _ in wanted}}
    for setting, missing in tqdm(wanted, desc="settings", disable=not progress):
        rows = _measure(setting, missing, data[setting.dataset], place)
        table = pd.concat([table, rows], ignore_index=True) if len(table) else rows
        if out is not None:
            _write(out, table.to_csv(index=False, float_format="%.6g"))
    return table


def _key(setting: Setting, seed: int) -> tuple[object, ...]:
    # lr to six digits, as the file holds it.
    values = asdict(setting) | {"init_seed": seed, "lr": float(f"{setting.lr:.6g}")}
    return tuple(values[column] for column in KEY)


def _measure(setting: Setting, seeds: Sequence[int], data: Dataset, device: torch.device) -> pd.DataFrame:
    network = fully_connected(
        setting.init, inputs=data.inputs, width=setting.width, depth=setting.depth, outputs=data.classes, seeds=seeds, device=device
    )
    run = train(
        network,
        data,
        epochs=setting.epochs,
        lr=setting.lr,
        loss=setting.loss,
        batch_size=setting.batch_size,
        batch_seed=setting.batch_seed,
    )
    how = {"device": device_name(device), "code_version": code_version(), "seconds": round(run.final.seconds.max() / len(seeds), 3)}
    rows = [
        dict(zip(KEY, _key(setting, int(row.init_seed)), strict=True)) | row[[*MEASURED]].to_dict() | how for _, row in run.final.iterrows()
    ]
    return pd.DataFrame(rows)


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
        described = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return released
    return f"{released}+g{described.stdout.strip()}" if described.returncode == 0 else released


def load_atlas(name: str) -> pd.DataFrame:
    """The measured table of that name from the atlas that comes with the package (columns: see `KEY` and `MEASURED`)."""
    return pd.read_csv(atlas_folder() / f"{check_choice('name', name, tuple(SWEEPS))}.csv")


def load_card(name: str) -> dict[str, object]:
    """How the table of that name was made: command, code version, device, date, data checksum, seeds."""
    card: dict[str, object] = json.loads((atlas_folder() / f"{check_choice('name', name, tuple(SWEEPS))}.json").read_text())
    return card


def atlas_folder() -> Path:
    """Where the atlas lies: inside an installed package, or in `book/atlas` of a checkout."""
    inside = Path(__file__).parent / "atlas"
    return inside if inside.exists() else Path(__file__).parents[1] / "book" / "atlas"


def _write(path: Path, text: str) -> None:
    aside = path.with_name(path.name + ".part")
    aside.write_text(text)
    os.replace(aside, path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure a named sweep into a CSV and its card."""
    parser = argparse.ArgumentParser(prog="python -m robustnb.sweep", description=main.__doc__)
    parser.add_argument("name", choices=sorted(SWEEPS))
    parser.add_argument("--out", type=Path, required=True, help="the CSV to write, or to go on with; its card lies beside it")
    parser.add_argument("--device", default="auto")
    chosen = parser.parse_args(arguments)
    named = SWEEPS[chosen.name]()
    started = time.perf_counter()
    table = sweep(named.settings, seeds=named.seeds, out=chosen.out, device=chosen.device, progress=True)
    card = {
        "about": named.about,
        "command": f"python -m robustnb.sweep {chosen.name} --out {chosen.out.name}",
        "rows": len(table),
        "code_version": ", ".join(sorted(set(table.code_version))),
        "torch": torch.__version__,
        "device": ", ".join(sorted(set(table.device))),
        "date": datetime.now(UTC).date().isoformat(),
        "training_seconds": round(float(table.seconds.sum()), 1),
        "data_checksum": {name: load_data(name).checksum for name in sorted(set(table.dataset))},
        "init_seeds": list(named.seeds),
    }
    _write(chosen.out.with_suffix(".json"), json.dumps(card, indent=2) + "\n")
    print(f"{len(table)} rows in {chosen.out}, {time.perf_counter() - started:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
