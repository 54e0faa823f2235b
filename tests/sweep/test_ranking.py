"""The ranking of hand-made lines, and the lines of a hand-made population."""

from types import SimpleNamespace

import numpy as np
import pytest

from ffnlab import stats
from ffnlab.errors import InputError
from ffnlab.sweep import ranking
from ffnlab.sweep.population import Population
from ffnlab.train import objectives
from ffnlab.train.record import Plan, Record

GOOD = [0.90, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97]
WORSE = [score - 0.05 for score in GOOD]
OBJECTIVE = objectives.OBJECTIVES["classes"]
LOSS = objectives.OBJECTIVES["values"]


def runs(block, scores, rate=0.01, diverged=(), **facts):
    """Returns a chosen run for each score, as in results.jsonl."""
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
            "valid": None if seed in diverged else {"accuracy": score - 0.01},
            "test": None if seed in diverged else {"accuracy": score},
            "curve": {"step": [1], "accuracy": [score]},
            **facts,
        }
        for seed, score in enumerate(scores)
    ]


def with_rates(block, *scores):
    """Returns the runs of one block at several rates, of which the first was chosen."""
    rows = [runs(block, each, rate=0.01 * (i + 1)) for i, each in enumerate(scores)]
    return rows[0] + [run | {"chosen": False} for each in rows[1:] for run in each]


# rank


def test_every_cell_of_the_table():
    glu = runs("glu:gelu", GOOD, rate=0.003, activation="gelu", hidden=1234)
    table = ranking.rank(runs("mlp", WORSE) + glu, "mlp", OBJECTIVE).table
    assert table.columns == [
        "", "block", "activation", "hidden", "parameters", "FLOPs", "rate",
        "validation", "test accuracy", "Δ mlp", "p (Holm)", "P(better)", "µs/step",
        "diverged",
    ]  # fmt: skip
    best, baseline = table.rows
    low, high = stats.bootstrap_interval(np.float32(GOOD))
    assert best == [
        "1", "glu", "gelu", "1,234", "1,000", "2,000 (+0.1%)", "0.003",
        f"92.50 [{100 * low - 1:.2f}, {100 * high - 1:.2f}]",
        f"93.50 [{100 * low:.2f}, {100 * high:.2f}]",
        "+5.00 [+5.00, +5.00]", "0.0078", "0.93", "10", "0",
    ]  # fmt: skip
    assert baseline[:2] == ["2", "mlp"] and baseline[9:12] == ["baseline", "", ""]
    assert table.words == 3


def test_the_ranking_describes_its_score():
    best = ranking.rank(runs("mlp", WORSE) + runs("glu", GOOD), "mlp", OBJECTIVE)
    assert best.verdict.endswith("with 8 seeds: glu (better).")
    assert (best.baseline, best.score) == ("mlp", "accuracy")
    assert (best.unit, best.scale) == ("test accuracy, %", 100.0)
    assert best.higher_is_better and best.remarks == []
    assert best.essential == [
        "", "block", "activation", "test accuracy", "Δ mlp", "p (Holm)"
    ]  # fmt: skip
    assert [row.name for row in best.comparisons] == ["glu", "mlp"]


def test_a_loss_ranks_the_smallest_first():
    def lines(block, scores, **facts):
        return [
            run | {"test": {"loss": score}, "valid": {"loss": score}}
            for run, score in zip(runs(block, GOOD, **facts), scores, strict=True)
        ]

    small, large = [0.1] * 8, [0.2] * 7 + [0.21]
    best = ranking.rank(lines("mlp", large) + lines("glu", small), "mlp", LOSS)
    assert [row[1] for row in best.table.rows] == ["glu", "mlp"]
    assert best.table.rows[0][8] == "0.1000 [0.1000, 0.1000]"
    assert best.table.columns[8] == "test squared error" and not best.higher_is_better
    diverged = lines("reglu", small, diverged=range(8))
    for run in diverged:
        run["test"] = run["valid"] = None
    last = ranking.rank(lines("mlp", large) + diverged, "mlp", LOSS).table.rows[-1]
    assert last[1] == "reglu" and last[8] == "diverged"


