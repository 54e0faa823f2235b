import re

from ffnlab import escape
from ffnlab.report.table import Table
from tests.hostile import LABELS, inlines


def test_table_prints_every_cell(capsys):
    table = Table(["block", "score"], [["glu", "97.25 [96.55, 97.74]"]])
    table.show("digits")
    printed = capsys.readouterr().out
    assert "digits" in printed and "97.25 [96.55, 97.74]" in printed
    assert table.markdown().splitlines()[-1] == "| glu | 97.25 [96.55, 97.74] |"


def test_a_narrow_screen_gets_what_is_essential(capsys):
    columns = ["block", *(f"column number {i}" for i in range(20)), "test"]
    table = Table(columns, [["glu", *["0.123456789"] * 20, "0.97"]])
    table.show("all")
    assert "column" in capsys.readouterr().out
    table.show("short", essential=["block", "test"])
    printed = capsys.readouterr().out
    assert "0.97" in printed and "column number" not in printed
    assert "report.md" in printed


def test_hostile_cells_are_shown_and_act_on_nothing(capsys):
    for label in LABELS:
        table = Table([label, "score"], [[label, label]])
        table.show(label, essential=[label])
        printed = capsys.readouterr().out
        assert escape.terminal_lines(printed) == printed
        text = "".join(re.sub("[┃│┏┳┓┡╇┩└┴┘━─]", "", printed).split())
        assert text.count("".join(escape.terminal(label).split())) >= 1, label
        shown = escape.terminal(label)
        assert inlines(table.markdown()) == [shown, "score", shown, shown]


def test_a_label_is_no_markup_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    Table(["block", "[b]"], [["[red]a[/red]", ":smile:"], ["中文", "1"]]).show("[/]")
    printed = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out)
    assert all(text in printed for text in ("[red]a[/red]", ":smile:", "[b]", "[/]"))
    assert "中文" in printed
