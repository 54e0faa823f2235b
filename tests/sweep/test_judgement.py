"""A table of runs, as a user meets it: in Python and on the command line."""

import dataclasses
import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import launch
from ffnlab import io, stats
from ffnlab.errors import InputError
from ffnlab.sweep import judgement
from ffnlab.sweep.judgement import JudgeConfig, judge
from tests.conftest import check_refusal, command, refusals
from tests.hostile import inlines

SEEDS = 8
RNG = np.random.default_rng(0)
BASE = RNG.normal(0.9, 0.01, SEEDS)
SCORES = {
    "mlp": BASE.round(4),
    "glu": (BASE + RNG.normal(0.02, 0.004, SEEDS)).round(4),
    "bilinear": (BASE + RNG.normal(0.0, 0.004, SEEDS)).round(4),
}
HEADER = "model,seed,acc"
LINES = [f"{m},{s},{x}" for m, row in SCORES.items() for s, x in enumerate(row)]
COLUMNS = {"block": "model", "pair": "seed", "score": "acc"}
FLAGS = ["--block=model", "--pair=seed", "--score=acc"]


@pytest.fixture
def table(tmp_path):
    """Writes a table of runs; returns the arguments that name it and its columns."""

    def to_arguments(lines=LINES, header=HEADER, name="runs.csv"):
        path = tmp_path / name
        path.write_text("\n".join([header, *lines]) + "\n")
        return {"results": str(path), **COLUMNS}

    return to_arguments


def of(result, name):
    (row,) = (row for row in result.comparisons if row.name == name)
    return row


@pytest.mark.parametrize(
    "options", [{}, {"lower_is_better": True}, {"margin": 0.01, "level": 0.9}]
)
def test_the_numbers_are_those_of_compare(table, options, capsys):
    result = judge(JudgeConfig(**table(), baseline="mlp", **options))
    higher = not options.pop("lower_is_better", False)
    assert result.comparisons == stats.compare(SCORES, "mlp", higher, **options)
    verdicts = {row.name: row.verdict for row in result.comparisons}
    assert verdicts["glu"] == ("better" if higher else "worse")
    assert verdicts["bilinear"] == ("equivalent" if options else "undecided")
    printed = capsys.readouterr().out
    verdict, rest = printed.split("\n\n", 1)
    assert verdict.replace("\n", " ") == result.verdict
    assert rest.startswith(f"acc, {'higher' if higher else 'lower'} is better")
    for remark in result.remarks:
        assert remark in printed.replace("\n  ", " ")


def test_the_table_has_every_number(table):
    result = judge(JudgeConfig(**table()))
    assert [*result.table.columns] == [
        "block", "n", "acc", "Δ mlp", "p", "P(better)", "verdict",
    ]  # fmt: skip
    glu = of(result, "glu")
    (row,) = (row for row in result.table.rows if row[0] == "glu")
    low, high = glu.difference_interval
    assert row[:2] == ["glu", "8"] and row[-1] == "better"
    assert row[2].startswith(f"{SCORES['glu'].mean():.4f} [")
    assert row[3] == f"{glu.difference:+.4f} [{low:+.4f}, {high:+.4f}]"
    assert row[4:6] == [f"{glu.p_value:.4f}", "1.00"]
    (row,) = (row for row in result.table.rows if row[0] == "mlp")
    assert row[3:] == ["", "", "", "baseline"]


def test_the_order_of_rows_changes_nothing_but_the_default_baseline(table):
    lines = [f"{m},{s},{x + s % 3}" for m in "ab" for s, x in enumerate(range(20))]
    lines = [*lines, *(f"c,{s},{s % 7}" for s in range(20))]
    first = judge(JudgeConfig(**table(lines)))
    again = judge(JudgeConfig(**table(lines[::-1]), baseline="a"))
    assert first.comparisons == again.comparisons
    last = judge(JudgeConfig(**table(lines[::-1])))
    assert of(first, "a").verdict is None and of(last, "c").verdict is None
    assert any("baseline is c" in remark for remark in last.remarks)
    assert not any("baseline is" in remark for remark in again.remarks)


def test_the_block_with_the_most_rows_is_the_baseline(table):
    lines = [line for line in LINES if line.split(",")[:2] != ["mlp", "3"]]
    lines = [line for line in lines if line.split(",")[:2] != ["bilinear", "5"]]
    result = judge(JudgeConfig(**table(lines), drop_unpaired=True))
    assert of(result, "glu").verdict is None
    kept = {name: np.delete(row, [3, 5]) for name, row in SCORES.items()}
    assert result.comparisons == stats.compare(kept, "glu", True)
    assert any(
        "2 pairs are left out" in remark and "3 (mlp); 5 (bilinear)" in remark
        for remark in result.remarks
    )


