"""The laboratory's kernel side: what it shows, and how it trains, stops and fails. (Its view is tested in Chromium.)"""

import gc
import os
import random
import subprocess
import sys
import threading
import time

import pytest
import torch
from comm import get_comm_manager
from ipywidgets.widgets.widget import _instances

from robustnb import fully_connected, load_data, non_lazy, train
from robustnb.atlas import load_atlas
from robustnb.widgets import Laboratory
from robustnb.widgets.view import RANGES, make_view

MOVES = 1000 if int(os.environ.get("ROBUSTNB_EXAMPLES", "25")) >= 1000 else 150
SETTING = {"init": 0, "c": 1.5, "width": 8, "depth": 2, "lr": 0.05, "epochs": 1, "seed": 0}


@pytest.fixture
def lab():
    return Laboratory(device="cpu")


def test_the_view_gets_means_and_standard_errors_of_the_atlas(lab):
    view, atlas = lab.view, load_atlas("digits")
    atlas = atlas[atlas.width <= 256]
    table, names = view.table, [series["name"] for series in view.series]
    assert len(table["n"]) == len(atlas[["init", "width", "depth"]].drop_duplicates())
    row = next(i for i, n in enumerate(table["n"]) if (names[table["init"][i]], table["depth"][i], table["width"][i]) == ("lecun", 6, 32))
    measured = atlas[(atlas.init == "lecun") & (atlas.depth == 6) & (atlas.width == 32)]
    each = measured.groupby("init_seed").stability.mean()
    assert table["n"][row] == len(each) == 8
    assert table["stability"][row] == pytest.approx(each.mean(), rel=1e-4)
    assert table["stability_error"][row] == pytest.approx(each.std() / 8**0.5, rel=1e-4)
    assert table["lr"][row] == measured.lr.iloc[0]
    assert table["test_accuracy"][row] == pytest.approx(measured.test_accuracy.mean(), rel=1e-4)
    shares = atlas.groupby(["init", "width", "depth", "init_seed"]).untrained.mean()
    assert sum(table["untrained"]) == (shares > 0.5).sum() > table["untrained"][row] == 0


def test_each_initialization_has_a_marker_of_its_own(lab):
    """The one that it has in the figures; colours alone do not tell lines apart for everybody."""
    markers = {series["name"]: series["marker"] for series in lab.view.series}
    assert len(set(markers.values())) == len(markers) == 7
    assert markers["ntk"] == "M0.0,-4.0L-4.0,4.0L4.0,4.0L0.0,-4.0Z"


def test_a_start_that_the_table_lacks_has_its_own_name():
    table = load_atlas("digits_depths")
    assert "ntk" not in set(table.init)
    view = make_view(load_data("digits"), table[table.epoch == 50])
    (ntk,) = [series for series in view.series if series["name"] == "ntk"]
    assert ntk["label"] == "NTK"
    assert {view.series[k]["name"] for k in view.table["init"]} == {"he", "lecun"}


def test_what_is_typed_says_its_range(lab):
    tooltips = {control.tooltip for control in lab.children[0].children}
    assert {"epochs, from 1 to 1,000", "exponent c, from 0.5 to 3", "seed, from 0 to 2,147,483,647"} < tooltips


def test_a_run_adds_its_point_and_repeats_the_atlas(lab):
    lab.train([SETTING | {"epochs": 50}]).join()
    assert lab.view.error == ""
    (point,) = lab.view.runs
    atlas = load_atlas("digits")
    (expected,) = atlas[
        (atlas.init == "he") & (atlas.depth == 2) & (atlas.width == 8) & (atlas.init_seed == 0) & (atlas.batch_seed == 0)
    ].stability
    assert point["stability"] == pytest.approx(expected, rel=0.02)
    assert lab.view.progress["message"].startswith("Done: P/ε = ")


def test_a_run_that_learned_nothing_says_so(lab):
    lab.train([SETTING | {"init": 3, "depth": 4}]).join()
    (point,) = lab.view.runs
    assert point["untrained"]
    assert "Untrained: its loss is still that of the output 0" in lab.view.progress["message"]
    lab.train([SETTING | {"epochs": 20}]).join()
    assert not lab.view.runs[-1]["untrained"]
    assert "ntrained" not in lab.view.progress["message"]


