"""The examples to predict on, from a file or line by line from standard input.

Files are read by the readers of training, with labels optional; plain text is read
here. A file is read whole before the first prediction, so that all its bad lines are
reported at once. Of standard input the first line shows whether it is text, JSON or a
table, which is then read whole too.
"""

import itertools
import math
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ffnlab.data import arrow_files, formats, squad
from ffnlab.data.column_names import Columns
from ffnlab.data.entity_markers import check_markers, replace_markers
from ffnlab.data.example import Example
from ffnlab.data.examples import parse_examples, read_labelled
from ffnlab.data.files import collect, decode_line, read_lines, require_file
from ffnlab.data.json_files import read_json_rows
from ffnlab.data.json_lines import parse_objects, texts_of, words_of
from ffnlab.data.tag_layouts import MARK
from ffnlab.errors import InputError, choose
from ffnlab.finetune.input_formats import (
    STREAMED,
    check_format,
    find_format,
    known_formats,
    reading,
    show_format,
)
from ffnlab.finetune.usage import Usage

Numbered = Iterator[tuple[int, Example | InputError]]


class Source(NamedTuple):
    """The examples to predict on, and how they were written.

    Attributes:
      examples: The examples, one after another.
      kind: Their format, a name of `KINDS`.
      header: The names of the columns of CSV or TSV, if the file has a header.
      part: The part of a JSON file that has several, see `data.examples.PARTS`.
      name: The file, or `standard input`.
      lines: The line of each example; those of standard input are added as they come.
        Empty if examples are not known by lines.
      around: What stands before and after the rows of a JSON array; None for SQuAD's,
        whose predictions are answers by id.
      note: What was detected of the format rather than told, in words.
      rest: The lines of standard input after the last sentence of columns, which are
        added when they come.
    """

    examples: Iterator[Example]
    kind: str
    header: list[str] | None = None
    part: str | None = None
    name: str = "standard input"
    lines: Sequence[int] = ()
    around: tuple[str, str] | None = None
    note: str = ""
    rest: Sequence[str] = ()

    def place(self, number: int) -> str:
        """Returns where an example is, by its number from 0.

        >>> Source(iter([]), "text", name="a.txt", lines=[3, 7]).place(1)
        'a.txt:7'
        """
        if number < len(self.lines):
            return f"{self.name}:{self.lines[number]}"
        return f"{self.name}: number {number + 1}"


def open_source(
    source: str,
    usage: Usage,
    kind: str = "auto",
    whole: bool = False,
    labels: Sequence[str] = (),
) -> Source:
    """Returns the examples to predict on.

    Args:
      source: A file; `-` is standard input.
      usage: How the model is used.
      kind: A name of `KINDS`; `auto` is the format of the file's ending. Without a
        known ending, and of standard input, the first line shows whether it is JSON or
        a table, and for tag the first lines whether they are columns; if not, it is
        text.
      whole: For tag, whether a line of text stays whole, and JSON lines may have a
        text in place of a list of words; if not, a line is split at its blanks.
      labels: The labels of the model, by which columns are known.

    Raises:
      InputError: The file cannot be read, the task does not take its format, or up to
        20 of its lines cannot be used. The examples of standard input raise it when
        they are read.
    """
    if source == "-":
        return _open_standard_input(usage, kind, whole, labels)
    kind = find_format(require_file(source), usage, kind, labels)
    if kind == "text":
        texts, problems = read_lines(source)
        errors = [(line, InputError(problem)) for line, problem in problems]
        read = [*errors, *_parse_text(enumerate(texts, 1), usage, whole)]
        return _collected(source, kind, read)
    if whole and kind != "conll" and (found := _open_whole(source, kind, usage)):
        return found
    if usage.task == "qa":
        return _questions(source, kind)
    task, columns = reading(usage)
    examples = read_labelled(source, task, columns, None, kind)
    if usage.marks:
        check_markers(source, examples.texts, examples.lines, usage.marks)
    pairs = examples.pairs or itertools.repeat("")
    read = map(Example, examples.texts, pairs, examples.rows)
    lines = [line[0] if isinstance(line, list) else line for line in examples.lines]
    layout = examples.layout
    return Source(
        read,
        layout.kind,
        examples.header,
        layout.part,
        source,
        lines,
        layout.around,
        layout.note,
    )


def with_rows(source: Source) -> Source:
    """Returns a source whose examples have the rows of their Parquet or Arrow file."""
    if source.kind not in formats.BINARY:
        return source
    rows = map(_plain, arrow_files.iter_rows(source.name))
    both = zip(source.examples, rows, strict=True)
    examples = (example._replace(row=row) for example, row in both)
    return source._replace(examples=examples, kind="jsonl")


def _plain(value: Any) -> Any:
    """Returns a value of pyarrow as JSON can hold it; dates and bytes as texts.

    >>> _plain({"a": [1, float("nan"), b"c"]})
    {'a': [1, None, "b'c'"]}
    """
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)


def _open_standard_input(
    usage: Usage, kind: str, whole: bool, labels: Sequence[str]
) -> Source:
    """Returns the examples of standard input, line by line where its format allows."""
    known = [name for name in known_formats(usage.task) if name not in formats.BINARY]
    lines, note = _standard_input(), ""
    if kind == "auto":
        kind, lines = show_format(lines, usage, labels)
        named = "" if kind == "conll" else f"{kind}; "  # columns are described later
        note = "" if kind == "text" else f"{named}format=text reads a text per line"
    check_format("standard input", usage.task, kind, known)
    if kind not in STREAMED:
        return _open_spooled(lines, usage, kind, whole)
    numbers, rest = [], []
    examples = _stream(kind, lines, usage, whole, numbers, rest)
    return Source(examples, kind, lines=numbers, note=note, rest=rest)


