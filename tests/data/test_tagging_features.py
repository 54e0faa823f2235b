"""What tokens become: ids of features, and rows of sentences."""

import json
import zlib
from collections import Counter

import numpy as np
import pytest

from ffnlab.data import (
    digest,
    read_conll,
    size,
    tagging_dataset,
    tagging_features,
    take,
    thin,
)
from ffnlab.data.dataset import IGNORE
from ffnlab.errors import InputError
from tests.conftest import SHARED

PARTS = ("train", "valid", "test")
NAME = "train.conll"  # of what `write` writes


TRAIN = "Ada B-person\nAda O\nsang O\n2001 O\n\nSang I-person\n"


def test_tokens_become_ids_as_worked_by_hand(write):
    """Twice or more: ada, sang; ada, san; ada, ang; Xxx alone, as Sang is Xxx too."""
    held = write("ADA O\nsand B-person\n", "held.conll")
    data = tagging_dataset(write(TRAIN), held, held)
    ids = {"word": [1, 3], "prefix": [4, 6], "suffix": [7, 9], "shape": [10, 11]}
    assert data.about["ids"] == ids | {"hash": [12, 2011]}
    assert data.about["vocabulary"] == 2012
    assert data.about["tags"] == ["O", "B-person", "I-person"]
    assert (data.task, data.classes, data.features) == ("classes", 3, 5)
    x, y = data.train["x/tokens"], data.train["y"]
    assert (x.dtype, x.shape, y.dtype) == (np.int32, (2, 4, 5), np.int32)
    ada, sang, unknown = [2, 5, 8, 11], [3, 6, 9, 10], [1, 4, 7, 10]
    assert x[0, :, :4].tolist() == [ada, ada, sang, unknown]
    assert x[1, :, :4].tolist() == [[3, 6, 9, 11], [0] * 4, [0] * 4, [0] * 4]
    assert y.tolist() == [[1, 0, 0, 0], [2, IGNORE, IGNORE, IGNORE]]
    assert data.train["x/mask"].sum(axis=1).tolist() == [4, 1]
    held = data.valid["x/tokens"][0]
    assert held[0, :4].tolist() == [2, 5, 8, 10]  # ADA, but for its shape
    assert held[1, :4].tolist() == [1, 6, 7, 10]  # sand: of it, only san was seen
    assert held[0, 4] == 12 + zlib.crc32(b"ADA") % 2000 != x[0, 0, 4]
    assert x[0, 0, 4] == 12 + zlib.crc32(b"Ada") % 2000


@pytest.mark.parametrize(
    ("token", "word", "prefix", "suffix", "shape"),
    [
        ("USA", "usa", "usa", "usa", "XX"),
        ("McDonald's", "mcdonald's", "mcd", "d's", "XxXxx'x"),
        ("I", "i", "i", "i", "X"),
        ("1,250.50", "1,250.50", "1,2", ".50", "d,dd.dd"),
        ("!!!!", "!!!!", "!!!", "!!!", "!!"),
        ("aB1-aB1-aB1-", "ab1-ab1-ab1-", "ab1", "b1-", "xXd-xXd-"),
        ("東京都", "東京都", "東京都", "東京都", "東京都"),
    ],
)
def test_what_tokens_look_like(token, word, prefix, suffix, shape):
    assert tagging_features._features(token) == (word, prefix, suffix, shape)


def test_changing_what_is_held_out_changes_nothing_in_training(write):
    train = write(TRAIN)
    one = tagging_dataset(train, train, train)
    held = write("Bob B-person\nBob I-person\nBob O\nBob O\n", "held.conll")
    other = tagging_dataset(train, held, held)
    assert one.about["ids"] == other.about["ids"]
    for name, array in one.train.items():
        np.testing.assert_array_equal(array, other.train[name])
    unknown = [first for first, _ in one.about["ids"].values()][:3]
    assert (other.test["x/tokens"][0, :, :3] == unknown).all()


