"""Regression by a fine-tuned encoder: a number for a text or a pair of texts."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import jax.numpy as jnp
import numpy as np

from ffnlab.data.packed_rows import with_targets
from ffnlab.errors import InputError
from ffnlab.finetune import error_rows, outputs
from ffnlab.finetune.target_metrics import regression_report
from ffnlab.finetune.target_outputs import Score
from ffnlab.finetune.task import MONITORED, Task
from ffnlab.finetune.text_parts import pack_parts, read_examples, usage_of
from ffnlab.finetune.usage import Usage
from ffnlab.models.classifier import ClassifierConfig, Predictor, classifier_model
from ffnlab.report import plots
from ffnlab.report.table import Table
from ffnlab.train.objectives import squared_error_objective
from ffnlab.types import Array, Batch, Model, Objective, Params

if TYPE_CHECKING:
    from ffnlab.finetune.config import Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressionTask(Task):
    """A number for each text or pair of texts.

    The model is trained on targets minus their mean, by their deviation, so that the
    learning rate fits any unit. `exported` puts both into the last layer: a saved model
    predicts in the units of the files.

    Attributes:
      mean: The mean of the targets of train.
      deviation: Their standard deviation.
      shape: The configuration of the classifier, of one class.
      predicted: The predictions by part, of the run that is reported.
    """

    mean: float
    deviation: float
    shape: ClassifierConfig
    predicted: dict[str, np.ndarray] | None = None

    monitor: ClassVar[str] = "mean of Pearson and Spearman"
    columns: ClassVar[dict[str, str]] = {
        "Pearson": "pearson",
        "Spearman": "spearman",
        "mean squared error": "mse",
    }
    percent: ClassVar[bool] = False

    @property
    def float32_model(self) -> Model:
        """The model; its outputs are standardised."""
        return classifier_model(self.shape)

    @property
    def objective(self) -> Objective:
        """The squared error of standardised targets."""
        return squared_error_objective()

    def count(self, batch: Batch) -> Array:
        """Returns the number of targets of a batch."""
        return (~jnp.isnan(batch["y"])).sum().astype(jnp.float32)

    def exported(self, params: Params) -> Params:
        """Returns parameters whose outputs are in the units of the files."""
        out = params["head"]["out"]
        scaled = {
            "kernel": out["kernel"] * self.deviation,
            "bias": out["bias"] * self.deviation + self.mean,
        }
        return {**params, "head": {**params["head"], "out": {**out, **scaled}}}

    def limits(self, key: str) -> tuple[float, float]:
        """Returns the range of a score, by its key."""
        return (0.0, np.inf) if key == "mse" else (-1.0, 1.0)

    def settle(self, predicted: dict[str, np.ndarray]) -> "RegressionTask":
        """Returns the task with the predictions that are drawn."""
        return dataclasses.replace(self, predicted=predicted)

    def predictor(self, part: str, batch: int) -> Callable[[Params], np.ndarray]:
        """Returns a function to numbers, float32 `[count]`."""
        rows = self.rows[part]
        predict = Predictor(
            self.model, rows.arrays, batch, lambda outputs, x: (outputs[..., 0],)
        )
        return lambda params: rows.flat(predict(self.exported(params))[0])

    def score(self, part: str, predicted: np.ndarray) -> dict[str, Any]:
        """Returns the correlations and the squared error."""
        report = regression_report(predicted, np.array(self.examples[part].labels))
        return {MONITORED: report["correlation"], **report}

    def details(self, scores: dict[str, Any]) -> dict[str, Table]:
        """Returns no further tables."""
        return {}

    def draw(self, scores: dict[str, Any], directory: Path) -> dict[str, str]:
        """Draws predicted against true numbers of the last part."""
        if self.predicted is None:
            return {}
        part = self.last_part
        true = np.array(self.examples[part].labels)
        figure = plots.predicted_against_true(self.predicted[part], true)
        plots.save(figure, directory / "predicted.png")
        return {"predicted.png": f"predicted against true, {part} part"}

    def write(self, part: str, predicted: np.ndarray, directory: Path) -> None:
        """Writes predictions in the format of the part's file."""
        scores = [Score(float(number)) for number in predicted]
        path, examples = self.config.file_of(part), self.examples[part]
        outputs.write_predictions(directory, path, part, examples, scores)

    def errors(self, part: str, predicted: np.ndarray) -> list[dict[str, Any]]:
        """Returns a row for each text, the largest error first."""
        return error_rows.of_scores(self.examples[part], predicted.tolist())

    def usage(self) -> Usage:
        """Returns how the fine-tuned model is used."""
        kind, train = self.config.problem_type, self.examples["train"]
        return usage_of(self.config, train, self.shape, problem_type=kind)


def prepare(config: "Config") -> RegressionTask:
    """Returns the task of a config, with all files read, checked and packed.

    Raises:
      InputError: A file, the checkpoint or a flag cannot be used.
    """
    examples, found = read_examples(config)
    targets = np.array(examples["train"].labels)
    mean, deviation = float(targets.mean()), float(targets.std())
    if np.ptp(targets) == 0:
        raise InputError(
            f"{config.train}: every target is {mean:g}: there is nothing to predict"
        )
    fields = pack_parts(config, examples, 1, found)
    for part, rows in fields["rows"].items():
        labels = np.array(fields["examples"][part].labels)
        standard = ((labels - mean) / deviation).astype(np.float32)
        fields["rows"][part] = with_targets(rows, standard, np.nan)
    low, high = targets.min(), targets.max()
    summary = (
        f"targets of train: {low:g} to {high:g}, mean {mean:.4g}, standard deviation "
        f"{deviation:.4g}"
    )
    column = examples["train"].layout.columns.label
    return RegressionTask(
        **{**fields, "summary": f"{fields['summary']}\n{summary}"},
        label_names=["score" if column.isdecimal() else column],
        mean=mean,
        deviation=deviation,
    )
