import dataclasses

import pytest

from experiments import launch
from ffnlab import data, options
from ffnlab.errors import InputError
from ffnlab.nn import ffn
from ffnlab.options import option
from ffnlab.report import run_directory


@dataclasses.dataclass(frozen=True)
class Config:
    name: str = option("a", "a name", known=lambda: ("a", "beta"))
    count: int = option(3, "a count", least=1, below=10)
    rates: tuple[float, ...] = option((0.1,), "some rates", above=0)
    length: int | None = option(None, "a length", least=1)
    loud: bool = option(False, "whether")

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
        ("--rates=1,1", "--rates: 1.0,1.0 has one of them twice"),
        ("--rates=a", "--rates=a: not a number: 'a'"),
        ("--nmae=a", "name"),
        ("stray", "'stray' is not a flag"),
        ("--flagfile=/no/such/file", "file"),
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


def test_tables_are_read_without_importing():
    assert options.names_in("ffnlab.nn.ffn", "BLOCKS")() == list(ffn.BLOCKS)
    source = options.names_in("ffnlab.nn.ffn", "BLOCKS")
    import sys

    kept = sys.modules.pop("ffnlab.nn.ffn")
    try:
        assert source() == list(ffn.BLOCKS)
        assert "ffnlab.nn.ffn" not in sys.modules
    finally:
        sys.modules["ffnlab.nn.ffn"] = kept
    assert options.names_in("ffnlab.data.builtin", "DATASETS")() == list(data.DATASETS)


def test_input_errors_exit_with_2(monkeypatch, capsys):
    def run(config):
        raise InputError(f"{config.name} cannot be used")

    monkeypatch.setattr("sys.argv", ["program"])
    with pytest.raises(SystemExit) as caught:
        launch.main(Config, run, "What it does.")
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: a cannot be used\n"


@pytest.mark.parametrize("resume", [False, None])
def test_interrupts_say_how_to_go_on(monkeypatch, capsys, tmp_path, resume):
    def run(config):
        with run_directory.open_run(tmp_path / "o", "", resume):
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.argv", ["program"])
    with pytest.raises(SystemExit) as caught:
        launch.main(Config, run, "What it does.")
    assert caught.value.code == 130
    out = tmp_path / "o"
    how = f"; to go on: --flagfile={out}/flags --out={out} --resume"
    wanted = "interrupted" + (how if resume is False else "") + "\n"
    assert capsys.readouterr().err == wanted


def test_running_out_of_memory_is_one_line(monkeypatch, capsys):
    def run(config):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    def fail(config):
        raise RuntimeError("something else")

    monkeypatch.setattr("sys.argv", ["program"])
    with pytest.raises(SystemExit) as caught:
        launch.main(Config, run, "What it does.")
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("error: out of memory: ask for less")
    with pytest.raises(RuntimeError, match="something else"):
        launch.main(Config, fail, "What it does.")
