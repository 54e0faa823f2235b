"""The directory of a run: chosen, checked, owned by one process, and described.

A run directory holds `flags`, which repeat the run, `versions.json`, what the launcher
writes, `manifest.sha256` with the digests of all files, `lock`, and while the run goes
on `checkpoints/`.
"""

import contextlib
import datetime
import fcntl
import json
import os
import platform
import shlex
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from ffnlab import devices, digests, options, processes
from ffnlab.errors import InputError
from ffnlab.io import read, write
from ffnlab.nn import user_code
from ffnlab.report.trackers import FOLDERS

DATA = "data"  # the folder of data that was given as values
# What a run that was interrupted before it wrote its flags can have left.
_BEGUN = {"lock", digests.NAME, f"{digests.NAME}.part", "flags.part", DATA}
_REMOVED = "checkpoints.part"
_OWN_CHECKS = ("results.jsonl",)  # each line has a checksum
_AGAIN = "delete it, and resume the run, which computes it again"
_REMEDIES = {"best": _AGAIN, "examples": _AGAIN, "spans": _AGAIN}

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


def choose_directory(out: str | None, name: str, resume: bool | None = None) -> str:
    """Returns a directory that a run may use.

    Args:
      out: The directory asked for, or None.
      name: The first part of the name of a new directory below `runs`.
      resume: Whether the directory holds a run to continue; None if the launcher
        cannot continue one.

    Raises:
      InputError: As `check_directory`.
    """
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    out = out or f"runs/{name}-{stamp}"
    check_directory(out, resume)
    return out


def choose_unfinished(config: options.RunOptions, name: str) -> str:
    """Returns the directory of a configuration, unless its run is finished.

    Raises:
      InputError: As `check_directory`, or the run to resume has its report.md.
    """
    out = choose_directory(config.out, name, config.resume)
    if config.resume and is_finished(Path(out)):
        shutil.rmtree(Path(out, _REMOVED), ignore_errors=True)
        raise InputError(f"resume: {out} is finished; its report.md has the results")
    return out


def is_finished(directory: Path) -> bool:
    """Returns whether a run has written its report and removed its checkpoints."""
    done = (directory / "report.md").exists()
    return done and not (directory / "checkpoints").exists()


def finish(directory: Path) -> None:
    """Removes the checkpoints of a run, and records the digests of all its files.

    It is the last step of a run; one that is resumed before it publishes once more.
    """
    _seal(directory)
    checkpoints = directory / "checkpoints"
    if checkpoints.exists():  # half of one cannot be resumed from
        shutil.rmtree(directory / _REMOVED, ignore_errors=True)
        checkpoints.rename(directory / _REMOVED)
    shutil.rmtree(directory / _REMOVED, ignore_errors=True)


def _seal(directory: Path) -> None:
    """Writes the manifest of a run directory.

    Checkpoints have their own, and the files of trackers have none.
    """
    names = digests.digests_below(directory, directory)
    hidden = ("checkpoints/", f"{_REMOVED}/", *(f"{name}/" for name in FOLDERS))
    digests.start(
        directory, {n: key for n, key in names.items() if not n.startswith(hidden)}
    )


def check_directory(path: str | Path, resume: bool | None) -> None:
    """Checks, without changing anything, that a run may use a directory.

    Args:
      path: The directory.
      resume: Whether it holds a run to continue; None if there is no way to, and a run
        without its report is started again.

    Raises:
      InputError: It is a file, cannot be written to, holds another run, or holds no
        run to resume.
    """
    path = Path(path)
    parent = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not parent.is_dir():
        raise InputError(f"out: {parent} is a file; name a directory")
    if not os.access(parent, os.W_OK):
        raise InputError(
            f"out: {parent} cannot be written to; choose another directory"
        )
    again = resume is None and not (path / "report.md").exists()
    if (path / "flags").exists() and not resume and not again:
        way = "" if resume is None else "resume=true continues it, or "
        raise InputError(
            f"out: {path} already holds a run; {way}delete it, or choose another "
            "directory"
        )
    others = {each.name for each in path.iterdir()} if path.is_dir() else set()
    if others - _BEGUN and not (path / "flags").exists():
        raise InputError(
            f"out: {path} holds files of something else; choose another directory"
        )
    if resume and not others:
        raise InputError(f"resume: {path} holds no run to continue")


