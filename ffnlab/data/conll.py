"""Sentences with a tag for each token, in the columns of the CoNLL shared tasks."""

import re
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ffnlab.data.dataset import IGNORE, Arrays, Dataset
from ffnlab.data.files import decode_line, require_text, stop_at
from ffnlab.data.tags import TAG, are_of_spans
from ffnlab.errors import InputError

SEEN = 2  # occurrences in training; what is rarer shares the id of the unknown
LONGEST = 128  # tokens of a row; a longer sentence becomes several
BUCKETS = 2000  # ids that the hashes of words fall into

_TAGS = "expected a tag in the last column, O or one of B- I- E- S- L- U- and a type"
BETWEEN = re.compile(r"[ \t]+")  # a token may hold other characters of space
_FEATURES = ("word", "prefix", "suffix", "shape")


class Sentences(NamedTuple):
    """The sentences of a file; the lists run side by side.

    Attributes:
      tokens: the tokens of each sentence.
      tags: the tag of each token.
      lines: the line of each token, from 1.
      rows: what stands in these lines, and before them in lines of -DOCSTART-.
    """

    tokens: list[list[str]]
    tags: list[list[str]]
    lines: list[list[int]]
    rows: list[list[str]]


def read_conll(
    path: str | Path, plain: bool = False, token: int = 1, tag: int | None = None
) -> Sentences:
    """Reads sentences from a file with a token a line and its tag in the last column.

    Columns stand between tabs or spaces; other columns are skipped. A line that is
    empty or blank ends a sentence, and so does one that begins with -DOCSTART-.

    Args:
      path: the file; UTF-8, with or without a byte-order mark.
      plain: whether tags may be other labels than those of spans, such as parts of
        speech; those of spans are told by `tags.are_of_spans`.
      token: the column of the token, from 1.
      tag: the column of the tag; the last if it is None.

    Returns:
      The sentences in their order, each of at least one token.

    Raises:
      InputError: no such file, a directory, an empty file or one without a sentence;
        up to 20 lines that cannot be used: of one column, or of more or fewer than the
        first that is read; with a tag other than O or one of B- I- E- S- L- U- and a
        type; not UTF-8, with a NUL byte or with a carriage return inside.

    Source: Tjong Kim Sang and De Meulder 2003, "Introduction to the CoNLL-2003 Shared
    Task".

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.conll"
    ...     _ = path.write_text("Ada\\tB-person\\nsings\\tO\\n\\nYes\\tO\\n")
    ...     read_conll(path).tags
    [['B-person', 'O'], ['O']]
    """
    found, problems = Sentences([], [], [], []), []
    ended, first = True, None  # the first line of columns, with its number
    above: list[str] = []
    with require_text(path).open("rb") as file:
        for line, data in enumerate(file, start=1):
            try:
                text = decode_line(data, line).strip(" \t\r\n")
                fields = _fields(text)
                first = first or (fields and (line, text))
                if fields:
                    _check_columns(text, *first)
                    cells = [cell_of(fields, place) for place in (token, tag)]
            except InputError as error:
                problems.append((line, str(error)))
                continue
            if fields and ended:
                for column, begin in zip(found, ([], [], [], above), strict=True):
                    column.append(begin)
                above = []
            if fields:
                for column, cell in zip(found, (*cells, line, text), strict=True):
                    column[-1].append(cell)
            elif text:
                above.append(text)
            ended = not fields
    every = [(tag, line) for each in zip(found.tags, found.lines, strict=True)
             for tag, line in zip(*each, strict=True)]  # fmt: skip
    if not plain or are_of_spans(tag for tag, _ in every):
        problems += [(line, f"{_TAGS}, found {tag[:60]!r}")
                     for tag, line in every if not TAG.fullmatch(tag)]  # fmt: skip
    stop_at(path, problems)
    if not found.tokens:
        raise InputError(f"{path}:1: no sentence; expected lines of a token and a tag")
    return found


