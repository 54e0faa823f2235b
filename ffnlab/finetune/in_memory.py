"""Data frames and lists as data of a fine-tuning, written as files of its run.

A part may be a data frame (anything with `columns`, such as that of pandas or polars),
a dict of columns, or a list of dicts, of tuples `(text, label)`, `(words, tags)` and
the like. It is written to `data/PART.jsonl` in the run directory, with the columns that
the task reads, so that the flags of the run repeat it and an interrupted run is
resumed.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ffnlab import io
from ffnlab.data.examples import PARTS
from ffnlab.data.files import is_text, stop_with
from ffnlab.data.labels import describe_missing, label_text
from ffnlab.errors import InputError, choose
from ffnlab.escape import json_text, terminal
from ffnlab.finetune.config import Config
from ffnlab.report.run_directory import DATA, acquire, choose_directory

_Record = dict[str, Any]


def is_in_memory(value: Any) -> bool:
    """Returns whether a part is given as a value, and not as the path of a file."""
    return value is not None and not isinstance(value, str | os.PathLike)


def read_options(
    config: Config | None, options: Mapping[str, Any]
) -> tuple[Config, dict[str, Any]]:
    """Returns a configuration, and the parts that are given as values.

    Args:
      config: The configuration; None builds it from the options.
      options: Fields of `Config`. The parts `train`, `dev` and `test` may be values;
        paths may be `pathlib.Path`.

    Raises:
      InputError: A name is unknown, both are given, or the configuration is refused.
    """
    if config is not None:
        if options:
            name = next(iter(options))
            raise InputError(f"{name}: given beside a Config; give one of them")
        if not isinstance(config, Config):
            raise InputError(
                f"config: {config!r:.60} should be a Config; or give its fields, such "
                "as checkpoint=..., train=..."
            )
        return config, {}
    fields = [field.name for field in dataclasses.fields(Config)]
    for name in options:
        choose("option", name, fields)
    values = {part: options[part] for part in PARTS if is_in_memory(options.get(part))}
    given = {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in options.items()
    }
    if values and not given.get("out") and not given.get("resume"):
        given["out"] = choose_directory(None, "finetune")
    folder = Path(given.get("out") or "", DATA)
    return Config(**given | {part: str(folder / f"{part}.jsonl") for part in values}), (
        values
    )


@contextlib.contextmanager
def written(config: Config, values: Mapping[str, Any]) -> Any:
    """Writes parts that are given as values; removes them if the run does not begin.

    Args:
      config: The configuration, whose parts are files of the run directory.
      values: The parts by name.

    Raises:
      InputError: A part cannot be used, or differs from that of the run to resume.
    """
    texts = {part: json_lines(part, value, config) for part, value in values.items()}
    if config.resume or not texts:
        for part, text in texts.items():
            path = Path(config.file_of(part))
            if not path.is_file() or io.read(path) != text:
                raise InputError(f"{part}: differs from {path}; start a new run")
        yield
        return
    out, folder = Path(config.out), Path(config.out, DATA)
    new = not out.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with acquire(out):
            for part, text in texts.items():
                io.write(config.file_of(part), text)
        yield
    except BaseException as error:
        if not (out / "flags").exists():
            shutil.rmtree(out if new else folder, ignore_errors=True)
            if isinstance(error, InputError):
                raise InputError(_without_paths(str(error), config, texts)) from None
        raise


def _without_paths(message: str, config: Config, parts: Iterable[str]) -> str:
    """Returns an error whose files are removed, with the rows of parts in their place.

    >>> config = Config(checkpoint="tiny", train="o/a.jsonl", dev="b.jsonl")
    >>> _without_paths("o/a.jsonl:3: no answer", config, ["train"])
    'train: row 3: no answer'
    """
    for part in parts:
        path = re.escape(terminal(config.file_of(part)))
        message = re.sub(rf"{path}:(\d+)", rf"{part}: row \1", message)
        message = re.sub(path, part, message)
    return message


def json_lines(part: str, data: Any, config: Config) -> str:
    r"""Returns the examples of a part as JSON lines.

    Args:
      part: The name of the part, for errors.
      data: A data frame, a dict of columns, or a list of dicts or tuples.
      config: The configuration, for its task and the names of columns.

    Raises:
      InputError: A column is missing, there is no example, or up to 20 examples that
        cannot be used.

    >>> config = Config(checkpoint="tiny", train="a.jsonl", dev="b.jsonl")
    >>> json_lines("train", [("hello", 3)], config)
    '{"text": "hello", "label": "3"}\n'
    """
    names, optional = _columns(config, _held(data))
    rows = _rows(part, data, names, optional)
    if not rows:
        raise InputError(f"{part}: it is empty; give at least one example")
    problems, records, known = [], [], {}
    for number, row in enumerate(rows, 1):
        try:
            if isinstance(row, InputError):
                raise row
            records.append(_record(row, config, known))
        except InputError as error:
            problems.append(f"{part}: row {number}: {error}")
    stop_with(part, problems)
    lines = (json_text(json.dumps(each, ensure_ascii=False)) for each in records)
    return "".join(line + "\n" for line in lines)


def _held(data: Any) -> list[str]:
    """Returns the columns of a table, or the keys of the first of several dicts."""
    if hasattr(data, "columns") or hasattr(data, "column_names"):
        names = data.columns if hasattr(data, "columns") else data.column_names
        return [str(name) for name in names]
    first = data[0] if isinstance(data, Sequence) and data else data
    return list(map(str, first)) if isinstance(first, Mapping) else []


def _columns(config: Config, held: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the columns that a task needs, in the order of a tuple, and may have."""
    if config.task == "qa":
        return ["question", "context", "answers"], ["id"]
    task = "classify" if config.marks else config.task
    names = config.columns.resolve(task, held).names(task)
    ids = [config.id_column] if config.id_column else []
    return names, [name for name in ids if name in held and name not in names]


