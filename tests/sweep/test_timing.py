"""Widths of equal time: the search, the flags that keep them, and what is timed."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import launch
from ffnlab import io
from ffnlab.errors import InputError
from ffnlab.sweep import block_jobs, comparison, comparison_note, ranking, timing
from ffnlab.sweep.comparison_config import CompareConfig
from ffnlab.sweep.timing import TimedWidth, measure_in_turn, search_width
from tests.conftest import check_refusal, refusals

SMALL = {
    "data": "wine",
    "blocks": ("mlp", "bilinear"),
    "activations": ("relu",),
    "seeds": 2,
    "learning_rates": (1e-2,),
    "steps": 4,
    "evaluations": 2,
    "batch_size": 32,
    "features": 8,
    "hidden": 12,
    "layers": 1,
    "extend_rates": 0,
    "budget": "time",
}


def search(ratio, start, **options):
    """Returns the width that a search chooses, and the widths that it measured."""
    widths = []

    def measure(width):
        assert width >= 1
        widths.append(width)
        return TimedWidth(width, ratio(width), 1.0)

    result = search_width(measure, start, **options)
    assert len(set(widths)) == len(widths)
    return result, widths


@given(
    offset=st.floats(0, 0.9), answer=st.integers(20, 400), start=st.integers(20, 400)
)
def test_a_time_that_rises_evenly_is_met_in_few_measurements(offset, answer, start):
    result, widths = search(lambda n: offset + (1 - offset) * n / answer, start)
    assert abs(result.ratio - 1) <= 0.05
    assert len(widths) <= 6


@given(st.integers(0, 10_000), st.integers(40, 200))
def test_noise_moves_the_result_by_little(seed, start):
    rng = np.random.default_rng(seed)
    result, widths = search(
        lambda n: (0.4 + 0.6 * n / 90) * math.exp(0.02 * rng.normal()), start
    )
    assert len(widths) <= 8
    assert abs(0.4 + 0.6 * result.hidden / 90 - 1) < 0.15


def test_steps_are_met_where_one_is_near_and_halved_where_none_is():
    result, _ = search(lambda n: 0.3 + 0.7 * math.ceil(n / 16) / 3, 128)
    assert 33 <= result.hidden <= 48
    result, widths = search(lambda n: 0.9 if n <= 64 else 1.3, 128)
    assert result.ratio == 0.9 and len(widths) <= 8
    low = max(n for n in widths if n <= 64)
    high = min(n for n in widths if n > 64)
    assert high - low <= 8  # of at first 64


def test_a_time_that_is_far_from_a_line_is_met():
    """The line through the ends of the range alone would creep along one of them."""
    for start in (150, 170, 190, 250):
        result, widths = search(lambda n: 0.1 + 0.9 * (n / 100) ** 6, start)
        assert abs(result.ratio - 1) <= 0.05


def test_the_nearest_width_is_kept_where_none_takes_the_time():
    result, widths = search(lambda n: 2 + n, 4)
    assert result.hidden == 1 and widths[-1] == 1
    result, widths = search(lambda n: 0.5, 10, limit=4)
    assert result.hidden == 10 and len(widths) == 4 and max(widths) <= 80
    result, widths = search(lambda n: n / 10, 30, limit=1)
    assert widths == [30] and result.ratio == 3


def test_a_width_within_the_tolerance_is_kept():
    assert search(lambda n: 1.04, 7)[1] == [7]
    assert len(search(lambda n: n / 10, 11, tolerance=0.2)[1]) == 1


def test_ratios_of_neighbours_do_not_see_the_machine_slow_down():
    clock = iter(1.02 ** np.arange(1000))
    runs = []

    def timer(name, seconds):
        def run():
            runs.append(name)
            return seconds * next(clock)

        return run

    _, ratio = measure_in_turn(timer("a", 2.0), timer("b", 3.0), 5)
    assert ratio == pytest.approx(1.5, rel=0.005)
    assert "".join(runs[:5]) == "ababa" and runs[-1] == "a"


def test_noisy_ratios_are_measured_for_longer():
    rng, calls = np.random.default_rng(0), []

    def noisy():
        calls.append(1)
        return 3.0 * math.exp(0.1 * rng.normal())

    measure_in_turn(lambda: 2.0, lambda: 3.0)
    _, ratio = measure_in_turn(lambda: 2.0, noisy)
    assert ratio == pytest.approx(1.5, rel=0.05)
    assert len(calls) == 80
    calls.clear()
    measure_in_turn(lambda: 2.0, lambda: calls.append(1) or 3.0)
    assert len(calls) == 10


@pytest.fixture
def timed(monkeypatch):
    """The widths whose steps were timed; a gated unit takes 4 times as long."""
    widths = []

    def make_timer(config, job, steps):
        shapes = jax.eval_shape(job.model.init, jax.random.key(0))
        hidden = shapes["block_0"]["up"]["kernel"].shape[1]
        widths.append((job.name, hidden))
        seconds = 1e-6 * (8 + hidden * (4 if job.name == "bilinear" else 1))
        return lambda: seconds

    monkeypatch.setattr(timing, "make_timer", make_timer)
    return widths


def flags(out):
    return (out / "flags").read_text().splitlines()


@pytest.fixture
def interrupted(monkeypatch):
    """Interrupts runs before they train, and holds the facts of the last one's jobs."""
    facts = {}

    def train_all(config, jobs, *_):
        facts.clear()
        facts.update({job.name: job.facts for job in jobs})
        raise KeyboardInterrupt

    def run(config):
        with pytest.raises(KeyboardInterrupt, match="to continue"):
            comparison.compare(config)
        return facts

    monkeypatch.setattr(comparison, "train_all", train_all)
    return run


