"""Comparisons from Python: models of your own beside blocks, with nothing kept."""

import re
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from matplotlib import pyplot
from matplotlib.figure import Figure

from ffnlab import data
from ffnlab.data import Dataset
from ffnlab.errors import InputError
from ffnlab.io import read_lines
from ffnlab.nn import BlockConfig
from ffnlab.sweep import CompareConfig, candidates, compare
from ffnlab.train.objectives import OBJECTIVES
from ffnlab.types import Model
from tests.sweep.test_ranking import runs as make_runs

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
TOY = Dataset.from_arrays(X, np.where(X[:, 0] > 0, "up", "down"), name="toy")
SMALL = {"replicates": 2, "steps": 10, "evaluations": 2, "batch_size": 16}
LINEAR = Model(
    lambda key: {"kernel": 0.1 * jax.random.normal(key, (3, 2))},
    lambda params, x: x @ params["kernel"],
)


class Plain(nnx.Module):
    """A plain NNX module: it takes no key and returns its outputs alone."""

    def __init__(self, outputs, rngs):
        self.head = nnx.Linear(3, outputs, rngs=rngs)

    def __call__(self, x):
        return self.head(x)


class Own(Plain):
    """A module as those of ffnlab: it takes a key, and returns outputs and aux."""

    def __init__(self, rngs):
        super().__init__(2, rngs)

    def __call__(self, x, key=None):
        return self.head(x), {"seen": x}


MODELS = {
    "plain": lambda rngs: Plain(2, rngs),
    "linear": LINEAR,
    "mlp:relu": "mlp:relu",
}


@pytest.fixture(scope="module")
def result():
    """A small comparison of all kinds of candidates, run once, with nothing kept."""
    options = {"learning_rates": [0.01, 0.1], "optimizer": optax.adam, "layers": 1}
    return compare(MODELS, TOY, **SMALL, **options, extend_rates=0, quiet=True)


def test_all_kinds_of_candidates_have_the_same_replicates(result):
    assert {row.name for row in result.comparisons} == set(MODELS)
    assert len(result.runs) == 3 * 2 * 2 and result.out is None
    sizes = {run["block"]: run["parameters"] for run in result.runs}
    assert sizes["plain"] == 8 and sizes["linear"] == 6
    trivial = {(run["seed"], run["trivial"]) for run in result.runs}
    assert len(trivial) == 2  # replicates have splits of their own, which all share
    assert result.config.reference == "mlp:relu"  # by default, as for blocks
    assert "a claim needs at least 6" in result.verdict


def test_facts_that_only_blocks_have_are_empty_for_models(result):
    columns = result.table.columns
    rows = {row[1]: dict(zip(columns, row, strict=True)) for row in result.table.rows}
    assert set(rows) == {"plain", "linear", "mlp"}
    assert rows["mlp"]["activation"] == "relu" and rows["mlp"]["hidden"] == "128"
    assert rows["plain"]["activation"] == rows["plain"]["FLOPs"] == ""
    assert rows["plain"]["parameters"] == "8" and "%" in rows["mlp"]["parameters"]


def test_modules_of_all_forms_are_applied_alike():
    given = {"plain": MODELS["plain"], "own": Own, "model": LINEAR}
    gathered = candidates.gather(given, TOY, {"optimizer": optax.adam})
    plain, own, model = candidates.make_jobs(gathered)
    params, key = plain.model.init(jax.random.key(0)), jax.random.key(1)
    x = TOY.train["x"][:4]
    wanted = x @ np.asarray(params["head"]["kernel"])  # the bias starts at 0
    for job in (plain, own):
        for each in (None, key):
            outputs, aux = job.model.apply(params, x, each)
            np.testing.assert_allclose(outputs, wanted, rtol=1e-5, atol=1e-6)
    assert set(aux) == {"seen"}
    outputs, aux = model.model.apply(params["head"], x, key)
    assert outputs.shape == (4, 2) and aux == {}
    assert {job.optimizer for job in (plain, own, model)} == {gathered.optimizer}


def test_a_block_configuration_has_its_own_width():
    narrow = BlockConfig("glu:tanh", 4, 6, norm="none")
    gathered = candidates.gather({"narrow": narrow}, TOY, {"layers": 1})
    (job,) = candidates.make_jobs(gathered)
    assert job.facts["hidden"] == 6 and job.facts["activation"] == "tanh"
    assert job.facts["parameters"] == (3 + 1) * 4 + narrow.parameters + 8 + (4 + 1) * 2
    assert not {"budget", "unmatched"} & set(job.facts)


