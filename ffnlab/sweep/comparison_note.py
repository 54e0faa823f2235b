"""How the numbers of a comparison were computed, as a paragraph of its report."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ffnlab import data
from ffnlab.sweep import timing
from ffnlab.sweep.comparison_config import CompareConfig

if TYPE_CHECKING:
    from ffnlab.data import Dataset, Replicates
    from ffnlab.nn.budget import Match

_FIXED = """The {runs} replicates of a block differ in their initial parameters and the
order of the data. The split is the same for all, and so is the learning rate of a
block, which the validation part chose: the verdict is about this split and these
learning rates, and another split may give another one."""

_OWN_SPLITS = """A replicate has its own split, initial parameters, order of the data
and learning rate, which its own validation part chose. Blocks are compared in pairs of
equal split and order, over {runs} replicates. The p-value is about this data set; the
one for new data of the kind corrects the variance for the overlap of splits (Nadeau and
Bengio 2003)."""

_GIVEN_PARTS = """A replicate has its own initial parameters, order of the data and
learning rate, which the validation part chose. The data have a test part of their own,
which is the same for all {runs} replicates. Standard errors are therefore two-way: they
count the draw of the replicates and that of the test examples (Cameron, Gelbach and
Miller 2011), as if examples were drawn one by one. The score of each run on each
example is in examples/. There is no p-value for new data of the kind, since only one
draw of the training part was seen."""

_MIXED = """A replicate has its own initial parameters, order of the data and learning
rate, which the validation part chose. Data with a test part of their own have the same
one for all {runs} replicates; their standard errors are two-way and count the draw of
the test examples too (Cameron, Gelbach and Miller 2011). Other data are split anew for
each."""

_STAGES = """Replicates were added in stages, which end after {stages}, to the blocks
that were undecided then and whose decision in the last stage had a probability of at
least 0.1 (Spiegelhalter, Freedman and Blackburn 1986). Each stage has a boundary of its
own, such that all stages together make a false claim in at most one run in twenty (Lan
and DeMets 1983); the intervals and p-values of a block are those of the stage that was
its last (Jennison and Turnbull 1989)."""

_MODELS = """Models have the sizes that they were given. A block by name is a stack of
{config.layers} blocks of width {config.features} with equal {config.budget}: those of a
plain mlp of hidden width {config.hidden}; the remaining difference is in brackets."""

REPEAT = """Call `ffnlab.sweep.compare` with the same models and data again; the other
settings are in the file `flags` of this directory."""

_STATISTIC = """Scores are means with Student's 95 % intervals, each for itself. Δ is
the mean of the paired differences from the baseline. Its intervals hold for all blocks
together, and p is adjusted for their number, by the distribution of the largest
studentised difference under random signs (Liu 1988; Westfall and Young 1993; Romano and
Wolf 2005): an interval excludes zero exactly when p is at most 0.05. P(better) is the
share of replicates in which the block beats the baseline, with ties as half. A block is
equivalent if its interval is within the margin. A run that diverged has the score of a
trivial predictor."""


def note(
    config: CompareConfig,
    datasets: "Mapping[str, Dataset | Replicates]",
    matches: "list[Match] | None" = None,
) -> str:
    """Returns how the numbers in the table were computed, as `Facts` has it.

    Args:
      config: The configuration of the comparison.
      datasets: Name to data set, or to replicates where a split is drawn for each run.
      matches: The blocks, with their hidden widths; None for a comparison from Python.
    """
    paragraphs = [
        f"{_design(config, datasets)} The test part was scored once, at the chosen "
        "rate."
    ]
    if config.stages is not None:
        *first, last = map(str, config.stages)
        stages = f"{', '.join(first)} and {last} replicates" if first else last
        paragraphs.append(_STAGES.format(stages=stages))
    paragraphs.append(f"{_budget(config, matches)} {_STATISTIC}")
    return "\n\n".join(paragraphs)


def _design(
    config: CompareConfig, datasets: "Mapping[str, Dataset | Replicates]"
) -> str:
    """Returns what a replicate is."""
    if config.split == "fixed":
        return _FIXED
    own = [isinstance(dataset, data.Replicates) for dataset in datasets.values()]
    if all(own):
        return _OWN_SPLITS
    return _MIXED if any(own) else _GIVEN_PARTS


def _budget(config: CompareConfig, matches: "list[Match] | None") -> str:
    """Returns what is equal for all blocks, and which widths were given."""
    if matches is None:
        return " ".join(_MODELS.format(config=config).split())
    if config.budget == "time":
        return timing.describe(config, matches, config.sources[0])
    equal = f"""All blocks have equal {config.budget}: those of a plain mlp of hidden
width {config.hidden}; the remaining difference is in brackets."""
    given = ", ".join(config.given_widths)
    return f"{equal} The hidden widths of {given} were given." if given else equal
