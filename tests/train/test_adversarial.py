"""Pushes against NumPy, where a linear model says what they cost."""

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from ffnlab.models.classifier import ClassifierConfig, classifier_model
from ffnlab.models.transformer import EncoderConfig
from ffnlab.nn.dropout import dropout
from ffnlab.train import adversarial
from ffnlab.train.adversarial import fgm, freelb
from ffnlab.train.objectives import OBJECTIVES, mean_loss

KEY = jax.random.key(0)
PACKS = np.array([[5, 5, 7, 7, 7, -1], [2, 2, 2, 2, 9, 9]])
THERE = PACKS >= 0
SIGNS = np.array([[1.0, 1.0, -1.0, -1.0, -1.0, 0.0], [-1.0] * 4 + [1.0] * 2])
TEXTS = [(0, slice(0, 2)), (0, slice(2, 5)), (1, slice(0, 4)), (1, slice(4, 6))]


def linear(seen=None):
    """Σ over tokens of −sign · wᵀ(e + δ): a loss that is linear in the offset."""

    def loss(params, batch, key):
        x = batch["x"]
        hidden = params["table"][x["tokens"]] + x.get("offset", 0.0)
        if seen is not None:
            jax.debug.callback(lambda *each: seen.append(each), x["offset"], key)
        return -(jnp.asarray(SIGNS) * (hidden @ params["w"])).sum()

    return loss


def made():
    rng = np.random.default_rng(0)
    params = {"table": jnp.asarray(rng.normal(size=(9, 3))),
              "w": jnp.asarray([3.0, 0.0, -4.0])}  # fmt: skip
    tokens = jnp.asarray(rng.integers(0, 9, PACKS.shape))
    x = {
        "tokens": tokens,
        "mask": jnp.asarray(THERE),
        "segment_ids": jnp.asarray(PACKS),
    }
    return params, {"x": x}


def test_fgm_of_a_linear_model_is_known(x64):
    """The push of a text of T tokens costs ε ‖w‖ √T, whatever the tokens."""
    params, batch = made()
    loss = linear()
    clean = float(loss(params, batch, KEY))
    got, grads = jax.jit(fgm(loss, 3, 0.25))(params, batch, KEY)
    lengths = np.array([2, 3, 4, 2])
    expected = 2 * clean + 0.25 * 5.0 * np.sqrt(lengths).sum()
    assert float(got) == pytest.approx(expected, rel=1e-12)
    # By w: twice that of the texts, and −sign · δ, δ being −sign · ε w / (‖w‖ √T).
    twice = 2 * np.asarray(jax.grad(loss)(params, batch, KEY)["w"])
    pushed = 0.25 * np.sqrt(lengths).sum() * np.array([0.6, 0.0, -0.8])
    np.testing.assert_allclose(grads["w"], twice + pushed, rtol=1e-12)


def test_fgm_pushes_each_text_by_epsilon_and_padding_by_nothing(x64):
    params, batch = made()
    seen = []
    fgm(linear(seen), 3, 0.25)(params, batch, KEY)
    jax.effects_barrier()
    (zero, first), (offset, second) = sorted(seen, key=lambda each: abs(each[0]).sum())
    assert not np.any(zero) and (offset[~THERE] == 0).all()
    for row, place in TEXTS:
        assert np.linalg.norm(offset[row, place]) == pytest.approx(0.25)
        one = -SIGNS[row, place, None] * np.array([0.6, 0.0, -0.8])
        np.testing.assert_allclose(offset[row, place] * np.sqrt(len(one)) / 0.25, one)
    assert (jax.random.key_data(first) == jax.random.key_data(second)).all()


def test_without_packs_a_row_is_a_text(x64):
    params, batch = made()
    del batch["x"]["segment_ids"]
    seen = []
    fgm(linear(seen), 3, 0.25)(params, batch, KEY)
    jax.effects_barrier()
    offset = max((each[0] for each in seen), key=lambda each: abs(each).sum())
    norms = np.linalg.norm(offset.reshape(2, -1), axis=1)
    np.testing.assert_allclose(norms, 0.25)
    assert (offset[~THERE] == 0).all()


def test_a_push_of_zero_is_no_push(x64):
    """For FGM twice the gradient, for FreeLB the gradient, bit for bit."""
    params, batch = made()

    def loss(params, batch, key):
        x = batch["x"]
        hidden = params["table"][x["tokens"]] + x.get("offset", 0.0)
        return jnp.sin(dropout(hidden, key, 0.3) @ params["w"]).sum()

    plain = jax.value_and_grad(loss)(params, batch, KEY)
    twice = fgm(loss, 3, 0.0)(params, batch, KEY)
    chex.assert_trees_all_equal(twice, jax.tree.map(lambda each: 2 * each, plain))
    once = freelb(loss, 3, steps=2, radius=0.0)(params, batch, KEY)
    chex.assert_trees_all_close(once, plain, rtol=1e-13, atol=1e-15)


def climbed(params, batch, start, steps, step_size, radius):
    """FreeLB's offsets, text by text."""
    w, offset, every = np.asarray(params["w"]), np.array(start), []
    for _ in range(steps):
        every.append(offset.copy())
        for row, place in TEXTS:
            uphill = -SIGNS[row, place, None] * w
            own = offset[row, place] + step_size * uphill / np.linalg.norm(uphill)
            own *= min(1.0, radius / np.linalg.norm(own))
            offset[row, place] = own
    return every


