"""Questions whose answers are spans of a text, from SQuAD's files.

    train = read_questions("train-v2.0.json")

`squad_windows` cuts them into windows that have room in a model.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ffnlab.data.examples import Example
from ffnlab.data.files import is_text, read_json, require_file, stop_with
from ffnlab.data.json_lines import parse_objects, read_objects
from ffnlab.errors import InputError


class Questions(NamedTuple):
    """The questions of a file, as parallel lists.

    Attributes:
      ids: The id of each question; no two are equal.
      questions: The questions.
      contexts: The text that contains the answer.
      answers: The right answers to each question; empty if the context has none.
      starts: The character of the context at which each of them begins, from 0.
      rows: The source of each question, an object of JSON; empty if there is no file.
    """

    ids: list[str]
    questions: list[str]
    contexts: list[str]
    answers: list[list[str]]
    starts: list[list[int]]
    rows: Sequence[dict[str, Any]] = ()

    def subset(self, index: Sequence[int]) -> "Questions":
        """Returns some of the questions."""
        lists = ([values[i] for i in index] if values else values for values in self)
        return Questions(*lists)

    def joined(self, *others: "Questions") -> "Questions":
        """Returns these questions followed by others."""
        columns = zip(self, *others, strict=True)
        return Questions(*(list(itertools.chain(*parts)) for parts in columns))


def read_questions(
    path: str | Path, answered: bool = True, kind: str | None = None
) -> Questions:
    """Reads questions, their contexts and, unless `answered` is False, their answers.

    `.json` is the format of SQuAD 1.1 and 2.0. A line of `.jsonl` has `question`,
    `context`, `answers`, an object of the lists `text` and `answer_start`, and `id`; if
    there is no id, it is the number of the line.

    Args:
      path: The file; UTF-8, with or without a byte-order mark, any line ends.
      answered: Whether the answers are read; if not, they may be missing.
      kind: The format, `json` or `jsonl`; None takes that of the file's name.

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
    kind = kind or path.suffix.lower().removeprefix(".")
    if kind not in _SOURCES:
        raise InputError(f"{path}: expected .json of SQuAD, or .jsonl")
    problems: list[str] = []
    seen: dict[str, str] = {}
    rows = []
    for where, default, record in _SOURCES[kind](path, problems):
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
            question, context = record["question"], record["context"]
            rows.append((name, question, context, texts, starts, record))
    stop_with(path, problems)
    if not rows:
        raise InputError(f"{path}: no question in it")
    return Questions(*map(list, zip(*rows, strict=True)))


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


def _objects(path: Path, problems: list[str]) -> Iterator[tuple[str, str, dict]]:
    """Yields the place of each JSON line, its number and its object."""
    for line, record in read_objects(path):
        if isinstance(record, InputError):
            problems.append(f"{path}:{line}: {record}")
        else:
            yield f"{path}:{line}", str(line), record


def _articles(path: Path, problems: list[str]) -> Iterator[tuple[str, str, dict]]:
    """Yields the place of each question of SQuAD's JSON, no number, and its object."""

    def parts(value: Any, name: str, where: str) -> Iterator[tuple[str, dict]]:
        members = value.get(name) if isinstance(value, dict) else None
        if not isinstance(members, list):
            problems.append(f"{where}: expected an object with a list {name!r}")
            return
        for number, part in enumerate(members, 1):
            if isinstance(part, dict):
                yield str(part.get("title") or part.get("id") or number), part
            else:
                problems.append(f"{where}: {name} {number}: expected an object")

    for title, article in parts(read_json(path), "data", str(path)):
        where = f"{path}: article {title}"
        for number, paragraph in parts(article, "paragraphs", where):
            place = f"{where}, paragraph {number}"
            for name, question in parts(paragraph, "qas", place):
                record = {**question, "context": paragraph.get("context")}
                yield f"{place}, question {name}", "", record


_SOURCES = {"json": _articles, "jsonl": _objects}


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
