"""Data sets in three parts, and readers of files; only train fits the preparation.

    data = load("digits", seed=0)
    steps = indices(seeds=[0], start=0, stop=100, batch=32, size=size(data.train))
    batch = take(data.train, steps[0, 0])

All arrays are NumPy's. scikit-learn is imported only if a data set needs it, and JAX
never.
"""

from ffnlab.lazy import attach

_NAMES = {
    "Arrays": "dataset",
    "Columns": "column_names",
    "DATASETS": "builtin",
    "Dataset": "dataset",
    "Example": "example",
    "Examples": "examples",
    "Questions": "squad",
    "Replicates": "replicates",
    "SEQUENCES": "synthetic",
    "Sentences": "conll",
    "Streamed": "streamed",
    "TaggedLines": "tagged_lines",
    "Targets": "targets",
    "brackets": "synthetic",
    "breast_cancer": "builtin",
    "checkpoint_tokenizer": "tokenizer_files",
    "diabetes": "builtin",
    "digest": "dataset",
    "digest_any": "replicates",
    "digest_replicates": "replicates",
    "digit_rows": "synthetic",
    "digits": "builtin",
    "from_arrays": "arrays",
    "from_frame": "frames",
    "fill_ratio": "packing:fill",
    "gather": "packing",
    "help_topics": "stdlib_source",
    "indices": "shuffle",
    "iris": "builtin",
    "load": "builtin",
    "mnist1d": "mnist1d_recipe",
    "noisy_smoothing": "synthetic",
    "open_shards": "token_shards",
    "order": "shuffle",
    "pack_sequences": "packing",
    "pad_sequences": "packing",
    "patches": "builtin",
    "posterior": "hidden_chain",
    "python_files": "stdlib_source",
    "python_source": "stdlib_source",
    "read_augmented": "augmented_files",
    "read_columns": "text_tables",
    "read_conll": "conll",
    "read_csv": "tabular",
    "read_json_rows": "json_files",
    "read_labelled": "examples",
    "read_npz": "npz",
    "read_questions": "squad",
    "read_texts": "corpus",
    "read_tokenizer": "tokenizer_files",
    "replicate": "replicates",
    "replicate_seeds": "replicates",
    "rows": "dataset",
    "size": "dataset",
    "tag_scheme": "tags:scheme_of",
    "tag_spans": "tags:spans",
    "tagging_dataset": "tagging_features",
    "take": "dataset",
    "thin": "dataset",
    "thin_parts": "dataset",
    "two_sided_copy": "synthetic",
    "wine": "builtin",
    "write_shards": "shard_writer",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
