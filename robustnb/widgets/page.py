"""Write what a page without a kernel loads when *Train* is first pressed: the digits and the bundled engine.

Both are classic scripts, because a page opened from a disk may load nothing else:
``python -m robustnb.widgets.page engine.bundle.js FOLDER``.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import numpy as np
import torch

from ..data import load_data

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


if __name__ == "__main__":
    source, folder = map(Path, sys.argv[1:])
    (folder / "robustnb-engine.js").write_text(engine_script(source.read_text()))
    (folder / "robustnb-digits.js").write_text(digits_script())
