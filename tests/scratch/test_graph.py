"""The engine's graph: its order, repeatable sweeps, nesting, freeing, bad input."""

import gc
import weakref

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab import scratch
from ffnlab.scratch import (
    Tensor,
    check_gradients,
    detect_nan,
    grad,
    hessian_vector,
    jvp,
    losses,
    ops,
    order,
    value_and_grad,
    vjp,
)
from ffnlab.scratch.graph import gradients

ROWS = np.random.default_rng(0).standard_normal((4, 3))


def test_the_order_has_inputs_first_and_everything_once():
    x = Tensor(2.0, requires_grad=True)
    y = x * x
    z = y + y * x
    places = {id(each): place for place, each in enumerate(order(z))}
    assert len(places) == len(order(z)) == 4
    for each in order(z):
        for edge in each.node.inputs:
            assert places[id(edge)] < places[id(each)]


def test_backward_may_be_called_twice():
    x = Tensor(ROWS, requires_grad=True)
    y = ops.tanh(x).sum()
    y.backward()
    first = x.grad
    y.backward()
    np.testing.assert_array_equal(first.data, x.grad.data)
    np.testing.assert_allclose(first.data, 1 - np.tanh(ROWS) ** 2, rtol=1e-12)


def test_a_graph_may_be_deeper_than_the_stack():
    x = y = Tensor(1.0, requires_grad=True)
    for _ in range(10_000):
        y = y + 1e-4
    y.backward()
    assert float(x.grad) == 1.0
    deep = value_and_grad(lambda x: _repeated(x, 10_000))
    assert float(deep(0.5)[1]) == pytest.approx(0.9999**10_000)
    del y  # nor does freeing it recurse


def _repeated(x, times):
    for _ in range(times):
        x = x * 0.9999
    return x


def test_graphs_are_freed_without_a_garbage_collector():
    gc.disable()
    try:
        x = Tensor(ROWS, requires_grad=True)
        y = ops.exp(x)
        z = (y * y).sum()
        z.backward()
        middle = weakref.ref(y)
        del y
        assert middle() is not None  # the graph holds it
        del z
        assert middle() is None
        seen = []

        def f(x):
            y = ops.exp(x)
            seen.append(weakref.ref(y))
            return y.sum()

        value, gradient = value_and_grad(f)(ROWS)
        assert seen[0]() is None and type(value) is type(gradient) is np.ndarray
    finally:
        gc.enable()


def test_what_needs_no_gradient_is_not_recorded():
    x, w = Tensor(ROWS), Tensor(np.ones((3, 2)), requires_grad=True)
    assert (x * 2.0).node is None and ops.exp(x).node is None
    assert (x @ w).detach().node is None
    assert order(x) == []
    calls = []
    watched = ops.Primitive(
        np.multiply,
        lambda g, y, a, b: calls.append("a") or g * b,
        lambda g, y, a, b: calls.append("b") or g * a,
    )
    grad(lambda w: watched(ROWS, w).sum())(np.ones(3))
    assert calls == ["b"]


def test_derivatives_nest_in_every_way(x64):
    def f(x, y):
        return x**3 * y**2

    assert grad(grad(grad(lambda x: x**4)))(2.0) == 48.0
    mixed = grad(lambda y: grad(lambda x: f(x, y))(2.0))(3.0)
    assert type(mixed) is np.ndarray and mixed == 3 * 2.0**2 * 2 * 3.0
    # An inner derivative by x sees the outer x as a constant.
    assert grad(lambda x: grad(lambda z: z * x)(x))(5.0) == 1.0
    inner = grad(lambda x: x * grad(lambda z: (z + x) ** 2)(1.0))(3.0)
    assert inner == jax.grad(lambda x: x * jax.grad(lambda z: (z + x) ** 2)(1.0))(3.0)


