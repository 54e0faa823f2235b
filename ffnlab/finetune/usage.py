"""How a fine-tuned model is used: the record that its config.json keeps.

The record lies in config.json under one key. The names in the file are those of the
first release, so that every run directory ever written can be read.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ffnlab.data.targets import MULTI, PROBLEM_TYPES, REGRESSION, SINGLE
from ffnlab.errors import InputError
from ffnlab.schema import Field, check, check_object, fields_of

KEY = "ffnlab_use"
TASKS = ("classify", "pairs", "tag", "qa", "generate")
# Field to its name in the file, where the two differ.
_IN_FILE = {
    "max_seq_length": "length",
    "head_hidden": "hidden",
    "doc_stride": "stride",
    "max_answer_length": "longest",
    "null_score_diff_threshold": "threshold",
    "max_target_length": "target_length",
    "num_beams": "beam",
}
_OF_TASK = {
    "classify": ("head", "head_hidden", "dense", "scheme", "marks", "pair_column"),
    "qa": (
        "doc_stride",
        "max_answer_length",
        "null_score_diff_threshold",
        "pair_column",
    ),
    "generate": ("max_target_length", "template", "num_beams"),
}
_OF_TASK["pairs"] = _OF_TASK["classify"]
_OF_TASK["tag"] = (*_OF_TASK["classify"], "label_column", "file_format")
# Fields of other targets than one label, which files without them do not have.
_OF_TARGETS = {
    SINGLE: (),
    REGRESSION: ("problem_type",),
    MULTI: ("problem_type", "threshold", "label_separator"),
}
_SIZE = Field(kind=int, least=1, most=2**31 - 1)
# What is narrower than the types of the fields.
_RANGES = {
    **dict.fromkeys(("max_seq_length", "head_hidden", "max_answer_length"), _SIZE),
    "max_target_length": _SIZE,
    "doc_stride": Field(kind=int, least=0, most=2**31 - 1),
    "num_beams": Field(kind=int, least=1, most=2**31 - 1, optional=True),
    "dtype": Field(kind=str, known=("float32", "bfloat16")),
    "marks": Field(kind=list, items=Field(kind=str), most=2, optional=True),
    "problem_type": Field(kind=str, known=PROBLEM_TYPES),
    "threshold": Field(kind=float, least=0.0, most=1.0),
}
_MAY_LACK = {
    "marks", "scheme", "label_column", "file_format", "problem_type", "label_separator",
}  # fmt: skip
_ALWAYS = ("task", "dtype", "max_seq_length", "text_column")


@dataclasses.dataclass(frozen=True)
class Usage:
    """How a fine-tuned model is applied to new text.

    Attributes:
      task: A name of `TASKS`.
      max_seq_length: The maximum number of tokens of a text or window.
      dtype: The dtype to compute in, `float32` or `bfloat16`.
      text_column: The column of the text, as in training.
      pair_column: The column of the second text or context, as in training.
      head: The kind of head, of the tasks with labels.
      head_hidden: The hidden width of that head.
      dense: The activation of a dense layer before it, or None.
      scheme: The tagging scheme that predictions are written in, or None.
      label_column: The column of the tags in training, a name of CoNLL-U or a number;
        None if it was the last column, or the files had no columns.
      file_format: The format of the files of training, for tag: that of a
        `tag_layouts.TagLayout`, or `jsonl`; None if it is not known.
      marks: The names of the two entity markers, or none.
      problem_type: What is predicted of a text, a name of `targets.PROBLEM_TYPES`.
      threshold: The probability from which on a text has a label, of several.
      label_separator: What stands between the labels of a cell; None writes a list of
        JSON.
      doc_stride: Tokens that two windows of a context share.
      max_answer_length: The maximum number of tokens of an answer.
      null_score_diff_threshold: How much the score of no answer must exceed that of
        the best answer.
      template: The prompt around the input text.
      max_target_length: The maximum number of tokens to generate.
      num_beams: The width of the beam search; None decodes greedily.
    """

    task: str
    max_seq_length: int
    dtype: str = "float32"
    text_column: str = "text"
    pair_column: str = "text2"
    head: str = "linear"
    head_hidden: int = 128
    dense: str | None = None
    scheme: str | None = None
    marks: tuple[str, ...] = ()
    label_column: str | None = None
    file_format: str | None = None
    problem_type: str = SINGLE
    threshold: float = 0.5
    label_separator: str | None = None
    doc_stride: int = 128
    max_answer_length: int = 30
    null_score_diff_threshold: float = 0.0
    template: str = "{text} => "
    max_target_length: int = 48
    num_beams: int | None = None

    @property
    def two_texts(self) -> bool:
        """Whether an example has two texts; marked entities stand in one."""
        return self.task in ("pairs", "qa") and not self.marks

    @property
    def predicts_labels(self) -> bool:
        """Whether predictions of a text are labels, and not numbers."""
        return self.problem_type != REGRESSION

    def to_dict(self) -> dict[str, Any]:
        """Returns the record as config.json holds it, with the fields of its task.

        >>> Usage("generate", 64).to_dict()["target_length"]
        48
        """
        names = (*_fields_of(self.task), *_OF_TARGETS[self.problem_type])
        values = {name: getattr(self, name) for name in names}
        values = {k: list(v) if k == "marks" else v for k, v in values.items()}
        return {_IN_FILE.get(name, name): value for name, value in values.items()}

    @classmethod
    def from_dict(cls, source: str, held: Any) -> "Usage":
        """Returns the record that a config.json holds.

        Args:
          source: The file, for errors.
          held: What it has under `KEY`.

        Raises:
          InputError: It is not a record, its task is unknown, or a field is missing.

        >>> usage = Usage("qa", 384, doc_stride=64)
        >>> Usage.from_dict("config.json", usage.to_dict()) == usage
        True
        """
        task = held.get("task") if isinstance(held, Mapping) else None
        if not isinstance(task, str) or task not in TASKS:
            raise InputError(
                f"{source}: {KEY} should be a record with one of the tasks "
                f"{', '.join(TASKS)}; this is not a fine-tuned model of ffnlab"
            )
        problem = held.get("problem_type", SINGLE)
        more = _OF_TARGETS.get(problem, ()) if isinstance(problem, str) else ()
        names = [*_fields_of(task), "problem_type", *more]
        known = {_IN_FILE.get(name, name): name for name in names}
        missing = sorted(known.keys() - held.keys() - _MAY_LACK)
        if missing:
            raise InputError(f"{source}: {KEY} has no {missing[0]!r}; train again")
        fields = fields_of(cls, **_RANGES)
        checks = {name: fields[field] for name, field in known.items()}
        checked = check_object(held, checks, f"{source}: {KEY}", "train again")
        given = {known[name]: value for name, value in checked.items()}
        given["marks"] = tuple(given.get("marks") or ())
        return cls(**given)


def _fields_of(task: str) -> tuple[str, ...]:
    return (*_ALWAYS, *_OF_TASK[task])


def read_labels(source: str, held: Any) -> list[str]:
    """Returns the names of labels, in order, that a file keeps as `id2label`.

    Args:
      source: The file, for errors.
      held: What it has under that key: texts by their numbers, or nothing.

    Raises:
      InputError: It is something else, or a number is missing.

    >>> read_labels("config.json", {"0": "even", "1": "odd"})
    ['even', 'odd']
    """
    labels = {} if held is None else held
    where, advice = f"{source}: id2label", "train again"
    check(labels, Field(kind=dict, items=Field(kind=str)), where, advice)
    numbers = map(str, range(len(labels)))
    fields = dict.fromkeys(numbers, Field(kind=str, required=True))
    return [*check_object(labels, fields, where, advice).values()]
