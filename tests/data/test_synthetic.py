"""Sequences to label: their form, their labels, and the ceilings by enumeration."""

import ast
import itertools
import json
import pathlib
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ffnlab.train.objectives
from ffnlab.data import SEQUENCES, digest, load, posterior, size, synthetic, take, thin
from ffnlab.data.dataset import IGNORE
from ffnlab.errors import InputError

PARTS = ("train", "valid", "test")
DRAWN = {"two_sided_copy": (24, 4), "brackets": (32, 3), "noisy_smoothing": (32, 4)}
SMALL = (30, 20, 20)


@pytest.fixture(scope="module")
def drawn():
    """The drawn data sets at their defaults."""
    return {name: SEQUENCES[name]() for name in DRAWN}


@pytest.mark.parametrize("name", DRAWN)
def test_drawn_sequences_have_the_documented_form(name, drawn):
    data, (length, classes) = drawn[name], DRAWN[name]
    assert (data.name, data.task, data.features) == (name, "classes", 1)
    assert data.classes == classes
    assert data.about["sizes"] == {"train": 2000, "valid": 400, "test": 1000}
    for part in PARTS:
        split = getattr(data, part)
        x = split.get("x/tokens", split.get("x/values"))
        mask, y = split["x/mask"], split["y"]
        assert size(split) == data.about["sizes"][part]
        assert x.shape[:2] == mask.shape == y.shape == (size(split), length)
        assert (mask.dtype, y.dtype) == (bool, np.int32)
        assert set(y[mask]) == set(range(classes))
        assert (y[~mask] == IGNORE).all() and (x[~mask] == 0).all()
        assert set(mask.sum(axis=1)) == set(range(length // 2, length + 1))
        assert (mask == (np.arange(length) < mask.sum(axis=1, keepdims=True))).all()
        if "x/tokens" in split:
            assert x.dtype == np.int32
            assert set(np.unique(x)) == set(range(data.about["vocabulary"]))
        else:
            assert (x.dtype, x.shape[2]) == (np.float32, 1)
            assert "vocabulary" not in data.about
    assert data.about["per"] == "position"
    json.dumps(data.about, allow_nan=False)


@pytest.mark.parametrize("name", DRAWN)
def test_draws_depend_on_the_seed_and_the_parts_are_their_own(name):
    one, again = SEQUENCES[name](5, sizes=SMALL), SEQUENCES[name](5, sizes=SMALL)
    assert digest(one) == digest(again)
    assert digest(one) != digest(SEQUENCES[name](6, sizes=SMALL))
    assert (one.valid["y"] != one.test["y"]).any()
    more = SEQUENCES[name](5, sizes=(90, 20, 20))
    np.testing.assert_array_equal(one.test["y"], more.test["y"])
    SEQUENCES[name](-1, sizes=SMALL)


def test_the_label_that_counts_nowhere_is_that_of_the_losses():
    assert IGNORE == ffnlab.train.objectives.IGNORE


def test_the_names_are_a_literal_that_needs_no_import():
    tree = ast.parse(pathlib.Path(synthetic.__file__).read_text(encoding="utf-8"))
    literal = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and getattr(node.targets[0], "id", None) == "SEQUENCES"
    )
    assert [key.value for key in literal.keys] == list(SEQUENCES)


@pytest.mark.parametrize("distance", [1, 3, 8])
def test_copies_are_of_both_neighbours(distance):
    data = synthetic.two_sided_copy(length=9, distance=distance, sizes=SMALL)
    for part in PARTS:
        split = getattr(data, part)
        for row, mask, y in zip(*split.values(), strict=True):
            row = row[mask].tolist()
            before = [0] * distance + row
            after = row[distance:] + [0] * distance
            expected = [2 * before[t] + after[t] for t in range(len(row))]
            assert y[mask].tolist() == expected


def bracket_labels(tokens):
    """0 at fillers, 1 at matched brackets, 2 at the others, by a stack."""
    labels, stack = [2 if token else 0 for token in tokens], []
    for t, token in enumerate(tokens):
        if token == 1:
            stack.append(t)
        elif token == 2 and stack:
            labels[t] = labels[stack.pop()] = 1
    return labels


def test_brackets_are_matched_as_by_a_stack():
    data = synthetic.brackets(length=15, sizes=(200, 1, 1))
    for row, mask, y in zip(*data.train.values(), strict=True):
        assert y[mask].tolist() == bracket_labels(row[mask].tolist())


def from_the_left(length, tokens, chances, label):
    """How the label at t is distributed given what came until t, by enumeration.

    Args:
      length: the longest sequence.
      tokens: the tokens there are.
      chances: of each token.
      label: `label(sequence) -> labels`.

    Returns:
      {tokens until t: {label: weight}}.
    """
    found = defaultdict(lambda: defaultdict(float))
    lengths = range((length + 1) // 2, length + 1)
    for count in lengths:
        for sequence in itertools.product(tokens, repeat=count):
            weight = np.prod([chances[token] for token in sequence]) / len(lengths)
            for t, y in enumerate(label(sequence)):
                found[sequence[: t + 1]][y] += weight
    return found


@pytest.mark.parametrize(("length", "distance"), [(6, 1), (6, 2), (7, 4), (7, 6)])
def test_the_one_sided_ceiling_of_copies_is_that_of_enumeration(length, distance):
    def label(bits):
        padded = [0] * distance + list(bits) + [0] * distance
        return [2 * padded[t] + padded[t + 2 * distance] for t in range(len(bits))]

    expected = synthetic._copied(length, distance)
    for seen, weights in from_the_left(length, (0, 1), (0.5, 0.5), label).items():
        best = max(weights.values()) / sum(weights.values())
        np.testing.assert_allclose(best, expected[len(seen) - 1], rtol=1e-12)


@pytest.mark.parametrize("length", [2, 5, 8])
def test_the_chance_that_a_bracket_is_matched_is_that_of_enumeration(length):
    chances = synthetic._SHARES
    expected = synthetic._matching_chance(length)
    assert expected[-1] == 0
    for seen, weights in from_the_left(
        length, (0, 1, 2), chances, bracket_labels
    ).items():
        if seen[-1] == 1:
            found = weights[1] / sum(weights.values())
            np.testing.assert_allclose(found, expected[len(seen) - 1], atol=1e-12)
        else:  # certain from the left, as the ceiling takes it to be
            assert len(weights) == 1


def test_the_ceiling_of_copies_is_what_guessing_0_scores(drawn):
    data = drawn["two_sided_copy"]
    test = data.test
    known = np.pad(test["x/tokens"], ((0, 0), (3, 0)))[:, :24]
    right = (test["y"] == 2 * known)[test["x/mask"]]
    assert data.about["ceiling"]["two_sided"] == 1
    error = 4 * np.sqrt(0.25 / right.size)
    assert abs(data.about["ceiling"]["one_sided"] - right.mean()) < error


def test_the_ceiling_of_brackets_is_what_the_best_rule_by_place_scores(drawn):
    """The rule is found from the training part, place by place."""
    data = drawn["brackets"]
    assert data.about["ceiling"]["two_sided"] == 1
    train, test = data.train, data.test
    right = test["x/tokens"][test["x/mask"]].size - (test["x/tokens"] == 1).sum()
    for t in range(32):
        seen = train["y"][train["x/tokens"][:, t] == 1, t]
        true = test["y"][test["x/tokens"][:, t] == 1, t]
        right += (true == (1 if (seen == 1).mean() > 0.5 else 2)).sum()
    share = right / test["x/mask"].sum()
    assert abs(data.about["ceiling"]["one_sided"] - share) < 0.005
    counts = np.bincount(test["y"][test["x/mask"]], minlength=3) / test["x/mask"].sum()
    assert counts.min() > 0.15


def test_chains_stay_and_are_seen_through_noise_as_asked():
    data = synthetic.noisy_smoothing(
        3, length=20, states=3, stay=0.7, noise=0.5, sizes=(4000, 1, 1)
    )
    y, mask = data.train["y"], data.train["x/mask"]
    residual = data.train["x/values"][..., 0] - (y - 1)
    assert abs(residual[mask].mean()) < 0.01 and abs(residual[mask].std() - 0.5) < 0.01
    both = mask[:, 1:]
    before, after = y[:, :-1][both], y[:, 1:][both]
    moves = np.array(
        [[(after[before == i] == j).mean() for j in range(3)] for i in range(3)]
    )
    expected = np.full((3, 3), 0.15) + 0.55 * np.eye(3)
    np.testing.assert_allclose(moves, expected, atol=0.015)
    np.testing.assert_allclose(np.bincount(y[:, 0]) / 4000, 1 / 3, atol=0.03)


def enumerated(values, mask, states, stay, noise, until):
    """The chances of each state at each position, [T, K], by all paths there are.

    Args:
      values: [T].
      mask: [T].
      until: for each position, one past the last value it is given.
    """
    length = len(values)
    chances = np.zeros((length, states))
    for path in itertools.product(range(states), repeat=length):
        weight = 1 / states
        for one, other in itertools.pairwise(path):
            weight *= stay if one == other else (1 - stay) / (states - 1)
        for t in range(length):
            seen = weight
            for s in range(until[t]):
                if mask[s]:
                    away = values[s] - (path[s] - (states - 1) / 2)
                    seen *= np.exp(-0.5 * (away / noise) ** 2)
            chances[t, path[t]] += seen
    return chances / chances.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("smooth", [True, False])
def test_the_posterior_is_that_of_all_paths(smooth):
    values = np.random.default_rng(0).normal(size=(3, 5, 1)) * 1.5
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 1, 1, 0]], bool)
    found = posterior(values, mask, states=3, stay=0.6, noise=0.8, smooth=smooth)
    assert (found.dtype, found.shape) == (np.float64, (3, 5, 3))
    for row in range(3):
        until = [5] * 5 if smooth else range(1, 6)
        expected = enumerated(values[row, :, 0], mask[row], 3, 0.6, 0.8, until)
        np.testing.assert_allclose(found[row], expected, rtol=1e-10)


