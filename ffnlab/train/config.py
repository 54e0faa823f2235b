"""How a model is trained, as dataclasses whose fields are flags."""

import dataclasses
from typing import TYPE_CHECKING

from ffnlab import options
from ffnlab.errors import InputError
from ffnlab.options import names_in, option

if TYPE_CHECKING:
    import optax

    from ffnlab.data import Dataset
    from ffnlab.train.record import Plan
    from ffnlab.types import Objective


@dataclasses.dataclass(frozen=True)
class Steps:
    """How a model is trained; each field is a flag."""

    optimizer: str = option(
        "adamw",
        "sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw, lion or muon",
        known=names_in("ffnlab.train.optimizers", "OPTIMIZERS"),
    )
    schedule: str = option(
        "cosine",
        "of the learning rate: constant, linear or cosine",
        known=names_in("ffnlab.train.optimizers", "SCHEDULES"),
    )
    warmup_steps: int = option(
        20, "steps over which the learning rate rises; at most half the run", least=0
    )
    weight_decay: float | None = option(
        None, "decoupled; the optimizer's own if not given", least=0
    )
    clip: float = option(1.0, "largest norm of the gradient; 0 is no limit", least=0)
    steps: int = option(300, "steps of a run", least=1)
    epochs: float | None = option(None, "length of a run, before --steps", above=0)
    batch_size: int = option(128, "examples a step", least=1)
    evaluations: int = option(
        10, "how often a run is validated, at equal distances", least=1
    )
    seed: int = option(0, "of the split and of all else", least=0, below=2**31)
    out: str | None = option(None, "directory to write; runs/… if not given")
    resume: bool = option(False, "go on with the run in --out")

    def __post_init__(self):
        options.check(self)
        if self.resume and not self.out:
            raise InputError("resume: out must name the run to go on with")

    def plan(self, dataset: "Dataset", objective: "Objective") -> "Plan":
        """Returns how long a model trains on a data set, and by what it is judged."""
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

    def make_optimizer(
        self, steps: int, flat: bool = True, learning_rate: float = 1e-3
    ) -> "optax.GradientTransformation":
        """Returns the optimizer of a run of so many steps; see `optimizers.make`."""
        from ffnlab.train import optimizers

        warmup = min(self.warmup_steps, steps // 2)
        return optimizers.make(
            self.optimizer,
            learning_rate,
            share=optimizers.schedule(self.schedule, steps, warmup),
            weight_decay=self.weight_decay,
            clip=self.clip or None,
            flat=flat,
        )


@dataclasses.dataclass(frozen=True)
class Training(Steps):
    """How populations are trained; each field is a flag."""

    seeds: int = option(16, "runs per model and learning rate", least=1, below=100_000)
    learning_rates: tuple[float, ...] = option(
        (1e-3, 3e-3, 1e-2), "peaks; validation chooses one for each model", above=0
    )

    @property
    def members(self) -> int:
        """How many runs a population has."""
        return self.seeds * len(self.learning_rates)
