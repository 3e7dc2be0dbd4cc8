"""Every address outside the book that it, its package or the README names, with where it stands. `make links` calls it."""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
# (where to look, what to look for there, the address that is meant)
ADDRESS = (r"https?://[^\s<>\"'`\])}\\]+", "{}")
ARXIV = (r"arXiv:(\d{4}\.\d{4,5})", "https://arxiv.org/abs/{}")
DOI = (r"doi\s*=\s*[{\"]([^}\"]+)", "https://doi.org/{}")
SOURCES = (
    *("*.md", "book/*.md", "book/*.bib", "book/*.ipynb", "book/*.py", "book/*.js"),
    *("book/assets/*.js", "book/assets/*.css", "robustnb/**/*.py", "robustnb/**/*.js"),
)
OWN = ("http://127.0.0.1", "http://localhost", "http://www.w3.org/")


def lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """Each line with its place."""
    if path.suffix == ".ipynb":
        for k, cell in enumerate(nbformat.read(path, as_version=4).cells):
            for line in cell.source.splitlines():
                yield f"cell {k}", line
    else:
        for k, line in enumerate(
            path.read_text(encoding="utf-8").splitlines(), start=1
        ):
            yield f"line {k}", line


def links(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """(address, file and place), file by file."""
    for path in sorted({path for pattern in SOURCES for path in root.glob(pattern)}):
        for place, line in lines_of(path):
            for pattern, form in (ADDRESS, ARXIV, DOI):
                for found in re.findall(pattern, line):
                    address = form.format(found.rstrip(".,;:*_"))
                    if not address.startswith(OWN):
                        yield address, f"{path.relative_to(root)}, {place}"


if __name__ == "__main__":
    for address, where in links():
        print(f"{address}  {where}")
