"""Configuration of pretraining; each field is a flag of `experiments.pretrain`."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from ffnlab.errors import InputError, choose
from ffnlab.models.transformer_options import TransformerOptions
from ffnlab.nn.user_code import ImportOptions
from ffnlab.options import names_in, option
from ffnlab.report.trackers import TrackOptions
from ffnlab.train.config import Steps
from ffnlab.train.mesh_config import MeshOptions
from ffnlab.train.process_config import ProcessOptions

# The model from scratch, for fields that are None.
SCRATCH = {
    "block": "swiglu",
    "features": 128,
    "layers": 4,
    "heads": 4,
    "positions": "rotary",
    "dropout": 0.0,
}
# Fields that a checkpoint determines.
_OF_CHECKPOINT = (
    "block",
    "features",
    "layers",
    "heads",
    "positions",
    "hidden",
    "tokenizer",
)
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
class Data:
    """Text, tokens and objective."""

    text: tuple[str, ...] = option(
        (),
        "Text files. The default is the source of Python's standard library.",
        empty=True,
    )
    shards: str | None = option(
        None,
        "Directory of token shards, of experiments.prepare_text, instead of text. They "
        "are read as they are needed, and determine the tokenizer.",
    )
    objective: str = option(
        "causal",
        "Objective: causal predicts each token from the tokens before it, masked "
        "predicts masked tokens.",
        known=lambda: ("causal", "masked"),
    )
    mask_rate: float = option(
        0.15,
        "Share of the tokens to predict, for the masked objective. Of these, 80 % are "
        "masked, 10 % are replaced by a random token, and 10 % are unchanged.",
        above=0,
        below=1,
    )
    whole_words: bool = option(
        False, "Mask all tokens of a word together, for the masked objective."
    )
    tokenizer: str | None = option(
        None, "Directory with a tokenizer. The default is one token per byte."
    )
    max_seq_length: int = option(256, "Tokens per window of text.", least=4)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Model."""

    checkpoint: str | None = option(
        None, "Checkpoint directory to continue from; its tokenizer is used too."
    )
    strict: bool = option(
        False,
        "Refuse a checkpoint with arrays of other modules, such as crf.transitions, or "
        "with a prefix of all names, such as module. Otherwise both are only reported.",
    )
    block: str | None = option(
        None, "Feed-forward block, such as mlp:gelu. The default is swiglu."
    )
    features: int | None = option(
        None, "Width of the model. The default is 128.", least=2
    )
    layers: int | None = option(None, "Number of layers. The default is 4.", least=1)
    heads: int | None = option(
        None, "Number of attention heads. The default is 4.", least=1
    )
    hidden: int | None = option(
        None,
        "Hidden width of a block. The default gives the parameters of a plain block "
        "that is four times as wide as the model.",
        least=1,
    )
    positions: str | None = option(
        None,
        "Position embeddings. The default is rotary.",
        known=lambda: ("learned", "sinusoidal", "rotary", "none"),
    )
    dropout: float | None = option(
        None,
        "Dropout rate. The default is that of the checkpoint, or 0 from scratch.",
        least=0,
        below=1,
    )
    dtype: str = option(
        "float32",
        "Precision to compute in. Parameters stay in float32.",
        known=lambda: ("float32", "bfloat16"),
    )
    scan_layers: bool = option(
        False,
        "Scan over the layers, of which one is compiled, so that compiling takes no "
        "longer with more layers. With fsdp, the weights are gathered one layer at a "
        "time. All layers need the same block. The model that is written is the same.",
    )


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Samples of a causal model."""

    samples: int = option(2, "Number of texts to generate after training.", least=0)
    prompt: str = option("def ", "Beginning of the generated texts.")
    sample_length: int = option(
        300, "Maximum number of tokens to generate after the prompt.", least=1
    )
    temperature: float = option(
        0.8,
        "Sampling temperature; lower values favour likely tokens, and 0 always takes "
        "the most likely one.",
        least=0,
    )
    top_k: int | None = option(
        None, "Sample from this many of the most likely tokens.", least=1
    )
    top_p: float | None = option(
        None,
        "Sample from the smallest set of tokens with at least this probability, at "
        "most 1.",
        above=0,
    )
    num_beams: int = option(0, "Width of a beam search; 0 samples instead.", least=0)


@dataclasses.dataclass(frozen=True)
class Pretraining(Steps):
    """Optimizer and batches."""

    optimizer: str = option(
        "muon", "Optimizer.", known=names_in("ffnlab.train.optimizers", "OPTIMIZERS")
    )
    learning_rate: float = option(2e-2, "Peak learning rate.", above=0)
    warmup_steps: int = option(
        100,
        "Steps over which the learning rate rises linearly, at most half of the run.",
        least=0,
    )
    steps: int = option(
        900, "Training steps; 0 only evaluates and writes the model.", least=0
    )
    batch_size: int = option(16, "Windows per step.", least=1)
    scored: int = option(
        256, "Maximum number of windows to evaluate on, per part of the data.", least=1
    )


@dataclasses.dataclass(frozen=True)
class Config(
    Data,
    Architecture,
    Sampling,
    Pretraining,
    ImportOptions,
    TrackOptions,
    MeshOptions,
    TransformerOptions,
    ProcessOptions,
):
    """Pretraining of a language model."""

    # What a flag file of an earlier version, without the flag, stands for.
    ADDED: ClassVar[dict[str, str]] = {
        **ImportOptions.ADDED,
        **TransformerOptions.ADDED,
        "dtype": "float32",
        "scan_layers": "false",
    }

    RENAMED: ClassVar[Mapping[str, str]] = {
        **Steps.RENAMED,
        "length": "max_seq_length",
        "remat": "gradient_checkpointing",
        "beam": "num_beams",
    }

    def __post_init__(self):
        super().__post_init__()
        if self.block:
            choose("block", self.block.partition(":")[0], _BLOCKS())
        if self.top_p is not None and self.top_p > 1:
            raise InputError(f"top_p: {self.top_p} should be at most 1")
        if self.objective == "causal" and self.whole_words:
            raise InputError("whole_words: only for objective=masked")
        given = [name for name in _OF_CHECKPOINT if getattr(self, name) is not None]
        if self.checkpoint and given:
            raise InputError(f"{given[0]}: the checkpoint determines it; leave it out")
        if self.shards and (self.text or self.tokenizer):
            name = "text" if self.text else "tokenizer"
            raise InputError(f"{name}: the shards determine it; leave it out")
        if self.samples and not self.prompt:
            raise InputError("prompt: at least one character is needed")

    @property
    def masked(self) -> bool:
        """Whether the objective is masked language modelling."""
        return self.objective == "masked"
