"""One text, or pair of texts, with where it came from."""

from typing import Any, NamedTuple


class Example(NamedTuple):
    """One text, or pair of texts, of a file.

    Attributes:
      text: The text, the words of a sentence, or a question.
      pair: The second text, or the context of a question.
      row: Its source: an object or list of JSON, a tuple of lists of JSON for the
        words of a sentence, the cells of a row, the lines of the words, the number of
        the row of a Parquet or Arrow file, from 0, or the id of a question; None for
        plain text.
      label: The label, or the tags of the words; None if labels are not read.
    """

    text: Any
    pair: str = ""
    row: Any = None
    label: Any = None
