"""Text generation with a causal model: greedy, sampled, or by beam search.

    tokens = generate(config, params, prompt, steps=40, key=key, top_p=0.9)
    tokens, scores = beam_search(config, params, prompt, steps=40, width=4)

Both read the prompt at once, and then add one token at a time, with a cache of keys and
values, until all texts have ended. The loop is compiled. Prompts of different lengths
are padded on the left; `data.seq2seq.left_padded` makes such rows and their `mask`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab.errors import InputError
from ffnlab.models.key_value_cache import empty_cache
from ffnlab.models.transformer import TransformerConfig, transformer_model
from ffnlab.nn.indices import check_indices
from ffnlab.types import Array, Key, Params


def filter_logits(
    logits: Array,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Array:
    """Returns logits to sample from, −∞ for the tokens that are filtered out.

    Args:
      logits: `[..., V]`.
      temperature: Divisor of the logits, above 0; values below 1 favour likely tokens.
      top_k: Number of tokens to keep, the most likely; ties at the border are kept.
      top_p: Probability to keep, in (0, 1]: the smallest set of the most likely tokens
        whose total probability is at least `top_p`.

    Returns:
      `[..., V]`.

    Source: Fan et al. 2018 for top-k; Holtzman et al. 2020 for top-p.

    >>> filter_logits(jnp.array([0.0, 1.0, 2.0, 3.0]), top_k=2).tolist()
    [-inf, -inf, 2.0, 3.0]
    """
    logits = logits / temperature
    if top_k is not None:
        least = jax.lax.top_k(logits, min(top_k, logits.shape[-1]))[0][..., -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if top_p is not None:
        ordered = -jnp.sort(-logits, axis=-1)
        probabilities = jax.nn.softmax(ordered)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        least = jnp.where(before < top_p, ordered, jnp.inf).min(axis=-1, keepdims=True)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return logits


def _check_prompt(
    config: TransformerConfig, prompt: Any, mask: Any
) -> tuple[Array, np.ndarray]:
    """Returns the prompts and their mask as arrays `[B, T]`, after checking both."""
    prompt = jnp.asarray(prompt, jnp.int32)
    if prompt.ndim != 2 or 0 in prompt.shape:
        raise InputError(f"a prompt {[*prompt.shape]} must be [B, T] with T above 0")
    check_indices("prompt", prompt, config.vocabulary, "embeddings")
    if mask is None:
        return prompt, np.ones(prompt.shape, bool)
    mask = np.asarray(mask, bool)
    if mask.shape != prompt.shape:
        raise InputError(
            f"mask {[*mask.shape]} must have the shape of the prompt, {[*prompt.shape]}"
        )
    wrong = ~mask[:, -1] | (mask[:, :-1] & ~mask[:, 1:]).any(axis=1)
    if wrong.any():
        raise InputError(
            f"mask: row {int(wrong.argmax())} must be padding, if any, then tokens, "
            "at least one; pad on the left"
        )
    return prompt, mask


def _check_options(
    config: TransformerConfig, mask: np.ndarray, steps: int, **options: Any
) -> None:
    """Raises an InputError if the model or an option cannot be used."""
    if config.head == "none" or not config.causal:
        raise InputError("text needs a causal model with a head, such as GPT-2")
    if steps < 1:
        raise InputError(f"steps={steps} must be at least 1")
    room = config.length - int(mask.sum(axis=1).max())
    if config.positions == "learned" and steps > room:
        raise InputError(
            f"steps={steps}: the prompt leaves {max(room, 0)} of {config.length} "
            "positions; shorten it"
        )
    for name, least in (("temperature", 0.0), ("top_k", 1), ("width", 1)):
        value = options.get(name)
        if value is not None and not value >= least:
            raise InputError(f"{name}={value} must be at least {least}")
    top_p = options.get("top_p")
    if top_p is not None and not 0.0 < top_p <= 1.0:
        raise InputError(f"top_p={top_p} must be in (0, 1]")


def generate(
    config: TransformerConfig,
    params: Params,
    prompt: Array,
    steps: int,
    *,
    mask: Array | None = None,
    key: Key | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | None = None,
) -> Array:
    """Returns prompts and their continuations.

    Args:
      config: Configuration of a causal model with a head.
      params: Parameters of the model.
      prompt: Int `[B, T]`.
      steps: Number of tokens to add.
      mask: Bool `[B, T]`, False for padding, which is on the left; None means no
        padding.
      key: Random key for sampling; None takes the most likely token at each step.
      temperature: See `filter_logits`; 0 takes the most likely token at each step.
      top_k: See `filter_logits`.
      top_p: See `filter_logits`.
      stop: Id of the token that ends a text; it fills the rest of the row.

    Returns:
      int32 `[B, T + steps]`. A text ends with −1 at logits that are not finite.

    Raises:
      InputError: The model is not causal or has no head, has too few positions, the
        padding is not on the left, or an option is out of its range.

    >>> from ffnlab import DecoderConfig
    >>> config = DecoderConfig.tiny()
    >>> params = transformer_model(config).init(jax.random.key(0))
    >>> generate(config, params, jnp.array([[1, 2, 3]]), steps=4).shape
    (1, 7)
    """
    prompt, mask = _check_prompt(config, prompt, mask)
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    _check_options(config, mask, steps, **options)
    if key is None or temperature == 0.0:
        key, options = jax.random.key(0), {"temperature": 0.0}
    return _generate(params, prompt, mask, key, config, steps, stop, **options)


@functools.partial(
    jax.jit,
    static_argnames=("config", "steps", "stop", "temperature", "top_k", "top_p"),
)
def _generate(
    params: Params,
    prompt: Array,
    mask: Array,
    key: Key,
    config: TransformerConfig,
    steps: int,
    stop: int | None,
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Array:
    model = transformer_model(config)

    def unfinished(state: tuple) -> Array:
        step, *_, done = state
        return (step < steps) & ~done.all()

    def add_token(state: tuple) -> tuple:
        step, logits, cache, tokens, done = state
        token = _draw(logits, keys[step], temperature, top_k, top_p)
        token = jnp.where(jnp.isfinite(logits.max(axis=-1)), token, -1)
        if stop is not None:
            token = jnp.where(done, stop, token)
            done = done | (token == stop) | (token < 0)
        logits, aux = model.apply(
            params, token[:, None], positions=(start + step)[:, None], cache=cache
        )
        tokens = tokens.at[:, step].set(token)
        return step + 1, _last(logits), aux["cache"], tokens, done

    logits, cache, start = _read_prompt(config, params, prompt, mask, steps)
    keys = jax.random.split(key, steps)
    tokens = jnp.full((len(prompt), steps), stop or 0, jnp.int32)
    initial = 0, logits, cache, tokens, jnp.zeros(len(prompt), bool)
    *_, tokens, _ = jax.lax.while_loop(unfinished, add_token, initial)
    return jnp.concatenate([prompt, tokens], axis=1)


def _draw(
    logits: Array,
    key: Key,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
) -> Array:
    """Returns the next token of each row, int32 `[B]`."""
    if temperature == 0.0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    logits = filter_logits(logits, temperature, top_k, top_p)
    return jax.random.categorical(key, logits).astype(jnp.int32)


def _read_prompt(
    config: TransformerConfig, params: Params, prompt: Array, mask: Array, steps: int
) -> tuple[Array, dict, Array]:
    """Returns the next logits `[B, V]`, the cache, and the next positions `[B]`.

    Positions count from the first token of each prompt.
    """
    positions = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)  # [B, T]
    length = prompt.shape[1] + steps
    cache = empty_cache(config, prompt.shape[0], length, _dtype_of(params))
    logits, aux = transformer_model(config).apply(
        params, prompt, mask, positions=positions, cache=cache
    )
    return _last(logits), aux["cache"], positions[:, -1] + 1


def _dtype_of(params: Params) -> Any:
    """Returns the data type of the states of a model; its head may have another."""
    parts = [part for name, part in params.items() if name != "head"]
    return jnp.result_type(*jax.tree.leaves(parts))


def _last(logits: Array) -> Array:
    """Returns the logits `[B, V]` of the last position, at least in float32.

    Sums of log-probabilities and random numbers are rounded too much in bfloat16.
    """
    return logits[:, -1].astype(jnp.promote_types(logits.dtype, jnp.float32))


def beam_search(
    config: TransformerConfig,
    params: Params,
    prompt: Array,
    steps: int,
    *,
    mask: Array | None = None,
    width: int = 4,
    stop: int | None = None,
    length_penalty: float = 1.0,
) -> tuple[Array, Array]:
    """Returns the most likely continuations that a beam search finds.

    Args:
      config: Configuration of a causal model with a head.
      params: Parameters of the model.
      prompt: Int `[B, T]`.
      steps: Maximum number of tokens to add.
      mask: See `generate`.
      width: Number of beams W.
      stop: Id of the token that ends a text; it fills the rest of the row.
      length_penalty: Scores are divided by the length to this power. 0 favours short
        texts; 1 compares the mean log-probability per token.

    Returns:
      tokens: int32 `[B, W, T + steps]`, the best first.
      scores: `[B, W]`, the sum of the log-probabilities of the added tokens, divided by
        the length penalty; −∞ if there are fewer than W texts.

    Raises:
      InputError: See `generate`.
    """
    prompt, mask = _check_prompt(config, prompt, mask)
    _check_options(config, mask, steps, width=width)
    return _beam_search(
        params, prompt, mask, config, steps, width, stop, length_penalty
    )


class _Beams(NamedTuple):
    """The W best texts of each prompt so far.

    Attributes:
      scores: Sums of log-probabilities `[B, W]`.
      tokens: Added tokens int32 `[B, W, steps]`.
      done: Whether a text has ended, bool `[B, W]`.
      lengths: Number of added tokens, int `[B, W]`.
    """

    scores: Array
    tokens: Array
    done: Array
    lengths: Array


@functools.partial(
    jax.jit, static_argnames=("config", "steps", "width", "stop", "length_penalty")
)
def _beam_search(
    params: Params,
    prompt: Array,
    mask: Array,
    config: TransformerConfig,
    steps: int,
    width: int,
    stop: int | None,
    length_penalty: float,
) -> tuple[Array, Array]:
    model, batch = transformer_model(config), len(prompt)
    repeated = (jnp.repeat(array, width, axis=0) for array in (prompt, mask))
    logits, cache, start = _read_prompt(config, params, *repeated, steps)  # [B · W, V]

    def unfinished(state: tuple) -> Array:
        step, *_, beams = state
        return (step < steps) & ~beams.done.all()

    def add_token(state: tuple) -> tuple:
        step, logits, cache, beams = state
        beams, token, rows = _extend_beams(beams, logits, step, stop)
        # All beams of a prompt are at the same position, so positions need no reorder.
        positions, cache = (start + step)[:, None], _select_rows(cache, rows)
        logits, aux = model.apply(params, token, positions=positions, cache=cache)
        return step + 1, _last(logits), aux["cache"], beams

    initial = 0, logits, cache, _initial_beams(batch, width, steps, stop)
    *_, beams = jax.lax.while_loop(unfinished, add_token, initial)
    scores = beams.scores / beams.lengths.astype(beams.scores.dtype) ** length_penalty
    order = jnp.argsort(-scores, axis=1)
    tokens = jnp.take_along_axis(beams.tokens, order[..., None], axis=1)
    prompts = jnp.broadcast_to(prompt[:, None], (batch, width, prompt.shape[1]))
    scores = jnp.take_along_axis(scores, order, axis=1)
    return jnp.concatenate([prompts, tokens], axis=2), scores


def _initial_beams(batch: int, width: int, steps: int, stop: int | None) -> _Beams:
    """Returns empty texts; all but the first of each prompt score −∞.

    At first the beams of a prompt are equal, so that only one of them may be extended.
    """
    scores = jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf)
    return _Beams(
        jnp.broadcast_to(scores[None], (batch, width)),
        jnp.full((batch, width, steps), stop or 0, jnp.int32),
        jnp.zeros((batch, width), bool),
        jnp.zeros((batch, width), int),
    )


def _extend_beams(
    beams: _Beams, logits: Array, step: Array, stop: int | None
) -> tuple[_Beams, Array, Array]:
    """Returns the best texts with one more token, that token, and their previous rows.

    Args:
      beams: The texts so far.
      logits: Logits of the next token, `[B · W, V]`.
      step: Index of the new token.
      stop: Id of the token that ends a text. An ended text goes on with it at no cost.

    Returns:
      The beams; the new tokens int32 `[B · W, 1]`; and the row of each beam in
      `logits`, int `[B · W]`.
    """
    batch, width = beams.scores.shape
    gains = jax.nn.log_softmax(logits).reshape(batch, width, -1)
    vocabulary = gains.shape[-1]
    if stop is not None:
        ended = jnp.where(jnp.arange(vocabulary) == stop, 0.0, -jnp.inf)
        gains = jnp.where(beams.done[..., None], ended[None, None], gains)
    candidates = (beams.scores[..., None] + gains).reshape(batch, -1)  # [B, W · V]
    scores, best = jax.lax.top_k(candidates, width)
    parent, token = best // vocabulary, (best % vocabulary).astype(jnp.int32)
    rows = (jnp.arange(batch)[:, None] * width + parent).reshape(-1)  # [B · W]

    def inherit(values: Array) -> Array:
        flat = values.reshape(batch * width, *values.shape[2:])
        return flat[rows].reshape(values.shape)

    tokens = inherit(beams.tokens).at[:, :, step].set(token)
    done, lengths = inherit(beams.done), inherit(beams.lengths)
    lengths = lengths + ~done
    if stop is not None:
        done = done | (token == stop)
    return _Beams(scores, tokens, done, lengths), token.reshape(-1, 1), rows


def _select_rows(cache: dict[str, Any], rows: Array) -> dict[str, Any]:
    """Returns a cache with the given rows, int `[B · W]`, of another."""
    layers = cache["layers"]
    parts = {name: layers[name][:, rows] for name in ("key", "value")}
    return {"layers": {**layers, **parts}, "mask": cache["mask"][rows]}
