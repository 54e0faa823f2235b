"""Pictures of the solution of trained feedback networks, and of their certificates."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab import data
from ffnlab.feedback import fixed_point
from ffnlab.feedback.iteration import Solution
from ffnlab.feedback.layers import Problem
from ffnlab.feedback.solvers import Anderson, GaussSeidel, Jacobi, Newton
from ffnlab.models.sequence import SequenceConfig, SequenceModel
from ffnlab.nn import pure
from ffnlab.report import plots
from ffnlab.sweep import ranking, units
from ffnlab.types import Objective

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ffnlab.data import Dataset

SOLVERS = {
    "jacobi": Jacobi(max_steps=40),
    "gauss-seidel": GaussSeidel(max_steps=40),
    "anderson": Anderson(max_steps=40),
    "newton": Newton(max_steps=40),
}
SEQUENCES = 32  # the first of the test part
CAPTIONS = {
    "solvers.png": "The residual of each solver on the trained networks: the median "
    f"and the middle half of {SEQUENCES} test sequences.",
    "states.png": "The distance of each state of one sequence from the last iteration "
    "of Jacobi, relative to the largest state.",
}


def plot_solvers(
    configs: Mapping[str, SequenceConfig],
    params: Mapping[str, dict[str, Any]],
    dataset: "Dataset",
) -> "dict[str, tuple[str, Figure]]":
    """Returns captions and figures of the solvers on the test part, by file name.

    Args:
      configs: The configuration of each network, by name.
      params: The trained parameters of each network.
      dataset: The data they were trained on, of one replicate.

    Returns:
      `solvers.png`: the residuals of all solvers; `states.png`: the distances of the
      states from the solution, iteration after iteration.
    """
    residuals, distances = {}, {}
    for name, config in configs.items():
        system, args, start = network_problem(config, params[name], dataset)
        histories = {
            solver_name: fixed_point.history(system, args, start, solver)
            for solver_name, solver in SOLVERS.items()
        }
        residuals[name] = {k: np.asarray(v.residual) for k, v in histories.items()}
        distances[name] = _distances(histories["jacobi"], args.get("mask"))
    figures = {
        "solvers.png": plots.convergence(residuals),
        "states.png": plots.relaxation(distances),
    }
    return {name: (CAPTIONS[name], figure) for name, figure in figures.items()}


def _distances(solutions: Solution, mask: jax.Array | None) -> np.ndarray:
    """Returns the distances of the longest sequence's states from their last ones.

    Args:
      solutions: From `fixed_point.history`.
      mask: Bool `[B, T]`, or None.

    Returns:
      Distances relative to the largest state, `[iterations + 1, T]`.
    """
    states = np.asarray(solutions.state)  # [iterations + 1, B, T, H]
    lengths = np.full(states.shape[1], states.shape[2])
    if mask is not None:
        lengths = np.asarray(mask).sum(axis=1)
    states = states[:, lengths.argmax(), : lengths.max()]
    size = np.linalg.norm(states[-1], axis=-1).max()
    return np.linalg.norm(states - states[-1], axis=-1) / max(size, 1e-9)


def network_problem(
    config: SequenceConfig, params: dict[str, Any], dataset: "Dataset"
) -> Problem:
    """Returns the system that a trained network solves on the first test sequences."""
    params = jax.tree.map(jnp.asarray, params)
    model = pure.bind(lambda rngs: SequenceModel(config, rngs=rngs), params)
    count = min(SEQUENCES, data.size(dataset.test))
    x = data.take(jax.device_put(dataset.test), jnp.arange(count))["x"]
    return model.body.problem(*model.read(x))


def plot_certificates(
    runs: Sequence[dict[str, Any]],
    names: Mapping[float, str],
    objective: Objective,
    marks: Mapping[str, float],
) -> "tuple[str, Figure]":
    """Returns the caption and the figure of the test score against the certificate.

    Args:
      runs: The lines of a task.
      names: The certificate γ of each model, to the name of the model.
      objective: The objective of the task.
      marks: Scores to draw a line at, by name.
    """
    scores = [ranking.block_score(runs, name, objective) for name in names.values()]
    label, scale, _ = units.UNITS[objective.monitor]
    figure = plots.scores_by_setting(
        list(names),
        [scale * middle for middle, _ in scores],
        [tuple(scale * end for end in ends) for _, ends in scores],
        ("γ, the bound on the Lipschitz constant", label),
        {name: scale * value for name, value in marks.items()},
    )
    caption = "The test score against the certificate, with intervals over replicates."
    return caption, figure
