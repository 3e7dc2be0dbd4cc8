"""What the figures say beyond their curves."""

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from robustnb import figures, theory
from robustnb.atlas import NON_LAZY
from robustnb.initialization import NAMED


@pytest.fixture
def axes():
    mpl.use("agg")
    fig, axes = plt.subplots()
    yield axes
    plt.close(fig)


def test_every_initialization_has_a_look_of_its_own():
    looks = [figures.init_style(init) for init in (*NAMED, *NON_LAZY)]
    for part in ("color", "marker", "label"):
        assert len({look[part] for look in looks}) == len(looks), part


def test_settings_whose_seeds_are_mostly_untrained_get_a_hollow_marker(axes):
    runs = [
        {"width": w, "init_seed": s, "stability": w + s, "diverged": False, "untrained": s < dead}
        for w, dead in ((4, 3), (8, 2), (16, 0))
        for s in range(4)
    ]
    summary = figures.against(axes, pd.DataFrame(runs), "width")
    assert summary.untrained.tolist() == [3, 2, 0]
    curve, hollow = axes.lines
    assert curve.get_xdata().tolist() == [4, 8, 16]
    assert hollow.get_xdata().tolist() == [4]
    assert hollow.get_markerfacecolor() == "white"
    assert hollow.get_markeredgecolor() == curve.get_color()


def test_runs_that_diverged_are_left_out(axes):
    runs = [{"width": 4, "init_seed": v, "stability": v, "diverged": v > 9, "untrained": False} for v in (1.0, 3.0, 10.0)]
    summary = figures.over_seeds(pd.DataFrame(runs), "width")
    assert summary[["mean", "n", "untrained"]].values.tolist() == [[2.0, 2.0, 0.0]]


def test_the_error_is_over_initializations_not_over_batch_orders(axes):
    """Batch orders of one initialization are no independent seeds: each pair counts once, by its mean."""
    runs = [
        {"width": 4, "init_seed": seed, "batch_seed": order, "stability": seed + order, "diverged": False, "untrained": False}
        for seed in (0.0, 1.0, 2.0)
        for order in (0, 10)
    ]
    (row,) = figures.over_seeds(pd.DataFrame(runs), "width").itertuples()
    assert (row.mean, row.n) == (6.0, 3)
    assert row.error == pytest.approx(1 / 3**0.5)


def test_networks_of_several_settings_are_not_averaged():
    runs = [{"width": 4, "init_seed": 0, "lr": lr, "stability": 1.0, "diverged": False, "untrained": False} for lr in (0.1, 0.2)]
    with pytest.raises(ValueError, match=r"^table must hold one lr for each width, not 0\.1, 0\.2\.$"):
        figures.over_seeds(pd.DataFrame(runs), "width")


def test_a_band_is_two_standard_errors_to_each_side(axes):
    runs = [{"width": w, "init_seed": s, "stability": w + s, "diverged": False, "untrained": False} for w in (4, 8) for s in (0, 1, 2)]
    figures.against(axes, pd.DataFrame(runs), "width")
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((5 - 2 / 3**0.5, 9 + 2 / 3**0.5))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["4", "8"]


def test_the_exact_curve_is_that_of_theory(axes):
    figures.exact_at_initialization(axes, "lecun", [4, 8], 3, inputs=64, outputs=10)
    (line,) = axes.lines
    exact = [float(theory.stability_at_initialization("lecun", inputs=64, width=m, depth=3, outputs=10)) for m in (4, 8)]
    assert (line.get_xdata().tolist(), line.get_linestyle()) == ([4, 8], "--")
    assert line.get_ydata() == pytest.approx(exact)
