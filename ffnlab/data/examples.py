"""Texts, with or without labels, from CSV, TSV, JSON, Parquet, Arrow and CoNLL files.

    train = read_labelled("intents.tsv", "classify", Columns(text="2", label="1"))
    train.texts[0], train.labels[0]

A file is read in one pass that reports every bad line as `file:line: what`. In a JSON
array, and in Parquet, the line is the number of the row, from 1.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ffnlab.data import arrow_files, formats, json_rows, tags
from ffnlab.data.column_names import Columns
from ffnlab.data.conll import parse_conll, read_conll
from ffnlab.data.example import Example
from ffnlab.data.files import collect, require_file, stop_at
from ffnlab.data.formats import Layout
from ffnlab.data.json_files import PART_KEYS, read_json_rows
from ffnlab.data.json_lines import parse_objects
from ffnlab.data.json_rows import make_example
from ffnlab.data.numbered_labels import name_labels
from ffnlab.data.targets import Targets, check_separator, single_labels
from ffnlab.data.text_tables import (
    cell_text,
    check_columns,
    quoting_note,
    read_table,
)
from ffnlab.errors import InputError, choose

PARTS = tuple(PART_KEYS)
_TABLES = ("csv", "tsv", "jsonl", "json", *formats.BINARY)
FORMATS = {  # that each task can be read from
    "classify": _TABLES,
    "pairs": _TABLES,
    "tag": ("conll", "jsonl", "json", *formats.BINARY),
    "generate": _TABLES,
}
TASKS = tuple(FORMATS)
_ONE_LABEL = ("classify", "pairs")  # tasks of a label for each example
_HEADINGS = ("label", "labels", "class", "category", "target", "intent")
_TEXT_HEADINGS = (*_HEADINGS, "text", "summary", "highlights", "target_text")


class Examples(NamedTuple):
    """The examples of a file, as parallel lists.

    Attributes:
      texts: The text of each example; for `tag` its words.
      pairs: The second texts of `pairs`; otherwise empty.
      labels: The label of each example, or its `Targets`; for `tag` the tags of its
        words, in IOB2 if they are tags of spans; empty if labels are not read.
      lines: The line of each example, from 1; for `tag` the line of each word.
      scheme: The scheme of the tags in the file, a key of `tags.SCHEMES`, or None.
      rows: The source of each example, see `Example`; empty if there is no file.
      header: The names of the cells of a row, if the file has a header.
      layout: How the file was written; None if there is no file.
    """

    texts: list[Any]
    pairs: list[str]
    labels: list[Any]
    lines: list[Any]
    scheme: str | None = None
    rows: Sequence[Any] = ()
    header: list[str] | None = None
    layout: Layout | None = None

    def subset(self, index: Sequence[int]) -> "Examples":
        """Returns some of the examples.

        Args:
          index: Their numbers, from 0.
        """

        def take(values: Sequence[Any]) -> Sequence[Any]:
            return [values[i] for i in index] if values else values

        *lists, scheme, rows, header, layout = self
        return Examples(*map(take, lists), scheme, take(rows), header, layout)

    def joined(self, *others: "Examples") -> "Examples":
        """Returns these examples followed by others of the same kind, without rows."""
        columns = zip(*(examples[:4] for examples in (self, *others)), strict=True)
        joined = ([value for part in parts for value in part] for parts in columns)
        return Examples(*joined, self.scheme, layout=self.layout)


def read_labelled(
    path: str | Path,
    task: str,
    columns: Columns | None = None,
    part: str | None = "train",
    kind: str | None = None,
    names: Sequence[str] = (),
    targets: Targets | None = None,
) -> Examples:
    """Reads texts and, unless `columns.label` is None, their labels.

    Args:
      path: The file; UTF-8, with or without a byte-order mark, any line ends (for CoNLL
        only line feeds). Blanks at the ends of lines and cells are removed from texts,
        and blank lines are skipped.
      task: One of `TASKS`.
      columns: The columns of the text and the label. Numbers are for a file without a
        header. The default takes the first and the last column of CoNLL, and of other
        files the names that `Columns.resolve` finds.
      part: The part to read from a JSON file that has several; None takes the last.
      kind: The format, see `format_of`; None takes that of the file.
      names: The names of labels that are numbers, in their order.
      targets: How targets are read that are numbers, or several labels of a text; None
        reads one label.

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
    kind = kind or format_of(path, task, columns)
    if kind in formats.BINARY:
        examples, names = _read_arrow(path, task, columns, kind, names, targets)
    elif kind in ("json", "jsonl"):
        examples = _read_json(path, task, columns, part, kind, targets)
    elif kind == "conll":
        examples = _read_conll(path, columns)
    else:
        examples = _read_table(path, task, columns, kind, targets)
    if not examples.texts:
        unit = "sentence" if task == "tag" else "example"
        raise InputError(f"{path}:1: no {unit} in it")
    if not columns.label:
        return examples
    if targets:
        return _named_targets(path, examples, names, targets, part)
    column = examples.layout.columns.label
    named = name_labels(path, examples.labels, examples.lines, names, column)
    examples = examples._replace(labels=named)
    return _to_iob2(path, examples) if task == "tag" else examples


