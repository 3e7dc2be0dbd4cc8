"""Convolutional and residual networks: against plain torch modules, member by member."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plain import few_digits
from torch import nn

from robustnb import lazy_ratio, perturbation_stability, theory, train
from robustnb.convnets import MODELS, convolutional, plan_of
from robustnb.stability import jacobian

SHAPE = {"channels": 3, "side": 8, "width": 4, "outputs": 5, "device": "cpu", "dtype": torch.float64}
DEPTH = {"cnn": 4, "resnet": 14, "scaled_resnet": 14}


def images(n=6, seed=0, inputs=192):
    return torch.rand(n, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def networks(model, init="he", seeds=(0, 1, 5), **changes):
    network = convolutional(init, model=model, seeds=seeds, **(SHAPE | {"depth": DEPTH[model]} | changes))
    return network.calibrated(images(50, seed=9, inputs=network.inputs))


class Block(nn.Module):
    """He et al.'s (2016) basic block, with identity shortcuts; or its form without normalization."""

    def __init__(self, into, out, stride, share):
        super().__init__()
        self.first = nn.Conv2d(into, out, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(out, out, 3, padding=1, bias=False)
        norms = [nn.Identity(), nn.Identity()] if share else [nn.BatchNorm2d(out), nn.BatchNorm2d(out)]
        self.norms, self.stride, self.more, self.share = nn.ModuleList(norms), stride, out - into, share

    def forward(self, h):
        branch = self.norms[1](self.second(self.norms[0](self.first(h)).relu()))
        if self.stride == 2:
            h = F.pad(h[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.more))
        return h + self.share * branch if self.share else (h + branch).relu()


def plain(network, member=0):
    """One member as a module of torch's own layers, its weights copied."""
    (width, channels, stride), *rest = network.plan.convolutions
    model, blocks = network.plan.model, len(rest) // 2
    layers = [nn.Unflatten(1, (channels, network.plan.side, network.plan.side)), nn.Conv2d(channels, width, 3, stride, 1, bias=False)]
    if model == "cnn":
        layers += [nn.ReLU()]
        for out, into, step in rest:
            layers += [nn.Conv2d(into, out, 3, step, 1, bias=False), nn.ReLU()]
    else:
        layers += [nn.BatchNorm2d(width)] if model == "resnet" else []
        layers += [nn.ReLU()]
        share = 0 if model == "resnet" else (2 * blocks) ** -0.5
        layers += [Block(into, out, step, share) for out, into, step in rest[::2]]
        layers += [nn.ReLU()] if share else []
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(network.plan.convolutions[-1][0], network.outputs, bias=False)]
    module = nn.Sequential(*layers).to(network.dtype)
    weights = [part for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    for part, weight in zip(weights, network.weights, strict=True):
        part.weight.data = weight[member].clone()
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    for part, gain, statistics in zip(norms, network.gains, network.statistics, strict=True):
        part.weight.data, part.bias.data = gain[member].clone()
        part.running_mean.data, part.running_var.data = statistics[member].clone()
    return module


@pytest.mark.parametrize("model", MODELS)
def test_outputs_are_those_of_torchs_own_layers(model):
    network, x = networks(model), images()
    gains = tuple(gain + torch.randn(gain.shape, dtype=gain.dtype) / 5 for gain in network.gains)
    network = replace(network, gains=gains).calibrated(images(50, seed=9))
    for member in range(3):
        module = plain(network, member)
        torch.testing.assert_close(network(x)[member], module.eval()(x))
        torch.testing.assert_close(network.in_training(x)[member], module.train()(x))


@pytest.mark.parametrize("side", [8, 17])
def test_large_images_are_halved_once(side):
    network = networks("cnn", side=side)
    assert network.plan.convolutions[0][2] == (2 if side > 16 else 1)
    torch.testing.assert_close(network(images(inputs=network.inputs))[1], plain(network, 1)(images(inputs=network.inputs)))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shape", [(6, 192), (3, 6, 192)], ids=["shared inputs", "inputs of each member"])
def test_jvp_is_autograds(model, shape):
    network = networks(model)
    x, delta = (images(6 * shape[0] if len(shape) == 3 else 6, seed=seed)[: shape[0] * 6].reshape(-1, 192) for seed in (1, 2))
    x, delta = x[: np.prod(shape[:-1])].reshape(shape), delta[: np.prod(shape[:-1])].reshape(shape) - 0.5
    f, moved = network.jvp(x, delta)
    torch.testing.assert_close((f, moved), torch.func.jvp(network, (x,), (delta,)))


@pytest.mark.parametrize("model", MODELS)
def test_stability_of_members_is_that_of_torch_modules(model):
    network, x = networks(model), images(40)
    together = perturbation_stability(network, x)
    for member in range(3):
        torch.testing.assert_close(together.value[member], perturbation_stability(plain(network, member), x).value)


@pytest.mark.parametrize("model", MODELS)
def test_a_seed_gives_the_same_member_in_any_company(model):
    alone, together = networks(model, seeds=(5,)), networks(model)
    for one, many in zip(alone.weights, together.weights, strict=True):
        assert torch.equal(one[0], many[2])
        assert not torch.equal(many[0], many[1])
    torch.testing.assert_close(alone(images())[0], together(images())[2])


@pytest.mark.parametrize("init", ["he", "lecun", "ntk", "m^-1.5"])
def test_standard_deviations_follow_the_fan_in(init):
    network = networks("resnet", init, seeds=(0,), width=32)
    found = [weight.std().item() for weight in network.weights]
    fans = [9 * into for _, into, _ in network.plan.convolutions] + [128]
    hidden = {"he": [(2 / n) ** 0.5 for n in fans], "lecun": [(1 / n) ** 0.5 for n in fans], "ntk": [(2 / n) ** 0.5 for n in fans]}
    expected = hidden.get(init, [n**-1.5 for n in fans])
    if init == "ntk":
        expected[0], expected[-1] = (2 / (9 * 32)) ** 0.5, (1 / 5) ** 0.5
    elif init == "m^-1.5":
        expected[0] = (9 * 32) ** -1.5
    assert found == pytest.approx(expected, rel=0.1)


# Training


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_training_is_plain_sgd_on_torchs_own_layers(model, loss):
    data = few_digits(100, 60, dtype=torch.float64)
    start = networks(model, channels=1, outputs=10, depth=8 if model != "cnn" else 4, seeds=(0, 3))
    run = train(start, data, epochs=2, lr=0.05, loss=loss, batch_size=32, batch_seed=4)
    module = plain(start, 1).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    generator = torch.Generator().manual_seed(4)
    for _ in range(2):
        for batch in torch.randperm(100, generator=generator).split(32):
            x, y = data.x_train[batch], data.y_train[batch]
            optimizer.zero_grad()
            f = module(x)
            of = F.cross_entropy(f, y) if loss == "cross_entropy" else 0.5 * (f - F.one_hot(y, 10)).square().sum(1).mean()
            of.backward()
            optimizer.step()
    trained = [part.weight for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    for ours, theirs in zip(run.network.weights, trained, strict=True):
        torch.testing.assert_close(ours[1], theirs.detach(), rtol=1e-6, atol=1e-9)
    assert not any(weight.requires_grad for weight in run.network.weights)
    assert run.final.lazy_ratio.to_numpy() == pytest.approx(lazy_ratio(run.network, start).numpy())
    assert lazy_ratio(run.network, start).min() > 0


@pytest.mark.parametrize("model", MODELS)
def test_members_side_by_side_are_separate_runs(model):
    data = few_digits(100, 60, dtype=torch.float64)
    shape = {"channels": 1, "outputs": 10, "depth": 8 if model != "cnn" else 3}
    together = train(networks(model, **shape), data, epochs=2, lr=0.05, batch_size=32).final
    for k, seed in enumerate((0, 1, 5)):
        alone = train(networks(model, seeds=(seed,), **shape), data, epochs=2, lr=0.05, batch_size=32).final
        for column in ("train_loss", "stability", "lazy_ratio", "test_accuracy"):
            assert together[column][k] == pytest.approx(alone[column][0], rel=1e-9)


def test_evaluation_normalizes_by_the_training_images():
    data = few_digits(300, 60, dtype=torch.float64)
    run = train(networks("resnet", channels=1, outputs=10, depth=8, seeds=(0,)), data, epochs=1, lr=0.05)
    module = plain(run.network)
    # Over one batch of all training images, torch's own statistics are the same.
    fresh = plain(run.network)
    for part in fresh.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.reset_running_stats()
            part.momentum = None
    fresh.train()(data.x_train)
    torch.testing.assert_close(module.eval()(data.x_test), fresh.eval()(data.x_test), rtol=2e-2, atol=1e-3)


def test_a_residual_network_of_110_layers_is_built_and_trained_a_step():
    """The paper's depth, at a width that a test can bear."""
    plan = plan_of("resnet", channels=3, side=32, width=16, depth=110)
    assert len(plan.convolutions) + 1 == 110
    assert [sum(out == channels for out, _, _ in plan.convolutions) for channels in (16, 32, 64)] == [37, 36, 36]
    network = convolutional("he", model="resnet", depth=110, seeds=(0, 1), **(SHAPE | {"width": 1, "side": 4}))
    x = images(4, inputs=48)
    outputs = network.calibrated(x)(x)
    assert outputs.shape == (2, 4, 5)
    assert torch.isfinite(outputs).all()
    data = few_digits(train=20, test=10)
    run = train(
        convolutional("m^-2", model="resnet", channels=1, side=8, width=1, depth=110, outputs=10, seeds=(0,)), data, epochs=1, lr=0.1
    )
    assert not run.final.diverged.any()
    assert run.final.lazy_ratio[0] > 0


def test_a_normalized_network_that_never_saw_data_says_what_it_needs():
    with pytest.raises(ValueError, match=r"calibrated\(x\)"):
        replace(networks("resnet"), statistics=())(images())


# What the book says of them


def test_with_batch_normalization_the_scale_of_a_weight_changes_nothing():
    def outputs(model, scale):
        network = networks(model)
        first, *rest, last = network.weights
        scaled = replace(network, weights=(scale * first, *[scale * weight for weight in rest], last))
        return scaled.calibrated(images(50, seed=9))(images())

    torch.testing.assert_close(outputs("resnet", 3.0), outputs("resnet", 1.0), rtol=1e-3, atol=1e-4)
    assert outputs("scaled_resnet", 3.0).norm() > 5 * outputs("scaled_resnet", 1.0).norm()


@pytest.mark.parametrize("model", ["cnn", "scaled_resnet"])
def test_without_normalization_networks_are_homogeneous(model):
    network, x = networks(model), images(3)
    torch.testing.assert_close(network(2 * x), 2 * network(x))
    f = (jacobian(network, x) @ x[..., None])[..., 0]
    torch.testing.assert_close(f, network(x))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("tangent", [False, True], ids=["signal", "perturbation"])
def test_the_second_moment_of_a_convolution_is_exact_at_any_width(stride, tangent):
    """Of the activations, and of a perturbation carried through φ' beside them: three layers of two channels, 4,000 draws."""
    generator = torch.Generator().manual_seed(0)
    x, v = torch.rand(2, 3, 6, 6, generator=generator, dtype=torch.float64)
    beta, draws = 0.4, 4000
    h, d = x.repeat(draws, 1, 1), v.repeat(draws, 1, 1)
    h, d = h[None], d[None]
    q = ((v if tangent else x) ** 2).mean(0).numpy()
    into = 3
    for layer in range(3):
        step = stride if layer == 1 else 1
        weight = beta * torch.randn(2 * draws, into, 3, 3, generator=generator, dtype=torch.float64)
        h, d = (F.conv2d(part, weight, stride=step, padding=1, groups=draws) for part in (h, d))
        h, d = h.relu(), d * (h >= 0)
        q = theory.convolution_second_moment(q, beta=beta, channels=into, stride=step) / 2
        into = 2
    squares = (d if tangent else h).unflatten(1, (draws, 2)).square().mean(2)[0]
    error = squares.std(0) / draws**0.5
    # Within 6 standard errors: 2e-7 by chance for any of the 90 pixels in all cases.
    assert ((squares.mean(0) - torch.from_numpy(q)).abs() <= 6 * error).all()


def test_residual_branches_are_scaled_to_keep_the_signal():
    """By (1 + 1/blocks)^blocks ≤ e in second moment for blocks that keep the size, away from the border."""
    x = torch.ones(1, 1 * 64 * 64, dtype=torch.float64)
    for depth in (8, 32):
        network = networks("scaled_resnet", channels=1, side=64, depth=depth, seeds=range(200), width=2)
        blocks = (depth - 2) // 2
        stage = network.plan.convolutions[1 : 1 + 2 * (blocks // 3)]
        h = x.unflatten(1, (1, 64, 64))
        weights = iter(network.weights)
        h = F.conv2d(h, next(weights).flatten(0, 1), padding=1).relu()
        before = h.unflatten(1, (200, 2))[0, :, :, 28:36, 28:36].square().mean()
        for _ in stage[::2]:
            branch = F.conv2d(h, next(weights).flatten(0, 1), padding=1, groups=200).relu()
            h = h + (2 * blocks) ** -0.5 * F.conv2d(branch, next(weights).flatten(0, 1), padding=1, groups=200)
        after = h.unflatten(1, (200, 2))[0, :, :, 28:36, 28:36].square().mean()
        assert (after / before).item() == pytest.approx((1 + 1 / blocks) ** (blocks / 3), rel=0.25)


# Bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "vgg"}, r"^model must be one of 'cnn', 'resnet', 'scaled_resnet', not 'vgg'\.$"),
        ({"depth": 9, "model": "resnet"}, r"^depth must be 8, 14, 20 or any other 6n \+ 2 for a residual network, not 9\.$"),
        ({"depth": 1}, r"^depth must be .*at least 2, not 1\.$"),
        ({"width": 0}, r"^width must be .*at least 1, not 0\.$"),
        ({"seeds": ()}, r"^seeds must hold at least one whole number, not \(\)\.$"),
        ({"init": "xavier"}, r"^init must be .*, not 'xavier'\.$"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(changes, message):
    arguments = SHAPE | {"init": "he", "model": "cnn", "depth": 4} | changes
    with pytest.raises(ValueError, match=message):
        convolutional(arguments.pop("init"), **arguments)
