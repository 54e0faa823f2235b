import numpy as np
import pytest

from experiments import launch
from ffnlab import data, options
from ffnlab.errors import InputError
from ffnlab.sweep.jobs import Job, read_best
from ffnlab.train import objectives
from ffnlab.train.config import Training


def test_epochs_come_before_steps():
    wine = data.load("wine")
    score = objectives.OBJECTIVES["classes"]
    long = Training(epochs=3, steps=7, batch_size=20, evaluations=4)
    plan = long.plan(wine, score)
    assert (plan.steps, plan.every) == (16, 4)  # 106 examples
    assert Training(steps=7, evaluations=2).plan(wine, score).every == 4
    assert plan.monitor == "accuracy" and plan.higher_is_better


def test_a_run_to_resume_must_be_named():
    with pytest.raises(InputError, match="--resume: --out must name the run"):
        Training(resume=True)


def test_help_has_what_is_its_own_first():
    import dataclasses

    @dataclasses.dataclass(frozen=True)
    class Config(Training):
        mine: int = options.option(1, "my own")

    text = launch.usage(Config, "What it does.")
    assert text.index("--mine=1") < text.index("--seeds=16")


def test_best_parameters_are_read_or_refused(tmp_path):
    job = Job("mlp:relu", None, None, {"task": "digits", "block": "mlp:relu"})
    assert job.slug == "digits-mlp-relu"
    with pytest.raises(InputError, match="digits-mlp-relu.npz"):
        read_best(tmp_path, job)
    (tmp_path / "best").mkdir()
    path = tmp_path / "best" / "digits-mlp-relu.npz"
    np.savez(path, **{"up/kernel": np.arange(6).reshape(3, 2)})
    assert read_best(tmp_path, job, 1)["up"]["kernel"].tolist() == [2, 3]
    path.write_bytes(b"not a zip file")
    with pytest.raises(InputError, match="remove its lines and resume"):
        read_best(tmp_path, job)
