"""Tables of runs that were made anywhere, and their scores in pairs.

A table has a row for each run, in CSV or TSV: an export of a tracker, a lab book, the
results of another framework. Its runs are paired by a column, such as the seed.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from ffnlab import options
from ffnlab.data.csv_files import read_rows
from ffnlab.data.files import stop_at
from ffnlab.errors import InputError, choose
from ffnlab.escape import terminal
from ffnlab.options import option

MOST_PAIRS = 5000  # the random signs of so many take about half a gigabyte
_LARGEST = 3e38  # about the largest float32; scores beyond it have diverged
_DIVERGED = (
    "give a diverged run the score of a trivial predictor, or leave it out with "
    "where=COLUMN=VALUE"
)
_NOT_FINITE = ("", "na", "n/a", "nan", "none", "null", "inf", "infinity")
_SHOWN = 10  # pairs or values that are listed; the others are counted
_NUMBER = re.compile(
    r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,4})?", re.ASCII | re.IGNORECASE
)


@dataclasses.dataclass(frozen=True)
class RunTable:
    """Table of runs: its columns, and the rows that are used."""

    results: str | None = option(
        None,
        "CSV or TSV file with a header line and a row for each run. Required without "
        "--runs.",
    )
    block: str | None = option(
        None, "Column with the names of the blocks that are compared. Required."
    )
    pair: str | None = option(
        None,
        "Column that identifies the replicate, such as the seed. Runs of different "
        "blocks with an equal value are a pair. Required.",
    )
    score: str | None = option(
        None, "Column with the score of the run on held-out data. Required."
    )
    where: tuple[str, ...] = option(
        (),
        "Rows to keep, as COLUMN=VALUE. Several values of a column are alternatives; "
        "conditions on several columns must all hold.",
        empty=True,
    )
    drop_unpaired: bool = option(
        False,
        "Whether to leave out pairs that some block has no run of; otherwise they are "
        "an error.",
    )

    def __post_init__(self):
        options.check(self)
        columns = ("block", "pair", "score")
        for name in ("results", *columns):
            if not getattr(self, name):
                what = "a CSV file; or run directories, runs=DIRECTORIES"
                if name in columns:
                    what = "a column of the table"
                raise InputError(f"{name}: needed; give {what}")
        if len({getattr(self, name) for name in columns}) < len(columns):
            raise InputError("block, pair and score: give three different columns")
        for condition in self.where:
            column, equals, _ = condition.partition("=")
            if not (column.strip() and equals):
                raise InputError(f"where: {condition!r} should be COLUMN=VALUE")


class _Run(NamedTuple):
    """A row of the table: the cells that are needed, and the line it begins on."""

    line: int
    block: str
    pair: str
    key: str | Decimal  # equal for equal pairs
    score: str


class PairedScores(NamedTuple):
    """The scores of the blocks of a table, in pairs.

    Attributes:
      scores: By block, one score for each pair that all blocks have, in the order of
        the pairs.
      missing: By pair that was left out, the blocks that have no run of it.
      rows: By block, the number of its rows that are used.
      total: The number of rows of the table.
    """

    scores: dict[str, list[float]]
    missing: dict[str, list[str]]
    rows: dict[str, int]
    total: int


def read_scores(table: RunTable) -> PairedScores:
    """Reads the scores of a table of runs.

    Args:
      table: The file, its columns and its rows.

    Raises:
      InputError: The file or a column cannot be used, a pair is incomplete, or there is
        nothing to compare; up to 20 problems of the file, each with its line.
    """
    path = table.results
    names, lines, rows, problems = read_rows(path, table.score, "score")
    for role in ("block", "pair"):
        choose(f"{path}:1: {role} column", getattr(table, role), names)
    kept = _kept_rows(table, names, rows) if rows else []
    block, pair, score = (
        [_in_one_line(rows[i][names.index(column)]) for i in kept]
        for column in (table.block, table.pair, table.score)
    )
    cells = zip([lines[i] for i in kept], block, pair, _keys(pair), score, strict=True)
    runs = [_Run(*row) for row in cells]
    stop_at(path, [*problems, *_problems(table, runs)])
    scores, missing = _pair_runs(table, runs)
    return PairedScores(scores, missing, Counter(block), len(rows))


def _kept_rows(
    table: RunTable, names: Sequence[str], rows: Sequence[Sequence[str]]
) -> list[int]:
    """Returns the indices of the rows that fulfil the conditions."""
    conditions: dict[str, list[str]] = {}
    for condition in table.where:
        column, _, value = condition.partition("=")
        conditions.setdefault(column.strip(), []).append(value.strip())
    kept = range(len(rows))
    for column, values in conditions.items():
        choose(f"{table.results}:1: where column", column, names)
        place = names.index(column)
        keys = _keys([*values, *(row[place] for row in rows)])
        wanted, cells = keys[: len(values)], keys[len(values) :]
        for value, key in zip(values, wanted, strict=True):
            if key not in cells:
                known = join_first(dict.fromkeys(row[place] for row in rows))
                what = f"where: no row has {value!r} in column {column!r}"
                raise InputError(f"{what}; it has {known}")
        kept = [i for i in kept if cells[i] in wanted]
    if not kept:
        raise InputError("where: no row fulfils all conditions")
    return list(kept)


def _keys(cells: Sequence[str]) -> list[str | Decimal]:
    """Returns values that are equal for equal cells.

    Numbers that are spelled differently are equal if all cells are numbers or empty.

    >>> _keys(["1", "1.0"]), _keys(["1", "1.0", "b"])
    ([Decimal('1'), Decimal('1.0')], ['1', '1.0', 'b'])
    """
    if not all(_NUMBER.fullmatch(cell) for cell in cells if cell):
        return list(cells)
    return [Decimal(cell) if cell else cell for cell in cells]


def _in_one_line(text: str) -> str:
    """Returns a text with single spaces between its words."""
    return " ".join(text.split())


def _problems(table: RunTable, runs: Iterable[_Run]) -> list[tuple[int, str]]:
    """Returns the runs that cannot be used, with their lines."""
    problems, first = [], {}
    for run in runs:
        line = first.setdefault((run.block, run.key), run.line)
        if not (run.block and run.pair):
            column = table.pair if run.block else table.block
            problems.append((run.line, f"column {column!r} is empty"))
        elif line != run.line:
            what = (
                f"{run.block!r} with {table.pair} {run.pair!r} is also on line {line}"
            )
            how = "keep one row, or choose with where=COLUMN=VALUE"
            problems.append((run.line, f"{what}; {how}"))
        elif what := _score_problem(run.score):
            problems.append((run.line, f"column {table.score!r} {what}"))
    return problems


def _score_problem(cell: str) -> str | None:
    """Returns what is wrong with a score and what to do, or None."""
    value = f"has {cell[:40]!r}" if cell else "is empty"
    if cell.lower().lstrip("+-") in _NOT_FINITE:
        return f"{value}, expected a finite number; {_DIVERGED}"
    if not _NUMBER.fullmatch(cell):
        return f"{value}, expected a number such as 0.91"
    if abs(float(cell)) > _LARGEST:
        return f"{value}, expected a number below {_LARGEST:g}; {_DIVERGED}"
    return None


def _pair_runs(
    table: RunTable, runs: Sequence[_Run]
) -> tuple[dict[str, list[float]], dict[str, list[str]]]:
    """Returns the scores and the incomplete pairs, as `PairedScores` has them."""
    blocks: dict[str, dict[str | Decimal, float]] = {}
    for run in runs:
        blocks.setdefault(run.block, {})[run.key] = float(run.score)
    if len(blocks) == 1:
        what = f"column {table.block!r} has one block, {runs[0].block!r}"
        raise InputError(f"{table.results}: {what}; a comparison needs two or more")
    pairs = {run.key: run.pair for run in reversed(runs)}
    absent = {key: [b for b, row in blocks.items() if key not in row] for key in pairs}
    complete = [key for key in sorted(pairs) if not absent[key]]
    missing = {pairs[key]: absent[key] for key in sorted(pairs) if absent[key]}
    _check_pairs(table, len(complete), missing)
    scores = {name: [row[key] for key in complete] for name, row in blocks.items()}
    return scores, missing


def _check_pairs(
    table: RunTable, complete: int, missing: Mapping[str, Sequence[str]]
) -> None:
    """Raises if there are no or too many pairs, or some that must not be left out."""
    column = f"{table.results}: column {table.pair!r}"
    if not complete:
        what = "no value has a run of every block; does it pair the runs?"
        raise InputError(f"{column}: {what}")
    if missing and not table.drop_unpaired:
        raise InputError(
            f"{column}: {len(missing)} of {complete + len(missing)} values have no run "
            f"of some block: {list_missing(missing)}; add the runs, or leave these "
            "pairs out with drop_unpaired=true"
        )
    if complete > MOST_PAIRS:
        what = f"{complete:,} pairs, at most {MOST_PAIRS:,} can be compared"
        raise InputError(f"{column}: {what}; give one score per run, not per example")


def list_missing(missing: Mapping[str, Sequence[str]]) -> str:
    """Returns the blocks that lack each pair, as text."""
    pairs = (f"{pair} ({', '.join(blocks)})" for pair, blocks in missing.items())
    return join_first(pairs, "; ")


def join_first(items: Iterable[str], separator: str = ", ") -> str:
    """Returns the first items as text, and the number of the others."""
    items = [terminal(_in_one_line(item)) for item in items]
    more = [f"and {len(items) - _SHOWN} more"] if len(items) > _SHOWN else []
    return separator.join([*items[:_SHOWN], *more])
