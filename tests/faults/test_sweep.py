"""Sweeps that are killed, run twice at once, or run out of disk: no finished row is lost, doubled or damaged, at any moment."""

import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor
from pathlib import Path

import pandas as pd
import pytest

import robustnb.sweep
from robustnb.atlas import get_sweep
from robustnb.results import COLUMNS, MEASURED
from robustnb.settings import KEY, grid
from robustnb.sweep import main, sweep

from .children import LONG, outcome, start

# Networks so small that writing takes about as long as training: a kill hits either. The rates make 24 settings of one shape.
SETTINGS = grid(init=["he", "lecun"], width=2, depth=2, lr=[k / 1000 for k in range(12)], epochs=0, init_seeds=(0, 1))
KILLS = 50 if LONG else 3
ROUNDS = 20 if LONG else 2


@pytest.fixture(scope="module")
def whole():
    """What an undisturbed sweep gives."""
    outcome(len, "")  # so that the server of processes is there, and none of them waits for it
    return in_order(sweep(SETTINGS, device="cpu"))


def in_order(table):
    """What was trained and found, in an order that does not depend on how."""
    return table.sort_values([*KEY], ignore_index=True)[[*KEY, *MEASURED]]


def assert_same(table, whole):
    # A file keeps six digits.
    pd.testing.assert_frame_equal(in_order(table), whole, check_dtype=False, rtol=1e-5)


def keys(table):
    return {tuple(row) for row in table[[*KEY]].itertuples(index=False)}


class Reader(threading.Thread):
    """Reads a results file over and over, and notes the first time that something is wrong with it."""

    def __init__(self, out):
        super().__init__(daemon=True)
        self.out, self.seen, self.reads, self.wrong, self.over = out, set(), 0, None, threading.Event()

    def run(self):
        while not self.over.is_set() and self.wrong is None:
            try:
                self.look()
            except Exception as error:
                self.wrong = repr(error)
            time.sleep(0.005)

    def look(self):
        try:
            text = self.out.read_text()
        except FileNotFoundError:
            assert not self.seen, "the file is gone"
            return
        self.reads += 1
        assert text.endswith("\n")
        table = pd.read_csv(self.out)
        assert list(table.columns) == COLUMNS
        assert not table[[*KEY, "seconds", "device", "code_version", "date"]].isna().any(axis=None)
        assert not table.duplicated([*KEY]).any()
        now = keys(table)
        assert self.seen <= now, "rows are gone"
        # A setting's rows come together.
        assert set(table.groupby("lr").size() % 2) == {0}
        self.seen = now

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()
        assert self.wrong is None
        self.look()


def run(out, limit=None):
    """A sweep into a file; a limit on the size of files stands for a disk that is full."""
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sweep(SETTINGS, out=Path(out), device="cpu")


def measured_duration(tmp_path):
    began = time.monotonic()
    assert outcome(run, tmp_path / "timed.csv") == ("returned", None)
    return time.monotonic() - began


def wait_then_kill(process, seconds):
    process.join(seconds)
    ended = process.exitcode is not None
    if not ended:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    return ended


def left(folder):
    return {path.name for path in folder.iterdir()}


def test_a_sweep_killed_at_random_moments_loses_nothing_and_goes_on_where_it_was(tmp_path, whole, monkeypatch, record_property):
    record_property("cases", KILLS)
    pick = random.Random(0)
    duration = measured_duration(tmp_path)
    trained, came = [], 0
    train = robustnb.sweep.train
    monkeypatch.setattr(robustnb.sweep, "train", lambda network, *a, **k: trained.append(network.seeds) or train(network, *a, **k))
    # A new file after each five kills: by then a sweep is about done.
    for kills in (min(5, KILLS - k) for k in range(0, KILLS, 5)):
        out, before = tmp_path / f"table{came}.csv", 0
        with Reader(out) as reader:
            for kill in range(kills):
                process = start(run, out)
                # The first only once there are rows to lose, however slow the machine is now.
                while kill == 0 and not out.exists() and process.is_alive():
                    time.sleep(0.001)
                wait_then_kill(process, pick.uniform(0, duration / 2))
                after = len(pd.read_csv(out)) if out.exists() else 0
                assert after >= before
                before = after
        trained.clear()
        table = sweep(SETTINGS, out=out, device="cpu")
        assert 2 * len(trained) == len(whole) - before
        assert len(reader.seen) == before > 0
        assert_same(table, whole)
        assert_same(pd.read_csv(out), whole)
        came += before
        for path in (out, out.with_name(out.name + ".lock")):
            path.unlink()
    assert left(tmp_path) == {"timed.csv", "timed.csv.lock"}


