"""What a file of tagged words is like, and what its lines are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffnlab.data import Columns, read_conll, read_labelled
from ffnlab.data.tag_layouts import CONLLU, Place, TagLayout, find_layout
from ffnlab.errors import InputError

NAME = "a.conll"  # of what `write` writes
ROW = "1\tHi\thi\tINTJ" + "\t_" * 6

FOUND = {
    "blanks": ("Ada  NNP O\nran VBD O\n", "conll", " "),
    "tabs": ("Ada\tO\nNew York\tB-LOC\n", "conll", "\t"),
    "one word with a blank": ("New York\tB-LOC\n", "conll", "\t"),
    "tabs at the ends of lines": ("Ada O\t\nran O\t\n", "conll", " "),
    "tabs in comments alone": ("# id 4\tdomain=en\nAda _ O\n", "conll", " "),
    "CoNLL-U": (f"# text = Hi\n{ROW}\n", "conllu", "\t"),
    "CoNLL-U after a mark": (f"\ufeff# text = Hi\n{ROW}\n", "conllu", "\t"),
    "a range first": ("1-2\tdu" + "\t_" * 8 + "\n", "conllu", "\t"),
    "CoNLL-U Plus": ("# global.columns = ID FORM NER\n1\tHi\tO\n", "conllu", "\t"),
    "ten columns without ids": ("a" + "\tb" * 9 + "\n", "conll", "\t"),
    "a table": ("\n\ufeff\nSentence #,Word,Tag\n", "csv", ","),
    "a table with semicolons": ('n;"sentence_id";words;labels\n', "csv", ";"),
    "a table between tabs": ("Sentence #\tWord\tTag\n1\tAda\tO\n", "tsv", "\t"),
    "a word that names a column": ("Sentence\tO\nends\tO\n", "conll", "\t"),
    "nothing": ("\n", "conll", " "),
}


@pytest.mark.parametrize("case", FOUND)
def test_a_layout_is_found_in_the_lines(case):
    text, form, separator = FOUND[case]
    layout = find_layout(text.removeprefix("\n").splitlines(True))
    assert (layout.format, layout.separator) == (form, separator)


def test_tabs_are_boundaries_and_cells_may_be_empty(write):
    found = read_conll(write("Hà Nội\t\tLOC\t\nran\tVBD\tX\t\n"), plain=True)
    assert found.tokens == [["Hà Nội", "ran"]] and found.tags == [["LOC", "X"]]
    empty = write("Ada\tNNP\tX\nran\tVBD\t\n", "b.conll")
    with pytest.raises(InputError, match="b.conll:2: column 3 is empty; expected a"):
        read_conll(empty, plain=True)
    assert read_conll(empty, True, tag=2).tags == [["NNP", "VBD"]]
    without = write("Ada\tO\n\tO\n", "c.conll")
    with pytest.raises(InputError, match="c.conll:2: column 1 is empty"):
        read_conll(without)


def test_tabs_that_align_columns_are_no_empty_cells(write):
    found = read_conll(write("Ada\t\tO\nConstantinople\tB-LOC\nis  \tO\n"))
    assert found.tags == [["O", "B-LOC", "O"]]
    assert found.source[0].about.startswith("columns between tabs and blanks, which")


def test_a_line_without_a_tab_is_wrong_in_a_file_of_tabs(write):
    with pytest.raises(InputError, match=r":2: expected a token, .* one column, 'a b'"):
        read_conll(write("New York\tX\na b\nAda\tY\n"), plain=True)


def test_comments_are_no_words_and_signs_are(write):
    text = (
        "# id 47e7\tdomain=en\n# _ _ O\nAda _ _ B-PER\n\n# sent_id = 4\n#1 _ _ O\n"
        "# id x O\n"
    )
    found = read_conll(write(text))
    assert found.tokens == [["#", "Ada"], ["#1", "#"]]
    german = "#\thttps://a.de\t[2009]\n1\tIn\tO\tO\n2\t#\tO\tO\n"
    found = read_conll(write(german), token=2)
    assert found.tokens == [["In", "#"]]
    ontonotes = "#begin document (a); part 0\na 0 O\n\n#end document\n"
    assert read_conll(write(ontonotes)).tokens == [["a"]]
    tabs = read_conll(write("# id 1\n#\tX\n#\tid\n#a b\tY\n"), plain=True)
    assert tabs.tokens == [["#", "#", "#a b"]] and tabs.tags == [["X", "id", "Y"]]
    languages = read_conll(write("# id\nAda en\n"), plain=True)  # two columns
    assert languages.tags == [["id", "en"]]


def conllu(*rows):
    return "".join("\t".join(row.split()) + "\n" for row in rows) + "\n"


UD = "# text = Du sang .\n" + conllu(
    "1-2 Du _ _ _ _ _ _ _ SpaceAfter=No",
    "1 De de ADP O Case=Nom 0 root _ NER=B-PER",
    "2 le le DET S- _ 1 det 1:x _",
    "2.1 ran run VERB _ _ _ _ 1:y _",
    "3 . . PUNCT . _ 1 punct _ _",
)


@pytest.mark.parametrize(
    ("column", "tags"),
    [
        ("label", ["ADP", "DET", "PUNCT"]),
        ("upos", ["ADP", "DET", "PUNCT"]),
        ("UPOS", ["ADP", "DET", "PUNCT"]),
        ("4", ["ADP", "DET", "PUNCT"]),
        ("xpos", ["O", "S-", "."]),
        ("feats", ["Case=Nom", "_", "_"]),
        ("feats:Case", ["Nom", "_", "_"]),
        ("head", ["0", "1", "1"]),
        ("deprel", ["root", "det", "punct"]),
        ("lemma", ["de", "le", "."]),
        ("misc", ["NER=B-PER", "_", "_"]),
        ("misc:NER", ["B-PER", "O", "O"]),
    ],
)
def test_columns_of_conllu_go_by_name(write, column, tags):
    found = read_labelled(write(UD, "a.conllu"), "tag", Columns(label=column))
    assert found.texts == [["De", "le", "."]] and found.labels == [tags]
    assert found.scheme == ("iob2" if column == "misc:NER" else None)
    lines = [2 + n for n in (1, 2, 4)]
    assert found.lines == [lines]


def test_words_of_conllu_are_forms_or_another_column(write):
    path = write(UD.replace("\tle\tle\t", "\tles\tle la\t"), "a.conllu")
    assert read_labelled(path, "tag").texts == [["De", "les", "."]]
    lemmas = read_labelled(path, "tag", Columns("lemma"))
    assert lemmas.texts == [["de", "le la", "."]]
    last = read_labelled(path, "tag", Columns("2"))  # the last column by number
    assert last.labels == [["NER=B-PER", "_", "_"]]


def test_columns_of_conllu_plus_are_those_of_its_first_line(write):
    text = "# global.columns = ID FORM PARSEME:MWE\n1-2\tDu\t_\n1\tDe\t*\n2\tle\t1:X\n"
    path = write(text, "a.conllup")
    found = read_labelled(path, "tag", Columns(label="parseme:mwe"))
    assert found.labels == [["*", "1:X"]]
    with pytest.raises(
        InputError, match="label_column: .*: none of id, form, parseme:mwe"
    ):
        read_labelled(path, "tag")


BAD = {
    "nine columns": (
        "a.conllu",
        UD + "1\tHi\n",
        None,
        ":8: expected 10 columns between tabs, as CoNLL-U has, found 2",
    ),
    "no id": (
        "a.conllu",
        UD + ROW.replace("1", "x", 1),
        None,
        ":8: expected an id such as 1, 1-2 or 1.1, found 'x'",
    ),
    "no form": (
        "a.conllu",
        UD + ROW.replace("Hi", ""),
        None,
        ":8: column 2 is empty",
    ),
    "blanks": (
        "a.conllu",
        "# text = Hi\n1 Hi hi X\n",
        None,
        ":2: expected 10 columns between tabs, an id first, as CoNLL-U has",
    ),
    "comments alone": ("a.conllu", "# global.columns = ID FORM UPOS\n", None, ":1: no"),
    "another name": (
        "a.conllu",
        UD,
        "upso",
        "^label_column: .*: unknown 'upso'; nearest:",
    ),
    "a number too high": (
        "a.conllu",
        UD,
        "11",
        "^label_column: .*: 11: columns .* 10",
    ),
    "a name without names": (
        "a.conll",
        "Ada O\n",
        "upos",
        "^label_column: .*: 'upos'",
    ),
    "M- and I-": (
        "a.conll",
        "a B-X\nb M-X\nc I-X\n",
        None,
        ":1: bmes: expected O",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_told_by_line_or_field(write, case):
    name, text, column, message = BAD[case]
    columns = Columns(label=column or "label")
    with pytest.raises(InputError, match=message):
        read_labelled(write(text, name), "tag", columns)


@pytest.mark.parametrize(
    ("text", "scheme", "tags"),
    [
        ("B-X M-X E-X S-X", "bmes", "B-X I-X I-X B-X"),
        ("B-X E-X W-X", "bmewo", "B-X I-X B-X"),
        ("M-X O", "bmes", "B-X O"),
    ],
)
def test_schemes_of_chinese_corpora_are_read(write, text, scheme, tags):
    rows = "".join(f"字 {tag}\n" for tag in text.split())
    found = read_labelled(write(rows), "tag")
    assert found.scheme == scheme and found.labels == [tags.split()]


def test_labels_with_m_or_w_are_labels_of_words(write):
    found = read_labelled(write("a M-x\nb W-y\nc N\n"), "tag")
    assert found.scheme is None and found.labels == [["M-x", "W-y", "N"]]


LABELS = ["O", "B-PER", "I-PER"]


def test_places_are_named():
    layout = TagLayout("conllu", "\t", CONLLU)
    assert layout.place("text", "text") == Place(1)
    assert layout.place("label", "MISC:Key") == Place(9, "Key")
    assert [layout.name(Place(3)), TagLayout().name(Place(-1))] == [
        "upos",
        "the last column",
    ]


cell = st.text(st.characters(codec="utf-8", exclude_characters="\0\t\n\r\ufeff"))
word = cell.filter(str.strip)
line = st.tuples(word, st.lists(cell, max_size=3)).map(
    lambda r: "\t".join([r[0], *r[1]])
)
lines = st.lists(
    st.sampled_from(["", " ", "# id 4 x", "-DOCSTART- O"]) | line, min_size=1
)
ends = st.sampled_from(["\n", "\r\n"])


@given(lines, ends, st.booleans(), st.booleans())
def test_the_lines_of_sentences_are_those_of_the_file(
    tmp_path_factory, lines, end, last, mark
):
    """Whatever the file holds, if it can be read."""
    path = tmp_path_factory.getbasetemp() / "any.conll"
    text = "\ufeff" * mark + end.join(lines) + end * last
    path.write_bytes(text.encode())
    try:
        found = read_conll(path, tagged=False)
    except InputError:
        return
    written = [source.head * source.first + "".join(source.lines)
               for source in found.source]  # fmt: skip
    assert "".join(written) == text
