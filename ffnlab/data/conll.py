"""Sentences with a tag per token, in the columns of the CoNLL shared tasks."""

import itertools
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ffnlab.data.dataset import IGNORE, Arrays, Dataset
from ffnlab.data.files import read_lines, stop_at
from ffnlab.data.tags import TAG, are_of_spans
from ffnlab.errors import InputError

SEEN = 2  # occurrences in training; rarer features share the id of the unknown one
LONGEST = 128  # tokens of a row; a longer sentence becomes several rows
BUCKETS = 2000  # ids for the hashes of words

_TAGS = "expected a tag in the last column, O or one of B- I- E- S- L- U- and a type"
_BETWEEN = re.compile(r"[ \t]+")  # a token may hold other characters of space
_FEATURES = ("word", "prefix", "suffix", "shape")


class Sentence(NamedTuple):
    """One sentence.

    Attributes:
      tokens: The tokens.
      tags: The tag of each token; empty if tags are not read.
      lines: The line of each token, from 1.
      rows: The text of these lines, and of the -DOCSTART- lines before them.
    """

    tokens: list[str]
    tags: list[str]
    lines: list[int]
    rows: list[str]


class Sentences(NamedTuple):
    """The sentences of a file, as parallel lists with the fields of `Sentence`.

    Attributes:
      tokens: The tokens of each sentence.
      tags: The tags of each sentence.
      lines: The lines of each sentence, from 1.
      rows: The text of these lines, and of the -DOCSTART- lines before them.
    """

    tokens: list[list[str]]
    tags: list[list[str]]
    lines: list[list[int]]
    rows: list[list[str]]


def read_conll(
    path: str | Path,
    plain: bool = False,
    token: int = 1,
    tag: int | None = None,
    tagged: bool = True,
) -> Sentences:
    """Reads sentences from a file with one token per line and its tag in a column.

    Columns are separated by tabs or spaces; other columns are skipped. A line that is
    empty or blank ends a sentence, and so does one that begins with -DOCSTART-.

    Args:
      path: The file; UTF-8, with or without a byte-order mark.
      plain: Whether tags may be labels of words, such as parts of speech, as well as
        those of spans (see `tags.are_of_spans`).
      token: The column of the token, from 1.
      tag: The column of the tag, from 1; the last if it is None.
      tagged: Whether the tags are read; if not, there need be no column of them.

    Returns:
      The sentences in their order, each of at least one token.

    Raises:
      InputError: No such file, a directory, an empty file or one without a sentence;
        up to 20 lines that cannot be used: those with a carriage return inside, not in
        UTF-8, with a NUL byte, or without the column; where tags are read, those with
        one column, with other columns than the first line, or with a tag other than O
        or one of B- I- E- S- L- U- and a type.

    Source: Tjong Kim Sang and De Meulder 2003, "Introduction to the CoNLL-2003 Shared
    Task".

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.conll"
    ...     _ = path.write_text("Ada\\tB-person\\nsings\\tO\\n\\nYes\\tO\\n")
    ...     read_conll(path).tags
    [['B-person', 'O'], ['O']]
    """
    texts, problems = read_lines(path, carriage_returns=False)
    sentences = Sentences([], [], [], [])
    for line, value in parse_conll(enumerate(texts, 1), token, tag, tagged):
        if isinstance(value, InputError):
            problems.append((line, str(value)))
            continue
        for column, field in zip(sentences, value, strict=True):
            column.append(field)
    stop_at(path, problems + _unknown_tags(sentences, plain))
    if not sentences.tokens:
        columns = "a token and a tag" if tagged else "a token each"
        raise InputError(f"{path}:1: no sentence; expected lines of {columns}")
    return sentences


def parse_conll(
    lines: Iterable[tuple[int, str]],
    token: int = 1,
    tag: int | None = None,
    tagged: bool = True,
) -> Iterator[tuple[int, Sentence | InputError]]:
    """Yields sentences as their last lines come, and the problems of lines.

    Args:
      lines: Line numbers, from 1, and lines.
      token: The column of the token, from 1.
      tag: The column of the tag, from 1; the last if it is None.
      tagged: Whether the tags are read.

    Yields:
      The number of a sentence's first line and the sentence; or the number of a line
      and an error that does not name it.

    >>> lines = enumerate(["Ada", "sings", "", "Yes"], 1)
    >>> [each.tokens for _, each in parse_conll(lines, tagged=False)]
    [['Ada', 'sings'], ['Yes']]
    """
    places = (token, tag) if tagged else (token,)
    first = None  # the number and text of the first line with columns
    sentence = Sentence([], [], [], [])
    for number, line in itertools.chain(lines, [(0, "")]):
        text = line.strip(" \t\r\n")
        try:
            fields = _fields(text, tagged)
            first = first or (fields and (number, text))
            if fields and tagged:
                _check_columns(text, *first)
            cells = [_cell(fields, place) for place in places] if fields else []
        except InputError as error:
            yield number, error
            continue
        if fields:
            sentence.tokens.append(cells[0])
            sentence.tags.extend(cells[1:])
            sentence.lines.append(number)
        if not fields and sentence.tokens:
            yield sentence.lines[0], sentence
            sentence = Sentence([], [], [], [])
        if text:
            sentence.rows.append(text)


