"""A part that is read call by call trains as one that is in memory."""

import re

import chex
import jax
import numpy as np
import pytest

from ffnlab import data
from ffnlab.data import Streamed
from ffnlab.train import Parts, inputs, loop, objectives, optimizers, placement
from ffnlab.train.checkpoint import Checkpoints
from ffnlab.train.learner import Frozen, Learner
from ffnlab.train.loop import Hooks
from ffnlab.train.record import Plan
from ffnlab.train.sharding import make_layout
from ffnlab.types import Model

PLAN = Plan(12, 4, 8)
KERNEL = np.random.default_rng(0).normal(size=(13, 3)).astype("f4")


def make(arrays):
    """A learner of the scales of a layer; its kernel is given."""

    def init(key):
        return {"scale": np.ones(3, "f4")}

    def apply(params, x, key=None):
        return x @ arrays["kernel"] * params["scale"][None], {}

    optimizer = optimizers.make("adam")
    return Learner(Model(init, apply), objectives.OBJECTIVES["classes"], optimizer)


LEARNER = make({"kernel": KERNEL})


@pytest.fixture(scope="module")
def wine():
    return data.load("wine")


def streamed(dataset, reads):
    """A data set whose training part counts what is read of it."""

    def read(index):
        reads.append(len(index))
        return data.rows(dataset.train, index)

    part = Streamed(data.size(dataset.train), read, "wine")
    return Parts(dataset.name, part, dataset.valid)


@pytest.fixture(scope="module")
def memory(wine):
    return loop.fit(LEARNER, wine, PLAN, learning_rate=0.1)


def same(one, other):
    chex.assert_trees_all_equal(one.state, other.state)
    chex.assert_trees_all_equal(one.best, other.best)
    chex.assert_trees_all_equal(one.record, other.record)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_streamed_part_trains_bit_for_bit_as_one_in_memory(wine, memory, frozen):
    learner, reads = Frozen({"kernel": KERNEL}, make) if frozen else LEARNER, []
    result = loop.fit(learner, streamed(wine, reads), PLAN, learning_rate=0.1)
    expected = loop.fit(learner, wine, PLAN, learning_rate=0.1) if frozen else memory
    same(result, expected)
    assert reads == [1, 32, 32, 32, 0]  # shapes, each call's, and none after the last


def test_it_resumes_bit_for_bit_by_the_number_of_the_step(wine, memory, tmp_path):
    reads = []

    def stop(record):
        if record.step == 8:
            raise KeyboardInterrupt

    hooks = Hooks(Checkpoints(tmp_path / "run", 0.0), stop)
    with pytest.raises(KeyboardInterrupt):
        loop.fit(LEARNER, streamed(wine, []), PLAN, learning_rate=0.1, hooks=hooks)
    hooks = Hooks(Checkpoints(tmp_path / "run"))
    result = loop.fit(
        LEARNER, streamed(wine, reads), PLAN, learning_rate=0.1, hooks=hooks
    )
    same(result, memory)
    assert reads == [1, 1, 32, 0]  # what was read before is not read again


def test_calls_of_a_streamed_part_are_short(wine, monkeypatch):
    """Without a limit a call would read all examples between two evaluations."""
    monkeypatch.setattr("ffnlab.train.program.OPERATIONS", (1.0, 1.0))
    reads = []
    loop.fit(LEARNER, streamed(wine, reads), PLAN, learning_rate=0.1)
    assert reads == [1, *[8] * 12, 0]


def test_arrays_in_memory_are_the_arguments_as_they_were(wine):
    def indices(start, stop):
        return data.indices([0], start, stop, 4, 50)[:, 0]

    arrays = placement.place_arrays(LEARNER, wine.train, None)
    held = inputs.make_inputs(arrays, indices)
    assert held(0, 3)[0] is held.shapes(0, 3)[0] is arrays and not held.streamed
    chex.assert_trees_all_equal(held(2, 5)[1], indices(2, 5))


def test_shapes_are_those_of_what_is_read(wine):
    def indices(start, stop):
        return data.indices([0], start, stop, 4, 50)[:, 0]

    part = streamed(wine, []).train
    frozen = Frozen({"kernel": KERNEL}, make)
    given = inputs.make_inputs(placement.place_arrays(frozen, part, None), indices)
    (arrays, rows), (shapes, places) = given(2, 5), given.shapes(2, 5)
    chex.assert_trees_all_equal_shapes_and_dtypes(arrays, shapes)
    chex.assert_trees_all_equal(rows, places)
    taken = data.take(jax.device_get(arrays[1]), rows)
    chex.assert_trees_all_equal(taken, data.take(wine.train, indices(2, 5)))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_streamed_part_is_read_for_the_devices_of_a_mesh(wine, frozen):
    layout = make_layout({"replicas": 1, "data": 2, "model": 1})
    learner, reads = Frozen({"kernel": KERNEL}, make) if frozen else LEARNER, []
    given = {"learning_rate": 0.1, "layout": layout}
    result = loop.fit(learner, streamed(wine, reads), PLAN, **given)
    same(result, loop.fit(learner, wine, PLAN, **given))
    assert reads == [1, 32, 32, 32, 0]


def test_the_rows_of_a_step_stay_on_the_devices_that_they_are_read_for(wine):
    def indices(start, stop):
        return data.indices([0], start, stop, 4, 50)[:, 0]

    layout = make_layout({"replicas": 1, "data": 2, "model": 1})
    part = placement.place_arrays(LEARNER, streamed(wine, []).train, layout)
    arrays, numbers = inputs.make_inputs(part, indices)(0, 3)
    assert arrays["x"].shape == (3, 4, 13)
    held = [shard.data.shape for shard in arrays["x"].addressable_shards]
    assert held == [(3, 2, 13)] * 2
    key = jax.random.key(0)
    program = placement.make_program(LEARNER, key, layout)
    state = placement.init_placed(LEARNER, key, 0, 0.1, layout)
    hlo = program.lower(state, arrays, numbers).compile().as_text()
    exchanges = re.findall(r"all-\w+|collective-\w+|reduce-scatter", hlo)
    assert set(exchanges) == {"all-reduce"}


@pytest.mark.parametrize(("batch", "positions"), [(5, False), (4, True)])
def test_batches_that_are_not_divided_are_held_by_every_device(wine, batch, positions):
    def indices(start, stop):
        return data.indices([0], start, stop, batch, 50)[:, 0]

    layout = make_layout({"replicas": 1, "data": 2, "model": 1})
    layout = layout._replace(positions=positions)
    part = placement.place_arrays(LEARNER, streamed(wine, []).train, layout)
    given = inputs.make_inputs(part, indices)
    (arrays, _), (shapes, _) = given(0, 3), given.shapes(0, 3)
    held = [shard.data.shape for shard in arrays["x"].addressable_shards]
    assert held == [(3, batch, 13)] * 2
    assert shapes["x"].sharding == arrays["x"].sharding
