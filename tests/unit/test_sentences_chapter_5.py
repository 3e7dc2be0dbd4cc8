"""What Sections 5.1 and 5.2 say of measured tables (see sentences.py)."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sentences import digits, means, says

from robustnb import figures, trends, verdicts
from robustnb.atlas import CONV_LR, FIT_LR, FITTED, NEAR_BEST, NON_LAZY, PAPER, RATES, load_atlas


def kappa(init, *, table="digits_two_layers"):
    """Mean lazy ratio: a row an epoch but the first, a column a width."""
    rows = load_atlas(table)
    return rows[(rows.init == init) & (rows.epoch > 0)].pivot_table("lazy_ratio", index="epoch", columns="width")


def test_settings_rates():
    says(
        "experiments_settings.ipynb",
        "the constant rates at which digits are trained to fit lie twenty to five hundred times higher.",
        "the *least* of nine rates at which networks of width 64 (depth 4; two layers for the non-lazy ones) classify 98.5 % of their training "
        "images correctly, on average over four seeds",
        "By the first row, small starts make a network wonderfully stable: $P/\\epsilon$ is next to nothing. By the second they do not.",
        "their loss is still that of the output 0",
        "On the digits, small starts need rates up to ten times He's: at the paper's rate they do not get off the ground there.",
    )
    rates = FIT_LR["digits"]
    assert (min(rates.values()) / PAPER["lr"], max(rates.values()) / PAPER["lr"]) == pytest.approx((20, 500))
    assert max(rates[init] for init in NON_LAZY) == pytest.approx(10 * rates["he"])
    assert (len(RATES), FITTED) == (9, 0.985)
    for name in ("digits_rates", "mnist_rates"):
        table = load_atlas(name)
        assert (table.width == 64).all()
        assert (table.depth == np.where(table.init.isin(NON_LAZY), 2, 4)).all()
        assert table.init_seed.nunique() == 4
    small = load_atlas("digits_rates").query("init == 'm^-1.5'").set_index("lr")
    assert small.loc[0.001, "untrained"].all()
    assert small.loc[0.001, "train_loss"].to_numpy() == pytest.approx(np.log(10), rel=0.01)
    assert small.loc[0.001, "stability"].max() < 0.001
    assert small.loc[0.5, "stability"].min() > 1
    slow = load_atlas("digits_rates").query("lr == 0.001")
    assert slow[slow.init.isin(NON_LAZY)].untrained.all()


def test_settings_convolutional_rates():
    says(
        "experiments_settings.ipynb",
        "do not all fit in the time that we can give them",
        "within one percentage point of the best of them, on average over two seeds",
    )
    table = load_atlas("convolutional_rates")
    assert table.groupby(["dataset", "model", "init", "lr"]).train_accuracy.mean().groupby(level=[0, 1, 2]).max().min() < FITTED
    assert (NEAR_BEST, table.init_seed.nunique()) == (0.01, 2)


def test_settings_what_is_left_out():
    says(
        "experiments_settings.ipynb",
        "draw a hollow symbol where most networks have learned *nothing*, and verdicts on the $P$ of trained networks leave out a width, or a "
        "depth, at which more than one network in eight has learned nothing or diverged.",
    )
    seeds = np.arange(16)
    for column in ("untrained", "diverged"):
        rows = [
            pd.DataFrame({"width": width, "init_seed": seeds, "stability": 1.0, "untrained": False, "diverged": False, column: seeds < bad})
            for width, bad in ((4, 3), (8, 2))
        ]
        assert trends.curve(pd.concat(rows), "width").index.tolist() == [8]
    axes = Figure().subplots()
    for bad, hollow in ((8, 0), (9, 1)):
        table = pd.DataFrame({"width": 4, "init_seed": seeds, "stability": 1.0, "untrained": seeds < bad, "diverged": False})
        figures.against(axes, table, "width")
        assert len(axes.lines[-1].get_xdata()) == hollow


def test_settings_differences_between_seeds():
    says("experiments_settings.ipynb", "they say how much networks differ, which in most settings is more.")
    of = digits().groupby(["init", "depth", "width"]).agg(apart=("stability", "std"), error=("stability_error", "mean"))
    assert (of.apart > of.error).mean() > 2 / 3


def test_settings_seeds_that_were_added():
    says(
        "experiments_settings.ipynb",
        "(`digits_cnn` and `digits_resnet`, Appendices [E.3](more_convolutional.ipynb) and [E.4](more_residual.ipynb)) had five seeds at first.",
        "and measured five more.",
    )
    for name in ("digits_cnn", "digits_resnet"):
        assert load_atlas(name).init_seed.nunique() == 10


def test_settings_wide_networks_fit_at_smaller_rates():
    says("experiments_settings.ipynb", "Wide networks fit at smaller rates (the atlas's table `digits_peak` has more of them).")
    table = load_atlas("digits_peak").query("normalize == 'pixels' and epoch == 50 and depth == 4")
    accuracy = table.pivot_table("train_accuracy", index="lr", columns="width")[[16, 32, 64, 128, 256]]
    assert (np.diff(accuracy, axis=1) > 0).all()
    least = [accuracy.index[accuracy[width] >= FITTED].min() for width in accuracy]
    assert np.isnan(least[0])
    assert (np.diff(least[1:]) <= 0).all()
    assert least[-1] < least[1]


def test_lazy_ratio_first_figure():
    says(
        "experiments_lazy_ratio.ipynb",
        "He’s curves lie lowest and its wider network below the narrower; the non-lazy curves lie above, and there the wider network lies above the narrower.",
        "He's solid curve (wide) lies *below* its dotted one (narrow): wider is lazier. For the two small starts it is the other way round.",
        "every curve rises to the end, and in its last epochs more slowly than at first.",
    )
    # The figure's networks are three of these, for 20 epochs.
    of = {init: kappa(init).loc[:20, [16, 128]] for init in ("he", "m^-1", "m^-2")}
    assert (of["he"][128] < of["he"][16]).all()
    for init in ("m^-1", "m^-2"):
        assert (of[init][128] > of[init][16]).all()
        assert (of[init].min(axis=1) > of["he"].max(axis=1)).all()
    for each in of.values():
        steps = np.diff(each, axis=0, prepend=0)
        assert (steps > 0).all()
        assert (steps[-1] < steps[0]).all()


def test_lazy_ratio_in_time():
    says(
        "experiments_lazy_ratio.ipynb",
        "On the digits, trained at a constant rate, κ under He slows down, but creeps up to the end. From the small start it has shot up before "
        "the first point, at epoch 5, while the network left the neighbourhood of 0 (at $m = 128$ κ is over 100 there). From then on it grows "
        "far more slowly than linearly",
        "On the digits, at a constant rate, it rises to the end, more and more slowly.",
    )
    for init in ("he", "m^-1.5"):
        of = kappa(init)
        slopes = np.diff(np.log(of), axis=0) / np.diff(np.log(of.index))[:, None]
        assert (slopes > 0.1).all()
        assert (slopes[-1] < 0.9 * slopes[0]).all()
        assert (np.diff(of.diff().dropna(), axis=0) < 0).mean() > 0.95
    assert (slopes < 0.75).all()
    assert (of.loc[5] > 0.35 * of.loc[50]).all()


def test_lazy_ratio_against_width():
    says(
        "experiments_lazy_ratio.ipynb",
        "On the digits, He's κ falls and all others rise. Their lines are nearly straight, so each is close to a power of the width.",
        "On the digits the way from small starts is nearly the same at every width from 32 on",
        "Under He it is shorter at the widest than at narrow ones, but by far less than the start grows.",
        "yet digits networks that are trained to fit differ little",
    )
    end = {init: kappa(init).loc[50] for init in ("he", *NON_LAZY)}
    widths = end["he"].index.to_numpy()
    for init, of in end.items():
        assert (np.diff(of) < 0).all() if init == "he" else (np.diff(of) > 0).all()
        assert np.corrcoef(np.log(widths), np.log(of))[0, 1] ** 2 > 0.97
        if init != "he":
            way = (of * widths ** (0.5 - float(init[3:]))).loc[32:]
            assert way.max() < 1.05 * way.min()
    start = np.sqrt(2 * widths) + np.sqrt(20)
    assert 0.5 < end["he"].iloc[-1] * start[-1] / (end["he"].iloc[0] * start[0]) < 0.8
    assert start[-1] > 5 * start[0]
    P = [means(load_atlas("digits_two_layers").query("epoch == 50"), init).loc[2] for init in ("m^-1.5", "m^-2", "m^-2.5")]
    assert max(abs(of / P[0] - 1).max() for of in P) < 0.06


def test_lazy_ratio_three_layers():
    says(
        "experiments_lazy_ratio.ipynb",
        "It is smaller than for two layers, but above 0: at these widths the first and the last matrix still count. With the norms of all three "
        "the argument gives the number in brackets.",
    )
    widths = 2.0 ** np.arange(3, 9)
    found = []
    for depth in (2, 3):
        of = trends.curve(digits().query("init == 'm^-1' and depth == @depth and 8 <= width <= 256"), "width", "lazy_ratio")
        found.append(trends.slopes(of, log=True).mean())
        norm = (np.sqrt(64 * widths) + (depth - 2) * widths + np.sqrt(10 * widths)) / widths
        assert found[-1] == pytest.approx(-np.polyfit(np.log(widths), np.log(norm), 1)[0], abs=0.05)
    assert 0 < found[1] < found[0]


def test_lazy_ratio_flat_is_a_mild_test():
    says(
        "experiments_lazy_ratio.ipynb",
        "Any power of the time up to 0.32 passes it, and on the digits the small starts pass it more easily than He. (On MNIST, trained to fit, "
        "He's κ grows by nearly a third at $m = 64$ and 512; three seeds leave that open.)",
    )
    assert np.log(1.25) / np.log(2) == pytest.approx(0.32, abs=0.005)
    late = {init: kappa(init).loc[50] / kappa(init).loc[25] for init in ("he", *NON_LAZY)}
    assert all((late["he"] > late[init]).all() for init in NON_LAZY)
    assert kappa("m^-1.5").index[0] == 5
    assert kappa("m^-1.5").loc[5, 128] > 100
    found = verdicts.verdicts().query("item == 'Fig. 2a' and where == 'MNIST, trained to fit' and when != 'm = 8'")
    assert found.n.tolist() == [3, 3]
    assert found.value.between(1.3, 1.33).all()
    assert (found.low > 1.25).all()
    assert (found.answer == "open").all()


def test_settings_edge_of_the_rates_and_halfway():
    says(
        "experiments_settings.ipynb",
        "(He gets halfway.)",
        "the rule gives the largest rate that was tried, and accuracy is still rising there",
    )
    assert load_atlas("digits_rates").query("init == 'he' and lr == 0.001").train_accuracy.mean() == pytest.approx(0.5, abs=0.05)
    accuracy = load_atlas("convolutional_rates").query("dataset == 'cifar10_sample'").groupby(["init", "lr"]).train_accuracy.mean()
    for init in ("he", "m^-2"):
        assert accuracy[init].index.max() == accuracy[init].idxmax() == CONV_LR["cifar10_sample"]["resnet"][init]
