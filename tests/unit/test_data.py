import gzip
import hashlib
import os
import re
import tarfile

import numpy as np
import pytest
import torch

from robustnb import data, load_data, two_classes

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


def test_two_classes_are_the_first_images_of_each_with_signs():
    data = load_data("digits", normalize="unit")
    task = two_classes(data, 3, 8, n=30)
    wanted = [k for k, label in enumerate(data.y_train.tolist()) if label in (3, 8)][:30]
    torch.testing.assert_close(task.x, data.x_train[wanted].double())
    assert task.y[:, 0].tolist() == [1.0 if data.y_train[k] == 8 else -1.0 for k in wanted]
    assert len(task.probe) == sum(label in (3, 8) for label in data.y_test.tolist())
    torch.testing.assert_close(task.x.norm(dim=1), torch.ones(30, dtype=torch.float64), rtol=0, atol=1e-6)
    assert task.x.dtype == task.y.dtype == task.probe.dtype == torch.float64


# CIFAR


def records(name, n, seed=0):
    """n records of CIFAR's binary form, and what they hold."""
    random = np.random.default_rng(seed)
    labels = random.integers(10 if name == "cifar10" else 100, size=n)
    pixels = random.integers(256, size=(n, 3072))
    heads = [labels] if name == "cifar10" else [random.integers(20, size=n), labels]
    return np.column_stack([*heads, pixels]).astype(np.uint8).tobytes(), labels, pixels


@pytest.fixture(params=["cifar10", "cifar100"])
def tiny_cifar(request, tmp_path, monkeypatch):
    """$ROBUSTNB_DATA with a few records in each batch; no network. The name, the folder, and what the batches hold."""
    name, of = request.param, data._CIFAR[request.param]
    folder = tmp_path / of.folder
    folder.mkdir()
    held = {batch: records(name, 3 + k, seed=k) for k, batch in enumerate((*of.train, of.test))}
    for batch, (raw, _, _) in held.items():
        (folder / batch).write_bytes(raw)
    monkeypatch.setenv("ROBUSTNB_DATA", str(tmp_path))
    monkeypatch.setattr("pooch.retrieve", lambda *_, **__: pytest.fail("the network was used"))
    return name, folder, held


def check_cifar(cifar, name, held):
    of = data._CIFAR[name]
    x, y = (np.concatenate([held[batch][part] for batch in of.train]) for part in (2, 1))
    assert (cifar.name, cifar.classes, cifar.inputs, cifar.channels, cifar.side) == (name, of.classes, 3072, 3, 32)
    assert (cifar.y_train.tolist(), cifar.y_test.tolist()) == (y.tolist(), held[of.test][1].tolist())
    np.testing.assert_allclose(cifar.x_train * 255, x, rtol=1e-6)
    np.testing.assert_allclose(cifar.x_test * 255, held[of.test][2], rtol=1e-6)
    assert cifar.title == f"{of.title}, first {len(x)} images"


def test_cifar_is_read_from_a_folder_of_any_whole_number_of_records(tiny_cifar):
    name, _, held = tiny_cifar
    check_cifar(load_data(name), name, held)


def test_cifar_is_read_out_of_its_archive_and_nothing_is_unpacked(tiny_cifar, tmp_path, monkeypatch):
    name, folder, held = tiny_cifar
    archive = tmp_path / "cache" / "archive.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as members:
        members.add(folder, folder.name)
    asked = []

    def retrieve(url, known_hash, *_, **__):
        asked.append((url.rsplit("/", 1)[1], known_hash))
        return str(archive)

    from_folder = load_data(name).checksum
    monkeypatch.setattr("pooch.retrieve", retrieve)
    monkeypatch.delenv("ROBUSTNB_DATA")
    cifar = load_data(name)
    check_cifar(cifar, name, held)
    assert cifar.checksum == from_folder
    published = {"cifar10": "c32a1d4ab5d03f1284b67883e8d87530", "cifar100": "03b5dce01913d631647c71ecec9e9cb8"}
    assert asked == [(f"{name.replace('cifar', 'cifar-')}-binary.tar.gz", f"md5:{published[name]}")]
    assert list(archive.parent.iterdir()) == [archive]