def test_equal_pairs_may_be_spelled_differently_if_all_are_numbers(table):
    lines = [line.replace("mlp,1,", "mlp,1.0,") for line in LINES]
    lines = [line.replace("mlp,2,", "mlp,2e0,") for line in lines]
    result = judge(JudgeConfig(**table(lines)))
    assert result.comparisons == stats.compare(SCORES, "mlp", True)
    texts = [line.replace(",0,", ",zero,") for line in lines]
    with pytest.raises(InputError, match="column 'seed': 4 of 10 values have no run"):
        judge(JudgeConfig(**table(texts)))


def test_long_numbers_and_names_with_underscores_stay_apart(table):
    pairs = [f"1234567890123456789{i}" for i in range(6)]
    lines = [f"{m},{p},{i}" for m in "ab" for i, p in enumerate(pairs)]
    assert of(judge(JudgeConfig(**table(lines))), "a").replicates == 6
    pairs = ["1_10", "11_0", "110", "1_1_0"]
    lines = [f"{m},{p},{i}" for m in "ab" for i, p in enumerate(pairs)]
    assert of(judge(JudgeConfig(**table(lines))), "a").replicates == 4


def test_where_keeps_matching_rows(table):
    lines = [f"{line},done,3e-3" for line in LINES]
    lines += [f"glu,{s},,crashed,0.003" for s in range(3)]  # without a score
    lines += [f"mlp,{s},0.5,done,0.01" for s in range(3)]
    arguments = table(lines, f"{HEADER},state,rate")
    where = ("state=done", "rate=0.003", "model=mlp", "model=glu")
    result = judge(JudgeConfig(**arguments, where=where))
    pairs = {name: SCORES[name] for name in ("mlp", "glu")}
    assert result.comparisons == stats.compare(pairs, "mlp", True)
    conditions = "state=done, rate=0.003, model=mlp, model=glu"
    assert f"Rows with {conditions}: 16 of 30." in result.remarks
    with pytest.raises(InputError, match="no row has 'don' in column 'state'; it has"):
        judge(JudgeConfig(**arguments, where=("state=don",)))
    with pytest.raises(InputError, match="no row fulfils all"):
        judge(JudgeConfig(**arguments, where=("state=crashed", "rate=0.01")))


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_too_few_replicates_are_no_error_and_no_claim(table, seeds, tmp_path):
    lines = [line for line in LINES if int(line.split(",")[1]) < seeds]
    config = JudgeConfig(**table(lines), out=str(tmp_path / "out"))
    result = judge(config)
    assert "nothing can be claimed" in result.verdict
    assert {row.verdict for row in result.comparisons} == {None, "undecided"}
    assert (
        f"at least 6 replicates of every block; the table has {seeds}."
        in (result.remarks[0])
    )


def test_scores_that_never_differ(table):
    lines = [f"{m},{s},{m == 'c'}" for m in "abc" for s in range(8)]
    lines = [line.replace("True", "1").replace("False", "0") for line in lines]
    result = judge(JudgeConfig(**table(lines)))
    assert of(result, "b").verdict == "undecided" and of(result, "b").p_value == 1
    assert of(result, "c").verdict == "better"
    row = next(row for row in result.table.rows if row[0] == "b")
    assert row[3].startswith("+0.")
    zeros = [f"{m},{s},0" for m in "ab" for s in range(8)]
    result = judge(JudgeConfig(**table(zeros)))
    assert of(result, "b").verdict == "undecided"


def test_large_scores_have_few_digits(table):
    lines = [
        f"{m},{s},{x * 1e30}" for m, row in SCORES.items() for s, x in enumerate(row)
    ]
    result = judge(JudgeConfig(**table(lines)))
    assert max(len(cell) for row in result.table.rows for cell in row) < 40


def test_undecided_blocks_have_the_number_that_would_decide(table):
    result = judge(JudgeConfig(**table()))
    needed = of(result, "bilinear").needed
    (remark,) = (text for text in result.remarks if "Undecided" in text)
    assert "without a margin" in remark and "glu" not in remark
    assert f"bilinear {judgement._needed(needed)}." in remark


