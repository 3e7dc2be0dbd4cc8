import re
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest

import robustnb.sweep
from robustnb import fully_connected, load_data, train
from robustnb.sweep import KEY, MEASURED, Setting, code_version, load_atlas, load_card, sweep

SETTINGS = tuple(Setting(init=init, width=4, depth=2, lr=0.05, epochs=1) for init in ("he", "m^-1.5"))


@pytest.fixture
def trainings(monkeypatch):
    """The (init seeds) of each training that a sweep starts."""
    started = []

    def watched(network, *arguments, **settings):
        started.append(network.seeds)
        return train(network, *arguments, **settings)

    monkeypatch.setattr(robustnb.sweep, "train", watched)
    return started


def test_a_sweep_has_a_row_for_each_setting_and_seed_with_the_documented_columns():
    table = sweep(SETTINGS, seeds=(0, 1), device="cpu")
    assert set(table.columns) == {*KEY, *MEASURED, "device", "code_version", "seconds"}
    assert table[["dataset", "model", "init", "init_seed"]].values.tolist() == [
        ["digits", "fcn", init, seed] for init in ("he", "m^-1.5") for seed in (0, 1)
    ]
    assert (table[["width", "depth", "epochs", "batch_size", "batch_seed"]] == [4, 2, 1, 64, 0]).all(axis=None)
    assert (table[["loss", "lr"]] == ["cross_entropy", 0.05]).all(axis=None)
    assert not table.diverged.any()
    assert (table.seconds > 0).all()
    assert table.device.str.startswith("cpu (").all()
    assert set(table.code_version) == {code_version()}


@pytest.mark.parametrize("changes", [{}, {"loss": "squared", "batch_size": 500, "batch_seed": 3, "epochs": 2}])
def test_rows_hold_what_train_measures(tmp_path, changes):
    training = {"epochs": 1, "lr": 0.05, "loss": "cross_entropy", "batch_size": 64, "batch_seed": 0} | changes
    network = fully_connected("he", inputs=64, width=4, depth=3, outputs=10, seeds=(0, 1))
    expected = train(network, load_data("digits"), **training).final[list(MEASURED)]
    table = sweep([Setting("he", width=4, depth=3, **training)], seeds=(0, 1), out=tmp_path / "table.csv", device="cpu")
    for measured in (table, pd.read_csv(tmp_path / "table.csv")):
        # The file keeps six digits.
        pd.testing.assert_frame_equal(measured[list(MEASURED)], expected, check_dtype=False, rtol=1e-5)


def test_a_finished_sweep_trains_nothing_again(tmp_path, monkeypatch):
    out = tmp_path / "table.csv"
    table = sweep(SETTINGS, seeds=(0, 1), out=out, device="cpu")
    content = out.read_bytes()
    monkeypatch.setattr(robustnb.sweep, "train", lambda *_, **__: pytest.fail("trained again"))
    again = sweep(SETTINGS, seeds=(0, 1), out=out, device="cpu")
    pd.testing.assert_frame_equal(again, table, check_dtype=False, rtol=1e-5)
    assert out.read_bytes() == content


def test_a_sweep_trains_only_what_its_file_lacks(tmp_path, trainings):
    out = tmp_path / "table.csv"
    whole = sweep(SETTINGS, seeds=(0, 1), device="cpu")
    sweep(SETTINGS[:1], seeds=(1,), out=out, device="cpu")
    trainings.clear()
    table = sweep(SETTINGS, seeds=(0, 1), out=out, device="cpu")
    assert trainings == [(0,), (0, 1)]
    columns = [*KEY, *MEASURED]
    in_order = [frame.sort_values(["init", "init_seed"], ignore_index=True)[columns] for frame in (table, whole)]
    pd.testing.assert_frame_equal(*in_order, check_dtype=False, rtol=1e-5)


