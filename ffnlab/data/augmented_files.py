"""Files of altered examples, such as paraphrases, that name the example they are of.

    sources = [("train", "a.csv", train), ("dev", "a.csv", dev)]
    more, note = read_augmented("paraphrases.csv", "classify", Columns(), sources)

The column `source` of such a file has the text of the source, or the value of its id
column. What is altered stays in the part of its source: only examples whose source is
in train are added to train, so that no text of dev or test is learned from.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ffnlab.data import arrow_files, formats
from ffnlab.data.column_names import Columns
from ffnlab.data.examples import Examples, format_of, read_labelled
from ffnlab.data.files import require_file, stop_at
from ffnlab.data.targets import Targets
from ffnlab.data.text_tables import cell_text
from ffnlab.errors import InputError, choose

SOURCE = "source"  # the column of the id or the text of the source


class _Source(NamedTuple):
    """An example that others can be altered from: its part and its label."""

    part: str
    label: Any


def read_augmented(
    path: str | Path,
    task: str,
    columns: Columns,
    sources: Sequence[tuple[str, str, Examples]],
    id_column: str | None = None,
    names: Sequence[str] = (),
    targets: Targets | None = None,
) -> tuple[Examples, str]:
    """Reads altered examples, and returns those whose source is in train.

    Args:
      path: The file: the columns of train, without the label where it is that of the
        source, and `source`. Where columns go by number, the last one is the source.
      task: A task of `examples.TASKS` with labels.
      columns: The columns of train.
      sources: The part, the file and the examples of each file that was read.
      id_column: The column of those files that `source` has the values of; None takes
        their texts. A file of another part than train may lack it.
      names: The names of labels that are numbers, in their order.
      targets: What is predicted of a text, as in `examples.read_labelled`.

    Returns:
      The examples, with labels, and a sentence on how many there are and on what was
      detected of the file.

    Raises:
      InputError: A column is missing, or up to 20 lines cannot be used, such as one
        whose source is in no part.
    """
    known = _known_sources(sources, id_column)
    examples, labelled = _read(path, task, columns, names, targets)
    keys = [_key(value) for value in column_values(path, examples, SOURCE, "source")]
    if len(keys) > 1 and not any(map(known.get, keys)):
        kind, advice = "texts", "; give id_column if they are ids"
        kind, advice = (f"values of {id_column}", "") if id_column else (kind, advice)
        raise InputError(
            f"augment_file: {path}: none of its {len(keys):,} sources is among the "
            f"{kind} of train, dev and test{advice}"
        )
    labels, kept, problems = list(examples.labels), [], []
    for number, key in enumerate(keys):
        own = known.get(key, [])
        parts = {source.part for source in own}
        if problem := _problem(key, own, labelled, id_column):
            line = examples.lines[number]
            problems.append((line[0] if isinstance(line, list) else line, problem))
        elif parts == {"train"}:
            kept.append(number)
            if not labelled:
                labels.append(own[0].label)
    stop_at(path, problems)
    added = examples.subset(kept)
    added = added if labelled else added._replace(labels=labels)
    note = _note(path, len(kept), len(keys) - len(kept), labelled)
    return added, "; ".join(filter(None, [note, examples.layout.note]))


def _problem(
    key: str, sources: Sequence[_Source], labelled: bool, id_column: str | None
) -> str:
    """Returns what is wrong with a source; empty if nothing is."""
    kind = f"{id_column} of an" if id_column else "text of an"
    if not key:
        return f"column {SOURCE} is empty"
    if not sources:
        return f"source {key!r:.80} is the {kind} example of no part"
    labels = {str(each.label) for each in sources if each.part == "train"}
    if len(labels) > 1 and not labelled:
        return (
            f"source {key!r:.80} is that of {len(sources)} examples with different "
            "labels; give the label, or an id by id_column"
        )
    return ""


def _note(path: str | Path, added: int, left: int, labelled: bool) -> str:
    """Returns a sentence on what was added to train."""
    whose = "" if labelled else ", with the labels of their sources"
    rest = f"; {left:,} left out, whose sources are in dev or test" if left else ""
    return f"{Path(path).name}: {added:,} examples added to train{whose}{rest}"


def _known_sources(
    sources: Sequence[tuple[str, str, Examples]], id_column: str | None
) -> dict[str, list[_Source]]:
    """Returns the examples by their ids or texts."""
    known: dict[str, list[_Source]] = {}
    for part, path, examples in sources:
        if not id_column:
            values = [" ".join(t) if isinstance(t, list) else t for t in examples.texts]
        elif part != "train" and id_column not in (held_columns(path, examples) or []):
            continue
        else:
            values = column_values(path, examples, id_column, "id_column")
        for value, label in zip(values, examples.labels, strict=True):
            known.setdefault(_key(value), []).append(_Source(part, label))
    return known


def _key(value: Any) -> str:
    """Returns an id or a text without regard to its blanks; empty if it is missing.

    >>> _key(7), _key(" one  text\\n"), _key(None)
    ('7', 'one text', '')
    """
    if isinstance(value, list):
        value = " ".join(map(str, value))
    return "" if value is None else " ".join(str(value).split())


def _read(
    path: str | Path,
    task: str,
    columns: Columns,
    names: Sequence[str],
    targets: Targets | None,
) -> tuple[Examples, bool]:
    """Returns the examples of a file, and whether it has labels."""
    path = require_file(path)
    if format_of(path, task, columns) == "conll":
        raise InputError(
            f"augment_file: {path}: columns of CoNLL have no column {SOURCE}; give "
            "JSON or Parquet"
        )
    bare = read_labelled(path, task, columns._replace(label=None))
    held = held_columns(path, bare)
    labelled = held is None or columns.resolve(task, held).label in held
    if labelled:
        read = read_labelled(path, task, columns, names=names, targets=targets)
        return read, True
    if task == "tag":
        raise InputError(f"augment_file: {path}: no column {columns.label!r} of tags")
    return bare, False


def held_columns(path: str | Path, examples: Examples) -> list[str] | None:
    """Returns the names of the columns of a file; None where they have no names."""
    if examples.layout.kind in formats.BINARY:
        return arrow_files.column_names(path)
    if examples.header is not None:
        return list(examples.header)
    first = examples.rows[0] if examples.rows else None
    return list(first) if isinstance(first, dict) else None


def column_values(
    path: str | Path, examples: Examples, name: str, parameter: str
) -> list[Any]:
    """Returns the value that each example has in some column of its file.

    Args:
      path: The file.
      examples: What was read from it.
      name: The name of the column. Of a table without a header it is a number, from 1,
        or the last column if the name is none.
      parameter: What an error begins with.

    Raises:
      InputError: There is no such column.
    """
    held = held_columns(path, examples)
    if held is not None:
        choose(f"{parameter}: {path}: column", name, held)
    return list(_values(path, examples, name, held, parameter))


def _values(
    path: str | Path,
    examples: Examples,
    name: str,
    held: list[str] | None,
    parameter: str,
) -> Iterator[Any]:
    """Yields the values of a column."""
    if examples.layout.kind in formats.BINARY:
        values = [row[name] for row in arrow_files.iter_rows(path, [name])]
        yield from (values[row] for row in examples.rows)
    elif examples.layout.kind in ("csv", "tsv"):
        width = len(examples.rows[0]) if examples.rows else 0
        place = width if held is None and not name.isdecimal() else 0
        place = place or (held.index(name) + 1 if held else int(name))
        if not 1 <= place <= width:
            raise InputError(f"{parameter}: {path}: column {place} of {width}")
        yield from (cell_text(row[place - 1]) for row in examples.rows)
    elif all(isinstance(row, dict) for row in examples.rows) and held is not None:
        yield from (row.get(name) for row in examples.rows)
    else:
        raise InputError(f"{parameter}: {path}: rows have no column {name!r}")
