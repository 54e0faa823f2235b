"""Files of altered examples stay in the part of their sources."""

import json

import pytest

from ffnlab.data.augmented_files import read_augmented
from ffnlab.data.column_names import Columns
from ffnlab.data.examples import read_labelled
from ffnlab.errors import InputError

TRAIN = [("7", "good film", "pos"), ("8", "bad  film", "neg"), ("9", "dull", "neg")]
TEST = [("10", "fine book", "pos")]
ALTERED = [("nice film", "7"), ("poor film", "8"), ("lovely book", "10")]


def write(path, header, rows):
    """Writes rows in the format of the file's ending."""
    if path.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(header, row, strict=True))) for row in rows]
    elif path.suffix == ".json":
        lines = [json.dumps([dict(zip(header, row, strict=True)) for row in rows])]
    elif path.suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        columns = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
        parquet.write_table(pa.table(columns), path)
        return path
    else:
        sign = "\t" if path.suffix == ".tsv" else ","
        lines = [sign.join(row) for row in ([header] if header else []) + [*rows]]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def sources(tmp_path):
    """The parts of a data set with ids."""

    def read(part, rows):
        path = write(tmp_path / f"{part}.csv", ["id", "text", "label"], rows)
        return part, str(path), read_labelled(path, "classify")

    return [read("train", TRAIN), read("test", TEST)]


def added(path, sources, **options):
    columns = options.pop("columns", Columns())
    task = options.pop("task", "classify")
    found, note = read_augmented(path, task, columns, sources, **options)
    return list(zip(found.texts, found.labels, strict=True)), note


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_those_of_the_test_part_are_left_out(tmp_path, sources, ending):
    path = write(tmp_path / f"more.{ending}", ["text", "source"], ALTERED)
    found, note = added(path, sources, id_column="id")
    assert found == [("nice film", "pos"), ("poor film", "neg")]
    note = note.removesuffix("; JSON: an array of objects")
    assert note == (
        f"more.{ending}: 2 examples added to train, with the labels of their sources; "
        "1 left out, whose sources are in dev or test"
    )


def test_texts_name_sources_and_labels_may_differ(tmp_path, sources):
    rows = [("good film", "not good", "neg"), ("bad film", "very bad", "neg")]
    path = write(tmp_path / "more.csv", ["source", "text", "label"], rows)
    found, note = added(path, sources)  # blanks between words do not count
    assert found == [("not good", "neg"), ("very bad", "neg")]
    assert note == "more.csv: 2 examples added to train"


def test_what_was_detected_is_reported(tmp_path, sources):
    path = write(tmp_path / "more.csv", ["sentence", "source"], ALTERED[:1])
    assert added(path, sources, id_column="id")[1].endswith("; columns sentence")


def test_a_text_of_train_and_test_is_left_out(tmp_path, sources):
    part, path, examples = sources[1]
    twice = [*sources, (part, path, examples._replace(texts=["dull"]))]
    more = write(tmp_path / "more.csv", ["text", "source"], [("boring", "dull")])
    found, note = added(more, twice)
    assert found == [] and "1 left out" in note


def test_columns_by_number(tmp_path):
    train = write(tmp_path / "a.tsv", None, [("pos", "good"), ("neg", "bad")])
    columns = Columns("2", label="1")
    sources = [("train", str(train), read_labelled(train, "classify", columns))]
    more = write(tmp_path / "b.tsv", None, [("pos", "fine", "good")])
    assert added(more, sources, columns=columns)[0] == [("fine", "pos")]
    more = write(tmp_path / "c.tsv", None, [("pos", "fine", "neg")])
    assert added(more, sources, columns=columns, id_column="1")[0] == [("fine", "pos")]


def test_pairs_and_words(tmp_path):
    rows = [("a b", "c", "yes"), ("a b", "d", "no")]
    path = write(tmp_path / "p.csv", ["text", "text2", "label"], rows)
    sources = [("train", str(path), read_labelled(path, "pairs"))]
    more = write(
        tmp_path / "q.csv",
        ["text", "text2", "source", "label"],
        [("A", "C", "a b", "no")],
    )
    assert added(more, sources, task="pairs")[0] == [("A", "no")]
    more = write(tmp_path / "r.csv", ["text", "text2", "source"], [("A", "C", "a b")])
    with pytest.raises(InputError, match="r.csv:2: source 'a b' .* different labels"):
        added(more, sources, task="pairs")

    train = tmp_path / "t.conll"
    train.write_text("Ada\tB-PER\nsings\tO\n")
    sources = [("train", str(train), read_labelled(train, "tag"))]
    row = (["Bob", "sings"], ["B-PER", "O"], "Ada sings")
    more = write(tmp_path / "t.jsonl", ["tokens", "ner_tags", "source"], [row])
    assert added(more, sources, task="tag")[0] == [(row[0], row[1])]
    more = write(tmp_path / "u.jsonl", ["tokens", "source"], [(row[0], "Ada sings")])
    with pytest.raises(InputError, match="no column 'label' of tags"):
        added(more, sources, task="tag")
    with pytest.raises(InputError, match="CoNLL have no column source"):
        added(train, sources, task="tag")


@pytest.mark.parametrize(
    "header, row, options, message",
    [
        (["text", "source"], ("a", "absent"), {}, "more.csv:2: source 'absent' is the "
         "text of an example of no part"),
        (["text", "source"], ("a", "70"), {"id_column": "id"}, "'70' is the id of an"),
        (["text", "source"], ("a", ""), {}, "more.csv:2: column source is empty"),
        (["text", "origin"], ("a", "7"), {}, "source: .*more.csv: column"),
        (["text", "source"], ("a", "7"), {"id_column": "key"}, "id_column: .*train"),
        (["source", "label"], ("7", "pos"), {}, "column"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(tmp_path, sources, header, row, options, message):
    path = write(tmp_path / "more.csv", header, [row])
    with pytest.raises(InputError, match=message) as error:
        added(path, sources, **options)
    assert "\n" not in str(error.value)


def test_ids_without_their_column_are_one_line(tmp_path, sources):
    path = write(tmp_path / "more.csv", ["text", "source"], ALTERED)
    with pytest.raises(InputError, match="none of its 3 sources .*; give id_column"):
        added(path, sources)
    path = write(tmp_path / "more.csv", ["text", "source"], [("a", "x"), ("b", "y")])
    with pytest.raises(InputError, match="values of id of train, dev and test$"):
        added(path, sources, id_column="id")


def test_a_file_of_another_part_may_lack_ids(tmp_path, sources):
    path = write(tmp_path / "dev.csv", ["text", "label"], [("new", "pos")])
    dev = ("dev", str(path), read_labelled(path, "classify"))
    more = write(tmp_path / "more.csv", ["text", "source"], ALTERED[:2])
    assert len(added(more, [*sources, dev], id_column="id")[0]) == 2
