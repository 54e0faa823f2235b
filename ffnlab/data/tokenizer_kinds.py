"""Classes of tokenizers in transformers: what they take from their settings."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ffnlab.data.tokenizer_settings import Settings

Switches = Mapping[str, bool]


class Kind(NamedTuple):
    """A class of tokenizers.

    Attributes:
      model: The model that it has: `WordPiece`, `BPE` or `Unigram`.
      special: Its special tokens by name, where no file gives another.
      parts: `parts(switches, normalizer)` returns its normalizer, pre-tokenizer and
        decoder; `normalizer` is that of tokenizer.json, or None.
      around: The names of those that it puts around texts.
      post_processor: `post_processor(switches, names, ids)` returns what puts special
        tokens around texts; None keeps that of tokenizer.json.
    """

    model: str
    special: dict[str, str]
    around: tuple[str, ...]
    parts: Callable[[Switches, Any], dict[str, Any]]
    post_processor: Callable[[Switches, Mapping[str, str], Any], Any]


def _bert_parts(switches: Switches, normalizer: Any) -> dict[str, Any]:
    from tokenizers import decoders, normalizers, pre_tokenizers

    return {
        "normalizer": normalizers.BertNormalizer(
            lowercase=switches.get("do_lower_case", True),
            strip_accents=switches.get("strip_accents"),
            handle_chinese_chars=switches.get("tokenize_chinese_chars", True),
        ),
        "pre_tokenizer": pre_tokenizers.BertPreTokenizer(),
        "decoder": decoders.WordPiece(prefix="##"),
    }


def _bert_post_processor(
    switches: Switches, names: Mapping[str, str], ids: Callable[[str], int]
) -> Any:
    from tokenizers import processors

    first, last = names["cls_token"], names["sep_token"]
    return processors.BertProcessing((last, ids(last)), (first, ids(first)))


def _byte_parts(switches: Switches, normalizer: Any) -> dict[str, Any]:
    from tokenizers import decoders, pre_tokenizers

    space = switches.get("add_prefix_space", False)
    return {
        "normalizer": None,
        "pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=space),
        "decoder": decoders.ByteLevel(),
    }


def _roberta_post_processor(
    switches: Switches, names: Mapping[str, str], ids: Callable[[str], int]
) -> Any:
    from tokenizers import processors

    first, last = names["cls_token"], names["sep_token"]
    return processors.RobertaProcessing(
        (last, ids(last)),
        (first, ids(first)),
        trim_offsets=switches.get("trim_offsets", True),
        add_prefix_space=switches.get("add_prefix_space", False),
    )


def _gpt2_post_processor(
    switches: Switches, names: Mapping[str, str], ids: Callable[[str], int]
) -> Any:
    from tokenizers import processors

    if not switches.get("add_bos_token"):
        return None
    first = names["bos_token"]
    return processors.TemplateProcessing(
        single=[first, "$A"],
        pair=[first, "$A", f"{first}:1", "$B:1"],
        special_tokens=[(first, ids(first))],
    )


def _unigram_parts(switches: Switches, normalizer: Any) -> dict[str, Any]:
    from tokenizers import decoders, pre_tokenizers

    scheme = "always" if switches.get("add_prefix_space", True) else "never"
    parts = [
        pre_tokenizers.WhitespaceSplit(),
        pre_tokenizers.Metaspace("\u2581", prepend_scheme=scheme),
    ]
    return {
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizers.Sequence(parts),
        "decoder": decoders.Metaspace("\u2581", prepend_scheme=scheme),
    }


def _unigram_post_processor(
    switches: Switches, names: Mapping[str, str], ids: Callable[[str], int]
) -> Any:
    from tokenizers import processors

    first, last = names["bos_token"], names["eos_token"]
    return processors.TemplateProcessing(
        single=[first, "$A", last],
        pair=[first, "$A", last, last, "$B", last],
        special_tokens=[(first, ids(first)), (last, ids(last))],
    )


def _named(**tokens: str) -> dict[str, str]:
    return {f"{name}_token": token for name, token in tokens.items()}


_OF_BERT = _named(
    unk="[UNK]", sep="[SEP]", pad="[PAD]", cls="[CLS]", mask="[MASK]"
)  # fmt: skip
_OF_ROBERTA = _named(
    bos="<s>", eos="</s>", unk="<unk>", sep="</s>", pad="<pad>", cls="<s>",
    mask="<mask>",
)  # fmt: skip
_END = "<|endoftext|>"
_OF_GPT2 = _named(bos=_END, eos=_END, unk=_END)
_FIRST, _PLAIN = ("cls_token", "sep_token"), ("bos_token", "eos_token")
BERT = Kind("WordPiece", _OF_BERT, _FIRST, _bert_parts, _bert_post_processor)
ROBERTA = Kind("BPE", _OF_ROBERTA, _FIRST, _byte_parts, _roberta_post_processor)
XLM_ROBERTA = Kind(
    "Unigram", _OF_ROBERTA, _PLAIN, _unigram_parts, _unigram_post_processor
)
GPT2 = Kind("BPE", _OF_GPT2, (), _byte_parts, _gpt2_post_processor)

# The classes by name, and those of the families of checkpoints.
KINDS = {
    "BertTokenizer": BERT,
    "DistilBertTokenizer": BERT,
    "ElectraTokenizer": BERT,
    "RobertaTokenizer": ROBERTA,
    "XLMRobertaTokenizer": XLM_ROBERTA,
    "GPT2Tokenizer": GPT2,
}
FAMILIES = {
    "bert": "BertTokenizer",
    "distilbert": "BertTokenizer",
    "electra": "BertTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "gpt2": "GPT2Tokenizer",
}


def class_of(settings: Settings) -> str | None:
    """Returns the name of the class, or None if neither class nor family is known."""
    return settings.name or FAMILIES.get(settings.family or "")
