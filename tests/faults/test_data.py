"""Files and downloads that fail: one sentence that names what failed, nothing kept, nothing read or written that was not asked for."""

import ast
import gzip
import hashlib
import io
import os
import re
import socket
import tarfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

import robustnb
from robustnb import data, load_data

from .children import begin, outcome

NAMES = tuple(data._MNIST_MD5)
ARCHIVE = "cifar-10-binary.tar.gz"
FOLDER = "cifar-10-batches-bin"
BATCHES = (*data._CIFAR["cifar10"].train, data._CIFAR["cifar10"].test)


def idx(array):
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.astype(np.uint8).tobytes(), mtime=0)


def mnist_files(train=5, test=3):
    random = np.random.default_rng(0)
    shapes = ((train, 28, 28), (train,), (test, 28, 28), (test,))
    return {name: idx(random.integers(10, size=shape)) for name, shape in zip(NAMES, shapes, strict=True)}


def batch(n, seed):
    random = np.random.default_rng(seed)
    return np.column_stack([random.integers(10, size=n), random.integers(256, size=(n, 3072))]).astype(np.uint8).tobytes()


CIFAR = {name: batch(2 + k, seed=k) for k, name in enumerate(BATCHES)}


def file_of(name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    return member, content


def link_to(name, target, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def archive_of(members):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def cifar_members():
    return [file_of(f"{FOLDER}/{name}", content) for name, content in CIFAR.items()]


def tree(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def is_sentence(message, *named):
    assert re.fullmatch(r"[^\n]+\.", message), message
    assert ". " not in message, message
    for name in named:
        assert str(name) in message, message


# Files of $ROBUSTNB_DATA


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """$ROBUSTNB_DATA with small files in both forms, taken for the true ones; no network."""
    files = mnist_files()
    for sub, held in (("mnist", files), (FOLDER, CIFAR)):
        (tmp_path / sub).mkdir()
        for name, content in held.items():
            (tmp_path / sub / name).write_bytes(content)
    for name, content in files.items():
        monkeypatch.setitem(data._MNIST_MD5, name, hashlib.md5(content).hexdigest())
    monkeypatch.setenv("ROBUSTNB_DATA", str(tmp_path))
    monkeypatch.setattr("pooch.retrieve", lambda *_, **__: pytest.fail("the network was used"))
    return tmp_path


def repacked(change):
    return lambda content: gzip.compress(change(gzip.decompress(content)))


# What is done to the training images, with a checksum that is right, and what the message says.
DAMAGES = {
    "cut inside an image": (repacked(lambda raw: raw[:-100]), "cannot reshape array"),
    "a few bytes too many": (repacked(lambda raw: raw + b"more"), "cannot reshape array"),
    "sizes that are no sizes": (repacked(lambda raw: raw[:4] + b"\xff\xff\xff\xff" + raw[8:]), "not a readable IDX file"),
    "another magic number": (repacked(lambda raw: b"\0\0\x0d" + raw[3:]), "wrong magic number"),
    "cut inside the head": (repacked(lambda raw: raw[:9]), "not a readable IDX file"),
    "nothing, packed": (repacked(lambda _: b""), "wrong magic number"),
    "nothing": (lambda _: b"", "wrong magic number"),
    "cut before it is unpacked": (lambda content: content[:-30], "not a readable IDX file"),
    "not packed": (gzip.decompress, "Not a gzipped file"),
    "packed as something else": (lambda content: content[:20] + b"\xff" * 20 + content[40:], "not a readable IDX file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_of_mnist_in_another_form_is_named(folder, monkeypatch, damage):
    change, says = DAMAGES[damage]
    path = folder / "mnist" / NAMES[0]
    path.write_bytes(change(path.read_bytes()))
    monkeypatch.setitem(data._MNIST_MD5, NAMES[0], hashlib.md5(path.read_bytes()).hexdigest())
    before = tree(folder)
    with pytest.raises(ValueError, match="is not a readable IDX file") as caught:
        load_data("mnist")
    is_sentence(str(caught.value), path, says)
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (np.arange(4), "must hold a label for each of the 5 images of train-images-idx3-ubyte.gz, not 4."),
        (np.arange(6), "must hold a label for each of the 5 images of train-images-idx3-ubyte.gz, not 6."),
        (np.array([0, 1, 10, 2, 3]), "must hold labels from 0 to 9, not 10."),
    ],
)
def test_labels_that_do_not_fit_the_images_are_named(folder, monkeypatch, labels, says):
    (folder / "mnist" / NAMES[1]).write_bytes(idx(labels))
    monkeypatch.setitem(data._MNIST_MD5, NAMES[1], hashlib.md5(idx(labels)).hexdigest())
    with pytest.raises(ValueError, match="labels") as caught:
        load_data("mnist")
    assert str(caught.value) == f"{NAMES[1]} {says}"


def test_what_is_read_is_what_was_checked(folder, monkeypatch):
    """A file that another process replaces after a look at its checksum must not slip in: it is read once."""
    reads = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path.name) or read(path))
    load_data("mnist")
    assert sorted(reads) == sorted(NAMES)


@pytest.mark.parametrize(("train", "title"), [(20, "CIFAR-10, first 7 test images"), (21, "CIFAR-10, first 20 images")])
def test_a_part_is_labelled_as_one_if_it_is_the_test_set_too(folder, monkeypatch, train, title):
    monkeypatch.setattr(data, "_CIFAR_TRAIN", train)
    assert load_data("cifar10").title == title


def test_the_whole_is_not_labelled_as_a_part(folder, monkeypatch):
    monkeypatch.setattr(data, "_CIFAR_TRAIN", 20)
    monkeypatch.setattr(data, "_CIFAR_TEST", 7)
    assert load_data("cifar10").title == "CIFAR-10"


@pytest.mark.parametrize(("name", "sub", "file"), [("mnist", "mnist", NAMES[2]), ("cifar10", FOLDER, "data_batch_3.bin")])
def test_a_folder_in_the_place_of_a_file_is_named(folder, name, sub, file):
    (folder / sub / file).unlink()
    (folder / sub / file).mkdir()
    with pytest.raises(OSError, match="could not be read") as caught:
        load_data(name)
    is_sentence(str(caught.value), folder / sub / file, "Is a directory")


def load_from(name, root):
    os.environ["ROBUSTNB_DATA"] = str(root)
    return load_data(name).title


@pytest.mark.parametrize("closed", ["the file", "its folder", "the folder of folders"])
@pytest.mark.parametrize(("name", "sub", "file"), [("mnist", "mnist", NAMES[0]), ("cifar10", FOLDER, "data_batch_1.bin")])
def test_a_file_that_may_not_be_read_is_named(open_folder, name, sub, file, closed):
    (open_folder / "data" / sub).mkdir(parents=True)
    path = open_folder / "data" / sub / file
    path.write_bytes(CIFAR["data_batch_1.bin"])
    shut = {"the file": path, "its folder": path.parent, "the folder of folders": path.parent.parent}[closed]
    shut.chmod(0)
    error, message = outcome(load_from, name, open_folder / "data", as_nobody=True)
    assert error == "PermissionError"
    is_sentence(message, open_folder / "data" if closed == "the folder of folders" else path, "Permission denied")


# Downloads


@dataclass
class Server:
    """Serves `files` by name on 127.0.0.1; `fault` says how it fails, `together` holds requests until so many came."""

    files: dict[str, bytes]
    fault: str | None = None
    together: threading.Barrier | None = None
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, request):
        name = request.path.rsplit("/", 1)[1]
        self.asked.append(name)
        content = self.files[name]
        if self.fault == "not found":
            return request.send_error(404)
        if self.fault == "broken":
            return request.send_error(500)
        sent = {"half, and says so not": content[: len(content) // 2], "a page instead": b"<html>Sign in</html>"}.get(self.fault, content)
        request.send_response(200)
        if self.fault != "half, and says so not":
            request.send_header("Content-Length", str(len(sent)))
        request.end_headers()
        half = len(sent) // 2
        request.wfile.write(sent[:half])
        if self.together and name == ARCHIVE:
            with suppress(threading.BrokenBarrierError):
                self.together.wait(60)
        if self.fault != "closes half way":
            request.wfile.write(sent[half:])
        return None


@pytest.fixture
def server():
    serving = Server(mnist_files() | {ARCHIVE: archive_of(cifar_members())})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            serving.answer(self)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        serving.url = f"http://127.0.0.1:{http.server_port}/"
        yield serving
        http.shutdown()


def use(url, files, cache, patch=setattr):
    """Let the package download from `url` into `cache`, and expect these files."""
    os.environ.pop("ROBUSTNB_DATA", None)
    patch(data, "_MNIST_URL", url)
    patch(data, "_CIFAR_URL", url)
    patch(data, "_MNIST_MD5", {name: hashlib.md5(files[name]).hexdigest() for name in NAMES})
    patch(data, "_CIFAR", data._CIFAR | {"cifar10": data._CIFAR["cifar10"]._replace(md5=hashlib.md5(files[ARCHIVE]).hexdigest())})
    patch(data.pooch, "os_cache", lambda _: cache)


@pytest.fixture
def cache(server, tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTNB_DATA", "")
    use(server.url, server.files, tmp_path / "cache", monkeypatch.setattr)
    return tmp_path / "cache"


SETS = pytest.mark.parametrize(("name", "first"), [("mnist", NAMES[0]), ("cifar10", ARCHIVE)])


@SETS
@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("half, and says so not", ValueError, "does not have the checksum"),
        ("a page instead", ValueError, "does not have the checksum"),
        ("closes half way", OSError, "could not be downloaded"),
        ("not found", OSError, "404"),
        ("broken", OSError, "500"),
    ],
)
def test_of_a_download_that_fails_nothing_is_kept_and_the_next_succeeds(server, cache, name, first, fault, kind, says):
    server.fault = fault
    with pytest.raises(kind, match="nothing of it was kept") as caught:
        load_data(name)
    is_sentence(str(caught.value), server.url, first, says)
    assert list(cache.iterdir()) == []
    server.fault = None
    assert len(load_data(name).x_test) == (3 if name == "mnist" else 7)
    assert {path.name for path in cache.iterdir()} == (set(NAMES) if name == "mnist" else {ARCHIVE})


@SETS
def test_without_a_network_nothing_is_kept(server, cache, monkeypatch, name, first):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}/"
    monkeypatch.setattr(data, "_MNIST_URL", nowhere)
    monkeypatch.setattr(data, "_CIFAR_URL", nowhere)
    with pytest.raises(OSError, match="could not be downloaded") as caught:
        load_data(name)
    is_sentence(str(caught.value), nowhere, first, cache, "Connection refused")
    assert list(cache.iterdir()) == []


