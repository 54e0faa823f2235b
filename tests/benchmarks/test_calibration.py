import contextlib
import dataclasses
import doctest
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks import calibration, calibration_stages, shares, simulated_scores
from benchmarks.shares import Config, Estimate
from benchmarks.simulated_scores import DESIGNED, NOISES, Condition, draw
from ffnlab import io, stats
from ffnlab.errors import InputError
from ffnlab.stats import power

FEW = Config(datasets=30, replicates=10, workers=1)
STAGES = calibration_stages.stages  # takes as long as all the others


@contextlib.contextmanager
def without_detectable():
    """Comparisons skip what they could have detected, which takes half their time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(power, "detectable_effect", lambda *_: math.nan)
        yield


@pytest.fixture(scope="module")
def results():
    quick = [section for section in calibration.SECTIONS if section is not STAGES]
    shares = {}
    for section in quick:
        needed = section is calibration.power
        with contextlib.nullcontext() if needed else without_detectable():
            shares[section.__name__] = section(FEW)
    return shares


def test_every_section_reports_a_share_of_all_data_sets(results):
    names = [section.__name__ for section in calibration.SECTIONS]
    assert [*results, "stages"] == names
    counts = [len(shares) for shares in results.values()]
    assert counts == [4 + 2 * 9, 4 + 9 + 1, 4, 8, 20, 6]
    for section in results.values():
        for (name, _), share in section.items():
            if name != "disagreements":
                assert share.total == FEW.datasets
            low, high = share.interval()
            assert 0 <= low <= share.share() <= high <= 1


def test_errors_and_coverage_are_near_their_levels(results):
    """One share in a thousand lies beyond 7 of 30, if the true one is 0.05."""
    false = results["false_claims"]
    for (name, design), share in false.items():
        if design == "own":
            assert share.hits <= 7, name
    for name in ("rates differ by 1, unseen", "luck with the split 1"):
        assert false[name, "fixed"].hits >= 20
    covered = dict(results["coverage"])
    disagreements = covered.pop(("disagreements", FEW.replicates))
    assert disagreements == Estimate(0, 13 * FEW.datasets * (FEW.blocks - 1))
    for name, share in covered.items():
        assert share.hits >= FEW.datasets - 7, name
    for name, share in results["false_equivalence"].items():
        assert share.hits <= 7, name
    for (name, n), share in results["mean_coverage"].items():
        assert share.hits >= FEW.datasets - (7 if name != "one exponential" else 11), n


def test_errors_on_fixed_examples(results):
    for (effect, error), share in results["two_way"].items():
        if error == "two-way" or effect == "0":
            assert share.hits <= 7, effect
    assert results["two_way"]["1", "one-way"].hits >= 25


@pytest.mark.slow
def test_errors_in_stages(tmp_path):
    eight = dataclasses.replace(FEW, datasets=8, out=str(tmp_path / "run"))
    shares = calibration.run(eight)["stages"]
    assert len(shares) == 6 + 4
    for (name, truth), share in STAGES(FEW).items():
        assert share.hits <= 7, (name, truth)


def test_stages_save_runs():
    """On average at least 15 % at the detectable difference, and 40 % at twice it."""
    effect = calibration_stages.detectable(Config())
    assert 0.5 < effect < 0.8  # of 64 replicates, and less than that of 32 above
    for times, saved in ((1, 0.15), (2, 0.4)):
        for index in ([1], slice(1, None)):
            shifts, runs, found = np.zeros(12), 0, 0
            shifts[index] = times * effect
            for seed in range(10):
                rng = np.random.default_rng([times, seed])
                counts = calibration_stages.run_stages(NOISES[0], shifts, 16, rng)
                assert counts["block"] in (16, 32, 48, 64)
                runs += counts["runs"] / 10
                found += counts["found"] / 10
            assert runs <= (1 - saved) * 12 * 64
            assert found >= (0.4 if times == 1 else 0.95)


def test_power_rises_with_replicates(results):
    shares = results["power"]
    found = [shares["1.5", n].hits for n in calibration.REPLICATES]
    assert found[0] <= 9 and found[2] >= 17 and found[3] >= 27
    for n in (6, 10, 16, 32):
        assert 16 <= shares["detectable", n].hits <= 30


def test_tables_are_printed(capsys):
    calibration.false_equivalence(Config(datasets=2, replicates=6, workers=1))
    printed = capsys.readouterr()
    assert "Data sets with a false claim of equivalence" in printed.out
    assert "replicates" in printed.out and "0.0000–0.6576" in printed.out
    assert "equivalence      100%" in printed.err


def test_the_mean_detectable_difference_is_printed(capsys):
    calibration.power(Config(datasets=4, workers=1))
    (line,) = (
        line for line in capsys.readouterr().out.splitlines() if "on average" in line
    )
    sizes = [float(word.strip(",")) for word in line.split() if word[0].isdigit()]
    assert len(sizes) == 4 and sizes == sorted(sizes, reverse=True)
    assert 0.75 < sizes[-1] < 1.25


def test_true_differences_are_those_that_the_tables_name(monkeypatch):
    designs = {}

    def count(title, tasks, section, config):
        designs[title] = list(tasks.values())
        return {label: shares.Counts(comparisons=1) for label in tasks}

    monkeypatch.setattr(calibration, "count", count)
    for section in calibration.SECTIONS[:3]:
        section(Config(blocks=5, replicates=6))
    expected = {
        "false claims": [0, 0, 0, 0],
        "coverage": [-0.5, -1, -2, 0],
        "equivalence": [-1, -1, -1, -1],
    }
    for title, truth in expected.items():
        for task in designs[title]:
            _, shifts, replicates = task.args
            assert (shifts[1:] - shifts[0]).tolist() == truth
            equivalence = title == "equivalence"
            assert task.keywords == ({"margin": 1.0} if equivalence else {})
            assert replicates == 6 or equivalence and replicates == 24


def test_results_do_not_depend_on_the_number_of_processes():
    one, two = (
        calibration.mean_coverage(Config(datasets=60, workers=workers))
        for workers in (1, 2)
    )
    assert one == two
    other = calibration.mean_coverage(Config(datasets=60, workers=1, seed=1))
    assert other != one


class Killed(BaseException):
    """What ends a run as a signal would."""


def test_a_run_that_was_killed_counts_the_rest(tmp_path, monkeypatch, capsys):
    """In its second table; and again after some of its lines were lost."""
    sections = calibration.power, calibration.mean_coverage
    monkeypatch.setattr(calibration, "SECTIONS", sections)
    config = Config(datasets=25, blocks=3, workers=1, out=str(tmp_path / "whole"))
    whole = calibration.run(config)
    path = tmp_path / "killed" / "results.jsonl"
    config = dataclasses.replace(config, out=str(tmp_path / "killed"))
    repeat, counted = shares._repeat, []

    def repeat_or_fail(task, seed, chunk):
        counted.append(chunk)
        if len(counted) == 12:
            raise Killed
        return repeat(task, seed, chunk)

    monkeypatch.setattr(shares, "_repeat", repeat_or_fail)
    monkeypatch.setattr(shares, "_SECONDS", 0.0)
    with pytest.raises(Killed):
        calibration.run(config)
    assert len(io.read_lines(path)) == 11
    with pytest.raises(InputError, match="already holds a run; resume=true"):
        calibration.run(config)
    resume = dataclasses.replace(config, resume=True)
    assert calibration.run(resume) == whole
    assert path.read_text() == (tmp_path / "whole" / "results.jsonl").read_text()
    assert len(counted) == 12 + 8 + 40 - 11

    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3] + lines[5:]))
    assert calibration.run(resume) == whole
    assert path.read_text() == "".join(lines)
    capsys.readouterr()
    calibration.run(resume)
    assert "Data sets covered by `mean_interval`" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_is_interrupted_ends_and_says_how_to_continue(tmp_path):
    """Within a minute, with the counts so far."""
    out = tmp_path / "run"
    flags = [f"--out={out}", "--datasets=2000", "--workers=2"]
    command = [sys.executable, "-m", "benchmarks.calibration", *flags]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    run = subprocess.Popen(  # it would ignore what this process ignores
        command, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    signal.signal(signal.SIGINT, before)
    while run.poll() is None and not (out / "results.jsonl").exists():
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGINT)
    _, error = run.communicate(timeout=60)
    assert run.returncode == 130
    assert error.splitlines()[-1].endswith(f"--out={out} --resume")
    assert "Traceback" not in error and io.read_lines(out / "results.jsonl")


@pytest.mark.parametrize("condition", [*NOISES, *DESIGNED])
def test_scores_have_the_means_and_the_spread_that_are_claimed(condition):
    shifts = np.array([0.0, -1.0])
    rng = np.random.default_rng(0)
    validation, test = draw(condition, shifts, 20_000, rng)
    assert validation.shape == test.shape == (2, 3, 20_000)
    unit = simulated_scores.unit(condition.noise)
    middle = np.median if condition.name.startswith("t with") else np.mean
    start = simulated_scores.ACCURACY if condition.name == "ties" else 0.0
    means = (middle(test, axis=2) - start) / unit  # [blocks, rates]
    expected = shifts[:, None] + condition.rate_effect * np.array([-1, 0, 1])
    np.testing.assert_allclose(means, expected, atol=0.06)
    means = (middle(validation, axis=2) - start) / unit
    expected = shifts[:, None] + condition.seen * condition.rate_effect * np.array(
        [-1, 0, 1]
    )
    np.testing.assert_allclose(means, expected, atol=0.06)
    if not condition.name.startswith(("t with", "shared")):
        spread = np.hypot(1.0, condition.split_effect)
        np.testing.assert_allclose(test[0].std(axis=1) / unit, spread, rtol=0.03)


def test_luck_with_a_fixed_split_is_that_of_the_block():
    condition = Condition("luck", split_effect=1000.0, fixed=True)
    rng = np.random.default_rng(0)
    _, test = draw(condition, np.zeros(2), 8, rng)
    assert test.std(axis=(1, 2)).max() < 3 < abs(test.mean(axis=(1, 2))).min()
    _, test = draw(condition._replace(fixed=False), np.zeros(2), 8, rng)
    assert test.std(axis=2).min() > 100


def test_a_shared_order_moves_all_blocks_alike():
    rng = np.random.default_rng(0)
    _, test = draw(NOISES[1], np.zeros(2), 9_000, rng)
    assert abs(np.corrcoef(test[0, 0], test[1, 2])[0, 1] - 0.8) < 0.02


def test_intervals_that_disagree_with_their_p_values_are_counted(monkeypatch):
    whole = stats.Interval(-1e9, 1e9)

    def compare(*args, **options):
        return [
            row if row.verdict is None else dataclasses.replace(row, **wrong)
            for row in original(*args, **options)
        ]

    original = stats.compare
    monkeypatch.setattr(stats, "compare", compare)
    wrong = {"difference_interval": whole, "p_value": 0.01}
    arguments = (NOISES[0], np.zeros(4), 6, np.random.default_rng(0))
    counts = calibration.judge(*arguments)
    assert (counts["disagreements"], counts["comparisons"]) == (3, 3)
    assert counts["covered"] == 1
    wrong = {"difference_interval": stats.Interval(1.0, 2.0), "p_value": 0.01}
    counts = calibration.judge(*arguments)
    assert (counts["disagreements"], counts["covered"]) == (0, 0)


def test_wrong_flags_are_refused():
    with pytest.raises(InputError, match="^replicates: 5 should be a number at least"):
        Config(replicates=5)


def test_doctests():
    result = doctest.testmod(shares)
    assert result.attempted and not result.failed
