"""The evaluator of fine-tuning: scores of the dev part, computed on the host."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ffnlab import processes
from ffnlab.finetune.task import MONITORED, Task
from ffnlab.types import Params


class DevEvaluator:
    """Scores parameters on the dev part, on the host.

    Args:
      task: The task.
      predict: Its predictor of the dev part.
      members: The number of runs whose parameters are stacked along a leading axis
        `[S]`; None is one run, without the axis. More members than that repeat the
        last one.
    """

    def __init__(
        self, task: Task, predict: Callable[[Params], Any], members: int | None = None
    ):
        self._task, self._predict, self._members = task, predict, members

    def outputs(self, params: Params, arrays: Any) -> dict[str, None]:
        """Returns the names of the scores."""
        return {MONITORED: None}

    def __call__(self, params: Params, arrays: Any) -> dict[str, np.ndarray]:
        """Returns the monitored score, float32 `[]` or `[S]`."""
        params = processes.gather(params)
        if self._members is None:
            return {MONITORED: np.float32(self._score(params))}
        params = jax.device_get(params)  # members are on several devices
        stacked = len(jax.tree.leaves(params)[0])
        scores = [self._score(member(params, s)) for s in range(self._members)]
        filled = np.minimum(np.arange(stacked), self._members - 1)
        return {MONITORED: np.array(scores, np.float32)[filled]}

    def _score(self, params: Params) -> float:
        return self._task.score("dev", self._predict(params))[MONITORED]


def member(params: Params, number: int) -> Params:
    """Returns the parameters of one run of a population."""
    return jax.tree.map(lambda array: array[number], params)
