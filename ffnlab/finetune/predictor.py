"""A fine-tuned model in use: from what was read to what it says of it."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ffnlab.data.examples import Examples
from ffnlab.data.packed_rows import next_width, pack, pad_rows
from ffnlab.finetune.classification import encode
from ffnlab.finetune.finetuned_model import FinetunedModel
from ffnlab.finetune.outputs import Example, Prediction


def make_predictor(
    tuned: FinetunedModel,
    options: dict[str, Any],
    cut: Callable[[int], Any] = lambda count: None,
) -> Callable[[Sequence[Example]], Any]:
    """Returns what says something of each of some items.

    Args:
      tuned: the model.
      options: flags that change its use: `beam`.
      cut: told how many words or tokens of some items the model does not see.
    """
    if tuned.about["task"] == "qa":
        from ffnlab.finetune.question_answering import question_answerer

        return question_answerer(tuned)
    if tuned.about["task"] == "generate":
        from ffnlab.finetune.generation import text_generator

        return text_generator(tuned, cut, **options)
    return LabelPredictor(tuned, cut)


class LabelPredictor:
    """Labels batches of texts; few shapes are compiled, whatever their lengths."""

    def __init__(
        self, tuned: FinetunedModel, cut: Callable[[int], Any] = lambda count: None
    ):
        self._tuned, self._cut = tuned, cut
        self._run = jax.jit(
            lambda params, x: jax.nn.softmax(tuned.model.apply(params, x, None)[0])
        )

    def __call__(self, items: Sequence[Example]) -> list[Prediction]:
        """Returns for each text its label and probability; for tag lists of both."""
        about, names = self._tuned.about, self._tuned.names
        texts = [item.text for item in items]
        pairs = [item.pair for item in items if item.pair]
        found = Examples(texts, pairs, [], [])
        encoded = encode(
            about["task"],
            self._tuned.tokenizer,
            found,
            about["length"],
            about["marks"],
        )
        self._cut(encoded.lost)
        width = next_width(max(map(len, encoded.tokens)), about["length"])
        rows = pack(encoded, None, width)
        probabilities = np.asarray(self._run(self._tuned.params, pad_rows(rows.arrays)))
        flat = rows.flat(
            probabilities[: len(rows.example_index), : rows.example_index.shape[1]]
        )
        best = [Prediction(names[row.argmax()], float(row.max())) for row in flat]
        if about["task"] != "tag":
            return best
        first = "O" if "O" in names else names[0]
        best = [
            each if each.probability else Prediction(first, 0.0) for each in best
        ]  # cut off
        ends = np.cumsum([len(words) for words in texts])[:-1]
        parts = np.split(np.arange(len(best)), ends)
        return [Prediction([best[i].text for i in part], [best[i].probability for i in part])
                for part in parts]  # fmt: skip
