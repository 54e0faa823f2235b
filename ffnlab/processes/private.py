"""The private directories of processes, which take the place of the run directory.

A directory is locked for as long as its process lives. One that was killed leaves its
own, unlocked, and the next start on that machine removes it.
"""

import contextlib
import fcntl
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

CHECKPOINTS = "checkpoints"
# What processes need not have of a run directory. Nothing reads pictures.
_NOT_COPIED = (CHECKPOINTS, "checkpoints.part", "lock", "tensorboard", "wandb")
_NOT_COPIED += ("*.png", "*.part")


@contextlib.contextmanager
def private_directory(out: Path) -> Iterator[str]:
    """Makes a directory with the files of a run that is to be continued, if any.

    Args:
      out: The run directory; it need not exist.

    Yields:
      The directory, which is removed when the block ends.
    """
    path, lock = _make()
    try:
        if out.is_dir():
            ignore = shutil.ignore_patterns(*_NOT_COPIED)
            shutil.copytree(out, path, ignore=ignore, dirs_exist_ok=True)
            if (out / CHECKPOINTS).exists():  # or the run would count as finished
                (path / CHECKPOINTS).mkdir()
        yield str(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def remove_abandoned() -> None:
    """Removes the directories that processes of this machine and user have left."""
    paths: list[Path] = []
    with contextlib.suppress(OSError):  # not everybody may list it
        paths = [*Path(tempfile.gettempdir()).iterdir()]
    for path in paths:
        if path.name.rpartition("-")[0] == _prefix():
            with contextlib.suppress(OSError):
                lock = _lock(path)
                if os.fstat(lock).st_uid == os.geteuid():
                    shutil.rmtree(path, ignore_errors=True)
                os.close(lock)


def _prefix() -> str:
    """Returns how names begin; machines that share a disk may not see locks."""
    return f"ffnlab-process-{platform.node()}"


def _make() -> tuple[Path, int | None]:
    """Returns a new directory and its lock; None where the disk has no locks."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=f"{_prefix()}-"))
        try:
            lock = _lock(path)
        except (BlockingIOError, FileNotFoundError):
            continue  # another process removes it, which it was not locked against
        except OSError:
            return path, None
        if path.is_dir():
            return path, lock
        os.close(lock)


def _lock(path: Path) -> int:
    """Returns the descriptor of a directory, which is locked until it is closed.

    Raises:
      OSError: It is locked already, is no directory, or cannot be locked.
    """
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock
