"""Augmentation by a masked language model, which replaces words of labelled texts.

    checkpoint = pretrained.load("minilm-with-head")
    tokenizer = read_tokenizer(checkpoint.directory)
    examples = mlm_substitute(train, "classify", checkpoint, tokenizer)

Augmentations that need no model are in `ffnlab.data.augment`.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab.data.augment import check_amounts, movable
from ffnlab.data.examples import TASKS, Examples
from ffnlab.data.packed_rows import Rows, next_width, pack
from ffnlab.data.padding import next_power, pad_to
from ffnlab.data.tokenizer import Encoded, Tokenizer
from ffnlab.errors import InputError, choose
from ffnlab.models.transformer import TransformerConfig, transformer_model
from ffnlab.pretrained.checkpoint import Checkpoint
from ffnlab.types import Array, Batch, Key, Params

_TOP_K = 10  # the likeliest tokens, from which a word is drawn
_ROWS = 16  # rows per batch


class MaskedWords(NamedTuple):
    """A text of which some words are masked.

    Attributes:
      words: The numbers of the masked words.
      tokens: int32 `[T]`, with one mask token in place of each masked word.
      label_positions: int32 `[K]`, the positions of the mask tokens.
      old: int32 `[K]`, the token of each masked word; −1 for one of several tokens.
    """

    words: np.ndarray
    tokens: np.ndarray
    label_positions: np.ndarray
    old: np.ndarray


def mlm_substitute(
    examples: Examples,
    task: str,
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    copies: int = 1,
    rate: float = 0.15,
    seed: int = 0,
) -> Examples:
    """Returns examples followed by copies in which a model has replaced some words.

    In each copy round(rate · n) of n words, at least one, are masked, all at once, with
    one mask token each. The model's masked-language-model head gives each position a
    draw from its 10 likeliest words, by their probabilities: a token that is a word by
    itself, and neither a special token, the continuation of a word, nor the word that
    was masked.

    Words are separated by spaces, and the two texts of a pair are treated apart. In
    sentences with tags only words tagged O are replaced. A text longer than the model's
    length is treated up to there. A copy keeps the label, tags and lines of its
    example; a text without a word to mask has no copies. The words of an uncased model
    are in lower case.

    Args:
      examples: The training examples, with tags of spans if they are sentences.
      task: One of `ffnlab.data.examples.TASKS`.
      checkpoint: A checkpoint with such a head, `pretrained.load(directory)`.
      tokenizer: The tokenizer of that checkpoint.
      copies: Copies of each example; at least 1.
      rate: The share of words that are masked, in (0, 1).
      seed: Any integer; it counts modulo 2**64.

    Raises:
      InputError: The checkpoint has no such head, its tokenizer no mask token or no
        words, tags are not of spans, or a number is out of its range.

    Source: Kobayashi 2018, "Contextual Augmentation: Data Augmentation by Words with
    Paradigmatic Relations"; Wu et al. 2019, "Conditional BERT Contextual Augmentation"
    (here without the condition on the label).
    """
    choose("task", task, TASKS)
    check_amounts(copies, rate)
    _check(examples, task, checkpoint, tokenizer)
    sentences, movable_words = _sentences(examples, task)
    encoded = tokenizer.words(sentences, checkpoint.config.length)
    rng = np.random.default_rng(seed % 2**64)
    masked = [
        _mask_words(rng, *text, rate, tokenizer)
        for _ in range(copies)
        for text in zip(encoded.tokens, encoded.first, movable_words, strict=True)
    ]
    words = iter(_predict_words(rng, checkpoint, tokenizer, masked))
    made: list[Examples] = []
    for start in range(0, len(masked), len(sentences)):
        rows = [list(sentence) for sentence in sentences]
        for row, text in zip(rows, masked[start : start + len(rows)], strict=True):
            for number in text.words:
                row[number] = next(words)
        made += _copies(examples, task, sentences, rows)
    return examples.joined(*made)


def _check(
    examples: Examples, task: str, checkpoint: Checkpoint, tokenizer: Tokenizer
) -> None:
    name, shape = "augment: mlm_substitute", checkpoint.config
    drawn = any(path.startswith("head/") for path in checkpoint.summary.initialised)
    if shape.head == "none" or shape.causal or drawn:
        directory = checkpoint.directory
        raise InputError(f"{name}: {directory} has no masked-language-model head")
    if tokenizer.mask is None:
        raise InputError(f"{name}: {tokenizer.source} has no mask token")
    if task == "tag" and not examples.scheme:
        raise InputError(
            f"{name} needs tags of spans, such as B-PER and O, because another word "
            "may have another tag; leave it out"
        )


def _sentences(
    examples: Examples, task: str
) -> tuple[list[list[str]], list[Sequence[int]]]:
    """Returns the words of all texts, and the numbers of those that may be masked."""
    if task == "tag":
        rows = [movable(tags, examples.scheme) for tags in examples.labels]
        return examples.texts, rows
    texts = [*examples.texts, *examples.pairs]
    sentences = [text.split() for text in texts]
    return sentences, [range(len(words)) for words in sentences]


def _mask_words(
    rng: np.random.Generator,
    tokens: np.ndarray,
    first: np.ndarray,
    movable_words: Sequence[int],
    rate: float,
    tokenizer: Tokenizer,
) -> MaskedWords:
    """Masks some of the movable words of a text, except those that were cut off."""
    kept_words = np.array([word for word in movable_words if first[word] >= 0], int)
    count = min(max(round(rate * len(kept_words)), 1), len(kept_words))
    words = np.sort(rng.choice(kept_words, count, replace=False))
    begins = first[words]
    last = len(tokens) - len(tokenizer.around[1])
    ends = np.append(first[first >= 0], last)[words + 1]
    masked, kept = tokens.copy(), np.ones(len(tokens), bool)
    masked[begins] = tokenizer.mask
    for begin, end in zip(begins, ends, strict=True):
        kept[begin + 1 : end] = False
    old = np.where(ends - begins > 1, -1, tokens[begins])
    return MaskedWords(words, masked[kept], np.cumsum(kept)[begins] - 1, old)


def _predict_words(
    rng: np.random.Generator,
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    texts: Sequence[MaskedWords],
) -> list[str]:
    """Returns a word for each masked word, in their order."""
    texts = [text for text in texts if len(text.words)]
    if not texts:
        return []
    words = _whole_words(tokenizer, checkpoint.config.vocabulary)
    is_word = np.array([word is not None for word in words])
    if is_word.sum() < 2:
        raise InputError(
            f"augment: mlm_substitute: {tokenizer.source} has no two tokens that are "
            "words"
        )
    rows = _pack(texts, checkpoint.config.length)
    old = np.concatenate([text.old for text in texts])
    names = ("tokens", "mask", "segment_ids", "label_positions")
    x = {name: rows.arrays[f"x/{name}"] for name in names}
    x["old"] = np.where(rows.example_index >= 0, old[rows.example_index], -1)
    key = jax.random.key(int(rng.integers(2**31)))
    drawn = _draw_tokens(checkpoint, x, is_word, key)
    return [words[token] for token in rows.flat(drawn)]


def _pack(texts: Sequence[MaskedWords], most: int) -> Rows:
    """Returns rows of texts, labelled at their mask tokens."""
    tokens = [text.tokens for text in texts]
    types = [np.zeros_like(row) for row in tokens]
    label_positions = [text.label_positions for text in texts]
    width = next_width(max(map(len, tokens)), most)
    return pack(Encoded(tokens, types, label_positions, 0), None, width)


def _whole_words(tokenizer: Tokenizer, vocabulary: int) -> list[str | None]:
    """Returns for each token the word that it is by itself, or None."""
    special = {tokenizer.unknown, *tokenizer.inner.get_added_tokens_decoder()}
    size = min(tokenizer.size, vocabulary)
    texts = [tokenizer.decode([token]).strip() for token in range(size)]
    before, after = tokenizer.around
    length = len(before) + 1 + len(after)
    words: list[str | None] = [None] * vocabulary
    encoded = tokenizer.words([[text] for text in texts], length).tokens
    for token, (text, row) in enumerate(zip(texts, encoded, strict=True)):
        same = row.tolist() == [*before, token, *after]
        if same and token not in special and text.split() == [text]:
            words[token] = text
    return words


def _draw_tokens(
    checkpoint: Checkpoint, x: Batch, is_word: np.ndarray, key: Key
) -> np.ndarray:
    """Returns a token for each label position, `[N, K]`, by batches of one shape."""
    size, places = x["label_positions"].shape
    widths = dict.fromkeys(("label_positions", "old"), next_power(places))
    full = {
        name: pad_to(array, (size + -size % _ROWS, widths.get(name, array.shape[1])))
        for name, array in x.items()
    }
    drawn = []
    for begin in range(0, size, _ROWS):
        batch = {name: array[begin : begin + _ROWS] for name, array in full.items()}
        own = jax.random.fold_in(key, begin)
        params, shape = checkpoint.params, checkpoint.config
        drawn.append(_draw_batch(params, batch, is_word, own, shape))
    return np.concatenate(drawn)[:size, :places]


@functools.partial(jax.jit, static_argnames="config")
def _draw_batch(
    params: Params, x: Batch, is_word: Array, key: Key, config: TransformerConfig
) -> Array:
    """Returns a token for each label position of a batch, int `[B, K]`."""
    logits, _ = transformer_model(config).apply(
        params,
        x["tokens"],
        x["mask"],
        segment_ids=x["segment_ids"],
        label_positions=jnp.maximum(x["label_positions"], 0),
    )  # [B, K, V]
    same = jax.nn.one_hot(x["old"], len(is_word), dtype=bool)  # [B, K, V]
    logits = jnp.where(is_word[None, None] & ~same, logits, -jnp.inf)
    best, tokens = jax.lax.top_k(logits, min(_TOP_K, len(is_word)))
    pick = jax.random.categorical(key, best)[..., None]  # [B, K, 1]
    return jnp.take_along_axis(tokens, pick, axis=-1)[..., 0]


def _copies(
    examples: Examples, task: str, before: list[list[str]], after: list[list[str]]
) -> Iterator[Examples]:
    """Yields a copy of each example whose words have changed."""
    count = len(examples.texts)
    for number in range(count):
        if before[number::count] == after[number::count]:
            continue
        one, rows = examples.subset([number]), after[number::count]
        if task == "tag":
            yield one._replace(texts=rows)
        else:
            text, *pair = map(" ".join, rows)
            yield one._replace(texts=[text], pairs=pair)
