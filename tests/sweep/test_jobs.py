import jax
import numpy as np
import pytest

from ffnlab import data
from ffnlab.data import Dataset
from ffnlab.errors import InputError
from ffnlab.sweep.job import Job
from ffnlab.sweep.jobs import Sweep, _key_of
from ffnlab.sweep.run_files import read_best
from ffnlab.sweep.trivial import trivial_scores


def test_best_parameters_are_read_or_refused(tmp_path):
    job = Job("mlp:relu", None, None, {"task": "digits", "block": "mlp:relu"})
    assert job.slug == "digits-mlp-relu"
    with pytest.raises(InputError, match="digits-mlp-relu.npz"):
        read_best(tmp_path, job.slug)
    (tmp_path / "best").mkdir()
    path = tmp_path / "best" / "digits-mlp-relu.npz"
    np.savez(path, **{"up/kernel": np.arange(6).reshape(3, 2)})
    assert read_best(tmp_path, job.slug, 1)["up"]["kernel"].tolist() == [2, 3]
    with pytest.raises(InputError, match="delete it, and resume the run, which"):
        read_best(tmp_path, job.slug, 3)
    path.write_bytes(b"not a zip file")
    with pytest.raises(InputError, match="delete it, and resume the run, which"):
        read_best(tmp_path, job.slug)


def test_the_checkpoints_of_a_job_alone_are_removed(tmp_path):
    jobs = [Job(name, None, None, {}) for name in ("mlp:relu", "mlp:relu2", "mlp")]
    sweep = Sweep(None, jobs, tmp_path)
    names = ["mlp-relu", "mlp-relu-0.01", "mlp-relu-extension-1", "mlp-relu2-0.01"]
    for name in [*names, "mlp-0.01"]:
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    sweep._clean(sweep._trainings["", "mlp:relu"])
    left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert left == {"mlp-relu2-0.01", "mlp-0.01"}
    sweep._clean(sweep._trainings["", "mlp"])
    left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert left == {"mlp-relu2-0.01"}


def test_jobs_of_one_name_are_told_apart_by_their_task():
    jobs = [Job("gru", None, None, {"task": task}) for task in ("copy", "sort")]
    assert [job.key for job in jobs] == [("copy", "gru"), ("sort", "gru")]
    assert Job("mlp:relu", None, None, {}).slug == "mlp-relu"


def test_no_two_models_start_from_equal_numbers():
    key = jax.random.key(3)
    keys = {name: _key_of(key, name) for name in ("mlp:relu", "mlp:gelu", "mlp:relu")}
    bits = [jax.random.bits(each).item() for each in keys.values()]
    assert len(set(bits)) == 2
    again = _key_of(jax.random.key(4), "mlp:relu")
    assert jax.random.bits(again).item() not in bits


def test_trivial_scores_of_classes_and_their_replicates():
    counts = np.bincount(data.load("wine").train["y"])
    test = data.load("wine").test["y"]
    expected = (test == counts.argmax()).mean()
    assert trivial_scores(data.load("wine"), "accuracy") == [expected]
    wines = data.replicate(data.wine, (0, 1))
    assert trivial_scores(wines, "accuracy")[0] == expected
    assert len(trivial_scores(wines, "accuracy")) == 2


def part(**arrays):
    return {name: np.array(values) for name, values in arrays.items()}


def test_trivial_scores_of_values_bytes_and_labels():
    train, test = part(y=[1.0, 3.0]), part(y=[2.0, 4.0])
    values = Dataset("v", train, train, test, "values", 1, 1, {})
    assert trivial_scores(values, "loss") == [2.0]

    text = np.frombuffer(b"abab", np.uint8)
    train = {"text": text, "ends": np.array([0, 1, 2]), "offsets": np.array([-1])}
    text = Dataset("t", train, train, train, "bytes", 1, 256, {})
    bits = -np.log2([3 / 259, 2 / 259, 3 / 259]).mean()
    assert trivial_scores(text, "bits") == [pytest.approx(bits)]

    train, test = part(y=[[1, 1, -100], [0, -100, -100]]), part(y=[[1, 0, 1, -100]])
    labels = Dataset("l", train, train, test, "classes", 1, 2, {})
    assert trivial_scores(labels, "accuracy") == [pytest.approx(2 / 3)]
