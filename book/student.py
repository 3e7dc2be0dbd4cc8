"""The student edition: notebooks without their solutions. `make student` calls it:

python book/student.py FOLDER TARGET
"""

import re
import sys
from pathlib import Path

import nbformat

# A solution begins and ends with a directive of its own, since code cells stand between.
START = r"`{3,}\{solution-start\}[^\n]*\n(?:[^`\n][^\n]*\n)*`{3,}"
END = r"`{3,}\{solution-end\}\s*?\n`{3,}"


def without_solutions(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The same notebook, but for what stands between a solution's start and its end."""
    cells, inside = [], False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            kept = []
            for part in re.split(f"({START}|{END})", cell.source):
                if re.fullmatch(START, part) or re.fullmatch(END, part):
                    inside = bool(re.fullmatch(START, part))
                elif not inside:
                    kept.append(part)
            text = "".join(kept).strip()
            if text:
                cells.append(cell | {"source": text})
        elif not inside:
            cells.append(cell)
    return notebook | {"cells": cells}


def main() -> None:
    """Write every notebook of a folder into another, or the same, without its solutions."""
    source, target = map(Path, sys.argv[1:])
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.ipynb")):
        student = without_solutions(nbformat.read(path, as_version=4))
        nbformat.write(nbformat.from_dict(student), target / path.name)


if __name__ == "__main__":
    main()
