"""How well does a Transformer with this block learn a language?"""

import dataclasses
from typing import TYPE_CHECKING

from ffnlab.errors import InputError, choose
from ffnlab.options import names_in, option
from ffnlab.train.config import Steps

if TYPE_CHECKING:
    pass

# What a model from scratch is made of, where no flag says it.
SCRATCH = {
    "block": "swiglu",
    "features": 128,
    "layers": 4,
    "heads": 4,
    "positions": "rotary",
    "dropout": 0.0,
}
_FIXED = ("block", "features", "layers", "heads", "positions", "hidden", "tokenizer")
_BLOCKS = names_in("ffnlab.nn.ffn", "BLOCKS")

QUICK = {
    "features": 64,
    "layers": 2,
    "max_seq_length": 64,
    "steps": 100,
    "evaluations": 2,
    "scored": 64,
}


@dataclasses.dataclass(frozen=True)
class Config(Steps):
    """What to train, on which text; each field is a flag."""

    text: tuple[str, ...] = option(
        (), "text files; the standard library's source if not given", empty=True
    )
    objective: str = option(
        "causal",
        "causal, which predicts the next token, or masked, which finds hidden ones",
        known=lambda: ("causal", "masked"),
    )
    mask_rate: float = option(
        0.15, "the share of tokens to hide; 80 % masked, 10 % swapped, 10 % left",
        above=0, below=1,
    )  # fmt: skip
    whole_words: bool = option(False, "hide words as a whole")
    tokenizer: str | None = option(
        None, "a directory with a tokenizer; bytes if not given"
    )
    checkpoint: str | None = option(
        None, "a directory to go on from, its tokenizer included"
    )
    block: str | None = option(
        None, "the feed-forward block, such as mlp:gelu; swiglu if not given"
    )
    features: int | None = option(
        None, "the width of the model; 128 if not given", least=2
    )
    layers: int | None = option(None, "4 if not given", least=1)
    heads: int | None = option(None, "4 if not given", least=1)
    hidden: int | None = option(
        None,
        "the width inside a block; parameters of a plain block four times as wide as "
        "the model if not given",
        least=1,
    )
    positions: str | None = option(
        None,
        "learned, sinusoidal, rotary or none; rotary if not given",
        known=lambda: ("learned", "sinusoidal", "rotary", "none"),
    )
    max_seq_length: int = option(256, "tokens of a window", least=4)
    dropout: float | None = option(
        None, "0, or the checkpoint's own, if not given", least=0, below=1
    )
    gradient_checkpointing: bool = option(
        False, "compute layers again in the backward pass"
    )
    optimizer: str = option(
        "muon",
        "sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw, lion or muon",
        known=names_in("ffnlab.train.optimizers", "OPTIMIZERS"),
    )
    learning_rate: float = option(2e-2, "at its peak", above=0)
    warmup_steps: int = option(
        100, "steps over which the learning rate rises; at most half the run", least=0
    )
    steps: int = option(900, "steps of the run; 0 only measures and writes", least=0)
    batch_size: int = option(16, "windows a step", least=1)
    scored: int = option(256, "the most windows that are scored of a part", least=1)
    samples: int = option(2, "texts that a causal model writes", least=0)
    prompt: str = option("def ", "how they begin")
    sample_length: int = option(300, "their most tokens, beside the prompt", least=1)
    temperature: float = option(
        0.8, "below 1 the likely become likelier; 0 is greedy", least=0
    )
    top_k: int | None = option(None, "draw from the likeliest so many", least=1)
    top_p: float | None = option(
        None, "draw from the likeliest with this share", above=0
    )
    num_beams: int = option(
        0, "instead of drawing, the width of a beam search", least=0
    )

    def __post_init__(self):
        super().__post_init__()
        if self.block:
            choose("block", self.block.partition(":")[0], _BLOCKS())
        if self.top_p is not None and self.top_p > 1:
            raise InputError(f"top_p: {self.top_p} should be at most 1")
        if self.objective == "causal" and self.whole_words:
            raise InputError("whole_words: only for objective=masked")
        given = [name for name in _FIXED if getattr(self, name) is not None]
        if self.checkpoint and given:
            raise InputError(f"{given[0]}: the checkpoint decides it; leave it out")
        if self.samples and not self.prompt:
            raise InputError("prompt: at least one character is needed")

    @property
    def masked(self) -> bool:
        """Whether hidden tokens are to be found."""
        return self.objective == "masked"
