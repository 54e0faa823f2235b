"""Tables: quotes as they were meant, and records that come out as they came in."""

import csv
import io
import re

import hypothesis
import pytest
from hypothesis import strategies as st

from ffnlab.data.text_tables import cell_text, quoting_note, read_columns, read_table
from ffnlab.errors import InputError

NAME = "a.csv"


def written(rows, delimiter=",", end="\r\n", quoting=csv.QUOTE_MINIMAL):
    """Returns a table as csv.writer writes it, with the line end that is wanted."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows(rows)
    return text.getvalue() if end == "\r\n" else _with_ends(text.getvalue(), end)


def _with_ends(text, end):
    """Returns a table with other ends of records; cells stay as they are."""
    parts = text.split('"')
    parts[::2] = [part.replace("\r\n", end) for part in parts[::2]]
    return '"'.join(parts)


def cells_of(path):
    records, problems = read_table(path)
    assert not problems
    return [list(record) for _, record in records]


CELLS = [
    " a ",
    "b\r\nc",
    "d\re",
    "f\ng",
    'h "i" j',
    "k, l",
    "m\u2028n\x85",
    "007",
    "ö;",
]


@pytest.mark.parametrize(
    ("name", "end"),
    [("a.csv", "\n"), ("a.csv", "\r\n"), ("a.csv", "\r"), ("a.tsv", "\n"),
     ("a.tsv", "\r\n")],
)  # fmt: skip
def test_what_goes_in_comes_out(write, name, end):
    rows = [["id", "text", "label"]]
    rows += [[str(n), cell, "x"] for n, cell in enumerate(CELLS)]
    text = written(rows, "," if name == "a.csv" else "\t", end)
    path = write(text, name)
    assert cells_of(path) == rows
    records = [record for _, record in read_table(path)[0]]
    assert "".join(record.text + record.end for record in records) == text
    longer = write(
        "".join(r.extended(["p", 'a "b"\r,\t']) for r in records), f"2{name}"
    )
    assert cells_of(longer) == [[*row, "p", 'a "b"\r,\t'] for row in rows]


@hypothesis.given(
    st.lists(st.lists(st.text("a\"',\t\n\r ", max_size=4), min_size=3, max_size=3),
             min_size=1, max_size=6),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)  # fmt: skip
def test_any_cells_are_read_as_they_were_written(tmp_path_factory, rows, quoting):
    rows = [["x", *row] for row in rows]
    text = written(rows, quoting=quoting)
    path = tmp_path_factory.mktemp("any") / "a.csv"
    path.write_bytes(text.encode())
    records = [record for _, record in read_table(path)[0]]
    if re.search('(^|,) +"', text, re.MULTILINE):  # blanks before quotes are left out
        assert len(records) == len(rows)
    else:
        assert [list(record) for record in records] == rows
    assert "".join(record.text + record.end for record in records) == text


def test_a_carriage_return_without_quotes_is_part_of_its_cell(write):
    path = write("id,text\n1,a\rb\n2,c\n")  # as pandas wrote it until 2.0
    assert cells_of(path) == [["id", "text"], ["1", "a\rb"], ["2", "c"]]


def test_a_last_line_without_end_is_completed_when_it_grows(write):
    for end in ("\n", "\r\n", "\r"):
        records, _ = read_table(write(f"a,b{end}c,d"))
        assert records[-1][1].extended(["x"]) == f"c,d,x{end}"


def test_a_byte_order_mark_stays(write):
    header, _, places = read_columns(write("\ufefftext,label\na,b\n"), ["text"])
    assert header == ["text", "label"] and places == [0]
    assert header.extended(["p"]) == "\ufefftext,label,p\n"


QUOTED = {
    "pandas": written([["id", "text"], ["0", 'say "hi"'], ["1", "a\nb"]], "\t", "\n"),
    "all": written([["t", "k"], ["a", "x"], ["b, c", "y"]], "\t", "\n", csv.QUOTE_ALL),
    "columns": '"text"\t"score"\n"a"\t1\n"b c"\t2\n',
    "without a header": written([["0", 'a "b"'], ["1", "c\td"]], "\t", "\n"),
    "a carriage return": 'text\tlabel\n"a ""b"""\tx\nc\rd\ty\n',
    "Excel": 'text\tlabel\n"yes, indeed"\tx\nno\ty\n',
    "one column": 'text\n"a\nb"\n"c ""d"""\n',
}
PLAIN = {
    "a lone quote": 'text\tlabel\n"hi\tx\nbye\ty\n',
    "an inch": 'text\tlabel\n5" disk\tx\n"no" he said\ty\n',
    "quotes of a quotation": 'text\tlabel\n"Hello there"\tx\nsaid "she"\ty\n',
    "a sentence in quotes": 'text\tlabel\n"Hello"\tx\nbye\ty\n',
    "a quotation over records": 'text\tlabel\n"We are\tx\nhere\ty\nnow."\tx\n',
    "quotes at both ends of a row": 'one\ttwo\n"a\tb"\nc\td\n',
    "escaped otherwise": 'text\tlabel\n"a \\"b\\" c"\tx\nd\ty\n',
}


@pytest.mark.parametrize("name", QUOTED)
def test_cells_that_a_program_quoted_are_read_without_quotes(write, name):
    records, _ = read_table(write(QUOTED[name], "a.tsv"))
    plain = io.StringIO(QUOTED[name].replace("\r", "\0"))  # which csv.reader allows
    wanted = [[cell.replace("\0", "\r") for cell in row]
              for row in csv.reader(plain, delimiter="\t")]  # fmt: skip
    assert [list(record) for _, record in records] == wanted
    assert quoting_note([r for _, r in records]) == "TSV with quoted cells"


@pytest.mark.parametrize("name", PLAIN)
def test_quotes_of_texts_stay_as_they_are(write, name):
    records, problems = read_table(write(PLAIN[name], "a.tsv"))
    lines = PLAIN[name].splitlines()
    assert [list(record) for _, record in records] == [x.split("\t") for x in lines]
    assert "quotes are part of the cells" in quoting_note([r for _, r in records])
    assert not problems


def test_a_table_without_quotes_has_no_note(write):
    for name in ("a.csv", "a.tsv"):
        records, _ = read_table(write("a\tb\nc\td\n", name))
        assert quoting_note([record for _, record in records]) == ""


def test_blanks_around_quotes_are_no_part_of_a_cell(write):
    path = write('text,label\n "a, b" ,x\n"c"  ,"y" \n')
    with pytest.raises(InputError, match="a.csv:2: .* check the quotes"):
        read_columns(path, ["text"])
    path = write('text,label\nd, "a, b"\nc,"y" \n')
    assert cells_of(path)[1:] == [["d", "a, b"], ["c", "y"]]


def test_texts_have_no_blanks_at_the_ends_of_lines():
    assert cell_text(" a \r\n b\r") == "a\n b"
