"""One voice: every chapter opens, asks and ends in the same way, and so does the template for a new one."""

import importlib.util
import re
from itertools import pairwise
from pathlib import Path

import jupytext
import matplotlib as mpl
import nbformat
import pytest
from matplotlib import pyplot as plt

BOOK = Path(__file__).parents[2] / "book"
# Pages to look things up in: they ask nothing, and have no exercises.
REFERENCE = ("index", "notation", "report", "testing")
NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4) for path in sorted(BOOK.glob("*.ipynb"))}
CHAPTERS = {name: of for name, of in NOTEBOOKS.items() if name not in REFERENCE}
CHAPTERS["template"] = jupytext.read(BOOK / "template.md")


def text(name):
    return "\n".join(cell.source for cell in CHAPTERS[name].cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_opens_with_its_question_what_one_can_do_and_how_long_it_takes(name):
    first = CHAPTERS[name].cells[0].source
    box = r"\A# [^\n]+\n\n:::\{admonition\} The question of this chapter\n:class: tip\n(.*?)\n:::"
    (opening,) = re.findall(box, first, flags=re.DOTALL)
    question, then = opening.split("\n\n", maxsplit=1)
    assert question.endswith("?")
    assert then.startswith("Afterwards you ")
    (minutes,) = re.findall(r"\bAbout (\d+) minutes[^.]*\.", then)
    # Whoever has not so long is told what to leave out.
    assert int(minutes) <= 25 or re.search(r"About \d+ minutes, \d+ without [^.]+\.", then)


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_laboratory_is_shown_after_a_prediction(name):
    cells = CHAPTERS[name].cells
    for before, cell in pairwise(cells):
        if cell.cell_type == "code" and "Laboratory(" in cell.source:
            assert "predict=True" in cell.source
            assert before.cell_type == "markdown"
            assert re.search(r"\?|[Pp]redict|expect", before.source.rpartition("\n## ")[2])


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_ends_with_summary_and_exercises_of_three_grades_with_solutions(name):
    assert re.findall(r"^## (.*)", text(name), flags=re.MULTILINE)[-2:] == ["Summary", "Exercises"]
    exercises = text(name).rpartition("\n## Exercises\n")[2]
    graded = re.findall(r"\{exercise-start\} [^\n]+\n:label: (ex-[a-z0-9-]+)\n```\n(\*\w+\.\*)? ", exercises)
    assert [label for label, _ in graded] == re.findall(r"\{solution-start\} (\S+)", exercises)
    grades = [grade for _, grade in graded]
    assert {*grades} == {"*Easy.*", "*Medium.*", "*Research.*"}
    assert len(grades) == exercises.count("{exercise-start}") == exercises.count("{solution-end}")
    assert grades == sorted(grades)


@pytest.fixture
def stage():
    found = importlib.util.spec_from_file_location("stage", BOOK / "stage.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_what_is_rendered_is_what_the_contents_beside_it_list(stage, tmp_path, monkeypatch, capsys):
    """`make page` has contents of its own, for a page that the book's may not list yet."""
    notebook = nbformat.v4.new_notebook(metadata={"papermill": {"duration": 1.0}}, cells=[nbformat.v4.new_markdown_cell("# A title")])
    for name in ("lazy", "batch_order"):
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    (tmp_path / "book").mkdir()
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/batch_order\nchapters:\n  - file: book/bibliography\n", encoding="utf-8"
    )
    monkeypatch.setattr("sys.argv", ["stage.py", *(str(tmp_path / name) for name in ("lazy.ipynb", "batch_order.ipynb", "book"))])
    stage.main()
    assert {path.name for path in (tmp_path / "book").iterdir()} == {"run_times.md", "batch_order.ipynb"}
    assert "lazy" not in (tmp_path / "book" / "run_times.md").read_text(encoding="utf-8")
    assert capsys.readouterr().err == "book/lazy.ipynb is not in _toc.yml, and so not in the book.\n"


def test_the_imports_of_every_page_are_folded_and_nothing_else_is(stage):
    for name, notebook in (NOTEBOOKS | CHAPTERS).items():
        before = [[*cell.metadata.get("tags", [])] for cell in notebook.cells]
        cells = stage.folded(nbformat.from_dict(notebook)).cells
        imports = next(cell for cell in cells if cell.cell_type == "code" and cell.source.startswith(("import ", "from ")))
        assert {*imports.metadata.tags} & {"hide-input", "remove-input", "remove-cell"}, name
        assert sum(cell.metadata.get("tags", []) != tags for cell, tags in zip(cells, before, strict=True)) <= 1, name


@pytest.mark.parametrize("name", NOTEBOOKS | CHAPTERS)
def test_jupyterlab_folds_what_the_page_hides(name):
    """By a cell's metadata "jupyter": "source_hidden"; and of a solution the outputs too, "outputs_hidden"."""
    solution = False
    for cell in (NOTEBOOKS | CHAPTERS)[name].cells:
        if cell.cell_type == "markdown":
            start, end = (cell.source.rfind(mark) for mark in ("{solution-start}", "{solution-end}"))
            solution = start > end if start != end else solution
        elif cell.cell_type == "code":
            hidden = solution or {"hide-input", "remove-input"} & {*cell.metadata.get("tags", [])}
            wanted = {"source_hidden": True} | ({"outputs_hidden": True} if solution else {}) if hidden else {}
            assert cell.metadata.get("jupyter", {}) == wanted, cell.source


def test_the_template_runs_and_computes_its_sentences(capsys):
    mpl.use("agg")
    names = {}
    for cell in CHAPTERS["template"].cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, "template.md", "exec"), names)
    plt.close("all")
    assert 0 < names["starts"] < 1
    assert re.search(r"^m = 64: 0\.\d\d$", capsys.readouterr().out, flags=re.MULTILINE)
