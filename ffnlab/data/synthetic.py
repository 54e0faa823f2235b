"""Sequence labelling tasks, most of them with a known best accuracy.

Three tasks are drawn from a known process, so that `about["ceiling"]` holds the best
accuracy that a model can be expected to reach on the test part: `two_sided` with input
from the whole sequence, `one_sided` if position t has input from positions 0 to t only,
and therefore does not know the length. Lengths are uniform from half of `length`,
rounded up, to `length`.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ffnlab.data.builtin import digits
from ffnlab.data.dataset import IGNORE, Arrays, Dataset
from ffnlab.data.hidden_chain import check_chain, levels, posterior
from ffnlab.errors import InputError

SIZES = (2000, 400, 1000)  # sequences of train, valid and test
DRAWN = "drawn at random"  # about["source"] of the tasks of a known process

_FILLER, _OPENER, _CLOSER = 0, 1, 2
_SHARES = (0.2, 0.4, 0.4)  # probabilities; nearly two brackets in three are matched


def two_sided_copy(
    seed: int = 0,
    length: int = 24,
    distance: int = 3,
    sizes: tuple[int, int, int] = SIZES,
) -> Dataset:
    """Draws bits that are labelled by the bits `distance` before and after them.

    The label at t is 2 x[t - distance] + x[t + distance]; bits outside of the sequence
    are 0. All bits are independent, 0 or 1 with equal probability.

    Args:
      seed: The seed of the draws, any integer.
      length: The length T of the longest sequence, at least 2.
      distance: The distance of the two bits, from 1 to T - 1.
      sizes: The number of sequences of train, valid and test, at least 1 each.

    Returns:
      The data set, with 4 classes: x/tokens int32 [N, T], x/mask bool [N, T] and y
      int32 [N, T]. The two-sided ceiling is 1. From the left, the best guess for the
      bit after t is 0, because it is 1 with half the probability that the sequence is
      long enough; the one-sided ceiling is the expected accuracy of that guess, over
      the positions of the test part.

    Raises:
      InputError: An argument is out of its range.

    Source: drawn here; for what one direction misses, Schuster and Paliwal 1997,
    "Bidirectional Recurrent Neural Networks".

    >>> data = two_sided_copy(length=6, distance=1, sizes=(8, 4, 4))
    >>> bits, labels = data.train["x/tokens"], data.train["y"]
    >>> bool((labels[:, 1] == 2 * bits[:, 0] + bits[:, 2]).all())
    True
    """
    _check(length, sizes)
    if not 1 <= distance < length:
        what = f"expected 1 to {length - 1}, below the length, got {distance}"
        raise InputError(f"two_sided_copy: distance: {what}")

    def draw(random: np.random.Generator, count: int) -> Arrays:
        mask = _mask(random, count, length)
        bits = np.where(mask, random.integers(0, 2, mask.shape), 0)  # [N, T]
        wide = np.pad(bits, ((0, 0), (distance, distance)))  # [N, T + 2 distance]
        labels = 2 * wide[:, :length] + wide[:, 2 * distance :]  # [N, T]
        return _split("tokens", bits, mask, labels)

    splits = _parts(seed, sizes, draw)
    right = np.broadcast_to(_copied(length, distance), splits["test"]["y"].shape)
    return _positions(
        "two_sided_copy",
        splits,
        classes=4,
        one_sided=right[splits["test"]["x/mask"]].mean(),
        about={"seed": seed, "length": length, "distance": distance, "vocabulary": 2},
    )


def brackets(
    seed: int = 0, length: int = 32, sizes: tuple[int, int, int] = SIZES
) -> Dataset:
    """Draws brackets that are labelled as matched or not.

    Tokens are independent: 0, a filler, with probability 0.2; 1, an opening bracket,
    and 2, a closing one, with 0.4 each. The label is 0 for a filler, 1 for a matched
    bracket and 2 for one without a partner.

    Args:
      seed: The seed of the draws, any integer.
      length: The length T of the longest sequence, at least 2.
      sizes: The number of sequences of train, valid and test, at least 1 each.

    Returns:
      The data set, with 3 classes: x/tokens int32 [N, T], x/mask bool [N, T] and y
      int32 [N, T]. The two-sided ceiling is 1. From the left, fillers and closing
      brackets are certain; an opening one at t is matched if the walk after it goes
      below its start before the end, with a probability that depends on t alone. The
      one-sided ceiling is the accuracy of the likelier answer on the test part.

    Raises:
      InputError: An argument is out of its range.

    Source: drawn here; for when a walk first passes a level, Feller 1968, "An
    Introduction to Probability Theory and Its Applications", volume 1, chapter XIV.

    >>> data = brackets()
    >>> first = data.train["x/tokens"][:, 0], data.train["y"][:, 0]
    >>> sorted({(int(token), int(label)) for token, label in zip(*first)})
    [(0, 0), (1, 1), (1, 2), (2, 2)]
    """
    _check(length, sizes)

    def draw(random: np.random.Generator, count: int) -> Arrays:
        mask = _mask(random, count, length)
        tokens = random.choice(len(_SHARES), mask.shape, p=_SHARES)  # [N, T]
        tokens = np.where(mask, tokens, _FILLER)
        return _split("tokens", tokens, mask, _bracket_labels(tokens))

    splits = _parts(seed, sizes, draw)
    test = splits["test"]
    guess = np.where(_matching_chance(length) > 0.5, 1, 2)  # [T]
    right = (test["x/tokens"] != _OPENER) | (test["y"] == guess)  # [N, T]
    return _positions(
        "brackets",
        splits,
        classes=3,
        one_sided=right[test["x/mask"]].mean(),
        about={"seed": seed, "length": length, "vocabulary": len(_SHARES)},
    )


def noisy_smoothing(
    seed: int = 0,
    length: int = 32,
    states: int = 4,
    stay: float = 0.8,
    noise: float = 1.0,
    sizes: tuple[int, int, int] = SIZES,
) -> Dataset:
    """Draws noisy observations of a Markov chain, whose state is the label.

    The chain begins in a uniform state of K, stays with probability `stay` and
    otherwise moves to a uniform other state. The observation of state k is
    k - (K - 1) / 2 plus Gaussian noise.

    Args:
      seed: The seed of the draws, any integer.
      length: The length T of the longest sequence, at least 2.
      states: K, at least 2.
      stay: The probability to stay, above 0 and below 1.
      noise: The standard deviation of the noise, above 0; states are 1 apart.
      sizes: The number of sequences of train, valid and test, at least 1 each.

    Returns:
      The data set, with K classes: x/values float32 [N, T, 1], x/mask bool [N, T] and y
      int32 [N, T]. The ceilings are the accuracy of the likeliest state on the test
      part, by `posterior` given the whole sequence, or the values until t.

    Raises:
      InputError: An argument is out of its range.

    Source: Rabiner 1989, "A Tutorial on Hidden Markov Models and Selected Applications
    in Speech Recognition", section III.

    >>> data = noisy_smoothing(sizes=(8, 4, 200))
    >>> data.about["ceiling"]["two_sided"] > data.about["ceiling"]["one_sided"]
    True
    """
    _check(length, sizes)
    check_chain(states, stay, noise)

    def draw(random: np.random.Generator, count: int) -> Arrays:
        mask = _mask(random, count, length)
        moves = random.integers(1, states, mask.shape)  # [N, T]
        moves *= random.random(mask.shape) >= stay
        moves[:, 0] = random.integers(0, states, count)
        chain = moves.cumsum(axis=1) % states  # [N, T]
        values = levels(states)[chain] + noise * random.normal(size=mask.shape)
        return _split("values", np.where(mask, values, 0)[..., None], mask, chain)

    splits = _parts(seed, sizes, draw)
    test, right = splits["test"], {}
    seen = test["x/values"], test["x/mask"], states, stay, noise
    for side, smooth in (("two_sided", True), ("one_sided", False)):
        likeliest = posterior(*seen, smooth).argmax(axis=-1)  # [N, T]
        right[side] = (likeliest == test["y"])[test["x/mask"]].mean()
    about = dict(seed=seed, length=length, states=states, stay=stay, noise=noise)
    return _positions("noisy_smoothing", splits, states, about=about, **right)


def digit_rows(seed: int = 0) -> Dataset:
    """Loads the handwritten digits of `digits` as sequences of pixel rows.

    Args:
      seed: The seed of the 60/20/20 split, class by class; any integer.

    Returns:
      The data set, with 10 classes: x/values float32 [N, 8, 8], where position t is row
      t from the top, x/mask bool [N, 8], all True, and y int32 [N], the class of the
      image. The best accuracy is not known, so there is no ceiling.

    Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI.

    >>> data = digit_rows()
    >>> data.train["x/values"].shape, data.about["per"]
    ((1079, 8, 8), 'sequence')
    """
    dataset = digits(seed)
    splits = {}
    for part in ("train", "valid", "test"):
        x, y = getattr(dataset, part)["x"], getattr(dataset, part)["y"]
        mask = np.ones((len(y), 8), bool)
        splits[part] = {"x/values": x.reshape(-1, 8, 8), "x/mask": mask, "y": y}
    about = {**dataset.about, "per": "sequence"}
    del about["feature_names"]  # of the pixels
    return replace(dataset, name="digit_rows", **splits, features=8, about=about)


# A literal dict: its keys are read from the source, without an import.
SEQUENCES = {
    "two_sided_copy": two_sided_copy,
    "brackets": brackets,
    "noisy_smoothing": noisy_smoothing,
    "digit_rows": digit_rows,
}


def _check(length: int, sizes: tuple[int, int, int]) -> None:
    """Raises if the length or a size is out of range."""
    if length < 2:
        raise InputError(f"length: expected at least 2 positions, got {length}")
    if len(sizes) != 3 or min(sizes) < 1:
        what = "expected 3 counts, of train, valid and test, each at least 1"
        raise InputError(f"sizes: {what}, got {tuple(sizes)}")


def _lengths(length: int) -> np.ndarray:
    """Returns the possible lengths of a sequence, equally likely, ascending."""
    return np.arange((length + 1) // 2, length + 1)


def _mask(random: np.random.Generator, count: int, length: int) -> np.ndarray:
    """Returns the mask of sequences of random lengths, bool [N, T]."""
    return np.arange(length) < random.choice(_lengths(length), (count, 1))


def _parts(
    seed: int, sizes: tuple[int, int, int], draw: Callable[..., Arrays]
) -> dict[str, Arrays]:
    """Returns the parts, each drawn from its own stream, independent of the others."""
    streams = np.random.default_rng(seed % 2**64).spawn(3)
    parts = zip(("train", "valid", "test"), streams, sizes, strict=True)
    return {part: draw(random, count) for part, random, count in parts}


def _split(kind: str, x: np.ndarray, mask: np.ndarray, labels: np.ndarray) -> Arrays:
    """Returns a part with its dtypes, and labels at the positions of the mask."""
    return {
        f"x/{kind}": x.astype(np.int32 if kind == "tokens" else np.float32),
        "x/mask": mask,
        "y": np.where(mask, labels, IGNORE).astype(np.int32),
    }


def _positions(
    name: str,
    splits: dict[str, Arrays],
    classes: int,
    one_sided: float,
    about: dict,
    two_sided: float = 1.0,
) -> Dataset:
    """Returns the data set of drawn parts, with a label per position."""
    about = {
        "source": DRAWN,
        **about,
        "per": "position",
        "sizes": {part: len(split["y"]) for part, split in splits.items()},
        "ceiling": {"two_sided": float(two_sided), "one_sided": float(one_sided)},
    }
    return Dataset(
        name, **splits, task="classes", features=1, classes=classes, about=about
    )


def _copied(length: int, distance: int) -> np.ndarray:
    """Returns the probability that the bit `distance` after t is 0, float64 [T].

    That bit is 1 with probability P(length > t + distance | length > t) / 2.
    """
    longer = _lengths(length)[:, None] > np.arange(length + distance)
    reached = longer.mean(axis=0)  # P(length > t), [T + distance]
    return 1 - reached[distance:] / reached[:length] / 2


def _bracket_labels(tokens: np.ndarray) -> np.ndarray:
    """Returns 0 at fillers, 1 at matched brackets, 2 at the others, [N, T]."""
    opens, closes = tokens == _OPENER, tokens == _CLOSER
    backwards = _closed(closes[:, ::-1], opens[:, ::-1])[:, ::-1]
    matched = _closed(opens, closes) | backwards
    return np.where(matched, 1, 2 * (opens | closes))


def _closed(opens: np.ndarray, closes: np.ndarray) -> np.ndarray:
    """Returns whether a closing bracket closes an open one, bool [N, T]."""
    depth, matched = np.zeros(len(opens), int), np.zeros_like(closes)  # [N], [N, T]
    for t in range(opens.shape[1]):
        matched[:, t] = closes[:, t] & (depth > 0)
        depth += opens[:, t].astype(int) - matched[:, t]
    return matched


def _matching_chance(length: int) -> np.ndarray:
    """Returns the probability that an opening bracket at t is matched, float64 [T]."""
    filler, opener, closer = _SHARES
    # passed[h]: the probability to get below 0 from height h - 1 within m steps; 0 in
    # the last entry, which is too high.
    passed = np.eye(1, length + 2)[0]
    within = [passed[1]]  # from height 0, for m = 0, 1, ...
    for _ in range(length):
        passed[1:-1] = (
            closer * passed[:-2] + filler * passed[1:-1] + opener * passed[2:]
        )
        within.append(passed[1])
    within, lengths = np.array(within), _lengths(length)
    left = [lengths[lengths > t] - t - 1 for t in range(length)]  # steps after t
    return np.array([within[steps].mean() for steps in left])
