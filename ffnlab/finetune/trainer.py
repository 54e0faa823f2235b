"""Training of a task: the plan, the gradient, one seed or several at once."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from ffnlab import pretrained, processes
from ffnlab.finetune import adapting
from ffnlab.finetune.adapting import Adaptation
from ffnlab.finetune.dev_evaluator import DevEvaluator, member
from ffnlab.finetune.task import MONITORED, Task, with_dtype
from ffnlab.finetune.work import Predictors, Work, divide_rows, hooks
from ffnlab.models import language_model
from ffnlab.models.transformer import TransformerConfig
from ffnlab.report.progress import Progress
from ffnlab.report.trackers import Tracker
from ffnlab.sweep import population
from ffnlab.train import adversarial, gradients, layerwise, loop, program
from ffnlab.train.learner import Frozen, Parts
from ffnlab.train.objectives import mean_loss
from ffnlab.train.record import Plan, Record
from ffnlab.train.sharding import Layout, sizes_of_processes
from ffnlab.types import Gradient, Model, Params

if TYPE_CHECKING:
    import optax

    from ffnlab.finetune.config import Config


class Run(NamedTuple):
    """The training of one seed.

    Attributes:
      seed: The seed.
      params: The parameters that scored best on the dev part, of those that train.
      record: The losses and dev scores.
      scores: The scores by part, see `Task.score`.
      predicted: The predictions by part, see `Task.predictor`.
      seconds: The seconds of a step, without compiling; a step is of all seeds that
        trained together.
    """

    seed: int
    params: Params
    record: Record
    scores: dict[str, dict[str, Any]]
    predicted: dict[str, Any]
    seconds: float


def init_from_checkpoint(config: "Config", task: Task) -> Model:
    """Returns the task's model, whose encoder is initialized from the checkpoint."""

    def init(key: jax.Array) -> Params:
        params = task.model.init(key)
        if config.mlm_loss_weight:
            params["masked"] = _init_mlm_head(config, task, key)
        if config.scratch:
            return params
        encoder = task.checkpoint.params
        if task.vocab_ids is not None:
            encoder = layerwise.prune_embeddings(encoder, task.vocab_ids)
        return {**params, "encoder": jax.tree.map(jax.numpy.array, encoder)}

    return Model(init, task.model.apply)


