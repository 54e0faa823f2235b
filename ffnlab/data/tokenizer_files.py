"""Reads the tokenizer of a checkpoint directory, as transformers does.

    tokenizer = read_tokenizer("minilm")
    tokenizer.notes                         # a line where two files disagree

The files are tokenizer.json, or vocab.txt, or vocab.json with merges.txt; with them
tokenizer_config.json, special_tokens_map.json and added_tokens.json. The choices are
those of transformers 5: a class that the family of the checkpoint has, such as
BertTokenizer, takes casing and the like from tokenizer_config.json and words from
tokenizer.json; any other class takes tokenizer.json as it is.
"""

import json
import warnings
from pathlib import Path
from typing import Any

from ffnlab.data.corpus import ByteTokenizer, Tokenizes
from ffnlab.data.files import read_json, require_file
from ffnlab.data.tokenizer import Tokenizer
from ffnlab.data.tokenizer_kinds import BERT, GPT2, KINDS, ROBERTA, Kind, class_of
from ffnlab.data.tokenizer_notes import (
    note_around,
    note_lost_tokens,
    note_switches,
    outcomes,
)
from ffnlab.data.tokenizer_settings import (
    ADVICE,
    ID,
    MAX_ID,
    NAMES,
    AddedToken,
    Settings,
    read_token_settings,
)
from ffnlab.errors import InputError
from ffnlab.schema import Field, check, check_object

FILES = ("tokenizer.json", "vocab.txt", "vocab.json")
_SENTENCEPIECE = ("sentencepiece.bpe.model", "spiece.model", "tokenizer.model")
_TOKENIZER_BYTES = 2**28
_PROBE = "a 1 \u732b \U0001f600"  # a tokenizer without an unknown token fails on it


def read_tokenizer(directory: str | Path) -> Tokenizer:
    """Reads the tokenizer of a checkpoint directory.

    There is a warning where two of its files disagree.

    Args:
      directory: The directory of tokenizer.json, of vocab.txt of a BERT, or of
        vocab.json and merges.txt of a RoBERTa or GPT-2.

    Raises:
      InputError: None of the files exists, or one cannot be read.
    """
    return _warned(_read(directory))