def test_a_frame_has_a_row_for_each_run(result):
    pytest.importorskip("pandas")
    frame = result.frame()
    assert len(frame) == len(result.runs)
    assert frame.columns[:4].tolist() == [
        "block",
        "replicate",
        "learning_rate",
        "chosen",
    ]
    best = frame[frame.chosen].groupby("block").test_accuracy.mean()
    for row in result.comparisons:
        assert best[row.name] == pytest.approx(row.score)
    assert frame[~frame.chosen].test_accuracy.isna().all()
    assert not {"curve", "valid", "test", "seed"} & set(frame.columns)


def test_differences_are_drawn_on_given_axes(result):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert result.plot(left) is left
    assert "difference from mlp:relu" in left.get_xlabel() and left.get_legend()
    assert not right.lines and not figure.legends and figure._suptitle is None
    axes = result.plot()
    assert axes.get_xlabel() == left.get_xlabel() and axes.figure.legends
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert set(names) == set(MODELS) - {"mlp:relu"}
    pyplot.close(axes.figure)
    with pytest.raises(InputError, match="ranking: unknown 'tony'; nearest: toy"):
        result.plot(dataset="tony")
    with pytest.raises(InputError, match=r"^ax: .* got ndarray; .* such as axes\[0\]"):
        result.plot(np.array([left, right]))


def test_a_report_is_saved_once(result, tmp_path):
    path = result.save(tmp_path / "report")
    names = {each.name for each in path.iterdir()}
    assert {"report.md", "differences.png", "rates.png", "results.jsonl"} <= names
    assert read_lines(path / "results.jsonl") == result.runs
    text = (path / "report.md").read_text()
    assert "# Which model? toy" in text and result.table.markdown() in text
    assert "Call `ffnlab.sweep.compare` with the same models" in text
    assert "--candidates=plain,linear,mlp:relu" in (path / "flags").read_text()
    with pytest.raises(InputError, match="out: .* is not empty; name a new directory"):
        result.save(tmp_path / "report")


def test_a_notebook_shows_the_verdict_and_the_table(result):
    assert result.table.markdown() in result._repr_markdown_()
    assert repr(result) == f"CompareResult({result.verdict!r})"


def test_an_optimizer_with_its_own_rate_has_one_run_a_replicate(tmp_path, capsys):
    out = tmp_path / "run"
    result = compare(
        {"linear": LINEAR}, TOY, **SMALL, optimizer=optax.sgd(0.1), out=out
    )
    assert [run["learning_rate"] for run in result.runs] == [None, None]
    assert result.table.rows[0][result.table.columns.index("rate")] == "own"
    assert (out / "best" / "linear.npz").exists() and not (out / "rates.png").exists()
    assert "rates.png" not in (out / "report.md").read_text()
    printed = capsys.readouterr().out
    assert printed.startswith("note: linear is alone, so there is nothing to compare")
    assert "--optimizer=own" in (out / "flags").read_text()


