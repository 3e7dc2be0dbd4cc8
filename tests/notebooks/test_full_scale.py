"""What notebooks do at full scale, tried in minutes: the same code, settings and epochs, on few images (see cut_short.py)."""

import os
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from robustnb.notebooks import run_notebook

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "book").glob("*.ipynb"))
LONG = int(os.environ.get("ROBUSTNB_EXAMPLES", "0")) >= 1000
FIRST = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nimport cut_short"

pytestmark = pytest.mark.skipif(not os.environ.get("ROBUSTNB_DATA"), reason="ROBUSTNB_DATA names no folder with MNIST")


@pytest.mark.long
@pytest.mark.parametrize("source", SOURCES if LONG else [], ids=lambda path: path.stem)
def test_a_notebook_is_valid_at_full_scale(source, tmp_path):
    notebook = nbformat.read(source, as_version=4)
    notebook.cells.insert(0, new_code_cell(FIRST))
    for other in SOURCES:
        if other != source:
            (tmp_path / other.name).symlink_to(other)  # the report reads titles
    nbformat.write(notebook, tmp_path / source.name)
    run_notebook(tmp_path / source.name, tmp_path / "out.ipynb", {"scale": "full", "device": "cpu"})
