"""One step of SGD for many members at once: what every training run of the book spends its time in.

Written out by hand, where the rest of the package leaves derivatives to torch. What each idea buys is measured in the
chapter "How fast, and why":

- All members see the same minibatch, so their first layers are one matrix product.
- Features come first: weights are (members, fan_out, fan_in), activations (members, width, batch). Each product then runs
  along the batch, which is long, not along ten outputs or a narrow layer.
- A gradient is a product e hᵀ of two factors, and is added to its weight by the call that multiplies them.
- The data stay on the device, and everything a step reads or writes is made once. So the whole step can be recorded as
  one CUDA graph, and a run's memory is flat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor

from .convnets import ConvNet, Plan
from .networks import FCN
from .stability import Network, cross_entropy

# Where a step is launched as one graph, not as the some fifty kernels that it consists of.
RECORDED = ("cuda",)


class Engine:
    """Members in training: their weights, changed in place.

    network: where to start; it is left as it was. x: (n, inputs) and classes y: (n,), on the network's device.
    loss: as `train` takes it. `worst` holds each member's highest minibatch loss so far: (members,).
    """

    def __init__(self, network: FCN, x: Tensor, y: Tensor, loss: str) -> None:
        self._start, self._loss = network, loss
        self._x, self._one_hot = x, F.one_hot(y, network.outputs).to(x.dtype).mT.contiguous()
        self._weights = [weight.mT.clone(memory_format=torch.contiguous_format) for weight in network.weights]
        self._steps: dict[int, _Step] = {}
        self.worst = x.new_zeros(network.members)

    @property
    def network(self) -> FCN:
        """The networks as they are now; what trains on changes them."""
        return self._start.with_weights([weight.mT for weight in self._weights])

    def epoch(self, order: Tensor, batch_size: int, lr: float, stop: Callable[[], bool]) -> bool:
        """A step for each minibatch of the inputs in `order`; False if `stop` said so on the way. Nothing is read back from the device."""
        batches = order.to(self._x.device).split(batch_size)
        for size in {len(batches[0]), len(batches[-1])}:
            if size not in self._steps:
                self._steps[size] = _Step(self._weights, self._x, self._one_hot, size, self._start.alpha, self._loss, self.worst)
            self._steps[size].rate.fill_(lr / size).div_(self._start.alpha)
        for batch in batches:
            if stop():
                return False
            self._steps[len(batch)](batch)
        return True


class _Step:
    """One step for one size of minibatch, on tensors that never change place."""

    def __init__(
        self, weights: list[Tensor], x: Tensor, one_hot: Tensor, size: int, alpha: float | Tensor, loss: str, worst: Tensor
    ) -> None:
        members, width = weights[0].shape[:2]
        self._all_x, self._all_y, self._alpha, self._loss, self._worst = x, one_hot, alpha, loss, worst
        self._batch = torch.zeros(size, dtype=torch.long, device=x.device)
        self._x, self._y = x.new_empty(size, x.shape[1]), x.new_empty(len(one_hot), size)
        hidden = [x.new_empty(members, width, size) for _ in weights[1:]]
        self._f, self._error = (x.new_empty(members, len(one_hot), size) for _ in range(2))
        # The errors of two layers that follow each other are all that is needed at a time.
        errors = [*[x.new_empty(members, width, size) for _ in range(2)] * len(weights), self._error][-len(weights) :]

        # The first layer, flat: one matrix for all members.
        self._first, self._first_hidden, self._first_error = (part.flatten(0, 1) for part in (weights[0], hidden[0], errors[0]))
        self._last, self._last_hidden = weights[-1], hidden[-1]
        self._up = list(zip(weights[1:-1], hidden[:-1], hidden[1:], strict=True))
        # A layer's weight, transposed too; its error and the one below; its input, transposed too.
        parts = zip(weights[1:], errors[1:], errors[:-1], hidden, strict=True)
        self._down = [(weight, weight.mT, e, pulled, h, h.mT) for weight, e, pulled, h in parts][::-1]
        # Multiplies the errors at the outputs, and so each gradient: lr / (α · batch), (members, 1, 1).
        self.rate = x.new_empty(members, 1, 1)
        self._warm = False
        self._replay: Callable[[], None] | None = None

    def __call__(self, batch: Tensor) -> None:
        """Step on these inputs. On CUDA the first step readies the libraries; the second is recorded, and replayed from then on."""
        self._batch.copy_(batch)
        if self._warm and self._replay is None and batch.device.type in RECORDED:
            self._replay = _record(self._run)
        (self._replay or self._run)()
        self._warm = True

    @torch.no_grad()
    def _run(self) -> None:
        torch.index_select(self._all_x, 0, self._batch, out=self._x)
        torch.index_select(self._all_y, 1, self._batch, out=self._y)

        torch.mm(self._first, self._x.mT, out=self._first_hidden).relu_()
        for weight, below, above in self._up:
            torch.bmm(weight, below, out=above).relu_()
        torch.bmm(self._last, self._last_hidden, out=self._f).div_(self._alpha)

        if self._loss == "squared":
            torch.sub(self._f, self._y, out=self._error)
            losses = self._error.square().sum((1, 2)).mul_(0.5 / len(self._batch))
        else:
            log_p = self._f.log_softmax(1)
            losses = (log_p * self._y).sum((1, 2)).mul_(-1 / len(self._batch))
            torch.sub(log_p.exp_(), self._y, out=self._error)
        torch.maximum(self._worst, losses, out=self._worst)

        self._error.mul_(self.rate)
        for weight, transposed, error, pulled, hidden, hidden_t in self._down:
            torch.bmm(transposed, error, out=pulled)
            # Zero where φ was: `pulled *= hidden > 0` in one kernel.
            torch.ops.aten.threshold_backward.grad_input(pulled, hidden, 0, grad_input=pulled)
            weight.baddbmm_(error, hidden_t, alpha=-1)
        self._first.addmm_(self._first_error, self._x, alpha=-1)


def _record(run: Callable[[], None]) -> Callable[[], None]:
    """What `run` launches on CUDA, as one launch; recording does not run it."""
    graph = torch.cuda.CUDAGraph()
    # What another thread asks of the GPU meanwhile, as a laboratory's does, spoils nothing.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        run()
    return graph.replay


class Descent:
    """What `Engine` is to `FCN`, for convolutional and residual networks: torch finds the gradients."""

    def __init__(self, network: ConvNet, x: Tensor, y: Tensor, loss: str) -> None:
        self._network = network.clone()
        self._x, self._y, self._loss = x, y, loss
        self._parameters = [parameter.requires_grad_() for parameter in (*self._network.weights, *self._network.gains)]
        self.worst = x.new_zeros(network.members)

    @property
    def network(self) -> ConvNet:
        """The networks as they are now; what trains on changes them."""
        weights, gains = (tuple(part.detach() for part in parts) for parts in (self._network.weights, self._network.gains))
        return replace(self._network, weights=weights, gains=gains).calibrated(self._x)

    def epoch(self, order: Tensor, batch_size: int, lr: float, stop: Callable[[], bool]) -> bool:
        """As `Engine.epoch`."""
        for batch in order.to(self._x.device).split(batch_size):
            if stop():
                return False
            losses = losses_on(self._network.in_training(self._x[batch]), self._y[batch], self._loss).mean(1)
            # The members' losses do not mix: the gradient of their sum is all members' gradients at once.
            gradients = torch.autograd.grad(losses.sum(), self._parameters)
            with torch.no_grad():
                torch.maximum(self.worst, losses, out=self.worst)
                torch._foreach_add_(self._parameters, gradients, alpha=-lr)
        return True


def engine_for(network: Network, x: Tensor, y: Tensor, loss: str) -> Engine | Descent:
    """What trains this kind of network."""
    return Engine(network, x, y, loss) if isinstance(network, FCN) else Descent(network, x, y, loss)


def losses_on(f: Tensor, y: Tensor, loss: str) -> Tensor:
    """The loss of every member on every input: (members, batch), for outputs f (members, batch, outputs) and classes y (batch,)."""
    if loss == "cross_entropy":
        return cross_entropy(f, y)
    return 0.5 * (f - F.one_hot(y, f.shape[-1])).square().sum(dim=-1)


def member_bytes(*, inputs: int, width: int, depth: int, outputs: int, batch_size: int) -> int:
    """Memory that a fully connected member in training takes: W(0), W, and what one minibatch makes of it, in single precision."""
    parameters = width * (inputs + (depth - 2) * width + outputs)
    return 4 * (2 * parameters + batch_size * ((depth + 1) * width + 3 * outputs))


def convolutional_member_bytes(plan: Plan, batch_size: int) -> int:
    """The same for a convolutional or residual member: its gradients, too, and of each convolution what comes before and after φ."""
    return 4 * (3 * plan.parameters + batch_size * 4 * plan.activations)


def free_bytes(device: torch.device) -> int:
    """Memory that is free for training: of the GPU, with what torch keeps of it idle, else of the machine."""
    if device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + idle
    return psutil.virtual_memory().available
