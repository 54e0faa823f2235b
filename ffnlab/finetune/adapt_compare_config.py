"""What a comparison of methods of fine-tuning compares, and on what."""

import dataclasses
from typing import Any

from ffnlab.errors import InputError, choose
from ffnlab.finetune.adapt_options import AdaptOptions
from ffnlab.finetune.config import Config
from ffnlab.options import option

METHODS = (
    "full", "lora", "dora", "adalora", "houlsby", "prefix", "ia3", "bitfit", "head",
)  # fmt: skip
# LoRA at equal trained parameters, where the feed-forward width is 4 times that of the
# model: per layer 8·45 = 10·36 = 18·20 times the width of the model.
CAPACITY = tuple(
    f"lora:target_modules={target}:rank={rank}:alpha={2 * rank}"
    for target, rank in (("all", 20), ("ffn", 36), ("attention", 45))
)


@dataclasses.dataclass(frozen=True)
class AdaptCompareConfig(Config):
    """Comparison: methods, learning rates and margin."""

    methods: tuple[str, ...] = option(
        METHODS,
        "Methods to compare: those of --method of experiments.finetune, each with "
        "flags of its own behind colons, such as lora:rank=4:target_modules=ffn. "
        "capacity stands for LoRA on ffn, on attention and on both, at equal trained "
        "parameters.",
    )
    baseline: str | None = option(
        None,
        "Method that the others are compared with. If not given, full, or the first.",
    )
    rate_factors: tuple[float, ...] = option(
        (1.0, 3.0, 10.0),
        "Learning rates that are tried for each method, as multiples of what is common "
        "for it.",
        above=0,
    )
    extend_rates: int = option(
        3,
        "Largest number of learning rates that are tried beyond the given ones, for a "
        "method whose best rate is the smallest or the largest.",
        least=0,
    )
    tuning_seeds: int = option(
        2,
        "Replicates on which all learning rates are tried; the rate of the best mean "
        "on the dev part is that of all. On a single one, a rate may be chosen at "
        "which other replicates collapse.",
        least=1,
    )
    margin: float = option(
        2.0, "Largest difference that does not matter, in points.", above=0
    )
    warmup_ratio: float = option(
        0.1,
        "Share of the steps over which the learning rate rises to its peak. Without "
        "it, some replicates of low-rank methods and adapters collapse at rates at "
        "which others are best.",
        least=0,
        below=1,
    )
    seeds: int = option(
        6, "Replicates: initial values of what is new, and order of the data.", least=1
    )

    def __post_init__(self):
        if self.warmup_steps:  # instead of the share, which has a default
            object.__setattr__(self, "warmup_ratio", 0.0)
        if self.learning_rate is not None:
            raise InputError("learning_rate: rates are tuned; give rate_factors")
        super().__post_init__()
        if self.report_to != ("none",):
            raise InputError("report_to: for experiments.finetune, whose runs are few")
        object.__setattr__(self, "learning_rate", None)
        if self.method != "full":
            raise InputError("method: give the methods to compare by methods")
        known = list(self.variants())
        if self.baseline is not None:
            choose("baseline", self.baseline, known)

    @property
    def reference(self) -> str:
        """The method that the others are compared with."""
        known = list(self.variants())
        return self.baseline or ("full" if "full" in known else known[0])

    def variants(self) -> dict[str, Config]:
        """Returns the configuration of the runs of each method, by its text.

        Raises:
          InputError: A method or a flag of it is unknown.
        """
        shared = {f.name: getattr(self, f.name) for f in dataclasses.fields(Config)}
        texts = []
        for text in self.methods:
            texts += CAPACITY if text == "capacity" else [text]
        return {text: Config(**{**shared, **_parse(text)}) for text in texts}


def _parse(text: str) -> dict[str, Any]:
    """Returns the fields of a method such as `lora:rank=4:target_modules=ffn`."""
    name, *pairs = text.split(":")
    kinds = {f.name: str(f.type) for f in dataclasses.fields(AdaptOptions)}
    fields: dict[str, Any] = {"method": name, "learning_rate": None}
    for pair in pairs:
        flag, equals, value = pair.partition("=")
        kind = kinds[choose("methods", flag, [k for k in kinds if k != "method"])]
        if not equals:
            raise InputError(
                f"methods: {text!r}: {flag} needs a value, as {flag}=VALUE"
            )
        fields[flag] = _convert(text, flag, kind, value)
    return fields


def _convert(text: str, flag: str, kind: str, value: str) -> Any:
    """Returns the value of a flag of a method."""
    if kind.startswith("tuple"):
        return (value,)
    if kind.startswith("str"):
        return value
    if kind.startswith("bool"):
        return choose(f"methods: {text!r}: {flag}", value, ("true", "false")) == "true"
    try:
        return int(value) if kind.startswith("int") else float(value)
    except ValueError:
        raise InputError(
            f"methods: {text!r}: {flag} should be a number, not {value!r}"
        ) from None
