"""DataFrames as data sets: the same numbers as the CSV file of the frame."""

import re

import numpy as np
import pytest

from ffnlab import data
from ffnlab.data import Dataset
from ffnlab.errors import InputError

pandas = pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    age = rng.integers(20, 60, 80)
    frame = pandas.DataFrame(
        {
            "age": age,
            "height": rng.normal(170, 10, 80),
            "town": rng.choice(["Ulm", "Bonn"], 80),
            "member": rng.random(80) < 0.5,
            "income": pandas.Categorical(np.where(age > 40, "high", "low")),
        }
    )
    frame.loc[3, "height"] = np.nan
    frame.loc[5, "town"] = None
    return frame


def test_a_frame_is_the_same_as_its_csv_file(frame, tmp_path):
    frame.to_csv(tmp_path / "people.csv", index=False)
    for task, target in (("classes", "income"), ("values", "age")):
        ours = Dataset.from_frame(frame, target, seed=2, task=task, name="people")
        file = data.read_csv(tmp_path / "people.csv", target, seed=2, task=task)
        assert data.digest(ours) == data.digest(file) and ours.name == file.name
        assert ours.about["feature_names"] == file.about["feature_names"]
        again = ours.resplit(4), file.resplit(4)
        assert data.digest(again[0]) == data.digest(again[1]) != data.digest(ours)


def test_given_parts_are_kept(frame):
    parts = {"valid": frame[40:60], "test": frame[60:][frame.columns[::-1]]}
    dataset = Dataset.from_frame(frame[:40], "income", **parts)
    assert dataset.resplit is None and dataset.about["split"] == "given"
    sizes = dataset.about["sizes"]
    assert sizes == {"train": 40, "valid": 20, "test": 20}
    names = np.array(dataset.about["class_names"])
    assert names[dataset.test["y"]].tolist() == frame["income"][60:].tolist()
    age = frame["age"].to_numpy()
    clipped = np.clip(age, *np.percentile(age[:40], (0.5, 99.5)))
    expected = (clipped - clipped[:40].mean()) / clipped[:40].std()
    np.testing.assert_allclose(dataset.test["x"][:, 0], expected[60:], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda f: {"frame": f.to_numpy()}, "frame: expected a DataFrame, got ndarray"),
        (lambda f: {"target": "incme"}, "target: unknown 'incme'; nearest: income"),
        (lambda f: {"frame": f[["income"]]}, "frame: only the target column"),
        (lambda f: {"frame": f[:0]}, "frame: no rows"),
        (lambda f: {"frame": f[["age", "age", "income"]]}, "two columns named 'age'"),
        (lambda f: {"task": "class"}, "task: unknown 'class'"),
        (lambda f: {"valid": f}, "valid and test: give both"),
        (
            lambda f: {"valid": f, "test": f.drop(columns="age")},
            "test: no column 'age'",
        ),
        (
            lambda f: {"frame": f[f.income == "low"], "valid": f, "test": f},
            "class 'high' has no example in the training part",
        ),
        (
            lambda f: {"frame": f.assign(income=f.income.where(f.index != 7))},
            "frame:row 7: no target: 'income' is ''",
        ),
        (
            lambda f: {"valid": f.assign(height=np.inf), "test": f},
            "frame:valid row 0: not a finite 32-bit number: 'height' is 'inf'",
        ),
    ],
)
def test_what_cannot_be_a_data_set_is_refused(frame, change, wanted):
    with pytest.raises(InputError, match=re.escape(wanted)):
        Dataset.from_frame(**{"frame": frame, "target": "income", **change(frame)})


def test_dates_and_durations_are_numbers(tmp_path):
    """In days: the features are those of the numbers themselves."""
    days = np.arange(60) * 1.25
    frame = pandas.DataFrame(
        {
            "when": pandas.Timestamp("2024-03-01") + pandas.to_timedelta(days, "D"),
            "long": pandas.to_timedelta(days % 7, "D"),
            "late": days > 40,
        }
    )
    frame.loc[3, "when"] = pandas.NaT
    numbers = frame.assign(when=days, long=days % 7)
    numbers.loc[3, "when"] = np.nan
    dated, plain = (Dataset.from_frame(each, "late") for each in (frame, numbers))
    np.testing.assert_allclose(dated.train["x"], plain.train["x"], atol=1e-4)
    kinds = {name: fact["kind"] for name, fact in dated.about["columns"].items()}
    assert kinds == {"when": "dates (days since 1970)", "long": "numbers"}


def test_rows_that_differ_beyond_the_limits_of_clipping_are_not_repeated():
    x = np.random.default_rng(0).normal(size=200)
    frame = pandas.DataFrame({"x": x, "y": x > 0})
    assert Dataset.from_frame(frame, "y").about["repeated"] == {"valid": 0, "test": 0}
    twice = pandas.concat([frame, frame])
    repeated = Dataset.from_frame(twice, "y").about["repeated"]
    assert min(repeated.values()) > 20
