"""Labels new text with a fine-tuned model.

Reads a file, or standard input line by line, and writes labels as it goes.

    python -m experiments.predict --run=OUT --input=new.txt
    echo "Ada lives in London ." | python -m experiments.predict --run=OUT
    python -m experiments.predict --run=OUT --input=words.conll --output=tagged.conll
    python -m experiments.predict --run=OUT --export=model.jax

Input: plain text, a text a line (for tag its words, separated by blanks; for pairs two
texts, separated by a tab); .jsonl, with the columns that training had; for tag .conll,
of which the first column is read. Output: CoNLL columns for tag; otherwise a line a
text: label, probability, text, separated by tabs; JSON lines for .jsonl.
"""

import contextlib
import dataclasses
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments import launch
from experiments.launch import option
from ffnlab.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from ffnlab.data.tokens import Tokenizer
    from ffnlab.types import Model, Params


@dataclasses.dataclass(frozen=True)
class Config:
    """What to label, and by what; each field is a flag."""

    run: str | None = option(
        None, "a run of experiments.finetune, or its best/; needed"
    )
    input: str = option("-", "a file; - is standard input")
    output: str = option("-", "a file; - is standard output")
    batch_size: int = option(32, "texts at a time, of a file", least=1)
    export: str | None = option(
        None, "instead, write the model to this file, to run without ffnlab"
    )

    def __post_init__(self):
        launch.check(self)
        if not self.run:
            raise InputError("--run: needed; --help says what it is")


class Labels(NamedTuple):
    """A model that was fine-tuned, and how it is used.

    Attributes:
      model: from `heads.labeller`.
      params: its parameters.
      tokenizer: of its checkpoint.
      names: of the labels.
      about: `task`, `length`, `scheme`, `text_column`, `pair_column`.
      model_length: the most tokens of a text that the model can take.
      typed: whether it tells two texts apart.
    """

    model: "Model"
    params: "Params"
    tokenizer: "Tokenizer"
    names: list[str]
    about: dict[str, Any]
    model_length: int
    typed: bool


def read(directory: str | Path) -> Labels:
    """Reads the model of a run.

    Raises:
      InputError: the directory is none of `experiments.finetune`.
    """
    from ffnlab import heads, pretrained, weights
    from ffnlab.data.tokens import read_tokenizer

    folder = Path(directory)
    folder = folder / "best" if (folder / "best").is_dir() else folder
    found = pretrained.load(folder, head=False)
    about = found.settings.get("ffnlab_labels")
    if not about:
        raise InputError(f"{folder}: not a run of experiments.finetune")
    names = [found.settings["id2label"][str(k)] for k in
             range(len(found.settings["id2label"]))]  # fmt: skip
    if about["task"] == "tag":
        found = pretrained.load(folder, head=False, pooler=False)
    shape = heads.LabelConfig(
        found.config, len(names), about["head"], about["hidden"], 0.0
    )
    params = {"encoder": found.params, "head": weights.load_classifier(folder)}
    return Labels(
        heads.labeller(shape),
        params,
        read_tokenizer(folder),
        names,
        about,
        found.config.length,
        bool(found.config.types),
    )


class Labeller:
    """Labels batches of texts; few shapes are compiled, whatever their lengths."""

    def __init__(self, labels: Labels):
        import jax

        self.labels = labels
        self._run = jax.jit(
            lambda params, x: jax.nn.softmax(labels.model.apply(params, x, None)[0])
        )

    def __call__(self, texts: list[Any], pairs: list[str]) -> list[tuple[Any, Any]]:
        """Returns for each text its label and probability; for tag lists of both."""
        import numpy as np

        from experiments.labelling import encode
        from ffnlab.data.labelled import Examples
        from ffnlab.data.places import pack

        about, names = self.labels.about, self.labels.names
        found = Examples(texts, pairs, [], [])
        encoded = encode(about["task"], self.labels.tokenizer, found, about["length"])
        width = _above(max(map(len, encoded.tokens)), about["length"])
        rows = pack(encoded, None, width)
        arrays = _padded(rows.arrays)
        chances = np.asarray(self._run(self.labels.params, arrays))
        chances = chances[: len(rows.owner), : rows.owner.shape[1]]
        flat = rows.flat(chances)
        best = [(names[row.argmax()], float(row.max())) for row in flat]
        if about["task"] != "tag":
            return best
        first = "O" if "O" in names else names[0]
        best = [each if each[1] else (first, 0.0) for each in best]  # cut off
        ends = np.cumsum([len(words) for words in texts])[:-1]
        parts = np.split(np.arange(len(best)), ends)
        return [([best[i][0] for i in part], [best[i][1] for i in part])
                for part in parts]  # fmt: skip


def _above(length: int, most: int) -> int:
    """Returns the next power of two, at least 16 and at most `most`."""
    return min(max(1 << (length - 1).bit_length(), 16), most)


