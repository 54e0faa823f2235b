"""What is judged, a table of runs or run directories, and which claims to make."""

import dataclasses

from ffnlab import options
from ffnlab.errors import InputError
from ffnlab.options import option
from ffnlab.sweep.run_table import RunTable


@dataclasses.dataclass(frozen=True)
class Claims:
    """Claims: the baseline, how sure a claim must be, and where the report goes."""

    baseline: str | None = option(
        None,
        "Block that the others are compared with. The default is the block with the "
        "most rows, or the first in the file of several.",
    )
    lower_is_better: bool = option(False, "Whether a lower score is better.")
    margin: float | None = option(
        None,
        "Largest difference that does not matter, in the unit of the score. Blocks can "
        "be called equivalent only with a margin.",
        above=0,
    )
    level: float = option(
        0.95,
        "Confidence of all claims together.",
        least=0.8,
        below=0.9995,  # 8,191 random signs resolve no higher level
    )
    out: str | None = option(
        None, "Directory for the report. The default prints the report only."
    )


@dataclasses.dataclass(frozen=True)
class JoinedRuns:
    """Runs of experiments.compare or experiments.feedback, instead of a table."""

    runs: tuple[str, ...] = option(
        (),
        "Run directories of experiments.compare or experiments.feedback to join: all "
        "shards of a comparison, or runs that differ in their seed; * stands for "
        "several. The report is that of a run of all replicates, with its baseline and "
        "margin.",
        empty=True,
    )


@dataclasses.dataclass(frozen=True)
class JudgeConfig(RunTable, Claims, JoinedRuns):
    """Judgement: a table of runs, or run directories, and the claims to make."""

    def __post_init__(self):
        if not self.runs:
            super().__post_init__()
            return
        options.check(self)
        for field in dataclasses.fields(self):
            given = getattr(self, field.name) != field.default
            if given and field.name not in ("runs", "out"):
                raise InputError(
                    f"{field.name}: it is for a table of runs; with runs, leave it out"
                )