def test_a_second_run_ends_the_first_and_only_one_trains_at_a_time(lab):
    started = threading.Event()
    lab.view.observe(lambda change: started.set(), "progress")
    first = lab.train([SETTING | {"epochs": 1000, "width": 64}])
    assert started.wait(30)
    lab.train([SETTING]).join()
    assert not first.is_alive()
    assert [run["epochs"] for run in lab.view.runs] == [1]


def test_stop_ends_a_run_and_says_when(lab):
    lab.view.observe(lambda change: change.new.get("epoch", 0) >= 2 and lab.stop(), "progress")
    lab.train([SETTING | {"epochs": 1000}]).join()
    assert lab.view.runs == []
    ended = {"running": False, "paused": False, "message": "Stopped at epoch 2 of 1000."}
    assert lab.view.progress == {"run": 1, "of": 1} | ended


def test_a_sweep_trains_one_network_after_the_other(lab):
    lab.train([SETTING | {"width": width} for width in (4, 8, 16)]).join()
    assert [run["width"] for run in lab.view.runs] == [4, 8, 16]
    assert lab.view.progress["running"] is False


def test_a_pause_that_comes_with_the_last_word_of_a_run_does_not_take_it_back(lab):
    lab.view.progress = {"running": True}
    with lab.view.lock:  # the thread that trains has it, and writes its last word
        pause = threading.Thread(target=lab._on_message, args=(lab.view, {"kind": "pause"}, []))
        pause.start()
        pause.join(timeout=0.2)
        lab.view.progress = {"running": False, "message": "Done."}
    pause.join()
    assert lab.view.progress == {"running": False, "message": "Done."}


def test_pause_step_and_resume(lab):
    epochs = []
    lab.view.observe(lambda change: "epoch" in change.new and epochs.append(change.new["epoch"]), "progress")

    def waits_at(epoch):
        until = time.monotonic() + 20
        while epoch not in epochs:
            assert time.monotonic() < until
            time.sleep(0.01)
        thread.join(timeout=0.3)
        assert thread.is_alive()
        assert max(epochs) == epoch

    thread = lab.train([SETTING | {"epochs": 4}], paused=True)
    waits_at(0)
    lab._on_message(lab.view, {"kind": "step"}, [])
    waits_at(1)
    lab._on_message(lab.view, {"kind": "resume"}, [])
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert max(epochs) == 4


def test_reset_in_mid_run_stays_reset(lab):
    started = threading.Event()
    lab.view.observe(lambda change: change.new.get("epoch") == 1 and started.set(), "progress")
    thread = lab.train([SETTING | {"epochs": 1000}] * 2)
    assert started.wait(30)
    lab._on_message(lab.view, {"kind": "reset"}, [])
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert (lab.view.progress, lab.view.runs, lab.view.moves) == ({}, [], {})


def test_to_close_the_laboratory_ends_the_training(lab):
    thread = lab.train([SETTING | {"epochs": 1000}])
    lab.close()
    thread.join(timeout=20)
    assert not thread.is_alive()


def test_the_view_says_that_it_runs_before_the_first_epoch_is_measured(lab):
    states = []
    lab.view.observe(lambda change: states.append(change.new), "progress")
    lab.train([SETTING]).join()
    assert states[0] == {"running": True, "paused": False, "run": 1, "of": 1}


def held():
    """Widgets, comms and tensors that are alive."""
    gc.collect()
    tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
    return len(_instances), len(get_comm_manager().comms), tensors


def move(lab, dice):
    """What the browser sends when a reader moves or presses something."""
    view = lab.view
    kind = dice.choice(["train", "sweep", "pause", "resume", "step", "stop", "reset", "list", "number"])
    if kind == "list":
        name, count = dice.choice([("init", 4), ("width", 6), ("depth", 5), ("x", 2), ("y", 3)])
        view.set_state({f"{name}_index": dice.randrange(count)})
    elif kind == "number":
        name, (low, _, step) = dice.choice([*RANGES.items()])
        view.set_state({name: low + step * dice.randrange(4)})
    else:
        chosen = {name: getattr(view, name) for name in ("c", "lr", "epochs", "seed")}
        chosen |= {"init": view.init_index, "width": view.widths[view.width_index], "depth": view.depths[view.depth_index]}
        settings = [chosen] if kind == "train" else [chosen | {"width": width} for width in (4, 8, 16)]
        message = {"kind": "train", "settings": settings, "paused": dice.random() < 0.2} if kind in ("train", "sweep") else {"kind": kind}
        lab._on_message(view, message, [])