def _rows(
    part: str, data: Any, names: Sequence[str], optional: Sequence[str]
) -> list[_Record | InputError]:
    """Returns examples as dicts of the columns, or what is wrong with their form."""
    if hasattr(data, "columns") or isinstance(data, Mapping):
        return _of_table(part, data, names, optional)
    if isinstance(data, tuple | set | bytes) or not isinstance(data, Iterable):
        kind = type(data).__name__
        raise InputError(
            f"{part}: got {kind}; give a file, a data frame, or a list of dicts or of "
            f"tuples ({', '.join(names)}), such as list(zip(texts, labels))"
        )
    return [_of_example(each, names, optional) for each in data]


def _of_table(
    part: str, table: Any, names: Sequence[str], optional: Sequence[str]
) -> list[_Record | InputError]:
    """Returns the rows of a data frame or of a dict of columns."""
    keys = list(table.columns) if hasattr(table, "columns") else list(table)
    texts = [str(key) for key in keys]
    for name in names:
        if name not in texts:
            shown = ", ".join(map(terminal, texts)) or "nothing"
            raise InputError(
                f"{part}: no column {name!r}; there is {shown}; give text_column and "
                "label_column"
            )
    held = [name for name in (*names, *optional) if name in texts]
    for name in held:
        if texts.count(name) > 1:
            raise InputError(f"{part}: two columns are named {name!r}; rename one")
    columns = [table[keys[texts.index(name)]] for name in held]
    for name, column in zip(held, columns, strict=True):
        if isinstance(column, str) or not isinstance(column, Iterable):
            raise InputError(f"{part}: column {name!r} should be a list of values")
    columns = [list(column) for column in columns]
    sizes = {name: len(each) for name, each in zip(held, columns, strict=True)}
    if len({*sizes.values()}) > 1:
        shown = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise InputError(f"{part}: columns of unequal lengths: {shown}")
    return [dict(zip(held, row, strict=True)) for row in zip(*columns, strict=True)]


