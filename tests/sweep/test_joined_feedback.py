"""Shards of a comparison of feedback networks, joined to a run of all replicates."""

import numpy as np
import pytest

from ffnlab import data, io
from ffnlab.errors import InputError
from ffnlab.sweep import feedback_facts, report_facts
from ffnlab.sweep.feedback_comparison import compare_feedback
from ffnlab.sweep.feedback_config import FeedbackCompareConfig
from tests.conftest import check_refusal, refusals
from tests.sweep import test_joined_runs
from tests.sweep.tagged_files import write_tagged_files
from tests.sweep.test_joined_runs import check_same_run, join

SMALL = {
    "tasks": ("noisy_smoothing",),
    "models": ("certified", "elman"),
    "seeds": 4,
    "learning_rates": (1e-2,),
    "extend_rates": 0,
    "steps": 4,
    "evaluations": 2,
    "hidden": 6,
    "couplings": (0.5,),
    "iterations": 8,
    "gradient": "one_step",  # compiles fastest
}


def run(path, **options):
    """Runs a small comparison, and returns its result."""
    return compare_feedback(
        FeedbackCompareConfig(**{**SMALL, **options}, out=str(path))
    )


def check_shards(tmp_path, **options):
    """Checks that two shards are joined to a run of all, and returns its directory."""
    whole = run(tmp_path / "whole", **options)
    for number in (1, 2):
        shard = run(tmp_path / "shards" / str(number), shard=(number, 2), **options)
        assert shard.rankings == {}
    with pytest.raises(InputError, match="a shard has no ranking"):
        shard.plot()
    result = join(tmp_path / "shards" / "*", out=tmp_path / "joined")
    check_same_run(tmp_path / "joined", tmp_path / "whole")
    assert result.verdict == next(iter(whole.rankings.values())).verdict
    return tmp_path / "joined"


@pytest.mark.slow
def test_joined_shards_are_a_run_of_all_replicates(tmp_path):
    joined = check_shards(tmp_path)
    first, second = (tmp_path / "shards" / number for number in ("1", "2"))
    text = (first / "report.md").read_text()
    assert text.startswith("# Shard 1 of 2: What does a network gain")
    # Pictures of replicate 0 are drawn by the shard that has it.
    for name in ("solvers.png", "states.png"):
        assert f"({name})" in text and (first / name).exists()
        assert not (second / name).exists()
        assert f"({name})" in (joined / "report.md").read_text()
    assert {row["seed"] for row in io.read_lines(second / "results.jsonl")} == {2, 3}
    with pytest.raises(InputError, match="python -m experiments.feedback .*=2/2"):
        join(first)
    blocks = test_joined_runs.run(tmp_path / "blocks")
    message = "1 is a run of experiments.feedback and .*blocks is a run of experiments"
    with pytest.raises(InputError, match=message):
        join(first, blocks)


@pytest.mark.slow
def test_shards_of_taggers_are_joined_too(tmp_path):
    files = write_tagged_files(tmp_path)
    joined = check_shards(
        tmp_path, **files, models=("elman",), couplings=(), solver="jacobi"
    )
    assert np.load(joined / "spans" / "train-elman.npz")["f1"].shape == (4,)
    assert "span F1 on the test part: elman" in (joined / "report.md").read_text()


def test_facts_are_read_as_they_were_written(tmp_path):
    config = FeedbackCompareConfig(**SMALL)
    seeds = data.replicate_seeds(0, 2)
    drawn = data.replicate(data.SEQUENCES["noisy_smoothing"], seeds)
    facts = feedback_facts.gather(config, {"noisy_smoothing": drawn})
    report_facts.write(tmp_path, facts)
    assert report_facts.read(tmp_path) == facts
    assert facts.keys == [
        ("noisy_smoothing", name) for name in ("certified", "elman", "certified 0.5")
    ]
    assert facts.feedback.bounds == {"certified 0.5": 0.5, "certified": 0.9}
    assert not facts.shares_test_part("noisy_smoothing")
    assert set(facts.sources["noisy_smoothing"].marks) == {
        "best possible from both sides",
        "best possible from the left",
    }


WRONG = [
    (["--shard=0/4"], "--shard: 0/4: there is no shard 0 of 4"),
    (["--shard=1/9"], "--shard: 9 shards of 8 replicates"),
    (["--shard=1/2", "--split=fixed"], "all runs of a model share a learning rate"),
]


def test_bad_shards_are_refused_before_jax_is_imported(tmp_path):
    results = refusals("feedback", [flags for flags, _ in WRONG], tmp_path)
    for result, (_, message) in zip(results, WRONG, strict=True):
        check_refusal(result, message)
