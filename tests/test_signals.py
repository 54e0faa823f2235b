import os
import signal
import subprocess
import sys
import time

import pytest

from ffnlab import signals
from tests.conftest import ROOT

SIGNALS = pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)


@pytest.fixture
def handlers(monkeypatch):
    """The handlers of the process, without the thread that ends it."""
    before = {number: signal.getsignal(number) for number in signals.NUMBERS}
    alarm = signal.getsignal(signal.SIGALRM)
    fresh = {"installed": False, "exits": False, "received": None, "deferred": 0}
    for name, value in {**fresh, "code": None}.items():
        monkeypatch.setattr(signals._state, name, value)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(signals._thread, "start_new_thread", lambda *_: None)
    monkeypatch.setattr(signals.atexit, "register", lambda _: None)
    for number in signals.NUMBERS:
        signal.signal(number, signal.default_int_handler)
    signals.install()
    yield
    os.close(signal.set_wakeup_fd(-1))
    for number, handler in {**before, signal.SIGALRM: alarm}.items():
        signal.signal(number, handler)


@SIGNALS
def test_a_signal_raises(handlers, number, code):
    with pytest.raises(signals.Stopped, match=number.name) as caught:
        signal.raise_signal(number)
    assert caught.value.number == signals.pending() == number


def test_a_signal_waits_for_the_outermost_block(handlers):
    steps = []
    with pytest.raises(signals.Stopped), signals.deferred():
        with signals.deferred():
            signal.raise_signal(signal.SIGTERM)
            steps.append(signals.pending())
        steps.append("saved")
    assert steps == [signal.SIGTERM, "saved"]


def test_an_error_in_the_block_is_not_hidden_by_a_signal(handlers):
    with pytest.raises(OSError, match="full"), signals.deferred():
        signal.raise_signal(signal.SIGINT)
        raise OSError("full")
    # The next block stops the run: a stop that a library swallowed is not lost.
    with pytest.raises(signals.Stopped), signals.deferred():
        pass


def test_nothing_is_deferred_without_handlers():
    with signals.deferred():
        assert signals.pending() is None
    with pytest.raises(KeyboardInterrupt), signals.deferred():
        raise KeyboardInterrupt


def test_an_ignored_signal_stays_ignored(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals._state.installed = False
    os.close(signal.set_wakeup_fd(-1))
    signals.install()
    signal.raise_signal(signal.SIGHUP)
    assert signals.pending() is None


def test_an_import_is_finished_first(handlers, tmp_path, monkeypatch):
    text = "import signal\nsignal.raise_signal(signal.SIGINT)\ndone = True\n"
    (tmp_path / "imported_module.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(signals.Stopped):
        import imported_module

        assert imported_module.done
        time.sleep(10)
    del sys.modules["imported_module"]


def test_a_stop_that_cannot_be_raised_is_raised_later(handlers):
    class Closing:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(signals.Stopped):
        closing = Closing()
        del closing
        time.sleep(10)


def start(program, wrapper=(), **environment):
    """Starts a program for which no signal is ignored, as the child of a wrapper."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [*wrapper, sys.executable, *map(str, program)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
    finally:
        signal.signal(signal.SIGINT, old)


def end(process):
    """Returns the exit code of a process and what it wrote to standard error."""
    try:
        error = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    return process.returncode, error


# A long call of C, in which no handler of Python runs.
BUSY = """
import hashlib
from ffnlab import signals
signals.install()
with signals.deferred():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""


def test_a_second_signal_ends_the_process_whatever_it_does():
    process = start(["-c", BUSY])
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    line = "stopping after these steps; a second signal stops at once\n"
    assert process.stderr.readline() == line
    process.send_signal(signal.SIGINT)  # as `timeout` does; it counts as the first
    time.sleep(2 * signals._TOGETHER)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert end(process) == (143, "interrupted by SIGTERM\n")


# A thread that waits for ever, as one of a library does after a save that failed.
WAITING = """
import sys, threading
from ffnlab import signals
from experiments import launch
class Config: pass
def run(config):
    threading.Thread(target=threading.Event().wait).start()
    raise {}
signals.install()
launch.parse = lambda *_: Config()
launch.main(Config, run, "")
"""


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        ("OSError(28, 'No space', 'a')", 2, "error: a: No space; make room on the"),
        ("RuntimeError('unexpected')", 1, "RuntimeError: unexpected"),
    ],
)
def test_an_error_ends_the_process_whatever_its_threads_do(error, code, line):
    ended, text = end(start(["-c", WAITING.format(error)]))
    assert (ended, line in text.splitlines()[-1]) == (code, True)


KILL = "import os, time\nos.kill(os.getpid(), {})\ntime.sleep({})\n"


@pytest.mark.parametrize(("module", "seconds"), [("textwrap", 60), ("jax", 0.2)])
def test_a_launcher_is_stopped_by_one_line_while_it_imports(tmp_path, module, seconds):
    """Imports textwrap before it can catch a signal, and jax after."""
    text = KILL.format(int(signal.SIGHUP), seconds)
    (tmp_path / f"{module}.py").write_text(text)
    process = start(
        ["-m", "experiments.pretrain", "--quick", f"--out={tmp_path / 'o'}"],
        PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]),
    )
    assert end(process) == (129, "interrupted by SIGHUP\n")


@pytest.mark.slow
@SIGNALS
def test_a_launcher_is_stopped_by_one_line_at_any_time(tmp_path, number, code):
    for delay in (0.5, 1.5, 4.0):
        out = tmp_path / str(delay)
        process = start(["-m", "experiments.compare", "--quick", f"--out={out}"])
        time.sleep(delay)
        process.send_signal(number)
        got, error = end(process)
        assert got == code
        lines = [line for line in error.splitlines() if "elapsed" not in line]
        assert lines[-1].startswith(f"interrupted by {number.name}")
        assert (out / "flags").exists() == ("; to continue: " in lines[-1])
        assert set(lines[:-1]) <= {
            "stopping after these steps; a second signal stops at once"
        }


INTERRUPTED_MESSAGE = """
import signal, sys
from ffnlab import signals

class Stream:
    def write(self, text):
        sys.__stderr__.write(text)
        sys.__stderr__.flush()
        signal.raise_signal(signal.SIGALRM)  # tries the stop again

    def flush(self):
        pass

signals.install(exits=True)
signals.receive(signal.SIGHUP)
sys.stderr = Stream()
signals.leave(129, "interrupted by SIGHUP")
"""


def test_a_stop_that_is_tried_again_prints_no_second_line():
    """An alarm that comes while the message of a launcher is printed."""
    assert end(start(["-c", INTERRUPTED_MESSAGE])) == (129, "interrupted by SIGHUP\n")
