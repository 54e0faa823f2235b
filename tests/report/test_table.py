from ffnlab.report.table import Table


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
