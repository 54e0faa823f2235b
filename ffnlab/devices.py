"""The devices that a run uses: chosen before JAX does, checked, and described."""

import os

from ffnlab.errors import InputError

# The value of `jax_platforms` for each device. JAX has no name for any kind of GPU, but
# prefers a GPU to the CPU by default. The CPU is always included for callbacks.
_PLATFORMS = {"cpu": "cpu", "gpu": None, "tpu": "tpu,cpu", "cuda": "cuda,cpu"}
_BACKENDS = {"cuda": "gpu", "rocm": "gpu"}  # how `jax.default_backend` calls them
_INSTALL = {
    "tpu": 'pip install "jax[tpu]"',
    "cuda": 'pip install "jax[cuda13]"',
    "gpu": 'pip install "jax[cuda13]"',
}
NAMES = tuple(_PLATFORMS)


def use_all_cores() -> None:
    """Gives JAX one CPU device per core; it has no effect once JAX has started.

    A population is sharded over devices, and one step of a small model is too short to
    be split in any other way. Sets the environment variable `JAX_NUM_CPU_DEVICES`
    unless it is set already. Accelerators are not affected.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(cores or os.cpu_count() or 1))


def select(device: str | None) -> None:
    """Makes JAX use a kind of device, and checks that there is one.

    JAX chooses once in a process, so that this comes before any computation.

    Args:
      device: `cpu`, `gpu`, `tpu` or `cuda`; None for that of the environment variable
        `JAX_PLATFORMS`, which is checked, and otherwise for what JAX chooses. JAX is
        not imported for that.

    Raises:
      InputError: There is no such device, or JAX uses another one in this process.

    >>> select("cpu")
    """
    asked = os.environ.get("JAX_PLATFORMS", "")
    if not device and asked in ("", "cpu"):
        return

    import jax

    before = jax.config.jax_platforms
    if device:
        jax.config.update("jax_platforms", _PLATFORMS[device])
    name = device or asked.partition(",")[0]
    try:
        backend, reason = jax.default_backend(), ""
    except (RuntimeError, AssertionError) as error:  # the latter if there is none
        reason = str(error).partition(" (set JAX_PLATFORMS")[0]
        backend, reason = "", reason or "JAX found none"
    if backend != _BACKENDS.get(name, name):
        jax.config.update("jax_platforms", before)
        what = f"device: {name}" if device else f"JAX_PLATFORMS={asked}"
        raise InputError(f"{what}: {reason or _other(backend)}; {_advice(name)}")


def _other(backend: str) -> str:
    return f"JAX found only {backend} devices, or uses them in this process already"


def _advice(name: str) -> str:
    """Returns what to do where a device is missing."""
    install = f"install JAX for it ({_INSTALL[name]}), or " if name in _INSTALL else ""
    return f"{install}choose another of {', '.join(NAMES)}"


def describe(dtype: str = "float32") -> str:
    """Returns the devices of this process and the dtype of a run, as it prints them.

    Args:
      dtype: The dtype that the run computes in.

    >>> describe()
    '2 CPU devices, float32'
    """
    import jax

    devices = jax.local_devices()
    platform, kind = devices[0].platform.upper(), devices[0].device_kind
    count = f"{len(devices)} {platform} device{'s' if len(devices) > 1 else ''}"
    # The kind of a CPU is just cpu.
    named = f" ({kind})" if kind.lower() != platform.lower() else ""
    several = jax.process_count()
    where = f" in each of {several} processes" if several > 1 else ""
    return f"{count}{named}{where}, {dtype}"
