"""Tagged sentences: what a file holds, and every complaint."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffnlab.data import read_conll
from ffnlab.data.conll import parse_conll
from ffnlab.data.tag_layouts import is_token
from ffnlab.errors import InputError

NAME = "train.conll"  # of what `write` writes


def test_sentences_end_at_blank_lines(write):
    text = "\n\t\nAda\tB-person\nsings\tO\n\t\n \n\nYes\tO\n.\tO"
    found = read_conll(write(text))
    assert found.tokens == [["Ada", "sings"], ["Yes", "."]]
    assert found.tags == [["B-person", "O"], ["O", "O"]]
    assert found.lines == [[3, 4], [8, 9]]


def test_columns_stand_between_tabs_or_spaces_and_the_middle_is_skipped(write):
    tabs = "EU\tNNP\tB-NP\tS-ORG \nrejects\tVBZ\t \tO\r\n\r\n.\t.\t.\tO"
    blanks = "EU NNP  B-NP S-ORG \nrejects VBZ _   O\r\n\r\n. .  . O"
    for text in (tabs, blanks):
        found = read_conll(write(text))
        assert found.tokens == [["EU", "rejects"], ["."]]
        assert found.tags == [["S-ORG", "O"], ["O"]]


def test_document_starts_are_skipped_and_end_a_sentence(write):
    text = "-DOCSTART- -X- -X- O\n\na O\n-DOCSTART-\nb O\n"
    found = read_conll(write(b"\xef\xbb\xbf" + text.encode()))
    assert found[:3] == ([["a"], ["b"]], [["O"], ["O"]], [[3], [5]])
    assert [source.lines for source in found.source] == [
        ["-DOCSTART- -X- -X- O\n", "\n", "a O\n"],
        ["-DOCSTART-\n", "b O\n"],
    ]
    assert [source.head for source in found.source if source.first] == ["\ufeff"]


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


KNOWN = (
    "expected a tag in the last column, O or one of B- I- E- S- L- U- M- W- and a type"
)

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


def test_columns_may_be_chosen(write):
    path = write(b"1 a DT O\n2 b NN B-X\n")
    found = read_conll(path, plain=True, token=2, tag=3)
    assert (found.tokens, found.tags) == ([["a", "b"]], [["DT", "NN"]])
    with pytest.raises(InputError, match=r":1: column 5 of 4; columns count from 1"):
        read_conll(path, tag=5)
    with pytest.raises(InputError, match=":1: column 5 of 4; columns count from 1"):
        read_conll(path, token=5)
    with pytest.raises(InputError, match="^text_column: .*: 0: columns count from 1$"):
        read_conll(path, token=0)
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
    assert first[:3] == (["a", "c"], ["O", "B-x"], [2, 4])
    assert first.source.lines == ["", "a O", "b", "c B-x", ""]
    assert last[:3] == (["d"], ["O"], [8])
    assert last.source.lines == ["-DOCSTART- O", "", "d O"]


def test_blank_lines_and_document_starts_are_no_tokens():
    lines = ["a", "a O", "", " \t", "-DOCSTART-", "-DOCSTART- O", "a -DOCSTART-"]
    assert [is_token(line) for line in lines] == [True, True] + [False] * 4 + [True]
