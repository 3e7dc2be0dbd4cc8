"""Wide networks in closed form: the kernels against gradients of networks, P/ε after training against trained networks."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from robustnb import fully_connected, get_initialization, gradient_descent, kernels, load_data, perturbation_stability, theory, two_classes
from robustnb.stability import jacobian

TASK = two_classes(load_data("digits", normalize="unit"), 3, 8, n=8)
X, Y, AT = TASK.x.numpy(), TASK.y.numpy()[:, 0], TASK.probe.numpy()[:6]
D = X.shape[1]
CASES = [("he", 2), ("ntk", 2), ("he", 3), ("ntk", 4), ("lecun", 3)]


def networks(init, *, width, depth, seeds, inputs=D):
    shape = {"inputs": inputs, "width": width, "depth": depth, "outputs": 1}
    return fully_connected(init, **shape, seeds=seeds, dtype=torch.float64, device="cpu")


def kernel_of(network, x):
    """⟨∂f/∂W(x_i), ∂f/∂W(x_j)⟩ by automatic differentiation, averaged over the members."""
    weights = [weight.clone().requires_grad_() for weight in network.weights]
    f = network.with_weights(weights)(x)[..., 0]
    features = [torch.cat([g.flatten(1) for g in torch.autograd.grad(f[:, k].sum(), weights, retain_graph=True)], 1) for k in range(len(x))]
    rows = torch.stack(features, 1)
    return (rows @ rows.mT).mean(0).numpy()


@pytest.mark.parametrize(("init", "depth"), CASES)
def test_the_tangent_kernel_is_the_mean_of_that_of_wide_networks(init, depth):
    wide = kernels.tangent_kernel(X, X, init, width=128, depth=depth).value
    measured = kernel_of(networks(init, width=128, depth=depth, seeds=range(24)), TASK.x)
    # A fixed draw, off by 0.08 at most; a layer left out or counted twice would be off by 0.3.
    assert measured == pytest.approx(wide, abs=0.12 * wide.max())


@pytest.mark.parametrize(("init", "depth"), CASES)
def test_the_output_kernel_is_the_covariance_of_wide_networks_before_training(init, depth):
    wide = kernels.output_kernel(X, X, init, width=64, depth=depth).value
    f = networks(init, width=64, depth=depth, seeds=range(400))(TASK.x)[..., 0].numpy()
    assert f.T @ f / len(f) == pytest.approx(wide, abs=0.2 * wide.max())


def test_two_layers_have_the_gram_of_lemma_7():
    for init in ("he", "lecun", "ntk"):
        theta = kernels.tangent_kernel(X, X, init, width=100, depth=2).value
        assert theta == pytest.approx(theory.mean_two_layer_gram(X, init, width=100), rel=1e-6)


@pytest.mark.parametrize("angle", [1e-6, 2e-7])
@pytest.mark.parametrize(("init", "depth"), CASES)
def test_inputs_close_together_keep_their_digits(init, depth, angle):
    """The angle goes through all layers unchanged to first order, and each of L − l factors 1 − θ/π loses its share."""
    x, shape = np.array([[1.0, 0.0], [math.cos(angle), math.sin(angle)]]), {"width": 10, "depth": depth}
    scales = get_initialization(init).scales(inputs=2, outputs=1, **shape)
    q = 10 / 2 * np.array([scales.beta_first, *[scales.beta] * (depth - 2), scales.beta_last]) ** 2
    lost = sum(q.prod() / q[layer - 1] * (depth - layer) for layer in range(1, depth + 1)) / scales.alpha**2 / math.pi
    grams = [kernels.tangent_kernel(x, x, init, **shape).value, *([theory.mean_two_layer_gram(x, init, width=10)] if depth == 2 else [])]
    for gram in grams:
        assert (gram[0, 0] - gram[0, 1]) / angle == pytest.approx(lost, rel=20 * angle)


@pytest.mark.parametrize("kernel", [kernels.output_kernel, kernels.tangent_kernel])
@pytest.mark.parametrize(("init", "depth"), CASES)
def test_gradients_agree_with_finite_differences(kernel, init, depth):
    x, step = AT * np.linspace(0.5, 2, len(AT))[:, None], 1e-6
    gradient = kernel(x, X, init, width=32, depth=depth).gradient
    for k in range(0, D, 7):
        shift = step * np.eye(D)[k]
        ahead, behind = (kernel(x + sign * shift, X, init, width=32, depth=depth).value for sign in (1, -1))
        assert (ahead - behind) / (2 * step) == pytest.approx(gradient[..., k], abs=1e-7 * np.abs(gradient).max() + 1e-7)


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("sign", [1, -1])
def test_at_a_kink_the_gradient_is_the_mean_over_both_sides(depth, sign):
    x, step = sign * X[:1], 1e-5
    gradient = kernels.tangent_kernel(x, 3 * X[:1], "ntk", width=32, depth=depth).gradient[0, 0]
    side = np.random.default_rng(0).standard_normal(D)
    side -= (side @ X[0]) * X[0]
    side *= step / np.linalg.norm(side)
    here, ahead, behind = (
        kernels.tangent_kernel(x + way, 3 * X[:1], "ntk", width=32, depth=depth).value.item() for way in (0, side, -side)
    )
    assert (ahead - behind) / (2 * step) == pytest.approx(gradient @ side / step, abs=1e-3)
    assert abs(ahead - here) / step > 0.1 * abs(here)  # a kink indeed
    assert gradient @ x[0] == pytest.approx(here, abs=1e-6 * abs(here) + 1e-9)  # and linear along x


def test_the_mean_length_of_a_gaussian_vector_by_quadrature_and_in_limits():
    assert kernels.mean_gaussian_length([3.0, 4.0], np.zeros((2, 2))) == pytest.approx(5)
    assert kernels.mean_gaussian_length(np.zeros(7), np.eye(7)) == pytest.approx(np.exp(theory.log_mean_chi(7)), rel=1e-7)
    assert kernels.mean_gaussian_length(np.zeros((2, 3)), np.zeros((2, 3, 3))).tolist() == [0, 0]
    # One variance and a mean: the folded normal distribution.
    folded = quad(lambda g: abs(1.5 + 0.7 * g) * math.exp(-(g**2) / 2) / math.sqrt(2 * math.pi), -12, 12, points=[-1.5 / 0.7])[0]
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    spread = turn @ np.diag([0.49, 0, 0]) @ turn.T
    assert kernels.mean_gaussian_length(turn @ [1.5, 0, 0], spread) == pytest.approx(folded, rel=1e-4)
    root, mean = np.random.default_rng(1).standard_normal((4, 4)), np.array([1.0, -2.0, 0.5, 0.0])
    draws = np.linalg.norm(mean + np.random.default_rng(2).standard_normal((200_000, 4)) @ root.T, axis=1)
    assert kernels.mean_gaussian_length(mean, root @ root.T) == pytest.approx(draws.mean(), abs=6 * draws.std() / len(draws) ** 0.5)


@pytest.mark.parametrize("steps", [0, 1, 7, 400])
def test_the_response_is_that_of_a_linear_model_trained_step_by_step(steps):
    theta = kernels.tangent_kernel(X, X, "he", width=64, depth=3).value
    gradient = kernels.tangent_kernel(AT, X, "he", width=64, depth=3).gradient
    lr, f, total = 1.5 * len(X) / np.linalg.eigvalsh(theta)[-1], np.zeros(len(X)), np.zeros((len(AT), D))
    for _ in range(steps):
        residual = f - Y
        total -= lr / len(X) * np.einsum("pnd,n->pd", gradient, residual)
        f = f - lr / len(X) * theta @ residual
    response = kernels.gradient_response(AT, X, "he", width=64, depth=3, lr=lr, steps=steps)
    assert response @ Y == pytest.approx(total, abs=1e-9)


def test_before_training_it_is_the_wide_value_and_without_limit_of_steps_that_of_many():
    shape = {"width": 2**20, "depth": 4}
    args = (AT, X, Y, "ntk")
    before = theory.wide_stability_at_initialization("ntk", inputs=D, outputs=1, **shape)
    assert kernels.stability_after_training(*args, **shape, lr=1e-9, steps=0) == pytest.approx(float(before), rel=1e-6)
    ends = [kernels.stability_after_training(*args, **shape, lr=5e-7, steps=steps) for steps in (math.inf, 10**6)]
    assert ends[0] == pytest.approx(ends[1], rel=1e-6)


def test_images_that_come_twice_add_no_direction():
    """Half of the eigenvalues are then rounding, and nothing is divided by one."""
    theta = kernels.tangent_kernel(X, X, "ntk", width=64, depth=4).value
    training = {"width": 64, "depth": 4, "lr": 1.5 * len(X) / np.linalg.eigvalsh(theta)[-1]}
    twice = kernels.gradient_response(AT, np.vstack([X, X]), "ntk", **training)
    assert twice @ np.tile(Y, 2) == pytest.approx(kernels.gradient_response(AT, X, "ntk", **training) @ Y, abs=1e-6)


@pytest.mark.parametrize("init", ["he", "ntk"])
def test_the_part_of_the_start_is_that_of_networks_as_they_are_drawn(init):
    """With all targets 0: ∇f_0(x) − B f_0(X) over 1,000 networks in 5 dimensions, within 6 standard errors."""
    random = np.random.default_rng(5)
    x, at = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in random.standard_normal((2, 4, 5)))
    start = networks(init, width=256, depth=2, seeds=range(1000), inputs=5)
    training = {"width": 256, "depth": 2, "lr": 1e-4}
    response = kernels.gradient_response(at, x, init, **training)
    f, gradient = start(torch.from_numpy(x))[..., 0].numpy(), jacobian(start, torch.from_numpy(at))[:, :, 0].numpy()
    ball = theory.mean_ball_radius(5) * theory.mean_absolute_projection(5)
    drawn = ball * np.linalg.norm(gradient - np.einsum("pdn,sn->spd", response, f), axis=-1).mean(1)
    predicted = kernels.stability_after_training(at, x, np.zeros(4), init, **training).mean()
    assert predicted == pytest.approx(drawn.mean(), abs=6 * drawn.std() / len(drawn) ** 0.5)


@pytest.mark.parametrize("init", ["he", "ntk"])
def test_trained_wide_networks_have_the_stability_that_was_predicted(init):
    """In a few dimensions, where m = 2,048 is wide: each network by its own start, and the mean over starts."""
    random = np.random.default_rng(3)
    x, at = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in random.standard_normal((2, 6, 5)))
    y, width, steps = 3 * np.sign(random.standard_normal(6)), 2048, 60
    theta = kernels.tangent_kernel(x, x, init, width=width, depth=2).value
    training = {"width": width, "depth": 2, "lr": len(x) / np.linalg.eigvalsh(theta)[-1], "steps": steps}
    start = networks(init, width=width, depth=2, seeds=range(16), inputs=5)
    inputs = torch.from_numpy(x)
    *_, last = gradient_descent(start, inputs, torch.from_numpy(y[:, None]), lr=training["lr"], steps=steps)
    measured = perturbation_stability(last.network, torch.from_numpy(at)).value.numpy()

    residual = y - start(inputs)[..., 0].detach().numpy()
    own = jacobian(start, torch.from_numpy(at))[:, :, 0].numpy() + np.einsum(
        "pdn,sn->spd", kernels.gradient_response(at, x, init, **training), residual
    )
    ball = theory.mean_ball_radius(5) * theory.mean_absolute_projection(5)
    assert ball * np.linalg.norm(own, axis=-1).mean(1) == pytest.approx(measured, rel=0.2)
    predicted = kernels.stability_after_training(at, x, y, init, **training).mean()
    error = measured.std(ddof=1) / len(measured) ** 0.5
    assert predicted == pytest.approx(measured.mean(), abs=6 * error + 0.02 * predicted)
    # What the test is for: the start's value would not do.
    before = perturbation_stability(start, torch.from_numpy(at)).value.mean().item()
    assert abs(before - measured.mean()) > 6 * error + 0.02 * predicted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 1e3}, "lr must be below"),
        ({"y": np.ones(3)}, r"y must have shape \(8,\)"),
        ({"steps": -1}, "steps must be a whole number"),
        ({"x": np.zeros((2, D))}, "x must be a matrix that is not empty and has no row of zeros"),
        ({"x_train": np.ones((8, 3))}, "x must have as many columns"),
        ({"depth": 1}, "depth must be a whole number of at least 2"),
    ],
)
def test_what_cannot_be_predicted_is_refused(change, message):
    good = {"x": AT, "x_train": X, "y": Y, "init": "he", "width": 64, "depth": 2, "lr": 0.01, "steps": 3}
    kernels.stability_after_training(**good)
    with pytest.raises((ValueError, TypeError), match=message):
        kernels.stability_after_training(**(good | change))
