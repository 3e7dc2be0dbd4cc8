"""The tests that decide the book's verdicts: their error rates, and that they see what is there."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from robustnb import claims, evidence, theory, verdicts
from robustnb.atlas import NON_LAZY, atlas_folder, load_atlas
from robustnb.convolutional_claims import convolutional_claims
from robustnb.decisions import ABOVE, BELOW, SAME, Condition, decide, holm
from robustnb.settings import KEY
from robustnb.trends import at_end, at_loss, curve, ends_at_top, peak_exponent, peak_place, peaks, slopes, steps, width_steps
from robustnb.verdicts import bullets, summary

RANDOM = np.random.default_rng(0)


def condition(*alternatives, bounds=ABOVE, when="here", claim="a claim", ratio=False, open_end=False):
    return Condition("Fig. 0", "page", claim, "there", when, "a number", alternatives, bounds, ratio, open_end)


def answer(*alternatives, **words):
    return decide([condition(*alternatives, **words)]).answer[0]


def test_holm_is_the_step_down_procedure():
    """Rejected are, from the least p on, those up to the first that exceeds level / (tests left)."""
    for _ in range(100):
        p = RANDOM.uniform(size=7) ** 3
        left, rejected = 7, set()
        for k in np.argsort(p):
            if p[k] > 0.05 / left:
                break
            rejected.add(int(k))
            left -= 1
        assert set(np.flatnonzero(holm(p) <= 0.05).tolist()) == rejected


def test_one_sample_is_students_test():
    sample = RANDOM.normal(0.3, 1, size=9)
    table = decide([condition((sample,))])
    expected = stats.ttest_1samp(sample, 0)
    assert table.p[0] == pytest.approx(expected.pvalue)
    assert [table.low[0], table.high[0]] == pytest.approx(list(expected.confidence_interval(0.95)))
    assert (table.value[0], table.n[0]) == (pytest.approx(sample.mean()), 9)


@pytest.mark.parametrize(
    ("mean", "bounds", "expected"),
    [(1, ABOVE, "yes"), (-1, ABOVE, "no"), (-1, BELOW, "yes"), (1, BELOW, "no"), (0, SAME, "yes"), (1, SAME, "no"), (-1, SAME, "no")],
)
def test_clear_samples_are_answered(mean, bounds, expected):
    assert answer((mean + 0.01 * RANDOM.normal(size=6),), bounds=bounds) == expected


def test_a_sample_that_says_little_is_left_open():
    assert answer((np.array([-1.0, 0.2, 1.0]),)) == "open"
    assert answer((np.array([-1.0, 0.2, 1.0]),), bounds=SAME) == "open"


def test_all_parts_must_hold_and_one_alternative_is_enough():
    up, down = (sign + 0.01 * RANDOM.normal(size=6) for sign in (1, -1))
    assert answer((up, up)) == "yes"
    assert answer((up, down)) == "no"
    assert answer((up, down), (up, up)) == "yes"
    assert answer((up, down), (down, up)) == "no"


@pytest.mark.parametrize("bounds", [ABOVE, BELOW, SAME])
@pytest.mark.parametrize("value", [-1.0, 0.0, 0.1, 1.0])
def test_a_sample_without_spread_decides_nothing(bounds, value):
    """As 0.1, three times, whose computed spread is not quite 0."""
    assert answer((np.full(3, value),), bounds=bounds) == "open"


@pytest.mark.parametrize("sign", [-1, 1])
def test_no_probability_is_rounded_to_nothing(sign):
    table = decide([condition((sign + 1e-3 * RANDOM.normal(size=24),))])
    assert 0 < table.p[0] < 1e-60


def test_what_may_yet_turn_is_confirmed_or_open():
    up, down = (sign + 0.01 * RANDOM.normal(size=6) for sign in (1, -1))
    assert answer((up,), open_end=True) == "yes"
    assert answer((down,), open_end=True) == "open"


@pytest.mark.parametrize(
    "alternatives",
    [
        lambda draw: ((draw(),),),
        lambda draw: ((draw(), draw() + 9),),  # one part at the boundary, the other far inside
        lambda draw: ((draw(), draw() - 9), (draw(), draw() - 9)),  # false, whatever is seen
        lambda draw: ((draw(),), (draw(),), (draw(),)),
    ],
)
def test_wrong_answers_are_rarer_than_the_error_rate(alternatives):
    """At the boundary of what is asked any answer is wrong in some direction; there may be 5 % of them."""
    rng = np.random.default_rng(1)
    answers = [answer(*alternatives(lambda: rng.normal(size=5))) for _ in range(400)]
    wrong = np.mean([given == "yes" for given in answers])
    # Three standard errors of a fraction of 400.
    assert wrong <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_the_error_rate_holds_for_all_conditions_together():
    rng = np.random.default_rng(2)
    any_wrong = [(decide([condition((rng.normal(size=5),), when=str(k)) for k in range(20)]).answer != "open").any() for _ in range(200)]
    assert np.mean(any_wrong) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_ratios_are_shown_as_ratios():
    sample = np.log(2) + 0.01 * RANDOM.normal(size=5)
    table = decide([condition((sample,), ratio=True)])
    assert table.value[0] == pytest.approx(np.exp(sample.mean()))
    assert table.low[0] < table.value[0] < table.high[0]
    assert table.least[0] == 1


def table_of(values, **columns):
    """Rows of a results table: values[x, seed]."""
    rows = [
        {"width": 2**k, "init_seed": seed, "stability": value, "diverged": False, "untrained": False}
        for k, row in enumerate(values)
        for seed, value in enumerate(row)
    ]
    return pd.DataFrame(rows).assign(**columns)


def test_a_curve_is_the_logarithm_for_each_seed_without_what_learned_nothing():
    table = table_of(np.full((4, 3), 2.0))
    table.loc[table.width == 8, "untrained"] = True
    of = curve(table, "width")
    assert of.index.tolist() == [1, 2, 4]
    assert of.to_numpy() == pytest.approx(np.log(2))


def test_peaks_steps_and_slopes_see_the_shape_of_a_curve():
    noise = 1 + 0.01 * np.random.default_rng(3).normal(size=(5, 6))
    rises_and_falls = curve(table_of(np.array([1, 2, 3, 2, 1.2])[:, None] * noise), "width")
    rises = curve(table_of(np.array([1, 2, 4, 8, 16])[:, None] * noise), "width")
    assert answer(*peaks(rises_and_falls)) == "yes"
    assert answer(*peaks(rises)) == "no"
    assert answer(steps(rises)) == "yes"
    assert answer(steps(rises_and_falls)) == "no"
    assert slopes(rises, log=True).mean() == pytest.approx(1, abs=0.02)


def test_peaks_are_differences_of_the_column_itself():
    ((first, last),) = peaks(curve(table_of(np.array([[1.0] * 3, [4.0] * 3, [2.0] * 3])), "width"))
    assert (first, last) == (pytest.approx(3.0), pytest.approx(2.0))


def test_a_curve_that_still_rises_where_it_ends_is_no_sign_against_a_peak(monkeypatch):
    noise = 1 + 0.01 * np.random.default_rng(3).normal(size=(5, 6))
    shapes = {"rises": [1, 2, 4, 8, 16], "falls": [16, 8, 4, 2, 1], "turns": [1, 2, 3, 2, 1.2]}
    tables = {
        name: table_of(np.array(of)[:, None] * noise, init="he", depth=2, dataset="mnist", decay=1.0, epoch=1)
        for name, of in shapes.items()
    }
    assert [ends_at_top(curve(table, "width")) for table in tables.values()] == [True, False, False]
    assert not ends_at_top(curve(tables["rises"].query("width < 0"), "width"))
    monkeypatch.setattr(claims, "at_equal_epochs_and_loss", lambda: iter(()))
    answers = decide([c for c in claims._width(tuple(tables.items()), ()) if c.item == "Fig. 4a"]).set_index("where").answer
    assert answers.to_dict() == {"rises": "open", "falls": "no", "turns": "yes"}


def test_widths_with_fewer_seeds_are_compared_by_those_they_share():
    table = table_of(np.array([[1, 1, 1, 1], [2, 2, 2, np.nan]]) * 1.0)
    assert [len(sample) for sample in steps(curve(table, "width"))] == [3]


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        (["yes", "yes"], "holds"),
        (["yes", "no"], "holds only in part"),
        (["yes", "no", "open"], "holds only in part"),
        (["yes", "open"], "holds where decided"),
        (["no", "no"], "does not hold"),
        (["no", "open"], "does not hold where decided"),
        (["open", "open"], "not decided"),
    ],
)
def test_a_claims_verdict_follows_from_its_conditions(answers, verdict):
    samples = {"yes": 1 + 0.01 * RANDOM.normal(size=6), "no": -1 + 0.01 * RANDOM.normal(size=6), "open": np.array([-1.0, 0.2, 1.0])}
    table = decide([condition((samples[given],), when=f"case {k}") for k, given in enumerate(answers)])
    assert table.answer.tolist() == answers
    (row,) = summary(table).itertuples()
    assert row.verdict == verdict
    cases = ", ".join(str(k) for k, given in enumerate(answers) if given == "yes")
    assert row.yes == (f"there (case {cases})" if cases else "")


def test_a_bullet_says_where_a_claim_got_which_answer_and_folds_where_it_got_none():
    samples = {"yes": 1 + 0.01 * RANDOM.normal(size=6), "open": np.array([-1.0, 0.2, 1.0])}
    whole, some, none = (
        bullets(summary(decide([condition((samples[given],), when=f"case {k}") for k, given in enumerate(answers)])))
        for answers in (["yes"], ["yes", "open"], ["open", "open"])
    )
    assert whole.endswith("holds.** It holds for there (case 0).\n")
    assert "holds where decided.** It holds for there (case 0).\n" in some
    assert "<summary>Not decided: 1 of 2 conditions</summary>\n\n  there (case 1)\n" in some
    assert "not decided.**\n" in none
    assert "<summary>Not decided: 2 of 2 conditions</summary>\n\n  there (case 0, 1)\n" in none


def test_a_bullet_writes_a_start_as_the_figures_do():
    table = decide([condition((1 + 0.01 * RANDOM.normal(size=6),), when=f"after 5 epochs, {init}") for init in ("m^-1", "m^-2.5")])
    assert bullets(summary(table)).endswith("(after 5 epochs, $m^{-1}$, $m^{-2.5}$).\n")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", ["stability", "lazy_ratio"])
def test_a_curve_is_what_the_groups_of_pandas_give(value):
    """On tables with holes: rows that are gone, values that are missing or 0, networks that diverged or learned nothing."""
    random = np.random.default_rng(5)
    whole = pd.concat([table_of(random.uniform(1, 2, size=(5, 9))).assign(batch_seed=seed, lazy_ratio=seed) for seed in (0, 1)])
    for _ in range(20):
        table = whole.sample(frac=0.9, random_state=random)
        table.loc[random.random(len(table)) < 0.05, value] = np.nan
        for mark in ("untrained", "diverged"):
            table[mark] = random.random(len(table)) < 0.08
        learned = ~table.diverged & ~(table.untrained & (value == "stability"))
        means = table[learned].groupby(["width", "init_seed"])[value].mean().unstack()
        share = learned.groupby(table.width).mean().loc[means.index]
        expected = means[share >= 7 / 8].dropna(thresh=3).dropna(axis=1, how="all").apply(np.log)
        pd.testing.assert_frame_equal(curve(table, "width", value), expected, rtol=1e-12)


def test_the_lazy_ratio_counts_networks_that_learned_nothing():
    table = table_of(np.full((2, 4), 2.0)).assign(lazy_ratio=3.0)
    table.loc[table.width == 1, "untrained"] = True
    table.loc[(table.width == 2), "diverged"] = True
    assert curve(table, "width", "lazy_ratio").index.tolist() == [1]
    assert curve(table, "width").empty


def test_a_width_at_which_many_networks_learned_nothing_is_left_out():
    """Those that learned are a selection there."""
    table = table_of(np.full((3, 8), 2.0))
    table.loc[(table.width == 1) & (table.init_seed < 2), "untrained"] = True
    table.loc[(table.width == 2) & (table.init_seed < 1), "untrained"] = True
    of = curve(table, "width")
    assert of.index.tolist() == [2, 4]
    assert of.loc[2].notna().sum() == 7


def test_the_peak_of_a_parabola_is_found_between_its_points():
    widths = 2.0 ** np.arange(1, 9)
    for place in (11.0, 16.0, 50.0):
        of = pd.DataFrame({seed: 1 - (np.log(widths / place)) ** 2 for seed in range(3)}, index=widths)
        assert peak_place(of) == pytest.approx(place)
    rising = pd.DataFrame(dict.fromkeys(range(3), widths), index=widths)
    assert np.isnan(peak_place(rising))


def peaked(places, noise, seed=0):
    """Curves against width whose peak lies at the given places, by depth."""
    rng, widths = np.random.default_rng(seed), 2.0 ** np.arange(1, 11)
    return {
        depth: pd.DataFrame({s: -0.3 * np.log(widths / place) ** 2 + noise * rng.normal(size=10) for s in range(8)}, index=widths)
        for depth, place in places.items()
    }


def test_the_exponent_of_the_peak_and_its_error_are_right():
    """Known exponents come out, and the 95 % interval holds the truth about that often."""
    places = {depth: 2 * depth**1.5 for depth in (2, 3, 4, 6, 8)}
    depths, exact = peak_exponent(peaked(places, noise=0))
    assert depths == [*places]
    assert exact == pytest.approx(np.full(8, 1.5))
    hits = 0
    for seed in range(100):
        _, sample = peak_exponent(peaked(places, 0.1, seed))
        low, high = stats.ttest_1samp(sample, 0).confidence_interval(0.95)
        hits += low < 1.5 < high
    assert 0.88 <= hits / 100 <= 1


def test_depths_whose_peak_lies_outside_give_no_exponent():
    depths, sample = peak_exponent(peaked({2: 4, 3: 16, 4: 9000, 6: 1e5}, noise=0))
    assert depths == [2, 3]
    assert len(sample) == 0


GETS_THERE, TOO_SLOW = (4.0, 2.0, 0.5, 1.5), (4.0, 3.5, 3.0, 2.5)


def runs(*losses):
    """Rows of a sweep after 0, 5, 10 and 15 epochs: the training losses of each seed."""
    other = {
        "stability": (1.0, 2.0, 8.0, 9.0),
        "stability_error": (0.1, 0.2, 0.8, 0.9),
        "lazy_ratio": (0.0, 0.1, 0.4, 0.5),
        "train_accuracy": (0.5, 0.55, 0.6, 0.65),
    }
    shown = {"epoch": (0, 5, 10, 15), "test_accuracy": 0.5} | other
    parts = [pd.DataFrame(dict.fromkeys(KEY, 0) | shown | {"init_seed": k, "train_loss": of}) for k, of in enumerate(losses)]
    return pd.concat(parts, ignore_index=True)


def test_networks_are_compared_when_they_first_reach_a_loss():
    """Between the two rows around it."""
    (row,) = at_loss(runs(GETS_THERE), 1.0).itertuples()
    # ln 2 → ln 1 is half the way to ln 0.5.
    assert (row.init_seed, row.train_loss, row.epoch) == (0, 1.0, 7.5)
    assert (row.stability, row.stability_error) == pytest.approx((4.0, 0.4))
    assert row.lazy_ratio == pytest.approx(0.2)
    assert row.train_accuracy == pytest.approx(0.575)
    (early,) = at_loss(runs(GETS_THERE), 3.0).itertuples()
    assert early.lazy_ratio == pytest.approx(0.1 * np.log(4 / 3) / np.log(2))


def test_a_setting_that_few_networks_bring_to_a_loss_is_left_out():
    narrow, wide = runs(*[GETS_THERE] * 6, *[TOO_SLOW] * 2).assign(width=1), runs(*[GETS_THERE] * 7, TOO_SLOW).assign(width=2)
    there = at_loss(pd.concat([narrow, wide]), 1.0)
    assert set(there.width) == {2}
    assert sorted(there.init_seed) == list(range(7))
    assert at_loss(runs(TOO_SLOW), 1.0).empty


def test_a_loss_that_was_there_from_the_first_row_on_says_nothing_of_when():
    assert at_loss(runs(GETS_THERE), 5.0).empty


@pytest.mark.parametrize(("column", "values"), [("lr", (0.05, 0.005)), ("normalize", ("pixels", "unit"))])
def test_a_curve_is_of_one_setting(column, values):
    parts = [runs(*[GETS_THERE] * 3).assign(diverged=False, untrained=False, width=8, **{column: value}) for value in values]
    curve(at_end(parts[0]), "width")
    both = at_end(pd.concat(parts))
    for average in (lambda: curve(both, "width"), lambda: width_steps(both, [])):
        with pytest.raises(ValueError, match=f"^table must hold one {column} for each width, not {min(values)}, {max(values)}[.]$"):
            average()


def test_a_step_in_width_can_rise_after_equal_epochs_and_fall_at_an_equal_loss():
    fast = (4.0, 1.0, 0.9, 0.8)
    narrow, wide = runs(*[GETS_THERE] * 8).assign(width=4), runs(*[fast] * 8).assign(width=8)
    # After all epochs P is 9 in the narrow networks, at a loss of 1 it is 4 there and 2 in the wide ones; times this.
    wide["stability"] *= np.where(wide.init_seed == 0, 0.5, 1.5)
    both = pd.concat([narrow, wide]).assign(diverged=False, untrained=False)
    end, same = width_steps(both, [1.0]).itertuples()
    shift = np.log([0.5] + [1.5] * 7)
    for row, changes, up in ((end, shift, 7), (same, shift + np.log(2 / 4), 0)):
        assert (row.width, row.next_width, row.up, row.n) == (4, 8, up, 8)
        assert row.change == pytest.approx(changes.mean())
        assert row.error == pytest.approx(changes.std(ddof=1) / np.sqrt(8))
    assert np.isnan(end.loss)
    assert same.loss == 1.0
    assert np.isnan(width_steps(both, 0.6).loss).all()  # the wide ones never get there


def test_every_claim_names_a_page_that_is_there_and_says_what_was_asked():
    table = verdicts.verdicts()
    assert {"Abstract", "Section 1", "Table 4", "Theorem 1", "Theorem 2", "Theorem 3", "Fig. 2a", "Fig. 8", "Conclusions"} <= set(
        table["item"]
    )
    for page, of in table.groupby("page"):
        assert (atlas_folder().parent / f"{page}.ipynb").is_file()
        asked = verdicts.numbers(page).asked
        for words, least, most in zip(asked, of.least, of.most, strict=True):
            expected = {"above": [least], "below": [most]}.get(words.split()[0], [least, most])
            assert [float(number) for number in re.findall(r"-?[\d.]+", words)] == pytest.approx(expected, abs=5e-3)


def test_networks_that_end_where_they_began_are_said_to():
    """Of Theorem 1's plateau: tables made up of the exact P before training, and of twice that."""
    rows = load_atlas("digits").query("init == 'he' and width == 256")
    exact = theory.stability_at_initialization("he", inputs=64, width=256, depth=rows.depth.to_numpy(), outputs=10)
    noise = np.exp(0.01 * RANDOM.normal(size=len(rows)))
    tables = {"as before": rows.assign(stability=exact * noise), "twice as much": rows.assign(stability=2 * exact * noise)}
    plateau = [condition for condition in claims._theory(tuple(tables.items()), ()) if condition.page == "lazy"]
    assert {condition.when for condition in plateau} == {"He, m = 256, L = 2", "He, m = 256, L = 3"}
    assert (theory.plateau_width([2, 3], outputs=10) < 256).all()
    answers = decide(plateau).groupby("where").answer.agg(set)
    assert (answers["as before"], answers["twice as much"]) == ({"yes"}, {"no"})


