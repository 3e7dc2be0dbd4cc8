import math
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plain import INITS, as_module
from torch import nn

from robustnb import FCN, fully_connected, lazy_ratio, perturbation_stability, stability_by_gram, uniform_in_ball
from robustnb.stability import (
    _perturbations,
    attack,
    cross_entropy,
    error_under_attack,
    jacobian,
    lipschitz_bound,
    local_lipschitz,
    probabilistic_robustness,
    worst_case_loss,
)


def small(init="he", **changes):
    return fully_connected(init, **({"inputs": 8, "width": 12, "depth": 3, "outputs": 4, "seeds": (0, 1)} | changes))


def inputs(n=20, d=8, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


# Perturbation stability


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("outputs", [1, 4])
def test_a_network_and_the_same_torch_module_have_the_same_stability(init, outputs):
    network, x = small(init, outputs=outputs), inputs()
    measured = perturbation_stability(network, x, seed=3)
    for member in range(2):
        of_module = perturbation_stability(as_module(network, member), x, seed=3)
        assert of_module.value.item() == pytest.approx(measured.value[member].item(), rel=1e-5)
        assert of_module.standard_error.item() == pytest.approx(measured.standard_error[member].item(), rel=1e-4)


@pytest.mark.parametrize("radius", [0.01, 1.0, 50.0])
def test_stability_is_the_mean_length_of_the_jacobian_times_delta_per_radius(radius):
    network, x = small(), inputs()
    delta = uniform_in_ball((20, 8), radius=radius, seed=7).float()
    lengths = torch.stack(
        [torch.stack([torch.autograd.functional.jacobian(as_module(network, k), x[i]) @ delta[i] for i in range(20)]) for k in range(2)]
    ).norm(dim=2)
    measured = perturbation_stability(network, x, seed=7)
    torch.testing.assert_close(measured.value, lengths.mean(dim=1) / radius, rtol=1e-5, atol=0)
    torch.testing.assert_close(measured.standard_error, lengths.std(dim=1) / radius / math.sqrt(20), rtol=1e-5, atol=0)


def test_stability_is_linear_in_the_radius():
    network, x = small(), inputs()
    delta = uniform_in_ball((20, 8), radius=1, seed=0).float()
    assert torch.equal(network.jvp(x, 4 * delta)[1], 4 * network.jvp(x, delta)[1])


@pytest.mark.parametrize("kind", ["members", "module"])
def test_with_one_output_the_known_mean_over_delta_agrees_with_many_deltas(kind):
    network, x = small(outputs=1, seeds=(0,)), inputs()
    samples = 4000
    delta = uniform_in_ball((samples, 20, 8), radius=1, seed=0).float()
    if kind == "members":
        measured, moved = perturbation_stability(network, x).value[0], network.jvp(x.repeat(samples, 1), delta.flatten(0, 1))[1][0]
    else:
        # Not a ReLU network, and inputs that are images.
        module = nn.Sequential(nn.Flatten(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 1))
        nn.init.normal_(module[1].weight, generator=torch.Generator().manual_seed(1))
        images = x.unflatten(1, (2, 2, 2))
        measured = perturbation_stability(module, images).value
        many = images.repeat(samples, 1, 1, 1)
        moved = torch.func.jvp(module, (many,), (delta.reshape(many.shape),))[1].detach()
    lengths = moved.norm(dim=-1).unflatten(0, (samples, 20)).mean(dim=1)
    # Within 5.5 standard errors over the 4,000 samples of δ: 8e-8 by chance in two cases.
    assert abs(measured - lengths.mean()) < 5.5 * lengths.std() / math.sqrt(samples)


def test_with_one_output_the_seed_of_delta_does_not_matter():
    network, x = small(outputs=1), inputs()
    assert torch.equal(perturbation_stability(network, x, seed=0).value, perturbation_stability(network, x, seed=1).value)


def test_the_seed_fixes_delta():
    network, x = small(), inputs()
    first, again, other = (perturbation_stability(network, x, seed=seed).value for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("outputs", [1, 4])
def test_the_standard_error_is_the_spread_over_fresh_inputs_and_deltas(outputs):
    network = small(outputs=outputs, seeds=(0,))
    repeats = [perturbation_stability(network, inputs(100, seed=seed), seed=seed) for seed in range(300)]
    spread = torch.cat([one.value for one in repeats]).std()
    reported = torch.cat([one.standard_error for one in repeats]).square().mean().sqrt()
    # A standard deviation of 300 values has a standard error of 1/√600 = 4 %; within 5.5 of them: 8e-8 by chance in two cases.
    assert spread / reported == pytest.approx(1, abs=5.5 / math.sqrt(600))


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_module_is_measured_in_evaluation_mode(outputs):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.ReLU(), nn.Linear(6, outputs))
    module[1].running_mean.uniform_(-1, 1)
    module[1].running_var.uniform_(0.5, 2)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    x = inputs()
    in_evaluation = perturbation_stability(module.eval(), x).value
    in_training = perturbation_stability(module.train(), x).value
    assert torch.equal(in_training, in_evaluation)
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
def test_a_module_is_left_in_the_mode_it_was_in(training):
    module = as_module(small()).train(training)
    perturbation_stability(module, inputs())
    assert [part.training for part in module.modules()] == [training] * len(list(module.modules()))


def test_each_part_of_a_module_is_left_in_the_mode_it_was_in():
    module = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).train()
    module[1].eval()  # frozen, as in fine-tuning
    perturbation_stability(module, inputs())
    assert [part.training for part in module.modules()] == [True, True, False, True]


