"""Classifiers of texts, of pairs of texts, and of words: an encoder and a head.

    config = ClassifierConfig(encoder, classes=9, head="feedback")
    model = classifier_model(config)
    logits, _ = model.apply(params, x, key)     # [B, K, classes]

A classifier labels positions: the first token of each text, or of each word. Several
texts share a row; `data.packed_rows.pack` makes the rows and their `label_positions`.
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
    """Configuration of a classifier.

    Attributes:
      encoder: Configuration of the Transformer, without a head. The dense tanh layer of
        a pooler is applied at every label position.
      classes: Number of classes; 1 for a number.
      head: `linear`; a feed-forward block such as `swiglu` or `mlp:gelu` before the
        linear layer; or `feedback`, a layer whose states depend on those of both
        neighbouring label positions.
      hidden: Hidden width of the block, or state width of the feedback layer.
      dropout: Dropout rate of the input of the head.
      gradient: Gradient of the feedback layer: `implicit` or `bptt`.
      dense: Activation of a dense layer of the encoder's width before the head, as in
        RoBERTa (tanh), DistilBERT (relu) and ELECTRA (gelu); None means no such
        layer.

    Raises:
      InputError: The encoder has a head, or a value is out of its range.
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
            raise InputError("a classifier needs an encoder without a head; head=False")
        if min(self.classes, self.hidden) < 1:
            raise InputError(
                f"classes={self.classes} and hidden={self.hidden} must be at least 1"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"dropout={self.dropout} must be in [0, 1)")
        if self.head not in HEADS:
            parse(self.head)


class ClassifierHead(nnx.Module):
    """Head of a classifier: states at label positions to logits.

    Args:
      config: Configuration of the classifier.
      rngs: Random streams that initialise the arrays.

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

    def __call__(self, h: Array, mask: Array | None = None) -> Array:
        """Returns logits `[B, K, classes]` of states `[B, K, D]`.

        Args:
          h: States at the label positions.
          mask: Bool `[B, K]`, False for padding; masked states do not affect others.
        """
        if self.config.head == "feedback":
            dtype = jnp.promote_types(h.dtype, jnp.float32)
            h, _ = self.feedback(h, mask, dtype=dtype, warn=False)
        elif self.config.head != "linear":
            h, _ = self.ffn(h)
        return self.out(h)


def encode(encoder: Transformer, x: Batch, key: Key | None = None) -> Array:
    """Returns the states of packed rows, `[B, T, D]`; see `Classifier` for x."""
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
    """A Transformer encoder with a classification head.

    Args:
      config: Configuration of the classifier.
      rngs: Random streams that initialise the arrays.
    """

    def __init__(self, config: ClassifierConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = Transformer(config.encoder, rngs=rngs)
        self.head = ClassifierHead(config, rngs=rngs)

    def __call__(self, x: Batch, key: Key | None = None) -> tuple[Array, dict]:
        """Returns logits `[B, K, classes]` and an empty dict.

        Args:
          x: `tokens` int and `mask` bool `[B, T]`; `segment_ids` int `[B, T]`, the text
            of each token; `label_positions` int `[B, K]`, −1 for none; optionally
            `types` int `[B, T]`, the token types of pairs; and optionally `offset`
            `[B, T, D]`, added to the token embeddings.
          key: Dropout key; None in evaluation.
        """
        keys: Any = (None, None) if key is None else jax.random.split(key)
        h = encode(self.encoder, x, keys[0])
        label_positions = jnp.maximum(x["label_positions"], 0)[..., None]
        h = jnp.take_along_axis(h, label_positions, axis=1)  # [B, K, D]
        if self.config.encoder.pooler:
            h = activations.tanh(self.encoder.pooler(h))
        if self.config.dense:
            h = activations.get(self.config.dense).function(self.head.dense(h))
        h = dropout(h, keys[1], self.config.dropout)
        return self.head(h, x["label_positions"] >= 0), {}


def most_likely(logits: Array, x: Batch) -> tuple[Array, Array]:
    """Returns the most likely labels and their probabilities, `[B, K]` each."""
    probabilities = jax.nn.softmax(logits)
    return probabilities.argmax(axis=-1), probabilities.max(axis=-1)


class Predictor:
    """Predictions of a model for all rows of a data set, compiled once.

    Args:
      model: A model of packed rows, such as `classifier_model` returns.
      arrays: Rows of `data.packed_rows.pack`.
      batch: Rows per batch.
      read: `read(outputs, x)` returns the predictions `[B, K, ...]` of a batch from the
        outputs and inputs of the model.
    """

    def __init__(
        self,
        model: Model,
        arrays: Arrays,
        batch: int = 16,
        read: Callable[[Array, Batch], tuple[Array, ...]] = most_likely,
    ):
        x = data.take(arrays, np.arange(len(arrays["y"])))["x"]
        self._rows = len(arrays["y"])
        count = -(-self._rows // batch)

        def to_batches(array: np.ndarray) -> Array:
            padded = pad_to(array, (count * batch, array.shape[1]))
            return jnp.asarray(padded.reshape(count, batch, -1))

        def predict(params: Params, batches: Batch) -> tuple[Array, ...]:
            return jax.lax.map(
                lambda x: read(model.apply(params, x, None)[0], x), batches
            )

        self._batches = jax.tree.map(to_batches, x)
        self._predict = jax.jit(predict)

    def __call__(self, params: Params) -> tuple[np.ndarray, ...]:
        """Returns the predictions, `[N, K, ...]` each; labels and probabilities."""
        predictions = self._predict(params, self._batches)
        return tuple(
            np.asarray(values).reshape(-1, *values.shape[2:])[: self._rows]
            for values in predictions
        )


def classifier_model(config: ClassifierConfig) -> Model:
    """Returns a `Classifier` as pure functions; parameters are `encoder` and `head`."""
    return encoder_and_head(lambda rngs: Classifier(config, rngs=rngs))


def encoder_and_head(build: Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """Returns a module with an encoder and a head as pure functions.

    `apply` ignores other parameters, such as the head of another loss.
    """
    model = functional(build)

    def apply(params: Params, x: Batch, key: Key | None = None) -> tuple[Array, dict]:
        params = {name: params[name] for name in ("encoder", "head")}
        return model.apply(params, x, key)

    return Model(model.init, apply)
