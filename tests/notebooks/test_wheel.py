"""`pip install .` gives a working package: its widget's JS and CSS and the atlas travel inside."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROGRAM = """
import robustnb, sys
assert robustnb.__file__.startswith(sys.argv[1]), robustnb.__file__
from robustnb.widgets import Laboratory
lab = Laboratory(device="cpu")
assert "rnb-lab" in lab.view._esm and "rnb-lab" in lab.view._css
lab.train([dict(init=0, c=1, width=4, depth=2, lr=0.1, epochs=1, seed=0)]).join()
assert lab.view.error == "" and len(lab.view.runs) == 1, lab.view.error
from robustnb.results import code_version
print(code_version())
"""


def test_a_built_wheel_works_away_from_the_checkout(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("robustnb-*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0.1.0"  # no checkout, so no commit
