import dataclasses
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import launch
from ffnlab import signals
from ffnlab.errors import InputError
from ffnlab.options import option
from ffnlab.report import run_directory
from tests.conftest import ROOT
from tests.test_flag_parsing import Config
from tests.test_signals import SIGNALS


def test_help_shows_every_flag_with_its_default():
    text = launch.usage(Config, "What it does.")
    assert text.startswith("What it does.")
    for line in ("--name=a", "--rates=0.1", "--length=\n", "--loud=false", "a count"):
        assert line in text
    for help_text in (
        "a name (one of a, beta)",
        "a count (integer, at least 1 and below 10)",
        "some rates (comma-separated numbers, above 0)",
        "whether (true or false)",
    ):
        assert help_text in text


def test_flags_stand_under_the_class_that_defines_them():
    @dataclasses.dataclass(frozen=True)
    class Middle(Config):
        """Nothing of its own."""

    @dataclasses.dataclass(frozen=True)
    class Own(Middle):
        """The launcher's own flags.

        More of the docstring.
        """

        mine: int = option(1, "my own")
        count: int = option(5, "another default")

    text = launch.usage(Own, "What it does.", {"short": {"count": 2}})
    lines = [line for line in text.splitlines() if line and line[:6] != " " * 6]
    assert lines == [
        "What it does.",
        "The launcher's own flags:",
        "  --count=5",
        "  --mine=1",
        "Everything: what it takes:",
        "  --name=a",
        "  --rates=0.1",
        "  --length=",
        "  --loud=false",
        "  --text=",
        "Presets and files:",
        "  --short",
        "  --flagfile=",
        "Environment variables:",
        "Exit codes:",
    ]
    assert "      --count=2" in text.splitlines()
    assert "129, 130 and 143: stopped by" in " ".join(text.split())


def test_a_launcher_that_compiles_nothing_says_nothing_of_programs():
    text = launch.usage(Config, "What it does.", compiles=False)
    assert "CACHE" not in text and "FFNLAB_CACHE_DIR" in launch.usage(Config, "What?")


def test_only_a_run_that_compiles_keeps_programs(monkeypatch):
    calls = []
    monkeypatch.setattr(launch.compilation_cache, "enable", lambda: calls.append(1))
    for flags, compiles, length in [
        (["--help"], True, 0),
        ([], False, 0),
        ([], True, 1),
    ]:
        monkeypatch.setattr("sys.argv", ["program", *flags])
        launch.main(Config, lambda config: None, "What it does.", compiles=compiles)
        assert len(calls) == length


def test_input_errors_exit_with_2(monkeypatch, capsys):
    def run(config):
        raise InputError(f"{config.name} cannot be used")

    monkeypatch.setattr("sys.argv", ["program"])
    with pytest.raises(SystemExit) as caught:
        launch.main(Config, run, "What it does.")
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: a cannot be used\n"


@pytest.mark.parametrize("resume", [False, None])
def test_interrupts_say_how_to_continue(monkeypatch, capsys, tmp_path, resume):
    def run(config):
        with run_directory.open_run(tmp_path / "o o", config, resume):
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.argv", ["program"])
    with pytest.raises(SystemExit) as caught:
        launch.main(Config, run, "What it does.")
    assert caught.value.code == 130
    out = tmp_path / "o o"
    how = f"; to continue: '--flagfile={out}/flags' '--out={out}' --resume"
    wanted = "interrupted" + (how if resume is False else "") + "\n"
    assert capsys.readouterr().err == wanted


def end(monkeypatch, capsys, error, *flags):
    """Returns the exit code and the message of a launcher that raises an error."""

    def run(config):
        raise error

    monkeypatch.setattr("sys.argv", ["program", *flags])
    with pytest.raises(SystemExit) as caught:
        launch.main(Config, run, "What it does.")
    return caught.value.code, capsys.readouterr().err


def full(code, path=None):
    return OSError(code, os.strerror(code), path)


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (
            full(errno.ENOSPC, "runs/a/flags.part"),
            "--text: runs/a/flags.part: No space left on device; make room on the disk",
        ),
        (
            full(errno.EROFS, "a\n\x1b[31mb\udcff"),
            r"a\n\x1b[31mb\udcff: Read-only file system; name a path on a disk that "
            "can be written to",
        ),
        (
            full(errno.EISDIR, Path("runs/ab")),
            "runs/ab: Is a directory; name another path",
        ),
        (
            full(errno.EFBIG),
            "standard output or a file: File too large; raise the limit of the size of "
            "files (ulimit -f)",
        ),
        (
            ValueError('RESOURCE_EXHAUSTED: "/c/d"\n: No space left on device [28]'),
            "/c/d: No space left on device; make room on the disk",
        ),
        (MemoryError(), "out of memory: ask for less"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating 9 bytes."),
            "out of memory: ask for less (RESOURCE_EXHAUSTED: Out of memory allocating "
            "9 bytes.)",
        ),
        (
            InputError("count: \x1b[2J\u202e\n2 lines"),
            "--count: \\x1b[2J\\u202e\n2 lines",
        ),
    ],
)
def test_what_the_user_can_mend_is_one_line(monkeypatch, capsys, error, wanted):
    got = end(monkeypatch, capsys, error, "--text=runs/a")
    assert got == (2, f"error: {wanted}\n")


