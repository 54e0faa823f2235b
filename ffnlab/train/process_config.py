"""Flags that make a process one of several of a run; nothing here imports JAX."""

import dataclasses
import re

from ffnlab.errors import InputError
from ffnlab.options import RunOptions, option
from ffnlab.processes.runtime import AUTO


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessOptions(RunOptions):
    """Several processes, on one machine or on many."""

    coordinator: str | None = option(
        None,
        "Address of process 0, HOST:PORT, the same in all processes, or auto for what "
        "SLURM, Kubernetes or Open MPI set. Without it there is one process.",
    )
    processes: int | None = option(None, "Number of processes.", least=1)
    process: int | None = option(None, "Number of this process, from 0.", least=0)

    def __post_init__(self):
        super().__post_init__()
        given = [
            name for name in ("processes", "process") if getattr(self, name) is not None
        ]
        if self.coordinator is None:
            if given:
                raise InputError(
                    f"{given[0]}: only for several processes, which need coordinator="
                    "HOST:PORT or coordinator=auto"
                )
            return
        if self.coordinator == AUTO and given:
            raise InputError(
                f"{given[0]}: coordinator=auto takes it from the cluster; leave it "
                "out, or give coordinator=HOST:PORT"
            )
        if self.coordinator != AUTO:
            self._check_address(given)
        if not self.out:
            raise InputError(
                "out: several processes need out=DIRECTORY, one that all of them see"
            )

    def _check_address(self, given: list[str]) -> None:
        """Raises unless the address can be one, and both numbers are given."""
        host, _, port = self.coordinator.rpartition(":")
        number = int(port) if re.fullmatch(r"[0-9]{1,5}", port) else 0
        if not host or not 0 < number < 2**16 or re.search(r"[\s/]", host):
            raise InputError(
                f"coordinator: {self.coordinator!r} should be HOST:PORT, with a port "
                "from 1 to 65535, or auto"
            )
        missing = {"processes", "process"} - set(given)
        if missing:
            name = "processes" if "processes" in missing else "process"
            raise InputError(
                f"{name}: coordinator=HOST:PORT needs processes=N, how many there are, "
                "and process=I, which of them this is, from 0"
            )
        if self.process >= self.processes:
            raise InputError(
                f"process: {self.process} should be below processes={self.processes}; "
                "processes count from 0"
            )
