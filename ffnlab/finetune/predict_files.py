"""Says of new text what a fine-tuned model learned to say."""

import contextlib
import dataclasses
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from ffnlab import options
from ffnlab.errors import InputError
from ffnlab.finetune import inputs
from ffnlab.finetune.outputs import Example, Format, Prediction, answers_json
from ffnlab.options import option


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """What to predict on, and by what; each field is a flag."""

    predict: str | None = option(
        None, "a run of experiments.finetune, or its best/; needed"
    )
    input: str = option("-", "a file; - is standard input")
    output: str = option("-", "a file; - is standard output")
    format: str = option(
        "auto",
        "of the input: text, jsonl, csv, tsv, conll for tag, json for qa; by its "
        "ending if not given",
        known=lambda: ("auto", *inputs.KINDS),
    )
    probabilities: bool = option(False, "tags in columns: theirs before them")
    batch_size: int = option(32, "texts at a time, of a file", least=1)
    num_beams: int | None = option(
        None, "width of the search of generate; as in training if not given", least=1
    )
    export: str | None = option(
        None, "instead, write the model to this file, to run without ffnlab"
    )

    def __post_init__(self):
        options.check(self)
        if not self.run:
            raise InputError("run: is needed")
        if (
            self.output != "-"
            and Path(self.output).absolute() == Path(self.input).absolute()
        ):
            raise InputError(f"output: {self.output} is the input; choose another")


def predict(config: PredictConfig) -> int:
    """Predicts; returns of how many texts.

    Raises:
      InputError: a file or directory cannot be used.
    """
    from ffnlab.finetune import finetuned_model, predictor

    tuned = finetuned_model.read_finetuned(config.run)
    if config.export:
        from ffnlab.finetune import export

        files = export.export_model(tuned, config.export)
        print(f"written: {', '.join(map(str, files))}")
        return 0
    if config.num_beams and tuned.about["task"] != "generate":
        raise InputError(f"num_beams: for generate, not {tuned.about['task']}")
    if config.probabilities and tuned.about["task"] != "tag":
        raise InputError(f"probabilities: for tag, not {tuned.about['task']}")
    source = inputs.open_source(config.input, tuned.about, config.format)
    lost: list[int] = []
    apply = predictor.make_predictor(tuned, {"beam": config.num_beams}, lost.append)
    pairs = _pairs(apply, source, 1 if config.input == "-" else config.batch_size)
    scheme, probability = tuned.about.get("scheme"), tuned.about["task"] != "generate"
    form = Format(source.kind, source.header, scheme, config.probabilities)
    with _opened(config.output) as out:
        out.write(form.head(probability))
        count = _written(out, form, pairs)
    if sum(lost):
        most = f"the model reads {tuned.about['length']} tokens a text"
        print(f"{sum(lost):,} words or tokens cut off: {most}", file=sys.stderr)
    return count


def _written(
    out: TextIO, form: Format, pairs: Iterator[tuple[Example, Prediction]]
) -> int:
    """Writes what is said of items as it comes; returns of how many."""
    if form.kind == "json":  # one object, by id
        answers = {item.row: said.text for item, said in pairs}
        out.write(answers_json(answers))
        return len(answers)
    count = 0
    for count, pair in enumerate(pairs, 1):  # noqa: B007, returned
        out.write(form.line(*pair))
        out.flush()
    return count


def _pairs(
    apply: Callable[[list[Example]], list[Prediction]], source: inputs.Source, size: int
) -> Iterator[tuple[Example, Prediction]]:
    """Yields items, each with what is said of it, so many at a time."""
    while batch := list(itertools.islice(source.items, size)):
        yield from zip(batch, apply(batch), strict=True)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    """Opens what is written to; a file is there at the end, whole, or not at all."""
    path = "-" if path == "/dev/stdout" else path
    real = Path(path).resolve()
    whole = path != "-" and (real.is_file() or not real.exists())
    part = real.with_name(real.name + ".part")
    try:
        if path == "-":
            yield sys.stdout
            sys.stdout.flush()
        else:
            with open(part if whole else real, "w", encoding="utf-8") as file:
                yield file
        if whole:
            os.replace(part, real)
    except BrokenPipeError:  # whoever reads it, such as head, has enough
        _mute(path)
    except OSError as error:
        _mute(path)
        where = "standard output" if path == "-" else path
        raise InputError(f"output: {where}: {error.strerror}") from None
    finally:
        if whole:
            part.unlink(missing_ok=True)


def _mute(path: str) -> None:
    """Sends what standard output still holds nowhere, or Python fails on it at exit."""
    if path == "-":
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
