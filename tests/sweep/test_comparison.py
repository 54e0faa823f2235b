"""The launcher, as its users meet it: on the command line and in a notebook."""

import dataclasses
import json

import numpy as np
import pytest

from experiments import launch
from ffnlab import data, io
from ffnlab.data import Dataset
from ffnlab.errors import InputError
from ffnlab.nn import ffn
from ffnlab.report import plots
from ffnlab.sweep import comparison, population
from ffnlab.sweep.comparison import CompareConfig
from tests.conftest import check_refusal, command, refusals

SMALL = {
    "data": "wine",
    "blocks": ("mlp", "swiglu"),
    "activations": ("relu", "swish"),
    "seeds": 3,
    "learning_rates": (1e-3, 1e-2),
    "steps": 20,
    "evaluations": 2,
    "batch_size": 32,
    "features": 8,
    "hidden": 12,
    "layers": 1,
}


# Two blocks that compile fast, where the blocks are not the subject.
TWO = {**SMALL, "blocks": ("mlp", "bilinear"), "activations": ("relu",)}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "small"
    return CompareConfig(**SMALL, out=str(out))


@pytest.fixture(scope="module")
def done(config):
    """A small comparison, run once."""
    return comparison.compare(config)


def without_times(runs):
    skipped = ("microseconds_per_step", "compile_seconds")
    return [{k: v for k, v in run.items() if k not in skipped} for run in runs]


def test_everything_is_written(done):
    assert {path.name for path in done.out.iterdir()} == {
        "best", "curves.png", "data.sha256", "flags", "lock", "ranking.png",
        "report.md", "results.jsonl", "versions.json",
    }  # fmt: skip
    for picture in ("ranking.png", "curves.png"):
        assert (done.out / picture).read_bytes().startswith(b"\x89PNG")
    text = (done.out / "report.md").read_text()
    assert done.verdict in text and done.table.markdown() in text
    assert json.loads((done.out / "versions.json").read_text())["numpy"]


def test_a_line_for_every_run(done):
    runs = io.read_lines(done.out / "results.jsonl")
    assert len(runs) == 3 * 3 * 2
    assert without_times(runs) == without_times(io.jsonable(done.runs))
    for run in runs:
        assert len(run["curve"]["accuracy"]) == len(run["curve"]["step"]) == 2
        assert (run["test"] is not None) == run["chosen"]
    for block in ("mlp:relu", "mlp:swish", "swiglu"):
        rates = {
            r["learning_rate"] for r in runs if r["block"] == block and r["chosen"]
        }
        assert len(rates) == 1  # the test part was scored for one rate only


def test_the_best_parameters_are_kept(done):
    with np.load(done.out / "best" / "mlp-relu.npz") as file:
        shapes = {name: file[name].shape for name in file}
    assert shapes["head/kernel"] == (3, 8, 3) and shapes["block_0/up/bias"] == (3, 12)


def test_blocks_are_matched_and_paired(done):
    sizes = {run["block"]: run["parameters"] for run in done.runs}
    assert sizes["mlp:swish"] - sizes["mlp:relu"] == 1  # its β
    assert abs(sizes["swiglu"] / sizes["mlp:relu"] - 1) < 0.05
    assert {row.name for row in done.comparisons} == set(sizes)
    baseline = next(row for row in done.comparisons if row.name == "mlp:relu")
    assert baseline.p_value is None


def test_the_flag_file_resumes_and_repeats_the_run_to_the_same_numbers(
    config, done, tmp_path, monkeypatch
):
    """Interrupted in its second block and resumed, by nothing but the flag file."""
    out, fit, trained = tmp_path / "run", population.fit_population, []
    argv = ["compare", f"--flagfile={done.out}/flags", f"--out={out}"]
    again = launch.parse(CompareConfig, argv)
    assert again == dataclasses.replace(config, out=str(out))

    def interrupted(*args, **options):
        if trained:
            raise KeyboardInterrupt
        return counted(*args, **options)

    def counted(*args, **options):
        trained.append(args)
        return fit(*args, **options)

    monkeypatch.setattr(population, "fit_population", interrupted)
    with pytest.raises(KeyboardInterrupt):
        comparison.compare(again)
    assert len(trained) == 1
    monkeypatch.setattr(population, "fit_population", counted)
    argv = ["compare", f"--flagfile={out}/flags", f"--out={out}", "--resume"]
    resumed = comparison.compare(launch.parse(CompareConfig, argv))
    assert len(trained) == 3
    assert without_times(resumed.runs) == without_times(done.runs)
    assert resumed.verdict == done.verdict
    assert resumed.table.rows[0][:4] == done.table.rows[0][:4]

    again = dataclasses.replace(again, resume=True)
    with pytest.raises(InputError, match="this run has --seeds=4"):
        comparison.compare(dataclasses.replace(again, seeds=4))
    with pytest.raises(InputError, match="already holds a run"):
        comparison.compare(dataclasses.replace(again, resume=False))
    (out / "data.sha256").write_text("of a file that was edited since\n")
    with pytest.raises(InputError, match="the data has changed"):
        comparison.compare(again)


