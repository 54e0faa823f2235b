"""Flags of how a Transformer computes; no model depends on them."""

import dataclasses
from typing import Any, ClassVar

from ffnlab.errors import InputError
from ffnlab.options import RunOptions, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerOptions(RunOptions):
    """Attention and memory."""

    # What a flag file of an earlier version, without the flag, stands for.
    ADDED: ClassVar[dict[str, str]] = {
        "attention": "auto",
        "gradient_checkpointing_policy": "full",
    }

    attention: str = option(
        "auto",
        "Attention by cuDNN or by XLA. auto is cuDNN on a GPU of NVIDIA with "
        "dtype=bfloat16, where there is no dropout of attention weights, and otherwise "
        "XLA.",
        known=lambda: ("auto", "xla", "cudnn"),
    )
    gradient_checkpointing: bool = option(
        False,
        "Recompute layers in the backward pass, which takes less memory and more time.",
    )
    gradient_checkpointing_policy: str = option(
        "full",
        "What is recomputed: full, everything inside of a layer; dots, everything but "
        "products with kernels, which are kept.",
        known=lambda: ("full", "dots"),
    )

    def __post_init__(self):
        super().__post_init__()
        policy = self.gradient_checkpointing_policy
        if policy != "full" and not self.gradient_checkpointing:
            raise InputError(
                f"gradient_checkpointing_policy: {policy} needs "
                "gradient_checkpointing=true"
            )

    @property
    def transformer_fields(self) -> dict[str, Any]:
        """The fields of `TransformerConfig` that the flags stand for."""
        return {
            "attention_implementation": self.attention,
            "remat": self.gradient_checkpointing,
            "remat_policy": self.gradient_checkpointing_policy,
        }
