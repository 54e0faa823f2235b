"""The score of each run of a comparison of methods on each example.

examples/METHOD.npz holds an array for each run, whose name is its seed and its rate. It
is empty where examples have no score of their own.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ffnlab import digests, io
from ffnlab.data.npz_arrays import read_arrays
from ffnlab.errors import InputError

_REMEDY = "delete it, and resume the run, which computes it again"


def add(
    directory: Path,
    method: str,
    scores: Mapping[tuple[int, float], np.ndarray | None],
) -> None:
    """Writes the scores of runs beside those that are there.

    Args:
      directory: The run directory.
      method: The name of the method.
      scores: By seed and learning rate, `[examples]`, or None.
    """
    path = _path(directory, method)
    path.parent.mkdir(exist_ok=True)
    added = {
        _name(*run): np.zeros(0, np.float32) if each is None else np.float32(each)
        for run, each in scores.items()
    }
    with io.atomic(path, "wb") as file:
        np.savez(file, **{**_read(path), **added})


def scored(
    directory: Path, method: str, lines: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Returns the lines of the runs of a method whose scores are there.

    Raises:
      InputError: The file is damaged.
    """
    held = _read(_path(directory, method))
    return [e for e in lines if _name(e["seed"], e["learning_rate"]) in held]


def read(
    directory: Path, chosen: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, np.ndarray] | None:
    """Returns the scores of the chosen runs of each method, `[runs, examples]`.

    Args:
      directory: The run directory.
      chosen: By method, the lines of its chosen runs.

    Returns:
      None where there are fewer than two examples with a score.

    Raises:
      InputError: A file is damaged.
    """
    results = {}
    for method, lines in chosen.items():
        held = _read(_path(directory, method))
        names = [_name(line["seed"], line["learning_rate"]) for line in lines]
        results[method] = np.stack([held[name] for name in names])
    return None if min(e.shape[1] for e in results.values()) < 2 else results


def _read(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a file; none if there is none."""
    if not path.exists():
        return {}
    place = digests.check(path, _REMEDY)
    try:
        return read_arrays(place)
    except InputError as error:
        raise InputError(f"{error}; or {_REMEDY}") from None


def _name(seed: int, rate: float) -> str:
    return f"{seed}-{rate:g}"


def _path(directory: Path, method: str) -> Path:
    name = re.sub(r"[^\w+.-]", "-", method)
    return directory / "examples" / f"{name}.npz"