def _unknown_tags(sentences: Sentences, plain: bool) -> list[tuple[int, str]]:
    """Returns the lines whose tags are not of spans, unless none needs to be."""
    tagged = [
        (line, tag)
        for tags, lines in zip(sentences.tags, sentences.lines, strict=True)
        for tag, line in zip(tags, lines, strict=False)
    ]
    if plain and not are_of_spans(tag for _, tag in tagged):
        return []
    return [
        (line, f"{_TAGS}, found {tag[:60]!r}")
        for line, tag in tagged
        if not TAG.fullmatch(tag)
    ]


def tagging_dataset(train: str | Path, dev: str | Path, test: str | Path) -> Dataset:
    """Reads three files of tagged sentences as ids of the features of each token.

    A token has five features: its word in lower case, the first 3 and the last 3
    characters of that word, its shape, and a hash of the unchanged word. In the shape,
    X is an upper-case letter, x a lower-case one and d a digit; other characters stand
    for themselves. Runs are cut to 2 characters and the shape to 8. The features share
    one vocabulary: 0 is padding; then each feature has an id for unknown values and one
    for each value with at least two occurrences in training. The hash has 2,000
    buckets and no id for unknown values.

    A sentence of more than 128 tokens becomes several rows, all but the last of 128
    tokens; an entity across the border is cut in two.

    Args:
      train: The training file, as `read_conll` reads it. The vocabulary and the tags
        come from it alone.
      dev: The validation file.
      test: The test file.

    Returns:
      The data set, with a class for each tag: x/tokens int32 [N, T, 5], x/mask bool
      [N, T] and y int32 [N, T], -100 at padding. T is the longest row of the three
      files. Its `about` holds the tags by class, the size of the vocabulary, the first
      and last id of each feature, and how many sentences were split.

    Raises:
      InputError: A file cannot be read, every training tag is O, or a tag of dev or
        test does not occur in training; the lines are named.

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
    sentences = {part: read_conll(path) for part, path in paths.items()}
    tags = sorted({tag for row in sentences["train"].tags for tag in row} - {"O"})
    if not tags:
        raise InputError(f"{train}: every tag is O, and nothing to learn")
    tags = ["O", *tags]
    for part in ("valid", "test"):
        stop_at(paths[part], _unseen(sentences[part], tags, train))
    known, ranges = _vocabulary(sentences["train"].tokens)
    rows = {part: _rows(read) for part, read in sentences.items()}
    length = max(len(row) for part in rows.values() for row, _ in part)
    splits = {part: _arrays(rows[part], length, known, ranges, tags) for part in rows}
    about = {
        "sources": {part: str(path) for part, path in paths.items()},
        "per": "position",
        "tags": tags,
        "vocabulary": ranges["hash"][1] + 1,
        "ids": ranges,
        "sizes": {part: len(rows[part]) for part in rows},
        "split": {part: _too_long(read) for part, read in sentences.items()},
    }
    return Dataset(
        "tagging", **splits, task="classes", features=5, classes=len(tags), about=about
    )


def is_token(line: str) -> bool:
    """Returns whether a line holds a token; other lines end a sentence.

    >>> [is_token(line) for line in ("Ada O", " ", "-DOCSTART- -X- O")]
    [True, False, False]
    """
    return bool(line.strip()) and not line.startswith("-DOCSTART-")


def _cell(fields: list[str], place: int | None) -> str:
    """Returns the cell of a column that is counted from 1; of the last for None.

    Raises:
      InputError: There is no such column; without the line.
    """
    if place is not None and not 1 <= place <= len(fields):
        raise InputError(f"column {place} of {len(fields)}; columns count from 1")
    return fields[-1 if place is None else place - 1]


def _fields(text: str, tagged: bool) -> list[str] | None:
    """Returns the columns of a line, or None where a sentence ends.

    Raises:
      InputError: The line cannot be used; without the line.
    """
    if not is_token(text):
        return None
    if "\r" in text:
        raise InputError("a carriage return inside; end lines with a line feed")
    columns = _BETWEEN.split(text)
    if tagged and len(columns) == 1:
        column = f"found one column, {text[:60]!r}"
        raise InputError(f"expected a token, a tab or space, and its tag, {column}")
    return columns


def _check_columns(text: str, line: int, first: str) -> None:
    """Refuses a line of other columns than the first: its tag may be another column.

    A cell between two tabs may be empty, and several tabs or spaces may align columns.
    So either the number of columns that are not empty or that of tabs must be equal.
    """
    expected, count = (len(_BETWEEN.split(row)) for row in (first, text))
    tabs = text.count("\t")
    if count != expected and (not tabs or tabs != first.count("\t")):
        what = f"expected {expected} columns, as in line {line}, found {count}"
        raise InputError(what)


def _rows(sentences: Sentences) -> list[tuple[list[str], list[str]]]:
    """Returns the tokens and tags of each row; long sentences are cut."""
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
    """Returns the lines of tags that do not occur in training, with the problem."""
    what = f"does not occur in {train}; correct it, or add examples there"
    return [
        (line, f"the tag {tag!r} {what}")
        for row, lines in zip(sentences.tags, sentences.lines, strict=True)
        for tag, line in zip(row, lines, strict=True)
        if tag not in tags
    ]


def _features(token: str) -> tuple[str, str, str, str]:
    """Returns the word, prefix, suffix and shape of a token."""
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
    """Returns the ids of frequent values by feature, and the range of its ids.

    The first id of a range, except that of the hash, is the id of unknown values.
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
            features = zip(known, _features(token), firsts, strict=False)
            x[i, t, :-1] = [ids.get(value, first) for ids, value, first in features]
            x[i, t, -1] = firsts[-1] + zlib.crc32(token.encode()) % BUCKETS
    return {"x/tokens": x, "x/mask": y != IGNORE, "y": y}
