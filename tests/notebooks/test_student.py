"""The student edition: every exercise, no solution, and nothing else missing."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "book").glob("*.ipynb"))


@pytest.fixture(scope="module")
def students(tmp_path_factory):
    target = tmp_path_factory.mktemp("student")
    subprocess.run([sys.executable, ROOT / "book" / "student.py", ROOT / "book", target], check=True)
    return target


def lines(path, kind):
    return [line for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind for line in cell.source.splitlines() if line]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_solutions_are_gone_and_all_else_is_there(source, students):
    given, kept = (["\n".join(lines(path, "markdown")) for path in (source, students / source.name)][k] for k in (0, 1))
    solutions = re.findall(r"^`+\{solution-start\}.*?^`+\{solution-end\}\n`+$\n?", given, flags=re.DOTALL | re.MULTILINE)
    assert len(solutions) == given.count("{solution-start}") == given.count("{exercise-start}")
    assert "{solution" not in kept
    expected = given
    for solution in solutions:
        expected = expected.replace(solution, "")
    assert kept.splitlines() == expected.splitlines()
    # Code outside of solutions is as it was, and in its order.
    remaining = iter(lines(source, "code"))
    assert all(line in remaining for line in lines(students / source.name, "code"))
