"""What does it cost to change the feed-forward block of a trained model?"""

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab import options
from ffnlab.errors import InputError, choose
from ffnlab.options import names_in, option
from ffnlab.report.run_directory import choose_directory

if TYPE_CHECKING:
    import numpy as np

    from ffnlab.data.corpus import Tokenizes
    from ffnlab.models.transformer import TransformerConfig
    from ffnlab.report.table import Table

_BLOCKS = names_in("ffnlab.nn.ffn", "BLOCKS")


@dataclasses.dataclass(frozen=True)
class SwapConfig:
    """What to exchange, and by which text; each field is a flag."""

    checkpoint: str | None = option(
        None, "a directory of a BERT, RoBERTa, DistilBERT or GPT-2; needed"
    )
    text: str | None = option(None, "a text file, a sequence a line; needed")
    blocks: tuple[str, ...] = option(
        ("swiglu", "geglu", "mlp:relu"), "the new blocks, in turn"
    )
    hidden: int | None = option(
        None, "their hidden width; equal parameters if not given", least=1
    )
    lines: int = option(2000, "the most lines to read", least=10)
    max_seq_length: int = option(128, "the most tokens of a line", least=3)
    steps: int = option(500, "of training each block; 0 is none", least=0)
    learning_rate: float = option(1e-3, "of that, at its peak", above=0)
    seed: int = option(0, "of what is drawn", least=0, below=2**31)
    out: str | None = option(None, "directory to write; runs/… if not given")

    def __post_init__(self):
        options.check(self)
        for name in self.blocks:
            choose("blocks", name.partition(":")[0], _BLOCKS())
        for name in ("checkpoint", "text"):
            if not getattr(self, name):
                raise InputError(f"{name}: is needed")


class SwapResult(NamedTuple):
    """What an exchange found.

    Attributes:
      out: the directory that holds it.
      runs: a dict for each new block, as in results.jsonl.
      table: the same, as it was printed.
    """

    out: Path
    runs: list[dict[str, Any]]
    table: "Table"


def swap_blocks(config: SwapConfig) -> SwapResult:
    """Exchanges the blocks and writes a report.

    Raises:
      InputError: a file cannot be used, or the model's blocks cannot be exchanged.
    """
    from ffnlab import io, pretrained
    from ffnlab.data.tokenizer import checkpoint_tokenizer
    from ffnlab.report import run_directory

    out = choose_directory(config.out, "exchange")
    lines = _lines(config)
    found = pretrained.load(config.checkpoint, pooler=False)
    tokenizer = checkpoint_tokenizer(config.checkpoint, found.config.vocabulary)
    tokens = _tokens(config, tokenizer, lines)
    flags = options.to_flags(config, leave_out=("out",))
    with run_directory.open_run(out, flags, resume=None) as directory:
        print(f"writing to {directory}", flush=True)
        runs = [
            _exchanged(config, found.config, found.params, tokenizer, tokens, block)
            for block in config.blocks
        ]
        io.write_lines(directory / "results.jsonl", runs)
        table = _table(runs)
        print()
        table.show("what the new blocks are off by, as shares of the variance")
        io.write(directory / "report.md", _report(config, table))
        print(f"\nwritten to {directory}: report.md, results.jsonl")
    return SwapResult(directory, runs, table)


def _lines(config: SwapConfig) -> list[str]:
    from ffnlab.data.files import require_file

    path = require_file(config.text)
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8") from None
    lines = [line for line in text.splitlines() if line.strip()][: config.lines]
    if len(lines) < 10:
        raise InputError(f"{path}: {len(lines)} lines of text; at least 10 are needed")
    return lines


def _tokens(
    config: SwapConfig, tokenizer: "Tokenizes", lines: list[str]
) -> "list[np.ndarray]":
    """Returns the tokens of each line, those around it included."""
    import numpy as np

    before, after = tokenizer.around
    room = config.max_seq_length - len(before) - len(after)
    inside = [tokenizer.stream(line.encode()).tokens[:room] for line in lines]
    return [np.concatenate([before, t, after]).astype(np.int32) for t in inside]


