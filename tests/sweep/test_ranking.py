"""The ranking of hand-made lines."""

import numpy as np
import pytest

from ffnlab import stats
from ffnlab.errors import InputError
from ffnlab.sweep import ranking
from ffnlab.train import objectives

GOOD = [0.90, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97]
BETTER_BY = np.array([4.0, 5.0, 6.0, 5.0, 4.5, 5.5, 5.0, 5.0]) / 100
WORSE = [float(score) for score in GOOD - BETTER_BY]
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


def losses(block, scores, **facts):
    """Returns a chosen run of a loss for each score."""
    return [
        run | {"test": {"loss": score}, "valid": {"loss": score}}
        for run, score in zip(runs(block, GOOD, **facts), scores, strict=True)
    ]


def test_every_cell_of_the_table():
    glu = runs("glu:gelu", GOOD, rate=0.003, activation="gelu", hidden=1234)
    glu[0]["learning_rate"] = 0.01
    table = ranking.rank(runs("mlp", WORSE) + glu, "mlp", OBJECTIVE).table
    assert table.columns == [
        "", "block", "activation", "hidden", "parameters", "FLOPs", "rate",
        "validation", "test accuracy", "Δ mlp", "p", "P(better)", "verdict", "µs/step",
        "diverged",
    ]  # fmt: skip
    best, baseline = table.rows
    low, high = stats.mean_interval(GOOD)
    row, _ = stats.compare({"mlp": WORSE, "glu": GOOD}, "mlp", True, margin=0.005)
    near, far = row.difference_interval
    assert best == [
        "1", "glu", "gelu", "1,234", "1,000", "2,000 (+0.1%)", "0.003 (7/8)",
        "92.50", f"93.50 [{100 * low:.2f}, {100 * high:.2f}]",
        f"+5.00 [{100 * near:+.2f}, {100 * far:+.2f}]", "0.0078", "1.00", "better",
        "10", "0",
    ]  # fmt: skip
    assert baseline[:2] == ["2", "mlp"] and baseline[9:13] == ["baseline", "", "", ""]
    assert table.words == 3


def test_new_data_have_a_p_value_of_their_own():
    best = ranking.rank(
        runs("mlp", WORSE) + runs("glu", GOOD), "mlp", OBJECTIVE, test_ratio=0.5
    )
    place = best.table.columns.index("p, new")
    assert best.table.columns[place - 1] == "p"
    first, baseline = best.table.rows
    assert float(first[place]) >= float(first[place - 1]) and baseline[place] == ""
    assert len(first) == len(baseline) == len(best.table.columns)


def test_the_ranking_describes_its_score():
    best = ranking.rank(runs("mlp", WORSE) + runs("glu", GOOD), "mlp", OBJECTIVE)
    assert best.verdict.startswith("Over 8 replicates, better than mlp: glu.")
    assert (best.baseline, best.score) == ("mlp", "accuracy")
    assert (best.unit, best.scale) == ("test accuracy, %", 100.0)
    assert best.higher_is_better and best.remarks == []
    assert best.essential == [
        "", "block", "activation", "rate", "test accuracy", "Δ mlp", "p", "verdict"
    ]  # fmt: skip
    assert [row.name for row in best.comparisons] == ["glu", "mlp"]


def test_differences_in_the_verdict_have_the_unit_of_the_table():
    shaken = [score + 0.01 * (-1) ** i for i, score in enumerate(GOOD)]
    best = ranking.rank(runs("mlp", GOOD) + runs("glu", shaken), "mlp", OBJECTIVE)
    (row,) = (row for row in best.comparisons if row.verdict)
    assert f"difference of {100 * row.detectable:.2f} points" in best.verdict


@pytest.mark.parametrize(
    ("margin", "difference", "verdict"),
    [(None, 0.003, "equivalent"), (None, 0.007, "better"), (1.0, 0.007, "equivalent")],
)
def test_the_margin_is_half_a_point_or_what_is_given(margin, difference, verdict):
    shifted = [x + difference + 1e-4 * (-1) ** i for i, x in enumerate(GOOD)]
    rows = runs("mlp", GOOD) + runs("glu", shifted)
    best = ranking.rank(rows, "mlp", OBJECTIVE, margin=margin)
    assert best.comparisons[0].verdict == verdict
    assert best.margin == pytest.approx((margin or 0.5) / 100)
    if verdict == "equivalent":
        assert f"within ±{margin or 0.5:.2f} points" in best.verdict