def two_layers(**changes):
    """The digits' table of two layers, given out as that of MNIST with the paper's schedule."""
    table = load_atlas("digits_two_layers").query("init_seed < 3")
    return table.assign(dataset="mnist", decay=0.8, **changes)


@pytest.fixture
def only(monkeypatch):
    """Conditions on nothing but one table of two layers."""
    for name in ("settings", "at_equal_loss", "with_ntk", "convolutional"):
        monkeypatch.setattr(claims, name, lambda: iter(()))

    def conditions(table):
        for module in (claims, evidence):
            monkeypatch.setattr(module, "measured", lambda: ("mnist_two_layers",))
            monkeypatch.setattr(module, "load_atlas", lambda name: table)
        return [condition for condition in claims.claims() if verdicts._has_seeds(condition)]

    return conditions


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "there",
    [
        *("width == 8", "width in (8, 16) and (width == 8 or init == 'he')", "init == 'he'", "init != 'he'", "init_seed < 2"),
        *("decay == 1 and width == 8", "width < 8", "width <= 64"),
    ],
)
def test_a_part_of_a_table_gives_the_conditions_that_it_can(only, there):
    table = pd.concat([two_layers(), two_layers().assign(decay=1.0)]).query(there)
    conditions = only(table)
    assert all(row.n >= 3 for row in (decide(conditions).itertuples() if conditions else ()))
    assert bool(conditions) == (
        there in ("init == 'he'", "init != 'he'", "width <= 64", "width == 8", "decay == 1 and width == 8") or "16" in there
    )