def _padded(arrays: "dict[str, np.ndarray]") -> dict[str, Any]:
    """Returns the inputs of a model, rows and places up to powers of two."""
    import numpy as np

    rows, places = arrays["x/at"].shape
    rows, places = (1 << max(n - 1, 0).bit_length() for n in (rows, places))
    found = {}
    for name in ("tokens", "mask", "packs", "at", "types"):
        if f"x/{name}" not in arrays:
            continue
        array = arrays[f"x/{name}"]
        wide = places if name == "at" else array.shape[1]
        grown = [(0, rows - len(array)), (0, wide - array.shape[1])]
        empty = -1 if name in ("at", "packs") else 0
        found[name] = np.pad(array, grown, constant_values=empty)
    return found


class Item(NamedTuple):
    """One text to label: the text or its words, the second text, what it came in."""

    text: Any
    pair: str
    record: dict[str, Any]


def items(config: Config, about: dict[str, Any]) -> Iterator[Item]:
    """Yields what is to be labelled, as it is read.

    Raises:
      InputError: a line cannot be used.
    """
    from ffnlab.data.files import require_file

    if config.input == "-":
        yield from _plain("standard input", sys.stdin, about)
        return
    path = require_file(config.input)
    if path.suffix.lower() == ".conll" and about["task"] == "tag":
        yield from _conll(path)
        return
    with path.open(encoding="utf-8-sig") as file:
        if path.suffix.lower() == ".jsonl":
            yield from _objects(path, file, about)
        else:
            yield from _plain(str(path), file, about)


def _plain(source: str, lines: Iterable[str], about: dict[str, Any]) -> Iterator[Item]:
    for number, line in _decoded(source, lines):
        if about["task"] == "tag":
            yield Item(line.split(), "", {})
        elif about["task"] == "pairs":
            first, tab, second = line.partition("\t")
            if not tab or not second.strip():
                raise InputError(f"{source}:{number}: expected two texts and a tab")
            yield Item(first, second, {})
        else:
            yield Item(line, "", {})


def _decoded(source: str, lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yields lines that are not blank, with their numbers."""
    numbers, lines = itertools.count(1), iter(lines)
    while True:
        number = next(numbers)
        try:
            line = next(lines, None)
        except UnicodeDecodeError:
            raise InputError(f"{source}:{number}: not UTF-8") from None
        if line is None:
            return
        if line.strip():
            yield number, line.strip()


def _objects(path: Path, lines: Iterable[str], about: dict[str, Any]) -> Iterator[Item]:
    keys = [about["text_column"]]
    keys += [about["pair_column"]] if about["task"] == "pairs" else []
    for number, line in _decoded(str(path), lines):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}:{number}: not JSON: {error.msg}") from None
        wanted = list if about["task"] == "tag" else str
        for key in keys:
            if not isinstance(record, dict) or not isinstance(record.get(key), wanted):
                kind = "a list of words" if wanted is list else "a text"
                raise InputError(f"{path}:{number}: {key!r} should be {kind}")
        yield Item(record[keys[0]], record[keys[-1]] if len(keys) > 1 else "", record)


def _conll(path: Path) -> Iterator[Item]:
    words: list[str] = []
    with path.open(encoding="utf-8-sig") as file:
        for _, line in _every(str(path), file):
            if line and not line.startswith("-DOCSTART-"):
                words.append(line.split()[0])
            elif words:
                yield Item(words, "", {})
                words = []
    if words:
        yield Item(words, "", {})


def _every(source: str, lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yields all lines, with their numbers."""
    try:
        for number, line in enumerate(lines, 1):
            yield number, line.strip()
    except UnicodeDecodeError:
        raise InputError(f"{source}: not UTF-8") from None


def run(config: Config) -> int:
    """Labels what is to be labelled; returns how many texts there were.

    Raises:
      InputError: a file or directory cannot be used.
    """
    labels = read(config.run)
    if config.export:
        from experiments import exported

        files = exported.write(labels, config.export)
        print(f"written: {', '.join(map(str, files))}")
        return 0
    labeller, count = Labeller(labels), 0
    size = 1 if config.input == "-" else config.batch_size
    with _opened(config.output) as out:
        every = items(config, labels.about)
        while batch := list(itertools.islice(every, size)):
            pairs = [item.pair for item in batch]
            found = labeller([item.text for item in batch], pairs if pairs[0] else [])
            for item, (label, chance) in zip(batch, found, strict=True):
                out.write(_written(config, labels.about, item, label, chance))
            out.flush()
            count += len(batch)
    return count


def _opened(path: str) -> Any:
    if path == "-":
        return contextlib.nullcontext(sys.stdout)
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"--output: {path}: {error.strerror}") from None


def _written(
    config: Config, about: dict[str, Any], item: Item, label: Any, chance: Any
) -> str:
    """Returns the lines of one text."""
    if item.record:
        record = {**item.record, "predicted": label, "probability": _rounded(chance)}
        return json.dumps(record, ensure_ascii=False) + "\n"
    if about["task"] == "tag":
        from experiments.labels_report import conll

        return conll([item.text], [label], about["scheme"])
    text = f"{item.text}\t{item.pair}" if item.pair else item.text
    return f"{label}\t{chance:.4f}\t{text}\n"


def _rounded(chance: Any) -> Any:
    """Returns one probability, or a list of them, to four digits."""
    if isinstance(chance, list):
        return [round(each, 4) for each in chance]
    return round(chance, 4)


if __name__ == "__main__":
    launch.main(Config, run, __doc__)
