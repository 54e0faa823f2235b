import itertools

import jax
import jax.numpy as jnp
import pytest

from ffnlab.errors import InputError
from ffnlab.models.decoder_costs import (
    SIZES,
    DecoderShape,
    find_divisors,
    nearest_divisors,
)
from ffnlab.nn.jaxprs import product_flops
from ffnlab.nn.precision import mixed_precision
from tests.models.costed_decoder import SIZE, decoder

LENGTH, BATCH = 48, 2
SHAPE = DecoderShape(**SIZE, length=LENGTH)
TOKENS = jax.ShapeDtypeStruct((BATCH, LENGTH), jnp.int32)


def loss_of(model):
    def loss(params, tokens):
        logits, _ = model.apply(params, {"tokens": tokens})
        logs = jax.nn.log_softmax(logits.astype(jnp.float32))
        return -jnp.take_along_axis(logs, tokens[..., None], -1).mean()

    return loss


@pytest.mark.parametrize(
    "options",
    [{}, {"block": "mlp:relu", "key_value_heads": 4}, {"layers": 3, "scan": True}],
)
def test_parameters_are_those_of_the_model(options):
    _, params = decoder(**options)
    inputs = 1 if "block" in options else 2
    own = {name: options.get(name, size) for name, size in SIZE.items()}
    shape = DecoderShape(**own, length=LENGTH, inputs=inputs)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == shape.parameters


@pytest.mark.parametrize("name, published", [("1b", 1.236e9), ("8b", 8.030e9)])
def test_sizes_are_the_published_ones(name, published):
    shape = DecoderShape(**SIZES[name], length=1)
    own_head = 0 if name == "1b" else shape.embeddings
    assert shape.parameters + own_head == pytest.approx(published, rel=1e-3)


@pytest.mark.parametrize("recompute", [False, True])
def test_operations_are_those_of_the_products(recompute):
    model, params = decoder(remat=recompute)
    traced = jax.make_jaxpr(jax.grad(loss_of(model)))(params, TOKENS)
    wanted = SHAPE.flops + (SHAPE.recomputed_flops if recompute else 0)
    assert product_flops(traced.jaxpr) == wanted * BATCH * LENGTH


def test_operations_are_nearly_all_that_xla_counts():
    model, params = decoder(layers=1)
    compiled = jax.jit(jax.grad(loss_of(model))).lower(params, TOKENS).compile()
    counted = compiled.cost_analysis()["flops"] / (BATCH * LENGTH)
    shape = DecoderShape(**{**SIZE, "layers": 1}, length=LENGTH)
    assert 0.9 * counted < shape.flops < counted


@pytest.mark.parametrize(
    "dtype, recompute",
    [*itertools.product(("float32", "bfloat16"), (False, True))],
)
def test_activations_are_what_the_backward_pass_keeps(dtype, recompute):
    model, params = decoder(remat=recompute)
    if dtype == "bfloat16":
        model = mixed_precision(model, dtype, keep=())

    def backward(params, tokens):
        return jax.vjp(lambda params: loss_of(model)(params, tokens), params)[1]

    kept = jax.tree.leaves(jax.eval_shape(backward, params, TOKENS))
    count = sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in kept
        if leaf.shape[0:1] in ((BATCH,), (BATCH * LENGTH,))
        and leaf.shape[-1:] != (SIZE["vocabulary"],)
    )
    itemsize = jnp.dtype(dtype).itemsize
    wanted = SHAPE.activations(itemsize, 1, flash=False, recompute=recompute)
    if recompute:  # the inside of a layer is kept later, one layer at a time
        wanted -= SHAPE.layer_activations(itemsize, 1, flash=False)
    # The loss keeps a few numbers for each token.
    assert wanted <= count / (BATCH * LENGTH) <= wanted + 16


def test_activations_fall_with_the_model_axis_but_for_the_norms():
    norms = 2 * SHAPE.norm_activations(2)
    whole, half = (SHAPE.layer_activations(2, model, False) for model in (1, 2))
    assert half - norms == (whole - norms) / 2


def test_a_flash_kernel_keeps_no_pairs():
    longer = DecoderShape(**SIZE, length=2 * LENGTH)
    assert SHAPE.layer_activations(2, 1, True) == longer.layer_activations(2, 1, True)
    pairs = longer.layer_activations(2, 1, False) - SHAPE.layer_activations(2, 1, False)
    assert pairs == SIZE["heads"] * LENGTH * 11


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"heads": 3}, "heads=3 must divide features=64; nearest: 2, 4"),
        ({"key_value_heads": 3}, "key_value_heads=3 must divide heads=4; nearest: 2"),
    ],
)
def test_heads_that_do_not_divide(wrong, message):
    with pytest.raises(InputError, match=message):
        DecoderShape(**{**SIZE, **wrong}, length=LENGTH)


def test_divisors():
    assert find_divisors(1) == [1]
    for number in (36, 97, 128256):
        wanted = [n for n in range(1, number + 1) if number % n == 0]
        assert find_divisors(number) == wanted
    assert nearest_divisors(5, 6) == "nearest: 3, 6"
