"""One program scores the validation part and the test part of replicates."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from ffnlab import data
from ffnlab.sweep import population, scoring
from ffnlab.train import objectives, optimizers
from ffnlab.train.learner import Learner, Parts
from ffnlab.train.program import Program
from ffnlab.train.record import Plan
from ffnlab.types import Model

OBJECTIVE = objectives.OBJECTIVES["classes"]
LINEAR = Model(
    lambda key: {"kernel": jax.random.normal(key, (13, 3))},
    lambda params, x, key=None: (x @ params["kernel"], {}),
)


@pytest.fixture(scope="module")
def wines():
    return data.replicate(data.wine, data.replicate_seeds(0, 4))


def test_pools_of_as_many_examples_get_as_many_rows(wines):
    """The rows that are added are of no replicate."""
    some = dataclasses.replace(wines, test={k: v[:-3] for k, v in wines.test.items()})
    valid, test = scoring.scored_parts(some)
    assert data.size(valid) == data.size(test) == data.size(wines.valid)
    for before, after in ((some.valid, valid), (some.test, test)):
        size = data.size(before)
        chex.assert_trees_all_equal(before, {k: v[:size] for k, v in after.items()})
        assert all(v.dtype == before[k].dtype for k, v in after.items())


def test_other_parts_are_as_they_are(wines):
    """Parts of unequal sizes, of one split for all, and without a test part."""
    rows = wines.rows | {"test": wines.rows["test"][:, :5]}
    unequal = dataclasses.replace(wines, rows=rows)
    fixed = data.load("wine")
    for dataset in (unequal, fixed):
        valid, test = scoring.scored_parts(dataset)
        assert valid is dataset.valid and test is dataset.test
    parts = Parts("wine", fixed.train, fixed.valid)
    assert scoring.scored_parts(parts) == (fixed.valid, None)


def test_the_test_part_is_scored_by_the_program_of_the_validation_part(wines):
    learner = Learner(LINEAR, OBJECTIVE, optimizers.make("adam"))
    members = population.grid(wines.seeds, [1e-2])
    plan = Plan(8, 8, 16, monitor="accuracy", higher_is_better=True)
    programs = population.make_programs(learner)
    result = population.fit_members(
        learner, wines, plan, members, programs, identity={}
    )
    assert programs.evaluator.compilations == 1
    part = scoring.scored_parts(wines)[1]
    given = (LINEAR, OBJECTIVE, part, result.fit.best, wines.rows["test"])
    shared = scoring.evaluate_members(*given, program=programs.evaluator)
    assert programs.evaluator.compilations == 1
    given = (LINEAR, OBJECTIVE, wines.test, result.fit.best, wines.rows["test"])
    chex.assert_trees_all_equal(shared, scoring.evaluate_members(*given))


def test_a_program_compiles_for_every_dtype_and_structure():
    program = Program(lambda tree: jax.tree.leaves(tree)[0] + 1)
    for tree in (np.ones(3, np.float32), np.ones(3, np.int32), {"x": np.ones(3, "f")}):
        assert program(tree).tolist() == [2, 2, 2]
    assert program.compilations == 3
