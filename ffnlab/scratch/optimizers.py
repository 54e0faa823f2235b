"""Optimizers as pairs of pure functions, with optax's interface.

    optimizer = adam(1e-3)
    state = optimizer.init(params)
    updates, state = optimizer.update(grads, state, params)
    params = apply_updates(params, updates)

They are written once for any arrays that follow the array API standard: NumPy's, in
the engine here, and JAX's, compiled, in `ffnlab.train`. Each agrees with optax's of the
same name; where papers and libraries differ, the docstring says how.

Gradients are g, the learning rate η, the number of this step t = 1, 2, …; operations
are entry by entry.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ffnlab.scratch import trees

Rate = float | Callable[[Any], Any]


class Optimizer(NamedTuple):
    """An optimizer.

    Attributes:
      init: `init(params) -> state`.
      update: `update(grads, state, params) -> (updates, state)`; the updates are added
        to the parameters.
    """

    init: Callable[[Any], Any]
    update: Callable[..., tuple[Any, Any]]


class State(NamedTuple):
    """What an optimizer remembers.

    Attributes:
      count: how many updates were made, int32 `[]`.
      memory: for each thing that it remembers a tree like the parameters.
    """

    count: Any
    memory: tuple[Any, ...]


def apply_updates(params: Any, updates: Any) -> Any:
    """Returns params + updates, in the type of the parameters.

    >>> apply_updates({"w": np.array([1.0])}, {"w": np.array([-0.25])})
    {'w': array([0.75])}
    """

    def added(p: Any, u: Any) -> Any:
        if p.shape != u.shape:
            raise ValueError(f"an update of {u.shape} for parameters of {p.shape}")
        return (p + u).astype(p.dtype, copy=False)

    return trees.mapped(added, params, updates)


def _namespace(tree: Any) -> Any:
    """Returns the module of the functions for arrays like these."""
    leaves, _ = trees.flatten(tree)
    for leaf in leaves:
        if not hasattr(leaf, "__array_namespace__"):
            found = type(leaf).__name__
            raise TypeError(f"an optimizer needs arrays, found a {found}")
    return leaves[0].__array_namespace__() if leaves else np


def _rate(learning_rate: Rate, count: Any) -> Any:
    return learning_rate(count) if callable(learning_rate) else learning_rate


def _entrywise(
    learning_rate: Rate,
    rule: Callable[..., tuple[Any, tuple[Any, ...]]],
    start: tuple[float, ...] = (),
) -> Optimizer:
    """Returns the optimizer whose update of an entry is −η · direction.

    Args:
      learning_rate: η, or a function from how many updates were made to it.
      rule: `rule(xp, g, t, *memory) -> (direction, memory)`, on the arrays of one leaf;
        xp has the functions for them.
      start: what is remembered before the first step.
    """

    def init(params: Any) -> State:
        xp = _namespace(params)
        memory = tuple(
            trees.mapped(lambda p, value=value: xp.full_like(p, value), params)
            for value in start
        )
        return State(xp.zeros((), dtype=xp.int32), memory)

    def update(grads: Any, state: State, params: Any = None) -> tuple[Any, State]:
        xp, count = _namespace(grads), state.count + 1
        rate = _rate(learning_rate, state.count)
        _, rebuild = trees.flatten(grads)
        updates, kept = [], []
        for g, *slots in trees.aligned(grads, *state.memory):
            direction, slots = rule(xp, g, count, *slots)
            updates.append(direction * xp.asarray(-rate, dtype=g.dtype))
            kept.append(slots)
        memory = tuple(rebuild(slots) for slots in zip(*kept, strict=True))
        return rebuild(updates), State(count, memory if kept else state.memory)

    return Optimizer(init, update)


def sgd(learning_rate: Rate) -> Optimizer:
    """Gradient descent: θ ← θ − η g.

    >>> optimizer = sgd(0.5)
    >>> optimizer.update({"w": np.array([2.0])}, optimizer.init({"w": np.ones(1)}))[0]
    {'w': array([-1.])}
    """
    return _entrywise(learning_rate, lambda xp, g, t: (g, ()))


def momentum(learning_rate: Rate, decay: float = 0.9) -> Optimizer:
    """Heavy-ball momentum: m ← γ m + g, θ ← θ − η m.

    As in optax and PyTorch. Polyak 1964 has η inside m instead, which is the same for a
    constant rate; some texts damp, m ← γ m + (1 − γ) g, which is the rate scaled.
    """

    def rule(xp: Any, g: Any, t: Any, m: Any) -> tuple:
        m = decay * m + g
        return m, (m,)

    return _entrywise(learning_rate, rule, (0.0,))


def nesterov(learning_rate: Rate, decay: float = 0.9) -> Optimizer:
    """Nesterov's momentum: m ← γ m + g, θ ← θ − η (g + γ m).

    As in optax and PyTorch, where θ is the point at which the gradient is taken, and
    not the one it is taken from as in Nesterov 1983 (Sutskever et al. 2013).
    """

    def rule(xp: Any, g: Any, t: Any, m: Any) -> tuple:
        m = decay * m + g
        return g + decay * m, (m,)

    return _entrywise(learning_rate, rule, (0.0,))


def _normed(xp: Any, g: Any, s: Any, epsilon: float, inside: bool) -> Any:
    """Returns g over the root of s, with ε under the root or added to it."""
    return g / (xp.sqrt(s + epsilon) if inside else xp.sqrt(s) + epsilon)


def adagrad(
    learning_rate: Rate,
    *,
    start: float = 0.1,
    epsilon: float = 1e-7,
    inside: bool = True,
) -> Optimizer:
    """Adagrad: s ← s + g², θ ← θ − η g / √(s + ε).

    Args:
      learning_rate: η, or a function from how many updates were made to it.
      start: s before the first step. optax begins at 0.1, the paper and PyTorch at 0.
      epsilon: ε: 1e-7 in optax, 1e-10 in PyTorch.
      inside: whether ε is under the root, as in optax, or added to it, as in the
        paper and PyTorch.

    Source: Duchi et al. 2011.
    """

    def rule(xp: Any, g: Any, t: Any, s: Any) -> tuple:
        s = s + g * g
        return _normed(xp, g, s, epsilon, inside), (s,)

    return _entrywise(learning_rate, rule, (start,))


def rmsprop(
    learning_rate: Rate,
    decay: float = 0.9,
    *,
    epsilon: float = 1e-8,
    inside: bool = True,
) -> Optimizer:
    """RMSprop: s ← γ s + (1 − γ) g², θ ← θ − η g / √(s + ε).

    Args:
      learning_rate: η, or a function from how many updates were made to it.
      decay: γ: 0.9 in optax, 0.99 in PyTorch.
      epsilon: ε.
      inside: whether ε is under the root, as in optax, or added to it, as in PyTorch;
        where gradients are near 1e-4 the two differ.

    Source: Hinton 2012, lecture 6.
    """

    def rule(xp: Any, g: Any, t: Any, s: Any) -> tuple:
        s = decay * s + (1 - decay) * g * g
        return _normed(xp, g, s, epsilon, inside), (s,)

    return _entrywise(learning_rate, rule, (0.0,))


def adam(
    learning_rate: Rate,
    b1: float = 0.9,
    b2: float = 0.999,
    *,
    epsilon: float = 1e-8,
) -> Optimizer:
    """Adam: m ← β₁ m + (1 − β₁) g, s ← β₂ s + (1 − β₂) g², θ ← θ − η m̂ / (√ŝ + ε).

    Both are corrected for their start at 0: m̂ = m / (1 − β₁ᵗ), ŝ = s / (1 − β₂ᵗ). As in
    the paper, optax and PyTorch.

    Source: Kingma & Ba 2015, algorithm 1.
    """

    def rule(xp: Any, g: Any, t: Any, m: Any, s: Any) -> tuple:
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * g * g
        first, second = (xp.asarray(1 - b**t, dtype=g.dtype) for b in (b1, b2))
        return m / first / (xp.sqrt(s / second) + epsilon), (m, s)

    return _entrywise(learning_rate, rule, (0.0, 0.0))


def with_weight_decay(
    optimizer: Optimizer,
    learning_rate: Rate,
    weight_decay: float,
    *,
    scaled: bool = True,
    mask: Callable[[Any], Any] | None = None,
) -> Optimizer:
    """Adds decoupled weight decay to an optimizer: θ is pulled to 0 beside its update.

    There are two conventions for what λ is:
      scaled: θ ← θ + update − η λ θ: in optax and PyTorch; λ of about 1e-2.
      not: θ ← θ + update − λ θ: the paper's, but for a schedule; λ of about 1e-5.
    From θ = 1, g = 0.5, η = 0.001, λ = 0.01, AdamW's first step goes to 0.99899 in
    the first and to 0.989 in the second.

    Args:
      optimizer: what makes the update.
      learning_rate: η, or a function from how many updates were made to it.
      weight_decay: λ.
      scaled: which convention.
      mask: from params to a tree of bools: which leaves decay; all if None.

    Source: Loshchilov & Hutter 2019.
    """

    def update(grads: Any, state: State, params: Any) -> tuple[Any, State]:
        xp, rate = _namespace(params), _rate(learning_rate, state.count)
        pull = weight_decay * rate if scaled else weight_decay
        chosen = mask(params) if mask else trees.mapped(lambda p: True, params)
        updates, state = optimizer.update(grads, state, params)

        def pulled(u: Any, p: Any, decays: bool) -> Any:
            return u - xp.asarray(pull, dtype=p.dtype) * p if decays else u

        return trees.mapped(pulled, updates, params, chosen), state

    return Optimizer(optimizer.init, update)


def adamw(
    learning_rate: Rate,
    b1: float = 0.9,
    b2: float = 0.999,
    *,
    epsilon: float = 1e-8,
    weight_decay: float = 1e-4,
    scaled: bool = True,
    mask: Callable[[Any], Any] | None = None,
) -> Optimizer:
    """Adam with decoupled weight decay; see `adam` and `with_weight_decay`.

    >>> for scaled in (True, False):
    ...     optimizer = adamw(0.001, weight_decay=0.01, scaled=scaled)
    ...     theta = {"w": np.array(1.0)}
    ...     state = optimizer.init(theta)
    ...     updates, _ = optimizer.update({"w": np.array(0.5)}, state, theta)
    ...     print(f"{apply_updates(theta, updates)['w']:.5f}")
    0.99899
    0.98900
    """
    return with_weight_decay(
        adam(learning_rate, b1, b2, epsilon=epsilon),
        learning_rate,
        weight_decay,
        scaled=scaled,
        mask=mask,
    )


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
}
