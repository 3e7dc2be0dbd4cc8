import gzip
import hashlib
import os
import re

import numpy as np
import pytest
import torch

from robustnb import data, load_data

NAMES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")


# Digits


def test_digits_have_the_documented_form():
    digits = load_data("digits")
    assert (digits.name, digits.classes, digits.inputs, digits.side) == ("digits", 10, 64, 8)
    assert (digits.x_train.shape, digits.x_test.shape) == ((1437, 64), (360, 64))
    assert (digits.y_train.shape, digits.y_test.shape) == ((1437,), (360,))
    assert (digits.x_train.dtype, digits.y_train.dtype) == (torch.float32, torch.int64)
    assert (digits.x_train.min(), digits.x_train.max()) == (0, 1)
    assert set(digits.y_train.tolist()) == set(digits.y_test.tolist()) == set(range(10))
    assert torch.equal(digits.probe, digits.x_test)


def test_digits_are_each_image_of_scikit_learn_once_with_its_label():
    from sklearn.datasets import load_digits

    digits = load_data("digits")
    ours = torch.cat([torch.cat([digits.x_train, digits.x_test]) * 16, torch.cat([digits.y_train, digits.y_test])[:, None]], dim=1)
    pixels, labels = load_digits(return_X_y=True)
    assert sorted(ours.tolist()) == sorted(np.column_stack([pixels, labels]).tolist())


def test_digits_are_the_same_at_every_load():
    first, again = load_data("digits"), load_data("digits")
    for name in ("x_train", "y_train", "x_test", "y_test"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    # Which images are in which part: tables measured before would not compare with those after a change.
    assert (first.y_train[:10].tolist(), first.y_test[:10].tolist()) == ([6, 6, 6, 2, 5, 6, 6, 2, 2, 1], [0, 8, 8, 9, 8, 3, 7, 5, 0, 6])
    # A table says by this what it was measured on: it must not change from load to load, or from version to version.
    assert first.checksum == again.checksum == load_data("digits", normalize="unit").checksum
    assert first.checksum == "md5:7696c07daa6d85010f8268703ab8b067"


def test_unit_normalization_scales_every_image_to_length_one():
    pixels, unit = load_data("digits"), load_data("digits", normalize="unit")
    for ours, raw in ((unit.x_train, pixels.x_train), (unit.x_test, pixels.x_test)):
        assert ours.norm(dim=1).numpy() == pytest.approx(1, abs=1e-6)
        torch.testing.assert_close(ours * raw.norm(dim=1, keepdim=True), raw)
    assert torch.equal(unit.y_train, pixels.y_train)


# MNIST from a folder of small files


def idx(array):
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.astype(np.uint8).tobytes(), mtime=0)


@pytest.fixture
def tiny_mnist(tmp_path, monkeypatch):
    """$ROBUSTNB_DATA with five training and three test images in MNIST's format, taken for the true ones; no network."""
    random = np.random.default_rng(0)
    arrays = dict(zip(NAMES, (random.integers(256, size=shape) for shape in ((5, 28, 28), 5, (3, 28, 28), 3)), strict=True))
    arrays[NAMES[1]], arrays[NAMES[3]] = np.array([5, 0, 4, 1, 9]), np.array([7, 2, 1])
    folder = tmp_path / "mnist"
    folder.mkdir()
    for name, array in arrays.items():
        (folder / name).write_bytes(idx(array))
        monkeypatch.setitem(data._MNIST_MD5, name, hashlib.md5(idx(array)).hexdigest())
    monkeypatch.setenv("ROBUSTNB_DATA", str(tmp_path))
    monkeypatch.setattr("pooch.retrieve", lambda *_, **__: pytest.fail("the network was used"))
    return folder, arrays


