"""The configuration of a comparison of models that come from Python."""

import dataclasses
from typing import ClassVar

from ffnlab.errors import InputError, choose
from ffnlab.options import option
from ffnlab.sweep.comparison_config import CompareConfig

OWN = "own"  # the name of an optimizer of the caller's own

# Fields of CompareConfig that say what is compared, on which data, and where.
_TAKEN = (
    "data", "csv", "target", "npz", "task", "blocks", "activations", "widths", "seeds",
    "report_to", "coordinator", "processes", "process",
)  # fmt: skip
# What an optimizer of the caller's own decides itself.
_OF_NAMED = ("schedule", "warmup_steps", "weight_decay", "clip")


@dataclasses.dataclass(frozen=True)
class CandidateConfig(CompareConfig):
    """Comparison from Python: the names of what is compared, and of the data."""

    ADDED: ClassVar[dict[str, str]] = {}
    TO_CONTINUE: ClassVar[str] = "the same call of compare with resume=True"

    candidates: tuple[str, ...] = option(("mlp:relu",), "Names of what is compared.")
    source: str = option("arrays", "Name of the data set.")
    optimizer: str = option("adamw", f"Optimizer; {OWN} is one of the caller's own.")

    def __post_init__(self):
        super().__post_init__()
        if self.budget == "time":
            raise InputError("budget: time needs a CompareConfig")

    def _check_blocks(self) -> None:
        """Checks the names; what they stand for is checked by `candidates`."""
        slugs = {}
        for name in self.candidates:
            known = all(letter.isalnum() or letter in " .,:_+-=()" for letter in name)
            if not (known and name[:1].isalnum() and len(name) <= 60):
                raise InputError(
                    f"candidates: the name {name!r:.80} should have up to 60 letters, "
                    "digits and .,:_+-=() and begin with a letter or a digit"
                )
            slug = name.replace(":", "-").casefold()
            if slug in slugs:
                raise InputError(
                    f"candidates: {slugs[slug]!r} and {name!r} are too much alike for "
                    "names of files"
                )
            slugs[slug] = name

    @property
    def names(self) -> list[str]:
        """What is compared."""
        return list(self.candidates)

    @property
    def sources(self) -> tuple[str, ...]:
        """The name of the data set in a report."""
        return (self.source,)


def make_config(
    candidates: tuple[str, ...], source: str, own_optimizer: bool, options: dict
) -> CandidateConfig:
    """Returns the configuration of a comparison from Python.

    Args:
      candidates: The names of what is compared.
      source: The name of the data set.
      own_optimizer: Whether the optimizer is not given by name.
      options: Arguments by name, without those that are None: `replicates`, and fields
        of `CompareConfig`.

    Raises:
      InputError: An argument is unknown, or its value cannot be used.
    """
    fields = [field.name for field in dataclasses.fields(CompareConfig)]
    known = ["replicates", *(name for name in fields if name not in _TAKEN)]
    for name in options:
        if name == "seeds":
            raise InputError("seeds: give the number as replicates=N")
        if name in _TAKEN:
            raise InputError(f"{name}: it needs a CompareConfig")
        choose("argument", name, known)
    if own_optimizer:
        wrong = [name for name in _OF_NAMED if name in options]
        if wrong:
            raise InputError(
                f"{wrong[0]}: it is for optimizers by name; make it part of your own"
            )
        options = {**options, "optimizer": OWN}
    renamed = {("seeds" if k == "replicates" else k): v for k, v in options.items()}
    try:
        return CandidateConfig(candidates=candidates, source=source, **renamed)
    except InputError as error:
        message = str(error)
        if message.startswith("seeds:"):
            message = message.replace("seeds:", "replicates:", 1)
        raise InputError(message) from None