def test_forward_derivatives_and_hessians(x64):
    rng = np.random.default_rng(1)
    w, x, v = (rng.standard_normal(shape) for shape in [(3, 3), 3, 3])

    def f(xp):
        return lambda x: xp.tanh(w @ x) * x

    value, along = jvp(f(ops), (x,), (v,))
    expected = jax.jvp(f(jnp), (x,), (v,))
    chex.assert_trees_all_close((value, along), expected, rtol=1e-12)
    product = hessian_vector(lambda x: f(ops)(x).sum(), x, v)
    matrix = jax.hessian(lambda x: f(jnp)(x).sum())(x)
    np.testing.assert_allclose(product, matrix @ v, rtol=1e-12)
    second = grad(lambda x: (hessian_vector(lambda x: (x**4).sum(), x, v)).sum())(x)
    np.testing.assert_allclose(second, 24 * x * v, rtol=1e-12)
    assert type(second) is np.ndarray


def test_jvp_by_trees():
    value, along = jvp(
        lambda p, x: p["a"] * x + p["b"],
        ({"a": 2.0, "b": 1.0}, np.ones(2)),
        ({"a": 10.0, "b": 0.0}, np.array([0.0, 1.0])),
    )
    assert along.tolist() == [10.0, 12.0]


def test_eager_gradients_are_recorded():
    x = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    (first,) = gradients((x**3).sum(), x)
    (second,) = gradients(first.sum(), x)
    assert second.data.tolist() == [6.0, 12.0]
    assert x.grad is None


def test_values_and_aux_come_out_as_arrays():
    (value, aux), gradient = value_and_grad(
        lambda x: ((x * x).sum(), {"twice": x * 2.0, "note": "kept"}), has_aux=True
    )(np.ones(2))
    assert type(value) is type(gradient) is type(aux["twice"]) is np.ndarray
    assert aux["note"] == "kept"
    gradient, aux = grad(lambda x: (x * x, x), has_aux=True)(3.0)
    assert gradient == 6.0 and aux == 3.0


def test_unused_inputs_have_gradients_of_zeros():
    gradient = grad(lambda p: (p["used"] ** 2).sum())(
        {"used": np.ones(2), "unused": np.ones((2, 3))}
    )
    assert gradient["unused"].tolist() == np.zeros((2, 3)).tolist()


def test_a_recorded_array_cannot_be_changed():
    mine = np.ones(3)
    x = Tensor(mine, requires_grad=True)
    y = (x * x).sum()
    mine[:] = 100.0
    with pytest.raises(ValueError, match="read-only"):
        x.data[0] = 5.0
    with pytest.raises(TypeError, match="item assignment"):
        x[0] = 5.0
    x += 1.0  # another tensor of the same name
    weights = np.full(3, 2.0)
    z = Tensor(np.ones(3), requires_grad=True)
    product = z * weights
    places = np.array([0, 0])
    picked = z[places]
    weights[:], places[:] = 0.0, 2
    assert gradients(product.sum(), z)[0].data.tolist() == [2.0, 2.0, 2.0]
    assert gradients(picked.sum(), z)[0].data.tolist() == [2.0, 0.0, 0.0]
    assert y.data == 3.0


def test_shapes_that_do_not_fit_are_named():
    a, b = np.ones((2, 3)), np.ones((4, 5))
    for make, words in [
        (lambda: Tensor(a) + b, r"add of shapes \(2, 3\) and \(4, 5\)"),
        (lambda: Tensor(a) @ b, r"matmul of shapes \(2, 3\) and \(4, 5\)"),
        (lambda: ops.concatenate(a, b), r"concatenate of shapes \(2, 3\) and \(4, 5\)"),
        (lambda: ops.reshape(a, shape=(4,)), r"reshape of shape \(2, 3\)"),
        (lambda: scratch.conv2d(a, b), r"conv2d of shapes \(2, 3\) and \(4, 5\)"),
        (
            lambda: losses.cross_entropy(a, np.ones(3, int)),
            r"cross_entropy of shapes \(2, 3\) and \(3,\)",
        ),
        (
            lambda: losses.cross_entropy(a, np.ones(2)),
            "labels are float64, not integers",
        ),
        (lambda: losses.cross_entropy(a, np.array([0, 3])), "label 3 is not in 0…2"),
        (lambda: losses.cross_entropy(a, np.array([-1, 0])), "label -1 is not in"),
        (
            lambda: vjp(lambda x: x, a)[1](b),
            "for a result of ",
        ),
        (
            lambda: grad(lambda x: x * 2.0)(a),
            "single number",
        ),
        (lambda: Tensor(1.0).backward(), "no input of the tensor"),
    ]:
        with pytest.raises(ValueError, match=words):
            make()
    with pytest.raises(IndexError, match=r"getitem of shape \(2, 3\): index 7"):
        Tensor(a)[7]


