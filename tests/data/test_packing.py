"""Packed, bucketed or padded: every token once, few shapes, the same outputs."""

import chex
import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from ffnlab.data.packing import (
    best_widths,
    bucket_sequences,
    even_width,
    fill,
    gather,
    pack_sequences,
    pad_sequences,
    scatter,
)
from ffnlab.data.shuffle import order
from ffnlab.errors import InputError
from ffnlab.models.transformer import DecoderConfig, EncoderConfig, transformer_model

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=30)


def layouts(kind, lengths, seed):
    if kind == "mixed":
        return pack_sequences(lengths, width=12, rows=3, mix=seed or 0)
    if kind == "packed":
        return pack_sequences(lengths, width=12, rows=3, seed=seed)
    if kind == "bucketed":
        return bucket_sequences(lengths, best_widths(lengths, 3), slots=24, seed=seed)
    return pad_sequences(lengths, width=12, rows=3)


@pytest.mark.parametrize("kind", ["packed", "mixed", "bucketed", "padded"])
@hypothesis.given(lengths=LENGTHS, seed=st.none() | st.integers(0, 99))
def test_every_token_has_one_slot(kind, lengths, seed):
    found = layouts(kind, lengths, seed)
    slots = np.concatenate(
        [np.stack([x.sequence, x.place], -1)[x.mask] for x in found]
    ).tolist()
    wanted = [[i, place] for i, n in enumerate(lengths) for place in range(n)]
    assert sorted(slots) == wanted
    assert len({x.sequence.shape for x in found}) <= (3 if kind == "bucketed" else 1)
    for layout in found:  # a sequence lies in one row, in order and in one piece
        for row, places in zip(layout.sequence, layout.place, strict=True):
            for number in set(row[row >= 0].tolist()):
                assert places[row == number].tolist() == list(range(lengths[number]))
                assert np.ptp(np.flatnonzero(row == number)) == lengths[number] - 1
    assert fill(found) == sum(lengths) / sum(x.sequence.size for x in found)