def _open_spooled(
    lines: Iterable[tuple[int, str]], usage: Usage, kind: str, whole: bool
) -> Source:
    """Returns the examples of a format that is read whole, from a temporary file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"input.{kind}")
        with path.open("w", encoding="utf-8", newline="") as file:
            file.writelines(line for _, line in lines)
        try:
            source = open_source(str(path), usage, kind, whole)
        except InputError as error:
            message = str(error).replace(str(path), "standard input")
            raise InputError(message) from None
    note = source.note or kind
    return source._replace(name="standard input", note=note)


def _open_whole(source: str, kind: str, usage: Usage) -> Source | None:
    """Returns texts or words of JSON objects or of Parquet; None for lists."""
    if kind in formats.BINARY:
        held = arrow_files.column_names(source)
        name = reading(usage)[1].resolve("tag", held).text
        choose(f"{source}: column", name, held)
        rows = enumerate(arrow_files.iter_rows(source, [name]), 1)
        return _collected(source, kind, [*_parse_whole(rows, usage)])
    file = read_json_rows(source, None, kind, words=True)
    if not any(isinstance(row, dict) for _, row in file.rows):
        return None
    read = _collected(file.where, kind, [*_parse_whole(file.rows, usage)])
    note = "" if kind == file.kind == "jsonl" else file.note
    return read._replace(name=source, note=note)


def _collected(source: str, kind: str, read: list) -> Source:
    """Returns the examples of a file that was read, or raises all its problems."""
    lines, examples = zip(*collect(source, read), strict=True) if read else ((), ())
    return Source(iter(examples), kind, name=source, lines=lines)


def _questions(path: str, kind: str) -> Source:
    """Returns the questions of a file; those of JSON come in with their ids."""
    read = squad.read_questions(path, answered=False, kind=kind, part=None)
    layout = read.layout
    rows = read.ids if layout.kind == "json" else read.rows
    examples = map(Example, read.questions, read.contexts, rows)
    return Source(examples, layout.kind, name=path, note=layout.note)


def _stream(
    kind: str,
    lines: Iterable[tuple[int, str]],
    usage: Usage,
    whole: bool,
    numbers: list[int],
    rest: list[str],
) -> Iterator[Example]:
    """Yields the examples of standard input as they come, and adds their lines."""
    for line, example in _parse(kind, lines, usage, whole):
        if isinstance(example, InputError):
            raise InputError(f"standard input:{line}: {example}")
        if not example.text:  # lines after the last sentence of columns
            rest += example.row.lines
            return
        numbers.append(line)
        yield example


def _parse(
    kind: str, lines: Iterable[tuple[int, str]], usage: Usage, whole: bool
) -> Numbered:
    """Yields the examples of lines, or what is wrong with them."""
    if kind != "conll":  # which comes back as it came
        lines = ((number, line.removeprefix(MARK)) for number, line in lines)
    if kind == "text":
        return _parse_text(lines, usage, whole)
    if whole and kind == "jsonl":
        return _parse_whole(parse_objects(lines), usage)
    if usage.task == "qa":
        return squad.parse_questions(lines)
    task, columns = reading(usage)
    return _checked(parse_examples(lines, task, columns, kind), usage)


def _parse_whole(
    objects: Iterable[tuple[int, dict[str, Any] | InputError]], usage: Usage
) -> Numbered:
    """Yields a text or the words of each object, or what is wrong with it."""
    columns = reading(usage)[1]
    for line, record in objects:
        try:
            if isinstance(record, InputError):
                raise record
            name = columns.resolve("tag", record).text
            if name not in record:  # of words in training, and now of a text
                other = Columns().resolve("tag", record).text
                name = other if other in record else name
            text = isinstance(record.get(name), str)
            (value,) = (texts_of if text else words_of)(record, [name])
            yield line, Example(value, row=record)
        except InputError as error:
            yield line, error


def _standard_input() -> Iterator[tuple[int, str]]:
    """Yields the lines of standard input with their numbers."""
    stream = getattr(sys.stdin, "buffer", sys.stdin)
    for line, data in enumerate(iter(stream), 1):
        data = data.encode() if isinstance(data, str) else data
        try:
            mark = MARK if line == 1 and data.startswith(MARK.encode()) else ""
            yield line, mark + decode_line(data, line)
        except InputError as error:
            raise InputError(f"standard input:{line}: {error}") from None


def _parse_text(
    lines: Iterable[tuple[int, str]], usage: Usage, whole: bool
) -> Numbered:
    """Yields a text per line, or two with a tab between them."""
    return _checked(_split(lines, usage, whole), usage)


def _split(lines: Iterable[tuple[int, str]], usage: Usage, whole: bool) -> Numbered:
    for number, line in lines:
        if not (line := line.strip()):
            continue
        first, _, second = line.partition("\t")
        if usage.task == "tag":
            yield number, Example(line if whole else line.split())
        elif not usage.two_texts:
            yield number, Example(line)
        elif first.strip() and second.strip() and "\t" not in second:
            yield number, Example(first, second)
        else:
            two = "two texts" if usage.task == "pairs" else "question, context"
            yield number, InputError(f"expected {two} and one tab between")


def _checked(read: Numbered, usage: Usage) -> Numbered:
    """Yields examples, or what is wrong with the entity markers of one."""
    for line, example in read:
        if usage.marks and isinstance(example, Example):
            (problem,) = replace_markers([example.text], usage.marks)[1]
            example = InputError(problem) if problem else example
        yield line, example
