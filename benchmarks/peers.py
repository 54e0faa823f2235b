"""The same work in torch; imported only where torch is installed."""

import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch._inductor.exc import InductorError
from torch.nn import functional
from torch.utils import _pytree as pytree

from benchmarks.protocol import Work

# Each number of threads and each mode is compiled separately, on purpose.
torch._dynamo.config.recompile_limit = 64

_AUTOTUNED = {
    "max_autotune": True,
    "autotune_num_choices_displayed": 0,
    "max_autotune_report_choices_stats": False,
}


def compiled(function: Callable[..., Any], autotuned: bool, *args: Any) -> Callable:
    """Returns a function compiled for these arguments and the present thread count.

    Args:
      function: What to compile.
      autotuned: Whether torch tunes its matrix products. Where compilation then fails,
        as it does in torch 2.13 for some of them, the default is compiled.
      *args: What the function is called with.
    """
    for options in (_AUTOTUNED, None) if autotuned else (None,):
        fast = torch.compile(function, fullgraph=True, dynamic=False, options=options)
        try:
            fast(*args)
            break
        except InductorError:
            if options is None:
                raise
            print("torch.compile fails when autotuned; compiled with the default mode")
    return fast


def threaded(threads: int, make: Callable[..., Work], *args: Any) -> Work:
    """Returns the work of `make(*args)`, made and run with `threads` threads."""
    torch.set_num_threads(threads)
    work = make(*args)

    def start() -> Any:
        torch.set_num_threads(threads)
        return work.start()

    return Work(work.run, start)


