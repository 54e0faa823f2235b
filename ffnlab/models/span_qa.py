"""Answers that stand in a text: an encoder says at which token one starts and ends.

    config = AnswerConfig(encoder)
    model = answerer(config)
    logits, _ = model.apply(params, x, key)       # [B, T, 2]: start and end
    spans, scores, nothing = finder(model, rows.arrays)(params)

Several windows share a row, and x says where they are; `data.questions` makes it. A
window whose text has no answer starts and ends one at its first token.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ffnlab.data.dataset import Arrays
from ffnlab.errors import InputError
from ffnlab.models.classifier import Predictor, encoder_and_head, states
from ffnlab.models.transformer import Transformer, TransformerConfig
from ffnlab.nn.dropout import dropout
from ffnlab.train.objectives import accuracy, cross_entropy
from ffnlab.types import Array, Batch, Key, Model, Objective, Scores

# A logit where no answer can be; finite, so that no sum is infinite, no gradient NaN.
NEVER = -1e30


@dataclasses.dataclass(frozen=True)
class SpanQAConfig:
    """What an answerer is made of.

    Attributes:
      encoder: the Transformer, without a head and without a pooler.
      dropout: the rate on what the head takes.

    Raises:
      InputError: the encoder has a head or a pooler, or the rate is out of its range.
    """

    encoder: TransformerConfig
    dropout: float = 0.1

    def __post_init__(self):
        if self.encoder.head != "none" or self.encoder.pooler:
            raise InputError(
                "an answerer needs an encoder without a head and without a pooler; "
                "head=False, pooler=False"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"dropout={self.dropout} must be in [0, 1)")


class SpanQA(nnx.Module):
    """An encoder and two logits at every token.

    Args:
      config: what it is made of.
      rngs: where the arrays are drawn from.
    """

    def __init__(self, config: SpanQAConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = Transformer(config.encoder, rngs=rngs)
        normal = nnx.initializers.normal(0.02)
        width = config.encoder.features
        self.head = nnx.Dict(out=nnx.Linear(width, 2, kernel_init=normal, rngs=rngs))

    def __call__(self, x: Batch, key: Key | None = None) -> tuple[Array, dict]:
        """Returns logits `[B, T, 2]` of start and end, and nothing beside them.

        Args:
          x: `tokens` int and `mask` bool `[B, T]`; `segment_ids` int `[B, T]`, the window of
            each token; `inside` bool `[B, T]`, where an answer may start or end, −1e30
            being the logit elsewhere; `types` int `[B, T]`, if there are any; and
            `offset` `[B, T, D]`, if something is to be added to the embeddings.
          key: the key of this call's dropout; None in evaluation.
        """
        keys: Any = (None, None) if key is None else jax.random.split(key)
        h = states(self.encoder, x, keys[0])
        logits = self.head.out(dropout(h, keys[1], self.config.dropout))  # [B, T, 2]
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        return jnp.where(x["inside"][..., None], logits, NEVER), {}


def span_qa_model(config: SpanQAConfig) -> Model:
    """Returns an answerer as pure functions; parameters are `encoder` and `head`.

    >>> from ffnlab import EncoderConfig
    >>> params = span_qa_model(SpanQAConfig(EncoderConfig.tiny())).init(jax.random.key(0))
    >>> params["head"]["out"]["kernel"].shape
    (64, 2)
    """
    return encoder_and_head(lambda rngs: SpanQA(config, rngs=rngs))


def by_window(logits: Array, x: Batch) -> Array:
    """Returns the logits of every window alone, −1e30 elsewhere.

    Args:
      logits: `[B, T, 2]`.
      x: `segment_ids` int `[B, T]`; `label_positions` int `[B, K]`, the first token of every window, −1
        for none.

    Returns:
      `[B, 2, K, T]`.

    >>> x = {"segment_ids": jnp.array([[7, 7, 3]]), "label_positions": jnp.array([[0, -1, 2]])}
    >>> (by_window(jnp.ones((1, 3, 2)), x)[0, 0] > 0).astype(int).tolist()
    [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    """
    window = jnp.take_along_axis(
        x["segment_ids"], jnp.maximum(x["label_positions"], 0), axis=1
    )  # [B, K]
    mine = (x["segment_ids"][:, None] == window[..., None]) & (
        x["label_positions"] >= 0
    )[..., None]
    each = logits.transpose(0, 2, 1)[:, :, None]  # [B, 2, 1, T]
    return jnp.where(mine[:, None], each, NEVER)


def objective() -> Objective:
    """Returns what an answerer is trained on: cross-entropy over a window's tokens.

    The `loss` of a window is the mean of those of start and end; `accuracy` is 1 where
    both are right. A batch's `y` is int `[B, K, 2]`, −100 where there is no window.

    Source: Devlin et al. 2019, section 4.2.

    >>> x = {"segment_ids": jnp.zeros((1, 4), int), "label_positions": jnp.array([[0, -1]])}
    >>> batch = {"x": x, "y": jnp.array([[[1, 2], [-100, -100]]])}
    >>> scores = objective().score(jnp.zeros((1, 4, 2)), batch)
    >>> [round(float(loss), 4) for loss in scores.values["loss"][0]]
    [1.3863, 0.0]
    """

    def score(logits: Array, batch: Batch) -> Scores:
        each = by_window(logits, batch["x"])  # [B, 2, K, T]
        labels = batch["y"].transpose(0, 2, 1)  # [B, 2, K]
        loss, weight = cross_entropy(each, labels)
        right = accuracy(each, labels).prod(axis=1)
        return Scores({"loss": loss.mean(axis=1), "accuracy": right}, weight[:, 0])

    return Objective(score, "accuracy", higher_is_better=True)


def best_spans(logits: Array, x: Batch, longest: int) -> tuple[Array, Array, Array]:
    """Returns the best span of every window, its score, and that of no answer.

    A score is the sum of the two logits, which compares between windows of a question.

    Args:
      logits: of start and end, `[B, T, 2]`.
      x: what they are of.
      longest: the most tokens of a span.

    Returns:
      Start and end, int `[B, K, 2]`, counted from the window's first token, 0 and 0 if
      there is nothing to answer with; their score, `[B, K]`; and `[B, K]`.

    Source: Devlin et al. 2019, section 4.3.
    """
    each, places = by_window(logits, x), jnp.arange(logits.shape[1])
    first = places[None, None] == x["label_positions"][..., None]  # [B, K, T]
    nothing = jnp.where(first[:, None], each, 0.0).sum(axis=(1, 3))  # [B, K]
    starts, ends = jnp.where(first[:, None], NEVER, each).swapaxes(0, 1)
    ahead = [(0, 0), (0, 0), (0, longest)]
    padded = jnp.pad(ends, ahead, constant_values=NEVER)

    def turn(further: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
        """Ends every span so much further, where that is better."""
        end = jax.lax.dynamic_slice_in_dim(padded, further, len(places), axis=2)
        score, better = starts + end, starts + end > best[0]
        return jnp.where(better, score, best[0]), jnp.where(better, further, best[1])

    nearest = starts + ends, jnp.zeros(starts.shape, int)
    scores, further = jax.lax.fori_loop(1, longest, turn, nearest)  # [B, K, T]
    start = scores.argmax(axis=2)[..., None]
    score = jnp.take_along_axis(scores, start, axis=2)
    end = start + jnp.take_along_axis(further, start, axis=2)
    spans = jnp.concatenate([start, end], axis=2) - x["label_positions"][..., None]
    return jnp.where(score > NEVER / 2, spans, 0), score[..., 0], nothing


def make_span_finder(
    model: Model, arrays: Arrays, batch: int = 16, longest: int = 30
) -> Predictor:
    """Returns what finds the best span of every window of rows, compiled once.

    Args:
      model: from `span_qa_model`.
      arrays: rows, as `data.questions.pack_windows` makes them.
      batch: rows at a time.
      longest: the most tokens of a span.

    Returns:
      `found(params)` gives what `best_spans` does, of all rows.

    Raises:
      InputError: a span of no tokens.
    """
    if longest < 1:
        raise InputError(f"longest={longest}: an answer has at least 1 token")
    read = functools.partial(best_spans, longest=longest)
    return Predictor(model, arrays, batch, read)
