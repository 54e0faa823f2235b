"""Taggers of files with columns: what the run keeps, and where predictions go."""

import io
import sys

import pytest

from ffnlab.data import Columns, Examples, read_labelled
from ffnlab.errors import InputError
from ffnlab.finetune import predict_files
from ffnlab.finetune.tagged_words import columns_of, scheme_to_write
from tests.finetune.test_predictor import used_with

ROW = "1\tw1\tw\tX\tx\t_\t0\tr\t_\tA=b\n"
TABLE = 'Sentence #,Word,Tag\n1,w1,O\n,"w2 ",O\n2,w3,O\n'


@pytest.mark.parametrize(
    ("name", "text", "column", "wanted"),
    [
        ("a.conll", "a X b\n", "label", ("conll", None)),
        ("a.conll", "a X b\n", "2", ("conll", "2")),
        ("a.conllu", ROW, "label", ("conllu", "upos")),
        ("a.conllu", ROW, "5", ("conllu", "xpos")),
        ("a.conllu", ROW, "misc:A", ("conllu", "misc:A")),
        ("a.csv", TABLE, "label", ("csv", None)),
        ("a.jsonl", '{"text": ["a"], "label": ["X"]}\n', "label", ("jsonl", None)),
        ("a.json", '[[["a"], ["X"]]]\n', "label", ("json", None)),
    ],
)
def test_the_format_and_the_column_are_kept(write, name, text, column, wanted):
    examples = read_labelled(write(text, name), "tag", Columns(label=column))
    found = columns_of(examples, column)
    assert (found["file_format"], found.get("label_column")) == wanted


@pytest.mark.parametrize(
    ("labels", "scheme", "trained", "wanted"),
    [
        (["B-X", "I-X"], "bioes", "bmes", "bmes"),
        (["B-X"], "bmes", "bmewo", "bmewo"),
        (["O"], "iob2", "bmes", "bmes"),
        (["B-X"], "iob2", "bmes", "iob2"),
        (["B-X"], "io", "iob2", "iob1"),
        (["B-X"], "io", "io", "io"),
        (["B-X"], "bioes", "iob2", "bioes"),
        (["X"], None, None, None),
    ],
)
def test_the_scheme_of_predictions(labels, scheme, trained, wanted):
    examples = Examples([["a"] * len(labels)], [], [labels], [], scheme)
    assert scheme_to_write(examples, trained) == wanted


def predicted(run, tmp_path, source, **options):
    out = tmp_path / "out"
    given = predict_files.PredictConfig(run, str(source), str(out), **options)
    count = predict_files.predict(given)
    return count, out.read_bytes().decode()


def without(text, column, separator="\t"):
    """Returns the cells of lines without one column, by number."""
    rows = [line.split(separator) for line in text.split("\n")]
    return [row[:column] + row[column + 1 :] if row[1:] else row for row in rows]


def test_predictions_go_into_columns(tagged, write, tmp_path, capsys):
    text = "# text = w1 w2\n1-2" + "\t_" * 9 + f"\n{ROW}\n"
    path = write(text, "a.conllu")
    for column, place in (("xpos", 4), ("4", 3), (None, 9)):
        count, out = predicted(str(tagged.out), tmp_path, path, predicted_column=column)
        assert count == 1 and out != text
        assert without(out, place) == without(text, place)
    assert out.split("\n")[2].split("\t")[9].startswith("A=b|Predicted=")
    assert capsys.readouterr().err.endswith("a.conllu: CoNLL-U, words from form\n")
    run = used_with(tagged, tmp_path / "run", file_format="conllu", label_column="xpos")
    _, out = predicted(run, tmp_path, path, probabilities=True)
    assert "A=b|Probability=0." in out and without(out, 4)[0] == without(text, 4)[0]
    columns = write("w1  x y\n\n", "a.conll")
    _, out = predicted(run, tmp_path, columns, predicted_column="2")
    assert without(out, 2, " ") == without("w1  x y\n\n", 2, " ")


def test_tables_of_words_come_back_from_files_and_standard_input(
    tagged, write, tmp_path, monkeypatch
):
    count, out = predicted(str(tagged.out), tmp_path, write(TABLE, "a.csv"))
    assert count == 2
    assert without(out, 3, ",") == without(TABLE, 3, ",")
    assert out.startswith("Sentence #,Word,Tag,predicted\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO(TABLE + "\n"))
    assert predicted(str(tagged.out), tmp_path, "-") == (2, out + "\n")


def test_columns_that_the_input_has_not_are_refused(tagged, write, tmp_path):
    for name, text, column, message in (
        ("a.conllu", ROW, "upso", "unknown 'upso'; nearest: upos"),
        ("a.conll", "w1\n", "2", "column 2 of 1 in 'w1'"),
        ("a.txt", "w1 w2 .\n", "2", "the input has no columns of CoNLL or CoNLL-U"),
        ("a.csv", TABLE, "2", "a table gets a new column"),
    ):
        path = write(text, name)
        with pytest.raises(InputError, match=f"^predicted_column: {message}"):
            predicted(str(tagged.out), tmp_path, path, predicted_column=column)
        assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="^predicted_column: for tag and task_output="):
        predicted(str(tagged.out), tmp_path, path, predicted_column="2",
                  task_output="entities")  # fmt: skip
