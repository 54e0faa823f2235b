"""Text from a causal model: greedy, sampled, or by beam search, in one compiled loop.

    tokens = generate(config, params, prompt, steps=40, key=key, top_p=0.9)
    tokens, scores = beam(config, params, prompt, steps=40, width=4)

The prompt is read at once, then a token at a time with a cache of keys and values,
until all texts have ended. Prompts of different lengths are padded on the left, so that
all go on at one place; `data.prompts.left_padded` makes such rows and their `mask`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab.errors import InputError
from ffnlab.models.transformer import TransformerConfig, empty_cache, transformer_model
from ffnlab.types import Array, Key, Params


def filter_logits(
    logits: Array,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Array:
    """Returns logits of which the unlikely are −∞, to be sampled from.

    Args:
      logits: `[..., V]`.
      temperature: above 0; below 1 the likely become likelier.
      top_k: how many tokens stay, the likeliest; of equal ones at the border, all.
      top_p: the least share of the probability that stays, in (0, 1]: the fewest
        tokens, from the likeliest on, that hold it.

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
        order = -jnp.sort(-logits, axis=-1)
        before = jnp.cumsum(jax.nn.softmax(order), axis=-1) - jax.nn.softmax(order)
        least = jnp.where(before < top_p, order, jnp.inf).min(axis=-1, keepdims=True)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return logits


def _asked(prompt: Any, mask: Any) -> tuple[Array, np.ndarray]:
    """Returns prompts, and where their tokens are, `[B, T]`; checks both."""
    prompt = jnp.asarray(prompt, jnp.int32)
    if prompt.ndim != 2 or 0 in prompt.shape:
        raise InputError(f"a prompt {[*prompt.shape]} must be [B, T] with T above 0")
    if mask is None:
        return prompt, np.ones(prompt.shape, bool)
    mask = np.asarray(mask, bool)
    if mask.shape != prompt.shape:
        raise InputError(
            f"mask {[*mask.shape]} must be as the prompt {[*prompt.shape]}"
        )
    wrong = ~mask[:, -1] | (mask[:, :-1] & ~mask[:, 1:]).any(axis=1)
    if wrong.any():
        raise InputError(
            f"mask: row {int(wrong.argmax())} must be padding, if any, then tokens, "
            "at least one; pad on the left"
        )
    return prompt, mask


def _check(
    config: TransformerConfig, mask: np.ndarray, steps: int, **more: Any
) -> None:
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
        value = more.get(name)
        if value is not None and not value >= least:
            raise InputError(f"{name}={value} must be at least {least}")
    top_p = more.get("top_p")
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
    """Returns prompts with what the model goes on with.

    Args:
      config: a causal model with a head.
      params: its parameters.
      prompt: int `[B, T]`.
      steps: how many tokens to add.
      mask: bool `[B, T]`, False where padding is, on the left; None is all True.
      key: what to draw with; None takes the likeliest token each time.
      temperature: see `filter_logits`; 0 takes the likeliest token too.
      top_k: see `filter_logits`.
      top_p: see `filter_logits`.
      stop: the token that ends a text; it fills the rest of the row.

    Returns:
      int32 `[B, T + steps]`.

    Raises:
      InputError: no such model, no room for so many positions, padding elsewhere, or an
        option is out of its range.

    >>> from ffnlab import DecoderConfig
    >>> config = DecoderConfig.tiny()
    >>> params = transformer_model(config).init(jax.random.key(0))
    >>> generate(config, params, jnp.array([[1, 2, 3]]), steps=4).shape
    (1, 7)
    """
    prompt, mask = _asked(prompt, mask)
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    _check(config, mask, steps, **options)
    if key is None or temperature == 0.0:
        key, options = jax.random.key(0), {"temperature": 0.0}
    return _generated(params, prompt, mask, key, config, steps, stop, **options)


@functools.partial(
    jax.jit,
    static_argnames=("config", "steps", "stop", "temperature", "top_k", "top_p"),
)
def _generated(
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

    def drawn(logits: Array, key: Key) -> Array:
        if temperature == 0.0:
            return jnp.argmax(logits, axis=-1)
        return jax.random.categorical(
            key, filter_logits(logits, temperature, top_k, top_p)
        )

    def unfinished(state: tuple) -> Array:
        step, *_, done = state
        return (step < steps) & ~done.all()

    def turn(state: tuple) -> tuple:
        step, logits, cache, tokens, done = state
        token = drawn(logits, keys[step]).astype(jnp.int32)
        if stop is not None:
            token = jnp.where(done, stop, token)
            done = done | (token == stop)
        new, aux = model.apply(
            params, token[:, None], positions=(place + step)[:, None], cache=cache
        )
        tokens = tokens.at[:, step].set(token)
        return step + 1, new[:, -1], aux["cache"], tokens, done

    logits, cache, place = _read(config, params, prompt, mask, steps)
    keys = jax.random.split(key, steps)
    tokens = jnp.full((len(prompt), steps), stop or 0, jnp.int32)
    begin = 0, logits, cache, tokens, jnp.zeros(len(prompt), bool)
    *_, tokens, _ = jax.lax.while_loop(unfinished, turn, begin)
    return jnp.concatenate([prompt, tokens], axis=1)


def _read(
    config: TransformerConfig, params: Params, prompt: Array, mask: Array, steps: int
) -> tuple[Array, dict, Array]:
    """Returns what follows prompts, `[B, V]`, the cache, and the next position, `[B]`.

    Positions count from the first token of each prompt.
    """
    positions = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)  # [B, T]
    cache = empty_cache(config, prompt.shape[0], prompt.shape[1] + steps)
    logits, aux = transformer_model(config).apply(
        params, prompt, mask, positions=positions, cache=cache
    )
    return logits[:, -1], aux["cache"], positions[:, -1] + 1


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
    """Returns the likeliest continuations that a beam search finds.

    Args:
      config: a causal model with a head.
      params: its parameters.
      prompt: int `[B, T]`.
      steps: the most tokens to add.
      mask: see `generate`.
      width: W, how many texts are followed at once.
      stop: the token that ends a text; it fills the rest of the row.
      length_penalty: scores are divided by length to this power; 0 favours short
        texts, 1 compares by the mean.

    Returns:
      int32 `[B, W, T + steps]`, the best first, and their scores `[B, W]`: the sum of
      the logarithms of the probabilities of what was added, divided as above. Where
      there are fewer than W texts, the rest score −∞.

    Raises:
      InputError: as `generate`.
    """
    prompt, mask = _asked(prompt, mask)
    _check(config, mask, steps, width=width)
    return _beam(params, prompt, mask, config, steps, width, stop, length_penalty)


