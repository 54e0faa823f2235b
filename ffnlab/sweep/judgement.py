"""What can be concluded from a table of runs that were made anywhere?

`stats.compare` compares them as it compares the runs of this library.
"""

import dataclasses
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ffnlab.escape import markdown, terminal
from ffnlab.sweep.judge_config import JudgeConfig
from ffnlab.sweep.run_table import PairedScores, list_missing, read_scores

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ffnlab.report.table import Table
    from ffnlab.stats import Comparison, Interval
    from ffnlab.sweep.results import CompareResult

_WIDTH = 79  # characters of a line on the screen


class JudgeResult(NamedTuple):
    """The result of a judgement.

    Attributes:
      comparisons: The blocks, the best mean first.
      table: The comparisons as a table, as it was printed.
      verdict: What is claimed, and what could have been, in two sentences.
      remarks: What cannot be concluded, a sentence or two each.
      config: The configuration.
    """

    comparisons: "list[Comparison]"
    table: "Table"
    verdict: str
    remarks: list[str]
    config: JudgeConfig

    def __repr__(self) -> str:
        return f"JudgeResult({self.verdict!r})"

    def frame(self) -> "pandas.DataFrame":
        """Returns a DataFrame with a row for each block.

        Its columns are the fields of `stats.Comparison`.

        Raises:
          InputError: pandas is not installed.
        """
        from ffnlab.sweep.results import import_pandas

        rows = [dataclasses.asdict(row) for row in self.comparisons]
        return import_pandas().DataFrame(rows)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draws the differences from the baseline, as differences.png.

        Args:
          ax: The axes of matplotlib to draw on; None makes a figure by pyplot.

        Returns:
          The axes.
        """
        from ffnlab.sweep.results import plot_differences

        config = self.config
        return plot_differences(
            self.comparisons,
            ax,
            label=config.score,
            margin=config.margin,
            higher_is_better=not config.lower_is_better,
        )

    def save(self, directory: str | Path) -> Path:
        """Writes the report, the picture and the numbers to a new directory.

        Raises:
          InputError: The directory cannot be used.
        """
        from ffnlab.sweep.results import check_new

        check_new(directory)
        _write(self.config, directory, self)
        return Path(directory)


def judge(config: JudgeConfig) -> "JudgeResult | CompareResult":
    """Compares the blocks of a table of runs, prints the result, and may write it.

    Run directories of comparisons are joined; see `joined_runs.join`.

    Args:
      config: The table, and what to compare; or the directories.

    Returns:
      The judgement of a table; of run directories the result of the comparison.

    Raises:
      InputError: The table or a directory cannot be used; up to 20 problems of the
        table, each with its line.
    """
    from ffnlab.report.run_directory import check_directory

    if config.out:
        check_directory(config.out, None)
    if config.runs:
        return _join(config)
    from ffnlab import stats

    paired = read_scores(config)
    baseline = config.baseline or max(paired.rows, key=lambda name: paired.rows[name])
    comparisons = stats.compare(
        paired.scores,
        baseline,
        not config.lower_is_better,
        margin=config.margin,
        level=config.level,
    )
    remarks = [
        *_remarks_on_claims(config, comparisons),
        *_remarks_on_runs(config, baseline, paired),
    ]
    table, verdict = _table(config, comparisons), _verdict(config, comparisons)
    result = JudgeResult(comparisons, table, verdict, remarks, config)
    _show(config, result)
    if config.out:
        _write(config, config.out, result)
        names = "report.md, differences.png, comparisons.jsonl"
        print(f"\n{terminal(f'written to {config.out}: {names}')}")
    return result


def _join(config: JudgeConfig) -> "CompareResult":
    """Returns the result of run directories that are joined."""
    from ffnlab.sweep import run_parts

    parts = run_parts.read(run_parts.find(config.runs, config.out))

    from ffnlab.sweep.joined_runs import join  # imports JAX, what is above does not

    return join(parts, config.out, config)


def _verdict(config: JudgeConfig, comparisons: "Sequence[Comparison]") -> str:
    from ffnlab.report import verdict_text

    return verdict_text.verdict(comparisons, _significant, config.margin, config.level)


def _significant(value: float) -> str:
    """Returns a number with three significant digits.

    >>> _significant(0.012345), _significant(12345.6)
    ('0.0123', '12300')
    """
    return f"{float(f'{value:.3g}'):g}"


def _table(config: JudgeConfig, comparisons: "Sequence[Comparison]") -> "Table":
    """Returns the comparisons as a table."""
    from ffnlab.report.table import Table

    (baseline,) = (row.name for row in comparisons if row.verdict is None)
    digits = _format(comparisons)
    columns = ["block", "n", config.score, f"Δ {baseline}", "p", "P(better)"]
    rows = []
    for row in comparisons:
        mean = _with_interval(row.score, row.interval, digits)
        cells = [row.name, str(row.replicates), mean, "", "", "", "baseline"]
        if row.verdict is not None:
            interval = row.difference_interval
            cells[3] = _with_interval(row.difference, interval, digits, "+")
            cells[4] = "" if row.p_value is None else f"{row.p_value:.4f}"
            cells[5:] = f"{row.improvement:.2f}", row.verdict
        rows.append(cells)
    return Table([*columns, "verdict"], rows)


def _format(comparisons: "Sequence[Comparison]") -> str:
    """Returns the format of scores: half the narrowest interval has two digits."""
    intervals = [row.interval for row in comparisons]
    intervals += [row.difference_interval for row in comparisons]
    halves = [(each.high - each.low) / 2 for each in intervals if each is not None]
    largest = max(abs(row.score) for row in comparisons)
    if not 1e-6 < largest < 1e7:
        return ".4g"
    step = max(min(halves, default=0.0), 1e-4 * largest)
    return f".{max(0, 1 - math.floor(math.log10(step)))}f"


def _with_interval(
    value: float, interval: "Interval | None", digits: str, sign: str = ""
) -> str:
    """Returns a number and its interval as text; zero has no minus.

    >>> _with_interval(-0.001, None, ".2f", sign="+")
    '+0.00'
    """
    shown = [f"{number:{sign}z{digits}}" for number in (value, *(interval or ()))]
    return shown[0] if interval is None else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def _remarks_on_claims(
    config: JudgeConfig, comparisons: "Sequence[Comparison]"
) -> list[str]:
    """Returns what the scores cannot decide."""
    from ffnlab import stats

    least = stats.least_replicates(config.level)
    if comparisons[0].replicates < least:
        return [
            f"A claim at {100 * config.level:g} % confidence needs at least {least} "
            f"replicates of every block; the table has {comparisons[0].replicates}."
        ]
    undecided = [row for row in comparisons if row.verdict == "undecided"]
    if not undecided:
        return []
    needed = "; ".join(f"{row.name} {_needed(row.needed)}" for row in undecided)
    margin = "" if config.margin else ", and without a margin no block is equivalent"
    return [
        f"Undecided does not mean equal{margin}. If the mean and the spread of the "
        f"differences stay as they are, this many replicates decide: {needed}."
    ]


def _needed(count: int | None) -> str:
    """Returns a number of replicates, with two significant digits.

    >>> _needed(1234), _needed(None)
    ('about 1,200', 'no number up to a million')
    """
    if count is None:
        return "no number up to a million"
    return f"about {float(f'{count:.2g}'):,.0f}"


def _remarks_on_runs(
    config: JudgeConfig, baseline: str, paired: PairedScores
) -> list[str]:
    """Returns what the table cannot show, and what of it was not used."""
    remarks = [
        "The claims are about the data, the budget and the settings of these runs. "
        "What all runs share, such as one split of the data, is not in the intervals.",
        "The table does not show how the scores were made. The best of several steps "
        "or learning rates is too good a score, unless a validation part chose it.",
    ]
    if config.baseline is None:
        remarks.append(
            f"The baseline is {baseline}, by default the block with the most rows, the "
            "first in the file of several. Choose it before you look at the scores."
        )
    if config.where:
        conditions, used = ", ".join(config.where), sum(paired.rows.values())
        remarks.append(f"Rows with {conditions}: {used} of {paired.total}.")
    if paired.missing:
        count = len(paired.missing)
        pairs = f"{count} pairs are" if count > 1 else "1 pair is"
        remarks.append(
            f"{pairs} left out, because a block has no run: "
            f"{list_missing(paired.missing)}. If these runs are missing because they "
            "failed, the comparison favours the blocks that fail."
        )
    return remarks


def _show(config: JudgeConfig, result: JudgeResult) -> None:
    """Prints the verdict, the table, and what cannot be concluded."""
    print(textwrap.fill(terminal(result.verdict), _WIDTH), end="\n\n")
    result.table.show(_caption(config))
    print("\nWhat this cannot conclude:")
    for remark in result.remarks:
        lines = textwrap.wrap(terminal(remark), _WIDTH - 2, break_on_hyphens=False)
        print("- " + "\n  ".join(lines))


def _caption(config: JudgeConfig) -> str:
    """Returns how to read the table."""
    direction = "lower" if config.lower_is_better else "higher"
    return (
        f"{config.score}, {direction} is better; means with "
        f"{100 * config.level:g} % intervals, those of Δ simultaneous"
    )


def _write(config: JudgeConfig, out: str | Path, result: JudgeResult) -> None:
    """Writes the report, the picture and the numbers to a directory."""
    from ffnlab import io
    from ffnlab.report import plots, run_directory

    with run_directory.open_run(out, config, None) as directory:
        figure = _forest(config, result.comparisons)
        plots.save(figure, directory / "differences.png")
        rows = map(dataclasses.asdict, result.comparisons)
        io.write_lines(directory / "comparisons.jsonl", rows)
        io.write(directory / "report.md", _report(config, result))
        run_directory.finish(directory)


def _forest(config: JudgeConfig, comparisons: "Sequence[Comparison]") -> "Figure":
    """Returns the picture of the differences."""
    from ffnlab.report.verdict_plots import forest

    return forest(
        comparisons,
        config.score,
        margin=config.margin,
        higher_is_better=not config.lower_is_better,
    )


def _report(config: JudgeConfig, result: JudgeResult) -> str:
    """Returns the text of report.md."""
    name = markdown(Path(config.results).name)
    remarks = "".join(f"- {markdown(remark)}\n" for remark in result.remarks)
    return f"""# Do the blocks of {name} differ?

{markdown(result.verdict)}

{result.table.markdown()}

{markdown(_caption(config))}; n is the number of replicates.

![Differences from the baseline](differences.png)

## What this cannot conclude

{remarks}
## How to repeat it

Pass the file `flags` of this directory to `python -m experiments.judge` as
`--flagfile`. The numbers are in comparisons.jsonl.
"""