@pytest.mark.parametrize("radius", [10.0, 0.3])
def test_freelb_against_numpy(radius, x64):
    params, batch = made()
    seen = []
    gradient = freelb(linear(seen), 3, 4, step_size=0.2, radius=radius, start=0.1)
    got, grads = gradient(params, batch, KEY)
    jax.effects_barrier()
    offsets = [np.asarray(each[0]) for each in seen[-4:]]
    keys = {tuple(jax.random.key_data(each[1]).tolist()) for each in seen}
    assert len(keys) == 1
    expected = climbed(params, batch, offsets[0], 4, 0.2, radius)
    np.testing.assert_allclose(offsets, expected, atol=1e-6)  # seen as float32
    losses, slopes = [], []
    for offset in expected:
        x = {**batch["x"], "offset": jnp.asarray(offset)}
        value, slope = jax.value_and_grad(linear())(params, {"x": x}, KEY)
        losses.append(float(value))
        slopes.append(np.asarray(slope["w"]))
    assert float(got) == pytest.approx(np.mean(losses), rel=1e-6)
    np.testing.assert_allclose(grads["w"], np.mean(slopes, axis=0), rtol=1e-6)


def test_freelb_starts_evenly_in_a_box_of_each_texts_size():
    params, batch = made()
    probe = {"probe": jnp.zeros((2, 6, 3))}

    def loss(params, batch, key):  # its gradient is the first offset
        return (params["probe"] * batch["x"]["offset"]).sum()

    run = freelb(loss, 3, steps=1, start=0.4)
    keys = jax.random.split(KEY, 200)
    firsts = jax.vmap(lambda key: run(probe, batch, key)[1]["probe"])(keys)
    firsts = np.asarray(firsts)
    assert (firsts[:, ~THERE] == 0).all()
    for row, place in TEXTS:
        own = firsts[:, row, place] * np.sqrt(firsts[0, row, place].size) / 0.4
        assert np.abs(own).max() <= 1.0 + 1e-6
        assert abs(own.mean()) < 0.07 and abs(own.std() - 3**-0.5) < 0.03


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(
    segment_ids=st.lists(st.integers(-1, 2), min_size=5, max_size=5),
    radius=st.sampled_from([0.0, 0.5, 3.0]),
    seed=st.integers(0, 9),
)
def test_projection(segment_ids, radius, seed):
    offset = np.random.default_rng(seed).normal(size=(1, 5, 2)).astype(np.float32)
    segment_ids = np.sort(segment_ids)[None]
    found = np.asarray(
        adversarial.project(jnp.asarray(offset), radius, jnp.asarray(segment_ids))
    )
    for text in set(segment_ids[0]):
        own, was = found[segment_ids == text], offset[segment_ids == text]
        norm = np.linalg.norm(was)
        expected = was if norm <= radius else was * (radius / norm)
        np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-6)


def test_a_text_without_a_slope_is_not_pushed():
    zero = jnp.zeros((1, 3, 2))
    assert not adversarial.rescale(zero, 1.0).any()


def tagger():
    encoder = EncoderConfig(
        vocabulary=20, features=8, layers=1, heads=1, hidden=8, length=6, types=0,
        block="mlp:relu",
    )  # fmt: skip
    model = classifier_model(ClassifierConfig(encoder, 3, dropout=0.0))
    params = jax.tree.map(
        lambda p: 5 * p if p.ndim > 1 else p, model.init(jax.random.key(1))
    )
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 20, PACKS.shape))
    label_positions = jnp.array([[0, 3, -1], [1, 4, 5]])
    x = {
        "tokens": tokens,
        "mask": jnp.asarray(THERE),
        "segment_ids": jnp.asarray(PACKS),
    }
    y = jnp.array([[0, 1, -100], [2, 0, 1]])
    return model, params, {"x": {**x, "label_positions": label_positions}, "y": y}


def test_an_offset_is_added_to_the_embeddings():
    """An offset that turns each token into another is that other text."""
    model, params, batch = tagger()
    x = batch["x"]
    table = params["encoder"]["embed"]["tokens"]["embedding"]
    other = (x["tokens"] + 1) % 20
    offset = table[other] - table[x["tokens"]]
    found, _ = model.apply(params, {**x, "offset": offset})
    expected, _ = model.apply(params, {**x, "tokens": other})
    there = np.asarray(x["label_positions"]) >= 0
    np.testing.assert_allclose(found[there], expected[there], atol=1e-5)
    before, _ = model.apply(params, x)
    assert np.abs(found - before).max() > 0.01


def test_a_push_makes_a_tagger_worse():
    model, params, batch = tagger()
    loss = mean_loss(model, OBJECTIVES["classes"])
    clean = float(loss(params, batch, KEY))
    pushed = jax.jit(fgm(loss, 8, 0.05))
    assert float(pushed(params, batch, KEY)[0]) > 2 * clean + 1e-3
    gentle = freelb(loss, 8, 3, step_size=0.05, radius=0.2, start=0.0)
    assert float(jax.jit(gentle)(params, batch, KEY)[0]) > clean + 1e-3
