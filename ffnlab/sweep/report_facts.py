"""What the report of a comparison is made from, beside the lines of its runs.

It is `report.json` of a run directory, so that runs can be ranked together later, on a
machine that has neither the data nor the models.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab import data, io
from ffnlab.errors import InputError

if TYPE_CHECKING:
    from ffnlab.data import Dataset, Replicates
    from ffnlab.sweep.comparison_config import CompareConfig

NAME = "report.json"
_PLAIN = re.compile(r"\w[\w .:/+%()-]*")

# How to repeat a run of a launcher, and where its numbers are.
REPEAT = """Pass the file `flags` of this directory to the launcher as `--flagfile`."""
FILES = """The versions of
the software are in versions.json, all runs with their curves in results.jsonl, and the
parameters of the chosen runs in best/."""


class DataFacts(NamedTuple):
    """What a report says of a data set.

    Attributes:
      about: Facts about it, as they are shown.
      task: Its task, a key of `train.objectives.OBJECTIVES`.
      test_ratio: The test examples per training example, where each replicate has its
        own split; None where all share one, or have independent draws.
      marks: The best possible scores by name, where they are known.
    """

    about: dict[str, str]
    task: str
    test_ratio: float | None
    marks: dict[str, float] = {}  # noqa: RUF012


class FeedbackFacts(NamedTuple):
    """What a report says of feedback networks.

    Attributes:
      bounds: The certified models of the first data set that the picture of the score
        against the bound shows, and the bound of each; without further ones, none.
      from_files: Whether the data are sentences of files, the same for all replicates.
    """

    bounds: dict[str, float]
    from_files: bool


class Facts(NamedTuple):
    """What the report of a comparison is made from, beside the lines of its runs.

    Attributes:
      title: The heading of the report.
      note: How the numbers were computed, in Markdown, with `{runs}` in place of the
        number of replicates.
      repeat: How to repeat the comparison.
      blocks: The names of what is compared.
      baseline: The one that the others are compared with.
      margin: The largest difference that does not matter; None is the default.
      seed: The seed of the comparison.
      replicates: The largest number of replicates of a block.
      stages: The number of replicates after each stage; None for a single stage.
      fixed: Whether all replicates share one split and learning rate.
      sources: Name to data set, in the order of the report.
      feedback: What the report of a comparison of feedback networks has beside; None
        for a comparison of blocks.
    """

    title: str
    note: str
    repeat: str
    blocks: list[str]
    baseline: str
    margin: float | None
    seed: int
    replicates: int
    stages: list[int] | None
    fixed: bool
    sources: dict[str, DataFacts]
    feedback: FeedbackFacts | None = None

    def task(self, source: str) -> str:
        """Returns the task of the lines of a data set; empty if they have none."""
        return source if len(self.sources) > 1 or self.feedback else ""

    @property
    def keys(self) -> list[tuple[str, str]]:
        """The task and the block of each job, in the order of the lines."""
        first = next(iter(self.sources))
        keys = []
        for source in self.sources:
            more = self.feedback.bounds if self.feedback and source == first else ()
            names = dict.fromkeys([*self.blocks, *more])
            keys += [(self.task(source), name) for name in names]
        return keys

    def shares_test_part(self, source: str) -> bool:
        """Returns whether all replicates are scored on the same examples."""
        if self.fixed or self.sources[source].test_ratio is not None:
            return False
        return self.feedback is None or self.feedback.from_files


def gather(
    config: "CompareConfig",
    datasets: "Mapping[str, Dataset | Replicates]",
    title: str,
    note: str,
    repeat: str,
) -> Facts:
    """Returns the facts of a comparison.

    Args:
      config: Its configuration.
      datasets: Name to data set, or to replicates where a split is drawn for each run.
      title: See `Facts`, as for the note and how to repeat it.
      note: See `Facts`.
      repeat: See `Facts`.
    """
    stages = config.stages
    return Facts(
        title,
        note,
        repeat,
        [*config.names],
        config.reference,
        config.margin,
        config.seed,
        config.replicates,
        None if stages is None else [*stages],
        config.split == "fixed",
        {
            name: DataFacts(about_as_text(each.about), each.task, _test_ratio(each))
            for name, each in datasets.items()
        },
    )


def _test_ratio(dataset: "Dataset | Replicates") -> float | None:
    """Returns the test examples per training example; None for a single split."""
    if not isinstance(dataset, data.Replicates):
        return None
    return dataset.rows["test"].shape[1] / dataset.rows["train"].shape[1]


def about_as_text(about: Mapping[str, Any]) -> dict[str, str]:
    """Returns facts about data as they are shown; of long lists only the number.

    >>> about_as_text({"sizes": {"train": 9, "test": 3}, "names": [*range(20)]})
    {'sizes': 'train 9, test 3', 'names': '20 of them'}
    """
    shown = {}
    for name, fact in about.items():
        if name == "columns_without_features" and isinstance(fact, dict):
            fact = "; ".join(f"{column}: {why}" for column, why in fact.items())
        elif isinstance(fact, (list, tuple, dict)) and len(fact) > 12:
            fact = f"{len(fact)} of them"
        shown[name] = fact if isinstance(fact, str) else _as_text(fact)
    return shown


def _as_text(fact: Any) -> str:
    """Returns a fact in words; texts in it that are not plain are quoted.

    >>> _as_text({"age": {"kind": "numbers", "mean": 1 / 3}, "sex": ["m", "f; x"]})
    "age: kind numbers, mean 0.3333; sex m, 'f; x'"
    """
    if isinstance(fact, str):
        return fact if _PLAIN.fullmatch(fact) else repr(fact)
    if isinstance(fact, float):
        return f"{fact:.4g}"
    if isinstance(fact, (list, tuple)):
        return ", ".join(map(_as_text, fact))
    if not isinstance(fact, Mapping):
        return str(fact)
    nested = any(isinstance(each, Mapping) for each in fact.values())
    return ("; " if nested else ", ").join(
        f"{_as_text(name)}{':' * isinstance(each, Mapping)} {_as_text(each)}"
        for name, each in fact.items()
    )


def write(directory: Path, facts: Facts) -> None:
    """Writes the facts of a comparison to its run directory."""
    sources = {name: each._asdict() for name, each in facts.sources.items()}
    feedback = facts.feedback and facts.feedback._asdict()
    fields = {**facts._asdict(), "sources": sources, "feedback": feedback}
    text = json.dumps(fields, indent=1)
    io.write(directory / NAME, text + "\n")


def read(directory: Path) -> Facts:
    """Returns the facts that `write` wrote.

    Raises:
      InputError: The file is missing, damaged or of another version.
    """
    path = directory / NAME
    try:
        fields = json.loads(io.read(path))
        sources = {name: DataFacts(**each) for name, each in fields["sources"].items()}
        feedback = fields.get("feedback") and FeedbackFacts(**fields["feedback"])
        return Facts(**{**fields, "sources": sources, "feedback": feedback})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: it is not what a comparison of this version writes; resume the "
            "run, which writes it again"
        ) from None
