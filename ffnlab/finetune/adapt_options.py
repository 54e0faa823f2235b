"""The flags of parameter-efficient fine-tuning."""

import dataclasses
from typing import TYPE_CHECKING

from ffnlab.errors import InputError, choose
from ffnlab.options import option

if TYPE_CHECKING:
    from ffnlab.adapt.methods import Method

# The field of a method that each flag sets.
_ADAPT = {
    "rank": "rank",
    "alpha": "alpha",
    "lora_dropout": "dropout",
    "target_modules": "targets",
    "use_rslora": "rslora",
    "loraplus_lr_ratio": "rate_ratio",
    "target_rank": "target_rank",
    "bottleneck_width": "hidden",
    "bottleneck_block": "block",
    "virtual_tokens": "virtual_tokens",
    "prefix_projection": "projection",
    "top_layers": "layers",
}

# Peak learning rates that are common for a method; 5e-5 for those not listed.
_RATES = {
    "lora": 5e-4,
    "dora": 5e-4,
    "adalora": 1e-3,
    "houlsby": 5e-4,
    "pfeiffer": 5e-4,
    "parallel": 5e-4,
    "prefix": 5e-3,
    "prompt": 5e-3,
    "ia3": 5e-3,
    "bitfit": 1e-3,
    "head": 1e-3,
}


@dataclasses.dataclass(frozen=True)
class AdaptOptions:
    """Parameter-efficient methods: what trains, and how large it is."""

    method: str = option(
        "full",
        "What trains beside the head: full, lora, dora, adalora, houlsby, pfeiffer or "
        "parallel (bottleneck adapters), prefix, prompt, ia3, bitfit, head (nothing "
        "else), top (the last layers), ffn, attention, or several with + between them, "
        "such as lora+bitfit.",
    )
    rank: int | None = option(
        None, "Rank of lora, dora and adalora. If not given, 8, or 12 for adalora."
    )
    alpha: float | None = option(
        None, "Numerator of the scale alpha / rank of low-rank methods. Default: 16."
    )
    lora_dropout: float | None = option(
        None, "Dropout rate of the input of low-rank methods. Default: 0."
    )
    target_modules: tuple[str, ...] = option(
        (),
        "Linear layers that low-rank methods and ia3 change: ends of their paths such "
        "as query or ffn/up, as regular expressions, or ffn, attention or all. If not "
        "given, query and value, or key and value for ia3.",
        empty=True,
    )
    use_rslora: bool | None = option(
        None, "Whether the scale is alpha / √rank, for lora and dora."
    )
    loraplus_lr_ratio: float | None = option(
        None, "Learning rate of B over that of A, for lora and dora. Default: 1."
    )
    target_rank: int | None = option(
        None, "Average rank of adalora at the end. Default: 8."
    )
    bottleneck_width: int | None = option(
        None, "Hidden width of bottleneck adapters. Default: 64."
    )
    bottleneck_block: str | None = option(
        None,
        "Feed-forward block of bottleneck adapters, such as mlp:relu or swiglu. "
        "Default: mlp:gelu.",
    )
    virtual_tokens: int | None = option(
        None, "Virtual tokens of prefix and prompt. Default: 20."
    )
    prefix_projection: int | None = option(
        None,
        "Hidden width of an MLP that computes the prefixes in training. Default: 0, "
        "which trains them directly.",
    )
    top_layers: int | None = option(
        None, "Number of last layers that the method top trains. Default: 1."
    )

    def adapt_methods(self, steps: int) -> "tuple[Method, ...] | None":
        """Returns the methods of `ffnlab.adapt`; None where everything trains.

        Args:
          steps: The number of training steps, which AdaLoRA needs.

        Raises:
          InputError: A method is unknown, or a value does not fit the methods.
        """
        from ffnlab.adapt.method_names import METHODS, parse

        names = self._names
        given = {flag: getattr(self, flag) for flag in _ADAPT}
        given = {k: value for k, value in given.items() if value not in (None, ())}
        if "full" in names:
            if given:
                raise InputError(f"{next(iter(given))}: method=full has no such value")
            if len(names) > 1:
                raise InputError("method: full trains everything; give it alone")
            return None
        fields = {_ADAPT[flag]: value for flag, value in given.items()}
        if "adalora" in (METHODS[choose("method", n, METHODS)][0].name for n in names):
            fields["total_steps"] = steps
        try:
            return parse(self.method, **fields)
        except InputError as error:
            raise InputError(with_flags(str(error))) from None

    @property
    def common_rate(self) -> float:
        """The peak learning rate that is common for the method."""
        return max(_RATES.get(name, 5e-5) for name in self._names)

    @property
    def _names(self) -> list[str]:
        return [name.strip().lower() for name in self.method.split("+")]


def with_flags(message: str) -> str:
    """Returns an error about a field of a method as one about its flag."""
    field, colon, rest = message.partition(":")
    flags = {name: flag for flag, name in _ADAPT.items()} | {"total_steps": "steps"}
    return f"{flags.get(field, field)}{colon}{rest}"