def test_integers_refuse_gradients():
    with pytest.raises(TypeError, match="int64 has no gradient.*astype"):
        Tensor([1, 2], requires_grad=True)
    with pytest.raises(TypeError, match="input 0/layer/steps: Tensor: int64 has no"):
        grad(lambda p: p["layer"]["steps"])({"layer": {"steps": 3}})
    with pytest.raises(TypeError, match="expected numbers, found object"):
        Tensor([object()])
    x = Tensor([1.7], requires_grad=True)
    assert x.astype(int).node is None


def test_nan_is_located():
    def f(x):
        return ops.log(ops.tanh(x) - 0.5).sum()

    with (
        detect_nan(),
        pytest.raises(
            FloatingPointError,
            match=r"log of shape \(2, 2\): the result .* at \[1, 0\]",
        ),
    ):
        f(np.array([[1.0, 2.0], [-3.0, 1.0]]))
    with (
        detect_nan(),
        pytest.raises(FloatingPointError, match=r"input 0 has the first NaN, at \[0\]"),
    ):
        ops.exp([np.nan])
    with (
        detect_nan(),
        pytest.raises(
            FloatingPointError, match=r"multiply of shapes .* in the gradient of power"
        ),
    ):
        grad(lambda x: (x**0.5 * 0.0).sum())(np.array([0.0]))
    with np.errstate(invalid="ignore"):
        assert np.isnan(f(np.array([-1.0])).data)  # outside of it nothing is stopped


def test_check_gradients_names_the_worst_entry():
    wrong = ops.Primitive(np.sin, lambda g, y, x: g * (x.data != 2.0))
    check = check_gradients(
        lambda p: (wrong(p["x"]) + p["y"]).sum(),
        {"x": np.array([0.0, 2.0, 0.0]), "y": np.zeros(3)},
    )
    assert not check.passed and check.worst == "x[1]" and check.entries == 6
    assert check.gradient == 0.0 and check.difference == pytest.approx(np.cos(2.0))
    assert "DIFFER" in str(check) and "worst: x[1]" in str(check)
    right = check_gradients(lambda x: (x**3).sum(), ROWS.astype(np.float32))
    assert right.passed and "agree" in str(right)
    lost = ops.Primitive(np.sin, lambda g, y, x: g * np.nan)
    assert not check_gradients(lambda x: lost(x), 1.0).passed
    assert check_gradients(lambda x: (x * 1.0).sum(), np.zeros((0, 2))).passed


def test_graphs_are_drawn():
    x = Tensor(np.ones(3), requires_grad=True)
    w = Tensor(np.ones(3), requires_grad=True)
    y = ops.tanh(x * w).sum()
    mermaid = scratch.draw(y, {"x": x, "w": w, "y": y})
    assert mermaid.startswith("graph LR") and mermaid.count("-->") == 4
    assert 'n4["y sum []"]' in mermaid and '(["w [3]"])' in mermaid
    dot = scratch.draw(y, form="dot")
    assert dot.startswith("digraph {") and dot.count("->") == 4 and dot.endswith("}")
    with pytest.raises(ValueError, match="nothing was recorded"):
        scratch.draw(Tensor(1.0))
    with pytest.raises(ValueError, match="form 'svg' should be one of mermaid, dot"):
        scratch.draw(y, form="svg")


