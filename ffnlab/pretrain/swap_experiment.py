"""Swaps the feed-forward blocks of a trained model, and reports what it costs."""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ffnlab import devices, io
from ffnlab.errors import InputError, choose
from ffnlab.escape import markdown, terminal
from ffnlab.nn.user_code import ImportOptions
from ffnlab.options import names_in, option
from ffnlab.report.run_directory import choose_unfinished

if TYPE_CHECKING:
    import numpy as np

    from ffnlab.data.corpus import Tokenizes
    from ffnlab.data.packing import Layout
    from ffnlab.models.block_swap import LayerRecord
    from ffnlab.models.transformer import TransformerConfig
    from ffnlab.report.table import Table
    from ffnlab.types import Params

_BLOCKS = names_in("ffnlab.nn.ffn", "BLOCKS")
_SECONDS = 60.0  # between two checkpoints


@dataclasses.dataclass(frozen=True)
class SwapConfig(ImportOptions):
    """Model, text and new blocks."""

    RENAMED: ClassVar[Mapping[str, str]] = {"length": "max_seq_length"}

    checkpoint: str | None = option(
        None,
        "Checkpoint directory of a BERT, RoBERTa, XLM-RoBERTa, DistilBERT, ELECTRA or "
        "GPT-2. Required.",
    )
    text: str | None = option(None, "Text file with one sequence per line. Required.")
    blocks: tuple[str, ...] = option(
        ("swiglu", "geglu", "mlp:relu"), "New blocks, tried one after another."
    )
    hidden: int | None = option(
        None,
        "Hidden width of the new blocks. The default gives as many parameters as the "
        "old blocks have.",
        least=1,
    )
    lines: int = option(2000, "Maximum number of lines to read.", least=10)
    max_seq_length: int = option(
        128, "Tokens per line; longer lines are truncated.", least=3
    )
    steps: int = option(
        500, "Training steps per block; 0 only solves the down projection.", least=0
    )
    learning_rate: float = option(1e-3, "Peak learning rate.", above=0)
    seed: int = option(0, "Random seed.", least=0, below=2**31)

    def __post_init__(self):
        super().__post_init__()
        for name in self.blocks:
            choose("blocks", name.partition(":")[0], _BLOCKS())
        for name in ("checkpoint", "text"):
            if not getattr(self, name):
                raise InputError(f"{name}: is needed")


class SwapResult(NamedTuple):
    """The result of swapping blocks.

    Attributes:
      out: The run directory.
      runs: A dict for each new block, as in results.jsonl.
      table: The results as a table.
    """

    out: Path
    runs: list[dict[str, Any]]
    table: "Table"


class _Transformer(NamedTuple):
    config: "TransformerConfig"
    params: "Params"


class _Evaluation(NamedTuple):
    """A model on the held-out lines.

    Attributes:
      states: Last states of all tokens, `[N, D]`.
      loss: Mean loss in nats per token; None without a head.
    """

    states: "np.ndarray"
    loss: float | None


def swap_blocks(config: SwapConfig) -> SwapResult:
    """Swaps the blocks of a checkpoint, and writes a report to a run directory.

    Raises:
      InputError: A file cannot be used, or the blocks of the model cannot be swapped.
    """
    from ffnlab import pretrained
    from ffnlab.data.tokenizer_files import checkpoint_tokenizer
    from ffnlab.report import run_directory

    out = choose_unfinished(config, "exchange")
    devices.select(config.device)
    lines = _read_lines(config)
    checkpoint = pretrained.load(config.checkpoint, pooler=False)
    tokenizer = checkpoint_tokenizer(config.checkpoint, checkpoint.config.vocabulary)
    tokens = _tokenize(config, tokenizer, lines)
    old = _Transformer(checkpoint.config, checkpoint.params)
    with run_directory.open_run(out, config, config.resume) as directory:
        run_directory.check_same_data(directory, _digest(old, tokens))
        print(terminal(f"writing to {directory}"), flush=True)
        runs = _swap_all(config, old, tokenizer, tokens, directory)
        table = _table(runs, loss=old.config.head != "none")
        print()
        table.show("errors of the new blocks, relative to the variance")
        io.write(directory / "report.md", _report(config, table))
        run_directory.finish(directory)
        print(f"\n{terminal(f'written to {directory}: report.md, results.jsonl')}")
    return SwapResult(directory, runs, table)


