"""A fine-tuned model in use: entities, labels, answers and texts.

from ffnlab import finetune

pipe = finetune.pipeline("runs/people")     # the directory of a run
pipe("Ada Lovelace lives in London.")       # [Entity(type, start, end, score, text), …]
pipe.export("model.jax")                    # the files that were written
"""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ffnlab.data.examples import Example, Examples
from ffnlab.data.packed_rows import next_width, pack, pad_rows
from ffnlab.data.targets import MULTI
from ffnlab.errors import InputError, choose
from ffnlab.finetune.entities import cut_words, entities_of
from ffnlab.finetune.export import export_model, read_outputs
from ffnlab.finetune.finetuned_model import FinetunedModel, read_finetuned
from ffnlab.finetune.outputs import Entity, Prediction, check_finite, is_finite
from ffnlab.finetune.pipeline_inputs import read_inputs
from ffnlab.finetune.predict_options import PredictOptions
from ffnlab.finetune.target_outputs import Score, label_set
from ffnlab.finetune.text_parts import encode
from ffnlab.types import Array, Batch, Params

Predict = Callable[[Sequence[Example]], list[Any]]
_OPTIONS = [field.name for field in dataclasses.fields(PredictOptions)]


def pipeline(
    directory: str | Path, batch_size: int = 32, num_beams: int | None = None
) -> "Pipeline":
    """Returns the fine-tuned model of a run, ready to predict.

    Args:
      directory: The directory of a run of fine-tuning, its `best/` or its `adapter/`.
      batch_size: Texts per batch, at least 1.
      num_beams: The width of the beam search, for generate; None takes that of
        training.

    Raises:
      InputError: The directory does not hold a fine-tuned model, or a number is out of
        range.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int):
        raise InputError(f"batch_size: {batch_size!r} should be a whole number")
    if batch_size < 1:
        raise InputError(f"batch_size: {batch_size} should be at least 1")
    if not isinstance(directory, str | Path):
        raise InputError(f"directory: {directory!r} should be the directory of a run")
    model = read_finetuned(directory)
    PredictOptions(num_beams=num_beams).check_task(model.usage.task)
    return Pipeline(model, batch_size, num_beams)


class Pipeline:
    """A fine-tuned model, to call with texts.

    Args:
      model: The fine-tuned model.
      batch_size: Texts per batch.
      num_beams: The width of the beam search, for generate; None takes that of
        training.
    """

    def __init__(
        self, model: FinetunedModel, batch_size: int = 32, num_beams: int | None = None
    ):
        self.model, self._batch_size = model, batch_size
        self._num_beams, self._lost = num_beams, 0
        self._predictors: dict[PredictOptions, Predict] = {}

    @property
    def labels(self) -> list[str]:
        """The labels of the model; empty for qa, generate and numbers."""
        return list(self.model.names) if self.model.usage.predicts_labels else []

    def __call__(
        self, texts: Any = None, *, question: Any = None, context: Any = None, **options
    ) -> Any:
        """Returns the result of one input, or a list of the results of several.

        | task | an input | its result |
        | :-- | :-- | :-- |
        | tag | a text | `Entity` tuples, by character of the text |
        | tag | a list of words | `Entity` tuples, by number of the word |
        | classify | a text | a `Prediction`; with `top_k` a list of them |
        | pairs | a tuple of two texts | a `Prediction`; with `top_k` a list of them |
        | regression | as classify or pairs | a `Score` |
        | several labels | as classify or pairs | a `LabelSet`; `top_k` as above |
        | qa | a tuple of question and context | an `Answer`; with `top_k` a list |
        | generate | a text | a `Prediction` whose text was generated |

        Labels, entities and scores are those of the evaluation. Where a text is too
        long for the model, its end is cut off, which a warning says; the context of a
        question is read in windows.

        Args:
          texts: One input, or a list, an array or a column of inputs of any length. A
            dict with the columns of training as keys (for qa `question` and `context`)
            is an input too, and a data frame is a list of such. One sentence as a list
            of words is a list of one: `[["Ada", "sings"]]`. With entity markers a pair
            is one text.
          question: Of qa, in place of `texts`.
          context: Of qa, in place of `texts`.
          **options: `top_k` is the number of labels or answers, the best first; a
            number above that of the labels returns all. For qa at most 20 answers and
            no answer are ranked, and scores are probabilities among them. Of generate
            there are `num_beams` and `max_target_length`, and to sample `temperature`,
            `top_k`, `top_p` and `seed`.

        Raises:
          InputError: An input is missing, blank, or of another kind, an option is not
            of the task, or the scores of the model are not finite.
        """
        if question is not None or context is not None:
            texts = self._asked(texts, question, context)
        examples, single = read_inputs(texts, self.model.usage)
        checked = self._options(options)
        if self.model.usage.task == "tag":
            results: list[Any] = self._entities(examples)
        else:
            results = [
                each[: checked.top_k] if isinstance(each, list) else each
                for each in self._predicted(examples, checked)
            ]
        return results[0] if single else results

    def tags(self, sentences: Any) -> Any:
        """Returns the tag of each word of a sentence, or of each of several sentences.

        Args:
          sentences: As `texts` of a call.

        Returns:
          A `Prediction` for each: its text is the list of tags, its probability the
          list of their probabilities; words that were cut off have 0.

        Raises:
          InputError: As a call, or the model is no tagger.
        """
        if self.model.usage.task != "tag":
            raise InputError(f"tags: for a model of tag, not {self.model.usage.task}")
        examples, single = read_inputs(sentences, self.model.usage)
        predictions = self._predicted(self._cut(examples)[0], PredictOptions())
        return predictions[0] if single else predictions

    def export(self, path: str | Path) -> list[Path]:
        """Writes the model as a program of `jax.export`, its tokenizer and its labels.

        Args:
          path: The file of the program.

        Returns:
          The files that were written, the program first.

        Raises:
          InputError: A file exists already or cannot be written.
        """
        return export_model(self.model, path)

    def _asked(self, texts: Any, question: Any, context: Any) -> dict[str, Any]:
        """Returns a question and its context as one input."""
        if self.model.usage.task != "qa":
            task = self.model.usage.task
            raise InputError(f"question and context: for qa, not {task}; give texts")
        if texts is not None:
            raise InputError("texts: given beside question and context; give one")
        return {"question": question, "context": context}

    def _options(self, given: dict[str, Any]) -> PredictOptions:
        """Returns the options of a call after a check of their names and values."""
        for name in given:
            choose("option", name, _OPTIONS)
        options = PredictOptions(**given)
        if options.num_beams is None and not options.samples:
            options = dataclasses.replace(options, num_beams=self._num_beams)
        options.check_task(self.model.usage.task)
        if options.top_k and not self.model.usage.predicts_labels:
            raise InputError("top_k: for labels; this model predicts a number")
        return options

    def _predicted(
        self, examples: Sequence[Example], options: PredictOptions
    ) -> list[Any]:
        """Returns checked predictions, made in batches; warns of what was cut off."""
        if self.model.usage.task != "generate" and options.top_k:
            options = PredictOptions(top_k=1)  # one program for any number
        if options not in self._predictors:
            self._predictors[options] = make_predictor(
                self.model, options, self._count_lost
            )
        predict, size = self._predictors[options], self._batch_size
        self._lost = 0
        batches = (examples[i : i + size] for i in range(0, len(examples), size))
        predictions = [each for batch in batches for each in predict(batch)]
        for number, each in enumerate(predictions, 1):
            check_finite(each, f"texts: text {number}")
        if self._lost:
            warnings.warn(cut_off(self._lost, self.model), stacklevel=3)
        return predictions

    def _count_lost(self, count: int) -> None:
        self._lost += count

    def _cut(self, examples: Sequence[Example]) -> tuple[list[Example], list[Any]]:
        """Returns examples as lists of words, and their words with positions."""
        words = [cut_words(self.model.tokenizer, example.text) for example in examples]
        return [Example(each.words) for each in words], words

    def _entities(self, examples: Sequence[Example]) -> list[list[Entity]]:
        """Returns the entities of texts or sentences."""
        cut, words = self._cut(examples)
        predictions = self._predicted(cut, PredictOptions())
        return [
            entities_of(example.text, each, prediction, self.model.names)
            for example, each, prediction in zip(
                examples, words, predictions, strict=True
            )
        ]


def cut_off(count: int, model: FinetunedModel) -> str:
    """Returns a sentence on words or tokens that were cut off."""
    most = f"the model reads {model.usage.max_seq_length} tokens per text"
    return f"{count:,} words or tokens cut off: {most}"


def make_predictor(
    model: FinetunedModel,
    options: PredictOptions | None = None,
    report_lost: Callable[[int], Any] = lambda count: None,
) -> Predict:
    """Returns a function that predicts on a batch of examples.

    Args:
      model: The fine-tuned model.
      options: The options; None takes those of training. With `top_k` there is a list
        of all labels, or of the best answers, for each example.
      report_lost: Receives the number of words or tokens that were cut off, batch by
        batch.

    Returns:
      A function of at least one example to predictions, or for qa to answers. Of those
      whose scores are not finite the probability is NaN; see `outputs.check_finite`.
    """
    predict = _make_predictor(model, options or PredictOptions(), report_lost)

    def predict_apart(examples: Sequence[Example]) -> list[Any]:
        predictions = predict(examples)
        if len(examples) > 1 and not all(map(is_finite, predictions)):
            # One text can spoil others, with which it shares a row.
            return [predict([example])[0] for example in examples]
        return predictions

    return predict_apart


def _make_predictor(
    model: FinetunedModel, options: PredictOptions, report_lost: Callable[[int], Any]
) -> Predict:
    """Returns the function of a task that predicts on a batch of examples."""
    if model.usage.task == "qa":
        from ffnlab.finetune.question_answering import question_answerer

        return question_answerer(model, options.top_k is not None)
    if model.usage.task == "generate":
        from ffnlab.finetune.generation import text_generator

        return text_generator(model, report_lost, options)
    return _label_predictor(model, options.top_k is not None, report_lost)


def _label_predictor(
    model: FinetunedModel, ranked: bool, report_lost: Callable[[int], Any]
) -> Predict:
    """Returns a function that gives labels and their probabilities.

    Rows are padded to powers of two, so that few shapes are compiled.
    """
    usage, names = model.usage, model.names

    read = read_outputs(usage)

    @jax.jit
    def probabilities_of(params: Params, x: Batch) -> Array:
        return read(model.model.apply(params, x, None)[0])

    def predict(examples: Sequence[Example]) -> list[Any]:
        texts = [example.text for example in examples]
        pairs = [example.pair for example in examples if example.pair]
        unlabelled, most = Examples(texts, pairs, [], []), usage.max_seq_length
        encoded = encode(usage.task, model.tokenizer, unlabelled, most, usage.marks)
        report_lost(encoded.lost)
        rows = pack(encoded, None, next_width(max(map(len, encoded.tokens)), most))
        padded = np.asarray(probabilities_of(model.params, pad_rows(rows.arrays)))
        count, positions = rows.example_index.shape
        flat = rows.flat(padded[:count, :positions])  # [labels of all texts, K]
        if usage.task == "tag":
            return _by_sentence(flat, names, texts)
        if not usage.predicts_labels:
            return [Score(float(number)) for number in flat[:, 0]]
        if ranked:
            return [_ranked(p, names) for p in flat]
        if usage.problem_type == MULTI:
            return [label_set(p, names, usage.threshold) for p in flat]
        return [Prediction(names[p.argmax()], float(p.max())) for p in flat]

    return predict


def _ranked(probabilities: np.ndarray, names: Sequence[str]) -> list[Prediction]:
    """Returns all labels with their probabilities, the likeliest first."""
    order = np.argsort(-probabilities, kind="stable")
    return [Prediction(names[k], float(probabilities[k])) for k in order]


def _by_sentence(
    probabilities: np.ndarray, names: Sequence[str], sentences: Sequence[list[str]]
) -> list[Prediction]:
    """Returns the tags and probabilities of each sentence; 0 for words cut off."""
    outside = "O" if "O" in names else names[0]
    ends = np.cumsum([len(words) for words in sentences])[:-1]
    predictions = []
    for rows in np.split(probabilities, ends):
        best = rows.max(axis=1).tolist()
        tags = [names[k] for k in rows.argmax(axis=1)]
        tags = [tag if p else outside for tag, p in zip(tags, best, strict=True)]
        predictions.append(Prediction(tags, best))
    return predictions
