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
from tests.conftest import draw

KEY = jax.random.key(0)
OBJECTIVE = objectives.OBJECTIVES["classes"]


def tower(dropout=0.0):
    block = BlockConfig("swiglu", 6, 8, dropout=dropout)
    return mlp.tower(mlp.TowerConfig(5, 3, block, layers=1))


def linear():
    """A model that compiles fast, where the model is not the subject."""

    def init(key):
        return {"kernel": jnp.zeros((5, 3)), "bias": jnp.zeros(3)}

    def apply(params, x, key=None):
        return jnp.einsum("bd,dk->bk", x, params["kernel"]) + params["bias"][None], {}

    return Model(init, apply)


def example(model, rows=12):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, rows)
    y[:4] = IGNORE  # the first part has fewer labels than the others
    return draw(model, 0.5), {"x": jnp.asarray(rng.normal(size=(rows, 5))), "y": y}


def count(batch):
    return objectives.label_weights(batch["y"]).sum()


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 3.0]])
def test_parts_of_a_batch_are_the_batch(weights, x64):
    model = linear()
    params, batch = example(model)
    loss = objectives.mean_loss(model, objectives.cross_entropy_objective(0.1, weights))
    gradient = gradients.mean_gradient(loss)

    def weight(batch):
        return objectives.label_weights(batch["y"], weights).sum()

    @jax.jit
    def run(params, batch, key):
        accumulated = [
            gradients.accumulate(gradient, parts, weight)(params, batch, key)
            for parts in (2, 3, 12)
        ]
        return accumulated, gradient(params, batch, key)

    accumulated, expected = run(params, batch, KEY)
    for outputs in accumulated:
        chex.assert_trees_all_close(outputs, expected, rtol=1e-11, atol=1e-14)
    assert gradients.accumulate(gradient, 1, weight) is gradient


def test_parts_draw_different_dropout():
    drawn = []

    def gradient(params, batch, key):
        drawn.append(jax.random.uniform(key))
        return jax.random.uniform(key), params

    batch = {"y": np.array([0, 0, IGNORE, 0])}
    run = jax.jit(gradients.accumulate(gradient, 4, count))
    mean, _ = run({"w": jnp.ones(())}, batch, KEY)
    each = [jax.random.uniform(jax.random.fold_in(KEY, part)) for part in (0, 1, 3)]
    assert float(mean) == pytest.approx(np.mean(each), rel=1e-6)
    assert len(drawn) <= 2  # traced for its shape and for the scan, whatever the parts


def test_parts_hold_one_part_in_memory():
    """The scan takes a third of the rows, and no gradient is stacked."""
    model = linear()
    params, batch = example(model)
    gradient = gradients.mean_gradient(objectives.mean_loss(model, OBJECTIVE))
    jaxpr = jax.make_jaxpr(gradients.accumulate(gradient, 3, count))(params, batch, KEY)
    (scan,) = (eqn for eqn in jaxpr.eqns if eqn.primitive.name == "scan")
    assert scan.params["length"] == 3
    sums = [(), *(leaf.shape for leaf in jax.tree.leaves(params))]
    assert sorted(var.aval.shape for var in scan.outvars) == sorted(sums)


def test_a_batch_that_does_not_divide_is_refused():
    gradient = gradients.accumulate(lambda *args: None, 5, count)
    with pytest.raises(InputError, match="^parts: 5 parts of a batch of 12 rows"):
        gradient({}, {"y": np.zeros(12, int)}, KEY)


def test_nothing_labelled_is_a_gradient_of_zero():
    model = linear()
    params, batch = example(model)
    batch["y"] = np.full(12, IGNORE)
    gradient = gradients.mean_gradient(objectives.mean_loss(model, OBJECTIVE))
    run = jax.jit(gradients.accumulate(gradient, 2, count))
    outputs = run(params, batch, KEY)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(outputs))


