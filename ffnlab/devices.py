"""The devices that a run uses, chosen before JAX is imported."""

import os


def use_all_cores() -> None:
    """Gives JAX one CPU device per core; it has no effect once JAX has started.

    A population is sharded over devices, and one step of a small model is too short to
    be split in any other way. Sets the environment variable `JAX_NUM_CPU_DEVICES`
    unless it is set already. Accelerators are not affected.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(cores or os.cpu_count() or 1))
