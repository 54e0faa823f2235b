"""Best spans against NumPy, window by window; windows of a row do not interact."""

import functools

import chex
import jax
import numpy as np
import pytest

from ffnlab import EncoderConfig, data, trees
from ffnlab.data.squad_windows import Windows, pack_windows
from ffnlab.errors import InputError
from ffnlab.models.span_qa import (
    MASKED_LOGIT,
    SpanQAConfig,
    best_spans,
    make_span_finder,
    span_qa_model,
    window_logits,
)
from ffnlab.train import objectives
from tests import oracles

KEY = jax.random.key(0)
ENCODER = EncoderConfig(
    vocabulary=30, features=8, layers=1, heads=2, hidden=16, types=2, length=24
)
MODEL = span_qa_model(SpanQAConfig(ENCODER, dropout=0.0))
APPLY = jax.jit(MODEL.apply)
OBJECTIVE = objectives.cross_entropy_objective(class_logits=window_logits, joint=True)
SCORE = jax.jit(OBJECTIVE.score)
PARAMS = oracles.random_params(MODEL, 0.1)


def make_windows(sizes=(9, 5, 12, 7, 4), blank=()):
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
    return data.take(full, np.arange(len(full["y"])))


def windows_of(batch):
    """Yields each window's row, slot, first token, and the tokens that are its own."""
    x = batch["x"]
    for row, slot in np.argwhere(x["label_positions"] >= 0):
        begin = x["label_positions"][row, slot]
        mine = x["segment_ids"][row] == x["segment_ids"][row, begin]
        yield row, slot, begin, np.flatnonzero(mine & x["inside"][row])


def random_logits(batch):
    shape = (*batch["x"]["tokens"].shape, 2)
    logits = np.random.default_rng(1).normal(size=shape).astype(np.float32) * 3.0
    return np.where(batch["x"]["inside"][..., None], logits, np.float32(MASKED_LOGIT))


def test_the_parameters():
    shapes = trees.flatten(jax.eval_shape(MODEL.init, KEY))
    assert {n: s.shape for n, s in shapes.items() if not n.startswith("encoder/")} == {
        "head/out/kernel": (8, 2),
        "head/out/bias": (2,),
    }
    assert not any("pooler" in name for name in shapes)


def test_the_objective_is_of_one_window_at_a_time():
    batch = batch_of(make_windows(), 24, rows=4)
    logits = random_logits(batch)
    scores = jax.tree.map(np.asarray, SCORE(logits, batch))
    seen = np.zeros(batch["y"].shape[:2])
    for row, slot, _, mine in windows_of(batch):
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
    batch = batch_of(make_windows(), 24)
    logits = random_logits(batch)
    ends = [(row, slot, batch["y"][row, slot]) for row, slot, _, _ in windows_of(batch)]
    for row, _, (start, end) in ends:
        logits[row, start, 0] = logits[row, end, 1] = 50.0
    accuracy = np.asarray(SCORE(logits, batch).values["accuracy"])
    assert accuracy.sum() == len(ends)
    row, slot, (_, end) = ends[0]
    logits[row, end, 1] = -50.0
    accuracy = np.asarray(SCORE(logits, batch).values["accuracy"])
    assert accuracy.sum() == len(ends) - 1 and accuracy[row, slot] == 0


@pytest.mark.parametrize("longest", [1, 3, 30])
def test_the_best_span_is_the_best_of_all(longest):
    batch = batch_of(make_windows((9, 12, 24, 20, 5, 6), blank=(5,)), 24, rows=5)
    # The further on, the likelier an end, so that there are long spans too.
    logits = random_logits(batch)
    logits[..., 1] += 0.5 * np.arange(24.0, dtype=np.float32)
    read = jax.jit(functools.partial(best_spans, max_answer_length=longest))
    spans, scores, nothing = jax.tree.map(np.asarray, read(logits, batch["x"]))
    values, lengths = np.asarray(logits), set()
    for row, slot, begin, mine in windows_of(batch):
        table = {
            (start - begin, end - begin): values[row, start, 0] + values[row, end, 1]
            for start in mine[1:]
            for end in mine[1:]
            if start <= end < start + longest
        }
        assert nothing[row, slot] == values[row, begin].sum()
        if not table:
            assert (
                spans[row, slot].tolist() == [0, 0]
                and scores[row, slot] <= MASKED_LOGIT
            )
            continue
        best = max(table, key=table.get)
        assert tuple(spans[row, slot]) == best
        assert scores[row, slot] == table[best]
        lengths.add(best[1] - best[0])
    assert max(lengths) >= min(longest - 1, 3)


