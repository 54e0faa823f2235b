"""Another feed-forward block in a trained Transformer, made to do what the old one did.

    new, params, told = exchange(config, params, "swiglu", tokens, layouts)

Every block is matched on its own, to what the old one gave on data. It begins with the
old neurons that matter most (the gate of a gated block is theirs, and its linear half
1), the projection down is solved by least squares, and then all of it is trained.
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

_RIDGE = 1e-4  # of the mean square of a hidden unit


class LayerRecord(NamedTuple):
    """How well one block does what another did, on tokens kept apart.

    Errors are shares of the variance of what the old block gave: 0 is the same, and 1
    is what its mean would score.

    Attributes:
      solved: the error with the projection down solved for.
      trained: the error after training.
    """

    solved: float
    trained: float


def record_layers(
    config: TransformerConfig,
    params: Params,
    tokens: Sequence[np.ndarray],
    layouts: Sequence[Layout],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what every feed-forward block takes and gives, token by token.

    Args:
      config: what the model is made of.
      params: its parameters.
      tokens: int `[T]` for each sequence.
      layouts: how they lie in batches, from `data.layouts`.

    Returns:
      Inputs and outputs, `[L, N, D]` each, N being the number of tokens.
    """
    model = transformer_model(config)

    @jax.jit
    def run(x: Array, mask: Array, segment_ids: Array) -> tuple[Array, Array]:
        nowhere = jnp.zeros((len(x), 1), int)  # logits of a head are of no use here
        _, aux = model.apply(
            params,
            x,
            mask,
            segment_ids=segment_ids,
            label_positions=nowhere,
            record=True,
        )
        return aux["inputs"], aux["outputs"]

    found = []
    for layout in layouts:
        parts = run(gather(layout, tokens), layout.mask, layout.sequence)
        found.append([np.asarray(part)[:, layout.mask] for part in parts])
    inputs, outputs = (
        np.concatenate(parts, axis=1) for parts in zip(*found, strict=True)
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
) -> tuple[TransformerConfig, Params, list[LayerRecord]]:
    """Returns a model with other feed-forward blocks, and how well each does.

    Args:
      config: a Transformer of plain blocks, such as `mlp:gelu`, with biases.
      params: its parameters, with layers as `layer_0` and so on.
      block: the new one, a key of `ffn.BLOCKS`, or such as `mlp:relu`.
      tokens: int `[T]` for each sequence, to match on; a tenth of all tokens is kept
        apart to measure on.
      layouts: how they lie in batches, from `data.layouts`.
      hidden: the new hidden width; None has the parameters of the old block.
      steps: of training a block, by Adam on batches of 1024 tokens.
      learning_rate: its peak, which falls to 0 in a line.
      key: what batches are drawn with; `jax.random.key(0)` if None.

    Returns:
      The new config and parameters, and the errors of each layer.

    Raises:
      InputError: the old blocks are gated or have no bias, or tokens are too few.
    """
    _check(config)
    old = config.feed_forward(0)
    new = dataclasses.replace(old, kind=block)
    new = dataclasses.replace(new, hidden=hidden) if hidden else match(new, old).config
    inputs, outputs = record_layers(config, params, tokens, layouts)
    apart = inputs.shape[1] // 10
    if apart < 1:
        raise InputError(f"{inputs.shape[1]} tokens are too few to match blocks on")
    key = jax.random.key(0) if key is None else key
    mixed = np.random.default_rng(0).permutation(inputs.shape[1])
    changed, told = dict(params), []
    for layer in range(config.layers):
        x, y = inputs[layer][mixed], outputs[layer][mixed]
        name, own = f"layer_{layer}", jax.random.fold_in(key, layer)
        begun = begin(new, old, params[name]["ffn"], x[apart:], y[apart:])
        trained = distill(new, begun, x[apart:], y[apart:], steps, learning_rate, own)
        errors = [error(new, p, x[:apart], y[:apart]) for p in (begun, trained)]
        told.append(LayerRecord(*errors))
        changed[name] = {**params[name], "ffn": trained}
    found = dataclasses.replace(config, block=new.kind, hidden=new.hidden)
    return found, changed, told


def _check(config: TransformerConfig) -> None:
    kinds = {BlockConfig(name).block.inputs for name in config.blocks}
    if kinds != {("up",)} or len(set(config.blocks)) > 1:
        raise InputError(f"block {config.block!r}: one plain block can be exchanged")
    if not config.bias or config.scan:
        raise InputError("exchange: the model needs biases, and its layers one by one")


