"""Prompts and targets: what is cut, what is learned, and padding on the left."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ffnlab.data.corpus import ByteTokenizer
from ffnlab.data.dataset import IGNORE
from ffnlab.data.seq2seq import Pairs, encode_pairs, left_padded, pack_pairs
from ffnlab.data.tokenizer import Tokenizer
from ffnlab.errors import InputError

BYTES = ByteTokenizer()


@pytest.fixture
def gpt2():
    """A byte-level tokenizer as GPT-2's, with one merge: a space and a t."""
    from tokenizers import Tokenizer as Inner
    from tokenizers import decoders, models, pre_tokenizers

    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġt", "<|endoftext|>"]
    known = {name: number for number, name in enumerate(names)}
    inner = Inner(models.BPE(known, [("Ġ", "t")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<|endoftext|>"])
    return Tokenizer(inner, "gpt2")


def encoded(
    sources, targets, template="{text}>", length=64, target_length=32, by=BYTES
):
    return encode_pairs(by, sources, targets, template, length, target_length)


def raw(row):
    return bytes(row.tolist())


def test_a_text_is_prompt_target_end():
    found = encoded(["cat", "é {x}"], ["TAC", ""], "put {x} {text} back:")
    assert raw(found.tokens[0]) == b"put {x} cat back:TAC\0"
    assert raw(found.tokens[1]) == "put {x} é {x} back:\0".encode()
    assert [raw(row) for row in found.prompts] == [
        b"put {x} cat back:", "put {x} é {x} back:".encode()
    ]  # fmt: skip
    assert found.lost == 0 and all(row.dtype == np.int32 for row in found.tokens)


def test_the_end_of_the_source_is_cut_and_of_the_target():
    found = encoded(["abcdefgh", "ab"], ["xyz", "xy"], "<{text}>", 9, 3)
    assert [raw(row) for row in found.tokens] == [b"<abcd>xyz", b"<ab>xy\0"]
    assert found.begins.tolist() == [6, 4] and found.lost == 4
    assert encoded(["abc"], ["xyzuv"], target_length=3).lost == 2


@hypothesis.given(
    source=st.text(max_size=12),
    target=st.text(max_size=12),
    head=st.sampled_from(["", "to ", "€"]),
    tail=st.sampled_from(["", "\n", " => ", ":"]),
    length=st.integers(12, 40),
    target_length=st.integers(1, 4),
)
def test_lengths_hold_and_nothing_is_lost_untold(
    source, target, head, tail, length, target_length
):
    found = encoded([source], [target], head + "{text}" + tail, length, target_length)
    row, begin = found.tokens[0], int(found.begins[0])
    assert len(row) <= length and begin <= length - target_length
    assert 1 <= len(row) - begin <= target_length
    whole = [(head + source + tail + target).replace("\0", "").encode(), b"\0"]
    kept = len(row) - (row == 0).sum()
    assert found.lost == len(whole[0]) - kept
    if not found.lost and (head + source + tail).strip(" \0"):
        assert raw(row) in (b"".join(whole), whole[0])
    assert raw(row[:begin]).startswith(head.encode())
    assert raw(row[:begin]).endswith(tail.rstrip(" ").encode())


def test_a_word_begins_with_the_space_before_it(gpt2):
    found = encoded(["t"], ["t"], "a {text}: ", by=gpt2)
    a, colon, spaced = (gpt2.inner.token_to_id(name) for name in ("a", ":", "Ġt"))
    assert found.tokens[0].tolist() == [a, spaced, colon, spaced, gpt2.end]
    assert found.begins.tolist() == [3]
    assert gpt2.decode(found.tokens[0]) == "a t: t"


def test_an_end_within_a_text_is_left_out(gpt2):
    found = encoded(["a<|endoftext|>"], ["b<|endoftext|>c"], by=gpt2)
    assert gpt2.decode(found.tokens[0]) == "a>bc"
    assert found.tokens[0].tolist().count(gpt2.end) == 1
    assert raw(encoded(["a\0"], ["b\0c"]).tokens[0]) == b"a>bc\0"


def test_prompts_without_targets_and_without_tokens():
    found = encoded(["ab", ""], None, "{text}")
    assert [row.tolist() for row in found.tokens] == [[97, 98], [BYTES.end]]
    assert found.begins.tolist() == [2, 1]
    assert encoded(["\ud800"], None).tokens[0].tolist() == [ord("?"), ord(">")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": "text"}, r"^template='text': should have \{text\} once"),
        ({"template": "{text} {text}"}, r"should have \{text\} once"),
        (
            {"length": 8, "target_length": 7},
            "^max_seq_length=8, max_target_length=7: no room .* 1 tokens of",
        ),
        ({"template": "x" * 40 + "{text}"}, "no room for a source beside 40 tokens"),
        ({"target_length": 0}, "max_target_length=0: no room"),
    ],
)
def test_what_cannot_be_encoded(options, message):
    with pytest.raises(InputError, match=message):
        encoded(["a"], ["b"], **options)


def test_a_tokenizer_without_an_end(gpt2):
    gpt2.end = None
    with pytest.raises(InputError, match="this tokenizer has no end token"):
        encoded(["a"], ["b"], by=gpt2)


@hypothesis.given(
    sizes=st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 6)), min_size=1, max_size=8
    ),
    seed=st.integers(0, 99),
)
def test_rows_predict_each_token_of_a_target_once(sizes, seed):
    rng = np.random.default_rng(seed)
    tokens = [rng.integers(1, 50, sum(size)) for size in sizes]
    begins = np.array([size[0] for size in sizes])
    rows = pack_pairs(Pairs(tokens, begins, 0), width=16).arrays
    found = {}
    for n, (label_positions, y) in enumerate(
        zip(rows["x/label_positions"], rows["y"], strict=True)
    ):
        assert ((label_positions < 0) == (y == IGNORE)).all()
        for place, label in zip(
            label_positions[label_positions >= 0], y[label_positions >= 0], strict=True
        ):
            number = rows["x/segment_ids"][n, place]
            assert rows["x/segment_ids"][n, place + 1] == number
            assert rows["x/tokens"][n, place + 1] == label
            begun = int(np.argmax(rows["x/segment_ids"][n] == number))
            found.setdefault(number, []).append((place - begun + 1, label))
    for number, (row, begin) in enumerate(zip(tokens, begins, strict=True)):
        assert found[number] == [*enumerate(row)][begin:]
    assert rows["x/mask"].sum() == sum(map(len, tokens))


@hypothesis.given(
    sizes=st.lists(st.integers(1, 80), max_size=20), rows=st.integers(1, 6)
)
def test_padding_is_on_the_left_and_shapes_are_few(sizes, rows):
    rng = np.random.default_rng(0)
    prompts = [rng.integers(1, 50, size) for size in sizes]
    batches = left_padded(prompts, rows)
    for batch in batches:
        assert batch.tokens.shape == batch.mask.shape == (rows, batch.mask.shape[1])
        which = np.resize(batch.index, rows)
        for number, row, mask in zip(which, batch.tokens, batch.mask, strict=True):
            assert row[mask].tolist() == prompts[number].tolist()
            assert not row[~mask].any() and mask[-len(prompts[number]) :].all()
    assert sorted(n for batch in batches for n in batch.index) == [*range(len(sizes))]
    assert {batch.mask.shape[1] for batch in batches} <= {16, 32, 64, 128}
