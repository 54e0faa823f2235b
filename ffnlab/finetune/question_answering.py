"""Answers by a fine-tuned encoder: a span of a context, or that there is none."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ffnlab import io
from ffnlab.data.packed_rows import Rows, above, padded
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
from ffnlab.finetune.outputs import Format, Item, Said, answers_text
from ffnlab.models.span_qa import (
    AnswerConfig,
    answerer,
    best_spans,
    by_window,
    finder,
    objective,
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
class Answers:
    """Questions to be answered, see `tasks.Task`.

    Attributes:
      config: the flags.
      questions: by part, as they were read.
      windows: by part, what their contexts were cut into.
      rows: by part, packed; tokens are numbered by their place in `used`.
      used: the tokens that occur in any part, ascending.
      found: the checkpoint.
      tokenizer: its tokenizer.
      told: what a reader should know of the data.
    """

    config: "Config"
    questions: dict[str, Questions]
    windows: dict[str, Windows]
    rows: dict[str, Rows]
    used: np.ndarray
    found: Checkpoint
    tokenizer: Tokenizer
    told: str

    headline = "F1"
    columns = {"exact match": "exact", "F1": "f1"}  # noqa: RUF012, of the class

    @property
    def sizes(self) -> dict[str, int]:
        """How many questions there are, by part."""
        return {part: len(found.ids) for part, found in self.questions.items()}

    @property
    def model(self) -> Model:
        """The answerer."""
        shape = dataclasses.replace(self.found.config, vocabulary=len(self.used))
        config = AnswerConfig(shape, self.found.config.dropout)
        return task.computed(self.config, answerer(config))

    @property
    def objective(self) -> Objective:
        """Cross-entropy over the tokens of each window."""
        return objective()

    def count(self, batch: Batch) -> Array:
        """Returns how many windows a batch has."""
        return layerwise.counted(batch["y"][..., 0]).sum()

    def classes(self, outputs: Array, batch: Batch) -> Array:
        """Returns the logits of the tokens for each entry of y, `[B, K, 2, T]`."""
        return by_window(outputs, batch["x"]).swapaxes(1, 2)

    def predictor(self, part: str, batch: int) -> Callable[[Params], tuple]:
        """Returns what gives texts and their probabilities, by id."""
        rows = self.rows[part]
        find = finder(self.model, rows.arrays, batch, self.config.longest)

        def answered(params: Params) -> tuple[dict[str, str], dict[str, float]]:
            found = [rows.flat(each) for each in find(params)]
            asked, threshold = self.questions[part], self.config.threshold
            return texts_of(self.windows[part], asked, *found, threshold)

        return answered

    def score(self, part: str, predicted: tuple) -> dict[str, Any]:
        """Returns the report of answers, also by question word, and `headline`."""
        asked = self.questions[part]
        found = metrics.answers(predicted[0], asked)
        kinds = [_kind(question) for question in asked.questions]
        words = {}
        for kind in sorted(set(kinds)):
            some = asked.subset([i for i, each in enumerate(kinds) if each == kind])
            each = metrics.answers(predicted[0], some)
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
        texts, chances = predicted
        path = getattr(self.config, part) or self.config.train
        if path.lower().endswith(".jsonl"):
            asked = self.questions[part]
            items = map(Item, asked.questions, asked.contexts, asked.rows)
            said = (Said(texts[name], chances[name]) for name in asked.ids)
            lines = map(Format("jsonl").line, items, said)
            io.write(directory / f"predictions-{part}.jsonl", "".join(lines))
            return
        text = answers_text(texts)
        io.write(directory / f"predictions-{part}.json", text)

    def about(self) -> dict[str, Any]:
        """Returns what config.json says of the head, and how it is used."""
        return {
            "ffnlab_use": {
                "task": "qa",
                "dtype": self.config.dtype,
                "length": self.config.most,
                "stride": self.config.overlap,
                "longest": self.config.longest,
                "threshold": self.config.threshold,
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


def prepare(config: "Config") -> Answers:
    """Reads all files and packs them; everything that can be wrong is found here."""

    def read(part: str) -> Questions:
        return read_questions(getattr(config, part) or config.train)

    # The questions of one context stay together: what answers one may answer another.
    questions = task.parts_of(config, read, lambda found: found.contexts)
    for path in config.extra:
        questions["train"] = questions["train"].joined(read_questions(path))
    texts = [*questions["train"].contexts, *questions["train"].questions]
    found, tokenizer = task.read_checkpoint(config, texts, head=False, pooler=False)
    pieces, rows, told = {}, {}, []
    for part, asked in questions.items():
        pieces[part] = windows(tokenizer, asked, config.most, config.overlap)
        tokens = pieces[part].tokens
        how = task.rows_of(config, found, part, tokens, len(asked.ids))
        rows[part] = pack_windows(pieces[part], **how)
        told.append(_told(part, asked, pieces[part], rows[part]))
    arrays = [each.arrays for each in rows.values()]
    used = task.renumbered(arrays, task.hidden_by(config, tokenizer))
    return Answers(config, questions, pieces, rows, used, found, tokenizer,
                   "\n".join(told))  # fmt: skip


def _told(part: str, asked: Questions, pieces: Windows, rows: Rows) -> str:
    without = sum(not each for each in asked.answers)
    full = rows.arrays["x/mask"].mean()
    return (
        f"{part}: {len(asked.ids):,} questions, {without:,} without an answer, in "
        f"{len(pieces.tokens):,} windows, {len(rows.owner):,} rows, {full:.0%} full"
    )


def answers_to(tuned: FinetunedModel) -> Callable[[Sequence[Item]], list[Said]]:
    """Returns what answers questions, each with its context."""
    about = tuned.about
    find = jax.jit(
        lambda params, x: best_spans(
            tuned.model.apply(params, x, None)[0], x, about["longest"]
        )
    )

    def answered(items: Sequence[Item]) -> list[Said]:
        names = [str(number) for number in range(len(items))]
        none = [[] for _ in items]
        texts, contexts = [item.text for item in items], [item.pair for item in items]
        asked = Questions(names, texts, contexts, none, none)
        pieces = windows(tuned.tokenizer, asked, about["length"], about["stride"])
        width = above(max(map(len, pieces.tokens)), about["length"])
        rows = pack_windows(pieces, width)
        found = find(tuned.params, padded(rows.arrays))
        shape = rows.owner.shape
        flat = [rows.flat(np.asarray(each)[: shape[0], : shape[1]]) for each in found]
        said, chances = texts_of(pieces, asked, *flat, about["threshold"])
        return [Said(said[name], chances[name]) for name in names]

    return answered
