"""Which operations of a mixed-precision model are in bfloat16, and which are not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import jaxprs_in_params

from ffnlab.models.classifier import ClassifierConfig, classifier_model
from ffnlab.models.transformer import EncoderConfig
from ffnlab.nn.precision import mixed_precision
from ffnlab.train import objectives
from ffnlab.train.objectives import mean_loss
from tests import oracles

KEY = jax.random.key(0)


def make_model(dropout=0.0, head="linear"):
    encoder = EncoderConfig(
        vocabulary=20, features=16, layers=2, heads=2, hidden=32, length=8,
        dropout=dropout, attention_dropout=dropout, pooler=True,
    )  # fmt: skip
    model = classifier_model(ClassifierConfig(encoder, 3, head, dropout=dropout))
    rng = np.random.default_rng(0)
    segment_ids = np.tile([0, 0, 0, 0, 1, 1, 1, -1], (4, 1))
    x = {
        "tokens": rng.integers(0, 20, (4, 8)),
        "mask": segment_ids >= 0,
        "segment_ids": segment_ids,
        "label_positions": np.tile([0, 2, 4, 5], (4, 1)),
        "offset": (0.1 * rng.normal(size=(4, 8, 16))).astype(np.float32),
    }
    params = oracles.random_params(model, 0.1)
    return model, params, {"x": x, "y": rng.integers(0, 3, (4, 4))}


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from equations(inner)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_norms_and_softmax_stay_in_float32(dropout):
    """Of every exponential, root and sum; the products of the encoder are lowered."""
    model, params, batch = make_model(dropout)
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
    model, params, batch = make_model(head=head)
    half = mixed_precision(model)
    logits, found = jax.jit(
        lambda p: [m.apply(p, batch["x"])[0] for m in (model, half)]
    )(params)
    assert found.dtype == jnp.float32
    scale = np.abs(logits).max()
    difference = np.abs(np.asarray(found) - np.asarray(logits)).max()
    assert 1e-7 * scale < difference < 2**-8 * 8 * scale


@pytest.mark.slow
def test_it_learns_with_parameters_in_float32():
    model, params, batch = make_model(0.1)
    loss = mean_loss(mixed_precision(model), objectives.cross_entropy_objective())
    optimizer = optax.adam(1e-2)

    def step(carry, key):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, batch, key)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, updates), state), (value, grads)

    @jax.jit
    def run(params):
        start = params, optimizer.init(params)
        return jax.lax.scan(step, start, jax.random.split(KEY, 30))

    (params, state), (values, grads) = run(params)
    assert np.mean(values[-5:]) < 0.5 * values[0]
    kinds = {leaf.dtype for leaf in jax.tree.leaves((params, grads, state[0].mu))}
    assert kinds == {jnp.dtype("float32")}


def test_what_is_kept_is_not_cast():
    model, params, batch = make_model()
    x = {**batch["x"], "offset": np.zeros((4, 8, 16), np.float32)}
    kept = mixed_precision(model, jnp.bfloat16, keep=("encoder", "head"))
    whole, expected = jax.jit(lambda p: [m.apply(p, x)[0] for m in (kept, model)])(
        params
    )
    np.testing.assert_allclose(whole, expected, rtol=1e-6, atol=1e-6)
