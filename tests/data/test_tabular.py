"""CSV and TSV files: what the columns become, and every complaint about a file."""

import json
import re

import numpy as np
import pytest

from ffnlab.data import read_csv, replicate
from ffnlab.data.dataset import split_rows
from ffnlab.errors import InputError
from tests.conftest import SHARED

PARTS = ("train", "valid", "test")
NAME = "table.csv"  # of what `write` writes


def lines(*columns):
    """CSV rows from columns of cells."""
    return "\n".join(",".join(map(str, row)) for row in zip(*columns, strict=True))


def mixed_table(count=200, seed=0):
    """Columns of every kind, and a target that depends on them."""
    random = np.random.default_rng(seed)
    size = random.normal(50, 10, count).round(3).astype(str)
    size[::17] = "NA"
    colour = random.choice(["red", "green", "blue", "?"], count)
    identity = [f"id{i}" for i in range(count)]
    return {
        "size": size,
        "colour": colour,
        "identity": identity,
        "unit": ["cm"] * count,
        "empty": [""] * count,
        "events": [int(i in (20, 60)) * 5 for i in range(count)],
        "label": random.choice(["yes", "no"], count),
    }


def as_csv(table):
    return ",".join(table) + "\n" + lines(*table.values()) + "\n"


def test_every_kind_of_column_becomes_what_it_should(write):
    data = read_csv(write(as_csv(mixed_table())), "label")
    assert (data.name, data.task, data.classes) == ("table", "classes", 2)
    assert data.about["class_names"] == ["no", "yes"]
    names = data.about["feature_names"]
    expected = [
        "number__size",
        "missing__missingindicator_size",
        "category__colour_blue",
        "category__colour_green",
        "category__colour_missing",
        "category__colour_red",
    ]
    assert [name for name in names if "events" not in name] == expected
    assert data.features == len(names) == data.train["x"].shape[1]
    size = data.train["x"][:, 0]
    assert abs(size.mean()) < 1e-5 and abs(size.std() - 1) < 1e-5
    assert set(np.unique(data.train["x"][:, names.index(expected[1])])) == {0, 1}
    colours = [names.index(name) for name in expected[2:]]
    np.testing.assert_array_equal(data.train["x"][:, colours].sum(axis=1), 1)
    facts = data.about["columns"]
    assert facts["size"]["missing"] == 12 and facts["identity"]["kind"] == "categories"
    assert facts["empty"] == {"kind": "numbers", "missing": 200, "features": 0}
    counts = [
        facts[name]["features"] for name in ("size", "colour", "identity", "unit")
    ]
    assert counts == [2, 4, 0, 0]
    assert sum(fact["features"] for fact in facts.values()) == data.features
    dropped = data.about["columns_without_features"]
    assert "size" not in dropped and "colour" not in dropped
    assert dropped["identity"] == (
        "120 categories in 120 training rows, each in fewer than 2, as of identifiers "
        "or free text"
    )
    assert dropped["unit"] == "always 'cm' in the training rows"
    assert dropped["empty"] == "no value in the training rows"
    json.dumps(data.about, allow_nan=False)


def test_a_file_with_a_feature_of_each_column_has_nothing_to_report(write):
    """Also where a name looks like that of a feature."""
    table = {
        "1": range(40),
        "category__1_a": ["u", "v", "w", "x"] * 10,
        "missing__missingindicator_0": ["", "3.5"] * 20,
        "y": [0, 1, 1, 0] * 10,
    }
    data = read_csv(write(as_csv(table)), "y")
    assert "columns_without_features" not in data.about
    counts = {name: facts["features"] for name, facts in data.about["columns"].items()}
    assert counts == {"1": 1, "category__1_a": 4, "missing__missingindicator_0": 1}


def test_numbers_that_are_constant_in_training_are_reported(write):
    """Their missing cells are still a feature."""
    table = {
        "a": range(40),
        "b": [7] * 40,
        "c": ["", "3.5"] * 20,
        "d": ["7.0", "7"] * 20,
        "y": [0, 1, 1, 0] * 10,
    }
    data = read_csv(write(as_csv(table)), "y")
    dropped = data.about["columns_without_features"]
    assert dropped["b"] == "always '7' in the training rows"
    assert dropped.keys() == {"b", "d"} and "always '7" in dropped["d"]


