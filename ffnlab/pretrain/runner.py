"""Pretrains a language model and writes a report."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ffnlab import devices, processes
from ffnlab.errors import InputError
from ffnlab.escape import terminal, terminal_lines
from ffnlab.pretrain import trainer
from ffnlab.pretrain.config import SCRATCH, Config
from ffnlab.report import trackers
from ffnlab.report.run_directory import choose_unfinished

if TYPE_CHECKING:
    from ffnlab.data import Dataset
    from ffnlab.data.corpus import Parts, Tokenizes
    from ffnlab.data.token_shards import TokenShards
    from ffnlab.models.transformer import TransformerConfig
    from ffnlab.pretrained.checkpoint import Checkpoint
    from ffnlab.report.table import Table
    from ffnlab.train.record import Record

_HELD_OUT = ("valid", "test")


class Result(NamedTuple):
    """The result of a pretraining run.

    Attributes:
      out: The run directory.
      scores: For each held-out part: loss, accuracy, bits and perplexity.
      table: The scores as a table.
      record: The record of training; None if there was no training.
      samples: Texts that the model generated, if it is causal.
    """

    out: Path
    scores: dict[str, dict[str, float]]
    table: "Table"
    record: "Record | None"
    samples: list[str]


def run(config: Config) -> Result:
    """Trains a language model, and writes it and a report to a run directory.

    Raises:
      InputError: A file or directory cannot be used, fields contradict each other, or
        the loss was not finite, which the finished report says.
    """
    with processes.joined(config) as config:
        return _run(config)


def _run(config: Config) -> Result:
    """Trains a language model in a process that has joined the others."""
    from ffnlab import data
    from ffnlab.report import run_directory
    from ffnlab.train.divergence import divergence_of
    from ffnlab.train.sharding import choose_layout

    out = choose_unfinished(config, "pretrain")
    trackers.require(config.report_to)
    devices.select(config.device)
    job = _make_job(config)
    layout = choose_layout(config.mesh_sizes, config.fsdp, config.batch_size)
    if layout:
        layout.check(job.model.init)
    with (
        run_directory.open_run(out, config, config.resume) as directory,
        trackers.opened(config, directory) as tracker,
    ):
        changed = config.shards and f"shards: {config.shards} changed"
        run_directory.check_same_data(directory, data.digest(job.dataset), changed)
        print(terminal(f"writing to {directory}"), flush=True)
        params, record = trainer.train(config, job, directory, tracker, layout)
        scores = {part: trainer.score(config, job, part, params) for part in _HELD_OUT}
        samples = trainer.generate_samples(config, job, params)
        trainer.save(config, job, params, directory)
        table = trainer.publish(config, job, directory, record, scores, samples)
        tracker.pictures(directory)
        run_directory.finish(directory)
    if record and (found := divergence_of(record)):
        raise InputError(found.message(config.learning_rate, directory))
    return Result(directory, scores, table, record, samples)


def _make_job(config: Config) -> trainer.Job:
    """Returns the model, data and tokenizer of a run, after checking all inputs."""
    from ffnlab.data.corpus import ByteTokenizer
    from ffnlab.data.tokenizer_files import checkpoint_tokenizer, read_tokenizer
    from ffnlab.models import language_model
    from ffnlab.nn.attention_kernel import require
    from ffnlab.nn.precision import mixed_precision
    from ffnlab.pretrained.safetensors_io import require_safetensors

    require_safetensors("out: best/, which holds the trained model,")
    require(config.attention, config.dtype)
    shards = _open_shards(config)
    checkpoint = _load_checkpoint(config)
    if checkpoint:
        transformer = checkpoint.config
        tokenizer = checkpoint_tokenizer(config.checkpoint, transformer.vocabulary)
        if shards:
            shards.check_tokenizer(tokenizer, f"that of checkpoint={config.checkpoint}")
    else:
        path = config.tokenizer
        tokenizer = read_tokenizer(path) if path else ByteTokenizer()
        tokenizer = shards.tokenizer() if shards else tokenizer
        transformer = _transformer_from_scratch(config, tokenizer.size)
    _check(config, transformer, tokenizer)
    if shards:
        length, most = config.max_seq_length, config.scored
        dataset = shards.dataset(tokenizer, length, masked=config.masked, held_out=most)
    else:
        dataset = _make_dataset(config, tokenizer)
    if config.masked:
        model = language_model.masked_lm(
            transformer, tokenizer.mask, config.mask_rate, config.whole_words
        )
    else:
        model = language_model.causal_lm(transformer)
    if config.dtype != "float32":
        model = mixed_precision(model, config.dtype)
    return trainer.Job(transformer, model, dataset, tokenizer, checkpoint)


def _open_shards(config: Config) -> "TokenShards | None":
    """Returns the token shards to train on, if any, after a check of their digests."""
    from ffnlab import data

    if not config.shards:
        return None
    shards = data.open_shards(config.shards)
    print(terminal(f"{config.shards}: {shards}"), flush=True)
    return shards


def _load_checkpoint(config: Config) -> "Checkpoint | None":
    """Returns the checkpoint to continue from, if any."""
    from ffnlab import pretrained
    from ffnlab.models.transformer_config import dropout_fields

    if not config.checkpoint:
        return None
    checkpoint = pretrained.load(
        config.checkpoint,
        head=True,
        pooler=False,
        **config.transformer_fields,
        strict=config.strict,
        **dropout_fields(config.dropout),
    )
    summary = checkpoint.summary
    if summary.notes:
        print(terminal_lines(str(summary)))
    return _with_scan(config, checkpoint)


def _with_scan(config: Config, checkpoint: "Checkpoint") -> "Checkpoint":
    """Returns a checkpoint whose layers are stacked if the flag asks for it."""
    from ffnlab.models.layer_stack import with_scan

    blocks = sorted(set(checkpoint.config.blocks))
    if config.scan_layers and len(blocks) > 1:
        raise InputError(
            f"scan_layers: all layers need the same block, and {config.checkpoint} has "
            f"{', '.join(blocks)}; leave it out"
        )
    transformer, params = with_scan(
        checkpoint.config, checkpoint.params, config.scan_layers
    )
    return checkpoint._replace(config=transformer, params=params)


def _make_dataset(config: Config, tokenizer: "Tokenizes") -> "Dataset":
    """Returns the windows of the text, at most `scored` of each held-out part."""
    from ffnlab import data
    from ffnlab.data import corpus

    utf8 = not isinstance(tokenizer, corpus.ByteTokenizer)
    name, parts, about = _read_text(config, utf8)
    if not config.masked:
        about |= {"xz_bits_per_byte": _xz_bits_per_byte(parts["test"])}
    dataset = corpus.language_data(
        name, parts, tokenizer, config.max_seq_length, masked=config.masked, about=about
    )
    held_out = {
        part: data.thin(getattr(dataset, part), config.scored) for part in _HELD_OUT
    }
    return dataclasses.replace(dataset, **held_out)


def _transformer_from_scratch(config: Config, vocabulary: int) -> "TransformerConfig":
    """Returns the configuration of a Transformer that is trained from scratch."""
    from ffnlab.models.transformer import DecoderConfig, EncoderConfig
    from ffnlab.models.transformer_config import dropout_fields
    from ffnlab.nn.budget import match

    fields = {
        name: default if getattr(config, name) is None else getattr(config, name)
        for name, default in SCRATCH.items()
    }
    fields |= dropout_fields(fields["dropout"]) | config.transformer_fields
    fields |= {
        "vocabulary": vocabulary,
        "length": config.max_seq_length,
        "hidden": config.hidden or 4 * fields["features"],
        "scan": config.scan_layers,
    }
    if config.masked:
        transformer = EncoderConfig(**fields, types=0, head="tied")
    else:
        transformer = DecoderConfig(**fields)
    if config.hidden:
        return transformer
    plain = dataclasses.replace(transformer, block="mlp:gelu").feed_forward(0)
    matched = match(transformer.feed_forward(0), plain).config
    return dataclasses.replace(transformer, hidden=matched.hidden)


def _check(
    config: Config, transformer: "TransformerConfig", tokenizer: "Tokenizes"
) -> None:
    """Raises an InputError if the model does not fit the other fields."""
    kind = "causal" if transformer.causal else "masked"
    if kind != config.objective:
        raise InputError(f"objective: this checkpoint is of a {kind} language model")
    if tokenizer.size > transformer.vocabulary:
        raise InputError(
            f"checkpoint: its tokenizer has {tokenizer.size} tokens, its model only "
            f"{transformer.vocabulary}"
        )
    length = transformer.length
    if config.max_seq_length > length and transformer.positions == "learned":
        raise InputError(
            f"max_seq_length: {config.max_seq_length} is more than the {length} "
            "positions of the checkpoint"
        )
    if config.samples and not config.masked:
        count = len(tokenizer.stream(config.prompt.encode()).tokens)
        if count >= length:
            raise InputError(
                f"prompt: {count} tokens leave none of the {length} positions of the "
                "model"
            )


def _read_text(config: Config, utf8: bool) -> "tuple[str, Parts, dict]":
    """Returns the name, documents and facts of the text."""
    from ffnlab.data import corpus, stdlib_source

    if not config.text:
        return "python", *stdlib_source.python_files(config.seed)
    return Path(config.text[0]).stem, *corpus.read_texts(config.text, utf8)


def _xz_bits_per_byte(documents: list[bytes]) -> float:
    """Returns the bits per byte of the xz compressor, for comparison."""
    import lzma

    text = b"".join(documents)
    return 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)