def damaged(held, of, kind):
    raw = held[of.test][0]
    size = of.labels + 3072
    if kind == "cut inside a record":
        return raw[: size + 100], rf"must hold whole records of {size:,} bytes, at least one, not {size + 100:,} bytes\.$"
    if kind == "empty":
        return b"", rf"must hold whole records of {size:,} bytes, at least one, not 0 bytes\.$"
    changed = bytearray(raw)
    changed[size + of.labels - 1] = of.classes
    return bytes(changed), rf"must hold classes from 0 to {of.classes - 1}, not {of.classes}\.$"


@pytest.mark.parametrize("kind", ["cut inside a record", "empty", "a class too high"])
def test_a_damaged_batch_is_named_in_a_sentence(tiny_cifar, kind):
    name, folder, held = tiny_cifar
    of = data._CIFAR[name]
    raw, sentence = damaged(held, of, kind)
    (folder / of.test).write_bytes(raw)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(folder / of.test))} {sentence}"):
        load_data(name)


def test_a_missing_batch_is_named_and_not_downloaded(tiny_cifar):
    name, folder, _ = tiny_cifar
    (folder / data._CIFAR[name].test).unlink()
    with pytest.raises(ValueError, match=rf"ROBUSTNB_DATA [^\n]*{re.escape(str(folder / data._CIFAR[name].test))} is missing\.$"):
        load_data(name)


@pytest.mark.parametrize("tiny_cifar", ["cifar10"], indirect=True)
def test_the_sample_is_the_first_records_of_each_batch_wherever_it_is_cut_from(tiny_cifar, monkeypatch):
    _, folder, held = tiny_cifar
    sizes = (2, 1, 1, 3, 1, 2)
    monkeypatch.setattr(data, "_SAMPLE", sizes)
    from_whole = load_data("cifar10_sample")
    cut = {batch: tuple(part[:n] for part in parts[1:]) for (batch, parts), n in zip(held.items(), sizes, strict=True)}
    train, test = list(cut.values())[:-1], list(cut.values())[-1]
    assert from_whole.y_train.tolist() == np.concatenate([labels for labels, _ in train]).tolist()
    np.testing.assert_allclose(from_whole.x_train * 255, np.concatenate([pixels for _, pixels in train]), rtol=1e-6)
    assert from_whole.y_test.tolist() == test[0].tolist()
    assert (from_whole.name, from_whole.title) == ("cifar10_sample", "CIFAR-10, first 8 images")
    for (batch, (raw, _, _)), n in zip(held.items(), sizes, strict=True):
        (folder / batch).write_bytes(raw[: n * 3073])
    assert load_data("cifar10_sample").checksum == from_whole.checksum
    (folder / "data_batch_4.bin").write_bytes(held["data_batch_4.bin"][0][: 2 * 3073])
    with pytest.raises(ValueError, match=r"^data_batch_4.bin must hold at least 3 records for the sample of CIFAR-10, not fewer\.$"):
        load_data("cifar10_sample")


def test_the_sample_of_cifar_10_is_labelled_as_what_it_is():
    if not os.path.isdir(os.path.join(os.environ.get("ROBUSTNB_DATA", ""), "cifar-10-sample")):
        pytest.skip("ROBUSTNB_DATA names no folder with CIFAR-10's sample in it")
    sample = load_data("cifar10_sample")
    assert sample.title == "CIFAR-10, first 6,068 images"
    assert (sample.x_train.shape, sample.x_test.shape) == ((6068, 3072), (1017, 3072))
    # The first images of CIFAR-10: a frog, a truck, a truck, a deer; of its test set: a cat, a ship, a ship, an airplane.
    assert (sample.y_train[:4].tolist(), sample.y_test[:4].tolist()) == ([6, 9, 9, 4], [3, 8, 8, 0])
    # CIFAR-10's mean colour, as everyone normalizes by it.
    mean = sample.x_train.reshape(-1, 3, 1024).mean((0, 2))
    assert mean.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.01)
