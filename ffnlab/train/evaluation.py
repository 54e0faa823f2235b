"""Evaluation: mean scores over a part of a data set, each example scored once."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab.train import objectives
from ffnlab.types import Array, Batch, Model, Objective, Params, Scores

Take = Callable[[Any, Array], Batch]
Evaluate = Callable[[Params, Any], dict[str, Array]]


class Evaluator(Protocol):
    """What scores parameters between stretches of training.

    `train.program.Program` is one, of a pure function; a class of the caller's own may
    score on the host.
    """

    def outputs(self, params: Params, arrays: Any) -> Mapping[str, Any]:
        """Returns a mapping with the names of the scores, without computing them."""

    def __call__(self, params: Params, arrays: Any) -> Mapping[str, Any]:
        """Returns the scores of parameters, `[]` or, for a population, `[S]`."""


def make_evaluate(
    model: Model, objective: Objective, take: Take, size: int, batch: int = 1024
) -> Evaluate:
    """Returns `evaluate(params, data) -> mean of each score` over `size` examples.

    Args:
      model: The model; it is applied without dropout. What it reports of each example
        in `aux["report"]`, `[B]` each, is averaged as the scores are.
      objective: What is scored.
      take: `take(data, index) -> batch`.
      size: The number of examples; all are scored, each once.
      batch: The number of examples of a batch. The last batch is filled up with
        examples of weight 0.
    """

    def evaluate(params: Params, data: Any) -> dict[str, Array]:
        def score(row: tuple[Array, Array]) -> tuple[dict[str, Array], Array]:
            examples = take(data, row[0])
            outputs, aux = model.apply(params, examples["x"], None)
            scores = objective.score(outputs, examples)
            return objectives.totals(_with_report(scores, aux, row[1]))

        sums, weight = jax.lax.map(score, _batches(size, batch))
        return objectives.average(jax.tree.map(jnp.sum, sums), weight.sum())

    return evaluate


def make_score_examples(
    model: Model, objective: Objective, take: Take, size: int, batch: int = 1024
) -> Callable[[Params, Any], Array]:
    """Returns `score(params, data) -> the monitored score of each example`, `[size]`.

    Their mean is that of `make_evaluate`: the score of an example with several entries
    is their sum, over the mean weight of an example.

    Args:
      model: See `make_evaluate`, as for the other arguments.
      objective: What is scored; its monitored score is returned.
      take: `take(data, index) -> batch`.
      size: The number of examples.
      batch: The number of examples of a batch.
    """

    def score_examples(params: Params, data: Any) -> Array:
        def score(row: tuple[Array, Array]) -> tuple[Array, Array]:
            examples = take(data, row[0])
            outputs, _ = model.apply(params, examples["x"], None)
            values, weight = objective.score(outputs, examples)
            entries = tuple(range(1, weight.ndim))
            value = jnp.where(weight > 0, values[objective.monitor] * weight, 0.0)
            return value.sum(entries), weight.sum(entries)

        sums, weights = jax.lax.map(score, _batches(size, batch))  # [rows, B] each
        sums, weights = sums.ravel()[:size], weights.ravel()[:size]
        return sums / jnp.maximum(weights.mean(), 1e-9)

    return score_examples


def _batches(size: int, batch: int) -> tuple[Array, Array]:
    """Returns the examples of each batch, and 1 for those that count, `[rows, B]`."""
    batch = min(batch, size)
    rows = -(-size // batch)
    index = np.arange(rows * batch).reshape(rows, batch)
    counts = (index < size).astype(np.float32)
    return jnp.asarray(np.minimum(index, size - 1)), jnp.asarray(counts)


def _with_report(scores: Scores, aux: Mapping[str, Any], count: Array) -> Scores:
    """Returns scores together with what a model reports of each example.

    Args:
      scores: The scores of the entries of a batch.
      aux: What the model returned beside its outputs.
      count: 1 for each example that counts and 0 for the others, `[B]`.
    """
    shape = scores.weight.shape

    def spread(values: Array) -> Array:
        """Repeats one number per example for all its entries."""
        values = values.reshape(values.shape + (1,) * (len(shape) - values.ndim))
        return jnp.broadcast_to(values, shape).astype(scores.weight.dtype)

    report = {name: spread(values) for name, values in aux.get("report", {}).items()}
    return Scores({**scores.values, **report}, scores.weight * spread(count))
