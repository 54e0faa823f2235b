"""Words replaced by a masked language model: which may change, and to what."""

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from ffnlab.data.examples import Examples
from ffnlab.data.tokenizer_files import read_tokenizer
from ffnlab.errors import InputError
from ffnlab.finetune import mlm_augment
from ffnlab.finetune.mlm_augment import mlm_substitute
from ffnlab.models.transformer import Transformer
from ffnlab.pretrained import checkpoint

BERT = Path(__file__).parents[1] / "checkpoints" / "bert"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [f"w{n}" for n in range(20)]
PIECES = ["##x", "##y", "##z", "un", "café"]  # the last is no token that text becomes
MAY = {*WORDS, "un"}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """The small BERT with a vocabulary, and its tokenizer."""
    directory = tmp_path_factory.mktemp("checkpoint") / "bert"
    shutil.copytree(BERT, directory)
    vocabulary = SPECIAL + WORDS + PIECES + ["[unused1]"]
    (directory / "vocab.txt").write_text("\n".join(vocabulary))
    return checkpoint.load(directory), read_tokenizer(directory)


TEXTS = ["w0 w1 w2 w3 w4 W5 w6 w7 w8 w9", "w1", "w3x strange w4, w5"]
CLASSES = Examples(TEXTS, [], ["a", "b", "a"], [1, 2, 4])
TAGGED = Examples(
    [["w1", "w2x", "w3", "w4"], ["w5", "w6"], ["w7"] * 20],
    [],
    [["O", "B-A", "I-A", "O"], ["B-B", "B-B"], ["O"] * 20],
    [[1, 2, 3, 4], [6, 7], [*range(9, 29)]],
    "iob1",
)


def copies_of(examples, task, bert, **options):
    found, count = mlm_substitute(examples, task, *bert, **options), len(examples.texts)
    assert found.subset(range(count)) == examples and found.scheme == examples.scheme
    return found.subset(range(count, len(found.texts)))


def test_texts_get_other_words_about_so_many(bert):
    found = copies_of(CLASSES, "classify", bert, copies=40, rate=0.3)
    assert Counter(found.lines) == {1: 40, 2: 40, 4: 40}
    labels = dict(zip(CLASSES.lines, CLASSES.labels, strict=True))
    assert found.labels == [labels[line] for line in found.lines] and not found.pairs
    where = set()
    for text, line in zip(found.texts, found.lines, strict=True):
        before, after = CLASSES.texts[[1, 2, 4].index(line)].split(), text.split()
        changed = [i for i, word in enumerate(before) if after[i] != word]
        assert len(after) == len(before)
        assert len(changed) == max(round(0.3 * len(before)), 1)
        assert all(after[i] in MAY for i in changed)
        assert all(after[i] != before[i].lower() for i in changed)
        where |= {(line, i) for i in changed}
    assert where == {(1, i) for i in range(10)} | {(2, 0)} | {(4, i) for i in range(4)}


def test_the_texts_of_a_pair_get_words_each_for_itself(bert):
    pairs = Examples(["w1 w2", "w3"], ["w4", "w5 w6 w7"], ["0", "1"], [1, 2])
    found = copies_of(pairs, "pairs", bert, copies=5)
    assert len(found.texts) == len(found.pairs) == 10 and found.labels == ["0", "1"] * 5
    for i, both in enumerate(zip(found.texts, found.pairs, strict=True)):
        origin = pairs.texts[i % 2], pairs.pairs[i % 2]
        for before, after in zip(origin, both, strict=True):
            words = zip(before.split(), after.split(), strict=True)
            assert sum(a != b for a, b in words) == 1


def test_of_sentences_only_words_outside_of_spans_change_up_to_the_cut(bert):
    found = copies_of(TAGGED, "tag", bert, copies=60, rate=0.5)
    assert len(found.texts) == 120  # a sentence of spans alone has no copies
    changed = {0: set(), 2: set()}
    for words, row, lines in zip(found.texts, found.labels, found.lines, strict=True):
        number = TAGGED.lines.index(lines)
        assert row == TAGGED.labels[number]
        both = zip(TAGGED.texts[number], words, strict=True)
        changed[number] |= {i for i, (a, b) in enumerate(both) if a != b}
    # Of 16 positions two are special: the last six words were cut off.
    assert changed == {0: {0, 3}, 2: set(range(14))}


