import contextlib
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from importlib.metadata import version
from multiprocessing import get_context

import numpy as np
import pandas as pd
import pytest

import robustnb.sweep
from robustnb import fully_connected, load_data, stepped_lr, train
from robustnb.convnets import convolutional
from robustnb.results import COLUMNS, HOW, MEASURED, code_version
from robustnb.settings import KEY, Setting, grid
from robustnb.sweep import main, sweep

TWO = grid(init=["he", "m^-1.5"], width=4, depth=2, lr=0.05, epochs=1, init_seeds=(0, 1))


@pytest.fixture
def trainings(monkeypatch):
    """The (init seeds) of each training that a sweep starts."""
    started = []

    def watched(network, *arguments, **settings):
        started.append(network.seeds)
        return train(network, *arguments, **settings)

    monkeypatch.setattr(robustnb.sweep, "train", watched)
    return started


def measured(table):
    """What was trained and found, in an order that does not depend on how."""
    return table.sort_values([*KEY], ignore_index=True)[[*KEY, *MEASURED]]


def assert_same(one, other):
    # A file keeps six digits.
    pd.testing.assert_frame_equal(measured(one), measured(other), check_dtype=False, rtol=1e-5)


def test_a_sweep_has_a_row_for_each_setting_and_seed_with_the_documented_columns():
    table = sweep(TWO, device="cpu")
    assert list(table.columns) == COLUMNS == [*KEY, *MEASURED, *HOW]
    assert table[["dataset", "model", "init", "init_seed"]].values.tolist() == [
        ["digits", "fcn", init, seed] for init in ("he", "m^-1.5") for seed in (0, 1)
    ]
    assert (table[["width", "depth", "epoch", "batch_size", "batch_seed"]] == [4, 2, 1, 64, 0]).all(axis=None)
    assert (table[["loss", "lr", "decay", "normalize"]] == ["cross_entropy", 0.05, 1, "pixels"]).all(axis=None)
    assert not table.diverged.any()
    assert (table.seconds > 0).all()
    assert table.device.str.startswith("cpu (").all()
    assert set(table.code_version) == {code_version()}
    assert table.date.str.fullmatch(r"20\d\d-\d\d-\d\d").all()


@pytest.mark.parametrize(("model", "depth"), [("cnn", 3), ("resnet", 8), ("scaled_resnet", 8)])
def test_convolutional_networks_are_measured_as_train_measures_them(model, depth):
    network = convolutional("he", model=model, channels=1, side=8, width=2, depth=depth, outputs=10, seeds=(0, 1), device="cpu")
    expected = train(network, load_data("digits"), epochs=1, lr=0.05).final[list(MEASURED)]
    table = sweep(grid(init="he", model=model, width=2, depth=depth, lr=0.05, epochs=1, init_seeds=(0, 1)), device="cpu")
    assert set(table.model) == {model}
    pd.testing.assert_frame_equal(table[list(MEASURED)], expected, check_dtype=False, rtol=1e-5)


def test_a_convolutional_network_too_large_for_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(robustnb.sweep, "free_bytes", lambda _: 2**20)
    with pytest.raises(MemoryError, match=r"model='cnn'.* needs [\d.]+ GiB for one network, of which 0\.0 GiB are free\.$"):
        sweep(grid(init="he", model="cnn", width=64, depth=8, lr=0.05, epochs=1), device="cpu")


@pytest.mark.parametrize(
    ("changes", "lr"),
    [({}, 0.05), ({"loss": "squared", "batch_size": 500, "batch_seed": 3, "epochs": 2, "decay": 0.5}, stepped_lr(0.05, 0.5))],
)
def test_rows_hold_what_train_measures(tmp_path, changes, lr):
    training = {"epochs": 1, "lr": 0.05, "loss": "cross_entropy", "batch_size": 64, "batch_seed": 0} | changes
    network = fully_connected("he", inputs=64, width=4, depth=3, outputs=10, seeds=(0, 1))
    settings = {name: value for name, value in training.items() if name != "decay"} | {"lr": lr}
    expected = train(network, load_data("digits"), **settings).final[list(MEASURED)]
    table = sweep(grid(init="he", width=4, depth=3, init_seeds=(0, 1), **training), out=tmp_path / "table.csv", device="cpu")
    for found in (table, pd.read_csv(tmp_path / "table.csv")):
        pd.testing.assert_frame_equal(found[list(MEASURED)], expected, check_dtype=False, rtol=1e-5)


