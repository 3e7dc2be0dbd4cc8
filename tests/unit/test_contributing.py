"""CONTRIBUTING.md: what it names is there, and its code runs in the modules that it is for."""

import ast
import math
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from robustnb import atlas, claims, figures, initialization, theory
from robustnb.decisions import decide
from robustnb.widgets import Laboratory

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```i?python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
COMMANDS = "\n".join(re.findall(r"^```bash\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE))
SPANS = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", PAGE, flags=re.DOTALL | re.MULTILINE))
# What its examples make.
MADE = ("batch_order", "digits_batches", "glorot", "_batches", "build/try.csv")
SOURCES = [*ROOT.glob("robustnb/**/*.py"), *ROOT.glob("robustnb/**/*.js"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("book/*.py")]
WORDS = set(re.findall(r"\w+", "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)))


def run(block, names):
    exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    return names


def block(start):
    (found,) = [each for each in BLOCKS if each.startswith(start)]
    return found


def test_it_has_four_examples_and_the_readme_leads_to_it():
    assert len(re.findall(r"^## \d\. Add an? ", PAGE, flags=re.MULTILINE)) == 4
    assert "`CONTRIBUTING.md`" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_files_that_it_names_are_there():
    words = {*SPANS, *COMMANDS.split()}
    files = {word for word in words if re.fullmatch(r"[\w./-]+\.(py|js|md|yml|ipynb|bib|csv)", word)}
    missing = {name for name in files if not (ROOT / name).is_file()}
    assert len(files) > 25
    assert {name for name in missing if not any(made in name for made in MADE)} == set()


def test_the_targets_of_make_that_it_names_are_there():
    targets = set(re.findall(r"\bmake ([a-z]+)", COMMANDS)) | {m[1] for span in SPANS if (m := re.match(r"make ([a-z-]+)", span))}
    assert targets == {"check", "hooks", "test", "test-long", "page", "lab"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:.*## ", makefile, flags=re.MULTILINE) for target in targets)


def test_the_names_of_code_that_it_uses_are_there():
    names = {span for span in SPANS if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", span) and not span.endswith((".py", ".md", ".yml"))}
    assert {"NAMED", "COLORS", "MARKERS", "TABLE_1", "SWEEPS", "claims", "LAZY", "WIDTHS", "SCALES"} <= names
    unknown = {name for name in names if not set(name.split(".")) <= WORDS} - {*MADE}
    assert unknown == set()


def test_every_block_of_python_is_whole():
    assert len(BLOCKS) == 6
    for each in BLOCKS:
        ast.parse(each)


def test_the_initialization_of_the_example_is_the_one_that_it_says():
    names = run(block("def _glorot"), {**vars(initialization)})
    comment, _ = re.search(r"^(# All that.*)\n(NAMED = .*)$", block("def _glorot"), flags=re.MULTILINE).groups()
    assert comment in Path(initialization.__file__).read_text(encoding="utf-8")
    assert [*names["NAMED"]] == [*initialization.NAMED, "glorot"]
    scales = names["GLOROT"].scales(inputs=64, width=16, depth=3, outputs=10)
    (again,) = (eval(span.removesuffix(",").partition(": ")[2], {"math": math}) for span in SPANS if span.startswith('"glorot": lambda'))
    expected = [(2 / (into + out)) ** 0.5 for into, out in ((64, 16), (16, 16), (16, 10))]
    assert [float(beta) for beta in scales[:3]] == pytest.approx(expected)
    assert again(64, 16, 10) == pytest.approx(expected)
    assert theory.stability_at_initialization(scales, inputs=64, width=16, depth=3, outputs=10) > 0


def test_the_sweep_of_the_example_is_one_of_the_books_kind():
    named = run(block("def _digits_batches"), {**vars(atlas)})["_digits_batches"]
    for quick in (True, False):
        of = named(quick)
        assert isinstance(of, atlas.Sweep)
        assert {setting.dataset for setting in of.settings} == {"digits"}
        assert {16, 256} <= {setting.batch_size for setting in of.settings}
    assert sum(setting.seconds for setting in named(True).settings) < 30


def made_up():
    """The digits' networks of four layers, as if those of batches of 16 were twice as unstable as those of 64 and 256."""
    digits = atlas.load_atlas("digits").query("init == 'he' and depth == 4 and batch_seed == 0 and init_seed < 8 and 8 <= width <= 128")
    noise = np.exp(0.01 * np.random.default_rng(0).normal(size=(3, len(digits))))
    sizes = zip((16, 64, 256), (2, 1, 1), noise, strict=True)
    return pd.concat([digits.assign(batch_size=size, stability=digits.stability * f * n) for size, f, n in sizes], ignore_index=True)


def test_the_claim_of_the_example_is_decided():
    stand_ins = {"measured": lambda: ("digits_batches",), "load_atlas": lambda name: made_up()}
    conditions = [*run(block("def _batches"), {**vars(claims)} | stand_ins)["_batches"]()]
    (row,) = decide(conditions).itertuples()
    assert row.answer == "yes"
    assert row.value == pytest.approx(2, rel=0.02)
    unmeasured = run(block("def _batches"), {**vars(claims)} | {"measured": tuple})["_batches"]
    assert [*unmeasured()] == []


def test_the_figure_and_the_laboratory_of_the_examples_are_drawn():
    mpl.use("agg")
    axes = run(block("table ="), {"load_atlas": lambda name: made_up(), "plt": plt, "figures": figures})["axes"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [f"batches of {size} (n = 8)" for size in (16, 64, 256)]
    plt.close("all")
    lab = eval(block("Laboratory("), {"Laboratory": Laboratory, "device": "cpu"})
    assert lab.view.predict
    shown = []
    run(block("lecun ="), {"load_atlas": atlas.load_atlas, "Markdown": str, "display": shown.append})
    assert re.search(r"What you see\n:class: dropdown\nThe mean accuracy is 0\.\d\d at width 4 and 0\.\d\d at width 256\.\n:::$", shown[0])