@pytest.mark.parametrize("moment", ["aside", "renamed"])
def test_a_kill_while_a_file_is_written_leaves_the_old_or_the_new_one(tmp_path, whole, moment):
    """The two moments that a random kill seldom meets: half of the new file lies aside; and it is whole, and not yet in its place."""
    out = tmp_path / "table.csv"
    sweep(SETTINGS[:1], out=out, device="cpu")
    before = out.read_bytes()
    process = start(die_in_write, out, moment)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert out.read_bytes() == before
    assert left(tmp_path) == {"table.csv", "table.csv.lock", "table.csv.part"}
    assert_same(sweep(SETTINGS, out=out, device="cpu"), whole)
    assert left(tmp_path) == {"table.csv", "table.csv.lock"}


def die_in_write(out, moment):
    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "aside":
        robustnb.results.os.fsync = die
    else:
        robustnb.results.os.replace = die
    run(out)


def test_two_processes_share_a_file(tmp_path, whole):
    out = tmp_path / "table.csv"
    with Reader(out) as reader:
        processes = [start(run, out) for _ in range(2)]
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0, 0]
    assert reader.reads
    assert_same(pd.read_csv(out), whole)


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path, whole):
    out = tmp_path / "table.csv"
    sweep(SETTINGS[:1], out=out, device="cpu")
    content = out.read_bytes()
    error, message = outcome(run, out, len(content) + 10)
    assert error == "OSError"
    assert message == f"[Errno 27] {out} could not be written: the disk is full. What it held before is still there."
    assert out.read_bytes() == content
    assert left(tmp_path) == {"table.csv", "table.csv.lock"}
    assert_same(sweep(SETTINGS, out=out, device="cpu"), whole)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 KiB: room for a table, not for all rows twice."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_disk_that_is_really_full_loses_nothing(small_disk, whole):
    out = small_disk / "table.csv"
    with Reader(out) as reader:
        error, message = outcome(run, out)
        assert error == "OSError"
        assert message.endswith(f"{out} could not be written: the disk is full. What it held before is still there.")
    held = pd.read_csv(out)
    assert reader.seen == keys(held)
    assert 0 < len(held) < len(whole)
    assert left(small_disk) == {"table.csv", "table.csv.lock"}
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    assert_same(sweep(SETTINGS, out=out, device="cpu"), whole)


def test_kills_two_writers_and_a_full_disk_together_lose_nothing(tmp_path, whole, record_property):
    record_property("cases", KILLS)
    pick = random.Random(1)
    duration = measured_duration(tmp_path)
    size = (tmp_path / "timed.csv").stat().st_size
    out = tmp_path / "table.csv"
    with Reader(out) as reader:
        for _ in range(KILLS):
            limits = [None, pick.randrange(1, size)]
            pick.shuffle(limits)
            processes = [start(run, out, limit) for limit in limits]
            for process in processes:
                wait_then_kill(process, pick.uniform(0, duration / 4))
        processes = [start(run, out) for _ in range(2)]
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0, 0]
    assert reader.reads
    assert_same(pd.read_csv(out), whole)
    assert left(tmp_path) == {"timed.csv", "timed.csv.lock", "table.csv", "table.csv.lock"}


def test_a_folder_that_may_not_be_written_is_refused_before_any_training(open_folder):
    open_folder.chmod(0o555)
    out = open_folder / "table.csv"
    error, message = outcome(refused, out, as_nobody=True)
    assert error == "PermissionError"
    assert message.endswith(f"{out} could not be written: Permission denied. What it held before is still there.")
    assert left(open_folder) == set()