def _named_targets(
    path: Path,
    examples: Examples,
    names: Sequence[str],
    targets: Targets,
    part: str | None,
) -> Examples:
    """Returns examples whose lists of labels are of names, where there are names."""
    if targets.several and targets.separator is None and part == "train":
        check_separator(path, examples.labels, examples.layout.columns.label)
    if not targets.several or not names:
        return examples
    pairs = zip(examples.labels, examples.lines, strict=True)
    lines = [[line] * len(labels) for labels, line in pairs]
    named = name_labels(path, examples.labels, lines, names)
    return examples._replace(labels=named)


def format_of(path: str | Path, task: str, columns: Columns | None = None) -> str:
    """Returns the format that a task's reader takes for a file.

    The ending of its name decides, or the content where that is Parquet or Arrow. A
    file of another ending is JSON or a table if its first line shows the columns. For
    tag, any other name means CoNLL columns.

    Args:
      path: The file.
      task: One of `TASKS`.
      columns: The columns of the texts.

    Raises:
      InputError: The task or the format is unknown.

    >>> format_of("dev.tsv", "classify"), format_of("dev.txt", "tag")
    ('tsv', 'conll')
    """
    known = FORMATS[choose("task", task, TASKS)]
    kind = formats.binary_format(path) or formats.ending_format(path)
    if kind is None and Path(path).is_file():
        line = formats.first_line(path)
        kind = formats.line_format(line, task, columns or Columns())
    if kind in known:
        return kind
    if task == "tag":
        return "conll"
    *others, last = (f".{name}" for name in known)
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
      Line numbers, and the example or an error that does not name the line. Where
      lines without words end CoNLL, the last example has these and no words.

    >>> lines = enumerate(['{"text": 42}', "[]"], 1)
    >>> [*parse_examples(lines, "classify", Columns(label=None), "jsonl")][0][1].text
    '42'
    """
    if kind == "jsonl":
        objects = parse_objects(lines)
        first = next(objects, None)
        if first:
            columns = columns.resolve(task, json_rows.column_names([first]))
            yield from json_rows.parse_rows([first], task, columns)
        yield from json_rows.parse_rows(objects, task, columns)
        return
    for line, value in parse_conll(lines, columns.text, tagged=False):
        error = isinstance(value, InputError)
        yield line, value if error else Example(value.tokens, row=value.source)


def _examples(
    read: Sequence[tuple[int, Example]],
    task: str,
    layout: Layout,
    header: list[str] | None = None,
) -> Examples:
    """Returns examples with their lines as parallel lists."""
    texts, pairs, rows, labels = (
        zip(*(e for _, e in read), strict=True) if read else [()] * 4
    )
    lines = [_lines(line, each) if task == "tag" else line for line, each in read]
    return Examples(
        [*texts],
        [*pairs] if task == "pairs" else [],
        [*labels] if layout.columns.label else [],
        lines,
        rows=[*rows],
        header=header,
        layout=layout,
    )


def _lines(line: int, sentence: Example) -> list[int]:
    """Returns the line of each word; in an array a word may be a row of its own."""
    words = len(sentence.text)
    if isinstance(sentence.row, tuple):
        return [*range(line, line + words)]
    return [line] * words


def _read_json(
    path: Path,
    task: str,
    columns: Columns,
    part: str | None,
    kind: str,
    targets: Targets | None,
) -> Examples:
    """Returns the examples of JSON lines, or of a JSON file in any layout."""
    file = read_json_rows(path, part, kind, task == "tag")
    found = columns.resolve(task, json_rows.column_names(file.rows))
    rows = file.rows
    if found.label and not targets and task in _ONE_LABEL:
        rows = single_labels(file.where, rows, found.label)
    read = collect(file.where, json_rows.parse_rows(rows, task, found, targets))
    note = "" if kind == file.kind == "jsonl" else file.note
    named = _columns_note(task, columns, found)
    note = formats.describe(path, file.kind, note, named)
    layout = Layout(file.kind, found, note, file.part, file.around)
    return _examples(read, task, layout)


def _read_arrow(
    path: Path,
    task: str,
    columns: Columns,
    kind: str,
    names: Sequence[str],
    targets: Targets | None,
) -> tuple[Examples, Sequence[str]]:
    """Returns the examples of a Parquet or Arrow file, and the names of its labels."""
    held = arrow_files.column_names(path)
    found = columns.resolve(task, held)
    needed = found.names(task)
    for name in needed:
        choose(f"{path}: column", name, held)
    rows = enumerate(arrow_files.iter_rows(path, needed), 1)
    if found.label and not targets and task in _ONE_LABEL:
        rows = single_labels(path, rows, found.label)
    read = collect(path, json_rows.parse_rows(rows, task, found, targets))
    read = [(line, each._replace(row=line - 1)) for line, each in read]
    note = ""
    if found.label and not names:
        names = arrow_files.class_names(path, found.label)
        note = f"names of labels from the file: {', '.join(names)}" if names else ""
    named = _columns_note(task, columns, found)
    note = formats.describe(path, kind, note, named)
    return _examples(read, task, Layout(kind, found, note)), names


def _columns_note(task: str, columns: Columns, found: Columns) -> str:
    """Returns the columns that were found, unless they are those that were given."""
    return f"columns {', '.join(found.names(task))}" if found != columns else ""


def _read_table(
    path: Path, task: str, columns: Columns, kind: str, targets: Targets | None
) -> Examples:
    """Returns the examples of a CSV or TSV file."""
    records, problems = read_table(path, kind)
    found = columns
    numbered = all(map(str.isdecimal, columns.names(task)))
    if records and (not numbered or not columns.label):  # labelled files have one form
        found = columns.resolve(task, [cell.strip() for cell in records[0][1]])
    optional = found.labels if targets and targets.several else ()
    header, rows, places = check_columns(
        path, found.names(task), records, problems, optional
    )
    parsed: list[tuple[int, Example | InputError]] = []
    for line, row in rows:
        cells = [cell_text(row[place]) for place in places]
        try:
            parsed.append((line, make_example(cells, task, found, row, targets)))
        except InputError as error:
            parsed.append((line, error))
    read = collect(path, parsed)
    if not header and read:
        line, first = read[0]
        if not columns.label:
            _check_no_header(path, line, first.row, _TEXT_HEADINGS)
        elif not targets:  # one label, or the text to generate
            headings = _TEXT_HEADINGS if task == "generate" else _HEADINGS
            _check_no_header(path, line, [first.label], headings)
    quoting = quoting_note([row for _, row in records])
    named = _columns_note(task, columns, found)
    if not header and not columns.label:
        named = f"no header; text in column {' and '.join(found.names(task))}"
    note = formats.describe(path, kind, quoting, named)
    return _examples(read, task, Layout(kind, found, note), header)


def _check_no_header(
    path: Path, line: int, cells: Sequence[str], headings: Sequence[str]
) -> None:
    """Raises if a cell of the first row, of columns by number, is a usual heading."""
    for cell in cells:
        if cell.strip().lower() in headings:
            what = "looks like a header; give the columns by name: text_column=NAME"
            stop_at(path, [(line, f"{cell!r} {what}")])


def _read_conll(path: Path, columns: Columns) -> Examples:
    """Returns the sentences of CoNLL columns, of CoNLL-U or of a table of words."""
    tagged = bool(columns.label)
    read = read_conll(path, True, columns.text, columns.label, tagged)
    labels = read.tags if tagged else []
    layout = Layout("conll", columns, read.source[0].about)
    return Examples(
        read.tokens, [], labels, read.lines, rows=read.source, layout=layout
    )


def _to_iob2(path: Path, examples: Examples) -> Examples:
    """Returns examples with tags of spans in IOB2; other tags stay as they are."""
    labelled = examples.rows and getattr(examples.rows[0], "labelled", False)
    known = {tag for row in examples.labels for tag in row}
    if labelled or not tags.are_of_spans(known):
        return examples  # one label per word, such as parts of speech
    problems, family = [], tags.family_of(examples.labels)
    for row, lines in zip(examples.labels, examples.lines, strict=True):
        try:
            tags.spans(row, family)
        except InputError as error:
            problems.append((lines[0], str(error)))
    stop_at(path, problems)
    scheme = tags.scheme_of(examples.labels)
    labels = [tags.convert(row, scheme, "iob2") for row in examples.labels]
    return examples._replace(labels=labels, scheme=scheme)
