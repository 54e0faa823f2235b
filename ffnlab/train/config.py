"""How a model is trained, as dataclasses whose fields are flags."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from ffnlab.options import RunOptions, names_in, option

if TYPE_CHECKING:
    import numpy as np
    import optax

    from ffnlab.data import Dataset
    from ffnlab.train.record import Plan
    from ffnlab.types import Objective


@dataclasses.dataclass(frozen=True)
class Steps(RunOptions):
    """Run: optimizer, schedule and seed."""

    RENAMED: ClassVar[Mapping[str, str]] = {"warmup": "warmup_steps"}

    optimizer: str = option(
        "adamw",
        "Optimizer.",
        known=names_in("ffnlab.train.optimizers", "OPTIMIZERS"),
    )
    schedule: str = option(
        "cosine",
        "Schedule of the learning rate after the warm-up.",
        known=names_in("ffnlab.train.optimizers", "SCHEDULES"),
    )
    warmup_steps: int = option(
        20,
        "Steps over which the learning rate rises linearly, at most half of the run.",
        least=0,
    )
    weight_decay: float | None = option(
        None,
        "Decoupled weight decay, scaled by the learning rate. The default is the "
        "optimizer's own.",
        least=0,
    )
    clip: float = option(1.0, "Largest norm of the gradient; 0 does not clip.", least=0)
    steps: int = option(300, "Steps per run.", least=1)
    epochs: float | None = option(None, "Epochs per run, instead of steps.", above=0)
    batch_size: int = option(128, "Examples per step.", least=1)
    evaluations: int = option(
        10, "Evaluations on the validation part per run, evenly spaced.", least=1
    )
    seed: int = option(
        0, "Random seed of the split and of everything else.", least=0, below=2**31
    )

    def plan(self, dataset: "Dataset", objective: "Objective") -> "Plan":
        """Returns the plan of a run.

        Args:
          dataset: The data set; the size of its training part counts the epochs.
          objective: What is monitored, and in which direction.
        """
        from ffnlab import data
        from ffnlab.train.record import Plan

        steps = self.steps
        if self.epochs is not None:
            size = data.size(dataset.train)
            steps = max(1, round(self.epochs * size / self.batch_size))
        return Plan(
            steps,
            -(-steps // self.evaluations),
            self.batch_size,
            monitor=objective.monitor,
            higher_is_better=objective.higher_is_better,
        )

    def warmup(self, steps: int) -> int:
        """Returns the number of steps of the warm-up of a run."""
        return min(self.warmup_steps, steps // 2)

    def make_optimizer(
        self, steps: int, flat: bool = True, learning_rate: float = 1e-3
    ) -> "optax.GradientTransformation":
        """Returns the optimizer of a run.

        Args:
          steps: The number of steps of the run, which the schedule needs.
          flat: See `optimizers.make`.
          learning_rate: The peak learning rate.
        """
        from ffnlab.train import optimizers

        warmup = self.warmup(steps)
        return optimizers.make(
            self.optimizer,
            learning_rate,
            schedule=optimizers.schedule(self.schedule, steps, warmup),
            weight_decay=self.weight_decay,
            clip=self.clip or None,
            flat=flat,
        )

    def rate_curve(self, steps: int, learning_rate: float) -> "np.ndarray":
        """Returns the learning rate of each step of a run, float32 `[steps]`.

        Args:
          steps: The number of steps of the run.
          learning_rate: The peak learning rate.
        """
        import numpy as np

        from ffnlab.train import optimizers

        factor = optimizers.schedule(self.schedule, steps, self.warmup(steps))
        numbers = np.arange(steps, dtype=np.float32)
        return np.broadcast_to(learning_rate * np.asarray(factor(numbers)), steps)


@dataclasses.dataclass(frozen=True)
class Training(Steps):
    """Replicates: seeds and learning rates."""

    seeds: int = option(16, "Runs per model and learning rate.", least=1, below=100_000)
    learning_rates: tuple[float, ...] = option(
        (1e-3, 3e-3, 1e-2),
        "Peak learning rates; validation chooses one for each model.",
        above=0,
    )

    @property
    def members(self) -> int:
        """The number of runs of a population."""
        return self.seeds * len(self.learning_rates)
