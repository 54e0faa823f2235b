"""The scripts of docs/recipes.md, on small files and a small checkpoint."""

import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_wine

from ffnlab.nn import ffn
from tests import tuned

TEXT = (Path(__file__).parent.parent / "docs" / "recipes.md").read_text("utf-8")
RECIPES = dict(re.findall(r"^## (.+?)\n.*?```python\n(.*?)```", TEXT, re.M | re.S))
OWN, NETS, ENTITIES, TEXTS, LOOP = RECIPES


def run(name, code=None):
    """Runs a recipe; returns its variables."""
    variables = {"__name__": "__main__"}
    exec(compile(code or RECIPES[name], name, "exec"), variables)
    return variables


def short(code):
    """Returns a recipe for the small checkpoint, which has few positions."""
    code = code.replace(': "minilm",', ': "minilm", "max_seq_length": 14,')
    return code.replace('="minilm"', '="minilm", max_seq_length=14')


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ffn, "BLOCKS", dict(ffn.BLOCKS))
    return tmp_path


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_fewer_than_fifteen_lines(name):
    assert sum(map(bool, RECIPES[name].splitlines())) < 15


@pytest.mark.slow
def test_a_block_of_your_own_is_compared(folder):
    pytest.importorskip("pandas")
    frame = load_wine(as_frame=True).frame.rename(columns={"target": "cultivar"})
    frame["cultivar"] = frame["cultivar"].map({0: "a", 1: "b", 2: "c"})
    frame.to_csv(folder / "wine.csv", index=False)
    few = "table, replicates=8, steps=20"
    result = run(OWN, RECIPES[OWN].replace("table, steps=100", few))["result"]
    assert {row.name for row in result.comparisons} == {"mlp:relu", "swiglu", "squared"}
    assert (folder / "wine.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_modules_of_flax_are_compared(capsys):
    run(NETS, RECIPES[NETS].replace("layers=1", "layers=1, replicates=8, steps=20"))
    assert "Over 8 replicates" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.slow
def test_entities_are_found_and_transformers_agrees(folder, capsys):
    tuned.first_layer(tuned.with_vocabulary("bert", folder / "two"), folder / "minilm")
    code, line, theirs = short(RECIPES[ENTITIES]).partition("from transformers ")
    variables = run(ENTITIES, code)
    entities = variables["result"].pipeline()("Ada lives in Rome.")
    pytest.importorskip("transformers")
    exec(line + theirs, variables)
    found = variables["same"]("Ada lives in Rome.")
    assert [(e.start, e.end) for e in entities] == [
        (e["start"], e["end"]) for e in found
    ]
    scores = [e["score"] for e in found]
    np.testing.assert_allclose([e.score for e in entities], scores, atol=1e-4)


@pytest.mark.slow
def test_texts_are_classified(folder):
    pandas = pytest.importorskip("pandas")
    tuned.first_layer(tuned.with_vocabulary("bert", folder / "two"), folder / "minilm")
    tuned.write_sentences(folder)
    names = ["label", "text"]
    frame = pandas.read_csv(folder / "train.tsv", sep="\t", header=None, names=names)
    frame.to_csv(folder / "reviews.csv", index=False)
    result = run(TEXTS, short(RECIPES[TEXTS]))["result"]
    assert 0 <= result.scores["test"][0]["accuracy"] <= 1


@pytest.mark.slow
def test_a_feedback_layer_learns(folder):
    code = RECIPES[LOOP]
    before = run(LOOP, code.replace("range(100)", "range(0)"))
    after = run(LOOP)
    assert after["loss"](after["params"]) < 0.9 * before["loss"](before["params"])
