import re
from pathlib import Path

import pytest

from ffnlab.nn import ffn

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_are_snippets():
    assert len(SNIPPETS) == 6


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippets_run(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ffn, "BLOCKS", dict(ffn.BLOCKS))
    exec(compile(SNIPPETS[number], f"README.md, snippet {number}", "exec"), {})


def test_the_tree_names_every_file():
    listed = README[README.index("## What is here") :]
    for folder in ("ffnlab", "experiments"):
        for path in (ROOT / folder).glob("*.py"):
            if path.name not in ("__init__.py", "version.py"):
                assert path.name in listed, path
    for word in re.findall(r"^      (\w+\.py)", listed, re.MULTILINE):
        assert list(ROOT.glob(f"*/{word}")), word


def test_pictures_exist():
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / picture).is_file(), picture
