"""Parquet and Arrow files, read and written by record batch with pyarrow.

    names = column_names("a.parquet")
    for row in iter_rows("a.parquet", ["text", "label"]):
        row["text"]

pyarrow is an extra, imported when such a file is opened.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from ffnlab.data.formats import binary_format, ending_format
from ffnlab.errors import InputError

_ROWS = 2**14  # of a record batch of Parquet


class _Opened(NamedTuple):
    """An open file: its schema, its batches, and how one like it is written."""

    schema: Any
    batches: Callable[[Sequence[str] | None], Iterator[Any]]
    writer: Callable[[IO[bytes], Any], Any]


@contextlib.contextmanager
def _open(path: str | Path) -> Iterator[_Opened]:
    """Opens a Parquet or Arrow file.

    Raises:
      InputError: pyarrow is missing, or the file is damaged or of another kind.
    """
    try:
        import pyarrow
    except ImportError:
        need = "it needs pyarrow: pip install 'ffnlab[parquet]'"
        raise InputError(f"{path}: {need}") from None
    try:
        kind = binary_format(path) or ending_format(path)
        with contextlib.ExitStack() as stack:
            yield (_parquet if kind == "parquet" else _arrow)(path, stack)
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        if getattr(error, "errno", None):  # of the system, such as a full disk
            raise
        what = str(error).split("\n")[0][:200]
        raise InputError(f"{path}: not a whole file of its kind: {what}") from None


def _parquet(path: str | Path, stack: contextlib.ExitStack) -> _Opened:
    from pyarrow import parquet

    file = stack.enter_context(parquet.ParquetFile(path))

    def batches(names: Sequence[str] | None) -> Iterator[Any]:
        return file.iter_batches(_ROWS, columns=names)

    def writer(sink: IO[bytes], schema: Any) -> Any:
        # Asked for after a batch was read, which checks what else would abort.
        codec = file.metadata.row_group(0).column(0).compression
        codec = "NONE" if codec == "UNCOMPRESSED" else codec
        return parquet.ParquetWriter(sink, schema, compression=codec)

    return _Opened(file.schema_arrow, batches, writer)


def _arrow(path: str | Path, stack: contextlib.ExitStack) -> _Opened:
    """Opens an Arrow file, Feather or stream; batches come as they were written."""
    import pyarrow

    with Path(path).open("rb") as file:
        if file.read(4) == b"FEA1":
            raise InputError(f"{path}: Feather of version 1; write it as version 2")
    source = stack.enter_context(pyarrow.OSFile(str(path)))
    if binary_format(path):
        reader = stack.enter_context(pyarrow.ipc.open_file(source))
        held = (reader.get_batch(n) for n in range(reader.num_record_batches))
        writer = pyarrow.ipc.new_file
    else:
        reader = stack.enter_context(pyarrow.ipc.open_stream(source))
        held, writer = iter(reader), pyarrow.ipc.new_stream

    def batches(names: Sequence[str] | None) -> Iterator[Any]:
        for batch in held:
            part = batch.select(names) if names else batch
            part.validate(full=True)  # offsets of a damaged file lead anywhere
            yield part

    return _Opened(reader.schema, batches, writer)


def column_names(path: str | Path) -> list[str]:
    """Returns the names of the columns of a Parquet or Arrow file.

    Raises:
      InputError: pyarrow is missing, or the file cannot be read.
    """
    with _open(path) as file:
        names = list(file.schema.names)
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: two columns are named {name!r}; rename one")
    return names


def class_names(path: str | Path, column: str) -> list[str]:
    """Returns the names of the numbers of a column, as the datasets library keeps them.

    Args:
      path: A Parquet or Arrow file.
      column: The name of a column of labels, or of lists of them.

    Returns:
      The names in the order of their numbers; empty if the file has none.
    """
    with _open(path) as file:
        held = (file.schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        feature = json.loads(held)["info"]["features"][column]
        names = (feature.get("feature") or feature)["names"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if texts else []


def iter_rows(
    path: str | Path, names: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yields the rows of a Parquet or Arrow file, read by record batch.

    Args:
      path: The file.
      names: The columns; None takes all.

    Raises:
      InputError: pyarrow is missing, or the file cannot be read.
    """
    with _open(path) as file:
        for batch in file.batches(names):
            yield from batch.to_pylist()


def write_with_columns(
    path: str | Path,
    sink: IO[bytes],
    rows: Iterator[tuple[int, Mapping[str, Any]]],
) -> int:
    """Writes rows of a file again, with columns added; returns their number.

    The schema, its metadata and the compression of Parquet stay as they are.

    Args:
      path: The Parquet or Arrow file with the rows.
      sink: The file to write, in the same format.
      rows: The number of each row to write, from 0 and ascending, with the values of
        the new columns: texts, numbers, or lists of them.

    Raises:
      InputError: pyarrow is missing, or the file cannot be read.
    """
    count, writer, schema, first = 0, None, None, 0
    following = next(rows, None)
    with _open(path) as file, contextlib.ExitStack() as stack:
        for batch in file.batches(None):
            stop, numbers, added = first + batch.num_rows, [], []
            while following is not None and following[0] < stop:
                numbers.append(following[0] - first)
                added.append(following[1])
                following = next(rows, None)
            first = stop
            if not added:
                continue
            if writer is None:
                schema = _extended(file.schema, added)
                writer = stack.enter_context(file.writer(sink, schema))
            writer.write_batch(_extend(batch.take(numbers), schema, added))
            count += len(added)
    return count


def _extended(schema: Any, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Returns a schema with the columns of some rows."""
    import pyarrow

    for place, (name, value) in enumerate(rows[0].items()):
        kept = (row[name] for row in rows if row[name] != [])  # lists may be empty
        inner = next(kept, "" if place == 0 else 0.0)
        inner = inner[0] if isinstance(inner, list) else inner
        kind = pyarrow.string() if isinstance(inner, str) else pyarrow.float64()
        kind = pyarrow.list_(kind) if isinstance(value, list) else kind
        schema = schema.append(pyarrow.field(name, kind))
    return schema


def _extend(batch: Any, schema: Any, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Returns a record batch with the columns of its rows."""
    import pyarrow

    added = [
        pyarrow.array([row[name] for row in rows], schema.field(name).type)
        for name in rows[0]
    ]
    return pyarrow.record_batch([*batch.columns, *added], schema=schema)
