"""Predictions of a fine-tuned model on files and standard input."""

import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO

from ffnlab import io
from ffnlab.data import formats
from ffnlab.data.example import Example
from ffnlab.data.json_files import document
from ffnlab.data.tagged_lines import TaggedLines
from ffnlab.errors import InputError
from ffnlab.escape import terminal
from ffnlab.finetune import input_formats, inputs
from ffnlab.finetune.outputs import (
    Format,
    Prediction,
    answers_json,
    check_finite,
    record_line,
    write_arrow,
)
from ffnlab.finetune.pipeline_inputs import keys_of
from ffnlab.finetune.predict_options import PredictOptions
from ffnlab.finetune.usage import Usage
from ffnlab.nn import user_code
from ffnlab.options import option

if TYPE_CHECKING:
    from ffnlab.finetune.entities import Words
    from ffnlab.finetune.finetuned_model import FinetunedModel
    from ffnlab.finetune.usage import Usage

Pairs = Iterator[tuple[Example, Prediction]]


# What --task_output may be, with the tasks that have it.
_OUTPUTS = {
    "rows": ("classify", "pairs", "tag", "qa", "generate"),
    "entities": ("tag",),
    "labels": ("classify", "pairs"),
    "answers": ("qa",),
}


@dataclasses.dataclass(frozen=True)
class PredictConfig(PredictOptions):
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
        "Format of the input: text, jsonl, csv, tsv, conll (for tag: columns, CoNLL-U "
        "or a table of words), json, parquet or arrow. `auto` uses the file ending; "
        "without one, and of .txt and standard input, the first lines.",
        known=lambda: ("auto", *input_formats.KINDS),
    )
    text_column: str | None = option(
        None,
        "Column of the text, or of the first of two: a name, or a number from 1 if "
        "there is no header. If not given, that of training.",
    )
    pair_column: str | None = option(
        None, "Column of the second text, for pairs. If not given, that of training."
    )
    task_output: str = option(
        "rows",
        "What to write: the input with predictions added (rows), or a JSON line per "
        "input with its entities (for tag, cut from punctuation, with offsets), labels "
        "(for classify and pairs, with probabilities) or answers (for qa, with "
        "offsets).",
        known=lambda: tuple(_OUTPUTS),
    )
    probabilities: bool = option(
        False, "For tag, add a column of probabilities before the tags."
    )
    predicted_column: str | None = option(
        None,
        "Column to write tags to, for CoNLL columns (a number from 1) and CoNLL-U (a "
        "name such as upos, or a pair such as misc:NER). If not given, a new last "
        "column; for CoNLL-U the column of training, or misc:Predicted.",
    )
    batch_size: int = option(32, "Texts per batch, for files.", least=1)
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
    imports: tuple[str, ...] = user_code.imports_option()

    def __post_init__(self):
        user_code.load(self.imports)
        super().__post_init__()
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
    model = model._replace(usage=_usage(config, model.usage))
    usage, whole = model.usage, config.task_output == "entities"
    _check_task(config, usage.task)
    _check_targets(config, usage)
    source = inputs.open_source(config.input, usage, config.format, whole, model.names)
    source = _placed(source, config, usage)
    lost: list[int] = []
    wanted = dataclasses.replace(_options_of(config), top_k=_top_k(config, usage.task))
    apply = predictor.make_predictor(model, wanted, lost.append)
    streamed = config.input == "-" and source.kind in input_formats.STREAMED
    size = 1 if streamed else config.batch_size
    _report(config, source)
    if _is_binary(config, source):
        form = Format(source.kind, scheme=usage.scheme, separator=usage.label_separator)
        with _open(config.output, "wb") as file:
            count = write_arrow(config.input, file, form, _pairs(apply, source, size))
    else:
        count = _predict_lines(config, model, apply, inputs.with_rows(source), size)
    if sum(lost):
        print(predictor.cut_off(sum(lost), model), file=sys.stderr)
    return count


