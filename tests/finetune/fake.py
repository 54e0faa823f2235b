"""A task without a model, for the parts of fine-tuning that only call a task."""

import dataclasses
from types import SimpleNamespace

import numpy as np

from ffnlab.data.packed_rows import Rows
from ffnlab.finetune.config import Config
from ffnlab.finetune.task import MONITORED, Task
from ffnlab.finetune.trainer import Run
from ffnlab.finetune.usage import Usage
from ffnlab.report.table import Table
from ffnlab.train.record import Plan, empty_record


def make_config(**options):
    """A configuration that no file stands behind."""
    given = {"checkpoint": "models/minilm", "train": "data/train.tsv", "dev": "d.tsv"}
    return Config(**{**given, **options})


def make_rows(count):
    """So many rows, without arrays."""
    return Rows({}, np.zeros((count, 1), int), count)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeTask(Task):
    """Predicts its parameters, and scores them as they are."""

    float32_model = None
    monitor = "accuracy"
    columns = {"accuracy": "accuracy", "macro F1": "macro"}  # noqa: RUF012

    def predictor(self, part, batch):
        return lambda params: params["w"]

    def score(self, part, predicted):
        score = float(predicted)
        return {MONITORED: score, "accuracy": score, "macro": score / 2}

    def details(self, scores):
        row = ["odd", f"{100 * scores['macro']:.1f}"]
        return {"by label": Table(["label", "F1, %"], [row], words=1)}

    def draw(self, scores, directory):
        (directory / "types.png").write_bytes(b"")
        return {"types.png": "F1 by label"}

    def write(self, part, predicted, directory):
        (directory / f"predictions-{part}.tsv").write_text(f"{predicted}\n")

    def errors(self, part, predicted):
        row = {"example": 1, "label": "odd", "predicted": "even", "probability": 0.5}
        return [{**row, "context": "a|b"}]

    def usage(self):
        return Usage(self.config.task, self.config.max_length)


def make_task(config=None, *, family="bert", sizes=(40, 8, 6), rows=20, **fields):
    """A task of train, dev and test, in so many rows of train."""
    parts = ("train", "dev", "test")[: len(sizes)]
    shape = SimpleNamespace(layers=6, features=384)
    given = {
        "config": config or make_config(),
        "examples": {p: (["a"] * n,) for p, n in zip(parts, sizes, strict=True)},
        "rows": {part: make_rows(rows) for part in parts},
        "checkpoint": SimpleNamespace(family=family, config=shape, params={}),
        "tokenizer": None,
        "vocab_ids": None,
        "summary": "train: 40 texts\ndev: 8 texts",
    }
    return FakeTask(**{**given, **fields})


def make_run(seed, dev, test=None, seconds=0.25):
    """A run of two evaluations, whose best parameters have these scores."""
    plan = Plan(4, 2, 8, monitor=MONITORED, higher_is_better=True)
    record = empty_record(plan, [MONITORED])
    record.scores[MONITORED][:] = [0.25, dev]
    record = record._replace(best_step=np.int32(4))
    values = {"dev": dev} if test is None else {"dev": dev, "test": test}
    task = make_task()
    scores = {part: task.score(part, value) for part, value in values.items()}
    return Run(seed, {"w": dev}, record, scores, values, seconds)
