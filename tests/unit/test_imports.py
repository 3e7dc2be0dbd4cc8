"""The package's layers: what may import what."""

import ast
import sys
from pathlib import Path

import pytest

import robustnb

PACKAGE = Path(robustnb.__file__).parent
# Lower layers first; a module may import only modules of layers below its own.
LAYERS = (
    ("_checks",),
    ("initialization",),
    ("theory", "networks", "data"),
    ("kernels", "convnets"),
    ("stability",),
    ("engine",),
    ("training",),
    ("settings",),
    ("atlas",),
    ("results", "trends"),
    ("sweep",),
    ("decisions",),
    ("convolutional_claims", "evidence"),
    ("claims",),
    ("verdicts",),
    ("figures",),
    ("widgets",),
    ("notebooks",),
)
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}


def module_of(path):
    """The module's name below the package; a subpackage counts as one module."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path):
    """Dotted names of everything a file imports, wherever in it the import stands."""
    folder = ["robustnb", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*folder[: len(folder) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def of_package(path):
    """The package's modules that a file imports, apart from its own; "robustnb" itself is __init__."""
    for name in imports(path):
        first, *rest = name.split(".")
        if first == "robustnb":
            is_module = rest and any(path.exists() for path in (PACKAGE / f"{rest[0]}.py", PACKAGE / rest[0]))
            module = rest[0] if is_module else "__init__"
            if module != module_of(path):
                yield module


def test_every_module_has_a_layer():
    assert {module_of(path) for path in FILES} == {*RANK}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_the_layers(path):
    module = module_of(path)
    upward = [other for other in of_package(path) if RANK.get(other, len(LAYERS)) >= RANK.get(module, 0)]
    assert upward == []


@pytest.mark.parametrize("module", ["theory", "kernels", "initialization", "_checks"])
def test_the_formulas_need_only_numpy_and_scipy(module):
    outside = {name.split(".")[0] for name in imports(PACKAGE / f"{module}.py")} - {"robustnb"}
    assert outside - sys.stdlib_module_names <= {"numpy", "scipy"}