def test_splits_that_drop_other_columns_say_in_how_many(write):
    rare = [5 if i in (3, 4) else 0 for i in range(60)]
    table = {"a": range(60), "unit": ["cm"] * 60, "rare": rare, "y": [0, 1] * 30}
    path = write(as_csv(table))
    seeds = range(8)
    several = replicate(lambda seed: read_csv(path, "y", seed), seeds)
    counts = sum(
        "rare" in read_csv(path, "y", s).about["columns_without_features"]
        for s in seeds
    )
    assert 0 < counts < 8
    assert several.about["columns_without_features"] == {
        "unit": "always 'cm' in the training rows",
        "rare": f"always '0' in the training rows, in {counts} of 8 splits",
    }


def test_changing_rows_held_out_changes_nothing_in_training(write):
    table = mixed_table()
    labels = (np.array(table["label"]) == "yes").astype(int)
    rows = split_rows("table", 4, labels, ["no", "yes"])
    before = read_csv(write(as_csv(table)), "label", seed=4)
    for row in np.concatenate([rows["valid"], rows["test"]]):
        table["size"][row], table["colour"][row] = "-1e30", f"new{row}"
        table["unit"][row], table["events"][row] = "inch", 10**9
        table["empty"][row] = "7"
    after = read_csv(write(as_csv(table)), "label", seed=4)
    np.testing.assert_array_equal(before.train["x"], after.train["x"])
    np.testing.assert_array_equal(before.train["y"], after.train["y"])
    assert before.about["feature_names"] == after.about["feature_names"]
    assert (before.valid["x"] != after.valid["x"]).any()
    assert max(np.abs(getattr(after, part)["x"]).max() for part in PARTS) < 20


def test_parts_are_disjoint_and_whole(write):
    numbers = np.arange(100)
    path = write("n,label\n" + lines(numbers, numbers % 2))
    data = read_csv(path, "label", seed=1)
    found = [getattr(data, part)["x"][:, 0] for part in PARTS]
    assert [len(part) for part in found] == [60, 20, 20]
    # Cut off at the percentiles of training, only its ends can meet.
    assert len(np.unique(np.concatenate(found).round(4))) >= 96
    assert (read_csv(path, "label", seed=2).train["x"][:, 0] != found[0]).any()


def test_outliers_are_cut_off_but_rare_events_stay(write):
    """A column of zeros with a few counts keeps them: its percentiles are equal."""
    count = 2000
    steady = np.linspace(0, 1, count)
    steady[::500] = 1e6
    rare = np.zeros(count, int)
    rare[:6] = 1
    data = read_csv(write("a,b,y\n" + lines(steady, rare, np.arange(count) % 2)), "y")
    assert np.abs(data.train["x"][:, 0]).max() < 3
    assert data.about["columns"]["a"]["clipped"] >= 4
    held = np.concatenate([getattr(data, part)["x"][:, 1] for part in PARTS])
    assert len(np.unique(held)) == 2 and (held > 0).sum() == 6


def test_frequent_categories_get_features_and_the_rest_share_one(write):
    words = [f"word{i % 100}" for i in range(400)] + ["often"] * 100
    data = read_csv(write("w,y\n" + lines(words, np.arange(500) % 2)), "y")
    assert data.features == 32
    assert "category__w_infrequent_sklearn" in data.about["feature_names"]


@pytest.mark.parametrize(
    ("cells", "task", "classes"),
    [
        (["b", "a"] * 10, "classes", 2),
        ([10, 9, 2] * 7, "classes", 3),
        (["1.0", "2", "2.00"] * 7, "classes", 2),
        ([0.5, 1, 2, 3] * 5, "values", 1),
        (range(21), "values", 1),
        (["high", 1, 2] * 7, "classes", 3),
    ],
)
def test_the_target_suggests_the_task(write, cells, task, classes):
    data = read_csv(write("x,y\n" + lines(range(len(cells)), cells)), "y")
    assert (data.task, data.classes) == (task, classes)


def test_number_classes_keep_their_order_and_text(write):
    data = read_csv(write("x,y\n" + lines(range(30), [10, 9, "-2.0"] * 10)), "y")
    assert data.about["class_names"] == ["-2", "9", "10"]