def _exchanged(
    config: SwapConfig,
    shape: "TransformerConfig",
    params: dict[str, Any],
    tokenizer: "Tokenizes",
    tokens: "list[np.ndarray]",
    block: str,
) -> dict[str, Any]:
    """Returns what one kind of block costs."""
    import jax

    from ffnlab.models import block_swap

    begun = time.monotonic()
    apart = max(len(tokens) // 10, 1)
    seen, unseen = tokens[apart:], tokens[:apart]
    options = {"hidden": config.hidden, "learning_rate": config.learning_rate}
    new, changed, told = block_swap.swap_block(
        shape,
        params,
        block,
        seen,
        _layouts(config, seen),
        steps=config.steps,
        key=jax.random.key(config.seed),
        **options,
    )
    whole = _gap(config, unseen, (shape, params), (new, changed))
    losses = [_loss(unseen, tokenizer, *each) for each in
              ((shape, params), (new, changed))]  # fmt: skip
    print(f"{block}: {time.monotonic() - begun:.0f} s", flush=True)
    return {
        "block": block,
        "hidden": new.hidden,
        "parameters": new.feed_forward(0).parameters,
        "of": shape.feed_forward(0).parameters,
        "solved": [each.solved for each in told],
        "trained": [each.trained for each in told],
        "loss": losses,
        **whole,
    }


def _loss(
    tokens: "list[np.ndarray]",
    tokenizer: "Tokenizes",
    shape: "TransformerConfig",
    params: dict[str, Any],
) -> float | None:
    """Returns the mean loss in nats a token; None if there is no head."""
    if shape.head == "none":
        return None
    import jax

    from ffnlab import data
    from ffnlab.data.corpus import sequence_data
    from ffnlab.models import language_model
    from ffnlab.train import loop

    special = [token for side in tokenizer.around for token in side]
    part = sequence_data(tokens, special, masked=not shape.causal)
    if shape.causal:
        model = language_model.causal(shape)
    else:
        model = language_model.masked(shape, tokenizer.mask)
    score = language_model.objective(1.0)
    evaluate = loop.make_evaluate(model, score, data.take, len(tokens), batch=16)
    return float(jax.jit(evaluate)(params, jax.device_put(part))["loss"])


def _layouts(config: SwapConfig, tokens: "list[np.ndarray]") -> list:
    from ffnlab.data.packing import pack_sequences

    lengths = [len(row) for row in tokens]
    return pack_sequences(lengths, width=max(config.max_seq_length, *lengths), rows=8)


def _gap(
    config: SwapConfig, tokens: "list[np.ndarray]", old: tuple, new: tuple
) -> dict[str, float]:
    """Returns how far the last states are apart, on lines kept from the matching."""
    import jax
    import numpy as np

    from ffnlab.data.packing import gather
    from ffnlab.models.transformer import transformer_model

    states = []
    for shape, params in (old, new):
        apply = jax.jit(transformer_model(shape).apply)
        found = []
        for layout in _layouts(config, tokens):
            given = gather(layout, tokens), layout.mask
            _, aux = apply(params, *given, segment_ids=layout.sequence)
            found.append(np.asarray(aux["states"][-1])[layout.mask])
        states.append(np.concatenate(found))
    before, after = states
    spread = np.square(before - before.mean(axis=0)).sum()
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return {
        "states": float(np.square(after - before).sum() / spread),
        "cosine": float(((before * after).sum(axis=1) / norms).mean()),
    }


def _table(runs: list[dict[str, Any]]) -> "Table":
    from ffnlab.report.table import Table

    def span(values: list[float]) -> str:
        return f"{min(values):.3f} to {max(values):.3f}"

    def told(run: dict[str, Any]) -> list[str]:
        return [f"{loss:.4f}" for loss in run["loss"] if loss is not None]

    rows = [
        [
            run["block"],
            f"{run['hidden']:,}",
            f"{run['parameters']:,} ({run['parameters'] / run['of'] - 1:+.1%})",
            span(run["solved"]),
            span(run["trained"]),
            f"{run['states']:.3f}",
            f"{run['cosine']:.3f}",
            *told(run),
        ]
        for run in runs
    ]
    columns = ["block", "hidden", "parameters", "solved", "trained", "states", "cosine"]
    columns += ["loss before", "loss after"] if told(runs[0]) else []
    return Table(columns, rows, words=1)


def _report(config: SwapConfig, table: "Table") -> str:
    name = Path(config.checkpoint).resolve().name
    return f"""# What does it cost to change the block of {name}?

{table.markdown()}

Errors are shares of the variance: 0 is what the old blocks do, 1 what their mean would
be. Solved and trained are of single blocks, from the best layer to the worst, on tokens
kept apart: with the projection down solved by least squares, and after {config.steps}
steps of training. States are the model's last, with all blocks exchanged, on lines that
no block was matched on; cosine is the mean between the old states and the new. Losses,
where the checkpoint has a head, are of the language model on those lines, in nats a
token, for a masked one of the 15 % that are hidden.
"""
