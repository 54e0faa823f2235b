"""A run of the engine from scratch and of JAX, step by step on equal batches."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ffnlab import data, signals
from ffnlab.scratch import manual, models, trees
from ffnlab.sweep import scratch_programs
from ffnlab.sweep.scratch_parity_config import ScratchParityConfig
from ffnlab.sweep.scratch_programs import Trainer
from ffnlab.train.checkpoint import Checkpoints

if TYPE_CHECKING:
    from ffnlab.data import Dataset

_SECONDS = 60.0  # between two checkpoints of a run
_CALL_SECONDS = 10.0  # of the steps between two chances to save, about


class Progress(NamedTuple):
    """How far a run is, as arrays to save.

    Attributes:
      states: The state of either program.
      step: The number of steps taken, `[]`.
      losses: The loss of each step of either program, `[2, steps]`.
      seconds: The time of the steps of each epoch, `[2, epochs]`.
      differences: The largest difference of a parameter after each epoch, `[epochs]`.
      accuracies: The accuracy on the test part after each epoch, `[2, epochs]`.
    """

    states: tuple[Any, Any]
    step: np.ndarray
    losses: np.ndarray
    seconds: np.ndarray
    differences: np.ndarray
    accuracies: np.ndarray


def steps_per_epoch(config: ScratchParityConfig, dataset: "Dataset") -> int:
    """Returns the number of steps of an epoch, at least 1."""
    return max(data.size(dataset.train) // config.batch_size, 1)


def epochs(config: ScratchParityConfig, dataset: "Dataset") -> int:
    """Returns the number of epochs of a run; the last one may be incomplete."""
    return -(-config.steps // steps_per_epoch(config, dataset))


class Training:
    """The runs of an optimizer.

    Args:
      config: What to train, and how.
      dataset: The data.
      optimizer: A key of `scratch.optimizers.OPTIMIZERS`.
    """

    def __init__(self, config: ScratchParityConfig, dataset: "Dataset", optimizer: str):
        self._config, self._dataset, self._optimizer = config, dataset, optimizer
        self._epoch = steps_per_epoch(config, dataset)
        self._x = dataset.train["x"].astype(np.float64)  # [N, D]
        self._y = dataset.train["y"].astype(np.int64)  # [N]
        self._trainers = (
            scratch_programs.scratch_trainer(config, dataset, optimizer),
            scratch_programs.jax_trainer(config, optimizer),
        )

    def run(
        self, seed: int, directory: Path, on_steps: Callable[[int], None]
    ) -> list[dict[str, Any]]:
        """Trains both programs, from the start or from the last checkpoint.

        Args:
          seed: The number of the run: its initial parameters and the order of its data.
          directory: Holds its checkpoints.
          on_steps: A function to call with the number of steps so far.

        Returns:
          A line for each epoch.
        """
        config = self._config
        checkpoints = Checkpoints(directory, _SECONDS, config.strict_resume)
        batches = data.indices([seed], 0, config.steps, config.batch_size, len(self._x))
        progress, per_step = checkpoints.restore(self._start(seed)), _CALL_SECONDS
        with checkpoints, signals.deferred():
            while (begin := int(progress.step)) < config.steps:
                room = max(1, int(_CALL_SECONDS / per_step))
                epoch_end = (begin // self._epoch + 1) * self._epoch
                end = min(begin + room, epoch_end, config.steps)
                progress, seconds = self._advance(progress, batches[begin:end, 0])
                per_step = seconds / (end - begin)
                on_steps(end)
                checkpoints.save(end, progress)
                if signals.pending() is not None:
                    checkpoints.save(end, progress, final=True)
                    break
        return self._lines(seed, progress)

    def _start(self, seed: int) -> Progress:
        """Returns the progress before the first step, with compiled steps."""
        sizes = scratch_programs.layer_sizes(self._config, self._dataset)
        model = models.perceptron(sizes, activation=self._config.activation)
        params = model.init((self._config.seed, seed))
        states = tuple(trainer.init(params) for trainer in self._trainers)
        rows = np.zeros(self._config.batch_size, int)
        self._trainers[1].step(states[1], self._x[rows], self._y[rows])
        count = epochs(self._config, self._dataset)
        return Progress(
            states,
            np.zeros((), int),
            np.zeros((2, self._config.steps)),
            np.zeros((2, count)),
            np.zeros(count),
            np.zeros((2, count)),
        )

    def _advance(self, progress: Progress, rows: np.ndarray) -> tuple[Progress, float]:
        """Returns the progress after some steps of an epoch, and their seconds.

        The arrays of the progress are written in place.
        """
        begin, end = int(progress.step), int(progress.step) + len(rows)
        epoch, states, params, total = begin // self._epoch, [], [], 0.0
        for i, (trainer, state) in enumerate(
            zip(self._trainers, progress.states, strict=True)
        ):
            state, losses, seconds = _run_steps(trainer, state, self._x, self._y, rows)
            progress.losses[i, begin:end] = losses
            progress.seconds[i, epoch] += seconds
            states.append(state)
            params.append(trainer.params(state))
            total += seconds
        progress.differences[epoch] = _largest_difference(*params)
        progress.accuracies[:, epoch] = [self._accuracy(each) for each in params]
        return progress._replace(states=tuple(states), step=np.array(end)), total

    def _accuracy(self, params: dict) -> float:
        """Returns the accuracy of a perceptron on the test part."""
        x = self._dataset.test["x"].astype(np.float64)
        zs, _ = manual.forward(params, x, self._config.activation)
        return float((zs[-1].argmax(axis=1) == self._dataset.test["y"]).mean())

    def _lines(self, seed: int, progress: Progress) -> list[dict[str, Any]]:
        """Returns a line for each epoch."""
        lines = []
        for begin in range(0, self._config.steps, self._epoch):
            epoch, end = len(lines), min(begin + self._epoch, self._config.steps)
            losses = progress.losses[:, begin:end]
            lines.append(
                {
                    "optimizer": self._optimizer,
                    "seed": seed,
                    "epoch": epoch + 1,
                    "steps": end,
                    "loss_difference": float(np.abs(losses[0] - losses[1]).max()),
                    "parameter_difference": float(progress.differences[epoch]),
                    "losses": losses.tolist(),
                    "seconds_per_step": (
                        progress.seconds[:, epoch] / (end - begin)
                    ).tolist(),
                    "test_accuracy": progress.accuracies[:, epoch].tolist(),
                }
            )
        return lines


def _run_steps(
    trainer: Trainer, state: Any, x: np.ndarray, y: np.ndarray, rows: np.ndarray
) -> tuple[Any, list[float], float]:
    """Returns the state after some steps, their losses and their seconds."""
    start, losses = time.perf_counter(), []
    for batch in rows:
        state, loss = trainer.step(state, x[batch], y[batch])
        losses.append(loss)
    losses = [float(loss) for loss in losses]  # waits for the last step
    return state, losses, time.perf_counter() - start


def _largest_difference(*params: dict) -> float:
    """Returns the largest absolute difference of two trees of parameters."""
    first, second = (dict(trees.named_leaves(each)) for each in params)
    return float(np.max([np.abs(first[name] - second[name]).max() for name in first]))
