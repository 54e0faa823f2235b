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
