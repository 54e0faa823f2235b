"""Notes on files of a tokenizer that disagree, and which of them holds."""

from pathlib import Path
from typing import Any

from ffnlab.data.tokenizer_kinds import class_of
from ffnlab.data.tokenizer_settings import Settings
from ffnlab.schema import show

_TEXT = "Gr\u00f6\u00dfe Caf\u00e9 \u732bx \ufb01 don't A1  b"  # switches alter it
# For a part of tokenizer.json and its type: the keys, the switches of
# tokenizer_config.json that stand for them, and their defaults.
_SWITCHES = (
    ("normalizer", "BertNormalizer", "lowercase", "do_lower_case", True),
    ("normalizer", "BertNormalizer", "strip_accents", "strip_accents", None),
    (
        "normalizer",
        "BertNormalizer",
        "handle_chinese_chars",
        "tokenize_chinese_chars",
        True,
    ),
    ("pre_tokenizer", "ByteLevel", "add_prefix_space", "add_prefix_space", False),
)


def outcomes(inner: Any) -> tuple[str, list]:
    """Returns how a text is normalized and split, whatever the vocabulary."""
    text, split = _TEXT, inner.pre_tokenizer
    if inner.normalizer is not None:
        text = inner.normalizer.normalize_str(text)
    return text, split.pre_tokenize_str(text) if split is not None else []


def note_switches(
    path: Path,
    spec: dict[str, Any],
    settings: Settings,
    notes: list[str],
    ignored: bool = False,
) -> None:
    """Adds a note on the switches of tokenizer_config.json that differ.

    `ignored` is whether the switches do not count.
    """
    theirs, ours = [], []
    for name, kind, key, switch, default in _SWITCHES:
        part, given = spec.get(name) or {}, switch in settings.switches
        if part.get("type") != kind or (ignored and not given):
            continue
        value = settings.switches.get(switch, default)
        if part.get(key) != value:
            theirs.append(f"{key} {show(part.get(key))}")
            ours.append(f"{switch} {show(value)}{'' if given else ' by default'}")
    if theirs:
        winner = path if ignored else settings.config
        notes.append(
            f"{path} has {' and '.join(theirs)}, {settings.config} "
            f"{' and '.join(ours)}: {winner.name} holds, as in transformers"
        )


def note_lost_tokens(
    path: Path, spec: dict[str, Any], settings: Settings, notes: list[str]
) -> None:
    """Adds a note on added tokens that tokenizer_config.json leaves out."""
    vocabulary = spec["model"].get("vocab") or {}
    known = {each.content for each in settings.added.values()}
    added = spec.get("added_tokens") or []
    lost = [each.get("content") for each in added]
    lost = [name for name in lost if name not in known and name not in vocabulary]
    if lost:
        notes.append(
            f"{path} has {len(lost)} added tokens that added_tokens_decoder of "
            f"{settings.config} lacks, such as {lost[0]!r:.60}: they are left out, as "
            "in transformers"
        )


def note_around(
    inner: Any, path: Path, settings: Settings, new: Any, notes: list[str]
) -> None:
    """Adds a note if a tokenizer.json puts other special tokens around texts."""
    if path.name != "tokenizer.json" or inner.post_processor is None:
        return
    pair = inner.encode("a", add_special_tokens=False)
    around = [
        (each.ids, each.type_ids)
        for each in (inner.post_processor.process(pair, pair), new.process(pair, pair))
    ]
    if around[0] != around[1]:
        notes.append(
            f"{path} puts other special tokens around texts than "
            f"{class_of(settings)}, the class of {settings.config}: the class holds, "
            "as in transformers"
        )
