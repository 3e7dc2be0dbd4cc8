"""The explicit companions of Theorems 2 and 3 and the lemmas about H: on every step of training runs, and against simulation."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import gammaln
from scipy.stats import linregress, norm

from robustnb import FCN, fully_connected, gradient_descent, load_data, non_lazy, perturbation_stability, theory, two_classes
from robustnb.initialization import Scales
from robustnb.stability import jacobian

DATA = two_classes(load_data("digits", normalize="unit"), 0, 1, n=20)
D = DATA.x.shape[1]


def networks(init, *, width=32, depth=2, seeds=(0, 1), outputs=1):
    return fully_connected(init, inputs=D, width=width, depth=depth, outputs=outputs, seeds=seeds, dtype=torch.float64, device="cpu")


def norms(weights):
    """‖W_l‖_F: (members, L)."""
    return torch.stack([torch.linalg.matrix_norm(weight) for weight in weights], dim=-1).numpy()


RUNS = [(init, depth, size) for init in ("he", "m^-1", "m^-1.5") for depth in (2, 3, 4) for size in (None, 4)]


@pytest.mark.parametrize(("init", "depth", "size"), RUNS)
@pytest.mark.parametrize("outputs", [1, 3])
def test_layers_stay_balanced_and_move_as_far_as_the_companion_of_theorem_2_says(init, depth, size, outputs):
    lr, network = 0.3, networks(init, depth=depth, outputs=outputs)
    targets = DATA.y * torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)[:outputs]
    squared_steps, tightest = np.zeros((2, depth)), 0.0
    for step in gradient_descent(network, DATA.x, targets, lr=lr, steps=150, batch_size=size, batch_seed=3):
        weights, start = step.network.weights, norms(network.weights)
        # ‖W_l‖² − ‖W_l(0)‖² − q_l is the same for all layers, to rounding: each step changes the balance by η²(‖G_l‖² − ‖G_k‖²).
        common = norms(weights) ** 2 - start**2 - squared_steps
        assert np.ptp(common, axis=1).max() < 1e-9
        moved = norms([now - then for now, then in zip(weights, network.weights, strict=True)])
        reach = (network.alpha * step.network(DATA.x).norm(dim=-1) / DATA.x.norm(dim=-1)).amax(dim=-1)
        least = theory.least_movement(start, reach, squared_steps)
        assert (moved >= least - 1e-9).all()
        tightest = max(tightest, float((least / np.maximum(moved, 1e-12)).max()))
        squared_steps += lr**2 * norms(step.gradients) ** 2
    if init == "m^-1.5" and depth == 2:
        assert tightest > 0.3  # says something, where training is non-lazy


@pytest.mark.parametrize("alpha", [1.0, 4.0])
def test_the_companion_of_theorem_2_is_an_equality_for_one_neuron_a_layer(alpha):
    """a = b = s to begin with: gradient flow keeps a = b, so that each ends at √(a b)."""
    start, lr = 0.1, 4e-3
    one = torch.ones(1, 1, dtype=torch.float64)
    network = FCN((start * one[None], start * one[None]), seeds=(0,), alpha=alpha)
    *_, last = gradient_descent(network, one, 4 / alpha * one, lr=lr * alpha**2, steps=1000)
    moved = norms([now - then for now, then in zip(last.network.weights, network.weights, strict=True)])
    reach = alpha * last.network(one).norm(dim=-1).amax(dim=-1)
    assert theory.least_movement([[start, start]], reach) == pytest.approx(moved, rel=1e-9)
    assert moved[0, 0] == pytest.approx(2 - start, rel=1e-3)


@pytest.mark.parametrize("reach", [2.0, 20.0])
def test_the_companion_of_theorem_2_for_two_unequal_layers_of_one_neuron(reach):
    """Gradient flow keeps b² − a² = k, so that a b = R ends at a² = √(k²/4 + R²) − k/2: above the bound, and near it for large R."""
    a, b = 0.1, 1.0
    k = b**2 - a**2
    ends = np.sqrt(math.sqrt(k**2 / 4 + reach**2) + np.array([-k, k]) / 2)
    least, moved = theory.least_movement([a, b], reach), ends - [a, b]
    assert (least <= moved).all()
    assert least == pytest.approx(moved, rel=0.1 / reach)


def test_least_movement_broadcasts_and_is_zero_where_nothing_follows():
    assert theory.least_movement([[3.0, 3.0], [0.1, 0.1]], [1.0, 1.0]) == pytest.approx(np.array([[0, 0], [0.9, 0.9]]))
    assert theory.least_movement([1.0, 1.0, 1.0], 0).tolist() == [0, 0, 0]
    # A layer that took the larger steps must have moved further than its balanced share.
    a, b = theory.least_movement([0.1, 0.1], 1.0, [0.2, 0.0])
    assert a > 0.9 > b


@pytest.mark.parametrize("init", ["he", "m^-1", "m^-1.5", "m^-2"])
@pytest.mark.parametrize("size", [None, 4])
def test_early_stability_stays_under_the_companion_of_theorem_3(init, size):
    lr, network = 0.2, networks(init, width=64)
    mass = theory.neuron_mass(network.weights[0], network.weights[1][..., 0])
    size_of_neurons = torch.linalg.vector_norm(network.weights[0], dim=1) + network.weights[1][..., 0].abs()
    growth = np.zeros(2)
    product = np.ones(2)
    for step in gradient_descent(network, DATA.x, DATA.y, lr=lr, steps=40, batch_size=size):
        first, last = step.network.weights
        neurons = torch.linalg.vector_norm(first, dim=1) + last[..., 0].abs()
        assert ((neurons / size_of_neurons).amax(dim=1).numpy() <= product * (1 + 1e-12)).all()
        bound = theory.early_stability_bound(mass, growth, inputs=D)
        assert (perturbation_stability(step.network, DATA.probe).value.numpy() <= bound).all()
        rate = lr * theory.growth_rate(step.x, step.residual[..., 0])
        growth, product = growth + rate, product * (1 + rate)
    assert (product <= np.exp(growth)).all()


@pytest.mark.parametrize("alpha", [1.0, 4.0])
def test_the_companion_of_theorem_3_is_an_equality_for_one_neuron_along_its_input(alpha):
    """w parallel to x and a = ‖w‖: both grow at the very rate K, so that ‖∇f‖ = a ‖w‖/α = (a + ‖w‖)²/(4α) grows by e^{2 Σ η K}."""
    x, lr, growth = torch.tensor([[1.0, 0.0]], dtype=torch.float64), 1e-3 * alpha**2, 0.0
    weights = (torch.tensor([[[0.1], [0.0]]], dtype=torch.float64), torch.tensor([[[0.1]]], dtype=torch.float64))
    network = FCN(weights, seeds=(0,), alpha=alpha)
    mass = theory.neuron_mass(network.weights[0], network.weights[1][..., 0])
    for step in gradient_descent(network, x, torch.tensor([[2.0 / alpha]], dtype=torch.float64), lr=lr, steps=600):
        last, at = step, growth
        growth = growth + lr * float(theory.growth_rate(step.x, step.residual[0, :, 0], alpha))
    assert at > 1
    measured = perturbation_stability(last.network, x.repeat(2, 1)).value.item()
    assert theory.early_stability_bound(mass, at, inputs=2, alpha=alpha)[0] == pytest.approx(measured, rel=1e-2)


def test_growth_rate_by_hand_and_in_the_limit_of_one_neuron():
    assert theory.growth_rate([[3.0, 0], [0, 4.0]], [1.0, 1.0], alpha=2) == pytest.approx(4 * math.sqrt(2) / (2 * 2))
    # One input x with ‖x‖ = 1, w parallel to it and a = ‖w‖: the neuron grows at the very rate K.
    x, lr = torch.tensor([[1.0, 0.0]], dtype=torch.float64), 0.01
    network = FCN((torch.tensor([[[0.5], [0.0]]], dtype=torch.float64), torch.tensor([[[0.5]]], dtype=torch.float64)), seeds=(0,))
    before, after = gradient_descent(network, x, torch.tensor([[2.0]], dtype=torch.float64), lr=lr, steps=1)
    grown = float(after.network.weights[1]) / 0.5
    assert grown == pytest.approx(1 + lr * float(theory.growth_rate(x, before.residual[0, :, 0])), rel=1e-12)


@pytest.mark.parametrize("c", [1, 1.5, 2])
def test_mean_neuron_mass_agrees_with_draws_and_has_the_rate_of_the_companion(c):
    widths = np.array([64, 256, 1024])
    mean = theory.mean_neuron_mass(non_lazy(c), inputs=10, width=widths)
    np.testing.assert_allclose(np.diff(np.log(mean)) / np.log(4), 1 - 2 * c)
    random = np.random.default_rng(0)
    w, a = random.standard_normal((2000, 10, 64)) * 64.0**-c, random.standard_normal((2000, 64)) * 64.0**-c
    drawn = theory.neuron_mass(w, a)
    assert drawn == pytest.approx(sum((abs(a[:, r]) + np.sqrt((w[:, :, r] ** 2).sum(1))) ** 2 for r in range(64)))
    # Within 5.5 standard errors: 4e-8 by chance.
    assert abs(drawn.mean() - mean[0]) < 5.5 * drawn.std() / math.sqrt(2000)


def test_mean_neuron_mass_has_its_own_scale_for_each_layer():
    random = np.random.default_rng(1)
    drawn = theory.neuron_mass(0.3 * random.standard_normal((4000, 5, 20)), 2.0 * random.standard_normal((4000, 20)))
    mean = theory.mean_neuron_mass(Scales(0.3, 9, 2.0, 1), inputs=5, width=20)
    assert abs(drawn.mean() - mean) < 5.5 * drawn.std() / math.sqrt(4000)


@pytest.mark.parametrize("c", [1, 1.5, 2])
def test_the_exponent_of_width_moves_from_that_of_random_signs_to_that_of_the_companion(c):
    """The slope of log P/ε in log m: 1/2 − 2c at the start, where the neurons' signs are random; 1 − 2c, as the bound has it, once
    training has aligned them, early still: at the first step with Σ η K ≥ 4, where less than a tenth of the loss is gone."""
    widths, members, lr = [64, 128, 256, 512], 16, 0.2
    start, aligned, bounds, losses = [], [], [], []
    for m in widths:
        network, growth = networks(non_lazy(c), width=m, seeds=range(members)), np.zeros(members)
        start.append(perturbation_stability(network, DATA.probe).value.log())
        bounds.append(np.log(theory.early_stability_bound(theory.neuron_mass(network.weights[0], network.weights[1][..., 0]), 4, inputs=D)))
        for step in gradient_descent(network, DATA.x, DATA.y, lr=lr, steps=200):
            if growth.min() >= 4:
                break
            growth = growth + lr * theory.growth_rate(step.x, step.residual[..., 0])
        losses.append(step.loss.max().item())
        aligned.append(perturbation_stability(step.network, DATA.probe).value.log())
    logs = np.repeat(np.log(widths), members)
    start, aligned, bound = (linregress(logs, np.concatenate(values)) for values in (start, aligned, bounds))
    assert max(losses) > 0.9 * 0.5
    assert max(losses) <= 0.5 * 1.01
    # Each within 5.5 standard errors (8e-7 by chance, with 62 degrees of freedom), which are small beside 1/2, the way to go.
    assert abs(start.slope - (0.5 - 2 * c)) < 5.5 * start.stderr < 0.2
    assert abs(aligned.slope - (1 - 2 * c)) < 5.5 * aligned.stderr < 0.2
    assert aligned.slope - start.slope > 5.5 * math.hypot(start.stderr, aligned.stderr)
    assert abs(bound.slope - (1 - 2 * c)) < 5.5 * bound.stderr < 0.02


# H and H^∞ (Lemmas 6 to 8)


def test_two_layer_gram_is_the_kernel_of_the_gradients():
    network = networks("he", width=12)
    gram = theory.two_layer_gram(DATA.x, network.weights[0], network.weights[1][..., 0], alpha=2.0)
    for member in range(2):
        variables = [weight[member : member + 1].clone().requires_grad_() for weight in network.weights]
        f = FCN(tuple(variables), seeds=(0,), alpha=2.0)(DATA.x)[0, :, 0]
        rows = [torch.cat([g.flatten() for g in torch.autograd.grad(one, variables, retain_graph=True)]) for one in f]
        gradients = torch.stack(rows).detach()
        np.testing.assert_allclose(gram[member], gradients @ gradients.T, rtol=1e-10, atol=1e-12)


def test_a_small_step_moves_the_outputs_by_minus_the_gram_times_the_residual():
    network, errors = networks("he", width=40, seeds=(0,)), []
    gram = theory.two_layer_gram(DATA.x, network.weights[0], network.weights[1][..., 0])[0]
    for lr in (1e-3, 1e-4):
        before, after = gradient_descent(network, DATA.x, DATA.y, lr=lr, steps=1)
        r = before.residual[0, :, 0].numpy()
        moved = after.residual[0, :, 0].numpy() - r
        errors.append(np.linalg.norm(moved + lr / len(r) * gram @ r))  # the batch mean has a factor 1/n that H has not
    assert errors[1] < errors[0] * 1.05e-2  # of second order in the step
    assert errors[1] < 1e-3 * np.linalg.norm(moved)


def test_mean_two_layer_gram_is_the_integral_over_the_gaussian():
    x = DATA.x[:4].numpy() * np.array([[1.0], [2.0], [0.5], [1.0]])
    scales, m = Scales(0.3, 1, 0.7, 2.0), 5
    closed = theory.mean_two_layer_gram(x, scales, width=m)
    for i in range(4):
        for j in range(4):
            lengths = np.linalg.norm(x[i]) * np.linalg.norm(x[j])
            cosine = min(x[i] @ x[j] / lengths, 1.0)
            theta = math.acos(cosine)
            # Only w's part in the plane of x_i and x_j matters: its angle is uniform, the mean of its squared length 2 β_1².
            gates = quad(lambda t, a=theta: (math.cos(t) >= 0) * (math.cos(t - a) >= 0), 0, 2 * math.pi, limit=500)[0] / (2 * math.pi)
            values = quad(lambda t, a=theta: max(math.cos(t), 0) * max(math.cos(t - a), 0), -math.pi, math.pi, limit=500)[0] / (2 * math.pi)
            expected = m / 4 * (0.7**2 * gates * cosine * lengths + 2 * 0.3**2 * values * lengths)
            assert closed[i, j] == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_gram_at_initialization_has_the_mean_of_the_closed_form_and_concentrates_like_one_over_root_m():
    widths, deviations = (64, 256, 1024), []
    for m in widths:
        network = networks("he", width=m, seeds=range(100))
        gram = theory.two_layer_gram(DATA.x, network.weights[0], network.weights[1][..., 0])
        mean = theory.mean_two_layer_gram(DATA.x, "he", width=m)
        # 20 · 21/2 entries at each of 3 widths within 7.5 standard errors of 100 draws: 2e-8 by chance, with 99 degrees of freedom.
        assert (abs(gram.mean(0) - mean) < 7.5 * gram.std(0, ddof=1) / 10).all()
        deviations.append(np.log(np.linalg.norm(gram - mean, 2, axis=(1, 2)) / np.linalg.norm(mean, 2)))
    fit = linregress(np.repeat(np.log(widths), 100), np.concatenate(deviations))
    assert abs(fit.slope + 0.5) < 5.5 * fit.stderr
    assert fit.stderr < 0.03


def test_mean_two_layer_gram_broadcasts_over_width():
    both = theory.mean_two_layer_gram(DATA.x, "m^-1", width=[16, 64])
    assert both.shape == (2, 20, 20)
    np.testing.assert_allclose(both[1], theory.mean_two_layer_gram(DATA.x, "m^-1", width=64))


def one_network_of_all_neurons(beta, k=400):
    """w and a at the quantiles of N(0, β²), every one with every other: m = k² neurons whose mean has no chance in it."""
    z = beta * norm.ppf((np.arange(k) + 0.5) / k)
    w, a = (part.ravel() for part in np.meshgrid(z, z))
    return w[None], a


@pytest.mark.parametrize("alpha", [1.0, 2.0])
@pytest.mark.parametrize("n", [1, 3])
def test_half_of_the_bound_of_lemma_8_is_reached_by_each_layer_alone(alpha, n):
    """At n equal inputs half of the neurons are on. Output weights that move away from 0 change them by the bound's own number, at
    any distance; input weights that move up the input do so too, as the distance gets small. Entries add up as in the proof."""
    beta, x = 0.3, np.ones((n, 1))
    w, a = one_network_of_all_neurons(beta)
    start = theory.two_layer_gram(x, w, a, alpha)
    shape = {"samples": n, "width": len(a), "beta": beta, "alpha": alpha}
    for r in (0.03 * beta, beta):
        drift = np.abs(theory.two_layer_gram(x, w, a + r * np.sign(a), alpha) - start).sum()
        assert drift == pytest.approx(theory.gram_drift_bound(weight_movement=0, output_movement=r, **shape) / 2, rel=2e-3)
    r = 0.03 * beta
    drift = np.abs(theory.two_layer_gram(x, w + r, a, alpha) - start).sum()
    assert drift == pytest.approx(theory.gram_drift_bound(weight_movement=r, output_movement=0, **shape) / 2, rel=0.02)


@pytest.mark.parametrize("radius", [0.01, 0.1, 0.3, 1.0])
@pytest.mark.parametrize(("n", "tightness"), [(1, 0.4), (20, 0.015)])
def test_gram_drift_stays_under_the_bound_of_lemma_8(radius, n, tightness):
    """Every neuron moves by the radius: its output weight away from 0, its input weights up the gradient of what it passes on."""
    m, beta, members = 50, 0.2, 200
    random, x = np.random.default_rng(5), DATA.x[:n].numpy()
    w, a = beta * random.standard_normal((members, D, m)), beta * random.standard_normal((members, m))
    r = radius * beta
    v = x.sum(axis=0)[:, None]
    moved = theory.two_layer_gram(x, w + r * v / np.linalg.norm(v), a + r * np.sign(a))
    size = np.linalg.norm(moved - theory.two_layer_gram(x, w, a), 2, axis=(1, 2)).mean()
    bound = theory.gram_drift_bound(samples=n, width=m, beta=beta, weight_movement=r, output_movement=r)
    assert tightness * bound < size < bound


def test_stability_of_the_bounds_own_network_is_the_length_of_its_gradient():
    """early_stability_bound's first factor: P/ε for one output is d/(d+1) E|u_1| times the mean ‖∇f‖."""
    network = networks("he")
    gradient = jacobian(network, DATA.probe)[:, :, 0].norm(dim=-1).mean(dim=-1).numpy()
    factor = theory.early_stability_bound(4.0, 0.0, inputs=D)
    assert perturbation_stability(network, DATA.probe).value.numpy() == pytest.approx(factor * gradient, rel=1e-10)


