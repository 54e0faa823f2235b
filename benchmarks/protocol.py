"""How times are taken: the same work, in turn, and the ratio of the times of a round.

Whoever writes an entry checks that it computes what the others do (`check_equal`).
Every round runs each entry once, in a new random order, so that whatever else the
machine does meets all of them alike. The number that counts is ours divided by the
peer's in the same round: its median, quartiles and range. Absolute times say little,
and no time is ever asserted.
"""

import contextlib
import dataclasses
import importlib.util
import math
import os
import random
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from ffnlab.options import option

NO_TORCH = "torch is not installed: its rows are left out"
_TRIALS = 3
_SLACK = 1.25


@dataclasses.dataclass(frozen=True)
class Config:
    """How often to look; each field is a flag."""

    rounds: int = option(15, "rounds, each of which runs every row once", least=1)
    seed: int = option(0, "of the order within a round", least=0)


def _nothing() -> None:
    return None


class Work(NamedTuple):
    """Something to do over and over.

    Attributes:
      run: `run(start())` does it, to the end, and returns what it computed.
      start: makes what `run` takes, and may use up; it is not timed.
    """

    run: Callable[[Any], Any]
    start: Callable[[], Any] = _nothing

    def once(self) -> Any:
        """Returns what it computes."""
        return self.run(self.start())


class Entry(NamedTuple):
    """A row of a table.

    Attributes:
      name: what runs. Entries of one name are settings of one peer.
      setting: the threads, processes or mode it runs in.
      work: what is timed.
      units: how many units of work one run does; times are given per unit.
      target: ours divided by this entry should be at most this, if it is a number.
      peer: whether it does the same work in another's way; a limit or a variant of
        ours is nobody to be ahead of.
    """

    name: str
    setting: str
    work: Work
    units: int = 1
    target: float | None = None
    peer: bool = True

    def seconds(self) -> float:
        """Returns the time of a run, per unit of work."""
        given = self.work.start()
        begun = time.perf_counter()
        self.work.run(given)
        return (time.perf_counter() - begun) / self.units


class Spread(NamedTuple):
    """Where the ratios of the rounds lie."""

    least: float
    quarter: float
    median: float
    three_quarters: float
    most: float


def spread(ratios: np.ndarray) -> Spread:
    """Returns the range, the quartiles and the median of the rounds' ratios.

    >>> [float(each) for each in spread(np.array([3.0, 1.0, 2.0]))]
    [1.0, 1.5, 2.0, 2.5, 3.0]
    """
    return Spread(*np.quantile(ratios, [0.0, 0.25, 0.5, 0.75, 1.0]))


def has_torch() -> bool:
    """Returns whether torch is installed; says so if it is not."""
    found = importlib.util.find_spec("torch") is not None
    if not found:
        print(NO_TORCH)
    return found


