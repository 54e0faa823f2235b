"""Labels that are numbers in a file, and their names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ffnlab.data.files import stop_at
from ffnlab.errors import InputError
from ffnlab.escape import terminal


def name_labels(
    path: str | Path,
    labels: Sequence[Any],
    lines: Sequence[Any],
    names: Sequence[str],
    column: str = "label",
) -> list[Any]:
    """Returns labels by name; numbers are those of a list of names, from 0.

    Args:
      path: The file, for errors.
      labels: A label for each example, or a list of them; texts and whole numbers.
      lines: The lines of the labels, in the same form.
      names: The names in the order of their numbers; empty leaves texts as they are.
      column: The column of the labels, for errors.

    Raises:
      InputError: Labels are numbers without names, or up to 20 are not among the names.

    >>> name_labels("a.jsonl", [[1, 0]], [[1, 1]], ["O", "B-PER"])
    [['B-PER', 'O']]
    >>> name_labels("a.jsonl", ["B", "1"], [1, 2], ["A", "B"])
    ['B', 'B']
    """
    if not names:
        _refuse_numbers(path, labels, lines, column)
        return list(labels)
    known, problems = {str(n): name for n, name in enumerate(names)}, []
    known |= {name: name for name in names}

    def named(label: Any, line: int) -> str:
        if (name := known.get(str(label))) is None:
            shown = f"{label!r:.60} is not a number below {len(names)}, or a name"
            problems.append((line, f"label {shown}, of label_names"))
        return name or ""

    result = [
        [*map(named, label, line)] if isinstance(label, list) else named(label, line)
        for label, line in zip(labels, lines, strict=True)
    ]
    stop_at(path, problems)
    return result


def _refuse_numbers(
    path: str | Path, labels: Sequence[Any], lines: Sequence[Any], column: str
) -> None:
    """Raises if a list of labels has a number."""
    for label, line in zip(labels, lines, strict=True):
        if isinstance(label, list) and any(isinstance(tag, int) for tag in label):
            raise InputError(
                f"{path}:{line[0]}: {terminal(column)!r} has numbers; give their names "
                "in order, such as label_names=O,B-PER,I-PER"
            )