def test_a_chi_variable_has_a_standard_deviation_below_but_near_one_over_root_two():
    """As Appendix C says of ‖W_l(0)‖_F/β_l: E χ_N ≥ √(N − ½), so the variance is at most ½."""
    freedom = np.arange(1, 5000)
    mean = np.sqrt(2) * np.exp(gammaln((freedom + 1) / 2) - gammaln(freedom / 2))
    spread = np.sqrt(freedom - mean**2)
    assert (spread < 0.5**0.5).all()
    assert (spread[15:] > 0.99 * 0.5**0.5).all()


@pytest.mark.parametrize(("d", "m", "depth"), [(1, 1, 2), (2, 2, 2), (2, 2, 4), (1, 3, 3)])
@pytest.mark.parametrize("betas", ["equal", "one large"])
def test_the_length_of_the_first_weights_is_seldom_above_the_bound_of_appendix_c(d, m, depth, betas):
    """S ≤ 2 m Σ β_l with probability at least 1 − e^{−m²/2}, and E S ≤ m Σ β_l, for d ≤ m and one output."""
    beta, draws = np.ones(depth), 20_000
    if betas == "one large":
        beta[1] = 20
    entries = np.array([m * d, *[m**2] * (depth - 2), m])
    length = np.sqrt((beta**2 * np.random.default_rng(0).chisquare(entries, (draws, depth))).sum(1))
    total = m * beta.sum()
    assert length.mean() <= total
    assert (length > 2 * total).mean() <= math.exp(-(m**2) / 2)
