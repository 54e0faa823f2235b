"""Whether lines without a telling name are columns of tagged words."""

from collections.abc import Iterable, Sequence

from ffnlab.data.tag_layouts import TagLayout, find_layout
from ffnlab.data.tags import TAG


def are_columns(
    lines: Iterable[str], labels: Sequence[str], column: int = -1, eager: bool = False
) -> bool:
    r"""Returns whether lines without a telling name are columns, and not plain texts.

    They are if they show CoNLL-U or a table, or begin with a comment or document start;
    if two lines have as many tabs; if two have as many columns and labels among them;
    or if all lines are single words, with blank lines between sentences.

    Args:
      lines: The lines; only as many as are needed are taken.
      labels: The labels of the model.
      column: The column of the labels, from 0; −1 is the last.
      eager: Whether one word in a line is a text at once, as for standard input, whose
        writer may be waiting.

    >>> are_columns(["Ada _ B-PER", "sings _ O"], ["O", "B-PER"])
    True
    >>> are_columns(["Ada lives in Rome .", "He sings ."], ["O", "B-PER"])
    False
    """
    types = {label[2:] for label in labels if TAG.fullmatch(label) and label != "O"}
    known = {*labels, "_", *(f"{sign}-{kind}" for sign in "BIESLUMW" for kind in types)}
    first, gap = None, False
    for line in lines:
        layout = TagLayout()
        if not line.strip():
            gap = first is not None
            continue
        if first is None and (layout.breaks(line) or find_layout([line]).names):
            return True
        cells = line.split("\t") if "\t" in line else layout.cells(line)
        if len(cells) == 1 and not eager and (first is None or len(first) == 1):
            if gap:
                return True
            first = cells
            continue
        if first is None:
            if "\t" not in line and not _has(cells, column, known):
                return False
            first = cells
            continue
        labelled = "\t" in line or _has(cells, column, known)
        return len(cells) == len(first) > 1 and labelled
    tabbed = first is not None and len(first) > 1
    return tabbed and _has(first, column, known) and "\t" in line


def _has(cells: Sequence[str], column: int, known: set[str]) -> bool:
    """Returns whether one of several cells is a label."""
    return 1 < len(cells) > column and cells[column].strip() in known