def test_trees_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"trees differ: dict of \['a'\] and dict of"):
        scratch.trees.map_leaves(lambda a, b: a, {"a": 1}, {"b": 1})
    with pytest.raises(ValueError, match="and a leaf"):
        scratch.trees.map_leaves(lambda a, b: a, {"a": [1]}, {"a": 1})


def test_a_forward_that_changes_its_input_is_told_what_to_do():
    def double(x):
        x *= 2.0
        return x

    operation = ops.Primitive(double, lambda g, y, x: 2.0 * g)
    with pytest.raises(
        ValueError, match=r"double of .*read-only; make a new array, as"
    ):
        operation(np.ones(3))


def test_a_rule_that_leaves_the_graph_is_noticed():
    """Its gradient is right, and the gradient of that is not."""
    square = ops.Primitive(np.square, lambda g, y, x: g * 2.0 * x.data)
    x = {"a": np.array([1.0, -2.0])}
    check = check_gradients(lambda p: square(p["a"]).sum(), x)
    assert not check.passed and check.order == 2 and check.worst.startswith("a[")
    assert check.gradient == 0.0 and abs(check.difference) > 0.1
    assert "gradient of the gradient and finite differences DIFFER" in str(check)
    assert "a rule leaves the graph" in str(check)
    assert check_gradients(lambda p: square(p["a"]).sum(), x, order=1).passed
    right = ops.Primitive(np.square, lambda g, y, x: g * 2.0 * x)
    check = check_gradients(lambda p: (right(p["a"]) * right(p["a"])).sum(), x)
    assert check.passed and check.order == 1 and "graph" not in str(check)
    with pytest.raises(ValueError, match="order 3 should be 1 or 2"):
        check_gradients(lambda x: x, 1.0, order=3)


def test_nodes_have_names():
    x = Tensor(np.ones(3), requires_grad=True, name="x")
    hidden = ops.tanh(x * 2.0, name="hidden")
    loss = ops.mean(hidden @ np.ones((3, 2)), name="loss")
    assert (x.name, hidden.name, loss.name, (x * 2.0).name) == (
        "x",
        "hidden",
        "loss",
        "",
    )
    text = scratch.draw(loss)
    assert '(["x [3]"])' in text and '["hidden tanh [3]"]' in text
    assert '["loss divide []"]' in text
    product = ops.matmul(hidden, np.ones(3), name='a "dot" \\ product')
    hidden.name = "states"
    assert '"a #quot;dot#quot; \\ product getitem []"' in scratch.draw(product)
    assert 'label="a \\"dot\\" \\\\ product getitem []"' in scratch.draw(
        product, form="dot"
    )
    assert "states tanh" in scratch.draw(product)
    assert "other tanh" in scratch.draw(product, {"other": hidden})


def test_rules_are_counted():
    lonely = ops.Primitive(np.multiply, lambda g, y, a, b: g * b)
    with pytest.raises(TypeError, match="multiply has 1 rules for 2 inputs"):
        lonely(Tensor(1.0, requires_grad=True), 2.0)


def test_integers_are_promoted():
    assert float(ops.erf(2)) == pytest.approx(0.9953222650)
    small = np.array([0, 20], np.uint8)
    assert float(losses.squared_error(small, small[::-1])) == 400.0
    with pytest.raises(ValueError, match=r"squared_error of shapes \(2, 1\) and \(2,"):
        losses.squared_error(np.ones((2, 1)), np.ones(2))
    picture = np.full((1, 2, 2, 1), 255, np.uint8)
    summed = scratch.conv2d(picture, np.ones((2, 2, 1, 1), int), padding="valid")
    assert float(summed[0, 0, 0, 0]) == 4 * 255
