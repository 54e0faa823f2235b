"""Questions whose answers are spans of a text, from SQuAD's files and others.

    train = read_questions("train-v2.0.json")

`squad_windows` cuts them into windows that have room in a model.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ffnlab.data import arrow_files, formats
from ffnlab.data.column_names import Columns
from ffnlab.data.example import Example
from ffnlab.data.files import is_text, require_file, stop_with
from ffnlab.data.formats import Layout
from ffnlab.data.json_files import read_json_rows
from ffnlab.data.json_lines import parse_objects
from ffnlab.errors import InputError, choose

FORMATS = ("json", "jsonl", *formats.BINARY)
_COLUMNS = Columns("question", "context", "answers")
_KEYS = ("id", "question", "context", "answers", "is_impossible")


class Questions(NamedTuple):
    """The questions of a file, as parallel lists.

    Attributes:
      ids: The id of each question; no two are equal.
      questions: The questions.
      contexts: The text that contains the answer.
      answers: The right answers to each question; empty if the context has none.
      starts: The character of the context at which each of them begins, from 0.
      rows: The source of each question, an object of JSON or the number of its row;
        empty if there is no file.
      layout: How the file was written; None if there is no file.
    """

    ids: list[str]
    questions: list[str]
    contexts: list[str]
    answers: list[list[str]]
    starts: list[list[int]]
    rows: Sequence[Any] = ()
    layout: Layout | None = None

    def subset(self, index: Sequence[int]) -> "Questions":
        """Returns some of the questions."""
        *lists, layout = self
        taken = ([values[i] for i in index] if values else values for values in lists)
        return Questions(*taken, layout)

    def joined(self, *others: "Questions") -> "Questions":
        """Returns these questions followed by others."""
        columns = zip(*(each[:-1] for each in (self, *others)), strict=True)
        joined = (list(itertools.chain(*parts)) for parts in columns)
        return Questions(*joined, self.layout)


def read_questions(
    path: str | Path,
    answered: bool = True,
    kind: str | None = None,
    part: str | None = "train",
) -> Questions:
    """Reads questions, their contexts and, unless `answered` is False, their answers.

    A file of JSON is SQuAD 1.1 or 2.0; or objects with `context` and `qas`, as
    simpletransformers has them; or objects with `question`, `context` and `answers`,
    an object of the lists `text` and `answer_start`, under `data`, in an array or in
    lines. Parquet and Arrow have these columns. An object without an `id` has its
    number or line as its id.

    Args:
      path: The file; UTF-8, with or without a byte-order mark, any line ends.
      answered: Whether the answers are read; if not, they may be missing.
      kind: The format, one of `FORMATS`; None takes that of the file.
      part: The part to read from a file that has several; None takes the last.

    Raises:
      InputError: No such file, no question in it, or up to 20 that cannot be used.

    Source: Rajpurkar et al. 2016 and 2018.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.jsonl")
    ...     _ = path.write_text('{"question": "Who?", "context": "Ada did.", "answers":'
    ...                         ' {"text": ["Ada"], "answer_start": [0]}}')
    ...     read_questions(path).answers
    [['Ada']]
    """
    path = require_file(path)
    layout, records = _records(path, kind or format_of(path), part, answered)
    problems: list[str] = []
    seen: dict[str, str] = {}
    rows = []
    for where, default, record in records:
        if isinstance(record, InputError):
            problems.append(f"{where}: {record}")
            continue
        name = record.get("id", default)
        name = str(name) if isinstance(name, str | int) else ""
        wrong = [] if name else ["no id"]
        if name in seen:
            wrong.append(f"id {name!r} is there already, {seen[name]}")
        elif name:
            seen[name] = where
        wrong += _problems(record, answered)
        problems += [f"{where}: {what}" for what in wrong]
        if not wrong:
            texts, starts = _answers(record) if answered else ([], [])
            row = len(rows) if layout.kind in formats.BINARY else record
            question, context = record["question"], record["context"]
            rows.append((name, question, context, texts, starts, row))
    stop_with(path, problems)
    if not rows:
        raise InputError(f"{path}: no question in it")
    return Questions(*map(list, zip(*rows, strict=True)), layout)


def format_of(path: str | Path) -> str:
    """Returns the format of a file of questions, one of `FORMATS`.

    Raises:
      InputError: It is another.

    >>> format_of("train-v2.0.json")
    'json'
    """
    kind = formats.binary_format(path) or formats.ending_format(path)
    if kind is None and Path(path).is_file():
        kind = formats.line_format(formats.first_line(path), "qa", _COLUMNS)
    if kind not in FORMATS:
        raise InputError(
            f"{path}: expected .json of SQuAD or of objects with question, context and "
            "answers, .jsonl, .parquet or .arrow"
        )
    return kind


def parse_questions(
    lines: Iterable[tuple[int, str]],
) -> Iterator[tuple[int, Example | InputError]]:
    """Yields questions without answers as their JSON lines come, or their problems.

    Args:
      lines: Line numbers, from 1, and lines. Ids are neither needed nor compared.

    Yields:
      Line numbers, and the question with its context, or an error that does not name
      the line.

    >>> lines = [(1, '{"question": "Who?", "context": "Ada did."}')]
    >>> next(parse_questions(lines))[1][:2]
    ('Who?', 'Ada did.')
    """
    for line, record in parse_objects(lines):
        if isinstance(record, InputError):
            yield line, record
        elif wrong := _problems(record, answered=False):
            yield line, InputError("; ".join(wrong))
        else:
            yield line, Example(record["question"], record["context"], record)


_Records = Iterator[tuple[str, str, dict[str, Any] | InputError]]


def _records(
    path: Path, kind: str, part: str | None, answered: bool
) -> tuple[Layout, _Records]:
    """Returns how a file is written, and its questions.

    Each has its place, the id of one that has none, and an object or what is wrong.
    """
    columns = _COLUMNS if answered else _COLUMNS._replace(label=None)
    if kind in formats.BINARY:
        note = formats.describe(path, kind)
        return Layout(kind, columns, note), _arrow_records(path, columns)
    file = read_json_rows(path, part, kind)
    note = "" if kind == file.kind == "jsonl" else _note(file.note, file.rows)
    each = (_flatten(path, file.where, *row) for row in file.rows)
    note = formats.describe(path, file.kind, note)
    layout = Layout(file.kind, columns, note, file.part, file.around)
    return layout, itertools.chain.from_iterable(each)


def _note(note: str, rows: Sequence[tuple[int, Any]]) -> str:
    """Returns the layout in words; that of SQuAD goes without saying."""
    first = rows[0][1] if rows else None
    return "" if isinstance(first, dict) and "paragraphs" in first else note


def _arrow_records(path: Path, columns: Columns) -> _Records:
    """Yields the questions of a Parquet or Arrow file."""
    held = arrow_files.column_names(path)
    for name in columns.names("qa"):
        choose(f"{path}: column", name, held)
    names = [name for name in _KEYS if name in held]
    for number, row in enumerate(arrow_files.iter_rows(path, names), 1):
        if row.get("id", "") is None:
            del row["id"]
        yield f"{path}:{number}", str(number), row


def _flatten(path: Path, where: str, line: int, record: Any) -> _Records:
    """Yields the questions of an object: an article, a paragraph or one question."""
    where = f"{where}:{line}"
    if isinstance(record, InputError) or not isinstance(record, dict):
        error = InputError("expected an object of JSON")
        yield where, "", record if isinstance(record, InputError) else error
    elif "paragraphs" in record:
        where = f"{path}: article {record.get('title') or record.get('id') or line}"
        for number, paragraph in _members(record, "paragraphs"):
            if isinstance(paragraph, InputError):
                yield where, "", paragraph
            else:
                yield from _paragraph(paragraph, f"{where}, paragraph {number}", "")
    elif "qas" in record:
        yield from _paragraph(record, where, f"{line}-")
    else:
        yield where, str(line), record


def _paragraph(paragraph: dict[str, Any], where: str, default: str) -> _Records:
    """Yields the questions of a paragraph; `default` begins ids that are missing."""
    for number, (name, question) in enumerate(_members(paragraph, "qas"), 1):
        if isinstance(question, InputError):
            yield where, "", question
        else:
            record = {**question, "context": paragraph.get("context")}
            own = f"{default}{number}" if default else ""
            yield f"{where}, question {name}", own, record


def _members(
    value: dict[str, Any], key: str
) -> Iterator[tuple[str, dict[str, Any] | InputError]]:
    """Yields the name of each object in a list, and the object or what is wrong."""
    members = value.get(key)
    if not isinstance(members, list):
        yield "", InputError(f"expected an object with a list {key!r}")
        return
    for number, part in enumerate(members, 1):
        if isinstance(part, dict):
            yield str(part.get("title") or part.get("id") or number), part
        else:
            yield "", InputError(f"{key} {number}: expected an object")


def _answers(record: dict) -> tuple[list, list] | None:
    """Returns the texts and starts of the answers; None if they have neither form."""
    answers = record.get("answers")
    if isinstance(answers, list) and all(isinstance(each, dict) for each in answers):
        texts = [answer.get("text") for answer in answers]
        return texts, [answer.get("answer_start") for answer in answers]
    if not isinstance(answers, dict):
        return None
    texts, starts = answers.get("text"), answers.get("answer_start")
    lists = isinstance(texts, list) and isinstance(starts, list)
    return (texts, starts) if lists and len(texts) == len(starts) else None


def _problems(record: dict, answered: bool) -> list[str]:
    """Returns what is wrong with a question, except its id."""
    problems = []
    for name in ("question", "context"):
        text = record.get(name)
        if not isinstance(text, str):
            problems.append(f"{name} should be a text")
        elif not text.strip():
            problems.append(f"{name} is empty")
        elif not is_text(text):
            problems.append(f"{name} has half of a surrogate pair")
    if not answered:
        return problems
    answers, impossible = _answers(record), record.get("is_impossible")
    if answers is None:
        return [*problems, "answers should be texts, each with its answer_start"]
    if impossible and answers[0]:
        problems.append("is_impossible, and has answers")
    if impossible is False and not answers[0]:
        problems.append("no answer, and is_impossible is false")
    context = record.get("context")
    if isinstance(context, str):
        wrong = (_misplaced(context, *each) for each in zip(*answers, strict=True))
        problems += [what for what in wrong if what]
    return problems


def _misplaced(context: str, text: Any, start: Any) -> str | None:
    """Returns what is wrong with an answer; None if it is where it should be.

    >>> _misplaced("Ada sang. Ada left.", "Ada", 9)
    "answer 'Ada' is not at 9, where ' Ad' is; it is at 10"
    """
    if not isinstance(text, str) or not text.strip():
        return f"answer {text!r} should be a text"
    if isinstance(start, bool) or not isinstance(start, int):
        return f"answer_start {start!r} of {text!r} should be a whole number"
    if start >= 0 and context.startswith(text, start):
        return None
    there = context[max(start, 0) :][: len(text)]
    places = [match.start() for match in re.finditer(re.escape(text), context)]
    nearest = min(places, key=lambda place: abs(place - start), default=None)
    place = "nowhere in the context" if nearest is None else f"at {nearest}"
    return f"answer {text!r} is not at {start}, where {there!r} is; it is {place}"
