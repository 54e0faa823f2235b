"""Fine-tunings whose loss is not finite: they keep what was good, and say so."""

import json
from pathlib import Path

import numpy as np
import pytest

from ffnlab import finetune, io
from ffnlab.errors import InputError
from ffnlab.finetune import diverged_runs, report, runner
from tests.finetune.fake import make_config, make_run, make_task
from tests.tuned import config


def failed(run, step, best_step):
    """The same run, whose loss was not finite at a step."""
    steps = {"diverged": step, "best_step": best_step, "step": 4}
    steps = {name: np.int32(value) for name, value in steps.items()}
    return run._replace(record=run.record._replace(**steps))


def test_a_run_that_failed_is_chosen_only_if_all_did():
    good, best = make_run(0, 0.25), make_run(1, 0.75)
    unscored, scored = failed(best, 1, 0), failed(make_run(2, 0.5), 3, 2)
    assert diverged_runs.best_run([good, unscored, scored]) is good
    assert diverged_runs.best_run([unscored, scored]) is scored
    diverged_runs.check(make_config(), [good, unscored], "out")
    wanted = (
        r"^learning_rate: 5e-05: training stopped at step 3, since the loss was not "
        r"finite; the parameters are those of step 2; out has them and a report, and "
        r"its diverged.json the batch; lower it, or raise warmup_steps$"
    )
    with pytest.raises(InputError, match=wanted):
        diverged_runs.check(make_config(), [unscored, scored], "out")
    with pytest.raises(InputError, match="initial ones, of step 0; .* check the check"):
        diverged_runs.check(make_config(), [failed(best, 0, 0)], "out")


def test_a_run_that_failed_unscored_is_left_out_of_the_means():
    runs = [make_run(0, 0.25), failed(make_run(1, 0.75), 1, 0)]
    table = report.scores_table(make_task(), runs)
    assert table.rows == [["dev", "8", "25.00", "12.50"]]
    assert diverged_runs.summary(runs) == (
        "Seed 1: training stopped at step 1, since the loss was not finite; the "
        "parameters are the initial ones, of step 0. Its scores are left out of the "
        "means. diverged.json has the batches."
    )
    assert diverged_runs.counted_runs(runs[1:]) == runs[1:]
    assert not diverged_runs.summary(runs[:1])


@pytest.fixture(scope="module")
def stopped(bert, files, tmp_path_factory):
    """A tagger that was trained with a rate at which the loss soon overflows."""
    out = tmp_path_factory.mktemp("runs") / "stopped"
    more = {"optimizer": "sgd", "learning_rate": 1e9, "clip": 0.0, "warmup_steps": 20}
    given = config(bert, files, "tag", out, ".conll", **more)
    with pytest.raises(InputError) as error:
        runner.run(given)
    return given, str(error.value)


def test_a_run_that_fails_is_finished_and_says_where(stopped):
    given, message = stopped
    out = Path(given.out)
    (line,) = io.read_lines(out / "results.jsonl")
    step, best = line["diverged_at"], line["best_step"]
    assert 0 < best == step - 1
    sentence = f"raining stopped at step {step}, since the loss was not finite; the"
    for text in (message, *((out / n).read_text() for n in ("report.md", "README.md"))):
        assert f"{sentence} parameters are those of step {best}" in text
    assert not (out / "checkpoints").exists()
    predicted = finetune.pipeline(out).tags(["w0 w1"])
    assert np.isfinite(predicted[0].probability).all()
    with pytest.raises(InputError, match="is finished"):
        runner.run(config_again(given))


def config_again(given):
    return type(given)(**{**vars(given), "resume": True})


def test_the_batches_are_those_of_the_steps(stopped):
    given, _ = stopped
    (run,) = json.loads(Path(given.out, "diverged.json").read_text())
    assert (run["seed"], run["learning_rate"]) == (0, 1e9)
    steps = [batch["step"] for batch in run["batches"]]
    assert steps == [run["step"] - 1, run["step"]] == [run["best_step"], run["step"]]
    before, there = run["batches"]
    assert before["loss"] is not None and there["loss"] is None
    blocks = Path(given.train).read_text().strip().split("\n\n")
    texts = [block.replace("\n", " ").split() for block in blocks]
    assert 4 < len(there["examples"]) < 24
    for example in there["examples"]:
        words = texts[example["number"] - 1][::2]
        assert example["text"] == " ".join(words)[:80]
