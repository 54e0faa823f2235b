"""The report of a fine-tuning, of a task without a model."""

import numpy as np
import pytest

from ffnlab import io, stats
from ffnlab.finetune import report
from tests.finetune.fake import FakeTask, make_config, make_run, make_task


@pytest.fixture
def published(tmp_path, monkeypatch, capsys):
    """A report of three seeds, of which the second is best on dev."""
    saved = []

    def save(config, task, params, folder):
        folder.mkdir()
        saved.append(params)

    monkeypatch.setattr(report, "save", save)
    (tmp_path / "lock").touch()
    runs = [make_run(0, 0.5, 0.75), make_run(1, 0.875, 0.625), make_run(2, 0.75, 1.0)]
    config = make_config(seeds=3, epochs=2.0)
    table = report.publish(config, make_task(config), tmp_path, runs)
    return tmp_path, table, saved, capsys.readouterr().out


def test_the_run_that_is_best_on_dev_is_saved_and_predicts(published):
    folder, _, saved, printed = published
    assert saved == [{"w": 0.875}]
    assert (folder / "predictions-dev.tsv").read_text() == "0.875\n"
    assert (folder / "predictions-test.tsv").read_text() == "0.625\n"
    assert "seed 1, test part, by label" in " ".join(printed.split())


def test_every_seed_has_a_line_of_results(published):
    folder, *_ = published
    lines = io.read_lines(folder / "results.jsonl")
    assert [line["seed"] for line in lines] == [0, 1, 2]
    assert lines[1] == {
        "seed": 1,
        "best_step": 4,
        "diverged_at": None,
        "dev_curve": [0.25, 0.875],
        "seconds_per_step": 0.25,
        "dev": {"headline": 0.875, "accuracy": 0.875, "macro": 0.4375},
        "test": {"headline": 0.625, "accuracy": 0.625, "macro": 0.3125},
    }


def test_a_run_without_a_step_has_no_time():
    line = report.result_line(make_run(0, 0.5, seconds=np.nan))
    assert line["seconds_per_step"] is None and "test" not in line


def test_a_score_of_several_seeds_has_an_interval(published):
    _, table, *_ = published
    assert table.columns == ["part", "texts", "accuracy, %", "macro F1, %"]
    values = np.array([75.0, 62.5, 100.0])
    low, high = stats.mean_interval(values).clip(0.0, 100.0)
    part, count, accuracy, _ = table.rows[1]
    assert (part, count) == ("test", "6")
    assert accuracy == f"79.17 [{low:.2f}, {high:.2f}]"


def test_intervals_end_where_the_range_of_a_score_ends(monkeypatch):
    columns = {"accuracy": "accuracy", "Matthews": "matthews"}
    monkeypatch.setattr(FakeTask, "columns", columns)
    values = [0.0, 0.9, 1.0]
    runs = [make_run(seed, value) for seed, value in enumerate(values)]
    for run, value in zip(runs, values, strict=True):
        run.scores["dev"]["matthews"] = -value
    low, high = stats.mean_interval(values)
    assert low < 0.0 and high > 1.0
    (row,) = report.scores_table(make_task(make_config()), runs).rows
    assert row[2:] == ["63.33 [0.00, 100.00]", f"-63.33 [-100.00, {-100 * low:.2f}]"]


def test_a_score_of_one_seed_has_no_interval():
    table = report.scores_table(make_task(), [make_run(0, 0.5)])
    assert table.rows == [["dev", "8", "50.00", "25.00"]]


def test_the_report_holds_tables_pictures_and_what_was_done(published):
    folder, table, *_ = published
    text = (folder / "report.md").read_text()
    assert text.startswith("# minilm, fine-tuned on train.tsv\n")
    assert table.markdown() in text and "![F1 by label](types.png)" in text
    assert "By label:\n\n| label | F1, % |\n| :-- | --: |\n| odd | 31.2 |" in text
    assert "Fine-tuned: bert, 6 layers of width 384, for 2 epochs. The\nbest" in text
    assert "chosen by accuracy of the dev part" in text
    assert "Longer inputs than 128 tokens are cut off." in text
    assert "- train: 40 texts\n- dev: 8 texts\n" in text


def test_steps_are_reported_where_they_are_given():
    config = make_config(steps=1200)
    table = report.scores_table(make_task(config), [make_run(0, 0.5)])
    assert "1,200 steps." in report.report_text(config, make_task(), table, {}, {})


def test_the_card_lies_beside_the_run_and_the_model(published):
    folder, table, _, printed = published
    card = (folder / "README.md").read_text()
    assert card == (folder / "best" / "README.md").read_text()
    assert table.markdown() in card
    names = printed.rstrip().rsplit("\n", 1)[-1].partition(": ")[2].split(", ")
    assert {"README.md", "best", "report.md", "results.jsonl"} < set(names)
    assert "lock" not in names
