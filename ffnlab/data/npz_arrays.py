"""Arrays of an npz file, whose declared sizes are checked before they are read."""

import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from ffnlab.errors import InputError, choose

# A compressed file may unpack to this, or to some times its own size if that is more.
_UNPACKED_BYTES, _RATIO = 2**28, 20
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_arrays(
    path: Path,
    names: tuple[str, ...] | None = None,
    required: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Returns arrays of an npz file by name.

    Args:
      path: The file, as `np.savez` writes it.
      names: The arrays to read, where they are there; None reads all.
      required: The arrays that must be there.

    Raises:
      InputError: The file is damaged or no npz file; an array is missing, holds no
        numbers or is not of the size that its header declares; or a small file would
        unpack to more than 256 MiB and 20 times its size. The message names the array.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(Path(folder, "a.npz"), x=np.arange(3), y=np.zeros(2))
    ...     read_arrays(Path(folder, "a.npz"), ("x", "z"))
    {'x': array([0, 1, 2])}
    """
    try:
        with zipfile.ZipFile(path) as file:
            held = sorted({_name_of(info)[:60] for info in file.infolist()})
            for name in required:
                if name not in held:
                    choose(f"{path}: key", name, held[:20])
            members = dict(_members(path, file, names))
            _check_size(path, members.values())
            return {
                name: _read(path, file, name, info) for name, info in members.items()
            }
    except zipfile.BadZipFile as error:
        if "not a zip" in str(error):
            raise InputError(f"{path}: not an npz file; write it by np.savez") from None
        raise _unreadable(path, error) from None
    except (ValueError, OSError, EOFError, zlib.error, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> InputError:
    what = f"cannot be read as arrays: {error}"
    return InputError(f"{path}: {what}; write it again by np.savez")


def _name_of(info: zipfile.ZipInfo) -> str:
    return info.filename.removesuffix(".npy")


def _members(
    path: Path, file: zipfile.ZipFile, names: tuple[str, ...] | None
) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    """Yields the name and the entry of each array to read."""
    seen = set()
    for info in file.infolist():
        name = _name_of(info)
        if names is not None and name not in names:
            continue
        if name in seen:
            raise InputError(f"{path}: {name!r:.60} is there twice; write it again")
        if info.compress_type not in _METHODS or info.flag_bits & 1:
            raise InputError(
                f"{path}: {name!r:.60} is encrypted or compressed by another method "
                "than deflate; write it again by np.savez"
            )
        seen.add(name)
        yield name, info


def _check_size(path: Path, members: Any) -> None:
    """Raises if a small file would unpack to far more than its own size."""
    unpacked, size = sum(info.file_size for info in members), path.stat().st_size
    if unpacked > max(_UNPACKED_BYTES, _RATIO * size):
        raise InputError(
            f"{path}: {size} bytes that unpack to {unpacked}; write it by np.savez, "
            "without compression"
        )


def _read(path: Path, file: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> Any:
    """Returns an array after a check that its header fits the bytes that are there."""
    with file.open(info) as stream:
        try:
            shape, dtype = _header(stream)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError):
            raise
        except Exception:  # the header is parsed as Python, which fails in many ways
            raise InputError(
                f"{path}: {name}: has no header of a NumPy array; write it by np.savez"
            ) from None
        header = stream.tell()
    if dtype.kind not in "biuf":
        raise InputError(f"{path}: {name}: expected numbers, found {dtype}")
    declared = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or declared != info.file_size - header:
        raise InputError(
            f"{path}: {name}: its header declares {declared} bytes, the file has "
            f"{info.file_size - header}; write it again by np.savez"
        )
    with file.open(info) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Returns the shape and the type of an array."""
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"version {version}")
    shape, _, dtype = _HEADERS[version](stream)
    if any(type(size) is not int for size in shape):
        raise ValueError(f"shape {shape}")
    return shape, dtype
