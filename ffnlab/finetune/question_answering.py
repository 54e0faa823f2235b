"""Question answering by a fine-tuned encoder: a span of a context, or no answer."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ffnlab import io
from ffnlab.data.example import Example
from ffnlab.data.examples import Examples
from ffnlab.data.packed_rows import Rows, next_width, pad_rows
from ffnlab.data.squad import Questions, read_questions
from ffnlab.data.squad_windows import (
    Windows,
    choose_answers,
    pack_windows,
    rank_answers,
    texts_of,
    windows,
)
from ffnlab.finetune import error_rows, metrics
from ffnlab.finetune.finetuned_model import FinetunedModel
from ffnlab.finetune.outputs import (
    Answer,
    Prediction,
    answers_json,
    write_predictions,
)
from ffnlab.finetune.splitting import layout_notes, read_parts
from ffnlab.finetune.task import (
    MONITORED,
    Task,
    mask_token_ids,
    notes,
    packing_options,
    read_checkpoint,
    renumber_tokens,
)
from ffnlab.finetune.usage import Usage
from ffnlab.models.span_qa import (
    SpanQAConfig,
    best_spans,
    make_span_finder,
    span_qa_model,
    window_logits,
)
from ffnlab.report import plots
from ffnlab.report.table import Table
from ffnlab.train.objectives import cross_entropy_objective, label_weights
from ffnlab.types import Array, Batch, Model, Objective, Params

if TYPE_CHECKING:
    from ffnlab.finetune.config import Config

_WORDS = ("who", "what", "when", "where", "which", "why", "how")


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionAnsweringTask(Task):
    """The span of a context that answers a question, or that there is none.

    Attributes:
      windows: The windows by part into which the contexts are cut.
    """

    windows: dict[str, Windows]

    monitor = "F1"
    columns = {"exact match": "exact", "F1": "f1"}  # noqa: RUF012, of the class

    @property
    def float32_model(self) -> Model:
        """The model of start and end."""
        encoder = self.checkpoint.config
        shape = dataclasses.replace(encoder, vocabulary=len(self.vocab_ids))
        return span_qa_model(SpanQAConfig(shape, encoder.dropout))

    @property
    def objective(self) -> Objective:
        """The objective of training: cross-entropy over the tokens of each window."""
        return cross_entropy_objective(class_logits=window_logits, joint=True)

    def train_examples(self, rows: np.ndarray) -> list[int]:
        """Returns the numbers of the training questions in some rows, ascending."""
        numbers = self.windows["train"].question[super().train_examples(rows)]
        return np.unique(numbers).tolist()

    def train_text(self, number: int) -> str:
        """Returns a question of the training part."""
        return self.examples["train"].questions[number]

    def count(self, batch: Batch) -> Array:
        """Returns the number of windows of a batch."""
        return label_weights(batch["y"][..., 0]).sum()

    def class_logits(self, outputs: Array, batch: Batch) -> Array:
        """Returns the logits of the tokens for each entry of y, `[B, K, 2, T]`."""
        return window_logits(outputs, batch)

    def predictor(self, part: str, batch: int) -> Callable[[Params], tuple]:
        """Returns a function to answers and their probabilities, by id."""
        rows, config = self.rows[part], self.config
        find_spans = make_span_finder(
            self.model, rows.arrays, batch, config.max_answer_length
        )

        def answer(params: Params) -> tuple[dict[str, str], dict[str, float]]:
            spans = [rows.flat(array) for array in find_spans(params)]
            questions, threshold = (
                self.examples[part],
                config.null_score_diff_threshold,
            )
            return texts_of(self.windows[part], questions, *spans, threshold)

        return answer

    def score(self, part: str, predicted: tuple) -> dict[str, Any]:
        """Returns exact match and F1, also by question word."""
        answers, questions = predicted[0], self.examples[part]
        scores = metrics.question_answering_report(answers, questions)
        return {
            MONITORED: scores["f1"],
            **scores,
            "words": _by_question_word(answers, questions),
        }

    def example_scores(self, part: str, predicted: tuple) -> np.ndarray:
        """Returns the F1 of each answer."""
        return metrics.answer_scores(predicted[0], self.examples[part])[:, 1]

    def details(self, scores: dict[str, Any]) -> dict[str, Table]:
        """Returns the scores with and without an answer, and by question word."""
        return {
            "by whether there is an answer": _table("questions", scores["types"]),
            "by question word": _table("question word", scores["words"]),
        }

    def draw(self, scores: dict[str, Any], directory: Path) -> dict[str, str]:
        """Draws F1 by question word."""
        figure = plots.scores_by_label({k: v["f1"] for k, v in scores["words"].items()})
        plots.save(figure, directory / "types.png")
        return {"types.png": "F1 by question word"}

    def write(self, part: str, predicted: tuple, directory: Path) -> None:
        """Writes answers by id, as SQuAD's evaluation takes them, or rows."""
        texts, probabilities = predicted
        asked, path = self.examples[part], self.config.file_of(part)
        if asked.layout.kind == "json":
            io.write(directory / f"predictions-{part}.json", answers_json(texts))
            return
        examples = Examples(
            asked.questions,
            asked.contexts,
            [],
            [],
            rows=asked.rows,
            layout=asked.layout,
        )
        answers = [Prediction(texts[name], probabilities[name]) for name in asked.ids]
        write_predictions(directory, path, part, examples, answers)

    def errors(self, part: str, predicted: tuple) -> list[dict[str, Any]]:
        """Returns the questions whose answer is no exact match."""
        return error_rows.of_answers(self.examples[part], *predicted)

    def usage(self) -> Usage:
        """Returns how the fine-tuned model is used."""
        config = self.config
        return Usage(
            "qa",
            config.max_length,
            dtype=config.dtype,
            text_column="question",
            pair_column="context",
            doc_stride=config.window_stride,
            max_answer_length=config.max_answer_length,
            null_score_diff_threshold=config.null_score_diff_threshold,
        )


