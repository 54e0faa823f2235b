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

    `train.loop.Program` is one, of a pure function; a class of the caller's own may
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
    batch = min(batch, size)
    rows = -(-size // batch)
    index = np.arange(rows * batch).reshape(rows, batch)
    counts = (index < size).astype(np.float32)  # [rows, B]

    def evaluate(params: Params, data: Any) -> dict[str, Array]:
        def score(row: tuple[Array, Array]) -> tuple[dict[str, Array], Array]:
            examples = take(data, row[0])
            outputs, aux = model.apply(params, examples["x"], None)
            scores = objective.score(outputs, examples)
            return objectives.totals(_with_report(scores, aux, row[1]))

        batches = (jnp.asarray(np.minimum(index, size - 1)), jnp.asarray(counts))
        sums, weight = jax.lax.map(score, batches)
        return objectives.average(jax.tree.map(jnp.sum, sums), weight.sum())

    return evaluate


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