def test_the_directory_has_the_report_and_repeats_it(table, tmp_path, capsys):
    out = tmp_path / "out"
    config = JudgeConfig(**table(), margin=0.01, where=("model=mlp", "model=glu"))
    config = dataclasses.replace(config, out=str(out))
    result = judge(config)
    assert {path.name for path in out.iterdir()} == {
        "comparisons.jsonl", "differences.png", "flags", "lock", "report.md",
        "manifest.sha256",
        "versions.json",
    }  # fmt: skip
    text = (out / "report.md").read_text()
    assert text.index(result.verdict) < text.index(result.table.markdown())
    assert text.index("# What this cannot conclude") < text.index(result.remarks[0])
    assert (out / "differences.png").read_bytes().startswith(b"\x89PNG")
    rows = io.read_lines(out / "comparisons.jsonl")
    assert rows == json.loads(
        json.dumps([dataclasses.asdict(row) for row in result.comparisons])
    )
    again = launch.parse(JudgeConfig, ["judge", f"--flagfile={out}/flags"])
    assert again == dataclasses.replace(config, out=None)
    capsys.readouterr()
    with pytest.raises(InputError, match="already holds a run"):
        judge(config)
    assert capsys.readouterr().out == ""  # refused before anything is computed


def test_names_are_shown_as_they_are_wherever_they_go(table, tmp_path, capsys):
    names = ["[bold]a[/b]", r"$\frac{b$", "_c_|<i>", "\x1b[31md", "e\u202e", "f" * 300]
    lines = [f"{m}\t{s}\t{s * i % 5}" for i, m in enumerate(names) for s in range(7)]
    arguments = table(lines, "[red]m\tseed\tacc$|[b]", "runs.tsv")
    arguments |= {"block": "[red]m", "score": "acc$|[b]"}
    judge(JudgeConfig(**arguments, out=str(tmp_path / "out")))
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    seen = [*names[:3], r"\x1b[31md", r"e\u202e", "acc$|[b]"]
    for name in seen:
        assert f" {name} " in printed
    assert "\nacc$|[b], higher is better" in printed
    shown = inlines((tmp_path / "out" / "report.md").read_text())
    assert {*seen, "f" * 300} < {*shown}
    assert any(text.startswith("acc$|[b], higher is better") for text in shown if text)
    rows = io.read_lines(tmp_path / "out" / "comparisons.jsonl")
    assert {row["name"] for row in rows} == {*names}


def test_help_is_grouped():
    done = command("judge", "--help")
    assert done.returncode == 0
    table, claims = done.stdout.index("Table of runs:"), done.stdout.index("Claims:")
    assert table < done.stdout.index("\n  --results=") < claims
    assert claims < done.stdout.index("\n  --margin=")
    for field in dataclasses.fields(JudgeConfig):
        assert f"--{field.name}=" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 88