def use_cpu(devices: int = 1) -> None:
    """Keeps JAX to the CPU, which is what the peers run on; before JAX is used."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)


def cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe() -> None:
    """Prints what the times depend on: versions, cores, and how busy those are."""
    from ffnlab.report import run_directory

    facts = run_directory.versions()
    known = {name: facts[name] for name in ("python", "jax", "flax", "optax")}
    with contextlib.suppress(metadata.PackageNotFoundError):
        known["torch"] = metadata.version("torch")
    told = ", ".join(f"{name} {version}" for name, version in known.items())
    print(f"{facts['machine']}, {cores()} cores; {told}")
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if busy > 0.5:
        print(f"the load is {busy:.1f} before the start: expect noisy times")


def check_equal(name: str, ours: Any, theirs: Any, **tolerance: float) -> None:
    """Checks that a peer computes what we do.

    Args:
      name: what the peer is called.
      ours: a tree of arrays.
      theirs: a tree of the same structure.
      **tolerance: `rtol` and `atol` of `numpy.testing.assert_allclose`.

    Raises:
      AssertionError: the work is not equal, so that no time could be compared.
    """
    import jax

    assert jax.tree.structure(ours) == jax.tree.structure(theirs), name
    for mine, other in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        pair = _array(other), _array(mine)
        np.testing.assert_allclose(*pair, err_msg=name, **tolerance)


def _array(values: Any) -> np.ndarray:
    return np.asarray(values.detach() if hasattr(values, "detach") else values)


def settle(entries: Sequence[Entry]) -> list[Entry]:
    """Leaves out the settings of a peer that are clearly not its best.

    Each entry runs three times, in turn; one whose best time is more than a
    quarter above the best of another setting of the same name is left out.
    """
    times = np.array([[one.seconds() for one in entries] for _ in range(_TRIALS)])
    best = dict(zip(entries, times.min(axis=0), strict=True))
    kept = []
    for one in entries:
        limit = _SLACK * min(best[other] for other in entries if other.name == one.name)
        if best[one] <= limit:
            kept.append(one)
        else:
            print(f"left out as slower: {one.name}, {one.setting}")
    return kept


def take_times(title: str, entries: Sequence[Entry], config: Config) -> np.ndarray:
    """Returns the time of each entry in each round, per unit of work, `[rounds, N]`."""
    from ffnlab.report.progress import Progress

    order, draw = list(range(len(entries))), random.Random(config.seed)
    times = np.empty((config.rounds, len(entries)))
    with Progress(config.rounds, "rounds") as progress:
        progress.begin(title)
        for row in range(config.rounds):
            draw.shuffle(order)
            for column in order:
                times[row, column] = entries[column].seconds()
            progress.reach(row + 1)
        progress.end()
    return times


def contest(title: str, unit: str, entries: Sequence[Entry], config: Config) -> Any:
    """Times entries against the first, which is ours, and prints the table.

    Args:
      title: what is timed.
      unit: `s`, `ms` or `µs`.
      entries: ours first; all computing the same, and each run at least once before.
      config: how many rounds.

    Returns:
      The table.
    """
    if config.rounds >= _TRIALS:
        entries = settle(entries)
    times = take_times(title, entries, config)
    table = tabulate(unit, entries, times)
    print()
    table.show(f"{title}: medians of {config.rounds} rounds; ratio = ours ÷ the row")
    return table


def tabulate(unit: str, entries: Sequence[Entry], times: np.ndarray) -> Any:
    """Returns the table of some entries' times `[rounds, N]`, ours first."""
    from ffnlab.report.table import Table

    scale = {"s": 1.0, "ms": 1e3, "µs": 1e6}[unit]
    rows = []
    for i, one in enumerate(entries):
        ratios = spread(times[:, 0] / times[:, i])
        compared = [
            f"{ratios.median:.2f}",
            f"{ratios.quarter:.2f}–{ratios.three_quarters:.2f}",
            f"{ratios.least:.2f}–{ratios.most:.2f}",
            verdict(ratios) if one.peer else "",
            goal(ratios, one.target),
        ]
        shown = _digits(scale * float(np.median(times[:, i])))
        rows.append(
            [one.name, one.setting, shown, *(compared if i else [""] * len(compared))]
        )
    columns = ["", "setting", unit, "ratio", "quartiles", "range", "ours is", "target"]
    return Table(columns, rows, words=2)


def _digits(value: float) -> str:
    """Returns a positive number to three significant digits.

    >>> _digits(1234.5), _digits(12.345), _digits(0.12345)
    ('1234', '12.3', '0.123')
    """
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def verdict(ratios: Spread) -> str:
    """Says who is ahead; the worst quartile must be.

    >>> verdict(Spread(0.5, 0.6, 0.7, 0.8, 1.1)), verdict(Spread(0.8, 0.9, 1, 1.1, 2))
    ('ahead', 'level')
    """
    if ratios.three_quarters < 1.0:
        return "ahead"
    return "behind" if ratios.quarter > 1.0 else "level"


def goal(ratios: Spread, target: float | None) -> str:
    """Says whether the median reaches a target.

    >>> goal(Spread(0.5, 0.6, 0.7, 0.8, 1.1), 0.75), goal(Spread(1, 1, 1, 1, 1), None)
    ('≤ 0.75 reached', '')
    """
    if target is None:
        return ""
    return f"≤ {target:g} {'reached' if ratios.median <= target else 'not reached'}"