def test_the_task_can_be_chosen(write):
    path = write("x,y\n" + lines(range(30), [1, 2, 3] * 10))
    values = read_csv(path, "y", task="values")
    assert (values.task, values.train["y"].dtype) == ("values", np.float32)
    target = values.about["target"]
    back = values.train["y"] * target["standard_deviation"] + target["mean"]
    np.testing.assert_allclose(np.unique(back.round(4)), [1, 2, 3])
    assert abs(values.train["y"].mean()) < 1e-6
    path = write("x,y\n" + lines(range(30), [0.5, 1.5] * 15))
    assert read_csv(path, "y", task="classes").about["class_names"] == ["0.5", "1.5"]


@pytest.mark.parametrize(
    ("name", "between"),
    [("t.tsv", "\t"), ("t.txt", "\t"), ("t.csv", ";"), ("t.csv", "|"), ("t.csv", ", ")],
)
def test_delimiters_are_found(write, name, between):
    rows = [("a b", "c", "y"), *((i, i % 7, "uv"[i % 2]) for i in range(40))]
    text = "\r\n".join(between.join(map(str, row)) for row in rows)
    found = read_csv(write(text, name), "y")
    assert found.about["feature_names"] == ["number__a b", "number__c"]


def test_quotes_blank_lines_and_a_byte_order_mark_are_understood(write):
    rows = [f'"{i},5\nand ""more""", {i % 4} ,{i % 2}\n\n' for i in range(24)]
    path = write(b"\xef\xbb\xbf" + ("text,number,y\n" + "".join(rows)).encode())
    data = read_csv(path, "y")
    assert data.about["feature_names"] == ["number__number"]


GOOD = lines(range(10), ["a", "b"] * 5)

BAD_FILES = {
    "empty": (b"", "{path}: the file is empty"),
    "blank": ("\n\n", "{path}:1: expected column names, found an empty line"),
    "mark alone": (b"\xef\xbb\xbf", "{path}:1: expected column names"),
    "header only": ("x,y\n", "{path}:1: a header and no rows below it"),
    "blank rows": ("x,y\n\n\n", "{path}:1: a header and no rows below it"),
    "no target": ("x,lable,z\n1,2,3\n", "{path}:1: target column: unknown 'y'"),
    "twice": ("x,x,y\n1,2,3\n", "{path}:1: two columns named x"),
    "no name": (
        ",x,y\n1,2,3\n",
        "{path}:1: column 1 has no name; name it or remove it",
    ),
    "target alone": ("y\n1\n", "{path}:1: only the target column; expected others"),
    "UTF-16": (
        "x,y\n1,2\n".encode("utf-16"),
        "{path}:1: UTF-16 text; save the file as",
    ),
    "NUL in header": ("x\0,y\n1,2\n", "{path}:1: a NUL byte; expected UTF-8 text"),
}

