"""Arrays of the chosen runs of a sweep, a file for each job and kind.

best/NAME.npz holds their parameters, and examples/NAME.npz their score on each example
of a test part that all of them share; spans/NAME.npz holds the span F1 of taggers. The
leading axis is that of the runs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ffnlab import digests, io, trees
from ffnlab.data.npz_arrays import read_arrays
from ffnlab.errors import InputError

_REMEDY = "delete it, and resume the run, which computes it again"


def slug_of(task: str, name: str) -> str:
    """Returns the name of a job as part of a path.

    Args:
      task: What differs between jobs of one name, or empty.
      name: What is compared.

    >>> slug_of("", "mlp:relu"), slug_of("wine", "glu")
    ('mlp-relu', 'wine-glu')
    """
    return "-".join(filter(None, (task, name))).replace(":", "-")


def path_of(directory: Path, folder: str, slug: str) -> Path:
    """Returns the file of a job in a folder of the run directory."""
    return directory / folder / f"{slug}.npz"


def append(path: Path, arrays: Mapping[str, np.ndarray], first: int) -> None:
    """Writes the arrays of runs behind those of the first runs that a file holds."""
    if first:  # rows beyond them are of a stage that was not finished
        held = _read(path)
        try:
            arrays = {
                name: np.concatenate([held[name][:first], array])
                for name, array in arrays.items()
            }
        except (KeyError, IndexError, ValueError) as error:
            raise InputError(f"{path}: {error}; {_REMEDY}") from None
    path.parent.mkdir(exist_ok=True)
    with io.atomic(path, "wb") as file:
        np.savez(file, **arrays)


def read(directory: Path, folder: str, slug: str) -> dict[str, np.ndarray]:
    """Returns the arrays of a job by name, with the leading axis of its runs.

    Raises:
      InputError: The file is missing or is not what training wrote.
    """
    return _read(path_of(directory, folder, slug))


def count(directory: Path, folder: str, slug: str) -> int:
    """Returns the number of runs in the file of a job; 0 if there is none.

    Raises:
      InputError: The file is damaged.
    """
    path = path_of(directory, folder, slug)
    return len(next(iter(_read(path).values()))) if path.exists() else 0


def read_best(directory: Path, slug: str, member: int = 0) -> dict[str, Any]:
    """Returns the best parameters of one chosen run, in the order of the seeds.

    Raises:
      InputError: The file is missing or is not what training wrote.
    """
    arrays = _read(path_of(directory, "best", slug))
    try:
        return trees.unflatten({name: each[member] for name, each in arrays.items()})
    except (ValueError, IndexError) as error:
        path = path_of(directory, "best", slug)
        raise InputError(f"{path}: {error}; {_REMEDY}") from None


def read_examples(
    directory: Path, slugs: Mapping[str, str], runs: Sequence[Mapping[str, Any]]
) -> dict[str, np.ndarray]:
    """Returns the score of each chosen run on each example of the test part.

    Args:
      directory: The run directory.
      slugs: By the name of each job of one task, its name as part of a path.
      runs: The lines of their runs. A run that diverged has the score of a trivial
        predictor on every example.

    Returns:
      Name of the job to `[seeds, examples]`.

    Raises:
      InputError: A file is missing or is not what training wrote.
    """
    results = {}
    for name, slug in slugs.items():
        path = path_of(directory, "examples", slug)
        arrays = [*_read(path).values()]
        lines = [run for run in runs if run["block"] == name and run["chosen"]]
        if len(arrays) != 1 or arrays[0].ndim != 2 or len(arrays[0]) < len(lines):
            what = f"should be one array with a row for each of {len(lines)} runs"
            raise InputError(f"{path}: {what}; {_REMEDY}")
        array = arrays[0]
        for run in lines:
            if run["test"] is None and "trivial" in run:
                array[run["seed"]] = run["trivial"]
        results[name] = np.asarray(array[: len(lines)])
    return results


def _read(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a file of runs."""
    place = digests.check(path, _REMEDY)
    try:
        return read_arrays(place)
    except InputError as error:
        raise InputError(f"{error}; or {_REMEDY}") from None