@pytest.mark.parametrize(
    "change", [{"lr": 1 / 30}, {"lr": 1e-7}, {"epochs": 0}, {"loss": "squared"}, {"init": "m^-0.75"}, {"batch_seed": 1}]
)
def test_any_setting_is_found_again_in_its_file_and_taken_for_no_other(tmp_path, trainings, change):
    out = tmp_path / "table.csv"
    settings = {"init": "he", "width": 4, "depth": 2, "lr": 0.05, "epochs": 1}
    for _ in range(2):
        table = sweep([Setting(**settings), Setting(**(settings | change))], seeds=(0,), out=out, device="cpu")
    assert trainings == [(0,), (0,)]
    assert len(table) == 2


def test_the_file_is_a_whole_table_whenever_a_sweep_is_cut_short(tmp_path, monkeypatch):
    out = tmp_path / "table.csv"
    held = []

    def cut_short(network, *arguments, **settings):
        held.append(len(pd.read_csv(out)) if out.exists() else 0)
        if len(held) == 3:
            raise KeyboardInterrupt
        return train(network, *arguments, **settings)

    monkeypatch.setattr(robustnb.sweep, "train", cut_short)
    three = (*SETTINGS, Setting(init="ntk", width=4, depth=2, lr=0.02, epochs=1))
    with pytest.raises(KeyboardInterrupt):
        sweep(three, seeds=(0, 1), out=out, device="cpu")
    assert held == [0, 2, 4]
    assert pd.read_csv(out)[["init", "init_seed"]].values.tolist() == [["he", 0], ["he", 1], ["m^-1.5", 0], ["m^-1.5", 1]]
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The package as if it lay in this folder."""
    monkeypatch.setattr(robustnb.sweep, "__file__", str(tmp_path / "robustnb" / "sweep.py"))
    code_version.cache_clear()
    yield tmp_path
    code_version.cache_clear()


def test_code_version_is_the_package_version_with_the_commit_of_a_checkout():
    assert re.fullmatch(re.escape(version("robustnb")) + r"(\+g[0-9a-f]{7,40}(-dirty)?)?", code_version())


def test_code_version_outside_a_checkout_is_the_package_version(elsewhere):
    assert code_version() == version("robustnb")


def test_code_version_without_git_is_the_package_version(elsewhere, monkeypatch):
    (elsewhere / ".git").mkdir()
    monkeypatch.setenv("PATH", str(elsewhere))
    assert code_version() == version("robustnb")


@pytest.mark.parametrize("load", [load_atlas, load_card])
def test_an_unknown_atlas_name_is_refused_in_a_sentence(load):
    with pytest.raises(ValueError, match=r"^name must be one of ('\w+', )*'digits'(, '\w+')*, not 'no-such-table'\.$"):
        load("no-such-table")


def test_an_atlas_is_read_from_its_folder(tmp_path, monkeypatch):
    table = sweep(SETTINGS, seeds=(0,), out=tmp_path / "digits.csv", device="cpu")
    monkeypatch.setattr(robustnb.sweep, "atlas_folder", lambda: tmp_path)
    pd.testing.assert_frame_equal(load_atlas("digits"), table, check_dtype=False, rtol=1e-5)


def test_the_command_writes_a_table_and_its_card(tmp_path, monkeypatch, capsys):
    named = robustnb.sweep.Sweep("Two settings.", SETTINGS, (0, 1))
    monkeypatch.setitem(robustnb.sweep.SWEEPS, "digits", lambda: named)
    robustnb.sweep.main(["digits", "--out", str(tmp_path / "digits.csv"), "--device", "cpu"])
    monkeypatch.setattr(robustnb.sweep, "atlas_folder", lambda: Path(tmp_path))
    card = load_card("digits")
    assert len(load_atlas("digits")) == card["rows"] == 4
    assert card["about"] == "Two settings."
    assert card["command"] == "python -m robustnb.sweep digits --out digits.csv"
    assert card["data_checksum"] == {"digits": load_data("digits").checksum}
    assert card["init_seeds"] == [0, 1]
    assert card["code_version"] == code_version()
    assert "4 rows" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits.csv", "digits.json"]
