"""The same work as others do it: SGD with cross-entropy on minibatches, for networks of one shape.

Each function takes a `Work` and returns a `Peer` that starts from the same networks. All take the same minibatches, so that they must
come to the same weights (`benchmarks.__main__.same` checks it), but for the textbook loop, whose DataLoader draws an order of its
own; the same loop without the DataLoader is checked in its place. All train their members at once, but for these two, which know one
network only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from robustnb import FCN, fully_connected
from robustnb.engine import Engine

LR, BATCH, INPUTS, OUTPUTS = 1e-3, 64, 784, 10

Steps = Callable[[int], None]


class Peer(NamedTuple):
    """`run(n)` does n steps and waits for their end; `weights()` are the members' now, each layer (members, fan_in, fan_out)."""

    run: Steps
    weights: Callable[[], list[Tensor]]


@dataclass(frozen=True)
class Work:
    """Networks of one shape, and inputs like MNIST's: x (n, 784), classes y (n,)."""

    width: int
    depth: int
    members: int
    x: Tensor
    y: Tensor

    @property
    def network(self) -> FCN:
        shape = {"inputs": INPUTS, "width": self.width, "depth": self.depth, "outputs": OUTPUTS}
        return fully_connected("he", **shape, seeds=range(self.members), device=self.x.device)

    @property
    def flops(self) -> int:
        """Multiplications and additions of one network's step: forward, the errors pulled back (but not to the inputs), the gradients."""
        sizes = [INPUTS, *[self.width] * (self.depth - 1), OUTPUTS]
        products = sum(a * b for a, b in itertools.pairwise(sizes))
        return 2 * BATCH * (3 * products - INPUTS * self.width)

    def batches(self, steps: int) -> list[Tensor]:
        """The first minibatches of one fixed order."""
        order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(0)).repeat(1 + steps * BATCH // len(self.x))
        return list(order[: steps * BATCH].to(self.x.device).split(BATCH))


def engine(work: Work) -> Peer:
    """This book's."""
    trained = Engine(work.network, work.x, work.y, "cross_entropy")

    def run(steps: int) -> None:
        trained.epoch(torch.cat(work.batches(steps)), BATCH, LR, lambda: False)
        trained.worst.tolist()  # waits for a GPU

    return Peer(run, lambda: list(trained.network.weights))


def textbook(work: Work) -> Peer:
    """`nn.Sequential`, `DataLoader` and `optim.SGD`, one network."""
    module, optimizer = _module(work)
    loader = DataLoader(TensorDataset(work.x, work.y), batch_size=BATCH, shuffle=True, drop_last=True)

    def run(steps: int) -> None:
        for x, y in itertools.islice(itertools.chain.from_iterable(itertools.repeat(loader)), steps):
            _step(module, optimizer, x, y)

    return Peer(run, partial(_weights, module))


def no_loader(work: Work) -> Peer:
    """The textbook loop on a tensor that is indexed, without a `DataLoader`."""
    module, optimizer = _module(work)

    def run(steps: int) -> None:
        for batch in work.batches(steps):
            _step(module, optimizer, work.x[batch], work.y[batch])

    return Peer(run, partial(_weights, module))


def _module(work: Work) -> tuple[nn.Module, torch.optim.Optimizer]:
    sizes = [INPUTS, *[work.width] * (work.depth - 1), OUTPUTS]
    layers = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b, bias=False), nn.ReLU())]
    module = nn.Sequential(*layers[:-1]).to(work.x.device)
    for parameter, weight in zip(module.parameters(), work.network.weights, strict=True):
        parameter.data.copy_(weight[0].T)
    return module, torch.optim.SGD(module.parameters(), lr=LR)


def _weights(module: nn.Module) -> list[Tensor]:
    return [parameter.detach().T[None] for parameter in module.parameters()]