@pytest.mark.long
def test_random_moves_leave_nothing_behind(record_property):
    """150, or 1,000: after close() no thread, widget, comm or tensor is left of them."""
    record_property("cases", MOVES)
    first = Laboratory(device="cpu")
    first.train([SETTING]).join()  # it draws the perturbations, which are kept for all
    first.close()
    del first
    before = held()
    dice = random.Random(0)
    lab = Laboratory("Random?", device="cpu", width=8, depth=2)
    threads = threading.active_count()
    for _ in range(MOVES):
        move(lab, dice)
        time.sleep(0.005)
    assert lab.view.error == ""
    assert lab._log.outputs == ()
    lab._on_message(lab.view, {"kind": "reset"}, [])
    worker = lab._worker
    lab.close()
    worker.join(timeout=20)
    assert not worker.is_alive()
    del lab, worker
    assert held() == before
    assert threading.active_count() <= threads + 1  # autograd keeps one of its own


def test_an_exception_behind_a_button_shows_with_its_traceback(lab):
    lab._on_message(lab.view, {"kind": "train"}, [])
    assert lab.view.error == "KeyError: 'settings'"
    (output,) = lab._log.outputs
    assert output["output_type"] == "error"
    assert "Traceback" in output["traceback"][0]


def test_python_ends_while_a_laboratory_trains():
    code = "from robustnb.widgets import Laboratory\nlab = Laboratory(device='cpu')\nlab.train([{}])".replace(
        "{}", repr(SETTING | {"epochs": 1000})
    )
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, encoding="utf-8", timeout=120)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_perturbed_digits_go_through_the_network_that_was_trained(lab):
    lab.train([SETTING | {"width": 16, "seed": 3}]).join()
    digits, moves = lab.view.digits, lab.view.moves
    data = load_data("digits")
    network = fully_connected("he", inputs=64, width=16, depth=2, outputs=10, seeds=[3], device="cpu")
    trained = train(network, data, epochs=1, lr=0.05, batch_seed=3).network
    for label, radius in ((0, 0), (7, 30)):
        x = torch.tensor(digits["pixels"][label]) + digits["radii"][radius] * torch.tensor(digits["deltas"][label])
        assert moves["outputs"][label][radius] == pytest.approx(trained(x[None])[0, 0].tolist(), abs=1e-3)
    assert [data.y_test[(data.x_test - torch.tensor(pixels)).norm(dim=1).argmin()] for pixels in digits["pixels"]] == list(range(10))


def test_a_diverged_run_is_reported_as_diverged_and_adds_no_point(lab):
    lab.train([SETTING | {"lr": 1e8, "epochs": 50}]).join()
    assert lab.view.runs == []
    assert lab.view.progress["message"].startswith("Diverged at epoch ")


def test_an_error_shows_in_the_view_and_the_next_run_clears_it(lab):
    lab.train([SETTING | {"epochs": 0}]).join()
    assert lab.view.error == "ValueError: epochs must be a whole number of at least 1, not 0."
    (output,) = lab._log.outputs
    assert output["output_type"] == "error"
    assert "Traceback" in output["traceback"][0]
    lab.train([SETTING]).join()
    assert lab.view.error == ""
    assert lab._log.outputs == ()
    assert len(lab.view.runs) == 1


@pytest.mark.parametrize(
    ("argument", "value"),
    [("x", "length"), ("y", "loss"), ("init", "xavier"), ("width", 5), ("depth", 11), ("atlas", "cifar"), ("device", "warp")],
)
def test_an_opening_value_that_the_table_does_not_hold_is_named(argument, value):
    with pytest.raises(ValueError, match=rf"(^|name|device|{argument}) .*not '?{value}'?\.$"):
        Laboratory(**{argument: value})


def test_a_stop_between_two_networks_ends_the_run(lab):
    lab.view.observe(lambda change: lab.stop() if change["new"].get("message") else None, "progress")
    lab.train([SETTING, SETTING | {"seed": 1}]).join()
    assert len(lab.view.runs) == 1
    assert not lab.view.progress["running"]


def test_an_initialization_may_be_given_as_a_value_and_an_exponent_that_the_control_lacks_may_not():
    assert Laboratory(init=non_lazy(2), device="cpu").view.c == 2
    with pytest.raises(ValueError, match=r"^init must have an exponent from 0\.5 to 3 in steps of 0\.5, not 'm\^-5'\.$"):
        Laboratory(init="m^-5", device="cpu")
