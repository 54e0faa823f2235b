"""Replicates against the data sets that they are made of."""

import dataclasses

import chex
import numpy as np
import pytest

from ffnlab import data
from ffnlab.data import Dataset
from ffnlab.data.replicates import PARTS
from ffnlab.errors import InputError


def toy(seed, rows=12, classes=2, names=None):
    rng = np.random.default_rng(seed)
    part = {
        "x": rng.normal(size=(rows, 3)).astype(np.float32),
        "y": rng.integers(0, classes, rows).astype(np.int32),
    }
    about = {"feature_names": names} if names else {}
    return Dataset("toy", part, part, part, "classes", 3, classes, about)


@pytest.mark.parametrize("name", ["digits", "wine", "mnist1d"])
def test_every_replicate_is_the_data_set_of_its_seed(name):
    """Rows of pixels, which need no preparation, are shared; standardised are not."""
    seeds = (5, 6, 5)
    replicates = data.replicate(data.DATASETS[name], seeds)
    for number, seed in enumerate(seeds):
        expected, one = data.load(name, seed), replicates.dataset(number)
        for part in PARTS:
            chex.assert_trees_all_equal(getattr(one, part), getattr(expected, part))
            assert replicates.rows[part].dtype == np.int32
        assert (one.name, one.task, one.features, one.classes) == (
            expected.name, expected.task, expected.features, expected.classes
        )  # fmt: skip
    assert replicates.seeds == seeds and replicates.about["replicates"] == 3
    everything = sum(data.load(name).about["sizes"].values())
    assert (len(replicates.train["y"]) <= everything) == (name == "digits")


@pytest.mark.parametrize("name", data.SEQUENCES)
def test_sequences_are_drawn_or_split_anew(name):
    """More replicates begin with the same ones, and all of them pose one problem."""
    load, seeds = data.SEQUENCES[name], data.replicate_seeds(3, 3)
    replicates = data.replicate(load, seeds)
    for number, seed in enumerate(seeds):
        expected, one = load(seed), replicates.dataset(number)
        assert data.digest(one) == data.digest(expected)
        assert (one.classes, one.features) == (expected.classes, expected.features)
        for fact in ("vocabulary", "per", "sizes"):
            assert one.about.get(fact) == expected.about.get(fact)
    tests = [replicates.examples("test", number)["y"] for number in range(3)]
    assert (tests[0] != tests[1]).any() and (tests[1] != tests[2]).any()
    fewer = data.replicate(load, seeds[:2])
    for number in range(2):
        again = fewer.dataset(number)
        assert data.digest(again) == data.digest(replicates.dataset(number))
    assert "seed" not in replicates.about


@pytest.mark.parametrize("name", ["two_sided_copy", "brackets", "noisy_smoothing"])
def test_the_ceiling_is_the_mean_over_replicates(name):
    load, seeds = data.SEQUENCES[name], (1, 2, 3)
    ceilings = [load(seed).about["ceiling"] for seed in seeds]
    for side, mean in data.replicate(load, seeds).about["ceiling"].items():
        np.testing.assert_allclose(mean, np.mean([each[side] for each in ceilings]))
    assert len({each["one_sided"] for each in ceilings}) == 3


def test_texts_are_those_of_every_seed():
    seeds = (0, 1)
    replicates = data.replicate(data.help_topics, seeds)
    for number, seed in enumerate(seeds):
        one, expected = replicates.dataset(number), data.help_topics(seed)
        for part in PARTS:
            ours, theirs = getattr(one, part), getattr(expected, part)
            index = np.arange(data.size(theirs))[::97]
            chex.assert_trees_all_equal(
                data.take(ours, index), data.take(theirs, index)
            )
            assert data.size(ours) == data.size(theirs)


def test_rows_that_differ_in_one_array_alone_are_two():
    def load(seed):
        one = toy(0)
        part = one.train | {"y": np.full_like(one.train["y"], seed)}
        return dataclasses.replace(one, train=part, valid=part, test=part)

    replicates = data.replicate(load, (0, 1, 0))
    for number, seed in enumerate((0, 1, 0)):
        assert (replicates.examples("test", number)["y"] == seed).all()


def test_features_that_a_split_lacks_are_zero_there():
    names = {0: ["a", "b", "c"], 1: ["c", "d", "a"]}
    replicates = data.replicate(lambda seed: toy(seed, names=names[seed]), (0, 1))
    assert replicates.features == 4
    assert replicates.about["feature_names"] == ["a", "b", "c", "d"]
    first, second = (replicates.examples("valid", number)["x"] for number in (0, 1))
    np.testing.assert_array_equal(first[:, :3], toy(0).train["x"])
    np.testing.assert_array_equal(second[:, [2, 3, 0]], toy(1).train["x"])
    assert (first[:, 3] == 0).all() and (second[:, 1] == 0).all()


def test_seeds_of_replicates_differ_and_go_on():
    first, second = data.replicate_seeds(0, 200), data.replicate_seeds(1, 200)
    assert len({*first, *second}) == 400
    assert data.replicate_seeds(0, 7) == first[:7]
    assert all(0 <= seed < 2**31 for seed in first)


def test_the_digest_depends_on_every_part_and_split():
    def digest(load, seeds):
        return data.digest_replicates(data.replicate(load, seeds))

    whole = digest(data.wine, (0, 1))
    assert whole == digest(data.wine, (0, 1))
    assert len({whole, digest(data.wine, (1, 0)), digest(data.wine, (0, 2))}) == 3
    replicates = data.replicate(data.wine, (0, 1))
    replicates.test["y"][3] += 1
    assert data.digest_replicates(replicates) != whole


def test_replicates_must_be_alike():
    with pytest.raises(InputError, match="parts of \\[5, 12\\] rows"):
        data.replicate(lambda seed: toy(seed, rows=12 - 7 * seed), (0, 1))
    with pytest.raises(InputError, match="3 classes, another has 2"):
        data.replicate(lambda seed: toy(seed, classes=2 + seed), (0, 1))
