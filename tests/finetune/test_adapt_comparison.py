"""Comparisons of methods of fine-tuning, from files to a report."""

import dataclasses

import jax
import numpy as np
import pytest

from ffnlab import io
from ffnlab.errors import InputError
from ffnlab.finetune import example_scores, trainer
from ffnlab.finetune.adapt_compare_config import CAPACITY, AdaptCompareConfig
from ffnlab.finetune.adapt_comparison import (
    Runs,
    compare_methods,
    extend_rates,
    next_runs,
)
from ffnlab.finetune.adapt_ranking import best_rate, is_at_end
from tests.finetune.fake import make_config
from tests.tuned import config

SMALL = {"epochs": 8.0, "evaluations": 2, "seeds": 3, "rate_factors": (1.0, 3.0)}
SMALL |= {"tuning_seeds": 1, "extend_rates": 0}


def given(bert, files, out, **more):
    """Returns the configuration of a comparison on the files of a folder."""
    plain = config(bert, files, "tag", out, ".conll")
    fields = {f.name: getattr(plain, f.name) for f in dataclasses.fields(plain)}
    fields |= {
        "learning_rate": None,
        "warmup_ratio": 0.1,
        "methods": ("full", "lora:rank=2", "head"),
    }
    return AdaptCompareConfig(**{**fields, **SMALL, **more})


@pytest.fixture(scope="module")
def result(bert, files, tmp_path_factory):
    return compare_methods(given(bert, files, tmp_path_factory.mktemp("runs") / "a"))


def test_every_method_has_its_runs(result):
    for name, trained in (("full", 1), ("lora:rank=2", 0.3), ("head", 0.1)):
        lines = [line for line in result.runs if line["method"] == name]
        rates = sorted({line["learning_rate"] for line in lines})
        assert len(lines) == 2 + 2 and len(rates) == 2
        assert rates[1] == pytest.approx(3 * rates[0], rel=0.01)
        at_best = [each for each in lines if each["learning_rate"] == best_rate(lines)]
        assert sorted(each["seed"] for each in at_best) == [0, 1, 2]
        for line in lines:
            assert 0 < line["share"] <= trained
            assert line["bytes"] == 4 * line["trained"]
            assert line["temporary_bytes"] > 0 and line["seconds_per_step"] > 0


def test_the_report_ranks_the_chosen_runs(result):
    assert [row.replicates for row in result.comparisons] == [3, 3, 3]
    for row in result.comparisons:
        lines = [line for line in result.runs if line["method"] == row.name]
        rate = best_rate(lines)
        scores = [e["test"] for e in lines if e["learning_rate"] == rate]
        assert row.score == pytest.approx(np.mean(scores))
    text = (result.out / "report.md").read_text()
    assert result.table.markdown() in text and result.verdict in text
    assert "a claim needs at least 6 replicates" in result.verdict
    for name in ("differences.png", "parameters.png"):
        assert (result.out / name).read_bytes().startswith(b"\x89PNG")
    assert not (result.out / "checkpoints").exists()


def test_the_verdict_counts_the_draw_of_the_sentences(result):
    chosen = {}
    for row in result.comparisons:
        own = [line for line in result.runs if line["method"] == row.name]
        rate = best_rate(own)
        at_rate = [line for line in own if line["learning_rate"] == rate]
        chosen[row.name] = sorted(at_rate, key=lambda line: line["seed"])
    found = example_scores.read(result.out, chosen)
    for name, lines in chosen.items():
        tests = [line["test"] for line in lines]
        assert found[name].shape == (3, 16)
        np.testing.assert_allclose(found[name].mean(axis=1), tests, rtol=1e-5)
    report = (result.out / "report.md").read_text().replace("\n", " ")
    assert "count the draw of the test examples too" in report
    assert "## On these texts alone" in report
    # Runs whose scores are missing are trained again; a damaged file is refused.
    lines = chosen["full"]
    assert example_scores.scored(result.out, "full", lines) == lines
    assert example_scores.scored(result.out, "other", lines) == []


