"""Texts, with or without labels, from CSV, TSV, JSON lines, JSON and CoNLL files.

    train = read_labelled("intents.tsv", "classify", Columns(text="2", label="1"))
    train.texts[0], train.labels[0]

A file is read in one pass that reports every bad line as `file:line: what`. In a JSON
file of lists the line is the position in the list, from 1.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ffnlab.data import tags
from ffnlab.data.conll import parse_conll, read_conll
from ffnlab.data.csv_files import read_columns
from ffnlab.data.files import collect, is_text, read_json, require_file, stop_at
from ffnlab.data.json_lines import parse_objects, read_objects, texts_of, words_of
from ffnlab.errors import InputError, choose
from ffnlab.escape import terminal

PARTS = ("train", "dev", "test")
KEYS = {"train": "train", "dev": "val", "test": "test"}  # of a JSON file with all parts
FORMATS = {  # that each task can be read from
    "classify": ("csv", "tsv", "jsonl", "json"),
    "pairs": ("csv", "tsv", "jsonl"),
    "tag": ("conll", "jsonl"),
}
TASKS = tuple(FORMATS)
_HEADINGS = ("label", "labels", "class", "category", "target", "intent")


class Columns(NamedTuple):
    """The columns of a table: names of a header, keys, or numbers counted from 1.

    Attributes:
      text: The column of the text.
      pair: The column of the second text, if the task has one.
      label: The column of the label; None does not read labels.
    """

    text: str = "text"
    pair: str = "text2"
    label: str | None = "label"

    def names(self, task: str) -> list[str]:
        """Returns the columns that a task reads: text, second text, label."""
        pair = [self.pair] if task == "pairs" else []
        return [self.text, *pair, *([self.label] if self.label else [])]


class Example(NamedTuple):
    """One text, or pair of texts, of a file.

    Attributes:
      text: The text, the words of a sentence, or a question.
      pair: The second text, or the context of a question.
      row: Its source: an object or list of JSON, the cells of a row, the lines of the
        words, or the id of a question; None for plain text.
      label: The label, or the tags of the words; None if labels are not read.
    """

    text: Any
    pair: str = ""
    row: Any = None
    label: Any = None


class Examples(NamedTuple):
    """The examples of a file, as parallel lists.

    Attributes:
      texts: The text of each example; for `tag` its words.
      pairs: The second texts of `pairs`; otherwise empty.
      labels: The label of each example; for `tag` the tags of its words, in IOB2 if
        they are tags of spans; empty if labels are not read.
      lines: The line of each example, from 1; for `tag` the line of each word.
      scheme: The scheme of the tags in the file, a key of `tags.SCHEMES`, or None.
      rows: The source of each example: the cells of its row, its object or list of
        JSON, the lines of its words; empty if there is no file.
      header: The names of these cells, if the file has a header.
    """

    texts: list[Any]
    pairs: list[str]
    labels: list[Any]
    lines: list[Any]
    scheme: str | None = None
    rows: Sequence[Any] = ()
    header: list[str] | None = None

    def subset(self, index: Sequence[int]) -> "Examples":
        """Returns some of the examples.

        Args:
          index: Their numbers, from 0.
        """

        def take(values: Sequence[Any]) -> Sequence[Any]:
            return [values[i] for i in index] if values else values

        *lists, scheme, rows, header = self
        return Examples(*map(take, lists), scheme, take(rows), header)

    def joined(self, *others: "Examples") -> "Examples":
        """Returns these examples followed by others of the same kind, without rows."""
        columns = zip(*(examples[:4] for examples in (self, *others)), strict=True)
        joined = ([value for part in parts for value in part] for parts in columns)
        return Examples(*joined, self.scheme)


def read_labelled(
    path: str | Path,
    task: str,
    columns: Columns | None = None,
    part: str = "train",
    kind: str | None = None,
) -> Examples:
    """Reads texts and, unless `columns.label` is None, their labels.

    Args:
      path: The file; UTF-8, with or without a byte-order mark, any line ends (for CoNLL
        only line feeds). Blanks at the ends of lines and cells are removed, and blank
        lines are skipped.
      task: One of `TASKS`.
      columns: The columns of the text and the label. Numbers are for a file without a
        header. The default takes the first and the last column of CoNLL.
      part: The list to read from a JSON file with all parts.
      kind: The format, see `format_of`; None takes that of the file's name.

    Raises:
      InputError: No such file, no example in it, or up to 20 lines that cannot be used.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.tsv")
    ...     _ = path.write_text("text\\tlabel\\nhello\\tgreeting\\n")
    ...     read_labelled(path, "classify").labels
    ['greeting']
    """
    path, columns = require_file(path), columns or Columns()
    kind = kind or format_of(path, task)
    if kind == "json":
        examples = _read_lists(path, part, bool(columns.label))
    elif kind == "jsonl":
        examples = _read_objects(path, task, columns)
    elif kind == "conll":
        examples = _read_conll(path, columns)
    else:
        examples = _read_table(path, task, columns, kind)
    if not examples.texts:
        unit = "sentence" if task == "tag" else "example"
        raise InputError(f"{path}:1: no {unit} in it")
    labelled = task == "tag" and columns.label
    return _to_iob2(path, examples) if labelled else examples


def format_of(path: str | Path, task: str) -> str:
    """Returns the format that a task's reader takes for a file, by its name.

    `.csv` and `.tsv` are tables, `.jsonl` has an object per line, and `.json` an object
    of lists `[text, label]` under train, val and test, for classify. For tag, any name
    but `.jsonl` means CoNLL columns.

    Args:
      path: The file.
      task: One of `TASKS`.

    Raises:
      InputError: The task or the ending is unknown.

    >>> format_of("dev.tsv", "classify"), format_of("dev.txt", "tag")
    ('tsv', 'conll')
    """
    formats = FORMATS[choose("task", task, TASKS)]
    ending = Path(path).suffix.lower().removeprefix(".")
    if task == "tag":
        return "jsonl" if ending == "jsonl" else "conll"
    if ending in formats:
        return ending
    *others, last = (f".{name}" for name in formats)
    endings = f"{', '.join(others)} or {last}"
    raise InputError(f"{path}: expected {endings} for task={task}")


def parse_examples(
    lines: Iterable[tuple[int, str]], task: str, columns: Columns, kind: str
) -> Iterator[tuple[int, Example | InputError]]:
    """Yields examples without labels as their lines come, and the problems of lines.

    Args:
      lines: Line numbers, from 1, and lines.
      task: One of `TASKS`.
      columns: The columns of the texts.
      kind: `jsonl` or `conll`.

    Yields:
      Line numbers, and the example or an error that does not name the line.

    >>> lines = enumerate(['{"text": 42}', "[]"], 1)
    >>> [*parse_examples(lines, "classify", Columns(label=None), "jsonl")][0][1].text
    '42'
    """
    if kind == "jsonl":
        yield from _parse_records(parse_objects(lines), task, columns)
        return
    token = _place(columns.text, "text") or 1
    for line, value in parse_conll(lines, token, tagged=False):
        error = isinstance(value, InputError)
        yield line, value if error else Example(value.tokens, row=value.rows)


def _parse_records(
    records: Iterable[tuple[int, dict[str, Any] | InputError]],
    task: str,
    columns: Columns,
) -> Iterator[tuple[int, Example | InputError]]:
    """Yields the example of each object of JSON, or what is wrong with it."""
    names, values_of = columns.names(task), words_of if task == "tag" else texts_of
    for line, record in records:
        try:
            if isinstance(record, InputError):
                raise record
            yield line, _example(values_of(record, names), task, columns, record)
        except InputError as error:
            yield line, error


def _example(cells: Sequence[Any], task: str, columns: Columns, row: Any) -> Example:
    """Returns the example of some cells: text, second text if any, label if any."""
    pair = cells[1] if task == "pairs" else ""
    return Example(cells[0], pair, row, cells[-1] if columns.label else None)


def _examples(
    read: Sequence[tuple[int, Example]],
    task: str,
    columns: Columns,
    header: list[str] | None = None,
) -> Examples:
    """Returns examples with their lines as parallel lists."""
    texts, pairs, rows, labels = (
        zip(*(e for _, e in read), strict=True) if read else [()] * 4
    )
    lines = [[line] * len(e.text) if task == "tag" else line for line, e in read]
    return Examples(
        [*texts],
        [*pairs] if task == "pairs" else [],
        [*labels] if columns.label else [],
        lines,
        rows=[*rows],
        header=header,
    )


def _read_objects(path: Path, task: str, columns: Columns) -> Examples:
    """Returns the examples of JSON lines."""
    read = collect(path, _parse_records(read_objects(path), task, columns))
    return _examples(read, task, columns)


def _read_table(path: Path, task: str, columns: Columns, kind: str) -> Examples:
    """Returns the examples of a CSV or TSV file."""
    header, rows, places = read_columns(path, columns.names(task), kind)
    read = [
        (line, _example([fields[place] for place in places], task, columns, fields))
        for line, fields in rows
    ]
    if not header and columns.label and read:
        line, first = read[0]
        if first.label.lower() in _HEADINGS:
            what = "looks like a header; give the columns by name, not by number"
            stop_at(path, [(line, f"{first.label!r} {what}")])
    return _examples(read, task, columns, header)


def _read_lists(path: Path, part: str, labelled: bool) -> Examples:
    """Returns one part of a JSON file of lists `[text, label]`."""
    lists, key = read_json(path), KEYS[choose("part", part, KEYS)]
    if not isinstance(lists.get(key), list):
        names = [name for name, value in lists.items() if isinstance(value, list)]
        known = ", ".join(map(terminal, names)) or "none"
        raise InputError(f"{path}: no list {key!r}; there is {known}")
    columns = Columns(label="label" if labelled else None)
    read = []
    for number, row in enumerate(lists[key], 1):
        fits = isinstance(row, list) and (len(row) == 2 if labelled else row)
        if fits and all(map(is_text, row if labelled else row[:1])):
            read.append((number, _example(row, "classify", columns, row)))
        else:
            wanted = "pair [text, label]" if labelled else "list [text]"
            read.append((number, InputError(f"expected a {wanted}")))
    read = collect(f"{path}: {key}", read)
    return _examples(read, "classify", columns)


def last_part(path: str | Path) -> str:
    """Returns the last part that a JSON file of lists has: test, dev or train.

    Raises:
      InputError: The file cannot be read, or has none of them.
    """
    path = require_file(path)
    lists = read_json(path)
    parts = [part for part in PARTS if isinstance(lists.get(KEYS[part]), list)]
    if not parts:
        raise InputError(f"{path}: no list {', '.join(KEYS.values())}")
    return parts[-1]


def _read_conll(path: Path, columns: Columns) -> Examples:
    """Returns the sentences of CoNLL columns."""
    token, tag = _place(columns.text, "text") or 1, None
    if columns.label:
        tag = _place(columns.label, "label")
    read = read_conll(path, True, token, tag, tagged=bool(columns.label))
    labels = read.tags if columns.label else []
    return Examples(read.tokens, [], labels, read.lines, rows=read.rows)


def _place(name: str, default: str) -> int | None:
    """Returns the number of a column of CoNLL; None for the default one."""
    if name == default:
        return None
    if not name.isdecimal():
        what = "columns of CoNLL have no names; give a number, from 1"
        raise InputError(f"{default}_column: {name!r}: {what}")
    return int(name)


def _to_iob2(path: Path, examples: Examples) -> Examples:
    """Returns examples with tags of spans in IOB2; other tags stay as they are."""
    if not tags.are_of_spans(tag for row in examples.labels for tag in row):
        return examples  # one label per word, such as parts of speech
    problems = []
    for row, lines in zip(examples.labels, examples.lines, strict=True):
        try:
            tags.spans(row, "bioes")
        except InputError as error:
            problems.append((lines[0], str(error)))
    stop_at(path, problems)
    scheme = tags.scheme_of(examples.labels)
    labels = [tags.convert(row, scheme, "iob2") for row in examples.labels]
    return examples._replace(labels=labels, scheme=scheme)
