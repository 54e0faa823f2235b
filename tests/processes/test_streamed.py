"""Each process reads its own rows of a batch, and all train as one does in float64."""

import json

import chex
import numpy as np
import pytest

from ffnlab import data
from tests.processes.run import finish, free_port, start_module
from tests.processes.streamed import PLAN, WINDOWS

pytestmark = pytest.mark.slow
STOP = 20  # the step after which one process goes on
# What two processes with two devices each train, and the rows that each reads.
RUNS = {
    "causal": {"objective": "causal", "mesh": ["data:2", "model:2"]},
    "masked": {
        "objective": "masked", "mesh": ["data:4"], "order": [0, 2, 1, 3], "stop": STOP
    },
}  # fmt: skip
ROWS = {"causal": ([0, 1, 2, 3], [4, 5, 6, 7]), "masked": ([0, 1, 4, 5], [2, 3, 6, 7])}


def results(count, runs):
    """Returns what each of some processes prints."""
    job = {"port": free_port(), "count": count, "runs": runs}
    own = {"JAX_NUM_CPU_DEVICES": "2", "JAX_ENABLE_X64": "1"}
    jobs = [json.dumps(job | {"index": index}) for index in range(count)]
    started = [start_module("tests.processes.streamed", [each], own) for each in jobs]
    ends = finish(started[::-1])[::-1]  # process 0 waits for the others
    assert [code for code, _, _ in ends] == [0] * count, ends
    return [json.loads(output.splitlines()[-1]) for _, output, _ in ends]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return {"checkpoint": str(tmp_path_factory.mktemp("run") / "checkpoints")}


@pytest.fixture(scope="module")
def two(checkpoint):
    return results(2, {**RUNS, "masked": RUNS["masked"] | checkpoint})


@pytest.fixture(scope="module")
def one(two, checkpoint):
    """One process, which also goes on with what two have stopped."""
    runs = {name: {"objective": name} for name in RUNS}
    (result,) = results(1, {**runs, "resumed": runs["masked"] | checkpoint})
    return result


def check_equal(result, expected):
    assert result["dtypes"] == expected["dtypes"] == ["float64"]
    assert len(result["loss"]) == PLAN.steps
    # Losses are recorded in float32.
    np.testing.assert_allclose(result["loss"], expected["loss"], rtol=1.2e-7)
    one, other = (
        {name: np.array(leaf) for name, leaf in each["params"].items()}
        for each in (result, expected)
    )
    chex.assert_trees_all_close(one, other, rtol=0, atol=1e-9)


def test_two_processes_train_as_one(one, two):
    for result in two:
        check_equal(result["causal"], one["causal"])


def test_one_process_goes_on_with_a_run_of_two(one):
    assert [len(each) for each in one["resumed"]["reads"]] == [1, 1, 4 * PLAN.batch, 0]
    check_equal(one["resumed"], one["masked"])


@pytest.mark.parametrize("name", RUNS)
def test_each_process_reads_its_own_rows_alone(two, name):
    index = data.indices([0], 0, PLAN.steps, PLAN.batch, WINDOWS)[:, 0]  # [steps, B]
    for result, rows in zip(two, ROWS[name], strict=True):
        reads = sum((each for each in result[name]["reads"] if len(each) > 1), [])
        assert len(reads) >= STOP * len(rows)
        assert reads == index[:, rows].ravel()[: len(reads)].tolist()
