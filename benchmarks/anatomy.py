"""Where does the time of a training step go?

Takes a step apart: block (as in benchmarks.ffn), tower (a population of digits MLPs),
encoder (fine-tuning of a BERT, by default of MiniLM's shape, on packed texts of random
tokens), lora (the same with LoRA), decoder (as in benchmarks.sharding) or feedback (as
in benchmarks.feedback). Several steps are compiled as one scan, and its calls are
profiled. The profile names the instructions of the compiled program, whose text says
what each computes and which line of Python it comes from. That gives its kind: matrix
products, attention, norms, activations, and so on.

On a GPU, the program that is profiled has no command buffers, which hide instructions,
so that more of its time is dispatch than without a profile.

The times are those of the fastest call, and sum to it: where n instructions run at
once, each gets the n-th part of the time, and while none runs, it is dispatch and
waiting. One that its first thread has left waits for others, perhaps without a core,
and gets time only while no other runs.

The limit of a kind is the time of its operations at the rate of the fastest of the
step's products, each of them measured alone; or, without products, of the bytes that it
reads and writes at the bandwidth of memory, measured by a loop that adds to an array. A
kind whose arrays stay in a cache can be faster than that.

    python -m benchmarks.anatomy --step=encoder
    python -m benchmarks.anatomy --step=encoder --checkpoint=minilm --batch_size=32
    python -m benchmarks.anatomy --step=block --block=swiglu --out=block.json \\
        --picture=block.png
    python -m benchmarks.anatomy --step=decoder --features=32 --hidden=64 --layers=1 \\
        --batch_size=2 --length=16 --rounds=1    (a smoke run)
"""

import collections
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import (
    anatomy_kinds,
    anatomy_limits,
    anatomy_report,
    anatomy_trace,
    protocol,
)
from benchmarks.anatomy_hlo import Module, parse
from benchmarks.anatomy_kinds import OTHER, describe
from benchmarks.anatomy_limits import product_of
from benchmarks.anatomy_report import Anatomy, Calls, Ran
from benchmarks.anatomy_steps import DEFAULTS, STEPS, Step
from benchmarks.ffn import KINDS as BLOCKS
from experiments import launch
from ffnlab import devices, io, options
from ffnlab.errors import InputError
from ffnlab.nn.attention_kernel import uses_gpu
from ffnlab.options import option
from ffnlab.report import plots, run_directory