def test_the_rate_of_a_sweep_falls_every_ten_epochs_by_decay(monkeypatch):
    rates = []
    monkeypatch.setattr(
        robustnb.sweep, "train", lambda *a, lr, **k: rates.append([lr(e) for e in (1, 10, 11, 21)]) or train(*a, lr=lr, **k)
    )
    sweep(grid(init="he", width=4, depth=2, lr=0.001, decay=[1, 0.8], epochs=0), device="cpu")
    assert rates == [[1e-3] * 4, pytest.approx([1e-3, 1e-3, 8e-4, 6.4e-4])]


def test_rows_in_time_are_those_of_one_training(tmp_path):
    """`every` gives a row before training, each so many epochs, and at the end; the last is that of a sweep without it."""
    same = {"init": "he", "width": 4, "depth": 2, "lr": 0.05, "epochs": 5, "init_seeds": (0, 1)}
    out = tmp_path / "table.csv"
    history = sweep(grid(every=2, **same), out=out, device="cpu")
    assert history[["init_seed", "epoch"]].values.tolist() == [[seed, epoch] for epoch in (0, 2, 4, 5) for seed in (0, 1)]
    network = fully_connected("he", inputs=64, width=4, depth=2, outputs=10, seeds=(0, 1))
    whole = train(network, load_data("digits"), epochs=5, lr=0.05).history
    expected = whole[whole.epoch.isin((0, 2, 4, 5))].reset_index(drop=True)
    pd.testing.assert_frame_equal(history[[*MEASURED]], expected[[*MEASURED]], check_dtype=False, rtol=1e-5)
    assert len(sweep(grid(**same), out=out, device="cpu")) == len(history)  # there already


def test_a_grid_is_every_combination_the_first_list_slowest():
    settings = grid(init=["he", "ntk"], width=[4, 8], depth=2, lr=0.1, epochs=1, init_seeds=(0, 1))
    assert [(s.init, s.width) for s in settings] == [("he", 4), ("he", 8), ("ntk", 4), ("ntk", 8)]
    assert {(s.depth, s.lr, s.init_seeds) for s in settings} == {(2, 0.1, (0, 1))}
    # As they come out of a table.
    assert grid(init="he", width=np.int64(4), depth=2, lr=np.float64(0.1), epochs=1) == grid(init="he", width=4, depth=2, lr=0.1, epochs=1)


def test_a_finished_sweep_trains_nothing_again(tmp_path, monkeypatch):
    out = tmp_path / "table.csv"
    table = sweep(TWO, out=out, device="cpu")
    content = out.read_bytes()
    monkeypatch.setattr(robustnb.sweep, "train", lambda *_, **__: pytest.fail("trained again"))
    assert_same(sweep(TWO, out=out, device="cpu"), table)
    assert out.read_bytes() == content


def test_a_network_that_is_asked_for_twice_is_trained_once(trainings):
    one = grid(init="he", width=4, depth=2, lr=0.05, epochs=1, init_seeds=(0, 1))
    assert len(sweep([*one, *one, *grid(init="he", width=4, depth=2, lr=0.05, epochs=1, init_seeds=(1, 2))], device="cpu")) == 3
    assert trainings == [(0, 1), (2,)]


def test_a_sweep_trains_only_what_its_file_lacks(tmp_path, trainings):
    out = tmp_path / "table.csv"
    whole = sweep(TWO, device="cpu")
    sweep(grid(init="he", width=4, depth=2, lr=0.05, epochs=1, init_seeds=(1,)), out=out, device="cpu")
    trainings.clear()
    table = sweep(TWO, out=out, device="cpu")
    assert trainings == [(0,), (0, 1)]
    assert_same(table, whole)


