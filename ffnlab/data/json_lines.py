"""JSON lines: one object per line, with texts, labels or lists of words."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ffnlab.data.files import is_text
from ffnlab.errors import InputError
from ffnlab.escape import terminal
from ffnlab.schema import parse_json


def parse_objects(
    lines: Iterable[tuple[int, str]],
) -> Iterator[tuple[int, dict[str, Any] | InputError]]:
    """Yields the object of each line, or what is wrong with it.

    Args:
      lines: Line numbers, from 1, and lines; blank ones are skipped.

    Yields:
      Line numbers, and the object or an error without the line.

    >>> [*parse_objects([(1, '{"a": 2}'), (2, ""), (3, "[4]")])]
    [(1, {'a': 2}), (3, InputError('expected an object of JSON'))]
    """
    for number, line in lines:
        if line.strip():
            yield number, _object(line)


def _object(line: str) -> dict[str, Any] | InputError:
    try:
        record = parse_json(line)
    except InputError as error:
        return error
    if isinstance(record, dict):
        return record
    return InputError("expected an object of JSON")


def texts_of(
    record: dict[str, Any], names: Sequence[str], label: str | None = None
) -> list[str]:
    """Returns the texts under some keys; whole numbers are texts too.

    Args:
      record: An object.
      names: The keys.
      label: The key that may also be true or false.

    Raises:
      InputError: A key is missing, or its value is not a text; without the line.

    >>> texts_of({"text": "a", "label": 3}, ["text", "label"])
    ['a', '3']
    >>> texts_of({"text": "a", "label": True}, ["text", "label"], "label")
    ['a', 'true']
    """
    texts = []
    for name in names:
        value = value_of(record, name)
        if isinstance(value, bool) and name == label:
            value = "true" if value else "false"
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise InputError(f"{name!r} should be a text or a whole number")
        if not is_text(str(value)):
            raise InputError(f"{name!r} is empty, or has half of a surrogate pair")
        texts.append(str(value))
    return texts


def words_of(
    record: dict[str, Any], names: Sequence[str], label: str | None = None
) -> list[list[Any]]:
    """Returns the list of words, and that of tags, under one or two keys.

    Args:
      record: An object.
      names: The keys.
      label: The key whose list may also be of whole numbers.

    Raises:
      InputError: A key is missing, its value is not a list of texts, or there are not
        as many tags as words; without the line.

    >>> words_of({"text": ["Ada", "sings"], "label": ["B-PER", "O"]}, ["text", "label"])
    [['Ada', 'sings'], ['B-PER', 'O']]
    """
    lists = []
    for name in names:
        value = value_of(record, name)
        numbers = name == label and isinstance(value, list) and bool(value)
        numbers = numbers and all(type(each) is int for each in value)
        texts = isinstance(value, list) and value and all(map(is_text, value))
        if not texts and not numbers:
            raise InputError(f"{name!r} should be a list of words or tags, none blank")
        lists.append(value)
    words, *tags = map(len, lists)
    if tags and tags[0] != words:
        raise InputError(f"{words} words and {tags[0]} tags; give one tag per word")
    return lists


def value_of(record: dict[str, Any], name: str) -> Any:
    """Returns the value under a key.

    Raises:
      InputError: There is no such key; without the line.

    >>> value_of({"a": 2}, "a")
    2
    """
    if name not in record:
        names = ", ".join(map(terminal, record)) or "nothing"
        raise InputError(f"no {name!r}; there is {names}")
    return record[name]
