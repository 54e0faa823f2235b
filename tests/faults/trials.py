"""What is tried on runs, and how it ended."""

import shutil
import threading
from pathlib import Path
from typing import NamedTuple

from tests.faults import launchers
from tests.faults.processes import NONE, Ending, Fault, launch

# How a trial may end: with the results of a run that nothing happened to; with one line
# that says what is wrong; with other results, without a word; or by surprise.
EXACT, REFUSED, SILENT, TRACEBACK = OUTCOMES = (
    "exact",
    "refused in one line",
    "silent",
    "traceback",
)


class Trial(NamedTuple):
    """A fault, and how it ended.

    Attributes:
      name: What was tried.
      outcome: One of `OUTCOMES`.
      note: What happened, for a report.
      wrong: Whether it should have ended otherwise.
    """

    name: str
    outcome: str
    note: str
    wrong: bool = False


class Workshop:
    """A folder with inputs, finished runs, and room for runs that fail.

    Args:
      folder: An existing directory.
    """

    def __init__(self, folder: Path):
        self.folder, self._lock = folder, threading.Lock()
        self._whole: dict[str, tuple[Path, int]] = {}
        self._places = 0
        self.inputs = folder / "inputs"
        self.inputs.mkdir()
        launchers.write_inputs(self.inputs)

    def place(self) -> Path:
        """Returns the path of a run directory that does not exist."""
        with self._lock:
            self._places += 1
            return self.folder / f"run{self._places}"

    def run(self, name: str, out: Path, fault: Fault = NONE, *more: str) -> Ending:
        """Starts a run."""
        flags = [*launchers.flags_of(name, self.inputs, out), *more]
        return launch(launchers.RUNS[name][0], flags, out, fault)

    def whole(self, name: str) -> tuple[Path, int]:
        """Returns a finished run, and the number of its operations on files."""
        if name not in self._whole:
            out = self.place()
            ending = self.run(name, out)
            if ending.code:
                raise RuntimeError(f"{name}: {ending.text}")
            self._whole[name] = out, ending.operations
        return self._whole[name]

    def resume(self, name: str, out: Path, fault: Fault = NONE, *more: str) -> Ending:
        """Resumes a run, or starts it again where there is nothing to resume."""
        if name in launchers.WITHOUT_RESUME:
            return self.run(name, out, fault)
        ending = self.run(name, out, fault, "--resume", *more)
        if "holds no run to continue" in ending.text:
            return self.run(name, out, fault)
        return ending

    def judge(self, name: str, trial: str, out: Path, ending: Ending) -> Trial:
        """Returns how a run that was resumed has ended, and removes it."""
        finished = "is finished" in ending.text or "already holds a run" in ending.text
        if not ending.clean:
            result = Trial(
                trial, TRACEBACK, f"{ending.code}: {ending.text[-3000:]}", True
            )
        elif ending.code and not finished:
            result = Trial(trial, REFUSED, ending.errors[0])
        else:
            found = launchers.compare(out, self.whole(name)[0])
            note = "; ".join(f"{path}: {why}" for path, why in found)
            result = Trial(trial, SILENT if found else EXACT, note, bool(found))
        shutil.rmtree(out, ignore_errors=True)
        return result


def kill(shop: Workshop, name: str, number: int, again: int = -1) -> Trial:
    """Kills a run at an operation on files, and resumes it.

    Args:
      shop: Where the runs are.
      name: The name of the run.
      number: The number of operations before the kill.
      again: The number of operations before the resumed run is killed too, and resumed
        once more; -1 if it is not.
    """
    out = shop.place()
    twice = "" if again < 0 else f", and again at {again}"
    first = shop.run(name, out, Fault(kill=number))
    if again >= 0:
        shop.resume(name, out, Fault(kill=again))
    trial = shop.judge(
        name, f"{name}, killed at {number}{twice}", out, shop.resume(name, out)
    )
    wrong = trial.outcome != EXACT
    note = f"{trial.note} (killed: {first.code})" if wrong else trial.note
    return trial._replace(wrong=wrong, note=note)


def spread(count: int, total: int) -> list[int]:
    """Returns numbers below a total, evenly spread.

    >>> spread(3, 10), spread(5, 3)
    ([0, 4, 9], [0, 1, 2])
    """
    count = min(count, total)
    return [round(i * (total - 1) / max(count - 1, 1)) for i in range(count)]
