"""Digests of the files of a directory, recorded before they are in place.

A directory that holds `manifest.sha256` has the SHA-256 of its files there, in the form
that `sha256sum -c manifest.sha256` checks. `ffnlab.io` writes a file beside its place,
with `.part` appended, records its digest and moves it into place. Therefore a file has
the digest that is recorded for it, or its new version still lies beside it, or it was
damaged.
"""

import contextlib
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from ffnlab.errors import InputError

NAME = "manifest.sha256"
# What to do about a damaged file of which there is no copy.
ANEW = f"make it again in a new directory; if you meant to change it, delete {NAME}"
_TITLE = "# ffnlab: sha256sum -c manifest.sha256 checks the files; these lines: "
_LINE = re.compile(r"([0-9a-f]{64})  ([^\n]+)\n")
_DEPTH = 6  # folders above a file that may have its manifest
_LOCK = threading.Lock()  # checkpoints are saved by a thread of their own


def part_of(path: Path) -> Path:
    """Returns where a file is written before it is moved into place."""
    return path.with_name(path.name + ".part")


def sync(path: Path) -> None:
    """Writes a file, or the names in a directory, through to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def digest(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def start(directory: Path, names: Mapping[str, str] | None = None) -> None:
    """Writes the manifest of a directory.

    Args:
      directory: An existing directory.
      names: The digests by name of the file; those of no file if None.
    """
    _write(directory / NAME, dict(names or {}))


def seal(directory: Path) -> None:
    """Writes a manifest of all files that are in a directory and in its folders."""
    start(directory, digests_below(directory, directory))


def digests_below(folder: Path, directory: Path) -> dict[str, str]:
    """Returns the digests of the files below a folder, named from a directory."""
    files = sorted(each for each in folder.rglob("*") if each.is_file())
    names = {each.relative_to(directory).as_posix(): each for each in files}
    return {
        name: digest(path)
        for name, path in names.items()
        if name not in (NAME, "lock") and not name.endswith(".part")
    }


def record(path: Path, content: Path) -> None:
    """Records the digest of a file that is about to be moved into place.

    Nothing is recorded where no directory above the file has a manifest.

    Args:
      path: The place of the file.
      content: Where it is now.
    """
    manifest = find(path)
    if manifest is not None:
        name = path.absolute().relative_to(manifest.parent).as_posix()
        update(manifest.parent, {name: digest(content)})


def update(
    directory: Path, names: Mapping[str, str], dropped: tuple[str, ...] = ()
) -> None:
    """Adds digests to the manifest of a directory.

    Args:
      directory: The directory.
      names: Digests by name of the file.
      dropped: What the names start with whose digests are removed before.
    """
    with _LOCK:
        path = directory / NAME
        held = read(path) if path.exists() else {}
        kept = {k: v for k, v in held.items() if not k.startswith(dropped or "\n")}
        _write(path, kept | dict(names))


def find(path: Path) -> Path | None:
    """Returns the manifest of the nearest directory above a file that has one."""
    for folder in list(path.absolute().parents)[:_DEPTH]:
        if (folder / NAME).is_file():
            return folder / NAME
    return None


def read(manifest: Path) -> dict[str, str]:
    """Returns the digests of a manifest, by name of the file.

    Raises:
      InputError: It is damaged.
    """
    try:
        text = manifest.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    _, _, lines = text.partition("\n")
    if text != _with_title(lines):
        raise InputError(
            f"{manifest}: the record of digests is damaged; restore it from a copy, or "
            "start again in a new directory"
        )
    return {name: key for key, name in _LINE.findall(lines)}


def check(path: Path, remedy: str = ANEW) -> Path:
    """Returns where the last version of a file is, after its digest was checked.

    This is the path itself, or the file beside it if a run was interrupted before it
    moved it into place. Nothing is checked where no digest is recorded.

    Args:
      path: The path of the file.
      remedy: What to do if the file is damaged and there is no copy.

    Raises:
      InputError: The file is damaged or missing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = Path(directory, "note.txt")
    ...     _ = path.write_text("done")
    ...     seal(Path(directory))
    ...     check(path) == path
    ...     _ = path.write_text("dome")
    ...     try:
    ...         check(path)
    ...     except InputError as error:
    ...         print("damaged" in str(error))
    True
    True
    """
    manifest = find(path)
    if manifest is None:
        return path
    name = path.absolute().relative_to(manifest.parent).as_posix()
    wanted = read(manifest).get(name)
    if wanted is None:
        return path
    for place in (path, part_of(path)):
        if place.is_file() and digest(place) == wanted:
            return place
    state = "was changed or is damaged" if path.exists() else "is missing"
    raise InputError(
        f"{path}: the file {state}, by its digest in {manifest.name}; restore it from "
        f"a copy, or {remedy}"
    )


def check_all(
    directory: Path,
    skipped: tuple[str, ...] = (),
    remedies: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Checks the files of a directory that are there and in its manifest.

    Args:
      directory: The directory; one without a manifest is not checked.
      skipped: The names of files that are not checked.
      remedies: By folder, what to do if a file in it is damaged; see `check`.

    Raises:
      InputError: A file is damaged; it is named.
    """
    if (directory / NAME).exists():
        for name in read(directory / NAME):
            path = directory / name
            if path.exists() and name not in skipped:
                remedy = remedies.get(name.partition("/")[0], ANEW)
                check(path, remedy)


def recover(directory: Path) -> None:
    """Finishes or removes what an interrupted writer has left in a directory.

    A file whose digest was recorded is moved into place; other files and directories
    that end in `.part` are removed.

    Args:
      directory: A directory that no other process writes to.
    """
    part_of(directory / NAME).unlink(missing_ok=True)
    for part in sorted(directory.rglob("*.part")):
        path = part.with_name(part.name.removesuffix(".part"))
        manifest = find(path)
        if not os.path.lexists(part):  # its directory was removed
            continue
        if part.is_dir():
            shutil.rmtree(part)
        elif manifest and _is_recorded(path, part, manifest):
            os.replace(part, path)
        else:
            part.unlink()
    sync(directory)


def _is_recorded(path: Path, part: Path, manifest: Path) -> bool:
    """Returns whether the digest of a written file is that of its place."""
    name = path.absolute().relative_to(manifest.parent).as_posix()
    return read(manifest).get(name) == digest(part)


def _with_title(lines: str) -> str:
    """Returns the text of a manifest, whose first line has a digest of the others."""
    return f"{_TITLE}{hashlib.sha256(lines.encode()).hexdigest()}\n{lines}"


def _write(manifest: Path, names: dict[str, str]) -> None:
    """Writes a manifest, whole or not at all."""
    lines = "".join(f"{key}  {name}\n" for name, key in sorted(names.items()))
    part = part_of(manifest)
    try:
        with open(part, "w", encoding="utf-8", newline="\n") as file:
            file.write(_with_title(lines))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, manifest)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    sync(manifest.parent)
