"""The files of an exported model; what its program computes is in test_task."""

import json
import os
from types import SimpleNamespace

import pytest

from ffnlab.errors import InputError
from ffnlab.finetune import export
from ffnlab.finetune.usage import Usage

CLASSIFIER = Usage("classify", 14, text_column="2")


@pytest.fixture
def model(monkeypatch):
    """A model whose program is a few bytes, and whose tokens are bytes."""
    monkeypatch.setattr(export, "_program", lambda model: b"program")
    return SimpleNamespace(usage=CLASSIFIER, names=["ä", "b"], tokenizer=None)


def test_the_program_and_its_labels_are_written(model, tmp_path):
    files = export.export_model(model, str(tmp_path / "m"))
    assert files == [tmp_path / "m", tmp_path / "m.labels.json"]
    assert sorted(tmp_path.iterdir()) == files
    assert files[0].read_bytes() == b"program"
    held = json.loads(files[1].read_text())
    assert held["labels"] == ["ä", "b"] and "ä" in files[1].read_text()
    assert held["inputs"] == {
        "tokens": "int32 [B, T]",
        "mask": "bool [B, T]",
        "types": "int32 [B, T], 1 in the second text",
        "at": "int32 [B, K], 0, the first token; -1 for none",
    }
    assert held["outputs"] == "probabilities [B, K, labels]"
    assert {k: held[k] for k in CLASSIFIER.to_dict()} == CLASSIFIER.to_dict()
    assert held["length"] == 14 and held["text_column"] == "2"


@pytest.mark.parametrize(
    ("task", "names", "outputs"),
    [
        ("tag", ["tokens", "mask", "types", "at"], "probabilities [B, K, labels]"),
        ("qa", ["tokens", "mask", "types"], "logits of start and end [B, T, 2]"),
        ("generate", ["tokens", "mask"], "logits [B, T, vocabulary]"),
    ],
)
def test_each_task_names_its_inputs(model, tmp_path, task, names, outputs):
    model.usage = Usage(task, 14)
    held = json.loads(export.export_model(model, tmp_path / "m")[1].read_text())
    assert list(held["inputs"]) == names and held["outputs"] == outputs
    assert held["task"] == task


def test_what_cannot_be_written_is_one_line(model, tmp_path, monkeypatch):
    (tmp_path / "there").write_text("before")
    for path, message in (
        (tmp_path / "there", "export: .*there exists already; choose another name"),
        (tmp_path / "absent" / "m", "export: .*absent: no such directory"),
        (tmp_path / ("m" * 250), "export: .*: File name too long"),
    ):
        with pytest.raises(InputError, match=f"^{message}$"):
            export.export_model(model, path)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="^export: .*/m: No space left on device$"):
        export.export_model(model, tmp_path / "m")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
