"""Where a tokenizer lets a text be divided without a change of its tokens.

Between some characters no token and no word of a tokenizer goes on, and nothing on
one side matters to the other. Texts that are divided there have the tokens of their
words, except that some tokenizers put a space before the first one.
"""

import json
import re
from typing import Any

# The space has a character of ASCII after it, since accents may belong to a space.
_WHITE = re.compile(rb"(?<=[!-~])(?=[\t\r\n]| [\t-~])")
_BLANK = re.compile(rb"(?<=[!-~])(?= [\t-~])")
_INDENT = re.compile(rb"(?<=[\n!-~])(?= [\t-~])")
# GPT-4 and those after it keep the ends of lines with the punctuation before them.
_LINES = re.compile(
    rb"(?<=[A-Za-z0-9])(?=[\t\r\n]| [\t-~])|(?<=[!-~])(?=\t| [\t-~])"
)  # fmt: skip
_SUFFIX = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*"
    rf"[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]+{_SUFFIX}?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    rf"[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]*{_SUFFIX}?",
)
_LETTERS = rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+"
_MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_PATTERNS = {  # of words, by GPT-2, GPT-4 and Llama 3, Qwen 2 and GPT-4o
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+"
    r"|\s+(?!\S)|\s+": _WHITE,
    rf"{_LETTERS}|\p{{N}}{{1,3}}|{_MARKS}|{_REST}": _LINES,
    rf"{_LETTERS}|\p{{N}}|{_MARKS}|{_REST}": _LINES,
    "|".join([*_CASED, r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", _REST]): _LINES,
}
_BY_CHARACTER = {
    *("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer"),
    *("Precompiled", "Nmt", "Prepend"),
}
_DROP_SPACE = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
_SPACE = "\u2581"  # of sentencepiece
_MARKS_OF_ASCII = [chr(code) for code in range(ord("!"), ord("~") + 1)]


def find_boundaries(inner: Any) -> re.Pattern[bytes] | None:
    """Returns what matches between words, or None if no such place is known.

    It holds for texts without an added token.

    Args:
      inner: A `tokenizers.Tokenizer`.
    """
    spec = json.loads(inner.to_str())
    parts = _flat(spec["normalizer"], "normalizers")
    if spec["model"].get("dropout") or not all(map(_is_local, parts)):
        return None
    if parts and any(token["normalized"] for token in spec["added_tokens"]):
        return None
    splits = _flat(spec["pre_tokenizer"], "pretokenizers")
    kinds = [split["type"] for split in splits]
    if kinds and kinds[0] in _DROP_SPACE:
        return _WHITE if _keeps_space(inner, "\t\r\n ") else None
    if kinds == ["Metaspace"] and splits[0]["split"]:
        return _BLANK if _keeps_space(inner, " ", same=True) else None
    if kinds in ([], ["Metaspace"]):
        return _INDENT if _merges_in_words(inner, spec) else None
    return _by_pattern(splits) if _keeps_space(inner, "\t\r\n ", same=True) else None


def _flat(part: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """Returns the parts of a normalizer or pre-tokenizer, in their order."""
    if part is None or part["type"] != "Sequence":
        return [part] if part else []
    return [each for inner in part[key] for each in _flat(inner, key)]


def _is_local(part: dict[str, Any]) -> bool:
    """Returns whether a normalizer changes nothing by what is across a boundary."""
    if part["type"] != "Replace":
        return part["type"] in _BY_CHARACTER
    (kind, pattern), *_ = part["pattern"].items()
    if kind == "Regex":
        return pattern == " {2,}" and part["content"] == " "
    content = part["content"]
    plain = re.fullmatch("[!-~]+", pattern) and content and _SPACE not in content
    return pattern == " " or bool(plain and content.split() == [content])


def _keeps_space(inner: Any, spaces: str, same: bool = False) -> bool:
    """Returns whether the normalizer leaves white space after each mark of ASCII.

    Args:
      inner: The tokenizer.
      spaces: The characters of white space.
      same: Whether each has to stay the same.
    """
    if inner.normalizer is None:
        return True
    for mark in _MARKS_OF_ASCII:
        for space in spaces:
            text = inner.normalizer.normalize_str(f"{mark}{space}a")
            before, found = text[:-2], text[-2:]
            if not before.strip() or before[-1].isspace() or found[-1:] != "a":
                return False
            if found[0] != space and (same or not found[0].isspace()):
                return False
    return True


def _merges_in_words(inner: Any, spec: dict[str, Any]) -> bool:
    """Returns whether a model of whole texts joins no space to what is before it."""
    model, vocabulary = spec["model"], inner.get_vocab(with_added_tokens=False)
    if model["type"] != "BPE" or _SPACE not in vocabulary:
        return False
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return False
    if any(_SPACE in token.lstrip(_SPACE) for token in vocabulary):
        return False
    for mark in ["\n", *_MARKS_OF_ASCII]:
        text = f"{mark} a"
        if inner.normalizer is not None:
            text = inner.normalizer.normalize_str(text)
        if inner.pre_tokenizer is not None:
            pieces = inner.pre_tokenizer.pre_tokenize_str(text)
            text = "".join(piece for piece, _ in pieces)
        if not text.lstrip(_SPACE).endswith(f"{_SPACE}a") or text[-3] == _SPACE:
            return False
    return True


def _by_pattern(splits: list[dict[str, Any]]) -> re.Pattern[bytes] | None:
    """Returns the boundaries of pre-tokenizers that match words by known patterns."""
    found = []
    for split in splits:
        kind = split["type"]
        if kind == "ByteLevel":
            if split["add_prefix_space"] and len(splits) > 1:
                return None
            found += [_WHITE] if split.get("use_regex", True) else []
        elif kind == "Split":
            boundary = _PATTERNS.get(split["pattern"].get("Regex", ""))
            if boundary is None or split["invert"] or split["behavior"] != "Isolated":
                return None
            found.append(boundary)
        elif kind not in ("Digits", "Punctuation"):
            return None
    return (_LINES if _LINES in found else _WHITE) if found else None
