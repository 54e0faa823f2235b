"""Does the engine from scratch compute the same as JAX and optax?"""

import collections
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab import devices, io
from ffnlab.escape import terminal
from ffnlab.report.run_directory import choose_unfinished
from ffnlab.sweep.scratch_parity_config import ScratchParityConfig

if TYPE_CHECKING:
    from ffnlab.data import Dataset
    from ffnlab.report.table import Table


class ScratchParityResult(NamedTuple):
    """The result of a comparison of the two programs.

    Attributes:
      out: The run directory.
      runs: A dict for each epoch of each run, as in results.jsonl.
      epochs: The differences by epoch, as printed.
      optimizers: The differences, scores and times by optimizer, as printed.
      largest: The largest difference of a loss or a parameter in any epoch.
    """

    out: Path
    runs: list[dict[str, Any]]
    epochs: "Table"
    optimizers: "Table"
    largest: float


def check_parity(config: ScratchParityConfig) -> ScratchParityResult:
    """Runs the comparison and writes its report to the run directory.

    Args:
      config: What to train, and how.

    Raises:
      InputError: A directory cannot be used.
    """
    from ffnlab import data
    from ffnlab.report import run_directory
    from ffnlab.sweep import scratch_parity_report

    out = choose_unfinished(config, "from_scratch")
    devices.select(config.device)
    dataset = data.load(config.data, config.seed)
    with run_directory.open_run(out, config, config.resume) as directory:
        run_directory.check_same_data(directory, data.digest(dataset))
        print(terminal(f"writing to {directory}"), flush=True)
        _train(config, dataset, directory)
        runs = scratch_parity_report.read(directory / "results.jsonl")
        report = scratch_parity_report.publish(config, directory, runs)
        run_directory.finish(directory)
    return ScratchParityResult(directory, runs, *report)


def _train(config: ScratchParityConfig, dataset: "Dataset", directory: Path) -> None:
    """Trains the runs that results.jsonl has no lines of, and writes their lines."""
    import jax

    from ffnlab.report.progress import Progress
    from ffnlab.sweep import scratch_training

    path = directory / "results.jsonl"
    lines = _finished(io.read_lines(path), scratch_training.epochs(config, dataset))
    finished = {(line["optimizer"], line["seed"]) for line in lines}
    total = config.steps * config.seeds * len(config.optimizers)
    done = config.steps * len(finished)
    with jax.enable_x64(True), Progress(total, "steps", done) as progress:
        for optimizer in config.optimizers:
            training = scratch_training.Training(config, dataset, optimizer)
            seeds = [s for s in range(config.seeds) if (optimizer, s) not in finished]
            for seed in seeds:
                progress.begin(optimizer)
                folder = directory / "checkpoints" / f"{optimizer}-{seed}"
                lines += training.run(seed, folder, progress.reach)
                lines.sort(key=lambda line: _place(config, line))
                io.write_lines(path, lines)
            if seeds:
                progress.end()


def _finished(lines: list[dict], epochs: int) -> list[dict]:
    """Returns the lines of the runs that have one for every epoch."""
    counts = collections.Counter((line["optimizer"], line["seed"]) for line in lines)
    return [e for e in lines if counts[e["optimizer"], e["seed"]] == epochs]


def _place(config: ScratchParityConfig, line: dict[str, Any]) -> tuple[int, int, int]:
    """Returns what lines are sorted by, so that an interrupted run has the same."""
    return config.optimizers.index(line["optimizer"]), line["seed"], line["epoch"]
