"""Statistics of comparison: which blocks differ from a baseline, and how sure is it?

A replicate is one draw of everything that could have come out otherwise: the split, the
initial parameters, the order of the data and the learning rate that its validation part
chose. Each block has one finite score per replicate, and all blocks share replicates,
so that scores are compared in pairs.

There is one statistic: the mean of the paired differences, divided by its standard
error. It ranks, it is tested, and it is drawn. Its distribution under the hypothesis
that all blocks are equal is that of the largest statistic of all blocks when the signs
of the centred differences are drawn at random, the same sign for all blocks of a
replicate. The intervals are therefore simultaneous, and an interval excludes zero
exactly when its p-value is at most one minus the level.

Where all replicates are scored on the same examples, the standard error is two-way: it
counts the draw of the examples too. Where replicates are added in stages until every
block is decided, each stage has a boundary that spends its part of the error.

Sources: Liu 1988, "Bootstrap procedures under some non-i.i.d. models" (random signs);
Westfall and Young 1993, "Resampling-based multiple testing" (the largest statistic);
Romano and Wolf 2005, "Exact and approximate stepdown methods for multiple hypothesis
testing" (studentised); Cameron, Gelbach and Miller 2011, "Robust inference with
multiway clustering" (two-way); Lan and DeMets 1983, "Discrete sequential boundaries for
clinical trials", and Jennison and Turnbull 1989, "Interim analyses: the repeated
confidence interval approach" (stages). `python -m benchmarks.calibration` measures
error, coverage and power. scipy, which is slow to import, is imported where it is
needed.
"""

from ffnlab.lazy import attach

_NAMES = {
    "Comparison": "comparison",
    "Interval": "intervals",
    "POWER": "power",
    "VERDICTS": "comparison",
    "compare": "comparison",
    "detectable_effect": "power",
    "largest_statistics": "signs",
    "least_replicates": "signs",
    "mean_interval": "intervals",
    "ratio_scores": "two_way",
    "stages_for": "stages",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
