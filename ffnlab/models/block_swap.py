"""Replaces the feed-forward blocks of a trained Transformer by blocks of another kind.

    new, params, records = swap_block(config, params, "swiglu", tokens, layouts)

Each new block is trained on its own to reproduce the outputs of the old block. It
starts from the most important neurons of the old block; in a gated block, these become
the gate and the linear half starts at 1. The down projection is then solved by least
squares, and finally all parameters of the block are trained.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ffnlab import signals
from ffnlab.data.packing import Layout, gather
from ffnlab.errors import InputError
from ffnlab.models.block_distillation import (
    compiled_model,
    distill,
    init_block,
    make_distiller,
    relative_error,
)
from ffnlab.models.transformer import TransformerConfig, transformer_model
from ffnlab.nn.activations import ACTIVATIONS
from ffnlab.nn.budget import match
from ffnlab.nn.ffn import BlockConfig
from ffnlab.train.checkpoint import Checkpoints
from ffnlab.types import Array, Key, Params

Pair = tuple[np.ndarray, np.ndarray]


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


class SwapProgress(NamedTuple):
    """How far the swap of all blocks is, as arrays to save.

    Attributes:
      layer: The number of the layer whose block is replaced next, `[]`.
      step: The training steps of its new block so far, `[]`.
      params: Name of each layer to the parameters of its new block.
      moments: The state of the optimizer of the layer.
      errors: The errors of each new block before and after training, `[L, 2]`.
    """

    layer: np.ndarray
    step: np.ndarray
    params: dict[str, Params]
    moments: Any
    errors: np.ndarray


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


def _draw_held_out(tokens: int) -> tuple[int, np.ndarray]:
    """Returns how many tokens are held out, and an order in which they come first."""
    if tokens < 10:
        raise InputError(f"{tokens} tokens are too few; give at least 10")
    return tokens // 10, np.random.default_rng(0).permutation(tokens)


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
    checkpoints: Checkpoints | None = None,
    on_steps: Callable[[int], None] | None = None,
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
      checkpoints: Where to save and to resume from, bit for bit, or None.
      on_steps: A function to call with what is done so far, or None. Each layer counts
        its training steps, and one more for its errors.

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
    key = jax.random.key(0) if key is None else key
    count, order = _draw_held_out(inputs.shape[1])
    optimizer, _ = make_distiller(new, steps, learning_rate)
    progress = _start_swap(new, config.layers, optimizer)
    if checkpoints:
        progress = checkpoints.restore(progress)
    swap = _Swap(new, old, steps, learning_rate, progress, checkpoints, on_steps)
    with checkpoints or contextlib.nullcontext(), signals.deferred():
        for layer in range(int(progress.layer), config.layers):
            x, y = inputs[layer][order], outputs[layer][order]
            train, held_out = (x[count:], y[count:]), (x[:count], y[:count])
            replaced = params[f"layer_{layer}"]["ffn"]
            swap.replace(replaced, train, held_out, jax.random.fold_in(key, layer))
    config = _with_head_activation(config, old.activation_name)
    config = dataclasses.replace(config, block=new.kind, hidden=new.hidden)
    records = [LayerRecord(*errors) for errors in swap.progress.errors.tolist()]
    return config, _with_blocks(params, swap.progress.params), records


def _with_head_activation(config: TransformerConfig, name: str) -> TransformerConfig:
    """Returns a configuration whose head keeps the activation it was trained with."""
    has_one = config.head == "tied" and config.head_dense and name in ACTIVATIONS
    if not has_one or config.head_activation:
        return config
    return dataclasses.replace(config, head_activation=name)


def _with_blocks(params: Params, blocks: Mapping[str, Params]) -> Params:
    """Returns the parameters of a model with other blocks, by the name of the layer."""
    swapped = dict(params)
    for name, block in blocks.items():
        swapped[name] = {**params[name], "ffn": jax.tree.map(jnp.asarray, block)}
    return swapped


@dataclasses.dataclass
class _Swap:
    """The swap of the blocks of a model, layer by layer; see `swap_block`."""

    new: BlockConfig
    old: BlockConfig
    steps: int
    learning_rate: float
    progress: SwapProgress
    checkpoints: Checkpoints | None
    on_steps: Callable[[int], None] | None

    def replace(self, params: Params, train: Pair, held_out: Pair, key: Key) -> None:
        """Replaces the next block, from the start or from where it was saved.

        Args:
          params: Parameters of the old block.
          train: Inputs and outputs of the old block `[N, D]` to train on.
          held_out: Inputs and outputs to measure the errors on.
          key: Random key of the batches.
        """
        layer, taken = int(self.progress.layer), int(self.progress.step)
        name, moments = f"layer_{layer}", self.progress.moments if taken else None
        if taken:
            params = self.progress.params[name]
        else:
            params = init_block(self.new, self.old, params, *train)
            self._set_error(0, params, held_out)

        def on_steps(step: int, params: Params, moments: Any) -> None:
            self._reach(layer, step, {name: params}, moments)

        trained = distill(
            self.new,
            params,
            *train,
            self.steps,
            self.learning_rate,
            key,
            taken=taken,
            moments=moments,
            on_steps=on_steps,
        )
        self._set_error(1, trained, held_out)
        self._reach(layer + 1, 0, {name: trained}, self.progress.moments)

    def _set_error(self, column: int, params: Params, held_out: Pair) -> None:
        """Sets the error of the block of this layer before or after training."""
        errors = self.progress.errors.copy()
        errors[self.progress.layer, column] = relative_error(
            self.new, params, *held_out
        )
        self.progress = self.progress._replace(errors=errors)

    def _reach(
        self, layer: int, step: int, params: dict[str, Params], moments: Any
    ) -> None:
        """Sets the progress, saves it once in a while, and reports it."""
        self.progress = SwapProgress(
            np.int32(layer),
            np.int32(step),
            self.progress.params | params,
            moments,
            self.progress.errors,
        )
        done = layer * (self.steps + 1) + step
        stops = signals.pending() is not None
        if self.checkpoints:
            self.checkpoints.save(done, self.progress, final=stops)
        if self.on_steps:
            self.on_steps(done)
        if stops:
            raise signals.Stopped(signals.pending())


def _start_swap(
    block: BlockConfig, layers: int, optimizer: optax.GradientTransformation
) -> SwapProgress:
    """Returns the progress before the first layer, with parameters of 0."""
    shapes = jax.eval_shape(compiled_model(block).init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return SwapProgress(
        np.zeros((), np.int32),
        np.zeros((), np.int32),
        {f"layer_{layer}": params for layer in range(layers)},
        jax.tree.map(np.asarray, optimizer.init(params)),
        np.zeros((layers, 2)),
    )


def _check(config: TransformerConfig) -> None:
    inputs = {BlockConfig(name).block.inputs for name in config.blocks}
    if inputs != {("up",)} or len(set(config.blocks)) > 1:
        raise InputError(
            f"block {config.block!r} cannot be swapped; all layers need the same plain "
            "block"
        )
    if not config.bias or config.scan:
        raise InputError("swap_block: the model needs bias=True and scan=False")
