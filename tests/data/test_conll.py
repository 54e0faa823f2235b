"""Tagged sentences: what a file holds, what tokens become, and every complaint."""

import json
import re
import zlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffnlab.data import conll, digest, read_conll, size, tagging_dataset, take, thin
from ffnlab.data.conll import is_token, parse_conll
from ffnlab.data.dataset import IGNORE
from ffnlab.errors import InputError
from tests.conftest import SHARED

PARTS = ("train", "valid", "test")
NAME = "train.conll"  # of what `write` writes


def test_sentences_end_at_blank_lines(write):
    text = "\n\t\nAda\tB-person\nsings\tO\n\t\n \n\nYes\tO\n.\tO"
    found = read_conll(write(text))
    assert found.tokens == [["Ada", "sings"], ["Yes", "."]]
    assert found.tags == [["B-person", "O"], ["O", "O"]]
    assert found.lines == [[3, 4], [8, 9]]


def test_columns_stand_between_tabs_or_spaces_and_the_middle_is_skipped(write):
    found = read_conll(
        write("EU\tNNP\tB-NP\tS-ORG \nrejects\tVBZ\t \tO\r\n\r\n. .  . O")
    )
    assert found.tokens == [["EU", "rejects"], ["."]]
    assert found.tags == [["S-ORG", "O"], ["O"]]


def test_document_starts_are_skipped_and_end_a_sentence(write):
    text = "-DOCSTART- -X- -X- O\n\na O\n-DOCSTART-\nb O\n"
    found = read_conll(write(b"\xef\xbb\xbf" + text.encode()))
    assert found[:3] == ([["a"], ["b"]], [["O"], ["O"]], [[3], [5]])
    assert found.rows == [["-DOCSTART- -X- -X- O", "a O"], ["-DOCSTART-", "b O"]]


def test_only_tabs_and_spaces_divide_and_only_line_feeds_end_a_line(write):
    """A token may hold characters that Unicode calls spaces or line ends."""
    tokens = ["a\xa0b", "\u3000", "c\u2028d", "e\x85f", "\ufeffg", "#", '"', "é"]
    found = read_conll(write("".join(f"{token}\tO\n" for token in tokens)))
    assert found.tokens == [tokens]


cells = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\t\n\r \ufeff"), min_size=1
).filter(lambda token: token.strip() and not token.startswith("-DOCSTART-"))
rows = st.tuples(cells, st.sampled_from(["O", "B-a", "I-b-c", "L-d"]))


@given(st.lists(st.lists(rows, min_size=1), min_size=1))
def test_what_is_written_is_read(tmp_path_factory, sentences):
    path = tmp_path_factory.getbasetemp() / "written.conll"
    text = "\n\n".join("\n".join("\t".join(row) for row in rows) for rows in sentences)
    path.write_bytes(text.encode())
    found = read_conll(path)
    pairs = zip(found.tokens, found.tags, strict=True)
    assert [list(zip(*both, strict=True)) for both in pairs] == sentences


KNOWN = "expected a tag in the last column, O or one of B- I- E- S- L- U- and a type"

