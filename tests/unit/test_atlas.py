"""The committed atlas: complete, made as its card says, repeatable, and the book's first claims hold on it."""

from dataclasses import replace

import numpy as np
import pytest

from robustnb import load_data
from robustnb.figures import over_seeds
from robustnb.sweep import KEY, SWEEPS, load_atlas, load_card, sweep


def against_width(init, depth, column):
    """Means and standard errors over seeds, widths in order."""
    table = load_atlas("digits")
    summary = over_seeds(table[(table.init == init) & (table.depth == depth)], "width", column)
    return summary.width.to_numpy(), summary["mean"].to_numpy(), summary["error"].to_numpy()


def surely_larger(mean, error, i, j):
    """mean[i] > mean[j] by more than 4 standard errors of the difference (a false yes has probability under 1e-4)."""
    return mean[i] - mean[j] > 4 * np.hypot(error[i], error[j])


@pytest.mark.parametrize("name", SWEEPS)
def test_the_table_is_whole_and_the_card_tells_how_it_was_made(name):
    table, card, named = load_atlas(name), load_card(name), SWEEPS[name]()
    assert len(table) == card["rows"] == len(named.settings) * len(named.seeds)
    assert not table.duplicated([*KEY]).any()
    assert card["code_version"] == ", ".join(sorted(set(table.code_version)))
    assert "dirty" not in card["code_version"]
    assert card["data_checksum"] == {data: load_data(data).checksum for data in set(table.dataset)}
    assert card["about"] == named.about
    assert {"command", "device", "date", "torch", "init_seeds", "training_seconds"} <= set(card)


def test_a_cheap_row_of_the_atlas_comes_out_again():
    setting = next(s for s in SWEEPS["digits"]().settings if (s.init, s.width, s.depth) == ("he", 8, 2))
    again = sweep([setting], seeds=[0, 1], device="cpu")
    atlas = load_atlas("digits")
    rows = atlas[(atlas.init == "he") & (atlas.width == 8) & (atlas.depth == 2) & (atlas.init_seed < 2)]
    # Rounding differs between machines and thread counts, and training amplifies it.
    for column in ("stability", "lazy_ratio", "train_loss"):
        assert again[column].to_numpy() == pytest.approx(rows[column].to_numpy(), rel=0.02)
    other = sweep([replace(setting, lr=setting.lr * 1.5)], seeds=[0, 1], device="cpu")
    assert other.stability.to_numpy() != pytest.approx(rows.stability.to_numpy(), rel=0.02)


def test_stability_of_deep_he_networks_rises_and_then_falls_with_width():
    _, mean, error = against_width("he", 8, "stability")
    peak = int(mean.argmax())
    assert 0 < peak < len(mean) - 1
    assert surely_larger(mean, error, peak, 0)
    assert surely_larger(mean, error, peak, -1)
    assert (np.diff(mean[: peak + 1]) > 0).all()
    assert (np.diff(mean[peak:]) < 0).all()


def test_lazy_ratio_of_deep_he_networks_that_learned_falls_with_width():
    width, mean, error = against_width("he", 8, "lazy_ratio")
    learned = against_width("he", 8, "test_accuracy")[1] > 0.5
    assert width[learned].tolist() == [8, 16, 32, 64, 128, 256]
    assert (np.diff(mean[learned]) < 0).all()
    assert surely_larger(mean, error, 1, -1)


@pytest.mark.parametrize("init", ["m^-1", "m^-1.5"])
def test_stability_of_two_layer_non_lazy_networks_falls_with_width(init):
    # Width 4 is too narrow to learn the digits at all.
    width, mean, error = against_width(init, 2, "stability")
    wide = width >= 8
    assert (np.diff(mean[wide]) < 0).all()
    assert surely_larger(mean, error, 1, -1)
