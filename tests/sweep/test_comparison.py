"""The launcher, as its users meet it: on the command line and in a notebook."""

import dataclasses
import json

import numpy as np
import pytest

from experiments import launch
from ffnlab import data, io, options
from ffnlab.data import Dataset
from ffnlab.errors import InputError
from ffnlab.nn import ffn
from ffnlab.sweep import block_jobs, comparison, population
from ffnlab.sweep.comparison_config import CompareConfig
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
    "extend_rates": 0,
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
        "best", "curves.png", "data.sha256", "differences.png", "flags", "lock",
        "rates.png", "report.json", "report.md", "results.jsonl", "versions.json",
        "manifest.sha256",
    }  # fmt: skip
    for picture in ("differences.png", "rates.png", "curves.png"):
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
        for seed in range(3):  # the test part was scored for one rate only
            rates = {
                run["learning_rate"]: run
                for run in runs
                if run["block"] == block and run["seed"] == seed
            }
            assert [run["chosen"] for run in rates.values()].count(True) == 1
            scores = [run["valid"]["accuracy"] for run in rates.values()]
            (chosen,) = (run for run in rates.values() if run["chosen"])
            assert chosen["valid"]["accuracy"] == max(scores)


def test_every_replicate_has_its_own_split_and_models_share_them(done):
    trivial = {}
    for run in done.runs:
        trivial.setdefault(run["seed"], set()).add(run["trivial"])
    assert all(len(scores) == 1 for scores in trivial.values())
    losses = {tuple(run["curve"]["train_loss"]) for run in done.runs}
    assert len(losses) == len(done.runs)
    assert done.comparisons[0].p_new_data or done.comparisons[1].p_new_data


def test_a_fixed_split_is_the_design_of_earlier_versions(tmp_path):
    """All runs have one split, and all runs of a block one learning rate."""
    given = {**TWO, "blocks": ("mlp",), "split": "fixed"}
    result = comparison.compare(CompareConfig(**given, out=str(tmp_path / "run")))
    chosen = [run for run in result.runs if run["chosen"]]
    assert len(chosen) == 3 and len({r["learning_rate"] for r in chosen}) == 1
    assert len({run["trivial"] for run in result.runs}) == 1
    assert "p, new" not in result.table.columns
    text = (tmp_path / "run" / "report.md").read_text()
    assert "another split may give another one" in " ".join(text.split())


def test_rates_are_extended_and_a_part_of_a_sweep_has_the_same_lines(
    tmp_path, monkeypatch
):
    """At such small rates, most runs are better at the next one."""
    given = {**TWO, "blocks": ("mlp",), "learning_rates": (3e-4, 1e-3)}
    given["extend_rates"] = 2
    whole = comparison.compare(CompareConfig(**given, out=str(tmp_path / "whole")))
    rates = {run["learning_rate"] for run in whole.runs}
    assert {0.0003, 0.001, 0.00333333, 0.0111111} <= rates

    config = CompareConfig(**{**given, "seeds": 2}, out=str(tmp_path / "part"))
    fit, calls = population.fit_members, []

    def interrupted(*args, **options):
        calls.append(args)
        if len(calls) == 4:  # the second extension of the first block
            raise KeyboardInterrupt
        return fit(*args, **options)

    monkeypatch.setattr(population, "fit_members", interrupted)
    with pytest.raises(KeyboardInterrupt):
        comparison.compare(config)
    part = comparison.compare(dataclasses.replace(config, resume=True))

    def table(runs):
        keys = ("block", "seed", "learning_rate", "chosen", "best_step", "diverged_at")
        rows = {tuple(run[key] for key in keys): run for run in runs if run["seed"] < 2}
        return {row: run["curve"]["accuracy"] for row, run in rows.items()}

    first, second = table(whole.runs), table(part.runs)
    assert first.keys() == second.keys()
    for row, curve in first.items():
        np.testing.assert_allclose(curve, second[row], atol=1e-6)
    assert not (tmp_path / "part" / "checkpoints").exists()


def test_matched_blocks_start_with_a_variance_of_one(done):
    config = CompareConfig(**{**TWO, "initializer": "matched"})
    dataset = comparison._dataset(config)
    for match in block_jobs.match_blocks(config):
        facts = block_jobs.make_job(config, dataset, match).facts
        assert facts["initial_variance"] == pytest.approx(1, abs=0.1)
    plain = {run["block"]: run["initial_variance"] for run in done.runs}
    assert max(plain.values()) < 0.9 and len(set(plain.values())) == 3
    assert "variance" in done.table.columns


def test_several_data_sets_have_a_joint_verdict(tmp_path):
    given = {**TWO, "data": "wine,diabetes", "learning_rates": (1e-2,)}
    result = comparison.compare(CompareConfig(**given, out=str(tmp_path / "run")))
    assert list(result.rankings) == ["wine", "diabetes"]
    assert len(result.runs) == 2 * 2 * 3
    assert {run["task"] for run in result.runs} == {"wine", "diabetes"}
    assert [row[0] for row in result.table.rows] == ["bilinear"]
    text = (tmp_path / "run" / "report.md").read_text()
    assert text.index(result.verdict) < text.index("## wine")
    assert text.index("## wine") < text.index("## diabetes")
    assert (tmp_path / "run" / "differences-diabetes.png").exists()
    with np.load(tmp_path / "run" / "best" / "wine-mlp-relu.npz") as file:
        assert file["head/kernel"].shape == (3, 8, 3)