@SETS
def test_what_was_downloaded_is_not_downloaded_again_unless_it_was_damaged(server, cache, name, first):
    expected = load_data(name)
    asked = len(server.asked)
    load_data(name)
    assert len(server.asked) == asked
    (cache / first).write_bytes(server.files[first][:-5])
    assert torch.equal(load_data(name).x_train, expected.x_train)
    assert len(server.asked) == asked + 1
    (cache / first).write_bytes(server.files[first][:-5])
    server.fault = "closes half way"
    with pytest.raises(OSError, match="could not be downloaded"):
        load_data(name)


def download(name, url, files, cache):
    use(url, files, cache)
    loaded = load_data(name)
    return loaded.checksum, loaded.x_train.sum().item()


@SETS
@pytest.mark.parametrize("held", [False, True])
def test_a_cache_that_may_not_be_written_serves_what_it_holds(server, open_folder, name, first, held):
    cache = open_folder / "cache"
    cache.mkdir()
    if held:
        for file, content in server.files.items():
            (cache / file).write_bytes(content)
    cache.chmod(0o555)
    error, value = outcome(download, name, server.url, server.files, cache, as_nobody=True)
    assert server.asked == []
    if held:
        assert error == "returned", value
        return
    assert error == "PermissionError"
    is_sentence(value, first, cache, "Permission denied")
    assert list(cache.iterdir()) == []


