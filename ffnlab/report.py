"""What a run leaves behind: its directory, its tables, its progress on the screen."""

import contextlib
import csv
import fcntl
import io
import json
import math
import os
import platform
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from ffnlab.errors import InputError

_ENDS = re.compile(r"[\t\r\n]+")
PACKAGES = (
    "ffnlab",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "numpy",
    "scipy",
    "scikit-learn",
)


def write(path: Path, text: str) -> None:
    """Writes a text file whole or not at all.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = Path(directory, "note.txt")
    ...     write(path, "done")
    ...     path.read_text()
    'done'
    """
    beside = path.with_name(path.name + ".part")
    with open(beside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def check_directory(path: str | Path, resume: bool | None) -> None:
    """Checks, without touching anything, that a run may use a directory.

    Args:
      path: the directory.
      resume: whether it holds a run to go on with; None if that cannot be.

    Raises:
      InputError: it is a file, holds another run, or holds none to resume.
    """
    path = Path(path)
    parent = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not parent.is_dir():
        raise InputError(f"--out: {parent} is a file; name a directory")
    if not os.access(parent, os.W_OK):
        raise InputError(f"--out: {parent} cannot be written to; choose another")
    if (path / "flags").exists() and not resume:
        way = "" if resume is None else "--resume goes on with it, or "
        raise InputError(
            f"--out: {path} already holds a run; {way}delete it, or choose another"
        )
    others = {each.name for each in path.iterdir()} if path.is_dir() else set()
    if others - {"lock"} and not (path / "flags").exists():
        raise InputError(f"--out: {path} holds files of something else; choose another")
    if resume and not (path / "flags").exists():
        raise InputError(f"--resume: {path} holds no run to go on with")


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Owns a directory until the block ends or the process dies.

    Args:
      directory: an existing directory; a file named `lock` in it is held.

    Raises:
      InputError: another process owns it.
    """
    with open(directory / "lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{directory}: another run is writing here; wait for it, or choose "
                "another --out"
            ) from None
        yield


@contextlib.contextmanager
def run_directory(path: str | Path, flags: str, resume: bool | None) -> Iterator[Path]:
    """Opens the directory of a run and owns it until the block ends.

    Args:
      path: the directory; made if it does not exist.
      flags: the lines of the flag file that repeats the run.
      resume: whether to go on with the run that it holds; None if there is no way to.

    Yields:
      The directory, holding `flags` and `versions.json`.

    Raises:
      InputError: as `check_directory`, or the run to resume had other flags, or
        another process is writing here.
      KeyboardInterrupt: the block was interrupted; the message says how to go on.
    """
    check_directory(path, resume)
    path, found = Path(path), json.dumps(versions(), indent=2) + "\n"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: {path} cannot be made: {error.strerror}") from None
    with locked(path):
        if resume:
            _check_same(path / "flags", flags)
        else:
            write(path / "flags", flags)
            write(path / "versions.json", found)
        try:
            yield path
        except KeyboardInterrupt:
            if resume is None:
                raise
            how = f"to go on: --flagfile={path / 'flags'} --out={path} --resume"
            raise KeyboardInterrupt(how) from None


def same_data(directory: Path, digest: str) -> None:
    """Notes what data a run is of; a run that goes on must be of the same.

    Raises:
      InputError: the data has changed since.
    """
    path = directory / "data.sha256"
    if path.exists() and path.read_text("utf-8").strip() != digest:
        raise InputError(f"--resume: {path}: the data has changed since; start anew")
    write(path, digest + "\n")


def _check_same(path: Path, flags: str) -> None:
    old, new = (set(text.splitlines()) for text in (path.read_text("utf-8"), flags))
    if old != new:
        here = ", ".join(sorted(new - old)) or "fewer flags"
        there = ", ".join(sorted(old - new)) or "fewer flags"
        raise InputError(
            f"--resume: {path} has {there}, this run has {here}; "
            f"--flagfile={path} gives the same flags"
        )


def versions() -> dict[str, Any]:
    """Returns what a result may depend on: Python, machine, devices, packages."""
    import jax

    found = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "devices": [device.device_kind for device in jax.local_devices()],
        **found,
    }


def jsonable(value: Any) -> Any:
    """Returns a value as JSON can hold it: arrays as lists, NaN and infinity as null.

    >>> import numpy as np
    >>> jsonable({"loss": np.array([0.5, np.nan], np.float32)})
    {'loss': [0.5, None]}
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: jsonable(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_lines(path: Path, rows: Iterable[dict]) -> None:
    """Writes one JSON object a line, the whole file at once."""
    lines = (json.dumps(jsonable(row), ensure_ascii=False) + "\n" for row in rows)
    write(path, "".join(lines))


def read_lines(path: Path) -> list[dict]:
    """Reads what `write_lines` wrote; no file is no rows.

    Raises:
      InputError: a line is not a JSON object; file and line are named.
    """
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            rows.append(dict(json.loads(line)))
        except ValueError:
            raise InputError(f"{path}:{number}: not a JSON object") from None
    return rows


def as_row(cells: Sequence[Any], kind: str) -> str:
    """Returns a line of CSV or TSV; the latter has no tabs and line ends in cells.

    >>> as_row(["a, b", 1], "csv"), as_row(["a, b", 1], "tsv")
    ('"a, b",1\\n', 'a, b\\t1\\n')
    """
    if kind == "tsv":
        return "\t".join(" ".join(_ENDS.split(str(cell))) for cell in cells) + "\n"
    into = io.StringIO()
    csv.writer(into, lineterminator="\n").writerow(cells)
    return into.getvalue()


class Table(NamedTuple):
    """A table, to be printed or written.

    Attributes:
      columns: the headings; the first are words, to the left, the rest numbers.
      rows: the cells, as text.
      words: how many columns are words.

    >>> print(Table(["block", "test"], [["glu", "0.97"]], 1).markdown())
    | block | test |
    | :-- | --: |
    | glu | 0.97 |
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1

    def markdown(self) -> str:
        """Returns the table in Markdown."""
        sides = [":--" if i < self.words else "--:" for i in range(len(self.columns))]
        lines = [self.columns, sides, *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def show(self, title: str, essential: Sequence[str] = ()) -> None:
        """Prints the table; on a narrow screen only what is essential, if that is said.

        Args:
          title: what it shows.
          essential: the headings of the columns to show where not all have room.
        """
        from rich.console import Console
        from rich.table import Table as RichTable

        console = Console(width=None if sys.stdout.isatty() else 180)
        shown = range(len(self.columns))
        if essential and 0.7 * self._width() > console.width:
            shown = [i for i in shown if self.columns[i] in essential]
            title += " (all columns are in report.md)"
        table = RichTable(title=title, title_justify="left")
        for i in shown:
            side = "left" if i < self.words else "right"
            table.add_column(self.columns[i], justify=side, overflow="fold")
        for row in self.rows:
            table.add_row(*(row[i] for i in shown))
        console.print(table)

    def _width(self) -> int:
        """Returns how many characters a line takes if no cell wraps."""
        lines = [self.columns, *self.rows]
        return sum(3 + max(map(len, column)) for column in zip(*lines, strict=True))


class Progress:
    """How far a run is: a bar with rate and time left, or plain lines in a log.

    Args:
      total: how many units of work there are.
      unit: what one is called.
      done: how many were done before.
    """

    def __init__(self, total: int, unit: str, done: int = 0):
        self._total, self._unit, self._done = total, unit, done
        self._begun, self._at_start, self._label = time.monotonic(), done, ""
        self._base, self._bar, self._task = done, None, None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            self._bar, self._task = self._started()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar:
            self._bar.stop()

    def _started(self) -> tuple[Any, Any]:
        from rich import progress
        from rich.console import Console

        bar = progress.Progress(
            progress.TextColumn("{task.description:<16}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        bar.start()
        task = bar.add_task("", total=self._total, completed=self._done, rate="")
        return bar, task

    def begin(self, label: str) -> None:
        """Names the work that comes next."""
        self._label, self._base = label, self._done
        if self._bar:
            self._bar.update(self._task, description=label)

    def reach(self, units: int) -> None:
        """Says how many units of the work that `begin` named are done by now."""
        self._done = self._base + units
        if self._bar:
            self._bar.update(self._task, completed=self._done, rate=self._rate())

    def end(self) -> None:
        """Ends the work that `begin` named; in a log, a line is printed now."""
        if not self._bar:
            share, seconds = self._done / self._total, time.monotonic() - self._begun
            ran = max(self._done - self._at_start, 1)
            left = seconds * (self._total - self._done) / ran
            print(
                f"{self._label:<16} {share:4.0%}  {self._rate()}  "
                f"{seconds:.0f} s elapsed, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def _rate(self) -> str:
        seconds = max(time.monotonic() - self._begun, 1e-9)
        return f"{(self._done - self._at_start) / seconds:,.0f} {self._unit}/s"
