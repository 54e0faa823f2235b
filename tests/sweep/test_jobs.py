import numpy as np
import pytest

from ffnlab.errors import InputError
from ffnlab.sweep.jobs import Job, read_best


def test_best_parameters_are_read_or_refused(tmp_path):
    job = Job("mlp:relu", None, None, {"task": "digits", "block": "mlp:relu"})
    assert job.slug == "digits-mlp-relu"
    with pytest.raises(InputError, match="digits-mlp-relu.npz"):
        read_best(tmp_path, job)
    (tmp_path / "best").mkdir()
    path = tmp_path / "best" / "digits-mlp-relu.npz"
    np.savez(path, **{"up/kernel": np.arange(6).reshape(3, 2)})
    assert read_best(tmp_path, job, 1)["up"]["kernel"].tolist() == [2, 3]
    with pytest.raises(InputError, match="remove its lines and resume"):
        read_best(tmp_path, job, 3)
    path.write_bytes(b"not a zip file")
    with pytest.raises(InputError, match="remove its lines and resume"):
        read_best(tmp_path, job)


def test_jobs_of_one_name_are_told_apart_by_their_task():
    jobs = [Job("gru", None, None, {"task": task}) for task in ("copy", "sort")]
    assert [job.key for job in jobs] == [("copy", "gru"), ("sort", "gru")]
    assert Job("mlp:relu", None, None, {}).slug == "mlp-relu"
