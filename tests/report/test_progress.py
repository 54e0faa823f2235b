import sys

import numpy as np

from ffnlab import escape
from ffnlab.report import progress
from ffnlab.report.progress import Progress
from ffnlab.train.record import Plan, add_evaluation, add_losses, empty_record
from tests.hostile import LABELS


def test_progress_in_a_log_has_rate_and_time_left(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress(200, "steps", done=100) as bar:
        bar.begin("glu")
        now[0] += 5.0
        bar.reach(50)
        bar.end()
    line = capsys.readouterr().err
    assert line.startswith("glu") and "75%" in line
    assert "10 steps/s" in line and "5 s elapsed, 5 s left" in line


def test_progress_on_a_terminal_is_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(200, "steps", done=100) as bar:
        bar.begin("glu")
        bar.reach(50)
        bar.end()
        task = bar._bar.tasks[0]
        assert (task.completed, task.total, task.description) == (150, 200, "glu")
        assert task.fields["rate"].endswith("steps/s")
    assert "s left" not in capsys.readouterr().err  # a bar and no line


def test_a_callback_reports_steps_and_the_score(capsys):
    plan = Plan(4, 2, 1)
    record = empty_record(plan, ["loss"])
    with Progress(4, "steps") as bar:
        report = progress.progress_callback(bar, plan, "loss", "valid {:.2f}")
        for score in (0.5, 0.25):
            losses = np.ones(2, np.float32)
            record = add_losses(record, losses)
            record, _ = add_evaluation(record, plan, {"loss": score})
            report(record)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("valid 0.50") and " 50%" in first
    assert second.startswith("valid 0.25") and "100%" in second


def test_hostile_names_act_on_no_terminal(capsys, monkeypatch):
    with Progress(len(LABELS), "steps") as lines:
        for label in LABELS:
            lines.begin(label)
            lines.end()
    printed = capsys.readouterr().err.splitlines()
    for label, line in zip(LABELS, printed, strict=True):
        assert line.startswith(f"{escape.terminal(label):<16}   0%")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(len(LABELS), "steps") as bar:
        for label in LABELS:
            bar.begin(label)
            bar._bar.refresh()
        assert bar._bar.tasks[0].description == escape.terminal(LABELS[-1])


def test_between_evaluations_there_is_a_line_a_minute(capsys, monkeypatch):
    plan, now = Plan(8, 4, 1), [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    record = empty_record(plan, ["loss"])
    with Progress(8, "steps") as bar:
        bar.begin("seed 0")
        report = progress.progress_callback(bar, plan, "loss", "valid {:.2f}")
        for _ in range(3):
            now[0] += 40.0
            record = add_losses(record, np.ones(1, np.float32))
            report(record)
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("seed 0")
        assert " 40 s/step  loss 1  80 s elapsed, 240 s left" in lines[0]
        now[0] += 70.0
        record = add_losses(record, np.ones(1, np.float32))
        record, _ = add_evaluation(record, plan, {"loss": 0.5})
        report(record)
        (line,) = capsys.readouterr().err.splitlines()  # not one of the minute too
        assert line.startswith("valid 0.50")


def test_the_rate_is_that_of_what_follows_the_compilation(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress(110, "steps", done=9, texts=16) as bar:
        bar.begin("seed 0", compiling=True)
        now[0] += 30.0
        bar.reach(1)
        now[0] += 20.0
        bar.reach(11)
        bar.note("loss 0.5")
        bar.end()
        first, line = capsys.readouterr().err.splitlines()
        assert first == "seed 0, compiling"
        assert line.split("  ")[-4:] == [
            "2.0 s/step", "8.0 texts/s", "loss 0.5", "50 s elapsed, 180 s left",
        ]  # fmt: skip
        now[0] += 1.0
        bar.reach(101)
        bar.end()
    assert " 4.8 steps/s  76 texts/s" in capsys.readouterr().err


def test_there_is_no_rate_of_what_was_compiled(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress(20, "steps", texts=16) as bar:
        for seed, seconds in enumerate((30.0, 40.0)):
            bar.begin(f"seed {seed}", compiling=True)
            now[0] += seconds
            bar.reach(5)
            bar.note("loss 0.5")
            bar.end()
            now[0] += 1.0
            bar.reach(10)
            bar.end()
    lines = capsys.readouterr().err.splitlines()
    shown = [
        line.split("  ", 1)[1].split("%")[1].strip() for line in lines if "%" in line
    ]
    assert shown == [
        "loss 0.5  30 s elapsed",
        "5.0 steps/s  80 texts/s  loss 0.5  31 s elapsed, 2 s left",
        "5.0 steps/s  80 texts/s  loss 0.5  71 s elapsed, 1 s left",
        "5.0 steps/s  80 texts/s  loss 0.5  72 s elapsed, 0 s left",
    ]


def test_a_bar_says_that_the_first_step_is_compiled(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(2, "steps") as bar:
        bar.begin("seed 0", compiling=True)
        assert bar._bar.tasks[0].description == "seed 0, compiling"
        bar.reach(1)
        assert bar._bar.tasks[0].description == "seed 0"
