"""How benchmarks measure: equal work, interleaved, compared by ratios within a round.

Each benchmark checks that its entries compute the same (`check_equal`) before it times
them. Every round runs each entry once, in a new random order, so that other load on the
machine affects all of them alike. The reported number is the time of ffnlab divided by
the time of the other entry in the same round: its median, quartiles and range. Absolute
times vary between machines, and no benchmark asserts one.
"""

import contextlib
import dataclasses
import importlib.util
import math
import os
import platform
import random
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ffnlab.options import option

CPUINFO = Path("/proc/cpuinfo")
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx")
_TRIALS = 3
_SLACK = 1.25


@dataclasses.dataclass(frozen=True)
class Config:
    """How many rounds to measure; each field is a flag."""

    rounds: int = option(15, "Number of rounds; each runs every entry once.", least=1)
    seed: int = option(0, "Seed of the order of entries within a round.", least=0)


def _nothing() -> None:
    return None


class Work(NamedTuple):
    """A computation that can be repeated.

    Attributes:
      run: `run(start())` does the work to its end and returns the result.
      start: Returns the argument of `run`, which `run` may donate; it is not timed.
    """

    run: Callable[[Any], Any]
    start: Callable[[], Any] = _nothing

    def once(self) -> Any:
        """Runs the work once and returns its result."""
        return self.run(self.start())


class Entry(NamedTuple):
    """A row of a table of times.

    Attributes:
      name: The implementation. Entries with the same name are settings of one peer.
      setting: Its threads, processes or mode.
      work: The computation that is timed.
      units: Number of units of work in one run; times are given per unit.
      target: Largest ratio of ffnlab's time to this entry's time that meets the target;
        None sets no target.
      peer: Whether the row is another implementation of the same work. Limits and
        variants of ffnlab are not, and get no verdict.
    """

    name: str
    setting: str
    work: Work
    units: int = 1
    target: float | None = None
    peer: bool = True

    def seconds(self) -> float:
        """Returns the time of one run per unit of work, in seconds."""
        argument = self.work.start()
        start = time.perf_counter()
        self.work.run(argument)
        return (time.perf_counter() - start) / self.units


class Spread(NamedTuple):
    """Five quantiles of the ratios of the rounds."""

    minimum: float
    lower_quartile: float
    median: float
    upper_quartile: float
    maximum: float


def spread(ratios: np.ndarray) -> Spread:
    """Returns the range, the quartiles and the median of ratios.

    >>> [float(value) for value in spread(np.array([3.0, 1.0, 2.0]))]
    [1.0, 1.5, 2.0, 2.5, 3.0]
    """
    return Spread(*np.quantile(ratios, [0.0, 0.25, 0.5, 0.75, 1.0]))


def has(package: str) -> bool:
    """Returns whether a peer is installed, and prints a line if it is not.

    >>> has("no_such_package")
    no_such_package is not installed: its rows are left out
    False
    """
    installed = importlib.util.find_spec(package) is not None
    if not installed:
        print(f"{package} is not installed: its rows are left out")
    return installed


def use_cpu(devices: int = 1) -> None:
    """Restricts JAX to CPU devices, as the peers run on the CPU.

    Args:
      devices: Number of CPU devices. The call must come before JAX is used.
    """
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)


def cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor(cpuinfo: str | None = None) -> tuple[str, tuple[str, ...]]:
    """Returns the model of the CPU and its instruction sets of interest.

    Args:
      cpuinfo: Text of `/proc/cpuinfo`; None reads it. Where there is none, the model is
        `platform.processor()` and no instruction set is reported.

    Returns:
      The model, with family and model number where they are known, and those of
      `INSTRUCTION_SETS` that it has. `amx` stands for any of the AMX extensions.

    >>> text = "cpu family: 6\\nmodel: 207\\nmodel name: Xeon\\nflags: avx2 amx_tile"
    >>> processor(text)
    ('Xeon (family 6 model 207)', ('avx2', 'amx'))
    """
    if cpuinfo is None:
        cpuinfo = CPUINFO.read_text("utf-8") if CPUINFO.is_file() else ""
    first = cpuinfo.strip().partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    model = fields.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in fields:
        model += f" (family {fields['cpu family']} model {fields.get('model')})"
    flags = fields.get("flags", "").split()
    names = {"amx" if flag.startswith("amx_") else flag for flag in flags}
    return model, tuple(name for name in INSTRUCTION_SETS if name in names)