def refused(out):
    robustnb.sweep.train = lambda *_, **__: pytest.fail("trained, and could not have kept it")
    run(out)


def test_a_results_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "table.csv").mkdir()
    with pytest.raises(OSError, match=r"table\.csv could not be read: Is a directory\.$"):
        sweep(SETTINGS, out=tmp_path / "table.csv", device="cpu")


def test_a_cluster_that_loses_a_worker_still_finishes(tmp_path):
    """A real Dask cluster of two processes; one is killed while it trains."""
    from distributed import Client, LocalCluster

    slow = grid(init=["he", "lecun"], width=[64, 96], depth=[4, 6], lr=0.05, epochs=10, init_seeds=(0,))
    out = tmp_path / "table.csv"
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path)) as cluster,
        Client(cluster) as client,
    ):
        pids = list(client.run(os.getpid).values())
        killed = []

        class Watched(Executor):
            """The cluster's executor, of which a worker dies when the first result is there."""

            def submit(self, *task):
                future = inner.submit(*task)
                future.add_done_callback(lambda _: killed or killed.append(os.kill(pids[0], signal.SIGKILL)))
                return future

        inner = client.get_executor()
        table = sweep(slow, executor=Watched(), out=out, device="cpu")
    assert killed
    assert len(table) == len(pd.read_csv(out)) == len(slow)
    assert not table.duplicated([*KEY]).any()
    assert_same(table, in_order(sweep(slow, device="cpu")))


# The command, of which two may go on with one file


def command(out):
    sys.stderr = io.StringIO()  # its progress
    main(["digits_rates", "--scale", "quick", "--out", str(out), "--device", "cpu"])


def test_commands_at_once_write_one_card_and_it_is_whole_at_any_moment(tmp_path, record_property):
    record_property("cases", ROUNDS)
    out = tmp_path / "rates.csv"
    sweep(get_sweep("digits_rates", "quick").settings, out=out, device="cpu")
    for _ in range(ROUNDS):
        processes = [start(command, out) for _ in range(3)]
        while any(process.exitcode is None for process in processes):
            if (card := out.with_suffix(".json")).exists():
                assert json.loads(card.read_text())["networks_missing"] == 0
            for process in processes:
                process.join(0.005)
        assert [process.exitcode for process in processes] == [0] * 3
    assert left(tmp_path) == {"rates.csv", "rates.csv.lock", "rates.json"}


def test_a_command_that_measured_nothing_says_so_and_writes_no_card(tmp_path, capsys):
    main(["digits_rates", "--scale", "quick", "--out", str(tmp_path / "rates.csv"), "--device", "cpu", "--minutes", "0"])
    assert "No rows yet, and so no card" in capsys.readouterr().err
    assert left(tmp_path) <= {"rates.csv.lock"}


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_ends_everything_at_once_in_one_sentence_and_keeps_what_was_measured(tmp_path, workers):
    out = tmp_path / "digits.csv"
    arguments = [sys.executable, "-m", "robustnb.sweep", "digits_rates", "--out", str(out), "--device", "cpu", "--workers", str(workers)]
    # What a terminal tells of Ctrl-C is a group of processes.
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, start_new_session=True)
    # Both processes of two are at work by the third setting, and imports are over.
    wait_until(lambda: out.exists() and pd.read_csv(out).drop_duplicates(["init", "lr"]).shape[0] >= 3)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 130
    assert said.splitlines()[-1] == "Interrupted. What was measured is kept: give the same command again to go on."
    assert "Traceback" not in said
    # It may have been about to write: what is aside is written anew the next time.
    assert {name.removesuffix(".part") for name in left(tmp_path)} == {"digits.csv", "digits.csv.lock", "digits.json"}
    assert set(pd.read_csv(out).columns) == set(COLUMNS)
    wait_until(lambda: not alive(process.pid))


def wait_until(done):
    until = time.monotonic() + 60
    while not done():
        assert time.monotonic() < until
        time.sleep(0.05)


def alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