def test_filtering_reads_nothing_that_comes_later(drawn):
    values, mask = (
        drawn["noisy_smoothing"].test[k][:50] for k in ("x/values", "x/mask")
    )
    other = values.copy()
    other[:, 10:] += 3
    chain = (4, 0.8, 1.0)
    before, after = (posterior(v, mask, *chain, False) for v in (values, other))
    np.testing.assert_array_equal(before[:, :10], after[:, :10])
    assert (before[:, 10] != after[:, 10]).any()
    smooth = posterior(values, mask, *chain, True)
    assert (smooth[:, :10] != posterior(other, mask, *chain, True)[:, :10]).any()
    last = mask.sum(axis=1) - 1
    rows = np.arange(50)
    np.testing.assert_allclose(before[rows, last], smooth[rows, last], rtol=1e-9)


def test_little_noise_and_long_sequences_leave_the_posterior_finite():
    values = np.linspace(-40, 40, 3000).reshape(1, 3000, 1)
    found = posterior(values, np.ones((1, 3000), bool), 4, 0.999999, 1e-3, True)
    assert np.isfinite(found).all()
    assert (found[0, 0].argmax(), found[0, -1].argmax()) == (0, 3)


def test_the_ceilings_of_smoothing_are_what_the_posterior_expects(drawn):
    """The expected accuracy of a calibrated guess is its own mean chance."""
    data = drawn["noisy_smoothing"]
    mask, ceiling = data.test["x/mask"], data.about["ceiling"]
    for side, smooth in (("two_sided", True), ("one_sided", False)):
        found = posterior(data.test["x/values"], mask, 4, 0.8, 1.0, smooth)
        expected = found.max(axis=-1)[mask].mean()
        # Neighbouring errors go together: count every fourth position as one.
        error = 4 * np.sqrt(0.25 / (mask.sum() / 4))
        assert abs(ceiling[side] - expected) < error
    assert ceiling["two_sided"] > ceiling["one_sided"] + 0.03


