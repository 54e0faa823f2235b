"""Signals that stop a run: raised where the run can stop, at once the second time.

`install` handles SIGINT, SIGTERM and SIGHUP. The first of them raises `Stopped` in the
main thread, inside `deferred` at the end of the block, so that a training finishes its
steps and saves. The second ends the process, also while the main thread is compiling.
Without `install`, for instance in a notebook, nothing of this happens.
"""

import _thread
import atexit
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType, SimpleNamespace
from typing import Any, NoReturn

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# `timeout` and wrappers of commands send a signal twice; both together are one.
_TOGETHER = 0.1  # seconds
_AGAIN = 0.05  # seconds until a stop that must wait is tried again
_FLUSH = 0.5  # seconds at most to flush when the process ends at once

_state = SimpleNamespace(
    installed=False, exits=False, received=None, deferred=0, code=None, stderr=2
)


class Stopped(KeyboardInterrupt):
    """A signal stops the run; a note (PEP 678) may say how to continue it.

    It is a KeyboardInterrupt for all three signals, since libraries such as asyncio
    let that pass.

    Attributes:
      number: The number of the signal.
    """

    def __init__(self, number: int):
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number


def install(exits: bool = False) -> None:
    """Handles the three signals from now on; outside the main thread it does nothing.

    A signal that is ignored, such as SIGHUP under `nohup`, stays ignored.

    Args:
      exits: See `end_at_once`.
    """
    if _state.installed:
        return
    try:
        signal.signal(signal.SIGALRM, _handle)
    except ValueError:  # not in the main thread
        return
    for number in NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    _thread.start_new_thread(_watch, (read,))
    atexit.register(_exit)
    sys.unraisablehook = _Unraisable(sys.unraisablehook)
    _state.installed, _state.exits = True, exits


def end_at_once(exits: bool) -> None:
    """Chooses what the first signal does from now on, if `install` was called.

    Args:
      exits: Whether it ends the process at once, which is right while nobody would
        catch `Stopped`; otherwise it raises `Stopped`.
    """
    _state.exits = exits


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Defers the first signal until the block has ended; blocks may be nested.

    An error in the block is raised in place of the signal.

    Raises:
      Stopped: A signal was received.

    >>> with deferred():
    ...     pending() is None  # save the run before the block ends if it is not
    True
    """
    _state.deferred += 1
    try:
        yield
    finally:
        _state.deferred -= 1
    if pending() and not _state.deferred:
        raise Stopped(_state.received)


def pending() -> int | None:
    """Returns the number of the signal that was received, or None."""
    return _state.received


def receive(number: int) -> None:
    """Counts a signal that another process of the run has received as one of this.

    Inside `deferred`, it is raised at the end of the block.
    """
    _state.received = _state.received or number


def print_to(descriptor: int) -> None:
    """Chooses where lines about signals are written, in place of descriptor 2."""
    _state.stderr = descriptor


def installed() -> bool:
    """Returns whether `install` was called in the main thread."""
    return _state.installed


def leave(code: int, message: str | None = None) -> NoReturn:
    """Ends the process with a code after Python's exit handlers.

    The first signal, which may be tried again, prints no other line from here on.

    Without `install`, SystemExit is raised. Otherwise threads are not waited for: one
    that a failed save has left may wait for ever, and what Python takes down while XLA
    still computes in another thread may crash, so that the code would be lost.

    Args:
      code: The exit code.
      message: What is printed to standard error before, if anything.
    """
    if _state.installed:
        _state.code = code
    if message:
        with contextlib.suppress(OSError):
            print(message, file=sys.stderr)
    if not _state.installed:
        sys.exit(code)
    atexit._run_exitfuncs()  # `_exit` is one of them, and does not return
    _end(code)


def _exit() -> None:
    if _state.code is not None:
        _end(_state.code)


def _handle(number: int, frame: FrameType | None) -> None:
    """Handles a signal, or the alarm that tries again what the signal could not do."""
    if number != signal.SIGALRM:
        if _state.received:
            return  # `_watch` ends the process
        _state.received = number
        if number == signal.SIGHUP:
            _drop_lost_terminal()
    if not _state.received or _state.deferred or _state.code is not None:
        return
    if _state.exits:
        _end_by(_state.received)
    if _imports(frame):
        _try_again()
    else:
        signal.setitimer(signal.ITIMER_REAL, 0)  # one is enough
        raise Stopped(_state.received)


def _imports(frame: FrameType | None) -> bool:
    """Returns whether a module is being imported, which an exception could break.

    Modules of C++ may abort, and others turn every exception into an ImportError.
    """
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _try_again() -> None:
    signal.setitimer(signal.ITIMER_REAL, _AGAIN)


class _Unraisable:
    """A hook for exceptions that cannot be raised: a stop is tried again."""

    def __init__(self, hook: Any):
        self._hook = hook

    def __call__(self, unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, Stopped):
            _try_again()
        else:
            self._hook(unraisable)


def _drop_lost_terminal() -> None:
    """Discards what is written to a terminal that is gone, which would fail."""
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _watch(descriptor: int) -> None:
    """Ends the process at the second signal, whatever the main thread does.

    Args:
      descriptor: Where Python writes the number of every signal as a byte.
    """
    first = None
    while byte := os.read(descriptor, 1):
        if byte[0] not in NUMBERS:
            continue
        now = time.monotonic()
        if first is None:
            first = now
            if _state.deferred:
                _print("stopping after these steps; a second signal stops at once")
        elif now - first > _TOGETHER:
            _end_by(byte[0])


def _end_by(number: int) -> None:
    """Ends the process at once by a signal, after one line."""
    end_with(128 + number, f"interrupted by {signal.Signals(number).name}")


def end_with(code: int, line: str) -> NoReturn:
    """Ends the process at once, from any thread, after one line."""
    with contextlib.suppress(OSError):
        if os.isatty(_state.stderr):
            _print("\x1b[?25h", end="")  # a progress bar hides the cursor
    _print(line)
    _end(code)


def _end(code: int) -> None:
    """Ends the process at once."""
    flushed = _thread.allocate_lock()
    flushed.acquire()
    _thread.start_new_thread(_flush, (flushed,))  # the main thread may hold its lock
    flushed.acquire(timeout=_FLUSH)
    os._exit(code)


def _print(line: str, end: str = "\n") -> None:
    """Writes to standard error past Python's buffer, which may be locked."""
    with contextlib.suppress(OSError):
        os.write(_state.stderr, (line + end).encode())


def _flush(flushed: Any) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    flushed.release()
