"""What prediction refuses, in one line."""

import pytest

from ffnlab.errors import InputError
from ffnlab.finetune import (
    predict_files,
)
from tests.conftest import command


def test_predict_says_what_is_wrong(sorted_texts, tagged, bert, tmp_path):
    got = command("predict", f"--run={sorted_texts.out}", "--input=absent.txt")
    assert got.returncode == 2 and "absent.txt: no such file" in got.stderr
    with pytest.raises(InputError, match="not a run of experiments.finetune"):
        predict_files.predict(predict_files.PredictConfig(bert, "absent.txt"))
    for name, content, message in (
        ("bad.jsonl", b'{"txt": "a"}\n', "bad.jsonl:1: no '2'; there is txt"),
        ("bad.txt", b"a\n\xff\n", "bad.txt:"),
    ):
        (tmp_path / name).write_bytes(content)
        given = predict_files.PredictConfig(str(sorted_texts.out), str(tmp_path / name))
        with pytest.raises(InputError, match=message):
            predict_files.predict(given)
    with pytest.raises(InputError, match="run: needed"):
        predict_files.PredictConfig()
    with pytest.raises(InputError, match="run: .*/absent: not a run of"):
        predict_files.predict(predict_files.PredictConfig(str(tmp_path / "absent")))
    with pytest.raises(InputError, match="output: a.txt is the input"):
        predict_files.PredictConfig(str(tagged.out), "a.txt", "a.txt")
