"""Data sets, each as one float tensor: scikit-learn's digits (bundled), MNIST, CIFAR-10 and CIFAR-100."""

from __future__ import annotations

import functools
import gzip
import hashlib
import os
import tarfile
import zlib
from dataclasses import dataclass, replace
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pooch
import torch
from torch import Tensor

from ._checks import check_choice, check_count, shown

DATASETS = ("digits", "mnist", "cifar10", "cifar10_sample", "cifar100")
NORMALIZATIONS = ("pixels", "unit")

_MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}


class _Cifar(NamedTuple):
    """Where CIFAR's binary form lies, and how its records are made: label bytes, of which the last is the class, then the pixels."""

    title: str
    md5: str
    folder: str
    train: tuple[str, ...]
    test: str
    labels: int
    classes: int


_CIFAR_URL = "https://www.cs.toronto.edu/~kriz/"
_BATCHES = tuple(f"data_batch_{k}.bin" for k in range(1, 6))
_CIFAR = {
    "cifar10": _Cifar("CIFAR-10", "c32a1d4ab5d03f1284b67883e8d87530", "cifar-10-batches-bin", _BATCHES, "test_batch.bin", 1, 10),
    "cifar100": _Cifar("CIFAR-100", "03b5dce01913d631647c71ecec9e9cb8", "cifar-100-binary", ("train.bin",), "test.bin", 2, 100),
}
_CIFAR_PIXELS, _CIFAR_TRAIN, _CIFAR_TEST = 3 * 32 * 32, 50_000, 10_000
# "cifar10_sample": the first so many records of each batch, the test batch last.
_SAMPLE = (2000, 1017, 1017, 1017, 1017, 1017)


@dataclass(frozen=True)
class Dataset:
    """Inputs as float32 tensors (n, inputs), classes as int64 tensors (n,), train and test apart.

    An input is an image, its channels one after the other, each row by row; `normalize` is what `load_data` did to it. `title` is how
    figures name the data, and says so where they are a part: "CIFAR-10, first 6,068 images". `checksum` identifies the raw bytes: two
    tables with the same checksum were measured on the same data.
    """

    name: str
    title: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: int
    checksum: str
    channels: int = 1
    normalize: str = "pixels"

    @property
    def inputs(self) -> int:
        return self.x_train.shape[1]

    @property
    def side(self) -> int:
        """Height and width of an image, in pixels."""
        return round((self.inputs / self.channels) ** 0.5)

    @property
    def probe(self) -> Tensor:
        """The inputs on which the book measures stability: the first 1,000 of the test set, or all if fewer."""
        return self.x_test[:1000]

    def to(self, device: torch.device) -> Dataset:
        """The same data on another device."""
        parts = {name: getattr(self, name).to(device) for name in ("x_train", "y_train", "x_test", "y_test")}
        return replace(self, **parts)


def load_data(name: str, *, normalize: str = "pixels") -> Dataset:
    """The data set of that name: "digits" (8×8, 1,437 train + 360 test), "mnist" (28×28, 60,000 + 10,000), "cifar10" and
    "cifar100" (3×32×32, 50,000 + 10,000), or "cifar10_sample", the first records of CIFAR-10's batches (6,068 + 1,017).

    normalize: "pixels" puts pixels in [0, 1]; "unit" scales every image to ‖x‖_2 = 1 (Assumption 1), but one of zeros, which has no
    direction, stays zero.
    Digits come with scikit-learn. The others are read from their folder in $ROBUSTNB_DATA if it is there: mnist,
    cifar-10-batches-bin or cifar-10-sample, cifar-100-binary. Else they are downloaded once, with their checksums, into the user's
    cache folder. A CIFAR folder may hold batches of any whole number of records; `Dataset.title` then says how many.

    Raises ValueError for an unknown name, or a file that is damaged or missing; OSError if a download fails, of which nothing is
    kept, or a file cannot be read.
    """
    check_choice("name", name, DATASETS)
    check_choice("normalize", normalize, NORMALIZATIONS)
    data = _digits() if name == "digits" else _mnist() if name == "mnist" else _cifar(name)
    if normalize == "pixels":
        return data
    return replace(data, x_train=_unit(data.x_train), x_test=_unit(data.x_test), normalize=normalize)


@functools.lru_cache(maxsize=2)
def cached_data(name: str, normalize: str) -> Dataset:
    """`load_data`, for who measures many settings on the same data, one after the other."""
    return load_data(name, normalize=normalize)


class TwoClasses(NamedTuple):
    """A small task for networks with one output: x (n, inputs), targets y = ±1 (n, 1), and test inputs `probe`; all float64."""

    x: Tensor
    y: Tensor
    probe: Tensor


