"""How well does a Transformer with this block learn a language?

Trains a language model on text: causal, which predicts each token from those before it,
or masked, which finds hidden ones again; on bytes or the tokens of a given tokenizer,
from scratch or on from a checkpoint. Tells perplexity and bits per byte on text kept
apart, and lets a causal model write.

    python -m experiments.pretrain
    python -m experiments.pretrain --block=mlp:gelu --positions=learned
    python -m experiments.pretrain --text=a.txt,b.txt --objective=masked --whole_words
    python -m experiments.pretrain --checkpoint=gpt2 --text=a.txt --optimizer=adamw \
        --learning_rate=1e-4
    python -m experiments.pretrain --checkpoint=OUT/best --steps=0 --prompt="def "
    python -m experiments.pretrain --flagfile=OUT/flags    (repeats a run)

Without --text the text is the source of Python's standard library. OUT receives
report.md, curve.png, samples.txt, results.jsonl, flags, versions.json and best/, a
checkpoint directory for the next run. A default run takes about five minutes on two CPU
cores.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments import language, launch
from ffnlab import options
from ffnlab.devices import use_all_cores
from ffnlab.errors import InputError, choose
from ffnlab.models.transformer_config import dropouts
from ffnlab.options import names_in, option
from ffnlab.report.run_directory import choose_unfinished
from ffnlab.train.config import Steps

if TYPE_CHECKING:
    from ffnlab.data.corpus import Tokenizes
    from ffnlab.models.transformer import TransformerConfig
    from ffnlab.report.table import Table
    from ffnlab.train.record import Record

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
_APART = ("valid", "test")
_BLOCKS = names_in("ffnlab.nn.ffn", "BLOCKS")

QUICK = {
    "features": 64,
    "layers": 2,
    "length": 64,
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
    length: int = option(256, "tokens of a window", least=4)
    dropout: float | None = option(
        None, "0, or the checkpoint's own, if not given", least=0, below=1
    )
    remat: bool = option(False, "compute layers again in the backward pass")
    optimizer: str = option(
        "muon",
        "sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw, lion or muon",
        known=names_in("ffnlab.train.optimizers", "OPTIMIZERS"),
    )
    learning_rate: float = option(2e-2, "at its peak", above=0)
    warmup: int = option(
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
    beam: int = option(0, "instead of drawing, the width of a beam search", least=0)

    def __post_init__(self):
        super().__post_init__()
        if self.block:
            choose("--block", self.block.partition(":")[0], _BLOCKS())
        if self.top_p is not None and self.top_p > 1:
            raise InputError(f"--top_p: {self.top_p} should be at most 1")
        if self.objective == "causal" and self.whole_words:
            raise InputError("--whole_words: only for --objective=masked")
        given = [name for name in _FIXED if getattr(self, name) is not None]
        if self.checkpoint and given:
            raise InputError(f"--{given[0]}: the checkpoint decides it; leave it out")
        if self.samples and not self.prompt:
            raise InputError("--prompt: at least one character is needed")

    @property
    def masked(self) -> bool:
        """Whether hidden tokens are to be found."""
        return self.objective == "masked"


class Result(NamedTuple):
    """What a pretraining found.

    Attributes:
      out: the directory that holds it.
      scores: by part: loss, accuracy, bits, perplexity.
      table: the same, as it was printed.
      record: what was written down in training; None if there was none.
      samples: what a causal model wrote.
    """

    out: Path
    scores: dict[str, dict[str, float]]
    table: "Table"
    record: "Record | None"
    samples: list[str]


def run(config: Config) -> Result:
    """Trains the language model and writes its report.

    Raises:
      InputError: a file or directory cannot be used, or flags do not fit together.
    """
    from ffnlab import data
    from ffnlab.report import run_directory

    out = choose_unfinished(config, "pretrain")
    job = _job(config)
    flags = options.to_flags(config, leave_out=("out", "resume"))
    with run_directory.open_run(out, flags, config.resume) as directory:
        run_directory.same_data(directory, data.digest(job.dataset))
        print(f"writing to {directory}", flush=True)
        params, record = language.trained(config, job, directory)
        scores = {part: language.scored(config, job, part, params) for part in _APART}
        samples = language.written(config, job, params)
        language.save(config, job, params, directory)
        table = language.publish(config, job, directory, record, scores, samples)
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    return Result(directory, scores, table, record, samples)


def _job(config: Config) -> language.Job:
    """Returns what is to be trained, after all that can be wrong with it."""
    from ffnlab import data
    from ffnlab.data import corpus
    from ffnlab.data.corpus import ByteTokenizer
    from ffnlab.data.tokenizer import checkpoint_tokenizer, read_tokenizer
    from ffnlab.models import language_model as lm
    from ffnlab.pretrained import checkpoint as pretrained
    from ffnlab.pretrained.safetensors_io import require

    require("--out: best/, which holds the trained model,")
    found = None
    if config.checkpoint:
        options = dropouts(config.dropout)
        found = pretrained.load(
            config.checkpoint, head=True, pooler=False, remat=config.remat, **options
        )
        if found.report.initialised:
            print(found.report)
    tokenizer = ByteTokenizer()
    if config.tokenizer:
        tokenizer = read_tokenizer(config.tokenizer)
    if found:
        tokenizer = checkpoint_tokenizer(config.checkpoint, found.config.vocabulary)
    shape = found.config if found else _shape(config, tokenizer.size)
    _check(config, shape, tokenizer)
    name, (parts, about) = _texts(config, not isinstance(tokenizer, ByteTokenizer))
    about |= {} if config.masked else {"xz_bits_per_byte": _xz(parts["test"])}
    dataset = corpus.language_data(
        name, parts, tokenizer, config.length, masked=config.masked, about=about
    )
    fewer = {p: data.thin(getattr(dataset, p), config.scored) for p in _APART}
    dataset = dataclasses.replace(dataset, **fewer)
    if config.masked:
        model = lm.masked(shape, tokenizer.mask, config.mask_rate, config.whole_words)
    else:
        model = lm.causal(shape)
    return language.Job(shape, model, dataset, tokenizer, found)


def _shape(config: Config, vocabulary: int) -> "TransformerConfig":
    """Returns a model from scratch."""
    from ffnlab.models.transformer import DecoderConfig, EncoderConfig
    from ffnlab.nn.budget import match

    given = {
        name: default if getattr(config, name) is None else getattr(config, name)
        for name, default in SCRATCH.items()
    }
    given |= dropouts(given["dropout"])
    kind = EncoderConfig if config.masked else DecoderConfig
    extra = {"types": 0, "head": "tied"} if config.masked else {}
    size = {"vocabulary": vocabulary, "length": config.length, "remat": config.remat}
    shape = kind(**given, **size, **extra, hidden=4 * given["features"])
    if config.hidden:
        return dataclasses.replace(shape, hidden=config.hidden)
    plain = dataclasses.replace(shape, block="mlp:gelu").feed_forward(0)
    fitted = match(shape.feed_forward(0), plain).config
    return dataclasses.replace(shape, hidden=fitted.hidden)


def _check(config: Config, shape: "TransformerConfig", tokenizer: "Tokenizes") -> None:
    """Refuses flags that a model does not fit."""
    kind = "causal" if shape.causal else "masked"
    if kind != config.objective:
        raise InputError(f"--objective: this checkpoint is of a {kind} language model")
    if tokenizer.size > shape.vocabulary:
        raise InputError(
            f"--checkpoint: its tokenizer has {tokenizer.size} tokens, its model only "
            f"{shape.vocabulary}"
        )
    if config.length > shape.length and shape.positions == "learned":
        raise InputError(
            f"--length: {config.length} is more than the {shape.length} positions of "
            "the checkpoint"
        )
    if config.samples and not config.masked:
        used = len(tokenizer.stream(config.prompt.encode()).tokens)
        if used >= shape.length:
            raise InputError(
                f"--prompt: {used} tokens leave none of the model's {shape.length}"
            )


def _texts(config: Config, utf8: bool) -> tuple[str, Any]:
    from ffnlab.data import corpus, stdlib_source

    if not config.text:
        return "python", stdlib_source.python_files(config.seed)
    return Path(config.text[0]).stem, corpus.read_texts(config.text, utf8)


def _xz(documents: list[bytes]) -> float:
    """Returns the bits a byte that a packer takes, to compare with."""
    import lzma

    text = b"".join(documents)
    return 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)


if __name__ == "__main__":
    use_all_cores()
    launch.main(Config, run, __doc__, presets={"quick": QUICK})