def test_widths_are_measured_once_for_a_run_and_its_repetitions(
    timed, interrupted, tmp_path, capsys
):
    """Resumed by the command line that began it, and repeated by its flag file."""
    out = tmp_path / "run"
    config = CompareConfig(**SMALL, out=str(out))
    facts = dict(interrupted(config))
    assert {name: row["hidden"] for name, row in facts.items()} == {
        "mlp:relu": 12,
        "bilinear": 3,
    }
    assert facts["bilinear"]["time"] == pytest.approx(20)  # µs
    assert facts["bilinear"]["unmatched"] == pytest.approx(0)
    assert "--widths=mlp:relu=12,bilinear=3" in flags(out)
    assert ("bilinear", 8) in timed  # of equal FLOPs, where the search starts
    assert "bilinear 8" in capsys.readouterr().err
    count = len(timed)

    assert interrupted(dataclasses.replace(config, resume=True)) == facts
    argv = ["compare", f"--flagfile={out}/flags", f"--out={tmp_path / 'again'}"]
    repeated = interrupted(launch.parse(CompareConfig, argv))
    assert repeated["bilinear"]["hidden"] == 3 and "time" not in repeated["bilinear"]
    assert flags(tmp_path / "again") == flags(out)
    assert len(timed) == count


@pytest.mark.slow
def test_a_comparison_at_equal_time(tmp_path):
    """On a real clock; how near the times are depends on the machine."""
    result = comparison.compare(CompareConfig(**SMALL, out=str(tmp_path / "run")))
    place = result.table.columns.index("time, µs")
    assert all(row[place].endswith("%)") for row in result.table.rows)
    assert "XLA FLOPs" in result.table.columns
    text = " ".join((tmp_path / "run" / "report.md").read_text().split())
    assert "plain mlp of hidden width 12, timed in turn with each block" in text


def test_the_difference_is_beside_the_time():
    run = {"budget": "time", "unmatched": 0.0312, "time": 1234.5, "flops": 1234}
    assert ranking._format_fact(run, "time") == "1,234 (+3.1%)"
    assert ranking._format_fact(run, "flops") == "1,234"


@pytest.fixture
def measured(timed, tmp_path):
    """Measures as a run does, in its directory, without training."""

    def match(**options):
        config = CompareConfig(**{**SMALL, **options}, out=str(tmp_path))
        config = timing.recall_widths(config, tmp_path)
        matches = block_jobs.match_blocks(config)
        datasets = {"wine": comparison._dataset(config)}
        return comparison._match_times(config, matches, datasets, tmp_path)

    return match


def test_given_widths_are_timed_and_stay(measured, tmp_path):
    config, matches = measured(widths=("bilinear=6",))
    assert config.given_widths == {"bilinear": 6, "mlp:relu": 12}
    assert [match.config.hidden for match in matches] == [12, 6]
    assert matches[1].difference == pytest.approx(32 / 20 - 1)
    config, _ = measured(resume=True)
    assert config.given_widths == {"bilinear": 6, "mlp:relu": 12}
    config, _ = measured(resume=True, widths=("mlp:relu=10", "bilinear=6"))
    assert config.widths == ("mlp:relu=10", "bilinear=6")


def test_a_resumed_run_without_its_times_still_has_its_widths(measured, tmp_path):
    measured()
    (tmp_path / "timing.jsonl").unlink()
    config, matches = measured(resume=True)
    assert [match.config.hidden for match in matches] == [12, 3]
    assert math.isnan(matches[1].difference)
    row = {"block": "bilinear", "hidden": 3, "seconds": "long", "target": -1.0}
    io.write_lines(tmp_path / "timing.jsonl", [row])
    assert math.isnan(measured(resume=True)[1][1].difference)
    note = timing.describe(config, matches, "wine")
    assert "hidden widths are those of the flags" in note


