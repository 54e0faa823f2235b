"""Sequence models: an embedding, recurrent or feedback layers, and a head."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from flax import nnx

from ffnlab.errors import InputError, choose
from ffnlab.feedback.layers import Coupling, FeedbackConfig, FeedbackNetwork
from ffnlab.models.recurrent import GRU, Bidirectional, Elman, Window
from ffnlab.nn import activations, budget
from ffnlab.nn.indices import check_indices
from ffnlab.nn.pure import functional
from ffnlab.types import Array, Key, Model


@dataclasses.dataclass(frozen=True)
class SequenceConfig(Coupling):
    """Configuration of a sequence model.

    The keyword fields of `Coupling` apply to feedback layers only, except for the
    activation, which all layers but the GRU use.

    Attributes:
      outputs: Number of classes K.
      features: Width F of x["values"]; unused with a vocabulary.
      vocabulary: Number of different tokens in x["tokens"], or None.
      kind: A key of `KINDS`.
      hidden: Width H of a state.
      layers: Number of layers L.
      per: What has a label: every `position`, or the `sequence`.
      embedding: Width of a token embedding.
      radius: Number of positions on either side that a window layer reads.
      top_down: Whether a feedback layer has the layer above as an input.

    Raises:
      InputError: A value is out of its range, or a name is unknown.
    """

    outputs: int
    features: int = 1
    vocabulary: int | None = None
    kind: str = "feedback"
    hidden: int = 32
    layers: int = 1
    per: Literal["position", "sequence"] = "position"
    embedding: int = 16
    radius: int = 3
    top_down: bool = False

    def __post_init__(self):
        super().__post_init__()
        choose("kind", self.kind, KINDS)
        choose("per", self.per, ("position", "sequence"))
        sizes = (self.outputs, self.features, self.hidden, self.layers, self.embedding)
        if min(sizes) < 1 or self.radius < 0:
            raise InputError(
                f"outputs={self.outputs}, features={self.features}, "
                f"hidden={self.hidden}, layers={self.layers} and "
                f"embedding={self.embedding} must be at least 1, radius={self.radius} 0"
            )

    @property
    def width(self) -> int:
        """Width of the inputs of the first layer."""
        return self.embedding if self.vocabulary else self.features

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        count, hidden = KINDS[self.kind].count, self.hidden
        layers = [
            count(self, hidden if layer else self.width) for layer in range(self.layers)
        ]
        total = sum(layers) + (hidden + 1) * self.outputs
        total += (self.vocabulary or 0) * self.embedding
        if self.kind == "feedback" and self.top_down:
            total += (self.layers - 1) * hidden**2
        return total


class Stack(nnx.Module):
    """A stack of layers.

    Args:
      make: `make(features, hidden, rngs=...)`, a module of `ffnlab.models.recurrent`.
      config: Configuration of the model.
      rngs: Random streams that initialise the arrays.
    """

    def __init__(
        self, make: Callable[..., Any], config: SequenceConfig, *, rngs: nnx.Rngs
    ):
        self.layers = config.layers
        for layer in range(config.layers):
            width = config.hidden if layer else config.width
            setattr(self, f"layer_{layer}", make(width, config.hidden, rngs=rngs))

    def __call__(
        self, x: Array, mask: Array | None = None, *, report: bool = False
    ) -> tuple[Array, dict]:
        """Returns the states of the last layer and an empty dict."""
        for layer in range(self.layers):
            x, _ = getattr(self, f"layer_{layer}")(x, mask)
        return x, {}


class Kind(NamedTuple):
    """A row of `KINDS`.

    Attributes:
      build: `build(config, rngs)` returns all layers as `module(x, mask, report=...)`.
      count: `count(config, width)` returns the number of parameters of a layer whose
        inputs have that width.
    """

    build: Callable[[SequenceConfig, nnx.Rngs], nnx.Module]
    count: Callable[[SequenceConfig, int], int]


def _feedback(config: SequenceConfig, rngs: nnx.Rngs) -> FeedbackNetwork:
    names = [field.name for field in dataclasses.fields(Coupling)]
    coupling = {name: getattr(config, name) for name in names}
    layer = FeedbackConfig(config.width, config.hidden, **coupling)
    return FeedbackNetwork(layer, config.layers, config.top_down, rngs=rngs)


def _stack(make: Callable[..., Any], *fields: str) -> Callable[..., Stack]:
    """Returns `build` for a layer that takes these fields of the config."""

    def build(config: SequenceConfig, rngs: nnx.Rngs) -> Stack:
        options = {name: getattr(config, name) for name in fields}
        return Stack(functools.partial(make, **options), config, rngs=rngs)

    return build


def _bidirectional(make: Callable[..., Any], *fields: str) -> Callable[..., Stack]:
    """Returns `build` for a bidirectional layer."""

    def build(config: SequenceConfig, rngs: nnx.Rngs) -> Stack:
        options = {name: getattr(config, name) for name in fields}
        layer = functools.partial(make, **options)
        return Stack(functools.partial(Bidirectional, layer), config, rngs=rngs)

    return build


def _betas(config: SequenceConfig, hidden: int) -> int:
    kind = activations.get(config.activation).beta
    return {None: 0, "layer": 1, "channel": hidden}[kind]


def _count_feedback(config: SequenceConfig, width: int) -> int:
    ends = 2 * config.hidden if config.boundary == "learned" else 0
    return _count_elman(config, width) + config.hidden**2 + ends


def _count_elman(config: SequenceConfig, width: int) -> int:
    hidden = config.hidden
    return (width + 1 + hidden) * hidden + _betas(config, hidden)


def _count_gru(config: SequenceConfig, width: int) -> int:
    return (3 * (width + 1 + config.hidden) + 1) * config.hidden


def _count_window(config: SequenceConfig, width: int) -> int:
    inputs = (2 * config.radius + 1) * width
    return (inputs + 1) * config.hidden + _betas(config, config.hidden)


def _twice(
    count: Callable[[SequenceConfig, int], int],
) -> Callable[[SequenceConfig, int], int]:
    """Returns the count of two layers of half the width."""

    def count_both(config: SequenceConfig, width: int) -> int:
        half = dataclasses.replace(config, hidden=max(config.hidden // 2, 1))
        return 2 * count(half, width)

    return count_both


KINDS = {
    "feedback": Kind(_feedback, _count_feedback),
    "elman": Kind(_stack(Elman, "activation"), _count_elman),
    "birnn": Kind(_bidirectional(Elman, "activation"), _twice(_count_elman)),
    "gru": Kind(_stack(GRU), _count_gru),
    "bigru": Kind(_bidirectional(GRU), _twice(_count_gru)),
    "window": Kind(_stack(Window, "activation", "radius"), _count_window),
}


class SequenceModel(nnx.Module):
    """An embedding, layers, and a head for every position or for the whole sequence.

    Args:
      config: Configuration of the model.
      rngs: Random streams that initialise the arrays.

    >>> config = SequenceConfig(outputs=3, vocabulary=9, per="sequence", hidden=4)
    >>> model = SequenceModel(config, rngs=nnx.Rngs(0))
    >>> logits, aux = model({"tokens": jnp.array([[1, 2, 8]])})
    >>> logits.shape, sorted(aux["report"])
    ((1, 3), ['adjoint residual', 'converged', 'iterations', 'radius', 'residual'])
    """

    def __init__(self, config: SequenceConfig, *, rngs: nnx.Rngs):
        self.config = config
        if config.vocabulary:
            self.embed = nnx.Embed(config.vocabulary, config.embedding, rngs=rngs)
        self.body = KINDS[config.kind].build(config, rngs)
        self.head = nnx.Linear(config.hidden, config.outputs, rngs=rngs)

    def __call__(
        self, x: dict[str, Array], key: Key | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Returns the logits and the report of the solver.

        Args:
          x: `tokens` int `[..., T]`, or `[..., T, G]` whose embeddings are summed, or
            `values` float `[..., T, F]`; and `mask` bool `[..., T]` if some positions
            are padding.
          key: None in evaluation, when the report has the expensive entries too.

        Returns:
          Logits `[..., T, K]`, or `[..., K]` of the mean state of each sequence; and
          `report`, the solver's numbers for each sequence, `[...]` each.
        """
        values, mask = self.read(x)
        # The report says where a solve failed; a callback would say it once more.
        quiet = {"warn": False} if self.config.kind == "feedback" else {}
        h, aux = self.body(values, mask, report=key is None, **quiet)
        if self.config.per == "sequence":
            count = h.shape[-2] if mask is None else mask.sum(-1, keepdims=True)
            h = h.sum(axis=-2) / jnp.maximum(count, 1)  # [..., H]
        return self.head(h), {"report": aux}

    def read(self, x: dict[str, Array]) -> tuple[Array, Array | None]:
        """Returns the inputs of the first layer, `[..., T, D]`, and the mask."""
        values, mask = x.get("values"), x.get("mask")
        if self.config.vocabulary:
            tokens = x["tokens"]
            check_indices("tokens", tokens, self.config.vocabulary, "embeddings")
            values = self.embed(tokens)  # [..., T, E] or [..., T, G, E]
            if mask is not None and tokens.ndim > mask.ndim:
                values = values.sum(axis=-2)
        return values, mask


def sequence_model(config: SequenceConfig) -> Model:
    """Returns a `SequenceModel` as pure functions.

    >>> import jax
    >>> model = sequence_model(SequenceConfig(outputs=2, kind="gru"))
    >>> x = {"values": jnp.ones((4, 7, 1))}
    >>> model.apply(model.init(jax.random.key(0)), x)[0].shape
    (4, 7, 2)
    """
    return functional(lambda rngs: SequenceModel(config, rngs=rngs))


def match(config: SequenceConfig, reference: SequenceConfig) -> SequenceConfig:
    """Returns a model resized to the number of parameters of a reference model.

    Args:
      config: The model to resize; its own `hidden` is ignored.
      reference: The model whose number of parameters is the target.

    >>> match(SequenceConfig(2, kind="elman"), SequenceConfig(2, hidden=32)).hidden
    45
    """
    multiple = 2 if config.kind.startswith("bi") else 1

    def resize(hidden: int) -> SequenceConfig:
        return dataclasses.replace(config, hidden=hidden)

    def cost(hidden: int) -> int:
        return resize(hidden).parameters

    return resize(
        budget.nearest_width(cost, reference.parameters, multiple, config.kind)
    )
