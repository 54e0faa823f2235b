"""Words as tokenizers cut them, and the entities of their tags."""

import pytest
from tokenizers import Tokenizer as Inner
from tokenizers import models, normalizers, pre_tokenizers

from ffnlab.data.tokenizer import Tokenizer
from ffnlab.errors import InputError
from ffnlab.finetune.entities import cut_words, entities_of
from ffnlab.finetune.outputs import Entity, Prediction

NAMES = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


@pytest.fixture(scope="module")
def word_pieces():
    """The tokenizer of a BERT that knows no word."""
    ids = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "##b": 4, "e": 5}
    inner = Inner(models.WordPiece(ids, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return Tokenizer(inner, "vocab.txt")


@pytest.fixture(scope="module")
def byte_pairs():
    """The tokenizer of a RoBERTa, of single bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {letter: n for n, letter in enumerate(["<unk>", *alphabet])}
    inner = Inner(models.BPE(ids, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return Tokenizer(inner, "tokenizer.json")


@pytest.mark.parametrize("kind", ["word_pieces", "byte_pairs"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ada Lovelace lives in London.", "Ada|Lovelace|lives|in|London|."),
        ("  Ada,\tBath!\n", "Ada|,|Bath|!"),
        ("É. in Zürich", "É|.|in|Zürich"),
        ("(Ada)", "(|Ada|)"),
        (" ", ""),
    ],
)
def test_words_are_cut_from_punctuation(request, kind, text, words):
    found = cut_words(request.getfixturevalue(kind), text)
    assert found.words == [word for word in words.split("|") if word]
    assert found.words == [text[begin:end] for begin, end in found.spans]


def test_words_keep_their_accents_and_ideographs_are_words(word_pieces):
    assert cut_words(word_pieces, "cafe\u0301 ab 中文").words == [
        "cafe\u0301", "ab", "中", "文"
    ]  # fmt: skip
    assert cut_words(word_pieces, "\x07").words == []


def test_entities_are_by_character_of_a_text(word_pieces):
    text = "Ada Lovelace left Bath, Kent."
    words = cut_words(word_pieces, text)
    tags = ["B-PER", "I-PER", "O", "B-LOC", "I-LOC", "B-LOC", "O"]
    tagged = Prediction(tags, [0.5, 0.75, 1.0, 0.5, 0.25, 0.5, 1.0])
    assert entities_of(text, words, tagged, NAMES) == [
        Entity("PER", 0, 12, 0.625, "Ada Lovelace"),
        Entity("LOC", 18, 23, 0.375, "Bath,"),
        Entity("LOC", 24, 28, 0.5, "Kent"),
    ]


def test_labels_that_are_no_tags_are_of_single_words():
    words = cut_words(None, ["Ada", "sings", "on"])
    tagged = Prediction(["NOUN", "VERB", "ADV"], [0.5, 0.75, 0.0])  # one cut off
    assert entities_of(words.words, words, tagged, ["ADV", "NOUN", "VERB"]) == [
        Entity("NOUN", 0, 1, 0.5, "Ada"), Entity("VERB", 1, 2, 0.75, "sings")
    ]  # fmt: skip


def test_a_text_is_no_list_of_words(word_pieces):
    for given in (["Ada"], "Ada", [["Ada"], "Ada sings"]):
        with pytest.raises(
            InputError, match="^sentences: sentence [12] is a text, 'Ad"
        ):
            word_pieces.words(given)