def two_classes(data: Dataset, negative: int = 0, positive: int = 1, *, n: int = 20) -> TwoClasses:
    """The first n training images of two classes, with targets −1 and +1, and all test images of the two.

    For the theory of one output: Assumption 1 asks for data loaded with normalize="unit". Raises ValueError for a class
    that the data do not have, one class given twice, or fewer than n images.
    """
    if not isinstance(data, Dataset):
        raise TypeError(f"data must be a Dataset, not {shown(data)}.")
    for name, label in (("negative", negative), ("positive", positive)):
        check_count(name, label, least=0, most=data.classes - 1)
    if negative == positive:
        raise ValueError(f"positive must be another class than negative, not {shown(positive)} too.")
    labels = torch.tensor([negative, positive])
    train, test = torch.isin(data.y_train, labels), torch.isin(data.y_test, labels)
    if check_count("n", n) > train.sum():
        raise ValueError(f"n must be at most the {int(train.sum())} training images of these classes, not {n}.")
    x, signs = data.x_train[train][:n].double(), torch.where(data.y_train[train][:n] == positive, 1.0, -1.0)
    return TwoClasses(x, signs[:, None].double(), data.x_test[test].double())


def _md5(raw: bytes) -> str:
    """To recognize data by, against mishaps alone."""
    return hashlib.md5(raw, usedforsecurity=False).hexdigest()


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)


def _digits() -> Dataset:
    # From its file, since to import scikit-learn takes a second, which every laboratory would wait for.
    file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    rows = np.loadtxt(str(file), delimiter=",", dtype=np.uint8)
    raw, classes = rows[:, :-1], rows[:, -1]
    # The file's order is by writer. One fixed shuffle gives both parts every writer.
    order = np.random.default_rng(0).permutation(len(raw))
    x = torch.from_numpy(raw[order] / np.float32(16))
    y = torch.from_numpy(classes[order].astype(np.int64))
    checksum = "md5:" + _md5(raw.tobytes() + classes.tobytes())
    train = 1437
    return Dataset("digits", "digits", x[:train], y[:train], x[train:], y[train:], 10, checksum)


def _mnist() -> Dataset:
    images, labels = {}, {}
    for part in ("train", "t10k"):
        images[part] = _read_idx(f"{part}-images-idx3-ubyte.gz", dimensions=3)
        labels[part] = _read_idx(f"{part}-labels-idx1-ubyte.gz", dimensions=1)
        if len(images[part]) != len(labels[part]):
            raise ValueError(
                f"{part}-labels-idx1-ubyte.gz must hold a label for each of the {len(images[part]):,} images of "
                f"{part}-images-idx3-ubyte.gz, not {len(labels[part]):,}."
            )
        if (highest := labels[part].max(initial=0)) > 9:
            raise ValueError(f"{part}-labels-idx1-ubyte.gz must hold labels from 0 to 9, not {highest}.")
    x = {part: torch.from_numpy(raw.reshape(len(raw), -1) / np.float32(255)) for part, raw in images.items()}
    y = {part: torch.from_numpy(raw.astype(np.int64)) for part, raw in labels.items()}
    checksum = "md5:" + _md5("".join(_MNIST_MD5.values()).encode())
    return Dataset("mnist", "MNIST", x["train"], y["train"], x["t10k"], y["t10k"], 10, checksum)


def _local(*folders: str) -> Path | None:
    """The first of these folders that $ROBUSTNB_DATA holds."""
    root = os.environ.get("ROBUSTNB_DATA")
    try:
        return next((Path(root, folder) for folder in folders if Path(root, folder).is_dir()), None) if root else None
    except OSError as error:
        raise _sentence(error, f"ROBUSTNB_DATA must name a folder that can be read, not {root} ({error.strerror}).") from error


