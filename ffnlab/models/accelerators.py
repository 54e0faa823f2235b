"""Accelerators by their published figures, and the links between them.

Devices of one domain are joined by fast links: a switch (the NVLink of a host), or a
torus (the ICI of a TPU slice), in which a device has a link to each neighbour. Domains
are joined by a network. `mesh_levels` lays the axes of a mesh over these links.

Sources: NVIDIA's data sheets of H100, H200, A100 and B200, and the DGX user guides
(one network card for each GPU); https://docs.cloud.google.com/tpu/docs/v5e, v5p, v6e
and v4; the tables of Austin et al. 2025, "How to Scale Your Model",
https://jax-ml.github.io/scaling-book/tpus and /gpus, for the links of v4 and for
bandwidths in one direction, which are half of the "bidirectional" ones of data sheets.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from ffnlab.errors import InputError
from ffnlab.models.decoder_costs import find_divisors

_GB, _GIB, _TERA = 1e9, 2.0**30, 1e12


class Accelerator(NamedTuple):
    """Published figures of a device.

    Attributes:
      flops: Peak operations a second of bfloat16 products of dense arrays.
      memory: Bytes of memory.
      memory_bandwidth: Bytes a second between memory and cores.
      domain: Number of devices that fast links join.
      link: Bytes a second that a device sends over its fast links: over all of them
        together to a switch, over one of them in a torus.
      network: Bytes a second that a device sends to other domains.
      torus: Number of dimensions of the torus; 0 for a switch.
      ring: The ends of a side of the torus are joined if it is a multiple of this.
      float32: Peak of float32 products at JAX's default precision, as a share of
        `flops`: TF32 on GPUs, one bfloat16 pass on TPUs.
    """

    flops: float
    memory: float
    memory_bandwidth: float
    domain: int
    link: float
    network: float
    torus: int = 0
    ring: int = 1
    float32: float = 0.5

    @property
    def fast(self) -> str:
        """The name of the fast links."""
        return "ICI" if self.torus else "NVLink"


ACCELERATORS: dict[str, Accelerator] = {
    "a100": Accelerator(312 * _TERA, 80 * _GB, 2039 * _GB, 8, 300 * _GB, 25 * _GB),
    "h100": Accelerator(989 * _TERA, 80 * _GB, 3350 * _GB, 8, 450 * _GB, 50 * _GB),
    "h200": Accelerator(989 * _TERA, 141 * _GB, 4800 * _GB, 8, 450 * _GB, 50 * _GB),
    "b200": Accelerator(2250 * _TERA, 180 * _GB, 8000 * _GB, 8, 900 * _GB, 50 * _GB),
    "v4": Accelerator(
        275 * _TERA, 32 * _GIB, 1200 * _GB, 4096, 45 * _GB, 6.25 * _GB, 3, 4, 1.0
    ),
    "v5e": Accelerator(
        197 * _TERA, 16 * _GB, 819 * _GB, 256, 50 * _GB, 3.125 * _GB, 2, 16, 1.0
    ),
    "v5p": Accelerator(
        459 * _TERA, 95 * _GIB, 2765 * _GB, 8960, 100 * _GB, 6.25 * _GB, 3, 4, 1.0
    ),
    "v6e": Accelerator(
        918 * _TERA, 32 * _GB, 1638 * _GB, 256, 100 * _GB, 12.5 * _GB, 2, 16, 1.0
    ),
}


class Level(NamedTuple):
    """A part of a mesh axis that one kind of link carries.

    Attributes:
      size: Number of devices of the axis in this level.
      bandwidth: Bytes a second that a device sends.
      link: The name of the links.
    """

    size: int
    bandwidth: float
    link: str


def mesh_levels(
    accelerator: Accelerator, devices: int, sizes: Sequence[int]
) -> list[list[Level]]:
    """Returns the links that carry each axis of a mesh.

    The first axis gets neighbours; what a domain has no room for is on the network. An
    axis that has a whole side of a torus is a ring and sends both ways. A part of a
    side is a line, in which only one way is of use; an axis over the rest of that side
    shares its links with as many others as the part has devices.

    Args:
      accelerator: The kind of device.
      devices: Number of devices, a multiple of the devices of a domain or fewer.
      sizes: The sizes of the axes, innermost first; their product divides `devices`.

    Returns:
      For each axis its levels, the fastest first; none for an axis of one device.

    Raises:
      InputError: The devices do not fill their domains.

    >>> h100, v5e = ACCELERATORS["h100"], ACCELERATORS["v5e"]
    >>> [(each.size, each.link) for each in mesh_levels(h100, 64, [4, 16])[1]]
    [(2, 'NVLink'), (8, 'network')]
    >>> [each.bandwidth / 1e9 for each in mesh_levels(v5e, 256, [16, 16])[0]]
    [100.0]
    """
    domain = min(devices, accelerator.domain)
    if devices % domain:
        below = devices // domain * domain
        raise InputError(
            f"devices: {devices} do not fill domains of {domain}; nearest: {below}, "
            f"{below + domain}"
        )
    sides = torus_sides(domain, accelerator.torus) if accelerator.torus else (domain,)
    free = list(sides)
    levels = []
    for size in sizes:
        whole, parts = [], []
        # A side of the same size first, so that the axis is a ring.
        for number in sorted(range(len(sides)), key=lambda i: free[i] != size):
            part = math.gcd(size, free[number])
            if part > 1:
                taken = sides[number] // free[number]
                level = _side_level(accelerator, sides, number, part, taken)
                (whole if part == sides[number] else parts).append(level)
                size, free[number] = size // part, free[number] // part
        if whole:
            width = sum(level.bandwidth for level in whole)
            count = math.prod(level.size for level in whole)
            whole = [Level(count, width, accelerator.fast)]
        outside = [Level(size, accelerator.network, "network")] if size > 1 else []
        parts.sort(key=lambda level: -level.bandwidth)
        levels.append([*whole, *parts, *outside])
    return levels


def _side_level(
    accelerator: Accelerator, sides: Sequence[int], number: int, part: int, taken: int
) -> Level:
    """Returns the level of `part` devices of a side, of which `taken` are one apart."""
    if not accelerator.torus:
        return Level(part, accelerator.link, accelerator.fast)
    # Sides of 3-D slices are joined only in whole cubes.
    joined = sides if accelerator.torus == 3 else sides[number : number + 1]
    ring = all(side % accelerator.ring == 0 for side in joined)
    ends = part * taken == sides[number]
    ways = 2 if ring and ends else 1
    return Level(part, ways * accelerator.link / taken, accelerator.fast)


def torus_sides(devices: int, dimensions: int) -> tuple[int, ...]:
    """Returns the sides of the most compact torus of some devices, longest first.

    >>> torus_sides(256, 2), torus_sides(128, 3), torus_sides(8, 2)
    ((16, 16), (8, 4, 4), (4, 2))
    """
    divisors = find_divisors(devices)
    shapes = (
        (devices // math.prod(rest), *rest)
        for rest in itertools.combinations_with_replacement(divisors, dimensions - 1)
        if devices % math.prod(rest) == 0
    )
    return tuple(sorted(min(shapes, key=sum), reverse=True))


def bytes_sent(levels: Sequence[Level], size: float) -> dict[str, float]:
    """Returns the bytes that a device sends to gather an array, by link.

    A ring of n devices gathers an array of V bytes by n − 1 messages of V / n bytes
    from each device; a reduce-scatter is the reverse, and an all-reduce is both. On
    several levels, the outer ones carry the shard that the inner ones leave.

    Args:
      levels: The levels of the axis, innermost first.
      size: V, bytes of the whole array.

    Source: Patarasuk and Yuan 2009.

    >>> bytes_sent([Level(4, 1.0, "NVLink"), Level(2, 1.0, "network")], 80.0)
    {'NVLink': 60.0, 'network': 10.0}
    """
    sent: dict[str, float] = {}
    for level, share in _shares(levels, size):
        sent[level.link] = sent.get(level.link, 0.0) + share
    return sent


def seconds_sent(levels: Sequence[Level], size: float) -> dict[str, float]:
    """Returns the seconds that the messages of `bytes_sent` take, by link.

    >>> seconds_sent([Level(4, 30.0, "NVLink"), Level(2, 5.0, "network")], 80.0)
    {'NVLink': 2.0, 'network': 2.0}
    """
    time: dict[str, float] = {}
    for level, share in _shares(levels, size):
        time[level.link] = time.get(level.link, 0.0) + share / level.bandwidth
    return time


def _shares(levels: Sequence[Level], size: float) -> list[tuple[Level, float]]:
    """Returns the levels with the bytes that a device sends in each."""
    shares = []
    for level in levels:
        shares.append((level, size * (level.size - 1) / level.size))
        size /= level.size
    return shares
