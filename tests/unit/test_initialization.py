import math
import pickle

import numpy as np
import pytest
from plain import INITS

from robustnb import fully_connected, get_initialization, non_lazy
from robustnb.initialization import NAMED

TABLE_1 = {
    "lecun": lambda d, m, o: (math.sqrt(1 / d), math.sqrt(1 / m), math.sqrt(1 / m)),
    "he": lambda d, m, o: (math.sqrt(2 / d), math.sqrt(2 / m), math.sqrt(2 / m)),
    "ntk": lambda d, m, o: (math.sqrt(2 / m), math.sqrt(2 / m), math.sqrt(1 / o)),
    "m^-1": lambda d, m, o: (1 / m, 1 / m, 1 / m),
    "m^-1.5": lambda d, m, o: (m**-1.5, m**-1.5, m**-1.5),
    "m^-2": lambda d, m, o: (m**-2, m**-2, m**-2),
}


def test_every_initialization_with_a_name_is_in_the_table():
    assert {*NAMED} <= {*TABLE_1}


@pytest.mark.parametrize("init", TABLE_1)
@pytest.mark.parametrize(("d", "m", "o", "depth"), [(1, 1, 1, 2), (64, 16, 10, 2), (784, 256, 10, 8), (10, 4, 1, 3)])
def test_scales_are_those_of_table_1(init, d, m, o, depth):
    scales = get_initialization(init).scales(inputs=d, width=m, depth=depth, outputs=o)
    assert scales[:3] == pytest.approx(TABLE_1[init](d, m, o), rel=1e-14)
    assert scales.alpha == 1


@pytest.mark.parametrize("init", TABLE_1)
def test_drawn_weights_have_the_standard_deviations_of_table_1(init):
    network = fully_connected(init, inputs=30, width=50, depth=4, outputs=20, seeds=range(10))
    first, hidden, last = TABLE_1[init](30, 50, 20)
    for weight, beta in zip(network.weights, (first, hidden, hidden, last), strict=True):
        n = weight.numel()
        # Within 6 standard errors, β/√n of the mean, β/√(2n) of the standard deviation: 1e-7 by chance for any of the 48 in all cases.
        assert abs(weight.mean().item()) < 6 * beta / math.sqrt(n)
        assert abs(weight.std().item() - beta) < 6 * beta / math.sqrt(2 * n)


def test_no_two_layers_or_members_share_their_draws():
    network = fully_connected("he", inputs=100, width=100, depth=3, outputs=100, seeds=(0, 1))
    draws = np.stack([weight[member].flatten().numpy() for weight in network.weights for member in range(2)])
    between = np.corrcoef(draws)[np.triu_indices(6, k=1)]
    # 10,000 draws each: the standard error of a correlation is 0.01; within 6 of them, 3e-8 by chance for any of the 15.
    assert np.abs(between).max() < 0.06


@pytest.mark.parametrize(("init", "gamma"), [("lecun", math.sqrt(0.5)), ("he", 1), ("ntk", 1)])
def test_gamma_of_the_lazy_initializations_does_not_depend_on_width(init, gamma):
    assert get_initialization(init).gamma([1, 16, 2**16]) == pytest.approx(gamma, rel=1e-14)


def test_gamma_of_the_non_lazy_initialization_goes_to_zero():
    gamma = get_initialization("m^-1.5").gamma(2 ** np.arange(2, 17))
    assert (np.diff(gamma) < 0).all()
    assert gamma[-1] == pytest.approx((2**16) ** -1.0 / math.sqrt(2))


@pytest.mark.parametrize("init", TABLE_1)
def test_names_round_trip(init):
    value = get_initialization(init)
    assert value.name == init
    assert get_initialization(value) is value
    assert get_initialization(value.name) == value


@pytest.mark.parametrize(("c", "name"), [(1, "m^-1"), (1.5, "m^-1.5"), (2.0, "m^-2"), (0.75, "m^-0.75")])
def test_non_lazy_exponents_and_names_agree(c, name):
    assert non_lazy(c) == get_initialization(name)
    assert non_lazy(c).gamma(4) == pytest.approx(4 ** (0.5 - c) / math.sqrt(2))


def test_scales_broadcast_over_arrays():
    scales = get_initialization("ntk").scales(inputs=64, width=np.array([[4], [16]]), depth=[2, 4, 8], outputs=10)
    assert [part.shape for part in scales] == [(2, 3)] * 4
    assert scales.beta[:, 0] == pytest.approx([math.sqrt(2 / 4), math.sqrt(2 / 16)])


@pytest.mark.parametrize("init", INITS)
def test_values_survive_pickling(init):
    value = get_initialization(init)
    copy = pickle.loads(pickle.dumps(value))
    assert copy == value
    assert copy.gamma(16) == value.gamma(16)


@pytest.mark.parametrize("c", [1e-7, 1 / 3, 1.5, 2, 1e6])
def test_a_name_says_which_exponent_it_is(c):
    named = get_initialization(non_lazy(c).name)
    shape = {"inputs": 3, "width": 7, "depth": 3, "outputs": 2}
    assert named == non_lazy(c)
    assert named.scales(**shape) == non_lazy(c).scales(**shape)