def _of_example(
    example: Any, names: Sequence[str], optional: Sequence[str]
) -> _Record | InputError:
    """Returns a dict of the columns of one example, or what is wrong with it."""
    if isinstance(example, Mapping):
        missing = [name for name in names if name not in example]
        if missing:
            shown = ", ".join(terminal(str(key)) for key in example) or "nothing"
            return InputError(f"no {missing[0]!r}; there is {shown}")
        return {name: example[name] for name in (*names, *optional) if name in example}
    shown = f"({', '.join(names)})"
    example = example.tolist() if hasattr(example, "tolist") else example
    if not isinstance(example, tuple | list):
        return InputError(f"expected a dict or a tuple {shown}, got {example!r:.60}")
    if len(example) != len(names):
        size = len(example)
        return InputError(f"expected {len(names)} values {shown}, got {size}")
    return dict(zip(names, example, strict=True))


def _record(row: _Record, config: Config, known: dict[str, Any]) -> _Record:
    """Returns a row ready for JSON.

    Args:
      row: The values of the columns.
      config: The configuration.
      known: The labels so far, by their texts; it is updated.

    Raises:
      InputError: A value is missing or of another kind; the column is named.
    """
    if config.task == "qa":  # the reader of its file checks the answers
        texts = {name: _text(name, row[name]) for name in ("question", "context")}
        rest = {
            name: io.jsonable(row[name]) for name in ("id", "answers") if name in row
        }
        return {**rest, **texts}
    row = dict(row)
    ids = {config.id_column: io.jsonable(row.pop(config.id_column, None))}
    if ids != {config.id_column: None}:
        return {**ids, **_record(row, config, known)}
    *names, last = row
    if config.task == "tag":
        words, tags = _words(names[0], row[names[0]]), _list(last, row[last])
        if len(words) != len(tags):
            raise InputError(
                f"{len(words)} words and {len(tags)} tags; give one tag per word"
            )
        return {names[0]: words, last: [_label(last, tag, known) for tag in tags]}
    if config.targets:
        return _with_targets(row, config)
    texts = {name: _text(name, row[name]) for name in names}
    generates = config.task == "generate"
    label = _text(last, row[last]) if generates else _label(last, row[last], known)
    return {**texts, last: label}


def _with_targets(row: _Record, config: Config) -> _Record:
    """Returns a row of texts with a number, or with several labels, ready for JSON."""
    count = len(config.columns.labels)
    labels = [*row][-count:]
    values = [row[name] for name in labels]
    plain = [each.tolist() if hasattr(each, "tolist") else each for each in values]
    target = config.targets.parse(plain, labels)
    texts = {name: _text(name, row[name]) for name in [*row][:-count]}
    if count > 1:
        return texts | {name: int(name in target) for name in labels}
    return texts | {labels[0]: target}


def _text(name: str, value: Any) -> str:
    """Returns a text that is not blank."""
    if missing := describe_missing(value):
        raise InputError(f"{name} is missing ({missing}); drop the row")
    if not is_text(value):
        raise InputError(
            f"{name} should be a text that is not blank, got {value!r:.60}"
        )
    return str(value)


def _list(name: str, value: Any) -> list[Any]:
    """Returns a list of words or tags."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, list | tuple):
        raise InputError(
            f"{name} should be a list, one entry per word, got {value!r:.60}"
        )
    return list(value)


def _words(name: str, value: Any) -> list[str]:
    """Returns words, none blank."""
    words = _list(name, value)
    if not words or not all(map(is_text, words)):
        raise InputError(f"{name} should be a list of words, none blank")
    return [str(word) for word in words]


def _label(name: str, value: Any, known: dict[str, Any]) -> str:
    """Returns a label as a text, unless another label has the same text.

    A whole number among floats, as pandas makes them of integers beside missing ones,
    becomes the text of the integer.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        text = label_text(value)
    except InputError as error:
        raise InputError(f"{name} {error}") from None
    other = known.setdefault(text, value)
    if other is not value and other != value:
        raise InputError(
            f"{name} {value!r} and {other!r} before it are the same as texts; rename "
            "one"
        )
    return text