def tagging_dataset(train: str | Path, dev: str | Path, test: str | Path) -> Dataset:
    """Reads three files of tagged sentences into ids of what each token looks like.

    A token has five features: its word in lower case, the first 3 and the last 3
    characters of that, its shape, and a hash of the word as it stands. In the shape X
    is an upper-case letter, x a lower-case one and d a digit, other characters standing
    for themselves; a run is cut to 2 and the whole to 8. The features share one
    vocabulary: 0 is padding, then each has an id for what is unknown and one for all
    that was seen at least twice in training. The hash, into one of 2,000 buckets,
    needs no id for the unknown.

    A sentence of more than 128 tokens becomes several rows, each but the last of 128;
    an entity on the border is cut in two.

    Args:
      train: the file to learn from, as `read_conll` reads it. The vocabulary and the
        tags are taken from it alone.
      dev: the file to choose by.
      test: the file to report on.

    Returns:
      The data set, of a class for each tag: x/tokens int32 [N, T, 5], x/mask bool
      [N, T] and y int32 [N, T], -100 at padding. T is the longest row of the three.
      Its `about` holds the tags by class, the size of the vocabulary, the first and
      last id of each feature, and how many sentences were split.

    Raises:
      InputError: a file cannot be read, every training tag is O, or a held-out tag does
        not occur in training, with its lines.

    Source: Collobert et al. 2011, "Natural Language Processing (Almost) from Scratch"
    (several ids a word); Collins 2002, "Ranking Algorithms for Named-Entity Extraction"
    (shapes); Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask
    Learning" (hashes).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.conll"
    ...     _ = path.write_text("Ada B-person\\nsings O\\n\\nYes O\\n")
    ...     data = tagging_dataset(path, path, path)
    >>> data.about["tags"], data.train["y"].tolist()
    (['O', 'B-person'], [[1, 0], [0, -100]])
    """
    paths = {"train": train, "valid": dev, "test": test}
    found = {part: read_conll(path) for part, path in paths.items()}
    tags = sorted({tag for tags in found["train"].tags for tag in tags} - {"O"})
    if not tags:
        raise InputError(f"{train}: every tag is O, and nothing to learn")
    tags = ["O", *tags]
    for part in ("valid", "test"):
        stop_at(paths[part], _unseen(found[part], tags, train))
    known, ranges = _vocabulary(found["train"].tokens)
    rows = {part: _rows(sentences) for part, sentences in found.items()}
    length = max(len(row) for part in rows.values() for row, _ in part)
    splits = {part: _arrays(rows[part], length, known, ranges, tags) for part in rows}
    about = {
        "sources": {part: str(path) for part, path in paths.items()},
        "per": "position",
        "tags": tags,
        "vocabulary": ranges["hash"][1] + 1,
        "ids": ranges,
        "sizes": {part: len(rows[part]) for part in rows},
        "split": {part: _too_long(sentences) for part, sentences in found.items()},
    }
    return Dataset(
        "tagging", **splits, task="classes", features=5, classes=len(tags), about=about
    )


def is_token(line: str) -> bool:
    """Tells the line of a token from one that ends a sentence.

    >>> [is_token(line) for line in ("Ada O", " ", "-DOCSTART- -X- O")]
    [True, False, False]
    """
    return bool(line.strip()) and not line.startswith("-DOCSTART-")


def cell_of(fields: list[str], place: int | None) -> str:
    """Returns the cell of a column that is counted from 1; None is the last.

    Raises:
      InputError: there is no such column.
    """
    if place is not None and not 1 <= place <= len(fields):
        raise InputError(f"column {place} of {len(fields)}; columns count from 1")
    return fields[-1 if place is None else place - 1]


def _fields(text: str) -> list[str] | None:
    """Returns the columns of a line, or None where a sentence ends.

    Raises:
      InputError: what is wrong, without the line.
    """
    if not is_token(text):
        return None
    if "\r" in text:
        raise InputError("a carriage return inside; end lines with a line feed")
    columns = BETWEEN.split(text)
    if len(columns) == 1:
        found = f"found one column, {text[:60]!r}"
        raise InputError(f"expected a token, a tab or space, and its tag, {found}")
    return columns


