"""The comparison of feedback networks, and its launcher."""

import numpy as np
import pytest

from experiments import launch
from ffnlab import io
from ffnlab.errors import InputError
from ffnlab.sweep import feedback_comparison
from ffnlab.sweep.feedback_comparison import FeedbackCompareConfig
from tests.conftest import check_refused

SMALL = {
    "tasks": ("noisy_smoothing", "digit_rows"),
    "models": ("certified", "elman"),
    "seeds": 2,
    "learning_rates": (1e-2,),
    "steps": 6,
    "evaluations": 2,
    "hidden": 6,
    "couplings": (0.5,),
    "iterations": 8,
    "gradient": "one_step",  # compiles fastest
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A small experiment, run once."""
    out = tmp_path_factory.mktemp("runs") / "small"
    return feedback_comparison.compare_feedback(
        FeedbackCompareConfig(**SMALL, out=str(out))
    )


def test_everything_is_written(done):
    files = {path.name for path in done.out.iterdir()}
    pictures = {
        f"{kind}-{task}.png"
        for kind in ("differences", "rates", "curves")
        for task in SMALL["tasks"]
    }
    assert files == pictures | {
        "best", "coupling.png", "data.sha256", "flags", "lock", "report.md",
        "results.jsonl", "solvers.png", "states.png", "versions.json",
    }  # fmt: skip
    text = (done.out / "report.md").read_text()
    for task, ranking in done.rankings.items():
        assert f"## {task}" in text and ranking.table.markdown() in text
    assert "best possible from both sides" in text and "(solvers.png)" in text


def test_every_model_has_its_lines_and_reports(done):
    runs = io.read_lines(done.out / "results.jsonl")
    assert len(runs) == 2 * 2 * 2 + 2  # tasks × models × seeds, and one more γ
    blocks = {run["block"] for run in runs}
    assert blocks == {*SMALL["models"], "certified 0.5"}
    for run in runs:
        solved = run["block"].startswith("certified")
        assert ("iterations" in run["valid"]) == solved
        assert abs(run["unmatched"]) < 0.2
    for ranking in done.rankings.values():
        assert {row.name for row in ranking.comparisons} == set(SMALL["models"])
        assert ranking.table.columns[-6:-2] == [
            "iterations", "residual", "radius", "converged",
        ]  # fmt: skip


def test_the_flag_file_repeats_the_run_to_the_same_numbers(done, tmp_path):
    config = launch.parse(
        FeedbackCompareConfig,
        [
            "feedback",
            f"--flagfile={done.out}/flags",
            f"--out={tmp_path / 'again'}",
            "--couplings=",
        ],
    )
    again = feedback_comparison.compare_feedback(config)
    runs = {(run["task"], run["block"], run["seed"]): run for run in done.runs}
    assert len(again.runs) == 2 * 2 * 2
    for run in again.runs:
        assert run["valid"] == runs[run["task"], run["block"], run["seed"]]["valid"]


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
    changes = {"models": ("feedback",), "baseline": "feedback", "couplings": ()}
    changes |= {"solver": "jacobi", "gradient": "implicit"}
    config = FeedbackCompareConfig(
        **SMALL | files | changes, layers=2, top_down=True, out=str(tmp_path / "out")
    )
    result = feedback_comparison.compare_feedback(config)
    (ranking,) = result.rankings.values()
    (remark,) = (each for each in ranking.remarks if each.startswith("span F1"))
    assert "feedback 0." in remark
    assert remark in (result.out / "report.md").read_text()
    assert not (result.out / "coupling.png").exists()


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
        (["--top_down", "--boundary=learned"], "--boundary: learned cannot be"),
        (["--train=a", "--dev=b", "--test=c"], "a: no such file"),
        (["--out=setup.cfg"], "--out: setup.cfg is a file"),
    ],
)
def test_bad_input_is_refused_before_jax_is_imported(flags, message, tmp_path):
    check_refused("feedback", flags, message, tmp_path)


def test_every_solver_can_be_asked_for():
    for name in feedback_comparison._SOLVERS:
        config = FeedbackCompareConfig(solver=name, iterations=7, damping=0.25)
        solvers = [
            feedback_comparison._solver(config, certified)
            for certified in (True, False)
        ]
        assert all((each.max_steps, each.damping) == (7, 0.25) for each in solvers)
        assert (solvers[0] == solvers[1]) == (name != "auto")
    with pytest.raises(InputError, match="unknown 'newtn'"):
        FeedbackCompareConfig(solver="newtn")


def test_old_names_of_flags_keep_working():
    flags = ["feedback", "--begin=mixed", "--radius=2", "--warmup=7"]
    config = launch.parse(FeedbackCompareConfig, flags)
    assert (config.coupling_init, config.window_radius) == ("mixed", 2)
    assert config.warmup_steps == 7
