"""Predictions, written in the format of their inputs.

Rows of a table, of JSON and of Parquet, and CoNLL columns come back whole, with the
prediction added; if they have a `predicted` already, the new one is `predicted2`.
"""

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from ffnlab import io
from ffnlab.data import arrow_files, formats, tags
from ffnlab.data.example import Example
from ffnlab.data.examples import Examples
from ffnlab.data.json_files import document
from ffnlab.data.tag_layouts import TagLayout
from ffnlab.data.tagged_lines import TaggedLines, join_written
from ffnlab.data.text_tables import Record
from ffnlab.errors import InputError
from ffnlab.escape import json_text
from ffnlab.finetune.target_outputs import LabelSet, Score

_ENDS = re.compile(r"[\t\r\n]+")


class Prediction(NamedTuple):
    """The prediction of a model for one example.

    Attributes:
      text: A label, an answer or a generated text; for tag the labels of the words.
      probability: Its probability; for tag that of each word; None if there is none.
        NaN where the scores of the model are not finite: see `check_finite`.
    """

    text: Any
    probability: Any = None

    @property
    def label(self) -> Any:
        """The text of a label, under the name that it has in JSON lines.

        >>> Prediction("greeting", 0.98765).label
        'greeting'
        """
        return self.text

    def cells(self) -> list[Any]:
        """Returns the text and, if there is one, the probability to four digits.

        >>> Prediction("greeting", 0.98765).cells(), Prediction("a text").cells()
        (['greeting', 0.9877], ['a text'])
        """
        if self.probability is None:
            return [self.text]
        return [self.text, round_probability(self.probability)]


class Entity(NamedTuple):
    """An entity in a text or in a list of words.

    Attributes:
      type: Its type, such as `PER`; of a model whose labels are not tags of spans, the
        label of a word.
      start: Its first character, from 0; in a list of words the number of its first
        word.
      end: The character, or the number of the word, after its last.
      score: The mean probability of the tags of its words.
      text: `text[start:end]`, or these words with spaces between them.
    """

    type: str
    start: int
    end: int
    score: float
    text: str


class Answer(NamedTuple):
    """An answer to a question, a span of its context.

    Attributes:
      text: `context[start:end]`; empty if there is no answer.
      start: Its first character in the context, from 0.
      end: The character after its last; 0 if there is no answer.
      score: Its probability, in [0, 1].
    """

    text: str
    start: int
    end: int
    score: float

    @property
    def probability(self) -> float:
        """The score, under the name that it has in files."""
        return self.score

    def cells(self) -> list[Any]:
        """Returns the text and the score to four digits.

        >>> Answer("Ada", 0, 3, 0.98765).cells()
        ['Ada', 0.9877]
        """
        return [self.text, round_probability(self.score)]


def is_finite(prediction: Any) -> bool:
    """Returns whether the probabilities of a prediction, or of several, are numbers."""
    if isinstance(prediction, list):
        return all(map(is_finite, prediction))
    probability = prediction.probability
    return probability is None or bool(np.isfinite(probability).all())


def check_finite(prediction: Any, source: str) -> Any:
    """Returns a prediction whose probabilities are numbers.

    Args:
      prediction: A prediction, an answer or a list of them.
      source: The text that it is of, for the error.

    Raises:
      InputError: A probability is not finite.

    >>> check_finite(Prediction("odd", 0.75), "a.txt:3").text
    'odd'
    """
    if is_finite(prediction):
        return prediction
    raise InputError(
        f"{source}: the scores of the model are not finite here; the parameters of the "
        "checkpoint may be damaged: train again, or use another run"
    )


