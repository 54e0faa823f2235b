"""Every method fits every family, with layers stacked or not."""

import functools

import chex
import jax
import jax.numpy as jnp
import pytest

from ffnlab import adapt, trees
from ffnlab.errors import InputError
from ffnlab.models.layer_stack import stack_layers
from tests.adapt.small import FAMILIES, FIELDS, SUM, X, build, loss, moved

STARTS_CHANGED = ("prefix", "prompt")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", FIELDS)
def test_every_method_fits_every_family(name, family):
    """Starts as the plain model, where it should, and has gradients; also stacked."""
    model, params = build(family)
    config = adapt.parse(name, **FIELDS[name])
    if (name, family) == ("head", "gpt2"):
        with pytest.raises(InputError, match="nothing would train by head"):
            adapt.apply(params, config, model)
        return
    trainable, frozen, apply = adapt.apply(params, config, model)
    outputs, _ = apply(trainable, frozen, X)
    expected = plain_outputs(family)
    if name in STARTS_CHANGED:
        assert float(jnp.abs(outputs - expected).max()) > 1e-3
    else:
        chex.assert_trees_all_close(outputs, expected, rtol=1e-6, atol=1e-6)
    grads = jax.grad(lambda t: loss(apply, t, frozen))(moved(trainable, 0.1))
    # Softmax cancels the bias of keys, and label positions show no other positions.
    zero = [p for p, g in trees.flatten(grads).items() if not g.any()]
    allowed = ("key/bias", "types/embedding", "positions/embedding", "pooler/bias")
    assert all(path.endswith(allowed) for path in zero), zero
    if family not in ("bert", "gpt2"):
        return
    stacked, stack = build(family, scan=True)
    trainable, frozen, apply = adapt.apply(stack, config, stacked)
    traced = jax.eval_shape(jax.grad(lambda t: loss(apply, t, frozen)), trainable)
    chex.assert_trees_all_equal_shapes(traced, trainable)


@functools.cache
def plain_outputs(family):
    model, params = build(family)
    return model.apply(params, X)[0]


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=pytest.mark.slow) for name in ("bert", "gpt2")],
)
def test_stacked_layers_are_the_same_model(family):
    """With recomputation of layers in the backward pass, too."""
    model, params = build(family)
    trainable, frozen, apply = adapt.apply(params, SUM, model)
    trainable = moved(trainable, 0.1)
    stacked, stack = build(family, scan=True, remat=True)
    _, frozen_stack, apply_stack = adapt.apply(stack, SUM, stacked)
    both = {**trainable, "encoder": stack_layers(trainable["encoder"])}

    @jax.jit
    def run(trainable, both):
        one = jax.value_and_grad(lambda t: loss(apply, t, frozen))(trainable)
        two = jax.value_and_grad(lambda t: loss(apply_stack, t, frozen_stack))(both)
        return one, two

    one, (value, grads) = run(trainable, both)
    grads_one = {**one[1], "encoder": stack_layers(one[1]["encoder"])}
    chex.assert_trees_all_close(value, one[0], rtol=1e-5)
    chex.assert_trees_all_close(grads, grads_one, rtol=1e-3, atol=1e-5)
