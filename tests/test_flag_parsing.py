import dataclasses
import os
import time
from pathlib import Path

import pytest

from experiments import flag_parsing
from ffnlab import options
from ffnlab.errors import InputError
from ffnlab.options import option


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
    return flag_parsing.parse(Config, ["program", *flags], **options)


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
    assert flag_parsing.parse(Prompt, given).prompt == text


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
        ("stray", "'stray' is not a flag"),
        ("--flagfile=/no/such/file", "file"),
        ("--nmae=a", "unknown flag '--nmae'; nearest: --name"),
        ("--name", "--name needs a value"),
        ("--loud=maybe", "--loud=maybe: neither true nor false: 'maybe'"),
        ("--noloud=true", "--noloud=true does not take an argument"),
        ("--flagfile", "--flagfile needs a value"),
        (f"--{'a' * 100_000}", "unknown flag '--aaa"),
        (f"--count={'9' * 10_000}", "999: not a number"),
        (f"--flagfile={'a' * 300}", "File name too long"),
        ("--flagfile=a\0b", "'a\\x00b' is no name of a file"),
        ("--flagfile=\ud800", "is no name of a file"),
        ("--flagfile=", "'' cannot be read: No such file or directory"),
        ("--text=a\udcffb", r"--text: 'a\udcffb' is not UTF-8"),
        ('--text="a\\u0000b"', r"--text: 'a\x00b' holds a NUL byte"),
    ],
)
def test_wrong_flags_are_named(flag, message):
    with pytest.raises(InputError) as caught:
        parse(flag)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_may_be_words_of_their_own():
    given = parse("--count", "4", "-name", "beta", "--loud", "--text", "--", "--")
    assert given == Config("beta", 4, loud=True, text="--")
    assert parse("--count=0x7", "--loud=T", "--loud=0") == Config(count=7, loud=False)
    with pytest.raises(InputError, match="^'--count=5' is not a flag"):
        parse("--count=4", "--", "--count=5")


def test_flag_files_may_have_comments_and_name_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("below").mkdir()
    Path("first").write_bytes(
        b"# --count=9\r\n\n // what\r\n  --flagfile=below/second\n"
    )
    Path("below/second").write_text("--count=4\n--text\na b\n--flagfile=third\n")
    Path("third").write_text("--loud")  # is relative to the working directory
    assert parse("--flagfile", "first") == Config(count=4, text="a b", loud=True)
    assert parse("--flagfile=first", "--flagfile=first", "--count=5").count == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("--nmae=a", ":1: unknown flag '--nmae'; nearest: --name (--help"),
        ("\n#\n--count=many", ":3: --count=many: not a number: 'many'"),
        ("--loud\n--count=0\n", ":2: --count: 0 should be a number"),
        ("--loud\nstray", ":2: 'stray' is not a flag"),
        ('--text="\\u0000"', r":1: --text: '\x00' holds a NUL byte"),
        ("--loud\n--flagfile=PATH", ":2: --flagfile: 'PATH' includes itself"),
        ("--flagfile=none", ":1: --flagfile: 'none' cannot be read: No such file"),
        (b"--loud\n--text=\xff", "--flagfile: 'PATH': line 2 is not UTF-8"),
        (b"\n\n\0", "--flagfile: 'PATH': line 3 holds a NUL byte"),
        ("--loud\n" * 10_000, "--flagfile: 'PATH' is too long"),
        ("--flagfile=b\n" * 100, "b' is too long: flag files may have 64 KiB"),
    ],
)
def test_wrong_flag_files_are_named(content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("b").write_text("--loud\n" * 1_000)
    content = content if isinstance(content, bytes) else content.encode()
    Path("PATH").write_bytes(content)
    with pytest.raises(InputError) as caught:
        parse("--flagfile=PATH")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_flag_files_are_regular_files_20_deep_at_most(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(InputError, match="is not a regular file"):
            parse(f"--flagfile={path}")
    for number in range(1_500):
        (tmp_path / str(number)).write_text(f"--flagfile={tmp_path / str(number + 1)}")
    (tmp_path / "1500").write_text("--count=7")
    assert parse(f"--flagfile={tmp_path / '1481'}").count == 7
    with pytest.raises(InputError, match="/1500' is more than 20 flag files deep"):
        parse(f"--flagfile={tmp_path / '1480'}")
    with pytest.raises(InputError, match="/20' is more than 20 flag files deep"):
        parse(f"--flagfile={tmp_path / '0'}")


def test_a_long_flag_file_is_read_in_seconds(tmp_path):
    (tmp_path / "flags").write_text("--count=4\n" * 6_500)
    start = time.monotonic()
    assert parse(f"--flagfile={tmp_path / 'flags'}").count == 4
    assert time.monotonic() - start < 10


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
    assert flag_parsing.with_flags(message, Config) == wanted