def test_rows_of_digits_are_the_digits():
    rows, whole = SEQUENCES["digit_rows"](2), load("digits", 2)
    assert (rows.name, rows.features, rows.classes) == ("digit_rows", 8, 10)
    for part in PARTS:
        split, flat = getattr(rows, part), getattr(whole, part)
        assert split["x/values"].shape == (size(flat), 8, 8)
        np.testing.assert_array_equal(split["x/values"].reshape(-1, 64), flat["x"])
        np.testing.assert_array_equal(split["y"], flat["y"])
        assert split["x/mask"].shape == (size(flat), 8) and split["x/mask"].all()
    assert rows.about["per"] == "sequence"
    assert rows.about["sizes"] == whole.about["sizes"]
    assert not {"ceiling", "vocabulary", "feature_names"} & rows.about.keys()
    json.dumps(rows.about, allow_nan=False)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
@pytest.mark.parametrize("name", ["two_sided_copy", "noisy_smoothing"])
def test_take_nests_names_with_a_slash_in_numpy_and_inside_jit(name, shape, drawn):
    split = drawn[name].valid
    index = np.random.default_rng(0).integers(0, size(split), shape)
    expected = take(split, index)
    kind = "tokens" if "x/tokens" in split else "values"
    assert set(expected) == {"x", "y"} and set(expected["x"]) == {kind, "mask"}
    np.testing.assert_array_equal(expected["x"]["mask"], split["x/mask"][index])
    np.testing.assert_array_equal(expected["x"][kind], split[f"x/{kind}"][index])
    np.testing.assert_array_equal(expected["y"], split["y"][index])
    found = jax.jit(take)(jax.tree.map(jnp.asarray, split), jnp.asarray(index))
    jax.tree.map(np.testing.assert_array_equal, dict(found), expected)


