"""--augment_file: altered examples stay in the part of their sources."""

import csv

import pytest

from ffnlab import options
from ffnlab.errors import InputError
from ffnlab.finetune import in_memory, runner
from ffnlab.finetune.config import Config

ROWS = [
    (f"n{n}", f"text number {n} is {'odd' if n % 2 else 'even'}") for n in range(40)
]


def write(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


@pytest.fixture
def given(tmp_path):
    """Fields of a configuration with paraphrases of every text."""
    rows = [(name, text, text.split()[-1]) for name, text in ROWS]
    altered = [(f"{name} again", name) for name, _ in ROWS]
    return {
        "checkpoint": "tiny",
        "train": write(tmp_path / "a.csv", ["id", "text", "label"], rows),
        "augment_file": write(tmp_path / "more.csv", ["text", "source"], altered),
        "id_column": "id",
        "split": (0.6, 0.2, 0.2),
        "max_seq_length": 16,
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_no_text_of_dev_or_test_is_learned_from(given, seed):
    task = runner.prepare(Config(**given, seed=seed))
    texts = {part: each.texts for part, each in task.examples.items()}
    assert {part: len(each) for part, each in texts.items()} == {
        "train": 48, "dev": 8, "test": 8,
    }  # fmt: skip
    names = {text: name for name, text in ROWS}
    trained = [names[text] for text in texts["train"][:24]]
    assert texts["train"][24:] == [
        f"{name} again" for name, _ in ROWS if name in trained
    ]
    labels = dict(zip(texts["train"], task.examples["train"].labels, strict=True))
    for text in texts["train"][:24]:
        assert labels[f"{names[text]} again"] == labels[text]
    line = "more.csv: 24 examples added to train, with the labels of their sources; 16"
    assert any(each.startswith(line) for each in task.summary.splitlines())


def test_flags_without_it_are_those_of_before(given):
    plain = {k: v for k, v in given.items() if k not in ("augment_file", "id_column")}
    flags = options.to_flags(Config(**plain))
    assert "augment_file" not in flags and "id_column" not in flags


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"augment_file": None}, "id_column: it needs augment_file"),
        ({"task": "generate"}, "augment_file: for task=classify, pairs, tag"),
        ({"augment_file": ("a",)}, "augment_file: .* should be text"),
    ],
)
def test_what_cannot_be_is_refused(given, changed, message):
    with pytest.raises(InputError, match=message):
        Config(**given | changed)


def test_values_in_memory_keep_their_ids(given, tmp_path):
    rows = [{"id": n, "text": t, "label": t.split()[-1]} for n, t in ROWS]
    fields = given | {"train": rows, "out": str(tmp_path / "o")}
    config, values = in_memory.read_options(None, fields)
    assert '{"id": "n0", "text": ' in in_memory.json_lines("train", rows, config)
    with in_memory.written(config, values):
        assert runner.prepare(config).sizes["train"] == 48