def test_the_seed_changes_splits_orders_and_initial_values(done, tmp_path):
    datasets = [
        comparison._dataset(CompareConfig(data="wine", seeds=2, seed=seed))
        for seed in (0, 1)
    ]
    assert data.digest_replicates(datasets[0]) != data.digest_replicates(datasets[1])
    assert not set(datasets[0].seeds) & set(datasets[1].seeds)


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
    out, fit, trained = tmp_path / "run", population.fit_members, []
    argv = ["compare", f"--flagfile={done.out}/flags", f"--out={out}"]
    again = launch.parse(CompareConfig, argv)
    assert again == dataclasses.replace(config, out=str(out))

    def interrupted(*args, **options):
        if len(trained) == 2:  # a call for each learning rate
            raise KeyboardInterrupt
        return counted(*args, **options)

    def counted(*args, **options):
        trained.append(args)
        return fit(*args, **options)

    monkeypatch.setattr(population, "fit_members", interrupted)
    with pytest.raises(KeyboardInterrupt):
        comparison.compare(again)
    assert len(trained) == 2
    monkeypatch.setattr(population, "fit_members", counted)
    argv = ["compare", f"--flagfile={out}/flags", f"--out={out}", "--resume"]
    resumed = comparison.compare(launch.parse(CompareConfig, argv))
    assert len(trained) == 6
    assert without_times(resumed.runs) == without_times(done.runs)
    assert resumed.verdict == done.verdict
    assert resumed.table.rows[0][:4] == done.table.rows[0][:4]

    again = dataclasses.replace(again, resume=True)
    with pytest.raises(InputError, match="this run has --seeds=4"):
        comparison.compare(dataclasses.replace(again, seeds=4))
    with pytest.raises(InputError, match="already holds a run"):
        comparison.compare(dataclasses.replace(again, resume=False))
    io.write(out / "data.sha256", "of a file that was edited since\n")
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
    assert "a claim needs at least 6 replicates" in " ".join(done.stdout.split())
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
    assert "test squared error" in result.table.columns
    assert [row[-1] for row in result.table.rows] == ["0", "0"]
    given["learning_rates"] = (1e25, 1e26)
    result = comparison.compare(CompareConfig(**given, out=str(tmp_path / "bad")))
    assert [row[-1][:3] for row in result.table.rows] == ["3/3"] * 2
    place = result.table.columns.index("test squared error")
    rows = result.table.rows
    assert rows[0][place] == rows[1][place]  # that of the mean
    assert result.verdict.startswith("Every run diverged")
    text = (tmp_path / "bad" / "report.md").read_text()
    assert "diverged at step" in text


@pytest.mark.slow
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
    (["--data=wine,digit"], "--data: unknown 'digit'; nearest: digits"),
    (["--optimizer=adma"], "nearest: adam"),
    (["--schedule=cosin"], "nearest: cosine"),
    (["--budget=flop"], "nearest: flops"),
    (["--baseline=geglu", "--blocks=mlp"], "--baseline: unknown 'geglu'"),
    (["--learning_rates=nan"], "--learning_rates: nan should be a number above 0"),
    (["--margin=0"], "--margin: 0.0 should be a number above 0"),
    (["--split=none"], "--split: unknown 'none'"),
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
        assert f"--{options.flag_of(field.name)}=" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 88


def test_a_test_part_of_the_file_counts_its_examples(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, size in (("train", 60), ("valid", 30), ("test", 40)):
        x = rng.normal(size=(size, 2)).astype("f4")
        end = "" if part == "train" else f"_{part}"
        arrays |= {f"x{end}": x, f"y{end}": (x[:, 0] > 0).astype(int)}
    np.savez(tmp_path / "own.npz", **arrays)
    out = tmp_path / "run"
    given = {**TWO, "data": None, "npz": str(tmp_path / "own.npz"), "out": str(out)}
    result = comparison.compare(CompareConfig(**{**given, "seeds": 6}))
    for row in result.comparisons:
        path = out / "examples" / f"{row.name.replace(':', '-')}.npz"
        scores = np.load(path)["accuracy"]
        assert scores.shape == (6, 40) and set(np.unique(scores)) <= {0.0, 1.0}
        np.testing.assert_allclose(scores.mean(axis=1), row.scores, rtol=1e-6)
        assert row.p_new_data is None
    worst = next(row for row in result.comparisons if row.verdict is not None)
    spread = np.std(worst.differences, ddof=1) / np.sqrt(6)
    assert worst.error > 1.01 * spread
    assert "two-way" in (out / "report.md").read_text()
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"npz: .*, or delete it, and resume the run"):
        comparison.compare(CompareConfig(**{**given, "seeds": 6}, resume=True))


def test_columns_that_no_feature_is_made_of_are_named(tmp_path):
    names = [f"id{i}" for i in range(13)]
    rows = [[f"{i}-{name}" for name in names] + [i, i % 2] for i in range(40)]
    cells = [[*names, "x", "y"], *rows]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(",".join(map(str, row)) for row in cells))
    table = data.read_csv(path, "y")
    for dataset in (table, data.replicate(table.resplit, range(2))):
        notes = comparison._lost_columns({"t": dataset})
        assert notes[0].startswith("t: column 'id0' is left out: 24 categories in 24")
        assert notes[10:] == ["and 3 more columns: see report.md"]
    assert comparison._lost_columns({"wine": data.load("wine")}) == []
