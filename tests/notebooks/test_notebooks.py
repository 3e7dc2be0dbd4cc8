"""The notebooks as committed, the runner that executes them, and the errors that it must not miss."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
import zmq
import zmq.asyncio
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.session import Session
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from robustnb.notebooks import WIDGET_STATE, NotebookError, _ShellChannel, hidden_errors, run_notebook

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "book").glob("*.ipynb"))


def notebook(path: Path, *sources: str, parameters: str = "") -> Path:
    cells = [new_markdown_cell("# A test"), *[new_code_cell(source) for source in sources]]
    if parameters:
        cells.insert(1, new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), path)
    return path


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_committed_notebook_has_no_outputs_and_its_parameters_cell(path):
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    (parameters,) = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert all(f"{name} =" in parameters.source for name in ("scale", "device", "seed"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_executed_notebook_is_whole_and_every_figure_has_alternative_text(path):
    executed = nbformat.read(ROOT / "build" / "book" / path.name, as_version=4)
    assert [cell.source for cell in executed.cells if cell.cell_type == "markdown"] == [
        cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"
    ]
    assert not list(hidden_errors(executed))
    # A letter of Matplotlib's own in a figure whose text stays text, as $\mathbb{E}$: no reader's font has it.
    assert not re.search("[\ue000-\uf8ff]", json.dumps(executed, ensure_ascii=False))
    for cell in executed.cells:
        assert not [output for output in cell.get("outputs", []) if output.output_type == "error"]
        pictures = [output for output in cell.get("outputs", []) if {"image/png", "image/svg+xml"} & set(output.get("data", {}))]
        if pictures:
            assert len(cell.metadata["mystnb"]["image"]["alt"]) > 20, cell.source
        assert not [output for output in cell.get("outputs", []) if output.get("name") == "stderr"], cell.source
        for output in cell.get("outputs", []):  # no sentence has a number that is none; but a test's name may speak of one
            words = output.get("data", {}).get("text/markdown", "")
            assert path.stem == "testing" or not re.search(r"\b(nan|NaN|inf)\b", words), cell.source


@pytest.mark.skipif(not os.environ.get("ROBUSTNB_DATA"), reason="ROBUSTNB_DATA names no folder with MNIST")
def test_the_introduction_runs_on_real_mnist_with_another_seed(tmp_path):
    target = tmp_path / "introduction.ipynb"
    run_notebook(ROOT / "book" / "introduction.ipynb", target, {"dataset": "mnist", "seed": 1, "device": "cpu"})
    outputs = "".join(str(cell.get("outputs", "")) for cell in nbformat.read(target, as_version=4).cells)
    assert "10,000" in outputs or "1,000" in outputs  # the probe is the first 1,000 test images
    assert "untrained tanh network" in outputs


@pytest.mark.parametrize("bad", ["x / 0", "import warnings\nraise SystemExit"])
@pytest.mark.parametrize("parameters", [None, {"seed": 3}])
def test_an_exception_in_a_cell_names_the_notebook_the_cell_and_the_traceback(tmp_path, bad, parameters):
    source = notebook(tmp_path / "bad.ipynb", "x = 1", bad, bad, parameters="seed = 0")
    error = "ZeroDivisionError: division by zero" if "/" in bad else "SystemExit"
    with pytest.raises(NotebookError, match=rf"(?s)bad\.ipynb, cell 3:\n{bad}.*{error}"):
        run_notebook(source, tmp_path / "out.ipynb", parameters)
    assert not (tmp_path / "out.ipynb").exists()


def test_a_kernel_that_dies_is_said_in_a_sentence(tmp_path):
    source = notebook(tmp_path / "bad.ipynb", "6 * 7", "import os\nos._exit(1)")
    with pytest.raises(NotebookError, match=r"bad\.ipynb: the kernel died\. [^\n]*memory\.$"):
        run_notebook(source, tmp_path / "out.ipynb")
    assert not (tmp_path / "out.ipynb").exists()
    kept = nbformat.read(tmp_path / "out.failed.ipynb", as_version=4)
    assert kept.cells[1].outputs[0].data["text/plain"] == "42"


HIDDEN = {
    "interact": "import ipywidgets\n@ipywidgets.interact(x=(0, 3))\ndef show(x):\n    raise RuntimeError('hidden')",
    "observe": (
        "import ipywidgets\nfrom IPython.display import display\nout = ipywidgets.Output()\nslider = ipywidgets.IntSlider()\n"
        "@out.capture()\ndef moved(change):\n    raise RuntimeError('hidden')\n"
        "slider.observe(moved, 'value')\ndisplay(ipywidgets.VBox([slider, out]))\nslider.value = 3"
    ),
    "output": "import ipywidgets\nout = ipywidgets.Output()\ndisplay(out)\nwith out:\n    raise RuntimeError('hidden')",
    "laboratory": (
        "from robustnb.widgets import Laboratory\nlab = Laboratory()\n"
        "lab.train([dict(init=0, c=1, width=4, depth=2, lr=0.1, epochs='hidden', seed=0)]).join()\nlab"
    ),
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_an_error_that_only_a_widget_shows_fails_the_run(kind, tmp_path):
    source = notebook(tmp_path / "bad.ipynb", HIDDEN[kind])
    place = "cell 1, inside a widget's output:"
    with pytest.raises(NotebookError, match=rf"(?s)bad\.ipynb, {place}.*Error.*hidden"):
        run_notebook(source, tmp_path / "out.ipynb")
    assert not (tmp_path / "out.ipynb").exists()


@pytest.mark.parametrize(
    "channel", [_ShellChannel, pytest.param(AsyncZMQSocketChannel, marks=pytest.mark.xfail(raises=TimeoutError, strict=True))]
)
def test_a_reply_is_seen_although_a_send_swallowed_its_wake_up(channel, tmp_path):
    """Strictly, jupyter_client's own channel misses it: once it does not, ours can go."""

    async def wait_for_reply():
        with (
            zmq.asyncio.Context() as context,
            context.socket(zmq.DEALER) as ours,
            zmq.Context() as there,
            there.socket(zmq.ROUTER) as kernel,
        ):
            kernel.bind(f"ipc://{tmp_path}/shell")
            ours.connect(f"ipc://{tmp_path}/shell")
            session = Session(key=b"")
            session.send(ours, "execute_request", {})
            reply = asyncio.create_task(channel(ours, session).get_msg())
            await asyncio.sleep(0.2)
            session.send(kernel, "execute_reply", {"status": "ok"}, ident=kernel.recv_multipart()[:1])
            time.sleep(0.2)  # it arrives while the loop is busy
            session.send(ours, "comm_msg", {})
            try:
                return await asyncio.wait_for(reply, 3)
            finally:
                ours.close(linger=0)
                kernel.close(linger=0)

    # In a thread of its own: where a test in the browser ran before, this one has a loop that runs.
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(asyncio.run, wait_for_reply()).result()["content"] == {"status": "ok"}


