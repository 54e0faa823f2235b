"""Scores of the members of a population on a part of a data set."""

from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding

from ffnlab import data
from ffnlab.data import Arrays
from ffnlab.sweep.spreading import (
    SHARED,
    Batching,
    member_sharding,
    members_mesh,
    pad_members,
    spread,
)
from ffnlab.train.evaluation import make_evaluate, make_score_examples
from ffnlab.train.learner import Frozen, Learner, bind
from ffnlab.train.placement import on_mesh
from ffnlab.train.program import Program
from ffnlab.train.sharding import Layout, constrain
from ffnlab.types import Array, Model, Objective, Params


def scored_parts(dataset: Any) -> tuple[Any, Any]:
    """Returns the validation and the test part of a data set, as members are scored.

    Where replicates have equally many examples in both, the pools of rows get equally
    many too, so that one program scores both: the last row is repeated.
    """
    valid, test = dataset.valid, getattr(dataset, "test", None)
    if not isinstance(dataset, data.Replicates) or "ends" in valid:
        return valid, test
    if dataset.rows["valid"].shape != dataset.rows["test"].shape:
        return valid, test
    size = max(data.size(valid), data.size(test))

    def fill(part: Arrays) -> Arrays:
        index = np.minimum(np.arange(size), data.size(part) - 1)
        return {name: array[index] for name, array in part.items()}

    return fill(valid), fill(test)


def make_scorer(
    learner: Learner | Frozen,
    batching: Batching = "auto",
    layout: Layout | None = None,
) -> Program:
    """Returns the program that scores members, of `params` and `(part, rows)`.

    Args:
      learner: The model and its objective.
      batching: See `spread`.
      layout: How members, batches and parameters are divided over devices; None divides
        the members over all local devices.

    Returns:
      A program of parameters, with a leading axis `[S]`, a part of a data set and its
      rows for each member, int32 `[S, N]`. It returns the mean of each score, `[S]`.
    """

    def take(part: tuple[Arrays, Array], index: Array) -> Any:
        return constrain(layout, data.take(part[0], part[1][index]))

    def score(params: Params, scored: tuple[Any, Array]) -> dict[str, Array]:
        part, rows = scored

        def one(member: tuple[Params, Array], part: Any) -> dict[str, Array]:
            (model, objective, *_), arrays = bind(learner, part)
            evaluate = make_evaluate(model, objective, take, rows.shape[1])
            return evaluate(member[0], (arrays, member[1]))

        return spread(one, batching, layout)((params, rows), part)

    return on_mesh(score, layout)


def evaluate_members(
    model: Model,
    objective: Objective,
    part: Arrays,
    params: Params,
    rows: np.ndarray | None = None,
    batching: Batching = "auto",
    program: Program | None = None,
) -> dict[str, np.ndarray]:
    """Scores each member of a population on a part of the data.

    Args:
      model: The model of all members.
      objective: What is scored.
      part: A part of a data set, for instance `dataset.test`.
      params: The parameters of the members, with a leading axis `[S]`.
      rows: The rows of the part that each member is scored on, int `[S, N]`; None is
        all rows.
      batching: See `spread`.
      program: One of `make_scorer` without a layout, which is not compiled again where
        it has scored as many members on a part of these shapes.

    Returns:
      The mean of each score, `[S]`.
    """
    size = jax.tree.leaves(params)[0].shape[0]
    if rows is None:
        rows = np.broadcast_to(np.arange(data.size(part)), (size, data.size(part)))
    if program is None:
        program = make_scorer(Learner(model, objective, optax.identity()), batching)
    members = pad_members((params, np.asarray(rows, np.int32)))
    padded = len(members[1])
    params, rows = jax.device_put(members, member_sharding(None, padded))
    part = jax.device_put(part, NamedSharding(members_mesh(padded), SHARED))
    scores = program(params, (part, rows))
    return {name: np.asarray(value)[:size] for name, value in scores.items()}


def score_examples(
    model: Model,
    objective: Objective,
    part: Arrays,
    params: Params,
    batching: Batching = "auto",
) -> np.ndarray:
    """Returns the monitored score of each member on each example, `[S, N]`.

    The arguments are those of `evaluate_members`.
    """
    size = jax.tree.leaves(params)[0].shape[0]
    score = make_score_examples(model, objective, data.take, data.size(part))
    scores = jax.jit(spread(score, batching))(pad_members(params), part)
    return np.asarray(scores)[:size]