def test_facts_that_lines_lack_are_no_columns():
    rows = runs("mlp", WORSE) + runs("glu", GOOD)
    for run in rows:
        del run["activation"], run["flops"]
        run["budget"] = "parameters"
    table = ranking.rank(rows, "mlp", OBJECTIVE).table
    assert table.columns[:5] == ["", "block", "hidden", "parameters", "rate"]
    assert table.rows[0][2:4] == ["8", "1,000 (+0.1%)"] and table.words == 2


def test_diagnostics_are_means_over_the_runs_that_have_them():
    glu = runs("glu", GOOD)
    for run in glu[:2]:
        run["valid"]["iterations"] = 4.0 + run["seed"]
    glu[3]["valid"] = None
    table = ranking.rank(
        glu + runs("mlp", WORSE), "mlp", OBJECTIVE, diagnostics=("iterations",)
    ).table
    assert table.columns[-3:] == ["iterations", "µs/step", "diverged"]
    assert [row[-3] for row in table.rows] == ["4.5", ""]


def test_a_run_that_was_not_timed_has_no_time():
    rows = runs("mlp", GOOD, microseconds_per_step=None)
    assert ranking.rank(rows, "mlp", OBJECTIVE).table.rows[0][-2] == ""


def test_pairs_are_of_equal_seeds_whatever_the_order():
    rows = runs("glu", GOOD) + runs("mlp", GOOD)[::-1]
    comparisons = ranking.rank(rows, "mlp", OBJECTIVE).comparisons
    assert comparisons[0].p_corrected in (None, 1.0)
    assert all(row.difference in (None, 0.0) for row in comparisons)


def test_only_chosen_runs_are_ranked():
    other = [run | {"chosen": False} for run in runs("mlp", GOOD, rate=0.1)]
    rows = runs("mlp", WORSE) + other + runs("glu", WORSE)
    assert ranking.rank(rows, "mlp", OBJECTIVE).comparisons[0].iqm < 0.9
    middle, interval = ranking.block_score(rows, "mlp", OBJECTIVE)
    assert middle == pytest.approx(0.885) and interval.low < middle < interval.high


def test_diverged_runs_are_reported_and_sink_only_their_block():
    bad = runs("reglu", GOOD, diverged=range(6))
    bad[1]["diverged_at"] = 3
    rows = bad + runs("mlp", GOOD) + runs("glu", GOOD)
    best = ranking.rank(rows, "mlp", OBJECTIVE)
    last = best.table.rows[-1]
    assert last[1] == "reglu" and last[8] == last[7] == "diverged"
    assert last[-1] == "6/8 at step 3"
    assert last[9] == "undefined: a seed diverged"
    assert [row[-1] for row in best.table.rows[:-1]] == ["0", "0"]
    assert "reglu diverged at step 5 (seed 0, learning rate 0.01)" in best.remarks
    assert "6 of reglu" in best.verdict
    assert len(best.table.rows) == 3


def test_a_score_that_json_lost_is_the_worst():
    odd = runs("glu", GOOD)
    odd[0]["test"] = {"accuracy": None}
    comparisons = ranking.rank(odd + runs("mlp", GOOD), "mlp", OBJECTIVE).comparisons
    assert {row.name: row.diverged for row in comparisons} == {"glu": 1, "mlp": 0}


def test_unknown_baseline():
    with pytest.raises(InputError, match="nearest: mlp"):
        ranking.rank(runs("mlp", GOOD), "mpl", OBJECTIVE)


def test_seeds_must_be_the_same():
    other = [run | {"seed": run["seed"] + 100} for run in runs("mlp", GOOD)]
    with pytest.raises(InputError, match=r"mlp has seeds \[100, .*, glu has \[0"):
        ranking.rank(runs("glu", GOOD) + other, "mlp", OBJECTIVE)


# remarks


