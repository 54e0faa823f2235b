"""Span F1 of trained taggers on the test part, in addition to the tag accuracy."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab import data, stats
from ffnlab.data import tags
from ffnlab.data.dataset import IGNORE
from ffnlab.sweep import run_files
from ffnlab.sweep.job import Job
from ffnlab.types import Array, Batch, Params

FOLDER = "spans"  # of a run directory
Predict = Callable[[Params, Batch], Array]


def write(jobs: Sequence[Job], directory: Path) -> None:
    """Writes the span F1 of the chosen runs of every tagger on the test part.

    Args:
      jobs: The trained taggers of one task.
      directory: The run directory, which holds their best parameters.
    """
    for job in jobs:
        predict = make_predict(job)
        scores = [
            span_f1(job, run_files.read_best(directory, job.slug, member), predict)
            for member in range(run_files.count(directory, "best", job.slug))
        ]
        path = run_files.path_of(directory, FOLDER, job.slug)
        run_files.append(path, {"f1": np.array(scores)}, 0)


def remark(directory: Path, slugs: Mapping[str, str]) -> str:
    """Returns the span F1 of every tagger on the test part, as a remark of a report.

    Args:
      directory: The run directory, with what `write` wrote.
      slugs: By the name of each tagger, its name as part of a path.
    """
    parts = []
    for name, slug in slugs.items():
        scores = run_files.read(directory, FOLDER, slug)["f1"]
        part, ends = f"{name} {np.mean(scores):.3f}", stats.mean_interval(scores)
        low, high = ends.clip(0.0, 1.0) if ends else (None, None)
        parts.append(f"{part} [{low:.3f}, {high:.3f}]" if ends else part)
    return f"span F1 on the test part: {', '.join(parts)}"


def make_predict(job: Job) -> Predict:
    """Returns the compiled function from parameters and a batch to predicted tags."""

    @jax.jit
    def predict(params: Params, x: Batch) -> Array:
        # With a key, no costly diagnostics are computed.
        return job.model.apply(params, x, jax.random.key(0))[0].argmax(axis=-1)

    return predict


def span_f1(job: Job, params: Params, predict: Predict) -> float:
    """Returns the micro-averaged F1 of the spans of the test part.

    Args:
      job: The tagger.
      params: Its trained parameters.
      predict: From `make_predict`.
    """
    names = job.dataset.about["tags"]
    gold, predicted = [], []
    for labels, predictions in _predict_test(job, params, predict):
        mask = labels != IGNORE
        gold.append([names[i] for i in labels[mask]])
        predicted.append([names[i] for i in predictions[mask]])
    scheme = tags.scheme_of([*gold, *predicted])  # either may lack a prefix
    return tags.span_f1(predicted, gold, scheme)["f1"]


def _predict_test(
    job: Job, params: Params, predict: Predict, batch: int = 64
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the labels and the predictions of each test sequence, `[T]` each."""
    params = jax.tree.map(jnp.asarray, params)
    test, count = jax.device_put(job.dataset.test), data.size(job.dataset.test)
    for start in range(0, count, batch):
        index = np.minimum(np.arange(start, start + batch), count - 1)
        rows = data.take(test, index)
        predictions = np.asarray(predict(params, rows["x"]))[: count - start]
        yield from zip(np.asarray(rows["y"]), predictions, strict=False)