def _usage(config: PredictConfig, usage: Usage) -> Usage:
    """Returns how a model is used, on the columns of the flags.

    Raises:
      InputError: A column is given that the task does not have.
    """
    names = ("text_column", "pair_column")
    given = {name: getattr(config, name) for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if usage.task == "qa" or (name == "pair_column" and not usage.two_texts):
            raise InputError(f"{name}: {usage.task} has no such column; leave it out")
    return dataclasses.replace(usage, **given)


def _is_binary(config: PredictConfig, source: inputs.Source) -> bool:
    """Returns whether Parquet or Arrow is written: as it came in, to a file."""
    rows = source.kind in formats.BINARY and config.task_output == "rows"
    return rows and config.output != "-" and not config.output.endswith(".jsonl")


def _placed(
    source: inputs.Source, config: PredictConfig, usage: "Usage"
) -> inputs.Source:
    """Returns a source whose columns, if it has any, are told where predictions go.

    What was found of their layout is added to its note.
    """
    first = next(source.examples, None)
    examples = itertools.chain([first] if first else [], source.examples)
    row = first.row if first else None
    if not isinstance(row, TaggedLines):
        if config.predicted_column:
            what = "the input has no columns of CoNLL or CoNLL-U; leave it out"
            raise InputError(f"predicted_column: {what}")
        return source._replace(examples=examples)
    column = config.predicted_column
    trained = usage.label_column if usage.file_format == "conllu" else None
    if column is None and trained and row.layout.has(trained):
        column = trained
    place = row.at(column).place
    placed = (
        example._replace(row=example.row._replace(place=place)) for example in examples
    )
    note = "; ".join(filter(None, dict.fromkeys([row.about, source.note])))
    return source._replace(examples=placed, note=note)


def _report(config: PredictConfig, source: inputs.Source) -> None:
    """Prints what was detected of the input, and what is written in its place."""
    if source.note:
        print(terminal(f"{source.name}: {source.note}"), file=sys.stderr)
    rows = source.kind in formats.BINARY and config.task_output == "rows"
    if rows and not _is_binary(config, source):
        what = f"written as JSON lines; in a file of its own it stays {source.kind}"
        print(terminal(f"{source.name}: {what}"), file=sys.stderr)


def _predict_lines(
    config: PredictConfig,
    model: "FinetunedModel",
    apply: Callable[[list[Example]], list[Any]],
    source: inputs.Source,
    size: int,
) -> int:
    """Writes predictions as text as they come; returns their number."""
    usage = model.usage
    with _open(config.output) as file:
        if config.task_output != "rows":
            lines = _records(config, model, apply, source, size)
            return _write_lines(file, lines)
        form = Format(
            source.kind,
            source.header,
            usage.scheme,
            config.probabilities,
            usage.label_separator,
        )
        file.write(form.head(usage.task != "generate" and usage.predicts_labels))
        count = _write(file, form, _pairs(apply, source, size), source.around)
        file.write("".join(source.rest))
        return count


def _options_of(config: PredictConfig) -> PredictOptions:
    """Returns the options of predictions that are flags."""
    fields = dataclasses.fields(PredictOptions)
    return PredictOptions(**{each.name: getattr(config, each.name) for each in fields})


def _top_k(config: PredictConfig, task: str) -> int | None:
    """Returns the number of candidates; all labels where they are asked for."""
    if config.task_output == "labels":
        return config.top_k or sys.maxsize
    return config.top_k


def _check_task(config: PredictConfig, task: str) -> None:
    """Raises if an option is given that the task does not have."""
    tasks = _OUTPUTS[config.task_output]
    if task not in tasks:
        raise InputError(
            f"task_output: {config.task_output} is for {', '.join(tasks)}, not {task}"
        )
    config.check_task(task)
    if config.probabilities and task != "tag":
        raise InputError(f"probabilities: for tag, not {task}")
    if config.predicted_column and (task != "tag" or config.task_output != "rows"):
        raise InputError("predicted_column: for tag and task_output=rows")
    if config.probabilities and config.task_output != "rows":
        raise InputError("probabilities: for task_output=rows; entities have a score")
    if config.top_k and task != "generate" and config.task_output == "rows":
        other = "answers" if task == "qa" else "labels"
        raise InputError(f"top_k: needs task_output={other}")


def _check_targets(config: PredictConfig, usage: Usage) -> None:
    """Raises if an option is given that is of labels, and the model has none."""
    if usage.predicts_labels:
        return
    for name, default in (("task_output", "rows"), ("top_k", None)):
        if getattr(config, name) != default:
            raise InputError(f"{name}: for labels; this model predicts a number")


def _records(
    config: PredictConfig,
    model: "FinetunedModel",
    apply: Callable[[list[Example]], list[Any]],
    source: inputs.Source,
    size: int,
) -> Iterator[str]:
    """Yields a JSON line for each example, with its entities, labels or answers."""
    from ffnlab.finetune.entities import cut_words, entities_of

    name, keys, header = config.task_output, keys_of(model.usage), source.header
    if name != "entities":
        for example, results in _pairs(apply, source, size):
            each = results if isinstance(results, list) else [results]
            yield record_line(example, keys, name, each[: config.top_k], header)
        return
    whole: list[tuple[Example, Words]] = []

    def cut() -> Iterator[Example]:
        for example in source.examples:
            whole.append((example, cut_words(model.tokenizer, example.text)))
            yield Example(whole[-1][1].words)

    for _, tagged in _pairs(apply, source._replace(examples=cut()), size):
        example, words = whole.pop(0)
        entities = entities_of(example.text, words, tagged, model.names)
        yield record_line(example, keys, name, entities)


def _write_lines(file: TextIO, lines: Iterator[str]) -> int:
    """Writes lines as they come; returns their number."""
    count = 0
    for count, line in enumerate(lines, 1):  # noqa: B007, returned
        file.write(line)
        file.flush()
    return count


def _write(
    file: TextIO, form: Format, pairs: Pairs, around: tuple[str, str] | None
) -> int:
    """Writes predictions as they come; returns their number."""
    if form.kind == "json":  # one value
        done = list(pairs)
        if around:
            file.write(document(around, (form.line(*pair) for pair in done)))
        else:
            answers = {example.row: answer.text for example, answer in done}
            file.write(answers_json(answers))
        return len(done)
    return _write_lines(file, (form.line(*pair) for pair in pairs))


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
def _open(path: str, mode: str = "w") -> Iterator[IO[Any]]:
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
            with io.atomic(real, mode) as file:
                yield file
        else:
            encoding = None if "b" in mode else "utf-8"
            with open(real, mode, encoding=encoding) as file:
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
