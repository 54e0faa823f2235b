"""Data, split three ways and prepared by the training part alone.

    data = load("digits", seed=0)
    steps = indices(seeds=[0], start=0, stop=100, batch=32, size=size(data.train))
    batch = take(data.train, steps[0, 0])

Everything here is NumPy; scikit-learn is imported only when a data set needs it, and
JAX never.
"""

from ffnlab.data.builtin import breast_cancer, digits, wine
from ffnlab.data.conll import Sentences, read_conll, tagging
from ffnlab.data.dataset import Arrays, Dataset, digest, size, take, thin
from ffnlab.data.npz import read_npz
from ffnlab.data.shuffle import indices, order
from ffnlab.data.stdlib_source import python_source
from ffnlab.data.synthetic import (
    SEQUENCES,
    brackets,
    digit_rows,
    noisy_smoothing,
    posterior,
    two_sided_copy,
)
from ffnlab.data.tabular import read_csv
from ffnlab.errors import choose

__all__ = [
    "DATASETS",
    "SEQUENCES",
    "Arrays",
    "Dataset",
    "Sentences",
    "brackets",
    "digest",
    "digit_rows",
    "indices",
    "load",
    "noisy_smoothing",
    "order",
    "posterior",
    "read_conll",
    "read_csv",
    "read_npz",
    "size",
    "tagging",
    "take",
    "thin",
    "two_sided_copy",
]

# A plain literal: launchers read its keys from the source, before any import.
DATASETS = {
    "digits": digits,
    "bytes": python_source,
    "breast_cancer": breast_cancer,
    "wine": wine,
}


def load(name: str, seed: int = 0) -> Dataset:
    """Loads one of the data sets that need no file.

    Args:
      name: a key of `DATASETS`.
      seed: of the split, any integer; the same seed gives the same split.

    Raises:
      InputError: `name` is unknown; the nearest names are offered.

    >>> data = load("wine", seed=1)
    >>> data.about["sizes"]
    {'train': 106, 'valid': 36, 'test': 36}
    """
    return DATASETS[choose("data set", name, DATASETS)](seed)