class Population(NamedTuple):
    """The work of `benchmarks.sweep`, as arrays that can be sent to a process.

    Attributes:
      params: `up/kernel` `[S, D, H]` and so on, by name.
      x: `[N, D]`.
      y: `[N]`.
      indices: The examples of each batch, `[steps, S, B]`.
      rate: The learning rate.
    """

    params: dict[str, np.ndarray]
    x: np.ndarray
    y: np.ndarray
    indices: np.ndarray
    rate: float

    def share(self, part: int, parts: int) -> "Population":
        """Returns one of several equal shares of the members."""
        size = self.indices.shape[1] // parts
        mine = slice(part * size, (part + 1) * size)
        params = {name: array[mine] for name, array in self.params.items()}
        return self._replace(params=params, indices=self.indices[:, mine])

    def data(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns x, y and the indices as tensors."""
        y, indices = self.y.astype(np.int64), self.indices.astype(np.int64, order="C")
        return torch.tensor(self.x), torch.tensor(y), torch.tensor(indices)


def _loss(params: dict, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    hidden = torch.relu(x @ params["up/kernel"] + params["up/bias"])
    logits = hidden @ params["down/kernel"] + params["down/bias"]
    return functional.cross_entropy(logits, y)


def _adam(state: tuple, grads: dict, rate: float) -> tuple:
    """Returns the state after a step of Adam, as in torch.optim and optax."""
    params, first, second, count = state
    count = count + 1
    first = {k: 0.9 * first[k] + 0.1 * grads[k] for k in params}
    second = {k: 0.999 * second[k] + 0.001 * grads[k] ** 2 for k in params}
    unbiased, scale = 1 - 0.9**count, 1 - 0.999**count
    params = {
        k: params[k] - rate * first[k] / unbiased / ((second[k] / scale).sqrt() + 1e-8)
        for k in params
    }
    return params, first, second, count


def vmapped(work: Population, autotuned: bool) -> Work:
    """Returns a compiled functional step for all members at once."""
    x, y, indices = work.data()
    several = torch.func.vmap(torch.func.grad_and_value(_loss))

    def step(state: tuple, index: torch.Tensor) -> tuple:
        grads, losses = several(state[0], x[index], y[index])
        return _adam(state, grads, work.rate), losses

    def start() -> tuple:
        # In the order of the layers: torch 2.13 often fails to compile other orders.
        names = sorted(work.params, reverse=True)
        params = {name: torch.tensor(work.params[name]) for name in names}
        zeros = pytree.tree_map(torch.zeros_like, (params, params))
        return params, *zeros, torch.zeros(())

    with torch.no_grad():
        step = compiled(step, autotuned, start(), indices[0])

    @torch.no_grad()
    def run(state: tuple) -> tuple:
        losses = []
        for index in indices:
            state, loss = step(state, index)
            losses.append(loss)
        return torch.stack(losses), state[0]  # [steps, S]

    return Work(run, start)


class _Classifier(torch.nn.Module):
    def __init__(self, params: dict[str, np.ndarray]):
        super().__init__()
        self.up = torch.nn.Linear(*params["up/kernel"].shape)
        self.down = torch.nn.Linear(*params["down/kernel"].shape)
        for name, mine in self.named().items():
            mine.copy_(torch.tensor(params[name]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(x)))

    def named(self) -> dict[str, torch.Tensor]:
        """Returns views of the parameters under the names of ffnlab."""
        return {
            "up/kernel": self.up.weight.detach().T,
            "up/bias": self.up.bias.detach(),
            "down/kernel": self.down.weight.detach().T,
            "down/bias": self.down.bias.detach(),
        }


def looped(work: Population, fused: bool) -> Work:
    """Returns modules trained one after another by `torch.optim.Adam`, not compiled."""
    x, y, indices = work.data()

    def start() -> list[tuple]:
        made = []
        for member in range(indices.shape[1]):
            net = _Classifier({k: array[member] for k, array in work.params.items()})
            optimizer = torch.optim.Adam(net.parameters(), lr=work.rate, fused=fused)
            made.append((indices[:, member], net, optimizer))
        return made

    def train(batches: torch.Tensor, net: _Classifier, optimizer: Any) -> torch.Tensor:
        losses = []
        for index in batches:
            optimizer.zero_grad()
            loss = functional.cross_entropy(net(x[index]), y[index])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    def run(made: list[tuple]) -> tuple:
        losses = torch.stack([train(*each) for each in made], dim=1)  # [steps, S]
        named = [net.named() for _, net, _ in made]
        return losses, {k: torch.stack([each[k] for each in named]) for k in named[0]}

    return Work(run, start)


def multiplied(work: Population) -> Work:
    """Returns the matrix products of the steps alone, batched over the members."""
    _, members, batch = work.indices.shape
    _, width, hidden = work.params["up/kernel"].shape
    classes = work.params["down/bias"].shape[1]
    sides = [
        ((batch, width), (width, hidden)),
        ((batch, hidden), (hidden, classes)),
        ((hidden, batch), (batch, classes)),
        ((batch, classes), (classes, hidden)),
        ((width, batch), (batch, hidden)),
    ]
    pairs = [tuple(torch.randn(members, *side) for side in pair) for pair in sides]
    outs = [left @ right for left, right in pairs]

    def run(_: None) -> list[torch.Tensor]:
        for _ in work.indices:
            for (left, right), out in zip(pairs, outs, strict=True):
                torch.bmm(left, right, out=out)
        return outs

    return Work(run)


class Block(NamedTuple):
    """The work of one table of `benchmarks.ffn`.

    Attributes:
      params: `up/kernel` `[D, H]` and so on, by name; `gate/...` for gated blocks.
      activation: A function of `torch.nn.functional`, by name.
      x: `[tokens, D]`.
      target: `[tokens, D]`.
      rate: The learning rate.
    """

    params: dict[str, np.ndarray]
    activation: str
    x: np.ndarray
    target: np.ndarray
    rate: float

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns the parameters as tensors."""
        return {name: torch.tensor(array) for name, array in self.params.items()}

    def loss(self, params: dict, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Returns the mean squared error of the block."""

        def dense(name: str, x: torch.Tensor) -> torch.Tensor:
            return torch.addmm(params[f"{name}/bias"], x, params[f"{name}/kernel"])

        activation, up = getattr(functional, self.activation), dense("up", x)
        gated = "gate/kernel" in params
        hidden = activation(dense("gate", x)) * up if gated else activation(up)
        return functional.mse_loss(dense("down", hidden), target)


def compiled_step(work: Block, autotuned: bool) -> Work:
    """Returns forward, backward and gradient descent as one compiled function."""
    x, target = torch.tensor(work.x), torch.tensor(work.target)
    both = torch.func.grad_and_value(work.loss, argnums=(0, 1))

    def step(params: dict, x: torch.Tensor, target: torch.Tensor) -> tuple:
        (grads, x_grad), loss = both(params, x, target)
        return {k: params[k] - work.rate * grads[k] for k in params}, loss, x_grad

    step = compiled(step, autotuned, work.tensors(), x, target)
    return Work(lambda state: step(state[0], x, target), lambda: (work.tensors(),))


def eager_step(work: Block) -> Work:
    """Returns the same by autograd, with parameters changed in place."""
    x, target = torch.tensor(work.x, requires_grad=True), torch.tensor(work.target)

    def start() -> tuple:
        return ({k: p.requires_grad_() for k, p in work.tensors().items()},)

    def run(state: tuple) -> tuple:
        params = state[0]
        loss = work.loss(params, x, target)
        x_grad, *grads = torch.autograd.grad(loss, [x, *params.values()])
        with torch.no_grad():
            torch._foreach_add_(list(params.values()), grads, alpha=-work.rate)
        return params, loss, x_grad

    return Work(run, start)


def block_products(work: Block) -> Work:
    """The matrix products of a step and nothing else."""
    tokens, width = work.x.shape
    hidden = work.params["down/kernel"].shape[0]
    inputs = sum(name.endswith("kernel") for name in work.params) - 1
    x, h = torch.randn(tokens, width), torch.randn(tokens, hidden)
    wide, tall = torch.randn(width, hidden), torch.randn(hidden, width)
    pairs = [(h, tall), (x, tall.T), (h.T, x)]
    pairs += [(x, wide), (x.T, h), (h, wide.T)] * inputs
    outs = [left @ right for left, right in pairs]

    def run(_: None) -> list[torch.Tensor]:
        for (left, right), out in zip(pairs, outs, strict=True):
            torch.mm(left, right, out=out)
        return outs

    return Work(run)


class Workers:
    """Processes with one thread each that share the work.

    Args:
      make: `make(share, option)` returns the work of a process; called in the process.
      shares: The share of each process.
      option: Second argument of `make`.
    """

    def __init__(self, make: Callable[..., Work], shares: Sequence[Any], option: Any):
        context = multiprocessing.get_context("spawn")
        self._ends, self._processes = [], []
        for share in shares:
            mine, other = context.Pipe()
            process = context.Process(
                target=_serve, args=(other, make, share, option), daemon=True
            )
            process.start()
            self._ends.append(mine)
            self._processes.append(process)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: Any) -> None:
        self._ask("stop")
        for process in self._processes:
            process.join()

    def _ask(self, what: str) -> list[Any]:
        for end in self._ends:
            end.send(what)
        return [end.recv() for end in self._ends]

    @property
    def work(self) -> Work:
        """The work of all processes together; `results` returns what it computed."""
        return Work(lambda _: self._ask("run"), lambda: self._ask("start"))

    def results(self) -> tuple:
        """Returns the losses and parameters of the last run, of all members."""
        losses, params = zip(*self._ask("result"), strict=True)
        together = {k: np.concatenate([p[k] for p in params]) for k in params[0]}
        return np.concatenate(losses, axis=1), together  # [steps, S]


def _serve(connection: Any, make: Callable[..., Work], *args: Any) -> None:
    """Serves the requests of `Workers` until it is told to stop."""
    torch.set_num_threads(1)
    work, given, result = make(*args), None, None
    while (asked := connection.recv()) != "stop":
        answer = None
        if asked == "start":
            given = work.start()
        elif asked == "run":
            result = work.run(given)
        else:
            answer = pytree.tree_map(lambda tensor: tensor.numpy(), result)
        connection.send(answer)
    connection.send(None)
