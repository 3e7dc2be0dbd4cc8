"""Appendix A ties each symbol to its name in the code: every name there exists."""

import importlib
import inspect
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import nbformat
import pytest

CELLS = nbformat.read(Path(__file__).parents[2] / "book" / "notation.ipynb", as_version=4).cells
LINES = [line for cell in CELLS if cell.cell_type == "markdown" for line in cell.source.splitlines()]
ROWS = [
    [part.strip() for part in line.strip("|").split(" |")] for line in LINES if line.startswith("| ") and not line.startswith("| symbol")
]
NAMES = sorted({name for row in ROWS for name in re.findall(r"`([^`]+)`", row[3])})


def resolve(path):
    """The object of a dotted name, from torch, numpy, scipy or robustnb; a dataclass' field is its class and name."""
    if path.split(".")[0] not in ("torch", "numpy", "scipy"):
        path = f"robustnb.{path}"
    parts = path.split(".")
    found = importlib.import_module(parts[0])
    for k, part in enumerate(parts[1:], start=1):
        if is_dataclass(found) and part in {field.name for field in fields(found)}:
            return part
        if inspect.ismodule(found) and not hasattr(found, part):
            importlib.import_module(".".join(parts[: k + 1]))
        found = getattr(found, part)
    return found


def test_the_tables_hold_every_row_of_the_papers():
    assert len([row for row in ROWS if row[3]]) == len(ROWS)
    assert len(ROWS) >= 31 + 15
    assert all(len(row) == 5 for row in ROWS)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_appendix_a_exists(name):
    path, _, argument = name.rstrip(")").partition("(")
    found = resolve(path)
    if argument and path.split(".")[0] == "torch":
        assert f"{argument}=" in found.__doc__
    elif argument:
        assert argument in inspect.signature(found).parameters


def test_a_name_that_does_not_exist_is_noticed():
    with pytest.raises((AttributeError, ModuleNotFoundError)):
        resolve("theory.no_such_formula")
