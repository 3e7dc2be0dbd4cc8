"""Nothing that readers run is bound to one platform: no text file in the platform's own encoding, no path or module of one system."""

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
FILES = [path for folder in ("robustnb", "book", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
UNIX = {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios"}
UNIX_CALLS = {"fork", "geteuid", "getuid", "killpg", "mkfifo", "setgid", "setsid", "setuid", "sched_getaffinity", "uname"}
READS_TEXT, OPENS = {"read_text", "write_text"}, {"open", "fdopen", "NamedTemporaryFile", "TemporaryFile"}
RUNS = {"run", "Popen", "check_output"}


def code(path):
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    return "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")


def faults(source):
    """What of a program depends on the platform: the line and the words."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from ((node.lineno, name) for name in names if name.split(".")[0] in UNIX)
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and (node.value.id, node.attr in UNIX_CALLS) == ("os", True)
        ):
            yield node.lineno, f"os.{node.attr}"
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.match(r"(/(tmp|dev|proc|home|usr|var)/|[A-Z]:\\)", node.value)
        ):
            yield node.lineno, node.value
        elif isinstance(node, ast.Call):
            yield from unencoded(node)


def unencoded(call):
    """A call that reads or writes text and leaves its encoding to the platform."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in given or None in given:
        return
    opens = name in OPENS and ast.unparse(call.func) not in ("os.open", "tarfile.open")
    if opens:
        builtin = isinstance(call.func, ast.Name)
        modes = [*call.args[builtin : builtin + 1], *[given[name] for name in ("mode",) if name in given]]
        opens = not any(isinstance(mode, ast.Constant) and "b" in str(mode.value) for mode in modes)
    shell = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "subprocess" and name in RUNS
    if name in READS_TEXT or opens or (shell and ({"text", "universal_newlines"} & set(given))):
        yield call.lineno, f"{ast.unparse(call)[:60]} without encoding"


@pytest.mark.parametrize("path", FILES + NOTEBOOKS, ids=lambda path: path.name)
def test_a_file_depends_on_no_platform(path):
    assert list(faults(code(path))) == []


BOUND = [
    "import fcntl",
    "import os\nos.setuid(0)",
    "open('/tmp/x', encoding='utf-8')",
    "open(name)",
    "open(name, 'w')",
    "path.open()",
    "path.open(mode='a')",
    "path.read_text()",
    "path.write_text('x')",
    "import subprocess\nsubprocess.run(command, text=True)",
]
FREE = [
    "import tempfile",
    "import os\nos.replace(a, b)",
    "open(name, 'rb')",
    "path.open('wb')",
    "open(name, encoding='utf-8')",
    "import tarfile\ntarfile.open(name)",
    "path.read_bytes()",
    "subprocess.run(command, capture_output=True)",
]


@pytest.mark.parametrize(("sources", "bound"), [(BOUND, True), (FREE, False)], ids=["bound", "free"])
def test_what_depends_on_a_platform_is_found_and_nothing_else(sources, bound):
    assert [source for source in sources if bool(list(faults(source))) != bound] == []


def test_the_same_versions_of_python_are_named_everywhere():
    for name, words in (
        ("pyproject.toml", '">=3.11,<3.14"'),
        ("README.md", "Python 3.11 to 3.13"),
        ("Makefile", "(3, 11) <= v <= (3, 13)"),
    ):
        assert words in (ROOT / name).read_text(encoding="utf-8"), name


def test_what_is_installed_is_pinned():
    pins = [line for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert len(pins) > 50
    assert [line for line in pins if not re.match(r"[\w.-]+(\[[\w,]+\])?==[\w.+]+( ;|$)", line)] == []
    packages = json.loads((ROOT / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert [name for name, of in packages.items() if name and not {"version", "integrity"} <= {*of}] == []
    assert "ignore-scripts=true" in (ROOT / ".npmrc").read_text(encoding="utf-8").splitlines()
