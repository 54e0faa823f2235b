"""Comparisons from Python that are resumed."""

import jax
import numpy as np
import optax
import pytest

from ffnlab.data import Dataset
from ffnlab.errors import InputError
from ffnlab.sweep import compare, jobs
from ffnlab.types import Model
from tests.sweep.test_candidates import LINEAR, SMALL, TOY

WIDE = Model(LINEAR.init, lambda params, x: 2.0 * x @ params["kernel"])
MODELS = {"linear": LINEAR, "wide": WIDE}
OPTIONS = {"optimizer": optax.adam, "learning_rates": [0.01, 0.1], "extend_rates": 0}
GIVEN = {**SMALL, **OPTIONS, "quiet": True}


def lines(path):
    """Returns the runs without their times."""
    timed = ("microseconds_per_step", "compile_seconds")
    return [{k: v for k, v in run.items() if k not in timed} for run in path.runs]


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """The directory of a comparison that ended in the training of its second model."""
    run = jobs._JobTraining.run

    def fail(self, *arguments):
        if self.job.name == "wide":
            raise KeyboardInterrupt
        return run(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(jobs._JobTraining, "run", fail)
        with pytest.raises(KeyboardInterrupt) as error:
            compare(MODELS, TOY, **GIVEN, out=tmp_path / "run")
    assert error.value.__notes__ == [
        "to continue: the same call of compare with resume=True"
    ]
    return tmp_path / "run"


def test_a_comparison_goes_on_where_it_stopped(interrupted, monkeypatch):
    whole = compare(MODELS, TOY, **GIVEN)
    trained, run = [], jobs._JobTraining.run

    def note(self, *arguments):
        trained.append(self.job.name)
        return run(self, *arguments)

    monkeypatch.setattr(jobs._JobTraining, "run", note)
    resumed = compare(MODELS, TOY, **GIVEN, out=interrupted, resume=True)
    assert trained == ["wide"]
    assert lines(resumed) == lines(whole) and resumed.verdict == whole.verdict
    again = compare(MODELS, TOY, **GIVEN, out=interrupted, resume=True)
    assert trained == ["wide"] and lines(again) == lines(whole)


OTHER = Model(LINEAR.init, lambda params, x: 3.0 * x @ params["kernel"])
INITS = Model(lambda key: {"kernel": jax.numpy.ones((3, 2))}, WIDE.apply)


@pytest.mark.parametrize(
    "models,dataset,more,message",
    [
        ({"linear": LINEAR, "wide": OTHER}, TOY, {}, "^resume: wide: the model, its"),
        ({"linear": INITS, "wide": WIDE}, TOY, {}, "^resume: linear: the model, its"),
        (MODELS, TOY, {"optimizer": optax.sgd}, "^resume: linear, wide: the model, it"),
        ({"wide": WIDE, "linear": LINEAR}, TOY, {}, "^resume: .*flags has"),
        ({"linear": LINEAR}, TOY, {}, "^resume: .*flags has --candidates=linear,wide"),
        (MODELS, TOY, {"steps": 20}, "^resume: .*flags has --steps=10, this run has"),
        (
            MODELS,
            Dataset.from_arrays(np.ones((60, 3)), [0, 1] * 30, name="toy"),
            {},
            "^resume: .*the data has changed since",
        ),
        (MODELS, TOY, {"resume": False}, "^out: .* is not empty; .*, or resume=True$"),
    ],
    ids=["apply", "init", "optimizer", "order", "fewer", "steps", "data", "no resume"],
)
def test_what_differs_is_named(interrupted, models, dataset, more, message):
    given = {**GIVEN, "resume": True, **more}
    with pytest.raises(InputError, match=message):
        compare(models, dataset, **given, out=interrupted)
