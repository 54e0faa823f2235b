"""Tokens by a table of words are those of the whole text."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ffnlab.data.corpus import ByteTokenizer
from ffnlab.data.tokenizer import Tokenizer
from ffnlab.data.word_cache import WordTable, _kind_of, make_encode

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
