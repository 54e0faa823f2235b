import dataclasses
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import launch
from ffnlab import options, signals
from ffnlab.errors import InputError
from ffnlab.options import option
from ffnlab.report import run_directory
from tests.conftest import ROOT
from tests.test_signals import SIGNALS


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything: what it takes."""

    RENAMED = {"max_length": "length", "noise": "loud"}  # noqa: RUF012

    name: str = option("a", "a name", known=lambda: ("a", "beta"))
    count: int = option(3, "a count", least=1, below=10)
    rates: tuple[float, ...] = option((0.1,), "some rates", above=0)
    length: int | None = option(None, "a length", least=1)
    loud: bool = option(False, "whether")
    text: str = option("", "a text")

    def __post_init__(self):
        options.check(self)


def parse(*flags, **options):
    return launch.parse(Config, ["program", *flags], **options)


def test_flags_become_a_config():
    got = parse("--name=beta", "--count=4", "--rates=1,2e-3", "--length=7", "--loud")
    assert got == Config("beta", 4, (1.0, 0.002), 7, True)
    assert parse() == Config()


def test_a_flag_file_gives_the_same_config(tmp_path):
    given = Config("beta", 4, (1.0, 0.002), None, True)
    (tmp_path / "flags").write_text(options.to_flags(given))
    assert parse(f"--flagfile={tmp_path / 'flags'}") == given
    assert parse(f"--flagfile={tmp_path / 'flags'}", "--count=5").count == 5
    assert "--count" not in options.to_flags(given, leave_out=["count"])


@pytest.mark.parametrize("text", ["def ", " a", "a\nb", '"a"', '"', "a,b", "ü"])
def test_a_flag_file_keeps_any_text(text, tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Prompt:
        prompt: str = option("", "a text")

    (tmp_path / "flags").write_text(options.to_flags(Prompt(text)), "utf-8")
    given = ["program", f"--flagfile={tmp_path / 'flags'}"]
    assert launch.parse(Prompt, given).prompt == text


def test_old_names_of_flags_work_on_the_command_line_and_in_a_file(tmp_path):
    assert parse("--max_length=7", "--noise") == Config(length=7, loud=True)
    assert parse("--max_length", "7").length == 7
    assert not parse("--nonoise").loud
    (tmp_path / "flags").write_text("--max_length=7\n--noise=true\n")
    file = f"--flagfile={tmp_path / 'flags'}"
    assert parse(file) == Config(length=7, loud=True)
    assert parse(file, "--length=8").length == 8
    with pytest.raises(InputError, match="^--length: 0 should be"):
        parse("--max_length=0")
    assert parse("--size=5", aliases={"size": "count"}).count == 5


def test_presets_yield_to_flags():
    presets = {"short": {"count": 9, "length": 2}}
    assert parse("--short", presets=presets) == Config(count=9, length=2)
    assert parse("--short", "--count=5", presets=presets).count == 5
    assert "--count=9 --length=2" in launch.usage(Config, "What.", presets)
    assert parse(presets=presets) == Config()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--name=bta", "--name: unknown 'bta'; nearest: beta"),
        ("--count=0", "--count: 0 should be a number at least 1 and below 10"),
        ("--count=10", "--count: 10 should be"),
        ("--count=many", "--count=many: not a number: 'many'"),
        ("--rates=nan", "--rates: nan should be a number above 0"),
        ("--rates=inf", "--rates: inf should be"),
        ("--rates=0", "--rates: 0.0 should be"),
        ("--rates=", "--rates: at least one is needed"),
        ("--rates=1,1", "--rates: 1.0,1.0 has an entry twice"),
        ("--rates=a", "--rates=a: not a number: 'a'"),
        ("--nmae=a", "name"),
        ("stray", "'stray' is not a flag"),
        ("--flagfile=/no/such/file", "file"),
        (f"--flagfile={'a' * 300}", "File name too long"),
        ("--text=a\udcffb", r"--text: 'a\udcffb' is not UTF-8"),
        ('--text="a\\u0000b"', r"--text: 'a\x00b' holds a NUL byte"),
    ],
)
def test_wrong_flags_are_named(flag, message):
    with pytest.raises(InputError) as caught:
        parse(flag)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


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
        "Exit codes:",
    ]
    assert "129, 130 and 143: stopped by" in " ".join(text.split())


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("count: 0 is too small", "--count: 0 is too small"),
        ("name, count and rates: give one", "--name, --count and --rates: give one"),
        ("count=3 needs length=5", "--count=3 needs --length=5"),
        ("the count and the name: none", "the count and the name: none"),
        ("length: count has its own length", "--length: count has its own length"),
        ("account=3, runs/count=3, --count=3", "account=3, runs/count=3, --count=3"),
        ("length = 3: count=", "length = 3: count="),
    ],
)
def test_errors_name_flags(message, wanted):
    assert launch.with_flags(message, Config) == wanted


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


def run_into(descriptor, arguments):
    """Runs a program that writes to a descriptor, through Python's buffer."""
    buffered = {**os.environ, "PYTHONUNBUFFERED": "", "PYTHONPATH": str(ROOT)}
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
