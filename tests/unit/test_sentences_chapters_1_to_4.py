"""What Chapters 1 to 4, the landing page and the page of what is proved say of measured tables (see sentences.py)."""

import numpy as np
import pytest
from sentences import DEPTHS, before, digits, means, says

from robustnb import theory, trends
from robustnb.atlas import load_atlas


def test_a_quotation_that_is_not_on_its_page_is_noticed():
    with pytest.raises(AssertionError, match="no longer says"):
        says("index.ipynb", "Networks are never robust.")


def test_index_width():
    says(
        "index.ipynb",
        "A very narrow deep network hardly reacts, because it has hardly learned. With more neurons the reaction grows, peaks, and falls again: "
        "past the peak all networks fit their training data, and the wider ones are more stable.",
        "it rises from width 4, peaks in the middle and falls towards the widest networks",
        "A deep network of width 4 hardly learns the digits",
    )
    P = means(digits(), "he").loc[8].dropna()
    top = P.loc[:64].idxmax()
    assert P[4] < 0.2 * P.max()
    assert P.index[1] < top < 256
    assert (np.diff(P.loc[64:]) < 0).all()
    fitted = means(digits(), "he", value="train_accuracy").loc[8]
    assert fitted[4] < 0.2
    assert (fitted.loc[64:256] > 0.99).all()


@pytest.mark.parametrize("init", ["he", "lecun"])
def test_index_depth(init):
    says(
        "index.ipynb",
        "rises steeply from two layers to about six and then declines a little, but stays well above that of two layers, under both.",
        "trained curves of He and LeCun rise steeply up to depth 6 and then fall a little; before training He stays flat and LeCun falls towards zero.",
    )
    P, start = means(digits(), init)[256], before(init, width=256, depth=DEPTHS)
    assert P.index.tolist() == DEPTHS
    assert (np.diff(P.loc[:6]) > 0).all()
    assert P[6] > 1.5 * P[2]
    assert (np.diff(P.loc[6:]) < 0).all()
    assert P[6] > P[10] > 1.4 * P[2]
    assert (start[-1] > 0.95 * start[0]) if init == "he" else (start[-1] < 0.1 * start[0])


def test_index_initialization():
    says(
        "index.ipynb",
        "Trained until they fit, as here, they are *less* stable than He's, and from width 32 on width hardly matters",
        "both non-lazy curves of P/ε lie above He's; they fall until width 32 and are flat from there on. All three have learned from width 16 on.",
    )
    he = means(digits(), "he").loc[2]
    for init in ("m^-1", "m^-1.5"):
        P = means(digits(), init).loc[2]
        assert (he < P).all()
        assert (np.diff(P.loc[:32]) < 0).all()
        assert (abs(P.loc[32:] / P[32] - 1) < 0.05).all()
        assert P[4] > 1.3 * P[32]
    for init in ("he", "m^-1", "m^-1.5"):
        assert (means(digits(), init, value="test_accuracy").loc[2, 16:] > 0.95).all()


def test_introduction():
    says(
        "introduction.ipynb",
        "On digits, $P/\\epsilon$ of deep networks rises and then falls with width, and the peak moves to larger widths with depth.",
        "by and large, the deeper the ",
        "From width {lowest.min()} on the curve of two layers lies lowest.",
        "and no further; at width",
    )
    he = means(digits(), "he").loc[:, :256]
    peaks = he.idxmax(axis=1)
    for depth in (4, 6, 8, 10):
        assert he.columns[0] < peaks[depth] < he.columns[-1]
    assert peaks[8] > peaks[6] > peaks[4]
    assert peaks[10] > peaks[6]
    assert np.polyfit(np.log(DEPTHS), np.log(peaks), 1)[0] > 0.5
    assert (he.loc[:, 8:].idxmin() == 2).all()
    for init in ("he", "ntk"):  # turn up again
        two = means(digits(), init).loc[2]
        assert two.iloc[-1] > 1.1 * two.loc[32:].min()


