"""Pretrains a language model and writes a report."""

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab import options
from ffnlab.errors import InputError
from ffnlab.models.transformer_config import dropouts
from ffnlab.pretrain import trainer
from ffnlab.pretrain.config import SCRATCH, Config
from ffnlab.report.run_directory import choose_unfinished

if TYPE_CHECKING:
    from ffnlab.data.corpus import Tokenizes
    from ffnlab.models.transformer import TransformerConfig
    from ffnlab.report.table import Table
    from ffnlab.train.record import Record


_APART = ("valid", "test")


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
        params, record = trainer.train(config, job, directory)
        scores = {part: trainer.score(config, job, part, params) for part in _APART}
        samples = trainer.generate_samples(config, job, params)
        trainer.save(config, job, params, directory)
        table = trainer.publish(config, job, directory, record, scores, samples)
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    return Result(directory, scores, table, record, samples)


def _job(config: Config) -> trainer.Job:
    """Returns what is to be trained, after all that can be wrong with it."""
    from ffnlab import data, pretrained
    from ffnlab.data import corpus
    from ffnlab.data.corpus import ByteTokenizer
    from ffnlab.data.tokenizer import checkpoint_tokenizer, read_tokenizer
    from ffnlab.models import language_model as lm
    from ffnlab.pretrained.safetensors_io import require

    require("out: best/, which holds the trained model,")
    found = None
    if config.checkpoint:
        options = dropouts(config.dropout)
        found = pretrained.load(
            config.checkpoint,
            head=True,
            pooler=False,
            remat=config.gradient_checkpointing,
            **options,
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
        name, parts, tokenizer, config.max_seq_length, masked=config.masked, about=about
    )
    fewer = {p: data.thin(getattr(dataset, p), config.scored) for p in _APART}
    dataset = dataclasses.replace(dataset, **fewer)
    if config.masked:
        model = lm.masked(shape, tokenizer.mask, config.mask_rate, config.whole_words)
    else:
        model = lm.causal(shape)
    return trainer.Job(shape, model, dataset, tokenizer, found)


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
    size = {
        "vocabulary": vocabulary,
        "length": config.max_seq_length,
        "remat": config.gradient_checkpointing,
    }
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
        raise InputError(f"objective: this checkpoint is of a {kind} language model")
    if tokenizer.size > shape.vocabulary:
        raise InputError(
            f"checkpoint: its tokenizer has {tokenizer.size} tokens, its model only "
            f"{shape.vocabulary}"
        )
    if config.max_seq_length > shape.length and shape.positions == "learned":
        raise InputError(
            f"max_seq_length: {config.max_seq_length} is more than the {shape.length} positions of "
            "the checkpoint"
        )
    if config.samples and not config.masked:
        used = len(tokenizer.stream(config.prompt.encode()).tokens)
        if used >= shape.length:
            raise InputError(
                f"prompt: {used} tokens leave none of the model's {shape.length}"
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
