"""Options of predictions: how many candidates, and how text is generated."""

import dataclasses

from ffnlab import options
from ffnlab.errors import InputError
from ffnlab.options import option

_GENERATE = ("generate",)
# Options that only some tasks have; another task refuses them.
_ONLY_FOR = {
    "top_k": ("classify", "pairs", "qa", "generate"),
    "num_beams": _GENERATE,
    "max_target_length": _GENERATE,
    "temperature": _GENERATE,
    "top_p": _GENERATE,
    "seed": _GENERATE,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Predictions: how many candidates, and how text is generated."""

    top_k: int | None = option(
        None,
        "For classify, pairs and qa, the number of labels or answers for each input, "
        "the best first. For generate, sample from that many of the most likely "
        "tokens.",
        least=1,
    )
    num_beams: int | None = option(
        None,
        "Beam width of generate. The default is that of training.",
        least=1,
    )
    max_target_length: int | None = option(
        None,
        "Maximum number of tokens to generate, for generate. The default is that of "
        "training.",
        least=1,
    )
    temperature: float | None = option(
        None,
        "For generate, sample with logits divided by this; 0 takes the most likely "
        "token.",
        least=0,
    )
    top_p: float | None = option(
        None,
        "For generate, sample from the most likely tokens whose probabilities add up "
        "to this, at most 1.",
        above=0,
    )
    seed: int = option(0, "Random seed of sampling.", least=0, below=2**31)

    def __post_init__(self):
        options.check(self)
        if self.top_p is not None and self.top_p > 1:
            raise InputError(f"top_p: {self.top_p:g} should be at most 1")

    @property
    def samples(self) -> bool:
        """Whether text is sampled: an option of sampling is given."""
        return any(v is not None for v in (self.temperature, self.top_k, self.top_p))

    def check_task(self, task: str) -> None:
        """Checks that a task has all options that are given.

        Raises:
          InputError: It has not, or options do not fit together.
        """
        for field in dataclasses.fields(PredictOptions):
            tasks = _ONLY_FOR[field.name]
            if task not in tasks and getattr(self, field.name) != field.default:
                raise InputError(f"{field.name}: for {', '.join(tasks)}, not {task}")
        if task == "generate" and self.num_beams and self.samples:
            raise InputError(
                "num_beams: a beam search does not sample; leave it out, or leave out "
                "temperature, top_k and top_p"
            )