def test_a_module_is_left_in_its_mode_when_it_fails():
    module = nn.Sequential(nn.Linear(5, 3)).train()
    with pytest.raises(ValueError, match=r"^x must be a batch that the module takes"):
        perturbation_stability(module, inputs())
    assert module.training


@pytest.mark.parametrize("outputs", [1, 4])
def test_stability_can_be_measured_without_gradients(outputs):
    network, x = small(outputs=outputs), inputs()
    with torch.no_grad():
        assert torch.equal(perturbation_stability(network, x).value, perturbation_stability(small(outputs=outputs), x).value)
        perturbation_stability(as_module(network), x)


# The ball


@pytest.mark.parametrize("d", [1, 2, 10, 64])
@pytest.mark.parametrize("radius", [0.1, 3.0])
def test_vectors_are_uniform_in_the_ball(d, radius):
    n = 40_000
    delta = uniform_in_ball((n, d), radius=radius, seed=d)
    length = delta.norm(dim=1)
    assert length.max() <= radius * (1 + 1e-12)
    # Each number within 6 standard errors: 6e-7 by chance for any of the 324 in all cases. E‖δ‖ = ε d/(d+1) and E‖δ‖² = ε² d/(d+2).
    assert abs(length.mean() - radius * d / (d + 1)) < 6 * length.std() / math.sqrt(n)
    assert abs(length.square().mean() - radius**2 * d / (d + 2)) < 6 * length.square().std() / math.sqrt(n)
    # No direction is preferred: mean 0 and variance ε²/(d+2) of each entry.
    assert (delta.mean(dim=0).abs() < 6 * delta.std(dim=0) / math.sqrt(n)).all()
    assert ((delta.square().mean(dim=0) - radius**2 / (d + 2)).abs() < 6 * delta.square().std(dim=0) / math.sqrt(n)).all()


def test_the_seed_fixes_the_vectors_and_the_radius_only_scales_them():
    one = uniform_in_ball((3, 5, 7), radius=1, seed=4)
    assert (one.shape, one.dtype) == ((3, 5, 7), torch.float64)
    torch.testing.assert_close(uniform_in_ball((3, 5, 7), radius=2.5, seed=4), 2.5 * one, rtol=1e-14, atol=0)
    assert not torch.equal(uniform_in_ball((3, 5, 7), radius=1, seed=5), one)


# Lazy training ratio


def test_lazy_ratio_by_hand():
    initial = fully_connected("he", inputs=1, width=2, depth=2, outputs=1, seeds=(0, 1))
    initial = initial.with_weights([torch.tensor([[[3.0, 4.0]], [[3.0, 4.0]]]), torch.tensor([[[0.0], [5.0]], [[0.0], [5.0]]])])
    # Member 0 stays; member 1 moves by (0, 2) and (−1, 0): (2 + 1) / (5 + 5).
    moved = initial.with_weights([torch.tensor([[[3.0, 4.0]], [[3.0, 6.0]]]), torch.tensor([[[0.0], [5.0]], [[-1.0], [5.0]]])])
    assert lazy_ratio(moved, initial).tolist() == pytest.approx([0, 0.3])


# Lipschitz constants


