"""The recipes of docs/from_scratch.md."""

import re

import numpy as np

from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "from_scratch.md").read_text("utf-8")
RECIPES = dict(
    re.findall(r"^### An? (\w+).*?```python\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE)
)


def run(name):
    scope = {}
    exec(compile(RECIPES[name], f"the recipe of {name}", "exec"), scope)
    return scope


def test_there_are_three_recipes():
    assert list(RECIPES) == ["operation", "layer", "optimizer"]


def test_an_operation_has_derivatives_of_every_order(capsys):
    scope = run("operation")
    right, wrong = (
        capsys.readouterr()
        .out.split("gradient and finite", 1)[1]
        .split("gradient of the gradient", 1)
    )
    assert "agree" in right and "DIFFER" in wrong and "leaves the graph" in wrong
    x = np.array([0.3, 1.0])
    third = scope["check_gradients"](lambda x: (scope["sine"](x) ** 2).sum(), x)
    assert third.passed


def test_a_layer_has_outputs_and_gradients(capsys):
    scope = run("layer")
    assert capsys.readouterr().out == "(5, 4)\n"
    params = scope["layer"].init(0)
    gate, up = (
        np.ones(3) @ params[name]["kernel"] + params[name]["bias"]
        for name in ("gate", "up")
    )
    expected = up / (1 + np.exp(-gate))
    np.testing.assert_allclose(scope["y"].data[0], expected, rtol=1e-12)


def test_an_optimizer_trains(capsys):
    scope = run("optimizer")
    assert float(capsys.readouterr().out) < 0.5
    assert scope["value"] < 0.5
