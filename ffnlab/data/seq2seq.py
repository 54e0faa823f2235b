"""Prompts and targets of text-to-text generation with a decoder.

    pairs = encode_pairs(tokenizer, sources, targets, "{text}\\n", 128, 32)
    rows = pack_pairs(pairs, width=128)
    rows.arrays["y"]                        # [N, K], the tokens of targets
    for batch in left_padded(pairs.prompts, rows=16):
        batch.tokens, batch.mask            # [16, W], as models.decoding takes them

The loss is over the tokens of the target and the end token after them, not over the
prompt. The end token of bytes is 0, which occurs in texts only as a control character.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ffnlab.data.corpus import Tokenizes
from ffnlab.data.packed_rows import Rows, pack
from ffnlab.data.padding import next_power
from ffnlab.data.tokenizer import Encoded
from ffnlab.errors import InputError

_LEAST = 16  # tokens of the narrowest prompts: fewer shapes, hence fewer programs


class Pairs(NamedTuple):
    """Prompts, each followed by its target and the end token.

    Attributes:
      tokens: int32 `[T]` each.
      begins: The position where each target begins, int `[N]`; the length of the prompt
        if there are no targets.
      lost: The number of tokens of sources and targets that were cut off.
    """

    tokens: list[np.ndarray]
    begins: np.ndarray
    lost: int

    @property
    def prompts(self) -> list[np.ndarray]:
        """The tokens before each target."""
        return [row[:n] for row, n in zip(self.tokens, self.begins, strict=True)]


class Prompts(NamedTuple):
    """A batch of prompts, padded on the left.

    Attributes:
      index: The numbers of the prompts, int `[n]`, n ≤ B; further rows repeat them.
      tokens: int32 `[B, W]`.
      mask: Whether there is a token, bool `[B, W]`.
    """

    index: np.ndarray
    tokens: np.ndarray
    mask: np.ndarray


def encode_pairs(
    tokenizer: Tokenizes,
    sources: Sequence[str],
    targets: Sequence[str] | None,
    template: str,
    max_seq_length: int,
    max_target_length: int,
) -> Pairs:
    """Returns the tokens of prompts and targets.

    The source of a prompt that is too long is cut at its end; the template stays whole.
    Spaces at the end of the template become part of the target, because a word of
    GPT-2's tokenizer begins with the space before it.

    Args:
      tokenizer: A tokenizer with an end token.
      sources: N texts.
      targets: The N texts to generate; None for none, as in prediction.
      template: The prompt; `{text}` is replaced by the source.
      max_seq_length: The maximum number of tokens of a prompt with its target.
      max_target_length: The maximum number of tokens of a target with its end token,
        which is left out if the target is cut.

    Raises:
      InputError: The tokenizer has no end token, the template does not have `{text}`
        once, or the lengths leave no room for a source.

    >>> from ffnlab.data.corpus import ByteTokenizer
    >>> pairs = encode_pairs(ByteTokenizer(), ["cat"], ["C"], "{text}:", 8, 2)
    >>> pairs.tokens[0].tolist(), pairs.begins.tolist(), pairs.lost
    ([99, 97, 116, 58, 67, 0], [4], 0)
    """
    head, tail, lead = _parts(template)
    if tokenizer.end is None:
        raise InputError(
            "this tokenizer has no end token, such as <|endoftext|>; generation needs "
            "the tokenizer of a GPT-2, or bytes"
        )
    after = _tokens(tokenizer, tail)
    fixed = len(_tokens(tokenizer, head)) + len(after)
    room = max_seq_length - max_target_length
    if max_target_length < 1 or fixed >= room:
        raise InputError(
            f"max_seq_length={max_seq_length}, max_target_length={max_target_length}: "
            f"no room for a source beside {fixed} tokens of the template; shorten it, "
            "or change the lengths"
        )
    rows, begins, lost = [], [], 0
    for number, source in enumerate(sources):
        before = _tokens(tokenizer, head + source)
        kept = before[: room - len(after)]
        lost += len(before) - len(kept)
        # An empty prompt becomes the end token, after which training texts begin.
        row = [*kept, *after] or [tokenizer.end]
        begins.append(len(row))
        if targets is not None:
            target = _tokens(tokenizer, lead + targets[number])
            lost += max(len(target) - max_target_length, 0)
            row += [*target, tokenizer.end][:max_target_length]
        rows.append(np.array(row, np.int32))
    return Pairs(rows, np.array(begins, int), lost)


def _parts(template: str) -> tuple[str, str, str]:
    """Returns the template before and after its `{text}`, and the spaces at its end."""
    parts = template.split("{text}")
    if len(parts) != 2:
        raise InputError(
            f"template={template!r}: should have {{text}} once, where the source goes"
        )
    tail = parts[1].rstrip(" ")
    return parts[0], tail, parts[1][len(tail) :]


def _tokens(tokenizer: Tokenizes, text: str) -> list[int]:
    """Returns the tokens of a text, without end tokens, which would cut it in two."""
    tokens = tokenizer.stream(text.encode("utf-8", "replace")).tokens
    return tokens[tokens != tokenizer.end].tolist()


def pack_pairs(pairs: Pairs, width: int, mix: int | None = None) -> Rows:
    """Packs prompts with their targets into rows; the labels are the targets' tokens.

    Args:
      pairs: The result of `encode_pairs`.
      width: T, the number of tokens of a row; no pair may be longer.
      mix: See `packed_rows.pack`.

    Returns:
      Rows as `packed_rows.pack` makes them: the label positions are those whose next
      token is of a target, or its end token, and y holds those tokens.

    >>> tokens = [np.array([7, 8, 5, 0]), np.array([9, 6, 0])]
    >>> rows = pack_pairs(Pairs(tokens, np.array([2, 1]), 0), width=8).arrays
    >>> rows["x/label_positions"].tolist(), rows["y"].tolist()
    ([[1, 2, -1, 4, 5]], [[5, 0, -100, 6, 0]])
    """
    both = [*zip(pairs.tokens, pairs.begins, strict=True)]
    positions = [np.arange(begin - 1, len(row) - 1) for row, begin in both]
    labels = [row[begin:].tolist() for row, begin in both]
    return pack(Encoded(pairs.tokens, [], positions, pairs.lost), labels, width, mix)


def left_padded(prompts: Sequence[np.ndarray], rows: int) -> list[Prompts]:
    """Returns prompts in batches of few shapes, sorted by their length.

    All batches have the same number of rows, and their widths are powers of two, so
    that decoding is compiled a few times at most.

    Args:
      prompts: Tokens, int `[T]` each, T above 0.
      rows: B, the number of rows of a batch; one that is not full repeats its prompts.

    >>> batch = left_padded([np.array([5, 6]), np.array([7])], rows=4)[0]
    >>> batch.index.tolist(), batch.tokens[:, -2:].tolist()
    ([1, 0], [[0, 7], [5, 6], [0, 7], [5, 6]])
    """
    order = np.argsort([len(row) for row in prompts], kind="stable")
    batches = []
    for begin in range(0, len(order), rows):
        index = order[begin : begin + rows]
        width = next_power(len(prompts[index[-1]]), _LEAST)
        tokens = np.zeros((rows, width), np.int32)
        mask = np.zeros((rows, width), bool)
        for row, number in enumerate(np.resize(index, rows)):
            size = len(prompts[number])
            tokens[row, width - size :] = prompts[number]
            mask[row, width - size :] = True
        batches.append(Prompts(index, tokens, mask))
    return batches
