"""How a task is fine-tuned: the gradient, one seed or many, the best by dev."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from ffnlab import pretrained
from ffnlab.data.dataset import Dataset
from ffnlab.finetune.task import Task, with_dtype
from ffnlab.models import language_model
from ffnlab.models.transformer import TransformerConfig
from ffnlab.report.progress import Progress, follow
from ffnlab.sweep import population
from ffnlab.train import adversarial, checkpoint, gradients, layerwise, loop
from ffnlab.train.gradients import mean_loss
from ffnlab.train.record import Plan, Record, check_finite
from ffnlab.types import Gradient, Model, Params

if TYPE_CHECKING:
    from ffnlab.finetune.config import Config


class Run(NamedTuple):
    """One seed's training.

    Attributes:
      seed: its number.
      params: the best by the dev part.
      record: what was written down.
      scores: by part, see `Task.score`.
      predicted: by part, see `Task.predictor`.
      seconds: of a step of all seeds that trained together, without compiling.
    """

    seed: int
    params: Params
    record: Record
    scores: dict[str, dict[str, Any]]
    predicted: dict[str, Any]
    seconds: float


def init_from_checkpoint(config: "Config", task: Task) -> Model:
    """Returns the task's model, which begins with the checkpoint's encoder."""

    def init(key: jax.Array) -> Params:
        encoder = task.found.params
        if task.vocab_ids is not None:
            encoder = layerwise.prune_embeddings(encoder, task.vocab_ids)
        params = task.model.init(key)
        if config.mlm_loss_weight:
            params["masked"] = _masked_head(config, task, key)
        if config.scratch:
            return params
        return {**params, "encoder": jax.tree.map(jax.numpy.array, encoder)}

    return Model(init, task.model.apply)


Predictors = dict[str, Callable[[Params], Any]]  # by part; compiled once for all runs


class DevEvaluator:
    """Scores parameters on the dev part, on the host, for `train.fit`."""

    def __init__(self, task: Task, predictors: Predictors):
        self._task, self._predict = task, predictors["dev"]

    def outputs(self, params: Params, arrays: Any) -> dict[str, None]:
        """Returns the names of the scores."""
        return {"headline": None}

    def __call__(self, params: Params, arrays: Any) -> dict[str, float]:
        """Returns the scores."""
        predicted = self._predict(params)
        return {"headline": self._task.score("dev", predicted)["headline"]}


class PopulationDevEvaluator(DevEvaluator):
    """Scores each member of a population, `[S]`."""

    def __call__(self, params: Params, arrays: Any) -> dict[str, np.ndarray]:
        """Returns the scores."""
        params = jax.device_get(params)  # members lie on several devices
        members = range(len(jax.tree.leaves(params)[0]))
        one = [
            super(PopulationDevEvaluator, self).__call__(member(params, s), arrays)
            for s in members
        ]
        return {"headline": np.array([each["headline"] for each in one], np.float32)}


def member(params: Params, number: int) -> Params:
    """Returns the parameters of one run of a population."""
    return jax.tree.map(lambda array: array[number], params)


def make_plan(config: "Config", task: Task) -> Plan:
    """Returns how long to train; a batch is the rows of about so many texts."""
    texts, rows = task.sizes["train"], len(task.rows["train"].example_index)
    parts = config.gradient_accumulation_steps
    batch = min(max(round(config.batch_size * rows / texts), 1), max(rows // parts, 1))
    asked = config.steps or max(round(config.epochs * rows / (batch * parts)), 1)
    looks = config.evaluations or max(round(asked * batch * parts / rows), 1)
    every = -(-asked // looks)
    # A last stretch of another length would be compiled anew, which takes longer.
    steps = config.steps or every * looks
    return Plan(
        steps,
        every,
        batch * parts,
        patience=config.patience,
        monitor="headline",
        higher_is_better=True,
    )


def steps_per_epoch(task: Task, plan: Plan) -> float:
    """Returns how many steps an epoch has."""
    return len(task.rows["train"].example_index) / plan.batch


def make_gradient(config: "Config", task: Task, model: Model, rates: Any) -> Gradient:
    """Returns what a step descends along."""
    width, loss = task.found.config.features, mean_loss(model, task.objective)
    if config.r_drop_alpha:
        loss = gradients.r_drop(
            model, task.objective, config.r_drop_alpha, task.classes
        )
    if config.mlm_loss_weight:
        hidden = with_dtype(config, _hidden(task), keep="masked")
        hidden = layerwise.stop_gradients(hidden, rates)
        loss = language_model.add_mlm_loss(loss, hidden, config.mlm_loss_weight)
    gradient = gradients.mean_gradient(loss)
    if config.adversarial == "fgm":
        gradient = adversarial.fgm(loss, width, config.adversarial_epsilon)
    if config.adversarial == "freelb":
        step = config.adversarial_epsilon / 5  # the first offset is as long
        gradient = adversarial.freelb(
            loss, width, 3, step, config.adversarial_epsilon, step
        )
    return gradients.accumulate(
        gradient, config.gradient_accumulation_steps, task.count
    )


def _hidden(task: Task) -> Model:
    """Returns the masked language model of the task's encoder."""
    mask = int(np.searchsorted(task.vocab_ids, task.tokenizer.mask))
    special = {number for side in task.tokenizer.around for number in side}
    places = [int(np.searchsorted(task.vocab_ids, number)) for number in special]
    return language_model.with_mlm_head(_encoder(task), mask, special=places)


