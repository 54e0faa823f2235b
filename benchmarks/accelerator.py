"""Does an accelerator compute what a CPU does, and how fast?

Runs in under 8 minutes on one GPU and needs nothing else. Its parts:

- parity: blocks, activations, solves of feedback, their gradients, an encoder and a
  decoder, in float32 with the highest precision and in bfloat16, beside the CPU.
- ffn: forward and backward passes of blocks in bfloat16. The share of their time that
  their matrix products alone take.
- swiglu: SwiGLU, beside the better of plain XLA and tokamax, if that is installed.
- attention: forward and backward passes by cuDNN, beside XLA.
- population: digit MLPs trained together, beside one after another.
- feedback: the implicit gradient, beside the unrolled one.
- finetune: a step on a BERT of MiniLM's shape in bfloat16, beside torch.compile with
  bfloat16, if torch finds a GPU.

A part that fails is reported with its reason, and the others go on; the exit code is
then 1. Parity outside of its bounds is a failure, and a missed target of a time is not.

    python -m benchmarks.accelerator --out=accelerator.json
    python -m benchmarks.accelerator --parts=parity,ffn
    python -m benchmarks.accelerator --quick    (a check on any machine, in a minute)
"""

import dataclasses
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks import accelerator_parity, accelerator_times, protocol
from benchmarks.accelerator_parity import reason
from benchmarks.accelerator_times import SIZES
from benchmarks.figures import Figure, tabulate
from experiments import launch
from ffnlab import devices, io, options
from ffnlab.errors import InputError
from ffnlab.options import option
from ffnlab.report import run_directory

# What the values of a part are.
VALUES = {
    "parity": "error",
    "ffn": "share of the products",
    "swiglu": "÷ best peer",
    "attention": "÷ XLA",
    "population": "times one by one",
    "feedback": "÷ unrolled",
    "finetune": "÷ torch",
}
PARTS = tuple(VALUES)
QUICK = {"sizes": "small", "rounds": 3}


@dataclasses.dataclass(frozen=True)
class Config(protocol.Config):
    """What to measure; each field is a flag."""

    parts: tuple[str, ...] = option(PARTS, "Parts to run.", known=lambda: PARTS)
    sizes: str = option(
        "full",
        "Sizes of the work: full, for an accelerator, or small, a check that runs on "
        "any machine.",
        known=lambda: tuple(SIZES),
    )
    seconds: int = option(
        420, "Seconds after which no further part starts; it counts as failed.", least=1
    )
    checkpoint: str | None = option(
        None, "Checkpoint directory of BERT for finetune. If not given, MiniLM's shape."
    )
    out: str | None = option(None, "JSON file to write the figures to.")

    def __post_init__(self):
        options.check(self)
        if self.out and not Path(self.out).absolute().parent.is_dir():
            raise InputError(f"out: {self.out} is in no directory that exists")
        if self.out and Path(self.out).is_dir():
            raise InputError(f"out: {self.out} is a directory; name a file")


class Part(NamedTuple):
    """A part that has run.

    Attributes:
      name: A key of `VALUES`.
      figures: What it measured.
      failure: Why it failed, in one line, or None.
      seconds: How long it took, with compiling.
    """

    name: str
    figures: list[Figure]
    failure: str | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Returns the part ready for JSON."""
        figures = [figure.to_json() for figure in self.figures]
        return {**self._asdict(), "value": VALUES[self.name], "figures": figures}


def run(config: Config) -> list[Part]:
    """Runs the parts, prints their tables, and writes the JSON file.

    Raises:
      InputError: The sizes are for an accelerator, and there is none.
    """
    if jax.default_backend() == "cpu" and config.sizes == "full":
        raise InputError(
            "sizes: full is for an accelerator, and JAX finds none; use --quick, or "
            "sizes=small"
        )
    protocol.describe()
    print(f"{devices.describe('float32 and bfloat16')}{_label(config)}", flush=True)
    start, parts = time.monotonic(), []
    for name in config.parts:
        parts.append(_run_part(name, config, start))
        _show(parts[-1], config)
        if config.out:  # after every part, so that a crash leaves those before
            io.write(config.out, _report(config, parts))
    failures = [part.name for part in parts if part.failure]
    print(f"\nfailed: {', '.join(failures)}" if failures else "\nno part failed")
    return parts


def _run_part(name: str, config: Config, start: float) -> Part:
    """Runs a part; whatever it raises is its failure."""
    begin = time.monotonic()
    figures, failure = [], None
    if begin - start > config.seconds:
        return Part(name, [], f"no time is left after {config.seconds} s", 0.0)
    try:
        figures = _measure(name, config)
        bad = [each for each in figures if name == "parity" and not each.met]
        if bad:
            listed = ", ".join(f"{each.name} ({each.setting})" for each in bad)
            failure = f"outside of the bounds: {listed}"
    except Exception as problem:  # the other parts go on
        failure = reason(problem)
    gc.collect()  # what a part held on the device
    return Part(name, figures, failure, time.monotonic() - begin)


def _measure(name: str, config: Config) -> list[Figure]:
    """Returns the figures of a part."""
    if name != "parity":
        return accelerator_times.TIMED[name](SIZES[config.sizes], config)
    whole = config.sizes == "full"
    cases = accelerator_parity.all_cases if whole else accelerator_parity.few_cases
    return accelerator_parity.compare(cases())


def _show(part: Part, config: Config) -> None:
    """Prints the table of a part, or why there is none."""
    print()
    if part.figures:
        title = f"{part.name}, {part.seconds:.0f} s{_label(config)}"
        verdicts = part.name == "parity" or not _label(config)
        tabulate(VALUES[part.name], part.figures, verdicts).show(title)
    if part.failure:
        print(f"{part.name} failed: {part.failure}")
    sys.stdout.flush()


def _label(config: Config) -> str:
    """Returns what figures that claim nothing are labelled with."""
    if jax.default_backend() == "cpu":
        return "; of a CPU and small sizes: a check, and no claim"
    return "; of small sizes: a check, and no claim" if config.sizes != "full" else ""


def _report(config: Config, parts: list[Part]) -> str:
    """Returns the JSON file of the parts that have run."""
    processor, sets = protocol.processor()
    report = {
        "claims": not _label(config),
        "backend": jax.default_backend(),
        "cpu": f"{processor}; {', '.join(sets)}",
        "versions": run_directory.versions(),
        "flags": dataclasses.asdict(config),
        "parts": [part.to_json() for part in parts],
    }
    return json.dumps(io.jsonable(report), indent=1) + "\n"


def run_and_exit(config: Config) -> None:
    """Runs the parts, and exits with code 1 if one of them failed."""
    if any(part.failure for part in run(config)):
        raise SystemExit(1)


if __name__ == "__main__":
    launch.main(Config, run_and_exit, __doc__, presets={"quick": QUICK})
