"""Text-to-text generation by a fine-tuned decoder: translation, summary, dialogue."""

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ffnlab.data.corpus import Tokenizes
from ffnlab.data.examples import Columns, Examples, read_labelled
from ffnlab.data.packed_rows import Rows
from ffnlab.data.padding import next_power
from ffnlab.data.seq2seq import (
    Pairs,
    Prompts,
    encode_pairs,
    left_padded,
    pack_pairs,
)
from ffnlab.finetune import error_rows, metrics, outputs
from ffnlab.finetune.finetuned_model import FinetunedModel
from ffnlab.finetune.outputs import Example, Prediction
from ffnlab.finetune.predict_options import PredictOptions
from ffnlab.finetune.splitting import layout_notes, read_parts
from ffnlab.finetune.task import (
    MONITORED,
    Task,
    notes,
    packing_options,
    read_checkpoint,
)
from ffnlab.finetune.usage import Usage
from ffnlab.models import decoding, language_model
from ffnlab.models.transformer import TransformerConfig
from ffnlab.report import plots
from ffnlab.report.table import Table
from ffnlab.types import Model, Params

if TYPE_CHECKING:
    from ffnlab.finetune.config import Config

_SHOWN = 5  # examples in the report
_ROWS = 16  # prompts per batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationTask(Task):
    """A text to be generated from each text; the labels of examples are the targets.

    Attributes:
      pairs: The prompts and targets by part, as tokens.
    """

    pairs: dict[str, Pairs]

    monitor = "BLEU"
    columns = {  # noqa: RUF012, of the class
        "BLEU": "bleu",
        "chrF": "chrf",
        "ROUGE-1": "rouge1",
        "ROUGE-2": "rouge2",
        "ROUGE-L": "rougeL",
        "exact match": "exact",
    }

    @property
    def float32_model(self) -> Model:
        """The decoder."""
        return language_model.seq2seq_lm(self.checkpoint.config)

    def predictor(self, part: str, batch: int) -> Callable[[Params], list[str]]:
        """Returns a function to the generated texts."""
        config, prompts = self.config, self.pairs[part].prompts
        generate = make_generator(
            self.checkpoint.config,
            self.tokenizer,
            config.max_target_length,
            config.num_beams,
            _ROWS,
        )
        return lambda params: [t or "" for t in generate(params["encoder"], prompts)]

    def score(self, part: str, predicted: list[str]) -> dict[str, Any]:
        """Returns BLEU, chrF, ROUGE and exact match, and a few of the texts."""
        examples = self.examples[part]
        scores = metrics.generation_report(predicted, examples.labels)
        columns = (examples.texts, examples.labels, predicted)
        shown = [list(row) for row in zip(*(c[:_SHOWN] for c in columns), strict=True)]
        return {MONITORED: scores["bleu"], **scores, "shown": shown}

    def details(self, scores: dict[str, Any]) -> dict[str, Table]:
        """Returns a few texts, with their targets and what was generated."""
        rows = [[" ".join(cell.split()) for cell in row] for row in scores["shown"]]
        return {"the first texts": Table(["text", "wanted", "written"], rows, words=3)}

    def draw(self, scores: dict[str, Any], directory: Path) -> dict[str, str]:
        """Draws the scores."""
        values = {name: scores[key] for name, key in self.columns.items()}
        figure = plots.scores_by_label(values, "score")
        plots.save(figure, directory / "scores.png")
        return {"scores.png": "scores"}

    def write(self, part: str, predicted: list[str], directory: Path) -> None:
        """Writes generated texts in the format of the part's file."""
        path, texts = self.config.file_of(part), list(map(Prediction, predicted))
        outputs.write_predictions(directory, path, part, self.examples[part], texts)

    def errors(self, part: str, predicted: list[str]) -> list[dict[str, Any]]:
        """Returns the generated texts that differ from their targets."""
        return error_rows.of_generated(self.examples[part], predicted)

    def usage(self) -> Usage:
        """Returns how the fine-tuned model is used."""
        config = self.config
        return Usage(
            "generate",
            config.max_length,
            dtype=config.dtype,
            text_column=self.examples["train"].layout.columns.text,
            max_target_length=config.max_target_length,
            template=config.template,
            num_beams=config.num_beams,
        )


def prepare(config: "Config") -> GenerationTask:
    """Returns the task of a config, with all files read, checked and packed.

    Raises:
      InputError: A file, the checkpoint or a flag cannot be used, or the libraries of
        the metrics are missing.
    """
    metrics.generation_report(["a"], ["a"])  # a missing library fails before training
    examples, summary = _read_examples(config)
    texts = [*examples["train"].texts, *examples["train"].labels]
    checkpoint, tokenizer = read_checkpoint(config, texts, causal=True, head=True)
    pairs, rows = {}, {}
    summary += notes(checkpoint, tokenizer)
    for part, each in examples.items():
        pairs[part] = encode_pairs(
            tokenizer,
            each.texts,
            each.labels,
            config.template,
            config.max_length,
            config.max_target_length,
        )
        tokens = pairs[part].tokens
        options = packing_options(config, checkpoint, part, tokens, len(each.texts))
        rows[part] = pack_pairs(pairs[part], **options)
        summary.append(_summary(part, pairs[part], rows[part]))
    return GenerationTask(
        config=config,
        examples=examples,
        rows=rows,
        checkpoint=checkpoint,
        tokenizer=tokenizer,
        vocab_ids=None,  # any token may have to be generated
        summary="\n".join(summary),
        pairs=pairs,
    )