def _by_question_word(
    answers: dict[str, str], questions: Questions
) -> dict[str, dict[str, float]]:
    """Returns exact match, F1 and support by the question word."""
    kinds, scores = [_kind(question) for question in questions.questions], {}
    for kind in sorted(set(kinds)):
        part = questions.subset([i for i, each in enumerate(kinds) if each == kind])
        report = metrics.question_answering_report(answers, part)
        scores[kind] = {
            "exact": report["exact"],
            "f1": report["f1"],
            "support": len(part.ids),
        }
    return scores


def _kind(question: str) -> str:
    """Returns the first question word of a question.

    >>> _kind("In which year?"), _kind("Is it?")
    ('which', 'other')
    """
    words = question.lower().replace("?", " ").split()
    return next((word for word in words if word in _WORDS), "other")


def _table(heading: str, scores: dict[str, dict[str, float]]) -> Table:
    rows = [
        [
            name,
            *(f"{100 * each[key]:.2f}" for key in ("exact", "f1")),
            f"{each['support']:,.0f}",
        ]
        for name, each in scores.items()
    ]
    return Table([heading, "exact match, %", "F1, %", "support"], rows, words=1)


def prepare(config: "Config") -> QuestionAnsweringTask:
    """Returns the task of a config, with all files read, checked and packed.

    Raises:
      InputError: A file, the checkpoint or a flag cannot be used.
    """
    questions, summary = _read_examples(config)
    texts = [*questions["train"].contexts, *questions["train"].questions]
    checkpoint, tokenizer = read_checkpoint(config, texts, head=False, pooler=False)
    pieces, rows = {}, {}
    summary += notes(checkpoint, tokenizer)
    for part, asked in questions.items():
        pieces[part] = windows(
            tokenizer, asked, config.max_length, config.window_stride
        )
        tokens = pieces[part].tokens
        options = packing_options(config, checkpoint, part, tokens, len(asked.ids))
        rows[part] = pack_windows(pieces[part], **options)
        summary.append(_summary(part, asked, pieces[part], rows[part]))
    arrays = [packed.arrays for packed in rows.values()]
    vocab_ids = renumber_tokens(arrays, mask_token_ids(config, tokenizer))
    return QuestionAnsweringTask(
        config=config,
        examples=questions,
        rows=rows,
        checkpoint=checkpoint,
        tokenizer=tokenizer,
        vocab_ids=vocab_ids,
        summary="\n".join(summary),
        windows=pieces,
    )