@pytest.mark.parametrize(
    "change",
    [
        *({"lr": 1 / 30}, {"lr": 1e-7}, {"epochs": 0}, {"loss": "squared"}, {"init": "m^-0.75"}, {"batch_seed": 1}),
        *({"decay": 0.8}, {"decay": 1 / 3}, {"normalize": "unit"}),
    ],
)
def test_any_setting_is_found_again_in_its_file_and_taken_for_no_other(tmp_path, trainings, change):
    out = tmp_path / "table.csv"
    settings = {"init": "he", "width": 4, "depth": 2, "lr": 0.05, "epochs": 1}
    for _ in range(2):
        table = sweep([Setting(**settings), Setting(**(settings | change))], out=out, device="cpu")
    assert trainings == [(0,), (0,)]
    assert len(table) == 2


def test_after_a_failure_an_executor_is_given_nothing_more():
    given = []

    class Breaks(Executor):
        def submit(self, task, setting, *arguments):
            given.append(setting.init)
            future = Future()
            future.set_exception(RuntimeError("the worker is gone"))
            return future

    how = {"data": None, "out": None, "device": "cpu", "progress": False}
    with pytest.raises(RuntimeError, match="the worker is gone"):
        robustnb.sweep._sweep(TWO, executor=Breaks(), minutes=None, workers=1, **how)
    assert given == ["he"]


@pytest.mark.parametrize("name", ["2024", "007", "NA", "true", "1e3"])
def test_data_of_any_name_are_found_again_in_their_file(tmp_path, trainings, name):
    digits, out = load_data("digits"), tmp_path / "table.csv"
    settings = [Setting(dataset=name, init="he", width=4, depth=2, lr=0.05, epochs=1)]
    tables = [sweep(settings, replace(digits, name=name), out=out, device="cpu") for _ in range(2)]
    assert [table.dataset.tolist() for table in tables] == [[name]] * 2
    assert len(trainings) == 1


def test_networks_that_all_diverged_are_reported_and_not_trained_again(tmp_path, trainings):
    out = tmp_path / "table.csv"
    for _ in range(2):
        table = sweep(grid(init="he", width=8, depth=4, lr=1e4, epochs=3, init_seeds=(0, 1)), out=out, device="cpu")
    assert table.diverged.all()
    assert table.stability.isna().all()
    assert (table.epoch == 3).all()
    assert trainings == [(0, 1)]


def test_own_data_are_trained_on_under_their_name():
    mine = replace(load_data("digits"), name="mine", x_train=load_data("digits").x_train[:100], y_train=load_data("digits").y_train[:100])
    setting = {"init": "he", "width": 4, "depth": 2, "lr": 0.05, "epochs": 1}
    table = sweep([Setting(dataset="mine", **setting)], mine, device="cpu")
    assert table.dataset.tolist() == ["mine"]
    assert table.train_loss[0] != pytest.approx(sweep([Setting(**setting)], device="cpu").train_loss[0])
    with pytest.raises(ValueError, match=r"^dataset must be one of 'mine', not 'digits'\.$"):
        sweep([Setting(**setting)], mine, device="cpu")


def test_a_slice_begins_nothing_after_its_minutes_and_the_next_goes_on(tmp_path, trainings):
    out = tmp_path / "table.csv"
    assert sweep(TWO, out=out, minutes=0, device="cpu").empty
    assert trainings == []
    table = sweep(TWO, out=out, minutes=10, device="cpu")
    assert len(table) == 4


def test_an_executor_is_asked_for_each_setting_and_gives_the_same_table(tmp_path):
    whole = sweep(TWO, device="cpu")
    with ThreadPoolExecutor(2) as executor:
        assert_same(sweep(TWO, executor=executor, device="cpu"), whole)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        assert_same(sweep(TWO, executor=executor, out=tmp_path / "table.csv", device="cpu"), whole)
    assert_same(pd.read_csv(tmp_path / "table.csv"), whole)


