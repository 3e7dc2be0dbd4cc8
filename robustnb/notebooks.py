"""Run a notebook headless and find the errors that a plain run hides.

An exception in a widget's callback, or inside ``with Output():``, is caught by the widget and shown in its
output: papermill exits with 0 and the book would publish a traceback. The executed notebook's widget state
holds it, so `run_notebook` looks there too::

    python -m robustnb.notebooks book/index.ipynb build/book/index.ipynb --parameters scale=full
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty
from typing import Any

import nbformat
import papermill
import zmq
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from nbclient.exceptions import DeadKernelError
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import write_ipynb
from traitlets import Type
from traitlets.config import Config

from ._checks import check_choice, check_count

WIDGET_STATE = "application/vnd.jupyter.widget-state+json"


def _check_parameter(name: str, value: Any) -> None:
    """ValueError or TypeError if a parameter that notebooks share cannot have this value; one of another name is its notebook's own."""
    from .atlas import SCALES  # with torch, which takes two seconds: only if it is asked for
    from .networks import resolve_device

    if name == "scale":
        check_choice(name, value, SCALES)
    if name == "device":
        resolve_device(value)
    if name == "seed":
        check_count(name, value, least=0)
    if name == "dataset":
        check_choice(name, value, ("digits", "mnist"))


class NotebookError(Exception):
    """A notebook failed; the message names the notebook and the cell and ends with the traceback."""


class _ShellChannel(AsyncZMQSocketChannel):
    """Where a kernel's replies come in, looked at every second.

    nbclient answers an Output widget while it waits for the cell's reply. It sends past the waiting socket, and that can swallow the
    one wake-up that the reply gives (as a raw send does in ipykernel's issue 1554): it would wait for ever.
    """

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:  # type: ignore[override]
        while timeout is None:
            with suppress(Empty):
                return await super().get_msg(1.0)
        return await super().get_msg(timeout)


class _Client(AsyncKernelClient):
    shell_channel_class = Type(_ShellChannel)


class _SaveOnce(NBClientEngine):  # type: ignore[misc]
    """papermill's engine, which writes at the beginning and the end of each cell, pictures and all, without that: it took a second.

    papermill itself writes the notebook that ran, and the one in which a cell failed. What is left is a run that did not come to its end.
    """

    @classmethod
    def execute_notebook(cls, nb: Any, kernel_name: str, output_path: str | None = None, **how: Any) -> Any:
        try:
            return super().execute_notebook(nb, kernel_name, None, **how)
        except BaseException:
            write_ipynb(nb, output_path)
            raise


papermill_engines.register("save once", _SaveOnce)


def run_notebook(source: Path, target: Path, parameters: Mapping[str, object] | None = None) -> float:
    """Execute `source` into `target`, from the source's own folder; returns the seconds it took.

    `parameters` replace those of the cell tagged "parameters". Here, once for all notebooks, it is checked what they share: scale is
    "quick" or "full", device "auto" or a torch device that this machine has, seed a whole number of at least 0, dataset "digits" or
    "mnist". The target is written only if every cell ran and no widget holds an error; a run that failed leaves what it had beside
    it, as `….failed.ipynb`. It needs no network, and no home folder that can be written.

    Raises NotebookError for a failing cell or widget; before any work, ValueError or TypeError for a parameter that the notebook does
    not have or that is out of range, or a source that is no notebook, OSError for one that cannot be read.
    """
    if not source.is_file():
        raise FileNotFoundError(f"source must be a notebook that is there, not {source}.")
    try:
        known = papermill.inspect_notebook(str(source))
    except nbformat.reader.NotJSONError:
        raise ValueError(f"source must be a notebook, but {source} holds no JSON.") from None
    for name, value in (parameters or {}).items():
        if name not in known:
            raise ValueError(f"parameters must be among those of {source} ({', '.join(known) or 'it has none'}), not {name!r}.")
        _check_parameter(name, value)
    target.parent.mkdir(parents=True, exist_ok=True)
    failed = failed_run(target)
    started = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, _environment(_homes(folder)):
            config = Config(KernelManager=_transport(folder) | {"client_factory": _Client})
            how: dict[str, Any] = {"engine_name": "save once", "cwd": str(source.parent), "progress_bar": False, "config": config}
            papermill.execute_notebook(str(source), str(failed), dict(parameters or {}), **how)
    except PapermillExecutionError as error:
        index = _authors(_read(failed), error.cell_index)
        raise NotebookError(f"{source}, cell {index}:\n{error.source}\n\n{_plain(error.traceback)}") from None
    except DeadKernelError:
        raise NotebookError(f"{source}: the kernel died. Perhaps the machine had too little memory.") from None
    executed = _read(failed)
    for index, cell in enumerate(executed.cells):
        for output in cell.get("outputs", []):
            # papermill takes SystemExit for success; an exception in a thread is only text.
            text = _plain(output.get("traceback") or [output.get("text", "")])
            if output.output_type == "error" or (output.get("name") == "stderr" and "Traceback (most recent call last)" in text):
                raise NotebookError(f"{source}, cell {_authors(executed, index)}:\n{cell.source}\n\n{text}")
    for where, trace in hidden_errors(executed):
        raise NotebookError(f"{source}, {where}:\n{trace}")
    os.replace(failed, target)
    return time.perf_counter() - started


