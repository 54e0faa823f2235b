"""How the numbers of a comparison of feedback networks were computed, in Markdown."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ffnlab.sweep.feedback_config import FeedbackCompareConfig

if TYPE_CHECKING:
    from ffnlab.data import Dataset, Replicates


def note(
    config: FeedbackCompareConfig, datasets: "Mapping[str, Dataset | Replicates]"
) -> str:
    """Returns how the numbers in the tables were computed, as `Facts` has it.

    Args:
      config: Its configuration.
      datasets: The data set of each task, or its replicates.
    """
    return f"""{_design(config, datasets)} The test part was scored once, at the chosen
rate.

All models have as many parameters as a feedback network of hidden width
{config.hidden}; the remaining difference is in brackets. Scores are means with
Student's 95 % intervals, each for itself. Δ is the mean of the paired differences from
the baseline. Its intervals hold for all models together, and p is adjusted for their
number, by the distribution of the largest studentised difference under random signs
(Liu 1988; Westfall and Young 1993; Romano and Wolf 2005): an interval excludes zero
exactly when p is at most 0.05. P(better) is the share of replicates in which the model
beats the baseline, with ties as half. A model is equivalent if its interval is within
the margin. A run that diverged has the score of a trivial predictor. Iterations,
residual, spectral radius and the fraction of sequences that converged are means over
the validation part."""


def _design(
    config: FeedbackCompareConfig, datasets: "Mapping[str, Dataset | Replicates]"
) -> str:
    """Returns what a replicate is, and what data the p-values are about."""
    if config.split == "fixed":
        return """The {runs} replicates of a model differ in their initial parameters
and the order of the data. The data are the same for all, and so is the learning rate of
a model, which the validation part chose: the verdict is about these data and these
learning rates, and others may give another one."""
    if config.train:
        return """A replicate has its own initial parameters, order of the data and
learning rate, which the validation part chose. The sentences are those of the files for
all {runs} replicates. Standard errors are therefore two-way: they count the draw of the
replicates and that of the test sentences (Cameron, Gelbach and Miller 2011). There is
no p-value for new data of the kind, since only one draw of the training part was
seen."""
    drawn = {name: is_drawn(dataset) for name, dataset in datasets.items()}
    text = """A replicate has its own data, initial parameters, order of the data and
learning rate, which its own validation part chose. Models are compared in pairs of
equal data and order, over {runs} replicates."""
    new, split = (
        ", ".join(name for name, known in drawn.items() if known == wanted)
        for wanted in (True, False)
    )
    if new:
        text += f""" The data of {new} are drawn anew, independently of the other
replicates, so that p-values are about new data of the kind; the best possible scores
are means over the test parts of all replicates."""
    if split:
        text += f""" The data of {split} are split anew: the p-value is about this data
set, and the one for new data of the kind corrects the variance for the overlap of
splits (Nadeau and Bengio 2003)."""
    return text


def is_drawn(dataset: "Dataset | Replicates") -> bool:
    """Returns whether the data come from a known process."""
    from ffnlab.data import synthetic

    return dataset.about["source"] == synthetic.DRAWN
