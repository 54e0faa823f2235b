"""The layers against NumPy in float64: values and gradients."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ffnlab import adapt
from ffnlab.adapt.low_rank import LowRankLayer, column_norms
from ffnlab.adapt.scaling import ScaleLayer
from ffnlab.errors import InputError
from ffnlab.nn.linear import dense

D, H, R = 5, 4, 2


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


KERNEL, BIAS = draw(D, H, seed=1), draw(H, seed=2)
A, B, VALUES, MAGNITUDE = draw(D, R), draw(R, H), draw(R), draw(H)
INPUTS = draw(3, 2, D, seed=4)


def run(layer, x, key=None):
    weights = {"kernel": KERNEL, "bias": BIAS, "adapters": (layer,), "key": key}
    return dense(x, weights)


def numpy_lora(a, b, values, magnitude, scale, norm=None):
    """The equations of the papers, with the sum of the kernels."""
    kernel = KERNEL + scale * (a * values) @ b
    if magnitude is not None:
        norm = np.linalg.norm(kernel, axis=0) if norm is None else norm
        kernel = kernel / norm * magnitude
    return INPUTS @ kernel + BIAS


CASES = {
    "lora": (np.ones(R), None),
    "adalora": (VALUES, None),
    "dora": (np.ones(R), MAGNITUDE),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, x64):
    values, magnitude = CASES[name]
    scale = 0.7
    layered = None if name != "adalora" else values

    def layer(a, b, values, magnitude):
        return LowRankLayer(a, b, values, magnitude, scale, 0.0)

    y = jax.jit(run)(layer(A, B, layered, magnitude), INPUTS)
    expected = numpy_lora(A, B, values, magnitude, scale)
    chex.assert_trees_all_close(y, expected, rtol=1e-12)

    def loss(arrays):
        return jnp.sin(run(layer(*arrays), INPUTS)).sum()

    arrays = (A, B, layered, magnitude)
    grads = jax.jit(jax.grad(loss))(jax.tree.map(jnp.asarray, arrays))
    # The norm of DoRA counts as a constant in the gradient.
    norm = np.linalg.norm(KERNEL + scale * (A * values) @ B, axis=0)
    for number, (array, grad) in enumerate(zip(arrays, grads, strict=True)):
        if array is None:
            continue
        difference = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            sides = []
            for step in (1e-6, -1e-6):
                changed = [np.array(v) if v is not None else None for v in arrays]
                changed[number][index] += step
                a, b, v, m = changed
                v = np.ones(R) if v is None else v
                sides.append(np.sin(numpy_lora(a, b, v, m, scale, norm)).sum())
            difference[index] = (sides[0] - sides[1]) / 2e-6
        chex.assert_trees_all_close(grad, difference, rtol=1e-6, atol=1e-7)


def test_column_norms_do_not_need_the_sum():
    expected = np.linalg.norm(KERNEL + A @ B, axis=0)
    found = column_norms(*(jnp.asarray(a, jnp.float32) for a in (KERNEL, A, B)))
    chex.assert_trees_all_close(found, expected, rtol=1e-5)
    shapes = (64, 32), (64, 3), (3, 32)
    text = str(jax.make_jaxpr(column_norms)(*(jnp.ones(shape) for shape in shapes)))
    assert "dot_general" in text and "f32[64,32] = dot_general" not in text


def test_factors_of_outputs_and_inputs(x64):
    output, factor = draw(H, seed=7), draw(D, seed=8)
    y = run(ScaleLayer(output, factor), INPUTS)
    expected = ((INPUTS * factor) @ KERNEL + BIAS) * output
    chex.assert_trees_all_close(y, expected, rtol=1e-12)
    check_grads(
        lambda o, i: jnp.sin(run(ScaleLayer(o, i), INPUTS)),
        (output, factor),
        order=1,
        modes=["rev"],
        rtol=1e-6,
    )


def test_no_program_has_the_sum_of_the_kernels():
    """Two thin products, forward and backward; no kernel-sized gradient."""
    kernel = jnp.zeros((64, 48))

    def loss(arrays, x):
        layer = LowRankLayer(*arrays, None, None, 1.0, 0.0)
        weights = {"kernel": kernel, "adapters": (layer,), "key": None}
        return jnp.square(dense(x, weights)).sum()

    arrays = jnp.zeros((64, 3)), jnp.zeros((3, 48))
    text = str(jax.make_jaxpr(jax.grad(loss))(arrays, jnp.zeros((7, 64))))
    assert "f32[64,48] = " not in text and "f32[7,64] = dot_general" not in text
    assert text.count("dot_general") == 3 + 3


def test_dropout_is_of_the_input_of_a_alone():
    """Its mean is the layer without it; layers with the same key draw differently."""
    layer = LowRankLayer(A, B, None, None, 0.5, 0.4)
    plain = run(layer, INPUTS)
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = jax.jit(jax.vmap(lambda key: run(layer, INPUTS, key)))(keys)
    chex.assert_trees_all_close(drawn.mean(axis=0), plain, atol=0.15)
    assert float(drawn.std(axis=0).min()) > 0.05
    zero = run(LowRankLayer(A, 0 * B, None, None, 0.5, 0.4), INPUTS, keys[0])
    chex.assert_trees_all_close(zero, INPUTS @ KERNEL + BIAS, rtol=1e-5)


def test_scales_differ_from_one():
    assert adapt.LoRA(rank=4, alpha=2.0).scale == 0.5
    assert adapt.LoRA(rank=4, alpha=2.0, rslora=True).scale == 1.0
    assert adapt.AdaLoRA(rank=4, target_rank=1, alpha=2.0, total_steps=9).scale == 0.5


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        ("lora", {"rank": 0}, "rank: 0 must be at least 1"),
        ("lora", {"dropout": 1.0}, r"dropout: 1.0 must be in \[0, 1\)"),
        ("lora", {"targets": ()}, "targets: at least one is needed"),
        ("lora", {"rate_ratio": 0.0}, "rate_ratio: 0.0 must be above 0"),
        ("lora", {"hidden": 3}, "hidden: the method lora has no such field"),
        ("lorra", {}, "method: unknown 'lorra'; nearest: .*lora"),
        ("lora+dora", {}, "method: lora occurs twice"),
        ("adalora", {}, "total_steps: 0 must be the number of training steps"),
        (
            "adalora",
            {"total_steps": 10, "warmup_steps": 5, "final_steps": 5},
            "total_steps: 10 steps leave none to lower the ranks in",
        ),
        ("adalora", {"total_steps": 10, "target_rank": 13}, "at most rank=12"),
        ("adalora", {"total_steps": 10, "interval": 0}, "interval: 0 must be at least"),
        ("adalora", {"total_steps": 10, "beta1": 1.0}, r"beta1: 1.0 must be in \[0"),
        ("adalora", {"total_steps": 10, "final_steps": -1}, "must be at least 0"),
        ("houlsby", {"hidden": 0}, "hidden: 0 must be at least 1"),
        ("houlsby", {"block": "mlp:geul"}, "block: unknown 'geul'; nearest: .*gelu"),
        ("prefix", {"virtual_tokens": 0}, "virtual_tokens: 0 must be at least 1"),
        ("top", {"layers": 0}, "layers: 0 must be at least 1"),
    ],
)
def test_bad_configurations_are_refused(text, fields, message):
    with pytest.raises(InputError, match=message) as caught:
        adapt.parse(text, **fields)
    assert "\n" not in str(caught.value)


def test_sums_are_tuples():
    lora, bitfit, ia3 = adapt.LoRA(rank=2), adapt.BitFit(), adapt.IA3()
    assert lora + bitfit + ia3 == (lora, bitfit, ia3) == lora + (bitfit + ia3)
    assert adapt.parse("lora + BitFit+ia3", rank=2) == (lora, bitfit, ia3)
    assert adapt.parse("parallel", scale=4.0)[0].placement == "parallel"
    assert adapt.parse("lora", rank=None) == (adapt.LoRA(),)
    with pytest.raises(InputError, match="'lora' is no method; known: LoRA"):
        adapt.rates({}, ["lora"])