def _read(directory: str | Path) -> Tokenizer:
    """Returns the tokenizer of a checkpoint directory, without warnings."""
    try:
        import tokenizers  # noqa: F401, before a file is read
    except ImportError:
        raise InputError(
            f"{directory}: tokens need tokenizers: pip install 'ffnlab[pretrained]'"
        ) from None
    directory = Path(directory)
    settings, path = read_token_settings(directory), directory / "tokenizer.json"
    if not path.is_file():
        path = _vocabulary_file(directory, settings)
    reader = _READERS[path.name]
    notes: list[str] = []
    try:
        inner, settings, kind = reader(path, settings, notes)
        names = _complete(inner, path, settings, kind, notes)
        _try(inner, path)
        tokenizer = Tokenizer(inner, str(path), notes, names)
    except (InputError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises nothing narrower than panics
        what = " ".join(str(error).split())
        raise InputError(f"{path}: not a tokenizer: {what:.200}") from None
    return tokenizer


def checkpoint_tokenizer(
    directory: str | Path,
    vocabulary: int,
    types: int = 0,
    texts: bool = False,
    warn: bool = True,
) -> Tokenizes:
    """Returns the tokenizer of a checkpoint, checked against the sizes of its model.

    Args:
      directory: The directory of the checkpoint.
      vocabulary: The number of tokens of its model.
      types: The number of token types of its model; 0 for none, or where no text has a
        second one.
      texts: Whether a tokenizer of texts is needed. If not, a model of bytes without a
        file has that of bytes.
      warn: Whether to warn where two files disagree; `notes` of the tokenizer has it in
        any case.

    Raises:
      InputError: The file is missing, although the model is not one of bytes, or it
        cannot be read, or the model has no embedding for one of its tokens.
    """
    exists = any(Path(directory, name).exists() for name in FILES)
    if vocabulary == ByteTokenizer.size and not exists and not texts:
        return ByteTokenizer()
    tokenizer = _read(directory)
    tokenizer.check(vocabulary, types)
    return _warned(tokenizer) if warn else tokenizer


def _warned(tokenizer: Tokenizer) -> Tokenizer:
    """Returns a tokenizer after a warning on each of its notes."""
    for note in tokenizer.notes:
        warnings.warn(note, stacklevel=3)
    return tokenizer


def _vocabulary_file(directory: Path, settings: Settings) -> Path:
    """Returns the vocabulary of a checkpoint without a tokenizer.json.

    Raises:
      InputError: There is none, or it is one of sentencepiece.
    """
    words, pieces = directory / "vocab.txt", directory / "vocab.json"
    kind = KINDS.get(class_of(settings) or "")
    if pieces.is_file() and (kind in (ROBERTA, GPT2) or not words.is_file()):
        require_file(directory / "merges.txt")
        return pieces
    for name in _SENTENCEPIECE:
        if not words.is_file() and (directory / name).is_file():
            raise InputError(
                f"{directory / name}: sentencepiece is read from tokenizer.json, which "
                "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR) of "
                "transformers writes"
            )
    return require_file(words)


Read = tuple[Any, Settings, Kind | None]


def _read_json(path: Path, settings: Settings, notes: list[str]) -> Read:
    """Returns the tokenizer of a tokenizer.json, without added tokens if it has a kind.

    That is a class which makes its parts anew, from the switches of
    tokenizer_config.json.
    """
    from tokenizers import Tokenizer as Inner

    spec, name = _check_numbers(path), class_of(settings)
    kind = KINDS.get(name or "")
    held = _model_of(spec)
    if kind is not None and held != kind.model:
        notes.append(
            f"{path} holds a {held}, {name} of {settings.config} is a {kind.model}: "
            "tokenizer.json holds"
        )
        kind = None
    if kind is None:
        note_switches(path, spec, settings, notes, ignored=True)
        return Inner.from_file(str(path)), settings, None
    if settings.closed:
        note_lost_tokens(path, spec, settings, notes)
    settings = settings.with_added(spec.get("added_tokens"), path)
    inner = Inner.from_str(json.dumps({**spec, "added_tokens": []}))
    before = outcomes(inner)
    for part, value in kind.parts(settings.switches, _precompiled(spec)).items():
        setattr(inner, part, value)
    count = len(notes)
    note_switches(path, spec, settings, notes)
    if len(notes) == count and outcomes(inner) != before:
        notes.append(
            f"{path} splits or normalizes texts unlike {name}, the class of "
            f"{settings.config}: the class holds, as in transformers"
        )
    return inner, settings, kind


def _model_of(spec: dict[str, Any]) -> str:
    """Returns the name of the model; old files do not give it."""
    model = spec.get("model")
    model = model if isinstance(model, dict) else {}
    if isinstance(model.get("type"), str):
        return model["type"]
    if isinstance(model.get("vocab"), list):
        return "Unigram"
    return "BPE" if "merges" in model else "WordPiece"


def _precompiled(spec: dict[str, Any]) -> Any:
    """Returns the normalizer of sentencepiece in a tokenizer.json, or None."""
    import base64

    from tokenizers import normalizers

    part = spec.get("normalizer") or {}
    for each in part.get("normalizers") or [part]:
        if each.get("type") == "Precompiled":
            return normalizers.Precompiled(
                base64.b64decode(each["precompiled_charsmap"])
            )
    return None


def _read_words(path: Path, settings: Settings, notes: list[str]) -> Read:
    """Returns BERT's tokenizer for a vocab.txt."""
    from tokenizers import Tokenizer as Inner
    from tokenizers import models

    try:
        words = path.read_text("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8") from None
    vocabulary = {word: number for number, word in enumerate(words)}
    if len(vocabulary) < len(words):
        number = next(n for n, word in enumerate(words) if vocabulary[word] != n)
        raise InputError(f"{path}:{number + 1}: {words[number]!r} is there twice")
    names = _names(settings, BERT)
    for name in ("unk_token", "cls_token", "sep_token"):
        token = names[name]
        added = {each.content for each in settings.added.values()}
        if token not in vocabulary and (name == "unk_token" or token not in added):
            raise InputError(f"{path}: {token} is missing; is it the file of a BERT?")
    model = models.WordPiece(vocabulary, unk_token=names["unk_token"])
    return _with_parts(Inner(model), settings, BERT)


def _read_pieces(path: Path, settings: Settings, notes: list[str]) -> Read:
    """Returns the tokenizer of a RoBERTa or GPT-2 for a vocab.json and a merges.txt."""
    from tokenizers import Tokenizer as Inner
    from tokenizers import models

    vocabulary = read_json(path)
    check(vocabulary, Field(kind=dict, items=ID), f"{path}", ADVICE)
    kind = KINDS.get(class_of(settings) or "")
    if kind not in (ROBERTA, GPT2):
        kind = ROBERTA if "<s>" in vocabulary else GPT2
    merges = path.with_name("merges.txt")
    pieces = models.BPE.read_file(str(path), str(merges))
    return _with_parts(Inner(models.BPE(*pieces)), settings, kind)


def _with_parts(inner: Any, settings: Settings, kind: Kind) -> Read:
    """Returns a new tokenizer with the parts of its kind."""
    for part, value in kind.parts(settings.switches, None).items():
        if value is not None:
            setattr(inner, part, value)
    return inner, settings, kind


_READERS = {
    "tokenizer.json": _read_json,
    "vocab.txt": _read_words,
    "vocab.json": _read_pieces,
}


def _names(settings: Settings, kind: Kind | None) -> dict[str, str]:
    """Returns the special tokens by name, those of the kind where no file has any."""
    own = {name: each.content for name, each in settings.special.items()}
    return {**(kind.special if kind else {}), **own}


def _complete(
    inner: Any, path: Path, settings: Settings, kind: Kind | None, notes: list[str]
) -> dict[str, str]:
    """Adds the tokens beside the vocabulary, and those around texts.

    Returns:
      The special tokens by name.
    """
    names, source = _names(settings, kind), settings.config
    needed = {*settings.special, *(kind.around if kind else ())}
    special = {
        name: settings.special.get(name, AddedToken(token, {"special": True}, source))
        for name, token in names.items()
        if name in needed or inner.token_to_id(token) is not None
    }
    tokens = [token for _, token in sorted(settings.added.items())]
    listed = {token.content for token in tokens}
    listed |= {token.content for token in inner.get_added_tokens_decoder().values()}
    named = [special[name] for name in NAMES if name in special]
    for token in (*named, *settings.extra):
        if token.content not in listed:
            listed.add(token.content)
            tokens.append(token._replace(flags={**token.flags, "special": True}))
    _add(inner, tokens, set(names.values()))
    for number, token in sorted(settings.added.items()):
        found = inner.token_to_id(token.content)
        if found != number:
            notes.append(
                f"{token.source} gives {token.content!r:.60} the id {number}, the next "
                f"of {path} is {found}, which holds, as in transformers"
            )
            break  # those that follow are as far off
    if kind is not None:
        post_processor = kind.post_processor(
            settings.switches, names, inner.token_to_id
        )
        if post_processor is not None:
            note_around(inner, path, settings, post_processor, notes)
            inner.post_processor = post_processor
    return names


def _add(inner: Any, tokens: list[AddedToken], special: set[str]) -> None:
    """Adds tokens in their order; those in the vocabulary keep their ids."""
    from tokenizers import AddedToken as Token

    there = {repr(token) for token in inner.get_added_tokens_decoder().values()}
    made = []
    for token in tokens:
        flags = {**token.flags}
        if token.content in special:
            flags["special"] = True
        made.append(Token(token.content, **flags))
    inner.add_tokens([token for token in made if repr(token) not in there])


def _try(inner: Any, path: Path) -> None:
    """Encodes a text and a pair, and checks the ids of all tokens."""
    inner.no_truncation()
    inner.no_padding()
    encoded = inner.encode(_PROBE).ids + inner.encode(_PROBE, _PROBE).ids
    if max({*inner.get_vocab().values(), *encoded}, default=0) > MAX_ID:
        raise InputError(f"{path}: token numbers should be at most {MAX_ID}")


def _check_numbers(path: Path) -> dict[str, Any]:
    """Returns a tokenizer.json, after a check of the numbers of its tokens.

    The library allocates by the largest of them.

    Raises:
      InputError: The file is too large or not JSON, or a number is out of its range.
    """
    if path.stat().st_size > _TOKENIZER_BYTES:
        raise InputError(f"{path}: should be at most 256 MiB; {ADVICE}")
    settings = read_json(path)
    model, added = settings.get("model"), settings.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        check(vocabulary, Field(kind=dict, items=ID), f"{path}: vocab", ADVICE)
    for token in added if isinstance(added, list) else []:
        check_object(token, {"id": ID}, f"{path}: added_tokens", ADVICE)
    return settings
