"""How much time does packing save an encoder compared with padding?

Runs the sentences of a CoNLL file forward through an encoder in three layouts: packed
(several sentences share a row), bucketed (four widths) and padded (every sentence to
the longest). Prints the share of slots that hold a token and the time of each layout.
The states are checked to be equal. Without a checkpoint the encoder has the shape of
MiniLM with random parameters, and each word is one token.

    python -m benchmarks.padding --conll=test.conll --checkpoint=minilm
    python -m benchmarks.padding --rounds=1    (a smoke run on random lengths)
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
from ffnlab.data.tokenizer_files import read_tokenizer
from ffnlab.models.transformer import EncoderConfig, transformer_model
from ffnlab.options import option
from ffnlab.types import Model, Params


@dataclasses.dataclass(frozen=True)
class Config(protocol.Config):
    """Which sentences to run, and how many per batch; each field is a flag."""

    conll: str | None = option(None, "CoNLL file. Random lengths are used without it.")
    checkpoint: str | None = option(None, "Checkpoint directory of a BERT model.")
    sentences: int = option(128, "Number of sentences, from the start.", least=1)
    slots: int = option(1024, "Approximate number of slots per batch.", least=1)


def _tokens(config: Config) -> list[np.ndarray]:
    if not config.conll:
        rng = np.random.default_rng(config.seed)
        lengths = np.minimum(3 + rng.geometric(0.06, config.sentences), 120)
        return [rng.integers(0, 999, n) for n in lengths]
    words = data.read_conll(config.conll).tokens[: config.sentences]
    if config.checkpoint:
        return read_tokenizer(config.checkpoint).words(words, length=512).tokens
    return [np.arange(len(sentence)) for sentence in words]


def _work(apply: Any, layouts: list[Layout], tokens: list) -> Work:
    """Returns the forward pass of an encoder over all batches."""
    batches = [(gather(each, tokens), each.mask, each.sequence) for each in layouts]

    def run(_: None) -> list[np.ndarray]:
        states = [apply(*batch) for batch in batches]
        return jax.block_until_ready(states)

    return Work(run)


def _outputs(work: Work, layouts: list[Layout], tokens: list, width: int) -> list:
    outputs = [np.zeros((len(row), width), np.float32) for row in tokens]
    for layout, states in zip(layouts, work.once(), strict=True):
        scatter(layout, states, outputs)
    return outputs


def _model(config: Config) -> tuple[Model, Params, int]:
    """Returns an encoder, its parameters and its width."""
    if config.checkpoint:
        checkpoint = pretrained.load(config.checkpoint, head=False, pooler=False)
        return checkpoint.model, checkpoint.params, checkpoint.config.features
    shape = EncoderConfig.minilm_l6(vocabulary=1000, pooler=False)
    model = transformer_model(shape)
    return model, model.init(jax.random.key(config.seed)), shape.features


def run(config: Config) -> Any:
    """Prints and returns the table of times; settings give the share of full slots."""
    protocol.use_cpu()
    protocol.describe()
    model, params, width = _model(config)
    tokens = _tokens(config)
    lengths = [len(row) for row in tokens]
    longest = max(lengths)
    wide = max(longest, 128)
    layouts_by_name = {
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

    entries, expected = [], None
    for name, layouts in layouts_by_name.items():
        apply = together if name == "packed" else alone
        work = _work(apply, layouts, tokens)
        outputs = _outputs(work, layouts, tokens, width)
        expected = outputs if expected is None else expected
        protocol.check_equal(name, expected, outputs, rtol=1e-3, atol=1e-3)
        shapes = {layout.sequence.shape for layout in layouts}
        setting = f"{fill(layouts):.1%} of slots full, {len(shapes)} shapes"
        peer = name != "packed"
        entries.append(Entry(name, setting, work, len(tokens), None, peer))
    print(f"{len(tokens)} sentences, {sum(lengths)} tokens, longest {longest}")
    return protocol.compare("time per sentence, forward", "µs", entries, config)


if __name__ == "__main__":
    launch.main(Config, run, __doc__)
