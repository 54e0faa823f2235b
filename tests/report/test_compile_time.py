import jax
import jax.numpy as jnp
import pytest
from jax import monitoring

from ffnlab.report import compile_time
from ffnlab.report.compile_time import CompileTime, covered

COMPILE = "/jax/core/compile/backend_compile_duration"


@pytest.mark.parametrize(
    ("spans", "length"),
    [
        ([], 0),
        ([(1, 2), (3, 5)], 3),
        ([(2, 3), (1, 4), (1.5, 2)], 3),  # inner events end first
        ([(1, 3), (2, 4)], 3),
        ([(1, 3), (1, 3)], 2),
    ],
)
def test_nested_events_count_once(spans, length):
    assert covered(spans) == length


def test_only_events_of_compiling_within_the_block_count():
    with CompileTime() as compiling:
        monitoring.record_event_time_span(COMPILE, 10.0, 12.0)
        monitoring.record_event_time_span("/jax/orbax/write", 20.0, 30.0)
    monitoring.record_event_time_span(COMPILE, 40.0, 50.0)
    assert compiling.compile_seconds == 2.0


def test_a_program_that_is_compiled_already_takes_no_time():
    double = jax.jit(lambda x: 2 * x)
    x = jnp.ones(3)
    with CompileTime() as first:
        double(x)
    with CompileTime() as again:
        double(x)
    assert first.compile_seconds > 0.0 == again.compile_seconds


def test_the_share_is_the_last_line_of_a_run(capsys, monkeypatch):
    clock = iter([100.0, 180.0])
    monkeypatch.setattr(compile_time.time, "time", lambda: next(clock))
    with compile_time.shown():
        monitoring.record_event_time_span(COMPILE, 101.0, 113.0)
    assert capsys.readouterr().out == "compiling took 12 s of 80 s (15 %)\n"
    monkeypatch.undo()
    with compile_time.shown(quiet=True):
        pass
    with pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with compile_time.shown():
            raise KeyboardInterrupt
    assert capsys.readouterr().out == ""