def failed_run(target: Path) -> Path:
    """Where a run that failed leaves what it had."""
    return target.with_suffix(".failed.ipynb")


def _transport(folder: str) -> dict[str, str]:
    """The kernel is on this machine: talk through sockets in a folder rather than over TCP, which remains where there are none."""
    path = f"{folder}/kernel"
    if sys.platform == "win32" or not zmq.has("ipc") or len(os.fsencode(path)) + len("-5") > zmq.IPC_PATH_MAX_LEN:
        return {"transport": "tcp"}
    return {"transport": "ipc", "ip": path}


def _homes(folder: str) -> dict[str, str]:
    """Where Matplotlib and IPython are to keep their files if the home folder takes none: they would complain in the notebook's output."""
    if os.access(os.path.expanduser("~"), os.W_OK):
        return {}
    return {name: folder for name in ("MPLCONFIGDIR", "IPYTHONDIR") if name not in os.environ}


@contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    """With these variables set, for the kernel too; each is one that was not set."""
    os.environ.update(more)
    try:
        yield
    finally:
        for name in more:
            os.environ.pop(name, None)


def _read(executed: Path) -> Any:
    """An executed notebook without papermill's own remarks on a failure."""
    notebook = nbformat.read(executed, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "papermill-error-cell-tag" not in cell.metadata.get("tags", [])]
    return notebook


def _authors(notebook: Any, index: int) -> int:
    """The number that a cell has in the author's copy, which lacks the cell in which papermill sets parameters."""
    return index - sum("injected-parameters" in cell.metadata.get("tags", []) for cell in notebook.cells[:index])


def hidden_errors(notebook: Any) -> Iterator[tuple[str, str]]:
    """The errors that an executed notebook's widgets hold, as (place, traceback); those with a traceback first."""
    models = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    states = {key: model.get("state", {}) for key, model in models.items()}
    for key, state in states.items():
        for output in state.get("outputs", []):
            if output.get("output_type") == "error":
                yield f"{_cell_showing(notebook, key)}inside a widget's output", _plain(output.get("traceback", []))
    for key, state in states.items():
        if isinstance(state.get("error"), str) and state["error"]:
            yield f"{_cell_showing(notebook, key)}shown by a laboratory", state["error"]


def _plain(traceback: Sequence[str]) -> str:
    """A traceback without the terminal's colour codes."""
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(traceback))


def _cell_showing(notebook: Any, key: str) -> str:
    """ "cell k, " if the widget, or one that contains it, is displayed by cell k; else nothing."""
    models = notebook.metadata["widgets"][WIDGET_STATE]["state"]
    parents = {key}
    while True:
        more = {k for k, m in models.items() if any(f"IPY_MODEL_{p}" in str(m.get("state", {}).get("children", "")) for p in parents)}
        if more <= parents:
            break
        parents |= more
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            view = output.get("data", {}).get("application/vnd.jupyter.widget-view+json", {})
            if view.get("model_id") in parents:
                return f"cell {_authors(notebook, index)}, "
    return ""


def _value(text: str) -> Any:
    """A parameter as Python writes it (3, 0.1, None), else as text."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one notebook; exit with 1, naming the notebook and the cell, if anything in it fails."""
    parser = argparse.ArgumentParser(prog="python -m robustnb.notebooks", description=main.__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument(
        "--parameters", nargs="*", action="extend", default=[], metavar="NAME=VALUE", help="values for the notebook's parameters cell"
    )
    chosen = parser.parse_args(arguments)
    parameters = {name: _value(text) for name, _, text in (pair.partition("=") for pair in chosen.parameters)}
    try:
        seconds = run_notebook(chosen.source, chosen.target, parameters)
    except (NotebookError, ValueError, TypeError, OSError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        if isinstance(error, NotebookError):
            print(f"What the run had written is in {failed_run(chosen.target)}", file=sys.stderr)
        return 1
    print(f"{chosen.source}: {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
