"""Answers against NumPy, window by window; what shares a row does not meet."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab import EncoderConfig, data, trees
from ffnlab.data.squad import Windows, pack_windows
from ffnlab.errors import InputError
from ffnlab.models.span_qa import (
    NEVER,
    SpanQAConfig,
    best_spans,
    make_span_finder,
    objective,
    span_qa_model,
)
from ffnlab.train import objectives

KEY = jax.random.key(0)
ENCODER = EncoderConfig(
    vocabulary=30, features=8, layers=1, heads=2, hidden=16, types=2, length=24
)
MODEL = span_qa_model(SpanQAConfig(ENCODER, dropout=0.0))
APPLY = jax.jit(MODEL.apply)


def made(sizes=(9, 5, 12, 7, 4), blank=()):
    """Windows of a question of two tokens and so many tokens in all."""
    rng = np.random.default_rng(0)
    tokens = [rng.integers(1, 30, n).astype(np.int32) for n in sizes]
    types = [np.repeat([0, 1], [3, n - 3]).astype(np.int32) for n in sizes]
    spans = [np.full((n, 2), -1) for n in sizes]
    for number, each in enumerate(spans):
        if number not in blank:  # of the context are all tokens between 3 and the last
            each[3:-1] = np.arange(len(each) - 4)[:, None] + [0, 1]
    spots = [sorted(rng.integers(3, n - 1, 2)) if n > 4 else [0, 0] for n in sizes]
    spots[1] = [0, 0]
    return Windows(tokens, types, spans, np.arange(len(sizes)), np.array(spots))


def batch_of(windows, width, rows=None):
    arrays = pack_windows(windows, width).arrays
    more = max(0, (rows or 0) - len(arrays["y"]))  # rows with nothing in them
    empty = {"x/label_positions": -1, "x/segment_ids": -1, "y": -100}
    full = {
        name: np.pad(
            array,
            [(0, more)] + [(0, 0)] * (array.ndim - 1),
            constant_values=empty.get(name, 0),
        )
        for name, array in arrays.items()
    }
    return jax.tree.map(jnp.asarray, data.take(full, np.arange(len(full["y"]))))


def wide(params):
    return jax.tree.map(lambda p: 5.0 * p if p.ndim > 1 else p, params)


def alone(batch):
    """Yields each window's row, slot, first token, and the tokens that are its own."""
    x = jax.tree.map(np.asarray, batch["x"])
    for row, slot in np.argwhere(x["label_positions"] >= 0):
        begin = x["label_positions"][row, slot]
        mine = x["segment_ids"][row] == x["segment_ids"][row, begin]
        yield row, slot, begin, np.flatnonzero(mine & x["inside"][row])


def random_logits(batch):
    shape = (*batch["x"]["tokens"].shape, 2)
    logits = np.random.default_rng(1).normal(size=shape).astype(np.float32) * 3.0
    return jnp.where(batch["x"]["inside"][..., None], jnp.asarray(logits), NEVER)


def test_the_parameters():
    shapes = trees.flatten(jax.eval_shape(MODEL.init, KEY))
    assert {n: s.shape for n, s in shapes.items() if not n.startswith("encoder/")} == {
        "head/out/kernel": (8, 2),
        "head/out/bias": (2,),
    }
    assert not any("pooler" in name for name in shapes)


def test_the_objective_is_of_one_window_at_a_time():
    batch = batch_of(made(), 24, rows=4)
    logits = random_logits(batch)
    scores = jax.jit(objective().score)(logits, batch)
    seen = np.zeros(batch["y"].shape[:2])
    for row, slot, _, mine in alone(batch):
        seen[row, slot] = 1
        losses, right = [], []
        for side in range(2):
            values = np.asarray(logits, np.float64)[row, mine, side]
            label = mine.tolist().index(batch["y"][row, slot, side])
            losses.append(np.log(np.exp(values).sum()) - values[label])
            right.append(values.argmax() == label)
        loss = scores.values["loss"][row, slot]
        np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-4)
        assert scores.values["accuracy"][row, slot] == all(right)
    assert (scores.weight == seen).all() and seen.sum() == 5
    assert (scores.values["loss"] * (1 - seen) == 0).all()


def test_both_ends_must_be_right():
    batch = batch_of(made(), 24)
    logits = np.asarray(random_logits(batch)).copy()
    ends = [(row, slot, batch["y"][row, slot]) for row, slot, _, _ in alone(batch)]
    for row, _, (start, end) in ends:
        logits[row, start, 0] = logits[row, end, 1] = 50.0
    accuracy = objective().score(jnp.asarray(logits), batch).values["accuracy"]
    assert accuracy.sum() == len(ends)
    row, slot, (_, end) = ends[0]
    logits[row, end, 1] = -50.0
    accuracy = objective().score(jnp.asarray(logits), batch).values["accuracy"]
    assert accuracy.sum() == len(ends) - 1 and accuracy[row, slot] == 0


