"""Texts for texts by a fine-tuned decoder: translation, summary, dialogue."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffnlab.data.corpus import Tokenizes
from ffnlab.data.examples import Columns, Examples, read_labelled
from ffnlab.data.packed_rows import Rows
from ffnlab.data.seq2seq import Pairs, encode_pairs, left_padded, pack_pairs
from ffnlab.finetune import metrics, outputs, task
from ffnlab.finetune.finetuned_model import FinetunedModel
from ffnlab.finetune.outputs import Example, Prediction
from ffnlab.models import decoding, language_model
from ffnlab.models.transformer import TransformerConfig
from ffnlab.pretrained.checkpoint import Checkpoint
from ffnlab.report import plots
from ffnlab.report.table import Table
from ffnlab.train import layerwise
from ffnlab.types import Array, Batch, Model, Objective, Params

if TYPE_CHECKING:
    from ffnlab.finetune.config import Config

_SHOWN = 5  # texts in the report


@dataclasses.dataclass(frozen=True)
class GenerationTask:
    """Texts to be written, see `tasks.Task`.

    Attributes:
      config: the flags.
      examples: by part, as they were read; what is to be written are the labels.
      pairs: by part, as tokens.
      rows: by part, packed.
      found: the checkpoint.
      tokenizer: its tokenizer.
      summary: what a reader should know of the data.
    """

    config: "Config"
    examples: dict[str, Examples]
    pairs: dict[str, Pairs]
    rows: dict[str, Rows]
    found: Checkpoint
    tokenizer: Tokenizes
    summary: str

    monitor = "BLEU"
    vocab_ids = None  # every token may have to be written
    columns = {  # noqa: RUF012, of the class
        "BLEU": "bleu",
        "chrF": "chrf",
        "ROUGE-1": "rouge1",
        "ROUGE-2": "rouge2",
        "ROUGE-L": "rougeL",
        "exact match": "exact",
    }

    @property
    def sizes(self) -> dict[str, int]:
        """How many texts there are, by part."""
        return {part: len(found.texts) for part, found in self.examples.items()}

    @property
    def model(self) -> Model:
        """The decoder."""
        return task.with_dtype(
            self.config, language_model.conditional(self.found.config)
        )

    @property
    def objective(self) -> Objective:
        """Cross-entropy over the tokens to be written."""
        return layerwise.objective(self.config.label_smoothing)

    def count(self, batch: Batch) -> Array:
        """Returns how many tokens are to be written in a batch."""
        return layerwise.label_weights(batch["y"]).sum()

    def classes(self, outputs: Array, batch: Batch) -> Array:
        """Returns the logits of the classes for each entry of y."""
        return outputs

    def predictor(self, part: str, batch: int) -> Callable[[Params], list[str]]:
        """Returns what writes a text for each."""
        write, prompts = _writer(self), self.pairs[part].prompts
        return lambda params: write(params["encoder"], prompts)

    def score(self, part: str, predicted: list[str]) -> dict[str, Any]:
        """Returns the report of texts, a few of them, and `monitor`."""
        found = self.examples[part]
        scores = metrics.generation_report(predicted, found.labels)
        some = zip(found.texts, found.labels, predicted, strict=True)
        shown = [list(each) for each, _ in zip(some, range(_SHOWN), strict=False)]
        return {"headline": scores["bleu"], **scores, "shown": shown}

    def details(self, scores: dict[str, Any]) -> dict[str, Table]:
        """Returns a few texts, what was to be written for them and what was."""
        rows = [[" ".join(cell.split()) for cell in row] for row in scores["shown"]]
        return {"the first texts": Table(["text", "wanted", "written"], rows, words=3)}

    def draw(self, scores: dict[str, Any], directory: Path) -> dict[str, str]:
        """Draws the scores."""
        values = {name: scores[key] for name, key in self.columns.items()}
        figure = plots.by_type(values, "score")
        plots.save(figure, directory / "scores.png")
        return {"scores.png": "scores"}

    def write(self, part: str, predicted: list[str], directory: Path) -> None:
        """Writes texts in the format that the part was read in."""
        path = getattr(self.config, part) or self.config.train
        said = list(map(Prediction, predicted))
        outputs.write_predictions(directory, path, part, self.examples[part], said)

    def about(self) -> dict[str, Any]:
        """Returns what config.json says of its use."""
        return {
            "ffnlab_use": {
                "task": "generate",
                "dtype": self.config.dtype,
                "length": self.config.most,
                "target_length": self.config.max_target_length,
                "template": self.config.template,
                "beam": self.config.num_beams,
                "text_column": self.config.text_column,
            }
        }


def prepare(config: "Config") -> GenerationTask:
    """Reads all files and packs them; everything that can be wrong is found here."""
    metrics.generation_report(
        ["a"], ["a"]
    )  # what it needs is missed now, not after training
    columns = Columns(config.text_column, config.pair_column, config.label_column)

    def read(part: str) -> Examples:
        path = getattr(config, part) or config.train
        return read_labelled(path, "classify", columns, part)

    examples = task.read_parts(config, read)
    more = [read_labelled(path, "classify", columns) for path in config.extra]
    examples["train"] = examples["train"].joined(*more)
    texts = [*examples["train"].texts, *examples["train"].labels]
    found, tokenizer = task.read_checkpoint(config, texts, causal=True, head=True)
    pairs, rows, summary = {}, {}, []
    for part, each in examples.items():
        pairs[part] = encode_pairs(
            tokenizer,
            each.texts,
            each.labels,
            config.template,
            config.most,
            config.max_target_length,
        )
        how = task.packing_options(
            config, found, part, pairs[part].tokens, len(each.texts)
        )
        rows[part] = pack_pairs(pairs[part], **how)
        full, lost = rows[part].arrays["x/mask"].mean(), pairs[part].lost
        summary.append(
            f"{part}: {len(each.texts):,} texts in {len(rows[part].example_index):,} rows, "
            f"{full:.0%} full" + (f", {lost:,} tokens cut off" if lost else "")
        )
    return GenerationTask(
        config, examples, pairs, rows, found, tokenizer, "\n".join(summary)
    )


def _writer(
    task: GenerationTask,
) -> Callable[[Params, Sequence[np.ndarray]], list[str]]:
    config = task.config
    return make_generator(
        task.found.config,
        task.tokenizer,
        config.max_target_length,
        config.num_beams,
        16,
    )


def make_generator(
    shape: TransformerConfig,
    tokenizer: Tokenizes,
    steps: int,
    width: int | None,
    rows: int,
) -> Callable[[Params, Sequence[np.ndarray]], list[str]]:
    """Returns what goes on with prompts, the likeliest way.

    Args:
      shape: of the decoder.
      tokenizer: its tokenizer, which has an end token.
      steps: the most tokens to write.
      width: of a beam search; None takes the likeliest token each time.
      rows: prompts at a time.
    """
    options: dict[str, Any] = {"stop": tokenizer.end}

    def write(params: Params, prompts: Sequence[np.ndarray]) -> list[str]:
        texts = [""] * len(prompts)
        for batch in left_padded(prompts, rows):
            given = (shape, params, batch.tokens, steps)
            if width:
                found, _ = decoding.beam_search(
                    *given, mask=batch.mask, width=width, **options
                )
                found = found[:, 0]
            else:
                found = decoding.generate(*given, mask=batch.mask, **options)
            new = np.asarray(found)[:, batch.tokens.shape[1] :]
            for number, row in zip(batch.index, new, strict=False):
                ends = np.flatnonzero(row == tokenizer.end)
                kept = row[: ends[0]] if len(ends) else row
                texts[number] = tokenizer.decode(kept.tolist()).strip()
        return texts

    return write


def text_generator(
    tuned: FinetunedModel, cut: Callable[[int], Any], beam: int | None
) -> Callable[[Sequence[Example]], list[Prediction]]:
    """Returns what writes a text for each of some items."""
    about, shape = tuned.about, tuned.found.config

    def written(items: Sequence[Example]) -> list[Prediction]:
        pairs = encode_pairs(
            tuned.tokenizer,
            [item.text for item in items],
            None,
            about["template"],
            about["length"],
            about["target_length"],
        )
        cut(pairs.lost)
        write = make_generator(
            shape,
            tuned.tokenizer,
            about["target_length"],
            beam or about["beam"],
            1 << (len(items) - 1).bit_length(),
        )
        return [
            Prediction(text) for text in write(tuned.params["encoder"], pairs.prompts)
        ]

    return written
