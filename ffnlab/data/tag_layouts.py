"""How a file of tagged words is laid out, found in its lines.

Four layouts have one word per line or record:

- conll: columns between tabs, or between blanks where there are no tabs;
- conllu: CoNLL-U and CoNLL-U Plus, whose columns have names;
- csv and tsv: a table with a column that numbers the sentences, such as `Sentence #`.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ffnlab.data.tags import TAG
from ffnlab.errors import InputError, choose

CONLLU = (
    "id",
    "form",
    "lemma",
    "upos",
    "xpos",
    "feats",
    "head",
    "deprel",
    "deps",
    "misc",
)
FORMATS = ("conll", "conllu", "csv", "tsv")
MARK = "\ufeff"  # the byte-order mark
_BETWEEN = re.compile(r"[ \t]+")  # a token may hold other characters of space
_ID = re.compile(r"\d+([-.]\d+)?")
# A comment of MultiCoNER, CoNLL-U, GermEval 2014 or CoNLL-2012, and not a word `#` with
# its columns.
_COMMENT = re.compile(
    r"# +(id +\S|[^\s=]+ += +\S)|#[ \t]+https?://|#(begin|end) document\b"
)
_PLUS = re.compile(r"# *global\.columns *= *(.+)")
_SENTENCE = ("sentence #", "sentence_id", "sentence_idx", "sent_id", "sentence")
# The columns of a table that are read unless others are named.
_USUAL = {
    "text": ("word", "words", "token", "tokens", "form", "text"),
    "label": ("tag", "tags", "label", "labels", "ner", "ner_tag", "ner_tags"),
}


class Place(NamedTuple):
    """A column, or one of the `key=value` pairs in a column of CoNLL-U.

    Attributes:
      column: The number of the column, from 0; −1 is the last.
      key: The key of the pair; empty for the whole column.
    """

    column: int
    key: str = ""


class TagLayout(NamedTuple):
    """The layout of a file of tagged words.

    Attributes:
      format: A name of `FORMATS`.
      separator: What is between two columns; a space stands for any blanks and tabs.
      names: The names of the columns, if they have any.
      sentence: The column that numbers the sentences, from 0; None where blank lines
        end them.
      quoted: Whether cells may be in double quotes.
      skipped: The number of empty cells at the beginning and at the end of every line.
      aligned: Whether lines differ in their tabs, which align columns.
    """

    format: str = "conll"
    separator: str = " "
    names: tuple[str, ...] = ()
    sentence: int | None = None
    quoted: bool = False
    skipped: tuple[int, int] = (0, 0)
    aligned: bool = False

    def cells(self, line: str) -> list[str]:
        r"""Returns the columns of a line.

        >>> TagLayout(separator="\t").cells("New York\t\tB-LOC\n")
        ['New York', '', 'B-LOC']
        >>> TagLayout().cells("New  York\tB-LOC ")
        ['New', 'York', 'B-LOC']
        """
        line = line.rstrip("\r\n")
        if self.separator == " ":
            return _BETWEEN.split(line.strip(" \t"))
        cells = [cell.strip(" ") for cell in line.split(self.separator)]
        first, last = self.skipped
        return cells[first : len(cells) - last]

    def is_word(self, cells: Sequence[str]) -> bool:
        """Returns whether columns are of a word, not of a range or an empty node."""
        if "id" not in self.names or self.format != "conllu":
            return True
        return cells[self.names.index("id")].isdecimal()

    def check_columns(self, cells: Sequence[str]) -> None:
        """Checks the columns of a line of CoNLL-U.

        Raises:
          InputError: Their number or the id is wrong; without the line.
        """
        if len(cells) != len(self.names):
            wanted = f"expected {len(self.names)} columns between tabs, as CoNLL-U has"
            raise InputError(f"{wanted}, found {len(cells)}")
        if "id" in self.names and not _ID.fullmatch(cells[self.names.index("id")]):
            found = cells[self.names.index("id")][:60]
            ids = "such as 1, 1-2 or 1.1"
            raise InputError(f"expected an id {ids}, found {found!r}")

    def labels_words(self, place: Place) -> bool:
        """Returns whether a column has labels of words by definition, not of spans.

        >>> layout = TagLayout("conllu", names=CONLLU)
        >>> layout.labels_words(Place(3)), layout.labels_words(Place(9, "NER"))
        (True, False)
        """
        return self.format == "conllu" and self.names[place.column] in CONLLU[:9]

    def breaks(self, line: str) -> bool:
        r"""Returns whether a line is no word: blank, a comment or a document start.

        >>> [TagLayout().breaks(line) for line in ("# id 4 x", "# _ _ O", "\n")]
        [True, False, True]
        """
        if self.format == "conllu":
            return line.startswith("#") or not line.strip()
        return not is_token(line)

    def describe(self, words: Place, tags: Place | None) -> str:
        r"""Returns what was found in a file, as reports say it.

        >>> TagLayout(separator="\t").describe(Place(0), Place(-1))
        'columns between tabs, words from column 1, tags from the last column'
        """
        between = "tabs" if self.separator == "\t" else "blanks"
        between = "tabs and blanks, which align them" if self.aligned else between
        kind = {
            "conll": f"columns between {between}",
            "conllu": "CoNLL-U" if self.names == CONLLU else "CoNLL-U Plus",
        }.get(self.format, f"a table between {_SIGNS.get(self.separator, 'tabs')}")
        if self.sentence is not None:
            kind += f", sentences from {self.names[self.sentence]}"
        if self.format == "tsv" and not self.quoted:
            kind += ", quotes are text"
        ends = f", words from {self.name(words)}"
        return kind + ends + (f", tags from {self.name(tags)}" if tags else "")

    def name(self, place: Place) -> str:
        """Returns the name of a column, or its number from 1.

        >>> TagLayout("conllu", names=CONLLU).name(Place(9, "NER"))
        'misc:NER'
        """
        if self.names:
            return self.names[place.column] + (f":{place.key}" if place.key else "")
        if place.column < 0:
            return "the last column"
        return f"column {place.column + 1}"

    def place(self, role: str, name: str, numbered: bool = False) -> Place:
        """Returns the place of a column.

        Args:
          role: `text` or `label`; a name equal to it stands for the usual column.
          name: Its name, or its number from 1; for a pair `misc:KEY` or `feats:KEY`.
          numbered: Whether the words are in a column given by number; the usual tag is
            then in the last column.

        Raises:
          InputError: There is no such column; the field `text_column` or so is named.

        >>> TagLayout("conllu", names=CONLLU).place("label", "misc:NER")
        Place(column=9, key='NER')
        """
        if name.isdecimal():
            column = int(name) - 1
            if column < 0 or (self.names and column >= len(self.names)):
                most = f" and {len(self.names)} is the last" if self.names else ""
                raise InputError(f"{role}_column: {name}: columns count from 1{most}")
            return Place(column)
        if name == role and role in _USUAL:
            return self._usual(role, numbered)
        if not self.names:
            what = "columns of CoNLL have no names; give a number, from 1"
            raise InputError(f"{role}_column: {name!r}: {what}")
        return self._named(role, name)

    def has(self, name: str) -> bool:
        """Returns whether there is a column of a name, or one for its pair.

        >>> TagLayout("conllu", names=CONLLU).has("misc:NER"), TagLayout().has("upos")
        (True, False)
        """
        return name in self.names or name.partition(":")[0] in self.names

    def _named(self, role: str, name: str) -> Place:
        """Returns the place of a column by its name, whatever its case."""
        names = [each.casefold() for each in self.names]
        if name.casefold() in names:
            return Place(names.index(name.casefold()))
        column, _, key = name.partition(":")
        if self.format == "conllu" and key and column.casefold() in ("feats", "misc"):
            return Place(names.index(column.casefold()), key)
        choose(f"{role}_column", name, self.names)
        raise AssertionError  # it is not among them

    def _usual(self, role: str, numbered: bool) -> Place:
        """Returns the place of the column that is read if none is named."""
        names = [each.casefold() for each in self.names]
        if role == "label" and (numbered or not names):
            return Place(-1)
        usual = _USUAL[role]
        if self.format == "conllu":
            usual = ("form",) if role == "text" else ("upos",)
        for each in usual:
            if each in names:
                return Place(names.index(each))
        if names:
            what = f"none of {', '.join(self.names)} is usual for it; name one"
            raise InputError(f"{role}_column: {what}, or call it {usual[0]}")
        return Place(0)


_SIGNS = {",": "commas", ";": "semicolons"}


def is_token(line: str) -> bool:
    """Returns whether a line of columns holds a token; other lines end a sentence.

    A comment begins with `# id` and a name, as in MultiCoNER, with `# key = value`,
    with `#` and an address, or with `#begin document`, and its last column is no tag of
    a span.

    >>> [is_token(line) for line in ("Ada O", " ", "-DOCSTART- -X- O")]
    [True, False, False]
    >>> [is_token(line) for line in ("# id 47e7 domain=en", "# O", "#1 O")]
    [False, True, True]
    """
    if not line.strip() or line.startswith("-DOCSTART-"):
        return False
    return not (_COMMENT.match(line) and not TAG.fullmatch(line.split()[-1]))


def is_decisive(line: str) -> bool:
    """Returns whether a line shows the layout of its file, so that no more is needed.

    >>> [is_decisive(line) for line in ("", "# id 4 a", "Ada O")]
    [False, False, True]
    """
    return bool(_PLUS.match(line)) or bool(line.strip() and line[0] != "#")


def find_layout(lines: Sequence[str]) -> TagLayout:
    r"""Returns the layout of a file.

    Columns are between tabs if most lines of words have tabs. Only where the lines
    differ in their tabs and agree in the number of columns that are not empty, tabs and
    blanks align columns.

    Args:
      lines: All lines of the file; or its first ones, up to the first that
        `is_decisive`.

    >>> find_layout(["Hà Nội\tB-LOC\n", "đẹp\tO\n"]).separator
    '\t'
    >>> find_layout(["# text = Hi\n", "1\tHi\thi\tX" + "\t_" * 6]).format
    'conllu'
    >>> find_layout(["Sentence #,Word,POS,Tag\n"]).sentence
    0
    """
    whole = [line.removeprefix(MARK) for line in lines[:1]] + [*lines[1:]]
    written = [line for line in whole if line.strip()]
    first = written[0] if written else ""
    if plus := _PLUS.match(first):
        return TagLayout("conllu", "\t", tuple(plus[1].lower().split()))
    if table := _find_table(first, written):
        return table
    body = next((line for line in written if is_decisive(line)), "")
    cells = body.split("\t")
    if len(cells) == len(CONLLU) and _ID.fullmatch(cells[0]):
        return TagLayout("conllu", "\t", CONLLU)
    return _find_columns([line.rstrip("\r\n") for line in written if is_token(line)])


def _find_columns(rows: Sequence[str]) -> TagLayout:
    """Returns the layout of lines of words without names of columns."""
    inner = [row.strip(" \t").count("\t") for row in rows]
    most = 2 * sum(map(bool, inner))
    if most < len(rows) or (most == len(rows) and not any(inner[:1])):
        return TagLayout(aligned=any(inner))
    if len(set(inner)) > 1 and len({row.count("\t") for row in rows}) > 1:
        counts = {len(_BETWEEN.split(row.strip(" \t"))) for row in rows}
        if len(counts) == 1:
            return TagLayout(aligned=True)
    cells = [[cell.strip(" ") for cell in row.split("\t")] for row in rows]
    skipped = (
        min(map(_empty, cells)),
        min(_empty(row[::-1]) for row in cells),
    )
    return TagLayout(separator="\t", skipped=skipped)


def _empty(cells: Iterable[str]) -> int:
    """Returns the number of empty cells before the first that is not."""
    count = 0
    for cell in cells:
        if cell:
            break
        count += 1
    return count


def _find_table(first: str, lines: Sequence[str]) -> TagLayout | None:
    """Returns the layout of a table whose header has a column for sentences."""
    for separator in (",", ";", "\t"):
        names = [name.strip() for name in _header(first, separator)]
        known = [name.casefold() for name in names]
        found = [known.index(name) for name in _SENTENCE if name in known]
        if "sentence" in known and not set(known) & set(_USUAL["text"]):
            found = found[:-1]  # it may be a word
        if found and len(names) > 1:
            tabs = separator == "\t"
            quoted = not tabs or _are_quoted(lines, len(names))
            kind = "tsv" if tabs else "csv"
            return TagLayout(kind, separator, tuple(names), found[0], quoted)
    return None


def _header(line: str, separator: str) -> list[str]:
    """Returns the cells of a first line, none if it is no line of a table."""
    try:
        return next(csv.reader([line], delimiter=separator, strict=True))
    except csv.Error:
        return []


def _are_quoted(lines: Sequence[str], count: int) -> bool:
    """Returns whether lines between tabs are all right if quotes are read as such."""
    try:
        rows = [row for row in csv.reader(lines, delimiter="\t", strict=True) if row]
    except csv.Error:
        return False
    return all(len(row) == count for row in rows)
