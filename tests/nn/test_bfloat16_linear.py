"""Linear layers in bfloat16, by products for the matrix units of a CPU."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from ffnlab.nn import bfloat16_linear, linear
from tests.nn.matrix_units import draw, needs_units, operands_of_products

N, D, H = 96, 64, 128


def arrays():
    return draw(N, D), draw(D, H, seed=1), draw(H, seed=2), draw(N, H, seed=3)


def wide(*arrays):
    return [np.asarray(array, np.float64) for array in arrays]


def assert_rounded_once(found, left, right, bias=0.0):
    """To the nearest bfloat16 of what sums in float32 may be."""
    assert found.dtype == jnp.bfloat16
    found, exact = np.asarray(found, np.float64), left @ right + bias
    nearest = np.asarray(jnp.asarray(exact, jnp.bfloat16), np.float64)
    assert (found != nearest).mean() < 1e-3
    summed = left.shape[1] * 2**-24 * (np.abs(left) @ np.abs(right) + np.abs(bias))
    assert (np.abs(found - exact) <= 2**-8 * (np.abs(exact) + summed) + summed).all()


def assert_same(found, expected):
    """But where sums in float32, in another order, are rounded to the next bfloat16."""
    pairs = zip(*map(jax.tree.leaves, (found, expected)), strict=True)
    for one, other in (wide(*pair) for pair in pairs):
        assert np.linalg.norm(one - other) < 2**-10 * np.linalg.norm(other)


def pull(x, kernel, bias, slope):
    y, pullback = jax.vjp(bfloat16_linear.linear, x, kernel, bias)
    return y, pullback(slope)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("compiled", [True, False])
def test_values_and_gradients_are_rounded_once(has_bias, compiled):
    x, kernel, bias, slope = arrays()
    run = jax.jit(pull) if compiled else pull
    y, (dx, dkernel, dbias) = run(x, kernel, bias if has_bias else None, slope)
    x64, kernel64, bias64, slope64 = wide(x, kernel, bias, slope)
    assert_rounded_once(y, x64, kernel64, bias64 if has_bias else 0.0)
    assert_rounded_once(dx, slope64, kernel64.T)
    assert_rounded_once(dkernel, x64.T, slope64)
    if has_bias:
        assert_rounded_once(dbias[None], np.ones((1, N)), slope64)
    else:
        assert dbias is None


def test_layers_take_it(units):
    """With the values of the ordinary path, to the bits of bfloat16."""
    x, kernel, bias, _ = arrays()
    options = {"param_dtype": jnp.bfloat16, "rngs": nnx.Rngs(0)}
    layer, own = nnx.Linear(D, H, **options), linear.Linear(D, H, **options)
    for each in (layer, own):
        each.kernel[...], each.bias[...] = kernel, bias
    weights = linear.weights(layer)
    expected = layer(x)
    for y in (linear.dense(x, weights), own(x), linear.product(x, kernel) + bias[None]):
        assert y.dtype == jnp.bfloat16
        one, other = wide(y, expected)
        assert np.linalg.norm(one - other) < 2**-8 * np.linalg.norm(other)
    batch = x.reshape(2, 3, N // 6, D)
    found = linear.dense(batch, weights)
    assert_same(found.reshape(N, H), linear.dense(x, weights))
    for function in (lambda x: linear.dense(x, weights), own):
        assert "custom_vjp_call" in str(jax.make_jaxpr(function)(batch))


def test_which_arrays_are_taken(units, monkeypatch):
    x, kernel, _, _ = arrays()
    assert bfloat16_linear.takes(x, kernel)
    for other in ("float32", "float16"):
        assert not bfloat16_linear.takes(x.astype(other), kernel.astype(other))
        assert not bfloat16_linear.takes(x, kernel.astype(other))
    assert not bfloat16_linear.takes(x[:63], kernel)
    assert not bfloat16_linear.takes(x, kernel[:, :63])
    assert not bfloat16_linear.takes(x.reshape(2, -1, D), kernel)
    with jax.set_mesh(Mesh(np.array(jax.devices()[:2]), "data")):
        assert not bfloat16_linear.takes(x, kernel)
    monkeypatch.setattr(bfloat16_linear, "has_matrix_units", lambda: False)
    assert not bfloat16_linear.takes(x, kernel)


@pytest.mark.parametrize("checked", [True, False])
def test_inside_shard_map(units, checked):
    """JAX, where it checks what varies, sums the gradient of a shared kernel itself."""
    x, kernel, _, slope = arrays()

    def loss(kernel, x, slope):
        y = linear.product(x, kernel).astype(jnp.float32)
        return jnp.sum(y * slope.astype(jnp.float32))

    def part(kernel, x, slope):
        taken.append(bfloat16_linear.takes(x, kernel))
        slopes = jax.grad(loss)(kernel, x, slope).astype(jnp.float32)
        return slopes if checked else jax.lax.psum(slopes, "data")

    taken, mesh = [], jax.make_mesh((2,), ("data",), (AxisType.Auto,))
    xs, slopes = (jnp.concatenate([each, each]) for each in (x, slope))
    run = jax.shard_map(
        part, mesh=mesh, in_specs=(P(), P("data"), P("data")), out_specs=P(),
        check_vma=checked,
    )  # fmt: skip
    found = np.asarray(jax.jit(run)(kernel, xs, slopes), np.float64)
    x64, slope64 = wide(xs, slopes)
    assert set(taken) == {not checked}
    error = np.linalg.norm(found - x64.T @ slope64)
    assert error < 2**-8 * np.linalg.norm(x64.T @ slope64)


def test_an_accelerator_does_not_take_it(units, monkeypatch):
    x, kernel, _, _ = arrays()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not bfloat16_linear.takes(x, kernel)
    with jax.default_device(jax.devices("cpu")[0]):
        assert bfloat16_linear.takes(x, kernel)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("flags\t: fpu avx512_bf16 amx_bf16 amx_tile\n", True),
        ("flags\t: fpu avx512_bf16\n", False),
        (None, False),
    ],
)
def test_instructions_are_read(tmp_path, monkeypatch, text, found):
    path = tmp_path / "cpuinfo"
    if text:
        path.write_text(text)
    monkeypatch.setattr(bfloat16_linear, "_CPUINFO", path)
    assert bfloat16_linear.has_matrix_units.__wrapped__() is found


def surrounded(x, kernel, bias, slope, change):
    def loss(x, kernel, bias):
        y = change(bfloat16_linear.linear(change(x), kernel, bias))
        return jnp.sum(y.astype(jnp.float32) * change(slope).astype(jnp.float32))

    return jax.grad(loss, argnums=(0, 1, 2))(x, kernel, bias)


CHANGES = {
    "nothing": lambda array: array,
    "transposed twice": lambda array: (2 * array.T).T / 2,
    "reversed": lambda array: array[::-1][::-1],
    "concatenated": lambda array: jnp.concatenate([array[:40], array[40:]]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_neighbours_that_could_change_layouts(change):
    """Otherwise XLA fails when the program runs, as it does without constraints."""
    run = functools.partial(surrounded, change=change)
    expected = run(*arrays(), change=lambda array: array)
    assert_same(jax.jit(run)(*arrays()), expected)


def test_a_result_that_is_transposed():
    """XLA would exchange the operands, and then cannot run the product."""
    x, kernel, _, _ = arrays()
    run = jax.jit(lambda x, kernel: bfloat16_linear.product(x, kernel).T)
    (found,), (x64, kernel64) = wide(run(x, kernel)), wide(x, kernel)
    chex.assert_trees_all_close(found, (x64 @ kernel64).T, rtol=1e-4, atol=1e-4)


def test_a_kernel_that_is_transposed(units):
    """As the embedding of a language model, which is its head too."""
    x, kernel, _, slope = arrays()
    table = kernel.T + 0

    def tied(x, table):
        return linear.product(x, table, transposed=True)

    @jax.jit
    def run(x, table):
        y, pullback = jax.vjp(tied, x, table)
        return y, *pullback(slope)

    y, dx, dtable = run(x, table)
    x64, table64, slope64 = wide(x, table, slope)
    assert_rounded_once(y, x64, table64.T)
    assert_rounded_once(dx, slope64, table64)
    assert_rounded_once(dtable, slope64.T, x64)
    assert "custom_vjp_call" in str(jax.make_jaxpr(tied)(x, table))


@pytest.mark.parametrize("shared", [True, False])
def test_a_population_computes_what_each_of_its_members_does(shared):
    """Also with a kernel that they share."""
    x, kernel, bias, slope = arrays()
    xs, slopes = jnp.stack([x, x[::-1], -x]), jnp.stack([slope, 2 * slope, slope])
    kernels, biases = (kernel, bias) if shared else pair(kernel, bias)
    axis = None if shared else 0
    run = jax.jit(jax.vmap(pull, (0, axis, axis, 0)))
    found = run(xs, kernels, biases, slopes)
    for i in range(3):
        own = (kernel, bias) if shared else (kernels[i], biases[i])
        expected = pull(xs[i], *own, slopes[i])
        assert_same(member(found, i), expected)


def pair(kernel, bias):
    return jnp.stack([kernel, -kernel, kernel]), jnp.stack([bias] * 3)


def member(tree, i):
    return jax.tree.map(lambda array: array[i], tree)


@pytest.mark.parametrize("recompute", [True, False])
def test_layers_in_a_scan(units, recompute):
    x, _, _, _ = arrays()
    kernels = 0.1 * draw(3, D, D, seed=4)

    def layer(h, kernel):
        return jnp.tanh(linear.product(h, kernel)), None

    def loss(kernels, x):
        step = jax.checkpoint(layer) if recompute else layer
        return jnp.sum(jax.lax.scan(step, x, kernels)[0].astype(jnp.float32))

    def unrolled(kernels, x):
        for kernel in kernels:
            x, _ = layer(x, kernel)
        return jnp.sum(x.astype(jnp.float32))

    found = jax.jit(jax.grad(loss))(kernels, x)
    expected = jax.grad(unrolled)(kernels, x)
    found, expected = wide(found, expected)
    assert np.linalg.norm(found - expected) < 2**-8 * np.linalg.norm(expected)


@needs_units
def test_xla_multiplies_bfloat16():
    """Where it does not like the form of a product, it converts to float32 first."""
    # The value, and the slopes of x, kernel and bias.
    assert operands_of_products(pull, *arrays()) == [("bf16", "bf16")] * 4
