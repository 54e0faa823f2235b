"""The engine's recurrent and feedback layers, and fixed points, in float64."""

import numpy as np
import pytest

from ffnlab.feedback.layers import FeedbackConfig, FeedbackLayer
from ffnlab.feedback.solvers import Jacobi
from ffnlab.scratch import check_gradients, fixed_point, grad, ops, recurrent, trees
from tests.scratch.agreement import by_module, check_layer, normal

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_feedback(activation):
    solver = Jacobi(max_steps=300, tolerance=1e-13)
    config = FeedbackConfig(
        features=3, hidden=4, activation=activation, solver=solver, gradient="implicit"
    )
    check_layer(
        recurrent.feedback(3, 4, activation=activation, tolerance=1e-14),
        by_module(lambda rngs: FeedbackLayer(config, rngs=rngs)),
        normal(2, 5, 3),
    )


def test_feedback_reads_both_sides_and_begins_contracting():
    layer = recurrent.feedback(2, 8)
    params, x = layer.init(0), normal(6, 2)
    h = layer.apply(params, x)[0].data
    for place in (0, 5):
        moved = x.copy()
        moved[place] += 1.0
        assert np.abs(layer.apply(params, moved)[0].data - h).min(axis=1).all()
    strength = sum(np.linalg.norm(params[name], 2) for name in ("left", "right"))
    assert strength < 1.0
    strong = {**params, "left": 9.0 * params["left"], "right": -9.0 * params["right"]}
    with pytest.raises(ArithmeticError, match="not solved after 1000 iterations"):
        layer.apply(strong, x)


def test_fixed_points_have_gradients_of_any_order():
    def f(x, p):
        return ops.tanh(p["w"] @ x + p["b"])

    p = {"w": 0.4 * normal(3, 3), "b": normal(3)}

    def solved(p):
        return (fixed_point(f, np.zeros(3), p, tolerance=1e-15) ** 2).sum()

    check = check_gradients(solved, p)
    assert check.passed, check
    check = check_gradients(
        lambda b: (grad(lambda b: solved({**p, "b": b}))(b) ** 2).sum(), p["b"]
    )
    assert check.passed, check


def test_fixed_points_say_what_is_wrong():
    with pytest.raises(ArithmeticError, match="residual is 0.2"):
        fixed_point(lambda x: x + 1e9, 0.0, max_steps=5)
    with pytest.raises(ValueError, match=r"takes the shape \(\) to \(3,\)"):
        fixed_point(lambda x: x + np.zeros(3), 0.0)
    with pytest.raises(ValueError, match="pass it in args"):
        grad(lambda a: fixed_point(lambda x: 0.5 * x + a, 0.0))(1.0)
    counts = np.array([1, 2])
    whole = grad(lambda a: fixed_point(lambda x, a, n: 0.5 * x + a * n, counts * 0.0, a,
                                       counts).sum())  # fmt: skip
    assert whole(1.0) == pytest.approx(6.0)


def test_float32_is_solved_to_its_own_precision():
    layer = recurrent.feedback(3, 8)
    params = trees.map_leaves(lambda p: p.astype(np.float32), layer.init(0))
    for seed in range(5):
        x = normal(4, 20, 3, seed=seed).astype(np.float32)
        assert layer.apply(params, x)[0].dtype == np.float32
