"""The benchmark of accelerators runs on a CPU as a check, and its checks can fail."""

import json

import jax
import numpy as np
import pytest

from benchmarks import accelerator, accelerator_parity, accelerator_times, figures
from benchmarks.accelerator import Config
from benchmarks.accelerator_parity import Case
from benchmarks.figures import Figure
from ffnlab.errors import InputError
from tests.adapt.small import HERE

SMALL = {"sizes": "small", "rounds": 3, "seed": 0}


def double(args, dtype):
    return {"y": 2.0 * args.astype(dtype)}


CASE = Case("double", double, np.arange(1.0, 5.0, dtype=np.float32))


def test_parts_are_timed_and_written(tmp_path, capsys):
    out = tmp_path / "figures.json"
    config = Config(**SMALL, parts=("ffn", "swiglu"), out=str(out))
    parts = accelerator.run(config)
    assert [part.failure for part in parts] == [None, None]
    report, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert report["claims"] is False and report["backend"] == "cpu"
    assert [part["name"] for part in report["parts"]] == ["ffn", "swiglu"]
    first = report["parts"][0]["figures"][0]
    assert first["target"] == 0.85 and first["at_least"]
    assert 0 < first["ratios"]["minimum"] <= first["value"]
    assert "a check, and no claim" in printed and "at least 0.85" in printed
    assert " met" not in printed  # small sizes claim nothing


def test_shares_are_those_of_the_products(monkeypatch):
    seconds = np.array([[4.0, 3.0], [2.0, 1.8], [1.0, 0.9]])
    monkeypatch.setattr(accelerator_times, "_measure", lambda *_: seconds)
    sizes = accelerator_times.SIZES["small"]
    figure = accelerator_times.time_blocks(sizes, Config(**SMALL))[0]
    assert figure.value == pytest.approx(0.9) and figure.met


@pytest.mark.slow
def test_the_other_times(capsys):
    names = ("attention", "population", "feedback", "finetune")
    config = Config(**SMALL, parts=names, checkpoint=str(HERE / "bert"))
    parts = accelerator.run(config)
    assert [part.failure for part in parts] == [None] * 4
    assert all(figure.seconds > 0 for part in parts for figure in part.figures)


def test_parity_of_a_few_cases_on_a_cpu():
    cases = [*accelerator_parity.few_cases()][:2]
    rows = accelerator_parity.compare(cases)
    assert [row.name for row in rows[::2]] == [
        "block swiglu",
        "feedback by jacobi, implicit",
        "sums of products of a layer",
    ]
    assert all(row.met for row in rows) and rows[-1].value == 0.0
    assert rows[0].value == 0.0 < rows[1].value  # bfloat16 rounds


@pytest.mark.slow
def test_parity_of_all_cases_on_a_cpu():
    rows = accelerator_parity.compare(accelerator_parity.all_cases())
    assert all(row.met for row in rows)


def test_a_device_that_computes_something_else_is_found(monkeypatch):
    make_run = accelerator_parity.make_run

    def on_broken_device(case, dtype):
        run, calls = make_run(case, dtype), []

        def broken(device):
            calls.append(device)
            shift = 1e-3 if len(calls) == 2 else 0.0  # the first is the reference
            return jax.tree.map(lambda leaf: leaf * (1.0 + shift), run(device))

        return broken

    monkeypatch.setattr(accelerator_parity, "make_run", on_broken_device)
    wide, narrow, _ = accelerator_parity.compare([CASE])
    assert (wide.setting, narrow.setting) == ("float32", "bfloat16")
    assert wide.value == pytest.approx(1e-3, rel=1e-2) and not wide.met
    assert narrow.met


def test_a_case_that_cannot_run_is_a_figure_of_its_own(monkeypatch):
    def refuse(args, dtype):
        if dtype == "bfloat16":
            raise ValueError("no kernel\nof this kind")
        return args

    monkeypatch.setattr(
        accelerator_parity, "few_cases", lambda: [CASE._replace(function=refuse)]
    )
    (part,) = accelerator.run(Config(**SMALL, parts=("parity",)))
    assert part.figures[0].met and not part.figures[1].met
    assert "bfloat16: ValueError: no kernel)" in part.failure


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_number_is_no_parity(value):
    assert accelerator_parity.error(np.ones(2), np.array([1.0, value])) == np.inf
    assert Figure("", "", np.nan, 1.0).met is False


def test_small_arrays_have_errors_too():
    reference = {"a": np.ones(100), "b": np.full(100, 1e-2)}
    other = {**reference, "b": -reference["b"]}
    assert accelerator_parity.error(reference, other) > 1.0
    with pytest.raises(ValueError):
        accelerator_parity.error(reference, {"a": np.ones(100)})


def test_a_part_that_fails_leaves_the_others(monkeypatch, tmp_path, capsys):
    def fail(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nallocating 3 GiB")

    timed = {"swiglu": lambda *_: [Figure("a", "", 0.5, 1.0)], "ffn": fail}
    monkeypatch.setattr(accelerator_times, "TIMED", timed)
    out = tmp_path / "figures.json"
    config = Config(**SMALL, parts=("ffn", "swiglu"), out=str(out))
    with pytest.raises(SystemExit) as ending:
        accelerator.run_and_exit(config)
    assert ending.value.code == 1
    reason = "RuntimeError: RESOURCE_EXHAUSTED: out of memory"
    assert f"ffn failed: {reason}\n" in capsys.readouterr().out
    parts = json.loads(out.read_text())["parts"]
    assert parts[0]["failure"] == reason and parts[1]["figures"][0]["met"]
    late = accelerator._run_part("swiglu", config, -1e9)
    assert late.failure == "no time is left after 420 s"


def test_a_peer_that_fails_is_left_out(monkeypatch, capsys):
    def broken(params, x):
        raise NotImplementedError("this GPU has no kernel")

    rows = accelerator_times._fused_rows
    monkeypatch.setattr(
        accelerator_times,
        "_fused_rows",
        lambda shape: {**rows(shape), "tokamax": broken},
    )
    sizes = accelerator_times.SIZES["small"]
    forward, _ = accelerator_times.time_fused(sizes, Config(**SMALL))
    assert forward.setting.endswith("best peer: XLA")
    assert "left out: NotImplementedError: this GPU has no" in capsys.readouterr().out


def test_tables_show_what_there_is():
    times, ratios = np.array([1.0, 3.0]), np.array([0.5, 1.0])
    table = figures.tabulate("÷ peer", [figures.timed("a", "b", times, ratios, 0.4)])
    assert table.columns == ["", "setting", "ms", "÷ peer", "quartiles", "range",
                             "target"]  # fmt: skip
    assert table.rows[0][2:4] == ["2e+03", "0.75"]
    assert table.rows[0][-1] == "at most 0.4, not met"
    plain = figures.tabulate("error", [Figure("a", "b", 0.5, 1.0)], verdicts=False)
    assert plain.rows == [["a", "b", "0.5", "at most 1"]]


def test_wrong_flags_are_refused(tmp_path):
    with pytest.raises(InputError, match="^sizes: full is for an accelerator"):
        accelerator.run(Config())
    with pytest.raises(InputError, match="^parts: unknown 'fnn'; nearest: ffn"):
        Config(parts=("fnn",))
    with pytest.raises(InputError, match="^out: .* is in no directory that exists"):
        Config(out=str(tmp_path / "none" / "a.json"))
    with pytest.raises(InputError, match="^out: .* is a directory"):
        Config(out=str(tmp_path))
