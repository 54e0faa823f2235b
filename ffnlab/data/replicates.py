"""Replicates: a data set that is split, or drawn, anew for each of several runs."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from ffnlab.data.dataset import Arrays, Dataset, digest, size
from ffnlab.errors import InputError

PARTS = ("train", "valid", "test")


@dataclasses.dataclass(frozen=True)
class Replicates:
    """The splits of a data set, over a pool of rows for each part.

    The rows of a part that several replicates share are held once, so that splits of
    features that need no preparation take no more memory than one.

    Attributes:
      name: See `Dataset`, as for `task`, `features`, `classes` and `about`.
      train: The rows that are in the training part of any replicate, as a part of
        `Dataset`. Every statistic that prepared them is of one training part alone.
      valid: The same for the validation parts.
      test: The same for the test parts.
      rows: For each part the rows of the pool of every replicate, int32 `[R, N]`.
      seeds: The seeds of the replicates, R integers.
      about: The facts of the first replicate, except those of its split alone; a
        `ceiling` is the mean over replicates.
    """

    name: str
    train: Arrays
    valid: Arrays
    test: Arrays
    rows: dict[str, np.ndarray]
    seeds: tuple[int, ...]
    task: str
    features: int
    classes: int
    about: dict

    def examples(self, part: str, replicate: int) -> Arrays:
        """Returns the examples of a part of one replicate."""
        pool, rows = getattr(self, part), self.rows[part][replicate]
        if "ends" in pool:
            return pool | {"ends": pool["ends"][rows]}
        return {name: array[rows] for name, array in pool.items()}

    def dataset(self, replicate: int) -> Dataset:
        """Returns one replicate as a data set of its own."""
        parts = {part: self.examples(part, replicate) for part in PARTS}
        facts = (self.task, self.features, self.classes, self.about)
        return Dataset(self.name, *parts.values(), *facts)


def replicate_seeds(seed: int, count: int) -> tuple[int, ...]:
    """Returns a seed for each replicate of an experiment.

    Args:
      seed: The seed of the experiment, at least 0.
      count: The number of replicates. More of them begin with the same seeds.

    Returns:
      Integers in `range(2**31)`.

    >>> replicate_seeds(0, 3)[:2] == replicate_seeds(0, 2) != replicate_seeds(1, 2)
    True
    """
    streams = (np.random.SeedSequence([seed, number]) for number in range(count))
    return tuple(int(stream.generate_state(1)[0] >> 1) for stream in streams)


def replicate(load: Callable[[int], Dataset], seeds: Sequence[int]) -> Replicates:
    """Returns the replicates of a data set.

    Args:
      load: `load(seed)` returns the data set, split or drawn by a seed.
      seeds: The seeds of the replicates, at least one.

    Raises:
      InputError: The replicates differ in their sizes or classes.

    >>> from ffnlab import data
    >>> wine = replicate(data.wine, seeds=[3, 4])
    >>> wine.rows["train"].shape, wine.dataset(1).train["x"].shape
    ((2, 106), (106, 13))
    """
    loaded = _aligned([load(seed) for seed in seeds])
    first, pools, rows = loaded[0], {}, {}
    for part in PARTS:
        pools[part], rows[part] = _pool([getattr(one, part) for one in loaded])
    _check_alike(loaded)
    return Replicates(
        first.name,
        **pools,
        rows=rows,
        seeds=tuple(map(int, seeds)),
        task=first.task,
        features=first.features,
        classes=first.classes,
        about={**_shared([one.about for one in loaded]), "replicates": len(loaded)},
    )


def _shared(abouts: Sequence[dict]) -> dict:
    """Returns the facts that are not those of one split alone."""
    own = ("seed", "repeated", "split")
    facts = {k: v for k, v in abouts[0].items() if k not in own}
    if "ceiling" in facts:
        facts["ceiling"] = {
            side: float(np.mean([about["ceiling"][side] for about in abouts]))
            for side in facts["ceiling"]
        }
    if dropped := _dropped(abouts):
        facts["columns_without_features"] = dropped
    return facts


def _dropped(abouts: Sequence[dict]) -> dict[str, str]:
    """Returns the columns that gave no feature in some splits, and why in the first."""
    found: dict[str, list[str]] = {}
    for about in abouts:
        for name, reason in about.get("columns_without_features", {}).items():
            found.setdefault(name, []).append(reason)
    return {
        name: reasons[0]
        if len(reasons) == len(abouts)
        else f"{reasons[0]}, in {len(reasons)} of {len(abouts)} splits"
        for name, reasons in found.items()
    }


def digest_any(dataset: Dataset | Replicates) -> str:
    """Returns the SHA-256 of a data set, or of all its replicates, in hexadecimal."""
    if isinstance(dataset, Replicates):
        return digest_replicates(dataset)
    return digest(dataset)


def digest_replicates(replicates: Replicates) -> str:
    """Returns the SHA-256 of all arrays of replicates, in hexadecimal."""
    sha256 = hashlib.sha256()
    for part in PARTS:
        arrays = {**getattr(replicates, part), "rows": replicates.rows[part]}
        for name, array in sorted(arrays.items()):
            sha256.update(f"{part} {name} {array.dtype} {array.shape}".encode())
            sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()


def _check_alike(loaded: Sequence[Dataset]) -> None:
    for one in loaded:
        if (one.task, one.classes) != (loaded[0].task, loaded[0].classes):
            raise InputError(
                f"{one.name}: one split has {one.classes} classes, another has "
                f"{loaded[0].classes}; use split=fixed"
            )


def _aligned(loaded: list[Dataset]) -> list[Dataset]:
    """Returns data sets with the features of any of them; a missing one is 0.

    A feature is missing where it is constant in the training part.
    """
    names = [one.about.get("feature_names") for one in loaded]
    if all(each == names[0] for each in names):
        return loaded
    union = list(dict.fromkeys(name for each in names for name in each))
    places = {name: place for place, name in enumerate(union)}

    def widened(part: Arrays, own: list[str]) -> Arrays:
        x = np.zeros((len(part["x"]), len(union)), np.float32)
        x[:, [places[name] for name in own]] = part["x"]
        return part | {"x": x}

    return [
        dataclasses.replace(
            one,
            **{part: widened(getattr(one, part), own) for part in PARTS},
            features=len(union),
            about={**one.about, "feature_names": union},
        )
        for one, own in zip(loaded, names, strict=True)
    ]


def _pool(parts: Sequence[Arrays]) -> tuple[Arrays, np.ndarray]:
    """Returns the rows of all parts, and where the rows of each part are."""
    sizes = {size(part) for part in parts}
    if len(sizes) > 1:
        raise InputError(f"replicates have parts of {sorted(sizes)} rows, not equal")
    rows = np.arange(len(parts) * size(parts[0]), dtype=np.int32)
    if "ends" in parts[0]:
        return _text_pool(parts), rows.reshape(len(parts), -1)
    pool = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if _repeats([size(part) for part in parts], pool):
        keys = _keys(pool)
        _, first, place = np.unique(keys, return_index=True, return_inverse=True)
        pool = {name: array[first] for name, array in pool.items()}
        rows = place.astype(np.int32)
    return pool, rows.reshape(len(parts), -1)


def _text_pool(parts: Sequence[Arrays]) -> Arrays:
    """Returns the texts of all parts one after another, as one part."""
    starts = np.cumsum([0, *(len(part["text"]) for part in parts)])
    ends = [part["ends"] + start for part, start in zip(parts, starts, strict=False)]
    return {
        "text": np.concatenate([part["text"] for part in parts]),
        "ends": np.concatenate(ends).astype(np.int32),
        "offsets": parts[0]["offsets"],
    }


def _repeats(sizes: Sequence[int], pool: Arrays) -> bool:
    """Returns whether the first two parts share at least a tenth of their rows."""
    both = sum(sizes[:2])
    keys = _keys({name: array[:both] for name, array in pool.items()})
    return len(sizes) > 1 and len(np.unique(keys)) < 0.95 * both


def _keys(pool: Arrays) -> np.ndarray:
    """Returns the bytes of each row, as values that can be sorted."""
    columns = [
        np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)
        for _, array in sorted(pool.items())
    ]
    bytes_ = np.ascontiguousarray(np.concatenate(columns, axis=1))
    return bytes_.view(np.dtype((np.void, bytes_.shape[1])))[:, 0]
