"""Arrays in npz files: what they become, and every complaint about them."""

import json
import re
import zipfile

import numpy as np
import pytest

from ffnlab.data import read_npz, size
from ffnlab.errors import InputError

PARTS = ("train", "valid", "test")
X = np.arange(60.0).reshape(20, 3)
Y = np.arange(20) % 2


@pytest.fixture
def write(tmp_path):
    """Writes arrays to an npz file and returns its path."""

    def to_file(**arrays):
        np.savez(tmp_path / "arrays.npz", **arrays)
        return tmp_path / "arrays.npz"

    return to_file


def test_images_are_flattened_split_and_standardised(write):
    images = np.random.default_rng(0).integers(0, 255, (100, 4, 5), dtype=np.uint8)
    images[:, 0, 0] = 9
    data = read_npz(write(x=images, y=np.arange(100, dtype=np.int16) % 3), seed=2)
    assert (data.task, data.classes, data.features) == ("classes", 3, 20)
    assert sum(size(getattr(data, part)) for part in PARTS) == 100
    assert (data.train["x"].dtype, data.train["y"].dtype) == (np.float32, np.int32)
    np.testing.assert_allclose(data.train["x"].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(data.train["x"].std(axis=0)[1:], 1, atol=1e-5)
    assert all((getattr(data, part)["x"][:, 0] == 0).all() for part in PARTS)
    assert data.about["shape"] == [4, 5]
    json.dumps(data.about, allow_nan=False)


def test_values_are_standardised_and_can_be_restored(write):
    y = np.linspace(-3, 900, 20)
    data = read_npz(write(x=X, y=y))
    assert (data.task, data.classes) == ("values", 1)
    target = data.about["target"]
    found = np.concatenate([getattr(data, part)["y"] for part in PARTS])
    restored = np.sort(found * target["standard_deviation"] + target["mean"])
    np.testing.assert_allclose(restored, y, rtol=1e-4)
    assert read_npz(write(x=X, y=Y), task="values").task == "values"
    assert read_npz(write(x=X, y=Y.astype(float)), task="classes").classes == 2


def test_a_split_of_the_files_own_is_kept(write):
    held = {"x_valid": X[:5], "y_valid": Y[:5], "x_test": X[:4] + 0.5, "y_test": Y[:4]}
    data = read_npz(write(x=X, y=Y, **held))
    assert data.about["sizes"] == {"train": 20, "valid": 5, "test": 4}
    assert data.about["repeated"] == {"valid": 5, "test": 0}
    expected = (X[:4] + 0.5 - X.mean(axis=0)) / X.std(axis=0)
    np.testing.assert_allclose(data.test["x"], expected, rtol=1e-5)
    held["x_valid"] = X[:5] * 1000
    changed = read_npz(write(x=X, y=Y, **held))
    np.testing.assert_array_equal(changed.train["x"], data.train["x"])


def test_large_numbers_keep_their_differences(write):
    """Time stamps lie closer together than float32 can tell apart."""
    seconds = 1_700_000_000 + np.arange(20)[:, None]
    data = read_npz(write(x=seconds, y=Y.astype(bool)))
    found = np.concatenate([getattr(data, part)["x"][:, 0] for part in PARTS])
    np.testing.assert_allclose(
        np.diff(np.sort(found)), np.diff(np.sort(found))[0], 1e-4
    )
    assert (data.task, data.about["class_names"]) == ("classes", ["0", "1"])


@pytest.mark.parametrize("key", ["x_test", "y_test"])
def test_numbers_that_overflow_once_standardised_are_refused(write, key):
    held = {"x_valid": X, "y_valid": X[:, 0], "x_test": X * 1e-3, "y_test": X[:, 0]}
    held[key] = held[key] + 3e38
    path = write(x=X * 1e-3, y=X[:, 0] * 1e-3, **held)
    with pytest.raises(
        InputError, match="arrays: test has numbers too far from those in"
    ):
        read_npz(path)


def changed(array, index, value):
    """A float copy of an array with one entry changed."""
    array = array.astype(np.float64)
    array[index] = value
    return array


HELD = {"x_valid": X, "y_valid": Y, "x_test": X, "y_test": Y}

BAD = {
    "no y": ({"x": X, "Y": Y}, "key: unknown 'y'. Known: Y, x"),
    "no x": ({"x_train": X, "y": Y}, "key: unknown 'x'"),
    "half a split": (
        {"x": X, "y": Y, "x_test": X, "y_test": Y},
        "x_test, y_test need also x_valid, y_valid",
    ),
    "rows": ({"x": X, "y": Y[:9]}, "x has 20 examples and y 9"),
    "held rows": (
        {"x": X, "y": Y, **HELD, "y_test": Y[:9]},
        "x_test has 20 examples and y_t",
    ),
    "columns": (
        {"x": X, "y": Y, **HELD, "x_test": X[:, :2]},
        "x_test has 2 features and x 3",
    ),
    "no rows": (
        {"x": X[:0], "y": Y[:0]},
        "x: expected [examples, ...], found the shape [0, 3]",
    ),
    "no axis": ({"x": 3.0, "y": Y}, "x: expected [examples, ...], found the shape []"),
    "wide y": (
        {"x": X, "y": np.eye(20)},
        "y: expected [examples], found the shape [20, 20]",
    ),
    "text": ({"x": X.astype(str), "y": Y}, "x: expected numbers, found <U"),
    "complex": ({"x": X + 1j, "y": Y}, "x: expected numbers, found complex128"),
    "objects": (
        {"x": X.astype(object), "y": Y},
        "x: expected numbers, found object",
    ),
    "NaN": (
        {"x": changed(X, (4, 1), np.nan), "y": Y},
        "x: not a finite 32-bit number at index [4, 1]: nan",
    ),
    "overflow": (
        {"x": X, "y": changed(Y, 3, 1e39)},
        "y: not a finite 32-bit number at index [3]",
    ),
    "negative": (
        {"x": X, "y": Y - 1},
        "y: expected classes from 0, found -1 at index 0",
    ),
    "from one": (
        {"x": X, "y": Y + 1},
        "y: expected classes 0 to K - 1; class 0 has no example",
    ),
    "one class": ({"x": X, "y": Y * 0}, "y: every example is of class 0"),
    "unseen": (
        {"x": X, "y": Y, **HELD, "y_test": Y + 1},
        "y_test: class 2 at index 1 has no example in y",
    ),
    "few": ({"x": X, "y": np.arange(20) // 18}, "too few examples of class 1 (2): "),
    "equal values": ({"x": X, "y": np.full(20, 0.1)}, "every training target is 0.1"),
}


@pytest.mark.parametrize("case", BAD)
def test_unusable_arrays_are_refused(write, case):
    arrays, message = BAD[case]
    path = write(**arrays)
    with pytest.raises(InputError, match="^" + re.escape(f"{path}: {message}")):
        read_npz(path)


def test_fractions_are_no_classes(write):
    path = write(x=X, y=Y + 0.5)
    with pytest.raises(
        InputError, match="expected classes from 0, found 0.5 at index 0"
    ):
        read_npz(path, task="classes")
    with pytest.raises(InputError, match="task: unknown 'class'; nearest: classes"):
        read_npz(path, task="class")


def test_files_that_are_no_npz_are_refused(tmp_path, write):
    with pytest.raises(InputError, match="absent.npz: no such file"):
        read_npz(tmp_path / "absent.npz")
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(InputError, match=r"one\.npy: not an npz file; write it by"):
        read_npz(tmp_path / "one.npy")
    whole = write(x=X, y=Y).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.npz: not an npz file"):
        read_npz(tmp_path / "cut.npz")
    place = whole.index(X.tobytes())
    damaged = whole[:place] + b"\xff" + whole[place + 1 :]
    (tmp_path / "damaged.npz").write_bytes(damaged)
    with pytest.raises(InputError, match=r"damaged\.npz: cannot be read as arrays"):
        read_npz(tmp_path / "damaged.npz")
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as file:
        file.writestr("x", "text")
        file.writestr("y", "text")
    with pytest.raises(
        InputError, match=r"other\.npz: x: has no header of a NumPy array"
    ):
        read_npz(tmp_path / "other.npz")
