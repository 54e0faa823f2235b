"""Sentences come back as they came, with predictions."""

import pytest

from ffnlab.data import Columns, read_conll, read_labelled
from ffnlab.data.tag_layouts import CONLLU, Place, TagLayout
from ffnlab.data.tagged_lines import TaggedLines, join_written
from ffnlab.errors import InputError

NAME = "a.conll"  # of what `write` writes
UD = TagLayout("conllu", "\t", CONLLU)
ROW = "1\tHi\thi\tINTJ\tx\t_\t0\troot\t_\t_"


def written(path, tag="NEW", probability=None, column=None, **options):
    """Returns a file with one prediction for all of its words."""
    found = read_conll(path, tagged=False, **options)
    texts = [
        (source.at(column) if column else source).written(
            [tag] * len(tokens), probability and [probability] * len(tokens)
        )
        for tokens, source in zip(found.tokens, found.source, strict=True)
    ]
    assert join_written(texts, found.source) == "".join(texts)
    return "".join(texts)


ROUND = {
    "tabs": ("Hà Nội\t\tX\n\n\n#\tY\n", "Hà Nội\t\tX\tNEW\n\n\n#\tY\tNEW\n"),
    "blanks": ("Ada  x \n\nb  y", "Ada  x  NEW\n\nb  y NEW"),
    "single words": ("Ada\n\n", "Ada\tNEW\n\n"),
    "line ends": ("Ada x\r\n\r\nb y\r\n", "Ada x NEW\r\n\r\nb y NEW\r\n"),
    "a mark": ("\ufeffAda x\n", "\ufeffAda x NEW\n"),
    "blank lines around": ("\n \nAda x\n\t\n\n", "\n \nAda x NEW\n\t\n\n"),
    "documents": ("-DOCSTART- x\na x\n-DOCSTART-\n\nb x\n",
                  "-DOCSTART- x\na x NEW\n-DOCSTART-\n\nb x NEW\n"),
    "comments": ("# id 4\tx=y\na x\n\n# id 5\tx=y\n\n",
                 "# id 4\tx=y\na x NEW\n\n# id 5\tx=y\n\n"),
    "a table": ('Sentence #,Word\n1,"a ""b"", c"\n,"x\ny"\n\n2,d',
                'Sentence #,Word,predicted\n1,"a ""b"", c",NEW\n'
                ',"x\ny",NEW\n\n2,d,NEW'),
    "a table in CRLF": ("\ufeffn;Sentence #;Word\r\n7;1;a\r\n",
                        "\ufeffn;Sentence #;Word;predicted\r\n7;1;a;NEW\r\n"),
    "quotes between tabs": ('Sentence #\tWord\n1\t""""\n1\ta"\n',
                            'Sentence #\tWord\tpredicted\n1\t""""\tNEW\n1\ta"\tNEW\n'),
}  # fmt: skip


@pytest.mark.parametrize("case", ROUND)
def test_every_byte_comes_back_with_a_prediction(write, case):
    text, wanted = ROUND[case]
    assert written(write(text)) == wanted


COLUMNS = {
    "a number": ("a  b\tc \nd e f\n", "2", "a  NEW\tc \nd NEW f\n"),
    "between tabs": ("a b\t\tc\n", "2", "a b\tNEW\tc\n"),
    "a name": (ROW + "\n", "upos", ROW.replace("INTJ", "NEW") + "\n"),
    "a pair": (ROW + "\n", "misc:NER", ROW[:-1] + "NER=NEW\n"),
    "a pair among others": (ROW[:-1] + "A=b|NER=x|C\n", "misc:NER",
                            ROW[:-1] + "A=b|NER=NEW|C\n"),
}  # fmt: skip


@pytest.mark.parametrize("case", COLUMNS)
def test_predictions_go_to_a_column(write, case):
    text, column, wanted = COLUMNS[case]
    assert written(write(text), column=column) == wanted


def test_pairs_without_an_entity_are_left_out_where_there_is_none():
    source = TaggedLines([ROW, ROW[:-1] + "NER=B-X"], [0, 1], UD, Place(9, "NER"))
    assert source.written(["O", "O"]) == ROW + ROW[:-1] + "NER=O"
    assert source.written(["_", "_"]) == ROW + ROW


def test_probabilities_stand_before_tags_and_in_misc():
    source = TaggedLines(["Ada x\n"], [0])
    assert source.written(["O"], [0.5]) == "Ada x 0.5000 O\n"
    source = TaggedLines([ROW], [0], UD).at(None)
    assert source.written(["X"], [0.5]) == (ROW[:-1] + "Predicted=X|Probability=0.5000")
    head = "Sentence #,Word\n"
    table = TagLayout("csv", ",", ("Sentence #", "Word"), 0, quoted=True)
    source = TaggedLines(["1,a\n"], [0], table, head=head, first=True)
    assert source.written(["O,"], [0.5]) == (
        'Sentence #,Word,probability,predicted\n1,a,0.5000,"O,"\n'
    )


def test_columns_that_are_not_there_are_refused():
    source = TaggedLines(["a b\n"], [0])
    for column, message in (
        ("upos", "predicted_column: 'upos': columns of CoNLL have no names"),
        ("0", "predicted_column: 0: columns count from 1"),
    ):
        with pytest.raises(InputError, match=message):
            source.at(column)
    with pytest.raises(InputError, match="predicted_column: column 3 of 2 in 'a b'"):
        source.at("3").written(["O"])
    with pytest.raises(InputError, match="probabilities: predictions replace a column"):
        source.at("2").written(["O"], [0.5])
    table = source._replace(layout=TagLayout("csv", ",", ("Sentence #", "Word"), 0))
    with pytest.raises(InputError, match="predicted_column: a table gets a new column"):
        table.at("1")


def test_parts_of_a_file_are_parted_by_blank_lines(write):
    path = write("a O\n-DOCSTART-\nb O\n\nc O")
    found = read_labelled(path, "tag")
    taken = found.subset([2, 0, 1, 0])
    texts = ["".join(source.lines) for source in taken.rows]
    assert join_written(texts, taken.rows) == ("c O\n\na O\n-DOCSTART-\nb O\n\na O\n")
    windows = [source._replace(lines=[line.replace("\n", "\r\n")
               for line in source.lines]) for source in found.rows]  # fmt: skip
    texts = ["".join(windows[n].lines) for n in (0, 0)]
    assert join_written(texts, [windows[0]] * 2) == "a O\r\n\r\na O\r\n"


def test_training_writes_conllu_into_the_column_of_its_labels(write):
    path = write(ROW + "\n", "a.conllu")
    (source,) = read_labelled(path, "tag", Columns(label="xpos")).rows
    assert source.written(["NEW"]) == ROW.replace("\tx\t", "\tNEW\t") + "\n"
