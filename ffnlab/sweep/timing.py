"""Equal time: the hidden widths at which training steps take as long as a reference's.

What is timed is the compiled step of a sweep: the whole model at its batch size, with
its optimizer, several steps a call, on all devices. A step and the step of the
reference run in turn, and the median of the ratios of neighbours is the result, so
that other load on the machine changes both alike.
"""

import dataclasses
import functools
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ffnlab import digests, io, options
from ffnlab.escape import terminal
from ffnlab.sweep.comparison_config import CompareConfig
from ffnlab.sweep.job import Job
from ffnlab.train.config import Training

if TYPE_CHECKING:
    from ffnlab.nn.budget import Match
    from ffnlab.nn.ffn import BlockConfig

Timer = Callable[[], float]

_TOLERANCE = 0.05
_ROUNDS = 10  # timed calls of a width, each between two of the reference, at least
_ERROR = 0.01  # standard error of the median ratio that ends a measurement
_SECONDS = 0.02  # of a timed call, as near as whole steps come
_MEASUREMENTS = 8  # widths that are tried for a block


class TimedWidth(NamedTuple):
    """A measured hidden width.

    Attributes:
      hidden: The hidden width.
      seconds: The time of a step of one model.
      target: The time of a step of the reference, measured in turn with it.
    """

    hidden: int
    seconds: float
    target: float

    @property
    def ratio(self) -> float:
        """The time over that of the reference."""
        return self.seconds / self.target


def search_width(
    measure: Callable[[int], TimedWidth],
    start: int,
    tolerance: float = _TOLERANCE,
    limit: int = _MEASUREMENTS,
) -> TimedWidth:
    """Returns the width whose time is nearest to the target, of those it measured.

    The next width is where a line meets the target: the line through the nearest widths
    on both sides of it, or through the smallest and the largest of all. Where that line
    does not rise, it is the middle of the range left.

    Args:
      measure: Measures a width. The time need not rise everywhere, and may be noisy.
      start: The first width.
      tolerance: The largest relative difference from the target that ends the search.
      limit: The largest number of measurements.

    >>> search_width(lambda width: TimedWidth(width, 50.0 + width, 100.0), 128).hidden
    50
    """
    measured = [measure(start)]
    while abs(measured[-1].ratio - 1) > tolerance and len(measured) < limit:
        width = _next_width(measured)
        if width is None:
            break
        measured.append(measure(width))
    return min(measured, key=lambda each: abs(each.ratio - 1))


