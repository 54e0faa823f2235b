"""What is to be predicted on: plain text, JSON lines, CSV, CoNLL columns, questions.

A file is read whole before the first prediction, so that all its bad lines are told at
once; standard input is read line by line.
"""

import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ffnlab.data.conll import BETWEEN, cell_of, is_token
from ffnlab.data.files import (
    decode_line,
    is_text,
    parse_json,
    read_lines,
    require_file,
    stop_at,
)
from ffnlab.errors import InputError
from ffnlab.finetune.outputs import Example

KINDS = ("text", "conll", "jsonl", "csv", "tsv", "json")


class Source(NamedTuple):
    """What is to be predicted on.

    Attributes:
      items: one after another.
      kind: a name of `KINDS`.
      header: the names of the columns of CSV or TSV, if it has some.
    """

    items: Iterator[Example]
    kind: str
    header: list[str] | None = None


Read = Iterator[tuple[int, Example | str]]  # an item or what is wrong, and its line


def open_source(source: str, about: dict[str, Any], kind: str = "auto") -> Source:
    """Returns what is to be predicted on.

    Args:
      source: a file; - is standard input.
      about: how the model is used: `task`, `text_column`, `pair_column`, `marks`.
      kind: a name of `KINDS`; auto is that of the file's ending, and otherwise text,
        as of standard input.

    Raises:
      InputError: the file cannot be read, is of a kind that the task has not, or up to
        20 of its lines cannot be used. Items of a stream raise it when they are read.
    """
    kinds = _kinds(about["task"])
    ending = Path(source).suffix.lower().removeprefix(".")
    if kind == "auto":
        kind = ending if source != "-" and ending in KINDS else "text"
    if kind not in (kinds := [k for k in kinds if source != "-" or k in _READERS]):
        where = "standard input" if source == "-" else source
        raise InputError(
            f"format: {where}: {about['task']} takes {', '.join(kinds)}, not {kind}; "
            "format=text reads a text a line"
        )
    if source == "-":
        return Source(_stream(_READERS[kind], about), kind)
    path = require_file(source)
    if kind == "json":
        return Source(_questions(path), kind)
    if kind in ("csv", "tsv"):
        return _table(path, kind, about)
    texts, problems = read_lines(path)
    items = []
    for line, found in _READERS[kind](enumerate(texts, 1), about):
        if isinstance(found, str):
            problems.append((line, found))
        else:
            items.append(found)
    stop_at(path, problems)
    return Source(iter(items), kind)


def _kinds(task: str) -> list[str]:
    """Returns what a task can be given."""
    more = {"tag": ["conll"], "qa": ["json"]}.get(task, ["csv", "tsv"])
    return ["text", "jsonl", *more]


def _stream(read: Callable[..., Read], about: dict[str, Any]) -> Iterator[Example]:
    """Yields what standard input holds, as it comes."""
    for line, found in read(_numbered(), about):
        if isinstance(found, str):
            raise InputError(f"standard input:{line}: {found}")
        yield found


def _numbered() -> Iterator[tuple[int, str]]:
    """Yields the lines of standard input with their numbers."""
    stream = getattr(sys.stdin, "buffer", sys.stdin)
    for line, data in enumerate(iter(stream), 1):
        data = data.encode() if isinstance(data, str) else data
        try:
            yield line, decode_line(data, line)
        except InputError as error:
            raise InputError(f"standard input:{line}: {error}") from None


def _plain(lines: Iterable[tuple[int, str]], about: dict[str, Any]) -> Read:
    """Reads a text a line, or two with a tab between."""
    for number, line in lines:
        if not (line := line.strip()):
            continue
        first, tab, second = line.partition("\t")
        if about["task"] == "tag":
            yield number, Example(line.split())
        elif not _two(about):
            yield number, _marked(Example(line), about)
        elif first.strip() and second.strip() and "\t" not in second:
            yield number, Example(first, second)
        else:
            two = "two texts" if about["task"] == "pairs" else "question, context"
            yield number, f"expected {two} and one tab between"


def _two(about: dict[str, Any]) -> bool:
    """Whether there are two texts: not where two entities are marked in one."""
    return about["task"] in ("pairs", "qa") and not about.get("marks")


def _marked(item: Example, about: dict[str, Any]) -> Example | str:
    """Returns an item in which two entities are marked, if they are to be."""
    if about.get("marks"):
        from ffnlab.data.examples import replace_markers

        (wrong,) = replace_markers([item.text], about["marks"])[1]
        if wrong:
            return wrong
    return item


def _columns(about: dict[str, Any]) -> list[str]:
    """Returns the columns that are read."""
    return [about["text_column"], *([about["pair_column"]] if _two(about) else [])]


def _objects(lines: Iterable[tuple[int, str]], about: dict[str, Any]) -> Read:
    """Reads an object of JSON a line."""
    for number, line in lines:
        if not line.strip():
            continue
        try:
            yield number, _item(parse_json(line), about)
        except json.JSONDecodeError as error:
            yield number, f"not JSON: {error.msg}"
        except InputError as error:
            yield number, str(error)


def _item(record: Any, about: dict[str, Any]) -> Example | str:
    """Returns what an object of JSON holds."""
    fits, kind = is_text, "a text"
    if about["task"] == "tag":
        fits, kind = _are_words, "a list of words, none blank"
    names = _columns(about)
    for name in names:
        if not isinstance(record, dict):
            return "expected an object of JSON"
        if name not in record:
            return f"no {name!r}; there is {', '.join(record) or 'nothing'}"
        if not fits(record[name]):
            return f"{name!r} should be {kind}"
    pair = record[names[1]] if len(names) > 1 else ""
    return _marked(Example(record[names[0]], pair, record), about)


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_text, value))


def _conll(lines: Iterable[tuple[int, str]], about: dict[str, Any]) -> Read:
    """Reads words from the first of the columns of CoNLL, or that of training."""
    name = about["text_column"]
    place = int(name) if name.isdecimal() else 1
    words: list[str] = []
    rows: list[str] = []
    for number, line in itertools.chain(lines, [(0, "")]):
        line = line.strip(" \t\r\n")
        if is_token(line):
            try:
                words.append(cell_of(BETWEEN.split(line), place))
            except InputError as error:
                yield number, str(error)
        elif words:
            yield number, Example(words, row=rows)
            words, rows = [], []
        if line:
            rows.append(line)


_READERS = {"text": _plain, "conll": _conll, "jsonl": _objects}


def _table(path: Path, kind: str, about: dict[str, Any]) -> Source:
    """Reads rows of CSV or TSV."""
    from ffnlab.data.csv_files import read_columns

    header, rows, places = read_columns(path, _columns(about))
    items, problems = [], []
    for line, cells in rows:
        texts = [cells[place] for place in places]
        found = _marked(Example(*texts, row=cells), about)
        if isinstance(found, str):
            problems.append((line, found))
        else:
            items.append(found)
    stop_at(path, problems)
    return Source(iter(items), kind, header)


def _questions(path: Path) -> Iterator[Example]:
    """Reads the questions of SQuAD's JSON."""
    from ffnlab.data.squad import read_questions

    found = read_questions(path, answered=False)
    for name, question, context in zip(
        found.ids, found.questions, found.contexts, strict=True
    ):
        yield Example(question, context, name)