def test_two_processes_that_download_at_once_both_end_with_the_right_data(server, cache):
    expected = load_data("cifar10")
    (cache / ARCHIVE).unlink()
    server.asked.clear()
    server.together = threading.Barrier(3)  # two downloads, both half way, and this test
    ends = [begin(download, "cifar10", server.url, server.files, cache) for _ in range(2)]

    def seen():
        sizes = {}
        for path in cache.iterdir():
            with suppress(FileNotFoundError):  # pooch tries whether it may write here, with a file that it takes away
                sizes[path.name] = path.stat().st_size
        return sizes

    until = time.monotonic() + 60
    while server.together.n_waiting < 2:
        assert ARCHIVE not in seen()
        assert time.monotonic() < until
    assert ARCHIVE not in seen()  # half of it is there, twice, under other names
    server.together.wait(60)
    for wait in ends:
        assert wait() == ("returned", (expected.checksum, expected.x_train.sum().item()))
    assert server.asked == [ARCHIVE] * 2
    assert seen() == {ARCHIVE: len(server.files[ARCHIVE])}


# Archives


def serve_archive(server, cache, monkeypatch, members):
    server.files[ARCHIVE] = archive_of(members)
    use(server.url, server.files, cache, monkeypatch.setattr)


def test_of_an_archive_only_the_named_batches_are_read_and_nothing_is_written(server, cache, tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    hostile = [
        file_of("../outside.bin", b"x"),
        file_of(str(tmp_path / "absolute.bin"), b"x"),
        file_of(f"{FOLDER}/../../outside.bin", b"x"),
        file_of(f"../{FOLDER}/data_batch_1.bin", b"x"),
        link_to(f"{FOLDER}/link", str(secret)),
        link_to(f"{FOLDER}/hard", str(secret), tarfile.LNKTYPE),
        link_to("elsewhere", str(tmp_path)),
        file_of("elsewhere/written-through-a-link.bin", b"x"),
        link_to(f"{FOLDER}/device", "", tarfile.CHRTYPE),
        link_to(f"{FOLDER}/pipe", "", tarfile.FIFOTYPE),
    ]
    serve_archive(server, cache, monkeypatch, [*hostile, *cifar_members(), *hostile])
    monkeypatch.chdir(tmp_path)
    before, read = tree(tmp_path), []
    extract = tarfile.TarFile.extractfile
    monkeypatch.setattr(tarfile.TarFile, "extractfile", lambda tar, member: read.append(member.name) or extract(tar, member))
    loaded = load_data("cifar10")
    assert loaded.y_test.tolist() == list(CIFAR["test_batch.bin"][::3073])
    assert read == [f"{FOLDER}/{name}" for name in BATCHES]
    assert tree(tmp_path) == before | {cache: None, cache / ARCHIVE: server.files[ARCHIVE]}


@pytest.mark.parametrize(
    ("instead", "says"),
    [
        ([], "not found"),
        ([link_to(f"{FOLDER}/data_batch_2.bin", "../../secret")], "not a file"),
        ([link_to(f"{FOLDER}/data_batch_2.bin", "data_batch_1.bin")], "not a file"),
        ([link_to(f"{FOLDER}/data_batch_2.bin", f"{FOLDER}/data_batch_1.bin", tarfile.LNKTYPE)], "not a file"),
        ([link_to(f"{FOLDER}/data_batch_2.bin", "", tarfile.DIRTYPE)], "not a file"),
        ([link_to(f"{FOLDER}/data_batch_2.bin", "", tarfile.FIFOTYPE)], "not a file"),
        ([file_of("data_batch_2.bin", CIFAR["data_batch_2.bin"])], "not found"),
    ],
)
def test_an_archive_whose_batch_is_no_file_is_refused(server, cache, monkeypatch, instead, says):
    others = [member for member in cifar_members() if not member[0].name.endswith("_2.bin")]
    serve_archive(server, cache, monkeypatch, [*others, *instead])
    with pytest.raises(ValueError, match="is not a readable archive") as caught:
        load_data("cifar10")
    is_sentence(str(caught.value), cache / ARCHIVE, f"{FOLDER}/data_batch_2.bin", says)


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda _: b"", lambda _: b"no archive", gzip.decompress])
def test_an_archive_that_is_none_is_refused(server, cache, monkeypatch, damage):
    server.files[ARCHIVE] = damage(server.files[ARCHIVE])
    use(server.url, server.files, cache, monkeypatch.setattr)
    with pytest.raises(ValueError, match="is not a readable archive") as caught:
        load_data("cifar10")
    is_sentence(str(caught.value), cache / ARCHIVE)