@pytest.mark.parametrize(
    ("chosen", "word"), [(0.001, "smallest"), (0.01, None), (0.1, "largest")]
)
def test_a_rate_at_the_edge_is_remarked(chosen, word):
    rows = [
        run | {"chosen": rate == chosen}
        for rate, scores in ((0.001, GOOD), (0.01, GOOD), (0.1, GOOD))
        for block in ("mlp", "glu")
        for run in runs(block, [s - 0.1 * (rate != chosen) for s in scores], rate)
    ]
    remarks = ranking.rank(rows, "mlp", OBJECTIVE).remarks
    expected = f"the {word} learning rate, {chosen:g}, was best for mlp, glu: others"
    assert len(remarks) == (word is not None)
    assert all(remark.startswith(expected) for remark in remarks)


def test_of_two_rates_none_is_at_the_edge():
    rows = with_rates("mlp", GOOD, WORSE) + with_rates("glu", GOOD, WORSE)
    assert ranking.rank(rows, "mlp", OBJECTIVE).remarks == []


@pytest.mark.parametrize(("count", "remarks"), [(6, 12), (7, 13)])
def test_of_many_diverged_runs_the_first_are_remarked(count, remarks):
    rows = runs("glu", GOOD, diverged=range(count))
    rows += runs("mlp", GOOD, diverged=range(count))
    lines = ranking.rank(rows, "mlp", OBJECTIVE).remarks
    assert len(lines) == remarks
    rest = 2 * count - 12
    last = f"and {rest} more diverged runs: see results.jsonl"
    assert (lines[-1] == last) == (rest > 0)


def test_a_close_call_between_learning_rates_is_remarked():
    shaken = [score + 0.001 * (-1) ** i for i, score in enumerate(GOOD)]
    near = with_rates("glu", GOOD, shaken) + with_rates("mlp", GOOD, WORSE)
    (remark,) = ranking.rank(near, "mlp", OBJECTIVE).remarks
    assert remark.startswith("the learning rates hardly differ on the validation part")
    frequency = int(remark.rpartition("glu (")[2].removesuffix("%)"))
    assert 20 < frequency < 80 and "mlp" not in remark
    far = with_rates("glu", GOOD, WORSE) + with_rates("mlp", GOOD, WORSE)
    assert ranking.rank(far, "mlp", OBJECTIVE).remarks == []
    worst = with_rates("glu", GOOD, [-np.inf] * 8) + with_rates("mlp", GOOD, WORSE)
    assert ranking.rank(worst, "mlp", OBJECTIVE).remarks == []


def test_a_close_call_between_losses_looks_for_the_smallest():
    """The chosen rate has the smaller loss of nearly all resampled seeds."""
    rows = with_rates("mlp", [0.1] * 8, [0.2] * 8)
    for run in rows:
        score = run["test"]["accuracy"]
        run["test"] = run["valid"] = {"loss": score}
    assert ranking.rank(rows, "mlp", LOSS).remarks == []
    for run in rows:
        run["chosen"] = not run["chosen"]
    (remark,) = ranking.rank(rows, "mlp", LOSS).remarks
    assert remark.endswith("the same: mlp (0%)")


def test_how_often_resampled_seeds_choose_a_rate():
    scores = np.array([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 2.0, 2.0]])
    first, second = ranking._frequency_best(scores, seed=0)
    # The interquartile mean of four draws is above 1 when three or four of them are 2.
    assert second == pytest.approx(5 / 16, abs=0.04) and first + second == 1


# lines


PLAN = Plan(steps=5, every=2, batch=4, monitor="accuracy", higher_is_better=True)


def population(best, diverged=None, seeds=(3, 4), **record):
    """Returns a population of two rates and as many seeds, by the best scores."""
    members = len(best)
    diverged = np.full(members, -1) if diverged is None else np.array(diverged)
    curve = np.arange(3.0 * members).reshape(members, 3)
    fields = {
        "step": np.array(5),
        "loss": np.arange(5.0 * members).reshape(members, 5),
        "scores": {"accuracy": curve, "loss": -curve},
        "best": np.array(best, np.float32),
        "best_step": np.tile([2, 4, 5], members)[:members],
        "waited": np.zeros(members, np.int32),
        "diverged": diverged,
    }
    fit = SimpleNamespace(
        record=Record(**fields | record), seconds_per_step=8e-6, compile_seconds=2.5
    )
    rates = np.repeat(np.float32([0.001, 0.01]), len(seeds))[:members]
    return Population(np.tile(seeds, 2)[:members], rates, fit)


