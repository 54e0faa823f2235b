"""What the engine from scratch and JAX train, and how; each field is a flag."""

import dataclasses
from typing import ClassVar

from ffnlab.options import RunOptions, names_in, option

LIMIT = 1e-9
QUICK = {"optimizers": ("sgd", "adam"), "seeds": 1, "steps": 40, "hidden": (16,)}


@dataclasses.dataclass(frozen=True)
class ScratchParityConfig(RunOptions):
    """Parity: the data, the network and the optimizers."""

    dtype: ClassVar[str] = "float64"

    data: str = option(
        "digits",
        "Built-in data set.",
        known=lambda: ("digits", "breast_cancer", "wine"),
    )
    optimizers: tuple[str, ...] = option(
        ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"),
        "Optimizers to compare.",
        known=names_in("ffnlab.scratch.optimizers", "OPTIMIZERS"),
    )
    hidden: tuple[int, ...] = option(
        (128,), "Widths of the hidden layers, possibly none.", least=1, empty=True
    )
    activation: str = option(
        "relu",
        "Activation of the hidden layers.",
        known=lambda: ("relu", "tanh", "sigmoid"),
    )
    learning_rate: float | None = option(
        None,
        "Learning rate of all optimizers. The default is 0.1 for sgd, momentum, "
        "nesterov and adagrad, and 0.003 for the others.",
        above=0,
    )
    weight_decay: float = option(1e-2, "Weight decay of adamw.", least=0)
    seeds: int = option(3, "Runs per optimizer.", least=1)
    steps: int = option(200, "Steps per run.", least=1)
    batch_size: int = option(128, "Examples per step.", least=1)
    seed: int = option(
        0, "Random seed of the split and of everything else.", least=0, below=2**31
    )

    def rate(self, optimizer: str) -> float:
        """Returns the learning rate of an optimizer."""
        coarse = ("sgd", "momentum", "nesterov", "adagrad")
        return self.learning_rate or (0.1 if optimizer in coarse else 3e-3)
