"""Writes a small checkpoint: a tokenizer of given texts, and random parameters."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from ffnlab import DecoderConfig, EncoderConfig
from ffnlab.errors import InputError
from ffnlab.models.transformer import transformer_model
from ffnlab.pretrained import checkpoint

TOKENS = 4000  # maximum size of the vocabulary
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_END = "<|endoftext|>"


def write(
    folder: Path, texts: Iterable[str], causal: bool, length: int, seed: int
) -> None:
    """Writes the checkpoint directory of a small BERT or GPT-2 with random parameters.

    The model has two layers of width 128, like the smallest BERT of Turc et al. 2019.

    Args:
      folder: The directory to write; it must not exist.
      texts: Texts that the tokenizer is trained on.
      causal: Whether to write a GPT-2 instead of a BERT.
      length: Maximum number of positions.
      seed: Random seed of the parameters.

    Raises:
      InputError: tokenizers is not installed.
    """
    try:
        import tokenizers
    except ImportError:
        need = "pip install 'ffnlab[pretrained]'"
        raise InputError(f"checkpoint=tiny needs tokenizers: {need}") from None
    inner = _byte_pairs(tokenizers, texts) if causal else None
    pieces = [] if causal else _word_pieces(tokenizers, texts)
    transformer = (DecoderConfig if causal else EncoderConfig)(
        vocabulary=inner.get_vocab_size() if causal else len(pieces),
        features=128,
        heads=2,
        hidden=512,
        length=length,
        dropout=0.1,
        attention_dropout=0.1,
        pooler=not causal,
    )
    params = transformer_model(transformer).init(jax.random.key(seed))
    family = "gpt2" if causal else "bert"
    about = {}
    if causal:
        end = inner.token_to_id(_END)
        about = {"bos_token_id": end, "eos_token_id": end}
    checkpoint.save(folder, transformer, params, family=family, about=about)
    if causal:
        inner.save(str(folder / "tokenizer.json"))
    else:
        (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", "utf-8")


def _word_pieces(tokenizers: Any, texts: Iterable[str]) -> list[str]:
    """Returns the vocabulary of a lower-case WordPiece tokenizer, as BERT has it."""
    inner = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    texts = [inner.normalizer.normalize_str(text) for text in texts]
    # A fixed order of the letters: the library breaks ties between equally frequent
    # pairs by the order in which it meets letters, which differs between runs.
    letters = sorted(set("".join(texts)) - set(" "))
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=max(TOKENS, 3 * len(letters)),
        special_tokens=[*_SPECIAL, *(f"##{letter}" for letter in letters)],
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    ids = inner.get_vocab()
    return sorted(ids, key=ids.__getitem__)


def _byte_pairs(tokenizers: Any, texts: Iterable[str]) -> Any:
    """Returns a byte-level BPE tokenizer, as GPT-2 has it."""
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    inner.pre_tokenizer = byte_level(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=TOKENS,
        special_tokens=[_END],
        initial_alphabet=byte_level.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    inner.decoder = tokenizers.decoders.ByteLevel()
    return inner