@pytest.mark.parametrize(
    ("error", "start", "finish"),
    [
        (
            InputError(f"count: {'a' * 300_000!r} is unknown; known: b"),
            "error: --count: 'aaa",
            "aaa' is unknown; known: b\n",
        ),
        (InputError("b" * 300_000), "error: bbb", "bbb\n"),
        (InputError("\x1b" * 300_000), "error: \\x1b", "\\x1b\n"),
        (full(errno.EROFS, "c" * 300_000), "error: ccc", "can be written to\n"),
        (RuntimeError("RESOURCE_EXHAUSTED" + "d" * 5_000), "error: out", "ddd)\n"),
    ],
)
def test_long_messages_are_shortened(monkeypatch, capsys, error, start, finish):
    code, message = end(monkeypatch, capsys, error)
    assert code == 2 and len(message) <= 1001 and "…" in message
    assert message.startswith(start) and message.endswith(finish)


def test_each_line_of_several_problems_is_shortened(monkeypatch, capsys):
    error = InputError("\n".join(["1 problem"] + ["a" * 5_000] * 20))
    lines = end(monkeypatch, capsys, error)[1].splitlines()
    assert [len(line) for line in lines] == [16] + [1000] * 20


def test_the_command_that_continues_stays_whole(monkeypatch, capsys):
    error = full(errno.ENOSPC, "a" * 5_000)
    error.add_note("to continue: '--out=" + "b" * 2_000 + "\x1b'")
    message = end(monkeypatch, capsys, error)[1]
    assert message.endswith("; to continue: '--out=" + "b" * 2_000 + "\\x1b'\n")
    assert len(message) < 3_100


@pytest.mark.parametrize("resume", [False, None])
def test_a_full_disk_says_how_to_continue(monkeypatch, capsys, tmp_path, resume):
    with (
        pytest.raises(OSError) as caught,
        run_directory.open_run(tmp_path / "o", Config(), resume) as out,
    ):
        raise full(errno.ENOSPC, out / "results.jsonl")
    code, message = end(monkeypatch, capsys, caught.value)
    assert code == 2 and message.count("\n") == 1
    assert message.startswith(f"error: {out}/results.jsonl: No space left on device; ")
    assert ("; to continue: " in message) == (resume is False)


@pytest.mark.parametrize("cause", [None, full(errno.ENOSPC, "1")])
def test_a_checkpoint_without_room_says_how_to_continue(monkeypatch, capsys, cause):
    error = InputError("1: the checkpoint cannot be written; make room, and resume")
    error.__cause__ = cause
    error.add_note("to continue: --resume")
    code, message = end(monkeypatch, capsys, error)
    assert code == 2 and message.startswith("error: 1: the checkpoint")
    assert message.endswith("; to continue: --resume\n") == (cause is not None)


@SIGNALS
def test_a_signal_has_its_own_code(monkeypatch, capsys, number, code):
    stopped = signals.Stopped(number)
    message = f"interrupted by {number.name}\n"
    assert end(monkeypatch, capsys, stopped) == (code, message)
    # What a module of C++ makes of a signal while it is imported.
    monkeypatch.setattr(signals._state, "received", number)
    assert end(monkeypatch, capsys, ImportError("failed")) == (code, message)


def test_an_unexpected_error_is_raised(monkeypatch, capsys):
    for error in (RuntimeError("something else"), OSError("no number and no path")):
        with pytest.raises(type(error), match=str(error)):
            end(monkeypatch, capsys, error)


PRINTS = """
from dataclasses import dataclass
from experiments import launch
from ffnlab.options import option
@dataclass(frozen=True)
class Config:
    "Flags."
    name: str = option("a", "a name")
launch.main(Config, print, "")
"""


def run_into(descriptor, arguments, **environment):
    """Runs a program that writes to a descriptor, through Python's buffer."""
    buffered = {**os.environ, "PYTHONUNBUFFERED": "", "PYTHONPATH": str(ROOT)}
    buffered |= environment
    try:
        return subprocess.run(
            arguments,
            stdout=descriptor,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=buffered,
        )
    finally:
        os.close(descriptor)


def test_a_pipe_that_nobody_reads_ends_quietly(monkeypatch, capsys):
    assert end(monkeypatch, capsys, BrokenPipeError()) == (141, "")
    read, write = os.pipe()
    os.close(read)
    module = [sys.executable, "-m", "experiments.compare"]
    done = run_into(write, [*module, "--help"])
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_standard_output_that_is_full_is_one_line():
    descriptor = os.open("/dev/full", os.O_WRONLY)
    done = run_into(descriptor, [sys.executable, "-c", PRINTS])
    wanted = "error: standard output: No space left on device; make room on the disk\n"
    assert (done.returncode, done.stderr) == (2, wanted)


TABLE = r"""
from ffnlab.report.table import Table
import sys
def run(config):
    Table(["name", "\u0394"], [["\xe9", "\u22121"]]).show(config.name)
    print("\u0394", file=sys.stderr)
"""


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_any_text_is_printed_in_any_encoding(tmp_path, environment):
    program = TABLE + PRINTS.replace("print", "run").replace('"a"', r'"\u2211"')
    with open(tmp_path / "out", "wb") as file:
        arguments = [sys.executable, "-c", program]
        done = run_into(os.dup(file.fileno()), arguments, **environment)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out").read_text("latin-1").splitlines()
    assert "\\u2211" in lines[0] and "\\u0394" in lines[2]
    assert r"\u0394" in done.stderr