def _check_columns(text: str, line: int, first: str) -> None:
    """Refuses a line of other columns than the first: its tag may be another column.

    A cell between two tabs may be empty, and several tabs or spaces align columns; so
    either count may hold, of the columns that are not empty or of the tabs.
    """
    wanted, found = (len(BETWEEN.split(each)) for each in (first, text))
    tabs = text.count("\t")
    if found != wanted and (not tabs or tabs != first.count("\t")):
        raise InputError(f"expected {wanted} columns, as in line {line}, found {found}")


def _rows(sentences: Sentences) -> list[tuple[list[str], list[str]]]:
    """Returns the tokens and tags of each row, long sentences being cut."""
    return [
        (tokens[start : start + LONGEST], tags[start : start + LONGEST])
        for tokens, tags in zip(sentences.tokens, sentences.tags, strict=True)
        for start in range(0, len(tokens), LONGEST)
    ]


def _too_long(sentences: Sentences) -> int:
    """Returns how many sentences do not fit a row."""
    return sum(len(tokens) > LONGEST for tokens in sentences.tokens)


def _unseen(
    sentences: Sentences, tags: list[str], train: str | Path
) -> list[tuple[int, str]]:
    """Returns the lines of tags that do not occur in training, and what to say."""
    what = f"does not occur in {train}; correct it, or add examples there"
    return [
        (line, f"the tag {tag!r} {what}")
        for row, lines in zip(sentences.tags, sentences.lines, strict=True)
        for tag, line in zip(row, lines, strict=True)
        if tag not in tags
    ]


def _features(token: str) -> tuple[str, str, str, str]:
    """Returns what a token looks like: word, prefix, suffix and shape."""
    word = token.lower()
    kinds = (
        "X" if c.isupper() else "x" if c.islower() else "d" if c.isdigit() else c
        for c in token
    )
    shape = re.sub(r"(.)\1{2,}", r"\1\1", "".join(kinds), flags=re.DOTALL)
    return word, word[:3], word[-3:], shape[:8]


def _vocabulary(
    sentences: list[list[str]],
) -> tuple[list[dict[str, int]], dict[str, list[int]]]:
    """Returns the ids of what was seen often enough, and each feature's range of ids.

    The first id of a range, but for the hash, is that of the unknown.
    """
    counts = [Counter() for _ in _FEATURES]
    for token in (token for tokens in sentences for token in tokens):
        for counter, feature in zip(counts, _features(token), strict=True):
            counter[feature] += 1
    known, ranges, first = [], {}, 1
    for name, counter in zip(_FEATURES, counts, strict=True):
        often = sorted(feature for feature, times in counter.items() if times >= SEEN)
        known.append({feature: id for id, feature in enumerate(often, start=first + 1)})
        ranges[name] = [first, first + len(often)]
        first += len(often) + 1
    ranges["hash"] = [first, first + BUCKETS - 1]
    return known, ranges


def _arrays(
    rows: list[tuple[list[str], list[str]]],
    length: int,
    known: list[dict[str, int]],
    ranges: dict[str, list[int]],
    tags: list[str],
) -> Arrays:
    """Returns rows of tokens and tags as ids, padded to one length."""
    x = np.zeros((len(rows), length, len(ranges)), np.int32)  # [N, T, 5]
    y = np.full((len(rows), length), IGNORE, np.int32)  # [N, T]
    classes = {tag: k for k, tag in enumerate(tags)}
    firsts = [first for first, _ in ranges.values()]
    for i, (row, labels) in enumerate(rows):
        y[i, : len(row)] = [classes[tag] for tag in labels]
        for t, token in enumerate(row):
            looks = zip(known, _features(token), firsts, strict=False)
            x[i, t, :-1] = [ids.get(feature, first) for ids, feature, first in looks]
            x[i, t, -1] = firsts[-1] + zlib.crc32(token.encode()) % BUCKETS
    return {"x/tokens": x, "x/mask": y != IGNORE, "y": y}
