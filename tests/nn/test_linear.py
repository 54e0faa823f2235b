"""The product of a linear layer: one of matrices, whatever the axes of its input."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ffnlab.nn import linear, pure
from ffnlab.nn.attention import Attention
from ffnlab.nn.batch_axis import is_divided
from ffnlab.nn.linear import Linear, dense, product, weights

KERNEL = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


def inputs(*shape):
    return np.random.default_rng(1).normal(size=(*shape, 4)).astype(np.float32)


def oracle(x, cotangent):
    """Returns the output, and the gradients to x and to the kernel, in float64."""
    x, cotangent, kernel = (a.astype(np.float64) for a in (x, cotangent, KERNEL))
    rows, gradient = x.reshape(-1, 4), cotangent.reshape(-1, 6)
    return x @ kernel, cotangent @ kernel.T, rows.T @ gradient


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("shape", [(), (3,), (3, 5), (2, 3, 5), (0, 5), (2, 0, 5)])
def test_it_is_a_product_with_its_gradients(monkeypatch, shape, platform):
    monkeypatch.setattr(linear, "default_platform", lambda: platform)
    x = inputs(*shape)
    out, back = jax.vjp(product, x, KERNEL)
    cotangent = np.random.default_rng(2).normal(size=out.shape).astype(np.float32)
    expected = oracle(x, cotangent)
    assert out.shape == (*shape, 6)
    chex.assert_trees_all_close((out, *back(cotangent)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(), (3,), (3, 5), (2, 3, 5), (0, 5)])
def test_a_layer_is_its_equation(shape):
    x, rngs = inputs(*shape), nnx.Rngs(0)
    for bias in (True, False):
        layer = Linear(4, 6, use_bias=bias, rngs=rngs)
        y = layer(x)
        assert y.shape == (*shape, 6)
        chex.assert_trees_all_close(y, dense(x, weights(layer)), atol=1e-6)
        chex.assert_trees_all_close(y, nnx.Linear.__call__(layer, x), atol=1e-6)


def test_the_gradient_of_the_kernel_transposes_no_input():
    """Summed over two axes, both operands of its product are transposed before."""

    def transposes(product):
        def loss(x, kernel):
            return jnp.square(jnp.tanh(product(jnp.tanh(x), kernel))).sum()

        shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((8, 9, 32), (32, 16))]
        compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*shapes).compile()
        return compiled.as_text().count(" transpose(")

    assert transposes(product) < transposes(jnp.matmul)


@pytest.mark.parametrize(("platform", "axes"), [("cpu", "(0,)"), ("gpu", "(0, 1)")])
def test_biases_before_attention_sum_over_what_the_platform_is_fast_in(
    monkeypatch, platform, axes
):
    """On a GPU a sum over the rows of all positions took 70 µs for 2,048 of them."""
    monkeypatch.setattr(linear, "default_platform", lambda: platform)
    model = pure.functional(lambda rngs: Attention(4, 2, rngs=rngs))
    params = model.init(jax.random.key(0))

    def loss(biases, x):
        given = {name: {**params[name], "bias": bias} for name, bias in biases.items()}
        return jnp.square(model.apply({**params, **given}, x)[0]).sum()

    biases = {name: params[name]["bias"] for name in ("query", "key", "value")}
    graph = str(jax.make_jaxpr(jax.grad(loss))(biases, inputs(3, 5)))
    assert graph.count(f"f32[4] = reduce_sum[axes={axes}") == 3


def test_on_a_mesh_the_axes_stay_apart():
    """The rows of both axes need no gathering where the second one is divided."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    along = jax.sharding.PartitionSpec(None, "data")
    x = inputs(3, 4)
    layer = Linear(4, 6, rngs=nnx.Rngs(0))

    def both(x):
        return product(x, KERNEL), layer(x)

    with jax.set_mesh(mesh):
        placed = jax.device_put(x, jax.sharding.NamedSharding(mesh, along))
        lowered = jax.jit(both).lower(placed)
        compiled = lowered.compile()
        chex.assert_trees_all_close(compiled(placed), both(x), atol=1e-5)
    assert "all-gather" not in compiled.as_text()


def test_only_axes_of_several_devices_divide():
    def mesh(*sizes):
        kinds = (jax.sharding.AxisType.Auto,) * 2
        return jax.make_mesh(sizes, ("data", "model"), axis_types=kinds)

    found = []

    def note(x):
        found.append(is_divided())
        return x

    for sizes in ((1, 1), (2, 1), (1, 2)):
        with jax.set_mesh(mesh(*sizes)):
            jax.eval_shape(note, 0.0)
            shared = jax.sharding.PartitionSpec()
            options = {"in_specs": shared, "out_specs": shared, "axis_names": {"data"}}
            jax.eval_shape(jax.shard_map(note, **options), 0.0)
    assert found == [False, False, True, False, True, True]