@pytest.mark.parametrize(
    ("content", "says"),
    [(batch(2, 0)[:-1], "must hold whole records"), (b"", "must hold whole records"), (b"\x0a" + batch(1, 0)[1:], "not 10")],
)
def test_a_damaged_batch_within_an_archive_is_named(server, cache, monkeypatch, content, says):
    members = [file_of(f"{FOLDER}/{name}", content if name == "test_batch.bin" else held) for name, held in CIFAR.items()]
    serve_archive(server, cache, monkeypatch, members)
    with pytest.raises(ValueError, match="must hold") as caught:
        load_data("cifar10")
    is_sentence(str(caught.value), cache / ARCHIVE / "test_batch.bin", says)


# Values


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_an_image_of_zeros_stays_zero_when_images_are_scaled(folder, monkeypatch, name):
    """It has no direction; what would come of dividing by its length is NaN, which no one would see before training refuses it."""
    images = np.random.default_rng(1).integers(1, 256, size=(5, 28, 28))
    images[2] = 0
    (folder / "mnist" / NAMES[0]).write_bytes(idx(images))
    monkeypatch.setitem(data._MNIST_MD5, NAMES[0], hashlib.md5(idx(images)).hexdigest())
    path = folder / FOLDER / "data_batch_1.bin"
    path.write_bytes(batch(2, 0) + bytes(3073))
    plain, scaled = load_data(name), load_data(name, normalize="unit")
    norms = plain.x_train.norm(dim=1)
    assert (norms == 0).nonzero().tolist() == [[2]]
    np.testing.assert_allclose(scaled.x_train.norm(dim=1), (norms > 0).float(), atol=1e-6)
    # Every other image as a division by its length gives it, to the bit.
    rest = norms > 0
    assert torch.equal(scaled.x_train[rest], plain.x_train[rest] / norms[rest, None])


# Nothing is unpickled: a file of data cannot run code.

UNPICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def unpickling(source):
    """The lines that could run what a file says: modules that unpickle, and loads that do unless they are told not to."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
            if {name.split(".")[0] for name in names} & UNPICKLERS:
                yield node.lineno
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            torch_load = re.fullmatch(r"torch(\.\w+)*\.load", called) and given.get("weights_only") != "True"
            numpy_load = re.fullmatch(r"(np|numpy)\.(load|fromregex)", called) and given.get("allow_pickle", "False") != "False"
            if torch_load or numpy_load or called.endswith(("read_pickle", ".Unpickler")):
                yield node.lineno


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import os, dill",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
    ],
)
def test_what_unpickles_would_be_found(source):
    assert list(unpickling(source)) == [1]


def test_nothing_is_unpickled():
    for harmless in ("torch.load(path, weights_only=True)", "np.load(path)", "json.load(file)"):
        assert list(unpickling(harmless)) == []
    package = Path(robustnb.__file__).parent
    sources = [*package.rglob("*.py")]
    assert len(sources) > 10
    assert {path.name: lines for path in sources if (lines := list(unpickling(path.read_text())))} == {}