def test_an_unknown_parameter_is_refused_before_any_work(tmp_path):
    source = notebook(tmp_path / "good.ipynb", "raise SystemExit", parameters="seed = 0")
    with pytest.raises(ValueError, match=r"parameters must be among those of .*good\.ipynb \(seed\), not 'sed'\."):
        run_notebook(source, tmp_path / "out.ipynb", {"sed": 1})


def test_the_command_exits_with_one_and_says_where(tmp_path):
    source = notebook(tmp_path / "bad.ipynb", "open('nowhere')")
    command = [sys.executable, "-m", "robustnb.notebooks", str(source), str(tmp_path / "out.ipynb")]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 1
    assert "FAILED: " in done.stderr
    assert "bad.ipynb, cell 1" in done.stderr
    assert "FileNotFoundError" in done.stderr
    assert "\x1b[" not in done.stderr
    assert done.stderr.rstrip().endswith(f"What the run had written is in {tmp_path / 'out.failed.ipynb'}")
    assert (tmp_path / "out.failed.ipynb").exists()


def plan(*what_if: str) -> list[str]:
    """The notebooks that make would run if those files had changed."""
    options = [option for name in what_if for option in ("-W", name)]
    if "build/inputs.sum" not in what_if:
        options += ["-o", "build/inputs.sum"]  # a dry run cannot look whether its content changed
    done = subprocess.run(
        ["make", "-n", *options, *[f"build/book/{path.name}" for path in SOURCES]],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if "-m robustnb.notebooks" in line]
    return sorted(Path(line.split()[-2]).stem for line in lines)


@pytest.mark.xdist_group("make")
def test_make_runs_again_just_what_changed():
    every = [path.stem for path in SOURCES]
    assert plan() == []
    assert plan("book/setting.ipynb") == ["setting"]
    assert plan("build/inputs.sum") == every


@pytest.mark.xdist_group("make")
@pytest.mark.parametrize("where", ["robustnb", "book/atlas"])
def test_a_file_that_comes_or_goes_makes_the_notebooks_stale(where):
    sums = ROOT / "build" / "inputs.sum"
    before, modified = sums.read_text(encoding="utf-8"), sums.stat().st_mtime_ns
    new = ROOT / where / "test_of_make.txt"
    new.write_text("new", encoding="utf-8")
    try:
        subprocess.run(["make", "build/inputs.sum"], cwd=ROOT, check=True, capture_output=True)
        assert "test_of_make.txt" in sums.read_text(encoding="utf-8")
    finally:
        new.unlink()
        subprocess.run(["make", "build/inputs.sum"], cwd=ROOT, check=True, capture_output=True)
        assert sums.read_text(encoding="utf-8") == before
        # The content is what it was: what was made from it is still good.
        os.utime(sums, ns=(modified, modified))


def test_an_error_that_only_a_laboratory_shows_is_found():
    shown = {"state": {"a": {"state": {"error": "ValueError: x"}}}}
    executed = new_notebook(metadata={"widgets": {WIDGET_STATE: shown}})
    assert [*hidden_errors(executed)] == [("shown by a laboratory", "ValueError: x")]
