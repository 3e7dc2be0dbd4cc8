"""The strictest Content-Security-Policy under which every page of the rendered book works. `make book` writes it into the book:

python book/csp.py build/html > build/html/csp.txt
"""

import base64
import hashlib
import sys
from html.parser import HTMLParser
from pathlib import Path

# A directive, what it allows, and why.
POLICY = {
    "default-src": (
        "'none'",
        "What is not named below is not needed: no frames, no media, no plug-ins.",
    ),
    "script-src": (
        "'self' blob: 'wasm-unsafe-eval' 'unsafe-hashes' {hashes}",
        "The book's own files. blob:, since the laboratory's view is a module that anywidget makes from the text in the page; "
        "'wasm-unsafe-eval', since Train compiles WebAssembly (it allows no eval of JavaScript); and by their SHA-256 the theme's few "
        "inline scripts, and the handlers of its two buttons (print, full screen), which is what 'unsafe-hashes' is for.",
    ),
    "worker-src": (
        "blob:",
        "Train computes in a worker, which is made from text, so that it also works from a disk.",
    ),
    "style-src": (
        "'self' 'unsafe-inline'",
        "MathJax, the widgets and drawn figures set styles in the page. A style runs no code.",
    ),
    "img-src": (
        "'self' data:",
        "Figures that a slider shows, and the widgets' icons, lie in the page itself.",
    ),
    "font-src": (
        "'self'",
        "The fonts of MathJax and of the theme's icons, from the book.",
    ),
    "connect-src": ("'none'", "No script of a page fetches or sends anything."),
    "form-action": ("'self'", "The search field leads to the book's own search page."),
    "base-uri": ("'none'", "No page may change where its links lead."),
    "frame-ancestors": (
        "'none'",
        "No other site shows the book in a frame; a teacher who wants that names the site here.",
    ),
}


class _Inline(HTMLParser):
    """Collects the scripts and event handlers that stand in a page itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.script: list[str] | None = None

    def handle_starttag(
        self, tag: str, attributes: list[tuple[str, str | None]]
    ) -> None:
        of = dict(attributes)
        self.found |= {of[name] or "" for name in of if name.startswith("on")}
        # What is said to be JSON no browser executes.
        if tag == "script" and "src" not in of and "json" not in (of.get("type") or ""):
            self.script = []

    def handle_data(self, text: str) -> None:
        if self.script is not None:
            self.script.append(text)

    def handle_endtag(self, tag: str) -> None:
        if self.script is not None:
            self.found.add("".join(self.script))
            self.script = None


def inline_scripts(page: str) -> set[str]:
    """The scripts and event handlers that stand in a page itself, without what no browser executes (JSON)."""
    parser = _Inline()
    parser.feed(page)
    parser.close()
    return parser.found - {""}


def policy(folder: Path) -> str:
    """The header's value for the rendered book in this folder."""
    scripts = set().union(
        *(
            inline_scripts(path.read_text(encoding="utf-8"))
            for path in folder.rglob("*.html")
            if "_static" not in path.parts
        )
    )
    hashes = sorted(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in scripts
    )
    return "; ".join(
        f"{name} {sources}" for name, (sources, _) in POLICY.items()
    ).format(hashes=" ".join(hashes))


if __name__ == "__main__":
    print(policy(Path(sys.argv[1])))
