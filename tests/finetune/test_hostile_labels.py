"""Fine-tuning on labels that are markup somewhere, from the files to the report."""

import json

import numpy as np
import pytest

from ffnlab import escape, io
from ffnlab.data.examples import Example
from ffnlab.finetune import model_card, predict_files, report
from ffnlab.finetune.outputs import Format, Prediction, answers_json
from ffnlab.finetune.runner import run
from ffnlab.report.table import Table
from tests.finetune.fake import make_config, make_run, make_task
from tests.hostile import LABELS, ORDINARY, code_spans, inlines
from tests.tuned import WORDS, config

KNOWN = [*LABELS, *ORDINARY]
NAME = "a$x$|[b]<!--\u202e\x1b[2J_c_"  # a path may hold any of these


@pytest.fixture
def folder(tmp_path):
    """Files of examples with each label."""
    folder, rng = tmp_path / NAME, np.random.default_rng(0)
    folder.mkdir()
    for part in ("train", "dev", "test"):
        rows = [
            {"text": " ".join(rng.choice(WORDS, 4)), "label": label} for label in KNOWN
        ]
        lines = (json.dumps(row) + "\n" for row in rows)
        (folder / f"{part}.jsonl").write_text("".join(lines))
    return folder


def test_a_run_shows_hostile_labels_as_they_are(
    bert, folder, without_steps, capsys, tmp_path
):
    out = tmp_path / f"out{NAME}"
    result = run(config(bert, folder, "classify", out, ".jsonl"))
    printed = capsys.readouterr()
    assert escape.terminal_lines(printed.out) == printed.out
    assert escape.terminal(f"written to {out}: ") in printed.out
    shown = [escape.terminal(label) for label in KNOWN]
    for label in ("[/b]", "[red]", r"a\x1b[31mb\x9b1m", ":smile:", "中文 、ひらがな"):
        assert f" {label} " in printed.out

    cells = inlines((out / "report.md").read_text())
    assert {*shown} < {*cells}
    card = (out / "README.md").read_text()
    labels = [span for span in code_spans(card) if span in shown]
    assert len(labels) == 20 and "- train: " in card
    assert (out / "confusion.png").read_bytes().startswith(b"\x89PNG")
    lines = io.read_lines(out / "results.jsonl")
    assert {*lines[0]["test"]["types"]} == {*KNOWN}  # files keep what was read
    rows = io.read_lines(out / "predictions-test.jsonl")
    assert [row["label"] for row in rows] == KNOWN
    assert {row["predicted"] for row in rows} <= {*KNOWN}
    assert len(result.table.rows) == 2

    target = tmp_path / "predicted.jsonl"
    source = folder / "test.jsonl"
    options = {"run": str(out), "input": str(source), "output": str(target)}
    assert predict_files.predict(predict_files.PredictConfig(**options)) == len(KNOWN)
    assert [row["label"] for row in io.read_lines(target)] == KNOWN


@pytest.mark.parametrize("name", [*LABELS, "n\udcff"])
def test_names_of_files_are_shown_as_they_are(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "save", lambda *_: (tmp_path / "best").mkdir())
    paths = {"checkpoint": f"models/{name}", "train": f"data/{name}.tsv"}
    task = make_task(make_config(**paths), summary=f"train: 40 texts of {name}")
    report.publish(task.config, task, tmp_path, [make_run(0, 0.5, 0.75)])
    capsys.readouterr()
    if "/" in name:  # the last part is the name of the file
        name = name.rpartition("/")[2]
    shown = escape.terminal(name)
    first, *_ = inlines((tmp_path / "report.md").read_text())
    assert first == f"{shown}, fine-tuned on {shown}.tsv"
    _, _, card = (tmp_path / "README.md").read_text().split("---\n", 2)
    first, *_ = inlines(card)
    assert first == f"{shown}, fine-tuned on {shown}.tsv"


def test_the_head_of_a_card_holds_no_text_of_data():
    labels = [*LABELS[:5], "---\nlicense: x"]
    given = make_config(text_column='a"\n---\nb: c', checkpoint="---\nlicense: x")
    table = Table(["part", "F1"], [["dev", "1"]])
    card = model_card.model_card(given, make_task(given, label_names=labels), table)
    head = card.split("\n---\n")[0]
    assert head == "---\npipeline_tag: text-classification\nlibrary_name: transformers"
    assert code_spans(card)[:6] == [escape.terminal(label) for label in labels]
    assert any(span.startswith("--text_column=") for span in code_spans(card))


def test_predictions_in_json_hold_halves_of_pairs():
    row = {"text": "é", "id": "\ud800"}
    line = Format("jsonl").line(Example("é", row=row), Prediction("b\udfff", 0.5))
    read = json.loads(line.encode("utf-8"))
    assert read == {**row, "predicted": "b\udfff", "probability": 0.5}
    text = answers_json({"\ud800": "é"})
    assert "é" in text and json.loads(text.encode("utf-8")) == {"\ud800": "é"}
    text = Format("json").line(Example("a", row=["\ud800"]), Prediction("é"))
    assert json.loads(text.encode("utf-8")) == ["\ud800", "é"]
