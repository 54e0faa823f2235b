"""The parts of a data set: from files of their own, or from one file by --split."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ffnlab import data
from ffnlab.data.examples import PARTS
from ffnlab.errors import InputError
from ffnlab.escape import terminal

if TYPE_CHECKING:
    from ffnlab.finetune.config import Config


class Parts(NamedTuple):
    """Examples by part.

    Attributes:
      examples: Name of the part to its examples.
      remark: How they were split; empty if they were not.
    """

    examples: dict[str, Any]
    remark: str = ""


def read_parts(
    config: "Config",
    read: Callable[[str], Any],
    groups: Callable[[Any], Sequence] | None = None,
) -> Parts:
    """Returns the examples by part; --split takes all parts from one file.

    With --stratify the texts of each label are divided by themselves, in the same
    shares, where each part then gets every label; and otherwise all texts at random.

    Args:
      config: The flags.
      read: `read(part)` returns the examples of a part: lists side by side, and
        `subset`.
      groups: Returns a group for each example; a split keeps groups together.

    Raises:
      InputError: A part of the split would be empty, or a file cannot be read.
    """
    if not config.split:
        examples = {"train": read("train")}
        if config.one_file and examples["train"].layout.part is None:
            raise InputError(
                f"dev: is needed, or split to take it from train: {config.train} has "
                "no parts"
            )
        parts = [part for part in PARTS if config.one_file or getattr(config, part)]
        return Parts(examples | {p: read(p) for p in parts if p != "train"})
    examples = read("train")
    names = list(groups(examples)) if groups else list(range(len(examples[0])))
    part_of, remark = None, "split at random"
    if config.stratify:
        part_of, remark = _split_by_label(config, examples.labels)
    if part_of is None:
        part_of = _split(config, list(dict.fromkeys(names)))
    subsets = {
        part: examples.subset([i for i, n in enumerate(names) if part_of[n] == part])
        for part in PARTS
    }
    return Parts(subsets, remark)


def layout_notes(
    config: "Config", examples: dict[str, Any], extra: Sequence[Any] = ()
) -> list[str]:
    """Returns a line for each layout that files have: what was detected, not told.

    Args:
      config: The flags.
      examples: The examples or questions by part, with their `layout`.
      extra: Those of each file of --extra.
    """
    parts = ["train"] if config.split else list(examples)
    read = [(part, examples[part]) for part in parts]
    found: dict[str, list[str]] = {}
    for name, each in [*read, *zip(config.extra, extra, strict=True)]:
        if each.layout.note:
            found.setdefault(each.layout.note, []).append(name)
    return [f"{', '.join(names)}: {note}" for note, names in found.items()]


def _split(config: "Config", groups: Sequence) -> dict[Any, str]:
    """Returns the part of each group, drawn by the seed."""
    pieces = _cut(config, np.arange(len(groups)), 0, 0)
    if not all(map(len, pieces)):
        raise InputError(f"split: {len(groups)} examples do not fill three parts")
    pairs = zip(PARTS, pieces, strict=True)
    return {groups[i]: part for part, piece in pairs for i in piece}


def _split_by_label(
    config: "Config", labels: Sequence[str]
) -> tuple[dict[int, str] | None, str]:
    """Returns the part of each example, and a remark.

    The parts are None where a label has too few texts for each part to get one.
    """
    part_of: dict[int, str] = {}
    for number, label in enumerate(sorted(set(labels))):
        own = np.array([i for i, each in enumerate(labels) if each == label])
        pieces = _cut(config, own, len(part_of), number)
        if not all(map(len, pieces)):
            texts = "text" if len(own) == 1 else "texts"
            return None, (
                f"split at random: label {terminal(label)} has {len(own)} {texts}, too "
                "few for three parts"
            )
        pairs = zip(PARTS, pieces, strict=True)
        part_of |= {int(i): part for part, piece in pairs for i in piece}
    return part_of, "split by label: every part has the same shares"


def _cut(
    config: "Config", examples: np.ndarray, before: int, epoch: int
) -> list[np.ndarray]:
    """Returns examples in three pieces by the shares, drawn by the seed.

    Together with the examples that were cut before, the pieces have the shares of all.
    """
    size = len(examples)
    order = data.order(config.seed, epoch * size, (epoch + 1) * size, size)
    shares = np.cumsum(config.split)[:2]
    ends = np.round(shares * (before + size)) - np.round(shares * before)
    return np.split(examples[order], ends.astype(int))