def test_long_sentences_are_split_at_128_and_counted(write):
    long = "".join(f"w{i} O\n" for i in range(300))
    exact = "".join(f"w{i} O\n" for i in range(128))
    train = write(f"{long}\n{exact}\na B-x\n")
    short = write("a B-x\n", "short.conll")
    data = tagging_dataset(train, write(exact, "dev.conll"), short)
    assert data.about["split"] == {"train": 1, "valid": 0, "test": 0}
    assert data.about["sizes"] == {"train": 5, "valid": 1, "test": 1}
    assert data.train["x/mask"].sum(axis=1).tolist() == [128, 128, 44, 128, 1]
    hashes = data.train["x/tokens"][..., 4] - data.about["ids"]["hash"][0]
    expected = [zlib.crc32(f"w{i}".encode()) % 2000 for i in range(300)]
    assert hashes[:3][data.train["x/mask"][:3]].tolist() == expected
    assert [getattr(data, part)["y"].shape[1] for part in PARTS] == [128] * 3


def test_tags_that_training_lacks_are_named_by_line(write):
    train = write(TRAIN)
    held = write("a O\nb B-place\n\nc I-place\n", "held.conll")
    with pytest.raises(InputError) as error:
        tagging_dataset(train, train, held)
    what = f"does not occur in {train}; correct it, or add examples there"
    assert str(error.value) == (
        f"{held}:2: the tag 'B-place' {what}\n{held}:4: the tag 'I-place' {what}"
    )
    with pytest.raises(InputError, match="held.conll:2: the tag 'B-place'"):
        tagging_dataset(train, held, train)
    with pytest.raises(InputError, match="held.conll: every tag is O, and nothing to"):
        tagging_dataset(write("a O\n", "held.conll"), train, train)


def test_padding_stays_out_and_batches_nest(write):
    data = tagging_dataset(write(TRAIN), write(TRAIN), write("a O\n", "test.conll"))
    for part in PARTS:
        split = getattr(data, part)
        assert (split["x/tokens"][~split["x/mask"]] == 0).all()
        assert (split["x/tokens"][split["x/mask"]] > 0).all()
        assert ((split["y"] == IGNORE) == ~split["x/mask"]).all()
    batch = take(data.train, np.array([[1, 0]]))
    assert batch["x"]["tokens"].shape == (1, 2, 4, 5)
    assert (size(data.train), size(thin(data.train, 1))) == (2, 1)
    again = tagging_dataset(*data.about["sources"].values())
    assert digest(data) == digest(again)
    json.dumps(data.about, allow_nan=False)


def test_a_real_corpus_is_read():
    folder = SHARED / "wnut17"
    if not folder.exists():
        pytest.skip("the shared data are not here")
    paths = [folder / f"{part}.conll" for part in ("train", "dev", "test")]
    found = read_conll(paths[0])
    text = paths[0].read_bytes().decode()
    assert sum(map(len, found.tokens)) == sum(
        "\t" in r.strip() for r in text.split("\n")
    )
    assert [found.tokens[0][0], found.lines[0][0]] == [text.split("\t")[0], 1]
    data = tagging_dataset(*paths)
    assert data.about["sizes"] == {"train": 3394, "valid": 1009, "test": 1287}
    assert data.about["per"] == "position" and data.classes == 13
    words = Counter(token.lower() for tokens in found.tokens for token in tokens)
    often = sum(count >= 2 for count in words.values())
    assert data.about["ids"]["word"] == [1, 1 + often]
    split = data.train
    seen = [words[token.lower()] >= 2 for tokens in found.tokens for token in tokens]
    ids = split["x/tokens"][split["x/mask"]]
    assert ((ids[:, 0] != 1) == seen).all()
    for column, (first, last) in enumerate(data.about["ids"].values()):
        assert first <= ids[:, column].min() and ids[:, column].max() <= last
    tags = [tag for tags in found.tags for tag in tags]
    assert [data.about["tags"][k] for k in split["y"][split["x/mask"]]] == tags
