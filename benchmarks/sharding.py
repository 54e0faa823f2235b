"""What does it cost to divide a decoder's step over processes or devices of a CPU?

The same steps of a decoder, with the same batch, by

- one process with one device on one core, which takes half of the batch;
- two of those at the same time, which exchange nothing;
- one process with two devices on two cores, which divide the batch;
- two processes on a core each, joined as `--coordinator` joins them.

Each process is started anew in every round and times its calls after compiling. The
tables are the time of two joined processes over that of two devices, and their
throughput over twice that of one core and over that of two that exchange nothing. A
core cannot be bound on every system; this needs Linux and two cores.

    python -m benchmarks.sharding
    python -m benchmarks.sharding --rounds=1 --calls=2    (a smoke run)
"""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time

import numpy as np

from benchmarks import protocol
from experiments import launch
from ffnlab import options
from ffnlab.errors import InputError
from ffnlab.options import option
from ffnlab.report.table import Table

_WORKER = "FFNLAB_SHARDING_WORKER"  # the environment variable that holds its setting
_STEPS = 4  # of a call
_SETTINGS = ("one core", "two apart", "two devices", "two processes")


@dataclasses.dataclass(frozen=True)
class Config(protocol.Config):
    """What to train; each field is a flag."""

    rounds: int = option(5, "Number of rounds; each runs every setting once.", least=1)
    calls: int = option(6, "Calls of four steps that a process times.", least=1)
    features: int = option(256, "Width of the decoder.", least=8)
    layers: int = option(4, "Layers of the decoder.", least=1)
    batch_size: int = option(16, "Sequences per step, an even number.", least=2)
    length: int = option(128, "Tokens of a sequence.", least=2)

    def __post_init__(self):
        options.check(self)
        if self.batch_size % 2:
            raise InputError(f"batch_size: {self.batch_size} should be even")


def run(config: Config) -> list[Table]:
    """Prints and returns the ratios."""
    if protocol.cores() < 2 or not hasattr(os, "sched_setaffinity"):
        raise InputError("two cores that a process can be bound to are needed")
    protocol.describe()
    order = np.random.default_rng(config.seed)
    times = []
    for _ in range(config.rounds):
        measured = np.zeros(len(_SETTINGS))
        for number in order.permutation(len(_SETTINGS)):
            measured[number] = _time(config, _SETTINGS[number])
        times.append(measured)
        pairs = zip(_SETTINGS, measured, strict=True)
        print(", ".join(f"{name} {1e3 * each:.0f} ms" for name, each in pairs))
    one, apart, devices, processes = np.transpose(times)
    return [
        _show("a step: two processes ÷ two devices", processes / devices, 1.15),
        # One core does half of the batch, so that twice its throughput is a batch.
        _show(
            "throughput: two processes ÷ twice one core", one / processes, 0.85, True
        ),
        # Two cores share memory and clock, which no exchange of gradients changes.
        _show("throughput: two processes ÷ two apart", apart / processes, 0.85, True),
    ]


def _show(title: str, ratios: np.ndarray, target: float, least: bool = False) -> Table:
    """Prints and returns a table of one ratio."""
    spread = protocol.spread(ratios)
    met = spread.median >= target if least else spread.median <= target
    row = [
        f"{spread.median:.2f}",
        f"{spread.lower_quartile:.2f}–{spread.upper_quartile:.2f}",
        f"{spread.minimum:.2f}–{spread.maximum:.2f}",
        f"{'≥' if least else '≤'} {target} {'met' if met else 'not met'}",
    ]
    table = Table(["ratio", "quartiles", "range", "target"], [row])
    table.show(title)
    return table


def _time(config: Config, setting: str) -> float:
    """Returns the median time of a step, of the slowest process of a setting."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    count = 2 if setting in ("two apart", "two processes") else 1
    workers = [_start(config, setting, port, index) for index in range(count)]
    outputs = [worker.communicate()[0] for worker in workers]
    if any(worker.returncode for worker in workers):
        raise RuntimeError(f"{setting}: a process failed; see above")
    return max(json.loads(output.splitlines()[-1]) for output in outputs)


def _start(config: Config, setting: str, port: int, index: int) -> subprocess.Popen:
    """Starts a process of a setting."""
    devices = 2 if setting == "two devices" else 1
    job = {"config": vars(config), "setting": setting, "port": port, "index": index}
    environment = {
        **os.environ,
        _WORKER: json.dumps(job),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
    }
    command = [sys.executable, "-m", "benchmarks.sharding"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def work(config: Config, setting: str, port: int, index: int) -> float:
    """Returns the median time of a step in this process."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    alone = setting != "two devices"
    os.sched_setaffinity(0, {cores[index]} if alone else {*cores})  # before JAX starts
    if setting == "two processes":
        from ffnlab.processes import runtime

        runtime.connect(f"localhost:{port}", 2, index)
    import jax

    from ffnlab.train import placement

    learner, layout, arrays, batch = _prepare(config, setting)
    key = jax.random.key(0)
    program = placement.make_program(learner, key, layout)
    state = placement.init_placed(learner, key, 0, 1e-3, layout)
    indices = np.tile(np.arange(batch), (_STEPS, 1))
    times = []
    for _ in range(config.calls + 1):
        start = time.perf_counter()
        state, losses = program(state, arrays, indices)
        np.asarray(losses)
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:])) / _STEPS


def _prepare(config: Config, setting: str) -> tuple:
    """Returns the learner, the layout, the data on the devices and the batch size."""
    from ffnlab.models import DecoderConfig, language_model
    from ffnlab.train import Learner, optimizers, placement, sharding

    shape = DecoderConfig(
        vocabulary=256,
        features=config.features,
        layers=config.layers,
        heads=4,
        hidden=2 * config.features,
        block="swiglu",
        positions="rotary",
        length=config.length,
    )
    model, objective = language_model.causal_lm(shape), language_model.objective(1.0)
    optimizer = optimizers.make("adam", 1e-3, clip=1.0)
    learner = Learner(model, objective, optimizer, independent=True)
    alone = setting in ("one core", "two apart")
    batch = config.batch_size // 2 if alone else config.batch_size
    sizes = {"replicas": 1, "data": 2, "model": 1}
    layout = None if alone else sharding.make_layout(sizes)
    tokens = np.random.default_rng(0).integers(0, 256, (batch, config.length), np.int32)
    part = {"x/tokens": tokens, "x/mask": np.ones(tokens.shape, bool), "y": tokens}
    return learner, layout, placement.place_arrays(learner, part, layout), batch


if __name__ == "__main__":
    if _WORKER in os.environ:
        job = json.loads(os.environ[_WORKER])
        print(work(Config(**job.pop("config")), **job))
        sys.stdout.flush()
        os._exit(0)  # the other process is not waited for
    launch.main(Config, run, __doc__)
