"""The columns of texts and labels, and the names that they have where none are given.

    Columns().resolve("tag", ["id", "tokens", "ner_tags"]).names("tag")
    # ['tokens', 'ner_tags']

The names are those that the data sets of transformers' run_ner, run_glue and similar
scripts have.
"""

from collections.abc import Iterable
from typing import NamedTuple

# Texts by task; of pairs two, which belong together.
_TEXTS = {
    "qa": (("question", "context"),),
    "classify": (("text",), ("sentence",)),
    "pairs": (
        ("text", "text2"),
        ("sentence1", "sentence2"),
        ("premise", "hypothesis"),
        ("question1", "question2"),
        ("question", "sentence"),
        ("text_a", "text_b"),
        ("text1", "text2"),
    ),
    "tag": (("text",), ("tokens",), ("words",)),
    "generate": (
        ("text",),
        ("source",),
        ("document",),
        ("article",),
        ("dialogue",),
        ("input_text",),
    ),
}
_LABELS = {
    "qa": ("answers",),
    "classify": ("label", "labels", "score"),
    "pairs": ("label", "labels", "score"),
    "tag": ("label", "ner_tags", "tags", "labels", "pos_tags", "chunk_tags"),
    "generate": ("label", "target", "summary", "highlights", "target_text"),
}


class Columns(NamedTuple):
    """The columns of a table: names of a header, keys, or numbers counted from 1.

    Attributes:
      text: The column of the text.
      pair: The column of the second text, if the task has one.
      label: The column of the label; None does not read labels.
      indicators: Columns of 0 and 1, one for each of several labels, in place of the
        column of the label.
    """

    text: str = "text"
    pair: str = "text2"
    label: str | None = "label"
    indicators: tuple[str, ...] = ()

    @property
    def labels(self) -> list[str]:
        """The columns of labels."""
        return list(self.indicators or [self.label]) if self.label else []

    def names(self, task: str) -> list[str]:
        """Returns the columns that a task reads: text, second text, label."""
        pair = [self.pair] if task in ("pairs", "qa") else []
        return [self.text, *pair, *self.labels]

    def resolve(self, task: str, held: Iterable[str]) -> "Columns":
        """Returns columns in which a default that a file lacks has its other name.

        Names that are not the defaults stay as they are, and so do defaults for which
        the file has no other name. Numbers that are no names of the file count as
        defaults.

        Args:
          task: A name of `examples.TASKS`, or `qa`.
          held: The columns of the file.

        >>> held = ["premise", "hypothesis", "label"]
        >>> Columns().resolve("pairs", held).names("pairs")
        ['premise', 'hypothesis', 'label']
        >>> Columns("title").resolve("classify", ["sentence", "labels"]).labels
        ['labels']
        """
        held, (text, pair, label) = set(held), self[:3]
        texts = (text, pair) if task in ("pairs", "qa") else (text,)
        if _is_default(texts, _TEXTS[task][0], held):
            known = (names for names in _TEXTS[task] if held.issuperset(names))
            text, pair = (*next(known, texts), pair)[:2]
        if label and _is_default((label,), _LABELS[task][:1], held):
            others = (name for name in _LABELS[task] if name in held)
            label = next((name for name in others if name not in (text, pair)), label)
        return Columns(text, pair, label, self.indicators)


def _is_default(
    names: tuple[str, ...], defaults: tuple[str, ...], held: set[str]
) -> bool:
    """Returns whether names were not given, or are numbers that are no names."""
    return all(
        name == default or (name.isdecimal() and name not in held)
        for name, default in zip(names, defaults, strict=True)
    )