@functools.cache
def _model(block: BlockConfig) -> Model:
    """Returns a block as pure functions, compiled once."""
    model = pure.functional(lambda rngs: FeedForward(block, rngs=rngs))
    return Model(model.init, jax.jit(model.apply))


def begin(
    new: BlockConfig, old: BlockConfig, params: Params, x: np.ndarray, y: np.ndarray
) -> Params:
    """Returns a block of the most important old neurons, solved for what was given.

    Args:
      new: what the block is made of.
      old: what the one was made of whose parameters these are, a plain one.
      params: `up` and `down` of the old block.
      x: what it took, `[N, D]`.
      y: what it gave, `[N, D]`.

    Returns:
      The parameters of the new block. Neurons beyond those of the old are drawn.
    """
    kernel, bias = (np.asarray(params["up"][part]) for part in ("kernel", "bias"))
    units = np.asarray(old.activation.function(jnp.asarray(x @ kernel + bias)))
    weight = np.linalg.norm(np.asarray(params["down"]["kernel"]), axis=1)
    best = np.argsort(-units.std(axis=0) * weight, kind="stable")[: new.hidden]
    model = _model(new)
    made = jax.tree.map(np.array, model.init(jax.random.key(0)))
    first, *rest = new.block.inputs
    made[first]["kernel"][:, : len(best)] = kernel[:, best]
    made[first]["bias"][: len(best)] = bias[best]
    for name in rest:  # a linear half that is 1 leaves the gate alone
        made[name]["kernel"][:] = 0.0
        made[name]["bias"][:] = 1.0
    made["down"] = _solved(new, made, x, y)
    return jax.tree.map(jnp.asarray, made)


def _solved(block: BlockConfig, params: Params, x: np.ndarray, y: np.ndarray) -> Params:
    """Returns the projection down that gives y, in the least squares."""
    hidden = np.asarray(_model(block).apply(params, x)[1]["hidden"], np.float64)
    mean, middle = hidden.mean(axis=0), y.mean(axis=0)
    centred = hidden - mean
    gram = centred.T @ centred
    gram += np.eye(len(gram)) * (_RIDGE * np.trace(gram) / len(gram) + 1e-12)
    kernel = np.linalg.solve(gram, centred.T @ (y - middle))
    bias = middle - mean @ kernel
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
    """Returns the parameters of a block after training it to give y for x.

    Args:
      block: what it is made of.
      params: where to begin.
      x: `[N, D]`.
      y: `[N, D]`.
      steps: of Adam; 0 returns what was given.
      learning_rate: its peak, which falls to 0 in a line.
      key: what batches are drawn with.
    """
    if not steps:
        return params
    model = _model(block)
    optimizer = optax.adam(optax.linear_schedule(learning_rate, 0.0, steps))
    scale = float(np.square(y - y.mean(axis=0)).mean()) or 1.0
    arrays = jax.device_put((x, y))

    def loss(params: Params, rows: Array) -> Array:
        gap = model.apply(params, arrays[0][rows])[0] - arrays[1][rows]
        return jnp.square(gap).mean() / scale

    def step(state: tuple, key: Key) -> tuple[tuple, None]:
        params, memory = state
        rows = jax.random.randint(key, (min(1024, len(x)),), 0, len(x))
        updates, memory = optimizer.update(jax.grad(loss)(params, rows), memory)
        return (optax.apply_updates(params, updates), memory), None

    @jax.jit
    def run(params: Params) -> Params:
        begun = params, optimizer.init(params)
        return jax.lax.scan(step, begun, jax.random.split(key, steps))[0][0]

    return run(params)


def error(block: BlockConfig, params: Params, x: np.ndarray, y: np.ndarray) -> float:
    """Returns the squared error of a block as a share of the variance of y.

    >>> block = BlockConfig("mlp", 2, 3, norm="none", residual=False)
    >>> params = _model(block).init(jax.random.key(0))
    >>> x = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    >>> error(block, params, x, np.asarray(_model(block).apply(params, x)[0]))
    0.0
    """
    gap = np.asarray(_model(block).apply(params, x)[0]) - y
    return float(np.square(gap).sum() / np.square(y - y.mean(axis=0)).sum())
