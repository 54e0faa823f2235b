"""Arrays in memory as data sets, and what cannot be one."""

import dataclasses
import re

import numpy as np
import pytest

from ffnlab import data
from ffnlab.data import Dataset
from ffnlab.data.dataset import split_rows, standardise
from ffnlab.errors import InputError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 2, 2))
Y = [0, 1, 2] * 10
SPARSE = type("Sparse", (), {"toarray": None})()


def test_arrays_are_split_standardised_and_encoded():
    labels = np.array(["b", "a", "c"])[Y]
    dataset = Dataset.from_arrays(X, labels, seed=3, name="mine")
    rows = split_rows("mine", 3, np.array([1, 0, 2])[Y], ["a", "b", "c"])
    wanted = standardise({part: X.reshape(30, 4)[rows[part]] for part in rows})
    for part, x in wanted.items():
        np.testing.assert_array_equal(getattr(dataset, part)["x"], x)
        names = np.array(dataset.about["class_names"])[getattr(dataset, part)["y"]]
        assert names.tolist() == labels[rows[part]].tolist()
    assert (dataset.features, dataset.classes, dataset.task) == (4, 3, "classes")
    assert dataset.about["shape"] == [2, 2] and dataset.name == "mine"
    again = data.from_arrays(X, labels, seed=5)
    assert data.digest(dataset.resplit(5)) == data.digest(again)
    raw = Dataset.from_arrays(X, labels, seed=3, scale=False)
    np.testing.assert_array_equal(
        raw.train["x"], X.reshape(30, 4)[rows["train"]].astype("f4")
    )


def test_given_parts_are_kept_and_scaled_by_training():
    parts = {"valid": (X[:9] + 1, Y[:9]), "test": (X[:6], Y[:6])}
    dataset = Dataset.from_arrays(X, Y, **parts)
    assert dataset.resplit is None and dataset.about["split"] == "given"
    assert dataset.train["y"].tolist() == Y and dataset.test["y"].tolist() == Y[:6]
    train = X.reshape(30, 4)
    expected = (train[:9] + 1 - train.mean(0)) / train.std(0)
    np.testing.assert_allclose(dataset.valid["x"], expected, rtol=1e-5, atol=1e-6)


def test_floats_are_values_unless_the_task_says_classes():
    y = np.array([1.0, 2.0, 4.0])[Y]
    dataset = Dataset.from_arrays(X, y)
    assert dataset.task == "values" and dataset.classes == 1
    assert dataset.train["y"].mean() == pytest.approx(0, abs=1e-6)
    facts = dataset.about["target"]
    restored = dataset.train["y"] * facts["standard_deviation"] + facts["mean"]
    assert set(np.round(restored, 4)) == {1.0, 2.0, 4.0}
    assert Dataset.from_arrays(X, y, task="classes").about["class_names"][1] == "2.0"


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([3, 1, 2], ["1", "2", "3"]),
        ([True, False], ["False", "True"]),
        ([(1, 0), (0, 1)], ["(0, 1)", "(1, 0)"]),
        ([1, "1", "b"], ["1", "'1'", "'b'"]),
        (np.array([10, 9]), ["9", "10"]),
        ([b"b", "a"], ["b'b'", "a"]),
    ],
)
def test_labels_of_any_hashable_type_are_encoded(labels, names):
    y = list(labels) * (30 // len(labels))
    dataset = Dataset.from_arrays(X, y)
    assert dataset.about["class_names"] == names
    assert set(dataset.train["y"].tolist()) == set(range(len(names)))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"y": Y[:-1]}, "x has 30 examples and y has 29"),
        ({"x": np.where(X > 1.5, np.nan, X)}, "x: the number at index ["),
        ({"x": X * 1e39}, "not a finite 32-bit number"),
        ({"x": np.full(X.shape, "a")}, "x: expected numbers, found <U1"),
        ({"x": SPARSE}, "a sparse matrix needs x.toarray()"),
        ({"x": [[1], [1, 2]], "y": [0, 1]}, "x: examples differ in their shapes"),
        ({"x": [], "y": []}, "x: expected [examples, ...], found the shape [0]"),
        ({"y": [0, 1, None] * 10}, "y: no label at index 2: None"),
        ({"y": ["a", "b", float("nan")] * 10}, "y: no label at index 2: nan"),
        ({"y": [0.0, 1.0, float("nan")] * 10}, "y: the number at index [2] is nan"),
        ({"y": [[0]] * 30}, "y: the label at index 0 is a list, which is not hashable"),
        ({"y": np.eye(30)}, "y: expected one label or value for each example, [N]"),
        ({"y": "abc"}, "y: expected a list or an array"),
        ({"y": 3}, "y: expected a list or an array"),
        ({"y": [1] * 30}, "y: every label is 1"),
        ({"y": [0, 1] + [2] * 28}, "too few examples of 0 (1), 1 (1)"),
        ({"y": list("ab") * 15, "task": "values"}, "y: values to predict should be n"),
        ({"y": [2.0] * 30}, "every training target is 2.0"),
        ({"task": "clases"}, "task: unknown 'clases'; nearest: classes"),
        ({"seed": "a"}, "seed: 'a' should be an integer"),
        ({"valid": (X, Y)}, "valid and test: give both"),
        ({"valid": X, "test": (X, Y)}, "valid: expected a pair of x and y"),
        ({"valid": (X[:, :1], Y), "test": (X, Y)}, "valid: x has 2 features, and 4"),
        ({"valid": (X, Y), "test": (X, Y[1:])}, "test: x has 30 examples and y has 29"),
        (
            {"valid": (X, Y), "test": (X, [0, 1, 7] * 10)},
            "test: y: label 7 at index 2 has no example in the training part",
        ),
    ],
)
def test_what_cannot_be_a_data_set_is_one_line(given, wanted):
    with pytest.raises(InputError, match=re.escape(wanted)) as caught:
        Dataset.from_arrays(**{"x": X, "y": Y, **given})
    assert "\n" not in str(caught.value)