@pytest.mark.slow
def test_a_csv_from_the_command_line(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["age,town,income"]
    for _ in range(80):
        age, town = rng.integers(20, 60), rng.choice(["Ulm", "Bonn"])
        rows.append(f"{age},{town},{'high' if age > 40 else 'low'}")
    (tmp_path / "people.csv").write_text("\n".join(rows))
    done = command(
        "compare",
        f"--csv={tmp_path / 'people.csv'}", "--target=income", "--blocks=mlp",
        "--activations=relu,tanh", "--seeds=2", "--learning_rates=0.01", "--epochs=4",
        "--evaluations=2", "--batch_size=16", "--features=8", "--hidden=8",
        "--layers=1", f"--out={tmp_path / 'out'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Which feed-forward block? people: test accuracy, %" in done.stdout
    assert "with so few seeds" in done.stdout
    assert "source:" in (tmp_path / "out" / "report.md").read_text()
    assert "steps/s" in done.stderr and "s left" in done.stderr


def test_values_and_divergence(tmp_path):
    """A regression from an npz; at an absurd rate every run of a block diverges."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3)).astype(np.float32)
    np.savez(tmp_path / "sine.npz", x=x, y=np.sin(x[:, 0]) + x[:, 1])
    given = {
        **TWO,
        "data": None,
        "npz": str(tmp_path / "sine.npz"),
        "optimizer": "sgd",
        "clip": 0.0,
    }
    out = str(tmp_path / "good")
    result = comparison.compare(CompareConfig(**given, seed=3, out=out))
    assert result.table.columns[8] == "test squared error"
    assert not any(row[8] == "diverged" for row in result.table.rows)
    given["learning_rates"] = (1e25, 1e26)
    result = comparison.compare(CompareConfig(**given, out=str(tmp_path / "bad")))
    assert [row[8] for row in result.table.rows] == ["diverged"] * 2
    text = (tmp_path / "bad" / "report.md").read_text()
    assert "diverged at step" in text


def test_a_new_data_set_is_one_function_and_one_row(tmp_path, monkeypatch):
    def parity(seed):
        x = np.random.default_rng(seed).choice([-1.0, 1.0], (90, 2)).astype(np.float32)
        y = (x.prod(1) > 0).astype(np.int32)
        parts = [{"x": x[i::3], "y": y[i::3]} for i in range(3)]
        return Dataset("parity", *parts, "classes", 2, 2, {"source": "drawn"})

    monkeypatch.setitem(data.DATASETS, "parity", parity)
    monkeypatch.setitem(ffn.BLOCKS, "sine", ffn.Block(ffn.mlp, ("up",), "tanh"))
    given = {**TWO, "data": "parity", "blocks": ("mlp", "sine")}
    result = comparison.compare(CompareConfig(**given, out=str(tmp_path / "run")))
    assert {"mlp:relu", "sine"} == {row.name for row in result.comparisons}


WRONG = [
    (["--blocks=swigul"], "--blocks: unknown 'swigul'; nearest: swiglu"),
    (["--blocks=mlp,glu:tanhh"], "--blocks: unknown 'tanhh'; nearest: tanh"),
    (["--blocks=swiglu:relu"], "swiglu has an activation of its own"),
    (["--activations=geul"], "nearest: gelu"),
    (["--data=digit"], "--data: unknown 'digit'; nearest: digits"),
    (["--optimizer=adma"], "nearest: adam"),
    (["--schedule=cosin"], "nearest: cosine"),
    (["--budget=flop"], "nearest: flops"),
    (["--baseline=geglu", "--blocks=mlp"], "--baseline: unknown 'geglu'"),
    (["--learning_rates=nan"], "--learning_rates: nan should be a number above 0"),
    (["--seeds=0"], "--seeds: 0 should be a number at least 1"),
    (["--dropout=1"], "--dropout: 1.0 should be"),
    (["--data=wine", "--npz=a.npz"], "--data, --csv and --npz: give one"),
    (["--task=values"], "--task=values needs --csv=FILE or --npz=FILE"),
    (["--out=setup.cfg/run"], "setup.cfg is a file"),
    (["--csv=a.csv"], "--csv and --target"),
    (["--resume"], "--resume: --out=DIRECTORY must name the run"),
    (["--stepss=3"], "steps"),
    (["--csv=nowhere.csv", "--target=y"], "nowhere.csv"),
    (["--csv=.", "--target=y"], "directory"),
    (["--npz=nowhere.npz"], "nowhere.npz"),
    (["--out=setup.cfg"], "--out: setup.cfg is a file"),
    (["--out=tests"], "--out: tests holds files of something else"),
]


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """What the launcher makes of wrong flags, in one process without JAX."""
    path = tmp_path_factory.mktemp("refused")
    return refusals("compare", [flags for flags, _ in WRONG], path)


@pytest.mark.parametrize("case", range(len(WRONG)), ids=lambda i: " ".join(WRONG[i][0]))
def test_bad_input_is_refused_before_jax_is_imported(case, refused):
    check_refusal(refused[case], WRONG[case][1])


def test_bad_columns_are_named(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b,y\n" + "1,2,u\n" * 50 + "oops,2,v\n" + "1,2,v\n" * 50)
    csv = f"--csv={path}"
    results = refusals("compare", [[csv, "--target=z"], [csv, "--target=y"]], tmp_path)
    check_refusal(results[0], "'z'")
    check_refusal(results[1], f"{path}:52:")
    assert "oops" in results[1][1]


def test_help_is_readable():
    done = command("compare", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Which feed-forward block should I use")
    for field in dataclasses.fields(CompareConfig):
        assert f"--{field.name}=" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 88


def test_curves_leave_out_blocks_without_a_full_curve():
    scores = {"glu": np.ones((2, 3)), "mlp": np.array([[1, np.nan, np.nan]] * 2)}
    figure = plots.curves([1, 2, 3], scores, "mlp", "accuracy")
    assert [line.get_label() for line in figure.axes[0].lines] == ["glu"]
