"""A thread that ends this process with one line when another one is lost.

Every process gives a sign of life to the coordinator every two seconds, and looks who
has ended. Where process 0 itself is lost, XLA aborts the others at once; a handler of
SIGABRT then prints the line.
"""

import contextlib
import ctypes
import signal
import threading
import time
from collections.abc import Callable

from ffnlab import signals
from ffnlab.processes.runtime import Runtime

LOST = 3  # the exit code
_PERIOD = 2.0  # seconds between two signs of life
_SILENCE = 60.0  # seconds without one, after which a process is lost
_SUSPECTED = 10.0  # the same, after a failure of what processes exchange
_OWN = 3.0  # seconds until this process ends by itself, if it does
_ENDING = 60.0  # seconds that this takes at most
FINISHED = "finished"


class Watch:
    """Signs of life of this process, and what it does when another one ends.

    Args:
      runtime: The connection.
      out: The run directory.
      release: A function that is called before the process ends.
    """

    def __init__(self, runtime: Runtime, out: str, release: Callable[[], None]):
        self._runtime, self._out, self._release = runtime, out, release
        self._stopped, self._suspicion = threading.Event(), threading.Event()
        self._ended: dict[int, str] = {}
        self._beats: dict[int, tuple[str, float]] = {}
        self._handler = _HANDLER(self._aborted)
        self._before = _set_handler(ctypes.cast(self._handler, ctypes.c_void_p))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def report(self, text: str) -> None:
        """Says how this process ends, and stops watching.

        Args:
          text: One line, or `FINISHED`.
        """
        self._stopped.set()
        with contextlib.suppress(Exception):
            self._runtime.put(f"ended/{self._runtime.index}", text)

    def wait_for_all(self, seconds: float | None = None) -> None:
        """Waits until all processes have said how they end."""
        start = time.monotonic()
        while seconds is None or time.monotonic() - start < seconds:
            if len(self._runtime.below("ended")) == self._runtime.count:
                return
            time.sleep(0.05)

    def suspect(self) -> None:
        """Waits whether another process is lost, after arrays could not be exchanged.

        The process then ends here. It returns if none is.
        """
        self._suspicion.set()
        with contextlib.suppress(Exception):
            self._runtime.put("suspected/0", "")
        self._stopped.wait(_SUSPECTED + 5 * _PERIOD)

    def close(self) -> None:
        """Gives SIGABRT back, after the connection has ended."""
        _set_handler(self._before)

    def _run(self) -> None:
        """Gives signs of life until the process ends or another one has."""
        beat, failing = 0, None
        while not self._stopped.wait(_PERIOD):
            beat += 1
            try:
                self._runtime.put(f"alive/{self._runtime.index}", str(beat))
                if self._runtime.index == 0:
                    self._find_lost()
                ended = self._runtime.below("ended")
                failing = None
            except Exception:  # of C++, of many kinds
                failing = failing or time.monotonic()
                if time.monotonic() - failing > _SILENCE:
                    self._end(0, f"does not answer at {self._runtime.address}")
                continue
            ended.pop(self._runtime.index, None)
            for index, text in sorted(ended.items()):
                if text != FINISHED:
                    self._end(index, text)

    def _find_lost(self) -> None:
        """Says of processes without a sign of life that they are lost; process 0's."""
        now, signs = time.monotonic(), self._runtime.below("alive")
        suspected = self._suspicion.is_set() or self._runtime.below("suspected")
        limit = _SUSPECTED if suspected else _SILENCE
        ended = self._runtime.below("ended")
        for index in range(1, self._runtime.count):
            sign = signs.get(index, "")
            before, since = self._beats.get(index, (None, now))
            if sign != before:
                self._beats[index] = (sign, now)
            elif now - since > limit and index not in ended:
                self._runtime.put(f"ended/{index}", f"gave no sign for {limit:.0f} s")

    def _end(self, index: int, text: str) -> None:
        """Ends this process because of another one, unless it ends by itself."""
        if self._stopped.wait(_OWN):
            return
        self._leave(f"process {index} {text}")

    def _leave(self, reason: str) -> None:
        with contextlib.suppress(Exception):
            self._release()
        signals.end_with(
            LOST,
            f"error: process {self._runtime.index} stops: {reason}; "
            f"--flagfile={self._out}/flags --out={self._out} --resume continues from "
            "the last checkpoint, with any number of processes",
        )

    def _aborted(self, number: int) -> None:
        """Handles SIGABRT, by which XLA ends the process; it must not return."""
        if self._stopped.wait(_OWN):  # the process ends by itself, as others have
            time.sleep(_ENDING)
        self._leave("process 0, the coordinator, was lost, or XLA aborted this process")


_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)


def _set_handler(handler: ctypes.c_void_p | int | None) -> int | None:
    """Makes a function of C, or the default, the handler of SIGABRT.

    Python's own handlers run when the function of C has returned, which is too late.

    Returns:
      The handler of before.
    """
    library = ctypes.CDLL(None)
    library.signal.restype = ctypes.c_void_p
    library.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    return library.signal(signal.SIGABRT, handler)
