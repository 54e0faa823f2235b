"""The labels of examples by number."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ffnlab.data.examples import Examples
from ffnlab.data.files import is_text
from ffnlab.data.targets import MULTI
from ffnlab.errors import InputError


def describe_missing(value: Any) -> str:
    """Returns how a missing value is shown; empty if it is not missing.

    >>> describe_missing(None), describe_missing(float("nan")), describe_missing("a")
    ('None', 'nan', '')
    """
    if value is None:
        return "None"
    try:
        return "" if value == value else str(value)  # NaN and NaT
    except (TypeError, ValueError):  # pandas.NA has no truth value; arrays have several
        return str(value) if type(value).__name__ == "NAType" else ""


def label_text(value: Any) -> str:
    """Returns a label of any type as a text.

    Args:
      value: A text, a number, a truth value, or anything else that is hashable.

    Raises:
      InputError: It is missing, blank or not hashable. The message does not name the
        label's place.

    >>> label_text(3), label_text(True), label_text("ham")
    ('3', 'True', 'ham')
    """
    if missing := describe_missing(value):
        raise InputError(f"is missing ({missing}); drop the row, or give it a label")
    try:
        hash(value)
    except TypeError:
        kind = type(value).__name__
        raise InputError(
            f"should be one label, got a {kind}, {value!r:.60}; "
            f"problem_type={MULTI} takes several"
        ) from None
    text = str(value)
    if not is_text(text):
        raise InputError(f"{text!r} is blank, or has half of a surrogate pair")
    return text


def label_names(
    train: Examples, task: str, path: str = "train", given: Sequence[str] = ()
) -> list[str]:
    """Returns the labels of the training part, sorted; for tags of spans O is first.

    Every type of span has both of its tags, B- and I-, so that any span can be
    predicted.

    Args:
      train: The training part.
      task: One of `TASKS`.
      path: Its file, for errors.
      given: Names in an order that is kept where all labels are among them.

    Raises:
      InputError: There is only one label, and nothing to tell apart.
    """
    if task != "tag":
        names = sorted(set(train.labels))
    else:
        known = {tag for row in train.labels for tag in row}
        kinds = sorted({tag[2:] for tag in known if train.scheme and tag != "O"})
        spans = [f"{prefix}-{kind}" for kind in kinds for prefix in "BI"]
        names = ["O", *spans] if train.scheme else sorted(known)
    if len(names) < 2:
        what = f"every label is {names[0]!r}: there is nothing to tell apart"
        raise InputError(f"{path}: {what}")
    return list(given) if set(names) <= set(given) else names


def label_ids(
    path: str, examples: Examples, names: Sequence[str], ignore: bool = False
) -> list[Any]:
    """Returns labels as numbers; for `tag` a list for each sentence.

    Args:
      path: The file, for errors.
      examples: The examples with their labels.
      names: The labels by number, see `label_names`.
      ignore: Whether an unknown label becomes −1, which counts as missed; otherwise it
        is an error.

    Raises:
      InputError: Labels do not occur in training; each is named with its count and
        first line.
    """
    known = {name: number for number, name in enumerate(names)}
    nested = bool(examples.labels) and isinstance(examples.labels[0], list)
    flat, lines = examples.labels, examples.lines
    if nested:
        flat, lines = ([v for row in rows for v in row] for rows in (flat, lines))
    if not ignore:
        refuse_unseen(path, flat, lines, names)
    if nested:
        return [[known.get(tag, -1) for tag in row] for row in examples.labels]
    return [known.get(label, -1) for label in examples.labels]


def refuse_unseen(
    path: str, labels: Sequence[str], lines: Sequence[int], names: Sequence[str]
) -> None:
    """Raises if labels do not occur in training.

    Args:
      path: The file, for errors.
      labels: Labels.
      lines: The line of each.
      names: The labels of training.

    Raises:
      InputError: As `label_ids`.
    """
    known = set(names)
    unseen = Counter(label for label in labels if label not in known)
    if not unseen:
        return
    first = dict(reversed([*zip(labels, lines, strict=True)]))
    shown = ", ".join(
        f"{name!r} ({count}, first in line {first[name]})"
        for name, count in unseen.most_common(8)
    )
    shown += f" and {len(unseen) - 8} more" if len(unseen) > 8 else ""
    raise InputError(
        f"{path}: labels that training does not show: {shown}; correct them, or "
        "unseen_labels=ignore counts them as missed"
    )
