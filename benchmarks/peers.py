"""What we are compared with, in torch; imported only where torch is installed."""

import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch._inductor.exc import InductorError
from torch.nn import functional
from torch.utils import _pytree as pytree

from benchmarks.protocol import Work

_AUTOTUNED = {
    "max_autotune": True,
    "autotune_num_choices_displayed": 0,
    "max_autotune_report_choices_stats": False,
}


def compiled(function: Callable[..., Any], *args: Any) -> Callable[..., Any]:
    """Returns a function compiled for such arguments and the present threads.

    Its products are tried out, which is torch's fastest mode on CPU; where torch 2.13
    then fails to compile, as it does with some choices for batched products, it is
    compiled without.
    """
    for options in (_AUTOTUNED, None):
        fast = torch.compile(function, fullgraph=True, dynamic=False, options=options)
        try:
            fast(*args)
            return fast
        except InductorError:
            print("torch.compile fails if it tries out products; compiled without")
    raise RuntimeError("torch.compile fails")


def threaded(threads: int, make: Callable[..., Work], *args: Any) -> Work:
    """Returns what `make(*args)` gives, made and run on so many threads."""
    torch.set_num_threads(threads)
    work = make(*args)

    def start() -> Any:
        torch.set_num_threads(threads)
        return work.start()

    return Work(work.run, start)


class Population(NamedTuple):
    """The work of `benchmarks.sweep`, as arrays that any process can be sent.

    Attributes:
      params: `up/kernel` `[S, D, H]` and so on, by name.
      x: `[N, D]`.
      y: `[N]`.
      indices: which examples make each batch, `[steps, S, B]`.
      rate: the learning rate.
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
        y, indices = self.y.astype(np.int64), self.indices.astype(np.int64)
        return torch.tensor(self.x), torch.tensor(y), torch.tensor(indices)


def _loss(params: dict, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    hidden = torch.relu(x @ params["up/kernel"] + params["up/bias"])
    logits = hidden @ params["down/kernel"] + params["down/bias"]
    return functional.cross_entropy(logits, y)


def _adam(state: tuple, grads: dict, rate: float) -> tuple:
    """Returns the state after a step of Adam as torch.optim and optax have it."""
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


def vmapped(work: Population, shared: bool = False) -> Work:
    """A functional step for all members at once, compiled.

    Args:
      work: what to do.
      shared: whether all members see the first one's batches: less work than ours.
    """
    x, y, indices = work.data()
    if shared:
        indices = indices[:, 0]
    one = torch.func.grad_and_value(_loss)
    several = torch.func.vmap(one, in_dims=(0, None, None) if shared else 0)

    def step(state: tuple, index: torch.Tensor) -> tuple:
        grads, losses = several(state[0], x[index], y[index])
        return _adam(state, grads, work.rate), losses

    def start() -> tuple:
        params = {name: torch.tensor(array) for name, array in work.params.items()}
        zeros = pytree.tree_map(torch.zeros_like, (params, params))
        return params, *zeros, torch.zeros(())

    with torch.no_grad():
        step = compiled(step, start(), indices[0])

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
        """Returns the parameters by our names; they share their memory."""
        return {
            "up/kernel": self.up.weight.detach().T,
            "up/bias": self.up.bias.detach(),
            "down/kernel": self.down.weight.detach().T,
            "down/bias": self.down.bias.detach(),
        }


def looped(work: Population, fused: bool = True) -> Work:
    """Modules trained one after another by `torch.optim.Adam`, without compiling."""
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
    """The matrix products of the steps and nothing else, batched over the members."""
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


class Workers:
    """Processes of one thread each, which do their shares of the work side by side.

    Args:
      make: `make(share, *options)` makes the work, in the process that does it.
      shares: what each process works on.
      options: what else `make` takes.
    """

    def __init__(self, make: Callable[..., Work], shares: Sequence[Any], *options: Any):
        context = multiprocessing.get_context("spawn")
        self._ends, self._processes = [], []
        for share in shares:
            mine, other = context.Pipe()
            process = context.Process(
                target=_serve, args=(other, make, share, *options), daemon=True
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
        """What all of them do together; `results` has what it computed."""
        return Work(lambda _: self._ask("run"), lambda: self._ask("start"))

    def results(self) -> tuple:
        """Returns what the last run computed, of all members."""
        losses, params = zip(*self._ask("result"), strict=True)
        together = {k: np.concatenate([p[k] for p in params]) for k in params[0]}
        return np.concatenate(losses, axis=1), together  # [steps, S]


def _serve(connection: Any, make: Callable[..., Work], *args: Any) -> None:
    """Answers a process that uses `Workers`, until it says stop."""
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