@pytest.mark.parametrize("longest", [1, 3, 30])
def test_the_best_span_is_the_best_of_all(longest):
    batch = batch_of(made((9, 12, 24, 20, 5, 6), blank=(5,)), 24, rows=5)
    # The further on, the likelier an end, so that there are long spans too.
    logits = random_logits(batch) + 0.5 * jnp.arange(24.0)[None, :, None] * jnp.array(
        [[[0.0, 1.0]]]
    )
    read = jax.jit(functools.partial(best_spans, longest=longest))
    spans, scores, nothing = jax.tree.map(np.asarray, read(logits, batch["x"]))
    values, lengths = np.asarray(logits), set()
    for row, slot, begin, mine in alone(batch):
        table = {
            (start - begin, end - begin): values[row, start, 0] + values[row, end, 1]
            for start in mine[1:]
            for end in mine[1:]
            if start <= end < start + longest
        }
        assert nothing[row, slot] == values[row, begin].sum()
        if not table:
            assert spans[row, slot].tolist() == [0, 0] and scores[row, slot] <= NEVER
            continue
        best = max(table, key=table.get)
        assert tuple(spans[row, slot]) == best
        assert scores[row, slot] == table[best]
        lengths.add(best[1] - best[0])
    assert max(lengths) >= min(longest - 1, 3)


def test_windows_that_share_a_row_do_not_meet():
    params, windows = wide(MODEL.init(KEY)), made((9, 5, 9))
    found = []
    for width, count in ((24, 1), (9, 3)):
        rows = pack_windows(windows, width)
        assert len(rows.example_index) == count
        outputs = make_span_finder(MODEL, rows.arrays, 2, 4)(params)
        batch = batch_of(windows, width)
        scores = objective().score(APPLY(params, batch["x"])[0], batch)
        every = *outputs, np.asarray(scores.values["loss"])
        found.append([rows.flat(each) for each in every])
    assert len({*found[0][1].tolist()}) == 3
    chex.assert_trees_all_close(*found, atol=2e-4)


def test_the_gradient_is_that_of_finite_differences(x64):
    batch = batch_of(made(), 24, rows=4)
    params = jax.tree.map(lambda p: p.astype(np.float64), wide(MODEL.init(KEY)))

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        logits = MODEL.apply(params, batch["x"])[0]
        return objectives.means(objective().score(logits, batch))["loss"]

    _, grads = loss(params)
    chex.assert_tree_all_finite(grads)
    for name, place in (
        ("head/out/kernel", (3, 1)),
        ("encoder/layer_0/ffn/up/kernel", (2, 5)),
        ("encoder/embed/types/embedding", (1, 4)),
    ):
        step = 1e-3
        ends = [
            loss(
                jax.tree.map(
                    lambda p, n: p.at[place].add(move) if n == name else p,  # noqa: B023
                    params,
                    trees.names(params),
                )
            )[0]
            for move in (step, -step)
        ]
        slope = (ends[0] - ends[1]) / (2 * step)
        grad = trees.flatten(grads)[name][place]
        # The softmax of attention is of float32 throughout.
        rtol = 1e-5 if name.startswith("head") else 1e-2
        np.testing.assert_allclose(grad, slope, rtol=rtol)
        assert abs(grad) > 1e-4


def test_rows_with_nothing_in_them_do_no_harm():
    batch = batch_of(made(), 24, rows=6)
    batch["y"] = jnp.full_like(batch["y"], -100)
    batch["x"]["label_positions"] = jnp.full_like(batch["x"]["label_positions"], -1)
    batch["x"]["inside"] = jnp.zeros_like(batch["x"]["inside"])

    def loss(params):
        logits = MODEL.apply(params, batch["x"])[0]
        return objectives.means(objective().score(logits, batch))["loss"]

    value, grads = jax.jit(jax.value_and_grad(loss))(MODEL.init(KEY))
    assert value == 0 and all((leaf == 0).all() for leaf in jax.tree.leaves(grads))
    logits = APPLY(MODEL.init(KEY), batch["x"])[0]
    assert logits.dtype == jnp.float32 and (logits == np.float32(NEVER)).all()
    spans, scores, nothing = best_spans(logits, batch["x"], 3)
    assert (spans == 0).all() and (scores <= NEVER).all() and (nothing == 0).all()
    chex.assert_tree_all_finite((scores, nothing))


def test_dropout_is_drawn_by_its_key():
    model = span_qa_model(SpanQAConfig(ENCODER, dropout=0.5))
    params, x = model.init(KEY), batch_of(made(), 24)["x"]
    apply = jax.jit(model.apply)
    plain = apply(params, x)[0]
    chex.assert_trees_all_equal(plain, APPLY(params, x)[0])
    one, two = (apply(params, x, jax.random.key(n))[0] for n in (1, 2))
    assert (one != two).any() and (one != plain).any()


def test_other_configs_are_refused():
    for encoder in (EncoderConfig.tiny(head="tied"), EncoderConfig.tiny(pooler=True)):
        with pytest.raises(InputError, match="without a head and without a pooler"):
            SpanQAConfig(encoder)
    with pytest.raises(InputError, match=r"dropout=1.0 must be in \[0, 1\)"):
        SpanQAConfig(ENCODER, dropout=1.0)
    with pytest.raises(InputError, match="longest=0: an answer has at least 1 token"):
        make_span_finder(MODEL, pack_windows(made(), 24).arrays, longest=0)