def _step(module: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(module(x), y).backward()
    optimizer.step()


def vmap(work: Work) -> Peer:
    """`torch.func`: the gradient of one network, mapped over the members."""
    weights = [weight.contiguous() for weight in work.network.weights]

    def loss(weights: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
        h = x
        for weight in weights[:-1]:
            h = torch.relu(h @ weight)
        return F.cross_entropy(h @ weights[-1], y)

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(0, None, None))

    def run(steps: int) -> None:
        for batch in work.batches(steps):
            for weight, gradient in zip(weights, gradients(weights, work.x[batch], work.y[batch]), strict=True):
                weight.sub_(gradient, alpha=LR)

    return Peer(run, lambda: weights)


def members_axis(work: Work) -> Peer:
    """All members in one batched product a layer, with torch's own backward pass."""
    weights = [weight.clone(memory_format=torch.contiguous_format).requires_grad_() for weight in work.network.weights]

    def run(steps: int) -> None:
        for batch in work.batches(steps):
            h = work.x[batch].expand(work.members, -1, -1)
            for weight in weights[:-1]:
                h = torch.relu(torch.bmm(h, weight))
            f = torch.bmm(h, weights[-1])
            losses = F.cross_entropy(f.flatten(0, 1), work.y[batch].repeat(work.members), reduction="sum") / BATCH
            with torch.no_grad():
                for weight, gradient in zip(weights, torch.autograd.grad(losses, weights), strict=True):
                    weight.sub_(gradient, alpha=LR)

    return Peer(run, lambda: [weight.detach() for weight in weights])


def by_hand(work: Work, *, shared: bool = False) -> Peer:
    """The backward pass written out, each gradient added to its weight where it is computed; `shared`: with one first layer for all."""
    first, *rest = (weight.clone(memory_format=torch.contiguous_format) for weight in work.network.weights)
    members, width = work.members, work.width
    one_hot = F.one_hot(work.y, OUTPUTS).float()
    wide = first.transpose(0, 1).reshape(INPUTS, -1).clone()

    @torch.no_grad()
    def run(steps: int) -> None:
        for batch in work.batches(steps):
            x, y = work.x.index_select(0, batch), one_hot.index_select(0, batch)
            many = x.expand(members, -1, -1)
            h = torch.mm(x, wide).view(BATCH, members, width).transpose(0, 1) if shared else torch.bmm(many, first)
            inputs = [h.relu_()]
            for weight in rest[:-1]:
                inputs.append(torch.bmm(inputs[-1], weight).relu_())
            error = torch.bmm(inputs[-1], rest[-1]).softmax(-1).sub_(y).mul_(LR / BATCH)
            for weight, h in zip(rest[::-1], inputs[::-1], strict=True):
                pulled = torch.ops.aten.threshold_backward(torch.bmm(error, weight.mT), h, 0)
                weight.baddbmm_(h.mT, error, alpha=-1)
                error = pulled
            if shared:
                wide.addmm_(x.T, error.transpose(0, 1).reshape(BATCH, -1), alpha=-1)
            else:
                first.baddbmm_(many.mT, error, alpha=-1)

    return Peer(run, lambda: [wide.view(INPUTS, members, width).transpose(0, 1) if shared else first, *rest])


def products(work: Work) -> Peer:
    """The limit: the matrix products of the engine's step, alone."""
    trained = Engine(work.network, work.x, work.y, "cross_entropy")
    trained.epoch(torch.arange(BATCH), BATCH, 0.0, lambda: False)
    step = trained._steps[BATCH]
    step._error.normal_()

    @torch.no_grad()
    def run(steps: int) -> None:
        for _ in range(steps):
            torch.mm(step._first, step._x.mT, out=step._first_hidden)
            for weight, below, above in step._up:
                torch.bmm(weight, below, out=above)
            torch.bmm(step._last, step._last_hidden, out=step._f)
            for weight, transposed, error, pulled, _, hidden_t in step._down:
                torch.bmm(transposed, error, out=pulled)
                weight.baddbmm_(error, hidden_t, alpha=-1e-12)
            step._first.addmm_(step._first_error, step._x, alpha=-1e-12)

    return Peer(run, list)


def jax_scan(work: Work) -> Peer:
    """JAX: `jit` of `scan` of `vmap` of `grad`, with donated weights. A number of steps is compiled when it is first asked for."""
    weights: list[Any] = [jnp.asarray(weight.cpu().numpy()) for weight in work.network.weights]
    all_x, all_y = jnp.asarray(work.x.cpu().numpy()), jnp.asarray(work.y.cpu().numpy())

    def loss(weights: list[Any], x: Any, y: Any) -> Any:
        h = x
        for weight in weights[:-1]:
            h = jax.nn.relu(h @ weight)
        return -jnp.take_along_axis(jax.nn.log_softmax(h @ weights[-1]), y[:, None], axis=1).mean()

    def one(weights: list[Any], x: Any, y: Any) -> list[Any]:
        return [weight - LR * gradient for weight, gradient in zip(weights, jax.grad(loss)(weights, x, y), strict=True)]

    def step(weights: list[Any], batch: Any) -> tuple[list[Any], None]:
        return jax.vmap(one, in_axes=(0, None, None))(weights, all_x[batch], all_y[batch]), None

    @partial(jax.jit, donate_argnums=0)
    def scan(weights: list[Any], batches: Any) -> list[Any]:
        return jax.lax.scan(step, weights, batches)[0]

    state = {"weights": weights}

    def run(steps: int) -> None:
        batches = jnp.asarray(torch.stack(work.batches(steps)).cpu().numpy())
        state["weights"] = jax.block_until_ready(scan(state["weights"], batches))

    return Peer(run, lambda: [torch.from_numpy(np.array(weight)) for weight in state["weights"]])
