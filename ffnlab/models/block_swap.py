"""Replaces the feed-forward blocks of a trained Transformer by blocks of another kind.

    new, params, records = swap_block(config, params, "swiglu", tokens, layouts)

Each new block is trained on its own to reproduce the outputs of the old block. It
starts from the most important neurons of the old block; in a gated block, these become
the gate and the linear half starts at 1. The down projection is then solved by least
squares, and finally all parameters of the block are trained.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ffnlab.data.packing import Layout, gather
from ffnlab.errors import InputError
from ffnlab.models.transformer import TransformerConfig, transformer_model
from ffnlab.nn import pure
from ffnlab.nn.budget import match
from ffnlab.nn.ffn import BlockConfig, FeedForward
from ffnlab.types import Array, Key, Model, Params

_RIDGE = 1e-4  # ridge penalty, relative to the mean square of a hidden unit


class LayerRecord(NamedTuple):
    """How well a new block reproduces the old block of a layer, on held-out tokens.

    Errors are relative to the variance of the outputs of the old block: 0 is a perfect
    copy, and 1 is the error of predicting the mean.

    Attributes:
      initial_error: Relative error before training, with the solved down projection.
      trained_error: Relative error after training.
    """

    initial_error: float
    trained_error: float


def record_layers(
    config: TransformerConfig,
    params: Params,
    tokens: Sequence[np.ndarray],
    layouts: Sequence[Layout],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the inputs and outputs of every feed-forward block, token by token.

    Args:
      config: Configuration of the Transformer.
      params: Its parameters.
      tokens: Int `[T]` for each sequence.
      layouts: Batches of the sequences, made by `data.packing`.

    Returns:
      Inputs and outputs, `[L, N, D]` each, where N is the number of tokens.
    """
    model = transformer_model(config)

    @jax.jit
    def run(x: Array, mask: Array, segment_ids: Array) -> tuple[Array, Array]:
        first = jnp.zeros((len(x), 1), int)  # the logits are unused, so one is enough
        _, aux = model.apply(
            params,
            x,
            mask,
            segment_ids=segment_ids,
            label_positions=first,
            record=True,
        )
        return aux["inputs"], aux["outputs"]

    batches = []
    for layout in layouts:
        arrays = run(gather(layout, tokens), layout.mask, layout.sequence)
        batches.append([np.asarray(array)[:, layout.mask] for array in arrays])
    inputs, outputs = (
        np.concatenate(arrays, axis=1) for arrays in zip(*batches, strict=True)
    )
    return inputs, outputs


def swap_block(
    config: TransformerConfig,
    params: Params,
    block: str,
    tokens: Sequence[np.ndarray],
    layouts: Sequence[Layout],
    *,
    hidden: int | None = None,
    steps: int = 500,
    learning_rate: float = 1e-3,
    key: Key | None = None,
    recorded: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[TransformerConfig, Params, list[LayerRecord]]:
    """Returns a model with other feed-forward blocks, and the error of each.

    Args:
      config: Configuration of a Transformer of plain blocks, such as `mlp:gelu`, with
        biases.
      params: Its parameters, with layers as `layer_0` and so on.
      block: The new block, a key of `ffn.BLOCKS` or a name such as `mlp:relu`.
      tokens: Int `[T]` for each sequence to train on. A tenth of the tokens is held out
        to measure the errors.
      layouts: Batches of the sequences, made by `data.packing`.
      hidden: Hidden width of the new blocks; None matches the parameters of the old
        blocks.
      steps: Training steps per block, by Adam on batches of 1024 tokens.
      learning_rate: Peak learning rate, which falls linearly to 0.
      key: Random key of the batches; `jax.random.key(0)` if None.
      recorded: The result of `record_layers`, if it is known already.

    Returns:
      The new configuration and parameters, and a record for each layer.

    Raises:
      InputError: The old blocks are gated or have no bias, or there are too few tokens.
    """
    _check(config)
    old = config.feed_forward(0)
    new = dataclasses.replace(old, kind=block)
    new = dataclasses.replace(new, hidden=hidden) if hidden else match(new, old).config
    if recorded is None:
        recorded = record_layers(config, params, tokens, layouts)
    inputs, outputs = recorded
    count = inputs.shape[1] // 10  # held-out tokens
    if count < 1:
        raise InputError(f"{inputs.shape[1]} tokens are too few; give at least 10")
    key = jax.random.key(0) if key is None else key
    order = np.random.default_rng(0).permutation(inputs.shape[1])
    swapped, records = dict(params), []
    for layer in range(config.layers):
        x, y = inputs[layer][order], outputs[layer][order]
        name, layer_key = f"layer_{layer}", jax.random.fold_in(key, layer)
        train, held_out = (x[count:], y[count:]), (x[:count], y[:count])
        initial = init_block(new, old, params[name]["ffn"], *train)
        trained = distill(new, initial, *train, steps, learning_rate, layer_key)
        errors = [relative_error(new, p, *held_out) for p in (initial, trained)]
        records.append(LayerRecord(*errors))
        swapped[name] = {**params[name], "ffn": trained}
    config = dataclasses.replace(config, block=new.kind, hidden=new.hidden)
    return config, swapped, records


def _check(config: TransformerConfig) -> None:
    inputs = {BlockConfig(name).block.inputs for name in config.blocks}
    if inputs != {("up",)} or len(set(config.blocks)) > 1:
        raise InputError(
            f"block {config.block!r} cannot be swapped; all layers need the same plain "
            "block"
        )
    if not config.bias or config.scan:
        raise InputError("swap_block: the model needs bias=True and scan=False")


@functools.cache
def _model(block: BlockConfig) -> Model:
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
    initial = jax.tree.map(np.array, _model(new).init(jax.random.key(0)))
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
    hidden = np.asarray(_model(block).apply(params, x)[1]["hidden"], np.float64)
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
) -> Params:
    """Returns the parameters of a block after training it to predict y from x.

    Args:
      block: Configuration of the block.
      params: Initial parameters.
      x: Inputs `[N, D]`.
      y: Targets `[N, D]`.
      steps: Steps of Adam; 0 returns the initial parameters.
      learning_rate: Peak learning rate, which falls linearly to 0.
      key: Random key of the batches.
    """
    if not steps:
        return params
    model = _model(block)
    optimizer = optax.adam(optax.linear_schedule(learning_rate, 0.0, steps))
    variance = float(np.square(y - y.mean(axis=0)).mean()) or 1.0
    arrays = jax.device_put((x, y))

    def loss(params: Params, rows: Array) -> Array:
        difference = model.apply(params, arrays[0][rows])[0] - arrays[1][rows]
        return jnp.square(difference).mean() / variance

    def step(state: tuple, key: Key) -> tuple[tuple, None]:
        params, opt_state = state
        rows = jax.random.randint(key, (min(1024, len(x)),), 0, len(x))
        updates, opt_state = optimizer.update(jax.grad(loss)(params, rows), opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    @jax.jit
    def run(params: Params) -> Params:
        state = params, optimizer.init(params)
        return jax.lax.scan(step, state, jax.random.split(key, steps))[0][0]

    return run(params)


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
    >>> params = _model(block).init(jax.random.key(0))
    >>> x = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    >>> relative_error(block, params, x, np.asarray(_model(block).apply(params, x)[0]))
    0.0
    """
    difference = np.asarray(_model(block).apply(params, x)[0]) - y
    return float(np.square(difference).sum() / np.square(y - y.mean(axis=0)).sum())
