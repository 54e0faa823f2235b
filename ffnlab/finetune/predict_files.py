"""Predictions of a fine-tuned model on files and standard input."""

import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from ffnlab import io, options
from ffnlab.data.examples import Example
from ffnlab.errors import InputError
from ffnlab.escape import terminal
from ffnlab.finetune import inputs
from ffnlab.finetune.outputs import (
    Format,
    Prediction,
    answers_json,
    check_finite,
    lists_json,
)
from ffnlab.options import option

Pairs = Iterator[tuple[Example, Prediction]]


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """The model and the input of a prediction; each field is a flag."""

    run: str | None = option(
        None,
        "Directory of a fine-tuning run (its best/ is used). This or --adapter is "
        "needed.",
    )
    input: str = option("-", "Input file, or `-` for standard input.")
    output: str = option("-", "Output file, or `-` for standard output.")
    format: str = option(
        "auto",
        "Format of the input: text, jsonl, csv, tsv, conll (for tag) or json. `auto` "
        "uses the file ending.",
        known=lambda: ("auto", *inputs.KINDS),
    )
    probabilities: bool = option(
        False, "For tag, add a column of probabilities before the tags."
    )
    batch_size: int = option(32, "Texts per batch, for files.", least=1)
    num_beams: int | None = option(
        None,
        "Beam width of generate. The default is that of training.",
        least=1,
    )
    export: str | None = option(
        None,
        "Write the model to this file, as a program that runs without ffnlab, instead "
        "of predicting.",
    )
    adapter: str | None = option(
        None, "Directory of an adapter, such as adapter/ of a fine-tuning run."
    )
    checkpoint: str | None = option(
        None, "Directory of the base of --adapter. If not given, that of training."
    )

    def __post_init__(self):
        options.check(self)
        if not self.run and not self.adapter:
            raise InputError(
                "run: needed; give the directory of a fine-tuning run, or "
                "adapter=DIRECTORY"
            )
        if self.run and self.adapter:
            raise InputError("run and adapter: give the directory of one of them")
        if self.checkpoint and not self.adapter:
            raise InputError("checkpoint: it is the base of adapter, which is needed")
        same = Path(self.output).absolute() == Path(self.input).absolute()
        if self.output != "-" and same:
            raise InputError(f"output: {self.output} is the input; choose another")


def predict(config: PredictConfig) -> int:
    """Writes predictions, or exports the model; returns the number of predictions.

    Raises:
      InputError: A file or directory cannot be used, or the scores of the model are not
        finite; the output file is then as it was.
    """
    from ffnlab.finetune import finetuned_model, predictor

    if config.adapter:
        model = finetuned_model.read_adapter(config.adapter, config.checkpoint)
    else:
        model = finetuned_model.read_finetuned(config.run)
    if config.export:
        from ffnlab.finetune.export import export_model

        files = export_model(model, config.export)
        print(terminal(f"written: {', '.join(map(str, files))}"))
        return 0
    usage = model.usage
    if config.num_beams and usage.task != "generate":
        raise InputError(f"num_beams: for generate, not {usage.task}")
    if config.probabilities and usage.task != "tag":
        raise InputError(f"probabilities: for tag, not {usage.task}")
    source = inputs.open_source(config.input, usage, config.format)
    lost: list[int] = []
    apply = predictor.make_predictor(model, config.num_beams, lost.append)
    size = 1 if config.input == "-" else config.batch_size
    form = Format(source.kind, source.header, usage.scheme, config.probabilities)
    with _open(config.output) as file:
        file.write(form.head(usage.task != "generate"))
        count = _write(file, form, _pairs(apply, source, size), source.part)
    if sum(lost):
        most = f"the model reads {usage.max_seq_length} tokens per text"
        print(f"{sum(lost):,} words or tokens cut off: {most}", file=sys.stderr)
    return count


def _write(file: TextIO, form: Format, pairs: Pairs, part: str | None) -> int:
    """Writes predictions as they come; returns their number."""
    if form.kind == "json":  # one object
        done = list(pairs)
        if part:
            file.write(lists_json(part, done))
        else:
            answers = {example.row: prediction.text for example, prediction in done}
            file.write(answers_json(answers))
        return len(done)
    count = 0
    for count, pair in enumerate(pairs, 1):  # noqa: B007, returned
        file.write(form.line(*pair))
        file.flush()
    return count


def _pairs(
    apply: Callable[[list[Example]], list[Prediction]],
    source: inputs.Source,
    size: int,
) -> Pairs:
    """Yields examples with their predictions, made in batches and checked."""
    number = 0
    while batch := list(itertools.islice(source.examples, size)):
        for example, prediction in zip(batch, apply(batch), strict=True):
            yield example, check_finite(prediction, source.place(number))
            number += 1


@contextlib.contextmanager
def _open(path: str) -> Iterator[TextIO]:
    """Opens the output: a file is in place at the end, whole, or not at all.

    Pipes and devices are written to directly, and links are followed. All are in UTF-8.
    """
    path = "-" if path == "/dev/stdout" else path
    real = Path(path).resolve()
    try:
        if path == "-":
            with _in_utf8(sys.stdout):
                yield sys.stdout
                sys.stdout.flush()
        elif real.is_file() or not real.exists():
            with io.atomic(real) as file:
                yield file
        else:
            with open(real, "w", encoding="utf-8") as file:
                yield file
    except BrokenPipeError:  # a reader such as head has enough
        raise
    except OSError as error:
        where = "standard output" if path == "-" else path
        raise InputError(
            f"output: {where}: {error.strerror}; choose another output"
        ) from None


@contextlib.contextmanager
def _in_utf8(stream: TextIO) -> Iterator[None]:
    """Makes a stream write UTF-8 until the block ends, whatever the locale is."""
    if not isinstance(stream, TextIOWrapper):  # of a notebook, which has no bytes
        yield
        return
    encoding, errors = stream.encoding, stream.errors
    stream.reconfigure(encoding="utf-8", errors="strict")
    yield
    stream.reconfigure(encoding=encoding, errors=errors)
