"""The format of an input of predictions: by its name, or by its first lines."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ffnlab.data import formats, squad, tag_layouts
from ffnlab.data.column_lines import are_columns
from ffnlab.data.column_names import Columns
from ffnlab.data.examples import FORMATS, format_of
from ffnlab.data.files import read_lines
from ffnlab.errors import InputError
from ffnlab.finetune.usage import Usage

KINDS = ("text", "conll", "jsonl", "csv", "tsv", "json", *formats.BINARY)
STREAMED = ("text", "conll", "jsonl")
_FORMATS = {**FORMATS, "qa": squad.FORMATS}


def reading(usage: Usage) -> tuple[str, Columns]:
    """Returns the task whose files are read, and the columns, without labels."""
    text, pair = usage.text_column, usage.pair_column
    if usage.task == "tag":
        return "tag", Columns(text, label=None)
    if usage.task == "qa":
        return "qa", Columns("question", "context", None)
    task = "pairs" if usage.two_texts else "classify"
    task = "generate" if usage.task == "generate" else task
    return task, Columns(text, pair, None)


def known_formats(task: str) -> tuple[str, ...]:
    """Returns the formats that a task takes."""
    return ("text", *_FORMATS[task])


def check_format(where: Any, task: str, kind: str, known: Sequence[str]) -> str:
    """Returns a format, if it is among those that a task takes."""
    if kind not in known:
        raise InputError(
            f"format: {where}: {task} takes {', '.join(known)}, not {kind}; "
            "format=text reads a text per line"
        )
    return kind


def find_format(path: Path, usage: Usage, kind: str, labels: Sequence[str]) -> str:
    """Returns the format of a file.

    For tag, as in training, an unknown ending means CoNLL columns, and `.csv` a table
    of words.

    Args:
      path: The file.
      usage: How the model is used.
      kind: A name of `KINDS`, or `auto`.
      labels: The labels of the model, by which columns are known.

    Raises:
      InputError: The task does not take it.
    """
    task, known = usage.task, known_formats(usage.task)
    if kind != "auto":
        return check_format(path, task, kind, known)
    plain = path.suffix.lower() in ("", ".txt")
    binary = formats.binary_format(path)
    if task == "tag" and not plain and not binary:
        return format_of(path, *reading(usage))
    kind = binary or formats.ending_format(path)
    if kind in known or kind in ("csv", "json"):
        return check_format(path, task, kind, known)
    lines = read_lines(path)[0] if task == "tag" else [formats.first_line(path)]
    return _shown(lines, usage, labels)


def show_format(
    lines: Iterator[tuple[int, str]], usage: Usage, labels: Sequence[str]
) -> tuple[str, Iterator[tuple[int, str]]]:
    """Returns the format that the first lines of standard input show, and all lines.

    No more lines are taken than are needed, since their writer may be waiting.

    Args:
      lines: Line numbers, from 1, and lines.
      usage: How the model is used.
      labels: The labels of the model, by which columns are known.
    """
    seen: list[tuple[int, str]] = []

    def take() -> Iterator[str]:
        for number, line in lines:
            seen.append((number, line))
            yield line.removeprefix(tag_layouts.MARK)

    kind = _shown(take(), usage, labels, eager=True)
    return kind, itertools.chain(seen, lines)


def _shown(
    lines: Iterable[str], usage: Usage, labels: Sequence[str], eager: bool = False
) -> str:
    """Returns the format that lines show: text, if they show no other.

    Columns are looked for if the model was trained on columns.
    """
    lines = iter(lines)
    first = next((line for line in lines if line.strip()), "")
    if kind := formats.line_format(first, *reading(usage)):
        return kind
    if usage.file_format not in tag_layouts.FORMATS:
        return "text"
    given = usage.label_column or ""
    column = int(given) - 1 if given.isdecimal() else -1
    lines = itertools.chain([first], lines)
    return "conll" if are_columns(lines, labels, column, eager) else "text"
