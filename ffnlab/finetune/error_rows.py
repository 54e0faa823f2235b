"""What a fine-tuned model got wrong in dev and test, as rows and as errors.md.

Every row has `part`, `example` (its number in the part from 1, of questions the id),
`label`, `predicted`, `probability` (None if there is none) and `context`, what the
model read; but for questions also `line`, in its file from 1. Rows of tags have
`label_text` and `predicted_text`, the words of the two spans, which brackets mark in
the context; those of spans also `kind`: `missed`, `spurious`, `type`, `boundary` or
`both`. Rows of questions have `question` and `f1`. Rows of numbers, which are of all
examples, have `difference`; rows of several labels have `missed` and `spurious` ones,
and the probability is that of the surest wrong one to be as it is predicted.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ffnlab.data import tags
from ffnlab.data.examples import Examples
from ffnlab.data.squad import Questions
from ffnlab.finetune import metrics
from ffnlab.report.table import Table

if TYPE_CHECKING:
    from ffnlab.finetune.task import Task

NAME = "errors.md"
Row = dict[str, Any]
_SHOWN = 100  # rows of a part in errors.md
_CELL = 200  # characters of a cell
_AROUND = 100  # characters of a context before and after an answer
_NAMES = {"label_text": "text", "predicted_text": "predicted text"}


def collect(task: "Task", predicted: dict[str, Any]) -> list[Row]:
    """Returns what was wrong in each part.

    Args:
      task: The task.
      predicted: The predictions by part.
    """
    return [
        {"part": part, **row}
        for part, each in predicted.items()
        for row in task.errors(part, each)
    ]


def of_texts(
    examples: Examples, names: Sequence[str], probabilities: Sequence[float]
) -> list[Row]:
    """Returns the texts with a wrong label, the surest predictions first.

    Args:
      examples: The examples of a part, with their labels.
      names: The predicted labels.
      probabilities: Their probabilities.

    >>> examples = Examples(["hi", "bye"], [], ["greeting", "farewell"], [1, 2])
    >>> of_texts(examples, ["greeting", "greeting"], [0.75, 0.5])[0]["label"]
    'farewell'
    """
    rows = []
    triples = zip(examples.labels, names, probabilities, strict=True)
    for number, (label, name, probability) in enumerate(triples):
        if label != name:
            row = {"example": number + 1, "line": examples.lines[number]}
            row |= {"label": label, "predicted": name}
            row["probability"] = float(probability)
            rows.append({**row, "context": _text(examples, number)})
    return sorted(rows, key=lambda row: -row["probability"])


def of_scores(examples: Examples, predicted: Sequence[float]) -> list[Row]:
    """Returns all texts with their numbers, the largest difference first.

    Args:
      examples: The examples of a part; labels are the true numbers.
      predicted: The predicted numbers.

    >>> examples = Examples(["hi", "bye"], [], [2.0, 3.0], [1, 2])
    >>> [row["difference"] for row in of_scores(examples, [2.5, 2.0])]
    [-1.0, 0.5]
    """
    rows = []
    pairs = zip(examples.labels, predicted, strict=True)
    for number, (true, guess) in enumerate(pairs):
        row = {"example": number + 1, "line": examples.lines[number]}
        row |= {"label": true, "predicted": guess, "difference": guess - true}
        rows.append({**row, "probability": None, "context": _text(examples, number)})
    return sorted(rows, key=lambda row: -abs(row["difference"]))


def of_label_sets(
    examples: Examples,
    probabilities: np.ndarray,
    names: Sequence[str],
    threshold: float,
) -> list[Row]:
    """Returns the texts whose labels are not all right, the surest errors first.

    Args:
      examples: The examples of a part; labels are lists of labels.
      probabilities: The probability of each label, `[N, L]`.
      names: The names of the labels.
      threshold: The probability from which on a text has a label.

    >>> examples = Examples(["hi"], [], [["a", "b"]], [1])
    >>> row = of_label_sets(examples, np.array([[0.75, 0.25]]), ["a", "b"], 0.5)[0]
    >>> row["predicted"], row["missed"], row["probability"]
    ('a', 'b', 0.75)
    """
    rows = []
    for number, gold in enumerate(examples.labels):
        shares = dict(zip(names, probabilities[number].tolist(), strict=True))
        guess = [name for name in names if shares[name] >= threshold]
        missed = [name for name in gold if name not in guess]
        spurious = [name for name in guess if name not in gold]
        if not missed and not spurious:
            continue
        sure = [1.0 - shares.get(name, 0.0) for name in missed]
        sure += [shares[name] for name in spurious]
        row: Row = {"example": number + 1, "line": examples.lines[number]}
        pairs = zip(
            ("label", "predicted", "missed", "spurious"),
            (gold, guess, missed, spurious),
            strict=True,
        )
        row |= {key: " | ".join(labels) for key, labels in pairs}
        row |= {"probability": max(sure), "context": _text(examples, number)}
        rows.append(row)
    return sorted(rows, key=lambda row: -row["probability"])


def _text(examples: Examples, number: int) -> str:
    """Returns the text of an example, or both texts."""
    return " | ".join([examples.texts[number], *examples.pairs[number : number + 1]])


def of_words(
    examples: Examples,
    predicted: Sequence[Sequence[str]],
    probabilities: Sequence[Sequence[float]],
    spans: bool,
) -> list[Row]:
    """Returns the spans, or the words, with wrong tags, in the order of the part.

    Args:
      examples: The sentences of a part, with their tags.
      predicted: The predicted tags of each sentence.
      probabilities: Their probabilities.
      spans: Whether the tags are of spans, in IOB2.
    """
    rows = []
    sentences = zip(
        examples.texts, examples.labels, predicted, probabilities, strict=True
    )
    for number, (words, gold, guess, shares) in enumerate(sentences, 1):
        pairs = _span_pairs(gold, guess) if spans else _word_pairs(gold, guess)
        for true, found in pairs:
            first = min(span[1] for span in (true, found) if span)
            stop = max(span[2] for span in (true, found) if span)
            begin, end = (found or true)[1:]
            row: Row = {"example": number, "line": examples.lines[number - 1][first]}
            if spans:
                row["kind"] = _kind(true, found)
            row |= {"label": true and true[0], "predicted": found and found[0]}
            row["probability"] = float(np.mean(shares[begin:end]))
            for name, span in (("label_text", true), ("predicted_text", found)):
                row[name] = span and " ".join(words[span[1] : span[2]])
            marked = f"[{' '.join(words[first:stop])}]"
            row["context"] = " ".join([*words[:first], marked, *words[stop:]])
            rows.append(row)
    return rows


def _word_pairs(gold: Sequence[str], guess: Sequence[str]) -> list[tuple]:
    """Returns the words with wrong labels, as spans of one word."""
    both = enumerate(zip(gold, guess, strict=True))
    return [((a, n, n + 1), (b, n, n + 1)) for n, (a, b) in both if a != b]


def _span_pairs(gold: Sequence[str], guess: Sequence[str]) -> list[tuple]:
    """Returns wrong spans: true and predicted ones that overlap, or one and None.

    >>> _span_pairs(["B-PER", "I-PER", "O", "B-LOC"], ["B-PER", "O", "B-LOC", "O"])
    [(('PER', 0, 2), ('PER', 0, 1)), (None, ('LOC', 2, 3)), (('LOC', 3, 4), None)]
    """
    true, found = tags.spans(gold, "iob2"), tags.spans(guess, "iob2")
    missed, pairs = true - found, []
    left = set(missed)
    for span in sorted(found - true, key=lambda span: span[1:]):
        overlaps = [each for each in missed if each[1] < span[2] and span[1] < each[2]]
        best = min(overlaps, key=lambda each: _distance(each, span), default=None)
        left.discard(best)
        pairs.append((best, span))
    pairs += [(span, None) for span in left]
    return sorted(pairs, key=lambda pair: (pair[1] or pair[0])[1:])


def _distance(true: tags.Span, found: tags.Span) -> tuple[int, bool, tags.Span]:
    """Returns how much two spans differ: their ends, then their types."""
    ends = abs(true[1] - found[1]) + abs(true[2] - found[2])
    return ends, true[0] != found[0], true


def _kind(true: tags.Span | None, found: tags.Span | None) -> str:
    """Returns what is wrong with a span.

    Source: the kinds of Segura-Bedmar et al. 2013, SemEval-2013 task 9, section 4.
    """
    if true is None or found is None:
        return "spurious" if true is None else "missed"
    if true[1:] == found[1:]:
        return "type"
    return "boundary" if true[0] == found[0] else "both"


def of_answers(
    asked: Questions, texts: dict[str, str], probabilities: dict[str, float]
) -> list[Row]:
    """Returns the questions whose answer is no exact match, the surest answers first.

    Args:
      asked: The questions of a part, with their answers.
      texts: The predicted answers by id.
      probabilities: Their probabilities by id.
    """
    rows = []
    for number, name in enumerate(asked.ids):
        report = metrics.question_answering_report(texts, asked.subset([number]))
        if report["exact"] == 1:
            continue
        context = asked.contexts[number]
        place = asked.starts[number][0] if asked.starts[number] else -1
        if place < 0:
            place = max(context.find(texts[name]), 0)
        row = {"example": name, "question": asked.questions[number]}
        row["label"] = " | ".join(dict.fromkeys(asked.answers[number]))
        row |= {"predicted": texts[name], "probability": float(probabilities[name])}
        around = context[max(place - _AROUND, 0) : place + _AROUND]
        rows.append({**row, "f1": report["f1"], "context": around})
    return sorted(rows, key=lambda row: -row["probability"])


def of_generated(examples: Examples, written: Sequence[str]) -> list[Row]:
    """Returns the generated texts that differ from their targets.

    Args:
      examples: The examples of a part; labels are the targets.
      written: The generated texts.
    """
    triples = zip(examples.texts, examples.labels, written, strict=True)
    return [
        {
            "example": number,
            "line": examples.lines[number - 1],
            "label": target,
            "predicted": text,
            "probability": None,
            "context": source,
        }
        for number, (source, target, text) in enumerate(triples, 1)
        if text != target
    ]


def as_markdown(rows: Sequence[Row], sizes: dict[str, int]) -> str:
    """Returns errors.md.

    Args:
      rows: From `collect`.
      sizes: The number of examples of each part that was predicted.
    """
    sections = [_section(part, size, rows) for part, size in sizes.items()]
    return "# What did the model get wrong?\n\n" + "\n".join(sections)


def _section(part: str, size: int, rows: Sequence[Row]) -> str:
    """Returns the part of errors.md about one part of the data."""
    own = [row for row in rows if row["part"] == part]
    wrong = len({row["example"] for row in own})
    text = f"## {part}\n\n{wrong:,} of {size:,} examples have an error"
    if own and "difference" in own[0]:
        text = f"## {part}\n\n{size:,} examples, the largest difference first"
    if not own:
        return f"{text}.\n"
    shown = own[:_SHOWN]
    more, form = f"; {len(own):,} errors, of which the first {_SHOWN} are here", ".2f"
    if "difference" in own[0]:
        more, form = f"; the first {_SHOWN} are here", ".4g"
    text += f"{more if len(own) > _SHOWN else ''}.\n\n"
    names = [name for name in own[0] if name != "part"]
    names = [name for name in names if any(row[name] is not None for row in shown)]
    cells = [
        [_cell(row[name], name == "context", form) for name in names] for row in shown
    ]
    heads = [_NAMES.get(name, name) for name in names]
    return text + Table(heads, cells, words=len(names)).markdown() + "\n"


def _cell(value: Any, context: bool, form: str) -> str:
    """Returns a value as a cell; of a long context what is around the brackets."""
    if value is None:
        return ""
    number = isinstance(value, float)
    text = f"{value:{form}}" if number else " ".join(str(value).split())
    if len(text) <= _CELL:
        return text
    place = text.find("[") if context else 0
    begin = max(min(place - _AROUND, len(text) - _CELL), 0)
    end = begin + _CELL
    return "…" * (begin > 0) + text[begin:end] + "…" * (end < len(text))


def as_frame(rows: Sequence[Row]) -> Any:
    """Returns rows as a data frame if pandas is installed; otherwise the list."""
    try:
        import pandas
    except ImportError:
        return list(rows)
    return pandas.DataFrame(list(rows))