def _next_width(measured: Sequence[TimedWidth]) -> int | None:
    """Returns a width that was not measured, inside the range left; None without one.

    Between a width that is too small and one that is too large, the range leaves out an
    eighth at each end, so that it shrinks fast. Otherwise it is from half the smallest
    width to a sixteenth below it, or from a sixteenth above the largest to its double.
    """
    points = sorted(measured)
    low = max((each for each in points if each.ratio < 1), default=None)
    beyond = [each for each in points if low is None or each > low]
    high = min(beyond, default=None)  # all of them have a ratio of at least 1
    ends = (points[0] if len(points) > 1 else TimedWidth(0, 0.0, 1.0)), points[-1]
    if low and high:
        margin = (high.hidden - low.hidden) // 8
        least, most = low.hidden + 1 + margin, high.hidden - 1 - margin
        ends = (low, high)
    elif high:
        least, most = max(high.hidden // 2, 1), high.hidden - 1 - high.hidden // 16
    else:
        least, most = low.hidden + 1 + low.hidden // 16, 2 * low.hidden
    if least > most:
        return None
    return min(max(round(_meeting(*ends, (least + most) / 2)), least), most)


def _meeting(first: TimedWidth, last: TimedWidth, otherwise: float) -> float:
    """Returns where the line through two points has ratio 1, if it rises."""
    run, rise = last.hidden - first.hidden, last.ratio - first.ratio
    return first.hidden + (1 - first.ratio) * run / rise if rise > 0 else otherwise


def measure_in_turn(
    reference: Timer, other: Timer, rounds: int = _ROUNDS
) -> tuple[float, float]:
    """Returns the median time of a reference, and the median ratio of another's to it.

    Measuring ends when the standard error of the median ratio is 1 %, at the latest
    after eight times as many rounds.

    Args:
      reference: Runs the reference once, and returns its seconds.
      other: Runs the other once, and returns its seconds.
      rounds: The least number of runs of the other, each between two of the reference.

    >>> measure_in_turn(lambda: 2.0, lambda: 3.0)
    (2.0, 1.5)
    """
    targets, ratios = [reference()], []
    for done in range(1, 8 * rounds + 1):
        seconds = other()
        targets.append(reference())
        ratios += [seconds / target for target in targets[-2:]]
        if done >= rounds and _error_of_median(ratios) <= _ERROR:
            break
    return statistics.median(targets), statistics.median(ratios)


def _error_of_median(ratios: Sequence[float]) -> float:
    """Returns the standard error of the median of ratios, two of each call.

    It is that of normal numbers with these quartiles.
    """
    lower, _, upper = statistics.quantiles(ratios, n=4)
    return 1.2533 * (upper - lower) / 1.349 / math.sqrt(len(ratios) / 2)


def make_timer(config: Training, job: Job, steps: int) -> Timer:
    """Returns a function that trains for some steps and returns the time of one.

    On a CPU each device trains one model, as in a sweep, where it trains its models in
    turn. On an accelerator all models of a sweep are trained together, and the time is
    divided by their number.

    Args:
      config: How to train.
      job: What to train.
      steps: The steps of a call.

    Returns:
      A function of nothing; what it runs is compiled and has run once.
    """
    import jax
    import numpy as np

    from ffnlab.sweep import population
    from ffnlab.train.loop import Learner

    plan = config.plan(job.first, job.objective)
    learner = Learner(job.model, job.objective, config.make_optimizer(plan.steps))
    devices, cpu = jax.local_device_count(), jax.default_backend() == "cpu"
    seeds = np.arange(devices if cpu else config.members)
    rates = np.full(len(seeds), config.learning_rates[0], np.float32)
    members = population.Members(seeds, rates, np.zeros_like(seeds))
    key = jax.random.key(config.seed)
    inputs = population.make_inputs(learner, job.dataset, plan, members, key)
    state, (arrays, _), indices = inputs
    program, drawn = population.make_programs(learner).steps, indices(0, steps)
    count = steps * state.step.size / devices  # of the steps that a device takes

    def run() -> float:
        nonlocal state
        start = time.perf_counter()
        state, losses = program(state, arrays, drawn)
        jax.block_until_ready((state, losses))
        return (time.perf_counter() - start) / count

    run()
    return run


def steps_per_call(config: Training, job: Job) -> int:
    """Returns the steps of a call that is long enough to be timed.

    They are at most those of a sweep, which evaluates in between.

    Args:
      config: How to train.
      job: The reference.
    """
    probe = make_timer(config, job, 2)
    every = config.plan(job.first, job.objective).every
    return max(1, min(every, round(_SECONDS / min(probe() for _ in range(5)))))


def measure_widths(
    config: CompareConfig,
    reference: "BlockConfig",
    blocks: "Sequence[BlockConfig]",
    make_job: "Callable[[BlockConfig], Job]",
    path: Path,
) -> dict[str, TimedWidth]:
    """Returns the hidden width of each block at which a step takes equal time.

    The time of the reference among the blocks, and of widths that the configuration
    gives, is measured, but their widths stay.

    Args:
      config: How to train.
      reference: The block whose time is the target.
      blocks: The blocks, each with the width that its search starts from.
      make_job: Returns what is trained with a block.
      path: The file of all measurements. Each is written when it is done, and those
        that the file holds, of a run that was interrupted, are not repeated.

    Returns:
      Name of a block to its width.
    """
    from ffnlab.report.progress import Progress

    times, widths = _read_times(path), {}

    @functools.cache
    def target() -> tuple[Timer, int]:
        steps = steps_per_call(config, make_job(reference))
        return make_timer(config, make_job(reference), steps), steps

    with Progress(_ROUNDS * len(blocks), "calls") as progress:

        def measure(block: "BlockConfig", hidden: int) -> TimedWidth:
            progress.add(_ROUNDS if hidden != block.hidden else 0)
            progress.begin(f"{block.kind} {hidden}")
            if (key := (block.kind, hidden)) not in times:
                timed, steps = target()
                resized = dataclasses.replace(block, hidden=hidden)
                timer = make_timer(config, make_job(resized), steps)
                seconds, ratio = measure_in_turn(timed, timer)
                times[key] = seconds * ratio, seconds
                _write_times(path, times)
            progress.reach(_ROUNDS)
            progress.end()
            return TimedWidth(hidden, *times[key])

        for block in blocks:
            fixed = block.kind in config.given_widths or block == reference
            timed = functools.partial(measure, block)
            limit = 1 if fixed else _MEASUREMENTS
            widths[block.kind] = search_width(timed, block.hidden, limit=limit)
    return widths


def match_times(
    config: CompareConfig,
    reference: "BlockConfig",
    matches: "Sequence[Match]",
    make_job: "Callable[[BlockConfig], Job]",
    directory: Path,
) -> "tuple[CompareConfig, list[Match]]":
    """Returns a configuration with the widths of equal time, and the blocks at them.

    If the configuration lacks a width, all blocks are measured, and the flags of the
    run get the widths, so that a repetition and a continuation have equal ones.

    Args:
      config: The configuration of the run.
      reference: The block whose time is the target.
      matches: The blocks, each with the width that it has or starts the search from.
      make_job: Returns what is trained with a block.
      directory: The directory of the run; timing.jsonl in it holds the times of all
        widths that were tried.
    """
    path, blocks = directory / "timing.jsonl", [match.config for match in matches]
    if len(config.given_widths) < len(blocks):
        widths = measure_widths(config, reference, blocks, make_job, path)
        entries = tuple(f"{name}={row.hidden}" for name, row in widths.items())
        config = dataclasses.replace(config, widths=entries)
        io.write(directory / "flags", options.to_flags(config))
    times = _read_times(path)
    matched = [_with_time(match, config, times) for match in matches]
    if missed := _missed(matched):
        print(terminal(f"warning: {missed}"), file=sys.stderr, flush=True)
    return config, matched


def _read_times(path: Path) -> dict[tuple[str, int], tuple[float, float]]:
    """Returns the time of each block of a width, and that of the reference."""
    times = {}
    for row in io.read_lines(path):
        name, hidden, *pair = (row.get(k) for k in ("block", *TimedWidth._fields))
        if all(isinstance(each, float) and each > 0 for each in pair):
            times[name, hidden] = tuple(pair)
    return times


def _write_times(path: Path, times: dict[tuple[str, int], tuple]) -> None:
    """Writes the times of blocks of some widths, as `_read_times` returns them."""
    rows = [(name, TimedWidth(hidden, *pair)) for (name, hidden), pair in times.items()]
    io.write_lines(path, [{"block": name, **row._asdict()} for name, row in rows])


def _with_time(match: "Match", config: CompareConfig, times: dict) -> "Match":
    """Returns a block at its width, with its time if that is known."""
    hidden = config.given_widths[match.config.kind]
    block = dataclasses.replace(match.config, hidden=hidden)
    value, target = times.get((block.kind, hidden), (math.nan, math.nan))
    return match._replace(config=block, value=value, target=target)


def _missed(matches: "Sequence[Match]") -> str:
    """Returns a sentence on the blocks of which no width takes equal time, or none."""
    blocks = [
        f"{match.config.kind} ({match.difference:+.1%})"
        for match in matches
        if abs(match.difference) > _TOLERANCE
    ]
    if not blocks:
        return ""
    return (
        f"no width that was measured takes within {_TOLERANCE:.0%} of the time of the "
        f"reference for {', '.join(blocks)}; the nearest one is used"
    )


def recall_widths(config: CompareConfig, directory: str | Path) -> CompareConfig:
    """Returns the configuration of a run to resume, with the widths that it measured.

    Args:
      config: The configuration; those of other budgets and of new runs stay.
      directory: The directory of the run.

    Raises:
      InputError: The flags of the run hold wrong widths.
    """
    if not config.resume or config.budget != "time":
        return config
    path = Path(directory) / "flags"
    if not digests.check(path).exists():
        return config
    lines = [line for line in io.read(path).splitlines() if "--widths=" in line]
    entries = ",".join(line.partition("=")[2] for line in lines).split(",")
    recorded = dict(entry.rpartition("=")[::2] for entry in entries)
    widths = {**recorded, **config.given_widths}
    chosen = tuple(f"{name}={widths[name]}" for name in config.names if name in widths)
    return dataclasses.replace(config, widths=chosen)


def describe(config: CompareConfig, matches: "Sequence[Match]", source: str) -> str:
    """Returns what is equal for all blocks, for the note of a report.

    Args:
      config: The configuration of the run.
      matches: The blocks, from `match_times`.
      source: The name of the data set whose model was timed.
    """
    equal = f"""A training step takes equal time with all blocks, that of a plain mlp of
hidden width {config.hidden}"""
    if any(math.isnan(match.value) for match in matches):
        return f"{equal}: the hidden widths are those of the flags, measured before."
    measured = f"""{equal}, timed in turn with each block in the model of {source}; the
remaining difference is in brackets."""
    missed = _missed(matches)
    return f"{measured} {missed[0].upper()}{missed[1:]}." if missed else measured