def test_measuring_that_was_interrupted_goes_on(
    timed, interrupted, tmp_path, monkeypatch
):
    """By the measurements that were finished, which are not repeated."""
    whole = CompareConfig(**SMALL, out=str(tmp_path / "whole"))
    facts, all_timed = dict(interrupted(whole)), timed.copy()
    config = dataclasses.replace(whole, out=str(tmp_path / "run"))
    measure, calls = timing.measure_in_turn, []

    def measure_or_stop(*timers):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(*timers)

    monkeypatch.setattr(timing, "measure_in_turn", measure_or_stop)
    timed.clear()
    interrupted(config)
    rows = io.read_lines(tmp_path / "run" / "timing.jsonl")
    assert [(row["block"], row["hidden"]) for row in rows] == timed[-3:-1]
    assert "--widths=" in flags(tmp_path / "run")

    timed.clear()
    resume = dataclasses.replace(config, resume=True)
    assert interrupted(resume) == facts
    assert timed[2:] == all_timed[4:]  # after those of the reference
    assert flags(tmp_path / "run") == flags(tmp_path / "whole")
    for name in ("timing.jsonl", "flags"):
        one, other = (tmp_path / each / name for each in ("whole", "run"))
        assert one.read_text() == other.read_text()
    timed.clear()
    assert interrupted(resume) == facts and not timed


def test_a_block_that_is_too_slow_at_any_width_is_named(measured, capsys):
    config, matches = measured(hidden=1)  # 9 µs; one gated unit takes 12
    assert matches[1].config.hidden == 1
    warning = capsys.readouterr().err.splitlines()[-1]
    assert warning.startswith("warning: no width that was measured takes within 5%")
    assert "bilinear (+33.3%)" in warning
    note = timing.describe(config, matches, "wine")
    assert "No width that was measured takes" in note


def test_widths_of_other_budgets_are_not_recalled(tmp_path):
    (tmp_path / "flags").write_text("--widths=bilinear=6\n")
    given = {**SMALL, "budget": "parameters", "resume": True, "out": str(tmp_path)}
    config = CompareConfig(**given)
    assert timing.recall_widths(config, tmp_path) is config


@pytest.mark.parametrize("budget", ["parameters", "flops"])
def test_a_given_width_has_the_difference_of_its_budget(budget):
    config = CompareConfig(**{**SMALL, "budget": budget, "widths": ("bilinear=16",)})
    plain, gated = block_jobs.match_blocks(config)
    assert gated.config.hidden == 16 and plain.difference == 0
    assert gated.difference == pytest.approx(1, abs=0.15)
    note = comparison_note.note(config, {}, [plain, gated])
    assert "The hidden widths of bilinear were given." in note


def test_widths_are_sorted_as_the_blocks_are():
    widths = ["bilinear=3", "mlp:relu=12"]
    config = CompareConfig(**SMALL, widths=widths)
    assert config.widths == ("mlp:relu=12", "bilinear=3")
    assert config == CompareConfig(**SMALL, widths=widths[::-1])


@pytest.mark.parametrize("batching", ["map", "vmap"])
def test_the_steps_of_a_sweep_are_timed(batching, monkeypatch):
    """The state goes from call to call, and a call takes the time of its steps."""
    config = CompareConfig(**SMALL)
    dataset = comparison._dataset(config)
    block = block_jobs.reference_block(config)
    job = comparison.Job(
        "mlp", block_jobs.make_model(config, dataset, block), dataset, {}
    )
    if batching == "vmap":
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    seconds = timing.make_timer(config, job, 2)
    assert 0 < seconds() < 1 and 0 < seconds() < 1
    assert timing.steps_per_call(config, job) in (1, 2)


WRONG = [
    ("swigul=3", "--widths: unknown 'swigul'; nearest: swiglu"),
    ("mlp=3", "--widths: unknown 'mlp'"),
    ("swiglu", "'swiglu' should be BLOCK=WIDTH with an integer of at least 1"),
    ("swiglu=", "'swiglu=' should be BLOCK=WIDTH"),
    ("swiglu=0", "'swiglu=0' should be BLOCK=WIDTH"),
    ("swiglu=-3", "for instance swiglu=64"),
    ("swiglu=3.5", "'swiglu=3.5' should be BLOCK=WIDTH"),
    ("swiglu=many", "'swiglu=many' should be BLOCK=WIDTH"),
    ("swiglu=3,swiglu=4", "--widths: swiglu has two widths; give one"),
    ("swiglu=3,swiglu=3", "has an entry twice"),
]


def test_wrong_widths_are_refused_before_jax_is_imported(tmp_path):
    cases = [[f"--widths={widths}", "--budget=time"] for widths, _ in WRONG]
    for result, (_, message) in zip(
        refusals("compare", cases, tmp_path), WRONG, strict=True
    ):
        check_refusal(result, message)


def test_flags_of_a_run_with_wrong_widths_are_refused(tmp_path):
    (tmp_path / "flags").write_text("--widths=bilinear=x,glu=3\n")
    config = CompareConfig(**SMALL, resume=True, out=str(tmp_path))
    with pytest.raises(InputError, match="widths: 'bilinear=x' should be"):
        timing.recall_widths(config, tmp_path)
