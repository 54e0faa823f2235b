"""Answers by a fine-tuned encoder: a span of a context, or that there is none."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ffnlab import io
from ffnlab.data.packed_rows import Rows, next_width, pad_rows
from ffnlab.data.squad import (
    Questions,
    Windows,
    pack_windows,
    read_questions,
    texts_of,
    windows,
)
from ffnlab.data.tokenizer import Tokenizer
from ffnlab.finetune import metrics, task
from ffnlab.finetune.finetuned_model import FinetunedModel
from ffnlab.finetune.outputs import Example, Format, Prediction, answers_json
from ffnlab.models.span_qa import (
    SpanQAConfig,
    best_spans,
    by_window,
    make_span_finder,
    objective,
    span_qa_model,
)
from ffnlab.pretrained.checkpoint import Checkpoint
from ffnlab.report import plots
from ffnlab.report.table import Table
from ffnlab.train import layerwise
from ffnlab.types import Array, Batch, Model, Objective, Params

if TYPE_CHECKING:
    from ffnlab.finetune.config import Config

_WORDS = ("who", "what", "when", "where", "which", "why", "how")


@dataclasses.dataclass(frozen=True)
class QuestionAnsweringTask:
    """Questions to be answered, see `tasks.Task`.

    Attributes:
      config: the flags.
      questions: by part, as they were read.
      windows: by part, what their contexts were cut into.
      rows: by part, packed; tokens are numbered by their place in `vocab_ids`.
      vocab_ids: the tokens that occur in any part, ascending.
      found: the checkpoint.
      tokenizer: its tokenizer.
      summary: what a reader should know of the data.
    """

    config: "Config"
    questions: dict[str, Questions]
    windows: dict[str, Windows]
    rows: dict[str, Rows]
    vocab_ids: np.ndarray
    found: Checkpoint
    tokenizer: Tokenizer
    summary: str

    monitor = "F1"
    columns = {"exact match": "exact", "F1": "f1"}  # noqa: RUF012, of the class

    @property
    def sizes(self) -> dict[str, int]:
        """How many questions there are, by part."""
        return {part: len(found.ids) for part, found in self.questions.items()}

    @property
    def model(self) -> Model:
        """The answerer."""
        shape = dataclasses.replace(self.found.config, vocabulary=len(self.vocab_ids))
        config = SpanQAConfig(shape, self.found.config.dropout)
        return task.with_dtype(self.config, span_qa_model(config))

    @property
    def objective(self) -> Objective:
        """Cross-entropy over the tokens of each window."""
        return objective()

    def count(self, batch: Batch) -> Array:
        """Returns how many windows a batch has."""
        return layerwise.label_weights(batch["y"][..., 0]).sum()

    def classes(self, outputs: Array, batch: Batch) -> Array:
        """Returns the logits of the tokens for each entry of y, `[B, K, 2, T]`."""
        return by_window(outputs, batch["x"]).swapaxes(1, 2)

    def predictor(self, part: str, batch: int) -> Callable[[Params], tuple]:
        """Returns what gives texts and their probabilities, by id."""
        rows = self.rows[part]
        find = make_span_finder(
            self.model, rows.arrays, batch, self.config.max_answer_length
        )

        def answered(params: Params) -> tuple[dict[str, str], dict[str, float]]:
            found = [rows.flat(each) for each in find(params)]
            asked, threshold = (
                self.questions[part],
                self.config.null_score_diff_threshold,
            )
            return texts_of(self.windows[part], asked, *found, threshold)

        return answered

    def score(self, part: str, predicted: tuple) -> dict[str, Any]:
        """Returns the report of answers, also by question word, and `monitor`."""
        asked = self.questions[part]
        found = metrics.question_answering_report(predicted[0], asked)
        kinds = [_kind(question) for question in asked.questions]
        words = {}
        for kind in sorted(set(kinds)):
            some = asked.subset([i for i, each in enumerate(kinds) if each == kind])
            each = metrics.question_answering_report(predicted[0], some)
            words[kind] = {"exact": each["exact"], "f1": each["f1"],
                           "support": len(some.ids)}  # fmt: skip
        return {"headline": found["f1"], **found, "words": words}

    def details(self, scores: dict[str, Any]) -> dict[str, Table]:
        """Returns the scores with and without an answer, and by question word."""
        return {
            "by whether there is an answer": _table("questions", scores["types"]),
            "by question word": _table("question word", scores["words"]),
        }

    def draw(self, scores: dict[str, Any], directory: Path) -> dict[str, str]:
        """Draws F1 by question word."""
        figure = plots.by_type({k: v["f1"] for k, v in scores["words"].items()})
        plots.save(figure, directory / "types.png")
        return {"types.png": "F1 by question word"}

    def write(self, part: str, predicted: tuple, directory: Path) -> None:
        """Writes answers by id, as SQuAD's evaluation takes them, or JSON lines."""
        texts, probabilities = predicted
        path = getattr(self.config, part) or self.config.train
        if path.lower().endswith(".jsonl"):
            asked = self.questions[part]
            items = map(Example, asked.questions, asked.contexts, asked.rows)
            said = (Prediction(texts[name], probabilities[name]) for name in asked.ids)
            lines = map(Format("jsonl").line, items, said)
            io.write(directory / f"predictions-{part}.jsonl", "".join(lines))
            return
        text = answers_json(texts)
        io.write(directory / f"predictions-{part}.json", text)

    def about(self) -> dict[str, Any]:
        """Returns what config.json says of the head, and how it is used."""
        return {
            "ffnlab_use": {
                "task": "qa",
                "dtype": self.config.dtype,
                "length": self.config.most,
                "stride": self.config.overlap,
                "longest": self.config.max_answer_length,
                "threshold": self.config.null_score_diff_threshold,
                "text_column": "question",
                "pair_column": "context",
            }
        }


