"""Losses and gradients against NumPy, finite differences, and the whole batch."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import special

from ffnlab.data.dataset import IGNORE
from ffnlab.errors import InputError
from ffnlab.models import mlp
from ffnlab.models.classifier import ClassifierConfig, classifier_model
from ffnlab.models.language_model import add_mlm_loss, init_mlm_head, with_mlm_head
from ffnlab.models.transformer import EncoderConfig
from ffnlab.nn.ffn import BlockConfig
from ffnlab.train import gradients, objectives
from ffnlab.train.adversarial import fgm
from ffnlab.types import Model

KEY = jax.random.key(0)
OBJECTIVE = objectives.OBJECTIVES["classes"]


def tower(dropout=0.0):
    block = BlockConfig("swiglu", 6, 8, dropout=dropout)
    return mlp.tower(mlp.TowerConfig(5, 3, block, layers=1))


def made(model, rows=12):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, rows)
    y[:4] = IGNORE  # the first part has less to say than the others
    batch = {"x": jnp.asarray(rng.normal(size=(rows, 5))), "y": jnp.asarray(y)}
    params = jax.tree.map(lambda p: p.astype(float), model.init(KEY))
    return params, batch


def places(batch):
    return objectives.label_weights(batch["y"]).sum()


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 3.0]])
@pytest.mark.parametrize("parts", [1, 2, 3, 12])
def test_parts_of_a_batch_are_the_whole(parts, weights, x64):
    model = tower()
    params, batch = made(model)
    loss = objectives.mean_loss(model, objectives.cross_entropy_objective(0.1, weights))
    whole = gradients.mean_gradient(loss)

    def count(batch):
        return objectives.label_weights(batch["y"], weights).sum()

    cut = jax.jit(gradients.accumulate(whole, parts, count))
    expected = whole(params, batch, KEY)
    chex.assert_trees_all_close(
        cut(params, batch, KEY), expected, rtol=1e-11, atol=1e-14
    )


def test_parts_draw_different_dropout():
    drawn = []

    def gradient(params, batch, key):
        drawn.append(jax.random.uniform(key))
        return jax.random.uniform(key), params

    batch = {"y": jnp.array([0, 0, IGNORE, 0])}
    run = gradients.accumulate(gradient, 4, places)
    got, _ = run({"w": jnp.ones(())}, batch, KEY)
    each = [jax.random.uniform(jax.random.fold_in(KEY, part)) for part in (0, 1, 3)]
    assert float(got) == pytest.approx(np.mean(each), rel=1e-6)
    assert len(drawn) <= 2  # traced for its shape and for the scan, whatever the parts


def test_parts_hold_one_part_in_memory():
    """The scan sees a third of the rows, and no gradient is stacked."""
    model = tower()
    params, batch = made(model)
    gradient = gradients.mean_gradient(objectives.mean_loss(model, OBJECTIVE))
    jaxpr = jax.make_jaxpr(gradients.accumulate(gradient, 3, places))(
        params, batch, KEY
    )
    (scan,) = (eqn for eqn in jaxpr.eqns if eqn.primitive.name == "scan")
    assert scan.params["length"] == 3
    sums = [(), *(leaf.shape for leaf in jax.tree.leaves(params))]
    assert sorted(var.aval.shape for var in scan.outvars) == sorted(sums)


def test_a_batch_that_does_not_divide_is_refused():
    model = tower()
    params, batch = made(model)
    gradient = gradients.mean_gradient(objectives.mean_loss(model, OBJECTIVE))
    with pytest.raises(InputError, match="--accumulate: 5 parts of a batch of 12 rows"):
        gradients.accumulate(gradient, 5, places)(params, batch, KEY)


def test_nothing_labelled_is_a_gradient_of_zero():
    model = tower()
    params, batch = made(model)
    batch["y"] = jnp.full(12, IGNORE)
    gradient = gradients.mean_gradient(objectives.mean_loss(model, OBJECTIVE))
    found = gradients.accumulate(gradient, 2, places)(params, batch, KEY)
    assert not any(leaf.any() for leaf in jax.tree.leaves(found))


def test_r_drop_is_what_is_written(x64):
    model, alpha = tower(dropout=0.4), 0.7
    params, batch = made(model)
    got = gradients.r_drop(model, OBJECTIVE, alpha)(params, batch, KEY)
    twice = jnp.concatenate([batch["x"], batch["x"]])
    logits = np.asarray(model.apply(params, twice, KEY)[0])
    there = np.asarray(batch["y"]) != IGNORE
    one, two = special.log_softmax(logits, axis=-1).reshape(2, 12, 3)[:, there]
    labels = np.asarray(batch["y"])[there]
    chosen = [each[np.arange(len(labels)), labels] for each in (one, two)]
    there_and_back = (np.exp(one) * (one - two)).sum(-1) + (
        np.exp(two) * (two - one)
    ).sum(-1)
    assert there_and_back.mean() > 1e-3
    expected = -np.mean(chosen) + alpha * there_and_back.mean() / 2
    assert float(got) == pytest.approx(expected, rel=1e-10)


def test_r_drop_without_dropout_is_the_mean_loss(x64):
    model = tower()
    params, batch = made(model)
    plain = objectives.mean_loss(model, OBJECTIVE)
    both = gradients.r_drop(model, OBJECTIVE, 5.0)
    found, expected = (jax.value_and_grad(f)(params, batch, KEY) for f in (both, plain))
    chex.assert_trees_all_close(found, expected, rtol=1e-12, atol=1e-15)


def test_r_drop_against_finite_differences(x64):
    model = tower(dropout=0.4)
    params, batch = made(model)
    loss = gradients.r_drop(model, OBJECTIVE, 2.0)
    check_grads(lambda p: loss(p, batch, KEY), (params,), order=1, modes=["rev"])


@pytest.mark.parametrize("never", [-np.inf, -1e30, np.finfo(np.float32).min])
def test_classes_that_cannot_be_pull_on_nothing(never):
    logits = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    barred = np.zeros((5, 4), bool)
    barred[:, 1] = barred[2, 3] = True
    one, two = np.where(barred, np.float32(never), logits)
    found, pull = jax.value_and_grad(
        lambda one: gradients.divergence(one, jnp.asarray(two)).sum()
    )(jnp.asarray(one))
    p, q = (special.softmax(each.astype(float), axis=-1) for each in (one, two))
    ratio = np.log(np.where(barred, 1.0, p) / np.where(barred, 1.0, q))
    expected = ((p - q) * ratio).sum() / 2
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(pull).all() and not np.asarray(pull)[barred].any()


def test_r_drop_of_log_probabilities_has_no_nan():
    """A model whose outputs are normalised already, one class barred."""
    inner = tower(dropout=0.4)
    params, batch = made(inner)

    def apply(params, x, key=None):
        logits, aux = inner.apply(params, x, key)
        logits = jnp.where(jnp.arange(3)[None] == 2, -jnp.inf, logits)
        return jax.nn.log_softmax(logits), aux

    batch["y"] = jnp.minimum(batch["y"], 1)
    loss = gradients.r_drop(Model(inner.init, apply), OBJECTIVE, 1.0)
    value, grads = jax.value_and_grad(loss)(params, batch, KEY)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_all_of_it_at_once():
    """In parts, adversarial, with hidden tokens, of two dropouts."""
    chex.clear_trace_counter()
    encoder = EncoderConfig(
        vocabulary=20, features=8, layers=1, heads=1, hidden=8, length=8, dropout=0.1,
        block="mlp:relu", types=0, embed_norm=False, head_dense=False,
    )  # fmt: skip
    model = classifier_model(ClassifierConfig(encoder, 3))
    params = {**model.init(KEY), "masked": init_mlm_head(encoder, KEY)}
    segment_ids = jnp.tile(jnp.array([0, 0, 0, 1, 1, 1, 1, -1]), (4, 1))
    x = {
        "tokens": jnp.arange(32).reshape(4, 8) % 17 + 3,
        "mask": segment_ids >= 0,
        "segment_ids": segment_ids,
        "label_positions": jnp.tile(jnp.array([0, -1, 3]), (4, 1)),
    }
    batch = {"x": x, "y": jnp.tile(jnp.array([1, IGNORE, 2]), (4, 1))}
    loss = gradients.r_drop(model, objectives.cross_entropy_objective(), 1.0)
    loss = add_mlm_loss(loss, with_mlm_head(encoder, 2, special_tokens=(0, 1)), 0.5)
    gradient = gradients.accumulate(fgm(loss, 8, 1.0), 2, places)
    value, grads = jax.jit(chex.assert_max_traces(gradient, n=1))(params, batch, KEY)
    chex.assert_trees_all_equal_shapes_and_dtypes(grads, params)
    assert float(value) > 2 * np.log(3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads["masked"]))
