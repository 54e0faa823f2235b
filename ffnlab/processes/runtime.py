"""The connection of a process to the coordinator, which JAX runs in process 0.

The coordinator keeps texts by key. What processes say to each other on the host goes
that way, since it needs no device; arrays travel between devices.
"""

import itertools
import json
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from ffnlab.errors import InputError

AUTO = "auto"  # the coordinator that the cluster sets
ANSWER = 30  # seconds within which all processes must connect
_WAIT = 500  # milliseconds of one wait for a text, so that signals are handled
_NEVER = 10**6  # seconds; XLA ends the process where a time of its own runs out
_PREFIX = "ffnlab"


class Runtime(NamedTuple):
    """What a process knows of the run that it is a part of.

    Attributes:
      client: The client of the coordinator.
      index: The number of this process, from 0.
      count: The number of processes.
      address: The address of the coordinator.
    """

    client: Any
    index: int
    count: int
    address: str

    def put(self, name: str, text: str) -> None:
        """Gives a text a name, in place of an earlier text."""
        self.client.key_value_set(f"{_PREFIX}/{name}", text, allow_overwrite=True)

    def get(self, name: str) -> str:
        """Returns the text of a name, and waits until there is one."""
        while True:
            try:
                return self.client.blocking_key_value_get(f"{_PREFIX}/{name}", _WAIT)
            except Exception as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise

    def below(self, folder: str) -> dict[int, str]:
        """Returns the texts named `folder/NUMBER`, by the number of the process."""
        entries = self.client.key_value_dir_get(f"{_PREFIX}/{folder}/")
        return {int(name.rpartition("/")[2]): text for name, text in entries}

    def broadcast(self, text: str) -> str:
        """Returns the text of process 0. All processes call it, in the same order."""
        name = f"broadcast/{next(_state.calls)}"
        if self.index == 0:
            self.put(name, text)
        return self.get(name)

    def all_gather(self, text: str) -> list[str]:
        """Returns the text of each process. All call it, in the same order."""
        name = f"gathered/{next(_state.calls)}"
        self.put(f"{name}/{self.index}", text)
        texts = []
        if self.index == 0:
            texts = [self.get(f"{name}/{each}") for each in range(self.count)]
        return json.loads(self.broadcast(json.dumps(texts)))


_state = SimpleNamespace(
    runtime=None,
    calls=itertools.count(),
    directories=None,
    abandoned=None,
    new=False,
)


def current() -> Runtime | None:
    """Returns the connection of this process; None where it is the only one."""
    return _state.runtime


def several() -> bool:
    """Returns whether this process is one of several of a run.

    >>> several()
    False
    """
    return _state.runtime is not None


def is_first() -> bool:
    """Returns whether this is process 0, which prints and writes, or the only one.

    >>> is_first()
    True
    """
    return _state.runtime is None or _state.runtime.index == 0


def use_instead(private: str, out: str) -> None:
    """Makes a private directory that of this process, in place of the run's."""
    _state.directories = Path(private).absolute(), Path(out).absolute()


def shared(path: Path) -> Path:
    """Returns where all processes have a file, of which this one was given its own.

    >>> shared(Path("/runs/a/checkpoints")).as_posix()
    '/runs/a/checkpoints'
    """
    if _state.directories is None:
        return path
    private, out = _state.directories
    return out / path.relative_to(private) if path.is_relative_to(private) else path


def is_new() -> bool:
    """Returns whether this is called for the first time since the connection."""
    new, _state.new = _state.new, False
    return new


def connect(address: str, count: int | None, index: int | None) -> Runtime:
    """Connects this process to the coordinator, which process 0 starts.

    Args:
      address: `HOST:PORT`, or `auto` for what JAX finds of SLURM, Kubernetes or Open
        MPI.
      count: The number of processes; None for `auto`.
      index: The number of this process; None for `auto`.

    Raises:
      InputError: There is no cluster, or not all processes connected in 30 seconds.
    """
    import jax

    if _state.runtime is not None:
        raise InputError("coordinator: this process has joined a run already")
    # A lost process ends the others by `watch`, and signals stop a run by `signals`.
    jax.config.update("jax_enable_recoverability", True)
    jax.config.update("jax_enable_preemption_service", False)
    given = None if address == AUTO else address
    errors: list[BaseException | None] = []

    def initialize() -> None:
        try:
            jax.distributed.initialize(
                given,
                count,
                index,
                # None would ask a cluster, which knows nothing of these processes.
                cluster_detection_method="deactivate" if given else None,
                initialization_timeout=_NEVER,
                heartbeat_timeout_seconds=_NEVER,
                shutdown_timeout_seconds=ANSWER,
            )
            errors.append(None)
        except BaseException as error:
            errors.append(error)

    # Beside the main thread, since it can be neither interrupted nor ended.
    thread = threading.Thread(target=initialize, daemon=True)
    thread.start()
    thread.join(ANSWER)
    state = jax._src.distributed.global_state  # as Orbax does; JAX has no other way
    address = state.coordinator_address or address
    if not errors or errors[0] is not None:
        state.client = state.service = None  # nothing to shut down at the exit
        raise InputError(_reason(address, state, errors)) from None
    client, index, count = state.client, state.process_id, state.num_processes
    _state.runtime = Runtime(client, index, count, address)
    _state.calls, _state.new = itertools.count(), True
    return _state.runtime


def _reason(address: str, state: Any, errors: list[BaseException | None]) -> str:
    """Returns why this process could not connect, and what to do."""
    if errors and address == AUTO:
        text = " ".join(str(errors[0]).split())
        if "should be defined" in text or "must be defined" in text:
            text = "neither SLURM, Kubernetes nor Open MPI has started this process"
        return (
            f"coordinator: auto: {text}; give coordinator=HOST:PORT, processes=N and "
            "process=I"
        )
    if errors:
        text = " ".join(str(errors[0]).split())
        return f"coordinator: {address}: {text}; choose another port"
    others = f"{state.num_processes} processes have not all connected"
    if state.process_id == 0:
        return (
            f"coordinator: {address}: {others} within {ANSWER} s; start all of them "
            "at the same time, with this address, and let its port through firewalls"
        )
    return (
        f"coordinator: {address}: {_what_answers(address) or others} within {ANSWER} "
        "s; start process=0 on that host at the same time as the others, and check "
        "host, port and firewalls"
    )


def _what_answers(address: str) -> str:
    """Returns what is wrong with an address; empty if somebody answers there."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2.0).close()
    except socket.gaierror:
        return f"no host {host!r} is known"
    except OSError as error:
        return f"the coordinator does not answer ({error.strerror or error})"
    return ""


def disconnect() -> None:
    """Ends the connection; process 0 waits until the others have ended theirs."""
    import jax

    if _state.runtime.index == 0:
        _wait_until_gone(_state.runtime)
    else:
        _state.runtime.put(f"gone/{_state.runtime.index}", "")
    _forget()
    jax.distributed.shutdown()


def _wait_until_gone(runtime: Runtime) -> None:
    """Waits until the others have disconnected, who are lost without a coordinator."""
    start = time.monotonic()
    while len(runtime.below("gone")) < runtime.count - 1:
        if time.monotonic() - start > ANSWER:
            return
        time.sleep(0.05)
    time.sleep(0.2)  # they have said so just before


def _forget() -> None:
    _state.runtime = _state.directories = None


def abandon() -> None:
    """Leaves the connection as it is, since other processes may not answer."""
    import jax

    _forget()
    state = jax._src.distributed.global_state
    # Kept, since what ends the coordinator ends its clients, by SIGABRT.
    _state.abandoned = state.client, state.service
    state.client = state.service = None
