import os

# Before torch reads it; in the processes that tests start, too.
os.environ["OMP_NUM_THREADS"] = "1"

import shutil
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def open_folder():
    """A folder that everyone may enter: pytest's own is its user's."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    for path in (made, *made.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(made)


def pytest_collection_modifyitems(items):
    """All of them belong to the long profile, which writes down what was survived."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker("long")
