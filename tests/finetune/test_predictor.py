"""Predictions on new text: what comes in, what goes out, and what is refused."""

import io
import json
import os
import re
import sys
from pathlib import Path

import pytest

from ffnlab.errors import InputError
from ffnlab.finetune import predict_files, runner
from tests.tuned import config


def test_prediction_adds_columns_to_a_table(sorted_texts, files, tmp_path):
    out = tmp_path / "p.tsv"
    predict_files.predict(
        predict_files.PredictConfig(
            str(sorted_texts.out), str(files / "test.tsv"), str(out)
        )
    )
    wanted = (sorted_texts.out / "predictions-test.tsv").read_text().splitlines()
    for one, two in zip(out.read_text().splitlines(), wanted, strict=True):
        (*cells, one), (*same, two) = one.split("\t"), two.split("\t")
        assert cells == same and float(one) == pytest.approx(float(two), abs=1e-3)


def test_prediction_keeps_the_header_of_a_table(bert, files, tmp_path):
    folder = tmp_path / "named"
    folder.mkdir()
    for part in ("train", "dev", "test"):
        rows = (files / f"{part}.tsv").read_text().replace("\t", ",")
        (folder / f"{part}.csv").write_text("label,text\n" + rows)
    found = runner.run(
        config(bert, folder, "classify", tmp_path / "run", ".csv", epochs=1.0)
    )
    (tmp_path / "new.csv").write_text('id,text\n7,"w1, w2"\n8,w3\n')
    out, again = tmp_path / "p.csv", tmp_path / "q.csv"
    given = predict_files.PredictConfig(
        str(found.out), str(tmp_path / "new.csv"), str(out)
    )
    assert predict_files.predict(given) == 2
    lines = out.read_text().splitlines()
    assert lines[0] == "id,text,predicted,probability"
    assert lines[1].startswith('7,"w1, w2",') and lines[2].startswith("8,w3,")
    predict_files.predict(
        predict_files.PredictConfig(str(found.out), str(out), str(again))
    )
    lines = again.read_text().splitlines()  # nothing that was there is lost
    assert lines[0] == "id,text,predicted,probability,predicted2,probability2"


@pytest.mark.parametrize(
    ("kind", "text", "wanted"),
    [
        (
            "conll",
            "w1 x\nw2\n\n-DOCSTART-\nw3\ty\n",
            ["w1 x ", "w2\t", "", "-DOCSTART-", "", "w3\ty\t", ""],
        ),
        ("jsonl", '{"text": ["w1", "w2"], "id": 7}\n', None),
    ],
)
def test_prediction_reads_other_formats_as_they_come(
    tagged, monkeypatch, capsys, kind, text, wanted
):
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    predict_files.predict(predict_files.PredictConfig(str(tagged.out), format=kind))
    got = capsys.readouterr().out
    if wanted:
        kept = [re.sub(r"(O|B-\w+|I-\w+)$", "", line) for line in got.splitlines()]
        assert kept == wanted
    else:
        found = json.loads(got)
        assert found["id"] == 7 and len(found["predicted"]) == 2
        assert len(found["probability"]) == 2


