"""Flags that divide a training over devices; nothing here imports JAX."""

import dataclasses
import re
from collections.abc import Iterable, Mapping

from ffnlab.errors import InputError
from ffnlab.options import RunOptions, option

AXES = ("replicas", "data", "model")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshOptions(RunOptions):
    """Devices: how runs, batches and arrays are divided over them."""

    mesh: tuple[str, ...] = option(
        (),
        "Devices along each axis, such as replicas:2,data:4. Runs that train together "
        "are divided along replicas, the examples of a batch along data, and "
        "parameters along model; the product is the number of devices. By default runs "
        "that train together are divided over all devices, and so is the batch of a "
        "single run if their number divides it; a CPU is one device for a single run.",
        empty=True,
    )
    fsdp: bool = option(
        False,
        "Divide the parameters and the optimizer's state along the axis data too, and "
        "gather each parameter where it is used.",
    )

    def __post_init__(self):
        super().__post_init__()
        parse(self.mesh)

    @property
    def mesh_sizes(self) -> dict[str, int]:
        """The number of devices along each axis; empty if the default is wanted."""
        return parse(self.mesh)


def parse(entries: Iterable[str]) -> dict[str, int]:
    """Returns the number of devices along each axis of `AXES`; empty for no entry.

    Args:
      entries: Entries such as `data:4`; an axis without an entry has one device.

    Raises:
      InputError: An entry is not of that form, or an axis has two.

    >>> parse(["data:4", "model:2"])
    {'replicas': 1, 'data': 4, 'model': 2}
    """
    sizes: dict[str, int] = {}
    for entry in entries:
        match = re.fullmatch(r"\s*(\w+):([1-9]\d{0,5})\s*", entry)
        if not match or match[1] not in AXES:
            raise InputError(
                f"mesh: {entry!r} should be AXIS:N, where AXIS is one of "
                f"{', '.join(AXES)} and N the number of devices along it, at least 1"
            )
        if match[1] in sizes:
            raise InputError(f"mesh: {match[1]} is given twice")
        sizes[match[1]] = int(match[2])
    return {axis: sizes.get(axis, 1) for axis in AXES} if sizes else {}


def as_text(sizes: Mapping[str, int]) -> str:
    """Returns sizes as the flag has them, without axes of one device.

    >>> as_text({"replicas": 1, "data": 4, "model": 2})
    'data:4,model:2'
    """
    parts = [f"{axis}:{size}" for axis, size in sizes.items() if size > 1]
    return ",".join(parts) or "data:1"


def check_divides(axis: str, size: int, name: str, count: int, also: str = "") -> None:
    """Raises unless the devices along an axis divide a number.

    Args:
      axis: The axis.
      size: The number of devices along it.
      name: What is divided, such as `batch_size=16`.
      count: How many of it there are.
      also: What else would help, as the end of the sentence.

    Raises:
      InputError: They do not; the nearest numbers that do are named.

    >>> check_divides("data", 3, "batch=8", 8)
    Traceback (most recent call last):
    ffnlab.errors.InputError: mesh: data:3 does not divide batch=8; data:2 and data:4 do
    """
    if count % size == 0:
        return
    below = next(n for n in range(min(size, count), 0, -1) if count % n == 0)
    above = next((n for n in range(size + 1, count + 1) if count % n == 0), None)
    near = [f"{axis}:{n}" for n in (below, above) if n is not None]
    does = "does" if len(near) == 1 else "do"
    raise InputError(
        f"mesh: {axis}:{size} does not divide {name}; {' and '.join(near)} {does}{also}"
    )