def _kind(question: str) -> str:
    """Returns the first question word of a question.

    >>> _kind("In which year?"), _kind("Is it?")
    ('which', 'other')
    """
    words = question.lower().replace("?", " ").split()
    return next((word for word in words if word in _WORDS), "other")


def _table(first: str, scores: dict[str, dict[str, float]]) -> Table:
    rows = [
        [name, f"{100 * each['exact']:.2f}", f"{100 * each['f1']:.2f}",
         f"{each['support']:,.0f}"]
        for name, each in scores.items()
    ]  # fmt: skip
    return Table([first, "exact match, %", "F1, %", "support"], rows, words=1)


def prepare(config: "Config") -> QuestionAnsweringTask:
    """Reads all files and packs them; everything that can be wrong is found here."""

    def read(part: str) -> Questions:
        return read_questions(getattr(config, part) or config.train)

    # The questions of one context stay together: what answers one may answer another.
    questions = task.read_parts(config, read, lambda found: found.contexts)
    for path in config.extra:
        questions["train"] = questions["train"].joined(read_questions(path))
    texts = [*questions["train"].contexts, *questions["train"].questions]
    found, tokenizer = task.read_checkpoint(config, texts, head=False, pooler=False)
    pieces, rows, summary = {}, {}, []
    for part, asked in questions.items():
        pieces[part] = windows(tokenizer, asked, config.most, config.overlap)
        tokens = pieces[part].tokens
        how = task.packing_options(config, found, part, tokens, len(asked.ids))
        rows[part] = pack_windows(pieces[part], **how)
        summary.append(_summary(part, asked, pieces[part], rows[part]))
    arrays = [each.arrays for each in rows.values()]
    vocab_ids = task.renumber_tokens(arrays, task.mask_tokens_of(config, tokenizer))
    return QuestionAnsweringTask(config, questions, pieces, rows, vocab_ids, found, tokenizer,
                   "\n".join(summary))  # fmt: skip


def _summary(part: str, asked: Questions, pieces: Windows, rows: Rows) -> str:
    without = sum(not each for each in asked.answers)
    full = rows.arrays["x/mask"].mean()
    return (
        f"{part}: {len(asked.ids):,} questions, {without:,} without an answer, in "
        f"{len(pieces.tokens):,} windows, {len(rows.example_index):,} rows, {full:.0%} full"
    )


def question_answerer(
    tuned: FinetunedModel,
) -> Callable[[Sequence[Example]], list[Prediction]]:
    """Returns what answers questions, each with its context."""
    about = tuned.about
    find = jax.jit(
        lambda params, x: best_spans(
            tuned.model.apply(params, x, None)[0], x, about["longest"]
        )
    )

    def answered(items: Sequence[Example]) -> list[Prediction]:
        names = [str(number) for number in range(len(items))]
        none = [[] for _ in items]
        texts, contexts = [item.text for item in items], [item.pair for item in items]
        asked = Questions(names, texts, contexts, none, none)
        pieces = windows(tuned.tokenizer, asked, about["length"], about["stride"])
        width = next_width(max(map(len, pieces.tokens)), about["length"])
        rows = pack_windows(pieces, width)
        found = find(tuned.params, pad_rows(rows.arrays))
        shape = rows.example_index.shape
        flat = [rows.flat(np.asarray(each)[: shape[0], : shape[1]]) for each in found]
        said, probabilities = texts_of(pieces, asked, *flat, about["threshold"])
        return [Prediction(said[name], probabilities[name]) for name in names]

    return answered
