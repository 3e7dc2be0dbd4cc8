"""What Jupyter Book renders: the executed notebooks made lean, their imports folded, and a page of their run times. `make book` calls it:

python book/stage.py EXECUTED... FOLDER
"""

import os
import sys
from pathlib import Path

import nbformat
from sphinx_external_toc.parsing import parse_toc_yaml

from robustnb.notebooks import WIDGET_STATE
from robustnb.widgets.slides import compact_svg
from robustnb.widgets.view import View

VIEW = f"{View.__module__}.{View.__qualname__}"

RUN_TIMES = """# Run times

How long each notebook took when this book was made, at `scale="quick"`, on {cores} processor cores with one notebook on each. From
opening the kernel to the last cell; most of a short time is the start of torch.

| notebook | seconds |
|---|---|
{rows}
| **all, one after the other** | **{total:.0f}** |

At `scale="full"` a chapter takes minutes to hours; its text says so. What a training step costs, and why, is [a chapter of its own](speed.ipynb).
"""


def lean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without what the page has elsewhere: laboratories without the code that all pages share, and figures in half the bytes."""
    for model in (
        notebook.metadata.get("widgets", {})
        .get(WIDGET_STATE, {})
        .get("state", {})
        .values()
    ):
        if model["state"].get("_anywidget_id") == VIEW:
            del model["state"]["_esm"], model["state"]["_css"]
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/svg+xml" in output.get("data", {}):
                output["data"]["image/svg+xml"] = compact_svg(
                    output["data"]["image/svg+xml"]
                )
    return notebook


def folded(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """With the imports of a chapter, its first cell that begins with one, behind a click; unless the cell has tags of its own."""
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    cell = next((c for c in cells if c.source.startswith(("import ", "from "))), None)
    if cell is not None and not cell.metadata.get("tags"):
        cell.metadata["tags"] = ["hide-input"]
    return notebook


def run_times(notebooks: dict[str, nbformat.NotebookNode]) -> str:
    """The page of run times, the slowest notebook first."""
    times = []
    for name, notebook in notebooks.items():
        title = (
            next(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
            .splitlines()[0]
            .lstrip("# ")
        )
        times.append((notebook.metadata.papermill.duration, title, name))
    rows = "\n".join(
        f"| [{title}]({name}) | {seconds:.1f} |"
        for seconds, title, name in sorted(times, reverse=True)
    )
    return RUN_TIMES.format(
        cores=os.cpu_count(), rows=rows, total=sum(seconds for seconds, *_ in times)
    )


def main() -> None:
    """Write both into the folder; a notebook that the table of contents beside it does not have yet is named, and left out."""
    *paths, folder = map(Path, sys.argv[1:])
    pages = parse_toc_yaml(folder.parent / "_toc.yml")
    listed = [path for path in paths if f"book/{path.stem}" in pages]
    for path in sorted({*paths} - {*listed}):
        print(
            f"book/{path.name} is not in _toc.yml, and so not in the book.",
            file=sys.stderr,
        )
    notebooks = {path.name: nbformat.read(path, as_version=4) for path in listed}
    (folder / "run_times.md").write_text(run_times(notebooks), encoding="utf-8")
    for name, notebook in notebooks.items():
        nbformat.write(folded(lean(notebook)), folder / name)


if __name__ == "__main__":
    main()
