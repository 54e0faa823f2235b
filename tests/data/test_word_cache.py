"""Tokens by a table of words are those of the whole text."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ffnlab.data import tokenizer as tokenizer_module
from ffnlab.data.corpus import ByteTokenizer
from ffnlab.data.tokenizer import Tokenizer
from ffnlab.data.word_boundaries import _PATTERNS, find_boundaries
from ffnlab.data.word_cache import AnchoredTable, WordTable, _kind_of, make_encode

tokenizers = pytest.importorskip("tokenizers")
SAMPLE = ["The caf\u00e9's x_1 = f(y);\n\tna\u00efve  tests, 1,234.50 \u732b!"] * 3


def _trained(model, trainer, **parts):
    inner = tokenizers.Tokenizer(model)
    for part, value in parts.items():
        setattr(inner, part, value)
    inner.train_from_iterator(SAMPLE, trainer)
    return inner


def _bert(**options):
    special = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return _trained(
        tokenizers.models.WordPiece(unk_token="[UNK]"),
        tokenizers.trainers.WordPieceTrainer(vocab_size=90, special_tokens=special),
        normalizer=tokenizers.normalizers.BertNormalizer(**options),
        pre_tokenizer=tokenizers.pre_tokenizers.BertPreTokenizer(),
    )


def _gpt2(prefix=False):
    return _trained(
        tokenizers.models.BPE(),
        tokenizers.trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        ),
        pre_tokenizer=tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=prefix),
    )


INNER = {
    "bert": _bert(),
    "cased": _bert(clean_text=False, lowercase=False, strip_accents=False),
    "gpt2": _gpt2(),
}
PIECES = st.sampled_from(
    ["the", "x_1", "Caf\u00e9's", "e\u0301", "12,3.4", " ", "  ", "\n", "\t", "\r\n"]
    + ["\x0b", "\x0c", "\x1c", "\x85", "\xa0", "\u2003", "\u732b", ".", "\u2014", "_"]
    + ["[MASK]", "<|endoftext|>", "\x00", "\U0001f600", "\u0301", "a b", "\u3000"]
)


@pytest.mark.parametrize("name", INNER)
@hypothesis.given(pieces=st.lists(PIECES, max_size=30))
@hypothesis.example(pieces=["the", "\x0b", "the", "\x0c", "x_1"])
@hypothesis.example(pieces=["the", "\xa0", "  ", "the", "\u2003", "  ", "."])
def test_the_tokens_are_those_of_the_whole_text(name, pieces):
    inner, text = INNER[name], "".join(pieces)
    encode = WordTable(inner, _kind_of(inner), most=50).encode
    for part in (text, text[::-1], text):  # the last time all words are known
        whole = inner.encode(part, add_special_tokens=False)
        tokens, begins = encode(part.encode())
        assert tokens.tolist() == whole.ids
        words = np.array(whole.word_ids)
        assert begins.tolist() == [True, *(words[1:] != words[:-1])][: len(words)]


def test_a_full_table_is_begun_again():
    inner = INNER["bert"]
    table = WordTable(inner, _kind_of(inner), most=3)
    for text in ("the tests", "f y x", "the naive y tests f x", "the tests"):
        whole = inner.encode(text, add_special_tokens=False)
        assert table.encode(text.encode())[0].tolist() == whole.ids
    assert len(table._numbers) <= 6


def test_a_table_does_not_hold_texts_without_end(monkeypatch):
    """Lines without a space are words, and those with an added token are not kept."""
    monkeypatch.setattr("ffnlab.data.word_cache._BYTES", 100)
    encode = make_encode(Tokenizer(ANCHORED["llama"], "here"))
    for text in (b"the[MASK]" * 50, b"x" * 90, b"1" * 90, b"the x the x\n"):
        encode(text)
        assert sum(map(len, encode.__self__._numbers)) <= 100
    assert len(encode.__self__._numbers) == 4  # the first, and the last with its end


def test_other_kinds_are_called_with_the_whole_text():
    assert _kind_of(_gpt2(prefix=True)) is None
    inner = _bert()
    inner.add_tokens([tokenizers.AddedToken("x y")])
    assert _kind_of(inner) is None
    inner = _bert()
    inner.add_tokens([tokenizers.AddedToken("<x>", rstrip=True)])
    assert _kind_of(inner) is None
    bare = _bert()
    bare.normalizer = tokenizers.normalizers.NFC()
    assert _kind_of(bare) is None
    tokens, begins = make_encode(ByteTokenizer())(b"if x:")
    assert bytes(tokens.tolist()) == b"if x:"
    assert begins.tolist() == [True, False, True, True, True]


def _bytes_by(pattern, normalizer=None):
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    level = tokenizers.pre_tokenizers.ByteLevel(False, use_regex=False)
    inner = _gpt2()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, level])
    if normalizer:
        inner.normalizer = normalizer
    return inner


def _unigram(*splits, normalizer):
    return _trained(
        tokenizers.models.Unigram(),
        tokenizers.trainers.UnigramTrainer(
            vocab_size=60, special_tokens=["<unk>", "[MASK]"], unk_token="<unk>"
        ),
        normalizer=normalizer,
        pre_tokenizer=tokenizers.pre_tokenizers.Sequence(list(splits)),
    )


def _whole(vocabulary=()):
    """A BPE without a pre-tokenizer, as Llama 2 has."""
    normalizers, tokens = tokenizers.normalizers, ["<unk>", "\u2581", *"the1x_.\n"]
    merges = [("t", "h"), ("th", "e"), ("\u2581", "the"), ("\u2581", "\u2581")]
    merges += [tuple(vocabulary)] if vocabulary else []
    tokens += ["".join(pair) for pair in merges]
    ids = {token: number for number, token in enumerate(tokens)}
    model = tokenizers.models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True)
    inner = tokenizers.Tokenizer(model)
    inner.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    inner.add_special_tokens(["[MASK]"])
    return inner


def _whitespace():
    inner, normalizers = _bert(), tokenizers.normalizers
    inner.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.Lowercase()]
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return inner


def _anchored():
    """Returns a tokenizer of each kind whose first word may differ."""
    normalizers, splits = tokenizers.normalizers, tokenizers.pre_tokenizers
    gpt2, *later = _PATTERNS
    collapse = normalizers.Replace(tokenizers.Regex(" {2,}"), " ")
    return {
        "prefix": _gpt2(prefix=True),
        "pattern of gpt2": _bytes_by(gpt2),
        **{f"pattern {n}": _bytes_by(each) for n, each in enumerate(later)},
        "nfc": _bytes_by(later[1], normalizers.NFC()),
        "xlm-roberta": _unigram(
            splits.WhitespaceSplit(), splits.Metaspace(), normalizer=normalizers.NFKC()
        ),
        "t5": _unigram(splits.Metaspace(), normalizer=collapse),
        "whitespace": _whitespace(),
        "llama": _whole(),
    }


ANCHORED = _anchored()


@pytest.mark.parametrize("name", ANCHORED)
@hypothesis.given(pieces=st.lists(PIECES, max_size=30))
@hypothesis.example(pieces=["the", "\n", "x_1", ".", "\r\n", "\t", "the", " ", "."])
@hypothesis.example(pieces=["the", " ", "[MASK]", "the", "<|endoftext|>", "\t", "the"])
@hypothesis.example(
    pieces=["the", " ", "\u0301", "the", "  ", "\u0301", ".", "\n", " "]
)
def test_words_after_others_have_the_tokens_of_the_stream(name, pieces):
    tokenizer, text = Tokenizer(ANCHORED[name], "here"), "".join(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_module, "_LINES", 2)
        encode = make_encode(tokenizer)
        assert isinstance(encode.__self__, AnchoredTable)
        for part in (text, text[::-1], f"the {text} the", text):
            stream, (tokens, begins) = (
                tokenizer.stream(part.encode()),
                encode(part.encode()),
            )
            assert tokens.tolist() == stream.tokens.tolist()
            expected = [True, *(np.diff(stream.words) != 0)][: len(tokens)]
            assert begins.tolist() == expected


def test_words_are_taken_out_of_texts_of_several(monkeypatch):
    """A text of each word alone is not needed where characters of tokens are right."""
    alone, add = [], AnchoredTable._add_one_by_one

    def count(self, words):
        alone.extend(words)
        add(self, words)

    monkeypatch.setattr(AnchoredTable, "_add_one_by_one", count)
    text = ("The x_1 tests\n  f the caf\u00e9s 1,234.50\n" * 9).encode()
    for name, inner in ANCHORED.items():
        encode = make_encode(Tokenizer(inner, name))
        encode(text)
        known = len(encode.__self__._numbers)
        assert len(alone) <= 2 < 7 <= known, name  # the first, and the end of the text
        alone.clear()


def test_tokens_that_the_library_gives_to_a_neighbour_are_noticed():
    inner, text = ANCHORED["xlm-roberta"], "the x_1 tests the y f"

    class Shifted:
        """An encoding whose tokens begin a character early."""

        def __init__(self, encoding):
            self.ids, self.word_ids = encoding.ids, encoding.word_ids
            self.offsets = [(max(a - 1, 0), b) for a, b in encoding.offsets]

    class Library:
        def encode_batch(self, texts, **options):
            return [Shifted(each) for each in inner.encode_batch(texts, **options)]

        def __getattr__(self, name):
            return getattr(inner, name)

    table = AnchoredTable(Library(), find_boundaries(inner))
    whole = inner.encode(text, add_special_tokens=False)
    assert table.encode(text.encode())[0].tolist() == whole.ids


def test_texts_are_not_divided_where_tokens_may_go_on():
    assert find_boundaries(_whole()) is not None
    assert find_boundaries(_whole(["e", "\u2581"])) is None  # a space after a letter
    normalizers = tokenizers.normalizers
    strip, empty = normalizers.Strip(), normalizers.Replace("x", "")
    for normalizer in (strip, normalizers.Replace("e t", "x"), empty):
        inner = _whitespace()
        inner.normalizer = normalizer
        assert find_boundaries(inner) is None
    inner = _whitespace()
    inner.normalizer = normalizers.Replace(" ", "_")
    assert find_boundaries(inner) is None
    inner = _whitespace()
    inner.add_tokens([tokenizers.AddedToken("the", normalized=True)])
    assert find_boundaries(inner) is None
    assert find_boundaries(_bytes_by(r"\S+\s*")) is None
    inner = _gpt2()
    inner.model.dropout = 0.5
    assert find_boundaries(inner) is None
    stream = make_encode(Tokenizer(_whole(["e", "\u2581"]), ""))
    assert not hasattr(stream, "__self__")


def test_a_tokenizer_of_the_library_gives_its_stream():
    inner = _bert()
    inner.post_processor = tokenizers.processors.BertProcessing(
        ("[SEP]", inner.token_to_id("[SEP]")), ("[CLS]", inner.token_to_id("[CLS]"))
    )
    tokenizer = Tokenizer(inner, "here", [], {})
    text = ("\n".join(SAMPLE) * 20).encode()
    stream, (tokens, begins) = tokenizer.stream(text), make_encode(tokenizer)(text)
    np.testing.assert_array_equal(stream.tokens, tokens)
    np.testing.assert_array_equal(np.diff(stream.words) != 0, begins[1:])
