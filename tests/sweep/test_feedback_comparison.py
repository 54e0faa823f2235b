"""The comparison of feedback networks, and its launcher."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import launch
from ffnlab import io
from ffnlab.errors import InputError
from ffnlab.sweep import (
    feedback_comparison,
    feedback_config,
    feedback_facts,
    feedback_note,
    population,
)
from ffnlab.sweep.feedback_config import FeedbackCompareConfig
from tests.conftest import check_refused
from tests.sweep.tagged_files import write_tagged_files

SMALL = {
    "tasks": ("noisy_smoothing", "digit_rows"),
    "models": ("certified", "elman"),
    "seeds": 2,
    "learning_rates": (3e-3, 1e-2),
    "extend_rates": 1,
    "steps": 6,
    "evaluations": 2,
    "hidden": 6,
    "couplings": (0.5,),
    "iterations": 8,
    "gradient": "one_step",  # compiles fastest
}

FIXED = {"split": "fixed", "extend_rates": 0}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A small experiment, run once."""
    out = tmp_path_factory.mktemp("runs") / "small"
    return feedback_comparison.compare_feedback(
        FeedbackCompareConfig(**SMALL, out=str(out))
    )


def test_the_result_is_a_frame_and_a_picture(done):
    pytest.importorskip("pandas")
    assert len(done.frame()) == len(done.runs)
    task = [*done.rankings][-1]
    axes = Figure().add_subplot()
    assert done.plot(axes, task) is axes
    assert f"from {done.rankings[task].baseline}" in axes.get_xlabel()
    assert done.rankings[task].verdict in repr(done)


def test_everything_is_written(done):
    files = {path.name for path in done.out.iterdir()}
    pictures = {
        f"{kind}-{task}.png"
        for kind in ("differences", "rates", "curves")
        for task in SMALL["tasks"]
    }
    assert files == pictures | {
        "best", "coupling.png", "data.sha256", "flags", "lock", "report.json",
        "report.md", "results.jsonl", "solvers.png", "states.png", "versions.json",
        "manifest.sha256",
    }  # fmt: skip
    text = (done.out / "report.md").read_text()
    for task, ranking in done.rankings.items():
        assert f"## {task}" in text and ranking.table.markdown() in text
    assert "best possible from both sides" in text and "(solvers.png)" in text


def test_every_model_has_its_lines_and_reports(done):
    runs = io.read_lines(done.out / "results.jsonl")
    # tasks × models × seeds and one more γ, at three rates each
    assert len(runs) == (2 * 2 * 2 + 2) * 3
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


def table(runs):
    """What a resumed or repeated run has again, by task, model, seed and rate."""
    names = ("task", "block", "seed", "learning_rate")
    values = ("chosen", "best_step", "valid", "test", "curve", "trivial")
    return {
        tuple(run[name] for name in names): {name: run[name] for name in values}
        for run in runs
    }


def test_every_run_has_the_rate_that_its_validation_part_chose(done):
    """Of two rates the best is at an edge, so that a third one is tried."""
    rates = {}
    for (*run, rate), values in table(done.runs).items():
        rates.setdefault(tuple(run), {})[rate] = values
    assert all(len(tried) == 3 for tried in rates.values())
    for tried in rates.values():
        scores = {rate: each["valid"]["accuracy"] for rate, each in tried.items()}
        (chosen,) = (rate for rate, each in tried.items() if each["chosen"])
        assert scores[chosen] == max(scores.values())


@pytest.mark.slow  # jobs resume as in test_comparison.py, and numbers repeat as below
def test_the_flag_file_repeats_an_interrupted_run_to_the_same_numbers(
    done, tmp_path, monkeypatch
):
    """It is interrupted in its second model, and resumed."""
    out, fit, calls = tmp_path / "again", population.fit_members, []
    flags = ["feedback", f"--flagfile={done.out}/flags", f"--out={out}"]

    def interrupted(*args, **options):
        calls.append(args)
        if len(calls) == 5:  # the second rate of the second model
            raise KeyboardInterrupt
        return fit(*args, **options)

    monkeypatch.setattr(population, "fit_members", interrupted)
    with pytest.raises(KeyboardInterrupt):
        feedback_comparison.compare_feedback(launch.parse(FeedbackCompareConfig, flags))
    config = launch.parse(FeedbackCompareConfig, [*flags, "--resume"])
    again = feedback_comparison.compare_feedback(config)
    assert len(calls) == 5 + 4 * 3
    assert table(again.runs) == table(done.runs)


