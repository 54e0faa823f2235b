"""Data, split three ways and prepared by the training part alone.

    data = load("digits", seed=0)
    steps = indices(seeds=[0], start=0, stop=100, batch=32, size=size(data.train))
    batch = take(data.train, steps[0, 0])

Everything here is NumPy; scikit-learn is imported only when a data set needs it, and
JAX never.
"""

from ffnlab.lazy import attach

_NAMES = {
    "Arrays": "dataset",
    "Columns": "examples",
    "DATASETS": "builtin",
    "Dataset": "dataset",
    "Examples": "examples",
    "SEQUENCES": "synthetic",
    "Sentences": "conll",
    "brackets": "synthetic",
    "breast_cancer": "builtin",
    "digest": "dataset",
    "digit_rows": "synthetic",
    "digits": "builtin",
    "indices": "shuffle",
    "load": "builtin",
    "noisy_smoothing": "synthetic",
    "order": "shuffle",
    "posterior": "synthetic",
    "python_source": "stdlib_source",
    "read_conll": "conll",
    "read_csv": "tabular",
    "read_labelled": "examples",
    "read_npz": "npz",
    "read_questions": "squad",
    "read_tokenizer": "tokenizer",
    "size": "dataset",
    "tagging_dataset": "conll",
    "take": "dataset",
    "thin": "dataset",
    "two_sided_copy": "synthetic",
    "wine": "builtin",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