BAD_FILES = {
    "empty": (b"", "{path}: the file is empty"),
    "mark alone": (b"\xef\xbb\xbf", "{path}:1: no sentence; expected lines of a token"),
    "blank": ("\n\t\n \n", "{path}:1: no sentence; expected lines of a token and a"),
    "one column": (
        "a O\nword\n",
        "{path}:2: expected a token, a tab or space, and its tag, found one column, "
        "'word'",
    ),
    "a column less": (
        "-DOCSTART- O\na x B-A B-B\n\nb y B-A\n",
        "{path}:4: expected 4 columns, as in line 2, found 3",
    ),
    "a tab less": ("a\tx\tO\nb\tO\n", "{path}:2: expected 3 columns, as in line 1"),
    "no token": ("a O\n\tO\n", "{path}:2: expected a token, a tab or space, and its"),
    "no type": ("a O\nb B-\n", "{path}:2: " + KNOWN + ", found 'B-'"),
    "other prefix": ("a X-LOC\n", "{path}:1: " + KNOWN + ", found 'X-LOC'"),
    "lower case": ("a o\n", "{path}:1: " + KNOWN + ", found 'o'"),
    "no tag": ("a\tNNP\n", "{path}:1: " + KNOWN + ", found 'NNP'"),
    "UTF-16": ("a O\n".encode("utf-16"), "{path}:1: UTF-16 text; save the file as"),
    "Latin-1": (
        "a O\n\nf\xe9 O\n".encode("latin-1"),
        "{path}:3: not UTF-8 (byte 0xe9 at offset 1 of the line); save the file as",
    ),
    "NUL": ("a O\nb\0 O\n", "{path}:2: a NUL byte; expected UTF-8 text"),
    "old line ends": ("a O\rb O\r", "{path}:1: a carriage return inside; end lines"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused_by_line(write, case):
    content, message = BAD_FILES[case]
    path = write(content)
    with pytest.raises(InputError, match="^" + re.escape(message.format(path=path))):
        read_conll(path)


def test_absent_files_and_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="absent.conll: no such file"):
        read_conll(tmp_path / "absent.conll")
    with pytest.raises(InputError, match="a directory; give a file inside it"):
        read_conll(str(tmp_path))


def test_problems_of_all_kinds_come_together_and_20_at_most(write):
    with pytest.raises(InputError) as error:
        read_conll(write(b"a O\nb\n\nc X\nd\xff O\ne\0 O\nf O\n"))
    found = [line.split("train.conll:")[1] for line in str(error.value).split("\n")]
    assert [line.split(":")[0] for line in found] == ["2", "4", "5", "6"]
    with pytest.raises(InputError) as error:
        read_conll(write("word\n" * 50))
    found = str(error.value).split("\n")
    assert len(found) == 21 and found[-1].endswith("train.conll: and 30 more")


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
    assert conll._features(token) == (word, prefix, suffix, shape)


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


def test_columns_may_be_chosen(write):
    path = write(b"1 a DT O\n2 b NN B-X\n")
    found = read_conll(path, plain=True, token=2, tag=3)
    assert (found.tokens, found.tags) == ([["a", "b"]], [["DT", "NN"]])
    with pytest.raises(InputError, match=r":1: column 5 of 4; columns count from 1"):
        read_conll(path, tag=5)
    for column in (0, 5):
        what = f":1: column {column} of 4; columns count from 1"
        with pytest.raises(InputError, match=what):
            read_conll(path, token=column)
    last = read_conll(path, token=4, tag=4)
    assert (last.tokens, last.tags) == ([["O", "B-X"]], [["O", "B-X"]])


def test_tokens_are_read_without_tags(write):
    sentences = read_conll(write("Ada\nsings O\n\nYes\n"), tagged=False)
    assert sentences.tokens == [["Ada", "sings"], ["Yes"]]
    assert sentences.tags == [[], []]
    assert sentences.lines == [[1, 2], [4]]
    what = ":2: column 2 of 1; columns count from 1"
    with pytest.raises(InputError, match=what):
        read_conll(write("Ada O\nsings\n"), token=2, tagged=False)
    with pytest.raises(InputError, match=":1: no sentence; .* lines of a token each$"):
        read_conll(write("\n"), tagged=False)


def test_labels_of_words_are_tags_only_if_allowed(write):
    labels = write("a DT\nb NN\n\nc -LRB-\n", "labels.conll")
    assert read_conll(labels, plain=True).tags == [["DT", "NN"], ["-LRB-"]]
    with pytest.raises(InputError, match="labels.conll:1: .*, found 'DT'\n.*:2: "):
        read_conll(labels)
    mixed = write("a B-x\nb NN\n\nc O\n", "mixed.conll")
    with pytest.raises(InputError) as error:  # spans, so that a label is an error
        read_conll(mixed, plain=True)
    assert str(error.value) == f"{mixed}:2: {KNOWN}, found 'NN'"


def test_long_words_are_cut_in_errors(write):
    with pytest.raises(InputError, match=f"found '{'x' * 60}'$"):
        read_conll(write("a " + "x" * 70))
    with pytest.raises(InputError, match=f"one column, '{'x' * 60}'$"):
        read_conll(write("x" * 70))


def test_sentences_and_problems_come_with_their_lines():
    lines = ["", "a O", "b", "c B-x", "", "-DOCSTART- O", "", "d O"]
    values = list(parse_conll(enumerate(lines, 1)))
    assert [line for line, _ in values] == [3, 2, 8]
    problem, first, last = (value for _, value in values)
    assert "found one column, 'b'" in str(problem)
    assert first == (["a", "c"], ["O", "B-x"], [2, 4], ["a O", "c B-x"])
    assert last == (["d"], ["O"], [8], ["-DOCSTART- O", "d O"])


def test_blank_lines_and_document_starts_are_no_tokens():
    lines = ["a", "a O", "", " \t", "-DOCSTART-", "-DOCSTART- O", "a -DOCSTART-"]
    assert [is_token(line) for line in lines] == [True, True] + [False] * 4 + [True]
