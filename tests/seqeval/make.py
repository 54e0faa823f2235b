"""Writes what seqeval says of random tags, to compare with: run it once, with seqeval.

    pip install seqeval==1.2.2 && python tests/seqeval/make.py

reference.npz holds for each of 1,000 corpora of 4 sentences the tags, as numbers of
`TAGS` or −1 beyond a sentence's end, and the scores of the default and the strict mode.
"""

import itertools
import warnings
from pathlib import Path

import numpy as np

KINDS = ("A", "B", "C")
TAGS = ("O", *(f"{prefix}-{kind}" for kind in KINDS for prefix in "BI"))
CORPORA, SENTENCES, LONGEST = 1000, 4, 9


def main() -> None:
    rng = np.random.default_rng(0)
    shape = CORPORA, SENTENCES, LONGEST
    chances = np.array([6, 1, 2, 1, 2, 1, 2]) / 15
    gold = rng.choice(len(TAGS), shape, p=chances)
    # A guess is the right tag in about two thirds of all places.
    guess = np.where(rng.random(shape) < 0.6, gold, rng.choice(len(TAGS), shape))
    lengths = rng.integers(1, LONGEST + 1, shape[:2])
    beyond = np.arange(LONGEST) >= lengths[..., None]
    gold, guess = (np.where(beyond, -1, each).astype(np.int8) for each in (gold, guess))
    pairs = zip(gold, guess, strict=True)
    scores = [scored(words(a), words(b)) for a, b in pairs]
    found = {name: [each[name] for each in scores] for name in scores[0]}
    path = Path(__file__).with_name("reference.npz")
    np.savez_compressed(path, gold=gold, guess=guess, **found)


def words(corpus: np.ndarray) -> list[list[str]]:
    """Returns the tags of a corpus."""
    return [[TAGS[tag] for tag in row if tag >= 0] for row in corpus]


def scored(gold: list[list[str]], guess: list[list[str]]) -> dict[str, np.ndarray]:
    """Returns precision, recall and F1 of averages and types, NaN where none is."""
    from seqeval.metrics import classification_report
    from seqeval.scheme import IOB2

    found = {}
    modes = {"default": {}, "strict": {"mode": "strict", "scheme": IOB2}}
    for name, mode in modes.items():
        with warnings.catch_warnings(action="ignore"):
            told = classification_report(gold, guess, output_dict=True, **mode)
        none = dict.fromkeys(("precision", "recall", "f1-score"), np.nan)
        rows = itertools.chain(("micro avg", "macro avg", "weighted avg"), KINDS)
        found[name] = np.array(
            [[told.get(row, none)[key] for key in none] for row in rows]
        )
    return found


if __name__ == "__main__":
    main()
