"""What the pages of the rendered book share, and so load once.

The scripts are classic ones, because a page opened from a disk may load nothing else. The digits and the bundled engine are
loaded when *Train* is first pressed, the laboratory's view with the first page that has one::

    python -m robustnb.widgets.page engine.bundle.js FOLDER
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import numpy as np
import torch

from ..data import load_data
from .view import View

SCALE = 16  # a digit's pixel is a whole number from 0 to 16


def digits_script() -> str:
    """`window.robustnb.digits`: pixels and classes as base64, the training set first, as `load_data("digits")` has them."""
    data = load_data("digits")
    pixels = (torch.cat([data.x_train, data.x_test]) * SCALE).round().numpy().astype(np.uint8)
    classes = torch.cat([data.y_train, data.y_test]).numpy().astype(np.uint8)
    digits = {
        "pixels": base64.b64encode(pixels.tobytes()).decode(),
        "classes": base64.b64encode(classes.tobytes()).decode(),
        "scale": SCALE,
        "train": len(data.x_train),
        "inputs": data.inputs,
    }
    return f"(window.robustnb ??= {{}}).digits = {json.dumps(digits)};\n"


def engine_script(bundle: str) -> str:
    """`window.robustnb.engine`: the source of the worker, from which the page makes it (a worker cannot be loaded from a disk)."""
    return f"(window.robustnb ??= {{}}).engine = {json.dumps(bundle)};\n"


def view_script() -> str:
    """`window.robustnb.view`: the code and style of every laboratory, which `book/stage.py` takes out of the notebooks."""
    return f"(window.robustnb ??= {{}}).view = {json.dumps({'_esm': View._esm, '_css': View._css})};\n"


if __name__ == "__main__":
    source, folder = map(Path, sys.argv[1:])
    scripts = {"engine": engine_script(source.read_text(encoding="utf-8")), "digits": digits_script(), "view": view_script()}
    for name, script in scripts.items():
        (folder / f"robustnb-{name}.js").write_text(script, encoding="utf-8")
