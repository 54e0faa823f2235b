"""Optimizers as pairs of pure functions, with optax's interface.

    optimizer = adam(1e-3)
    state = optimizer.init(params)
    updates, state = optimizer.update(grads, state, params)
    params = apply_updates(params, updates)

They work on any arrays of the array API standard: on NumPy arrays in this package, and
on JAX arrays, compiled, in `ffnlab.train`. Each agrees with the optimizer of the same
name in optax; docstrings describe where papers and libraries differ.

Gradients are g, the learning rate is η, and t = 1, 2, … is the number of the step. All
operations are elementwise.
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
    """The state of an optimizer.

    Attributes:
      count: The number of updates so far, int32 `[]`.
      memory: The accumulators, each a tree like the parameters.
    """

    count: Any
    memory: tuple[Any, ...]


def apply_updates(params: Any, updates: Any) -> Any:
    """Returns params + updates, in the dtype of the parameters.

    Raises:
      ValueError: A shape differs.

    >>> apply_updates({"w": np.array([1.0])}, {"w": np.array([-0.25])})
    {'w': array([0.75])}
    """

    def add(p: Any, u: Any) -> Any:
        if p.shape != u.shape:
            raise ValueError(f"an update of {u.shape} for parameters of {p.shape}")
        return (p + u).astype(p.dtype, copy=False)

    return trees.map_leaves(add, params, updates)


def _namespace(tree: Any) -> Any:
    """Returns the array API namespace of the leaves."""
    leaves, _ = trees.flatten(tree)
    for leaf in leaves:
        if not hasattr(leaf, "__array_namespace__"):
            name = type(leaf).__name__
            raise TypeError(f"an optimizer needs arrays, found a {name}")
    return leaves[0].__array_namespace__() if leaves else np


def _rate(learning_rate: Rate, count: Any) -> Any:
    return learning_rate(count) if callable(learning_rate) else learning_rate


def _elementwise(
    learning_rate: Rate,
    rule: Callable[..., tuple[Any, tuple[Any, ...]]],
    initial_values: tuple[float, ...] = (),
) -> Optimizer:
    """Returns the optimizer whose update is −η · direction.

    Args:
      learning_rate: η, or a function from the number of earlier updates to η.
      rule: `rule(xp, g, t, *memory) -> (direction, memory)`, on the arrays of one leaf;
        xp is their namespace.
      initial_values: The values of the accumulators before the first step.
    """

    def init(params: Any) -> State:
        xp = _namespace(params)
        memory = tuple(
            trees.map_leaves(lambda p, value=value: xp.full_like(p, value), params)
            for value in initial_values
        )
        return State(xp.zeros((), dtype=xp.int32), memory)

    def update(grads: Any, state: State, params: Any = None) -> tuple[Any, State]:
        xp, count = _namespace(grads), state.count + 1
        rate = _rate(learning_rate, state.count)
        _, rebuild = trees.flatten(grads)
        updates, rows = [], []
        for g, *row in trees.zip_leaves(grads, *state.memory):
            direction, row = rule(xp, g, count, *row)
            updates.append(direction * xp.asarray(-rate, dtype=g.dtype))
            rows.append(row)
        memory = tuple(rebuild(leaves) for leaves in zip(*rows, strict=True))
        return rebuild(updates), State(count, memory if rows else state.memory)

    return Optimizer(init, update)


def sgd(learning_rate: Rate) -> Optimizer:
    """Gradient descent: θ ← θ − η g.

    >>> optimizer = sgd(0.5)
    >>> optimizer.update({"w": np.array([2.0])}, optimizer.init({"w": np.ones(1)}))[0]
    {'w': array([-1.])}
    """
    return _elementwise(learning_rate, lambda xp, g, t: (g, ()))


def momentum(learning_rate: Rate, decay: float = 0.9) -> Optimizer:
    """Heavy-ball momentum: m ← γ m + g, θ ← θ − η m.

    As in optax and PyTorch. Polyak 1964 has η inside m instead, which is the same for a
    constant rate. Some texts have m ← γ m + (1 − γ) g, which scales the rate.
    """

    def rule(xp: Any, g: Any, t: Any, m: Any) -> tuple:
        m = decay * m + g
        return m, (m,)

    return _elementwise(learning_rate, rule, (0.0,))


def nesterov(learning_rate: Rate, decay: float = 0.9) -> Optimizer:
    """Nesterov's momentum: m ← γ m + g, θ ← θ − η (g + γ m).

    As in optax and PyTorch, where θ is the point at which the gradient is evaluated. In
    Nesterov 1983 it is the point before the momentum step (Sutskever et al. 2013).
    """

    def rule(xp: Any, g: Any, t: Any, m: Any) -> tuple:
        m = decay * m + g
        return g + decay * m, (m,)

    return _elementwise(learning_rate, rule, (0.0,))


def _divide_by_root(xp: Any, g: Any, s: Any, epsilon: float, eps_in_sqrt: bool) -> Any:
    """Returns g / √(s + ε), or g / (√s + ε)."""
    return g / (xp.sqrt(s + epsilon) if eps_in_sqrt else xp.sqrt(s) + epsilon)


def adagrad(
    learning_rate: Rate,
    *,
    initial_accumulator_value: float = 0.1,
    epsilon: float = 1e-7,
    eps_in_sqrt: bool = True,
) -> Optimizer:
    """Adagrad: s ← s + g², θ ← θ − η g / √(s + ε).

    Args:
      learning_rate: η, or a function from the number of earlier updates to η.
      initial_accumulator_value: The sum before the first step: 0.1 in optax, 0 in
        the paper and in PyTorch.
      epsilon: ε: 1e-7 in optax, 1e-10 in PyTorch.
      eps_in_sqrt: Whether ε is under the root, as in optax, or added to it, as in the
        paper and in PyTorch.

    Source: Duchi et al. 2011.
    """

    def rule(xp: Any, g: Any, t: Any, s: Any) -> tuple:
        s = s + g * g
        return _divide_by_root(xp, g, s, epsilon, eps_in_sqrt), (s,)

    return _elementwise(learning_rate, rule, (initial_accumulator_value,))


def rmsprop(
    learning_rate: Rate,
    decay: float = 0.9,
    *,
    epsilon: float = 1e-8,
    eps_in_sqrt: bool = True,
) -> Optimizer:
    """RMSprop: s ← γ s + (1 − γ) g², θ ← θ − η g / √(s + ε).

    Args:
      learning_rate: η, or a function from the number of earlier updates to η.
      decay: γ: 0.9 in optax, 0.99 in PyTorch.
      epsilon: ε.
      eps_in_sqrt: Whether ε is under the root, as in optax, or added to it, as in
        PyTorch; the two differ for gradients near 1e-4.

    Source: Hinton 2012, lecture 6.
    """

    def rule(xp: Any, g: Any, t: Any, s: Any) -> tuple:
        s = decay * s + (1 - decay) * g * g
        return _divide_by_root(xp, g, s, epsilon, eps_in_sqrt), (s,)

    return _elementwise(learning_rate, rule, (0.0,))


def adam(
    learning_rate: Rate,
    b1: float = 0.9,
    b2: float = 0.999,
    *,
    epsilon: float = 1e-8,
) -> Optimizer:
    """Adam: m ← β₁ m + (1 − β₁) g, s ← β₂ s + (1 − β₂) g², θ ← θ − η m̂ / (√ŝ + ε).

    Bias correction: m̂ = m / (1 − β₁ᵗ), ŝ = s / (1 − β₂ᵗ). As in the paper, optax and
    PyTorch.

    Source: Kingma & Ba 2015, algorithm 1.
    """

    def rule(xp: Any, g: Any, t: Any, m: Any, s: Any) -> tuple:
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * g * g
        first, second = (xp.asarray(1 - b**t, dtype=g.dtype) for b in (b1, b2))
        return m / first / (xp.sqrt(s / second) + epsilon), (m, s)

    return _elementwise(learning_rate, rule, (0.0, 0.0))


def with_weight_decay(
    optimizer: Optimizer,
    learning_rate: Rate,
    weight_decay: float,
    *,
    scaled: bool = True,
    mask: Callable[[Any], Any] | None = None,
) -> Optimizer:
    """Adds decoupled weight decay to an optimizer.

    There are two conventions for λ:
      scaled: θ ← θ + update − η λ θ, as in optax and PyTorch; λ is about 1e-2.
      unscaled: θ ← θ + update − λ θ, as in the paper, except for its schedule; λ is
        about 1e-5.
    From θ = 1 with g = 0.5, η = 0.001 and λ = 0.01, the first step of AdamW goes to
    0.99899 in the first convention and to 0.989 in the second.

    Args:
      optimizer: The optimizer of the update.
      learning_rate: η, or a function from the number of earlier updates to η.
      weight_decay: λ.
      scaled: Whether the decay is scaled by η.
      mask: From params to a tree of bools, True for leaves that decay; all if None.

    Source: Loshchilov & Hutter 2019.
    """

    def update(grads: Any, state: State, params: Any) -> tuple[Any, State]:
        xp, rate = _namespace(params), _rate(learning_rate, state.count)
        factor = weight_decay * rate if scaled else weight_decay
        masks = mask(params) if mask else trees.map_leaves(lambda p: True, params)
        updates, state = optimizer.update(grads, state, params)

        def decay(u: Any, p: Any, decays: bool) -> Any:
            return u - xp.asarray(factor, dtype=p.dtype) * p if decays else u

        return trees.map_leaves(decay, updates, params, masks), state

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