def test_tags_have_their_probabilities_if_they_are_asked_for(
    tagged, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "stdin", io.StringIO("w1 w2\n"))
    predict_files.predict(
        predict_files.PredictConfig(str(tagged.out), probabilities=True)
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["w1", "w2", ""]
    assert all(0 < float(line.split("\t")[1]) <= 1 for line in lines[:2])


BAD_INPUT = {
    "a.jsonl": ('{"2": "a"}\n{"2": ""}\nx\n[]\n', [2, 3, 4], "'2' is empty, or has half"),
    "a.tsv": ("x\ta\nx\nx\t\n", [2, 3], "expected 2 fields, found 1"),
    "a.txt": (b"a\n\xff\n\0\n", [2, 3], "not UTF-8"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_all_bad_lines_of_a_file_are_told_before_anything_is_written(
    sorted_texts, tmp_path, name
):
    content, lines, what = BAD_INPUT[name]
    path, out = tmp_path / name, tmp_path / "out"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        predict_files.predict(
            predict_files.PredictConfig(str(sorted_texts.out), str(path), str(out))
        )
    told = str(caught.value).split("\n")
    assert [int(each.split(f"{name}:")[1].split(":")[0]) for each in told] == lines
    assert what in told[0] and not out.exists()


def test_formats_that_a_task_has_not_are_refused(tagged, sorted_texts, tmp_path):
    (tmp_path / "a.csv").write_text("a\n")
    path = str(tmp_path / "a.csv")
    for run, source, kind in (
        (tagged, path, "csv"),
        (tagged, path, "auto"),
        (sorted_texts, "-", "tsv"),
    ):
        with pytest.raises(InputError, match="^format: .* takes text, .*jsonl.*, not "):
            predict_files.predict(
                predict_files.PredictConfig(str(run.out), source, format=kind)
            )
    with pytest.raises(InputError, match="^probabilities: for tag, not classify"):
        predict_files.predict(
            predict_files.PredictConfig(str(sorted_texts.out), probabilities=True)
        )


def test_what_is_no_file_is_written_into(sorted_texts, files, tmp_path):
    new = tmp_path / "in.txt"
    new.write_text("w1 w2\n")
    (tmp_path / "real").write_text("before")
    (tmp_path / "link").symlink_to("real")
    predict_files.predict(
        predict_files.PredictConfig(
            str(sorted_texts.out), str(new), str(tmp_path / "link")
        )
    )
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text().endswith("w1 w2\n")
    predict_files.predict(
        predict_files.PredictConfig(str(sorted_texts.out), str(new), os.devnull)
    )
    assert not Path(os.devnull).is_file()
    for path in (tmp_path, tmp_path / "absent" / "p"):
        with pytest.raises(InputError, match="^output: .*: (Is a|No such)"):
            predict_files.predict(
                predict_files.PredictConfig(str(sorted_texts.out), str(new), str(path))
            )
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="pipe: a pipe or a device; give a file"):
        predict_files.predict(
            predict_files.PredictConfig(str(sorted_texts.out), str(pipe))
        )


def test_words_that_the_model_does_not_see_are_told(tagged, tmp_path, capsys):
    (tmp_path / "in.txt").write_text(" ".join(["w1"] * 15) + "\n")
    predict_files.predict(
        predict_files.PredictConfig(str(tagged.out), str(tmp_path / "in.txt"))
    )
    got = capsys.readouterr()
    assert got.out.count("\n") == 16
    assert got.err == "3 words or tokens cut off: the model reads 14 tokens per text\n"


def test_columns_of_conll_may_be_chosen(bert, files, tmp_path):
    folder = tmp_path / "numbered"
    folder.mkdir()
    for part in ("train", "dev", "test"):
        rows = (files / f"{part}.conll").read_text().splitlines()
        lines = [f"7 {row} X".replace("\t", " ") if row else "" for row in rows]
        (folder / f"{part}.conll").write_text("\n".join(lines) + "\n")
    columns = {"text_column": "2", "label_column": "3", "epochs": 1.0}
    run = runner.run(config(bert, folder, "tag", tmp_path / "o", ".conll", **columns))
    assert "CITY" in run.scores["test"][0]["types"]
    out = tmp_path / "p.conll"
    predict_files.predict(
        predict_files.PredictConfig(str(run.out), str(folder / "test.conll"), str(out))
    )
    assert out.read_text() == (run.out / "predictions-test.conll").read_text()
    (tmp_path / "bad.conll").write_text("7 w1\nw2\n")
    with pytest.raises(InputError, match="bad.conll:2: column 2 of 1; columns count"):
        predict_files.predict(
            predict_files.PredictConfig(str(run.out), str(tmp_path / "bad.conll"))
        )