def _read(path: Path, whole: str) -> bytes:
    """The bytes of a file of $ROBUSTNB_DATA or of the cache; `whole` says what a folder without it lacks."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"ROBUSTNB_DATA must hold {whole}, but {path} is missing.") from error
    except OSError as error:
        raise _sentence(error, f"{path} could not be read: {error.strerror}.") from error


def _sentence(error: OSError, message: str) -> OSError:
    """An error of the same kind, which reads as a sentence."""
    kind = PermissionError if isinstance(error, PermissionError) else OSError
    return kind(message)


def _download(url: str, name: str, md5: str) -> Path:
    """The file of that name and checksum in the user's cache folder; downloaded aside, checked, then renamed if it is not there yet.

    So what another process reads, or downloads at the same moment, is never half a file.
    """
    cache = pooch.os_cache("robustnb")
    try:
        return Path(pooch.retrieve(url + name, f"md5:{md5}", name, cache, progressbar=True))
    except ValueError as error:
        raise ValueError(f"{url}{name} is damaged (what came does not have the checksum of {name}), and nothing of it was kept.") from error
    except OSError as error:
        why = error.strerror or getattr(error.__cause__, "strerror", None) or " ".join(str(error).split())
        message = f"{name} could not be downloaded from {url} to {cache}, and nothing of it was kept: {why.rstrip('.')}."
        raise _sentence(error, message) from error


def _read_idx(name: str, *, dimensions: int) -> np.ndarray:
    """The bytes of an IDX file (LeCun et al., 1998) as an array: magic 0, 0, 8, dimensions, then the sizes, big-endian."""
    local = _local("mnist")
    path = local / name if local else _download(_MNIST_URL, name, _MNIST_MD5[name])
    packed = _read(path, "all four MNIST files")
    if _md5(packed) != _MNIST_MD5[name]:
        raise ValueError(f"{path} is damaged (its checksum is not that of MNIST's {name}): delete it and fetch it again.")
    try:
        raw = gzip.decompress(packed)
        if raw[:4] != bytes([0, 0, 8, dimensions]):
            raise ValueError("wrong magic number")
        sizes = np.frombuffer(raw, ">u4", count=dimensions, offset=4)
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(sizes)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"{path} is not a readable IDX file ({error}): delete it and fetch it again.") from error


def _cifar(name: str) -> Dataset:
    of = _CIFAR[name.removesuffix("_sample")]
    raw = _cifar_batches(of)
    if name == "cifar10_sample":
        raw = _first_records(raw, of)
    parts = {part: _cifar_records([raw[batch] for batch in batches], of) for part, batches in (("train", of.train), ("test", (of.test,)))}
    (x_train, y_train), (x_test, y_test) = parts["train"], parts["test"]
    title = of.title
    if len(x_train) != _CIFAR_TRAIN:
        title += f", first {len(x_train):,} images"
    elif len(x_test) != _CIFAR_TEST:
        title += f", first {len(x_test):,} test images"
    checksum = "md5:" + _md5(b"".join(raw.values()))
    return Dataset(name, title, x_train, y_train, x_test, y_test, of.classes, checksum, channels=3)


def _cifar_batches(of: _Cifar) -> dict[str, bytes]:
    """The bytes of each batch, of whole and sound records: from a local folder, else out of the downloaded archive."""
    batches = (*of.train, of.test)
    if local := _local(of.folder, of.folder.replace("batches-bin", "sample")):
        found = {local / batch: _read(local / batch, f"all batches of {of.title}") for batch in batches}
    else:
        archive = _download(_CIFAR_URL, f"{of.folder.replace('batches-bin', 'binary')}.tar.gz", of.md5)
        found = {archive / batch: raw for batch, raw in zip(batches, _unpacked(archive, of.folder, batches), strict=True)}
    size = of.labels + _CIFAR_PIXELS
    for path, raw in found.items():
        if not raw or len(raw) % size:
            raise ValueError(f"{path} must hold whole records of {size:,} bytes, at least one, not {len(raw):,} bytes.")
        if (highest := max(raw[of.labels - 1 :: size])) >= of.classes:
            raise ValueError(f"{path} must hold classes from 0 to {of.classes - 1}, not {highest}.")
    return {path.name: raw for path, raw in found.items()}


def _unpacked(archive: Path, folder: str, batches: tuple[str, ...]) -> list[bytes]:
    """Each batch of an archive, read where it lies: nothing is unpacked, so nothing can be written elsewhere; and no link is followed."""
    found = []
    try:
        with tarfile.open(archive, "r:gz") as members:
            for batch in batches:
                member = members.getmember(f"{folder}/{batch}")
                content = members.extractfile(member) if member.isreg() else None
                if content is None:
                    raise KeyError(f"{member.name} is not a file")
                found.append(content.read())
    except (KeyError, EOFError, OSError, tarfile.TarError, zlib.error) as error:
        why = " ".join(str(error).strip("'\"").split())
        raise ValueError(f"{archive} is not a readable archive of {folder} ({why}): delete it and fetch it again.") from error
    return found


def _first_records(raw: dict[str, bytes], of: _Cifar) -> dict[str, bytes]:
    sizes = [records * (of.labels + _CIFAR_PIXELS) for records in _SAMPLE]
    for (batch, held), size, records in zip(raw.items(), sizes, _SAMPLE, strict=True):
        if len(held) < size:
            raise ValueError(f"{batch} must hold at least {records:,} records for the sample of {of.title}, not fewer.")
    return {batch: held[:size] for (batch, held), size in zip(raw.items(), sizes, strict=True)}


def _cifar_records(batches: list[bytes], of: _Cifar) -> tuple[Tensor, Tensor]:
    records = np.frombuffer(b"".join(batches), np.uint8).reshape(-1, of.labels + _CIFAR_PIXELS)
    x, y = records[:, of.labels :] / np.float32(255), records[:, of.labels - 1].astype(np.int64)
    return torch.from_numpy(x), torch.from_numpy(y)
