"""Entities found by trained taggers: span F1 beside the accuracy of single tags."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab import data, stats
from ffnlab.data import tags
from ffnlab.data.dataset import IGNORE
from ffnlab.sweep.jobs import Job, read_best


def remark(jobs: Sequence[Job], seeds: int, directory: Path) -> str:
    """Returns the span F1 of every tagger on the test part, for a report.

    Args:
      jobs: the taggers of one task, trained.
      seeds: how many chosen runs each has.
      directory: where their best parameters are.
    """
    told = []
    for job in jobs:
        scores = [
            span_f1(job, read_best(directory, job, member)) for member in range(seeds)
        ]
        middle, ends = float(stats.iqm(scores)), stats.bootstrap_interval(scores)
        told.append(f"{job.name} {middle:.3f} [{ends.low:.3f}, {ends.high:.3f}]")
    return f"span F1 on the test part: {', '.join(told)}"


def span_f1(job: Job, params: dict) -> float:
    """Returns the micro-averaged F1 of the entities of the test part."""
    names = job.dataset.about["tags"]
    gold, predicted = [], []
    for labels, guesses in _predicted(job, params):
        there = labels != IGNORE
        gold.append([names[i] for i in labels[there]])
        predicted.append([names[i] for i in guesses[there]])
    scheme = tags.scheme_of([*gold, *predicted])  # either may lack a prefix
    return tags.span_f1(predicted, gold, scheme)["f1"]


def _predicted(
    job: Job, params: dict, batch: int = 64
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the labels and the guesses of each test sequence, `[T]` each."""
    params = jax.tree.map(jnp.asarray, params)
    test, count = jax.device_put(job.dataset.test), data.size(job.dataset.test)

    @jax.jit
    def guess(params: dict, x: dict) -> jax.Array:
        # With a key, nothing is measured that only takes time.
        return job.model.apply(params, x, jax.random.key(0))[0].argmax(axis=-1)

    for start in range(0, count, batch):
        index = np.minimum(np.arange(start, start + batch), count - 1)
        rows = data.take(test, index)
        guesses = np.asarray(guess(params, rows["x"]))
        yield from zip(np.asarray(rows["y"]), guesses[: count - start], strict=False)
