"""Questions whose answers stand in a text: SQuAD's files, windows, rows, and back.

    train = read_questions("train-v2.0.json")
    pieces = windows(tokenizer, train, length=384, stride=128)
    rows = pack_windows(pieces, width=384)
    texts, chances = texts_of(pieces, train, spans, scores, nothing)

A text that is too long for a model is cut into windows that overlap, and each window is
asked the same question.
"""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ffnlab.data.dataset import IGNORE
from ffnlab.data.files import (
    parse_json,
    read_json,
    read_lines,
    require_file,
    stop_with,
)
from ffnlab.data.packed_rows import Rows, pack
from ffnlab.data.tokenizer import Encoded, Tokenizer
from ffnlab.errors import InputError


class Questions(NamedTuple):
    """What a file asks; the lists run side by side.

    Attributes:
      ids: the name of each question; no two are the same.
      questions: what is asked.
      contexts: the text that the answer stands in.
      answers: the right answers of each; empty where the text has none.
      starts: the character of the context at which each of them begins, from 0.
      rows: the objects of JSON that they came in; empty if they came from no file.
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


def read_questions(path: str | Path, answered: bool = True) -> Questions:
    """Reads questions, the texts they are about, and their answers.

    The format follows from the name: `.json` is that of SQuAD 1.1 and 2.0; a line of
    `.jsonl` has `question`, `context`, `answers`, an object of the lists `text` and
    `answer_start`, and `id`, which is the number of the line where it is missing.

    Args:
      path: the file; UTF-8, with or without a byte-order mark, any line ends.
      answered: whether the answers are read; without, they need not be there.

    Raises:
      InputError: no such file, no question in it, or up to 20 that cannot be used.

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
    readers = {".json": _articles, ".jsonl": _objects}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: expected .json of SQuAD, or .jsonl")
    told: list[str] = []
    seen: dict[str, str] = {}
    rows = []
    for where, usual, record in readers[path.suffix.lower()](path, told):
        name = record.get("id", usual)
        name = str(name) if isinstance(name, str | int) else ""
        wrong = [] if name else ["no id"]
        if name in seen:
            wrong.append(f"id {name!r} is there already, {seen[name]}")
        elif name:
            seen[name] = where
        wrong += _wrong(record, answered)
        told += [f"{where}: {what}" for what in wrong]
        if not wrong:
            texts, starts = _answers(record) if answered else ([], [])
            asked, context = record["question"], record["context"]
            rows.append((name, asked, context, texts, starts, record))
    stop_with(path, told)
    if not rows:
        raise InputError(f"{path}: no question in it")
    return Questions(*map(list, zip(*rows, strict=True)))


def _objects(path: Path, told: list[str]) -> Iterator[tuple[str, str, dict]]:
    """Yields the place of each of the JSON lines, its number and its object."""
    texts, problems = read_lines(path)
    told += [f"{path}:{line}: {what}" for line, what in problems]
    for line, text in enumerate(texts, 1):
        where = f"{path}:{line}"
        if not text.strip():
            continue
        try:
            record = parse_json(text)
        except json.JSONDecodeError as error:
            told.append(f"{where}: not JSON: {error.msg}")
        except InputError as error:
            told.append(f"{where}: {error}")
        else:
            if isinstance(record, dict):
                yield where, str(line), record
            else:
                told.append(f"{where}: expected an object of JSON")


def _articles(path: Path, told: list[str]) -> Iterator[tuple[str, str, dict]]:
    """Yields the place of each question of SQuAD's JSON, no number, and its object."""

    def parts(found: Any, name: str, where: str) -> Iterator[tuple[str, dict]]:
        held = found.get(name) if isinstance(found, dict) else None
        if not isinstance(held, list):
            told.append(f"{where}: expected an object with a list {name!r}")
        for number, part in enumerate(held if isinstance(held, list) else [], 1):
            if isinstance(part, dict):
                yield str(part.get("title") or part.get("id") or number), part
            else:
                told.append(f"{where}: {name} {number}: expected an object")

    for title, article in parts(read_json(path), "data", str(path)):
        where = f"{path}: article {title}"
        for number, paragraph in parts(article, "paragraphs", where):
            there = f"{where}, paragraph {number}"
            for name, question in parts(paragraph, "qas", there):
                record = {**question, "context": paragraph.get("context")}
                yield f"{there}, question {name}", "", record


