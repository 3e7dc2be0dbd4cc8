"""Data sets, each as one float tensor: scikit-learn's digits (bundled) and MNIST."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pooch
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from ._checks import check_choice

DATASETS = ("digits", "mnist")

_MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}


@dataclass(frozen=True)
class Dataset:
    """Inputs as float32 tensors (n, inputs), classes as int64 tensors (n,), train and test apart.

    `checksum` identifies the raw bytes: two tables with the same checksum were measured on the same data.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: int
    checksum: str

    @property
    def inputs(self) -> int:
        return self.x_train.shape[1]

    @property
    def side(self) -> int:
        """Height and width of an image, in pixels."""
        return round(self.inputs**0.5)

    @property
    def probe(self) -> Tensor:
        """The inputs on which the book measures stability: the first 1,000 of the test set, or all if fewer."""
        return self.x_test[:1000]

    def to(self, device: torch.device) -> Dataset:
        """The same data on another device."""
        parts = {name: getattr(self, name).to(device) for name in ("x_train", "y_train", "x_test", "y_test")}
        return replace(self, **parts)


def load_data(name: str, *, normalize: str = "pixels") -> Dataset:
    """The data set of that name: "digits" (8×8, 1,437 train + 360 test) or "mnist" (28×28, 60,000 + 10,000).

    normalize: "pixels" puts pixels in [0, 1]; "unit" scales every image to ‖x‖_2 = 1 (Assumption 1).
    MNIST is read from $ROBUSTNB_DATA/mnist if that folder is there; else it is downloaded once, with its
    checksums, into the user's cache folder. Digits come with scikit-learn.

    Raises ValueError for an unknown name or a damaged file, OSError if a download fails.
    """
    check_choice("name", name, DATASETS)
    check_choice("normalize", normalize, ("pixels", "unit"))
    data = _digits() if name == "digits" else _mnist()
    if normalize == "pixels":
        return data
    return replace(data, x_train=_unit(data.x_train), x_test=_unit(data.x_test))


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True)


def _digits() -> Dataset:
    pixels, classes = load_digits(return_X_y=True)
    raw = pixels.astype(np.uint8)
    # The file's order is by writer. One fixed shuffle gives both parts every writer.
    order = np.random.default_rng(0).permutation(len(raw))
    x = torch.from_numpy(raw[order] / np.float32(16))
    y = torch.from_numpy(classes[order].astype(np.int64))
    checksum = "md5:" + hashlib.md5(raw.tobytes() + classes.astype(np.uint8).tobytes()).hexdigest()
    train = 1437
    return Dataset("digits", x[:train], y[:train], x[train:], y[train:], 10, checksum)


def _mnist() -> Dataset:
    images, labels = {}, {}
    for part in ("train", "t10k"):
        images[part] = _read_idx(f"{part}-images-idx3-ubyte.gz", dimensions=3)
        labels[part] = _read_idx(f"{part}-labels-idx1-ubyte.gz", dimensions=1)
    x = {part: torch.from_numpy(raw.reshape(len(raw), -1) / np.float32(255)) for part, raw in images.items()}
    y = {part: torch.from_numpy(raw.astype(np.int64)) for part, raw in labels.items()}
    checksum = "md5:" + hashlib.md5("".join(_MNIST_MD5.values()).encode()).hexdigest()
    return Dataset("mnist", x["train"], y["train"], x["t10k"], y["t10k"], 10, checksum)


def _mnist_file(name: str) -> Path:
    local = Path(os.environ.get("ROBUSTNB_DATA", "")) / "mnist"
    if "ROBUSTNB_DATA" in os.environ and local.is_dir():
        if not (local / name).is_file():
            raise ValueError(f"ROBUSTNB_DATA must hold all four MNIST files, but {local / name} is missing.")
        return local / name
    return Path(pooch.retrieve(_MNIST_URL + name, f"md5:{_MNIST_MD5[name]}", name, pooch.os_cache("robustnb"), progressbar=True))


def _read_idx(name: str, *, dimensions: int) -> np.ndarray:
    """The bytes of an IDX file (LeCun et al., 1998) as an array: magic 0, 0, 8, dimensions, then the sizes, big-endian."""
    path = _mnist_file(name)
    if pooch.file_hash(str(path), alg="md5") != _MNIST_MD5[name]:
        raise ValueError(f"{path} is damaged (its checksum is not that of MNIST's {name}): delete it and fetch it again.")
    try:
        raw = gzip.decompress(path.read_bytes())
        if raw[:4] != bytes([0, 0, 8, dimensions]):
            raise ValueError("wrong magic number")
        sizes = np.frombuffer(raw, ">i4", count=dimensions, offset=4)
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(sizes)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"{path} is not a readable IDX file ({error}): delete it and fetch it again.") from error