def _digest(model: _Transformer, tokens: "list[np.ndarray]") -> str:
    """Returns the SHA-256 of the model and the lines, in hexadecimal."""
    import numpy as np

    from ffnlab import trees

    sha256 = hashlib.sha256(repr([len(line) for line in tokens]).encode())
    sha256.update(np.concatenate(tokens).tobytes())
    for name, array in trees.flatten(model.params).items():
        sha256.update(name.encode() + np.asarray(array).tobytes())
    return sha256.hexdigest()


def _swap_all(
    config: SwapConfig,
    old: _Transformer,
    tokenizer: "Tokenizes",
    tokens: "list[np.ndarray]",
    directory: Path,
) -> list[dict[str, Any]]:
    """Returns the lines of all blocks, those that results.jsonl lacks after training.

    What is lost when the process dies is a minute of training, and the inputs and
    outputs of the old blocks, which may be too large to save and are recorded again.
    """
    from ffnlab.models import block_swap
    from ffnlab.report.progress import Progress

    path = directory / "results.jsonl"
    runs = {run["block"]: run for run in io.read_lines(path)}
    waiting = [block for block in config.blocks if block not in runs]
    if not waiting:
        return [runs[block] for block in config.blocks]
    count = max(len(tokens) // 10, 1)
    held_out, train = tokens[:count], tokens[count:]
    baseline = _evaluate(config, tokenizer, held_out, old)
    recorded = block_swap.record_layers(*old, train, _layouts(config, train))
    each = old.config.layers * (config.steps + 1)  # with the errors of each layer
    total, done = (each * len(blocks) for blocks in (config.blocks, runs))
    with Progress(total, "steps", done) as progress:
        for block in waiting:
            progress.begin(block)
            folder = directory / "checkpoints" / block.replace(":", "-")
            new, records = _train(
                config, old, train, recorded, block, folder, progress.reach
            )
            result = _evaluate(config, tokenizer, held_out, new)
            runs[block] = io.jsonable(_run(old, new, records, baseline, result))
            io.write_lines(path, [runs[b] for b in config.blocks if b in runs])
            progress.end()
    return [runs[block] for block in config.blocks]


def _read_lines(config: SwapConfig) -> list[str]:
    """Returns the lines of the text that are not empty."""
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


def _tokenize(
    config: SwapConfig, tokenizer: "Tokenizes", lines: list[str]
) -> "list[np.ndarray]":
    """Returns the tokens of each line, including the special tokens around it."""
    import numpy as np

    before, after = tokenizer.around
    room = config.max_seq_length - len(before) - len(after)
    texts = [tokenizer.stream(line.encode()).tokens[:room] for line in lines]
    return [np.concatenate([before, text, after]).astype(np.int32) for text in texts]


def _train(
    config: SwapConfig,
    old: _Transformer,
    tokens: "list[np.ndarray]",
    recorded: "tuple[np.ndarray, np.ndarray]",
    block: str,
    folder: Path,
    on_steps: Callable[[int], None],
) -> "tuple[_Transformer, list[LayerRecord]]":
    """Returns the model with new blocks, and the errors of the blocks."""
    import jax

    from ffnlab.models import block_swap
    from ffnlab.train.checkpoint import Checkpoints

    *new, records = block_swap.swap_block(
        *old,
        block,
        tokens,
        _layouts(config, tokens),
        hidden=config.hidden,
        steps=config.steps,
        learning_rate=config.learning_rate,
        key=jax.random.key(config.seed),
        recorded=recorded,
        checkpoints=Checkpoints(folder, _SECONDS, config.strict_resume),
        on_steps=on_steps,
    )
    return _Transformer(*new), records


def _evaluate(
    config: SwapConfig,
    tokenizer: "Tokenizes",
    tokens: "list[np.ndarray]",
    transformer: _Transformer,
) -> _Evaluation:
    states = _last_states(config, tokens, transformer)
    return _Evaluation(states, _loss(tokens, tokenizer, transformer))


def _run(
    old: _Transformer,
    new: _Transformer,
    records: "list[LayerRecord]",
    before: _Evaluation,
    after: _Evaluation,
) -> dict[str, Any]:
    """Returns the results for one kind of block, as in results.jsonl."""
    return {
        "block": new.config.block,
        "hidden": new.config.hidden,
        "parameters": new.config.feed_forward(0).parameters,
        "of": old.config.feed_forward(0).parameters,
        "solved": [record.initial_error for record in records],
        "trained": [record.trained_error for record in records],
        "loss": [before.loss, after.loss],
        **_compare_states(before.states, after.states),
    }


def _loss(
    tokens: "list[np.ndarray]", tokenizer: "Tokenizes", transformer: _Transformer
) -> float | None:
    """Returns the mean loss in nats per token; None if there is no head."""
    config, params = transformer
    if config.head == "none":
        return None
    import jax

    from ffnlab import data
    from ffnlab.data.corpus import sequence_data
    from ffnlab.models import language_model
    from ffnlab.train.evaluation import make_evaluate

    special = [token for side in tokenizer.around for token in side]
    part = sequence_data(tokens, special, masked=not config.causal)
    if config.causal:
        model = language_model.causal_lm(config)
    else:
        model = language_model.masked_lm(config, tokenizer.mask)
    objective = language_model.objective(1.0)
    evaluate = make_evaluate(model, objective, data.take, len(tokens), batch=16)
    return float(jax.jit(evaluate)(params, jax.device_put(part))["loss"])


def _layouts(config: SwapConfig, tokens: "list[np.ndarray]") -> "list[Layout]":
    from ffnlab.data.packing import pack_sequences

    lengths = [len(row) for row in tokens]
    return pack_sequences(lengths, width=max(config.max_seq_length, *lengths), rows=8)


def _last_states(
    config: SwapConfig, tokens: "list[np.ndarray]", transformer: _Transformer
) -> "np.ndarray":
    """Returns the last states of all tokens, `[N, D]`."""
    import jax
    import numpy as np

    from ffnlab.data.packing import gather
    from ffnlab.models.transformer import transformer_model

    apply = jax.jit(transformer_model(transformer.config).apply)
    states = []
    for layout in _layouts(config, tokens):
        rows, ids = gather(layout, tokens), layout.sequence
        _, aux = apply(transformer.params, rows, layout.mask, segment_ids=ids)
        states.append(np.asarray(aux["states"][-1])[layout.mask])
    return np.concatenate(states)


def _compare_states(before: "np.ndarray", after: "np.ndarray") -> dict[str, float]:
    """Returns the relative error and the mean cosine of states `[N, D]`."""
    import numpy as np

    variance = np.square(before - before.mean(axis=0)).sum()
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return {
        "states": float(np.square(after - before).sum() / variance),
        "cosine": float(((before * after).sum(axis=1) / norms).mean()),
    }


def _table(runs: list[dict[str, Any]], loss: bool) -> "Table":
    """Returns the results as a table, with the losses of a model that has a head."""
    from ffnlab.report.table import Table

    rows = []
    for run in runs:
        solved, trained, losses = (
            [*map(_number, run[name])] for name in ("solved", "trained", "loss")
        )
        cells = [
            run["block"],
            f"{run['hidden']:,}",
            f"{run['parameters']:,} ({run['parameters'] / run['of'] - 1:+.1%})",
            f"{min(solved):.3f} to {max(solved):.3f}",
            f"{min(trained):.3f} to {max(trained):.3f}",
            f"{_number(run['states']):.3f}",
            f"{_number(run['cosine']):.3f}",
            *(f"{each:.4f}" for each in (losses if loss else ())),
        ]
        rows.append(cells)
    columns = ["block", "hidden", "parameters", "solved", "trained", "states", "cosine"]
    columns += ["loss before", "loss after"] if loss else []
    return Table(columns, rows, words=1)


def _number(value: float | None) -> float:
    """Returns a number of results.jsonl, where NaN is null."""
    return math.nan if value is None else value


def _report(config: SwapConfig, table: "Table") -> str:
    """Returns report.md."""
    name = markdown(Path(config.checkpoint).resolve().name)
    return f"""# What does it cost to change the block of {name}?

{table.markdown()}

Errors are relative to the variance of the old outputs: 0 is a perfect copy, and 1 is
the error of predicting the mean. Solved and trained are errors of single blocks on
held-out tokens, from the best layer to the worst: with the down projection solved by
least squares, and after {config.steps} steps of training. States is the error of the
last states of the model with all blocks swapped, on lines that no block was trained on;
cosine is the mean cosine of the old and new states. The losses, for a checkpoint with a
head, are those of the language model on the same lines, in nats per token; a masked
model predicts 15 % of the tokens.
"""
