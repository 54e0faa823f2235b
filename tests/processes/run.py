"""Starts several processes of a launcher on this machine."""

import os
import socket
import subprocess
import sys

from tests.conftest import ROOT

_FLAGS = {
    "features": 16,
    "layers": 1,
    "heads": 2,
    "max_seq_length": 16,
    "batch_size": 8,
    "steps": 20,
    "evaluations": 2,
    "scored": 8,
    "samples": 0,
    "optimizer": "adamw",
    "learning_rate": 0.01,
}
PRETRAIN = [f"--{name}={value}" for name, value in _FLAGS.items()]


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def start(flags, variables=None, launcher="pretrain", folder=ROOT):
    """Starts a process of a launcher with one CPU device."""
    return start_module(f"experiments.{launcher}", flags, variables, folder)


def start_module(module, arguments, variables=None, folder=ROOT):
    """Starts a process of a module with one CPU device, unless variables differ."""
    own = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=folder,
        env=os.environ | own | (variables or {}),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def start_all(count, flags, launcher="pretrain", more=lambda process: ()):
    """Starts processes that find each other by flags."""
    joined = [f"--coordinator=localhost:{free_port()}", f"--processes={count}"]
    return [
        start([*flags, *joined, f"--process={i}", *more(i)], launcher=launcher)
        for i in range(count)
    ]


def finish(processes, seconds=240):
    """Returns the exit code, standard output and standard error of each process."""
    try:
        outputs = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        (process.returncode, *output)
        for process, output in zip(processes, outputs, strict=True)
    ]
