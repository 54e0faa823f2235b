"""The report of a shard: which replicates it has run, and how to join it to others."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ffnlab import io
from ffnlab.escape import markdown, terminal
from ffnlab.options import RunOptions
from ffnlab.report.table import Table
from ffnlab.sweep.report import Pictures, list_pictures, save_pictures
from ffnlab.sweep.report_facts import FILES, Facts
from ffnlab.sweep.result_lines import Line
from ffnlab.sweep.results import CompareResult
from ffnlab.sweep.shards import Shard

_COMMAND = "python -m experiments.judge --runs=DIRECTORY,DIRECTORY,... --out=OUT"


class ShardReport(NamedTuple):
    """The report of a shard, which has no ranking.

    Attributes:
      facts: The facts of the comparison.
      shard: The shard.
      table: A row for each block: its runs, and how many of them diverged.
    """

    facts: Facts
    shard: Shard
    table: Table

    @property
    def summary(self) -> str:
        """What the shard has run, in a sentence."""
        numbers = self.shard.numbers(self.facts.replicates)
        return (
            f"This is shard {self.shard.number} of {self.shard.count}: "
            f"{name_replicates(numbers)} of 0 to {self.facts.replicates - 1}. It has "
            "no verdict, which takes all shards."
        )

    def show(self) -> None:
        """Prints what the shard has run, and how to join it."""
        print(f"\n{terminal(self.summary)}\n")
        self.table.show(self.facts.title)
        print(f"\njoin all {self.shard.count} shards by: {_COMMAND}")

    def write(self, directory: Path, pictures: Pictures | None = None) -> list[str]:
        """Writes report.md and pictures, and returns the names of the files.

        Args:
          directory: The run directory.
          pictures: Those of single replicates, which a shard can have.
        """
        pictures = pictures or {}
        save_pictures(directory, pictures)
        io.write(directory / "report.md", self._markdown(pictures))
        return ["report.md", *pictures]

    def _markdown(self, pictures: Pictures) -> str:
        title = f"Shard {self.shard.number} of {self.shard.count}: {self.facts.title}"
        return f"""# {markdown(title)}

{self.summary}

{self.table.markdown()}

{list_pictures(pictures)}## How to join it with the other shards

When all {self.shard.count} shards are finished, this writes the report that a run of
all replicates would have written, from the directories of the shards:

```bash
{_COMMAND}
```

## How to repeat it

{self.facts.repeat} {FILES}
"""


def make_report(facts: Facts, shard: Shard, runs: Sequence[Line]) -> ShardReport:
    """Returns the report of a shard.

    Args:
      facts: The facts of the comparison.
      shard: The shard.
      runs: The lines of its runs.
    """
    rows = []
    for task, block in facts.keys:
        own = [r for r in runs if (r.get("task", ""), r["block"]) == (task, block)]
        diverged = sum(run["diverged_at"] is not None for run in own)
        name = " ".join(filter(None, (task, block)))
        rows.append([name, str(len(own)), str(diverged)])
    return ShardReport(facts, shard, Table(["block", "runs", "diverged"], rows))


def result(
    config: RunOptions, report: ShardReport, runs: list[Line], out: Path | None
) -> CompareResult:
    """Returns the result of a shard, which has no comparisons and no rankings.

    Args:
      config: The configuration of the run.
      report: From `make_report`.
      runs: The lines of its runs.
      out: The run directory; None where nothing was kept.
    """
    return CompareResult(
        out, runs, [], report.table, report.summary, {}, report, config
    )


def name_replicates(numbers: range) -> str:
    """Returns consecutive replicates as text.

    >>> name_replicates(range(4, 8)), name_replicates(range(3, 4))
    ('replicates 4 to 7', 'replicate 3')
    """
    if len(numbers) == 1:
        return f"replicate {numbers.start}"
    return f"replicates {numbers.start} to {numbers.stop - 1}"