def test_examples_without_a_score_of_their_own_are_left_out(tmp_path):
    chosen = {"a:b": [{"seed": 0, "learning_rate": 0.1}]}
    example_scores.add(tmp_path, "a:b", {(0, 0.1): None})
    assert example_scores.read(tmp_path, chosen) is None
    assert example_scores.scored(tmp_path, "a:b", chosen["a:b"])
    example_scores.add(tmp_path, "a:b", {(1, 0.1): np.ones(3)})
    assert example_scores.scored(tmp_path, "a:b", chosen["a:b"])
    (tmp_path / "examples" / "a-b.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="a-b.npz: .*delete it, and resume the run"):
        example_scores.read(tmp_path, chosen)


def test_methods_warm_up_for_a_tenth_of_the_run(bert, files):
    for variant in given(bert, files, None).variants().values():
        assert variant.warmup(50) == 5
    for variant in given(bert, files, None, warmup_steps=3).variants().values():
        assert variant.warmup(50) == 3


class Stopped(Exception):
    """Stands for a kill."""


@pytest.mark.slow
def test_an_interrupted_comparison_goes_on(result, bert, files, tmp_path, monkeypatch):
    train, calls = trainer.train_members, []

    def stop_later(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise Stopped
        return train(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_members", stop_later)
        with pytest.raises(Stopped):
            compare_methods(given(bert, files, tmp_path / "b", methods=("head",)))
    assert len(io.read_lines(tmp_path / "b" / "results.jsonl")) == 2
    again = given(bert, files, tmp_path / "b", methods=("head",), resume=True)
    resumed = compare_methods(again)
    expected = [line for line in result.runs if line["method"] == "head"]
    for name in ("seed", "learning_rate", "dev", "test", "best_step"):
        assert [e[name] for e in resumed.runs] == [e[name] for e in expected]


def test_rates_come_first_and_then_the_other_seeds():
    def line(seed, rate, dev):
        return {"seed": seed, "learning_rate": rate, "dev": dev}

    def runs(lines, most, tuned=1, seeds=3):
        return next_runs(lines, [0.1, 0.3], tuned, seeds, most)

    assert runs([], 1) == Runs([0], [0.1])
    assert runs([], 9) == runs([], 2) == Runs([0], [0.1, 0.3])
    assert runs([], 9, tuned=2) == runs([], 4, tuned=2) == Runs([0, 1], [0.1, 0.3])
    assert runs([], 2, tuned=2) == runs([], 3, tuned=2) == Runs([0, 1], [0.1])
    assert runs([], 2, tuned=3) == Runs([0, 1], [0.1])
    lines = [line(0, 0.1, 0.9)]
    assert runs(lines, 9) == Runs([0], [0.3])
    assert runs(lines, 9, tuned=2) == Runs([1], [0.1])  # the rate of both comes next
    lines.append(line(0, 0.3, 0.8))
    assert runs(lines, 9) == runs(lines, 2) == Runs([1, 2], [0.1])
    assert runs(lines, 1) == Runs([1], [0.1])
    assert runs(lines, 9, seeds=1) is None
    assert runs(lines, 9, tuned=2) == Runs([1], [0.1, 0.3])
    lines += [line(1, 0.1, 0.5), line(2, 0.1, 0.5)]
    assert runs(lines, 9) is None
    # The rate that is best on one replicate collapses on the other.
    lines = [
        line(0, 0.1, 0.9),
        line(0, 0.3, 0.95),
        line(1, 0.1, 0.9),
        line(1, 0.3, 0.0),
    ]
    assert best_rate(lines[:2]) == 0.3 and best_rate(lines) == 0.1
    assert runs(lines, 9, tuned=2) == Runs([2], [0.1])


def test_as_many_runs_train_together_as_there_are_devices(
    result, bert, files, tmp_path, monkeypatch
):
    """On a CPU, whose devices share its cores; and no more than fit in its memory."""
    train, sizes = trainer.train_members, []

    def counted(work, seeds, rates, programs, folder):
        sizes.append(len(seeds) * len(rates))
        runs = train(work, seeds, rates, programs, folder)
        assert all(run.record.loss.shape == (work.plan.steps,) for run in runs)
        return runs

    monkeypatch.setattr(trainer, "train_members", counted)
    assert jax.local_device_count() == 2
    options = {"methods": ("head",), "seeds": 4, "rate_factors": (3.0,)}
    together = compare_methods(given(bert, files, tmp_path / "two", **options))
    assert sizes == [1, 2, 1]  # the rates of one seed, then the other three
    monkeypatch.setattr(trainer, "runs_that_fit", lambda *_: 0)
    alone = compare_methods(given(bert, files, tmp_path / "one", **options))
    assert sizes[3:] == [1, 1, 1, 1]
    expected = {(e["seed"], e["learning_rate"]): e for e in result.runs[-4:]}
    for one, two in zip(alone.runs, together.runs, strict=True):
        assert one["seed"] == two["seed"]
        assert one["dev"] == pytest.approx(two["dev"], abs=0.02)
        if before := expected.get((one["seed"], one["learning_rate"])):
            assert one["dev"] == pytest.approx(before["dev"], abs=0.02)


def test_rates_extend_until_the_best_is_inside():
    def lines(scores, seed=0):
        return [
            {"method": "a", "seed": seed, "learning_rate": rate, "dev": dev}
            for rate, dev in scores.items()
        ]

    rising = {0.1: 0.5, 0.3: 0.6}
    assert extend_rates([0.3, 0.1], [], 1, 3) == [0.1, 0.3]
    assert extend_rates([0.1, 0.3], lines(rising), 1, 3) == [0.1, 0.3, 0.9]
    assert extend_rates([0.1, 0.3], lines(rising), 1, 0) == [0.1, 0.3]
    assert extend_rates([0.1, 0.3], lines(rising), 2, 3) == [0.1, 0.3]  # of two seeds
    rising |= {0.9: 0.7}
    assert extend_rates([0.1, 0.3], lines(rising), 1, 3) == [0.1, 0.3, 0.9, 2.7]
    assert extend_rates([0.1, 0.3], lines(rising), 1, 1) == [0.1, 0.3, 0.9]
    assert is_at_end(lines(rising), "a")
    inside = {**rising, 2.7: 0.0}
    assert extend_rates([0.1, 0.3], lines(inside), 1, 3) == [0.1, 0.3, 0.9, 2.7]
    assert not is_at_end(lines(inside), "a")
    falling = {0.1: 0.6, 0.3: 0.5}
    assert extend_rates([0.1, 0.3], lines(falling), 1, 3) == [0.0333, 0.1, 0.3]
    assert extend_rates([0.1], lines({0.1: 0.6}), 1, 3) == [0.1]
    assert not is_at_end(lines({0.1: 0.6}), "a")
    # Of the other seeds, which have the chosen rate alone, nothing is learned.
    more = lines(inside) + lines({0.9: 0.1}, seed=1)
    assert extend_rates([0.1, 0.3], more, 1, 3) == [0.1, 0.3, 0.9, 2.7]
    assert not is_at_end(more, "a")


def make(**options):
    plain = make_config()
    fields = {f.name: getattr(plain, f.name) for f in dataclasses.fields(plain)}
    return AdaptCompareConfig(**{**fields, "learning_rate": None, **options})


def test_each_method_has_its_own_flags_and_rate():
    variants = make(methods=("full", "lora:rank=4:alpha=4.5", "capacity")).variants()
    assert list(variants) == ["full", "lora:rank=4:alpha=4.5", *CAPACITY]
    assert variants["full"].learning_rate == 5e-5
    lora = variants["lora:rank=4:alpha=4.5"]
    assert (lora.rank, lora.alpha, lora.learning_rate) == (4, 4.5, 5e-4)
    ranks = {v.target_modules: v.rank for v in list(variants.values())[2:]}
    per_layer = {("all",): 18, ("ffn",): 10, ("attention",): 8}
    assert len({rank * per_layer[t] for t, rank in ranks.items()}) == 1
    assert make().reference == "full"
    assert make(methods=("lora", "head")).reference == "lora"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("lroa",)}, "method: unknown 'lroa'"),
        ({"methods": ("lora:rnak=2",)}, "methods: unknown 'rnak'; nearest: rank"),
        ({"methods": ("lora:rank",)}, "methods: 'lora:rank': rank needs a value"),
        ({"methods": ("lora:rank=x",)}, "methods: 'lora:rank=x': rank should be a"),
        ({"methods": ("lora:rank=0",)}, "rank: 0 must be at least 1"),
        ({"learning_rate": 1e-3}, "learning_rate: rates are tuned; give rate_factors"),
        ({"method": "lora"}, "method: give the methods to compare by methods"),
        ({"baseline": "lora", "methods": ("full", "head")}, "baseline: unknown 'lora'"),
        ({"margin": 0.0}, "margin: 0.0 should be a number above 0"),
    ],
)
def test_wrong_flags_are_refused(options, message):
    with pytest.raises(InputError, match=f"^{message}"):
        make(**options)
