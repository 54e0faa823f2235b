"""More labelled texts: words hidden and filled in by a masked language model.

    found = pretrained.load("minilm-with-head")
    more = substituted(train, "classify", found, read_tokenizer(found.directory))

The other ways to alter texts, which need no model, are in `ffnlab.data.augment`.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab.data.augment import check_amounts, movable
from ffnlab.data.examples import TASKS, Examples
from ffnlab.data.packed_rows import next_width, pack
from ffnlab.data.padding import next_power, pad_to
from ffnlab.data.tokenizer import Encoded, Tokenizer
from ffnlab.errors import InputError, choose
from ffnlab.models.transformer import TransformerConfig, transformer_model
from ffnlab.pretrained.checkpoint import Checkpoint
from ffnlab.types import Array, Batch, Key, Params

_LIKELY = 10  # tokens that a word is drawn from
_ROWS = 16  # in a batch


class MaskedWords(NamedTuple):
    """A text of which some words are hidden.

    Attributes:
      words: the numbers of the hidden words.
      tokens: int32 `[T]`, one mask in the place of each.
      label_positions: int32 `[K]`, where those are.
      old: int32 `[K]`, the token of each; −1 for one of several tokens.
    """

    words: np.ndarray
    tokens: np.ndarray
    label_positions: np.ndarray
    old: np.ndarray


def mlm_substitute(
    examples: Examples,
    task: str,
    found: Checkpoint,
    tokenizer: Tokenizer,
    copies: int = 1,
    rate: float = 0.15,
    seed: int = 0,
) -> Examples:
    """Returns examples followed by copies in which a model has put other words.

    In each copy round(rate · n) of n words, at least one, are hidden, a mask for each,
    all at once. The model's masked-language-model head gives each place a draw from its
    10 likeliest words, by their probabilities: a token that is a word by itself, never
    a special one, the continuation of a word, or the word that was hidden.

    Words are what stands between blanks, the two texts of a pair each for itself; of
    sentences only words tagged O. A text longer than the model's length is treated up
    to there. Labels, tags and lines are those of the origin; a text without a word to
    hide has no copies. What an uncased model puts in is in lower case.

    Args:
      examples: what to learn from, with tags of spans if they are sentences.
      task: one of `labelled.TASKS`.
      found: a checkpoint with such a head, `pretrained.load(directory)`.
      tokenizer: of that checkpoint.
      copies: of each example; at least 1.
      rate: the share of words, in (0, 1).
      seed: any integer; it counts modulo 2**64.

    Raises:
      InputError: the checkpoint has no such head, its tokenizer no mask or no words,
        tags are not of spans, or a number is out of its range.

    Source: Kobayashi 2018, "Contextual Augmentation: Data Augmentation by Words with
    Paradigmatic Relations"; Wu et al. 2019, "Conditional BERT Contextual Augmentation"
    (here without the condition on the label).
    """
    choose("task", task, TASKS)
    check_amounts(copies, rate)
    _check(examples, task, found, tokenizer)
    sides = [examples.texts]
    if task != "tag":
        both = (examples.texts, examples.pairs)
        sides = [[text.split() for text in side] for side in both if side]
    sentences = [words for side in sides for words in side]
    free = [list(range(len(words))) for words in sentences]
    if task == "tag":
        free = [movable(row, examples.scheme) for row in examples.labels]
    encoded = tokenizer.words(sentences, found.config.length)
    rng = np.random.default_rng(seed % 2**64)
    hidden = [
        _hidden(rng, *each, rate, tokenizer)
        for _ in range(copies)
        for each in zip(encoded.tokens, encoded.first, free, strict=True)
    ]
    drawn = iter(_filled(rng, found, tokenizer, hidden))
    made = []
    for place in range(0, len(hidden), len(sentences)):
        rows = [list(words) for words in sentences]
        here = hidden[place : place + len(rows)]
        for row, each in zip(rows, here, strict=True):
            for number in each.words:
                row[number] = next(drawn)
        made += _copies(examples, task, sentences, rows)
    return examples.joined(*made)


def _check(
    examples: Examples, task: str, found: Checkpoint, tokenizer: Tokenizer
) -> None:
    name = "augment: mlm_substitute"
    drawn = any(path.startswith("head/") for path in found.report.initialised)
    if found.config.head == "none" or found.config.causal or drawn:
        where = found.directory
        raise InputError(f"{name}: {where} has no masked-language-model head")
    if tokenizer.mask is None:
        raise InputError(f"{name}: {tokenizer.source} has no token for a hidden word")
    if task == "tag" and not examples.scheme:
        raise InputError(
            f"{name} needs tags of spans, such as B-PER and O: another word may be of "
            "another tag; leave it out"
        )


def _hidden(
    rng: np.random.Generator,
    tokens: np.ndarray,
    first: np.ndarray,
    free: Sequence[int],
    rate: float,
    tokenizer: Tokenizer,
) -> MaskedWords:
    """Hides some of the free words of a text that were not cut off."""
    places = np.array([place for place in free if first[place] >= 0], int)
    count = min(max(round(rate * len(places)), 1), len(places))
    words = np.sort(rng.choice(places, count, replace=False))
    begins = first[words]
    last = len(tokens) - len(tokenizer.around[1])
    ends = np.append(first[first >= 0], last)[words + 1]
    seen, kept = tokens.copy(), np.ones(len(tokens), bool)
    seen[begins] = tokenizer.mask
    for begin, end in zip(begins, ends, strict=True):
        kept[begin + 1 : end] = False
    label_positions = np.cumsum(kept)[begins] - 1
    return MaskedWords(
        words,
        seen[kept],
        label_positions,
        np.where(ends - begins > 1, -1, tokens[begins]),
    )


def _filled(
    rng: np.random.Generator,
    found: Checkpoint,
    tokenizer: Tokenizer,
    hidden: Sequence[MaskedWords],
) -> list[str]:
    """Returns a word for each hidden one, in their order."""
    hidden = [each for each in hidden if len(each.words)]
    if not hidden:
        return []
    tokens = [each.tokens for each in hidden]
    types = [np.zeros_like(row) for row in tokens]
    width = next_width(max(map(len, tokens)), found.config.length)
    rows = pack(Encoded(tokens, types, [each.at for each in hidden], 0), None, width)
    old = np.concatenate([each.old for each in hidden])
    x = {
        name: rows.arrays[f"x/{name}"]
        for name in ("tokens", "mask", "segment_ids", "label_positions")
    }
    x["old"] = np.where(rows.example_index >= 0, old[rows.example_index], -1)
    words = _whole_words(tokenizer, found.config.vocabulary)
    whole = np.array([word is not None for word in words])
    if whole.sum() < 2:
        raise InputError(
            f"augment: mlm_substitute: {tokenizer.source} has no two tokens that are "
            "words"
        )
    drawn = _drawn(found, x, whole, jax.random.key(int(rng.integers(2**31))))
    return [words[token] for token in rows.flat(drawn)]


def _whole_words(tokenizer: Tokenizer, vocabulary: int) -> list[str | None]:
    """Returns the word that each token is by itself, None where it is none."""
    special = {tokenizer.unknown, *tokenizer.inner.get_added_tokens_decoder()}
    size = min(tokenizer.size, vocabulary)
    texts = [tokenizer.decode([token]).strip() for token in range(size)]
    before, after = tokenizer.around
    room = len(before) + 1 + len(after)
    words: list[str | None] = [None] * vocabulary
    back = tokenizer.words([[text] for text in texts], room).tokens
    for token, (text, row) in enumerate(zip(texts, back, strict=True)):
        same = row.tolist() == [*before, token, *after]
        if same and token not in special and text.split() == [text]:
            words[token] = text
    return words


def _drawn(found: Checkpoint, x: Batch, whole: np.ndarray, key: Key) -> np.ndarray:
    """Returns a token for each place of rows, `[N, K]`, by batches of one shape."""
    size, places = x["label_positions"].shape
    widths = dict.fromkeys(("label_positions", "old"), next_power(places))
    full = {
        name: pad_to(array, (size + -size % _ROWS, widths.get(name, array.shape[1])))
        for name, array in x.items()
    }
    made = []
    for begin in range(0, size, _ROWS):
        batch = {name: array[begin : begin + _ROWS] for name, array in full.items()}
        own = jax.random.fold_in(key, begin)
        made.append(_of_batch(found.params, batch, whole, own, found.config))
    return np.concatenate(made)[:size, :places]


@functools.partial(jax.jit, static_argnames="config")
def _of_batch(
    params: Params, x: Batch, whole: Array, key: Key, config: TransformerConfig
) -> Array:
    """Returns a token for each place of a batch, int `[B, K]`."""
    logits, _ = transformer_model(config).apply(
        params,
        x["tokens"],
        x["mask"],
        segment_ids=x["segment_ids"],
        label_positions=jnp.maximum(x["label_positions"], 0),
    )  # [B, K, V]
    same = jax.nn.one_hot(x["old"], len(whole), dtype=bool)  # [B, K, V]
    logits = jnp.where(whole[None, None] & ~same, logits, -jnp.inf)
    best, tokens = jax.lax.top_k(logits, min(_LIKELY, len(whole)))
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