def test_windows_that_share_a_row_do_not_meet():
    windows = make_windows((9, 5, 9))
    found = []
    for width, count in ((24, 1), (9, 3)):
        rows = pack_windows(windows, width)
        assert len(rows.example_index) == count
        outputs = make_span_finder(MODEL, rows.arrays, 2, 4)(PARAMS)
        batch = batch_of(windows, width)
        scores = SCORE(APPLY(PARAMS, batch["x"])[0], batch)
        every = *outputs, np.asarray(scores.values["loss"])
        found.append([rows.flat(each) for each in every])
    assert len({*found[0][1].tolist()}) == 3
    chex.assert_trees_all_close(*found, atol=2e-4)


def test_the_gradient_is_that_of_finite_differences(x64):
    batch = batch_of(make_windows(), 24, rows=4)
    params = oracles.random_params(MODEL, 0.1, np.float64)

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        logits = MODEL.apply(params, batch["x"])[0]
        return objectives.means(OBJECTIVE.score(logits, batch))["loss"]

    def moved(array, place, move):
        array = array.copy()
        array[place] += move
        return array

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
                    lambda p, n: moved(p, place, move) if n == name else p,  # noqa: B023
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
    batch = batch_of(make_windows(), 24, rows=6)
    batch["y"] = np.full_like(batch["y"], -100)
    batch["x"]["label_positions"] = np.full_like(batch["x"]["label_positions"], -1)
    batch["x"]["inside"] = np.zeros_like(batch["x"]["inside"])

    def loss(params):
        logits = MODEL.apply(params, batch["x"])[0]
        loss = objectives.means(OBJECTIVE.score(logits, batch))["loss"]
        return loss, (logits, best_spans(logits, batch["x"], 3))

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, outputs), grads = jax.tree.map(np.asarray, run(PARAMS))
    assert value == 0 and all((leaf == 0).all() for leaf in jax.tree.leaves(grads))
    logits, (spans, scores, null_scores) = outputs
    assert logits.dtype == np.float32 and (logits == np.float32(MASKED_LOGIT)).all()
    assert (spans == 0).all() and (scores <= MASKED_LOGIT).all()
    assert (null_scores == 0).all()
    chex.assert_tree_all_finite((scores, null_scores))


def test_dropout_is_drawn_by_its_key():
    model = span_qa_model(SpanQAConfig(ENCODER, dropout=0.5))
    x = batch_of(make_windows(), 24)["x"]
    keys = (None, jax.random.key(1), jax.random.key(2))
    run = jax.jit(lambda params: [model.apply(params, x, key)[0] for key in keys])
    plain, one, two = run(PARAMS)
    chex.assert_trees_all_equal(plain, APPLY(PARAMS, x)[0])
    assert (one != two).any() and (one != plain).any()


def test_other_configs_are_refused():
    for encoder in (EncoderConfig.tiny(head="tied"), EncoderConfig.tiny(pooler=True)):
        with pytest.raises(InputError, match="without a head and without a pooler"):
            SpanQAConfig(encoder)
    with pytest.raises(InputError, match=r"dropout=1.0 must be in \[0, 1\)"):
        SpanQAConfig(ENCODER, dropout=1.0)
    with pytest.raises(InputError, match="max_answer_length=0 must be at least 1"):
        make_span_finder(
            MODEL, pack_windows(make_windows(), 24).arrays, max_answer_length=0
        )
