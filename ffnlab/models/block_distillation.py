"""Fits a feed-forward block to the outputs of another one, on recorded inputs.

A new block starts from the neurons of the old one that matter most, its down projection
is solved by least squares, and then it is trained.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ffnlab.nn import pure
from ffnlab.nn.ffn import BlockConfig, FeedForward
from ffnlab.types import Array, Key, Model, Params

_RIDGE = 1e-4  # ridge penalty, relative to the mean square of a hidden unit
_STEPS_PER_CALL = 50  # of training a block; then it may be saved

OnSteps = Callable[[int, Params, Any], None]


@functools.cache
def compiled_model(block: BlockConfig) -> Model:
    """Returns a block as pure functions, compiled once."""
    model = pure.functional(lambda rngs: FeedForward(block, rngs=rngs))
    return Model(model.init, jax.jit(model.apply))


def init_block(
    new: BlockConfig, old: BlockConfig, params: Params, x: np.ndarray, y: np.ndarray
) -> Params:
    """Returns initial parameters of a new block: the old neurons that matter most.

    The importance of a neuron is the standard deviation of its activation times the
    norm of its row in the down projection.

    Args:
      new: Configuration of the new block.
      old: Configuration of the old block, a plain one.
      params: Parameters `up` and `down` of the old block.
      x: Inputs of the old block `[N, D]`.
      y: Outputs of the old block `[N, D]`.

    Returns:
      The parameters of the new block, with the down projection solved by least squares.
      If it has more neurons than the old block, the others are initialised randomly.
    """
    kernel, bias = (np.asarray(params["up"][part]) for part in ("kernel", "bias"))
    units = np.asarray(old.activation.function(jnp.asarray(x @ kernel + bias)))
    weight = np.linalg.norm(np.asarray(params["down"]["kernel"]), axis=1)
    best = np.argsort(-units.std(axis=0) * weight, kind="stable")[: new.hidden]
    initial = jax.tree.map(np.array, compiled_model(new).init(jax.random.key(0)))
    first, *rest = new.block.inputs
    initial[first]["kernel"][:, : len(best)] = kernel[:, best]
    initial[first]["bias"][: len(best)] = bias[best]
    for name in rest:  # a linear half of 1 leaves the gate unchanged
        initial[name]["kernel"][:] = 0.0
        initial[name]["bias"][:] = 1.0
    initial["down"] = _solve_down(new, initial, x, y)
    return jax.tree.map(jnp.asarray, initial)


def _solve_down(
    block: BlockConfig, params: Params, x: np.ndarray, y: np.ndarray
) -> Params:
    """Returns the down projection that predicts y from the hidden units by ridge."""
    hidden = np.asarray(compiled_model(block).apply(params, x)[1]["hidden"], np.float64)
    hidden_mean, y_mean = hidden.mean(axis=0), y.mean(axis=0)
    centred = hidden - hidden_mean
    gram = centred.T @ centred
    gram += np.eye(len(gram)) * (_RIDGE * np.trace(gram) / len(gram) + 1e-12)
    kernel = np.linalg.solve(gram, centred.T @ (y - y_mean))
    bias = y_mean - hidden_mean @ kernel
    return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}


def distill(
    block: BlockConfig,
    params: Params,
    x: np.ndarray,
    y: np.ndarray,
    steps: int,
    learning_rate: float,
    key: Key,
    *,
    taken: int = 0,
    moments: Any = None,
    on_steps: OnSteps | None = None,
) -> Params:
    """Returns the parameters of a block after training it to predict y from x.

    Args:
      block: Configuration of the block.
      params: Initial parameters, or those after the steps that were taken before.
      x: Inputs `[N, D]`.
      y: Targets `[N, D]`.
      steps: Steps of Adam; 0 returns the initial parameters.
      learning_rate: Peak learning rate, which falls linearly to 0.
      key: Random key of the batches.
      taken: The number of steps that were taken before, by an earlier call.
      moments: The state of the optimizer after them; not needed without any.
      on_steps: A function to call every 50 steps with their number, the parameters and
        the state of the optimizer, or None.
    """
    if not steps:
        return params
    optimizer, run = make_distiller(block, steps, learning_rate)
    variance = np.float32(np.square(y - y.mean(axis=0)).mean()) or np.float32(1.0)
    arrays, keys = jax.device_put((x, y, variance)), jax.random.split(key, steps)
    state = params, optimizer.init(params) if moments is None else moments
    for begin in range(taken, steps, _STEPS_PER_CALL):
        end = min(begin + _STEPS_PER_CALL, steps)
        state = jax.block_until_ready(run(state, arrays, keys[begin:end]))
        if on_steps:
            on_steps(end, *state)
    return state[0]


@functools.cache
def make_distiller(
    block: BlockConfig, steps: int, learning_rate: float
) -> tuple[optax.GradientTransformation, Callable[..., Any]]:
    """Returns the optimizer, and `run(state, arrays, keys) -> state`, compiled once."""
    model = compiled_model(block)
    optimizer = optax.adam(optax.linear_schedule(learning_rate, 0.0, steps))

    def loss(params: Params, x: Array, y: Array, variance: Array) -> Array:
        return jnp.square(model.apply(params, x)[0] - y).mean() / variance

    @jax.jit
    def run(state: tuple, arrays: tuple, keys: Array) -> tuple:
        x, y, variance = arrays

        def step(state: tuple, key: Key) -> tuple[tuple, None]:
            params, moments = state
            rows = jax.random.randint(key, (min(1024, len(x)),), 0, len(x))
            grads = jax.grad(loss)(params, x[rows], y[rows], variance)
            updates, moments = optimizer.update(grads, moments)
            return (optax.apply_updates(params, updates), moments), None

        return jax.lax.scan(step, state, keys)[0]

    return optimizer, run


def relative_error(
    block: BlockConfig, params: Params, x: np.ndarray, y: np.ndarray
) -> float:
    """Returns the squared error of a block, divided by the variance of y.

    Args:
      block: Configuration of the block.
      params: Its parameters.
      x: Inputs `[N, D]`.
      y: Targets `[N, D]`.

    >>> block = BlockConfig("mlp", 2, 3, norm="none", residual=False)
    >>> model = compiled_model(block)
    >>> params = model.init(jax.random.key(0))
    >>> x = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    >>> relative_error(block, params, x, np.asarray(model.apply(params, x)[0]))
    0.0
    """
    difference = np.asarray(compiled_model(block).apply(params, x)[0]) - y
    return float(np.square(difference).sum() / np.square(y - y.mean(axis=0)).sum())
