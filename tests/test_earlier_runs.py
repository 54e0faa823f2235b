"""Runs that were written before modules, functions and flags had today's names.

`tests/earlier` holds an interrupted comparison of two blocks, one of two sequence
models, an interrupted fine-tuning with frozen embeddings, and a finished one; and what
the code of that time made of the same runs when it was not interrupted.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from experiments import launch
from ffnlab.errors import InputError
from ffnlab.finetune import Config, run
from ffnlab.finetune.predict_files import PredictConfig, predict
from ffnlab.sweep import (
    CompareConfig,
    FeedbackCompareConfig,
    compare,
    compare_feedback,
)

EARLIER = Path(__file__).parent / "earlier"
BERT = Path(__file__).parent / "checkpoints" / "bert"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture
def earlier(tmp_path, monkeypatch):
    """A copy of the runs, in the working directory, with the checkpoint they used."""
    shutil.copytree(EARLIER, tmp_path / "earlier")
    shutil.copytree(BERT, tmp_path / "earlier" / "bert")
    words = SPECIAL + [f"w{n}" for n in range(26)]
    (tmp_path / "earlier" / "bert" / "vocab.txt").write_text("\n".join(words))
    monkeypatch.chdir(tmp_path / "earlier")
    return tmp_path / "earlier"


def resumed(config, out, *more):
    flags = [f"--flagfile={out}/flags", f"--out={out}", "--resume", *more]
    return launch.parse(config, ["program", *flags])


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.slow
def test_an_earlier_comparison_is_continued(earlier):
    """Its runs have one split, as all had then; runs of today would not be alike."""
    with pytest.raises(InputError, match=r"has --split=fixed.*has --split=replicates"):
        compare(resumed(CompareConfig, "compare"))
    result = compare(resumed(CompareConfig, "compare", "--split=fixed"))
    wanted = lines(earlier / "compare_results.jsonl")
    assert len(result.runs) == len(wanted) == 4
    for got, line in zip(
        lines(earlier / "compare" / "results.jsonl"), wanted, strict=True
    ):
        since = {"trivial", "initial_variance", "xla_flops", "tried", "checksum"}
        assert got.keys() - since == line.keys()
        assert got["block"] == line["block"]
        np.testing.assert_allclose(
            got["curve"]["loss"], line["curve"]["loss"], rtol=1e-3, atol=1e-5
        )


def test_an_earlier_comparison_of_feedback_networks_is_continued(earlier):
    """Its data are the same as then, and so are the runs that it lacks."""
    with pytest.raises(InputError, match=r"has --split=fixed.*has --split=replicates"):
        compare_feedback(resumed(FeedbackCompareConfig, "feedback"))
    config = resumed(FeedbackCompareConfig, "feedback", "--split=fixed")
    runs = compare_feedback(config).runs
    for got, line in zip(runs, lines(earlier / "feedback_results.jsonl"), strict=True):
        for name in ("block", "seed", "learning_rate", "chosen", "parameters"):
            assert got[name] == line[name]
        for name, curve in line["curve"].items():
            np.testing.assert_allclose(got["curve"][name], curve, rtol=1e-3)


@pytest.mark.slow
def test_an_earlier_fine_tuning_is_continued_without_moments_of_frozen_arrays(earlier):
    config = resumed(Config, "tag")
    assert config.max_seq_length == 14 and config.warmup_steps == 2
    run(config)
    for got, line in zip(
        lines(earlier / "tag" / "results.jsonl"),
        lines(earlier / "whole" / "results.jsonl"),
        strict=True,
    ):
        np.testing.assert_allclose(got["dev_curve"], line["dev_curve"], atol=0.02)
    predicted = (earlier / "tag" / "predictions-dev.conll").read_text()
    before = (earlier / "whole" / "predictions-dev.conll").read_text()
    assert predicted == before.removesuffix("\n")  # a blank line was added to them


def test_an_earlier_model_predicts(earlier):
    predict(PredictConfig("whole", "new.txt", "now.txt"))
    assert (earlier / "now.txt").read_text() == (earlier / "predicted.txt").read_text()


def test_a_changed_flag_is_still_refused(earlier):
    flags = ["--flagfile=tag/flags", "--out=tag", "--resume", "--warmup=3"]
    with pytest.raises(ValueError, match=r"--warmup_steps=2.*has --warmup_steps=3"):
        run(launch.parse(Config, ["program", *flags]))
