"""The source text and the help topics of Python, and their bytes as examples."""

import hashlib
import os
import platform
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np

from ffnlab.data.dataset import Arrays, Dataset
from ffnlab.data.shuffle import order
from ffnlab.errors import InputError

# Directories of tests and of installed packages.
_SKIPPED = {
    "__pycache__",
    "dist-packages",
    "idle_test",
    "site-packages",
    "test",
    "tests",
}
_BLOCK = 4096  # bytes of the help topics that stay together
_MACHINE_MADE = ("config-", "_sysconfigdata")  # these differ between builds


def python_source(
    seed: int = 0, context: int = 32, limit: int | None = None
) -> Dataset:
    """Loads the source text of the running Python's standard library, byte by byte.

    Each byte of a file is predicted from the `context` bytes before it, with zeros
    before the first. Of files with the same content one is used. Files are split
    80/10/10 by a hash of the seed and their path: the part of a file does not depend on
    other files, and no context crosses files.

    Args:
      seed: The seed of the split, any integer.
      context: The number F of bytes that a prediction is made from, at least 1.
      limit: The maximum number of files, the first by path; None takes all.

    Returns:
      The data set, with task `bytes` and 256 classes. Its `about` holds the SHA-256 of
      the corpus, the Python version, and the files and bytes of each part.

    Raises:
      InputError: `context` or `limit` is below 1, or this Python has no source files,
        or too few for each part to get one.

    Source: Bengio, Ducharme, Vincent and Jauvin 2003, "A Neural Probabilistic Language
    Model", section 2, with bytes for words.

    >>> source = python_source(limit=40)
    >>> source.features, source.classes, source.train["text"].dtype
    (32, 256, dtype('uint8'))
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit: expected at least 1 file, got {limit}")
    return _byte_dataset("bytes", *python_files(seed, limit), context)


def help_topics(seed: int = 0, context: int = 32) -> Dataset:
    """Loads the help topics of the running Python, English prose, byte by byte.

    They are what `help("with")` prints. The topics, in the order of their names, are
    cut into blocks of 4,096 bytes, of which a tenth each are the validation and the
    test part. All seeds give parts of equal sizes.

    Args:
      seed: The seed of the split, any integer.
      context: The number F of bytes that a prediction is made from, at least 1.

    Returns:
      The data set, with task `bytes` and 256 classes.

    Raises:
      InputError: `context` is below 1.

    >>> prose = help_topics()
    >>> prose.name, prose.features, prose.about["source"]
    ('help_topics', 32, "Python's help topics")
    """
    from pydoc_data.topics import topics

    text = "\n\n".join(topic for _, topic in sorted(topics.items())).encode()
    blocks = [text[i : i + _BLOCK] for i in range(0, len(text) - _BLOCK + 1, _BLOCK)]
    held = len(blocks) // 10
    places = order(seed, 0, len(blocks), len(blocks))
    numbers = {
        "train": np.sort(places[2 * held :]),
        "valid": np.sort(places[:held]),
        "test": np.sort(places[held : 2 * held]),
    }
    parts = {part: [blocks[i] for i in rows] for part, rows in numbers.items()}
    about = {
        "source": "Python's help topics",
        "python": platform.python_version(),
        "seed": seed,
        "sha256": hashlib.sha256(text).hexdigest(),
        "sizes": {part: _BLOCK * len(texts) for part, texts in parts.items()},
    }
    return _byte_dataset("help_topics", parts, about, context)


def _byte_dataset(
    name: str, parts: dict[str, list[bytes]], about: dict[str, Any], context: int
) -> Dataset:
    """Returns the data set whose examples are the bytes of texts."""
    if context < 1:
        raise InputError(f"context: expected at least 1 byte, got {context}")
    splits = {part: _windows(texts, context) for part, texts in parts.items()}
    return Dataset(
        name, **splits, task="bytes", features=context, classes=256, about=about
    )


def python_files(
    seed: int = 0, limit: int | None = None
) -> tuple[dict[str, list[bytes]], dict[str, Any]]:
    """Returns the files of each part, see `python_source`, and facts for a report.

    Args:
      seed: The seed of the split, any integer.
      limit: The maximum number of files, the first by path; None takes all.

    Raises:
      InputError: This Python has no source files, or too few for each part to get one.

    >>> parts, about = python_files(limit=40)
    >>> list(parts), about["source"]
    (['train', 'valid', 'test'], 'the Python standard library')
    """
    files = _distinct_files(Path(sysconfig.get_paths()["stdlib"]), limit)
    parts: dict[str, list[bytes]] = {"train": [], "valid": [], "test": []}
    for name, text in files.items():
        parts[_part(seed, name)].append(text)
    if not all(parts.values()):
        what = f"{len(files)} source files do not fill train, valid and test"
        raise InputError(f"bytes: {what}; take more files or another seed")
    return parts, {
        "source": "the Python standard library",
        "python": platform.python_version(),
        "seed": seed,
        "split": "by file",
        "sha256": _fingerprint(files),
        "files": {part: len(texts) for part, texts in parts.items()},
        "sizes": {part: sum(map(len, texts)) for part, texts in parts.items()},
    }


def _distinct_files(root: Path, limit: int | None) -> dict[str, bytes]:
    """Returns the contents of the source files by path, without duplicates."""
    names = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [
            name
            for name in subfolders
            if name not in _SKIPPED and not name.startswith(_MACHINE_MADE)
        ]
        names += [
            (Path(folder) / name).relative_to(root).as_posix()
            for name in files
            if name.endswith(".py")
            and not name.startswith(_MACHINE_MADE)
            and Path(folder, name).is_file()  # a distribution may have dangling links
        ]
    distinct = {}  # content to its first path
    for name in sorted(names)[:limit]:
        distinct.setdefault((root / name).read_bytes(), name)
    distinct.pop(b"", None)  # an empty file has no byte to predict
    return {name: text for text, name in distinct.items()}


def _part(seed: int, name: str) -> str:
    """Returns the part of a file: of ten files, eight train, one valid, one test."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    tenth = int.from_bytes(digest[:8], "big") % 10
    return {8: "valid", 9: "test"}.get(tenth, "train")


def _fingerprint(files: dict[str, bytes]) -> str:
    """Returns the SHA-256 of the path, length and content of all files."""
    digest = hashlib.sha256()
    for name, text in files.items():
        digest.update(f"{name}\0{len(text)}\0".encode())
        digest.update(text)
    return digest.hexdigest()


def _windows(texts: list[bytes], context: int) -> Arrays:
    """Returns a part: texts, each after `context` zeros, and where their bytes are."""
    padding = bytes(context)
    text = np.frombuffer(b"".join(padding + text for text in texts), np.uint8)
    real = np.concatenate(
        [np.repeat([False, True], [context, len(text)]) for text in texts]
    )
    return {
        "text": text,
        "ends": np.flatnonzero(real).astype(np.int32),
        "offsets": np.arange(-context, 0, dtype=np.int32),
    }