def make_plan(config: "Config", task: Task) -> Plan:
    """Returns how long to train; a batch is the rows of about batch_size examples."""
    examples, rows = task.sizes["train"], len(task.rows["train"].example_index)
    parts = config.gradient_accumulation_steps
    batch = round(config.batch_size * rows / examples)
    batch = parts * min(max(batch, 1), max(rows // parts, 1))
    steps = config.steps or max(round(config.epochs * rows / batch), 1)
    evaluations = config.evaluations or max(round(steps * batch / rows), 1)
    every = -(-steps // evaluations)
    # A shorter last stretch would be compiled anew, which takes longer than the steps.
    return Plan(
        config.steps or every * evaluations,
        every,
        batch,
        patience=config.patience,
        monitor=MONITORED,
        higher_is_better=True,
    )


def steps_per_epoch(task: Task, plan: Plan) -> float:
    """Returns the number of steps of an epoch."""
    return len(task.rows["train"].example_index) / plan.batch


def _own_gradient(
    config: "Config",
    task: Task,
    model: Model,
    rates: Any = None,
    penalty: Callable[[Params], jax.Array] | None = None,
) -> Gradient | None:
    """Returns the gradient of a step that flags ask for; None is that of the loss.

    Args:
      config: The flags.
      task: The task.
      model: The model, without a gradient where the rate is 0.
      rates: The share of the learning rate of every array; a masked-language-model
        loss needs it.
      penalty: What is added to the loss of the parameters.
    """
    width = task.checkpoint.config.embedding_width
    plain = loss = mean_loss(model, task.objective)
    if config.r_drop_alpha:
        loss = gradients.r_drop(
            model, task.objective, config.r_drop_alpha, task.class_logits
        )
    if config.mlm_loss_weight:
        mlm = with_dtype(config, _mlm_model(task), keep="masked")
        mlm = layerwise.stop_gradients(mlm, rates)
        loss = language_model.add_mlm_loss(loss, mlm, config.mlm_loss_weight)
    if penalty is not None:
        loss = gradients.add_penalty(loss, penalty)
    parts = config.gradient_accumulation_steps
    if loss is plain and config.adversarial == "none" and parts == 1:
        return None
    gradient, epsilon = gradients.mean_gradient(loss), config.adversarial_epsilon
    if config.adversarial == "fgm":
        gradient = adversarial.fgm(loss, width, epsilon)
    if config.adversarial == "freelb":
        step = epsilon / 5  # the first offset is as long
        gradient = adversarial.freelb(loss, width, 3, step, epsilon, step)
    return gradients.accumulate(gradient, parts, task.count)


def _mlm_model(task: Task) -> Model:
    """Returns the masked language model of the task's encoder."""
    mask = int(np.searchsorted(task.vocab_ids, task.tokenizer.mask))
    ids = {number for side in task.tokenizer.around for number in side}
    special = [int(np.searchsorted(task.vocab_ids, number)) for number in ids]
    return language_model.with_mlm_head(_encoder(task), mask, special_tokens=special)


def _encoder(task: Task) -> TransformerConfig:
    """Returns the encoder as it is trained, with the tokens that occur."""
    shape = task.checkpoint.config
    return dataclasses.replace(shape, vocabulary=len(task.vocab_ids))


def _init_mlm_head(config: "Config", task: Task, key: jax.Array) -> Params:
    """Returns the checkpoint's masked-language-model head, or a new one."""
    drawn = language_model.init_mlm_head(_encoder(task), key)
    if config.scratch:
        return drawn
    checkpoint = pretrained.load(config.checkpoint)
    if checkpoint.config.head == "none":
        return drawn
    head = checkpoint.params["head"]
    return {**head, "bias": head["bias"][task.vocab_ids]}


def prepare_adaptation(config: "Config", task: Task) -> Adaptation | None:
    """Returns the model in two parts by --method; None where everything trains.

    Raises:
      InputError: The method does not fit the model or the number of steps.
    """
    steps = make_plan(config, task).steps
    adaptation = adapting.prepare(config, init_from_checkpoint(config, task), steps)
    if adaptation is None:
        return None
    total = adaptation.summary.total + task.unused_parameters
    return adaptation._replace(summary=adaptation.summary._replace(total=total))


def train(
    config: "Config",
    task: Task,
    directory: Path,
    adaptation: Adaptation | None = None,
    tracker: Tracker | None = None,
    layout: Layout | None = None,
) -> list[Run]:
    """Trains all seeds, together where memory allows, and scores their best epochs.

    Args:
      config: The flags.
      task: The task.
      directory: The run directory.
      adaptation: From `prepare_adaptation`.
      tracker: What the losses and scores are reported to, or None.
      layout: From `make_layout`.
    """
    plan = make_plan(config, task)
    together = trains_together(config, task, adaptation)
    units = 1 if together else config.seeds
    parts = [part for part in ("dev", "test") if part in task.rows]
    predictors = make_predictors(task, plan, parts, adaptation)
    texts = config.batch_size * config.gradient_accumulation_steps
    texts *= config.seeds if together else 1
    with Progress(plan.steps * units, "steps", texts=texts) as progress:
        common = (config, task, directory, plan, progress, predictors)
        work = Work(*common, adaptation, tracker, layout)
        if together:
            return _train_together(work)
        return [_train_one(work, seed) for seed in range(config.seeds)]


def make_predictors(
    task: Task, plan: Plan, parts: Sequence[str], adaptation: Adaptation | None
) -> Predictors:
    """Returns for each part a function from what trains to predictions."""
    predictors = {part: task.predictor(part, plan.batch) for part in parts}
    if adaptation is None:
        return predictors
    return {part: _compose(each, adaptation.join) for part, each in predictors.items()}


def _compose(outer: Callable, inner: Callable) -> Callable:
    return lambda params: outer(inner(params))


def make_layout(
    config: "Config", task: Task, adaptation: Adaptation | None
) -> Layout | None:
    """Returns how the training is divided over devices; see `choose_layout`.

    Raises:
      InputError: The mesh does not fit the devices, the seeds or the rows of a batch.
    """
    together, plan = trains_together(config, task, adaptation), make_plan(config, task)
    sizes = config.mesh_sizes or sizes_of_processes(together)
    layout = divide_rows(config, task, plan.batch, sizes, together)
    if layout:
        layout.check((adaptation or init_from_checkpoint(config, task)).init)
    return layout


def trains_together(
    config: "Config", task: Task, adaptation: Adaptation | None
) -> bool:
    """Returns whether all seeds train as one population."""
    return 1 < config.seeds <= runs_that_fit(config, task, adaptation)


def runs_that_fit(config: "Config", task: Task, adaptation: Adaptation | None) -> int:
    """Returns the number of runs whose states fit in half of the memory.

    A state has the parameters that train, the best of them and two moments, float32.
    """
    part = adaptation or init_from_checkpoint(config, task)
    shapes = jax.eval_shape(part.init, jax.random.key(0))
    state = 4 * 4 * sum(leaf.size for leaf in jax.tree.leaves(shapes))
    stats = jax.local_devices()[0].memory_stats() or {}
    memory = stats.get("bytes_limit", 0) * jax.local_device_count()
    memory = memory or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # Machines may differ in memory; all processes do what process 0 decides.
    return processes.first_does(lambda: int(memory / 2 // state))


def fit_arguments(
    config: "Config", task: Task, plan: Plan, adaptation: Adaptation | None = None
) -> dict[str, Any]:
    """Returns the arguments that `fit` and `fit_population` have in common."""
    parts = (task.rows[part].arrays for part in ("train", "dev"))
    learner: Frozen | loop.Learner
    if adaptation is None:
        learner = _full_learner(config, task, plan)
    else:
        learner = _adapted_learner(config, task, plan, adaptation)
    return {
        "learner": learner,
        "dataset": Parts(Path(config.train).name, *parts),
        "plan": plan,
        "key": jax.random.key(config.seed),
    }


def _full_learner(config: "Config", task: Task, plan: Plan) -> loop.Learner:
    """Returns the learner of all parameters that are not frozen by a flag."""
    key, model = jax.random.key(config.seed), init_from_checkpoint(config, task)
    layers, shapes = task.checkpoint.config.layers, jax.eval_shape(model.init, key)
    rates = layerwise.layer_rates(shapes, layers, config.layer_decay, config.freeze)
    optimizer = layerwise.scale_by_layer(_optimizer(config, plan), rates)
    if config.unfreeze_every_epochs:
        every = round(config.unfreeze_every_epochs * steps_per_epoch(task, plan))
        optimizer = layerwise.gradual_unfreezing(
            optimizer, shapes, layers, max(every, 1)
        )
    model = layerwise.stop_gradients(model, rates)
    own = _own_gradient(config, task, model, rates)
    return loop.Learner(model, task.objective, optimizer, own, independent=True)


def _adapted_learner(
    config: "Config", task: Task, plan: Plan, adaptation: Adaptation
) -> Frozen:
    """Returns the learner of the few parameters of a method, beside the frozen ones."""
    optimizer = adapting.adapted_optimizer(adaptation, _optimizer(config, plan))
    penalty = adapting.penalty(adaptation)

    def learner_of(model: Model) -> loop.Learner:
        own = _own_gradient(config, task, model, penalty=penalty)
        return loop.Learner(model, task.objective, optimizer, own, independent=True)

    return adapting.make_learner(adaptation, learner_of)


def _optimizer(config: "Config", plan: Plan) -> "optax.GradientTransformation":
    rate = config.learning_rate
    return config.make_optimizer(plan.steps, flat=False, learning_rate=rate)


def _train_one(work: Work, seed: int) -> Run:
    """Trains one seed."""
    task = work.task
    work.progress.begin(f"seed {seed}", compiling=True)
    result = loop.fit(
        **fit_arguments(work.config, task, work.plan, work.adaptation),
        seed=seed,
        evaluator=DevEvaluator(task, work.predictors["dev"]),
        hooks=hooks(work, str(seed), seeds=[seed]),
        layout=work.layout,
    )
    return _score(work, seed, result.best, result.record, result.seconds_per_step)


def _train_together(work: Work) -> list[Run]:
    """Trains all seeds as one population."""
    config = work.config
    work.progress.begin(f"{config.seeds} seeds", compiling=True)
    programs = make_programs(work, config.seeds)
    rates = [config.learning_rate]
    return train_members(work, range(config.seeds), rates, programs)


def make_programs(work: Work, members: int) -> program.Programs:
    """Returns the programs of populations of some size, which score on the host."""
    learner = fit_arguments(work.config, work.task, work.plan, work.adaptation)[
        "learner"
    ]
    evaluator = DevEvaluator(work.task, work.predictors["dev"], members)
    return population.make_programs(learner, evaluator, layout=work.layout)


def train_members(
    work: Work,
    seeds: Sequence[int],
    rates: Sequence[float],
    programs: program.Programs,
    folder: str = "",
) -> list[Run]:
    """Trains seeds × learning rates as one population.

    Args:
      work: What the runs have in common.
      seeds: The seeds.
      rates: The peak learning rates.
      programs: From `make_programs`, for as many members.
      folder: Where the checkpoints are.

    Returns:
      The runs, ordered by learning rate, then by seed. One whose loss was not finite
      has the best parameters of before; see `train.divergence`.
    """
    members = population.grid(seeds, rates)
    size = len(members.seeds)
    result = population.fit_members(
        **fit_arguments(work.config, work.task, work.plan, work.adaptation),
        members=members,
        programs=programs,
        identity={"seeds": [*seeds], "learning_rates": [*map(float, rates)]},
        hooks=hooks(work, folder, "mean " if size > 1 else "", seeds),
        layout=work.layout,
    ).fit
    best, step = jax.device_get(result.best), result.record.step
    curves = result.record._replace(step=np.zeros(size))
    runs = []
    for number in range(size):
        record = member(curves, number)._replace(step=step)
        seed, params = int(members.seeds[number]), member(best, number)
        runs.append(_score(work, seed, params, record, result.seconds_per_step))
    return runs


def _score(
    work: Work, seed: int, params: Params, record: Record, seconds: float
) -> Run:
    """Returns a run with the predictions and scores of its best parameters."""
    predicted = {part: predict(params) for part, predict in work.predictors.items()}
    task = work.task.settle(predicted)
    scores = {part: task.score(part, each) for part, each in predicted.items()}
    return Run(seed, params, record, scores, predicted, seconds)
