"""Is anything lost, or silently wrong, when something goes wrong?

Makes small runs of every launcher, lets something go wrong, and resumes them:

- kills: the process is killed at an operation on files (open, write, rename, fsync,
  mkdir, remove), spread over the runs of a launcher and all operations of a run; every
  third run is killed again while it is resumed.
- flipped bits: in random places of all files of an interrupted run, which is resumed,
  and of a finished fine-tuning or pretraining, whose model is loaded.
- cut or missing files: the same with files that are cut, empty, missing, or
  directories.
- full disks: an operation on files fails for want of room, or no file may be larger
  than a limit; the run must stop with one line, and is resumed with room.
- malformed files: random changes to good files, for every function that reads files; it
  may take 10 seconds and 1 GiB.

Prints how many trials ended with exactly the parameters and results of a run that
nothing happened to, how many were refused in one line, and how many had other results
or a traceback. Then prints every trial that should have ended otherwise.

    python -m benchmarks.faults
    python -m benchmarks.faults --launchers=pretrain --kills=3 --flips=3 --loads=9 \
        --cuts=3 --full=1 --inputs=20    (a smoke run)
"""

import collections
import dataclasses
import functools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks import protocol
from experiments import launch
from ffnlab.escape import terminal_lines
from ffnlab.options import check, option
from ffnlab.report.progress import Progress
from ffnlab.report.table import Table
from tests.faults import damage, full_disk, malformed, processes, trials
from tests.faults.launchers import RUNS, WITHOUT_RESUME
from tests.faults.processes import Fault
from tests.faults.trials import OUTCOMES, Trial, Workshop

Task = Callable[[], Trial | list[Trial]]


def _launchers() -> list[str]:
    return sorted({launcher for launcher, _ in RUNS.values()})


@dataclasses.dataclass(frozen=True)
class Config:
    """Faults: what goes wrong, and how often."""

    kills: int = option(100, "Kills of the runs of each launcher.", least=0)
    flips: int = option(
        40, "Bits flipped in the interrupted runs of each launcher.", least=0
    )
    loads: int = option(
        1000, "Bits flipped in the finished runs of each launcher for models.", least=0
    )
    cuts: int = option(
        20,
        "Files cut, emptied, removed or directories: in the interrupted runs of each "
        "launcher, and as many in the finished ones.",
        least=0,
    )
    full: int = option(
        25,
        "Operations on files where the disk is full, for the runs of each launcher, "
        "and as many limits of the size of a file.",
        least=0,
    )
    inputs: int = option(600, "Malformed files for each function.", least=0)
    launchers: tuple[str, ...] = option(
        (), "Launchers to try. The default is all.", known=_launchers, empty=True
    )
    seed: int = option(0, "Seed of the places where files are damaged.", least=0)
    workers: int | None = option(None, "Processes. One per core without it.", least=1)

    def __post_init__(self):
        check(self)

    @property
    def names(self) -> list[str]:
        """The names of the runs."""
        chosen = self.launchers or _launchers()
        return [name for name, (launcher, _) in RUNS.items() if launcher in chosen]

    def share(self, count: int, name: str) -> int:
        """Returns how many of a launcher's trials are those of one of its runs."""
        same = [each for each in RUNS if RUNS[each][0] == RUNS[name][0]]
        return count // len(same) + (same.index(name) < count % len(same))


def kills(config: Config, shop: Workshop) -> Iterator[tuple[str, list[Task]]]:
    """Yields for each run what kills it."""
    for name in config.names:
        if count := config.share(config.kills, name):
            pairs = _pairs(count, shop.whole(name)[1])
            tasks = [functools.partial(trials.kill, shop, name, *p) for p in pairs]
            yield f"kills, {name}", tasks


def _pairs(count: int, total: int) -> list[tuple[int, int]]:
    """Returns when a run is killed, and when it is killed again."""
    numbers = trials.spread(count, total)
    again = [7 * n % total if i % 3 == 2 else -1 for i, n in enumerate(numbers)]
    return list(zip(numbers, again, strict=True))


def flips(config: Config, shop: Workshop) -> Iterator[tuple[str, list[Task]]]:
    """Yields for each run flipped bits, while it is interrupted and when it is done."""
    yield from _damages(config, shop, (damage.FLIP,), config.flips, config.loads)


def cuts(config: Config, shop: Workshop) -> Iterator[tuple[str, list[Task]]]:
    """Yields for each run files that are cut, emptied, removed, or directories."""
    yield from _damages(config, shop, damage.OTHERS, config.cuts, config.cuts)


