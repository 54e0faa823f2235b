import importlib
import importlib.util
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

import ffnlab
from experiments import run_scripts
from ffnlab.nn import ffn
from ffnlab.options import flag_of

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {path.name: path.read_text("utf-8") for path in PAGES}
SNIPPETS = {
    f"{name}, snippet {number}": code
    for name, text in TEXTS.items()
    if name not in ("run-directory.md", "recipes.md")  # they read files: own tests
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
}


def test_there_are_pages_and_snippets():
    assert len(PAGES) > 10
    assert len(SNIPPETS) > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", SNIPPETS)
def test_snippets_run(name, tmp_path, monkeypatch, without_steps):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ffn, "BLOCKS", dict(ffn.BLOCKS))
    exec(compile(SNIPPETS[name], name, "exec"), {"__name__": "__main__"})


def test_the_map_names_every_package():
    text = TEXTS["README.md"]
    listed = text[text.index("## Packages") : text.index("## Fine-tuning")]
    for path in (ROOT / "ffnlab").glob("*/__init__.py"):
        assert f"| `ffnlab.{path.parent.name}` |" in listed, path
    for path in (ROOT / "ffnlab").glob("*.py"):
        if path.name not in ("__init__.py", "version.py"):
            assert f"`{path.stem}`" in listed, path
    for line in listed.splitlines():
        if line.startswith("| `ffnlab.") and "(planned)" not in line:
            (package,) = re.findall(r"^\| `([\w.]+)`", line)
            assert importlib.util.find_spec(package), package


@pytest.mark.parametrize("path", [*PAGES, ROOT / "LOG.md"], ids=lambda path: path.name)
def test_links_and_pictures_exist(path):
    text = path.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("https://"):
            assert (path.parent / target).is_file(), target


def test_every_page_is_linked_from_the_readme_or_another_page():
    for path in PAGES[1:]:
        links = f"(docs/{path.name})", f"]({path.name})"
        others = [text for name, text in TEXTS.items() if name != path.name]
        assert any(link in text for text in others for link in links), path


@pytest.mark.parametrize("path", [*PAGES, ROOT / "LOG.md"], ids=lambda path: path.name)
def test_files_that_are_named_exist(path):
    pattern = r"(?:ffnlab|benchmarks|tests|notebooks)/[\w/]+\.(?:py|png|ipynb)"
    for name in re.findall(pattern, path.read_text("utf-8")):
        assert (ROOT / name).is_file(), name


def test_the_changelog_names_modules_that_exist():
    rows = re.findall(r"^\|.*\|(.*)\|$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    modules = {name for row in rows for name in re.findall(r"`(ffnlab[\w.]+)`", row)}
    assert len(modules) > 60
    for name in modules:
        assert importlib.util.find_spec(name), name


def test_the_citation_has_the_version():
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {ffnlab.__version__}\n" in citation


def test_the_readme_is_short():
    assert len(TEXTS["README.md"].splitlines()) < 200


# What follows `python -m` in each page, to the end of its code.
COMMANDS = [
    (path.name, chunk.partition("`")[0].split())
    for path in [*PAGES, ROOT / "LOG.md"]
    for chunk in path.read_text("utf-8").split("python -m ")[1:]
    if chunk.startswith(("experiments.", "benchmarks.")) and "NAME" not in chunk[:20]
]


def flags_of(name):
    """Returns the flags of a launcher or a benchmark."""
    module = importlib.import_module(name)
    configs = [value for value in vars(module).values() if is_dataclass(value)]
    names = {flag_of(field.name) for config in configs for field in fields(config)}
    return names | {"help", "quick", "flagfile"}


@pytest.mark.parametrize("page, words", COMMANDS)
def test_commands_use_flags_that_exist(page, words):
    known = flags_of(words[0].rstrip(".,;)"))
    if words[0] == "experiments.finetune":
        words = run_scripts.translate(words).argv
    for flag in re.findall(r"--([a-z_]+)", " ".join(words)):
        assert flag in known, f"{page}: --{flag} of {words[0]}"


def test_there_are_commands():
    assert len(COMMANDS) > 50
