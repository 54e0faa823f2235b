"""Heads on an encoder: a label for a text, for a pair of texts, for every word.

    config = LabelConfig(encoder, classes=9, head="feedback")
    model = labeller(config)
    logits, _ = model.apply(params, x, key)     # [B, K, classes]

All of them label places: the first token of a text, the first token of each word.
Several texts share a row, and x says where the places are; `data.places` makes it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ffnlab import data
from ffnlab.data.dataset import Arrays
from ffnlab.data.padding import pad_to
from ffnlab.errors import InputError
from ffnlab.feedback.layers import FeedbackConfig, FeedbackLayer
from ffnlab.models.transformer import Transformer, TransformerConfig
from ffnlab.nn import activations
from ffnlab.nn.dropout import dropout
from ffnlab.nn.ffn import BlockConfig, FeedForward, parse
from ffnlab.nn.pure import functional
from ffnlab.types import Array, Batch, Key, Model, Params

HEADS = ("linear", "feedback")


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
    """What a labeller is made of.

    Attributes:
      encoder: the Transformer, without a head; with a pooler, that dense tanh layer is
        applied at every place.
      classes: how many labels K there are.
      head: `linear`; a feed-forward block such as `swiglu` or `mlp:gelu` before the
        linear layer; or `feedback`, the layer in which neighbouring places hear each
        other.
      hidden: the width inside a block, or of the feedback layer's states.
      dropout: the rate on what the head takes.
      gradient: how the feedback layer is differentiated: `implicit` or `bptt`.
      dense: the activation of a dense layer of the encoder's width before the head, as
        RoBERTa (tanh) and DistilBERT (relu) have it; None is no such layer.

    Raises:
      InputError: the encoder has a head, or a value is out of its range.
    """

    encoder: TransformerConfig
    classes: int
    head: str = "linear"
    hidden: int = 128
    dropout: float = 0.1
    gradient: str = "implicit"
    dense: str | None = None

    def __post_init__(self):
        if self.encoder.head != "none":
            raise InputError("a labeller needs an encoder without a head; head=False")
        if self.classes < 2 or self.hidden < 1:
            raise InputError(
                f"classes={self.classes} must be at least 2, hidden={self.hidden} 1"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"dropout={self.dropout} must be in [0, 1)")
        if self.head not in HEADS:
            parse(self.head)


class ClassifierHead(nnx.Module):
    """States at places to logits.

    >>> from ffnlab import EncoderConfig
    >>> config = ClassifierConfig(EncoderConfig.tiny(), classes=3, head="swiglu")
    >>> ClassifierHead(config, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 64))).shape
    (2, 5, 3)
    """

    def __init__(self, config: ClassifierConfig, *, rngs: nnx.Rngs):
        self.config, width = config, config.encoder.features
        if config.head == "feedback":
            shape = FeedbackConfig(
                width,
                config.hidden,
                activation="tanh",
                contractive=0.9,
                gradient=config.gradient,
            )
            self.feedback = FeedbackLayer(shape, rngs=rngs)
        elif config.head != "linear":
            block = BlockConfig(config.head, width, config.hidden, norm="pre")
            self.ffn = FeedForward(block, rngs=rngs)
        inside = config.hidden if config.head == "feedback" else width
        normal = nnx.initializers.normal(0.02)
        if config.dense:
            self.dense = nnx.Linear(width, width, kernel_init=normal, rngs=rngs)
        self.out = nnx.Linear(inside, config.classes, kernel_init=normal, rngs=rngs)

    def __call__(self, h: Array, there: Array | None = None) -> Array:
        """Returns logits `[B, K, classes]` of states `[B, K, D]`.

        Args:
          h: the states.
          there: bool `[B, K]`, where there is a place; what is not, is not heard.
        """
        if self.config.head == "feedback":
            h, _ = self.feedback(h, there)
        elif self.config.head != "linear":
            h, _ = self.ffn(h)
        return self.out(h)


def states(encoder: Transformer, x: Batch, key: Key | None = None) -> Array:
    """Returns what an encoder makes of packed rows, `[B, T, D]`; see `Classifier`."""
    h, _ = encoder(
        x["tokens"],
        x["mask"],
        types=x.get("types"),
        segment_ids=x["segment_ids"],
        offset=x.get("offset"),
        key=key,
    )
    return h


class Classifier(nnx.Module):
    """An encoder and a head.

    Args:
      config: what it is made of.
      rngs: where the arrays are drawn from.
    """

    def __init__(self, config: ClassifierConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = Transformer(config.encoder, rngs=rngs)
        self.head = ClassifierHead(config, rngs=rngs)

    def __call__(self, x: Batch, key: Key | None = None) -> tuple[Array, dict]:
        """Returns logits `[B, K, classes]`, and nothing beside them.

        Args:
          x: `tokens` int and `mask` bool `[B, T]`; `segment_ids` int `[B, T]`, the text of
            each token; `label_positions` int `[B, K]`, the places to label, −1 for none; `types` int
            `[B, T]`, if there are pairs; and `offset` `[B, T, D]`, if something is to
            be added to the embeddings of the tokens.
          key: the key of this call's dropout; None in evaluation.
        """
        keys: Any = (None, None) if key is None else jax.random.split(key)
        h = states(self.encoder, x, keys[0])
        label_positions = jnp.maximum(x["label_positions"], 0)[..., None]
        h = jnp.take_along_axis(h, label_positions, axis=1)  # [B, K, D]
        if self.config.encoder.pooler:
            h = jnp.tanh(self.encoder.pooler(h))
        if self.config.dense:
            h = activations.get(self.config.dense).function(self.head.dense(h))
        h = dropout(h, keys[1], self.config.dropout)
        return self.head(h, x["label_positions"] >= 0), {}


def likeliest(logits: Array, x: Batch) -> tuple[Array, Array]:
    """Returns the likeliest labels and their probabilities, `[B, K]` each."""
    chances = jax.nn.softmax(logits)
    return chances.argmax(axis=-1), chances.max(axis=-1)


class Predictor:
    """What a model finds at the places of rows, compiled once.

    Args:
      model: from `classifier_model`, or of another head.
      arrays: rows, as `data.places.pack` makes them.
      batch: rows at a time.
      read: makes of the model's outputs and of what it was given arrays `[B, K, ...]`.
    """

    def __init__(
        self,
        model: Model,
        arrays: Arrays,
        batch: int = 16,
        read: Callable[[Array, Batch], tuple[Array, ...]] = likeliest,
    ):
        x = data.take(arrays, np.arange(len(arrays["y"])))["x"]
        self._rows = len(arrays["y"])
        count = -(-self._rows // batch)

        def cut(array: np.ndarray) -> Array:
            full = pad_to(array, (count * batch, array.shape[1]))
            return jnp.asarray(full.reshape(count, batch, -1))

        def one(params: Params, x: Batch) -> tuple[Array, ...]:
            return read(model.apply(params, x, None)[0], x)

        self._x = jax.tree.map(cut, x)
        self._run = jax.jit(lambda p, x: jax.lax.map(lambda part: one(p, part), x))

    def __call__(self, params: Params) -> tuple[np.ndarray, ...]:
        """Returns what `read` makes, `[N, K, ...]` each; labels and probabilities."""
        found = self._run(params, self._x)
        return tuple(
            np.asarray(each).reshape(-1, *each.shape[2:])[: self._rows]
            for each in found
        )


def classifier_model(config: ClassifierConfig) -> Model:
    """Returns a labeller as pure functions; parameters are `encoder` and `head`."""
    return encoder_and_head(lambda rngs: Classifier(config, rngs=rngs))


def encoder_and_head(build: Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """Returns a module of an encoder and a head as pure functions.

    What else the parameters hold, such as the head of another loss, is passed over.
    """
    inner = functional(build)

    def apply(params: Params, x: Batch, key: Key | None = None) -> tuple[Array, dict]:
        own = {name: params[name] for name in ("encoder", "head")}
        return inner.apply(own, x, key)

    return Model(inner.init, apply)
