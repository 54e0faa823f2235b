"""Adversarial offsets against NumPy, for a linear model whose loss is known."""

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
from tests.conftest import draw

KEY = jax.random.key(0)
SEGMENT_IDS = np.array([[5, 5, 7, 7, 7, -1], [2, 2, 2, 2, 9, 9]])
MASK = SEGMENT_IDS >= 0
SIGNS = np.array([[1.0, 1.0, -1.0, -1.0, -1.0, 0.0], [-1.0] * 4 + [1.0] * 2])
# The row and the tokens of each example, and their number.
EXAMPLES = [(0, slice(0, 2)), (0, slice(2, 5)), (1, slice(0, 4)), (1, slice(4, 6))]
LENGTHS = np.array([2, 3, 4, 2])


def linear(offsets=None):
    """Σ over tokens of −sign · wᵀ(e + δ): a loss that is linear in the offset.

    A list receives the offset of each call, and the words of its key.
    """

    def loss(params, batch, key):
        x = batch["x"]
        hidden = params["table"][x["tokens"]] + x.get("offset", 0.0)
        if offsets is not None:
            words = jax.random.key_data(key)
            jax.debug.callback(lambda *args: offsets.append(args), x["offset"], words)
        return -(SIGNS * (hidden @ params["w"])).sum()

    return loss


def example():
    rng = np.random.default_rng(0)
    params = {"table": rng.normal(size=(9, 3)), "w": np.array([3.0, 0.0, -4.0])}
    tokens = rng.integers(0, 9, SEGMENT_IDS.shape)
    x = {"tokens": tokens, "mask": MASK, "segment_ids": SEGMENT_IDS}
    return jax.tree.map(jnp.asarray, (params, {"x": x}))


def run(gradient, params, batch):
    """Returns the loss and the gradient, after all callbacks."""
    outputs = jax.jit(gradient)(params, batch, KEY)
    jax.effects_barrier()
    return jax.device_get(outputs)


def clean_loss(params, batch, offset=0.0):
    """Returns the linear loss and its gradient by w, from NumPy."""
    table, w = np.asarray(params["table"]), np.asarray(params["w"])
    hidden = table[np.asarray(batch["x"]["tokens"])] + offset
    slope = -(SIGNS[..., None] * hidden).sum((0, 1))
    return slope @ w, slope


def test_fgm_of_a_linear_model_is_known(x64):
    """The offset of T tokens costs ε ‖w‖ √T, whatever the tokens; padding has none."""
    params, batch = example()
    clean, slope = clean_loss(params, batch)
    offsets = []
    loss, grads = run(fgm(linear(offsets), 3, 0.25), params, batch)
    expected = 2 * clean + 0.25 * 5.0 * np.sqrt(LENGTHS).sum()
    assert loss == pytest.approx(expected, rel=1e-12)
    # By w: twice that of the loss, and −sign · δ, where δ is −sign · ε w / (‖w‖ √T).
    own = 0.25 * np.sqrt(LENGTHS).sum() * np.array([0.6, 0.0, -0.8])
    np.testing.assert_allclose(grads["w"], 2 * slope + own, rtol=1e-12)

    (zero, first), (offset, second) = sorted(offsets, key=lambda o: abs(o[0]).sum())
    assert not np.any(zero) and (np.asarray(offset)[~MASK] == 0).all()
    for row, place in EXAMPLES:
        own = np.asarray(offset)[row, place]
        assert np.linalg.norm(own) == pytest.approx(0.25)
        wanted = -SIGNS[row, place, None] * np.array([0.6, 0.0, -0.8])
        np.testing.assert_allclose(own * np.sqrt(len(own)) / 0.25, wanted, rtol=1e-6)
    assert (first == second).all()


def test_without_segments_a_row_is_an_example(x64):
    params, batch = example()
    del batch["x"]["segment_ids"]
    offsets = []
    run(fgm(linear(offsets), 3, 0.25), params, batch)
    offset = max((np.asarray(o) for o, _ in offsets), key=lambda o: abs(o).sum())
    norms = np.linalg.norm(offset.reshape(2, -1), axis=1)
    np.testing.assert_allclose(norms, 0.25, rtol=1e-6)
    assert (offset[~MASK] == 0).all()


def test_without_a_mask_every_token_has_an_offset(x64):
    params, batch = example()
    batch = {"x": {"tokens": batch["x"]["tokens"]}}
    loss, _ = run(fgm(linear(), 3, 0.25), params, batch)
    clean, _ = clean_loss(params, batch)
    signs = np.sqrt(np.abs(SIGNS).sum(axis=1)).sum()
    assert loss == pytest.approx(2 * clean + 0.25 * 5.0 * signs, rel=1e-12)


def test_an_offset_of_zero_changes_nothing(x64):
    """For FGM twice the gradient, for FreeLB the gradient, to the last digits."""
    params, batch = example()

    def loss(params, batch, key):
        x = batch["x"]
        hidden = params["table"][x["tokens"]] + x.get("offset", 0.0)
        return jnp.sin(dropout(hidden, key, 0.3) @ params["w"]).sum()

    def all_three(params, batch, key):
        plain = jax.value_and_grad(loss)(params, batch, key)
        twice = fgm(loss, 3, 0.0)(params, batch, key)
        return plain, twice, freelb(loss, 3, steps=2, radius=0.0)(params, batch, key)

    plain, twice, once = run(all_three, params, batch)
    chex.assert_trees_all_equal(twice, jax.tree.map(lambda leaf: 2 * leaf, plain))
    chex.assert_trees_all_close(once, plain, rtol=1e-13, atol=1e-15)