@pytest.mark.parametrize(
    ("best", "chosen"),
    [
        ([0.9, 0.8, 0.7, 0.6], [0, 1]),
        ([0.7, 0.6, 0.9, 0.8], [2, 3]),
        ([0.9, 0.8, 0.8, 0.9], [0, 1]),  # equal: the first
    ],
)
def test_the_best_learning_rate_is_chosen(best, chosen):
    assert ranking.choose_members(population(best), PLAN).tolist() == chosen
    losses = population([-score for score in best])
    plan = Plan(steps=5, every=2, batch=4)
    assert ranking.choose_members(losses, plan).tolist() == chosen


def test_a_diverged_run_is_the_worst_of_its_learning_rate():
    members = population([0.9, 0.8, 0.7, 0.6], diverged=[0, -1, -1, -1])
    assert ranking.choose_members(members, PLAN).tolist() == [2, 3]
    losses = population([0.1, 0.2, 0.3, 0.4], diverged=[-1, 7, -1, -1])
    plan = Plan(steps=5, every=2, batch=4)
    assert ranking.choose_members(losses, plan).tolist() == [2, 3]


def test_of_one_learning_rate_all_are_chosen():
    members = population([0.9, 0.8])
    assert ranking.choose_members(members, PLAN).tolist() == [0, 1]


def test_lines_hold_everything_of_a_run():
    members = population([0.9, 0.8, 0.7, 0.6])
    test = {"accuracy": np.array([0.75, 0.5]), "loss": np.array([1.0, 2.0])}
    facts = {"block": "glu", "parameters": np.int64(7)}
    lines = ranking.lines(facts, members, PLAN, np.array([2, 3]), test)
    assert [(line["seed"], line["learning_rate"]) for line in lines] == [
        (3, 0.001), (4, 0.001), (3, 0.01), (4, 0.01),
    ]  # fmt: skip
    assert lines[3] == {
        "block": "glu",
        "parameters": 7,
        "microseconds_per_step": 2.0,  # of each of the four members
        "compile_seconds": 2.5,
        "seed": 4,
        "learning_rate": 0.01,
        "diverged_at": None,
        "best_step": 2,
        "valid": {"accuracy": 9.0, "loss": -9.0},
        "chosen": True,
        "test": {"accuracy": 0.5, "loss": 2.0},
        "curve": {
            "step": [2, 4, 5],
            "train_loss": [15.5, 17.5, 19.0],
            "accuracy": [9.0, 10.0, 11.0],
            "loss": [-9.0, -10.0, -11.0],
        },
    }
    # The score of the evaluation at the best step: the second and the third.
    assert [line["valid"]["accuracy"] for line in lines] == [0.0, 4.0, 8.0, 9.0]
    assert [line["chosen"] for line in lines] == [False, False, True, True]
    assert lines[0]["test"] is lines[1]["test"] is None


def test_lines_of_runs_that_diverged_or_were_never_scored():
    members = population(
        [0.9, 0.8, 0.7, 0.6], diverged=[-1, -1, 0, -1], best_step=np.array([2, 4, 5, 0])
    )
    test = {"accuracy": np.array([0.75, 0.5])}
    lines = ranking.lines({}, members, PLAN, np.array([2, 3]), test)
    assert [line["diverged_at"] for line in lines] == [None, None, 0, None]
    for line in lines[2:]:
        assert line["best_step"] is line["valid"] is line["test"] is None
        assert line["chosen"]


# curves


def test_curves_are_of_the_chosen():
    other = [run | {"chosen": False} for run in runs("mlp", [0.1])]
    curves = ranking.curves(other + runs("mlp", GOOD) + runs("glu", WORSE), "accuracy")
    np.testing.assert_array_equal(curves["mlp"], np.array(GOOD)[:, None])
    np.testing.assert_array_equal(curves["glu"], np.array(WORSE)[:, None])


def test_infinite_scores_are_left_out_of_curves():
    rows = runs("mlp", [0.5], curve={"accuracy": [0.5, np.inf, None]})
    curve = ranking.curves(rows, "accuracy")["mlp"]
    np.testing.assert_array_equal(curve, [[0.5, np.nan, np.nan]])