@contextlib.contextmanager
def acquire(directory: Path) -> Iterator[None]:
    """Owns a directory until the block ends or the process dies.

    Args:
      directory: An existing directory; the file `lock` in it is held.

    Raises:
      InputError: Another process owns it.
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
def open_run(
    path: str | Path, config: Any, resume: bool | None, quiet: bool = False
) -> Iterator[Path]:
    """Opens the directory of a run and owns it until the block ends.

    Args:
      path: The directory; it is made if it does not exist.
      config: The configuration of the run, whose flag file is written, or compared
        with that of the run to resume.
      resume: Whether to continue the run that it holds; None if there is no way to.
      quiet: Whether not to print the devices and the dtype of what trains.

    Yields:
      The directory, holding `flags` and `versions.json`.

    Raises:
      InputError: As `check_directory`, or the run to resume had other flags, or
        another process is writing here.
      BaseException: What the block raises; a note (PEP 678) says how to continue.
    """
    check_directory(path, resume)
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out: {path} cannot be made: {error.strerror}") from None
    with acquire(path):
        try:
            _begin(path, config, resume)
            if hasattr(config, "device") and not quiet:  # a run that trains
                print(devices.describe(getattr(config, "dtype", "float32")), flush=True)
            yield path
        except BaseException as error:
            if resume is not None and (path / "flags").exists():
                error.add_note(f"to continue: {_way_to_continue(path, config)}")
            raise


def _way_to_continue(path: Path, config: Any) -> str:
    """Returns what continues a run: flags, or the call that a configuration names."""
    flags = [f"--flagfile={path / 'flags'}", f"--out={path}", "--resume"]
    device = getattr(config, "device", None)
    flags += [f"--device={device}"] if device else []
    trackers = [name for name in getattr(config, "report_to", ()) if name != "none"]
    flags += [f"--report_to={','.join(trackers)}"] if trackers else []
    mesh = ",".join(getattr(config, "mesh", ()))
    flags += [f"--mesh={mesh}"] if mesh else []
    flags += ["--fsdp"] if getattr(config, "fsdp", False) else []
    return getattr(config, "TO_CONTINUE", shlex.join(flags))


def _begin(path: Path, config: Any, resume: bool | None) -> None:
    """Writes what every run directory has, or checks it against this run."""
    if not (path / digests.NAME).exists():  # new, or of an earlier version
        _seal(path)
    digests.recover(path)
    digests.check_all(path, _OWN_CHECKS, _REMEDIES)
    if (path / "flags").exists() and resume:
        _check_same_flags(path / "flags", config)
    else:
        write(path / "flags", options.to_flags(config))
    if getattr(config, "imports", ()):
        _check_same_code(path / user_code.NAME, config.imports, resume)
    if not (path / "versions.json").exists():
        write(path / "versions.json", json.dumps(versions(), indent=2) + "\n")


def check_same_data(directory: Path, digest: str, changed: str | None = None) -> None:
    """Records the digest of a run's data; a run that is resumed must have the same.

    Args:
      directory: The run directory.
      digest: The digest.
      changed: What has changed if it differs, for the error; None names the data.

    Raises:
      InputError: The data has changed since, or another process has other data.
    """
    remedy = "give all processes the same files"
    processes.check_equal("data", {"the data": f" {digest[:16]}"}, remedy)
    path = directory / "data.sha256"
    if not path.exists():
        write(path, digest + "\n")
    elif read(path).strip() != digest and changed:
        raise InputError(
            f"{changed} since the checkpoint of {directory}; restore it to resume the "
            "run, or start a new run"
        )
    elif read(path).strip() != digest:
        raise InputError(f"resume: {path}: the data has changed since; start a new run")


def _check_same_code(path: Path, imports: tuple[str, ...], resume: bool | None) -> None:
    """Records the digests of imported files; a resumed run must have the same.

    Raises:
      InputError: A file has changed since.
    """
    now = user_code.digests(imports)
    before = read(path).splitlines() if resume and path.exists() else []
    changed = [
        line.split("  ", 1)[1] for line in now.splitlines() if line not in before
    ]
    if before and changed:
        raise InputError(
            f"imports: {', '.join(changed)} has changed since the run in {path.parent} "
            "began; restore it to resume the run, or start a new one"
        )
    write(path, now)


def _check_same_flags(path: Path, config: Any) -> None:
    """Raises if a flag file, under today's names, is not that of a configuration."""
    renamed = getattr(config, "RENAMED", {})
    lines = read(path).splitlines()
    old = {options.rename_flag(line, renamed) for line in lines}
    given = {line.partition("=")[0] for line in old}
    for name, value in getattr(config, "ADDED", {}).items():
        old |= {f"--{name}={value}"} if f"--{name}" not in given else set()
    new = set(options.to_flags(config).splitlines())
    if old != new:
        here = ", ".join(sorted(new - old)) or "fewer flags"
        there = ", ".join(sorted(old - new)) or "fewer flags"
        raise InputError(
            f"resume: {path} has {there}, this run has {here}; "
            f"--flagfile={path} gives the same flags"
        )


def versions() -> dict[str, Any]:
    """Returns what a result may depend on: Python, machine, devices and packages."""
    import jax

    installed = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "devices": [device.device_kind for device in jax.local_devices()],
        **installed,
    }