TABLE = {"x": X.reshape(30, 4).astype("f4"), "y": np.array(Y)}


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"y": TABLE["y"] + 1}, "train: y: label 3 at index 2 is not in 0 to 2"),
        ({"y": TABLE["y"] - 1}, "train: y: label -1 at index 0 is not in 0 to 2"),
        ({"y": TABLE["y"] * 1.0}, "train: y: expected integers, found float64"),
        ({"y": np.full(30, "a")}, "train: y: expected numbers, found <U1"),
        ({"y": TABLE["y"][1:]}, "train: x has the shape [30, 4] and y [29]"),
        ({"x": TABLE["x"] * np.nan}, "train: x: the number at index [0, 0] is nan"),
        ({"x": TABLE["x"][:, 1:]}, "train: x has 3 columns, and features=4"),
    ],
)
def test_a_data_set_made_by_hand_is_checked(changed, wanted):
    """Labels from 1 made every loss NaN before."""
    with pytest.raises(InputError, match=re.escape(f"toy: {wanted}")):
        Dataset("toy", {**TABLE, **changed}, TABLE, TABLE, "classes", 4, 3, {})
    ignored = {**TABLE, "y": np.where(TABLE["y"] == 2, -100, TABLE["y"])}
    Dataset("toy", ignored, TABLE, {}, "classes", 4, 3, {})


def test_large_finite_numbers_whose_sum_overflows_are_allowed():
    large = {**TABLE, "x": np.full((30, 4), 3e38, "f4")}
    Dataset("toy", large, TABLE, TABLE, "classes", 4, 3, {})


def test_a_changed_copy_is_not_split_again():
    dataset = data.load("wine")
    assert dataset.resplit and dataclasses.replace(dataset, test={}).resplit is None


def test_data_sets_by_name_and_files_can_be_split_again(tmp_path):
    wine = data.load("wine")
    assert data.digest(wine.resplit(7)) == data.digest(data.load("wine", 7))
    np.savez(tmp_path / "toy.npz", x=X, y=Y)
    toy = data.read_npz(tmp_path / "toy.npz")
    assert data.digest(toy.resplit(7)) == data.digest(
        data.read_npz(tmp_path / "toy.npz", 7)
    )