def _encoder(task: Task) -> TransformerConfig:
    """Returns the encoder as it is trained: with the tokens alone that occur."""
    return dataclasses.replace(task.found.config, vocabulary=len(task.vocab_ids))


def _masked_head(config: "Config", task: Task, key: jax.Array) -> Params:
    """Returns the checkpoint's head for hidden tokens, or a new one."""
    drawn = language_model.masked_head(_encoder(task), key)
    if config.scratch:
        return drawn
    whole = pretrained.load(config.checkpoint)
    if whole.config.head == "none":
        return drawn
    head = whole.params["head"]
    return {**head, "bias": head["bias"][task.vocab_ids]}


def train(config: "Config", task: Task, directory: Path) -> list[Run]:
    """Trains all seeds, together where memory allows, and scores their best epochs."""
    plan = make_plan(config, task)
    together = config.seeds > 1 and _fits(config, task)
    units = 1 if together else config.seeds
    parts = [part for part in ("dev", "test") if part in task.rows]
    predictors = {part: task.predictor(part, plan.batch) for part in parts}
    with Progress(plan.steps * units, "steps") as progress:
        work = Work(config, task, directory, plan, progress, predictors)
        if together:
            return _together(work)
        return [_one(work, seed) for seed in range(config.seeds)]


def _fits(config: "Config", task: Task) -> bool:
    """Whether the states of all seeds fit in half of the memory.

    A state has the parameters, the best of them and two moments, float32.
    """
    shapes = jax.eval_shape(init_from_checkpoint(config, task).init, jax.random.key(0))
    each = 4 * 4 * sum(leaf.size for leaf in jax.tree.leaves(shapes))
    told = jax.local_devices()[0].memory_stats() or {}
    there = told.get("bytes_limit", 0) * jax.local_device_count()
    there = there or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return config.seeds * each < there / 2


def fit_arguments(config: "Config", task: Task, plan: Plan) -> dict[str, Any]:
    """Returns what `train.fit` and `sweep.fit_population` are given alike."""
    key, model = jax.random.key(config.seed), init_from_checkpoint(config, task)
    layers = task.found.config.layers
    shapes = jax.eval_shape(model.init, key)
    rates = layerwise.layer_rates(shapes, layers, config.layer_decay, config.freeze)
    optimizer = config.make_optimizer(
        plan.steps, flat=False, learning_rate=config.learning_rate
    )
    optimizer = layerwise.scale_by_layer(optimizer, rates)
    if config.unfreeze_every_epochs:
        every = max(
            round(config.unfreeze_every_epochs * steps_per_epoch(task, plan)), 1
        )
        optimizer = layerwise.gradual_unfreezing(optimizer, shapes, layers, every)
    model = layerwise.stop_gradients(model, rates)
    return {
        "model": model,
        "objective": task.objective,
        "optimizer": optimizer,
        "dataset": _dataset(config, task),
        "plan": plan,
        "key": key,
        "gradient": make_gradient(config, task, model, rates),
    }


def _dataset(config: "Config", task: Task) -> Dataset:
    """Returns the rows as what `train.fit` takes; it does not look at the test part."""
    seen, chosen = (task.rows[part].arrays for part in ("train", "dev"))
    return Dataset(Path(config.train).name, seen, chosen, {}, config.task, 1, 1, {})


class Work(NamedTuple):
    """What all runs of a fine-tuning share."""

    config: "Config"
    task: Task
    directory: Path
    plan: Plan
    progress: Progress
    predictors: Predictors


def _one(work: Work, seed: int) -> Run:
    """Trains one seed."""
    config, task, directory, plan, progress, predictors = work
    progress.begin(f"seed {seed}")
    fitted = loop.fit(
        **fit_arguments(config, task, plan),
        seed=seed,
        checkpoints=checkpoint.Checkpoints(
            directory / "checkpoints" / str(seed), seconds=60.0
        ),
        on_evaluation=follow(progress, plan, "headline", task.monitor + " {:.2%}"),
        evaluate=DevEvaluator(task, predictors),
    )
    check_finite(fitted.record, config.learning_rate)
    return _judged(work, seed, fitted.best, fitted.record, fitted.seconds_per_step)


def _together(work: Work) -> list[Run]:
    """Trains all seeds as one population."""
    config, task, directory, plan, progress, predictors = work
    progress.begin(f"{config.seeds} seeds")
    _, _, fitted = population.fit_population(
        **fit_arguments(config, task, plan),
        seeds=range(config.seeds),
        learning_rates=[config.learning_rate],
        checkpoints=checkpoint.Checkpoints(directory / "checkpoints", seconds=60.0),
        on_evaluation=follow(
            progress, plan, "headline", "mean " + task.monitor + " {:.2%}"
        ),
        evaluate=PopulationDevEvaluator(task, predictors),
    )
    check_finite(fitted.record, config.learning_rate)
    best, step = jax.device_get(fitted.best), fitted.record.step
    curves = fitted.record._replace(step=np.zeros(config.seeds))
    return [
        _judged(
            work,
            seed,
            member(best, seed),
            member(curves, seed)._replace(step=step),
            fitted.seconds_per_step,
        )
        for seed in range(config.seeds)
    ]


def _judged(
    work: Work, seed: int, params: Params, record: Record, seconds: float
) -> Run:
    """Returns a run with what its best parameters predict and score."""
    predicted = {part: each(params) for part, each in work.predictors.items()}
    scores = {part: work.task.score(part, each) for part, each in predicted.items()}
    return Run(seed, params, record, scores, predicted, seconds)


# What transformers calls a model for a task.