TABLES = {
    "good": LINES,
    "one": LINES[:SEEDS],
    "twice": [*LINES, "glu,3,0.9"],
    "spelled": [*LINES, "glu,3.0,0.9"],
    "empty": [*LINES[:-1], "bilinear,7,"],
    "text": [*LINES[:-1], "bilinear,7,oops"],
    "comma": [*LINES[:-1], 'bilinear,7,"0,9"'],
    "nan": [*LINES[:-1], "bilinear,7,nan"],
    "inf": [*LINES[:-1], "bilinear,7,-inf"],
    "huge": [*LINES[:-1], "bilinear,7,1e39"],
    "unnamed": [*LINES, ",9,0.9"],
    "unseeded": [*LINES, "glu,,0.9"],
    "short": [*LINES, "glu,9"],
    "unpaired": LINES[:-2],
    "apart": ["a,1,1", "a,2,1", "b,3,1", "b,4,1"],
    "many": [f"{m},{s},{s}" for m in "ab" for s in range(5001)],
    "no_rows": [],
}
WRONG = [
    ("good", ["--results=absent.csv"], "absent.csv: no such file"),
    ("good", ["--results="], "--results: needed; give a CSV file"),
    ("good", ["--pair="], "--pair: needed; give a column"),
    ("good", ["--pair=model"], "--block, --pair and --score: give three different"),
    ("good", ["--block=modl"], "good.csv:1: block column: unknown 'modl'"),
    ("good", ["--pair=sed"], "good.csv:1: pair column: unknown 'sed'; nearest: seed"),
    ("good", ["--score=accu"], "good.csv:1: score column: unknown 'accu'"),
    ("good", ["--where=stat=1"], "good.csv:1: where column: unknown 'stat'"),
    ("good", ["--where=model"], "--where: 'model' should be COLUMN=VALUE"),
    ("good", ["--where==1"], "--where: '=1' should be COLUMN=VALUE"),
    ("good", ["--where=model=x"], "--where: no row has 'x' in column 'model'; it has"),
    ("good", ["--where=model=glu"], "column 'model' has one block, 'glu'"),
    ("good", ["--baseline=gul"], "--baseline: unknown 'gul'; nearest: glu"),
    ("good", ["--margin=0"], "--margin: 0.0 should be a number above 0"),
    ("good", ["--margin=nan"], "--margin: nan should be"),
    ("good", ["--level=0.9999"], "--level: 0.9999 should be"),
    ("good", ["--level=95"], "--level: 95.0 should be"),
    ("good", ["--out={}"], "good.csv is a file; name a directory"),
    ("one", [], "column 'model' has one block, 'mlp'; a comparison needs two"),
    ("twice", [], "twice.csv:26: 'glu' with seed '3' is also on line 13"),
    ("spelled", [], "spelled.csv:26: 'glu' with seed '3.0' is also on line 13"),
    ("empty", [], "empty.csv:25: column 'acc' is empty, expected a finite number; give "
     "a diverged run the score of a trivial predictor, or leave it out with --where="),
    ("text", [], "text.csv:25: column 'acc' has 'oops', expected a number such as"),
    ("comma", [], "comma.csv:25: column 'acc' has '0,9', expected a number such as"),
    ("nan", [], "nan.csv:25: column 'acc' has 'nan', expected a finite number"),
    ("inf", [], "inf.csv:25: column 'acc' has '-inf', expected a finite number"),
    ("huge", [], "huge.csv:25: column 'acc' has '1e39', expected a number below 3e+38"),
    ("unnamed", [], "unnamed.csv:26: column 'model' is empty"),
    ("unseeded", [], "unseeded.csv:26: column 'seed' is empty"),
    ("short", [], "short.csv:26: expected 3 fields, found 2"),
    ("unpaired", [], "unpaired.csv: column 'seed': 2 of 8 values have no run of some "
     "block: 6 (bilinear); 7 (bilinear); add the runs, or leave these pairs out with "
     "--drop_unpaired=true"),
    ("apart", ["--drop_unpaired"], "column 'seed': no value has a run of every block"),
    ("many", [], "5,001 pairs, at most 5,000 can be compared"),
    ("no_rows", [], "no_rows.csv:1: a header and no rows below it"),
]  # fmt: skip


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """What the launcher makes of wrong input, in one process without JAX."""
    folder = tmp_path_factory.mktemp("refused")
    for name, lines in TABLES.items():
        (folder / f"{name}.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    cases = [
        [f"--results={folder}/{name}.csv", *FLAGS]
        + [flag.format(folder / f"{name}.csv") for flag in flags]
        for name, flags, _ in WRONG
    ]
    return refusals("judge", cases, folder)


@pytest.mark.parametrize(
    "case", range(len(WRONG)), ids=lambda i: " ".join([WRONG[i][0], *WRONG[i][1]])
)
def test_wrong_input_is_one_clear_line(case, refused):
    check_refusal(refused[case], WRONG[case][2])


def test_all_problems_of_a_file_are_reported_at_once(table):
    lines = ["a,1,x", "a,2", ",3,1", "b,1,", "b,1,1"]
    with pytest.raises(InputError) as caught:
        judge(JudgeConfig(**table(lines)))
    places = [line.split(": ")[0] for line in str(caught.value).splitlines()]
    assert [place.rpartition(":")[2] for place in places] == ["2", "3", "4", "5", "6"]


def test_the_result_is_a_frame_a_picture_and_a_report(table, tmp_path):
    pandas = pytest.importorskip("pandas")
    result = judge(JudgeConfig(**table(), baseline="mlp", margin=0.01))
    frame = result.frame()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.name.tolist() == [row.name for row in result.comparisons]
    axes = Figure().add_subplot()
    assert result.plot(axes) is axes and "from mlp" in axes.get_xlabel()
    path = result.save(tmp_path / "report")
    assert result.verdict in (path / "report.md").read_text()
    assert (path / "differences.png").exists()
    with pytest.raises(InputError, match="^out: .* is not empty"):
        result.save(path)
    assert repr(result) == f"JudgeResult({result.verdict!r})"
