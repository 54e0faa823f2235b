"""What the files beside a tokenizer say: its class, casing, special and added tokens.

They are tokenizer_config.json, special_tokens_map.json, added_tokens.json and the
added tokens of tokenizer.json. Which of them counts is as in transformers: those of
`added_tokens_decoder` alone, where tokenizer_config.json has it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ffnlab.data.files import read_json, read_settings
from ffnlab.errors import InputError
from ffnlab.schema import Field, check, check_object

MAX_ID = 2**24 - 1
ADVICE = "download it again"
CONFIG, SPECIAL, ADDED = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
# Special tokens that have a name, in the order in which new ones get their ids.
NAMES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_TOKEN = Field(kind=str, optional=True, either=Field(kind=dict))
_TOKENS = Field(
    kind=list,
    items=Field(kind=str, either=Field(kind=dict)),
    optional=True,
    either=Field(kind=dict),
)
ID = Field(kind=int, least=0, most=MAX_ID)
_NEEDED = Field(kind=int, least=0, most=MAX_ID, required=True)
_SWITCHES = (
    "do_lower_case",
    "strip_accents",
    "tokenize_chinese_chars",
    "add_prefix_space",
    "trim_offsets",
    "add_bos_token",
)
_FIELDS = {
    "tokenizer_class": Field(kind=str, optional=True),
    "added_tokens_decoder": Field(kind=dict, items=Field(kind=dict), optional=True),
    "additional_special_tokens": _TOKENS,
    "extra_special_tokens": _TOKENS,
    **dict.fromkeys(_SWITCHES, Field(kind=bool, optional=True)),
    **dict.fromkeys(NAMES, _TOKEN),
}


class AddedToken(NamedTuple):
    """A token beside those of the vocabulary.

    Attributes:
      content: Its text.
      flags: The flags that a file gives of `tokenizers.AddedToken`, by name.
      source: The file that has it.
    """

    content: str
    flags: Mapping[str, bool]
    source: Path


class Settings(NamedTuple):
    """What is known of a tokenizer beside its vocabulary.

    Attributes:
      directory: The directory of the checkpoint.
      name: The name of its class in transformers, without `Fast`; None if no file
        gives it.
      family: `model_type` of config.json, or None.
      switches: What tokenizer_config.json says to casing and space, by key.
      special: Special tokens by name, such as `cls_token`.
      extra: Further special tokens.
      added: Added tokens by the id that a file gives them.
      closed: Whether `added` is complete without those of tokenizer.json.
    """

    directory: Path
    name: str | None
    family: str | None
    switches: dict[str, bool]
    special: dict[str, AddedToken]
    extra: list[AddedToken]
    added: dict[int, AddedToken]
    closed: bool

    @property
    def config(self) -> Path:
        """The path of tokenizer_config.json, whether it exists or not."""
        return self.directory / CONFIG

    def with_added(self, tokens: Any, source: Path) -> "Settings":
        """Returns the settings with the added tokens of a tokenizer.json."""
        if self.closed:
            return self
        return self._replace(added=self.added | dict(_added(tokens, source)))


def _added(tokens: Any, source: Path) -> Iterator[tuple[int, AddedToken]]:
    """Yields the added tokens of a tokenizer.json with their ids."""
    rows = check(tokens or [], Field(kind=list), f"{source}: added_tokens", ADVICE)
    for row in rows:
        where = f"{source}: added_tokens"
        check_object(row, {"id": _NEEDED}, where, ADVICE)
        yield row["id"], _token(row, source, where)


def _token(value: Any, source: Path, where: str) -> AddedToken:
    """Returns a token that is a text, or an object with `content` and flags."""
    if isinstance(value, str):
        return AddedToken(value, {"special": True}, source)
    fields = {name: Field(kind=bool) for name in _FLAGS}
    content = Field(kind=str, least=1, required=True)
    check_object(value, {"content": content, **fields}, where, ADVICE)
    flags = {name: value[name] for name in _FLAGS if name in value}
    return AddedToken(value["content"], flags, source)


def read_token_settings(directory: Path) -> Settings:
    """Reads the files beside a tokenizer.

    Raises:
      InputError: One of them cannot be read, or a value is of another kind.
    """
    config, held = directory / CONFIG, _read(directory / CONFIG, _FIELDS)
    kinds = {name: Field(kind=str, optional=True) for name in _OF_MODEL}
    model = _read(directory / "config.json", kinds)
    name = held.get("tokenizer_class") or model.get("tokenizer_class")
    decoder = held.get("added_tokens_decoder")
    special, extra = _special(held, config), _extra(held, config)
    if decoder is not None:
        added = dict(_decoded(decoder, config))
    else:
        path = directory / SPECIAL
        others = _read(path, {key: _FIELDS[key] for key in (*NAMES, *_EXTRA)})
        special |= _special(others, path)
        # Those of `additional_special_tokens` are added, and are not special there.
        also = {key: others.get(key) for key in ("extra_special_tokens",)}
        known = [*special.values(), *extra, *_extra(also, path)]
        extra += _extra(others, path)
        known = {each.content for each in known}
        added = dict(_legacy(directory / ADDED, known))
    return Settings(
        directory,
        name.removesuffix("Fast") if name else None,
        model.get("model_type"),
        {key: held[key] for key in _SWITCHES if held.get(key) is not None},
        special,
        extra,
        added,
        decoder is not None,
    )


_OF_MODEL, _EXTRA = (
    ("model_type", "tokenizer_class"),
    ("additional_special_tokens", "extra_special_tokens"),
)


def _read(path: Path, fields: Mapping[str, Field]) -> dict[str, Any]:
    return read_settings(path, fields, ADVICE) if path.is_file() else {}


def _special(held: Mapping[str, Any], source: Path) -> dict[str, AddedToken]:
    """Returns the special tokens that have a name."""
    return {
        name: _token(held[name], source, f"{source}: {name}")
        for name in NAMES
        if held.get(name) not in (None, "")
    }


def _extra(held: Mapping[str, Any], source: Path) -> list[AddedToken]:
    """Returns the special tokens without a name."""
    for key in _EXTRA:
        tokens = held.get(key)
        if tokens:
            rows = tokens.values() if isinstance(tokens, dict) else tokens
            return [_token(row, source, f"{source}: {key}") for row in rows]
    return []


def _decoded(decoder: dict, source: Path) -> Iterator[tuple[int, AddedToken]]:
    """Yields the tokens of `added_tokens_decoder` with their ids."""
    for key, row in decoder.items():
        if not (key.isascii() and key.isdigit() and int(key[:9]) <= MAX_ID):
            raise InputError(
                f"{source}: added_tokens_decoder: {key!r:.60} should be an id of at "
                f"most {MAX_ID}; {ADVICE}"
            )
        yield int(key), _token(row, source, f"{source}: added_tokens_decoder")


def _legacy(path: Path, special: set[str]) -> Iterator[tuple[int, AddedToken]]:
    """Yields the tokens of an added_tokens.json with their ids."""
    if not path.is_file():
        return
    held = check(read_json(path), Field(kind=dict, items=ID), str(path), ADVICE)
    for content, number in held.items():
        flags = {"special": content in special, "normalized": content not in special}
        yield number, AddedToken(content, flags, path)