def test_a_loss_ranks_the_smallest_first():
    small, large = [0.1] * 7 + [0.101], [0.2] * 7 + [0.21]
    best = ranking.rank(losses("mlp", large) + losses("glu", small), "mlp", LOSS)
    assert [row[1] for row in best.table.rows] == ["glu", "mlp"]
    assert best.table.rows[0][8].startswith("0.1001 [0.0")
    assert best.table.columns[8] == "test squared error" and not best.higher_is_better
    assert best.margin == pytest.approx(0.01 * np.mean(large))
    assert best.comparisons[0].verdict == "better"


def test_facts_that_lines_lack_are_no_columns():
    rows = runs("mlp", WORSE) + runs("glu", GOOD)
    for run in rows:
        del run["activation"], run["flops"]
        run["budget"] = "parameters"
    table = ranking.rank(rows, "mlp", OBJECTIVE).table
    assert table.columns[:5] == ["", "block", "hidden", "parameters", "rate"]
    assert table.rows[0][2:4] == ["8", "1,000 (+0.1%)"] and table.words == 2


def test_a_fact_is_a_column_if_all_lines_have_it():
    glu, plain = runs("glu", GOOD, initial_variance=0.04567), runs("mlp", WORSE)
    assert "variance" not in ranking.rank(glu + plain, "mlp", OBJECTIVE).table.columns
    plain = runs("mlp", WORSE, initial_variance=1.3333)
    table = ranking.rank(glu + plain, "mlp", OBJECTIVE).table
    place = table.columns.index("variance")
    assert [row[place] for row in table.rows] == ["0.046", "1.3"]


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
    assert comparisons[0].p_value in (None, 1.0)
    assert all(row.difference in (None, 0.0) for row in comparisons)


def test_only_chosen_runs_are_ranked():
    other = [run | {"chosen": False} for run in runs("mlp", GOOD, rate=0.1)]
    rows = runs("mlp", WORSE) + other + runs("glu", WORSE)
    assert ranking.rank(rows, "mlp", OBJECTIVE).comparisons[0].score < 0.9
    mean, interval = ranking.block_score(rows, "mlp", OBJECTIVE)
    assert mean == pytest.approx(0.885) and interval == stats.mean_interval(WORSE)
    one = ranking.block_score(rows[:1], "mlp", OBJECTIVE)
    assert one == (WORSE[0], (WORSE[0], WORSE[0]))


def test_a_diverged_run_has_the_score_of_a_trivial_predictor():
    bad = runs("reglu", GOOD, diverged=range(6), trivial=0.25)
    bad[1]["diverged_at"] = 3
    rows = bad + runs("mlp", GOOD) + runs("glu", GOOD)
    best = ranking.rank(rows, "mlp", OBJECTIVE)
    last = best.table.rows[-1]
    mean = (6 * 0.25 + GOOD[6] + GOOD[7]) / 8
    assert last[1] == "reglu" and last[8].startswith(f"{100 * mean:.2f} [")
    assert last[-1] == "6/8 at step 3"
    assert [row[-1] for row in best.table.rows[:-1]] == ["0", "0"]
    assert "reglu diverged at step 5 (seed 0, learning rate 0.01)" in best.remarks
    assert "runs that diverged have the score of a trivial predictor" in best.remarks


def test_a_diverged_run_of_an_earlier_version_has_the_worst_score_of_its_block():
    odd = runs("glu", GOOD)
    odd[0]["test"] = {"accuracy": None}
    comparisons = ranking.rank(odd + runs("mlp", GOOD), "mlp", OBJECTIVE).comparisons
    glu = next(row for row in comparisons if row.name == "glu")
    assert glu.score == pytest.approx(np.mean([0.91, *GOOD[1:]]))
    rows = losses("glu", GOOD) + losses("mlp", GOOD)
    rows[0]["test"] = None
    glu, _ = sorted(ranking.rank(rows, "mlp", LOSS).comparisons, key=lambda r: r.name)
    assert glu.score == pytest.approx(np.mean([0.97, *GOOD[1:]]))


