"""The directory of a run: chosen, checked, owned, and described."""

import contextlib
import datetime
import fcntl
import json
import os
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffnlab.errors import InputError
from ffnlab.io import write

if TYPE_CHECKING:
    from ffnlab.train.config import Steps

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
        raise InputError(f"out: {parent} is a file; name a directory")
    if not os.access(parent, os.W_OK):
        raise InputError(f"out: {parent} cannot be written to; choose another")
    if (path / "flags").exists() and not resume:
        way = "" if resume is None else "resume=true continues it, or "
        raise InputError(
            f"out: {path} already holds a run; {way}delete it, or choose another"
        )
    others = {each.name for each in path.iterdir()} if path.is_dir() else set()
    if others - {"lock"} and not (path / "flags").exists():
        raise InputError(f"out: {path} holds files of something else; choose another")
    if resume and not (path / "flags").exists():
        raise InputError(f"resume: {path} holds no run to go on with")


@contextlib.contextmanager
def acquire(directory: Path) -> Iterator[None]:
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
                "another directory"
            ) from None
        yield


@contextlib.contextmanager
def open_run(path: str | Path, flags: str, resume: bool | None) -> Iterator[Path]:
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
        raise InputError(f"out: {path} cannot be made: {error.strerror}") from None
    with acquire(path):
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
            how = f"to continue: --flagfile={path / 'flags'} --out={path} --resume"
            raise KeyboardInterrupt(how) from None


def same_data(directory: Path, digest: str) -> None:
    """Notes what data a run is of; a run that goes on must be of the same.

    Raises:
      InputError: the data has changed since.
    """
    path = directory / "data.sha256"
    if path.exists() and path.read_text("utf-8").strip() != digest:
        raise InputError(f"resume: {path}: the data has changed since; start anew")
    write(path, digest + "\n")


def _check_same(path: Path, flags: str) -> None:
    old, new = (set(text.splitlines()) for text in (path.read_text("utf-8"), flags))
    if old != new:
        here = ", ".join(sorted(new - old)) or "fewer flags"
        there = ", ".join(sorted(old - new)) or "fewer flags"
        raise InputError(
            f"resume: {path} has {there}, this run has {here}; "
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


def choose_directory(out: str | None, name: str, resume: bool | None = None) -> str:
    """Returns the directory of a run, which is free to use.

    Args:
      out: where it was asked for.
      name: what to call it if it was not.
      resume: whether it holds a run to go on with; None if that cannot be.

    Raises:
      InputError: `--out` is a file, holds another run, or holds none to resume.
    """
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    out = out or f"runs/{name}-{stamp}"
    check_directory(out, resume)
    return out


def choose_unfinished(config: "Steps", name: str) -> str:
    """Returns the directory of a run, unless the run to resume is over.

    Raises:
      InputError: as `choose_directory`, or there is a report.md already.
    """
    out = choose_directory(config.out, name, config.resume)
    if config.resume and Path(out, "report.md").exists():
        raise InputError(f"resume: {out} is finished; its report.md says what came")
    return out
