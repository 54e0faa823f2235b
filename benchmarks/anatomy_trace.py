"""The time of each instruction, from a profile of the calls of a program.

A profile of a CPU has an event where an instruction starts on a thread, and another,
`end: NAME`, where its last thread has finished. One of a GPU has the kernels on the
streams, with the instruction of each, or with the command buffer that it belongs to. So
programs that are profiled are compiled without command buffers.
"""

import collections
import gzip
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ffnlab.errors import InputError
from ffnlab.nn.attention_kernel import uses_gpu

CALL = "anatomy call"
_START, _LEAVE, _STOP = range(3)
_END = "end: "
_MOST = 1_000_000  # events that JAX writes to the file


class Event(NamedTuple):
    """An interval in which an instruction runs.

    Attributes:
      name: The name of the instruction.
      start: When it starts, in seconds.
      stop: When its last thread has finished, in seconds.
      left: When the thread that started it has left it. Until it stops, it may then
        run on others, or wait for them.
    """

    name: str
    start: float
    stop: float
    left: float = math.inf


class Division(NamedTuple):
    """How the time of a call is divided.

    Attributes:
      seconds: The name of each instruction to its time.
      idle: The time in which none runs.
      shared: The time of which several get a part.
    """

    seconds: dict[str, float]
    idle: float
    shared: float


class Trace(NamedTuple):
    """A profile.

    Attributes:
      calls: The calls of the program, from their dispatch until they are waited for.
      events: The instructions, containers among them.
    """

    calls: list[Event]
    events: list[Event]


def compile_for_profile(lowered: Any) -> Any:
    """Returns the compiled program of `jitted.lower(...)` for a profile."""
    options = {"xla_gpu_enable_command_buffer": ""} if uses_gpu() else None
    return lowered.compile(compiler_options=options)


def profile(run: Callable[[], Any], calls: int, directory: Path, module: str) -> Trace:
    """Returns the profile of some calls of a compiled program.

    Args:
      run: Calls the program and waits for it.
      calls: How many calls.
      directory: An empty directory for the profile.
      module: The name of the program.

    Raises:
      InputError: The profile has more events than JAX writes, or none of the program.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # calls of Python are of no interest, and cost time
    with jax.profiler.trace(str(directory), profiler_options=options):
        for _ in range(calls):
            with jax.profiler.TraceAnnotation(CALL):
                run()
    paths = sorted(directory.rglob("*.trace.json.gz"))
    with gzip.open(paths[-1], "rt", encoding="utf-8") as file:
        return read(json.load(file)["traceEvents"], module)


def read(rows: Sequence[dict[str, Any]], module: str) -> Trace:
    """Returns the calls and the instructions of the events of a profile.

    Args:
      rows: Chrome's trace events, with times in microseconds.
      module: The name of the program; the instructions of others are left out.

    Raises:
      InputError: There are too many events, or none of the program.
    """
    if len(rows) >= _MOST:
        raise InputError(
            f"steps: the profile has {len(rows):,} events, and JAX writes at most "
            f"{_MOST:,}; use fewer steps or rounds"
        )
    streams = _streams(rows)
    calls, ends, events = [], collections.defaultdict(list), []
    for row in (row for row in rows if row.get("ph") == "X"):
        start, stop = 1e-6 * row["ts"], 1e-6 * (row["ts"] + row.get("dur", 0.0))
        arguments = row.get("args", {})
        if row["name"] == CALL:
            calls.append(Event(CALL, start, stop))
        elif row["name"].startswith(_END):
            ends[row["name"][len(_END) :]].append(stop)
        elif arguments.get("hlo_module") == module and (
            not streams or (row["pid"], row["tid"]) in streams
        ):
            events.append(Event(arguments["hlo_op"], start, stop))
    if not calls or not events:
        raise InputError(f"steps: the profile has no events of {module}")
    return Trace(calls, _finish(events, ends))


def _streams(rows: Iterable[dict[str, Any]]) -> set[tuple[int, int]]:
    """Returns the process and thread of each stream of a GPU; none on a CPU."""
    names = {
        (row["pid"], row.get("tid") if row["name"] == "thread_name" else None): (
            row["args"]["name"]
        )
        for row in rows
        if row.get("ph") == "M" and row["name"] in ("thread_name", "process_name")
    }
    return {
        (process, thread)
        for (process, thread), name in names.items()
        if thread is not None
        and name.startswith("Stream")
        and names.get((process, None), "").startswith("/device:")
    }


def _finish(events: list[Event], ends: dict[str, list[float]]) -> list[Event]:
    """Returns the events until the last thread of each has finished.

    The n-th end of an instruction belongs to its n-th start. Where they are not as
    many, the profile is that of a GPU, or incomplete, and the event itself counts.
    """
    starts: dict[str, list[Event]] = collections.defaultdict(list)
    for event in sorted(events, key=lambda event: event.start):
        starts[event.name].append(event)
    finished = []
    for name, group in starts.items():
        stops = sorted(ends[name]) if name in ends else []
        if len(stops) != len(group):
            stops = [event.stop for event in group]
        finished += [
            event._replace(stop=max(event.stop, stop), left=event.stop)
            for event, stop in zip(group, stops, strict=True)
        ]
    return finished


def fastest(trace: Trace) -> Trace:
    """Returns the call that took the least time, and the instructions that start in it.

    Other work on the machine disturbed it the least.

    >>> calls = [Event(CALL, 0.0, 5.0), Event(CALL, 6.0, 9.0)]
    >>> events = [Event("a", 1.0, 2.0), Event("a", 7.0, 8.0)]
    >>> [event.start for event in fastest(Trace(calls, events)).events]
    [7.0]
    """
    call = min(trace.calls, key=lambda call: call.stop - call.start)
    inside = [each for each in trace.events if call.start <= each.start < call.stop]
    return Trace([call], inside)


def divide(events: Sequence[Event], call: Event) -> Division:
    """Divides the time of a call among its instructions.

    Where n instructions run at once, each gets the n-th part of the time. One that the
    thread that started it has left gets time only while there are no others, since its
    other threads may wait for a core. The times and that in which none runs sum to that
    of the call.

    Args:
      events: The instructions, without containers.
      call: The call.

    >>> events = [Event("a", 1.0, 3.0), Event("b", 2.0, 5.0, 4.0)]
    >>> divide(events, Event(CALL, 0.0, 7.0))
    Division(seconds={'a': 1.5, 'b': 2.5}, idle=3.0, shared=1.0)
    """
    seconds: dict[str, float] = {event.name: 0.0 for event in events}
    idle, shared, last = 0.0, 0.0, call.start
    running: dict[int, str] = {}
    left: dict[int, str] = {}
    for time, number, change in sorted(_changes(events, call)):
        name, length = events[number].name, time - last
        group = running or left
        for each in group.values():
            seconds[each] += length / len(group)
        idle += 0.0 if group else length
        shared += length if len(group) > 1 else 0.0
        last = time
        if change == _START:
            running[number] = name
        elif change == _LEAVE:
            left[number] = running.pop(number)
        else:
            del left[number]
    return Division(seconds, idle + call.stop - last, shared)


def _changes(events: Sequence[Event], call: Event) -> Iterator[tuple[float, int, int]]:
    """Yields when an instruction starts, is left and stops, with its number."""
    for number, event in enumerate(events):
        start, stop = max(event.start, call.start), min(event.stop, call.stop)
        if start < stop:
            yield start, number, _START
            yield min(max(event.left, start), stop), number, _LEAVE
            yield stop, number, _STOP