def test_if_every_run_diverged_there_is_no_ranking():
    rows = runs("glu", GOOD, diverged=range(8), trivial=0.1)
    rows += runs("mlp", GOOD, diverged=range(8), trivial=0.1)
    best = ranking.rank(rows, "mlp", OBJECTIVE)
    assert best.verdict.startswith("Every run diverged, so there is no ranking")
    assert len(best.table.rows) == 2
    rows[0]["diverged_at"] = None
    assert "diverged" not in ranking.rank(rows, "mlp", OBJECTIVE).verdict


def test_unknown_baseline():
    with pytest.raises(InputError, match="nearest: mlp"):
        ranking.rank(runs("mlp", GOOD), "mpl", OBJECTIVE)


def test_seeds_must_be_the_same():
    other = [run | {"seed": run["seed"] + 100} for run in runs("mlp", GOOD)]
    with pytest.raises(InputError, match=r"mlp has seeds \[100, .*, glu has \[0"):
        ranking.rank(runs("glu", GOOD) + other, "mlp", OBJECTIVE)


# remarks


def at_three_rates(block, scores, chosen, count):
    """Returns runs at three rates, of which `count` of eight chose the given one."""
    return [
        run | {"chosen": rate == (chosen if run["seed"] < count else 0.01)}
        for rate in (0.001, 0.01, 0.1)
        for run in runs(block, scores, rate)
    ]


@pytest.mark.parametrize(
    ("chosen", "count", "word"),
    [
        (0.001, 5, "smallest"),
        (0.001, 4, None),
        (0.01, 8, None),
        (0.1, 5, "largest"),
        (0.1, 4, None),
    ],
)
def test_a_rate_at_the_edge_is_remarked(chosen, count, word):
    rows = at_three_rates("mlp", WORSE, chosen, count)
    rows += at_three_rates("glu", GOOD, chosen, count)
    best = ranking.rank(rows, "mlp", OBJECTIVE)
    expected = (
        f"the {word} learning rate that was tried was best in most runs of mlp, glu"
    )
    assert len(best.remarks) == (word is not None)
    assert all(remark.startswith(expected) for remark in best.remarks)
    claim = best.table.rows[0][best.table.columns.index("verdict")]
    assert claim == ("better (untuned)" if word else "better")


def test_an_edge_is_that_of_the_rates_that_a_run_tried():
    """Runs whose best was 0.1 tried one rate more, and it was worse."""
    rows = at_three_rates("mlp", WORSE, 0.1, 8) + at_three_rates("glu", GOOD, 0.01, 8)
    more = [run | {"chosen": False} for run in runs("mlp", WORSE, 0.3)]
    assert ranking.rank(rows + more, "mlp", OBJECTIVE).remarks == []
    (remark,) = ranking.rank(rows + more[:3], "mlp", OBJECTIVE).remarks
    assert "runs of mlp:" in remark


def test_of_two_rates_none_is_at_the_edge():
    rows = [
        run | {"chosen": rate == 0.02}
        for rate in (0.01, 0.02)
        for block in ("mlp", "glu")
        for run in runs(block, GOOD, rate)
    ]
    assert ranking.rank(rows, "mlp", OBJECTIVE).remarks == []


@pytest.mark.parametrize(("count", "remarks"), [(5, 11), (6, 13)])
def test_of_many_diverged_runs_the_first_are_remarked(count, remarks):
    rows = runs("glu", GOOD, diverged=range(count))
    rows += runs("mlp", GOOD, diverged=range(count))
    lines = ranking.rank(rows, "mlp", OBJECTIVE).remarks
    assert len(lines) == remarks
    last = "and 1 more diverged runs: see results.jsonl"
    assert (lines[-1] == last) == (count == 6)