class Format(NamedTuple):
    """How predictions are written.

    Attributes:
      kind: `text`, `conll`, `jsonl`, `csv`, `tsv`, `json`, `parquet` or `arrow`.
      header: The names of the columns of CSV or TSV, if there are any.
      scheme: The scheme of tags, a key of `tags.SCHEMES`; None leaves them as they are.
      probabilities: Whether columns of tags have a column of probabilities before them.
      separator: What stands between several labels in a cell; None writes lists.
    """

    kind: str
    header: list[str] | None = None
    scheme: str | None = None
    probabilities: bool = False
    separator: str | None = None

    def head(self, probability: bool) -> str:
        """Returns the text before all predictions: a header, if the input has one.

        Args:
          probability: Whether predictions have probabilities.
        """
        if not self.header:
            return ""
        added = added_names(self.header)[: 1 + probability]
        return self._row(self.header, added)

    def line(self, example: Example, prediction: Prediction) -> str:
        r"""Returns the lines of one example.

        >>> source = TaggedLines(["Ada NNP\n", "ran VBD\n", "\n"], [0, 1])
        >>> example = Example(["Ada", "ran"], row=source)
        >>> tagged = Prediction(["B-PER", "O"])
        >>> Format("conll", scheme="iob1").line(example, tagged)
        'Ada NNP I-PER\nran VBD O\n\n'
        >>> example = Example(["Ada"], row={"id": 7, "text": ["Ada"]})
        >>> tagged = Prediction(["B-PER"], [0.75])
        >>> Format("jsonl", scheme="iob1").line(example, tagged)
        '{"id": 7, "text": ["Ada"], "predicted": ["I-PER"], "probability": [0.75]}\n'
        >>> example = Example("a, b", row=["7", "a, b"])
        >>> Format("csv").line(example, Prediction("x", 0.75))
        '7,"a, b",x,0.75\n'
        """
        prediction = self.converted(prediction)
        if isinstance(example.row, TaggedLines):
            probable = prediction.probability if self.probabilities else None
            names = added_names(example.row.layout.names)
            return example.row.written(prediction.text, probable, names)
        if self.kind in ("json", "jsonl"):
            return _json_rows(example.row, prediction)
        if isinstance(prediction.text, list):
            return self._columns(example, prediction)
        several = isinstance(prediction, LabelSet)
        added = prediction.joined(self.separator) if several else prediction.cells()
        if example.row is not None:
            return self._row(example.row, added)
        if several or isinstance(prediction, Score):
            return _plain_line(example, added)
        label = " ".join(_ENDS.split(prediction.text))
        if prediction.probability is None:
            return label + "\n"
        text = f"{example.text}\t{example.pair}" if example.pair else example.text
        return f"{label}\t{prediction.probability:.4f}\t{text}\n"

    def converted(self, prediction: Prediction) -> Prediction:
        """Returns a prediction whose tags are in the scheme of the file."""
        if not self.scheme:
            return prediction
        return prediction._replace(
            text=tags.convert(prediction.text, "iob2", self.scheme)
        )

    def _row(self, cells: Sequence[str], added: Sequence[Any]) -> str:
        """Returns a record of a table with more cells; what was read stays as it is."""
        if isinstance(cells, Record):
            return cells.extended(added)
        return io.as_row([*cells, *added], self.kind)

    def _columns(self, example: Example, prediction: Prediction) -> str:
        """Returns a line for each word of a text, with its tag after a tab."""
        lines = [f"{word}\n" for word in example.text]
        layout = TagLayout(separator="\t")
        source = TaggedLines([*lines, "\n"], [*range(len(lines))], layout)
        probable = prediction.probability if self.probabilities else None
        return source.written(prediction.text, probable)


def _plain_line(example: Example, added: Sequence[Any]) -> str:
    """Returns the line of a text: its number, or labels and probabilities, and it."""
    cells = [*added, example.text, *([example.pair] if example.pair else [])]
    return "\t".join(" ".join(_ENDS.split(str(cell))) for cell in cells) + "\n"


def _json_rows(row: Any, prediction: Prediction) -> str:
    """Returns a row of JSON with its prediction; of a tuple the row of each word."""
    added = prediction.cells()
    if isinstance(row, dict):
        rows = [{**row, **dict(zip(added_names(row), added, strict=False))}]
    elif isinstance(row, tuple):
        cells = zip(*added, strict=True)  # the tag of each word, and its probability
        rows = [[*word, *each] for word, each in zip(row, cells, strict=True)]
    else:
        rows = [[*row, *added]]
    texts = (json_text(json.dumps(each, ensure_ascii=False)) for each in rows)
    return ",\n".join(texts) + "\n"


def added_names(taken: Iterable[str]) -> tuple[str, str]:
    """Returns names for a label and its probability that are not taken.

    >>> added_names(["text"]), added_names(["text", "predicted"])
    (('predicted', 'probability'), ('predicted2', 'probability2'))
    """
    taken = set(taken)
    for number in itertools.chain([""], itertools.count(2)):
        names = f"predicted{number}", f"probability{number}"
        if taken.isdisjoint(names):
            return names
    raise AssertionError  # there is always a next number