def test_a_replicate_does_not_depend_on_the_number_of_replicates(done, tmp_path):
    fewer = {**SMALL, "tasks": ("noisy_smoothing",), "models": ("elman",), "seeds": 1}
    config = FeedbackCompareConfig(**fewer | {"couplings": ()}, out=str(tmp_path / "1"))
    runs = table(feedback_comparison.compare_feedback(config).runs)
    assert len(runs) == 3
    for key, values in runs.items():
        assert values == table(done.runs)[key]


def test_replicates_have_their_own_data_and_share_them_between_models(done):
    trivial = {}
    for (task, _, seed, _), values in table(done.runs).items():
        trivial.setdefault((task, seed), set()).add(values["trivial"])
    assert all(len(scores) == 1 for scores in trivial.values())
    assert trivial["noisy_smoothing", 0] != trivial["noisy_smoothing", 1]
    losses = {tuple(run["curve"]["train_loss"]) for run in done.runs}
    assert len(losses) == len(done.runs)
    # Splits of the same digits overlap; independent draws need no correction.
    assert "p, new" in done.rankings["digit_rows"].table.columns
    assert "p, new" not in done.rankings["noisy_smoothing"].table.columns


def test_a_fixed_split_gives_all_runs_the_same_data():
    config = FeedbackCompareConfig(**SMALL | FIXED)
    for dataset in feedback_comparison._datasets(config).values():
        assert feedback_facts.split_ratio(dataset) is None
        assert dataset.about["seed"] == 0
    assert config.design == (True, 0, None)
    assert FeedbackCompareConfig(extend_rates=2).design == (False, 2, None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ["data of digit_rows are split anew", "noisy_smoothing are drawn anew"]),
        ({"tasks": ("digit_rows",)}, ["corrects the variance for the overlap"]),
        ({"tasks": ("brackets",)}, ["brackets are drawn anew", "about new data"]),
        (FIXED, ["the verdict is about these data and these learning"]),
    ],
)
def test_the_note_says_what_the_verdict_is_about(changes, words):
    config = FeedbackCompareConfig(**SMALL | changes)
    datasets = feedback_comparison._datasets(config)
    note = " ".join(feedback_note.note(config, datasets).split())
    for each in words:
        assert each in note
    if len(config.tasks) == 1:
        assert ("drawn anew" in note) != ("split anew" in note)


def test_conll_files_are_tagged(tmp_path):
    files = write_tagged_files(tmp_path)
    changes = {"models": ("feedback",), "baseline": "feedback", "couplings": ()}
    changes |= {"solver": "jacobi", "gradient": "implicit"}
    config = FeedbackCompareConfig(
        **SMALL | files | changes, layers=2, top_down=True, out=str(tmp_path / "out")
    )
    result = feedback_comparison.compare_feedback(config)
    (ranking,) = result.rankings.values()
    (remark,) = (each for each in ranking.remarks if each.startswith("span F1"))
    assert "feedback 0." in remark
    text = (result.out / "report.md").read_text()
    assert remark in text and "two-way: they count" in " ".join(text.split())
    scores = np.load(result.out / "examples" / "train-feedback.npz")["accuracy"]
    assert scores.shape == (len(ranking.comparisons[0].scores), 12)
    np.testing.assert_allclose(scores.mean(axis=1), ranking.comparisons[0].scores)
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
        (["--split=none"], "--split: unknown 'none'"),
        (["--split=fixed", "--extend_rates=2"], "--extend_rates=2 needs --split="),
        (["--margin=0"], "--margin: 0.0 should be a number above 0"),
        (["--top_down", "--boundary=learned"], "--boundary: learned cannot be"),
        (["--train=a", "--dev=b", "--test=c"], "a: no such file"),
        (["--out=setup.cfg"], "--out: setup.cfg is a file"),
    ],
)
def test_bad_input_is_refused_before_jax_is_imported(flags, message, tmp_path):
    check_refused("feedback", flags, message, tmp_path)


def test_a_mesh_that_does_not_fit_a_model_leaves_no_directory(tmp_path):
    changes = {"tasks": ("brackets",), "hidden": 7, "mesh": ("model:2",)}
    config = FeedbackCompareConfig(**SMALL | changes, out=str(tmp_path / "out"))
    message = "model:2 does not divide dimension .*, 7; .* \\(brackets certified\\)$"
    with pytest.raises(InputError, match=message):
        feedback_comparison.compare_feedback(config)
    assert not (tmp_path / "out").exists()


def test_every_solver_can_be_asked_for():
    for name in feedback_config.SOLVERS:
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
