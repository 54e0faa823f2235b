"""Span F1 of trained taggers on the test part, in addition to the tag accuracy."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab import data, stats
from ffnlab.data import tags
from ffnlab.data.dataset import IGNORE
from ffnlab.sweep.jobs import Job, read_best


def span_f1_remark(jobs: Sequence[Job], seeds: int, directory: Path) -> str:
    """Returns the span F1 of every tagger on the test part, as a remark of a report.

    Args:
      jobs: the trained taggers of one task.
      seeds: the number of chosen runs of each.
      directory: the run directory, which holds their best parameters.
    """
    parts = []
    for job in jobs:
        scores = [
            span_f1(job, read_best(directory, job, member)) for member in range(seeds)
        ]
        middle, ends = float(stats.iqm(scores)), stats.bootstrap_interval(scores)
        parts.append(f"{job.name} {middle:.3f} [{ends.low:.3f}, {ends.high:.3f}]")
    return f"span F1 on the test part: {', '.join(parts)}"


def span_f1(job: Job, params: dict) -> float:
    """Returns the micro-averaged F1 of the spans of the test part."""
    names = job.dataset.about["tags"]
    gold, predicted = [], []
    for labels, predictions in _predict(job, params):
        mask = labels != IGNORE
        gold.append([names[i] for i in labels[mask]])
        predicted.append([names[i] for i in predictions[mask]])
    scheme = tags.scheme_of([*gold, *predicted])  # either may lack a prefix
    return tags.span_f1(predicted, gold, scheme)["f1"]


def _predict(
    job: Job, params: dict, batch: int = 64
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the labels and the predictions of each test sequence, `[T]` each."""
    params = jax.tree.map(jnp.asarray, params)
    test, count = jax.device_put(job.dataset.test), data.size(job.dataset.test)

    @jax.jit
    def predict(params: dict, x: dict) -> jax.Array:
        # With a key, no costly diagnostics are computed.
        return job.model.apply(params, x, jax.random.key(0))[0].argmax(axis=-1)

    for start in range(0, count, batch):
        index = np.minimum(np.arange(start, start + batch), count - 1)
        rows = data.take(test, index)
        predictions = np.asarray(predict(params, rows["x"]))[: count - start]
        yield from zip(np.asarray(rows["y"]), predictions, strict=False)