def test_mnist_is_read_from_the_folder(tiny_mnist):
    _, arrays = tiny_mnist
    mnist = load_data("mnist")
    assert (mnist.name, mnist.classes, mnist.inputs, mnist.side) == ("mnist", 10, 784, 28)
    assert (mnist.y_train.tolist(), mnist.y_test.tolist()) == ([5, 0, 4, 1, 9], [7, 2, 1])
    assert (mnist.x_train.dtype, mnist.y_train.dtype) == (torch.float32, torch.int64)
    assert (mnist.x_train * 255).numpy() == pytest.approx(arrays[NAMES[0]].reshape(5, 784))
    assert (mnist.x_test * 255).numpy() == pytest.approx(arrays[NAMES[2]].reshape(3, 784))


def cut(content):
    return content[: len(content) // 2]


def overwrite(content):
    return b"not an archive"


def change_a_byte(content):
    return content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", [cut, overwrite, change_a_byte])
def test_a_damaged_file_is_named_and_left_as_it_is(tiny_mnist, name, damage):
    folder, _ = tiny_mnist
    damaged = damage((folder / name).read_bytes())
    (folder / name).write_bytes(damaged)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(folder / name))} is damaged \([^\n]*\.$"):
        load_data("mnist")
    assert (folder / name).read_bytes() == damaged
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named_and_not_downloaded(tiny_mnist, name):
    folder, _ = tiny_mnist
    (folder / name).unlink()
    with pytest.raises(ValueError, match=rf"ROBUSTNB_DATA [^\n]*{re.escape(str(folder / name))} is missing\.$"):
        load_data("mnist")
    assert not (folder / name).exists()


@pytest.mark.parametrize("setting", [None, "a folder without MNIST"])
def test_without_a_folder_all_four_files_are_downloaded_with_their_checksums(tiny_mnist, monkeypatch, tmp_path, setting):
    folder, _ = tiny_mnist
    asked = {}

    def retrieve(url, known_hash, fname=None, path=None, **_):
        asked[url.rsplit("/", 1)[1]] = known_hash
        return str(folder / fname)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    if setting is None:
        monkeypatch.delenv("ROBUSTNB_DATA")
    else:
        monkeypatch.setenv("ROBUSTNB_DATA", str(tmp_path / "elsewhere"))
    assert load_data("mnist").y_train.tolist() == [5, 0, 4, 1, 9]
    assert asked == {name: f"md5:{hashlib.md5((folder / name).read_bytes()).hexdigest()}" for name in NAMES}


def test_a_failed_download_is_an_os_error(monkeypatch):
    def retrieve(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.delenv("ROBUSTNB_DATA", raising=False)
    monkeypatch.setattr("pooch.retrieve", retrieve)
    with pytest.raises(OSError, match="no route to host"):
        load_data("mnist")


def test_the_checksums_are_the_published_ones():
    published = (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    )
    assert tuple(data._MNIST_MD5[name] for name in NAMES) == published


# MNIST itself


@pytest.fixture(scope="module")
def mnist():
    if not os.path.isdir(os.path.join(os.environ.get("ROBUSTNB_DATA", ""), "mnist")):
        pytest.skip("ROBUSTNB_DATA names no folder with MNIST's files in it")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pooch.retrieve", lambda *_, **__: pytest.fail("the network was used"))
        return load_data("mnist")


def test_mnist_has_the_documented_form(mnist):
    assert (mnist.x_train.shape, mnist.x_test.shape) == ((60_000, 784), (10_000, 784))
    assert (mnist.x_train.dtype, mnist.y_train.dtype) == (torch.float32, torch.int64)
    assert (mnist.x_train.min(), mnist.x_train.max()) == (0, 1)
    assert torch.equal(mnist.probe, mnist.x_test[:1000])


def test_mnist_has_its_known_labels_and_pixels(mnist):
    assert (mnist.y_train[:5].tolist(), mnist.y_test[:5].tolist()) == ([5, 0, 4, 1, 9], [7, 2, 1, 0, 4])
    assert mnist.y_train.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert mnist.y_test.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    # The mean and standard deviation that everyone normalizes MNIST with.
    assert (mnist.x_train.mean().item(), mnist.x_train.std().item()) == pytest.approx((0.1307, 0.3081), abs=5e-5)
