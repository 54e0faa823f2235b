import numpy as np
import pytest

from ffnlab.errors import InputError
from ffnlab.sweep import ranking
from ffnlab.train import objectives


def runs(block, scores, rate=0.01, diverged=()):
    return [
        {
            "block": block,
            "activation": "relu",
            "hidden": 8,
            "parameters": 1000,
            "flops": 2000,
            "budget": "flops",
            "unmatched": 0.001,
            "microseconds_per_step": 10.0,
            "seed": seed,
            "learning_rate": rate,
            "diverged_at": 5 if seed in diverged else None,
            "chosen": True,
            "valid": None if seed in diverged else {"accuracy": score},
            "test": None if seed in diverged else {"accuracy": score},
            "curve": {"step": [1], "accuracy": [score]},
        }
        for seed, score in enumerate(scores)
    ]


GOOD = [0.90, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97]
OBJECTIVE = objectives.OBJECTIVES["classes"]


def test_the_better_block_is_first_and_significant():
    worse = [score - 0.05 for score in GOOD]
    found = ranking.rank(runs("mlp", worse) + runs("glu", GOOD), "mlp", OBJECTIVE)
    assert [row[1] for row in found.table.rows] == ["glu", "mlp"]
    assert found.table.rows[0][8].startswith("93.50 [")
    assert found.table.rows[0][9].startswith("+5.00 [")
    assert found.table.rows[0][10] == "0.0078"  # 2/2⁸
    assert "glu (better)" in found.verdict


def test_pairs_are_of_equal_seeds_whatever_the_order():
    rows = runs("glu", GOOD) + runs("mlp", GOOD)[::-1]
    found = ranking.rank(rows, "mlp", OBJECTIVE)
    assert found.comparisons[0].p_corrected in (None, 1.0)
    assert all(c.difference in (None, 0.0) for c in found.comparisons)


def test_diverged_runs_are_reported_and_sink_only_their_block():
    bad = runs("reglu", GOOD, diverged=range(6))
    found = ranking.rank(bad + runs("mlp", GOOD) + runs("glu", GOOD), "mlp", OBJECTIVE)
    last = found.table.rows[-1]
    assert last[1] == "reglu" and last[8] == "diverged"
    assert last[-1] == "6/8 at step 5"
    assert last[9] == "undefined: a seed diverged"
    assert [row[-1] for row in found.table.rows[:-1]] == ["0", "0"]
    assert last[4:6] == ["1,000", "2,000 (+0.1%)"]
    assert "reglu diverged at step 5 (seed 0, learning rate 0.01)" in found.remarks
    assert "6 of reglu" in found.verdict
    assert len(found.table.rows) == 3


def test_a_rate_at_the_edge_is_remarked():
    others = [
        dict(run, learning_rate=rate, chosen=False)
        for rate in (0.1, 1.0)
        for run in runs("mlp", GOOD)
    ]
    rows = runs("mlp", GOOD) + others + runs("glu", GOOD)
    (remark,) = ranking.rank(rows, "mlp", OBJECTIVE).remarks
    assert remark.startswith("the smallest learning rate, 0.01, was best for mlp, glu")


def test_unknown_baseline():
    with pytest.raises(InputError, match="nearest: mlp"):
        ranking.rank(runs("mlp", GOOD), "mpl", OBJECTIVE)


def test_curves_are_of_the_chosen():
    other = [dict(run, chosen=False) for run in runs("mlp", [0.1])]
    found = ranking.curves(other + runs("mlp", GOOD), "accuracy")
    np.testing.assert_array_equal(found["mlp"], np.array(GOOD)[:, None])


def test_seeds_must_be_the_same():
    other = [dict(run, seed=run["seed"] + 100) for run in runs("mlp", GOOD)]
    with pytest.raises(InputError, match="mlp has seeds"):
        ranking.rank(runs("glu", GOOD) + other, "mlp", OBJECTIVE)


def test_a_score_that_json_lost_is_the_worst():
    odd = runs("glu", GOOD)
    odd[0]["test"] = {"accuracy": None}
    found = ranking.rank(odd + runs("mlp", GOOD), "mlp", OBJECTIVE)
    assert next(row for row in found.comparisons if row.name == "glu").diverged == 1


def with_rates(block, *scores):
    """Runs of one block at several rates, of which the first was chosen."""
    rows = [runs(block, each, rate=0.01 * (i + 1)) for i, each in enumerate(scores)]
    return rows[0] + [run | {"chosen": False} for each in rows[1:] for run in each]


def test_a_close_call_between_learning_rates_is_told():
    shaken = [score + 0.001 * (-1) ** i for i, score in enumerate(GOOD)]
    clear = [score - 0.05 for score in GOOD]
    told = "hardly told the learning rates apart"
    near = with_rates("glu", GOOD, shaken) + with_rates("mlp", GOOD, clear)
    found = ranking.rank(near, "mlp", OBJECTIVE)
    remark = next(each for each in found.remarks if told in each)
    share = int(remark.rpartition("glu (")[2].removesuffix("%)"))
    assert 20 < share < 80 and "mlp" not in remark
    far = with_rates("glu", GOOD, clear) + with_rates("mlp", GOOD, clear)
    assert not any(told in r for r in ranking.rank(far, "mlp", OBJECTIVE).remarks)
    worse = with_rates("glu", GOOD, [-np.inf] * 8) + with_rates("mlp", GOOD, clear)
    assert not any(told in r for r in ranking.rank(worse, "mlp", OBJECTIVE).remarks)
