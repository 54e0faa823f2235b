"""The texts of a fine-tuned encoder: read from files, augmented, encoded and packed.

Tasks that differ in what they predict of a text share this.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffnlab import pretrained
from ffnlab.data.augment import augment
from ffnlab.data.augmented_files import read_augmented
from ffnlab.data.entity_markers import check_markers, replace_markers
from ffnlab.data.examples import Examples, read_labelled
from ffnlab.data.files import read_settings
from ffnlab.data.packed_rows import Rows, pack
from ffnlab.data.tokenizer import Encoded, Tokenizer
from ffnlab.finetune.splitting import layout_notes, read_parts
from ffnlab.finetune.task import (
    mask_token_ids,
    notes,
    packing_options,
    read_checkpoint,
    renumber_tokens,
)
from ffnlab.finetune.usage import Usage
from ffnlab.models.classifier import ClassifierConfig
from ffnlab.pretrained.checkpoint import Checkpoint
from ffnlab.pretrained.config_json import read_family
from ffnlab.pretrained.safetensors_io import config_file

if TYPE_CHECKING:
    from ffnlab.finetune.config import Config

# The activation of the dense layer that transformers has in the head, before the last
# layer; a BERT has its pooler instead.
DENSE = {
    "roberta": "tanh",
    "xlm-roberta": "tanh",
    "distilbert": "relu",
    "electra": "gelu",
}


def encode(
    task: str,
    tokenizer: Tokenizer,
    examples: Examples,
    max_length: int,
    marks: Sequence[str] = (),
) -> Encoded:
    """Returns the tokens of examples; entity markers become special signs.

    Args:
      task: `classify`, `pairs` or `tag`.
      tokenizer: The tokenizer of the checkpoint.
      examples: The examples.
      max_length: The maximum number of tokens of an example.
      marks: The names of the two entity markers, or none.
    """
    if task == "tag":
        return tokenizer.words(examples.texts, max_length)
    texts = replace_markers(examples.texts, marks)[0] if marks else examples.texts
    return tokenizer.texts(texts, examples.pairs or None, max_length)


def read_examples(config: "Config") -> tuple[dict[str, Examples], list[str]]:
    """Returns the examples by part, and lines on what was found and added to train.

    Those of --extra and of --augment_file are added.

    Raises:
      InputError: A file cannot be used.
    """

    def read(part: str) -> Examples:
        return _read(config, config.file_of(part), part)

    examples, remark = read_parts(config, read)
    more = [_read(config, path) for path in config.extra]
    found = [*layout_notes(config, examples, more), *filter(None, [remark])]
    if config.augment_file:
        sources = [(part, config.file_of(part), e) for part, e in examples.items()]
        sources += [("train", *each) for each in zip(config.extra, more, strict=True)]
        augmented, note = read_augmented(
            config.augment_file,
            _kind(config),
            config.columns,
            sources,
            config.id_column,
            config.label_names,
            config.targets,
        )
        _check_markers(config, config.augment_file, augmented)
        more, found = [*more, augmented], [*found, note]
    return {**examples, "train": examples["train"].joined(*more)}, found


def _kind(config: "Config") -> str:
    """Returns the task whose files are read; two marked entities stand in one text."""
    return "classify" if config.marks else config.task


def _read(config: "Config", path: str, part: str = "train") -> Examples:
    """Returns the examples of a file."""
    examples = read_labelled(
        path,
        _kind(config),
        config.columns,
        part,
        names=config.label_names,
        targets=config.targets,
    )
    _check_markers(config, path, examples)
    return examples


def _check_markers(config: "Config", path: str, examples: Examples) -> None:
    """Raises if texts do not have the two markers of --marks."""
    if config.marks:
        check_markers(path, examples.texts, examples.lines, config.marks)


def pack_parts(
    config: "Config",
    examples: dict[str, Examples],
    classes: int,
    found: Sequence[str],
    label_ids: Callable[[str, Examples], Sequence | None] = lambda part, each: None,
    more: Callable[[str, Rows], Sequence[str]] = lambda part, rows: (),
) -> dict[str, Any]:
    """Returns the fields of a task: its checkpoint, and its parts augmented and packed.

    Args:
      config: The flags.
      examples: The examples by part.
      classes: The number of outputs for a text or word.
      found: Lines on the files: their layout, and how they were split.
      label_ids: `label_ids(part, examples)` returns the labels of a part by number, or
        None, which leaves all without a label.
      more: `more(part, rows)` returns further lines of the summary.

    Raises:
      InputError: The checkpoint, a label or a flag cannot be used.
    """
    checkpoint, tokenizer = read_checkpoint(
        config, _texts(examples["train"]), head=False, pooler=_pooler(config)
    )
    train = _augment(config, examples["train"], tokenizer)
    examples = {**examples, "train": train}
    rows, summary = {}, [*found, *notes(checkpoint, tokenizer)]
    for part, each in examples.items():
        ids = label_ids(part, each)
        encoded = encode(config.task, tokenizer, each, config.max_length, config.marks)
        options = packing_options(
            config, checkpoint, part, encoded.tokens, len(each.texts)
        )
        rows[part] = pack(encoded, ids, **options)
        summary.append(_summary(part, each, encoded, rows[part]))
        summary += more(part, rows[part])
    arrays = [packed.arrays for packed in rows.values()]
    vocab_ids = renumber_tokens(arrays, mask_token_ids(config, tokenizer))
    return {
        "config": config,
        "examples": examples,
        "rows": rows,
        "checkpoint": checkpoint,
        "tokenizer": tokenizer,
        "vocab_ids": vocab_ids,
        "summary": "\n".join(summary),
        "shape": _shape(config, checkpoint, len(vocab_ids), classes),
    }


def usage_of(
    config: "Config", examples: Examples, shape: ClassifierConfig, **more: Any
) -> Usage:
    """Returns how a fine-tuned encoder is used.

    Args:
      config: The flags.
      examples: The training part.
      shape: The configuration of the classifier.
      **more: Further fields of `Usage`.
    """
    return Usage(
        config.task,
        config.max_length,
        dtype=config.dtype,
        text_column=examples.layout.columns.text,
        pair_column=examples.layout.columns.pair,
        head=config.head,
        head_hidden=config.head_hidden,
        dense=shape.dense,
        scheme=examples.scheme,
        marks=config.marks,
        **more,
    )


def _shape(
    config: "Config", checkpoint: Checkpoint, vocabulary: int, classes: int
) -> ClassifierConfig:
    dense = DENSE.get(checkpoint.family) if config.task != "tag" else None
    return ClassifierConfig(
        dataclasses.replace(checkpoint.config, vocabulary=vocabulary),
        classes,
        config.head,
        config.head_hidden,
        checkpoint.config.dropout,
        config.gradient,
        dense,
    )


def _texts(examples: Examples) -> list[str]:
    """Returns all texts; words are joined by spaces."""
    texts = [*examples.texts, *examples.pairs]
    return [" ".join(text) if isinstance(text, list) else text for text in texts]


def _pooler(config: "Config") -> bool | None:
    """Returns whether the encoder has a pooler, a dense layer on the first token.

    As in transformers, that of a BERT is drawn if the checkpoint has none. None takes
    what the checkpoint has, for our own family.
    """
    if config.task == "tag" or config.scratch:
        return config.task != "tag"
    path = config_file(Path(config.checkpoint))
    kind = read_family(str(path), read_settings(path, {}))
    return {"bert": True, "ffnlab": None}.get(kind, False)


def _augment(config: "Config", train: Examples, tokenizer: Tokenizer) -> Examples:
    """Returns the training part with altered copies."""
    names = [name for name in config.augment if name != "mlm_substitute"]
    copies, seed = config.augment_copies, config.seed
    augmented = augment(train, config.task, names, copies, config.augment_rate, seed)
    if "mlm_substitute" not in config.augment:
        return augmented
    from ffnlab.finetune.mlm_augment import mlm_substitute

    model = pretrained.load(config.checkpoint)
    substituted = mlm_substitute(
        train, config.task, model, tokenizer, copies, seed=seed
    )
    new = range(len(train.texts), len(substituted.texts))
    return augmented.joined(substituted.subset(new))


def _summary(part: str, examples: Examples, encoded: Encoded, rows: Rows) -> str:
    """Returns a line on a part: its size, how full its rows are, what was cut off."""
    full = rows.arrays["x/mask"].mean()
    scheme = f", tags in {examples.scheme}" if examples.scheme else ""
    lost = f", {encoded.lost:,} words or tokens cut off" if encoded.lost else ""
    return (
        f"{part}: {len(examples.texts):,} texts packed into "
        f"{len(rows.example_index):,} rows, {full:.0%} full{scheme}{lost}"
    )
