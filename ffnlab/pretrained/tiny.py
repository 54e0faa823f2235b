"""A small checkpoint from scratch: tokens of one's own texts, random parameters."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from ffnlab import DecoderConfig, EncoderConfig
from ffnlab.errors import InputError
from ffnlab.models.transformer import transformer_model
from ffnlab.pretrained import checkpoint

TOKENS = 4000  # at most; the more often a piece of text occurs, the sooner it is one
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_END = "<|endoftext|>"


def write(
    folder: Path, texts: Iterable[str], causal: bool, length: int, seed: int
) -> None:
    """Writes a directory like that of a BERT, or of a GPT-2, with random parameters.

    Two layers of width 128, as the smallest BERT of Turc et al. 2019.

    Args:
      folder: where to; it must not exist.
      texts: what its tokens are learned from.
      causal: whether it is a GPT-2.
      length: the most positions.
      seed: of the parameters.

    Raises:
      InputError: tokenizers is not installed.
    """
    try:
        import tokenizers
    except ImportError:
        need = "pip install 'ffnlab[pretrained]'"
        raise InputError(f"checkpoint=tiny needs tokenizers: {need}") from None
    inner = _pairs_of_bytes(tokenizers, texts) if causal else None
    pieces = [] if causal else _word_pieces(tokenizers, texts)
    kind = DecoderConfig if causal else EncoderConfig
    shape = kind(
        vocabulary=inner.get_vocab_size() if causal else len(pieces),
        features=128,
        heads=2,
        hidden=512,
        length=length,
        dropout=0.1,
        attention_dropout=0.1,
        pooler=not causal,
    )
    params = transformer_model(shape).init(jax.random.key(seed))
    family = "gpt2" if causal else "bert"
    about = {}
    if causal:
        end = inner.token_to_id(_END)
        about = {"bos_token_id": end, "eos_token_id": end}
    checkpoint.save(folder, shape, params, family=family, about=about)
    if causal:
        inner.save(str(folder / "tokenizer.json"))
    else:
        (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", "utf-8")


def _word_pieces(tokenizers: Any, texts: Iterable[str]) -> list[str]:
    """Returns pieces of words as BERT's tokenizer has them, of lower case."""
    inner = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    texts = [inner.normalizer.normalize_str(text) for text in texts]
    # In an order of their own: that in which the library meets them is not the same
    # each time, and decides between pairs that are as frequent.
    letters = sorted(set("".join(texts)) - set(" "))
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=max(TOKENS, 3 * len(letters)),
        special_tokens=[*_SPECIAL, *(f"##{letter}" for letter in letters)],
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    numbers = inner.get_vocab()
    return sorted(numbers, key=numbers.__getitem__)


def _pairs_of_bytes(tokenizers: Any, texts: Iterable[str]) -> Any:
    """Returns a tokenizer as GPT-2's."""
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    bytes_of = tokenizers.pre_tokenizers.ByteLevel
    inner.pre_tokenizer = bytes_of(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=TOKENS,
        special_tokens=[_END],
        initial_alphabet=bytes_of.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    inner.decoder = tokenizers.decoders.ByteLevel()
    return inner
