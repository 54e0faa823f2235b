"""Tagged sentences as a data set: ids of the features of each token."""

import re
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from ffnlab.data.conll import Sentences, read_conll
from ffnlab.data.dataset import IGNORE, Arrays, Dataset
from ffnlab.data.files import stop_at
from ffnlab.errors import InputError

SEEN = 2  # occurrences in training; rarer features share the id of the unknown one
LONGEST = 128  # tokens of a row; a longer sentence becomes several rows
BUCKETS = 2000  # ids for the hashes of words

_FEATURES = ("word", "prefix", "suffix", "shape")


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