def test_a_slice_on_an_executor_begins_nothing_after_its_minutes(monkeypatch):
    begun = []

    def slow(*arguments, **settings):
        begun.append(1)
        time.sleep(1)
        return train(*arguments, **settings)

    monkeypatch.setattr(robustnb.sweep, "train", slow)
    settings = grid(init="he", width=4, depth=[2, 3, 4, 5], lr=0.05, epochs=1)
    with ThreadPoolExecutor(1) as executor:
        assert sweep(settings, executor=executor, minutes=0, device="cpu").empty
        table = sweep(settings, executor=executor, minutes=0.3 / 60, device="cpu")
    assert len(begun) == len(table) == 1


def test_what_an_executor_finished_before_a_failure_is_kept(tmp_path):
    out = tmp_path / "table.csv"

    class Breaks(Executor):
        def submit(self, task, setting, *arguments):
            future = Future()
            if setting.init == "he":
                future.set_result(task(setting, *arguments))
            else:
                future.set_exception(RuntimeError("the worker is gone"))
            return future

    with pytest.raises(RuntimeError, match="the worker is gone"):
        sweep(TWO, executor=Breaks(), out=out, device="cpu")
    assert pd.read_csv(out).init.tolist() == ["he", "he"]
    assert len(sweep(TWO, out=out, device="cpu")) == 4


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "cannot be read as one (No columns to parse from file)."),
        ('a,b\n1,"2\n', "cannot be read as one ("),
        ("dataset,init\ndigits,he\n", "differs in its columns ("),
        (",".join(["surprise", *COLUMNS]) + "\n", "differs in its columns (surprise)."),
    ],
)
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path, trainings, content, says):
    out = tmp_path / "table.csv"
    out.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(says)) as refusal:
        sweep(TWO, out=out, device="cpu")
    assert str(refusal.value).startswith("out must be a results file")
    assert str(out) in str(refusal.value)
    assert out.read_text(encoding="utf-8") == content
    assert trainings == []


