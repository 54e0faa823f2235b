"""Texts with labels, from the files people have: CSV, TSV, JSON lines, JSON, CoNLL.

    train = read_labelled("intents.tsv", "classify", Columns(text="2", label="1"))
    train.texts[0], train.labels[0]

A file is read in one pass that tells of every bad line, `file:line: what`; in JSON of
lists the line is the place in the list, from 1.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ffnlab.data import tags
from ffnlab.data.conll import read_conll
from ffnlab.data.csv_files import read_columns
from ffnlab.data.files import (
    is_text,
    parse_json,
    read_json,
    read_lines,
    require_file,
    stop_at,
)
from ffnlab.errors import InputError, choose

TASKS = ("classify", "pairs", "tag")
PARTS = ("train", "dev", "test")
_HEADINGS = ("label", "labels", "class", "category", "target", "intent")
KEYS = {"train": "train", "dev": "val", "test": "test"}  # of JSON with all parts


class Columns(NamedTuple):
    """Where things are: names of a header or keys; or, counted from 1, columns.

    Attributes:
      text: of the text.
      pair: of the second text, if the task has one.
      label: of the label; None if there is none, as in a file to predict on.
    """

    text: str = "text"
    pair: str = "text2"
    label: str | None = "label"


class Examples(NamedTuple):
    """What a file holds; the lists run side by side.

    Attributes:
      texts: a text for each example; for `tag` its words.
      pairs: the second texts of `pairs`; otherwise empty.
      labels: a label for each example, for `tag` one a word, in IOB2 if they are of
        spans; empty without labels.
      lines: the line of each example, from 1, for `tag` of each word.
      scheme: of the tags in the file, a key of `tags.SCHEMES`, or None.
      rows: what each example came in: the cells of its row, its object or list of
        JSON, the lines of its words; empty if it came from no file.
      header: the names of these cells, if the file has a header.
    """

    texts: list[Any]
    pairs: list[str]
    labels: list[Any]
    lines: list[Any]
    scheme: str | None = None
    rows: Sequence[Any] = ()
    header: list[str] | None = None

    def subset(self, index: Sequence[int]) -> "Examples":
        """Returns some of the examples."""

        def some(values: Sequence[Any]) -> Sequence[Any]:
            return [values[i] for i in index] if values else values

        *lists, scheme, rows, header = self
        return Examples(*map(some, lists), scheme, some(rows), header)

    def joined(self, *others: "Examples") -> "Examples":
        """Returns these examples followed by others of the same kind, without rows."""
        columns = zip(*(each[:4] for each in (self, *others)), strict=True)
        joined = ([value for part in parts for value in part] for parts in columns)
        return Examples(*joined, self.scheme)


def read_labelled(
    path: str | Path, task: str, columns: Columns | None = None, part: str = "train"
) -> Examples:
    """Reads texts and their labels.

    The format follows from the name: `.csv`, `.tsv`, `.jsonl`, and `.json` for an
    object of lists `[text, label]` under train, val and test. For `tag` any other name
    is of CoNLL columns, and tags of spans are converted to IOB2.

    Args:
      path: the file; UTF-8, with or without a byte-order mark, any line ends (but a
        line feed for CoNLL). Blanks at the ends of lines and of cells do not count, nor
        do lines without anything else.
      task: one of `TASKS`.
      columns: where text and label are. Numbers are of a file without a header; as
        they are, the first and the last column of CoNLL.
      part: which list of a `.json` file to take.

    Raises:
      InputError: no such file, no example in it, or up to 20 lines that cannot be used.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.tsv")
    ...     _ = path.write_text("text\\tlabel\\nhello\\tgreeting\\n")
    ...     read_labelled(path, "classify").labels
    ['greeting']
    """
    path, columns = require_file(path), columns or Columns()
    choose("task", task, TASKS)
    if task == "tag":
        return _tagged(path, columns)
    kind = path.suffix.lower()
    readers = {".csv": _table, ".tsv": _table, ".jsonl": _objects}
    if kind == ".json" and task == "classify":
        found = _lists(path, part)
    elif kind in readers:
        found = readers[kind](path, task, columns)
    else:
        lists = " or .json" if task == "classify" else ""
        raise InputError(f"{path}: expected .csv, .tsv, .jsonl{lists} for task={task}")
    if not found.texts:
        raise InputError(f"{path}:1: no example in it")
    return found


def _tagged(path: Path, columns: Columns) -> Examples:
    """Returns words and their tags, from CoNLL columns or JSON lines."""
    if path.suffix.lower() == ".jsonl":
        found = _objects(path, "tag", columns)
    else:
        places = _place(columns.text, "text") or 1, _place(columns.label, "label")
        words, tagged, lines, rows = read_conll(path, True, *places)
        found = Examples(words, [], tagged, lines, rows=rows)
    if not found.texts:
        raise InputError(f"{path}:1: no sentence in it")
    return _in_iob2(path, found)


def _place(name: str | None, usual: str) -> int | None:
    """Returns the number of a column of CoNLL; None for the usual one."""
    if name is None or name == usual:
        return None
    if not name.isdecimal():
        what = "columns of CoNLL have no names; give a number, from 1"
        raise InputError(f"{usual}_column: {name!r}: {what}")
    return int(name)


def _in_iob2(path: Path, found: Examples) -> Examples:
    if not tags.are_of_spans(tag for row in found.labels for tag in row):
        return found  # one label a word, not spans: parts of speech, for instance
    problems = []
    for row, lines in zip(found.labels, found.lines, strict=True):
        try:
            tags.spans(row, "bioes")
        except InputError as error:
            problems.append((lines[0], str(error)))
    stop_at(path, problems)
    scheme = tags.scheme_of(found.labels)
    labels = [tags.convert(row, scheme, "iob2") for row in found.labels]
    return found._replace(labels=labels, scheme=scheme)


def _table(path: Path, task: str, columns: Columns) -> Examples:
    """Returns the examples of a CSV or TSV file."""
    names = [columns.text, *([columns.pair] if task == "pairs" else [])]
    names += [columns.label] if columns.label else []
    header, rows, places = read_columns(path, names)
    cut = [(line, [fields[place] for place in places]) for line, fields in rows]
    if not header and columns.label and cut and cut[0][1][-1].lower() in _HEADINGS:
        what = "looks like a header; give the columns by name, not by number"
        stop_at(path, [(cut[0][0], f"{cut[0][1][-1]!r} {what}")])
    found = _examples(cut, task, columns)
    return found._replace(rows=[fields for _, fields in rows], header=header)


def _examples(
    rows: Sequence[tuple[int, list[Any]]], task: str, columns: Columns
) -> Examples:
    """Returns examples from a line and its cells: text, pair if any, label if any."""
    texts = [cells[0] for _, cells in rows]
    pairs = [cells[1] for _, cells in rows] if task == "pairs" else []
    labels = [cells[-1] for _, cells in rows] if columns.label else []
    return Examples(texts, pairs, labels, [line for line, _ in rows])


def _objects(path: Path, task: str, columns: Columns) -> Examples:
    """Returns the examples of JSON lines."""
    names = [columns.text, *([columns.pair] if task == "pairs" else [])]
    names += [columns.label] if columns.label else []
    texts, problems = read_lines(path)
    rows, records = [], []
    for line, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            record = parse_json(text)
            cells = _cells(record, names, task)
        except json.JSONDecodeError as error:
            problems.append((line, f"not JSON: {error.msg}"))
        except InputError as error:
            problems.append((line, str(error)))
        else:
            rows.append((line, cells))
            records.append(record)
    stop_at(path, problems)
    found = _examples(rows, task, columns)._replace(rows=records)
    if task == "tag":
        lines = [[line] * len(c[0]) for line, c in rows]
        return found._replace(lines=lines)
    return found


def _cells(record: Any, names: Sequence[str], task: str) -> list[Any]:
    """Returns the values of some keys.

    Raises:
      InputError: what is wrong, without the line.
    """
    if not isinstance(record, dict):
        raise InputError("expected an object of JSON")
    cells = []
    for name in names:
        if name not in record:
            raise InputError(f"no {name!r}; there is {', '.join(record) or 'nothing'}")
        value = record[name]
        if task == "tag":
            fits = isinstance(value, list) and all(map(is_text, value))
            if not fits or not value:
                raise InputError(
                    f"{name!r} should be a list of words or tags, none blank"
                )
            cells.append(value)
            continue
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise InputError(f"{name!r} should be a text or a whole number")
        if not is_text(str(value)):
            raise InputError(f"{name!r} is empty, or holds half a character")
        cells.append(str(value))
    if task == "tag" and len(names) > 1 and len(cells[0]) != len(cells[1]):
        raise InputError(f"{len(cells[0])} words and {len(cells[1])} tags")
    return cells


def _lists(path: Path, part: str) -> Examples:
    """Returns one part of a JSON file of lists `[text, label]`."""
    found, key = read_json(path), KEYS[choose("part", part, KEYS)]
    if not isinstance(found.get(key), list):
        lists = [name for name, value in found.items() if isinstance(value, list)]
        raise InputError(
            f"{path}: no list {key!r}; there is {', '.join(lists) or 'none'}"
        )
    rows, problems = [], []
    for number, row in enumerate(found[key], 1):
        good = isinstance(row, list) and len(row) == 2
        if not good or not all(map(is_text, row)):
            problems.append((number, "expected a pair [text, label]"))
        rows.append((number, row))
    stop_at(f"{path}: {key}", problems)
    return _examples(rows, "classify", Columns())._replace(rows=found[key])


def label_names(train: Examples, task: str, path: str = "train") -> list[str]:
    """Returns the labels of the training part, in order; for `tag` O is the first.

    Spans get both of their tags, B- and I-, so that any span can be written.

    Raises:
      InputError: there is but one label, and nothing to tell apart.
    """
    if task != "tag":
        names = sorted(set(train.labels))
    else:
        every = {tag for row in train.labels for tag in row}
        kinds = sorted({tag[2:] for tag in every if train.scheme and tag != "O"})
        spans = [f"{prefix}-{kind}" for kind in kinds for prefix in "BI"]
        names = ["O", *spans] if train.scheme else sorted(every)
    if len(names) < 2:
        what = f"every label is {names[0]!r}: there is nothing to tell apart"
        raise InputError(f"{path}: {what}")
    return names


def label_ids(
    path: str, found: Examples, names: Sequence[str], ignore: bool = False
) -> list[Any]:
    """Returns labels as numbers; for `tag` a list for each sentence.

    Args:
      path: the file, for messages.
      found: what was read.
      names: from `label_names`.
      ignore: whether a label that is not among them becomes −1, which no prediction
        hits; otherwise it is an error.

    Raises:
      InputError: labels that training has not shown, each with its count and line.
    """
    known = {name: number for number, name in enumerate(names)}
    nested = bool(found.labels) and isinstance(found.labels[0], list)
    flat, lines = found.labels, found.lines
    if nested:
        flat, lines = ([v for row in rows for v in row] for rows in (flat, lines))
    unseen = Counter(label for label in flat if label not in known)
    if unseen and not ignore:
        first = dict(reversed([*zip(flat, lines, strict=True)]))
        told = ", ".join(
            f"{name!r} ({count}, first in line {first[name]})"
            for name, count in unseen.most_common(8)
        )
        told += f" and {len(unseen) - 8} more" if len(unseen) > 8 else ""
        raise InputError(
            f"{path}: labels that training does not show: {told}; correct them, or "
            "unseen_labels=ignore counts them as missed"
        )
    if nested:
        return [[known.get(tag, -1) for tag in row] for row in found.labels]
    return [known.get(label, -1) for label in found.labels]


SIGNS = ("$", "#")  # signs that every tokenizer has, in place of marks that none has


def replace_markers(
    texts: Sequence[str], marks: tuple[str, str]
) -> tuple[list[str], list[str | None]]:
    """Returns texts with signs around the two entities, and what is wrong with each.

    Args:
      texts: each has `<MARK>` and `</MARK>` once, around words, for both marks.
      marks: of the first and of the second entity.

    Returns:
      N texts, and for each what is wrong with it, or None.

    Source: the signs of Wu & He 2019, "Enriching Pre-trained Language Model with Entity
    Information for Relation Classification".

    >>> replace_markers(["<a>Ada</a> of <b>London</b>", "<a>Ada</a>"], ("a", "b"))[0][0]
    '$ Ada $ of # London #'
    >>> replace_markers(["<a>Ada</a>"], ("a", "b"))[1]
    ['expected one <b>…</b> in it, found 0']
    """
    found, wrong = [], []
    for text in texts:
        problem = None
        for mark, sign in zip(marks, SIGNS, strict=True):
            name = re.escape(mark)
            pattern = rf"\s*<{name}>\s*(\S.*?)\s*</{name}>\s*"
            text, count = re.subn(pattern, rf" {sign} \1 {sign} ", text)
            loose = len(re.findall(rf"</?{name}>", text))
            if count != 1 or loose:
                problem = problem or (
                    f"expected one <{mark}>…</{mark}> in it, found {count}"
                    + (" and a mark alone" if loose else "")
                )
        found.append(text.strip())
        wrong.append(problem)
    return found, wrong
