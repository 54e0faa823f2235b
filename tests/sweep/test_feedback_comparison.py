"""The launcher of the feedback experiment, as its users meet it."""

from types import SimpleNamespace

import numpy as np
import pytest

from experiments import launch
from ffnlab import io
from ffnlab.errors import InputError
from ffnlab.sweep import feedback_comparison, tagger_scores
from ffnlab.sweep.feedback_comparison import FeedbackCompareConfig
from ffnlab.sweep.jobs import Job
from tests.conftest import check_refused

SMALL = {
    "tasks": ("noisy_smoothing", "digit_rows"),
    "models": ("feedback", "certified", "elman", "birnn"),
    "seeds": 2,
    "learning_rates": (1e-2,),
    "steps": 6,
    "evaluations": 2,
    "hidden": 6,
    "couplings": (0.5,),
    "iterations": 8,
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A small experiment, run once."""
    out = tmp_path_factory.mktemp("runs") / "small"
    return feedback_comparison.compare_feedback(
        FeedbackCompareConfig(**SMALL, out=str(out))
    )


def test_everything_is_written(done):
    found = {path.name for path in done.out.iterdir()}
    pictures = {
        f"{kind}-{task}.png"
        for kind in ("ranking", "curves")
        for task in SMALL["tasks"]
    }
    assert found == pictures | {
        "best", "coupling.png", "data.sha256", "flags", "lock", "report.md",
        "results.jsonl", "solvers.png", "states.png", "versions.json",
    }  # fmt: skip
    text = (done.out / "report.md").read_text()
    for task, ranking in done.rankings.items():
        assert f"## {task}" in text and ranking.table.markdown() in text
    assert "the best from both sides" in text and "(solvers.png)" in text


def test_every_model_has_its_lines_and_reports(done):
    runs = io.read_lines(done.out / "results.jsonl")
    assert len(runs) == 2 * 4 * 2 + 2  # tasks × models × seeds, and one more γ
    blocks = {run["block"] for run in runs}
    assert blocks == {*SMALL["models"], "certified 0.5"}
    for run in runs:
        solved = run["block"].startswith(("feedback", "certified"))
        assert ("iterations" in run["valid"]) == solved
        assert abs(run["unmatched"]) < 0.2
    for ranking in done.rankings.values():
        assert {row.name for row in ranking.comparisons} == set(SMALL["models"])
        assert ranking.table.columns[-6:-2] == [
            "iterations", "residual", "radius", "converged",
        ]  # fmt: skip


def test_the_flag_file_repeats_the_run_to_the_same_numbers(done, tmp_path):
    given = launch.parse(
        FeedbackCompareConfig,
        [
            "feedback",
            f"--flagfile={done.out}/flags",
            f"--out={tmp_path / 'again'}",
            "--models=certified,elman",  # two of its models, to take half the time
            "--couplings=",
        ],
    )
    again = feedback_comparison.compare_feedback(given)
    found = {(run["task"], run["block"], run["seed"]): run for run in done.runs}
    assert len(again.runs) == 2 * 2 * 2
    for run in again.runs:
        assert run["valid"] == found[run["task"], run["block"], run["seed"]]["valid"]


def test_conll_files_are_tagged(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("train", "dev", "test"):
        lines = []
        for _ in range(12):
            for word in rng.choice(["Ann", "met", "Bob", "in", "Ulm"], 5):
                lines.append(f"{word}\t{'B-PER' if word in ('Ann', 'Bob') else 'O'}")
            lines.append("")
        (tmp_path / f"{part}.conll").write_text("\n".join(lines))
    files = {part: str(tmp_path / f"{part}.conll") for part in ("train", "dev", "test")}
    given = {**SMALL, **files, "models": ("feedback", "elman"), "couplings": ()}
    found = feedback_comparison.compare_feedback(
        FeedbackCompareConfig(**given, layers=2, top_down=True, out=str(tmp_path / "o"))
    )
    (ranking,) = found.rankings.values()
    (told,) = (each for each in ranking.remarks if each.startswith("span F1"))
    assert "feedback 0." in told and told in (found.out / "report.md").read_text()
    assert not (found.out / "coupling.png").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tasks=bracket"], "--tasks: unknown 'bracket'; nearest: brackets"),
        (["--models=elmann"], "--models: unknown 'elmann'; nearest: elman"),
        (["--models=gru"], "--baseline: unknown 'elman'"),
        (["--solver=jacobbi"], "--solver: unknown 'jacobbi'; nearest: jacobi"),
        (["--gradient=implict"], "nearest: implicit"),
        (
            ["--contractive=1"],
            "--contractive: 1.0 should be a number above 0 and below",
        ),
        (["--couplings=0.5,nan"], "--couplings: nan should be"),
        (["--tolerance=1e-9"], "--tolerance: 1e-09 should be a number at least 1e-06"),
        (["--iterations=0"], "--iterations: 0 should be"),
        (["--train=a.conll"], "--train, --dev and --test: all three are needed"),
        (["--activation=relu2"], "the slope of relu2 has no bound"),
        (["--top_down", "--boundary=learned"], "--boundary: learned ends"),
        (["--train=a", "--dev=b", "--test=c"], "a: no such file"),
        (["--out=setup.cfg"], "--out: setup.cfg is a file"),
    ],
)
def test_bad_input_is_refused_before_jax_is_imported(flags, message, tmp_path):
    check_refused("feedback", flags, message, tmp_path)


def test_span_f1_is_of_the_predictions(monkeypatch):
    dataset = SimpleNamespace(about={"tags": ["O", "B-X", "I-X"]})
    job = Job("elman", None, dataset, {})
    labels, guesses = np.array([1, 2, 0, 1, -100]), np.array([1, 2, 0, 0, 1])
    monkeypatch.setattr(tagger_scores, "_predicted", lambda *_: [(labels, guesses)])
    assert tagger_scores.span_f1(job, {}) == pytest.approx(
        2 / 3
    )  # one of two, none wrong
    labels[[0, 3]] = 2  # no B- in the truth
    assert tagger_scores.span_f1(job, {}) == pytest.approx(2 / 3)


def test_every_solver_can_be_asked_for():
    for name in feedback_comparison._SOLVERS:
        config = FeedbackCompareConfig(solver=name, iterations=7, damping=0.25)
        made = [
            feedback_comparison._solver(config, certified)
            for certified in (True, False)
        ]
        assert all((each.max_steps, each.damping) == (7, 0.25) for each in made)
        assert (made[0] == made[1]) == (name != "auto")
    with pytest.raises(InputError, match="unknown 'newtn'"):
        FeedbackCompareConfig(solver="newtn")
