"""The examples to predict on, from a file or line by line from standard input.

Files are read by the readers of training, with labels optional; plain text is read
here. A file is read whole before the first prediction, so that all its bad lines are
reported at once.
"""

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ffnlab.data.entity_markers import check_markers, replace_markers
from ffnlab.data.examples import (
    FORMATS,
    Columns,
    Example,
    last_part,
    parse_examples,
    read_labelled,
)
from ffnlab.data.files import collect, decode_line, read_lines, require_file
from ffnlab.data.json_lines import parse_objects, read_objects, texts_of, words_of
from ffnlab.data.squad import parse_questions, read_questions
from ffnlab.errors import InputError
from ffnlab.finetune.usage import Usage

KINDS = ("text", "conll", "jsonl", "csv", "tsv", "json")
_STREAMED = ("text", "conll", "jsonl")
_FORMATS = {**FORMATS, "qa": ("json", "jsonl"), "generate": FORMATS["classify"]}

Numbered = Iterator[tuple[int, Example | InputError]]


class Source(NamedTuple):
    """The examples to predict on, and how they were written.

    Attributes:
      examples: The examples, one after another.
      kind: Their format, a name of `KINDS`.
      header: The names of the columns of CSV or TSV, if the file has a header.
      part: The part of a JSON file of lists, see `data.examples.PARTS`.
      name: The file, or `standard input`.
      lines: The line of each example; those of standard input are added as they come.
        Empty if examples are not known by lines.
    """

    examples: Iterator[Example]
    kind: str
    header: list[str] | None = None
    part: str | None = None
    name: str = "standard input"
    lines: Sequence[int] = ()

    def place(self, number: int) -> str:
        """Returns where an example is, by its number from 0.

        >>> Source(iter([]), "text", name="a.txt", lines=[3, 7]).place(1)
        'a.txt:7'
        """
        if number < len(self.lines):
            return f"{self.name}:{self.lines[number]}"
        return f"{self.name}: number {number + 1}"


def open_source(
    source: str, usage: Usage, kind: str = "auto", whole: bool = False
) -> Source:
    """Returns the examples to predict on.

    Args:
      source: A file; `-` is standard input.
      usage: How the model is used.
      kind: A name of `KINDS`; `auto` is the format of the file's ending, and text for
        `.txt`, no ending and standard input.
      whole: For tag, whether a line of text stays whole, and JSON lines may have a
        text in place of a list of words; if not, a line is split at its blanks.

    Raises:
      InputError: The file cannot be read, the task does not take its format, or up to
        20 of its lines cannot be used. The examples of standard input raise it when
        they are read.
    """
    kind = _kind_of(source, usage.task, kind)
    if source == "-":
        lines: list[int] = []
        return Source(_stream(kind, usage, lines, whole), kind, lines=lines)
    if kind == "text":
        texts, problems = read_lines(require_file(source))
        errors = [(line, InputError(problem)) for line, problem in problems]
        read = [*errors, *_parse_text(enumerate(texts, 1), usage, whole)]
        return _collected(source, kind, read)
    if whole and kind == "jsonl":
        objects = read_objects(require_file(source))
        return _collected(source, kind, [*_parse_whole(objects, usage)])
    if usage.task == "qa":
        return Source(_questions(source, kind), kind, name=source)
    task, columns = _reading(usage, kind)
    part = last_part(source) if kind == "json" else None
    examples = read_labelled(source, task, columns, part or "train", kind)
    if usage.marks:
        check_markers(source, examples.texts, examples.lines, usage.marks)
    pairs = examples.pairs or itertools.repeat("")
    read = map(Example, examples.texts, pairs, examples.rows)
    lines = [line[0] if isinstance(line, list) else line for line in examples.lines]
    return Source(read, kind, examples.header, part, source, lines)


def _collected(source: str, kind: str, read: list) -> Source:
    """Returns the examples of a file that was read, or raises all its problems."""
    lines, examples = zip(*collect(source, read), strict=True) if read else ((), ())
    return Source(iter(examples), kind, name=source, lines=lines)


def _kind_of(source: str, task: str, kind: str) -> str:
    """Returns the format of a source.

    Raises:
      InputError: The task does not take it.
    """
    known = ("text", *_FORMATS[task])
    if source == "-":
        known = tuple(name for name in known if name in _STREAMED)
    if kind == "auto":
        kind = "text" if source == "-" else _ending(source, task)
    if kind not in known:
        where = "standard input" if source == "-" else source
        raise InputError(
            f"format: {where}: {task} takes {', '.join(known)}, not {kind}; "
            "format=text reads a text per line"
        )
    return kind


def _ending(path: str, task: str) -> str:
    """Returns the format that the ending of a file's name stands for.

    For tag, as in training, an unknown ending means CoNLL columns. `.csv` and `.json`
    are not unknown: they hold something else.
    """
    ending = Path(path).suffix.lower().removeprefix(".")
    if ending in ("", "txt"):
        return "text"
    if task == "tag" and ending not in ("csv", "json"):
        return "jsonl" if ending == "jsonl" else "conll"
    return ending if ending in KINDS else "text"


def _reading(usage: Usage, kind: str) -> tuple[str, Columns]:
    """Returns the task whose files are read, and the columns, without labels."""
    text = usage.text_column
    if usage.task == "tag":
        # A model that was trained on JSON lines takes the first column of CoNLL.
        text = "text" if kind == "conll" and not text.isdecimal() else text
        return "tag", Columns(text, label=None)
    task = "pairs" if usage.two_texts else "classify"
    return task, Columns(text, usage.pair_column, None)


def _questions(path: str, kind: str) -> Iterator[Example]:
    """Returns the questions of a file; those of SQuAD's JSON come in with their ids."""
    read = read_questions(path, answered=False, kind=kind)
    rows = read.ids if kind == "json" else read.rows
    return map(Example, read.questions, read.contexts, rows)


def _stream(
    kind: str, usage: Usage, lines: list[int], whole: bool
) -> Iterator[Example]:
    """Yields the examples of standard input as they come, and adds their lines."""
    for line, example in _parse(kind, _standard_input(), usage, whole):
        if isinstance(example, InputError):
            raise InputError(f"standard input:{line}: {example}")
        lines.append(line)
        yield example


def _parse(
    kind: str, lines: Iterable[tuple[int, str]], usage: Usage, whole: bool
) -> Numbered:
    """Yields the examples of lines, or what is wrong with them."""
    if kind == "text":
        return _parse_text(lines, usage, whole)
    if whole and kind == "jsonl":
        return _parse_whole(parse_objects(lines), usage)
    if usage.task == "qa":
        return parse_questions(lines)
    task, columns = _reading(usage, kind)
    return _checked(parse_examples(lines, task, columns, kind), usage)


def _parse_whole(
    objects: Iterable[tuple[int, dict[str, Any] | InputError]], usage: Usage
) -> Numbered:
    """Yields a text or the words of each object, or what is wrong with it."""
    for line, record in objects:
        try:
            if isinstance(record, InputError):
                raise record
            text = isinstance(record.get(usage.text_column), str)
            (value,) = (texts_of if text else words_of)(record, [usage.text_column])
            yield line, Example(value, row=record)
        except InputError as error:
            yield line, error


def _standard_input() -> Iterator[tuple[int, str]]:
    """Yields the lines of standard input with their numbers."""
    stream = getattr(sys.stdin, "buffer", sys.stdin)
    for line, data in enumerate(iter(stream), 1):
        data = data.encode() if isinstance(data, str) else data
        try:
            yield line, decode_line(data, line)
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
