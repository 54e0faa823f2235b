"""Which feedback networks are compared with what, on which tasks."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

from ffnlab.errors import InputError, choose
from ffnlab.nn.user_code import ImportOptions
from ffnlab.options import names_in, option
from ffnlab.sweep.replicate_options import ReplicateOptions
from ffnlab.sweep.shards import ShardOptions
from ffnlab.train.process_config import ProcessOptions

_TASKS = names_in("ffnlab.data.synthetic", "SEQUENCES")
_KINDS = names_in("ffnlab.models.sequence", "KINDS")
SOLVERS = ("auto", "jacobi", "gauss_seidel", "anderson", "newton", "unrolled")
CERTIFIED = "certified"

QUICK = {
    "tasks": ("noisy_smoothing",),
    "models": ("feedback", "certified", "elman"),
    "seeds": 6,
    "learning_rates": (1e-2,),
    "steps": 60,
    "evaluations": 2,
    "couplings": (),
}


@dataclasses.dataclass(frozen=True)
class FeedbackCompareConfig(ShardOptions, ImportOptions, ProcessOptions):
    """Feedback networks: the tasks, the models and the solver."""

    ADDED: ClassVar[dict[str, str]] = {
        **ReplicateOptions.ADDED,
        **ImportOptions.ADDED,
    }

    RENAMED: ClassVar[dict[str, str]] = {
        **ReplicateOptions.RENAMED,
        "begin": "coupling_init",
        "radius": "window_radius",
    }

    tasks: tuple[str, ...] = option(
        ("noisy_smoothing", "two_sided_copy", "brackets"),
        "Tasks. The best possible score is known for all but digit_rows.",
        known=_TASKS,
    )
    train: str | None = option(
        None, "CoNLL file of training sentences, instead of --tasks."
    )
    dev: str | None = option(
        None, "CoNLL file that the learning rate and the best step are chosen on."
    )
    test: str | None = option(None, "CoNLL file that the scores are computed on.")
    models: tuple[str, ...] = option(
        ("feedback", "certified", "elman", "birnn", "gru", "window"),
        "Models. certified is the feedback network with the bound of --contractive.",
        known=lambda: [*_KINDS(), CERTIFIED],
    )
    baseline: str = option("elman", "Model that the others are tested against.")
    hidden: int = option(
        32,
        "Hidden width of the feedback network. The other models get the width at which "
        "they have as many parameters.",
        least=1,
    )
    layers: int = option(1, "Layers per model.", least=1)
    top_down: bool = option(
        False, "Whether a feedback layer also reads the layer above it."
    )
    embedding: int = option(16, "Width of the token embeddings.", least=1)
    activation: str = option(
        "relu",
        "Activation of the states.",
        known=names_in("ffnlab.nn.activations", "ACTIVATIONS"),
    )
    window_radius: int = option(
        3, "Positions that the window model reads on either side.", least=0
    )
    boundary: str = option(
        "zeros", "States outside of a sequence.", known=lambda: ("zeros", "learned")
    )
    coupling: float = option(0.9, "Strength of W and V at initialization.", least=0)
    coupling_init: str = option(
        "split",
        "Initial coupling: split, where half of the states read the left neighbour and "
        "half the right one, or mixed, where all states read both.",
        known=lambda: ("split", "mixed"),
    )
    contractive: float = option(
        0.9,
        "Bound on the Lipschitz constant of the certified model.",
        above=0,
        below=1,
    )
    certificate: str = option(
        "joint",
        "How the Lipschitz constant is bounded: jointly, or by the sum Lip(f)·(‖W‖ + "
        "‖V‖).",
        known=lambda: ("joint", "sum"),
    )
    couplings: tuple[float, ...] = option(
        (0.3, 0.6),
        "More bounds to train a certified model of the first task with, for a picture "
        "of the score against the bound.",
        above=0,
        below=1,
        empty=True,
    )
    solver: str = option(
        "auto",
        "Solver of the states. auto is jacobi for certified models and gauss_seidel "
        "for others.",
        known=lambda: SOLVERS,
    )
    iterations: int = option(40, "Largest number of iterations per solve.", least=1)
    tolerance: float = option(
        1e-3, "Residual at which a solve has converged.", least=1e-6, below=1
    )
    damping: float = option(
        0.0,
        "Fraction of the old state that an iteration keeps.",
        least=0,
        below=1,
    )
    gradient: str = option(
        "implicit",
        "How a solve is differentiated.",
        known=lambda: ("implicit", "bptt", "one_step"),
    )
    shard_positions: bool = option(
        False,
        "Divide the positions of a sequence along the axis data of --mesh, and not the "
        "sequences of a batch, for long sequences; neighbours are then exchanged.",
    )
    seeds: int = option(8, "Runs per model and learning rate.", least=1, below=100_000)
    learning_rates: tuple[float, ...] = option(
        (3e-3, 1e-2), "Peak learning rates, of which validation chooses.", above=0
    )
    steps: int = option(200, "Steps per run.", least=1)
    batch_size: int = option(32, "Sequences per step.", least=1)
    evaluations: int = option(
        4, "Evaluations on the validation part per run, evenly spaced.", least=1
    )

    def __post_init__(self):
        super().__post_init__()
        choose("baseline", self.baseline, self.models)
        files = [self.train, self.dev, self.test]
        if any(files) and not all(files):
            raise InputError("train, dev and test: all three are needed")
        if self.activation == "relu2" and (CERTIFIED in self.models or self.couplings):
            raise InputError(
                "activation: the slope of relu2 has no bound, so nothing can be "
                "certified; remove certified from models, and set couplings to none"
            )
        if self.top_down and self.boundary == "learned":
            raise InputError("boundary: learned cannot be combined with top_down")
        if self.shard_positions and self.mesh_sizes.get("data", 1) == 1:
            raise InputError("shard_positions: mesh=data:N says over how many devices")

    def divided_positions(self, dataset: Any) -> int | None:
        """Returns the number of positions that are divided; None for none."""
        return dataset.train["x/mask"].shape[1] if self.shard_positions else None

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the tasks in a report."""
        return (Path(self.train).stem,) if self.train else self.tasks