def describe() -> None:
    """Prints what times depend on: CPU, cores, threads, versions and present load."""
    from ffnlab.report import run_directory

    model, sets = processor()
    print(
        f"CPU: {model}; {', '.join(sets) or 'none of ' + ', '.join(INSTRUCTION_SETS)}"
    )
    threads = {
        name: os.environ[name]
        for name in ("NPROC", "OMP_NUM_THREADS", "XLA_FLAGS")
        if name in os.environ
    }
    limits = ", ".join(f"{name}={value}" for name, value in threads.items())
    print(f"{cores()} cores, {limits or 'one thread per core by default'}")
    versions = run_directory.versions()
    names = ("python", "jax", "jaxlib", "flax", "optax", "numpy")
    shown = {name: versions[name] for name in names if name in versions}
    for name in ("torch", "transformers", "optimistix"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            shown[name] = metadata.version(name)
    listed = ", ".join(f"{name} {version}" for name, version in shown.items())
    print(f"{versions['machine']}; {listed}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 0.5:
        print(f"The load is {load:.1f} before the start: expect noisy times.")


def check_equal(name: str, ours: Any, theirs: Any, **tolerance: float) -> None:
    """Checks that an entry computes the same as the first.

    Args:
      name: Name of the entry, for the error.
      ours: A tree of arrays.
      theirs: A tree of the same structure.
      **tolerance: `rtol` and `atol` of `numpy.testing.assert_allclose`.

    Raises:
      AssertionError: The results differ, so that the times are not comparable.
    """
    import jax

    assert jax.tree.structure(ours) == jax.tree.structure(theirs), name
    for mine, other in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        pair = _array(other), _array(mine)
        np.testing.assert_allclose(*pair, err_msg=name, **tolerance)


def _array(values: Any) -> np.ndarray:
    return np.asarray(values.detach() if hasattr(values, "detach") else values)


def drop_slow_settings(entries: Sequence[Entry]) -> list[Entry]:
    """Returns the entries without the settings of a peer that are not its best.

    Each entry runs three times, interleaved. An entry is dropped if its best time is
    more than a quarter above the best time of another setting with the same name.
    """
    times = np.array([[entry.seconds() for entry in entries] for _ in range(_TRIALS)])
    best = dict(zip(entries, times.min(axis=0), strict=True))
    kept = []
    for entry in entries:
        same = (best[other] for other in entries if other.name == entry.name)
        if best[entry] <= _SLACK * min(same):
            kept.append(entry)
        else:
            print(f"left out as slower: {entry.name}, {entry.setting}")
    return kept


def measure(title: str, entries: Sequence[Entry], config: Config) -> np.ndarray:
    """Returns the time of each entry in each round, per unit of work, `[rounds, N]`."""
    from ffnlab.report.progress import Progress

    order, generator = list(range(len(entries))), random.Random(config.seed)
    times = np.empty((config.rounds, len(entries)))
    with Progress(config.rounds, "rounds") as progress:
        progress.begin(title)
        for row in range(config.rounds):
            generator.shuffle(order)
            for column in order:
                times[row, column] = entries[column].seconds()
            progress.reach(row + 1)
        progress.end()
    return times


def compare(title: str, unit: str, entries: Sequence[Entry], config: Config) -> Any:
    """Times entries against the first, prints the table and returns it.

    Args:
      title: What is timed.
      unit: `s`, `ms` or `µs`.
      entries: The entry of ffnlab first. All compute the same, and each has run at
        least once before.
      config: How many rounds.
    """
    if config.rounds >= _TRIALS:
        entries = drop_slow_settings(entries)
    times = measure(title, entries, config)
    table = tabulate(unit, entries, times)
    print()
    table.show(f"{title}: median of {config.rounds} rounds; ratio = ffnlab ÷ row")
    return table


def tabulate(unit: str, entries: Sequence[Entry], times: np.ndarray) -> Any:
    """Returns the table of the times `[rounds, N]` of entries, ffnlab first."""
    from ffnlab.report.table import Table

    scale = {"s": 1.0, "ms": 1e3, "µs": 1e6}[unit]
    rows = []
    for i, entry in enumerate(entries):
        ratios = spread(times[:, 0] / times[:, i])
        cells = [
            f"{ratios.median:.2f}",
            f"{ratios.lower_quartile:.2f}–{ratios.upper_quartile:.2f}",
            f"{ratios.minimum:.2f}–{ratios.maximum:.2f}",
            verdict(ratios) if entry.peer else "",
            target_result(ratios, entry.target),
        ]
        median = _digits(scale * float(np.median(times[:, i])))
        blank = [""] * len(cells)
        rows.append([entry.name, entry.setting, median, *(cells if i else blank)])
    columns = ["", "setting", unit, "ratio", "quartiles", "range", "ffnlab is"]
    return Table([*columns, "target"], rows, words=2)


def _digits(value: float) -> str:
    """Returns a positive number with three significant digits.

    >>> _digits(1234.5), _digits(12.345), _digits(0.12345)
    ('1234', '12.3', '0.123')
    """
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def verdict(ratios: Spread) -> str:
    """Returns whether ffnlab is ahead of, level with or behind a peer.

    It is ahead if the worse quartile of the ratios is below 1.

    >>> verdict(Spread(0.5, 0.6, 0.7, 0.8, 1.1)), verdict(Spread(0.8, 0.9, 1, 1.1, 2))
    ('ahead', 'level')
    """
    if ratios.upper_quartile < 1.0:
        return "ahead"
    return "behind" if ratios.lower_quartile > 1.0 else "level"


def target_result(ratios: Spread, target: float | None) -> str:
    """Returns whether the median ratio meets a target; empty if there is none.

    >>> ratios = Spread(0.5, 0.6, 0.7, 0.8, 1.1)
    >>> target_result(ratios, 0.75), target_result(ratios, None)
    ('≤ 0.75 met', '')
    """
    if target is None:
        return ""
    return f"≤ {target:g} {'met' if ratios.median <= target else 'not met'}"
