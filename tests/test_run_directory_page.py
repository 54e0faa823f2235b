"""docs/run-directory.md names the fields that are written, and its examples run."""

import ast
import re
import shutil
from pathlib import Path

import pytest

from tests.test_readme import ROOT

TEXT = (ROOT / "docs" / "run-directory.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
# The functions that make the lines of each launcher, and the keys that they add from
# elsewhere.
WRITERS = {
    "compare": (
        {
            "sweep/result_lines.py": ["lines", "_trivial"],
            "sweep/block_jobs.py": ["make_job"],
            "sweep/candidates.py": ["_job"],
            "sweep/feedback_comparison.py": ["_job"],
        },
        set(),
    ),
    "finetune": ({"finetune/report.py": ["result_line"]}, {"dev", "test"}),
    "adapt_compare": ({"finetune/adapt_comparison.py": ["_line"]}, set()),
    "pretrain": (
        {"pretrain/trainer.py": ["_evaluation_lines", "publish", "score"]},
        {"loss", "bits", "accuracy"},
    ),
    "exchange": ({"pretrain/swap_experiment.py": ["_run", "_compare_states"]}, set()),
    "from_scratch": ({"sweep/scratch_training.py": ["_lines"]}, set()),
}


def documented(launcher):
    """The fields in the table below the heading of a launcher."""
    (section,) = re.findall(
        rf"^### `experiments\.{launcher}`(.*?)(?=^##)", TEXT, re.DOTALL | re.MULTILINE
    )
    cells = re.findall(r"^\| (`[^|]*`) \|", section, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def written(path, names):
    """The keys of the dicts that functions of a module make."""
    tree, keys = ast.parse((ROOT / "ffnlab" / path).read_text("utf-8")), set()
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.name in names:
            for node in ast.walk(function):
                given = node.keys if isinstance(node, ast.Dict) else []
                if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
                    given = [node.slice]
                keys |= {each.value for each in given if isinstance(each, ast.Constant)}
    return keys


@pytest.mark.parametrize("launcher", WRITERS)
def test_the_page_names_every_field_that_is_written(launcher):
    writers, others = WRITERS[launcher]
    fields = set().union(*(written(*item) for item in writers.items())) | others
    assert documented(launcher) == fields


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The runs that the examples read, below the working directory."""
    earlier, folder = ROOT / "tests" / "earlier", tmp_path / "runs"
    shutil.copytree(earlier / "whole", folder / "tagger")
    shutil.copytree(earlier / "compare" / "best", folder / "blocks" / "best")
    lines = (earlier / "compare_results.jsonl").read_bytes()
    (folder / "blocks" / "results.jsonl").write_bytes(lines)
    shutil.copytree(ROOT / "tests" / "checkpoints" / "gpt2", folder / "text" / "best")
    monkeypatch.chdir(tmp_path)
    return Path("runs")


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_run(number, runs, capsys):
    code = EXAMPLES[number]
    for package in ("pandas", "transformers"):
        if re.search(rf"^(import|from) {package}\b", code, re.MULTILINE):
            pytest.importorskip(package)
    scope = {}
    exec(compile(code, f"example {number}", "exec"), scope)
    if "curves" in scope:
        assert scope["scores"].shape == (4, 4)
        assert len(scope["curves"]) == 4 * 4  # runs, evaluations
    assert capsys.readouterr().out or "transformers" in code


def test_there_are_examples():
    assert len(EXAMPLES) == 6