def test_early_is_before_half_of_the_loss_is_gone(only):
    def early(table):
        return {condition.when for condition in only(table) if condition.item == "Theorem 3"}

    assert early(two_layers(train_loss=2.0)) == {f"{init}, epoch 5" for init in NON_LAZY[1:]}
    assert early(two_layers(train_loss=1.0)) == set()


def test_a_straight_line_in_time_is_asked_of_the_first_rate_alone(only):
    """κ as it would be if it followed the sum of the rates."""
    table = two_layers()
    table["lazy_ratio"] = np.minimum(table.epoch, 10) * np.exp(0.01 * RANDOM.normal(size=len(table)))
    answers = decide([c for c in only(table) if c.item == "Fig. 3a"]).answer
    assert set(answers) == {"yes"}


def test_a_diverged_network_counts_as_one_that_guesses():
    table = load_atlas("digits_resnet").query("model == 'resnet' and epoch == 20").copy()
    table.loc[table.init == "m^-2", ["test_accuracy", "stability", "diverged"]] = [np.nan, np.nan, True]
    gaps = [c for c in convolutional_claims([("ResNet, digits", table)]) if c.item == "Table 4" and c.when.startswith("m^-2")]
    assert len(gaps) == 3
    assert all(sample.mean() < -0.8 for c in gaps for (sample,) in c.alternatives)


