"""Says of new text what a fine-tuned model learned to say.

Reads a file, or standard input line by line, and writes as it goes.

    python -m experiments.predict --run=OUT --input=new.txt
    echo "Ada lives in London ." | python -m experiments.predict --run=OUT
    python -m experiments.predict --run=OUT --input=words.conll --output=tagged.conll
    python -m experiments.predict --run=OUT --export=model.jax

Input: plain text, a text a line (for tag its words, separated by blanks; for pairs two
texts, for qa question and context, separated by a tab); .jsonl, with the columns that
training had; for tag .conll, of which the first column is read; for qa SQuAD's .json.
Output: CoNLL columns for tag; for generate the text; otherwise a line a text: label or
answer, probability, text, separated by tabs; JSON lines for .jsonl and .json.
"""

import contextlib
import dataclasses
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from experiments import launch
from experiments.launch import option
from ffnlab.errors import InputError


@dataclasses.dataclass(frozen=True)
class Config:
    """What to predict on, and by what; each field is a flag."""

    run: str | None = option(
        None, "a run of experiments.finetune, or its best/; needed"
    )
    input: str = option("-", "a file; - is standard input")
    output: str = option("-", "a file; - is standard output")
    batch_size: int = option(32, "texts at a time, of a file", least=1)
    beam: int | None = option(
        None, "width of the search of generate; as in training if not given", least=1
    )
    export: str | None = option(
        None, "instead, write the model to this file, to run without ffnlab"
    )

    def __post_init__(self):
        launch.check(self)
        if not self.run:
            raise InputError("--run: needed; --help says what it is")


def run(config: Config) -> int:
    """Predicts; returns of how many texts.

    Raises:
      InputError: a file or directory cannot be used.
    """
    from experiments import sources, use

    tuned = use.read(config.run)
    if config.export:
        from experiments import exported

        files = exported.write(tuned, config.export)
        print(f"written: {', '.join(map(str, files))}")
        return 0
    if config.beam and tuned.about["task"] != "generate":
        raise InputError(f"--beam: for generate, not {tuned.about['task']}")
    apply, count = use.applied(tuned, {"beam": config.beam}), 0
    size = 1 if config.input == "-" else config.batch_size
    with _opened(config.output) as out:
        every = sources.items(config.input, tuned.about)
        while batch := list(itertools.islice(every, size)):
            for item, said in zip(batch, apply(batch), strict=True):
                out.write(use.line(tuned.about, item, said))
            out.flush()
            count += len(batch)
    return count


@contextlib.contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    """Opens what is written to; a file is there at the end, whole, or not at all."""
    if path == "-":
        yield sys.stdout
        return
    part = Path(path + ".part")
    try:
        with open(part, "w", encoding="utf-8") as file:
            yield file
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"--output: {path}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


if __name__ == "__main__":
    launch.main(Config, run, __doc__)
