"""Sentences with a tag per token: CoNLL columns, CoNLL-U and tables of sentences."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ffnlab.data import tags
from ffnlab.data.files import decode_line, require_text, stop_at
from ffnlab.data.sentence_tables import check_encoding, read_records
from ffnlab.data.tag_layouts import MARK, Place, TagLayout, find_layout, is_decisive
from ffnlab.data.tagged_lines import TaggedLines, pair_of
from ffnlab.errors import InputError

_TAGS = (
    "expected a tag in the last column, O or one of B- I- E- S- L- U- M- W- and a type"
)
_Numbered = Iterable[tuple[int, str]]


class Sentence(NamedTuple):
    """One sentence.

    Attributes:
      tokens: The tokens.
      tags: The tag of each token; empty if tags are not read.
      lines: The line of each token, from 1.
      source: These lines as they came, with those between them and around.
    """

    tokens: list[str]
    tags: list[str]
    lines: list[int]
    source: TaggedLines


class Sentences(NamedTuple):
    """The sentences of a file, as parallel lists with the fields of `Sentence`.

    Attributes:
      tokens: The tokens of each sentence.
      tags: The tags of each sentence.
      lines: The lines of each sentence, from 1.
      source: The lines of each sentence as they came; joined they are the file.
    """

    tokens: list[list[str]]
    tags: list[list[str]]
    lines: list[list[int]]
    source: list[TaggedLines]


def read_conll(
    path: str | Path,
    plain: bool = False,
    token: int | str | None = None,
    tag: int | str | None = None,
    tagged: bool = True,
) -> Sentences:
    """Reads sentences from a file with one token per line and its tag in a column.

    The layout is found in the lines, see `tag_layouts`: columns between tabs or blanks,
    CoNLL-U, or a table with a column such as `Sentence #`. Other columns are skipped. A
    line that is empty or blank ends a sentence, and so does a comment or one that
    begins with -DOCSTART-.

    Args:
      path: The file; UTF-8, with or without a byte-order mark.
      plain: Whether tags may be labels of words, such as parts of speech, as well as
        those of spans (see `tags.are_of_spans`).
      token: The column of the token: a number from 1, or a name of CoNLL-U or of the
        header; None is the first column, `form`, or a usual name such as `Word`.
      tag: The column of the tag; None is the last column, `upos`, or a usual name such
        as `Tag`.
      tagged: Whether the tags are read; if not, there need be no column of them.

    Returns:
      The sentences in their order, each of at least one token.

    Raises:
      InputError: No such file, a directory, an empty file or one without a sentence; a
        column that is not there; up to 20 lines that cannot be used: those with a
        carriage return inside, not in UTF-8, with a NUL byte, or without the column;
        where tags are read, those with one column, with other columns than the first
        line, or with a tag other than O or one of B- I- E- S- L- U- M- W- and a type.

    Source: Tjong Kim Sang and De Meulder 2003, "Introduction to the CoNLL-2003 Shared
    Task"; the formats CoNLL-U and CoNLL-U Plus of universaldependencies.org.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.conll"
    ...     _ = path.write_text("Ada\\tB-person\\nsings\\tO\\n\\nYes\\tO\\n")
    ...     read_conll(path).tags
    [['B-person', 'O'], ['O']]
    """
    texts, problems = _read_lines(path)
    layout = find_layout(texts)
    _check_name(Path(path), layout, texts, tagged)
    if layout.sentence is not None:
        check_encoding(path, problems)
    try:
        _places(layout, token, tag, tagged)
    except InputError as error:
        field, _, what = str(error).partition(": ")
        raise InputError(f"{field}: {path}: {what}") from None
    sentences, rest = Sentences([], [], [], []), []
    lines = enumerate(texts, 1)
    for line, value in parse_conll(lines, token, tag, tagged, layout):
        if isinstance(value, InputError):
            problems.append((line, str(value)))
        elif not value.tokens:
            rest += value.source.lines
        else:
            for column, field in zip(sentences, value, strict=True):
                column.append(field)
    sentences = _with_span_tags(sentences, tagged)
    stop_at(path, problems + _unknown_tags(sentences, plain))
    if not sentences.tokens:
        columns = "a token and a tag" if tagged else "a token each"
        raise InputError(f"{path}:1: no sentence; expected lines of {columns}")
    sentences.source[-1].lines.extend(rest)
    return sentences


def parse_conll(
    lines: _Numbered,
    token: int | str | None = None,
    tag: int | str | None = None,
    tagged: bool = True,
    layout: TagLayout | None = None,
) -> Iterator[tuple[int, Sentence | InputError]]:
    """Yields sentences as their last lines come, and the problems of lines.

    Args:
      lines: Line numbers, from 1, and lines, with or without their ends.
      token: The column of the token, see `read_conll`; without tags, a name that the
        file does not have is the usual column.
      tag: The column of the tag.
      tagged: Whether the tags are read.
      layout: The layout; None finds it in the first line of a token.

    Yields:
      The number of a sentence's first line and the sentence; or the number of a line
      and an error that does not name it. Where lines without tokens are left at the
      end, the last sentence has these lines and no token.

    >>> lines = enumerate(["Ada", "sings", "", "Yes"], 1)
    >>> [each.tokens for _, each in parse_conll(lines, tagged=False)]
    [['Ada', 'sings'], ['Yes']]
    """
    if layout is None:
        lines, layout = _look_ahead(lines)
    words, labels = _places(layout, token, tag, tagged)
    place = labels if layout.format == "conllu" else None
    parse = _parse_columns if layout.sentence is None else _parse_records
    lines, head = _without_head(iter(lines), layout)
    about = layout.describe(words, labels)
    empty, first = TaggedLines([], [], layout, place, head, about=about), True
    places = [words, labels] if labels else [words]
    for number, sentence in parse(lines, layout, places, empty):
        if isinstance(sentence, Sentence) and first:
            source = sentence.source._replace(first=True)
            sentence, first = sentence._replace(source=source), False
        yield number, sentence


def _places(
    layout: TagLayout, token: int | str | None, tag: int | str | None, tagged: bool
) -> tuple[Place, Place | None]:
    """Returns the columns of tokens and, if they are read, of tags."""
    name = "text" if token is None else str(token)
    try:
        words = layout.place("text", name)
    except InputError:
        if tagged or name.isdecimal():
            raise
        words = layout.place("text", "text")  # a model may be of other files
    if not tagged:
        return words, None
    label = "label" if tag is None else str(tag)
    return words, layout.place("label", label, name.isdecimal())


def _look_ahead(lines: _Numbered) -> tuple[_Numbered, TagLayout]:
    """Returns all lines, and their layout by the first line of a token."""
    lines, seen = iter(lines), []
    for number, line in lines:
        seen.append((number, line))
        if is_decisive(line.removeprefix(MARK)):
            break
    return itertools.chain(seen, lines), find_layout([line for _, line in seen])


def _without_head(
    lines: Iterator[tuple[int, str]], layout: TagLayout
) -> tuple[Iterator[tuple[int, str]], str]:
    """Returns lines without a byte-order mark and a header, and these as they came."""
    number, first = next(lines, (0, ""))
    head = MARK * first.startswith(MARK)
    first = first.removeprefix(MARK)
    while layout.sentence is not None and not first.strip() and number:
        head += first
        number, first = next(lines, (0, ""))
    if layout.sentence is not None or first.lstrip("# ").startswith("global.columns"):
        return lines, head + first
    return itertools.chain([(number, first)], lines), head


def _parse_columns(
    lines: _Numbered, layout: TagLayout, places: list[Place], empty: TaggedLines
) -> Iterator[tuple[int, Sentence | InputError]]:
    """Yields the sentences of lines of columns, and the problems of lines."""
    first: tuple[int, int] | None = None  # the number of a line, and of its columns
    sentence = _begin(empty)
    for number, line in lines:
        source = sentence.source
        if layout.breaks(line):
            blank = not line.strip()
            if blank:
                source.lines.append(line)
            if sentence.tokens:
                yield sentence.lines[0], sentence
                sentence = _begin(empty)
            if not blank:
                sentence.source.lines.append(line)
            continue
        source.lines.append(line)
        try:
            cells = _check_cells(layout, line, len(places) > 1, first)
            first = first or (number, len(cells))
            if layout.is_word(cells):
                values = [_cell(cells, place) for place in places]
                _add(sentence, number, values)
        except InputError as error:
            yield number, error
    if sentence.tokens or sentence.source.lines:
        yield sentence.lines[0] if sentence.lines else 0, sentence


def _parse_records(
    lines: _Numbered, layout: TagLayout, places: list[Place], empty: TaggedLines
) -> Iterator[tuple[int, Sentence | InputError]]:
    """Yields the sentences of a table, and the problems of records.

    A sentence begins where its number is another than before, or where a number follows
    a record without one.
    """
    sentence, before, blank = _begin(empty), None, False
    for number, raw, cells in read_records(lines, layout):
        if isinstance(cells, InputError):
            yield number, cells
            continue
        name = cells[layout.sentence] if cells else ""
        if name and sentence.tokens and (name != before or blank):
            yield sentence.lines[0], sentence
            sentence = _begin(empty)
        before, blank = name or before, bool(cells) and not name
        sentence.source.lines.append(raw)
        try:
            if cells:
                _add(sentence, number, [_cell(cells, place) for place in places])
        except InputError as error:
            yield number, error
    if sentence.tokens or sentence.source.lines:
        yield sentence.lines[0] if sentence.lines else 0, sentence


def _begin(empty: TaggedLines) -> Sentence:
    """Returns a sentence without lines."""
    return Sentence([], [], [], empty._replace(lines=[], words=[]))


def _add(sentence: Sentence, number: int, values: list[str]) -> None:
    """Adds the token and the tag of the last line to a sentence."""
    sentence.tokens.append(values[0])
    sentence.tags.extend(values[1:])
    sentence.lines.append(number)
    sentence.source.words.append(len(sentence.source.lines) - 1)


def _check_cells(
    layout: TagLayout, line: str, tagged: bool, first: tuple[int, int] | None
) -> list[str]:
    """Returns the columns of a line of a token.

    Args:
      layout: The layout of the file.
      line: The line.
      tagged: Whether tags are read.
      first: The number of the first line of a token, and how many columns it has.

    Raises:
      InputError: The line cannot be used; without the line.
    """
    if "\r" in line.rstrip("\r\n"):
        raise InputError("a carriage return inside; end lines with a line feed")
    cells = layout.cells(line)
    if layout.names:
        layout.check_columns(cells)
    elif tagged and len(cells) == 1:
        column = f"found one column, {cells[0][:60]!r}"
        raise InputError(f"expected a token, a tab or space, and its tag, {column}")
    elif tagged and first and len(cells) != first[1]:
        columns = f"{first[1]} columns, as in line {first[0]}"
        raise InputError(f"expected {columns}, found {len(cells)}")
    return cells


def _cell(cells: list[str], place: Place) -> str:
    """Returns a cell, or the value of a pair in it.

    Raises:
      InputError: There is no such column, or it is empty; without the line.
    """
    if not -1 <= place.column < len(cells):
        count = len(cells)
        raise InputError(f"column {place.column + 1} of {count}; columns count from 1")
    cell = cells[place.column]
    if not cell:
        column = place.column % len(cells) + 1
        raise InputError(f"column {column} is empty; expected a token or tag there")
    return pair_of(cell, place.key) if place.key else cell


def _read_lines(path: str | Path) -> tuple[list[str], list[tuple[int, str]]]:
    """Returns the lines of a file with their ends, and the problems among them."""
    texts, problems = [], []
    pieces = require_text(path).read_bytes().split(b"\n")
    for line, piece in enumerate(pieces, 1):
        end = "\n" if line < len(pieces) else ""
        try:
            mark = MARK if line == 1 and piece.startswith(MARK.encode()) else ""
            texts.append(mark + decode_line(piece, line) + end)
        except InputError as error:
            texts.append("")
            problems.append((line, str(error)))
    return texts[: len(texts) - (texts[-1] == "")], problems


def _check_name(path: Path, layout: TagLayout, lines: list[str], tagged: bool) -> None:
    """Refuses files whose name stands for a layout that their lines do not have.

    A tagged .csv may hold columns between tabs or blanks.
    """
    ending = path.suffix.lower()
    if ending in (".conllu", ".conllup") and layout.format != "conllu":
        numbered = enumerate(lines, 1)
        line = next((n for n, text in numbered if is_decisive(text)), 1)
        what = "expected 10 columns between tabs, an id first, as CoNLL-U has"
        raise InputError(f"{path}:{line}: {what}; rename other columns to .conll")
    first = next((line for line in lines if line.strip()), "")
    table = "," in first or not tagged
    if ending == ".csv" and layout.sentence is None and table:
        names = " ".join(first.split())[:60]
        raise InputError(
            f"{path}:1: expected a column that numbers the sentences, such as "
            f"'Sentence #' or sentence_id, found {names!r}; add one"
        )


def _with_span_tags(sentences: Sentences, tagged: bool) -> Sentences:
    """Returns sentences in which words without a pair of CoNLL-U have the tag O.

    They do if the pairs are tags of spans, as `NER=B-PER` is.
    """
    place = sentences.source[0].place if sentences.source else None
    if not tagged or place is None or not place.key:
        return sentences
    known = {tag for row in sentences.tags for tag in row} - {"_"}
    if not tags.are_of_spans(known):
        return sentences
    replaced = [["O" if tag == "_" else tag for tag in row] for row in sentences.tags]
    return sentences._replace(tags=replaced)


def _unknown_tags(sentences: Sentences, plain: bool) -> list[tuple[int, str]]:
    """Returns the lines whose tags are not of spans, unless none needs to be."""
    if plain and sentences.source and sentences.source[0].labelled:
        return []
    tagged = [
        (line, tag)
        for row, lines in zip(sentences.tags, sentences.lines, strict=True)
        for tag, line in zip(row, lines, strict=False)
    ]
    if plain and not tags.are_of_spans(tag for _, tag in tagged):
        return []
    return [
        (line, f"{_TAGS}, found {tag[:60]!r}")
        for line, tag in tagged
        if not tags.TAG.fullmatch(tag)
    ]