def test_r_drop_is_what_is_written(x64):
    """Against NumPy, and its gradient against finite differences."""
    model, alpha = tower(dropout=0.4), 0.7
    params, batch = example(model)
    params = jax.tree.map(lambda leaf: leaf.astype(float), params)
    loss = gradients.r_drop(model, OBJECTIVE, alpha)
    r_drop = jax.jit(lambda params: loss(params, batch, KEY))
    twice = np.concatenate([batch["x"], batch["x"]])
    logits = np.asarray(jax.jit(model.apply)(params, twice, KEY)[0])
    mask = batch["y"] != IGNORE
    one, two = special.log_softmax(logits, axis=-1).reshape(2, 12, 3)[:, mask]
    labels = batch["y"][mask]
    chosen = [logs[np.arange(len(labels)), labels] for logs in (one, two)]
    forth = (np.exp(one) * (one - two)).sum(-1)
    both_ways = forth + (np.exp(two) * (two - one)).sum(-1)
    assert both_ways.mean() > 1e-3
    expected = -np.mean(chosen) + alpha * both_ways.mean() / 2
    assert float(r_drop(params)) == pytest.approx(expected, rel=1e-10)
    check_grads(r_drop, (params,), order=1, modes=["rev"])


def test_r_drop_without_dropout_is_the_mean_loss(x64):
    model = tower()
    params, batch = example(model)
    params = jax.tree.map(lambda leaf: leaf.astype(float), params)
    plain = objectives.mean_loss(model, OBJECTIVE)
    r_drop = gradients.r_drop(model, OBJECTIVE, 5.0)

    @jax.jit
    def both(params):
        return [jax.value_and_grad(f)(params, batch, KEY) for f in (r_drop, plain)]

    value, expected = both(params)
    chex.assert_trees_all_close(value, expected, rtol=1e-12, atol=1e-15)


DIVERGENCE = jax.jit(
    jax.value_and_grad(lambda one, two: gradients.divergence(one, two).sum())
)


@pytest.mark.parametrize("never", [-np.inf, -1e30, np.finfo(np.float32).min])
def test_classes_that_cannot_be_have_no_gradient(never):
    logits = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    barred = np.zeros((5, 4), bool)
    barred[:, 1] = barred[2, 3] = True
    one, two = np.where(barred, np.float32(never), logits)
    value, grads = DIVERGENCE(one, two)
    p, q = (special.softmax(each.astype(float), axis=-1) for each in (one, two))
    ratio = np.log(np.where(barred, 1.0, p) / np.where(barred, 1.0, q))
    expected = ((p - q) * ratio).sum() / 2
    assert float(value) == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(grads).all() and not np.asarray(grads)[barred].any()


def test_r_drop_of_log_probabilities_has_no_nan():
    """A model whose outputs are normalised already, one class barred."""
    inner = tower(dropout=0.4)
    params, batch = example(inner)

    def apply(params, x, key=None):
        logits, aux = inner.apply(params, x, key)
        logits = jnp.where(jnp.arange(3)[None] == 2, -jnp.inf, logits)
        return jax.nn.log_softmax(logits), aux

    batch["y"] = np.minimum(batch["y"], 1)
    loss = gradients.r_drop(Model(inner.init, apply), OBJECTIVE, 1.0)
    value, grads = jax.jit(jax.value_and_grad(loss))(params, batch, KEY)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.slow
def test_all_of_it_at_once():
    """Parts of a batch, FGM, masked tokens and R-Drop."""
    chex.clear_trace_counter()
    encoder = EncoderConfig(
        vocabulary=20, features=8, layers=1, heads=1, hidden=8, length=8, dropout=0.1,
        block="mlp:relu", types=0, embed_norm=False, head_dense=False,
    )  # fmt: skip
    model = classifier_model(ClassifierConfig(encoder, 3))
    heads = Model(lambda key: init_mlm_head(encoder, key), None)
    params = {**draw(model, 0.1), "masked": draw(heads, 0.1)}
    segment_ids = np.tile([0, 0, 0, 1, 1, 1, 1, -1], (4, 1))
    x = {
        "tokens": np.arange(32).reshape(4, 8) % 17 + 3,
        "mask": segment_ids >= 0,
        "segment_ids": segment_ids,
        "label_positions": np.tile([0, -1, 3], (4, 1)),
    }
    batch = {"x": x, "y": np.tile([1, IGNORE, 2], (4, 1))}
    loss = gradients.r_drop(model, objectives.cross_entropy_objective(), 1.0)
    loss = add_mlm_loss(loss, with_mlm_head(encoder, 2, special_tokens=(0, 1)), 0.5)
    gradient = gradients.accumulate(fgm(loss, 8, 1.0), 2, count)
    value, grads = jax.jit(chex.assert_max_traces(gradient, n=1))(params, batch, KEY)
    chex.assert_trees_all_equal_shapes_and_dtypes(grads, params)
    assert float(value) > 2 * np.log(3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(grads["masked"]))
