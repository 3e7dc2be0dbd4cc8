import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import chi

from robustnb import FCN, get_initialization, theory

INITS = ("lecun", "he", "ntk", "m^-1.5")


def monte_carlo(init, *, inputs, width, depth, outputs, members, seed, block=2000):
    """Mean of ‖J(x) δ‖ and its standard error: one x, and for each member fresh weights and a fresh δ of the unit ball."""
    generator = torch.Generator().manual_seed(seed)
    scales = get_initialization(init).scales(inputs=inputs, width=width, depth=depth, outputs=outputs)
    betas = [float(scales.beta_first), *[float(scales.beta)] * (depth - 2), float(scales.beta_last)]
    sizes = [inputs, *[width] * (depth - 1), outputs]
    x = torch.randn(1, inputs, generator=generator)
    lengths = []
    for _ in range(members // block):
        weights = [
            beta * torch.randn(block, fan_in, fan_out, generator=generator)
            for beta, fan_in, fan_out in zip(betas, sizes, sizes[1:], strict=False)
        ]
        direction = torch.randn(block, 1, inputs, generator=generator)
        radius = torch.rand(block, 1, 1, generator=generator) ** (1 / inputs)
        delta = radius * direction / direction.norm(dim=-1, keepdim=True)
        lengths.append(FCN(tuple(weights), seeds=tuple(range(block))).jvp(x, delta)[1].flatten(1).norm(dim=1).double())
    drawn = torch.cat(lengths)
    return drawn.mean().item(), drawn.std().item() / math.sqrt(len(drawn))


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize(
    ("inputs", "width", "depth", "outputs"), [(10, 4, 2, 1), (20, 4, 8, 10), (15, 16, 4, 3), (10, 8, 6, 1), (20, 32, 3, 10)]
)
def test_stability_at_initialization_agrees_with_simulated_networks(init, inputs, width, depth, outputs):
    shape = {"inputs": inputs, "width": width, "depth": depth, "outputs": outputs}
    mean, error = monte_carlo(init, **shape, members=60_000, seed=INITS.index(init))
    # Within 4 standard errors over 60,000 networks, each of which is 0.1 to 1.5 % of the value.
    assert abs(mean - theory.stability_at_initialization(init, **shape)) < 4 * error
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
    # Within 4 standard errors of 200,000 layers.
    assert abs(norms.mean() - np.exp(theory.log_relu_gain(width))) < 4 * norms.std() / math.sqrt(n)


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
