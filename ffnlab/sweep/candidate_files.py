"""What a run directory records of models from Python, so that it can be resumed.

Flags hold the settings, and models and optimizers are functions. `models.sha256` has a
digest of what each computes; a run that is resumed must be given the same again.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from ffnlab import data
from ffnlab.errors import InputError
from ffnlab.escape import terminal
from ffnlab.io import read, write
from ffnlab.sweep.job import Job

NAME = "models.sha256"


def check_same_models(directory: Path, jobs: Sequence[Job]) -> None:
    """Records what the jobs compute; those of a run to resume must compute the same.

    Args:
      directory: The run directory.
      jobs: From `candidates.make_jobs`.

    Raises:
      InputError: A model, its initial values or the optimizer has changed.
    """
    lines = [f"{_digest(job)}  {job.name}" for job in jobs]
    path = directory / NAME
    if not path.exists():
        write(path, "\n".join(lines) + "\n")
        return
    before = read(path).splitlines()
    changed = [
        job.name for job, line in zip(jobs, lines, strict=True) if line not in before
    ]
    if changed:
        raise InputError(
            f"resume: {terminal(', '.join(changed))}: the model, its optimizer or the "
            f"version of JAX has changed since the run in {directory} began; give the "
            "same, or a new directory"
        )


def _digest(job: Job) -> str:
    """Returns a hash of the programs of a model and its optimizer."""
    key, rows = jax.random.key(0), np.arange(1)
    batch = data.take(job.dataset.train, rows)
    params = jax.eval_shape(job.model.init, key)
    programs = [
        jax.jit(job.model.init).lower(key),
        jax.jit(lambda *given: job.model.apply(*given)[0]).lower(
            params, batch["x"], key
        ),
    ]
    if job.optimizer is not None:
        state = jax.eval_shape(job.optimizer.init, params)
        update = jax.jit(job.optimizer.update)
        programs.append(jax.jit(job.optimizer.init).lower(params))
        programs.append(update.lower(params, state, params))
    sha256 = hashlib.sha256()
    for program in programs:
        sha256.update(program.as_text().encode())
    return sha256.hexdigest()
