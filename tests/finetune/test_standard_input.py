"""What standard input holds is read as it comes."""

import io
import os
import sys

import pytest

from ffnlab.data import Columns
from ffnlab.errors import InputError
from ffnlab.finetune import inputs
from ffnlab.finetune.usage import Usage
from tests.finetune.test_inputs import usage_of


def test_a_text_of_standard_input_is_there_at_once(monkeypatch):
    reader, writer = os.pipe()
    with open(reader) as stream, open(writer, "w") as out:
        monkeypatch.setattr(sys, "stdin", stream)
        usage = Usage("tag", 64, file_format="conll")
        for text in ("Ada\n", "Ada sings\n"):
            out.write(text)
            out.flush()  # and the pipe stays open
            source = inputs.open_source("-", usage, labels=["O", "B-PER"])
            assert next(source.examples).text == text.split()


def test_bad_rows_of_standard_input_that_is_read_whole_are_named(monkeypatch):
    usage = usage_of("classify", Columns())
    for text, what in (("id,text\n1\n", "2: expected 2 f"), ('[{"text": 1.5}]', "1: ")):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        with pytest.raises(InputError, match=f"^standard input:{what}"):
            inputs.open_source("-", usage)
    monkeypatch.setattr(sys, "stdin", io.StringIO("PAR1"))
    with pytest.raises(InputError, match=r"standard input: .* takes .*, not parquet"):
        inputs.open_source("-", usage, "parquet")


def test_bad_lines_of_standard_input_are_named_when_they_come(monkeypatch):
    text = '{"text": "a"}\n\n{"text": ["a"]}\n'
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    usage = usage_of("classify", Columns())
    examples = inputs.open_source("-", usage, "jsonl").examples
    assert next(examples).text == "a"
    with pytest.raises(InputError, match="^standard input:3: 'text' should be a text"):
        next(examples)
    raw = io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfa\n\xff\n"))
    monkeypatch.setattr(sys, "stdin", raw)
    examples = inputs.open_source("-", usage).examples
    assert next(examples).text == "a"
    with pytest.raises(InputError, match="^standard input:2: not UTF-8"):
        next(examples)


def test_a_sentence_of_standard_input_comes_with_its_last_line(monkeypatch):
    reader, writer = os.pipe()
    with open(reader) as stream, open(writer, "w") as out:
        monkeypatch.setattr(sys, "stdin", stream)
        usage = usage_of("tag", Columns())
        examples = inputs.open_source("-", usage, "conll").examples
        out.write("Ada\nsings\n\n")
        out.flush()  # and the pipe stays open
        assert next(examples).text == ["Ada", "sings"]
