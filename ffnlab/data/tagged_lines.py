"""The lines of a tagged sentence as they came, which take predictions."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from ffnlab.data.tag_layouts import Place, TagLayout
from ffnlab.errors import InputError

_NONE = ("_", "O")  # what a missing pair of CoNLL-U means


class TaggedLines(NamedTuple):
    """The lines of a sentence, and where predictions are written in them.

    Attributes:
      lines: Its lines with their ends: those of words and those between them, with
        comments and blank lines before, and blank lines after.
      words: The places in `lines` of the words, in order.
      layout: The layout of the file.
      place: The column that predictions replace; None adds a column.
      head: What the file begins with, once: a byte-order mark, a header.
      first: Whether the sentence is the first of the file, and `head` before it.
      about: What was found in the file, as reports say it.
    """

    lines: list[str]
    words: list[int]
    layout: TagLayout = TagLayout()
    place: Place | None = None
    head: str = ""
    first: bool = False
    about: str = ""

    @property
    def labelled(self) -> bool:
        """Whether its tags are labels of words by the definition of their column."""
        return bool(self.place) and self.layout.labels_words(self.place)

    def at(self, column: str | None) -> "TaggedLines":
        """Returns the lines with predictions in a column.

        Args:
          column: Its number or name; None adds a column, which CoNLL-U cannot have: the
            column misc has a pair `Predicted=…` then.

        Raises:
          InputError: The layout has no such column, or is a table.

        >>> TaggedLines([], []).at("2").place
        Place(column=1, key='')
        """
        if column is None and "misc" in self.layout.names:
            column = "misc:Predicted" if self.layout.format == "conllu" else None
        if column is None:
            return self._replace(place=None)
        if self.layout.sentence is not None:
            raise InputError(
                "predicted_column: a table gets a new column; leave it out"
            )
        return self._replace(place=self.layout.place("predicted", column))

    def written(
        self,
        tags: Sequence[str],
        probabilities: Sequence[float] | None = None,
        names: Sequence[str] = ("predicted", "probability"),
    ) -> str:
        r"""Returns the lines with predictions.

        Args:
          tags: The tag of each word.
          probabilities: Their probabilities, which are written before the tags, in
            CoNLL-U into the column misc; None writes none.
          names: The names of the new columns of a table.

        >>> source = TaggedLines(["# id 1\n", "Ada\tNNP\n", "\n"], [1])
        >>> source.written(["B-PER"])
        '# id 1\nAda\tNNP\tB-PER\n\n'
        >>> source._replace(place=Place(1)).written(["B-PER"])
        '# id 1\nAda\tB-PER\n\n'
        """
        lines = list(self.lines)
        for n, (i, tag) in enumerate(zip(self.words, tags, strict=True)):
            probability = "" if probabilities is None else f"{probabilities[n]:.4f}"
            lines[i] = self._line(lines[i], tag, probability)
        return self._head(names, probabilities is not None) + "".join(lines)

    def _head(self, names: Sequence[str], probable: bool) -> str:
        """Returns what the file begins with, with the names of new columns."""
        if not self.first or self.layout.sentence is None:
            return self.head if self.first else ""
        body = self.head.rstrip("\r\n")
        added = [names[1], names[0]] if probable else [names[0]]
        return self.layout.separator.join([body, *added]) + self.head[len(body) :]

    def _line(self, line: str, tag: str, probability: str) -> str:
        """Returns the line of a word with its tag."""
        body = line.rstrip("\r\n")
        if self.place:
            written = self._replaced(body, self.place, tag)
            if probability:
                written = self._replaced(written, self._misc(), probability)
            return written + line[len(body) :]
        cells = [probability, tag] if probability else [tag]
        between = self.layout.separator
        if between == " ":
            between = " " if " " in body and "\t" not in body else "\t"
        if self.layout.quoted:
            cells = [_quoted(cell, between) for cell in cells]
        return between.join([body, *cells]) + line[len(body) :]

    def _misc(self) -> Place:
        """Returns the place of probabilities in CoNLL-U."""
        if "misc" not in self.layout.names:
            what = "predictions replace a column, and there is none for these"
            raise InputError(f"probabilities: {what}; leave one of both out")
        return Place(self.layout.names.index("misc"), "Probability")

    def _replaced(self, body: str, place: Place, value: str) -> str:
        """Returns a line whose column has another value."""
        pattern = r"([ \t]+)" if self.layout.separator == " " else r"(\t)"
        start = len(body) - len(body.lstrip(" \t")) if " " in pattern else 0
        stop = len(body.rstrip(" \t")) if " " in pattern else len(body)
        parts = re.split(pattern, body[start:stop])
        first, last = self.layout.skipped
        cells = range(2 * first, len(parts) - 2 * last, 2)
        if place.column >= len(cells):
            found = f"column {place.column + 1} of {len(cells)} in {body[:60]!r}"
            raise InputError(f"predicted_column: {found}; columns count from 1")
        at = cells[place.column]
        parts[at] = _with_pair(parts[at], place.key, value) if place.key else value
        return body[:start] + "".join(parts) + body[stop:]


def pair_of(cell: str, key: str) -> str:
    """Returns the value of a pair in a cell of CoNLL-U, `_` if it is not there.

    >>> pair_of("NER=B-PER|SpaceAfter=No", "NER"), pair_of("_", "NER")
    ('B-PER', '_')
    """
    pairs = (pair.partition("=") for pair in cell.split("|"))
    return next((value for name, _, value in pairs if name == key), "_")


def _with_pair(cell: str, key: str, value: str) -> str:
    """Returns a cell of CoNLL-U with another value of a pair.

    >>> _with_pair("SpaceAfter=No", "NER", "B-PER"), _with_pair("_", "NER", "O")
    ('SpaceAfter=No|NER=B-PER', '_')
    """
    pairs = [] if cell == "_" else cell.split("|")
    names = [pair.partition("=")[0] for pair in pairs]
    if key in names:
        place = names.index(key)
        pairs[place : place + 1] = [] if value == "_" else [f"{key}={value}"]
    elif value not in _NONE:
        pairs.append(f"{key}={value}")
    return "|".join(pairs) or "_"


def _quoted(cell: str, separator: str) -> str:
    """Returns a cell in quotes if it needs them."""
    if any(sign in cell for sign in (separator, '"', "\n", "\r")):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def join_written(texts: Sequence[str], sources: Sequence[TaggedLines]) -> str:
    r"""Returns written sentences one after another, with blank lines where needed.

    They are needed where the sentences were not neighbours in their file.

    >>> sources = [TaggedLines(["Ada O\n"], [0]), TaggedLines(["He O"], [0])]
    >>> join_written([source.written(["O"]) for source in sources], sources)
    'Ada O O\n\nHe O O'
    """
    joined: list[str] = []
    for text, source in zip(texts, sources, strict=True):
        before = joined[-1] if joined else ""
        end = "\r\n" if "\r\n" in before else "\n"
        if before and not before.endswith("\n"):
            joined.append(end)
        touching = source.words[:1] == [0] and source.layout.sentence is None
        if before and touching and not re.search(r"(^|\n)[ \t]*\r?\n$", before):
            joined.append(end)
        joined.append(text)
    return "".join(joined)
