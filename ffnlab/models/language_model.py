"""Language models to be trained: what comes next, or what was hidden.

    model = causal(DecoderConfig.tiny())                # or masked(EncoderConfig(...))
    found = fit(model, objective(tokens_per_byte), optimizer, dataset, plan)

The data are those of `data.corpus.language_data`; those of `conditional`, which learns
what is to follow a prompt, are of `data.prompts.pack_pairs`. Hidden tokens of the same
texts are asked for beside another loss by `add_mlm_loss`.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ffnlab.data.dataset import IGNORE
from ffnlab.errors import InputError
from ffnlab.models.masking import mask_tokens
from ffnlab.models.transformer import Head, TransformerConfig, transformer_model
from ffnlab.nn.pure import functional
from ffnlab.train.gradients import mean_loss
from ffnlab.train.objectives import score_classes
from ffnlab.types import Array, Batch, Key, Loss, Model, Objective, Params, Scores

_HIDING = 0x41DE  # sets the draw of what is hidden apart from those of dropout


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
    inner = _decoder(config)

    def apply(params: Params, x: Batch, key: Key | None = None) -> tuple[Array, dict]:
        # What pads a row follows its text, and no position sees what follows.
        return inner.apply(params, x["tokens"], key=key)[0], {}

    return Model(inner.init, apply)


def conditional(config: TransformerConfig) -> Model:
    """Returns a model that predicts tokens at some places, from those before them.

    Args:
      config: a causal Transformer with a head.

    Returns:
      Parameters are those of the Transformer, under `encoder`, so that rates by layer
      are set as for a labeller. `apply(params, x, key)`: x holds `tokens` and `segment_ids`,
      `[B, T]`, `label_positions` `[B, K]`, the places, −1 for none, and `offset`, if that of a
      labeller; key is that of dropout or None; the outputs are logits `[B, K, V]`.
      `finetuning.objective` scores them.

    Raises:
      InputError: the Transformer is not causal, or has no head.

    >>> from ffnlab import DecoderConfig
    >>> model, row = conditional(DecoderConfig.tiny()), jnp.array([[1, 2, 3]])
    >>> x = {"tokens": row, "segment_ids": row * 0, "label_positions": jnp.array([[1, -1]])}
    >>> model.apply(model.init(jax.random.key(0)), x)[0].shape
    (1, 2, 256)
    """
    inner = _decoder(config)

    def init(key: Key) -> Params:
        return {"encoder": inner.init(key)}

    def apply(params: Params, x: Batch, key: Key | None = None) -> tuple[Array, dict]:
        label_positions = jnp.maximum(x["label_positions"], 0)
        # What pads a row is a pack of its own, so that no text sees it.
        logits, _ = inner.apply(
            params["encoder"],
            x["tokens"],
            segment_ids=x["segment_ids"],
            offset=x.get("offset"),
            key=key,
            label_positions=label_positions,
        )
        return logits, {}

    return Model(init, apply)


def _decoder(config: TransformerConfig) -> Model:
    if not config.causal or config.head == "none":
        raise InputError("a causal language model needs a causal Transformer with head")
    return transformer_model(config)


def masked(
    config: TransformerConfig,
    mask: int,
    rate: float = 0.15,
    whole: bool = False,
    special: Sequence[int] = (),
) -> Model:
    """Returns a model that finds hidden tokens again.

    Args:
      config: a Transformer with a head that is not causal.
      mask: the token that stands for a hidden one.
      rate: the share of tokens to hide.
      whole: whether words are hidden as a whole.
      special: tokens that are never hidden, where x has no `words` to say so.

    Returns:
      `apply(params, x, key)`: x holds `tokens`, `mask` and `words`, `[B, T]`; it may
      hold `segment_ids`, `types` and `offset`, as that of a labeller, and no `words`. The
      outputs are logits `[B, K, V]` with the places they are of and which of those
      count, see `masking.mask_tokens`. Without a key there is no dropout, and what is hidden
      depends on the tokens alone.

    Raises:
      InputError: the Transformer is causal, or has no head; or whole words are to be
        hidden, and x has none.
    """
    if config.causal or config.head == "none":
        raise InputError("a masked language model needs an encoder with a head")
    inner = transformer_model(config)

    def apply(params: Params, x: Batch, key: Key | None = None) -> tuple[tuple, dict]:
        if key is None:
            hiding, key = jax.random.key(0), None
            hiding = jax.random.fold_in(hiding, x["tokens"].sum().astype(jnp.uint32))
        else:
            hiding, key = jax.random.split(key)
        found = mask_tokens(
            hiding,
            x["tokens"],
            x["words"] if "words" in x else _hideable(x, special, whole),
            rate=rate,
            mask=mask,
            vocabulary=config.vocabulary,
            whole=whole,
        )
        rest = {
            name: x[name] for name in ("segment_ids", "types", "offset") if name in x
        }
        logits, _ = inner.apply(
            params, found.tokens, x["mask"], key=key, label_positions=found.at, **rest
        )
        return (logits, found.at, found.live), {}

    return Model(inner.init, apply)


def _hideable(x: Batch, special: Sequence[int], whole: bool) -> Array:
    """Returns each token as a word of its own, −1 where none is to be hidden."""
    if whole:
        raise InputError("whole words can be hidden only where x says what the words")
    numbers = jnp.array([*special], x["tokens"].dtype)
    may = x["mask"].astype(bool) & ~jnp.isin(x["tokens"], numbers)
    return jnp.where(may, jnp.arange(may.shape[1])[None], -1)


def with_mlm_head(
    encoder: TransformerConfig,
    mask: int,
    rate: float = 0.15,
    special: Sequence[int] = (),
) -> Model:
    """Returns a masked language model of the encoder of a labeller.

    Args:
      encoder: without a head, as a labeller has it.
      mask: the token that stands for a hidden one.
      rate: the share of tokens to hide.
      special: tokens that are never hidden, such as those around a text.

    Returns:
      As `masked`; parameters are `encoder`, and `masked`, the arrays of the head.

    >>> from ffnlab import EncoderConfig
    >>> sorted(with_mlm_head(EncoderConfig.tiny(), mask=3).init(jax.random.key(0))["masked"])
    ['bias', 'dense', 'norm']
    """
    inner = masked(_headed(encoder), mask, rate, special=special)

    def init(key: Key) -> Params:
        params = inner.init(key)
        head = params.pop("head")
        return {"encoder": params, "masked": head}

    def apply(params: Params, x: Batch, key: Key | None = None) -> tuple[tuple, dict]:
        return inner.apply({**params["encoder"], "head": params["masked"]}, x, key)

    return Model(init, apply)


def masked_head(encoder: TransformerConfig, key: Key) -> Params:
    """Returns new arrays for the head of `with_mlm_head`, where a checkpoint has none."""
    return functional(lambda rngs: Head(_headed(encoder), rngs=rngs)).init(key)


def _headed(encoder: TransformerConfig) -> TransformerConfig:
    return dataclasses.replace(encoder, head="tied")


def add_mlm_loss(loss: Loss, model: Model, weight: float) -> Loss:
    """Returns a loss with that of hidden tokens of the same texts added.

    Args:
      loss: `loss(params, batch, key)`; it has the key and so the dropout that it would
        have alone.
      model: from `with_mlm_head`; in bfloat16 or with frozen parts if it is so wrapped.
      weight: of the loss of the hidden tokens; 0 is the loss alone.

    Source: Devlin et al. 2019, section 3.1, for what is hidden.

    >>> from ffnlab import EncoderConfig
    >>> def loss(params, batch, key):
    ...     return 0.0
    >>> model = with_mlm_head(EncoderConfig.tiny(), mask=3)
    >>> x = {"tokens": jnp.arange(20).reshape(1, 20), "mask": jnp.ones((1, 20), bool)}
    >>> both, key = add_mlm_loss(loss, model, weight=0.5), jax.random.key(0)
    >>> round(float(both(model.init(key), {"x": x}, key)))  # half of log 256
    3
    """
    if not weight:
        return loss
    hidden = mean_loss(model, objective(1.0))

    def both(params: Params, batch: Batch, key: Key) -> Array:
        asked = {"x": batch["x"], "y": batch["x"]["tokens"]}
        more = hidden(params, asked, jax.random.fold_in(key, _HIDING))
        return loss(params, batch, key) + weight * more

    return both


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
            logits, label_positions, live = outputs
            labels = jnp.take_along_axis(labels, label_positions, axis=1)  # [B, K]
            labels = jnp.where(live, labels, IGNORE)
        scores = score_classes(logits, {"y": labels})
        bits = scores.values["loss"] * (tokens_per_byte / math.log(2.0))
        return Scores({**scores.values, "bits": bits}, scores.weight)

    return Objective(score, "bits", higher_is_better=False)