@pytest.mark.parametrize(("factor", "expected"), [(2, "yes"), (0.5, "yes"), (1, "no")])
def test_ntk_is_another_at_two_layers_above_or_below(monkeypatch, factor, expected):
    noise = np.exp(0.01 * np.random.default_rng(4).normal(size=(4, 6)))
    he = table_of(2 * noise, init="he", depth=2)
    ntk = table_of(2 * factor * noise[::-1], init="ntk", depth=2)
    ntk.loc[(ntk.width == 1) & (ntk.init_seed == 0), "stability"] *= 1e6  # at a width that another seed lacks
    ntk.loc[(ntk.width == 1) & (ntk.init_seed == 1), "stability"] = np.nan
    monkeypatch.setattr(claims, "with_ntk", lambda: iter([("made up", pd.concat([he, ntk]))]))
    of = [c for c in claims._more(()) if c.where == "made up" and c.claim == "NTK: at L = 2 P is unlike that under He"]
    assert decide(of).answer.tolist() == [expected]


def test_the_tally_is_a_sentence_for_one_claim_and_for_more():
    given = ["holds"] * 3 + ["holds where decided", "holds only in part", "holds only in part", "does not hold", "not decided"]
    claims = pd.DataFrame({"item": ["Fig. 1"] * len(given) + ["This book"], "verdict": [*given, "not decided"]})
    claims = claims.assign(conditions=4, undecided=3)
    assert verdicts.tally(claims) == (
        "Of the paper’s 8 claims, 3 hold and 1 holds where the data decide (1 of them by a single condition); 2 hold only in part; "
        "1 does not hold and 0 do not where the data decide; 1 is not decided."
    )
