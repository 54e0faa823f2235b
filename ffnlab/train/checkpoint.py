"""Checkpoints: trees of arrays, saved whole or not at all, and restored bit for bit.

Orbax writes each into a folder of its own, and the digests of its files are recorded
when it is complete. A checkpoint without digests is one whose writing was interrupted,
and one with other digests is damaged; the one before is then restored.

With several processes each writes the parts of the arrays that it holds, and process 0
does the rest. Checkpoints are the same for any number of processes and devices.
"""

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ffnlab import digests, io, processes, trees
from ffnlab.errors import InputError
from ffnlab.train import array_folder
from ffnlab.train.earlier_checkpoints import (
    FORMAT,
    with_todays_names,
    without_frozen_moments,
)

_SHARE = 20  # time between two saves over the time that a save takes
_KEPT = 2  # checkpoints


class Checkpoints:
    """The checkpoints of one run, saved by a thread beside the training.

    As a context manager it waits at the end until the last one is on the disk.

    Args:
      directory: The directory that holds them; it is made if it does not exist.
      seconds: The most time between two saves. There may be less: a twentieth of the
        time is spent on saving. A final checkpoint is always saved.
      strict: Whether a damaged checkpoint is an error. If not, it is removed, and the
        one before is restored.

    >>> import tempfile
    >>> tree = {"kernel": np.arange(3.0)}
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     Checkpoints(directory).save(10, tree, final=True)
    ...     restored = Checkpoints(directory).restore({"kernel": np.zeros(3)})
    >>> restored["kernel"].tolist()
    [0.0, 1.0, 2.0]
    """

    def __init__(
        self, directory: str | Path, seconds: float = 0.0, strict: bool = False
    ):
        self._directory = processes.shared(Path(directory).absolute())
        self._seconds, self._strict = seconds, strict
        self._saved, self._took = time.monotonic(), 0.25  # seconds
        self._thread: ThreadPoolExecutor | None = None
        self._save: Future | None = None
        self._blank: dict[str, str] = {}

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: Any) -> None:
        self.wait()

    def check_run(self, run: dict[str, Any]) -> None:
        """Records which run the checkpoints are of, or checks it against the record.

        Args:
          run: What tells the run from others, ready for JSON.

        Raises:
          InputError: They are of another run; the first difference is named.
        """
        run = json.loads(json.dumps({**run, "format": FORMAT}))
        processes.first_does(lambda: self._check_run(run))

    def _check_run(self, run: dict[str, Any]) -> None:
        """Records which run the checkpoints are of, or checks it."""
        self._open()
        path = self._directory / "run.json"
        if not digests.check(path).exists():
            io.write(path, json.dumps(run, indent=2) + "\n")
            return
        held = _read_run(path)
        held = with_todays_names(held, run)
        for name in sorted({*held, *run}):
            if held.get(name) != run.get(name):
                what = "flags"
                if name == "program":
                    what = "flags, the version of JAX and the kind of device"
                raise InputError(
                    f"{self._directory}: the checkpoint is of another run: {name} was "
                    f"{held.get(name)} and is now {run.get(name)}; continue with the "
                    f"{what} that the run was started with, or name another directory"
                )

    def save(self, step: int, tree: Any, final: bool = False) -> None:
        """Saves a tree of arrays beside the training, unless the last save is recent.

        Args:
          step: The number of steps taken, which names the checkpoint.
          tree: Any tree of arrays.
          final: Whether to save however recent the last save was, and to wait for it.

        Raises:
          InputError: This checkpoint or the last one cannot be written.
          TypeError: The tree is not like the one that `restore` was given.
        """
        wait = min(self._seconds, _SHARE * self._took)
        due = final or time.monotonic() - self._saved >= wait
        if processes.several():
            self._save_parts(step, tree, bool(processes.agree([due])[0][0]))
        elif due:
            self._save_whole(step, tree)
        if final:
            self.wait()

    def _save_whole(self, step: int, tree: Any) -> None:
        """Saves a tree of arrays that this process holds."""
        # Copied: a donated step takes over the memory that a view would show.
        leaves = {name: np.array(leaf) for name, leaf in trees.flatten(tree).items()}
        self._check_blank(leaves)
        self.wait()
        self._submit(self._write, step, leaves)

    def _submit(self, function: Callable[..., None], *arguments: Any) -> None:
        """Calls a function in the thread beside the training."""
        self._thread = self._thread or ThreadPoolExecutor(1)
        self._save = self._thread.submit(function, *arguments)
        self._saved = time.monotonic()

    def _save_parts(self, step: int, tree: Any, due: bool) -> None:
        """Saves the parts of the arrays that this process holds; all call it."""
        self.wait()
        if not due or processes.first_does(lambda: self._is_saved(step)):
            return
        start, leaves = time.monotonic(), trees.flatten(tree)
        self._check_blank(leaves)
        folder = self._directory / str(step)
        with self._errors(folder):
            finish = array_folder.begin(folder, leaves)

        def write() -> None:
            with self._errors(folder):
                finish()
                if processes.is_first():
                    self._record(step)
            self._took = time.monotonic() - start

        self._submit(write)

    def _is_saved(self, step: int) -> bool:
        """Returns whether a step is saved, after what is left over was removed."""
        self._open()
        return step in self._steps()

    def wait(self) -> None:
        """Waits until the last checkpoint is on the disk.

        Raises:
          InputError: It cannot be written.
        """
        save, self._save = self._save, None
        if save is not None:
            save.result()

    def restore(self, tree: Any) -> Any:
        """Returns the newest undamaged checkpoint, or the given tree if none was saved.

        Args:
          tree: A tree of the structure, shapes, dtypes and placement to restore, which
            all that is saved must have too.

        Raises:
          InputError: The checkpoint holds other names, shapes or dtypes, or all are
            damaged.
        """
        self.wait()
        self._blank = {n: _describe(leaf) for n, leaf in trees.flatten(tree).items()}
        if processes.several():
            return self._restore_parts(tree)
        if not self._directory.is_dir():
            return tree
        self._open()
        steps = self._steps()
        for step in reversed(steps):
            try:
                leaves = self._read(step)
            except InputError as error:
                self._report(step, error)
                continue
            held = without_frozen_moments(leaves, trees.flatten(tree))
            return self._fill(tree, held)
        if steps:
            raise self._all_damaged()
        return tree

    def _all_damaged(self) -> InputError:
        return InputError(
            f"{self._directory}: all checkpoints are damaged; delete the directory to "
            "train from the start"
        )

    def _restore_parts(self, tree: Any) -> Any:
        """Returns the newest checkpoint, of which each process reads its parts."""
        step = processes.first_does(self._newest)
        if step is None:
            return tree
        folder = self._directory / str(step)
        try:
            leaves = array_folder.read_parts(folder, trees.flatten(tree))
        except OSError as error:
            raise self._damaged(folder, error) from error
        return self._fill(tree, leaves)

    def _newest(self) -> int | None:
        """Returns the step of the newest undamaged checkpoint; None if none was saved.

        Raises:
          InputError: All are damaged.
        """
        self._open()
        steps = self._steps()
        for step in reversed(steps):
            try:
                self._check_digests(step)
            except InputError as error:
                self._report(step, error)
                continue
            return step
        if steps:
            raise self._all_damaged()
        return None

    def _open(self) -> None:
        """Makes the directory, and removes what an interrupted save has left in it."""
        self._directory.mkdir(parents=True, exist_ok=True)
        if not (self._directory / digests.NAME).exists():  # new, or of an older version
            digests.seal(self._directory)
        digests.recover(self._directory)
        complete = {str(step) for step in self._steps()}
        for path in self._directory.iterdir():
            if path.is_dir() and path.name not in complete:
                shutil.rmtree(path)

    def _steps(self) -> list[int]:
        """Returns the steps whose digests are recorded, in order."""
        names = digests.read(self._directory / digests.NAME)
        folders = {name.partition("/")[0] for name in names if "/" in name}
        return sorted(int(name) for name in folders if name.isdecimal())

    def _write(self, step: int, leaves: dict[str, np.ndarray]) -> None:
        """Writes a checkpoint, records its digests, and removes the older ones."""
        start, folder = time.monotonic(), self._directory / str(step)
        if self._is_saved(step):  # a final save of what is saved
            return
        with self._errors(folder):
            array_folder.write(folder, leaves)
            self._record(step)
        self._took = time.monotonic() - start

    def _record(self, step: int) -> None:
        """Records the digests of a checkpoint that is written, and removes old ones."""
        names = digests.digests_below(self._directory / str(step), self._directory)
        old = self._steps()[: 1 - _KEPT]
        digests.update(self._directory, names, tuple(f"{n}/" for n in old))
        for number in old:
            shutil.rmtree(self._directory / str(number))

    @contextlib.contextmanager
    def _errors(self, folder: Path) -> Iterator[None]:
        """Says that a checkpoint cannot be written."""
        try:
            yield
        except OSError as error:
            kept = "; the one before is kept" if self._steps() else ""
            raise InputError(
                f"{folder}: the checkpoint cannot be written: {error.strerror}{kept}; "
                "make room, and resume"
            ) from error

    def _read(self, step: int) -> dict[str, np.ndarray]:
        """Returns the arrays of a checkpoint, after its digests were checked.

        Raises:
          InputError: It is damaged.
        """
        folder = self._directory / str(step)
        self._check_digests(step)
        try:
            return array_folder.read(folder)
        except OSError as error:  # of an older version, which recorded no digests
            raise self._damaged(folder, error) from error

    def _check_digests(self, step: int) -> None:
        """Raises an InputError if a file of a checkpoint is damaged."""
        for name in digests.read(self._directory / digests.NAME):
            if name.startswith(f"{step}/"):
                digests.check(self._directory / name)

    def _damaged(self, folder: Path, error: OSError) -> InputError:
        return InputError(f"{folder}: the checkpoint is damaged: {error.strerror}")

    def _report(self, step: int, error: InputError) -> None:
        """Removes a damaged checkpoint and says so, or raises."""
        if self._strict:
            raise InputError(
                f"{error}; strict_resume=false continues from the checkpoint before it"
            )
        shutil.rmtree(self._directory / str(step), ignore_errors=True)
        digests.update(self._directory, {}, (f"{step}/",))
        print(
            f"warning: the checkpoint of step {step} is damaged and was removed, the "
            f"one before it is used: {error}",
            file=sys.stderr,
            flush=True,
        )

    def _check_blank(self, leaves: dict[str, np.ndarray]) -> None:
        """Raises if what is saved is not like the tree that `restore` was given."""
        held = {name: _describe(leaf) for name, leaf in leaves.items()}
        for name in sorted({*held, *self._blank} if self._blank else ()):
            if held.get(name) != self._blank.get(name):
                raise TypeError(
                    f"{name} would be saved as {held.get(name)}, but is restored as "
                    f"{self._blank.get(name)}"
                )

    def _fill(self, tree: Any, leaves: dict[str, np.ndarray]) -> Any:
        """Returns a tree with the arrays of a checkpoint in place of its own."""
        extra = sorted(leaves.keys() - trees.flatten(tree).keys())
        if extra:
            raise InputError(
                f"{self._directory}: the checkpoint is of another run: it has "
                f"{extra[0]!r}, which this run has not; name another directory"
            )

        def place(name: str, leaf: Any) -> Any:
            array = leaves.get(name)
            expected = (np.shape(leaf), np.dtype(leaf.dtype))
            if array is None or (array.shape, array.dtype) != expected:
                held = "missing" if array is None else f"{array.dtype}{[*array.shape]}"
                raise InputError(
                    f"{self._directory}: the checkpoint is of another run: {name!r} "
                    f"should be {leaf.dtype}{[*np.shape(leaf)]} and is {held}; "
                    "resume with the flags that the run was started with, or name "
                    "another directory"
                )
            if isinstance(array, jax.Array):  # in its place already
                return array
            if isinstance(leaf, jax.Array):
                return jax.device_put(array, leaf.sharding)
            return np.asarray(array)

        return jax.tree.map(place, trees.names(tree), tree)


def _describe(leaf: Any) -> str:
    """Returns the dtype and shape of an array as text."""
    return f"{np.dtype(leaf.dtype)}{[*np.shape(leaf)]}"


def _read_run(path: Path) -> dict[str, Any]:
    """Returns what `check_run` recorded."""
    try:
        run = json.loads(io.read(path))
    except (ValueError, RecursionError):
        run = None
    if not isinstance(run, dict):
        raise InputError(
            f"{path}: the file is damaged; delete its directory to train from the start"
        )
    return run