BAD_FILES |= {
    "Latin-1": (
        "x,y\n1,a\nf\xe9,b\n".encode("latin-1"),
        "{path}:3: not UTF-8 (byte 0xe9 at offset 1 of the line); save the file as",
    ),
    "NUL": ("x,y\n1,a\n2\0,b\n", "{path}:3: a NUL byte; expected UTF-8 text"),
    "open quote": (
        'x,y\n1,a\n"2,b\n3,a\n',
        "{path}:3: unexpected end of data; check",
    ),
    "stray quote": ('x,y\n1,a\n"2"5,b\n', "{path}:3: ',' expected after '\"'; check"),
    "short": (
        "x,y\n1,a\n2\n3,a,b\n",
        "{path}:3: expected 2 fields, found 1\n{path}:4: exp",
    ),
    "target missing": (
        f"x,y\n{GOOD}\n7,\n8,NA\n",
        "{path}:12: no target: 'y' is ''\n{path}:13: ",
    ),
    "infinite": (
        f"x,y\n{GOOD}\n-inf,a",
        "{path}:12: not a finite 32-bit number: 'x' is '-inf'",
    ),
    "overflow": (
        f"x,y\n{GOOD}\n1e39,a",
        "{path}:12: not a finite 32-bit number: 'x' is '1e39'",
    ),
    "one class": ("x,y\n1,a\n2,a\n3,a\n", "{path}: the target 'y' is always 'a'"),
    "small class": (
        f"x,y\n{GOOD}\n7,c\n8,c",
        "{path}: too few examples of c (2): at least 3",
    ),
    "constant": (
        "x,y\n" + lines([1] * 10, ["a", "b"] * 5),
        "{path}: every feature is constant in the training rows (x: always '1' in the",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused_by_line(write, case):
    content, message = BAD_FILES[case]
    path = write(content)
    with pytest.raises(InputError, match="^" + re.escape(message.format(path=path))):
        read_csv(path, "y")


def test_absent_files_and_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="absent.csv: no such file"):
        read_csv(tmp_path / "absent.csv", "y")
    with pytest.raises(InputError, match="a directory; give a file inside it"):
        read_csv(str(tmp_path), "y")


def test_the_nearest_column_names_are_offered(write):
    path = write("width,lable\n1,2\n")
    with pytest.raises(InputError, match="unknown 'label'; nearest: lable"):
        read_csv(path, "label")


def test_little_text_among_numbers_is_an_error_and_much_a_category(write):
    numbers = [str(i) for i in range(100)]
    numbers[10], numbers[20] = "ten", "1_000"
    table = "x,y\n" + lines(numbers, np.arange(100) % 2)
    path = write(table)
    with pytest.raises(InputError) as error:
        read_csv(path, "y")
    assert str(error.value) == (
        f"{path}:12: text in a column of numbers: 'x' is 'ten'\n"
        f"{path}:22: text in a column of numbers: 'x' is '1_000'"
    )
    rooms = [f"{i % 9}a" if i % 10 == 0 else i % 9 for i in range(100)]
    data = read_csv(write("x,y\n" + lines(rooms, np.arange(100) % 2)), "y")
    assert data.about["columns"]["x"]["kind"] == "categories"


def test_problems_of_all_kinds_come_together_by_line_and_20_at_most(write):
    rows = [f"{i},{i % 2}" for i in range(1000)]
    rows[2] = "one,1"
    rows[5] = "1"
    rows[8] = "2,"
    rows[9] = "inf,0"
    with pytest.raises(InputError) as error:
        read_csv(write("x,y\n" + "\n".join(rows)), "y")
    found = [line.split("table.csv:")[1] for line in str(error.value).split("\n")]
    assert [line.split(":")[0] for line in found] == ["4", "7", "10", "11"]
    rows[100:140] = ["text,1"] * 40
    with pytest.raises(InputError) as error:
        read_csv(write("x,y\n" + "\n".join(rows)), "y")
    found = str(error.value).split("\n")
    assert len(found) == 21 and found[-1].endswith("table.csv: and 24 more")


def test_text_among_values_to_predict_is_an_error(write):
    target = [f"{i}.5" for i in range(50)]
    target[7] = "n.a."
    path = write("x,y\n" + lines(range(50), target))
    with pytest.raises(
        InputError, match="table.csv:9: text in a column of numbers: 'y' is"
    ):
        read_csv(path, "y")
    with pytest.raises(
        InputError, match="table.csv:2: text in a column of numbers: 'y' is"
    ):
        read_csv(write("x,y\n" + GOOD), "y", task="values")
    path = write("x,y\n" + lines(range(30), [4] * 30))
    with pytest.raises(InputError, match="every training target is 4"):
        read_csv(path, "y", task="values")
    with pytest.raises(InputError, match="task: unknown 'value'; nearest: values"):
        read_csv(path, "y", task="value")


def test_a_real_file_without_a_header_says_so():
    path = SHARED / "sms_spam" / "sms.tsv"
    if not path.exists():
        pytest.skip("the shared data are not here")
    with pytest.raises(InputError, match="sms.tsv:1: target column: unknown 'label'"):
        read_csv(path, "label")


def test_a_real_file_with_a_header_added_is_read_or_refused_by_line(write):
    path = SHARED / "sms_spam" / "sms.tsv"
    if not path.exists():
        pytest.skip("the shared data are not here")
    messages = [line.split("\t", 1) for line in path.read_text("utf-8").splitlines()]
    rows = "\n".join(
        f"{label}\t{len(text)}\t{text.count('!')}" for label, text in messages
    )
    data = read_csv(write("label\tlength\tcalls\n" + rows, "sms.tsv"), "label")
    assert data.about["class_names"] == ["ham", "spam"]
    assert sum(data.about["sizes"].values()) == len(messages)
    length = data.train["x"][:, 0]
    assert length[data.train["y"] == 1].mean() > length[data.train["y"] == 0].mean()