@functools.partial(
    jax.jit, static_argnames=("config", "steps", "width", "stop", "length_penalty")
)
def _beam(
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
    repeated = (jnp.repeat(each, width, axis=0) for each in (prompt, mask))
    logits, cache, place = _read(config, params, *repeated, steps)  # of B · W
    # At first all texts of a prompt are the same one, so that one alone may go on.
    scores = jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf)
    scores = jnp.broadcast_to(scores[None], (batch, width))
    tokens = jnp.full((batch, width, steps), stop or 0, jnp.int32)
    none, lengths = jnp.zeros((batch, width), bool), jnp.zeros((batch, width), int)
    texts = _Texts(scores, tokens, none, lengths)

    def unfinished(state: tuple) -> Array:
        step, *_, texts = state
        return (step < steps) & ~texts.done.all()

    def turn(state: tuple) -> tuple:
        step, logits, cache, texts = state
        texts, token, rows = _grown(texts, logits, step, stop)
        # The rows of a prompt are all as long, so that their places stay as they are.
        positions, cache = (place + step)[:, None], _chosen(cache, rows)
        logits, aux = model.apply(params, token, positions=positions, cache=cache)
        return step + 1, logits[:, -1], aux["cache"], texts

    begin = 0, logits, cache, texts
    *_, texts = jax.lax.while_loop(unfinished, turn, begin)
    scores = texts.scores / texts.lengths.astype(scores.dtype) ** length_penalty
    order = jnp.argsort(-scores, axis=1)
    tokens = jnp.take_along_axis(texts.tokens, order[..., None], axis=1)
    asked = jnp.broadcast_to(prompt[:, None], (batch, width, prompt.shape[1]))
    scores = jnp.take_along_axis(scores, order, axis=1)
    return jnp.concatenate([asked, tokens], axis=2), scores


class _Texts(NamedTuple):
    """The W best texts of each prompt: `[B, W]` each, tokens `[B, W, steps]`."""

    scores: Array
    tokens: Array
    done: Array
    lengths: Array


def _grown(
    texts: _Texts, logits: Array, step: Array, stop: int | None
) -> tuple[_Texts, Array, Array]:
    """Returns the best texts with a token more, that token, and whose rows they were.

    Args:
      texts: so far.
      logits: what they go on with, `[B · W, V]`.
      step: where the new token stands.
      stop: the token that ends a text; an ended one goes on with it, for nothing.
    """
    batch, width = texts.scores.shape
    chances = jax.nn.log_softmax(logits).reshape(batch, width, -1)
    vocabulary = chances.shape[-1]
    if stop is not None:
        ended = jnp.where(jnp.arange(vocabulary) == stop, 0.0, -jnp.inf)
        chances = jnp.where(texts.done[..., None], ended[None, None], chances)
    every = (texts.scores[..., None] + chances).reshape(batch, -1)  # [B, W · V]
    scores, best = jax.lax.top_k(every, width)
    parent, token = best // vocabulary, (best % vocabulary).astype(jnp.int32)
    rows = (jnp.arange(batch)[:, None] * width + parent).reshape(-1)  # [B · W]

    def inherited(values: Array) -> Array:
        flat = values.reshape(batch * width, *values.shape[2:])
        return flat[rows].reshape(values.shape)

    tokens = inherited(texts.tokens).at[:, :, step].set(token)
    done, lengths = inherited(texts.done), inherited(texts.lengths)
    lengths = lengths + ~done
    if stop is not None:
        done = done | (token == stop)
    return _Texts(scores, tokens, done, lengths), token.reshape(-1, 1), rows


def _chosen(cache: dict[str, Any], rows: Array) -> dict[str, Any]:
    """Returns a cache whose rows are those of others."""
    layers = cache["layers"]
    parts = {name: layers[name][:, rows] for name in ("key", "value")}
    return {"layers": {**layers, **parts}, "mask": cache["mask"][rows]}
