"""Notebooks run headless with any valid parameters, from any folder, without a home or a network; and say at once what is not valid."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import zmq
from nbformat.v4 import new_code_cell, new_notebook

from robustnb import notebooks
from robustnb.notebooks import run_notebook

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "book").glob("*.ipynb"))
LONG = int(os.environ.get("ROBUSTNB_EXAMPLES", "0")) >= 1000
BEYOND_32_BITS = 2**40 + 1
RUNS = [pytest.param(path, seed, id=f"{path.stem}-{seed}") for path in SOURCES for seed in (7, BEYOND_32_BITS)]


def stderr(executed: Path) -> list[str]:
    """What an executed notebook's cells complained of."""
    cells = nbformat.read(executed, as_version=4).cells
    return [output.text for cell in cells for output in cell.get("outputs", []) if output.get("name") == "stderr"]


@pytest.mark.long
@pytest.mark.parametrize(("path", "seed"), RUNS if LONG else [])  # in a short run the next test tries one seed
def test_a_notebook_runs_with_any_seed(path, seed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_notebook(path, Path("out.ipynb"), {"seed": seed, "device": "cpu"})
    assert stderr(Path("out.ipynb")) == []


def deprived() -> list[str]:
    """How a command begins that is to run without root's right to write everywhere and, if that can be had here, without a network."""
    alone = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        alone = []
    # Of root's rights this one: another user may not even read where Python lies.
    rights = "-dac_override,-dac_read_search"
    return [*alone, "setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"] if os.geteuid() == 0 or alone else []


@pytest.mark.skipif(sys.platform != "linux", reason="rights and network are taken away by Linux's own means")
def test_a_notebook_runs_from_any_folder_without_a_home_a_cache_or_a_network(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "HOME": str(home)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*deprived(), sys.executable, *arguments]
        return subprocess.run(command, cwd="/", env=environment, capture_output=True, encoding="utf-8", check=False)

    assert "PermissionError" in run("-c", "import pathlib; pathlib.Path.home().joinpath('x').touch()").stderr
    source, target = ROOT / "book" / "notation.ipynb", tmp_path / "out.ipynb"
    done = run("-m", "robustnb.notebooks", str(source), str(target), "--parameters", f"seed={BEYOND_32_BITS}", "device=cpu", "scale=quick")
    assert (done.returncode, done.stderr) == (0, "")
    assert stderr(target) == []
    assert [*home.iterdir()] == []


INVALID = [
    ({"scale": "huge"}, r"scale must be one of 'quick', 'full', not 'huge'\."),
    ({"scale": None}, r"scale must be one of 'quick', 'full', not None\."),
    ({"device": "warp"}, r'device must be "auto" or a torch device that this machine has, not \'warp\'\.'),
    ({"seed": -1}, r"seed must be a whole number of at least 0, not -1\."),
    ({"seed": "x"}, r"seed must be a whole number of at least 0, not 'x'\."),
    ({"seed": 2**60}, r"seed must be a whole number of at most 9,007,199,254,740,992, not 1152921504606846976\."),
    ({"dataset": "cifar10"}, r"dataset must be one of 'digits', 'mnist', not 'cifar10'\."),
    ({"sed": 1}, r"parameters must be among those of .*setting\.ipynb \(scale, device, seed, dataset\), not 'sed'\."),
    ({"seed": 1, "scale": "Full"}, r"scale must be one of 'quick', 'full', not 'Full'\."),
]


@pytest.mark.parametrize(("parameters", "sentence"), INVALID)
def test_what_is_not_valid_is_said_in_one_sentence_before_anything_is_written(parameters, sentence, tmp_path):
    with pytest.raises((ValueError, TypeError), match=rf"\A{sentence}\Z"):
        run_notebook(ROOT / "book" / "setting.ipynb", tmp_path / "new" / "out.ipynb", parameters)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_what_a_notebook_is_committed_with_is_valid(path):
    parameters = {}
    for cell in nbformat.read(path, as_version=4).cells:
        if "parameters" in cell.metadata.get("tags", []):
            exec(cell.source, parameters)
    for name, value in parameters.items():
        notebooks._check_parameter(name, value)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [("nowhere.ipynb", "a notebook that is there, not {}."), ("words.ipynb", "a notebook, but {} holds no JSON.")],
)
def test_the_command_says_in_one_line_that_a_notebook_cannot_be_read(source, sentence, tmp_path, capsys):
    (tmp_path / "words.ipynb").write_text("# Setting", encoding="utf-8")
    assert notebooks.main([str(tmp_path / source), str(tmp_path / "out.ipynb")]) == 1
    assert capsys.readouterr().err == f"FAILED: source must be {sentence.format(tmp_path / source)}\n"
    assert not (tmp_path / "out.ipynb").exists()


def test_kernels_talk_over_tcp_where_sockets_in_a_folder_are_not_to_be_had(monkeypatch):
    assert notebooks._transport("/tmp/x") == {"transport": "ipc", "ip": "/tmp/x/kernel"}
    assert notebooks._transport("/tmp/" + "x" * zmq.IPC_PATH_MAX_LEN) == {"transport": "tcp"}
    monkeypatch.setattr(sys, "platform", "win32")
    assert notebooks._transport("/tmp/x") == {"transport": "tcp"}


def test_a_far_away_temporary_folder_is_no_obstacle(tmp_path, monkeypatch):
    far = tmp_path / ("far" * 40)
    far.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(far))
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=[new_code_cell("6 * 7")], metadata=kernel), tmp_path / "bare.ipynb")
    run_notebook(tmp_path / "bare.ipynb", tmp_path / "out.ipynb")
