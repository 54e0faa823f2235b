"""Language models to be trained: what comes next, or what was hidden.

    model = causal(DecoderConfig.tiny())                # or masked(EncoderConfig(...))
    found = fit(model, objective(tokens_per_byte), optimizer, dataset, plan)

The data are those of `data.corpus.language_data`.
"""

import math

import jax
import jax.numpy as jnp

from ffnlab.data.dataset import IGNORE
from ffnlab.errors import InputError
from ffnlab.losses import score_classes
from ffnlab.masking import hide
from ffnlab.transformer import TransformerConfig, transformer
from ffnlab.types import Array, Batch, Key, Model, Objective, Params, Scores


def causal(config: TransformerConfig) -> Model:
    """Returns a model that predicts each token from those before it.

    Args:
      config: a causal Transformer with a head.

    Returns:
      `apply(params, x, key)`: x holds `tokens` and `mask`, `[B, T]`, key is that of
      dropout or None; the outputs are logits `[B, T, V]`.

    Raises:
      InputError: the Transformer is not causal, or has no head.
    """
    if not config.causal or config.head == "none":
        raise InputError("a causal language model needs a causal Transformer with head")
    inner = transformer(config)

    def apply(params: Params, x: Batch, key: Key | None = None) -> tuple[Array, dict]:
        # What pads a row follows its text, and no position sees what follows.
        return inner.apply(params, x["tokens"], key=key)[0], {}

    return Model(inner.init, apply)


def masked(
    config: TransformerConfig, mask: int, rate: float = 0.15, whole: bool = False
) -> Model:
    """Returns a model that finds hidden tokens again.

    Args:
      config: a Transformer with a head that is not causal.
      mask: the token that stands for a hidden one.
      rate: the share of tokens to hide.
      whole: whether words are hidden as a whole.

    Returns:
      `apply(params, x, key)`: x holds `tokens`, `mask` and `words`, `[B, T]`. The
      outputs are logits `[B, K, V]` with the places they are of and which of those
      count, see `masking.hide`. Without a key there is no dropout, and what is hidden
      depends on the tokens alone.

    Raises:
      InputError: the Transformer is causal, or has no head.
    """
    if config.causal or config.head == "none":
        raise InputError("a masked language model needs an encoder with a head")
    inner = transformer(config)

    def apply(params: Params, x: Batch, key: Key | None = None) -> tuple[tuple, dict]:
        if key is None:
            hiding, key = jax.random.key(0), None
            hiding = jax.random.fold_in(hiding, x["tokens"].sum().astype(jnp.uint32))
        else:
            hiding, key = jax.random.split(key)
        found = hide(
            hiding,
            x["tokens"],
            x["words"],
            rate=rate,
            mask=mask,
            vocabulary=config.vocabulary,
            whole=whole,
        )
        logits, _ = inner.apply(params, found.tokens, x["mask"], key=key, at=found.at)
        return (logits, found.at, found.live), {}

    return Model(inner.init, apply)


def objective(tokens_per_byte: float) -> Objective:
    """Returns how language models are scored, by token and by byte of the text.

    Scores are `loss` in nats, `accuracy`, and `bits`, whose mean is in bits per byte:
    it does not depend on how text is cut into tokens.

    Args:
      tokens_per_byte: from `about["tokens_per_byte"]` of the data, by part.

    >>> scores = objective(0.25).score(jnp.zeros((1, 2, 256)), {"y": jnp.ones((1, 2),
    ...                                                                      int)})
    >>> [round(float(bits), 4) for bits in scores.values["bits"][0]]
    [2.0, 2.0]
    """

    def score(outputs: Array | tuple[Array, Array, Array], batch: Batch) -> Scores:
        logits, labels = outputs, batch["y"]
        if isinstance(outputs, tuple):
            logits, at, live = outputs
            labels = jnp.take_along_axis(labels, at, axis=1)  # [B, K]
            labels = jnp.where(live, labels, IGNORE)
        scores = score_classes(logits, {"y": labels})
        bits = scores.values["loss"] * (tokens_per_byte / math.log(2.0))
        return Scores({**scores.values, "bits": bits}, scores.weight)

    return Objective(score, "bits", higher_is_better=False)
