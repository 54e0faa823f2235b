"""Predictions of a fine-tuned model on new text.

from ffnlab import finetune

pipe = finetune.pipeline("runs/intents")    # the directory of a run
pipe(["where is my order", "hello"])        # [Prediction(text, probability), ...]
pipe.export("model.jax")                    # the files that were written
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ffnlab.data.examples import Example, Examples
from ffnlab.data.files import is_text
from ffnlab.data.packed_rows import next_width, pack, pad_rows
from ffnlab.errors import InputError
from ffnlab.finetune.classification import encode
from ffnlab.finetune.export import export_model
from ffnlab.finetune.finetuned_model import FinetunedModel, read_finetuned
from ffnlab.finetune.outputs import Prediction, check_finite, is_finite
from ffnlab.types import Array, Batch, Params


def pipeline(
    directory: str | Path, batch_size: int = 32, num_beams: int | None = None
) -> "Pipeline":
    """Returns the fine-tuned model of a run, ready to predict.

    Args:
      directory: The directory of a run of fine-tuning, or its `best/`.
      batch_size: Texts per batch, at least 1.
      num_beams: The width of the beam search, for generate; None takes that of
        training.

    Raises:
      InputError: The directory does not hold a fine-tuned model, or a number is out of
        range.
    """
    if batch_size < 1:
        raise InputError(f"batch_size: {batch_size} should be at least 1")
    model = read_finetuned(directory)
    if num_beams is not None and model.usage.task != "generate":
        raise InputError(f"num_beams: for generate, not {model.usage.task}")
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
        self._predict = make_predictor(model, num_beams)

    def __call__(self, texts: str | Sequence[Any]) -> list[Prediction]:
        """Returns a prediction for each text.

        Args:
          texts: One text or a list. For tag a text is a list of words, or words with
            blanks between them; for pairs it is a pair of texts (with entity markers
            one text); for qa a pair of a question and its context.

        Raises:
          InputError: A text is missing, blank, or of another kind, or the scores of the
            model are not finite.
        """
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, Sequence):
            kind = type(texts).__name__
            raise InputError(f"texts: expected a text or a list of texts, got a {kind}")
        examples = [self._example(text, n) for n, text in enumerate(texts, 1)]
        size = self._batch_size
        batches = (examples[i : i + size] for i in range(0, len(examples), size))
        predictions = [each for batch in batches for each in self._predict(batch)]
        return [
            check_finite(each, f"texts: text {number}")
            for number, each in enumerate(predictions, 1)
        ]

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

    def _example(self, text: Any, number: int) -> Example:
        """Returns a text as an example; `number` counts the texts from 1."""
        usage = self.model.usage
        if usage.task == "tag":
            words = text.split() if isinstance(text, str) else text
            if _texts(words) and len(words):
                return Example(list(words))
            raise InputError(f"texts: text {number} should be a list of words")
        if not usage.two_texts:
            if is_text(text):
                return _marked(Example(text), usage.marks, number)
            raise InputError(f"texts: text {number} should be a text that is not blank")
        if _texts(text) and not isinstance(text, str) and len(text) == 2:
            return Example(*text)
        pair = "question and context" if usage.task == "qa" else "two texts"
        raise InputError(f"texts: text {number} should be a pair of {pair}")


def _texts(value: Any) -> bool:
    """Returns whether a value is a list or tuple of texts, none of them blank."""
    return isinstance(value, (list, tuple)) and all(map(is_text, value))


def _marked(example: Example, marks: Sequence[str], number: int) -> Example:
    """Returns an example after a check of its entity markers, if there are any."""
    if marks:
        from ffnlab.data.entity_markers import replace_markers

        (problem,) = replace_markers([example.text], marks)[1]
        if problem:
            raise InputError(f"texts: text {number}: {problem}")
    return example


def make_predictor(
    model: FinetunedModel,
    num_beams: int | None = None,
    report_lost: Callable[[int], Any] = lambda count: None,
) -> Callable[[Sequence[Example]], list[Prediction]]:
    """Returns a function that predicts on a batch of examples.

    Args:
      model: The fine-tuned model.
      num_beams: The width of the beam search, for generate; None takes that of
        training.
      report_lost: Receives the number of words or tokens that were cut off, batch by
        batch.

    Returns:
      A function of at least one example. Of those whose scores are not finite the
      probability is NaN; see `outputs.check_finite`.
    """
    predict = _make_predictor(model, num_beams, report_lost)

    def predict_apart(examples: Sequence[Example]) -> list[Prediction]:
        predictions = predict(examples)
        if len(examples) > 1 and not all(map(is_finite, predictions)):
            # One text can spoil others, with which it shares a row.
            return [predict([example])[0] for example in examples]
        return predictions

    return predict_apart


def _make_predictor(
    model: FinetunedModel, num_beams: int | None, report_lost: Callable[[int], Any]
) -> Callable[[Sequence[Example]], list[Prediction]]:
    """Returns the function of a task that predicts on a batch of examples."""
    if model.usage.task == "qa":
        from ffnlab.finetune.question_answering import question_answerer

        return question_answerer(model)
    if model.usage.task == "generate":
        from ffnlab.finetune.generation import text_generator

        return text_generator(model, report_lost, num_beams)
    return _label_predictor(model, report_lost)


def _label_predictor(
    model: FinetunedModel, report_lost: Callable[[int], Any]
) -> Callable[[Sequence[Example]], list[Prediction]]:
    """Returns a function that gives labels and their probabilities.

    Rows are padded to powers of two, so that few shapes are compiled.
    """
    usage, names = model.usage, model.names

    @jax.jit
    def probabilities_of(params: Params, x: Batch) -> Array:
        return jax.nn.softmax(model.model.apply(params, x, None)[0])

    def predict(examples: Sequence[Example]) -> list[Prediction]:
        texts = [example.text for example in examples]
        pairs = [example.pair for example in examples if example.pair]
        unlabelled, most = Examples(texts, pairs, [], []), usage.max_seq_length
        encoded = encode(usage.task, model.tokenizer, unlabelled, most, usage.marks)
        report_lost(encoded.lost)
        rows = pack(encoded, None, next_width(max(map(len, encoded.tokens)), most))
        padded = np.asarray(probabilities_of(model.params, pad_rows(rows.arrays)))
        count, positions = rows.example_index.shape
        flat = rows.flat(padded[:count, :positions])  # [labels of all texts, K]
        if usage.task != "tag":
            return [Prediction(names[p.argmax()], float(p.max())) for p in flat]
        return _by_sentence(flat, names, texts)

    return predict


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
