"""The API page names everything that is public, and nothing that is not there."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import robustnb

PAGE = (Path(__file__).parents[2] / "book" / "api.md").read_text(encoding="utf-8")
LISTED = re.findall(r"autodoc2-object\} robustnb\.(\S+)", PAGE)
# Modules all of whose functions are for readers; of the others, those that the page lists.
WHOLE = ("theory", "kernels", "trends", "figures")


@pytest.mark.parametrize("name", LISTED)
def test_what_is_listed_is_there_and_explained(name):
    module, _, attribute = name.rpartition(".")
    assert inspect.getdoc(getattr(importlib.import_module(f"robustnb.{module}"), attribute))


def test_what_the_package_offers_directly_is_listed():
    offered = re.search(r"offers directly: (.*?)\.\s", PAGE)[1]
    assert sorted(re.findall(r"`(\w+)`", offered)) == robustnb.__all__
    assert {name.rpartition(".")[2] for name in LISTED} >= set(robustnb.__all__) - {"paper_lr"}


@pytest.mark.parametrize("name", WHOLE)
def test_every_formula_and_figure_is_listed(name):
    module = importlib.import_module(f"robustnb.{name}")
    public = {n for n, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__ and n[0] != "_"}
    assert public <= {listed.partition(".")[2] for listed in LISTED if listed.startswith(f"{name}.")}
