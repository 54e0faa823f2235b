"""JSON in the layouts that people have: lines, arrays, parts and columns.

    file = read_json_rows("train.json")
    file.rows[0]      # (1, {"text": "hello", "label": "greeting"})
    document(file.around, ['{"text": "hello", "label": "greeting"}'])

A `.json` file may hold JSON lines; indented objects one after another; an array of
objects or of lists, indented or not; an object with such an array under `data`, or one
for each part; or an object of columns, as pandas writes it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ffnlab import schema
from ffnlab.data.files import read_lines, require_file, stop_at
from ffnlab.data.json_lines import parse_objects
from ffnlab.errors import InputError, choose
from ffnlab.escape import json_text, terminal

# The keys of the parts in a file that holds several; the first is written.
PART_KEYS = {
    "train": ("train",),
    "dev": ("val", "validation", "dev", "valid"),
    "test": ("test",),
}
_KNOWN = (
    "Expected JSON lines, an array of objects or lists, or an object with such an "
    "array under 'data' or for each part"
)


class JsonRows(NamedTuple):
    """The rows of a file of JSON, and how they were written.

    Attributes:
      kind: `jsonl` or `json`.
      rows: The line of each row, or its position in the array, from 1; and the object
        or list, or what is wrong with it.
      where: The file, with the key of the array if it has one.
      note: The layout in words, such as `JSON: an array of objects`.
      part: The part that was read, if the file has several.
      around: What stands before and after the rows of an array.
    """

    kind: str
    rows: list[tuple[int, Any]]
    where: str
    note: str
    part: str | None = None
    around: tuple[str, str] = ("[\n", "\n]\n")


def document(around: tuple[str, str], lines: Iterable[str]) -> str:
    r"""Returns a file of JSON, of rows that are texts of JSON.

    >>> document(("[\n", "\n]\n"), ['{"a": 1}\n', '{"a": 2}\n'])
    '[\n{"a": 1},\n{"a": 2}\n]\n'
    """
    before, after = around
    return before + ",\n".join(line.rstrip("\n") for line in lines) + after


def read_json_rows(
    path: str | Path,
    part: str | None = "train",
    kind: str = "json",
    words: bool = False,
) -> JsonRows:
    """Reads the objects or lists of a file of JSON.

    Args:
      path: The file; UTF-8, with or without a byte-order mark, any line ends.
      part: The part to read from a file that has several: `train`, `dev` or `test`;
        None takes the last.
      kind: `json`, in which the layout is found, or `jsonl`, which is lines unless the
        file is one array.
      words: Whether texts may be lists of words, so that an object of lists can be one
        row.

    Raises:
      InputError: The file is not JSON, or in none of the layouts.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.json")
    ...     _ = path.write_text('{"data": [{"text": "a"}, 7]}')
    ...     read_json_rows(path).rows
    [(1, {'text': 'a'}), (2, InputError('expected an object of JSON'))]
    """
    path = require_file(path)
    texts, problems = read_lines(path)
    if kind == "jsonl" and not _is_array(texts):
        return _lines(path, texts, problems, "JSON lines")
    stop_at(path, problems if kind == "json" and not _is_lines(texts) else [])
    if _is_lines(texts):
        return _lines(path, texts, problems, "JSON lines")
    if objects := _indented(texts):
        rows, note = [*parse_objects(objects)], "JSON: objects, written as lines"
        return JsonRows("jsonl", rows, str(path), note)
    value = schema.parse_json("\n".join(texts), str(path))
    if isinstance(value, list):
        return _array(str(path), value, "an array")
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected an array or an object of JSON")
    return _object(path, value, part, words)


def _is_lines(texts: Sequence[str]) -> bool:
    """Returns whether the first of several lines that are not blank is an object."""
    held = [line for line in texts if line.strip()]
    return len(held) > 1 and _is_object(held[0])


def _indented(texts: Sequence[str]) -> list[tuple[int, str]]:
    """Returns the line and text of each of several indented objects, as jq writes."""
    ends = [number for number, line in enumerate(texts, 1) if line.rstrip() == "}"]
    first = next((line.rstrip() for line in texts if line.strip()), "")
    if first != "{" or len(ends) < 2:
        return []
    pieces = zip([0, *ends], [*ends, len(texts)], strict=True)
    return [(start + 1, "\n".join(texts[start:stop])) for start, stop in pieces]


def _is_object(line: str) -> bool:
    ((_, value),) = parse_objects([(1, line)])
    return isinstance(value, dict)


def _is_array(texts: Sequence[str]) -> bool:
    """Returns whether a file is one array of objects or lists."""
    first = next((line.strip() for line in texts if line.strip()), "")
    if not first.startswith("["):
        return False
    try:
        value = schema.parse_json("\n".join(texts))
    except InputError:
        return False
    return bool(value) and isinstance(value[0], dict | list)


def _lines(
    path: Path, texts: Sequence[str], problems: list[tuple[int, str]], note: str
) -> JsonRows:
    errors = [(line, InputError(problem)) for line, problem in problems]
    rows = [*errors, *parse_objects(enumerate(texts, 1))]
    return JsonRows("jsonl", rows, str(path), note)


def _array(
    where: str,
    values: Sequence[Any],
    place: str,
    around: tuple[str, str] = ("[\n", "\n]\n"),
    part: str | None = None,
) -> JsonRows:
    """Returns the rows of an array of objects or of lists."""
    kind = list if values and isinstance(values[0], list) else dict
    one, noun = ("a list", "lists") if kind is list else ("an object", "objects")
    wrong = InputError(f"expected {one} of JSON")
    rows = [(n, v if isinstance(v, kind) else wrong) for n, v in enumerate(values, 1)]
    return JsonRows("json", rows, where, f"JSON: {place} of {noun}", part, around)


def _object(
    path: Path, value: dict[str, Any], part: str | None, words: bool
) -> JsonRows:
    """Returns the rows of an object: parts, an array under `data`, columns, a row."""
    lists = [name for name, each in value.items() if isinstance(each, list)]
    parts = {
        name: next((key for key in keys if key in lists), None)
        for name, keys in PART_KEYS.items()
    }
    held = [name for name, key in parts.items() if key]
    if part is None and held:
        part = held[-1]
    if part and parts[choose("part", part, PART_KEYS)]:
        key = parts[part]
        around = (f"{{{json.dumps(key)}: [\n", "\n]}\n")
        return _array(f"{path}: {key}", value[key], f"{key}, an array", around, part)
    if "data" in lists:
        return _data(path, value)
    if not held and (columns := _columns(value, words)):
        return _array(str(path), columns, "columns, written as an array")
    if words or not all(isinstance(each, list | dict) for each in value.values()):
        return JsonRows("jsonl", [(1, value)], str(path), "JSON lines")
    known = ", ".join(map(terminal, lists)) or "none"
    missing = repr(PART_KEYS[part][0]) if part else "train, val, test"
    raise InputError(f"{path}: no list {missing}; there is {known}. {_KNOWN}")


def _data(path: Path, value: dict[str, Any]) -> JsonRows:
    """Returns the rows under `data`; with `columns` they are lists of their values."""
    values, names = value["data"], value.get("columns")
    rows = [each for each in values if isinstance(each, list)]
    if isinstance(names, list) and len(rows) == len(values):
        values = [dict(zip(map(str, names), row, strict=False)) for row in rows]
        return _array(str(path), values, "columns and data, written as an array")
    others = {key: each for key, each in value.items() if key != "data"}
    head = json_text(json.dumps(others, ensure_ascii=False))[:-1]
    around = (f'{head}{", " if others else ""}"data": [\n', "\n]}\n")
    return _array(f"{path}: data", values, "data, an array", around)


def _columns(value: Mapping[str, Any], words: bool) -> list[dict[str, Any]]:
    """Returns the rows of an object of columns; none if it is something else."""
    columns = [
        list(each.values()) if isinstance(each, dict) else each
        for each in value.values()
    ]
    if not columns or not all(isinstance(each, list) for each in columns):
        return []
    if len({len(each) for each in columns}) > 1 or not columns[0]:
        return []
    if words and not any(isinstance(column[0], list) for column in columns):
        return []
    return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
