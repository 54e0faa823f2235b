"""Models of sequences: an embedding, layers that hear their neighbours, a head."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx

from ffnlab import budget
from ffnlab.errors import InputError, choose
from ffnlab.feedback import FeedbackConfig, FeedbackNetwork
from ffnlab.models import functional, parameters
from ffnlab.recurrent import GRU, Bidirectional, Elman, Window
from ffnlab.solvers import Jacobi, Solver, Unrolled
from ffnlab.types import Array, Key, Model


@dataclasses.dataclass(frozen=True)
class SequenceConfig:
    """What a model of sequences is made of.

    Attributes:
      outputs: the number K of classes.
      features: the width F of x["values"]; not read if there is a vocabulary.
      vocabulary: how many tokens x["tokens"] may hold, or None.
      kind: a key of `KINDS`.
      hidden: the width H of a state.
      layers: how many layers L.
      per: what has a label: every `position`, or the `sequence`.
      embedding: the width of a token's embedding.
      activation: of the states; a GRU has its own.
      radius: how far a window sees to either side.
      solver, gradient, contractive, coupling, boundary: see `FeedbackConfig`.
      top_down: whether a feedback layer hears the one above.
    """

    outputs: int
    features: int = 1
    vocabulary: int | None = None
    kind: str = "feedback"
    hidden: int = 32
    layers: int = 1
    per: Literal["position", "sequence"] = "position"
    embedding: int = 16
    activation: str = "tanh"
    radius: int = 3
    solver: Solver | Unrolled = dataclasses.field(default_factory=Jacobi)
    gradient: Literal["implicit", "bptt", "one_step"] = "implicit"
    contractive: float | None = None
    coupling: float = 0.9
    boundary: Literal["zeros", "learned"] = "zeros"
    top_down: bool = False

    def __post_init__(self):
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
        """The width of what the first layer reads."""
        return self.embedding if self.vocabulary else self.features


class Stack(nnx.Module):
    """Layers one above the other.

    Args:
      make: `make(features, hidden, rngs=...)`, a module of `ffnlab.recurrent`.
      config: how wide and how many.
      rngs: where the arrays are drawn from.
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
        """Returns the states of the last layer, and nothing to report."""
        for layer in range(self.layers):
            x, _ = getattr(self, f"layer_{layer}")(x, mask)
        return x, {}


def _feedback(config: SequenceConfig, rngs: nnx.Rngs) -> FeedbackNetwork:
    names = ("hidden", "activation", "solver", "gradient", "contractive", "coupling")
    given = {name: getattr(config, name) for name in (*names, "boundary")}
    layer = FeedbackConfig(config.width, **given)
    return FeedbackNetwork(layer, config.layers, config.top_down, rngs=rngs)


def _elman(config: SequenceConfig, rngs: nnx.Rngs) -> Stack:
    make = functools.partial(Elman, activation=config.activation)
    return Stack(make, config, rngs=rngs)


def _birnn(config: SequenceConfig, rngs: nnx.Rngs) -> Stack:
    one = functools.partial(Elman, activation=config.activation)
    return Stack(functools.partial(Bidirectional, one), config, rngs=rngs)


def _gru(config: SequenceConfig, rngs: nnx.Rngs) -> Stack:
    return Stack(GRU, config, rngs=rngs)


def _bigru(config: SequenceConfig, rngs: nnx.Rngs) -> Stack:
    return Stack(functools.partial(Bidirectional, GRU), config, rngs=rngs)


def _window(config: SequenceConfig, rngs: nnx.Rngs) -> Stack:
    make = functools.partial(Window, activation=config.activation, radius=config.radius)
    return Stack(make, config, rngs=rngs)


# A plain literal: launchers read its keys from the source, before any import.
KINDS = {
    "feedback": _feedback,
    "elman": _elman,
    "birnn": _birnn,
    "gru": _gru,
    "bigru": _bigru,
    "window": _window,
}


class SequenceModel(nnx.Module):
    """Embedding, layers, and a head for every position or for the whole sequence.

    Args:
      config: what it is made of.
      rngs: where the arrays are drawn from.

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
        self.body = KINDS[config.kind](config, rngs)
        self.head = nnx.Linear(config.hidden, config.outputs, rngs=rngs)

    def __call__(
        self, x: dict[str, Array], key: Key | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Applies the model.

        Args:
          x: `tokens` int `[..., T]`, or `[..., T, G]` whose embeddings are summed, or
            `values` float `[..., T, F]`; and `mask` bool `[..., T]` if some positions
            are padding.
          key: None in evaluation, when what takes time is reported too.

        Returns:
          Logits `[..., T, K]`, or `[..., K]` for the sequence, from the mean of its
          states; and `report`, what the solver told of each sequence, `[...]` each.
        """
        values, mask = x.get("values"), x.get("mask")
        if self.config.vocabulary:
            tokens = x["tokens"]
            values = self.embed(tokens)  # [..., T, E] or [..., T, G, E]
            flat = mask is None or tokens.ndim == mask.ndim
            values = values if flat else values.sum(axis=-2)
        h, aux = self.body(values, mask, report=key is None)
        if self.config.per == "sequence":
            count = h.shape[-2] if mask is None else mask.sum(-1, keepdims=True)
            h = h.sum(axis=-2) / jnp.maximum(count, 1)  # [..., H]
        return self.head(h), {"report": aux}


def sequence_model(config: SequenceConfig) -> Model:
    """Returns a model of sequences as pure functions.

    >>> import jax
    >>> model = sequence_model(SequenceConfig(outputs=2, kind="gru"))
    >>> x = {"values": jnp.ones((4, 7, 1))}
    >>> model.apply(model.init(jax.random.key(0)), x)[0].shape
    (4, 7, 2)
    """
    return functional(lambda rngs: SequenceModel(config, rngs=rngs))


def match(config: SequenceConfig, reference: SequenceConfig) -> SequenceConfig:
    """Returns a model as large as another: the width at which parameters are nearest.

    Args:
      config: the model to resize; its own `hidden` is ignored.
      reference: the model whose parameters are the target.

    >>> match(SequenceConfig(2, kind="elman"), SequenceConfig(2, hidden=32)).hidden
    45
    """
    step = 2 if config.kind.startswith("bi") else 1

    def sized(hidden: int) -> SequenceConfig:
        return dataclasses.replace(config, hidden=hidden)

    def cost(hidden: int) -> int:
        return parameters(sequence_model(sized(hidden)))

    target = parameters(sequence_model(reference))
    return sized(budget.width(cost, target, step, config.kind))
