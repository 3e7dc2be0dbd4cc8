import math
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import k0
from scipy.stats import binomtest, chi, kstest

from robustnb import FCN, fully_connected, get_initialization, non_lazy, theory
from robustnb.initialization import NAMED, Scales
from robustnb.stability import jacobian

INITS = (*NAMED, "m^-1.5")


@cache
def simulated(*, inputs, width, depth, outputs, members=60_000, block=2000):
    """‖J(x) u‖ for one x, and for each member a fresh direction u and fresh weights of variance 1."""
    generator = torch.Generator().manual_seed(depth)
    sizes = [inputs, *[width] * (depth - 1), outputs]
    x = torch.randn(1, inputs, generator=generator)
    lengths = []
    for _ in range(members // block):
        weights = [torch.randn(block, fan_in, fan_out, generator=generator) for fan_in, fan_out in pairwise(sizes)]
        u = torch.randn(block, 1, inputs, generator=generator)
        network = FCN(tuple(weights), seeds=tuple(range(block)))
        lengths.append(network.jvp(x, u / u.norm(dim=-1, keepdim=True))[1].flatten(1).norm(dim=1).double())
    return torch.cat(lengths).numpy()


def lengths_under(scales, **shape):
    """The same with an initialization's weights: a network is homogeneous in each of its matrices, so the same draws serve all."""
    return scales.beta_first * scales.beta ** (shape["depth"] - 2) * scales.beta_last / scales.alpha * simulated(**shape)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize(
    ("inputs", "width", "depth", "outputs"), [(10, 4, 2, 1), (20, 4, 8, 10), (15, 16, 4, 3), (10, 8, 6, 1), (20, 32, 3, 10)]
)
def test_stability_at_initialization_agrees_with_simulated_networks(init, inputs, width, depth, outputs):
    shape = {"inputs": inputs, "width": width, "depth": depth, "outputs": outputs}
    lengths = lengths_under(get_initialization(init).scales(**shape), **shape)
    lengths = lengths * np.random.default_rng(0).uniform(size=len(lengths)) ** (1 / inputs)  # δ of a ball, not of a sphere
    mean, error = lengths.mean(), lengths.std() / math.sqrt(len(lengths))
    # Within 5.5 standard errors (1e-6 by chance in all 20 cases) over 60,000 networks, each of which is 0.1 to 1.5 % of the value.
    assert abs(mean - theory.stability_at_initialization(init, **shape)) < 5.5 * error
    assert error < 0.02 * mean


@pytest.mark.parametrize("init", ["lecun", "he", "ntk", "m^-1", "m^-2"])
@pytest.mark.parametrize("depth", [2, 8])
def test_stability_approaches_its_wide_limit_from_below(init, depth):
    shape = {"inputs": 10, "width": 2 ** np.arange(1, 17), "depth": depth, "outputs": 3}
    ratio = theory.stability_at_initialization(init, **shape) / theory.wide_stability_at_initialization(init, **shape)
    assert (np.diff(ratio) > 0).all()
    assert (ratio < 1).all()
    # The gain's relative gap is 5/(8m) or so for each of the L − 1 layers.
    assert ratio[-1] == pytest.approx(1, abs=(depth - 1) / 2**16)


@pytest.mark.parametrize("init", ["lecun", "he", "ntk"])
def test_wide_limit_of_the_lazy_initializations_does_not_depend_on_width(init):
    value = theory.wide_stability_at_initialization(init, inputs=10, width=[2, 64, 2**16], depth=6, outputs=3)
    d, o, layers = 10, 3, 6
    root = {"lecun": math.sqrt(1 / d) * math.sqrt(0.5) ** (layers - 1), "he": math.sqrt(2 / d), "ntk": math.sqrt(1 / o)}[init]
    assert value == pytest.approx(d / (d + 1) * root * chi.mean(o), rel=1e-12)


@pytest.mark.parametrize("init", ["lecun", "he", "ntk", "m^-1", "m^-1.5", "m^-2"])
def test_logarithm_is_finite_where_the_value_leaves_the_range_of_floats(init):
    shape = {"inputs": 784, "width": 2**16, "depth": 100, "outputs": 10}
    log_value, value = theory.log_stability_at_initialization(init, **shape), theory.stability_at_initialization(init, **shape)
    assert np.isfinite(log_value)
    # The wide limit's logarithm, to 99 times the gap of one layer's gain.
    gamma = get_initialization(init).gamma(2**16)
    scales = get_initialization(init).scales(**shape)
    wide = math.log(784 / 785 * scales.beta_first * scales.beta_last * math.sqrt(2**15) * chi.mean(10)) + 98 * math.log(gamma)
    assert log_value == pytest.approx(wide, abs=99 / 2**16)
    assert value == (pytest.approx(math.exp(log_value)) if log_value > -700 else 0)


@pytest.mark.parametrize("init", [*INITS, "m^-2"])
def test_logarithm_and_value_agree(init):
    shape = {"inputs": 64, "width": [4, 64], "depth": [2, 8], "outputs": 10}
    log_value = theory.log_stability_at_initialization(init, **shape)
    assert np.exp(log_value) == pytest.approx(theory.stability_at_initialization(init, **shape), rel=1e-12)


def test_exact_stability_of_he_falls_with_depth_at_finite_width():
    value = theory.stability_at_initialization("he", inputs=64, width=16, depth=[2, 4, 6, 8, 10], outputs=10)
    assert (np.diff(value) < 0).all()
    assert value[-1] / value[0] == pytest.approx(0.72, abs=0.005)


def test_log_mean_chi_is_that_of_scipy():
    k = np.array([1, 2, 3, 10, 100, 1000])
    assert theory.log_mean_chi(k) == pytest.approx(np.log(chi.mean(k)), rel=1e-11, abs=1e-12)


@pytest.mark.parametrize("width", [1, 2, 3, 7, 20])
def test_log_relu_gain_is_the_binomial_sum(width):
    mean_chi = [math.sqrt(2) * math.gamma((k + 1) / 2) / math.gamma(k / 2) for k in range(1, width + 1)]
    gain = sum(math.comb(width, k) * 2.0**-width * mean for k, mean in enumerate(mean_chi, start=1))
    assert theory.log_relu_gain(width) == pytest.approx(math.log(gain), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("width", [1, 4, 64, 1000])
def test_log_relu_gain_agrees_with_simulated_layers(width):
    random = np.random.default_rng(width)
    n = 200_000
    norms = np.sqrt(random.chisquare(np.maximum(active := random.binomial(width, 0.5, n), 1)) * (active > 0))
    # Within 5.5 standard errors of 200,000 layers: 4e-8 by chance.
    assert abs(norms.mean() - np.exp(theory.log_relu_gain(width))) < 5.5 * norms.std() / math.sqrt(n)


def test_log_relu_gain_keeps_its_accuracy_at_great_width():
    # By the moments of χ²_ω: E √X ≈ √μ (1 − Var/(8μ²)), μ = m/2, Var = m + m/4; the next term is of order 1/m².
    for m in (2**12, 2**16):
        assert theory.log_relu_gain(m) == pytest.approx(0.5 * math.log(m / 2) + math.log1p(-5 / (8 * m)), abs=5 / m**2)


@pytest.mark.parametrize("dimension", [2, 3, 10, 64, 784])
def test_mean_absolute_projection_is_the_integral_over_the_sphere(dimension):
    # u_1 = cos θ, with θ's density in proportion to sin^(d−2) θ.
    weight = quad(lambda t: math.sin(t) ** (dimension - 2), 0, math.pi / 2, points=[math.pi / 2 - 0.2])[0]
    projected = quad(lambda t: math.cos(t) * math.sin(t) ** (dimension - 2), 0, math.pi / 2, points=[math.pi / 2 - 0.2])[0]
    assert theory.mean_absolute_projection(dimension) == pytest.approx(projected / weight, rel=1e-8)


def test_on_a_line_the_projection_is_one():
    assert theory.mean_absolute_projection(1) == pytest.approx(1, rel=1e-14)


def test_mean_ball_radius_by_hand():
    assert theory.mean_ball_radius([1, 2, 9]) == pytest.approx([1 / 2, 2 / 3, 9 / 10])


FORMULAS = (theory.stability_at_initialization, theory.log_stability_at_initialization, theory.wide_stability_at_initialization)


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("init", ["he", "m^-1"])
def test_every_argument_broadcasts(formula, init):
    inputs, width, depth, outputs = np.ix_([10, 20], [4, 8, 16], [2, 3], [1, 10])
    table = formula(init, inputs=inputs, width=width, depth=depth, outputs=outputs)
    assert table.shape == (2, 3, 2, 2)
    assert table[1, 2, 0, 1] == pytest.approx(formula(init, inputs=20, width=16, depth=2, outputs=10), rel=1e-14)
    assert formula(init, inputs=10, width=4, depth=2, outputs=1).shape == ()


@pytest.mark.parametrize("spectrum", [[1.0], [1, 1e-8], [3, 1, 0.2, 0.01], [1.0] * 10, [1, 0, 0], [100, *[1e-3] * 9]])
def test_mean_image_length_is_the_integral(spectrum):
    def integrand(s):
        return (1 - np.prod((1 + 2 * np.array(spectrum) * s**2) ** -0.5)) / s**2

    halves = quad(integrand, 0, 1, epsabs=0, epsrel=1e-12)[0] + quad(integrand, 1, np.inf, epsabs=0, epsrel=1e-12, limit=500)[0]
    expected = theory.mean_ball_radius(64) * halves / np.sqrt(np.pi) / np.exp(theory.log_mean_chi(64))
    assert theory.mean_image_length(spectrum, 64) == pytest.approx(expected, rel=1e-7)


def test_mean_image_length_of_one_eigenvalue_is_the_closed_form_and_of_none_is_zero():
    closed = 3 * theory.mean_ball_radius([2, 64]) * theory.mean_absolute_projection([2, 64])
    assert theory.mean_image_length([9.0], [2, 64]) == pytest.approx(closed, rel=1e-12)
    assert theory.mean_image_length([[0.0, 0.0], [1.0, 0.0]], 5).tolist() == [0, pytest.approx(5 / 6 * theory.mean_absolute_projection(5))]


@pytest.mark.parametrize("formula", [theory.log_mean_chi, theory.mean_ball_radius, theory.mean_absolute_projection, theory.log_relu_gain])
def test_one_argument_formulas_keep_its_shape(formula):
    values = formula([[1, 5, 5], [9, 1, 2]])
    assert values.shape == (2, 3)
    assert values[0, 1] == values[0, 2] == formula(5)
    assert values[1, 0] == formula(9)


def test_theorem_1_has_the_orders_of_table_1():
    """Its closed forms for the three lazy initializations (with o kept, which Table 1 takes as 1 for LeCun and He)."""
    d, o = 64, 10
    m, depth = np.meshgrid([4.0, 64, 1024], [2.0, 5, 10])
    decay = np.exp(-m / depth**3)
    expected = {
        "he": (2 * np.sqrt(depth**3 * m / d) * decay, 2 * np.sqrt(o / d) * np.ones_like(m)),
        "lecun": (np.sqrt(depth**3 * m / d) * decay * 0.5 ** (depth / 2 - 1), np.sqrt(o / d) * 0.5 ** (depth / 2 - 1)),
        "ntk": (np.sqrt(2 * depth**3 * m / o) * decay, np.sqrt(2) * np.ones_like(m)),
    }
    for init, (training, initialization) in expected.items():
        bound = theory.theorem_1(init, inputs=d, width=m, depth=depth, outputs=o)
        np.testing.assert_allclose(bound.training, training)
        np.testing.assert_allclose(bound.initialization, initialization)
        np.testing.assert_allclose(bound.total, training + initialization)


@pytest.mark.parametrize("depth", [2, 6, 10])
def test_the_first_term_of_theorem_1_peaks_at_half_the_cube_of_the_depth(depth):
    widths = np.arange(1, 1000)
    bound = theory.theorem_1("he", inputs=64, width=widths, depth=depth, outputs=10)
    assert widths[bound.training.argmax()] == depth**3 / 2


# Theorem 1: its parts, its peak, its tables


def test_theorem_1_takes_any_standard_deviations():
    scales = Scales(0.3, 0.2, 0.7, 2.5)
    bound = theory.theorem_1(scales, inputs=10, width=[8, 32], depth=[[2], [5]], outputs=3)
    for i, depth in enumerate((2, 5)):
        for j, m in enumerate((8, 32)):
            common = (0.2 * math.sqrt(m / 2)) ** (depth - 2) / 2.5
            assert bound.training[i, j] == pytest.approx(
                math.sqrt(depth**3 * m**2 * 0.3**2 * 0.7**2) * math.exp(-m / depth**3) * common, rel=1e-12
            )
            assert bound.initialization[i, j] == pytest.approx(math.sqrt(m * 3 * 0.3**2 * 0.7**2) * common, rel=1e-12)
    he = get_initialization("he").scales(inputs=10, width=32, depth=5, outputs=3)
    shape = {"inputs": 10, "width": 32, "depth": 5, "outputs": 3}
    for formula in (theory.stability_at_initialization, theory.jensen_bound, theory.theorem_2):
        assert formula(he, **shape) == formula("he", **shape)


@pytest.mark.parametrize("gamma", [0.5, math.sqrt(0.5), 0.98, 1, 1.02, 2])
def test_the_three_regimes_of_gamma_are_the_growth_of_the_bound_with_depth(gamma):
    m, depth = 16, np.array([200, 400, 800])
    bound = theory.theorem_1(Scales(1, gamma * math.sqrt(2 / m), 1, 1), inputs=1, width=m, depth=depth, outputs=1).total
    a_layer = np.diff(np.log(bound)) / np.diff(depth)  # tends to log γ
    a_power = np.diff(np.log(bound)) / np.diff(np.log(depth))
    expected = {"helps exponentially": a_layer[-1] < -0.01, "hurts exponentially": a_layer[-1] > 0.01}
    expected["hurts polynomially"] = abs(a_power[-1] - 1.5) < 0.01
    assert [regime for regime, holds in expected.items() if holds] == [str(theory.gamma_regime(gamma))]


def test_regimes_of_the_named_initializations():
    regimes = {init: str(theory.gamma_regime(get_initialization(init).gamma(64))) for init in ("lecun", "he", "ntk", "m^-1.5")}
    assert regimes == {
        "lecun": "helps exponentially",
        "he": "hurts polynomially",
        "ntk": "hurts polynomially",
        "m^-1.5": "helps exponentially",
    }
    with pytest.raises(ValueError, match=r"gamma must hold finite numbers of at least 0, not -0\.1"):
        theory.gamma_regime(-0.1)


@pytest.mark.parametrize("init", ["lecun", "he", "ntk"])
def test_the_bound_peaks_at_peak_width_which_grows_like_the_cube_of_the_depth(init):
    depth, widths = np.array([2, 4, 6, 8, 12]), np.arange(1, 2000)
    total = theory.theorem_1(init, inputs=64, width=widths, depth=depth[:, None], outputs=1).total
    peaks = widths[total.argmax(axis=1)]
    np.testing.assert_array_equal(peaks, theory.peak_width(depth))
    assert np.polyfit(np.log(depth), np.log(peaks), 1)[0] == pytest.approx(3, abs=1e-9)


@pytest.mark.parametrize("init", ["lecun", "he", "ntk", "m^-1"])
@pytest.mark.parametrize("outputs", [1, 3, 10])
def test_beyond_plateau_width_training_adds_less_than_initialization(init, outputs):
    for depth in (2, 4, 6, 8, 10):
        end = theory.plateau_width(depth, outputs)
        if np.isnan(end):
            bound = theory.theorem_1(init, inputs=64, width=np.arange(1, 500), depth=depth, outputs=outputs)
            assert (bound.training < bound.initialization).all()
            continue
        around = theory.theorem_1(init, inputs=64, width=[int(end), int(end) + 1], depth=depth, outputs=outputs)
        assert around.training[0] >= around.initialization[0]
        assert around.training[1] < around.initialization[1]


def test_two_layers_with_many_outputs_have_no_transition():
    # o > L⁶/(2e) = 11.8 for L = 2.
    assert np.isnan(theory.plateau_width(2, [11, 12])).tolist() == [False, True]


def test_table_2_by_hand_and_by_its_exponents():
    row = theory.table_2(width=64, depth=2)
    assert row.ours == pytest.approx(math.sqrt(512) * math.exp(-8) + 1)
    assert row.wu == pytest.approx(4 * 4 * math.sqrt(math.log(64)) + math.sqrt(128))
    assert row.huang == pytest.approx(math.sqrt(2) * 8)
    ntk = theory.theorem_1("ntk", inputs=64, width=64, depth=[2, 8], outputs=1).total
    np.testing.assert_allclose(theory.table_2(width=64, depth=[2, 8]).ours * math.sqrt(2), ntk)

    wide = np.array([1e40, 1e44])
    in_width = {name: np.diff(np.log(bound))[0] / np.log(1e4) for name, bound in theory.table_2(width=wide, depth=4)._asdict().items()}
    assert in_width == pytest.approx({"ours": 0, "wu": 0.5, "huang": 0.5}, abs=1e-3)
    deep = theory.table_2(width=64, depth=[200, 400])
    assert np.log2(deep.wu[1] / deep.wu[0]) == pytest.approx(2, abs=0.01)
    assert np.log2(deep.ours[1] / deep.ours[0]) == pytest.approx(1.5, abs=0.01)
    assert np.log2(deep.huang[1] / deep.huang[0]) / 200 == pytest.approx(1.5, rel=1e-9)


@pytest.mark.parametrize("depth", [2, 5])
def test_parameter_count_is_the_number_of_weights(depth):
    shape = {"inputs": 7, "width": 5, "depth": depth, "outputs": 3}
    assert theory.parameter_count(**shape) == sum(weight.numel() for weight in fully_connected("he", **shape).weights)


def test_the_law_of_robustness_is_reached_by_linear_interpolation_of_noise():
    """p = d weights through n noisy labels at n ≪ d points of the sphere: the least Lipschitz constant is near √n = √(n d/p)."""
    random, d, samples = np.random.default_rng(0), 4000, np.array([10, 20, 40, 80])
    least = []
    for n in samples:
        x = random.standard_normal((n, d))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        least.append(np.linalg.norm(np.linalg.lstsq(x, random.choice([-1.0, 1.0], n), rcond=None)[0]))
    law = theory.law_of_robustness(samples=samples, inputs=d, parameters=d)
    np.testing.assert_allclose(least, law, rtol=0.15)
    # Two layers, p ≈ m d: the law is √(n/m).
    p = theory.parameter_count(inputs=d, width=64, depth=2, outputs=1)
    assert theory.law_of_robustness(samples=80, inputs=d, parameters=p) == pytest.approx(math.sqrt(80 / 64), rel=1e-3)


# Lemma 5


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize(("inputs", "width", "depth", "outputs", "alpha"), [(10, 4, 2, 1, 1.0), (20, 16, 4, 10, 2.5)])
def test_jensen_bound_is_the_root_of_the_second_moment(init, inputs, width, depth, outputs, alpha):
    shape = {"inputs": inputs, "width": width, "depth": depth, "outputs": outputs}
    scales = get_initialization(init).scales(**shape)._replace(alpha=alpha)
    squares = lengths_under(scales, **shape) ** 2
    # Relative to the mean over δ of a ball, E‖δ‖² = d/(d+2), a unit vector has 1. Within 5.5 standard errors: 3e-7 by chance in 8 cases.
    assert abs(squares.mean() - theory.jensen_bound(scales, **shape) ** 2) < 5.5 * squares.std() / math.sqrt(len(squares))


@pytest.mark.parametrize("init", [*INITS, "m^-2"])
def test_jensen_bound_lies_above_the_exact_value_and_is_near_it_for_wide_networks(init):
    inputs, width, depth, outputs = np.ix_([10, 784], [1, 4, 64, 1024], [2, 4, 10], [1, 10])
    shape = {"inputs": inputs, "width": width, "depth": depth, "outputs": outputs}
    ratio = theory.stability_at_initialization(init, **shape) / theory.jensen_bound(init, **shape)
    assert (ratio < 1).all()
    assert ratio[1, -1, 0, 1] == pytest.approx(1, abs=0.03)


# Theorem 2's condition


def test_theorem_2_is_the_quotient_of_its_two_sides():
    scales, m, depth = Scales(0.01, 0.002, 0.03, 3), 50, 4
    assert theory.theorem_2(scales, inputs=10, width=m, depth=depth) == pytest.approx(3 / (m**1.5 * (0.01 + 2 * 0.002 + 0.03)) ** depth)


@pytest.mark.parametrize("depth", [2, 3, 6])
@pytest.mark.parametrize("width", [2, 64, 4096])
def test_the_critical_exponent_is_the_boundary_of_theorem_2(depth, width):
    c = float(theory.critical_exponent(width=width, depth=depth))
    shape = {"inputs": 10, "width": width, "depth": depth}
    assert theory.theorem_2(non_lazy(c), **shape) == pytest.approx(1, rel=1e-9)
    assert theory.theorem_2(non_lazy(c + 0.1), **shape) > 1 > theory.theorem_2(non_lazy(c - 0.1), **shape)


def test_the_critical_exponent_of_another_power():
    """1 + log_64 8."""
    assert theory.critical_exponent(width=64, depth=8, power=1) == pytest.approx(1.5)


def test_theorem_2_grows_with_width_for_tiny_weights_and_falls_for_the_lazy_initializations():
    widths = np.array([256, 1024, 4096])
    for init, slope in (("m^-2", 0.5), ("m^-3", 1.5), ("ntk", None), ("he", None), ("lecun", None)):
        value = theory.theorem_2(init, inputs=64, width=widths, depth=3)
        steps = np.diff(np.log(value)) / np.log(4)
        if slope is None:
            assert (steps < -1).all()
            assert (value < 1e-8).all()
        else:
            np.testing.assert_allclose(steps, 3 * slope)


def test_the_gain_of_very_wide_layers_continues_that_of_narrower_ones():
    at, above = theory.log_relu_gain([theory.WIDE, theory.WIDE + 1])
    assert above - at == pytest.approx(0.5 / theory.WIDE, rel=0.02)
    assert theory.log_relu_gain(1e15) == pytest.approx(0.5 * np.log(0.5e15), rel=1e-14)


# The law before training, not only its mean


def drawn_lengths(init, *, inputs, width, depth, outputs, members, seed):
    """‖J(x) u‖, and ‖J(x)‖_F, of drawn networks at one input x with one unit vector u."""
    networks = fully_connected(init, inputs=inputs, width=width, depth=depth, outputs=outputs, seeds=range(seed, seed + members))
    generator = torch.Generator().manual_seed(seed)
    x, u = torch.randn(2, 1, inputs, generator=generator)
    moves = networks.jvp(x, u / u.norm())[1][:, 0].norm(dim=-1)
    return moves.double().numpy(), jacobian(networks, x).flatten(1).norm(dim=1).double().numpy()


def p_of_law(sample, cdf):
    """p that a sample of networks has this law, a Kolmogorov-Smirnov test of those that are alive; and p of the number of dead ones."""
    dead = float(cdf(0.0))
    alive = sample[sample > 0]
    rest = kstest(alive, lambda v: (cdf(v) - dead) / (1 - dead)).pvalue
    return rest, binomtest(len(sample) - len(alive), len(sample), dead).pvalue if dead > 0 else float(len(alive) == len(sample))


@pytest.mark.parametrize(("init", "width", "depth"), [("he", 1, 2), ("lecun", 3, 5), ("m^-1.5", 12, 3), ("ntk", 32, 4)])
def test_drawn_networks_have_the_law_of_a_move(init, width, depth):
    shape = {"inputs": 7, "width": width, "depth": depth, "outputs": 3}
    moves, _ = drawn_lengths(init, **shape, members=1200, seed=width)
    # 8 tests: by chance one falls below 1e-8 with a probability of 8e-8.
    assert min(p_of_law(moves, lambda v: theory.move_cdf_at_initialization(v, init, **shape))) > 1e-8


def test_the_test_of_the_law_tells_it_from_one_of_more_outputs_and_of_a_layer_less():
    shape = {"inputs": 7, "width": 3, "depth": 5, "outputs": 3}
    moves, _ = drawn_lengths("lecun", **shape, members=1200, seed=3)
    for wrong in ({"outputs": 6}, {"depth": 4}):
        assert min(p_of_law(moves, lambda v, other=shape | wrong: theory.move_cdf_at_initialization(v, "lecun", **other))) < 1e-8


@pytest.mark.parametrize(("width", "depth"), [(2, 3), (12, 2), (16, 6)])
def test_drawn_networks_of_one_output_have_the_law_of_stability(width, depth):
    shape = {"inputs": 9, "width": width, "depth": depth}
    _, lengths = drawn_lengths("he", **shape, outputs=1, members=1200, seed=width)
    stability = lengths * float(theory.mean_ball_radius(9) * theory.mean_absolute_projection(9))
    # 6 tests: by chance one falls below 1e-8 with a probability of 6e-8.
    assert min(p_of_law(stability, lambda v: theory.stability_cdf_at_initialization(v, "he", **shape))) > 1e-8


def test_the_law_of_two_gaussians_and_a_coin():
    # One neuron, one output: |g_1 g_2| or 0, whose density is that of Bessel's K_0.
    values = np.array([-1.0, 0.0, 1e-9, 0.01, 0.5, 1.0, 4.0, 40.0])
    exact = [0.0, *(0.5 + quad(k0, 0, value, limit=200)[0] / np.pi for value in values[1:])]
    found = theory.move_cdf_at_initialization(values, Scales(1.0, 1.0, 1.0, 1.0), inputs=2, width=1, depth=2, outputs=1)
    assert found == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("init", ["lecun", "he", "ntk", "m^-2"])
@pytest.mark.parametrize(("width", "depth"), [(1, 3), (8, 2), (64, 10), (3000, 5), (2**16, 2)])
def test_the_laws_have_the_exact_mean(init, width, depth):
    shape = {"inputs": 5, "width": width, "depth": depth}
    mean = float(theory.stability_at_initialization(init, **shape, outputs=4)) / theory.mean_ball_radius(5)
    one = float(theory.stability_at_initialization(init, **shape, outputs=1))
    grid = np.concatenate([[0], np.geomspace(1e-6, 200, 1500)])
    for value, cdf in (
        (mean, theory.move_cdf_at_initialization(grid * mean, init, **shape, outputs=4)),
        (one, theory.stability_cdf_at_initialization(grid * one, init, **shape)),
    ):
        assert (np.diff(cdf) > -1e-9).all()
        assert np.trapezoid(1 - cdf, grid * value) == pytest.approx(value, rel=3e-4)


@pytest.mark.parametrize(("width", "depth", "outputs"), [(1, 2, 1), (3, 5, 2), (40, 4, 10), (400, 3, 64)])
def test_log_variance_is_that_of_the_product_of_its_factors(width, depth, outputs):
    random = np.random.default_rng(width)
    n = 200_000
    active = random.binomial(width, 0.5, (depth - 1, n))
    logs = 0.5 * np.log(random.chisquare(np.maximum(active, 1))).sum(0) + 0.5 * np.log(random.chisquare(outputs, n))
    logs = logs[(active > 0).all(0)]
    squares = (logs - logs.mean()) ** 2
    # Within 5.5 standard errors: 4e-8 by chance in each of 4 cases.
    exact = theory.log_variance_at_initialization(width=width, depth=depth, outputs=outputs)
    assert abs(squares.mean() - exact) < 5.5 * squares.std() / math.sqrt(len(logs))


def test_log_variance_is_near_depth_over_width_and_goes_on_so_where_it_is_not_summed():
    both = theory.log_variance_at_initialization(width=[2**12, 2**20, 2**20 + 1, 2**30], depth=5, outputs=10**9)
    last = theory.log_variance_at_initialization(width=2**40, depth=5, outputs=10**9)
    assert (both - last) * np.array([2**12, 2**20, 2**20 + 1, 2**30]) / 5 == pytest.approx(1, rel=2e-3)
    assert both[1] == pytest.approx(both[2], rel=1e-5)


@pytest.mark.parametrize("k", [1e6, 1e9, 1e12])
def test_of_a_great_dimension_the_mean_lengths_keep_their_digits(k):
    """E χ_k = √k (1 − 1/(4k) + 1/(32k²) + …), and E|u_1| = √(2/π)/E χ_k."""
    expected = 0.5 * np.log(k) + np.log1p(-1 / (4 * k) + 1 / (32 * k**2))
    assert theory.log_mean_chi(k) == pytest.approx(expected, abs=1e-13)
    assert theory.mean_absolute_projection(k) == pytest.approx(np.sqrt(2 / np.pi) * np.exp(-expected), rel=1e-12)


def test_the_mean_root_of_a_noncentral_square_is_that_of_many_draws():
    rng = np.random.default_rng(0)
    variances, means = np.array([2.0, 0.3, 0.0]), np.array([0.5, -1.0, 2.0])
    lengths = np.linalg.norm(means + np.sqrt(variances) * rng.standard_normal((200_000, 3)), axis=1)
    # 5 standard errors: fails by chance with probability below 1e-6.
    assert theory.mean_root(variances, means**2) == pytest.approx(lengths.mean(), abs=5 * lengths.std() / np.sqrt(len(lengths)))
