import collections

import numpy as np
import pytest

from ffnlab.errors import InputError
from ffnlab.models.accelerators import (
    ACCELERATORS,
    Level,
    bytes_sent,
    mesh_levels,
    seconds_sent,
    torus_sides,
)

GB = 1e9


def ring_scatter(arrays):
    """Returns the sums that devices of a ring end with, and the numbers each sends."""
    n = len(arrays)
    chunks = [list(np.array_split(array.copy(), n)) for array in arrays]
    sent = 0
    for turn in range(n - 1):
        moved = [(i - turn) % n for i in range(n)]
        messages = [chunks[i][moved[i]] for i in range(n)]
        for i in range(n):
            chunks[(i + 1) % n][moved[i]] = chunks[(i + 1) % n][moved[i]] + messages[i]
        sent += messages[0].size
    return [chunks[i][(i + 1) % n] for i in range(n)], sent


def ring_gather(shards):
    """Returns the array that all devices of a ring end with, and the numbers sent."""
    n = len(shards)
    held, sent = [{i: shards[i]} for i in range(n)], 0
    for turn in range(n - 1):
        messages = [held[i][(i - turn) % n] for i in range(n)]
        for i in range(n):
            held[(i + 1) % n][(i - turn) % n] = messages[i]
        sent += messages[0].size
    assert all(len(each) == n for each in held)
    return np.concatenate([held[0][(i - 1) % n] for i in range(n)]), sent


@pytest.mark.parametrize("devices", [2, 3, 8])
def test_a_ring_sends_what_the_formula_says(devices):
    rng = np.random.default_rng(0)
    arrays = rng.integers(9, size=(devices, 24 * devices))
    shards, scattered = ring_scatter(list(arrays))
    total, gathered = ring_gather(shards)
    np.testing.assert_array_equal(total, arrays.sum(0))
    wanted = bytes_sent([Level(devices, 1.0, "NVLink")], arrays[0].size)["NVLink"]
    assert (scattered, gathered) == (wanted, wanted)


def test_hosts_exchange_the_shards_of_their_devices():
    hosts, inner, size = 3, 4, 48
    rng = np.random.default_rng(0)
    arrays = rng.integers(9, size=(hosts, inner, size))
    fast, slow, sums = 0, 0, np.empty((inner, size // inner))
    shards = [ring_scatter(list(host)) for host in arrays]
    for device in range(inner):
        parts, sent = ring_scatter([shards[host][0][device] for host in range(hosts)])
        sums[(device + 1) % inner], slow = ring_gather(parts)[0], sent
        fast = shards[0][1]
    np.testing.assert_array_equal(sums.ravel(), arrays.sum((0, 1)))
    levels = [Level(inner, 1.0, "NVLink"), Level(hosts, 1.0, "network")]
    assert bytes_sent(levels, size) == {"NVLink": fast, "network": slow}
    assert fast + slow == pytest.approx(size * (hosts * inner - 1) / (hosts * inner))


def busiest(side, groups, wraps):
    """Returns the numbers over the busiest link, one way, when groups gather.

    Each device of a group sends its shard of an array of one number around the group,
    half of it either way if the ends of the side are joined.
    """
    load = collections.Counter()
    for group in groups:
        n = len(group)
        for start in range(n):
            for way, share in ((1, 0.5), (-1, 0.5)) if wraps else ((1, 1), (-1, 1)):
                reach = n - 1 if wraps else (n - 1 - start if way == 1 else start)
                for hop in range(reach):
                    here = group[(start + way * hop) % n]
                    steps = (group[(start + way * (hop + 1)) % n] - here) * way % side
                    for step in range(steps):
                        load[(here + way * step) % side, way] += share / n
    return max(load.values())


@pytest.mark.parametrize("model, data", [(16, 16), (4, 64), (2, 128), (8, 32)])
def test_axes_over_a_torus_load_its_links_as_stated(model, data):
    first, second = mesh_levels(ACCELERATORS["v5e"], 256, (model, data))
    blocks = [range(start, start + model) for start in range(0, 16, model)]
    load = busiest(16, blocks, wraps=model == 16)
    (seconds,) = seconds_sent(first, 1.0).values()
    assert seconds == pytest.approx(load / (50 * GB))
    assert second[0] == Level(16, 100 * GB, "ICI")
    if model < 16:
        strided = [range(start, 16, model) for start in range(model)]
        load = busiest(16, strided, wraps=True)
        (seconds,) = seconds_sent(second[1:], 1.0).values()
        assert seconds == pytest.approx(load / (50 * GB))


def test_an_axis_over_a_whole_torus_uses_all_its_links():
    none, data = mesh_levels(ACCELERATORS["v5e"], 256, (1, 256))
    assert none == []
    assert data == [Level(256, 200 * GB, "ICI")]  # 51.2 TB/s for the pod, as published
    _, cube = mesh_levels(ACCELERATORS["v5p"], 64, (1, 64))
    assert cube == [Level(64, 600 * GB, "ICI")]
    _, no_ring = mesh_levels(ACCELERATORS["v5p"], 16, (1, 16))
    assert no_ring == [Level(16, 300 * GB, "ICI")]


@pytest.mark.parametrize(
    "sizes, wanted",
    [
        ((8, 8), [[(8, "NVLink")], [(8, "network")]]),
        ((4, 16), [[(4, "NVLink")], [(2, "NVLink"), (8, "network")]]),
        ((16, 4), [[(8, "NVLink"), (2, "network")], [(4, "network")]]),
        ((1, 2, 32), [[], [(2, "NVLink")], [(4, "NVLink"), (8, "network")]]),
    ],
)
def test_axes_fill_hosts_from_the_innermost(sizes, wanted):
    levels = mesh_levels(ACCELERATORS["h100"], 64, sizes)
    assert [[(each.size, each.link) for each in axis] for axis in levels] == wanted


def test_pods_are_joined_by_the_network():
    _, data = mesh_levels(ACCELERATORS["v5e"], 512, (16, 32))
    assert [(each.size, each.link) for each in data] == [(16, "ICI"), (2, "network")]


@pytest.mark.parametrize("name", ACCELERATORS)
def test_levels_multiply_to_their_axes(name):
    accelerator = ACCELERATORS[name]
    for model in (1, 2, 4, 8, 32, 128):
        sizes = model, 128 // model
        for size, levels in zip(
            sizes, mesh_levels(accelerator, 128, sizes), strict=True
        ):
            assert np.prod([each.size for each in levels]) == size


def test_devices_that_do_not_fill_their_hosts():
    with pytest.raises(InputError, match="12 do not fill domains of 8; nearest: 8, 16"):
        mesh_levels(ACCELERATORS["h100"], 12, (1, 12))


def test_sides_are_as_equal_as_they_can_be():
    assert torus_sides(4096, 3) == (16, 16, 16)
    assert torus_sides(7, 2) == (7, 1)
    assert torus_sides(1, 3) == (1, 1, 1)
