"""The page of what is proved: whole, and its tests exist."""

import ast
import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[2]
STATUS = (ROOT / "book" / "status.md").read_text(encoding="utf-8")


def statements():
    """Labels of all definitions, theorems, lemmas … in the notebooks."""
    for path in sorted((ROOT / "book").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                for kind, options in re.findall(r"```\{prf:(\w+)\}[^\n]*\n((?::[^\n]*\n)*)", cell.source):
                    if kind not in ("proof", "remark") and ":nonumber:" not in options:
                        (label,) = re.findall(r":label: (\S+)", options)
                        yield kind, label


def test_every_statement_of_the_book_is_listed():
    listed = set(re.findall(r"\{prf:ref\}`([^`]+)`", STATUS))
    assert {label for _, label in statements()} <= listed


def test_the_papers_statements_are_all_there_once_and_in_order():
    found = list(statements())
    assert sorted(label for kind, label in found if kind == "theorem") == ["thm-1", "thm-2", "thm-3"]
    assert sorted(label for kind, label in found if kind == "lemma") == sorted(f"lem-{k}" for k in range(1, 12))
    assert {label for kind, label in found if kind == "assumption"} == {"ass-unit", "ass-2"}


def test_the_tests_that_it_names_exist():
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", STATUS)
    assert len(named) > 15
    for file, name in named:
        tree = ast.parse((ROOT / "tests" / "unit" / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (file, name)


def test_the_tests_that_the_page_on_testing_names_exist():
    page = "".join(cell.source for cell in nbformat.read(ROOT / "book" / "testing.ipynb", as_version=4).cells)
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", page)
    assert len(named) > 10
    for file, name in named:
        assert any(f"def {name}(" in path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob(file)), (file, name)