def test_a_network_too_large_for_the_machine_is_refused_before_any_training(monkeypatch, trainings):
    monkeypatch.setattr(robustnb.sweep, "free_bytes", lambda _: 2**20)
    settings = grid(init="he", width=[4, 4096], depth=3, lr=0.05, epochs=1)
    with pytest.raises(MemoryError, match=r"width=4096.* needs 0\.1 GiB for one network, of which 0\.0 GiB are free\.$"):
        sweep(settings, device="cpu")
    assert trainings == []


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The package as if it lay in this folder."""
    monkeypatch.setattr(robustnb.results, "__file__", str(tmp_path / "robustnb" / "results.py"))
    code_version.cache_clear()
    yield tmp_path
    code_version.cache_clear()


def test_code_version_is_the_package_version_with_the_commit_of_a_checkout():
    assert re.fullmatch(re.escape(version("robustnb")) + r"(\+g[0-9a-f]{7,40}(-dirty)?)?", code_version())


def test_code_version_names_the_commit_and_says_if_it_was_edited(elsewhere):
    def git(*arguments):
        command = ["git", "-C", str(elsewhere), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.strip()

    (elsewhere / "a").write_text("a", encoding="utf-8")
    for command in (("init", "-q"), ("add", "a"), ("commit", "-qm", "a")):
        git(*command)
    commit = f"{version('robustnb')}+g{git('rev-parse', '--short', 'HEAD')}"
    assert code_version() == commit
    (elsewhere / "a").write_text("b", encoding="utf-8")
    code_version.cache_clear()
    assert code_version() == f"{commit}-dirty"


def test_code_version_outside_a_checkout_is_the_package_version(elsewhere):
    assert code_version() == version("robustnb")


def test_code_version_without_git_is_the_package_version(elsewhere, monkeypatch):
    (elsewhere / ".git").mkdir()
    monkeypatch.setenv("PATH", str(elsewhere))
    assert code_version() == version("robustnb")


# The command.
def run(*arguments, **environment):
    command = [sys.executable, "-m", "robustnb.sweep", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False, env=os.environ | environment)


def test_the_command_measures_in_slices_and_writes_a_card(tmp_path, capsys):
    out = tmp_path / "rates.csv"
    first = run("digits_rates", "--scale", "quick", "--out", out, "--workers", 2, "--minutes", 0.01, OMP_NUM_THREADS="2")
    assert first.returncode == 0, first.stderr
    assert pd.read_csv(out).device.str.endswith(", 1 threads)").all()
    held = len(pd.read_csv(out))
    assert 0 < held < 14
    card = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert (card["rows"], card["networks_missing"]) == (held, 14 - held)
    assert card["command"] == "python -m robustnb.sweep digits_rates --scale quick --out rates.csv --workers 2"
    main(["digits_rates", "--scale", "quick", "--out", str(out)])
    second = capsys.readouterr().err
    assert "14 rows" in second
    assert "0 networks still missing" in second
    card = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert (card["rows"], card["networks_missing"]) == (14, 0)
    assert card["command"] == "python -m robustnb.sweep digits_rates --scale quick --out rates.csv"
    assert card["data_checksum"] == {"digits": load_data("digits").checksum}
    assert card["code_version"] == code_version()
    assert card["training_seconds"] == pytest.approx(pd.read_csv(out).seconds.sum(), abs=0.1)
    assert "wall time" in card["seconds_are"]


def test_the_card_is_that_of_the_rows_whenever_the_command_is_interrupted(tmp_path, monkeypatch):
    out, left = tmp_path / "rates.csv", [1, 1]

    def killed(*arguments, **settings):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return train(*arguments, **settings)

    monkeypatch.setattr(robustnb.sweep, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        main(["digits_rates", "--scale", "quick", "--out", str(out), "--device", "cpu"])
    card = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert card["rows"] == len(pd.read_csv(out)) == 2
    assert card["networks_missing"] == 12


def test_the_command_refuses_what_its_processes_cannot_hold_together(tmp_path, monkeypatch):
    """Each alone would fit."""
    needed = robustnb.sweep.member_bytes(inputs=64, outputs=10, width=64, depth=4, batch_size=64)
    monkeypatch.setattr(robustnb.sweep, "free_bytes", lambda _: 3 * needed)
    monkeypatch.setattr(robustnb.sweep, "ProcessPoolExecutor", lambda *_, **__: contextlib.nullcontext(Executor()))
    command = ["digits_rates", "--scale", "quick", "--out", str(tmp_path / "rates.csv"), "--device", "cpu", "--workers"]
    with pytest.raises(SystemExit, match=r"needs [\d.]+ GiB for one network, of which [\d.]+ GiB are free for each of 4 processes\.$"):
        main([*command, "4"])
    assert not list(tmp_path.iterdir())
    with pytest.raises(NotImplementedError):  # it came as far as to give one a training
        main([*command, "2"])


def test_a_process_that_dies_is_one_sentence(tmp_path, monkeypatch):
    def dies(*_, **__):
        raise BrokenProcessPool

    monkeypatch.setattr(robustnb.sweep, "_sweep", dies)
    with pytest.raises(SystemExit, match=r"^python -m robustnb\.sweep: A process of --workers ended .* with fewer of them\.$"):
        main(["digits_rates", "--scale", "quick", "--out", str(tmp_path / "rates.csv"), "--workers", "2"])


def test_a_pool_is_given_no_more_than_it_has_processes(trainings):
    """So that none begins when time is up: of what waits in a pool, some can no longer be taken back."""
    waiting = []

    class Counted(ThreadPoolExecutor):
        def submit(self, *task):
            future = super().submit(*task)
            waiting.append(future)
            assert sum(not future.done() for future in waiting) <= 2
            return future

    settings = grid(init=["he", "lecun", "ntk"], width=[4, 8], depth=2, lr=0.05, epochs=1)
    how = {"data": None, "out": None, "device": "cpu", "progress": False, "workers": 2}
    with Counted(2) as executor:
        assert len(robustnb.sweep._sweep(settings, executor=executor, minutes=None, **how)) == 6
        trainings.clear()
        assert robustnb.sweep._sweep(settings, executor=executor, minutes=0, **how).empty
    assert trainings == []


def test_the_command_lists_the_sweeps_with_their_cost(capsys):
    main(["--list"])
    said = capsys.readouterr().out
    assert re.search(r"^mnist +full +\d+ networks +\d+\.\d\d core hours", said, re.MULTILINE)
    assert re.search(r"^mnist +quick +\d+ networks +[1-9]\d* core seconds", said, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no-such-sweep", "--out", "x.csv"], "name must be one of 'digits', "),
        (["digits", "--scale", "huge", "--out", "x.csv"], "scale must be one of 'quick', 'full', not 'huge'."),
        (["digits"], "NAME and --out must be given, or --list."),
        (["digits", "--out", "x.json"], "--out must name a .csv file, beside which its card can lie, not x.json."),
        (["digits_rates", "--scale", "quick", "--out", "no-such-folder/x.csv"], "out must lie in a folder that is there"),
        (["digits_rates", "--scale", "quick", "--out", "x.csv", "--device", "warp"], "device must be"),
        (["digits_rates", "--scale", "quick", "--out", "x.csv", "--minutes", "-1"], "minutes must be"),
        (["digits_rates", "--scale", "quick", "--out", "x.csv", "--workers", "-1"], "workers must be"),
    ],
)
def test_the_command_refuses_in_a_sentence(tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as refusal:
        main(arguments)
    assert str(refusal.value).startswith(f"python -m robustnb.sweep: {says}")
    assert not list(tmp_path.iterdir())


def test_rows_along_the_way_are_measured_although_the_last_one_is_there(tmp_path):
    how = {"init": "he", "width": 4, "depth": 2, "lr": 0.05, "epochs": 4}
    end, along = grid(**how), grid(**how, every=1)
    out = tmp_path / "table.csv"
    assert sweep(end, out=out, device="cpu").epoch.tolist() == [4]
    for table in (sweep(along, out=out, device="cpu"), sweep(end + along, device="cpu"), sweep(along + end, device="cpu")):
        assert sorted(table.epoch) == [0, 1, 2, 3, 4]
    assert (sweep(end + along, out=out, device="cpu").seconds == pd.read_csv(out).seconds).all()  # nothing was trained again


def test_networks_that_diverge_keep_their_rows_in_any_company():
    """All end at once, or beside one that goes on: each has a row for each epoch asked for."""
    how = {"init": ["he", "m^-2"], "width": 8, "depth": 3, "epochs": 6, "every": 2, "init_seeds": (0, 1)}
    table = sweep(grid(**how, lr=1e4), device="cpu")
    assert table.groupby(["init", "init_seed"]).epoch.apply(list).tolist() == [[0, 2, 4, 6]] * 4
    assert table[(table.init == "he") & (table.epoch > 0)].diverged.all()


def test_data_must_be_scaled_as_the_settings_say():
    settings = grid(init="he", width=4, depth=2, lr=0.05, epochs=1, normalize="unit")
    with pytest.raises(ValueError, match=r"^normalize must be one of 'pixels', not 'unit'\.$"):
        sweep(settings, load_data("digits"), device="cpu")
    assert sweep(settings, load_data("digits", normalize="unit"), device="cpu").normalize.tolist() == ["unit"]


def test_a_name_in_other_digits_is_the_same_setting():
    assert Setting("m^-1.50", 4, 2, 0.1, 1) == Setting("m^-1.5", 4, 2, 0.1, 1)


def test_seconds_are_those_of_one_network(monkeypatch):
    def timed(*arguments, **settings):
        run = train(*arguments, **settings)
        return replace(run, history=run.history.assign(seconds=8.0))

    monkeypatch.setattr(robustnb.sweep, "train", timed)
    settings = grid(init="he", width=4, depth=2, lr=0.05, epochs=1, init_seeds=(0, 1, 2, 3))
    assert sweep(settings, device="cpu").seconds.tolist() == [2.0] * 4


def test_progress_is_shown_to_who_asks_for_it(capsys):
    settings, network = grid(init="he", width=4, depth=2, lr=0.05, epochs=1), fully_connected("he", inputs=64, width=4, depth=2, outputs=10)
    for asked in (False, True):
        sweep(settings, device="cpu", progress=asked)
        assert ("100% |" in capsys.readouterr().err) == asked
        train(network, load_data("digits"), epochs=1, lr=0.1, progress=asked)
        assert ("epochs" in capsys.readouterr().err) == asked
