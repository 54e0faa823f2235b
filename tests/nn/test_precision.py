"""What is of bfloat16 in a lowered model, and what is not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import jaxprs_in_params

from ffnlab.models.classifier import ClassifierConfig, classifier_model
from ffnlab.models.transformer import EncoderConfig
from ffnlab.nn.precision import mixed_precision
from ffnlab.train import layerwise
from ffnlab.train.gradients import mean_loss

KEY = jax.random.key(0)


def made(dropout=0.0, head="linear"):
    encoder = EncoderConfig(
        vocabulary=20, features=16, layers=2, heads=2, hidden=32, length=8,
        dropout=dropout, attention_dropout=dropout, pooler=True,
    )  # fmt: skip
    model = classifier_model(ClassifierConfig(encoder, 3, head, dropout=dropout))
    params = jax.tree.map(lambda p: 4 * p if p.ndim > 1 else p, model.init(KEY))
    rng = np.random.default_rng(0)
    segment_ids = jnp.tile(jnp.array([0, 0, 0, 0, 1, 1, 1, -1]), (4, 1))
    x = {
        "tokens": jnp.asarray(rng.integers(0, 20, (4, 8))),
        "mask": segment_ids >= 0,
        "segment_ids": segment_ids,
        "at": jnp.tile(jnp.array([0, 2, 4, 5]), (4, 1)),
        "offset": jnp.asarray(0.1 * rng.normal(size=(4, 8, 16)), jnp.float32),
    }
    return model, params, {"x": x, "y": jnp.asarray(rng.integers(0, 3, (4, 4)))}


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from equations(inner)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_norms_and_softmax_stay_in_float32(dropout):
    """Of every exponential, root and sum; the products of the encoder are lowered."""
    model, params, batch = made(dropout)
    half = mixed_precision(model)
    jaxpr = jax.make_jaxpr(lambda p, x, key: half.apply(p, x, key)[0])(
        params, batch["x"], KEY if dropout else None
    )
    kinds = {}
    for eqn in equations(jaxpr.jaxpr):
        for var in eqn.invars:
            kinds.setdefault(eqn.primitive.name, []).append(str(var.aval.dtype))
    for name in ("exp", "rsqrt", "reduce_sum", "reduce_max"):
        assert set(kinds[name]) == {"float32"}, name
    products = kinds["dot_general"]
    assert products.count("float32") == 2  # the linear head alone
    assert products.count("bfloat16") == 2 * (2 + 2 * 8)
    summed = [
        eqn
        for eqn in equations(jaxpr.jaxpr)
        if eqn.primitive.name == "dot_general"
        and eqn.invars[0].aval.dtype != eqn.outvars[0].aval.dtype
    ]
    assert len(summed) == 2  # the scores of attention, one a layer
    assert all(eqn.outvars[0].aval.dtype == jnp.float32 for eqn in summed)


@pytest.mark.parametrize("head", ["linear", "feedback"])
def test_outputs_agree_to_the_bits_of_bfloat16(head):
    model, params, batch = made(head=head)
    logits, _ = model.apply(params, batch["x"])
    found, _ = mixed_precision(model).apply(params, batch["x"])
    assert found.dtype == jnp.float32
    scale = float(jnp.abs(logits).max())
    difference = float(jnp.abs(found - logits).max())
    assert 1e-7 * scale < difference < 2**-8 * 8 * scale


def test_it_learns_with_parameters_in_float32():
    model, params, batch = made(0.1)
    loss = mean_loss(mixed_precision(model), layerwise.objective())
    optimizer = optax.adam(1e-2)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, key):
        value, grads = jax.value_and_grad(loss)(params, batch, key)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, value, grads

    values = []
    for number in range(30):
        key = jax.random.fold_in(KEY, number)
        params, state, value, grads = step(params, state, key)
        values.append(float(value))
    assert np.mean(values[-5:]) < 0.5 * values[0]
    kinds = {leaf.dtype for leaf in jax.tree.leaves((params, grads, state[0].mu))}
    assert kinds == {jnp.dtype("float32")}


def test_what_is_kept_is_not_cast():
    model, params, batch = made()
    whole, _ = mixed_precision(model, jnp.bfloat16, keep=("encoder", "head")).apply(
        params, {**batch["x"], "offset": jnp.zeros((4, 8, 16))}
    )
    expected, _ = model.apply(params, {**batch["x"], "offset": jnp.zeros((4, 8, 16))})
    np.testing.assert_allclose(whole, expected, rtol=1e-6, atol=1e-6)
