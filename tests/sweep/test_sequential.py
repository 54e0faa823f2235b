import json

import numpy as np
import pytest

from ffnlab import stats
from ffnlab.errors import InputError
from ffnlab.stats import compare as compare_scores
from ffnlab.sweep import CompareConfig, comparison
from ffnlab.sweep.job import Job
from ffnlab.sweep.sequential import train_until_decided
from ffnlab.train.checkpoint import Checkpoints

SMALL = {
    "data": "wine",
    "blocks": ("mlp", "glu"),
    "activations": ("relu", "sigmoid"),
    "seeds": 10,
    "until": "decided",
    "max_replicates": 20,
    "learning_rates": (0.03,),
    "steps": 4,
    "evaluations": 1,
    "features": 8,
    "hidden": 8,
    "layers": 1,
}


class FakeSweep:
    """Draws a score for each run, and records what is asked for."""

    def __init__(self, shifts):
        rng = np.random.default_rng(3)
        self.scores = {name: rng.normal(size=64) + by for name, by in shifts.items()}
        self.asked, self.lines = [], []

    def train(self, keys, numbers):
        self.asked.append(([name for _, name in keys], numbers))
        done = {(line["block"], line["seed"]) for line in self.lines}
        for _, name in keys:
            for n in numbers:
                if (name, n) not in done:
                    score = float(self.scores[name][n])
                    self.lines.append({"block": name, "seed": n, "score": score})
        return list(self.lines)


def judge(stages):
    def compare(lines):
        scores = {}
        for line in lines:
            scores.setdefault(line["block"], []).append(line["score"])
        return compare_scores(scores, "base", True, stages=stages)

    return compare


def jobs(*names):
    return [Job(name, None, None, {}) for name in names]


def test_decided_blocks_get_no_more_replicates():
    stages = stats.stages_for(16, 64)
    sweep = FakeSweep({"base": 0.0, "high": 4.0, "near": 0.0, "some": 0.8})
    blocks = jobs("base", "high", "near", "some")
    lines = train_until_decided(sweep, blocks, stages, "base", judge(stages))
    assert sweep.asked[0] == (["base", "high", "near", "some"], range(16))
    counts = {
        name: sum(line["block"] == name for line in lines) for name in sweep.scores
    }
    assert counts["high"] == 16 and counts["base"] == max(counts.values())
    for (names, numbers), (start, stop) in zip(
        sweep.asked, zip((0, *stages), stages, strict=False), strict=False
    ):
        assert "base" in names and numbers == range(start, stop)
    verdicts = {row.name: row for row in judge(stages)(lines)}
    assert verdicts["high"].verdict == "better"


def test_a_resumed_run_asks_for_the_same_replicates():
    stages, shifts = stats.stages_for(16, 64), {"base": 0.0, "a": 0.5, "b": 3.0}
    first = FakeSweep(shifts)
    lines = train_until_decided(first, jobs(*shifts), stages, "base", judge(stages))
    again = FakeSweep(shifts)
    again.lines = list(first.lines)  # all of them, also those of later stages
    assert len(first.asked) > 1
    assert train_until_decided(again, jobs(*shifts), stages, "base", judge(stages)) == (
        lines
    )
    assert again.asked == first.asked


def test_all_decided_at_once_ends_after_one_stage():
    stages = stats.stages_for(16, 64)
    sweep = FakeSweep({"base": 0.0, "a": 5.0, "b": -5.0})
    lines = train_until_decided(
        sweep, jobs(*sweep.scores), stages, "base", judge(stages)
    )
    assert len(sweep.asked) == 1 and len(lines) == 48


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"until": "seeds"}, "max_replicates: it needs until=decided"),
        ({"split": "fixed"}, "until=decided needs split=replicates; with"),
        ({"data": "wine,iris"}, "until=decided needs one data set; a joint verdict"),
        ({"max_replicates": 9}, "max_replicates: 9 is less than the 10 seeds of"),
        ({"seeds": 6}, "seeds: 6 replicates in each of 4 stages: a stage that spends"),
        ({"until": "never"}, "until: unknown 'never'"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(flags, message):
    with pytest.raises(InputError, match=f"^{message}"):
        CompareConfig(**{**SMALL, **flags})


def test_the_default_is_four_stages():
    config = CompareConfig(**{**SMALL, "seeds": 16, "max_replicates": None})
    assert config.stages == (16, 32, 48, 64)
    assert CompareConfig(seeds=16).stages is None and CompareConfig().replicates == 16


@pytest.mark.slow
def test_stages_train_what_one_stage_would(tmp_path):
    """Replicates do not depend on the stage that they are trained in."""
    result = comparison.compare(CompareConfig(**SMALL, out=str(tmp_path / "staged")))
    counts = {row.name: row.replicates for row in result.comparisons}
    assert counts["mlp:relu"] == max(counts.values())
    column = result.table.columns.index("replicates")
    assert {row[column] for row in result.table.rows} == set(map(str, counts.values()))
    report = (tmp_path / "staged" / "report.md").read_text()
    assert "Replicates were added in stages, which end after 10 and 20" in report
    once = {**SMALL, "seeds": 20, "until": "seeds", "max_replicates": None}
    whole = comparison.compare(CompareConfig(**once, out=str(tmp_path / "once")))
    expected = {(run["block"], run["seed"]): run for run in whole.runs}
    for run in result.runs:
        same = expected[run["block"], run["seed"]]
        assert run["test"] == same["test"] and run["curve"] == same["curve"]
    lines = (tmp_path / "staged" / "results.jsonl").read_text().splitlines()
    assert len(lines) == sum(counts.values()) == len(result.runs)
    # A stage that was cut off is trained again, and nothing is added twice. If it was
    # killed while it removed checkpoints, half of them are left.
    half = Checkpoints(tmp_path / "staged" / "checkpoints" / "mlp-relu-0.03")
    half.check_run({"seeds": []})
    (tmp_path / "staged" / "checkpoints" / "mlp-relu-0.03" / "run.json").unlink()
    kept = [line for line in lines if json.loads(line)["seed"] < 10]
    (tmp_path / "staged" / "results.jsonl").write_text("\n".join(kept) + "\n")
    resumed = CompareConfig(**SMALL, out=str(tmp_path / "staged"), resume=True)
    again = comparison.compare(resumed)
    assert [run["test"] for run in again.runs] == [run["test"] for run in result.runs]
    for name, count in counts.items():
        with np.load(
            tmp_path / "staged" / "best" / f"{name.replace(':', '-')}.npz"
        ) as f:
            assert {len(array) for array in f.values()} == {count}
