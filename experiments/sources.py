"""What is to be predicted on, as it is read: plain text, JSON lines, CoNLL columns."""

import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ffnlab.errors import InputError


class Item(NamedTuple):
    """One thing to predict on.

    Attributes:
      text: the text, the words of a sentence, or a question.
      pair: the second text, or the context of a question.
      record: what it came in, if that was JSON.
    """

    text: Any
    pair: str = ""
    record: dict[str, Any] | None = None


def items(source: str, about: dict[str, Any]) -> Iterator[Item]:
    """Yields what is to be predicted on, as it is read.

    Args:
      source: a file; - is standard input.
      about: how the model is used: `task`, `text_column`, `pair_column`.

    Raises:
      InputError: a line cannot be used.
    """
    from ffnlab.data.files import require_file

    if source == "-":
        yield from _plain("standard input", sys.stdin, about)
        return
    path = require_file(source)
    kind = path.suffix.lower()
    if about["task"] == "qa" and kind == ".json":
        yield from _questions(path)
    elif about["task"] == "tag" and kind == ".conll":
        yield from _conll(path)
    else:
        with path.open(encoding="utf-8-sig") as file:
            read = _objects if kind == ".jsonl" else _plain
            yield from read(str(path), file, about)


def _plain(source: str, lines: Iterable[str], about: dict[str, Any]) -> Iterator[Item]:
    for number, line in _decoded(source, lines):
        if about["task"] == "tag":
            yield Item(line.split())
        elif _two(about):
            first, tab, second = line.partition("\t")
            if not tab or not second.strip():
                two = "two texts" if about["task"] == "pairs" else "question, context"
                raise InputError(f"{source}:{number}: expected {two} and a tab between")
            yield Item(first, second)
        else:
            yield Item(_marked(f"{source}:{number}", line, about))


def _two(about: dict[str, Any]) -> bool:
    """Whether there are two texts: not where two entities are marked in one."""
    return about["task"] in ("pairs", "qa") and not about.get("marks")


def _marked(where: str, text: Any, about: dict[str, Any]) -> Any:
    """Returns a text, in which two entities are marked if they are to be."""
    if about.get("marks"):
        from ffnlab.data.marked import unmarked

        (wrong,) = unmarked([text], about["marks"])[1]
        if wrong:
            raise InputError(f"{where}: {wrong}")
    return text


def _decoded(source: str, lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yields lines that are not blank, with their numbers."""
    numbers, lines = itertools.count(1), iter(lines)
    while True:
        number = next(numbers)
        try:
            line = next(lines, None)
        except UnicodeDecodeError:
            raise InputError(f"{source}:{number}: not UTF-8") from None
        if line is None:
            return
        if line.strip():
            yield number, line.strip()


def _objects(
    source: str, lines: Iterable[str], about: dict[str, Any]
) -> Iterator[Item]:
    keys = [about["text_column"]]
    keys += [about["pair_column"]] if _two(about) else []
    for number, line in _decoded(source, lines):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{source}:{number}: not JSON: {error.msg}") from None
        wanted = list if about["task"] == "tag" else str
        for key in keys:
            if not isinstance(record, dict) or not isinstance(record.get(key), wanted):
                kind = "a list of words" if wanted is list else "a text"
                raise InputError(f"{source}:{number}: {key!r} should be {kind}")
        text = _marked(f"{source}:{number}", record[keys[0]], about)
        yield Item(text, record[keys[-1]] if len(keys) > 1 else "", record)


def _conll(path: Path) -> Iterator[Item]:
    words: list[str] = []
    with path.open(encoding="utf-8-sig") as file:
        for line in _every(str(path), file):
            if line and not line.startswith("-DOCSTART-"):
                words.append(line.split()[0])
            elif words:
                yield Item(words)
                words = []
    if words:
        yield Item(words)


def _every(source: str, lines: Iterable[str]) -> Iterator[str]:
    """Yields all lines."""
    try:
        for line in lines:
            yield line.strip()
    except UnicodeDecodeError:
        raise InputError(f"{source}: not UTF-8") from None


def _questions(path: Path) -> Iterator[Item]:
    from ffnlab.data.questions import read_questions

    found = read_questions(path, answered=False)
    for name, question, context in zip(
        found.ids, found.questions, found.contexts, strict=True
    ):
        yield Item(question, context, {"id": name, "question": question})