def test_setting():
    says(
        "setting.ipynb",
        "Under LeCun, trained networks are less stable at depth 6 than at depth 2, at every width from 8 on; beyond they level out or recover. "
        "None keeps the exponential gain that it started with.",
        "while the dashed line only falls",
    )
    P = means(digits(), "lecun").loc[:, 8:256]
    assert (P.loc[6] > P.loc[2]).all()
    assert (P.loc[10] < P.loc[6]).all()
    for width in P.columns:
        start = before("lecun", width=width, depth=DEPTHS)
        assert (np.diff(start) < 0).all()
        assert P.loc[10, width] / P.loc[2, width] > 5 * start[-1] / start[0]


def test_lazy_bound_and_networks():
    says(
        "lazy.ipynb",
        "The bound rises far above the trained networks at depth 8 and lies below them at depth 2 and large width; "
        "the value before training lies below the trained networks wherever they have learned.",
        "the bound gets the direction of the peak's move right, not its speed and not the sizes.",
    )
    he, learned = means(digits(), "he").loc[:, :256], means(digits(), "he", value="test_accuracy")
    ratio = {d: theory.theorem_1("he", inputs=64, width=he.columns, depth=d, outputs=10).total / he.loc[d] for d in (2, 4, 8)}
    assert ratio[8].max() > 10
    assert (ratio[2].loc[64:] < 1).all()
    for depth in (2, 4, 8):
        start = before("he", width=he.columns, depth=depth)
        assert (he.loc[depth] > start)[learned.loc[depth, he.columns] > 0.5].all()


@pytest.mark.parametrize("init", ["he", "lecun", "ntk"])
def test_lazy_peaks(init):
    says(
        "lazy.ipynb",
        "the measured peaks move to larger widths with depth, far more slowly than the line.",
        "In trained digits networks the peak exists and moves to larger widths with depth, but more slowly than $L^3$",
    )
    P = means(digits(), init).loc[:, :256]
    peaks = P.idxmax(axis=1)
    assert peaks.between(8, 128).all()
    assert 0 < np.polyfit(np.log(DEPTHS), np.log(peaks), 1)[0] < 2


def test_lazy_depth_under_lecun():
    says(
        "lazy.ipynb",
        "the exact value before training falls steeply, the trained networks rise from two layers on, at first steeply.",
        'LeCun\'s "depth helps" does not survive training to fit.',
        "the exact value *before* training falls a little with depth at every finite width",
    )
    P, start = means(digits(), "lecun")[64], before("lecun", width=64, depth=DEPTHS)
    assert start[-1] < 0.1 * start[0]
    assert P[3] > 1.3 * P[2]
    assert (P.loc[3:] > 1.3 * P[2]).all()
    for width in (4, 64, 1024):
        assert (np.diff(before("he", width=width, depth=DEPTHS)) < 0).all()


def test_early_training_at_the_end_of_training():
    says("early_training.ipynb", "from width 32 on, its networks end at nearly one loss, and at nearly one $P/\\epsilon$.")
    P, loss = (means(digits(), "m^-1.5", value=value).loc[2, 32:] for value in ("stability", "train_loss"))
    assert P.index.max() == 2048
    assert P.max() < 1.05 * P.min()
    assert loss.max() < 1.25 * loss.min()
    assert loss.max() < 0.1 * np.log(10)


def test_status_theorem_1_orders():
    says("status.md", "**Theorem 1 orders, it does not predict sizes**")
    he = means(digits(), "he").loc[:, 8:256]
    bound = theory.theorem_1("he", inputs=64, width=he.columns, depth=np.array(he.index)[:, None], outputs=10).total
    assert (bound / he).to_numpy().max() > 20 * (bound / he).to_numpy().min()


def test_status_depth():
    says(
        "status.md",
        "holds before training and turns around in networks that were trained to fit",
        "is about trained networks; before training the exact value falls with depth at every finite width",
    )
    for init in ("he", "lecun"):
        P = means(digits(), init).loc[:, 16:256]
        assert (P.loc[6] > P.loc[2]).all()
        for width in P.columns:
            assert (np.diff(before(init, width=width, depth=DEPTHS)) < 0).all()


