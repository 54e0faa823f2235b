"""A fine-tuned model in use: from what was read to what it says of it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.formats import Item, Said
from experiments.labelling import encode
from experiments.tasks import PURPOSES
from ffnlab.data.examples import Examples
from ffnlab.data.packed_rows import pack
from ffnlab.data.tokenizer import Tokenizer, checkpoint_tokenizer
from ffnlab.errors import InputError
from ffnlab.models import classifier
from ffnlab.nn.precision import lowered
from ffnlab.pretrained import checkpoint, safetensors_io
from ffnlab.pretrained.checkpoint import Checkpoint
from ffnlab.types import Model, Params


class Tuned(NamedTuple):
    """A model that was fine-tuned, and how it is used.

    Attributes:
      found: its checkpoint.
      model: what is applied.
      params: its parameters.
      tokenizer: of its checkpoint.
      names: of the labels, if it gives any.
      about: `task`, `length` and what else config.json says of its use.
    """

    found: Checkpoint
    model: Model
    params: Params
    tokenizer: Tokenizer
    names: list[str]
    about: dict[str, Any]


def read(directory: str | Path) -> Tuned:
    """Reads the model of a run.

    Raises:
      InputError: the directory is none of `experiments.finetune`.
    """
    folder = Path(directory)
    folder = folder / "best" if (folder / "best").is_dir() else folder
    if not (folder / "config.json").is_file():
        raise InputError(f"--run: {directory}: not a run of experiments.finetune")
    found = checkpoint.load(folder, head=None)
    about = found.settings.get("ffnlab_use")
    if not about:
        raise InputError(f"--run: {folder}: not a run of experiments.finetune")
    tokenizer = checkpoint_tokenizer(folder, found.config.vocabulary)
    task = about["task"]
    if task == "generate":
        from ffnlab.models.language_model import conditional

        params, model, names = {"encoder": found.params}, conditional(found.config), []
        return Tuned(found, model, params, tokenizer, names, about)
    pooler = None if task in ("classify", "pairs") else False
    found = checkpoint.load(folder, head=False, pooler=pooler, dropout=0.0)
    head = safetensors_io.load_classifier(folder, PURPOSES[task], found.family)
    params = {"encoder": found.params, "head": head}
    labels = found.settings.get("id2label", {})
    names = [labels[str(number)] for number in range(len(labels))]
    model = _model(found, about, len(names))
    if about["dtype"] != "float32":
        model = lowered(model, about["dtype"])
    return Tuned(found, model, params, tokenizer, names, about)


def _model(found: Checkpoint, about: dict[str, Any], labels: int) -> Model:
    if about["task"] == "qa":
        from ffnlab.models.span_qa import AnswerConfig, answerer

        return answerer(AnswerConfig(found.config))
    shape = classifier.LabelConfig(
        found.config,
        labels,
        about["head"],
        about["hidden"],
        0.0,
        dense=about["dense"],
    )
    return classifier.labeller(shape)


def applied(
    tuned: Tuned,
    options: dict[str, Any],
    cut: Callable[[int], Any] = lambda count: None,
) -> Callable[[Sequence[Item]], Any]:
    """Returns what says something of each of some items.

    Args:
      tuned: the model.
      options: flags that change its use: `beam`.
      cut: told how many words or tokens of some items the model does not see.
    """
    if tuned.about["task"] == "qa":
        from experiments.answering import answers_to

        return answers_to(tuned)
    if tuned.about["task"] == "generate":
        from experiments.writing import written_for

        return written_for(tuned, cut, **options)
    return Labeller(tuned, cut)


class Labeller:
    """Labels batches of texts; few shapes are compiled, whatever their lengths."""

    def __init__(self, tuned: Tuned, cut: Callable[[int], Any] = lambda count: None):
        self._tuned, self._cut = tuned, cut
        self._run = jax.jit(
            lambda params, x: jax.nn.softmax(tuned.model.apply(params, x, None)[0])
        )

    def __call__(self, items: Sequence[Item]) -> list[Said]:
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
        width = above(max(map(len, encoded.tokens)), about["length"])
        rows = pack(encoded, None, width)
        chances = np.asarray(self._run(self._tuned.params, padded(rows.arrays)))
        flat = rows.flat(chances[: len(rows.owner), : rows.owner.shape[1]])
        best = [Said(names[row.argmax()], float(row.max())) for row in flat]
        if about["task"] != "tag":
            return best
        first = "O" if "O" in names else names[0]
        best = [each if each.chance else Said(first, 0.0) for each in best]  # cut off
        ends = np.cumsum([len(words) for words in texts])[:-1]
        parts = np.split(np.arange(len(best)), ends)
        return [Said([best[i].text for i in part], [best[i].chance for i in part])
                for part in parts]  # fmt: skip


def above(length: int, most: int) -> int:
    """Returns the next power of two, at least 16 and at most `most`.

    >>> above(40, 128), above(3, 128), above(100, 112)
    (64, 16, 112)
    """
    return min(max(1 << (length - 1).bit_length(), 16), most)


def padded(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the inputs of a model, rows and places up to powers of two."""
    rows, places = arrays["x/at"].shape
    rows, places = (1 << max(n - 1, 0).bit_length() for n in (rows, places))
    found = {}
    for name, array in arrays.items():
        if name.startswith("x/"):
            wide = places if name == "x/at" else array.shape[1]
            grown = [(0, rows - len(array)), (0, wide - array.shape[1])]
            empty = -1 if name in ("x/at", "x/packs") else 0
            found[name[2:]] = np.pad(array, grown, constant_values=empty)
    return found