def _read_examples(config: "Config") -> tuple[dict[str, Examples], list[str]]:
    """Returns the examples by part, those of --extra in train; and what was found."""
    columns = Columns(config.text_column, config.pair_column, config.label_column)

    def read(part: str) -> Examples:
        return read_labelled(config.file_of(part), "generate", columns, part)

    examples = read_parts(config, read).examples
    extra = [read_labelled(path, "generate", columns) for path in config.extra]
    found = layout_notes(config, examples, extra)
    return {**examples, "train": examples["train"].joined(*extra)}, found


def _summary(part: str, pairs: Pairs, rows: Rows) -> str:
    """Returns a line on a part: its size, how full its rows are, what was cut off."""
    full = rows.arrays["x/mask"].mean()
    lost = f", {pairs.lost:,} tokens cut off" if pairs.lost else ""
    return (
        f"{part}: {len(pairs.tokens):,} texts packed into "
        f"{len(rows.example_index):,} rows, {full:.0%} full{lost}"
    )


def make_generator(
    shape: TransformerConfig,
    tokenizer: Tokenizes,
    max_new_tokens: int,
    num_beams: int | None,
    rows: int,
    **sampling: Any,
) -> Callable[[Params, Sequence[np.ndarray]], list[str | None]]:
    """Returns a function from parameters and prompts to their likeliest continuations.

    A continuation is None where the scores of its tokens are not finite.

    Args:
      shape: The configuration of the decoder.
      tokenizer: Its tokenizer, which has an end token.
      max_new_tokens: The maximum number of tokens to generate.
      num_beams: The width of the beam search; None decodes greedily.
      rows: Prompts per batch.
      **sampling: Options of `decoding.generate` that sample, instead of `num_beams`.
    """

    def decode(params: Params, batch: Prompts) -> np.ndarray:
        """Returns the new tokens of a batch `[B, N]`; −1 if scores are not finite."""
        options: dict[str, Any] = {"mask": batch.mask, "stop": tokenizer.end}
        given = (shape, params, batch.tokens, max_new_tokens)
        if num_beams:
            beams, scores = decoding.beam_search(*given, width=num_beams, **options)
            finite = np.isfinite(scores[:, :1])
            tokens = np.where(finite, beams[:, 0], -1)
        else:
            tokens = decoding.generate(*given, **options, **sampling)
        return np.asarray(tokens)[:, batch.tokens.shape[1] :]

    def generate(params: Params, prompts: Sequence[np.ndarray]) -> list[str | None]:
        texts: list[str | None] = [None] * len(prompts)
        for batch in left_padded(prompts, rows):
            pairs = zip(batch.index, decode(params, batch), strict=False)
            for number, row in pairs:
                if (row < 0).any():
                    continue
                ends = np.flatnonzero(row == tokenizer.end)
                kept = row[: ends[0]] if len(ends) else row
                texts[number] = tokenizer.decode(kept.tolist()).strip()
        return texts

    return generate


def text_generator(
    model: FinetunedModel, report_lost: Callable[[int], Any], options: PredictOptions
) -> Callable[[Sequence[Example]], list[Prediction]]:
    """Returns a function that generates a text for each example.

    Args:
      model: The fine-tuned decoder.
      report_lost: Receives the number of tokens that were cut off, call by call.
      options: The options of decoding; those that are not given are those of training.
    """
    usage = model.usage
    longest = options.max_target_length or usage.max_target_length

    def generate(examples: Sequence[Example]) -> list[Prediction]:
        texts = [example.text for example in examples]
        pairs = encode_pairs(
            model.tokenizer, texts, None, usage.template, usage.max_seq_length, longest
        )
        report_lost(pairs.lost)
        write = make_generator(
            model.checkpoint.config,
            model.tokenizer,
            longest,
            None if options.samples else options.num_beams or usage.num_beams,
            next_power(len(examples)),
            **_sampling(options, texts),
        )
        written = write(model.params["encoder"], pairs.prompts)
        lost = Prediction("", float("nan"))
        return [lost if text is None else Prediction(text) for text in written]

    return generate


def _sampling(options: PredictOptions, texts: Sequence[str]) -> dict[str, Any]:
    """Returns the options that sample from a batch; its texts choose the key."""
    if not options.samples:
        return {}
    batch = zlib.crc32("\0".join(texts).encode())
    return {
        "key": jax.random.fold_in(jax.random.key(options.seed), batch),
        "temperature": 1.0 if options.temperature is None else options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
    }
