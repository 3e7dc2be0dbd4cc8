from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from plain import INITS, as_module

from robustnb import fully_connected
from robustnb.convnets import convolutional


def small(init="he", **changes):
    return fully_connected(init, **({"inputs": 6, "width": 9, "depth": 4, "outputs": 3, "seeds": (0, 1, 5)} | changes))


def inputs(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("init", [*INITS, "m^-2"])
@pytest.mark.parametrize("depth", [2, 5])
def test_outputs_are_those_of_plain_linear_and_relu_layers(init, depth):
    network, x = small(init, depth=depth), inputs(7, 6)
    f = network(x)
    assert f.shape == (3, 7, 3)
    for member in range(3):
        torch.testing.assert_close(f[member], as_module(network, member)(x).detach(), rtol=1e-5, atol=1e-6 * float(f.abs().max()))


def test_shape_properties_say_what_was_asked_for():
    network = fully_connected("he", inputs=6, width=9, depth=4, outputs=3, seeds=(0, 1), device="cpu", dtype=torch.float64)
    assert (network.inputs, network.width, network.depth, network.outputs, network.members) == (6, 9, 4, 3, 2)
    assert (network.device.type, network.dtype, network.seeds) == ("cpu", torch.float64, (0, 1))


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("shape", [(4, 6), (3, 4, 6)], ids=["shared inputs", "inputs of each member"])
def test_jvp_is_the_jacobian_times_delta(init, shape):
    network, x, delta = small(init), inputs(*shape), inputs(*shape, seed=1)
    f, moved = network.jvp(x, delta)
    torch.testing.assert_close(f, network(x), rtol=1e-6, atol=0)
    for member, of_member, along in zip(range(3), x.expand(3, 4, 6), delta.expand(3, 4, 6), strict=True):
        module = as_module(network, member)
        expected = torch.stack([torch.autograd.functional.jacobian(module, x_i) @ d_i for x_i, d_i in zip(of_member, along, strict=True)])
        # 1e-5 relative to the length of each J δ: single entries may cancel.
        assert ((moved[member] - expected).norm(dim=1) <= 1e-5 * expected.norm(dim=1)).all()


def test_a_seed_gives_the_same_member_in_any_company():
    alone, together, reordered = small(seeds=(5,)), small(seeds=(0, 1, 5)), small(seeds=(5, 0))
    for one, many, other in zip(alone.weights, together.weights, reordered.weights, strict=True):
        assert torch.equal(one[0], many[2])
        assert torch.equal(one[0], other[0])
        assert not torch.equal(many[0], many[1])


def test_precision_changes_no_more_than_rounding():
    for single, double in zip(small().weights, small(dtype=torch.float64).weights, strict=True):
        assert torch.equal(single, double.float())


def test_alpha_divides_outputs_and_derivatives():
    network, x, delta = small(), inputs(4, 6), inputs(4, 6, seed=1)
    divided = replace(network, alpha=8.0)
    assert torch.equal(divided(x), network(x) / 8)
    for now, before in zip(divided.jvp(x, delta), network.jvp(x, delta), strict=True):
        assert torch.equal(now, before / 8)


def test_outputs_scale_with_the_input_and_derivatives_do_not():
    network, x, delta = small(), inputs(4, 6), inputs(4, 6, seed=1)
    # Powers of two: exact in floating point.
    assert torch.equal(network(4 * x), 4 * network(x))
    assert torch.equal(network.jvp(4 * x, delta)[1], network.jvp(x, delta)[1])


def test_outputs_scale_with_each_weight_matrix():
    network, x = small(), inputs(4, 6)
    scaled = network.with_weights([c * weight for c, weight in zip((2, 0.5, 8, 4), network.weights, strict=True)])
    assert torch.equal(scaled(x), 32 * network(x))
    assert not torch.equal(scaled.weights[0], network.weights[0])


@pytest.mark.parametrize(
    "build",
    [
        lambda: fully_connected("he", inputs=64, width=4096, depth=3, outputs=10),
        lambda: convolutional("he", model="cnn", channels=1, side=8, width=512, depth=4, outputs=10),
    ],
    ids=["fcn", "cnn"],
)
def test_networks_that_do_not_fit_are_refused_before_they_are_built(build, monkeypatch):
    monkeypatch.setattr("robustnb.networks.psutil.virtual_memory", lambda: SimpleNamespace(available=2**20))
    with pytest.raises(MemoryError, match=r"^width must be smaller: the weights need 0\.\d GiB, and 0\.0 GiB are free\.$"):
        build()


def test_at_zero_every_gate_is_open():
    """φ'(0) = 1, as in Definition 2."""
    network, delta = fully_connected("he", inputs=6, width=9, depth=3, outputs=3), torch.ones(2, 6)
    first, hidden, last = (weight[0] for weight in network.weights)
    torch.testing.assert_close(network.jvp(torch.zeros(2, 6), delta)[1][0], delta @ first @ hidden @ last)
