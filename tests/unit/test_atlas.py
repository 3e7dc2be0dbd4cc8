"""The committed atlas: complete, made as its card says, repeatable, and the book's first claims hold on it."""

import os
import re
from dataclasses import replace

import nbformat
import numpy as np
import pytest

from robustnb import is_untrained, load_data
from robustnb.atlas import (
    CONV_LR,
    CONV_TRIAL,
    FIT_LR,
    FITTED,
    LAZY,
    NEAR_BEST,
    NON_LAZY,
    SCALES,
    SWEEPS,
    atlas_folder,
    get_sweep,
    load_atlas,
    load_card,
    measured,
)
from robustnb.data import DATASETS
from robustnb.results import COLUMNS, SECONDS_ARE
from robustnb.settings import KEY
from robustnb.sweep import sweep


@pytest.mark.parametrize("name", measured())
def test_the_table_is_of_its_sweep_and_the_card_tells_how_it_was_made(name):
    table, card, named = load_atlas(name), load_card(name), get_sweep(name)
    assert list(table.columns) == COLUMNS
    assert not table.duplicated([*KEY]).any()
    asked = {setting.keys(seed)[-1] for setting in named.settings for seed in setting.init_seeds}
    held = {tuple(row) for row in table[[*KEY]].itertuples(index=False)}
    # Rows along the way belong to networks of the sweep, too.
    assert {key[:-1] for key in held} <= {key[:-1] for key in asked}
    assert card["networks_missing"] == len(asked - held)
    assert card["rows"] == len(table)
    assert card["code_version"] == ", ".join(sorted(set(table.code_version)))
    assert "dirty" not in card["code_version"]
    assert set(card["data_checksum"]) == set(table.dataset)
    for data, checksum in card["data_checksum"].items():
        folder = {"mnist": "mnist", "cifar10_sample": "cifar-10-sample"}.get(data)
        if folder is None or os.path.isdir(os.path.join(os.environ.get("ROBUSTNB_DATA", ""), folder)):
            assert checksum == load_data(data).checksum
    assert (card["item"], card["about"], card["cut"]) == (named.item, named.about, named.cut)
    assert {"command", "device", "date", "torch", "init_seeds", "batch_seeds", "training_seconds"} <= set(card)
    assert card["seconds_are"] == SECONDS_ARE


@pytest.mark.parametrize("name", SWEEPS)
def test_what_was_cut_is_said_with_why(name):
    cut = get_sweep(name).cut
    assert cut == "" or re.search(r"cost|hours|days|since|which|where|see |beside|begin", cut)


@pytest.mark.parametrize("name", ["digits_cnn", "digits_resnet", "convolutional_rates"])
def test_what_convolutional_networks_are_said_to_cost_is_what_they_cost(name):
    estimated = sum(setting.seconds for setting in get_sweep(name).settings)
    assert 2 / 3 < estimated / load_card(name)["training_seconds"] < 3 / 2


@pytest.mark.parametrize("name", measured())
def test_untrained_is_what_the_loss_says(name):
    table = load_atlas(name)
    zero = np.where(table.loss == "squared", 0.5, np.log(10))
    np.testing.assert_array_equal(table.untrained, is_untrained(table.train_loss, zero))


@pytest.mark.parametrize("name", [name for name in measured() if name.startswith("digits")])
def test_a_cheap_row_of_each_table_comes_out_again(name):
    table = load_atlas(name)
    he = table[(table.init == "he") & (table.init_seed == 0) & table.width.between(8, 64)]
    last = he[he.epoch == table.epoch.max()].sort_values(["depth", "width"]).iloc[0]
    setting = next(s for s in get_sweep(name).settings if s.keys(0)[-1] == tuple(last[[*KEY]]))
    # Convolutions are summed up otherwise on every processor, so of their training only the first part comes out again.
    epoch = setting.epochs if setting.model == "fcn" else setting.every
    setting = replace(setting, init_seeds=(0,), epochs=epoch)
    cheap = he[(he[[*KEY[:-1]]] == last[[*KEY[:-1]]]).all(axis=1) & (he.epoch == epoch)].iloc[0]
    again = sweep([setting], device="cpu").iloc[-1]
    # Rounding differs between machines and thread counts, and training amplifies it.
    columns = ["stability", "lazy_ratio", "train_loss"]
    np.testing.assert_allclose(again[columns].astype(float), cheap[columns].astype(float), rtol=0.02)
    other = sweep([replace(setting, lr=setting.lr * 1.5)], device="cpu").iloc[-1]
    assert not np.allclose(other[columns].astype(float), cheap[columns].astype(float), rtol=0.02)


@pytest.mark.parametrize("dataset", [name.removesuffix("_rates") for name in measured() if name in ("digits_rates", "mnist_rates")])
def test_the_rates_to_fit_are_the_least_that_fit(dataset):
    """FIT_LR is what its rule gives on the table of rates."""
    table = load_atlas(f"{dataset}_rates")
    accuracy = table.groupby(["init", "lr"]).train_accuracy.mean()
    least = {init: accuracy[init].index[accuracy[init] >= FITTED].min() for init in (*LAZY, *NON_LAZY)}
    assert least == FIT_LR[dataset]


def test_the_rates_of_convolutional_networks_are_the_least_near_the_best():
    """CONV_LR is what its rule gives on the table of rates."""
    accuracy = load_atlas("convolutional_rates").groupby(["dataset", "model", "init", "lr"]).train_accuracy.mean()
    for dataset, trials in CONV_TRIAL.items():
        for model, (_, _, rates) in trials.items():
            for init, chosen in CONV_LR[dataset][model].items():
                of = accuracy[dataset, model, init]
                assert tuple(of.index) == rates
                assert chosen == of.index[of >= of.max() - NEAR_BEST].min()


def test_an_unknown_table_is_refused_in_a_sentence():
    for load in (load_atlas, load_card):
        with pytest.raises(ValueError, match=r"^name must be one of ('\w+', )*'digits'(, '\w+')*, not 'no-such-table'\.$"):
            load("no-such-table")


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_is_a_set_of_settings_of_the_books_data(name, scale):
    named = get_sweep(name, scale)
    networks = [setting.keys(seed)[-1] for setting in named.settings for seed in setting.init_seeds]
    assert len(set(networks)) == len(networks) > 0
    assert {setting.dataset for setting in named.settings} <= ({"digits"} if scale == "quick" else set(DATASETS))
    if scale == "quick":
        assert sum(setting.seconds for setting in named.settings) < 30


def test_the_book_explains_every_column():
    chapter = nbformat.read(atlas_folder().parent / "experiments_settings.ipynb", as_version=4)
    rows = [line for cell in chapter.cells for line in cell.source.splitlines() if line.startswith("| `")]
    explained = {name for row in rows for name in re.findall("`([a-z_]+)`", row.split("|")[1])}
    assert explained == set(COLUMNS)
