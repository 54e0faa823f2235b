"""Examples from the objects and lists of JSON, and from rows of Parquet.

Objects have the columns as keys. Lists are those of simpletransformers: `[text,
label]`, `[text, text, label]`, and for tag `[sentence, word, tag]`, a row per word; or
`[words, tags]`.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ffnlab.data.column_names import Columns
from ffnlab.data.example import Example
from ffnlab.data.files import is_text
from ffnlab.data.json_lines import texts_of, value_of, words_of
from ffnlab.data.targets import Targets
from ffnlab.errors import InputError

Rows = Iterable[tuple[int, Any]]
Numbered = Iterator[tuple[int, Example | InputError]]


def parse_rows(
    rows: Rows, task: str, columns: Columns, targets: Targets | None = None
) -> Numbered:
    """Yields the example of each row, or what is wrong with it.

    Args:
      rows: The number of each row, and its object, list or error.
      task: A name of `examples.TASKS`.
      columns: The columns; those of lists are known by their places.
      targets: How targets are read; None reads one label of each.

    >>> rows = [(1, ["hello", True]), (2, {"text": "bye", "label": 0})]
    >>> [example.label for _, example in parse_rows(rows, "classify", Columns())]
    ['true', '0']
    """
    if task == "tag":
        rows = _grouped(rows, bool(columns.label))
    for line, row in rows:
        try:
            if isinstance(row, InputError):
                raise row
            yield line, _parse(row, task, columns, targets)
        except InputError as error:
            yield line, error


def column_names(rows: Rows) -> list[str]:
    """Returns the keys of the first object; none if there is no object."""
    return next((list(row) for _, row in rows if isinstance(row, dict)), [])


def make_example(
    cells: Sequence[Any],
    task: str,
    columns: Columns,
    row: Any,
    targets: Targets | None = None,
) -> Example:
    """Returns the example of some cells: text, second text if any, label if any."""
    pair, names = cells[1] if task == "pairs" else "", columns.labels
    label = cells[-1] if names else None
    if targets and names:
        label = targets.parse(cells[-len(names) :], names)
    return Example(cells[0], pair, row, label)


def _parse(row: Any, task: str, columns: Columns, targets: Targets | None) -> Example:
    """Returns the example of a row.

    Raises:
      InputError: The row cannot be used; without its number.
    """
    names = columns.names(task)
    if isinstance(row, Example):
        return row
    values = row
    if not isinstance(row, dict):
        cells = _list_cells(row, task, columns, targets)
        values = dict(zip(names, cells, strict=True))
    if targets and columns.label:
        texts = texts_of(values, columns._replace(label=None).names(task))
        held = [value_of(values, name) for name in columns.labels]
        return make_example([*texts, *held], task, columns, row, targets)
    values_of = words_of if task == "tag" else texts_of
    cells = values_of(values, names, columns.label)
    return make_example(cells, task, columns, row)


def _list_cells(
    row: list[Any], task: str, columns: Columns, targets: Targets | None
) -> list[Any]:
    """Returns the cells that are needed of a list.

    Raises:
      InputError: It has others; without its number.
    """
    count = len(columns.names(task))
    label = ["label"] * len(columns.labels)
    names = {"tag": ["words"], "pairs": ["text", "text"]}.get(task, ["text"]) + label
    fits = len(row) == count if label else len(row) >= count
    texts = row[: count - len(label)] if fits else []
    if fits and (task == "tag" or all(map(is_text, texts))):
        cells = row[:count]
        single = not targets and bool(label)
        if task == "tag" or not single or isinstance(cells[-1], str | int):
            return cells
    kind = "pair" if count == 2 else "list"
    raise InputError(f"expected a {kind} [{', '.join(names)}]")


def _grouped(rows: Rows, labelled: bool) -> Rows:
    """Returns rows in which the lists of the words of a sentence are one example."""
    for (sentence, _), group in itertools.groupby(rows, key=_sentence):
        if sentence is None:
            yield from group
            continue
        words, tags, held, first = [], [], [], None
        for line, row in group:
            first = first or line
            if problem := _wrong_word(row, labelled):
                yield line, InputError(problem)
                continue
            held.append(row)
            words.append(row[1])
            tags += row[2:3]
        if words:
            yield first, Example(words, "", tuple(held), tags if labelled else None)


def _sentence(numbered: tuple[int, Any]) -> tuple[Any, int]:
    """Returns what the rows of a sentence share; other rows share nothing."""
    row = numbered[1]
    if isinstance(row, list) and row and not isinstance(row[0], list | dict):
        return str(row[0]), 0
    return None, numbered[0]


def _wrong_word(row: list[Any], labelled: bool) -> str:
    """Returns what is wrong with the list of a word; empty if nothing is."""
    fits = len(row) == 3 if labelled else len(row) > 1
    if fits and is_text(row[1]) and (not labelled or _is_tag(row[2])):
        return ""
    return f"expected a list [sentence, word{', tag' if labelled else ''}]"


def _is_tag(value: Any) -> bool:
    return is_text(value) or type(value) is int