def test_words_are_drawn_by_the_models_probabilities_from_the_ten_likeliest(bert):
    """Against the model on the one text, unpacked, by hand."""
    found, tokenizer = bert
    text = Examples(["w1 w2x w3"], [], ["a"], [1])
    made = copies_of(text, "classify", bert, copies=4000, rate=0.1, seed=3)
    ids = {word: tokenizer.inner.token_to_id(word) for word in MAY}
    pieces = {0: [[4], [6 + 1, 25], [8]], 1: [[6], [4], [8]], 2: [[6], [7, 25], [4]]}
    apply = jax.jit(lambda params, *rows: [found.model.apply(params, row)[0][0]
                                           for row in rows])  # fmt: skip
    rows = [[2, *(t for part in parts for t in part), 3] for parts in pieces.values()]
    outputs = apply(found.params, *(np.array([row]) for row in rows))
    for place in pieces:
        logits = np.asarray(outputs[place][rows[place].index(4)], np.float64)
        hidden = {0: "w1", 2: "w3"}.get(place)
        may = sorted(MAY - {hidden}, key=lambda word: -logits[ids[word]])[:10]
        probabilities = np.exp([logits[ids[word]] for word in may])
        probabilities = dict(zip(may, probabilities / probabilities.sum(), strict=True))
        drawn = [t.split()[place] for t in made.texts]
        drawn = Counter(word for word in drawn if word != text.texts[0].split()[place])
        total = drawn.total()
        assert abs(total / 4000 - 1 / 3) < 0.03 and set(drawn) <= set(may)
        for word, probability in probabilities.items():
            assert abs(drawn[word] / total - probability) < 4 * np.sqrt(
                probability / total
            )


def test_copies_depend_on_the_seed_alone(bert):
    one, same, other = (
        copies_of(CLASSES, "classify", bert, copies=3, seed=seed)
        for seed in (-(2**70), -(2**70), 5)
    )
    assert one == same and one.texts != other.texts


def test_many_texts_are_one_compilation(bert, monkeypatch):
    inner = mlm_augment._draw_batch.__wrapped__
    fresh = jax.jit(lambda *given: inner(*given), static_argnums=4)  # of an empty cache
    monkeypatch.setattr(mlm_augment, "_draw_batch", fresh)
    limited = chex.assert_max_traces(Transformer.__call__, n=1)
    monkeypatch.setattr(Transformer, "__call__", limited)
    many = Examples(TEXTS * 40, [], ["a"] * 120, [1] * 120)
    assert len(copies_of(many, "classify", bert).texts) == 120
    assert fresh._cache_size() == 1


def test_what_has_no_words_to_hide_has_no_copies(bert):
    spans = TAGGED.subset([1])
    assert copies_of(spans, "tag", bert).texts == []


def test_what_cannot_fill_words_in_is_refused(bert, tmp_path):
    found, tokenizer = bert
    name = "^augment: mlm_substitute"
    bare = checkpoint.load(found.directory, head=False)
    with pytest.raises(
        InputError, match=f"{name}: .*bert has no masked-language-model"
    ):
        mlm_substitute(CLASSES, "classify", bare, tokenizer)
    checkpoint.save(tmp_path / "bare", bare.config, bare.params, family="bert")
    drawn = checkpoint.load(tmp_path / "bare", head=True)
    with pytest.raises(InputError, match="bare has no masked-language-model head"):
        mlm_substitute(CLASSES, "classify", drawn, tokenizer)
    causal = found._replace(config=dataclasses.replace(found.config, causal=True))
    with pytest.raises(InputError, match="bert has no masked-language-model head"):
        mlm_substitute(CLASSES, "classify", causal, tokenizer)
    with pytest.raises(InputError, match=f"{name} needs tags of spans, such as B-PER"):
        mlm_substitute(TAGGED._replace(scheme=None), "tag", found, tokenizer)
    with pytest.raises(InputError, match="rate=0 must be above 0 and below 1"):
        mlm_substitute(CLASSES, "classify", found, tokenizer, rate=0.0)
    for words, message in (
        (SPECIAL[:4] + WORDS, "vocab.txt has no mask token"),
        ([*SPECIAL, "w0", "##x"], "vocab.txt has no two tokens that are words"),
    ):
        (tmp_path / "vocab.txt").write_text("\n".join(words))
        with pytest.raises(InputError, match=f"{name}: .*{message}"):
            mlm_substitute(CLASSES, "classify", found, read_tokenizer(tmp_path))
