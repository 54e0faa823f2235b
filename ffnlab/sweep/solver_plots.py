"""Pictures of how trained feedback networks are solved."""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab import data
from ffnlab.feedback import iteration
from ffnlab.feedback.solvers import Anderson, GaussSeidel, Jacobi, Newton
from ffnlab.models.sequence import SequenceConfig, SequenceModel
from ffnlab.nn import pure
from ffnlab.report import plots
from ffnlab.sweep import ranking
from ffnlab.train import objectives

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ffnlab.data import Dataset

SOLVERS = {
    "jacobi": Jacobi(max_steps=40),
    "gauss-seidel": GaussSeidel(max_steps=40),
    "anderson": Anderson(max_steps=40),
    "newton": Newton(max_steps=40),
}
SEQUENCES = 32


def pictures(
    configs: Mapping[str, SequenceConfig],
    params: Mapping[str, dict[str, Any]],
    dataset: "Dataset",
) -> "dict[str, tuple[str, Figure]]":
    """Returns captions and figures of trained networks at work on the test part.

    Args:
      configs: what each network is made of, by name.
      params: the trained parameters of each.
      dataset: what they were trained on.
    """
    residuals, distances = {}, {}
    for name, config in configs.items():
        problem = problem_of(config, params[name], dataset)
        histories = {
            solver: jax.jit(functools.partial(_history, problem[0], made))(*problem[1:])
            for solver, made in SOLVERS.items()
        }
        residuals[name] = {k: np.asarray(v.residual) for k, v in histories.items()}
        distances[name] = _distances(histories["jacobi"], problem[1].get("mask"))
    told = f"{SEQUENCES} test sequences"
    return {
        "solvers.png": (
            f"Every solver on the trained networks: the residual of {told}.",
            plots.convergence(residuals),
        ),
        "states.png": (
            "How far each state of one sequence is from where Jacobi ends, as a share "
            "of the largest state there.",
            plots.relaxation(distances),
        ),
    }


def _distances(found: iteration.Solution, mask: jax.Array | None) -> np.ndarray:
    """Returns how far the states of the longest sequence are from the last sweep's."""
    states = np.asarray(found.state)  # [sweeps, B, T, H]
    lengths = np.full(states.shape[1], states.shape[2])
    if mask is not None:
        lengths = np.asarray(mask).sum(axis=1)
    states = states[:, lengths.argmax(), : lengths.max()]
    size = np.linalg.norm(states[-1], axis=-1).max()
    return np.linalg.norm(states - states[-1], axis=-1) / max(size, 1e-9)


def _history(
    system: iteration.System, solver: Any, args: Any, start: jax.Array
) -> iteration.Solution:
    return iteration.history(system, args, start, solver)


def problem_of(
    config: SequenceConfig, params: dict[str, Any], dataset: "Dataset"
) -> tuple:
    """Returns what a trained network solves on the first test sequences."""
    params = jax.tree.map(jnp.asarray, params)
    model = pure.bind(lambda rngs: SequenceModel(config, rngs=rngs), params)
    count = min(SEQUENCES, data.size(dataset.test))
    x = data.take(jax.device_put(dataset.test), jnp.arange(count))["x"]
    return model.body.problem(*model.read(x))


def against_coupling(
    runs: Sequence[dict[str, Any]],
    names: Mapping[float, str],
    dataset: "Dataset",
    marks: Mapping[str, float],
    seed: int,
) -> "tuple[str, Figure]":
    """Returns caption and figure of the test score against the certificate.

    Args:
      runs: the lines of a task.
      names: certificate γ to the name of the model that was held to it.
      dataset: what was scored.
      marks: scores to draw a line at.
      seed: of the resampling.
    """
    objective = objectives.OBJECTIVES[dataset.task]
    found = [ranking.middle(runs, name, objective, seed) for name in names.values()]
    unit, scale, _ = ranking.UNITS[objective.monitor]
    figure = plots.against(
        list(names),
        [scale * middle for middle, _ in found],
        [tuple(scale * end for end in ends) for _, ends in found],
        ("γ, the bound on the Lipschitz constant", unit),
        {name: scale * value for name, value in marks.items()},
    )
    return "The test score against the certificate, intervals over seeds.", figure