def ascend(params, start, steps, step_size, radius):
    """FreeLB's offsets, example by example."""
    w, offset, offsets = np.asarray(params["w"]), np.array(start), []
    for _ in range(steps):
        offsets.append(offset.copy())
        for row, place in EXAMPLES:
            slope = -SIGNS[row, place, None] * w
            own = offset[row, place] + step_size * slope / np.linalg.norm(slope)
            own *= min(1.0, radius / np.linalg.norm(own))
            offset[row, place] = own
    return offsets


@pytest.mark.parametrize("radius", [10.0, 0.3])
def test_freelb_against_numpy(radius, x64):
    params, batch = example()
    received = []
    gradient = freelb(linear(received), 3, 4, step_size=0.2, radius=radius, start=0.1)
    loss, grads = run(gradient, params, batch)
    assert len(received) == 4 and len({tuple(key.tolist()) for _, key in received}) == 1
    offsets = [np.asarray(offset) for offset, _ in received]
    expected = ascend(params, offsets[0], 4, 0.2, radius)
    np.testing.assert_allclose(offsets, expected, atol=1e-6)  # seen as float32
    losses, slopes = zip(*(clean_loss(params, batch, o) for o in expected), strict=True)
    assert loss == pytest.approx(np.mean(losses), rel=1e-6)
    np.testing.assert_allclose(grads["w"], np.mean(slopes, axis=0), rtol=1e-6)


def test_freelb_starts_evenly_in_a_box_of_each_examples_size():
    _, batch = example()
    probe = {"probe": jnp.zeros((2, 6, 3))}

    def loss(params, batch, key):  # its gradient is the first offset
        return (params["probe"] * batch["x"]["offset"]).sum()

    gradient = freelb(loss, 3, steps=1, start=0.4)

    @jax.jit
    def first_offsets(key):
        keys = jax.random.split(key, 200)
        return jax.vmap(lambda key: gradient(probe, batch, key)[1]["probe"])(keys)

    firsts = np.asarray(first_offsets(KEY))
    assert (firsts[:, ~MASK] == 0).all()
    for row, place in EXAMPLES:
        own = firsts[:, row, place] * np.sqrt(firsts[0, row, place].size) / 0.4
        assert np.abs(own).max() <= 1.0 + 1e-6
        assert abs(own.mean()) < 0.07 and abs(own.std() - 3**-0.5) < 0.03


PROJECT = jax.jit(adversarial.project)


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(
    segment_ids=st.lists(st.integers(-1, 2), min_size=5, max_size=5),
    radius=st.sampled_from([0.0, 0.5, 3.0]),
    seed=st.integers(0, 9),
)
def test_projection(segment_ids, radius, seed):
    offset = np.random.default_rng(seed).normal(size=(1, 5, 2)).astype(np.float32)
    segment_ids = np.sort(segment_ids)[None]
    projected = np.asarray(PROJECT(offset, radius, segment_ids))
    for number in set(segment_ids[0]):
        own, was = projected[segment_ids == number], offset[segment_ids == number]
        norm = np.linalg.norm(was)
        expected = was if norm <= radius else was * (radius / norm)
        np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-6)


def test_an_example_without_a_slope_has_no_offset():
    assert not adversarial.rescale(jnp.zeros((1, 3, 2)), 1.0).any()


def tagger():
    encoder = EncoderConfig(
        vocabulary=20, features=8, layers=1, heads=1, hidden=8, length=6, types=0,
        block="mlp:relu",
    )  # fmt: skip
    model = classifier_model(ClassifierConfig(encoder, 3, dropout=0.0))
    x = {
        "tokens": np.random.default_rng(0).integers(0, 20, SEGMENT_IDS.shape),
        "mask": MASK,
        "segment_ids": SEGMENT_IDS,
        "label_positions": np.array([[0, 3, -1], [1, 4, 5]]),
    }
    y = np.array([[0, 1, -100], [2, 0, 1]])
    return model, draw(model, 0.5, seed=1), {"x": x, "y": y}


def test_an_offset_of_a_tagger():
    """One that makes another token of each is that token; one uphill is worse."""
    model, params, batch = tagger()
    x, loss = batch["x"], mean_loss(model, OBJECTIVES["classes"])
    table = np.asarray(params["encoder"]["embed"]["tokens"]["embedding"])
    other = (x["tokens"] + 1) % 20
    offset = table[other] - table[x["tokens"]]

    @jax.jit
    def logits_and_losses(params, key):
        inputs = (x, {**x, "offset": offset}, {**x, "tokens": other})
        uphill = fgm(loss, 8, 0.05)(params, batch, key)[0]
        gentle = freelb(loss, 8, 3, step_size=0.05, radius=0.2, start=0.0)
        losses = loss(params, batch, key), uphill, gentle(params, batch, key)[0]
        return [model.apply(params, each)[0] for each in inputs], losses

    (before, found, expected), losses = logits_and_losses(params, KEY)
    mask = x["label_positions"] >= 0
    np.testing.assert_allclose(found[mask], expected[mask], atol=1e-5)
    assert np.abs(found - before).max() > 0.01
    clean, adversarial_loss, mean = map(float, losses)
    assert adversarial_loss > 2 * clean + 1e-3
    assert mean > clean + 1e-3
