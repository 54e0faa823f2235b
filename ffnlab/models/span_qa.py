"""Extractive question answering: the tokens at which an answer starts and ends.

    model = span_qa_model(SpanQAConfig(encoder))
    logits, _ = model.apply(params, x, key)       # [B, T, 2]: start and end
    spans, scores, null_scores = make_span_finder(model, rows.arrays)(params)

A window is a question and a part of its context. Several windows share a row;
`data.squad_windows.pack_windows` makes the rows. The label of a window without an
answer is the window's first token, as start and as end.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ffnlab.data.dataset import Arrays
from ffnlab.errors import InputError
from ffnlab.models.classifier import Predictor, encode, encoder_and_head
from ffnlab.models.transformer import Transformer, TransformerConfig
from ffnlab.nn.dropout import dropout
from ffnlab.types import Array, Batch, Key, Model

# Logit of tokens outside the context. It is finite, so that sums and gradients are too.
MASKED_LOGIT = -1e30


@dataclasses.dataclass(frozen=True)
class SpanQAConfig:
    """Configuration of an extractive question answering model.

    Attributes:
      encoder: Configuration of the Transformer, without a head and without a pooler.
      dropout: Dropout rate of the input of the head.

    Raises:
      InputError: The encoder has a head or a pooler, or the rate is out of its range.
    """

    encoder: TransformerConfig
    dropout: float = 0.1

    def __post_init__(self):
        if self.encoder.head != "none" or self.encoder.pooler:
            raise InputError(
                "a span model needs an encoder without a head and without a pooler; "
                "head=False, pooler=False"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"dropout={self.dropout} must be in [0, 1)")


class SpanQA(nnx.Module):
    """A Transformer encoder with two logits at every token, of start and end.

    Args:
      config: Configuration of the model.
      rngs: Random streams that initialise the arrays.
    """

    def __init__(self, config: SpanQAConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = Transformer(config.encoder, rngs=rngs)
        normal = nnx.initializers.normal(0.02)
        width = config.encoder.features
        self.head = nnx.Dict(out=nnx.Linear(width, 2, kernel_init=normal, rngs=rngs))

    def __call__(self, x: Batch, key: Key | None = None) -> tuple[Array, dict]:
        """Returns logits `[B, T, 2]` of start and end, and an empty dict.

        Args:
          x: `tokens` int and `mask` bool `[B, T]`; `segment_ids` int `[B, T]`, the
            window of each token; `inside` bool `[B, T]`, True where an answer may start
            or end (the logits of other tokens are −1e30); optionally `types` int
            `[B, T]`, the token types; and optionally `offset` `[B, T, D]`, added to the
            token embeddings.
          key: Dropout key; None in evaluation.
        """
        keys: Any = (None, None) if key is None else jax.random.split(key)
        h = encode(self.encoder, x, keys[0])
        logits = self.head.out(dropout(h, keys[1], self.config.dropout))  # [B, T, 2]
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        return jnp.where(x["inside"][..., None], logits, MASKED_LOGIT), {}


def span_qa_model(config: SpanQAConfig) -> Model:
    """Returns a `SpanQA` as pure functions; parameters are `encoder` and `head`.

    >>> from ffnlab import EncoderConfig
    >>> model = span_qa_model(SpanQAConfig(EncoderConfig.tiny()))
    >>> params = model.init(jax.random.key(0))
    >>> params["head"]["out"]["kernel"].shape
    (64, 2)
    """
    return encoder_and_head(lambda rngs: SpanQA(config, rngs=rngs))


def by_window(logits: Array, x: Batch) -> Array:
    """Returns the logits of each window, −1e30 for the tokens of other windows.

    Args:
      logits: Logits of start and end, `[B, T, 2]`.
      x: `segment_ids` int `[B, T]`; and `label_positions` int `[B, K]`, the first token
        of each window, −1 for none.

    Returns:
      `[B, 2, K, T]`.

    >>> x = {"segment_ids": jnp.array([[7, 7, 3]])}
    >>> x["label_positions"] = jnp.array([[0, -1, 2]])
    >>> (by_window(jnp.ones((1, 3, 2)), x)[0, 0] > 0).astype(int).tolist()
    [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    """
    segment_ids, first = x["segment_ids"], x["label_positions"]
    window = jnp.take_along_axis(segment_ids, jnp.maximum(first, 0), axis=1)  # [B, K]
    same = segment_ids[:, None] == window[..., None]  # [B, K, T]
    mask = same & (first >= 0)[..., None]
    logits = logits.transpose(0, 2, 1)[:, :, None]  # [B, 2, 1, T]
    return jnp.where(mask[:, None], logits, MASKED_LOGIT)


def window_logits(logits: Array, batch: Batch) -> Array:
    """Returns the logits of start and end for each window, `[B, K, 2, T]`.

    The objective is `cross_entropy_objective(class_logits=window_logits, joint=True)`:
    the tokens of a window are the classes. A batch's `y` is int `[B, K, 2]`, −100 where
    there is no window.

    Args:
      logits: `[B, T, 2]`.
      batch: Its `x` is that of `by_window`.

    Source: Devlin et al. 2019, section 4.2.

    >>> from ffnlab.train.objectives import cross_entropy_objective
    >>> x = {"segment_ids": jnp.zeros((1, 4), int),
    ...      "label_positions": jnp.array([[0, -1]])}
    >>> batch = {"x": x, "y": jnp.array([[[1, 2], [-100, -100]]])}
    >>> objective = cross_entropy_objective(class_logits=window_logits, joint=True)
    >>> scores = objective.score(jnp.zeros((1, 4, 2)), batch)
    >>> [round(float(loss), 4) for loss in scores.values["loss"][0]]
    [1.3863, 0.0]
    """
    return by_window(logits, batch["x"]).swapaxes(1, 2)


def best_spans(
    logits: Array, x: Batch, max_answer_length: int
) -> tuple[Array, Array, Array]:
    """Returns the best span of each window, its score, and the score of no answer.

    A score is the sum of the logits of start and end. Scores of windows of the same
    question are comparable.

    Args:
      logits: Logits of start and end, `[B, T, 2]`.
      x: Inputs of the model; see `by_window`.
      max_answer_length: Maximum number of tokens of a span.

    Returns:
      spans: start and end int `[B, K, 2]`, counted from the first token of the window;
        0 and 0 for a window without context.
      scores: scores of the spans `[B, K]`.
      null_scores: scores of no answer `[B, K]`.

    Source: Devlin et al. 2019, section 4.3.
    """
    logits, positions = by_window(logits, x), jnp.arange(logits.shape[1])
    first = positions[None, None] == x["label_positions"][..., None]  # [B, K, T]
    null_scores = jnp.where(first[:, None], logits, 0.0).sum(axis=(1, 3))  # [B, K]
    starts, ends = jnp.where(first[:, None], MASKED_LOGIT, logits).swapaxes(0, 1)
    widths = [(0, 0), (0, 0), (0, max_answer_length)]
    padded = jnp.pad(ends, widths, constant_values=MASKED_LOGIT)

    def lengthen(distance: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
        """Replaces the spans that score higher if they end at this distance."""
        end = jax.lax.dynamic_slice_in_dim(padded, distance, len(positions), axis=2)
        score, better = starts + end, starts + end > best[0]
        return jnp.where(better, score, best[0]), jnp.where(better, distance, best[1])

    best = starts + ends, jnp.zeros(starts.shape, int)
    scores, distances = jax.lax.fori_loop(1, max_answer_length, lengthen, best)
    start = scores.argmax(axis=2)[..., None]  # [B, K, 1]
    score = jnp.take_along_axis(scores, start, axis=2)
    end = start + jnp.take_along_axis(distances, start, axis=2)
    spans = jnp.concatenate([start, end], axis=2) - x["label_positions"][..., None]
    return jnp.where(score > MASKED_LOGIT / 2, spans, 0), score[..., 0], null_scores


def make_span_finder(
    model: Model, arrays: Arrays, batch: int = 16, max_answer_length: int = 30
) -> Predictor:
    """Returns a function that finds the best span of each window, compiled once.

    Args:
      model: A model of `span_qa_model`.
      arrays: Rows of `data.squad_windows.pack_windows`.
      batch: Rows per batch.
      max_answer_length: Maximum number of tokens of a span.

    Returns:
      `find(params)`, which returns the results of `best_spans` for all rows.

    Raises:
      InputError: `max_answer_length` is less than 1.
    """
    if max_answer_length < 1:
        raise InputError(f"max_answer_length={max_answer_length} must be at least 1")
    read = functools.partial(best_spans, max_answer_length=max_answer_length)
    return Predictor(model, arrays, batch, read)
