"""Windows of text for language models."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ffnlab.data.corpus import ByteTokenizer, language_data, read_texts
from ffnlab.data.dataset import IGNORE
from ffnlab.errors import InputError

NAME = "text.txt"


class Framed(ByteTokenizer):
    """Bytes with one token before each window and two after it, as a BERT has."""

    around = ([300], [301, 302])
    end = None
    size = 303


def data(documents, length, tokenizer=None, **options):
    parts = {part: documents for part in ("train", "valid", "test")}
    tokenizer = tokenizer or ByteTokenizer()
    return language_data("some", parts, tokenizer, length, **options)


documents = st.lists(st.binary(max_size=30), min_size=1, max_size=4)


@hypothesis.given(documents=documents, length=st.integers(1, 9))
def test_every_token_is_predicted_once(documents, length):
    whole = b"".join(text + b"\0" for text in documents)
    hypothesis.assume(len(whole) > 1 and any(documents))
    part = data(documents, length).train
    labels = part["y"]
    assert bytes(labels[labels != IGNORE].tolist()) == whole[1:]
    assert part["x/mask"][labels != IGNORE].all()
    flat = part["x/tokens"][labels != IGNORE]
    assert bytes(flat.tolist()) == whole[:-1]
    assert part["x/tokens"].shape[1] == length


@hypothesis.given(documents=documents, length=st.integers(4, 9))
def test_masked_windows_hold_every_token_between_those_around(documents, length):
    hypothesis.assume(any(documents))
    part = data(documents, length, Framed(), masked=True).train
    labels, words, mask = part["y"], part["x/words"], part["x/mask"]
    assert bytes(labels[labels != IGNORE].tolist()) == b"".join(documents)
    assert ((words >= 0) == (labels != IGNORE)).all()
    assert (words[:, 1] == 0).all() and (words[:, 0] == -1).all()
    for row, inside, seen in zip(part["x/tokens"], mask, words, strict=True):
        count = (seen >= 0).sum()
        assert inside.sum() == count + 3 and inside[: count + 3].all()
        assert row[0] == 300 and row[count + 1 : count + 3].tolist() == [301, 302]
        assert set(np.diff(seen[1 : count + 1])) <= {0, 1}


def test_words_do_not_reach_over_documents():
    part = data([b"ab", b"cd ef"], 9, masked=True).train
    assert part["x/words"].tolist() == [[0, 0, 1, 1, 2, 3, 3, -1, -1]]


def test_bits_are_of_the_text():
    found = data([b"abc", b"de"], 4)
    assert found.about["tokens_per_byte"]["test"] == (5 + 2 - 1) / 5


def test_files_are_cut_at_line_ends(write):
    lines = [f"line {n}\n" for n in range(100)]
    parts, about = read_texts([write("\ufeff" + "".join(lines))])
    assert b"".join(parts[p][0] for p in parts).decode() == "".join(lines)
    counts = [parts[part][0].count(b"\n") for part in ("train", "valid", "test")]
    assert counts == [90, 5, 5] or abs(counts[0] - 90) < 2
    assert about["sizes"]["train"] == len(parts["train"][0])
    parts, _ = read_texts([write("a\n\nb")])
    assert [parts[part][0] for part in parts] == [b"a\n", b"\n", b"b"]


def test_bad_text_is_refused(write, tmp_path):
    with pytest.raises(InputError, match=r"text.txt: 2 lines; at least 3"):
        read_texts([write("a\nb\n")])
    assert read_texts([write(b"a\nb\n\xff\n")])
    with pytest.raises(InputError, match="text.txt:3: not UTF-8, which a tokenizer"):
        read_texts([write(b"a\nb\n\xff\n")], utf8=True)
    with pytest.raises(InputError, match="no such file"):
        read_texts([tmp_path / "absent"])
    with pytest.raises(InputError, match="the train part has no token to predict"):
        data([b""], 4)
    with pytest.raises(InputError, match="a window of 3 tokens has no room"):
        data([b"abc"], 3, Framed(), masked=True)

    class Unmasked(ByteTokenizer):
        mask = None

    with pytest.raises(InputError, match="has no mask token"):
        data([b"abc"], 3, Unmasked(), masked=True)


def test_bytes_are_decoded():
    assert ByteTokenizer().decode([0, 195, 182, 256, 120, 255]) == "öx\ufffd"
