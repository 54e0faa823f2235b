"""Tokenizers of checkpoint directories, with the ids that transformers 5.24 has."""

import json

import pytest

from ffnlab.data import tokenizer_files
from ffnlab.data.tokenizer_files import checkpoint_tokenizer, read_tokenizer
from ffnlab.errors import InputError

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "gut",
    "Gut",
    "caf\u00e9",
    "cafe",
]
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "g", "u", "t", "\u0120", "gu", "<mask>"]
UNIGRAMS = [
    ["<s>", 0.0], ["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0],
    ["\u2581", -2.0], ["\u2581gut", -4.0], ["gut", -5.0], ["a", -3.0], ["<mask>", 0.0],
]  # fmt: skip
UNK, CLS, SEP, A, GUT, CASED, ACCENT, CAFE = 1, 2, 3, 5, 6, 7, 8, 9


def write(directory, **files):
    """Writes files of a checkpoint directory; a text as it is, other values as JSON."""
    directory.mkdir()
    for name, value in files.items():
        stem, _, ending = name.rpartition("_")
        text = value if isinstance(value, str) else json.dumps(value)
        (directory / f"{stem}.{ending}").write_text(text, "utf-8")
    return directory


def bert_json(lowercase=True, added=()):
    special = [
        {"id": i, "content": WORDS[i], "special": True, "normalized": False,
         "single_word": False, "lstrip": False, "rstrip": False}
        for i in range(5)
    ]  # fmt: skip
    return {
        "version": "1.0",
        "added_tokens": [*special, *added],
        "normalizer": {"type": "BertNormalizer", "clean_text": True,
                       "handle_chinese_chars": True, "strip_accents": None,
                       "lowercase": lowercase},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", SEP],
                           "cls": ["[CLS]", CLS]},
        "decoder": None,
        "model": {"type": "WordPiece", "unk_token": "[UNK]",
                  "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                  "vocab": {word: i for i, word in enumerate(WORDS)}},
    }  # fmt: skip


def added(number, content, special=False):
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    return {"id": number, "content": content, "special": special,
            "normalized": not special, **flags}  # fmt: skip


def ids(directory, text):
    return read_tokenizer(directory).inner.encode(text).ids[1:-1]


BERT = {"model_type": "bert"}
NO_CASE = {"do_lower_case": False, "tokenizer_class": "BertTokenizer"}
AS_IT_IS = {"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast"}
LOWER, KEPT = [GUT, CAFE], [CASED, ACCENT]


@pytest.mark.parametrize(
    ("lowercase", "config", "family", "expected", "holds"),
    [
        (True, NO_CASE, "bert", KEPT, "tokenizer_config.json"),
        (True, {**NO_CASE, "tokenizer_class": "BertTokenizerFast"}, "bert", KEPT, "_"),
        (True, {"do_lower_case": False}, "electra", KEPT, "tokenizer_config.json"),
        (True, AS_IT_IS, "bert", LOWER, "tokenizer.json"),
        (True, {**NO_CASE, "strip_accents": True}, "bert", [CASED, CAFE], "s null"),
        (True, {"tokenizer_class": "BertTokenizer"}, "bert", LOWER, None),
        (False, {"tokenizer_class": "BertTokenizer"}, "bert", LOWER, "by default"),
        (False, NO_CASE, "bert", KEPT, None),
        (False, None, "bert", LOWER, "by default"),
        (False, None, None, KEPT, None),  # no class is known: as the file is
    ],
)  # fmt: skip
def test_casing_is_as_transformers_has_it(
    lowercase, config, family, expected, holds, tmp_path
):
    files = {"tokenizer_json": bert_json(lowercase)}
    files |= {"tokenizer_config_json": config} if config else {}
    files |= {"config_json": {"model_type": family}} if family else {}
    directory = write(tmp_path / "c", **files)
    if holds is None:
        assert ids(directory, "Gut caf\u00e9") == expected
        return
    with pytest.warns(UserWarning, match=holds) as caught:
        assert ids(directory, "Gut caf\u00e9") == expected
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert all(f"{directory / name} " in str(each.message) for each in caught)


def test_added_tokens_of_a_vocab_txt(tmp_path):
    """They follow the vocabulary in the order of their ids; a gap is closed."""
    slow = {"vocab_txt": "\n".join(WORDS) + "\n", "config_json": BERT}
    directory = write(
        tmp_path / "a", **slow, added_tokens_json={"covid19": 10, "#x": 11}
    )
    assert ids(directory, "a covid19 #x") == [A, 10, 11]
    special = {"mask_token": "[MASK]", "additional_special_tokens": ["<e1>"]}
    directory = write(tmp_path / "b", **slow, special_tokens_map_json=special)
    assert ids(directory, "a<e1> [MASK]") == [A, 10, 4]
    directory = write(
        tmp_path / "c", **slow, added_tokens_json={"covid19": 12, "#x": 11}
    )
    with pytest.warns(UserWarning, match=r"json gives '#x' the id 11, .* is 10"):
        assert ids(directory, "covid19 #x") == [11, 10]
    cased = {"do_lower_case": False, "unk_token": "[UNK]", "cls_token": "a"}
    directory = write(tmp_path / "d", **slow, tokenizer_config_json=cased)
    assert read_tokenizer(directory).inner.encode("Gut").ids == [A, CASED, SEP]


def test_added_tokens_of_tokenizer_config_json_are_all_there_are(tmp_path):
    extra = [added(10, "covid19"), added(11, "#x")]
    files = {"tokenizer_json": bert_json(added=extra), "config_json": BERT}
    both = write(tmp_path / "a", **files)
    assert ids(both, "covid19 #x") == [10, 11]
    row = {k: v for k, v in extra[0].items() if k != "id"}
    config = {"added_tokens_decoder": {"10": row}}
    one = write(tmp_path / "b", **files, tokenizer_config_json=config)
    with pytest.warns(UserWarning, match="such as '#x': they are left out"):
        assert ids(one, "covid19 #x") == [10, UNK, UNK]
    config["tokenizer_class"] = "TokenizersBackend"  # takes the file as it is
    same = write(tmp_path / "c", **files, tokenizer_config_json=config)
    assert ids(same, "covid19 #x") == [10, 11]


PIECE_FILES = {
    "vocab_json": {piece: i for i, piece in enumerate(PIECES)},
    "merges_txt": "#version: 0.2\ng u\n",
}


def test_vocab_json_and_merges(tmp_path):
    """That of a RoBERTa, and that of a GPT-2, which has nothing around texts."""
    roberta = {**PIECE_FILES, "config_json": {"model_type": "roberta"}}
    found = read_tokenizer(write(tmp_path / "a", **roberta))
    assert found.inner.encode("gut <mask>").ids == [0, 8, 6, 7, 9, 2]
    assert found.inner.encode("gut", "t").ids == [0, 8, 6, 2, 2, 6, 2]
    assert found.words([["gut", "t"]]).tokens[0].tolist() == [0, 7, 8, 6, 7, 6, 2]
    assert (found.unknown, found.mask, found.types) == (3, 9, 1)
    space = {"add_prefix_space": True}
    spaced = write(tmp_path / "b", **roberta, tokenizer_config_json=space)
    assert ids(spaced, "gut") == [7, 8, 6]
    left = {"content": "<mask>", "lstrip": True, "normalized": True}
    mask = write(
        tmp_path / "c", **roberta, special_tokens_map_json={"mask_token": left}
    )
    assert ids(mask, "gut <mask>") == [8, 6, 9]
    gpt2 = {**PIECE_FILES, "config_json": {"model_type": "gpt2"}}
    found = read_tokenizer(write(tmp_path / "d", **gpt2))
    assert found.inner.encode("gut").ids == [8, 6] and found.around == ([], [])
    (tmp_path / "a" / "merges.txt").unlink()
    with pytest.raises(InputError, match="merges.txt: "):
        read_tokenizer(tmp_path / "a")


def xlm_json():
    split = {"type": "Sequence", "pretokenizers": [
        {"type": "WhitespaceSplit"},
        {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always"},
    ]}  # fmt: skip
    around = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                   {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                 {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    }  # fmt: skip
    model = {"type": "Unigram", "unk_id": 3, "vocab": UNIGRAMS, "byte_fallback": False}
    return {
        "version": "1.0", "added_tokens": [], "normalizer": None,
        "pre_tokenizer": split, "post_processor": around, "decoder": None,
        "model": model,
    }  # fmt: skip


def test_sentencepiece_through_tokenizer_json(tmp_path):
    files = {"tokenizer_json": xlm_json(), "config_json": {"model_type": "xlm-roberta"}}
    directory = write(tmp_path / "a", **files)
    with pytest.warns(UserWarning, match="other special tokens around texts"):
        found = read_tokenizer(directory)
    assert found.inner.encode("gut a").ids == [0, 5, 4, 7, 2]
    assert found.inner.encode("gut", "a").ids == [0, 5, 2, 2, 4, 7, 2]
    (directory / "tokenizer.json").rename(directory / "sentencepiece.bpe.model")
    with pytest.raises(InputError, match="is read from tokenizer.json, which Auto"):
        read_tokenizer(directory)


def test_a_class_of_another_model_takes_the_file_as_it_is(tmp_path):
    config = {"tokenizer_class": "RobertaTokenizer", "do_lower_case": True}
    files = {"tokenizer_json": bert_json(), "tokenizer_config_json": config}
    directory = write(tmp_path / "a", **files)
    with pytest.warns(
        UserWarning, match="holds a WordPiece, RobertaTokenizer of .* BPE"
    ):
        assert ids(directory, "Gut") == [GUT]


def test_every_token_needs_an_embedding(tmp_path):
    extra = [added(10, "covid19"), added(11, "#x")]
    files = {"tokenizer_json": bert_json(added=extra), "config_json": BERT}
    directory = write(tmp_path / "a", **files)
    found = checkpoint_tokenizer(directory, 12, types=2)
    assert (found.size, found.types) == (12, 2)
    with pytest.raises(
        InputError, match=r"ids 10 to 11 have no .*'covid19', '#x'.* 10 r"
    ):
        checkpoint_tokenizer(directory, 10)
    with pytest.raises(InputError, match="token type 1, the model has 1 types"):
        checkpoint_tokenizer(directory, 12, types=1)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("added_tokens_json", {"a": -1}, 'added_tokens.json: "a": should be a whole'),
        ("added_tokens_json", {"a": 2**24}, "at most 16777215"),
        ("special_tokens_map_json", {"cls_token": 3}, "cls_token: should be a text or"),
        ("special_tokens_map_json", {"cls_token": {}}, "content is missing"),
        (
            "tokenizer_config_json",
            {"do_lower_case": "no"},
            "do_lower_case: should be tr",
        ),
        (
            "tokenizer_config_json",
            {"added_tokens_decoder": {"x": {}}},
            "should be an id",
        ),
        ("tokenizer_config_json", {"added_tokens_decoder": [1]}, "should be an object"),
        ("tokenizer_config_json", {"extra_special_tokens": [2]}, "entry 1: should be"),
    ],
)
def test_wrong_settings_are_named(name, value, message, tmp_path):
    files = {"vocab_txt": "\n".join(WORDS) + "\n", name: value}
    with pytest.raises(InputError, match=message) as caught:
        read_tokenizer(write(tmp_path / "a", **files))
    assert "\n" not in str(caught.value)


def test_notes_without_a_warning(tmp_path):
    """Fine-tuning reports them itself."""
    files = {"tokenizer_json": bert_json(), "config_json": BERT}
    directory = write(tmp_path / "a", **files, tokenizer_config_json=NO_CASE)
    (note,) = tokenizer_files.checkpoint_tokenizer(directory, 10, warn=False).notes
    assert note.endswith("tokenizer_config.json holds, as in transformers")
