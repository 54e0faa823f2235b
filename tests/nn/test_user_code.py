"""Files that add blocks: executed before names are checked, and held to on resume."""

import subprocess
import sys

import pytest

from experiments import flag_parsing
from ffnlab import options
from ffnlab.errors import InputError
from ffnlab.finetune.config import Config as FinetuneConfig
from ffnlab.finetune.predict_files import PredictConfig
from ffnlab.nn import ffn, user_code
from ffnlab.pretrain.config import Config as PretrainConfig
from ffnlab.pretrain.swap_experiment import SwapConfig
from ffnlab.report import run_directory
from ffnlab.sweep.comparison_config import CompareConfig
from ffnlab.sweep.feedback_config import FeedbackCompareConfig
from tests.conftest import ROOT

NAME = "my_blocks.py"
FILE = """\
from ffnlab.nn import dense, register


def doubled(x, up, down, *, activation, between):
    hidden = between(2.0 * activation(dense(x, up)))
    return dense(hidden, down), {"hidden": hidden}


register("doubled", doubled)
"""


@pytest.fixture(autouse=True)
def tables(monkeypatch):
    """What a test adds is removed."""
    monkeypatch.setattr(user_code, "_LOADED", {})
    before = user_code._rows()
    yield
    user_code._restore(before)


def parse(config, *flags):
    return flag_parsing.parse(config, ["program", *flags])


def test_names_of_a_file_are_known_to_all_launchers_with_blocks(write):
    path = write(FILE)
    assert parse(CompareConfig, f"--import={path}", "--blocks=mlp,doubled").names[-1]
    assert parse(PretrainConfig, f"--import={path}", "--block=doubled").block
    given = (f"--import={path}", "--checkpoint=a", "--train=b", "--dev=c")
    config = parse(FinetuneConfig, *given, "--head=doubled", "--task=tag")
    assert config.head == "doubled"
    assert parse(PredictConfig, f"--import={path}", "--run=a").imports
    given = ("--checkpoint=a", "--text=b", "--blocks=doubled")
    assert parse(SwapConfig, f"--import={path}", *given).blocks == ("doubled",)
    assert parse(FeedbackCompareConfig, f"--import={path}").imports == (str(path),)
    with pytest.raises(InputError, match="--blocks: unknown 'trebled'"):
        parse(CompareConfig, f"--import={path}", "--blocks=trebled")


def test_an_activation_of_a_file_is_known_by_name(write):
    path = write(
        "from ffnlab.nn import register_activation\n"
        "register_activation('cube', lambda x: x**3)\n"
    )
    config = parse(CompareConfig, f"--import={path}", "--blocks=mlp,mlp:cube,glu:cube")
    assert {"mlp:cube", "glu:cube"} <= set(config.names)
    given = ("--activation=cube", "--tasks=brackets")
    assert parse(FeedbackCompareConfig, f"--import={path}", *given)
    with pytest.raises(InputError, match="my_blocks.py:2: name: there is an activ"):
        write("from ffnlab.nn import register_activation\n"
              "register_activation('relu', lambda x: x)\n")  # fmt: skip
        user_code.load(str(path))


def test_a_flag_file_repeats_the_import(write, tmp_path):
    one = write(FILE)
    two = write(FILE.replace("doubled", "other"), "two.py")
    flags = ["--import", str(one), f"--import={two}", f"--imports={one},{two}"]
    config = parse(CompareConfig, *flags, "--blocks=doubled,other")
    assert config.imports == (str(one), str(two))
    (tmp_path / "flags").write_text(options.to_flags(config))
    assert parse(CompareConfig, f"--flagfile={tmp_path / 'flags'}") == config
    assert "--import=\n" in options.to_flags(CompareConfig())


def test_a_changed_file_replaces_what_it_had_added(write):
    path = write(FILE)
    user_code.load([str(path)])
    row = ffn.BLOCKS["doubled"]
    user_code.load(str(path))
    assert ffn.BLOCKS["doubled"] is row  # executed once
    path.write_text(FILE.replace('("doubled"', '("renamed"'))
    user_code.load([str(path)])
    assert "renamed" in ffn.BLOCKS and "doubled" not in ffn.BLOCKS
    swiglu = ffn.BLOCKS["swiglu"]
    path.write_text(
        FILE.replace('"doubled", doubled', '"swiglu", doubled, replace=True')
    )
    user_code.load([str(path)])
    assert ffn.BLOCKS["swiglu"] is not swiglu and "renamed" not in ffn.BLOCKS
    path.write_text(FILE)
    user_code.load([str(path)])
    assert ffn.BLOCKS["swiglu"] is swiglu


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1\n", "my_blocks.py adds no block, .* ffnlab.nn.register"),
        ("\nx = 1 / 0\n", r"my_blocks.py:2: ZeroDivisionError: division by zero"),
        ("x = (\n", "my_blocks.py:1: SyntaxError: "),
        ("raise SystemExit(3)\n", "my_blocks.py:1: SystemExit: 3"),
        ("import no_such_module\n", "my_blocks.py:1: ModuleNotFoundError: No mod"),
        (b"\xff\n", "my_blocks.py: SyntaxError|my_blocks.py:1: SyntaxError"),
        (FILE + "register('doubled', 3)\n", "my_blocks.py:10: name: there is a block"),
        (FILE + "register('a', 3)\n", "my_blocks.py:10: equation: 3 should be"),
        (FILE + "1 / 0\n", "my_blocks.py:10: ZeroDivisionError"),
    ],
)
def test_a_file_that_fails_is_one_line_and_leaves_nothing(content, message, write):
    path = write(content)
    with pytest.raises(InputError, match=f"^--import: .*{message}") as caught:
        parse(CompareConfig, f"--import={path}")
    assert "\n" not in str(caught.value)
    assert "doubled" not in ffn.BLOCKS and not user_code._LOADED


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.py", "missing.py cannot be read: No such file.*; name a Python file"),
        ("folder.py", "folder.py cannot be read: Is a directory"),
        ("blocks.txt", "'blocks.txt' should be a Python file"),
        (3, "3 should be a Python file"),
    ],
)
def test_what_is_no_python_file_is_refused(path, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(InputError, match=f"imports: {message}"):
        CompareConfig(imports=(path,))


def test_a_resumed_run_must_have_the_same_file(write, tmp_path):
    path, out = write(FILE), tmp_path / "run"

    def open_run(resume):
        config = CompareConfig(imports=(str(path),), out=str(out), resume=resume)
        with run_directory.open_run(out, config, resume) as directory:
            return (directory / user_code.NAME).read_text()

    first = open_run(False)
    assert first.endswith(f"  {path}\n") and len(first.split()[0]) == 64
    assert open_run(True) == first
    path.write_text(FILE.replace("2.0", "3.0"))
    with pytest.raises(InputError, match="imports: .*my_blocks.py has changed since"):
        open_run(True)
    path.write_text(FILE)
    assert open_run(True) == first


def test_a_run_of_before_is_resumed_without_imports(tmp_path):
    out = tmp_path / "run"
    with run_directory.open_run(out, CompareConfig(), False):
        pass
    flags = (out / "flags").read_text().replace("--import=\n", "")
    (out / "flags").write_text(flags)
    (out / "manifest.sha256").unlink()
    with run_directory.open_run(out, CompareConfig(), True) as directory:
        assert not (directory / user_code.NAME).exists()


def test_a_launcher_ends_with_code_2(write):
    path = write("x = 1 / 0\n")
    command = [sys.executable, "-m", "experiments.compare", f"--import={path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --import: ") and "ZeroDivisionError" in line
