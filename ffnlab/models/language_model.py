"""Causal and masked language models for training.

    model = causal_lm(DecoderConfig.tiny())           # or masked_lm(EncoderConfig(...))
    learner = Learner(model, objective(tokens_per_byte), optimizer)

`data.corpus.language_data` makes their data sets; `data.seq2seq.pack_pairs` makes the
rows of `seq2seq_lm`, which learns the target after a prompt. `add_mlm_loss` adds a
masked language modelling loss to another loss of the same texts.
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
from ffnlab.train.objectives import mean_loss, score_classes
from ffnlab.types import Array, Batch, Key, Loss, Model, Objective, Params, Scores

_MLM = 0x41DE  # folded into a key, so that masking and dropout draw independently


def causal_lm(config: TransformerConfig) -> Model:
    """Returns a model that predicts each token from the tokens before it.

    Args:
      config: Configuration of a causal Transformer with a head.

    Returns:
      `apply(params, x, key)`, where x holds `tokens` and `mask` `[B, T]`, and key is a
      dropout key or None. The outputs are logits `[B, T, V]`.

    Raises:
      InputError: The Transformer is not causal, or has no head.
    """
    decoder = _decoder(config)

    def apply(params: Params, x: Batch, key: Key | None = None) -> tuple[Array, dict]:
        # Padding follows the text, so the causal mask already excludes it.
        return decoder.apply(params, x["tokens"], key=key)[0], {}

    return Model(decoder.init, apply)


def seq2seq_lm(config: TransformerConfig) -> Model:
    """Returns a model that predicts the tokens of targets that follow prompts.

    Args:
      config: Configuration of a causal Transformer with a head.

    Returns:
      `apply(params, x, key)`, where x holds `tokens` and `segment_ids` `[B, T]`,
      `label_positions` `[B, K]`, the positions to return logits of, −1 for none, and
      optionally `offset` `[B, T, D]`, added to the token embeddings; key is a dropout
      key or None. The outputs are logits `[B, K, V]`. The parameters are those of the
      Transformer under `encoder`, as in a classifier, so that the rules for layer-wise
      learning rates apply.

    Raises:
      InputError: The Transformer is not causal, or has no head.

    >>> from ffnlab import DecoderConfig
    >>> model, tokens = seq2seq_lm(DecoderConfig.tiny()), jnp.array([[1, 2, 3]])
    >>> x = {"tokens": tokens, "segment_ids": tokens * 0}
    >>> x["label_positions"] = jnp.array([[1, -1]])
    >>> model.apply(model.init(jax.random.key(0)), x)[0].shape
    (1, 2, 256)
    """
    decoder = _decoder(config)

    def init(key: Key) -> Params:
        return {"encoder": decoder.init(key)}

    def apply(params: Params, x: Batch, key: Key | None = None) -> tuple[Array, dict]:
        # Padding is a segment of its own, so no mask is needed.
        logits, _ = decoder.apply(
            params["encoder"],
            x["tokens"],
            segment_ids=x["segment_ids"],
            offset=x.get("offset"),
            key=key,
            label_positions=jnp.maximum(x["label_positions"], 0),
        )
        return logits, {}

    return Model(init, apply)


def _decoder(config: TransformerConfig) -> Model:
    if not config.causal or config.head == "none":
        raise InputError("a causal language model needs a causal Transformer with head")
    return transformer_model(config)


def masked_lm(
    config: TransformerConfig,
    mask_token: int,
    rate: float = 0.15,
    whole_words: bool = False,
    special_tokens: Sequence[int] = (),
) -> Model:
    """Returns a model that predicts masked tokens.

    Args:
      config: Configuration of a bidirectional Transformer with a head.
      mask_token: Id of the mask token.
      rate: Share of the tokens to mask.
      whole_words: Whether to mask all tokens of a word together.
      special_tokens: Ids of tokens that are never masked, if x has no `words`.

    Returns:
      `apply(params, x, key)`, where x holds `tokens`, `mask` and `words` `[B, T]`, and
      optionally `segment_ids`, `types` and `offset` as for a classifier. Without
      `words`, every token is a word. The outputs are logits `[B, K, V]`, their
      `label_positions` and `label_mask`; see `masking.MaskedTokens`. With key None
      there is no dropout, and the tokens alone determine which of them are masked.

    Raises:
      InputError: The Transformer is causal, or has no head; or `whole_words` is set and
        x has no `words`.
    """
    if config.causal or config.head == "none":
        raise InputError("a masked language model needs an encoder with a head")
    encoder = transformer_model(config)

    def apply(params: Params, x: Batch, key: Key | None = None) -> tuple[tuple, dict]:
        if key is None:
            seed = x["tokens"].sum().astype(jnp.uint32)
            mask_key, dropout_key = jax.random.fold_in(jax.random.key(0), seed), None
        else:
            mask_key, dropout_key = jax.random.split(key)
        masked = mask_tokens(
            mask_key,
            x["tokens"],
            x["words"] if "words" in x else _words(x, special_tokens, whole_words),
            rate=rate,
            mask_token=mask_token,
            vocabulary=config.vocabulary,
            whole_words=whole_words,
        )
        optional = ("segment_ids", "types", "offset")
        logits, _ = encoder.apply(
            params,
            masked.tokens,
            x["mask"],
            key=dropout_key,
            label_positions=masked.label_positions,
            **{name: x[name] for name in optional if name in x},
        )
        return (logits, masked.label_positions, masked.label_mask), {}

    return Model(encoder.init, apply)


def _words(x: Batch, special_tokens: Sequence[int], whole_words: bool) -> Array:
    """Returns the word index of each token, −1 for padding and special tokens.

    Without `words` in x, every token is a word.
    """
    if whole_words:
        raise InputError("whole_words: x needs `words`, the word index of each token")
    special = jnp.array([*special_tokens], x["tokens"].dtype)
    allowed = x["mask"].astype(bool) & ~jnp.isin(x["tokens"], special)
    return jnp.where(allowed, jnp.arange(allowed.shape[1])[None], -1)


def with_mlm_head(
    encoder: TransformerConfig,
    mask_token: int,
    rate: float = 0.15,
    special_tokens: Sequence[int] = (),
) -> Model:
    """Returns a masked language model around the encoder of a classifier.

    Args:
      encoder: Configuration of an encoder without a head.
      mask_token: Id of the mask token.
      rate: Share of the tokens to mask.
      special_tokens: Ids of tokens that are never masked.

    Returns:
      The model of `masked_lm`, with the parameters `encoder` and `masked`; the latter
      are those of the head.

    >>> from ffnlab import EncoderConfig
    >>> model = with_mlm_head(EncoderConfig.tiny(), mask_token=3)
    >>> sorted(model.init(jax.random.key(0))["masked"])
    ['bias', 'dense', 'norm']
    """
    model = masked_lm(
        _with_head(encoder), mask_token, rate, special_tokens=special_tokens
    )

    def init(key: Key) -> Params:
        params = model.init(key)
        head = params.pop("head")
        return {"encoder": params, "masked": head}

    def apply(params: Params, x: Batch, key: Key | None = None) -> tuple[tuple, dict]:
        return model.apply({**params["encoder"], "head": params["masked"]}, x, key)

    return Model(init, apply)


def init_mlm_head(encoder: TransformerConfig, key: Key) -> Params:
    """Returns newly initialised parameters for the head of `with_mlm_head`."""
    return functional(lambda rngs: Head(_with_head(encoder), rngs=rngs)).init(key)


def _with_head(encoder: TransformerConfig) -> TransformerConfig:
    return dataclasses.replace(encoder, head="tied")


def add_mlm_loss(loss: Loss, model: Model, weight: float) -> Loss:
    """Returns the sum of a loss and a masked language modelling loss of the same texts.

    Args:
      loss: `loss(params, batch, key)`; it receives the key unchanged.
      model: A model of `with_mlm_head`, possibly wrapped by `mixed_precision`.
      weight: Factor of the added loss; 0 returns `loss`.

    Source: Devlin et al. 2019, section 3.1, for the masking.

    >>> from ffnlab import EncoderConfig
    >>> def loss(params, batch, key):
    ...     return 0.0
    >>> model = with_mlm_head(EncoderConfig.tiny(), mask_token=3)
    >>> x = {"tokens": jnp.arange(20).reshape(1, 20), "mask": jnp.ones((1, 20), bool)}
    >>> total, key = add_mlm_loss(loss, model, weight=0.5), jax.random.key(0)
    >>> round(float(total(model.init(key), {"x": x}, key)))  # half of log 256
    3
    """
    if not weight:
        return loss
    mlm_loss = mean_loss(model, objective(1.0))

    def total_loss(params: Params, batch: Batch, key: Key) -> Array:
        mlm_batch = {"x": batch["x"], "y": batch["x"]["tokens"]}
        added = mlm_loss(params, mlm_batch, jax.random.fold_in(key, _MLM))
        return loss(params, batch, key) + weight * added

    return total_loss


def objective(tokens_per_byte: float) -> Objective:
    """Returns the objective of language models.

    The scores are `loss` in nats per token, `accuracy`, and `bits`, whose mean is in
    bits per byte. Bits per byte compare models with different tokenizers.

    Args:
      tokens_per_byte: Tokens per byte of the text, from `about["tokens_per_byte"]` of
        the part of the data set.

    >>> batch = {"y": jnp.ones((1, 2), int)}
    >>> scores = objective(0.25).score(jnp.zeros((1, 2, 256)), batch)
    >>> [round(float(bits), 4) for bits in scores.values["bits"][0]]
    [2.0, 2.0]
    """

    def score(outputs: Array | tuple[Array, Array, Array], batch: Batch) -> Scores:
        logits, labels = outputs, batch["y"]
        if isinstance(outputs, tuple):
            logits, label_positions, label_mask = outputs
            labels = jnp.take_along_axis(labels, label_positions, axis=1)  # [B, K]
            labels = jnp.where(label_mask, labels, IGNORE)
        scores = score_classes(logits, {"y": labels})
        bits = scores.values["loss"] * (tokens_per_byte / math.log(2.0))
        return Scores({**scores.values, "bits": bits}, scores.weight)

    return Objective(score, "bits", higher_is_better=False)
