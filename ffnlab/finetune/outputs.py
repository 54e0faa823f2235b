"""What a model says of something, in the format that this came in.

Rows of a table, JSON lines and CoNLL columns come back whole, with what was predicted
added; where they have a `predicted` already, it is `predicted2`.
"""

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ffnlab import io
from ffnlab.data import tags
from ffnlab.data.conll import is_token
from ffnlab.data.examples import KEYS, Examples


class Example(NamedTuple):
    """One thing to predict on.

    Attributes:
      text: the text, the words of a sentence, or a question.
      pair: the second text, or the context of a question.
      row: what it came in: an object or list of JSON, the cells of a row, the lines of
        the words, the id of a question; None for plain text.
    """

    text: Any
    pair: str = ""
    row: Any = None


class Prediction(NamedTuple):
    """What a model says of an item.

    Attributes:
      text: a label, an answer, a text; for tag the labels of the words.
      probability: its probability; for tag one for each word; None if it has none.
    """

    text: Any
    probability: Any = None

    def cells(self) -> list[Any]:
        """Returns the text and, if there is one, the probability to four digits."""
        return (
            [self.text]
            if self.probability is None
            else [self.text, round_probability(self.probability)]
        )


class Format(NamedTuple):
    """How predictions are written.

    Attributes:
      kind: `text`, `conll`, `jsonl`, `csv`, `tsv` or `json`.
      header: the names of the columns of CSV or TSV, if there are any.
      scheme: of tags, a key of `tags.SCHEMES`; None leaves them as they are.
      probabilities: whether tags in columns have their probabilities before them.
    """

    kind: str
    header: list[str] | None = None
    scheme: str | None = None
    probabilities: bool = False

    def head(self, probability: bool) -> str:
        """Returns what is written before all items: a header, if the input has one.

        Args:
          probability: whether there are probabilities.
        """
        if not self.header:
            return ""
        added = added_names(self.header)[: 1 + probability]
        return io.as_row([*self.header, *added], self.kind)

    def line(self, item: Example, said: Prediction) -> str:
        r"""Returns what is written of an item.

        >>> item = Example(["Ada", "ran"], row=["Ada NNP", "ran VBD"])
        >>> Format("conll", scheme="iob1").line(item, Prediction(["B-PER", "O"]))
        'Ada NNP I-PER\nran VBD O\n\n'
        >>> item = Example(["Ada"], row={"id": 7, "text": ["Ada"]})
        >>> Format("jsonl", scheme="iob1").line(item, Prediction(["B-PER"], [0.75]))
        '{"id": 7, "text": ["Ada"], "predicted": ["I-PER"], "probability": [0.75]}\n'
        >>> Format("csv").line(Example("a, b", row=["7", "a, b"]), Prediction("x", 0.75))
        '7,"a, b",x,0.75\n'
        """
        if self.scheme:
            said = said._replace(text=tags.convert(said.text, "iob2", self.scheme))
        if isinstance(said.text, list) and not isinstance(item.row, dict):
            return self._columns(item, said)
        added = said.cells()
        if isinstance(item.row, dict):
            names = added_names(item.row)[: len(added)]
            row = {**item.row, **dict(zip(names, added, strict=True))}
            return json.dumps(row, ensure_ascii=False) + "\n"
        if item.row is not None:
            return io.as_row([*item.row, *added], self.kind)
        if said.probability is None:
            return said.text.replace("\n", " ") + "\n"
        text = f"{item.text}\t{item.pair}" if item.pair else item.text
        return f"{said.text}\t{said.probability:.4f}\t{text}\n"

    def _columns(self, item: Example, said: Prediction) -> str:
        """Returns the lines of a sentence, each with its tag in one more column."""
        added = [[tag] for tag in said.text]
        if self.probabilities:
            pairs = zip(said.probability, said.text, strict=True)
            added = [[f"{probability:.4f}", tag] for probability, tag in pairs]
        after, lines = iter(added), []
        for line in item.row or item.text:
            between = " " if " " in line and "\t" not in line else "\t"
            if item.row and not is_token(line):
                lines += [line, ""]  # a new document
            else:
                lines.append(between.join([line, *next(after)]))
        return "".join(line + "\n" for line in [*lines, ""])


def added_names(taken: Iterable[str]) -> tuple[str, str]:
    """Returns the names of a label and its probability beside others.

    >>> added_names(["text"]), added_names(["text", "predicted"])
    (('predicted', 'probability'), ('predicted2', 'probability2'))
    """
    taken = set(taken)
    for number in itertools.chain([""], itertools.count(2)):
        names = f"predicted{number}", f"probability{number}"
        if taken.isdisjoint(names):
            return names
    raise AssertionError  # there is always a next number


def answers_json(found: dict[str, str]) -> str:
    """Returns answers by id, as SQuAD's evaluation takes them."""
    return json.dumps(found, ensure_ascii=False, indent=1) + "\n"


def round_probability(probability: Any) -> Any:
    """Returns one probability, or a list of them, to four digits."""
    if isinstance(probability, list):
        return [round(float(each), 4) for each in probability]
    return round(float(probability), 4)


def write_predictions(
    directory: Path,
    path: str,
    part: str,
    found: Examples,
    said: Sequence[Prediction],
    scheme: str | None = None,
) -> None:
    """Writes what was said of a part of the data, in the format that it was read in.

    Args:
      directory: to write `predictions-…` into.
      path: the file that was read.
      part: which part it is.
      found: its examples.
      said: what was said of each.
      scheme: of tags, if they are of spans.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    if isinstance(said[0].text, list) and kind != "jsonl":
        kind = "conll"
    pairs = found.pairs or [""] * len(found.texts)
    items = map(Example, found.texts, pairs, found.rows)
    if kind == "json":
        text = _lists(KEYS[part], zip(found.rows, said, strict=True))
    else:
        form = Format(kind, found.header, scheme)
        lines = [form.line(*each) for each in zip(items, said, strict=True)]
        text = form.head(said[0].probability is not None) + "".join(lines)
    io.write(directory / f"predictions-{part}.{kind}", text)


def _lists(key: str, rows: Iterable[tuple[list, Prediction]]) -> str:
    """Returns JSON of lists, each with what was said of it at its end.

    >>> _lists("test", [(["hello", "greeting"], Prediction("greeting", 0.98765))])
    '{"test": [\\n["hello", "greeting", "greeting", 0.9877]\\n]}\\n'
    """
    lines = [
        json.dumps([*row, *said.cells()], ensure_ascii=False) for row, said in rows
    ]
    return f'{{"{key}": [\n' + ",\n".join(lines) + "\n]}\n"