def record_line(
    example: Example,
    keys: Sequence[str],
    name: str,
    results: Sequence[Any],
    header: Sequence[str] | None = None,
) -> str:
    r"""Returns a JSON line of an example and its results.

    Args:
      example: The example; an object of JSON, and a row with a header, come back whole.
      keys: The names of its texts.
      name: The key of the results: `entities`, `labels` or `answers`. If the example
        has it already, a number follows.
      results: Entities, labels or answers.
      header: The names of the cells of a row, if there are any.

    >>> found = [Entity("PER", 0, 3, 0.98765, "Ada")]
    >>> record_line(Example("Ada"), ["text"], "entities", found)[:62]
    '{"text": "Ada", "entities": [{"type": "PER", "start": 0, "end"'
    """
    row = example.row
    texts = dict(zip(keys, (example.text, example.pair), strict=False))
    record = {"id": row, **texts} if isinstance(row, str) else texts
    if header or isinstance(row, dict):
        record = dict(zip(header, row, strict=True)) if header else dict(row)
    numbers = itertools.chain([""], itertools.count(2))
    key = next(f"{name}{n}" for n in numbers if f"{name}{n}" not in record)
    record[key] = [_fields(result) for result in results]
    return json_text(json.dumps(record, ensure_ascii=False)) + "\n"


def _fields(result: Any) -> dict[str, Any]:
    """Returns an entity, label or answer ready for JSON, with a rounded score."""
    if isinstance(result, Prediction):
        return dict(zip(("label", "probability"), result.cells(), strict=True))
    return {**result._asdict(), "score": round_probability(result.score)}


def answers_json(answers: dict[str, str]) -> str:
    """Returns answers by id, as SQuAD's evaluation takes them."""
    return json_text(json.dumps(answers, ensure_ascii=False, indent=1)) + "\n"


def round_probability(probability: Any) -> Any:
    """Returns a probability, or a list of them, to four digits."""
    if isinstance(probability, list):
        return [round(float(value), 4) for value in probability]
    return round(float(probability), 4)


def write_predictions(
    directory: Path,
    path: str,
    part: str,
    examples: Examples,
    predictions: Sequence[Prediction],
    scheme: str | None = None,
    separator: str | None = None,
) -> None:
    """Writes predictions for a part of the data, in the format that it was read in.

    Args:
      directory: The directory for the file `predictions-PART.ENDING`.
      path: The file that was read.
      part: The part of the data.
      examples: The examples of that part.
      predictions: The prediction for each.
      scheme: The scheme to write tags of spans in.
      separator: What stands between several labels in a cell; None writes lists.
    """
    kind, ending = examples.layout.kind, Path(path).suffix.lower()
    form = Format(kind, examples.header, scheme, separator=separator)
    second = examples.pairs or itertools.repeat("")
    rows = map(Example, examples.texts, second, examples.rows)
    pairs = zip(rows, predictions, strict=True)
    if kind in formats.BINARY:
        target = directory / f"predictions-{part}{ending or f'.{kind}'}"
        with io.atomic(target, "wb") as file:
            write_arrow(path, file, form, pairs)
        return
    lines = (form.line(*pair) for pair in pairs)
    if kind == "json":
        text = document(examples.layout.around, lines)
    elif kind == "conll":
        kind, text = examples.rows[0].layout.format, _written_lines(form, pairs)
    else:
        head = form.head(predictions[0].probability is not None)
        text = head + "".join(lines)
    io.write(directory / f"predictions-{part}.{kind}", text)


def _written_lines(form: Format, pairs: Iterable[tuple[Example, Prediction]]) -> str:
    """Returns sentences in the layout of their file; they may be a part of it."""
    texts, sources = [], []
    for example, prediction in pairs:
        source = example.row._replace(first=not sources)
        texts.append(form.line(example._replace(row=source), prediction))
        sources.append(source)
    return join_written(texts, sources)


def write_arrow(
    path: str | Path,
    sink: IO[bytes],
    form: Format,
    pairs: Iterable[tuple[Example, Any]],
) -> int:
    """Writes a Parquet or Arrow file again, with predictions; returns their number.

    Args:
      path: The file that was read.
      sink: The file to write.
      form: How predictions are written.
      pairs: Examples, whose rows are their numbers in the file, with predictions.
    """
    names = added_names(arrow_files.column_names(path))

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        for example, prediction in pairs:
            cells = form.converted(prediction).cells()
            yield example.row, dict(zip(names, cells, strict=False))

    return arrow_files.write_with_columns(path, sink, rows())