def test_status_a_small_lazy_ratio_is_not_lazy_training():
    says(
        "status.md",
        "**A small lazy ratio is not lazy training** for deep networks with tiny weights: they have not left the saddle at zero.",
    )
    deep = digits()[(digits().init == "m^-1") & (digits().depth == 4)]
    stuck = deep[deep.width >= 64]
    assert stuck.untrained.all()
    assert stuck.lazy_ratio.max() < 0.25
    assert deep[~deep.untrained].lazy_ratio.min() > 1


def test_status_rise_and_fall():
    says(
        "status.md",
        "shows after a fixed number of epochs, and its peak moves with the learning rate and the epochs as much as with depth. At an equal loss it falls, from the narrowest networks that get there",
    )
    table = load_atlas("digits_peak").query("normalize == 'pixels'")
    peaks = table.groupby(["lr", "epoch", "depth", "width"]).stability.mean().unstack().idxmax(axis=1).pipe(np.log2)
    by_depth = peaks.groupby(["lr", "epoch"]).agg(np.ptp)
    by_training = peaks.groupby("depth").agg(np.ptp)
    assert by_training.median() >= by_depth.median()
    for init in ("he", "lecun"):
        table = load_atlas("digits_depths")
        table = table[table.init == init]
        equal = trends.at_loss(table, 0.1).pivot_table("stability", index="depth", columns="width")
        # The wider of two widths is nowhere less stable by more than 3 %.
        assert (equal.T.pct_change(fill_method=None).stack().dropna() < 0.03).all()


def test_status_non_lazy_networks():
    says(
        "status.md",
        "holds while they have not learned. On the digits, trained to fit with cross-entropy, or at equal loss from width 64 on, "
        "they are less stable than He's; with the squared loss, from width 32 on, they are more stable",
        "it falls under He and rises as $m^{c - 1/2}$ from small starts",
    )
    along = load_atlas("digits_two_layers")
    fitted, equal, early, squared = digits(), trends.at_loss(along, 0.2), load_atlas("digits_paper"), load_atlas("digits_squared")
    for init in ("m^-1", "m^-1.5", "m^-2"):
        for table, narrowest in ((fitted, 4), (equal, 64)):
            assert (means(table, init).loc[2, narrowest:] > means(table, "he").loc[2, narrowest:]).all()
        assert (means(squared, init).loc[2, 32:] < means(squared, "he").loc[2, 32:]).all()
        gap = (means(early, init).loc[2] < means(early, "he").loc[2])[means(early, init, value="untrained").loc[2] > 0.5]
        assert len(gap) > 0
        assert gap.all()
        kappa = means(fitted, init, value="lazy_ratio").loc[2, 8:256]
        assert np.polyfit(np.log(kappa.index), np.log(kappa), 1)[0] == pytest.approx(float(init[3:]) - 0.5, abs=0.1)
    assert (np.diff(means(fitted, "he", value="lazy_ratio").loc[2, 8:256]) < 0).all()


def test_status_residual_networks():
    says(
        "status.md",
        "without it and with branches scaled by the number of blocks, depth made next to no difference",
        "**A similar accuracy of lazy and non-lazy residual networks** says little about laziness",
    )
    table = trends.at_end(load_atlas("digits_resnet"))
    with_norm, without = (means(table, "he", seeds=10, model=model) for model in ("resnet", "scaled_resnet"))
    assert (np.diff(with_norm, axis=0) > 0).all()
    assert (with_norm.loc[20] > 1.4 * with_norm.loc[8]).all()
    assert abs(np.log(without.loc[20] / without.loc[8])).max() < 0.2
    lazy, non_lazy = (means(table, init, value="test_accuracy", seeds=10, model="resnet")[8] for init in ("he", "m^-2"))
    assert abs(lazy - non_lazy).max() < 0.03


def test_lazy_where_the_seeds_put_the_peak():
    says("lazy.ipynb", "the largest is {of_all.max():.2f} at width {of_all.idxmax()}: the curve is flat there.")
    says("experiments_width.ipynb", "of the figure before at {flat:.0f}: the curve is flat there.")
    P = digits().query("init == 'he' and depth == 8").groupby("width").stability.mean()
    assert P.loc[16:64].max() < 1.05 * P.loc[16:64].min()