def test_nothing_is_printed_or_kept_if_quiet(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    result = compare(
        {"a": LINEAR, "b": LINEAR}, TOY, **SMALL, learning_rates=0.1, quiet=True
    )
    assert not any(tmp_path.iterdir()) and capfd.readouterr() == ("", "")
    first, second = ([*c.scores] for c in result.comparisons)
    assert first != second or result.comparisons[0].name == "a"


def test_data_with_parts_of_their_own_are_not_split_again():
    parts = {"valid": (X[:20], TOY_LABELS[:20]), "test": (X[20:40], TOY_LABELS[20:40])}
    given = Dataset.from_arrays(X, TOY_LABELS, **parts)
    gathered = candidates.gather({"a": LINEAR}, given, {"eval_examples": 10})
    assert isinstance(gathered.dataset, Dataset)
    assert data.size(gathered.dataset.test) == 10
    again = candidates.gather({"a": LINEAR}, TOY, {"replicates": 3})
    assert again.dataset.rows["train"].shape == (3, 36)
    drawn = candidates.gather({"a": "mlp"}, data.wine, {"replicates": 2, "seed": 1})
    assert drawn.config.source == "wine" and len(drawn.dataset.seeds) == 2
    fixed = candidates.gather({"a": LINEAR}, TOY, {"split": "fixed", "seed": 4})
    assert data.digest(fixed.dataset) == data.digest(TOY.resplit(4))


TOY_LABELS = np.where(X[:, 0] > 0, 1, 3)


def apply_integers(params, x):
    return jnp.ones((len(x), 2), jnp.int32)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"config": {}}, "candidates: at least one is needed"),
        ({"config": None}, "candidates: expected a list of block names, a dict"),
        ({"config": {1: "mlp"}}, "the names of models should be text"),
        ({"config": {"a/b": "mlp"}}, "the name 'a/b' should have up to 60 letters"),
        (
            {"config": {"a:b": "mlp", "a-b": "mlp"}},
            "'a:b' and 'a-b' are too much alike",
        ),
        ({"config": {"a": "swigul"}}, "candidates: a: block: unknown 'swigul'"),
        ({"config": {"a": 3}}, "candidates: a: expected a block name, a BlockConfig"),
        ({"config": {"a": Own(nnx.Rngs(0))}}, "a: a Own that was made already"),
        ({"config": {"a": lambda rngs: 3}}, "a: expected .* it returned a"),
        ({"config": {"a": Plain}}, "a: expected .* missing 1 required positional"),
        (
            {"config": {"a": lambda rngs: Plain(4, rngs)}},
            r"outputs should have the shape \[8, 2\] \(logits\), and have \[8, 4\]",
        ),
        (
            {"config": {"a": LINEAR}, "dataset": "wine"},
            r"a: the model fails on inputs of the shape \[8, 13\]: TypeError: dot_gen",
        ),
        (
            {"config": {"a": Model(LINEAR.init, apply_integers)}},
            "the outputs should be floats, and are int32",
        ),
        ({"dataset": None}, "dataset: expected a Dataset, such as that of"),
        ({"dataset": (X, TOY_LABELS)}, "dataset: expected a Dataset"),
        ({"dataset": "wien"}, "unknown 'wien'; nearest: wine"),
        ({"dataset": lambda seed: X}, "the function returned a ndarray"),
        (
            {"dataset": data.replicate(TOY.resplit, [1, 2])},
            "dataset: 2 replicates of the data for 16 of each model",
        ),
        (
            {"dataset": Dataset("t", TOY.train, {}, {}, "classes", 3, 2, {})},
            "dataset: t has no examples in valid",
        ),
        ({"replicates": 0}, "^replicates: 0 should be a number at least 1"),
        ({"seeds": 3}, "seeds: give the number as replicates=N"),
        ({"resume": True}, "^resume: out=DIRECTORY must name the run to continue"),
        ({"resume": True, "out": "tests/none"}, "^resume: tests/none holds no run"),
        ({"stepss": 3}, "argument: unknown 'stepss'; nearest: steps"),
        ({"steps": "many"}, "^steps: 'many' should be an integer at least 1"),
        ({"baseline": "b"}, "^baseline: unknown 'b'. Known: a"),
        ({"budget": "time"}, "^budget: time needs a CompareConfig"),
        ({"initializer": "matched"}, "^initializer=matched is for blocks"),
        ({"optimizer": "adma"}, "^optimizer: unknown 'adma'; nearest: adam"),
        ({"optimizer": 3}, "^optimizer: expected an optax transformation"),
        ({"optimizer": optax.adam, "clip": 1.0}, "^clip: it is for optimizers by name"),
        (
            {"optimizer": optax.adam(0.1), "learning_rates": [0.1]},
            "^learning_rates: the optimizer has a rate or a schedule of its own",
        ),
        ({"out": "tests"}, "^out: tests is not empty; name a new directory"),
        (
            {"config": CompareConfig()},
            "^dataset: with a CompareConfig, give its fields",
        ),
    ],
)
def test_what_cannot_be_compared_is_one_line(given, wanted):
    with pytest.raises(InputError, match=wanted) as caught:
        compare(**{"config": {"a": LINEAR}, "dataset": TOY, "quiet": True, **given})
    assert "\n" not in str(caught.value)


def test_blocks_take_tables_only():
    brackets = data.SEQUENCES["brackets"](0)
    with pytest.raises(
        InputError, match="a: blocks take tables, .* give models of you"
    ):
        compare({"a": "mlp:relu"}, brackets, replicates=1, quiet=True)


def test_configurations_are_checked_before_anything_runs():
    config = CompareConfig(blocks="swiglu", learning_rates=0.01, steps="100")
    assert config.blocks == ("swiglu",) and config.learning_rates == (0.01,)
    assert config.steps == 100
    with pytest.raises(
        InputError, match=re.escape("seeds: [1, 2] should be an integer")
    ):
        CompareConfig(seeds=[1, 2])
    doubts = CompareConfig(seeds=5).doubts(["a", "b"])
    assert doubts == [
        "with 5 replicates nothing can be claimed: a claim needs at least 6"
    ]
    assert not CompareConfig(seeds=6).doubts(["a", "b"])


def test_lines_of_blocks_and_models_are_ranked_together():
    """Without the column of activations, names are shown in full."""
    from ffnlab.sweep import ranking

    lines = make_runs("mlp:relu", [0.5, 0.6]) + make_runs("mine:v2", [0.7, 0.8])
    models = [
        {k: v for k, v in run.items() if k not in ("activation", "hidden", "flops")}
        for run in lines
    ]
    ranked = ranking.rank(models, "mlp:relu", OBJECTIVES["classes"])
    assert [row[1] for row in ranked.table.rows] == ["mine:v2", "mlp:relu"]
