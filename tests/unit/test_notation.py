"""Appendix A ties each symbol to its name in the code and to the place of its first use: every name exists, and the place is the first."""

import importlib
import inspect
import re
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
CELLS = nbformat.read(ROOT / "book" / "notation.ipynb", as_version=4).cells
LINES = [line for cell in CELLS if cell.cell_type == "markdown" for line in cell.source.splitlines()]
ROWS = [
    [part.strip() for part in line.strip("|").split(" |")] for line in LINES if line.startswith("| ") and not line.startswith("| symbol")
]
# Symbols that can be told from letters of another meaning by how they are typed, row by row, with the page of their first use. Left
# out: the row of orders, which are many signs, and that of y_i, since Chapter 2 has a target y before there is a y_i.
TYPED = re.compile(r"\\[a-z]+(_[a-zA-Z0-9])?|[A-Za-z]_[a-zA-Z0-9]|[A-Z]\^\\infty")
PLACES = [
    (symbols, re.findall(r"\((\w+\.ipynb)\)", row[4])[0])
    for row in ROWS
    if (symbols := tuple(symbol for symbol in re.findall(r"[^$,; ]+", row[0]) if TYPED.fullmatch(symbol)))
    and "(" in row[4]
    and not {r"\lesssim", "y_i"} & set(symbols)
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
    assert len(PLACES) > 20


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_appendix_a_exists(name):
    path, _, argument = name.rstrip(")").partition("(")
    found = resolve(path)
    if argument and path.split(".")[0] == "torch":
        assert f"{argument}=" in found.__doc__
    elif argument:
        assert argument in inspect.signature(found).parameters


@cache
def formulas(page):
    cells = nbformat.read(ROOT / "book" / page, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown").replace("κ", r" $\kappa$ ")
    return (
        " ".join(a or b for a, b in re.findall(r"\$\$(.*?)\$\$|\$([^$\n]+)\$", text, flags=re.DOTALL))
        .replace("h_{l", "h_l")
        .replace("v_{l", "v_l")
    )


@pytest.mark.parametrize(("symbols", "place"), PLACES)
def test_the_place_of_first_use_is_the_first(symbols, place):
    """In the order of the table of contents."""
    order = [f"{name}.ipynb" for name in re.findall(r"file: book/(\w+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))]
    typed = re.compile(rf"(?<![A-Za-z\\_])({'|'.join(map(re.escape, symbols))})(?![A-Za-z_])")
    users = [page for page in order if (ROOT / "book" / page).exists() and page != "notation.ipynb" and typed.search(formulas(page))]
    assert users[0] == place


def test_a_name_that_does_not_exist_is_noticed():
    with pytest.raises((AttributeError, ModuleNotFoundError)):
        resolve("theory.no_such_formula")
