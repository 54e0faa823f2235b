"""Parquet and Arrow: the examples of other formats, and all columns come back."""

import datetime
import io
import json
import sys

import pytest

from ffnlab.data import arrow_files
from ffnlab.data.examples import read_labelled
from ffnlab.data.squad import read_questions
from ffnlab.errors import InputError

COLUMNS = {
    "id": [7, 8, 9],
    "day": [datetime.date(2024, 1, n) for n in (1, 2, 3)],
    "sentence": ["hi", "bye", "so"],
    "label": [True, False, True],
}


def save(pa, path, columns, batch=2, metadata=None):
    """Writes a Parquet file, an Arrow file or, by the ending .stream, a stream."""
    from pyarrow import parquet

    table = pa.table(columns).replace_schema_metadata(metadata)
    if path.suffix == ".parquet":
        parquet.write_table(table, path, compression="zstd", row_group_size=batch)
        return path
    new = pa.ipc.new_stream if "stream" in path.name else pa.ipc.new_file
    with new(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=batch)
    return path


@pytest.fixture(params=["a.parquet", "a.arrow", "a.feather", "stream.arrow"])
def file(request, tmp_path):
    pa = pytest.importorskip("pyarrow")
    return save(pa, tmp_path / request.param, COLUMNS, metadata={"a": "b"})


def test_examples(file):
    read = read_labelled(file, "classify")
    assert read.texts == ["hi", "bye", "so"]
    assert read.labels == ["true", "false", "true"]
    assert read.rows == [0, 1, 2] and read.lines == [1, 2, 3]
    assert read.layout.note == "columns sentence, label"
    assert read.layout.columns.text == "sentence"


def test_what_came_in_comes_back_with_its_types(file, tmp_path):
    rows = [(0, {"p": "x", "q": [0.5]}), (2, {"p": "y", "q": []})]
    path = tmp_path / f"out-{file.name}"
    with path.open("wb") as sink:
        assert arrow_files.write_with_columns(file, sink, iter(rows)) == 2
    wanted = [row for n, row in enumerate(arrow_files.iter_rows(file)) if n != 1]
    added = [row for _, row in rows]
    both = [{**a, **b} for a, b in zip(wanted, added, strict=True)]
    assert list(arrow_files.iter_rows(path)) == both
    assert [row["day"] for row in both] == [COLUMNS["day"][0], COLUMNS["day"][2]]
    with arrow_files._open(path) as held, arrow_files._open(file) as before:
        assert held.schema.metadata == before.schema.metadata
        assert [str(field.type) for field in held.schema][4:] == [
            "string", "list<item: double>"
        ] or "list<element: double>" in str(held.schema)  # fmt: skip


def test_rows_are_read_by_batch(file, monkeypatch):
    rows = arrow_files.iter_rows(file, ["id"])
    assert next(rows) == {"id": 7}
    rows.close()


def test_a_file_is_known_by_its_content(tmp_path):
    pa = pytest.importorskip("pyarrow")
    for name in ("a.parquet", "a.arrow"):
        path = save(pa, tmp_path / name, COLUMNS)
        other = path.rename(tmp_path / "data.bin")
        assert read_labelled(other, "classify").texts == COLUMNS["sentence"]
        assert read_labelled(other, "classify").layout.kind == name[2:]


def test_names_of_labels_are_those_of_the_datasets_library(tmp_path):
    pa = pytest.importorskip("pyarrow")
    features = {"ner_tags": {"feature": {"names": ["O", "B-PER"], "_type": "X"}}}
    held = {"huggingface": json.dumps({"info": {"features": features}})}
    columns = {"tokens": [["Ada", "ran"]], "ner_tags": [[1, 0]]}
    path = save(pa, tmp_path / "a.parquet", columns, metadata=held)
    read = read_labelled(path, "tag")
    assert read.labels == [["B-PER", "O"]]
    assert read.layout.note.startswith("names of labels from the file: O, B-PER; col")
    assert read_labelled(path, "tag", names=["O", "B-X"]).labels == [["B-X", "O"]]
    for wrong in ("[]", "{", '{"info": {"features": {"ner_tags": 3}}}'):
        path = save(
            pa, tmp_path / "b.parquet", columns, metadata={"huggingface": wrong}
        )
        with pytest.raises(InputError, match="b.parquet:1: 'ner_tags' has numbers"):
            read_labelled(path, "tag")


def test_questions(tmp_path):
    pa = pytest.importorskip("pyarrow")
    answers = [{"text": ["Ada"], "answer_start": [0]}, {"text": [], "answer_start": []}]
    columns = {"question": ["Who?"] * 2, "context": ["Ada ran."] * 2}
    path = save(pa, tmp_path / "a.parquet", {**columns, "answers": answers})
    read = read_questions(path)
    assert read.ids == ["1", "2"] and read.answers == [["Ada"], []]
    assert read.rows == [0, 1]
    path = save(pa, tmp_path / "b.parquet", columns)
    assert read_questions(path, answered=False).questions == ["Who?"] * 2
    with pytest.raises(InputError, match="b.parquet: column: unknown 'answers'"):
        read_questions(path)


def test_what_cannot_be_read_is_named(tmp_path):
    pa = pytest.importorskip("pyarrow")
    path = save(pa, tmp_path / "a.parquet", {"text": ["a", None], "label": ["b", "c"]})
    with pytest.raises(InputError, match="a.parquet:2: 'text' should be a text"):
        read_labelled(path, "classify")
    with pytest.raises(InputError, match="a.parquet: column: unknown 'text2'"):
        read_labelled(path, "pairs")
    data = path.read_bytes()
    for content in (data[:-20], data[:50], b"PAR1", b"no Parquet at all"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="a.parquet: not a whole file of its kind"):
            read_labelled(path, "classify")
    (tmp_path / "a.feather").write_bytes(b"FEA1" + bytes(20))
    with pytest.raises(InputError, match="a.feather: Feather of version 1; write it"):
        read_labelled(tmp_path / "a.feather", "classify")


def test_pyarrow_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"pyarrow: pip install 'ffnlab\[parquet\]'"):
        read_labelled(tmp_path / "a.parquet", "classify")


def test_no_row_is_no_file(file):
    with io.BytesIO() as sink:
        assert arrow_files.write_with_columns(file, sink, iter([])) == 0
