"""Rates of token shards are megabytes over seconds of the CPU."""

import numpy as np

from benchmarks import protocol, shards
from benchmarks.shards import Config, Row


def test_a_smoke_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(protocol, "use_cpu", lambda: None)
    monkeypatch.setattr(shards, "WINDOWS", 128)
    path = tmp_path / "a.txt"
    path.write_text("".join(f"line {n} of a text\n" for n in range(3000)))
    table = shards.run(Config(text=str(path), rounds=1, max_seq_length=16))
    assert [row[:2] for row in table.rows] == [
        ["bytes", "write"],
        ["bytes", "read, causal"],
        ["bytes", "read, masked"],
    ]
    assert all(float(row[2]) > 0 for row in table.rows)
    assert "of one core" in capsys.readouterr().out


def test_rates_are_bytes_over_seconds():
    rows = [
        Row(shards._entry("a", "write", None), 8e6, 4e6, 2.0),
        Row(shards._entry("a", "tokenizers alone", None), 8e6, 4e6, None),
        Row(shards._entry("a", "read, causal", None), 400e6, 60e6, 50.0),
    ]
    times = np.array([[1.0, 4.0, 1.0], [2.0, 8.0, 2.0], [4.0, 8.0, 2.0]])
    table = shards.tabulate(rows, times)
    assert table.rows == [
        ["a", "write", "4.0", "3.0–6.0", "2.0", "≥ 2 met"],
        ["a", "tokenizers alone", "1.0", "1.0–1.5", "0.5", ""],
        ["a", "read, causal", "200.0", "200.0–300.0", "30.0", "≥ 50 not met"],
    ]