def _damages(
    config: Config, shop: Workshop, kinds: Sequence[str], resumed: int, loaded: int
) -> Iterator[tuple[str, list[Task]]]:
    """Yields damage of some kinds to the files of each run."""
    words = "flipped bits" if damage.FLIP in kinds else "cut or missing files"
    for number, name in enumerate(config.names):
        rng = np.random.default_rng([config.seed, len(kinds), number])
        count = config.share(resumed, name)
        if count and name not in WITHOUT_RESUME:
            state = damage.interrupted(shop, name)
            yield (
                f"{words}, {name}, resumed",
                [
                    functools.partial(damage.resume, shop, name, state, each)
                    for each in damage.draw(state, kinds, count, rng)
                ],
            )
        count = config.share(loaded, name)
        if count and damage.is_read(name):
            state = shop.whole(name)[0]
            wanted = damage.model_digest(name, state)
            yield (
                f"{words}, {name}, loaded",
                [
                    functools.partial(damage.load, shop, name, state, each, wanted)
                    for each in damage.draw(state, kinds, count, rng)
                ],
            )


def full_disks(config: Config, shop: Workshop) -> Iterator[tuple[str, list[Task]]]:
    """Yields for each run a disk that is full at a file operation or at a size."""
    for name in config.names:
        if not (count := config.share(config.full, name)):
            continue
        out, total = shop.whole(name)
        numbers = trials.spread(count, total)
        sizes = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
        limits = np.geomspace(1, max(sizes), count).astype(int).tolist()
        faults = [Fault(kill=n, error=full_disk.FULL) for n in numbers]
        faults += [Fault(size=size) for size in limits]
        tasks = [functools.partial(full_disk.fill, shop, name, each) for each in faults]
        yield f"full disks, {name}", tasks


def inputs(config: Config, shop: Workshop) -> Iterator[tuple[str, list[Task]]]:
    """Yields for each function that reads files some that are malformed."""
    if not config.inputs:
        return
    folder = shop.place()
    malformed.write_files(folder, shop.inputs, shop.whole("finetune tag by lora")[0])
    for name in malformed.READERS:
        read = functools.partial(
            malformed.read, folder, name, config.seed, config.inputs
        )
        yield f"malformed files, {name}", [functools.partial(processes.apart, read)]


SECTIONS = (kills, flips, cuts, full_disks, inputs)


def run(config: Config) -> list[Trial]:
    """Prints the table, and returns the trials that should have ended otherwise."""
    results: dict[str, list[Trial]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="ffnlab-faults-") as folder,
        ThreadPoolExecutor(config.workers or protocol.cores()) as pool,
    ):
        _share_compiled_programs(folder)
        shop = Workshop(Path(folder).resolve())
        for section in SECTIONS:
            for title, tasks in section(config, shop):
                results[title] = _try(title, tasks, pool)
    return _report(results)


def _try(title: str, tasks: list[Task], pool: ThreadPoolExecutor) -> list[Trial]:
    """Runs trials, and prints those that should have ended otherwise."""
    done: list[Trial] = []
    with Progress(len(tasks), "tasks") as progress:
        progress.begin(title)
        for number, trials in enumerate(pool.map(lambda task: task(), tasks), 1):
            found = [trials] if isinstance(trials, Trial) else trials
            for trial in found:
                if trial.wrong:
                    print(_line(trial), file=sys.stderr, flush=True)
            done += found
            progress.reach(number)
        counts = collections.Counter(trial.outcome for trial in done)
        ended = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
        progress.begin(f"{title}: {ended}")
        progress.end()
    return done


def _report(results: dict[str, list[Trial]]) -> list[Trial]:
    """Prints a line for each kind of fault, and what went wrong."""
    total = [trial for found in results.values() for trial in found]
    rows = []
    for title, found in {**results, "all": total}.items():
        counts = collections.Counter(trial.outcome for trial in found)
        wrong = sum(trial.wrong for trial in found)
        cells = [len(found), *(counts[outcome] for outcome in OUTCOMES), wrong]
        rows.append([title, *(f"{cell:,}" for cell in cells)])
    columns = ["what", "tried", *OUTCOMES, "wrong"]
    Table(columns, rows, words=1).show("How trials ended")
    wrong = [trial for trial in total if trial.wrong]
    for trial in wrong:
        print(_line(trial))
    return wrong


def _line(trial: Trial) -> str:
    """Returns what went wrong as text for the terminal."""
    return terminal_lines(f"\n{trial.name}: {trial.outcome}: {trial.note}")


def _share_compiled_programs(folder: str) -> None:
    """Lets all processes keep what they compile in one directory, optimized less."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{folder}/compiled")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


def main(config: Config) -> None:
    """Exits with code 1 if a trial should have ended otherwise."""
    if run(config):
        sys.exit(1)


if __name__ == "__main__":
    launch.main(Config, main, __doc__)