def test_thinning_and_digests_reach_every_array(drawn):
    split = drawn["brackets"].valid
    thinned = thin(split, 3)
    assert {name: array.shape for name, array in thinned.items()} == {
        "x/tokens": (3, 32),
        "x/mask": (3, 32),
        "y": (3, 32),
    }
    np.testing.assert_array_equal(thinned["x/mask"][2], split["x/mask"][-1])
    data = synthetic.brackets(sizes=SMALL)
    before = digest(data)
    data.test["x/mask"][0, 0] = False
    assert digest(data) != before


BAD = {
    "length": ({"length": 1}, "length: expected at least 2 positions, got 1"),
    "two sizes": ({"sizes": (5, 5)}, "sizes: expected 3 counts, of train, valid and"),
    "no test": ({"sizes": (5, 5, 0)}, r"sizes: .* each at least 1, got \(5, 5, 0\)"),
}


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("case", BAD)
def test_arguments_out_of_range_are_refused(name, case):
    arguments, message = BAD[case]
    with pytest.raises(InputError, match=message):
        SEQUENCES[name](**arguments)


@pytest.mark.parametrize("distance", [0, -1, 24])
def test_a_distance_beyond_the_sequence_is_refused(distance):
    with pytest.raises(InputError, match=f"expected 1 to 23, .* got {distance}$"):
        synthetic.two_sided_copy(distance=distance)


@pytest.mark.parametrize(
    ("name", "value"),
    [("states", 1), ("stay", 0), ("stay", 1.0), ("noise", 0), ("noise", np.inf)],
)
def test_chains_that_are_none_are_refused(name, value):
    with pytest.raises(InputError, match=f"^{name}: expected .* got {value}$"):
        synthetic.noisy_smoothing(**{name: value})
    chain = {"states": 2, "stay": 0.5, "noise": 1.0, name: value}
    with pytest.raises(InputError, match=f"^{name}: expected .* got {value}$"):
        posterior(np.zeros((1, 2, 1)), np.ones((1, 2), bool), smooth=True, **chain)