def _answers(record: dict) -> tuple[list, list] | None:
    """Returns texts and starts of the answers; None where they are neither form."""
    found = record.get("answers")
    if isinstance(found, list) and all(isinstance(each, dict) for each in found):
        texts = [each.get("text") for each in found]
        return texts, [each.get("answer_start") for each in found]
    if not isinstance(found, dict):
        return None
    texts, starts = found.get("text"), found.get("answer_start")
    lists = isinstance(texts, list) and isinstance(starts, list)
    return (texts, starts) if lists and len(texts) == len(starts) else None


def _wrong(record: dict, answered: bool) -> list[str]:
    """Returns what is wrong with a question, beside its id."""
    wrong = []
    for name in ("question", "context"):
        text = record.get(name)
        if not isinstance(text, str):
            wrong.append(f"{name} should be a text")
        elif not text.strip():
            wrong.append(f"{name} is empty")
    if not answered:
        return wrong
    answers, impossible = _answers(record), record.get("is_impossible")
    if answers is None:
        return [*wrong, "answers should be texts, each with its answer_start"]
    if impossible and answers[0]:
        wrong.append("is_impossible, and has answers")
    if impossible is False and not answers[0]:
        wrong.append("no answer, and is_impossible is false")
    context = record.get("context")
    if isinstance(context, str):
        found = (_misplaced(context, *each) for each in zip(*answers, strict=True))
        wrong += [what for what in found if what]
    return wrong