def _read_examples(config: "Config") -> tuple[dict[str, Questions], list[str]]:
    """Returns the questions by part, those of --extra in train; and what was found."""

    def read(part: str) -> Questions:
        return read_questions(config.file_of(part), part=part)

    # A context may answer several of its questions, so a split keeps them together.
    questions = read_parts(config, read, lambda train: train.contexts).examples
    extra = [read_questions(path) for path in config.extra]
    found = layout_notes(config, questions, extra)
    return {**questions, "train": questions["train"].joined(*extra)}, found


def _summary(part: str, asked: Questions, pieces: Windows, rows: Rows) -> str:
    """Returns a line on a part: its size, and how full its rows are."""
    unanswered = sum(not answers for answers in asked.answers)
    full = rows.arrays["x/mask"].mean()
    return (
        f"{part}: {len(asked.ids):,} questions, {unanswered:,} without an answer, in "
        f"{len(pieces.tokens):,} windows packed into {len(rows.example_index):,} rows, "
        f"{full:.0%} full"
    )


def question_answerer(
    model: FinetunedModel, ranked: bool = False
) -> Callable[[Sequence[Example]], list[Any]]:
    """Returns a function that answers questions, each with its context.

    Args:
      model: The fine-tuned model.
      ranked: Whether it returns for each question a list of answers, the best first,
        see `rank_answers`; if not, one `Answer`, that of the evaluation.
    """
    usage = model.usage
    threshold, longest = usage.null_score_diff_threshold, usage.max_answer_length

    @jax.jit
    def apply(params: Params, x: Batch) -> Any:
        logits = model.model.apply(params, x, None)[0]
        return logits if ranked else best_spans(logits, x, longest)

    def answer(examples: Sequence[Example]) -> list[Any]:
        asked = _questions(examples)
        most = usage.max_seq_length
        pieces = windows(model.tokenizer, asked, most, usage.doc_stride)
        rows = pack_windows(pieces, next_width(max(map(len, pieces.tokens)), most))
        outputs = apply(model.params, pad_rows(rows.arrays))
        if ranked:
            logits = _by_window(rows, pieces, np.asarray(outputs))
            spans = rank_answers(pieces, asked, logits, longest, threshold)
            pairs = zip(asked.contexts, spans, strict=True)
            return [[_answer(text, *span) for span in each] for text, each in pairs]
        count, places = rows.example_index.shape
        flat = [rows.flat(np.asarray(array)[:count, :places]) for array in outputs]
        spans = choose_answers(pieces, asked, *flat, threshold)
        pairs = zip(asked.contexts, spans, strict=True)
        return [_answer(text, *span) for text, span in pairs]

    return answer


def _questions(examples: Sequence[Example]) -> Questions:
    """Returns examples as questions without answers; ids are numbers."""
    ids = [str(number) for number in range(len(examples))]
    texts, contexts = zip(*(example[:2] for example in examples), strict=True)
    unanswered: list[list] = [[] for _ in examples]
    return Questions(ids, [*texts], [*contexts], unanswered, unanswered)


def _by_window(rows: Rows, pieces: Windows, logits: np.ndarray) -> list[np.ndarray]:
    """Returns the logits `[T, 2]` of each window, of the logits `[B, T, 2]` of rows."""
    found: dict[int, np.ndarray] = {}
    first = rows.arrays["x/label_positions"]
    for row, slot in np.argwhere(rows.example_index >= 0):
        number, begin = int(rows.example_index[row, slot]), first[row, slot]
        found[number] = logits[row, begin : begin + len(pieces.tokens[number])]
    return [found[number] for number in range(len(pieces.tokens))]


def _answer(context: str, begin: int, end: int, score: float) -> Answer:
    return Answer(context[begin:end], begin, end, score)