def test_local_lipschitz_is_the_largest_spectral_norm_of_the_jacobians():
    network, x = small(), inputs()
    for member, measured in enumerate(local_lipschitz(network, x)):
        module = as_module(network, member)
        norms = [torch.linalg.matrix_norm(torch.autograd.functional.jacobian(module, each), ord=2) for each in x]
        assert measured.item() == pytest.approx(max(norms).item(), rel=1e-5)


def test_jacobian_has_a_matrix_for_each_member_and_input():
    network, x = small(), inputs()
    rows = jacobian(network, x)
    assert rows.shape == (2, 20, 4, 8)
    torch.testing.assert_close(rows[1, 3], torch.autograd.functional.jacobian(as_module(network, 1), x[3]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("init", INITS)
def test_the_global_lipschitz_bound_holds_at_the_data(init):
    network = replace(small(init), alpha=4.0)
    assert (lipschitz_bound(network) >= local_lipschitz(network, inputs(500))).all()


def test_the_global_lipschitz_bound_takes_a_scale_for_each_member():
    network, alpha = small(), torch.tensor([2.0, 0.5])
    assert torch.equal(lipschitz_bound(replace(network, alpha=alpha[:, None, None])), lipschitz_bound(network) / alpha)


def test_the_global_lipschitz_bound_is_the_product_of_the_spectral_norms():
    network = replace(small(), alpha=4.0)
    expected = [math.prod(torch.linalg.svdvals(weight[k])[0].item() for weight in network.weights) / 4 for k in range(2)]
    assert lipschitz_bound(network).tolist() == pytest.approx(expected, rel=1e-5)


# Attack


def loss_at(network, x, y):
    return cross_entropy(network(x), y).mean(dim=-1)


@pytest.mark.parametrize("radius", [0.1, 1.0])
@pytest.mark.parametrize("steps", [1, 20])
def test_an_attack_stays_in_the_ball(trained, digits, radius, steps):
    moved = attack(trained, digits.x_test, digits.y_test, radius=radius, steps=steps) - digits.x_test
    assert moved.shape == (3, 100, 64)
    # Rounding of x + δ: a few units of 6e-8 on pixels up to 1, over 64 of them.
    assert moved.norm(dim=-1).max() <= radius + 1e-6


@pytest.mark.parametrize("radius", [0.1, 0.5])
def test_an_attack_raises_the_loss_more_than_the_best_of_random_perturbations(trained, digits, radius):
    x, y = digits.x_test, digits.y_test
    attacked = loss_at(trained, attack(trained, x, y, radius=radius), y)
    on_the_sphere = [radius * F.normalize(inputs(100, 64, seed=seed), dim=1) for seed in range(20)]
    at_random = torch.stack([loss_at(trained, x + delta, y) for delta in on_the_sphere])
    assert (attacked > at_random.amax(dim=0)).all()
    assert (attacked > loss_at(trained, x, y)).all()


def test_a_small_attack_raises_the_loss_as_much_as_the_gradient_allows(digits):
    network = fully_connected("he", inputs=64, width=16, depth=3, outputs=10, seeds=(0, 1), dtype=torch.float64)
    x, y, radius = digits.x_test.double(), digits.y_test, 1e-5
    variable = x.expand(2, 100, 64).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(network(variable), y).sum(), variable)
    raised = cross_entropy(network(attack(network, x, y, radius=radius)), y) - cross_entropy(network(x), y)
    torch.testing.assert_close(raised, radius * gradient.norm(dim=-1), rtol=1e-2, atol=0)


def test_an_attack_finds_its_way_however_small_the_gradient(digits):
    network = fully_connected("m^-2", inputs=64, width=64, depth=6, outputs=10)
    moved = attack(network, digits.x_test, digits.y_test, radius=0.5) - digits.x_test
    assert moved.norm(dim=-1).min() > 0.25


def test_worst_case_loss_is_the_loss_under_attack_and_grows_with_the_radius(trained, digits):
    x, y = digits.x_test, digits.y_test
    losses = torch.stack([worst_case_loss(trained, x, y, radius=radius) for radius in (0.01, 0.1, 0.2, 0.5, 1.0)])
    assert (losses.diff(dim=0) > 0).all()
    assert (losses[0] > loss_at(trained, x, y)).all()
    torch.testing.assert_close(losses[3], loss_at(trained, attack(trained, x, y, radius=0.5), y))


def test_error_under_attack_counts_the_inputs_that_are_misclassified(trained, digits):
    x, y = digits.x_test, digits.y_test
    clean = (trained(x).argmax(dim=-1) != y).float().mean(dim=1)
    errors = [error_under_attack(trained, x, y, radius=radius) for radius in (1e-6, 0.2, 0.5)]
    torch.testing.assert_close(errors[0], clean)
    assert (errors[1] > clean).all()
    assert (errors[2] > errors[1]).all()
    assert (errors[2] <= 1).all()


# Probabilistic robustness


def test_probabilistic_robustness_is_a_fraction_that_falls_with_the_radius(trained, digits):
    kept = torch.stack([probabilistic_robustness(trained, digits.x_test, radius=radius) for radius in (1e-6, 2.0, 10.0)])
    assert kept[0].tolist() == [1, 1, 1]
    assert (kept.diff(dim=0) < 0).all()
    assert (kept >= 0).all()


def test_probabilistic_robustness_agrees_with_a_count_of_kept_labels(trained, digits):
    x, radius, samples = digits.x_test, 3.0, 200
    measured = probabilistic_robustness(trained, x, radius=radius, samples=samples, seed=0)
    label = trained(x).argmax(dim=-1)
    other = uniform_in_ball((samples, 100, 64), radius=radius, seed=999).float()
    kept = torch.stack([trained(x + delta).argmax(dim=-1) == label for delta in other]).double().mean(dim=0)
    error = (2 * kept * (1 - kept) / samples).sum(dim=1).sqrt() / 100
    # Two independent counts of 200 for each of 100 inputs: within 5.5 standard errors of their difference, 1e-7 by
    # chance for any of three networks.
    assert ((measured - kept.mean(dim=1)).abs() < 5.5 * error).all()
    assert ((kept.mean(dim=1) > 0.3) & (kept.mean(dim=1) < 0.95)).all()


# The average over δ done exactly


@pytest.mark.parametrize("outputs", [1, 3, 10])
def test_stability_by_gram_is_what_many_perturbations_average_to(outputs):
    network = fully_connected("he", inputs=20, width=12, depth=3, outputs=outputs, seeds=(0, 1), dtype=torch.float64, device="cpu")
    x = torch.rand(30, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = stability_by_gram(network, x)
    draws = torch.stack([network.jvp(x, _perturbations(30, 20, seed))[1].norm(dim=-1).mean(dim=-1) for seed in range(2000)])
    error = draws.std(dim=0) / math.sqrt(len(draws))
    # Two members, 5.5 standard errors: fails by chance with probability below 1e-7.
    assert ((draws.mean(dim=0) - exact.value).abs() < 5.5 * error).all()
    # One δ an input adds to the error that the choice of the inputs leaves; with one output nothing is drawn.
    one = perturbation_stability(network, x)
    if outputs == 1:
        torch.testing.assert_close(exact.value, one.value, rtol=1e-7, atol=0)
        torch.testing.assert_close(exact.standard_error, one.standard_error, rtol=1e-7, atol=0)
    else:
        assert (exact.standard_error < one.standard_error).all()


def test_large_networks_are_measured_in_parts_and_measure_the_same(monkeypatch):
    network = fully_connected("he", inputs=6, width=8, depth=3, outputs=4, seeds=(0, 1), device="cpu")
    moved = network.with_weights([weight + 0.1 for weight in network.weights])
    x = torch.rand(200, 6)
    whole = perturbation_stability(network, x), stability_by_gram(network, x), lazy_ratio(moved, network)
    monkeypatch.setattr(FCN, "block", 7)
    monkeypatch.setattr("robustnb.stability.PART", 50)
    parts = perturbation_stability(network, x), stability_by_gram(network, x), lazy_ratio(moved, network)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


@pytest.mark.parametrize("kind", ["LSTM", "attention"])
def test_modules_with_fused_kernels_are_measured_and_the_kernels_stay_on(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        module = Recurrent() if kind == "LSTM" else nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    x = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    measured = perturbation_stability(module, x, seed=1)
    delta = uniform_in_ball((5, 12), radius=1.0, seed=1).to(x).reshape(x.shape)
    with torch.no_grad():
        step = 1e-3 * delta
        moved = (module.eval()(x + step) - module(x - step)) / 2e-3
    assert measured.value.item() == pytest.approx(moved.flatten(1).norm(dim=1).mean().item(), rel=1e-2)
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mkldnn.enabled


class Constant(nn.Module):
    def forward(self, x):
        return torch.ones(len(x), 1)


@pytest.mark.parametrize("outputs", [1, 10])
def test_a_module_may_squeeze_the_axis_of_a_single_input(outputs):
    class Squeezes(nn.Module):
        def __init__(self, plain):
            super().__init__()
            self.plain = plain

        def forward(self, x):
            return self.plain(x.squeeze()).squeeze()

    plain, x = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, outputs)), torch.randn(20, 8)
    assert perturbation_stability(Squeezes(plain), x) == perturbation_stability(plain, x)


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(0)


class Twice(torch.autograd.Function):
    """Has a backward rule, and none for forward mode."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


class OwnFunction(nn.Module):
    def forward(self, x):
        return Twice.apply(x)


@pytest.mark.parametrize("measure", [perturbation_stability, stability_by_gram])
def test_one_input_has_no_standard_error(measure):
    with pytest.raises(ValueError, match=r"^x must hold at least 2 inputs, for a standard error, but its shape is \(1, 4\)\.$"):
        measure(fully_connected("he", inputs=4, width=8, depth=2, outputs=3), torch.randn(1, 4))


@pytest.mark.parametrize(
    ("network", "x", "words"),
    [
        (Mean(), torch.randn(5, 4), "network must return one tensor, a row for each input"),
        (nn.Sequential(nn.Linear(4, 3), OwnFunction()), torch.randn(5, 4), "network must have derivatives in forward mode .*torch says"),
        (nn.LSTM(4, 6), torch.randn(5, 3, 4), "network must return one tensor, a row for each input, not .*wrap it"),
        (nn.Linear(4, 3), np.zeros((5, 4)), "x must be a torch.Tensor of real numbers.*not an array of shape"),
        (nn.Linear(4, 3), torch.zeros(5, 4, dtype=torch.float64), "x must be a batch that the module takes.*float64 .torch says: .*dtype"),
        (nn.Sequential(nn.Linear(4, 1), Constant()), torch.randn(5, 4), "network must have an output that depends on x"),
        (torch.relu, torch.randn(5, 4), "network must be an FCN, a ConvNet or a torch.nn.Module, not "),
    ],
)
def test_what_cannot_be_measured_is_told_with_the_reason(network, x, words):
    with pytest.raises((TypeError, ValueError), match=words):
        perturbation_stability(network, x)


class InPlace(nn.Module):
    def forward(self, x):
        return x.mul_(0.5) @ torch.ones(4, 3, dtype=x.dtype)


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_module_that_works_in_place_changes_neither_the_inputs_nor_later_measurements(outputs):
    class Alone(InPlace):
        def forward(self, x):
            return super().forward(x)[:, :outputs]

    x = torch.rand(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kept, plain = x.clone(), nn.Linear(4, 3, bias=False, dtype=torch.float64)
    before = perturbation_stability(plain, x)
    halved = perturbation_stability(Alone(), x)
    assert torch.equal(x, kept)
    assert perturbation_stability(plain, x) == before
    assert halved.value.item() == pytest.approx(perturbation_stability(Weights(torch.full((4, outputs), 0.5)), x).value.item(), rel=1e-6)


class Weights(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def forward(self, x):
        return x @ self.weights.to(x)


def test_one_output_may_come_without_an_axis_of_its_own():
    module = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1))
    x = torch.rand(6, 4)
    assert perturbation_stability(nn.Sequential(module, nn.Flatten(0)), x) == perturbation_stability(module, x)


def test_measurements_of_modules_in_two_threads_leave_the_kernels_on():
    class Slow(nn.Module):
        def forward(self, x):
            time.sleep(0.05)
            return x[:, :3]

    x = torch.rand(3, 4)
    threads = [threading.Thread(target=lambda start=start: (time.sleep(start), perturbation_stability(Slow(), x))) for start in (0, 0.03)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mkldnn.enabled


def test_neighbouring_seeds_of_probabilistic_robustness_share_no_draw(monkeypatch, trained, digits):
    seeds = []

    def noted(shape, *, radius, seed):
        seeds.append(seed)
        return uniform_in_ball(shape, radius=radius, seed=seed)

    monkeypatch.setattr("robustnb.stability.uniform_in_ball", noted)
    for seed in (0, 1, 2):
        probabilistic_robustness(trained, digits.x_test, radius=0.5, samples=3, seed=seed)
    assert len(set(seeds)) == len(seeds) == 9