def _misplaced(context: str, text: Any, start: Any) -> str | None:
    """Returns what is wrong with an answer; None where it stands as it says.

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
    told = "nowhere in the context" if nearest is None else f"at {nearest}"
    return f"answer {text!r} is not at {start}, where {there!r} is; it is {told}"


class Windows(NamedTuple):
    """Questions with pieces of their contexts.

    Attributes:
      tokens: `[CLS] question [SEP] piece [SEP]`, as the checkpoint has it; int32 `[T]`
        each.
      types: int32 `[T]` each: 1 for the piece, where the checkpoint tells them apart.
      spans: from which to which character of the context each token is, int32 `[T, 2]`
        each; −1 for a token that an answer can neither start nor end at.
      question: whose window it is, int32 `[M]`.
      target: the tokens that the first right answer starts and ends at, int32 `[M, 2]`;
        0, the first token of the window, where it is not wholly inside.
    """

    tokens: list[np.ndarray]
    types: list[np.ndarray]
    spans: list[np.ndarray]
    question: np.ndarray
    target: np.ndarray


def windows(
    tokenizer: Tokenizer, questions: Questions, length: int = 384, stride: int = 128
) -> Windows:
    """Cuts contexts into windows, each after its question.

    Args:
      tokenizer: of the checkpoint.
      questions: with or without answers.
      length: the most tokens, special ones included. A question is cut where it would
        take more than half of them.
      stride: how many tokens of the context a window shares with the one before.

    Raises:
      InputError: `length` leaves no room, or `stride` does not let windows advance.

    Source: the windows of Devlin et al. 2019 for SQuAD; there `stride` is the step.
    """
    room = tokenizer.room(length, paired=True)
    least = min(room, (length + 1) // 2)  # tokens for the context
    if not 0 <= stride < least:
        raise InputError(
            f"stride {stride}: should be from 0 to {least - 1} for a length of {length}"
        )
    contexts = list(dict.fromkeys(questions.contexts))
    known = dict(zip(contexts, tokenizer.spans(contexts), strict=True))
    asked = tokenizer.spans([question.strip() for question in questions.questions])
    tokens, types, spans, example_index, target = [], [], [], [], []
    for number, (question, _) in enumerate(asked):
        question = question[: room - least]
        context, places = known[questions.contexts[number]]
        answer = _answer_tokens(places, questions, number)
        width = room - len(question)
        for begin in range(0, max(len(context) - stride, 1), width - stride):
            piece = context[begin : begin + width]
            row, kinds, lead = tokenizer.joined(question, piece)
            tokens.append(np.array(row, np.int32))
            types.append(np.array(kinds, np.int32))
            spans.append(np.full((len(row), 2), -1, np.int32))
            spans[-1][lead : lead + len(piece)] = places[begin : begin + width]
            example_index.append(number)
            inside = answer and answer[0] >= begin and answer[1] < begin + width
            shifted = [lead + place - begin for place in answer]
            target.append(shifted if inside else [0, 0])
    return Windows(
        tokens,
        types,
        spans,
        np.array(example_index, np.int32),
        np.array(target, np.int32),
    )


def _answer_tokens(spans: np.ndarray, questions: Questions, number: int) -> list[int]:
    """Returns the first and last token of the first right answer; none if none is."""
    if not questions.answers[number]:
        return []
    text, start = questions.answers[number][0], questions.starts[number][0]
    end = start + len(text.rstrip())
    start += len(text) - len(text.lstrip())
    there = np.flatnonzero((spans[:, 0] < end) & (spans[:, 1] > start))
    return [int(there[0]), int(there[-1])] if len(there) else []


def pack_windows(found: Windows, width: int, mix: int | None = None) -> Rows:
    """Packs windows into rows, several in one.

    Args:
      found: of `windows`.
      width: T, of a row; no window may be longer.
      mix: see `places.pack`.

    Returns:
      `Rows` in which x/at is the first token of every window and `example_index` its number.
      Further x/inside bool `[N, T]`: where an answer may start or end, and the first
      token of each window, which is no answer; and y is int32 `[N, K, 2]`, the places
      in the row of start and end, −100 where there is no window.

    >>> one = Windows([np.array([1, 5, 2, 6, 7, 2])], [np.zeros(6, int)],
    ...               [np.array([[-1, -1]] * 3 + [[0, 3], [4, 6]] + [[-1, -1]])],
    ...               np.zeros(1, int), np.array([[3, 4]]))
    >>> rows = pack_windows(one, width=7)
    >>> rows.arrays["x/inside"].astype(int).tolist(), rows.arrays["y"].tolist()
    ([[1, 0, 0, 1, 1, 0, 0]], [[[3, 4]]])
    """
    rows = pack(Encoded(found.tokens, found.types, [], 0), None, width, mix)
    label_positions = rows.arrays["x/label_positions"]
    inside = np.zeros(rows.arrays["x/mask"].shape, bool)
    y = np.full((*label_positions.shape, 2), IGNORE, np.int32)
    for row, slot in np.argwhere(rows.example_index >= 0):
        number, begin = rows.example_index[row, slot], label_positions[row, slot]
        spans = found.spans[number]
        inside[row, begin : begin + len(spans)] = spans[:, 0] >= 0
        inside[row, begin] = True
        y[row, slot] = begin + found.target[number]
    return rows._replace(arrays={**rows.arrays, "x/inside": inside, "y": y})


def texts_of(
    found: Windows,
    questions: Questions,
    spans: np.ndarray,
    scores: np.ndarray,
    nothing: np.ndarray,
    threshold: float = 0.0,
) -> tuple[dict[str, str], dict[str, float]]:
    """Returns one answer to each question, and how it compares with the others.

    The best span of all windows is the answer, unless that there is none, in the window
    where it scores least, scores higher by more than `threshold`. The candidates are
    the best span of each window and that there is none; the probability is the softmax
    of their scores. A span that two windows share is one candidate.

    Args:
      found: of `windows`.
      questions: that they were made of.
      spans: the start and end token of each window's best span, int `[M, 2]`, counted
        from the window's first.
      scores: of those, `[M]`.
      nothing: the score of no answer, `[M]`.
      threshold: infinity always answers, where there is anything to answer with.

    Returns:
      By id the text, empty for no answer, and the probability, in [0, 1].

    Source: Devlin et al. 2019, section 4.3.
    """
    candidates: list[dict] = [{} for _ in questions.ids]
    least = np.full(len(questions.ids), np.inf)
    np.minimum.at(least, found.question, nothing)
    for window, (start, end) in enumerate(spans):
        begin, stop = found.spans[window][start, 0], found.spans[window][end, 1]
        if begin >= 0:  # the window has something of the context
            mine = candidates[found.question[window]]
            best = mine.get((begin, stop), -np.inf)
            mine[begin, stop] = max(best, float(scores[window]))
    texts, chances = {}, {}
    for number, name in enumerate(questions.ids):
        mine, none = candidates[number], float(least[number])
        span = max(mine, key=mine.__getitem__, default=None)
        if span is not None and none - mine[span] > threshold:
            span = None
        chosen, every = mine.get(span, none), np.array([*mine.values(), none])
        weights = np.exp(every - every.max())
        chances[name] = float(np.exp(chosen - every.max()) / weights.sum())
        context = questions.contexts[number]
        texts[name] = "" if span is None else context[span[0] : span[1]]
    return texts, chances