@hypothesis.given(lengths=LENGTHS)
def test_packing_takes_few_rows(lengths):
    """Never more than 11/9 of the least, which is never below the tokens over a row."""
    rows = len(pack_sequences(lengths, width=12, rows=1))
    most = [n for n in lengths if n > 6]  # no two of these share a row
    least = max(-(-sum(lengths) // 12), len(most))
    assert least <= rows <= 11 / 9 * 2 * least + 1  # least is at least half the optimum
    if len(set(lengths)) == 1:
        assert rows == -(-len(lengths) // (12 // lengths[0]))


@hypothesis.given(lengths=LENGTHS, count=st.integers(1, 3))
def test_widths_are_the_best(lengths, count):
    import itertools

    def cost(widths):
        return sum(min(w for w in widths if w >= n) for n in lengths)

    values = sorted(set(lengths))
    best = min(
        cost((*rest, values[-1]))
        for rest in itertools.combinations(values[:-1], min(count, len(values)) - 1)
    )
    found = best_widths(lengths, count)
    assert len(found) <= count and cost(found) == best


def test_a_width_that_saves_one_slot_is_used():
    assert best_widths([1, 2], count=2) == [1, 2]
    assert best_widths([1, 2, 3], count=3) == [1, 2, 3]
    assert best_widths([2, 1, 1], count=1) == [2]


def listed(layouts):
    return [(x.sequence.tolist(), x.place.tolist()) for x in layouts]


def test_layouts_worked_by_hand():
    assert listed(pack_sequences([2, 3, 1], width=4, rows=2)) == [
        ([[1, 1, 1, 2], [0, 0, -1, -1]], [[0, 1, 2, 0], [0, 1, 0, 0]])
    ]
    assert listed(pad_sequences([2, 3, 1], width=3, rows=2)) == [
        ([[0, 0, -1], [1, 1, 1]], [[0, 1, 0], [0, 1, 2]]),
        ([[2, -1, -1], [-1, -1, -1]], [[0, 0, 0], [0, 0, 0]]),
    ]
    # Three slots hold one row of 2, and less than one of 4, which is still one.
    assert listed(bucket_sequences([2, 4, 1], widths=[4, 2, 4], slots=3)) == [
        ([[0, 0]], [[0, 1]]),
        ([[2, -1]], [[0, 0]]),
        ([[1, 1, 1, 1]], [[0, 1, 2, 3]]),
    ]
    (layout,) = bucket_sequences([2, 1, 2], widths=[2], slots=7)
    assert layout.sequence.tolist() == [[0, 0], [1, -1], [2, 2]]


def test_each_sequence_goes_to_the_row_that_it_fills_best():
    """7 and 6 begin rows of 10 with 3 and 4 slots left; 3 fills the first."""
    (layout,) = pack_sequences([3, 4, 6, 7], width=10, rows=2)
    assert layout.sequence.tolist() == [[3] * 7 + [0] * 3, [2] * 6 + [1] * 4]
    # Rows have 4, 4 and 5 slots left: 4 goes to the last with 4, 2 to the other.
    (layout,) = pack_sequences([5, 6, 6, 2, 4], width=10, rows=3)
    assert layout.sequence.tolist() == [
        [1] * 6 + [3] * 2 + [-1] * 2,
        [2] * 6 + [4] * 4,
        [0] * 5 + [-1] * 5,
    ]


def test_sequences_without_tokens_take_no_slots():
    (layout,) = pack_sequences([4, 4, 1, 0], width=6, rows=2)
    assert layout.sequence.tolist() == [[0] * 4 + [-1] * 2, [1] * 4 + [2, -1]]
    assert listed(pack_sequences([0], width=2, rows=1)) == [([[-1, -1]], [[0, 0]])]


def test_without_sequences_there_are_no_layouts():
    assert pack_sequences([], width=8, rows=2, seed=1, mix=1) == []
    assert bucket_sequences([], widths=[4, 8], slots=8, seed=1) == []
    assert pad_sequences([], width=8, rows=2) == []
    assert fill(pad_sequences([1], width=1, rows=1)) == 1.0


@pytest.mark.parametrize(
    ("lengths", "most", "expected"),
    [
        # Rows of 6, 12 and 24 are all full: the narrowest.
        ([6] * 4, 24, 6),
        # 5 tokens: two rows of 3 are full to 5/6, one of 5 is full.
        ([1, 2, 2], 5, 5),
        ([1, 2, 2], 4, 3),
        ([1, 2, 2], 2, 2),
        # 7 tokens: three rows of 3 are full to 7/9; half as many are one, of 7.
        ([1, 2, 2, 2], 30, 7),
        # 9 tokens in the order 2, 3, 1, 1, 2 of `mix=0`: three rows of 3 are full.
        ([1, 1, 2, 2, 3], 9, 3),
    ],
)
def test_even_widths_worked_by_hand(lengths, most, expected):
    assert even_width(lengths, len(lengths), most) == expected


def test_empty_slots_are_0_unless_another_value_is_given():
    (layout,) = pad_sequences([2, 1], width=3, rows=3)
    tokens = [np.array([5, 6]), np.array([7])]
    values = gather(layout, tokens)
    assert values.dtype == np.int32
    assert values.tolist() == [[5, 6, 0], [7, 0, 0], [0, 0, 0]]
    assert gather(layout, tokens, -100)[1:].tolist() == [[7, -100, -100], [-100] * 3]
    nothing = pad_sequences([0], width=2, rows=1)[0]
    assert gather(nothing, [np.array([], int)], 9).tolist() == [[9, 9]]


def test_seeds_give_the_orders_of_the_first_epoch():
    """Rows, the batches of buckets and the turns of `mix` are in orders of epoch 0."""
    turns = [order(seed, 0, 6, 6).tolist() for seed in (1, 2)]
    for seed, turn in zip((1, 2), turns, strict=True):
        rows = pack_sequences([2] * 6, width=2, rows=6, seed=seed)[0].sequence
        assert rows[:, 0].tolist() == turn
        (mixed,) = pack_sequences([2] * 6, width=4, rows=3, mix=seed)
        assert mixed.sequence[:, ::2].ravel().tolist() == turn
        batches = bucket_sequences([2] * 6, widths=[2], slots=2, seed=seed)
        numbers = [int(batch.sequence[0, 0]) for batch in batches]
        assert numbers == [turn[i] for i in turn]  # the rows, then the batches
    assert turns[0] != turns[1]


def test_seeds_shuffle():
    lengths = list(range(1, 13))
    rows = [
        pack_sequences(lengths, 12, 2, seed)[0].sequence.tolist() for seed in (1, 1, 2)
    ]
    assert rows[0] == rows[1] != rows[2]


def test_rows_of_a_sorted_file_are_a_sample_only_if_they_are_mixed():
    """200 sequences of a length, in blocks of 20 of one kind: what shares a row?"""
    kinds = np.repeat(np.arange(10), 20)

    def alike(mix):
        (layout,) = pack_sequences([3] * 200, width=24, rows=200, mix=mix)
        rows = layout.sequence[layout.mask.any(axis=1)][:, ::3]  # a slot of each
        return np.mean([len(set(kinds[row])) for row in rows])

    assert alike(None) < 2 and alike(0) > 4 and alike(1) > 4


@hypothesis.given(lengths=LENGTHS, count=st.integers(1, 40))
def test_whole_rows_of_the_even_width_hold_about_as_many(lengths, count):
    width = even_width(lengths, count, most=1000)
    count = min(count, len(lengths))
    assert max(lengths) <= width
    tokens = max(count * np.mean(lengths), max(lengths))
    most = int(tokens // max(lengths))
    whole = [np.ceil(tokens / rows) for rows in range(1, most + 1)]
    assert width in whole
    narrow = even_width(lengths, count, most=12)
    assert max(lengths) <= narrow <= 12
    # 12 that holds no whole number of rows is taken only where the others are wider.
    assert narrow in whole or (narrow == 12 and min(whole) > 12)


SMALL = {"layers": 1, "features": 16, "hidden": 32, "heads": 2, "vocabulary": 256}


@pytest.mark.parametrize(
    "config", [EncoderConfig.tiny(**SMALL), DecoderConfig.tiny(**SMALL)]
)
def test_outputs_are_equal_by_any_layout(config):
    """Also in one compilation a shape."""
    rng, model = np.random.default_rng(0), transformer_model(config)
    params = jax.tree.map(
        lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32),
        jax.eval_shape(model.init, jax.random.key(0)),
    )
    tokens = [rng.integers(0, 256, n) for n in rng.integers(1, 12, 20)]
    lengths = [len(row) for row in tokens]
    outputs, shapes = {}, {(3, 12)}
    shapes |= {x.sequence.shape for x in layouts("bucketed", lengths, seed=0)}
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=len(shapes))
    def apply(x, mask, segment_ids):
        return model.apply(params, x, mask, segment_ids=segment_ids)[0]

    for kind in ("packed", "bucketed", "padded"):
        width = config.vocabulary if config.head == "tied" else config.features
        made = [np.zeros((n, width), np.float32) for n in lengths]
        for layout in layouts(kind, lengths, seed=0):
            y = apply(gather(layout, tokens), layout.mask, layout.sequence)
            scatter(layout, y, made)
        outputs[kind] = made
    for kind in ("packed", "bucketed"):
        chex.assert_trees_all_close(
            outputs[kind], outputs["padded"], rtol=1e-5, atol=1e-5
        )


def test_what_does_not_fit_is_refused():
    for make in (
        lambda: pack_sequences([3, 9], width=8, rows=1),
        lambda: bucket_sequences([3, 9], [4, 8], slots=8),
        lambda: pad_sequences([3, 9], width=8, rows=1),
    ):
        with pytest.raises(InputError, match="sequence 1 has 9 tokens, a row 8"):
            make()
    assert pack_sequences([], width=8, rows=2) == [] and fill([]) == 0.0
