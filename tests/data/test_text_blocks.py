"""Texts that are cut and read without being held in memory."""

import hashlib

import hypothesis
import pytest
from hypothesis import strategies as st

from ffnlab.data import text_blocks
from ffnlab.data.corpus import read_texts
from ffnlab.data.text_blocks import PARTS, read_blocks, scan
from ffnlab.errors import InputError

NAME = "text.txt"
line = st.binary(max_size=12).map(lambda text: text.translate(None, b"\r\n"))


@hypothesis.given(
    lines=st.lists(line, min_size=3, max_size=30),
    mark=st.booleans(),
    ended=st.booleans(),
)
def test_files_are_cut_as_in_memory(tmp_path_factory, lines, mark, ended):
    path = tmp_path_factory.mktemp("text") / "a.txt"
    text = b"\n".join(lines) + b"\n" * ended
    hypothesis.assume(len(text.splitlines()) >= 3 and text[:3] != b"\xef\xbb\xbf")
    path.write_bytes(b"\xef\xbb\xbf" * mark + text)
    parts, about = read_texts([str(path)])
    source, whole = scan(str(path), 0.05, 0.05, utf8=False), path.read_bytes()
    for number, part in enumerate(PARTS):
        begin, end = source.span(number)
        assert whole[begin:end] == parts[part][0]
    assert source.sha256 == about["sha256"] == hashlib.sha256(text).hexdigest()
    assert source.size == len(text)


def test_long_lines_are_cut_too(write, monkeypatch):
    monkeypatch.setattr(text_blocks, "_BLOCK", 7)
    lines = [b"x" * 50 + b"\n", b"y" * 20 + b"\n", b"z" * 30]
    source = scan(write(b"".join(lines)), 0.3, 0.3, utf8=False)
    assert source.ends == (51, 72, 102)


@hypothesis.given(
    text=st.text(max_size=60), size=st.integers(1, 20), longest=st.integers(4, 9)
)
def test_blocks_are_the_text_in_whole_characters(tmp_path_factory, text, size, longest):
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_bytes(text.encode())
    before, text_blocks._LONGEST = text_blocks._LONGEST, longest
    try:
        pieces = list(read_blocks(path, 0, path.stat().st_size, size + 4))
    finally:
        text_blocks._LONGEST = before
    assert b"".join(piece for _, piece in pieces) == text.encode()
    assert "".join(piece.decode() for _, piece in pieces) == text
    place = 0
    for begin, piece in pieces:
        assert begin == place and len(piece) <= size + 4 + longest
        place += len(piece)


def test_blocks_end_with_their_lines(write):
    path = write(b"".join(b"line %d\n" % n for n in range(100)))
    pieces = [piece for _, piece in read_blocks(path, 7, 700, 50)]
    assert all(piece.endswith(b"\n") for piece in pieces[:-1])
    assert all(50 <= len(piece) < 60 for piece in pieces[:-1])


def test_bad_text_is_refused(write, tmp_path):
    for text, message in [
        (b"a\nb\n", "2 lines; at least 3"),
        (b"a", "1 lines; at least 3"),
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
    ]:
        with pytest.raises(InputError, match=message):
            scan(write(text), 0.05, 0.05, utf8=True)
    bad = write(b"a\nb\n" + b"c\n" * 10 + b"d\xff\n")
    with pytest.raises(InputError, match="text.txt:13: not UTF-8, which a tokenizer"):
        scan(bad, 0.05, 0.05, utf8=True)
    assert scan(bad, 0.05, 0.05, utf8=False).size == 27
    with pytest.raises(InputError, match="no such file"):
        scan(str(tmp_path / "absent"), 0.05, 0.05, utf8=False)
    with pytest.raises(InputError, match="cut while it was read"):
        list(read_blocks(bad, 0, 99))