_OF_CHECKPOINTS = ("features", "hidden", "layers", "heads")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of the step; each step has some of them, and defaults of its own."""

    batch_size: int | None = option(
        None, "Texts, sequences, chains, or tokens of a block, per step.", least=1
    )
    length: int | None = option(
        None, "Tokens of a sequence or of the longest text, or positions.", least=2
    )
    features: int | None = option(None, "Model width.", least=2)
    hidden: int | None = option(
        None, "Hidden width, or the width of the states of feedback.", least=2
    )
    layers: int | None = option(None, "Number of layers.", least=1)
    heads: int | None = option(None, "Number of attention heads.", least=1)
    vocabulary: int | None = option(None, "Number of distinct tokens.", least=8)
    members: int | None = option(None, "Number of MLPs of the population.", least=1)
    dropout: float | None = option(None, "Dropout rate.", least=0.0, below=1.0)
    block: str | None = option(None, "Kind of block.", known=lambda: tuple(BLOCKS))
    checkpoint: str | None = option(
        None, "Checkpoint directory of BERT, for encoder and lora."
    )
    dtype: str | None = option(
        None,
        "Precision to compute in. Parameters stay in float32.",
        known=lambda: ("float32", "bfloat16"),
    )


@dataclasses.dataclass(frozen=True)
class Config(Sizes):
    """What to measure; each field is a flag."""

    step: str = option("encoder", "Training step.", known=lambda: tuple(STEPS))
    rounds: int = option(3, "Number of calls that are timed and profiled.", least=1)
    steps: int = option(4, "Steps of a call.", least=1)
    longest: int = option(
        12, "Instructions to list, those with the most time.", least=1
    )
    out: str | None = option(None, "JSON file to write the times to.")
    picture: str | None = option(None, "PNG file of the kinds as stacked bars.")

    def __post_init__(self):
        options.check(self)
        self._check_sizes()
        for name in ("out", "picture"):
            path = getattr(self, name) and Path(getattr(self, name)).absolute()
            if path and not path.parent.is_dir():
                raise InputError(f"{name}: {path} is in no directory that exists")
            if path and path.is_dir():
                raise InputError(f"{name}: {path} is a directory; name a file")

    def _check_sizes(self) -> None:
        known = {name for sizes in DEFAULTS.values() for name in sizes}
        own, given = DEFAULTS[self.step], self._given()
        if wrong := sorted((given.keys() & known) - own.keys()):
            raise InputError(
                f"{wrong[0]}: is no size of {self.step}; its sizes are {', '.join(own)}"
            )
        if self.checkpoint and self.step not in ("encoder", "lora"):
            raise InputError(f"checkpoint: {self.step} has none; use encoder or lora")
        if self.checkpoint and (wrong := [n for n in _OF_CHECKPOINTS if n in given]):
            raise InputError(f"{wrong[0]}: is that of the checkpoint; leave it out")

    def _given(self) -> dict[str, Any]:
        values = {
            each.name: getattr(self, each.name) for each in dataclasses.fields(Sizes)
        }
        return {name: value for name, value in values.items() if value is not None}

    def sizes(self) -> dict[str, Any]:
        """Returns all sizes of the step.

        >>> Config(step="feedback", length=64).sizes()
        {'batch_size': 8, 'length': 64, 'hidden': 64}
        """
        return {**DEFAULTS[self.step], **self._given()}

    def title(self) -> str:
        """Returns the name of the step with its sizes."""
        sizes = self.sizes()
        directory = sizes.pop("checkpoint", None)
        if directory:
            sizes = {n: v for n, v in sizes.items() if n not in _OF_CHECKPOINTS}
        listed = ", ".join(f"{name}={value}" for name, value in sizes.items())
        return f"{self.step}{' of a checkpoint' if directory else ''}, {listed}"


def run(config: Config) -> Anatomy:
    """Prints the tables, writes the files, and returns what the step takes."""
    protocol.describe()
    print(devices.describe(config.sizes().get("dtype", "float32")), flush=True)
    step = STEPS[config.step](config.sizes(), config.checkpoint)
    anatomy = take_apart(step, config)
    _show(anatomy, config)
    if config.out:
        io.write(config.out, _to_json(anatomy, config))
    if config.picture:
        plots.save(anatomy_report.draw(anatomy, config.title()), Path(config.picture))
    return anatomy


def take_apart(step: Step, config: Config) -> Anatomy:
    """Returns what a step takes: times of its kinds, their limits, and page faults."""
    shape = step.batches(config.steps)
    state = jax.device_put(step.state)
    program = jax.jit(step.steps, donate_argnums=0)
    lowered = program.lower(state, step.arrays, shape)
    scanned = lowered.compile()
    single = program.lower(state, step.arrays, step.batches(1)).compile()
    profiled = anatomy_trace.compile_for_profile(lowered) if uses_gpu() else scanned
    module = parse(profiled.as_text())

    def calling(compiled: Any, batches: np.ndarray) -> Callable[[], None]:
        def call() -> None:
            nonlocal state
            state, losses = compiled(state, step.arrays, batches)
            jax.block_until_ready((state, losses))

        return call

    several = calling(scanned, jax.device_put(shape))
    one = calling(single, jax.device_put(step.batches(1)))
    for_profile = calling(profiled, jax.device_put(shape))
    print(f"compiled: {len(module.instructions):,} instructions", flush=True)
    times = _time(several, config.rounds, config.steps)
    alone = _time(one, config.rounds, 1)
    with tempfile.TemporaryDirectory() as folder:
        for_profile()
        trace = anatomy_trace.profile(
            for_profile, config.rounds, Path(folder), module.name
        )
    return assemble(module, trace, config.steps, times, alone)


def _time(call: Callable[[], None], calls: int, steps: int) -> Calls:
    """Returns the median time of a step, and its page faults."""
    call()
    before, times = anatomy_limits.faults(), []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    faults = anatomy_limits.faults() - before
    return Calls(float(np.median(times)) / steps, faults / (calls * steps))


def assemble(
    module: Module,
    trace: anatomy_trace.Trace,
    steps: int,
    scanned: Calls,
    single: Calls,
) -> Anatomy:
    """Returns what a step takes, with the limits of this machine.

    Args:
      module: The program.
      trace: The profile of its calls.
      steps: The steps of a call.
      scanned: The calls of the program without a profile.
      single: Calls of one step each.
    """
    (call,), events = anatomy_trace.fastest(trace)
    leaves = anatomy_kinds.leaves(module, (event.name for event in events))
    events = [event for event in events if event.name in leaves]
    division = anatomy_trace.divide(events, call)
    counts = collections.Counter(event.name for event in events)
    ran = [
        _ran(module, name, division.seconds[name] / steps, counts[name] / steps)
        for name in sorted(counts, key=division.seconds.__getitem__, reverse=True)
    ]
    products = [
        (each, product)
        for each in ran
        if each.part
        for product in module.products(each.part.instruction)
    ]
    limits, times = anatomy_limits.measure(
        {product_of(module, each): module.flops(each) for _, each in products}
    )
    alone: collections.Counter[str] = collections.Counter()
    for each, product in products:
        alone[each.kind] += times[product_of(module, product)] * each.count
    rows = anatomy_report.make_rows(ran, division.idle / steps, alone, limits)
    whole, shared = (call.stop - call.start) / steps, division.shared / steps
    return Anatomy(rows, whole, shared, ran, limits, scanned, single)


def _ran(module: Module, name: str, seconds: float, count: float) -> Ran:
    """Returns an instruction that ran, with its kind."""
    if name not in module.instructions:
        return Ran(name, None, OTHER, seconds, count)
    part = describe(module, module.instructions[name])
    return Ran(name, part, part.kind, seconds, count)


def _show(anatomy: Anatomy, config: Config) -> None:
    """Prints the tables and what the limits are."""
    table = anatomy_report.tabulate(anatomy)
    calls = f"the fastest of {config.rounds} calls of {config.steps} steps"
    table.show(f"{config.title()}: a step, in {calls}")
    limits, scanned, single = anatomy.limits, anatomy.scanned, anatomy.single
    shared = 100 * anatomy.shared / anatomy.seconds
    seconds, share = anatomy.products
    print(
        f"divided among several instructions: {shared:.0f} % of the time\n"
        f"limits: {limits.flops / 1e9:.4g} GFLOP/s, {limits.bandwidth / 1e9:.3g} GB/s, "
        f"{1e6 * limits.fault:.2g} µs per page fault\n"
        f"without a profile: {1e3 * scanned.seconds:.4g} ms per step and "
        f"{scanned.faults:.0f} page faults in a scan, "
        f"{1e3 * single.seconds:.4g} ms and {single.faults:.0f} in calls of one step\n"
        f"products alone: {1e3 * seconds:.4g} ms per step, "
        f"{100 * share:.0f} % of a step in a scan"
    )
    longest = anatomy_report.tabulate_longest(anatomy, config.longest)
    longest.show("the longest instructions")


def _to_json(anatomy: Anatomy, config: Config) -> str:
    """Returns the JSON file."""
    processor, sets = protocol.processor()
    report = {
        "backend": jax.default_backend(),
        "cpu": f"{processor}; {', '.join(sets)}",
        "cores": protocol.cores(),
        "versions": run_directory.versions(),
        "flags": dataclasses.asdict(config),
        "sizes": config.sizes(),
        **anatomy.to_json(),
    }
    return json.dumps(io.jsonable(report), indent=1) + "\n"


if __name__ == "__main__":
    launch.main(Config, run, __doc__)
