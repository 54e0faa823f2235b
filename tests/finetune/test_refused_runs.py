"""What a fine-tuning refuses, in one line."""

import numpy as np
import pytest

from ffnlab.errors import InputError
from ffnlab.finetune import runner
from tests.tuned import config

SMALL_RUN = {"max_seq_length": 14, "steps": 2, "batch_size": 8}


def test_nothing_is_left_of_data_that_cannot_be_used(bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"checkpoint": bert, "split": (0.6, 0.2, 0.2), **SMALL_RUN}
    for rows, message in (
        (
            [("w1", "x")] * 9,
            "^train: every label is 'x': there is nothing to tell apart",
        ),
        ([("w1", "x"), ("w2", None)], "train: row 2: label is missing"),
        ([("w1", "x"), ("w2", "y")], "split: 2 examples do not fill three parts"),
    ):
        with pytest.raises(InputError, match=message):
            runner.run(train=rows, **given)
        assert not [*tmp_path.glob("runs/*")]


def test_what_does_not_fit_is_said(bert, files, tmp_path):
    def given(**more):
        return config(bert, files, "tag", tmp_path / "o", ".conll", **more)

    with pytest.raises(
        InputError, match="^max_seq_length: 64 is more than the 16 positions"
    ):
        runner.run(given(max_seq_length=64))
    with pytest.raises(InputError, match="^freeze: layers.7"):
        runner.run(given(freeze=("layers.7",)))
    odd = tmp_path / "odd.conll"
    odd.write_text("w1\tB-RIVER\nw2\tO\n")
    with pytest.raises(
        InputError, match=r"odd.conll: labels .* 'B-RIVER' \(1, first in line 1\)"
    ):
        runner.run(given(dev=str(odd)))
    assert not (tmp_path / "o").exists()
    task = runner.prepare(given(test=str(odd), unseen_labels="ignore"))
    all_right = np.array([1, 0]), np.ones(2)  # B-CITY and O: no label is B-RIVER
    scores = task.score("test", all_right)
    assert scores["recall"] == 0.0 and scores["types"]["RIVER"]["support"] == 1
