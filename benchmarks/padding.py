"""How much of an encoder's work goes to padding, and what is it to leave it out?

The sentences of a CoNLL file through an encoder, forward, by three layouts: packed
(several sentences share a row), bucketed (four widths) and padded (every sentence to
the longest). Real tokens per slot are printed for each, and times of the same work,
checked to give equal states. Without a checkpoint the encoder is MiniLM's shape with
random parameters, and a word is a token.

    python -m benchmarks.padding --conll=test.conll --checkpoint=minilm
    python -m benchmarks.padding --rounds=1    (a smoke run, on lengths drawn at random)
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from benchmarks import protocol
from benchmarks.protocol import Entry, Work
from experiments import launch
from ffnlab import data, pretrained
from ffnlab.data.packing import (
    Layout,
    best_widths,
    bucket_sequences,
    fill,
    gather,
    pack_sequences,
    pad_sequences,
    scatter,
)
from ffnlab.data.tokenizer import read_tokenizer
from ffnlab.models.transformer import EncoderConfig, transformer_model
from ffnlab.options import option


@dataclasses.dataclass(frozen=True)
class Config(protocol.Config):
    """What to lay out; each field is a flag."""

    conll: str | None = option(None, "a CoNLL file; random lengths if not given")
    checkpoint: str | None = option(None, "a checkpoint directory of a BERT")
    sentences: int = option(128, "how many of them, from the start", least=1)
    slots: int = option(1024, "slots in a batch, about", least=1)


def _tokens(config: Config) -> list[np.ndarray]:
    if not config.conll:
        rng = np.random.default_rng(config.seed)
        lengths = np.minimum(3 + rng.geometric(0.06, config.sentences), 120)
        return [rng.integers(0, 999, n) for n in lengths]
    words = data.read_conll(config.conll).tokens[: config.sentences]
    if config.checkpoint:
        return read_tokenizer(config.checkpoint).words(words, length=512).tokens
    return [np.arange(len(sentence)) for sentence in words]


def _work(apply: Any, layouts: list[Layout], tokens: list, width: int) -> Work:
    """Runs an encoder over all batches."""
    batches = [(gather(each, tokens), each.mask, each.sequence) for each in layouts]

    def run(_: None) -> list[np.ndarray]:
        states = [apply(*batch) for batch in batches]
        return jax.block_until_ready(states)

    return Work(run)


def _outputs(work: Work, layouts: list[Layout], tokens: list, width: int) -> list:
    found = [np.zeros((len(row), width), np.float32) for row in tokens]
    for layout, states in zip(layouts, work.once(), strict=True):
        scatter(layout, states, found)
    return found


def run(config: Config) -> Any:
    """Prints the shares of padding and the times, and returns the table."""
    protocol.use_cpu()
    protocol.describe()
    if config.checkpoint:
        found = pretrained.load(config.checkpoint, head=False, pooler=False)
        model, params, width = found.model, found.params, found.config.features
    else:
        shape = EncoderConfig.minilm_l6(vocabulary=1000, pooler=False)
        model, width = transformer_model(shape), shape.features
        params = model.init(jax.random.key(config.seed))
    tokens = _tokens(config)
    lengths = [len(row) for row in tokens]
    longest = max(lengths)
    wide = max(longest, 128)
    ways = {
        "packed": pack_sequences(lengths, wide, max(config.slots // wide, 1)),
        "bucketed": bucket_sequences(lengths, best_widths(lengths, 4), config.slots),
        "padded": pad_sequences(lengths, longest, max(config.slots // longest, 1)),
    }

    @jax.jit
    def together(x: jax.Array, mask: jax.Array, segment_ids: jax.Array) -> jax.Array:
        return model.apply(params, x, mask, segment_ids=segment_ids)[0]

    @jax.jit
    def alone(x: jax.Array, mask: jax.Array, segment_ids: jax.Array) -> jax.Array:
        return model.apply(params, x, mask)[0]

    entries, wanted = [], None
    for name, layouts in ways.items():
        apply = together if name == "packed" else alone
        work = _work(apply, layouts, tokens, width)
        outputs = _outputs(work, layouts, tokens, width)
        wanted = outputs if wanted is None else wanted
        protocol.check_equal(name, wanted, outputs, rtol=1e-3, atol=1e-3)
        shapes = {layout.sequence.shape for layout in layouts}
        setting = f"{fill(layouts):.1%} of slots full, {len(shapes)} shapes"
        peer = name != "packed"
        entries.append(Entry(name, setting, work, len(tokens), None, peer))
    print(f"{len(tokens)} sentences, {sum(lengths)} tokens, the longest {longest}")
    return protocol.contest("a sentence through the encoder", "µs", entries, config)


if __name__ == "__main__":
    launch.main(Config, run, __doc__)
