"""How fine-tuning trains: steps, seeds together, what goes beyond the plain recipe."""

import dataclasses
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.special

from ffnlab import EncoderConfig, data, finetune
from ffnlab.finetune import diverged_runs, runner, trainer
from ffnlab.finetune.task import MONITORED
from ffnlab.models import transformer
from ffnlab.pretrained import checkpoint
from ffnlab.train import gradients
from ffnlab.train.objectives import mean_loss
from tests.finetune.fake import make_config, make_task
from tests.tuned import config

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("options", "sizes", "rows", "plan"),
    [
        # 40 texts in 20 rows: a batch of 16 texts has 8 rows, an epoch 2.5 steps.
        ({}, 40, 20, (9, 3, 8)),
        ({"epochs": 1.0}, 40, 20, (2, 2, 8)),
        ({"epochs": 0.1}, 40, 20, (1, 1, 8)),
        ({"steps": 5, "evaluations": 2}, 40, 20, (5, 3, 8)),
        ({"epochs": 2.0, "evaluations": 4}, 40, 20, (8, 2, 8)),
        ({"batch_size": 1}, 40, 20, (60, 20, 1)),  # no less than a row
        ({"batch_size": 999}, 40, 20, (3, 1, 20)),  # no more than all
        ({"gradient_accumulation_steps": 2}, 40, 20, (6, 2, 16)),
        ({"gradient_accumulation_steps": 3, "batch_size": 999}, 40, 20, (3, 1, 18)),
        ({"batch_size": 4}, 4, 20, (3, 1, 20)),  # a text of five windows
    ],
)
def test_a_plan_has_rows_for_texts_and_equal_stretches(options, sizes, rows, plan):
    given = make_config(patience=7, **options)
    task = make_task(given, sizes=(sizes, 8), rows=rows)
    found = trainer.make_plan(given, task)
    assert (found.steps, found.every, found.batch) == plan
    assert found.patience == 7 and found.monitor == MONITORED
    assert found.higher_is_better
    assert trainer.steps_per_epoch(task, found) == rows / found.batch


def predictor(params):
    return params["w"]


def test_a_run_is_scored_on_dev():
    evaluator = trainer.DevEvaluator(make_task(), predictor)
    scores = evaluator({"w": np.float64(0.1)}, None)
    assert scores == {MONITORED: np.float32(0.1)}
    assert scores[MONITORED].dtype == np.float32
    assert list(evaluator.outputs(None, None)) == [MONITORED]


def test_a_population_is_scored_member_by_member():
    """Of four, the last two are fillers of a device: they cost no evaluation."""
    calls = []

    def counted(params):
        calls.append(float(params["w"]))
        return params["w"]

    evaluator = trainer.DevEvaluator(make_task(), counted, members=3)
    params = {"w": jax.numpy.array([0.25, 0.5, 0.75, 0.75])}
    scores = evaluator(params, None)[MONITORED]
    assert scores.tolist() == [0.25, 0.5, 0.75, 0.75] and scores.dtype == np.float32
    assert calls == [0.25, 0.5, 0.75]
    assert list(evaluator.outputs(None, None)) == [MONITORED]


@pytest.fixture(scope="module")
def long_rows(bert, tmp_path_factory):
    """A checkpoint that reads 128 tokens."""
    shape = EncoderConfig(vocabulary=31, features=8, layers=1, heads=2, length=128)
    folder = tmp_path_factory.mktemp("checkpoint") / "long"
    params = jax.jit(transformer.transformer_model(shape).init)(KEY)
    checkpoint.save(folder, shape, params, family="ffnlab")
    shutil.copyfile(Path(bert) / "vocab.txt", folder / "vocab.txt")
    return str(folder)


@pytest.mark.parametrize("batch", [4, 8, 16])
def test_a_step_has_the_texts_asked_for_of_all_labels(tmp_path, long_rows, batch):
    """Also where a file is sorted by label, as many are."""
    lines = [f"w{k}\t{' '.join(['w9'] * (2 + n % 3))}\n" for k in range(8)
             for n in range(40)]  # fmt: skip
    for part in ("train", "dev"):
        (tmp_path / f"{part}.tsv").write_text("label\ttext\n" + "".join(lines))
    given = finetune.Config(
        checkpoint=long_rows,
        train=str(tmp_path / "train.tsv"),
        dev=str(tmp_path / "dev.tsv"),
        batch_size=batch,
    )
    task = runner.prepare(given)
    plan, y = trainer.make_plan(given, task), task.rows["train"].arrays["y"]
    texts = plan.batch * (y >= 0).sum() / len(y)
    assert abs(texts - batch) < 0.1 * batch
    assert abs(plan.steps - 3 * 320 / batch) < 0.1 * plan.steps
    labels = [len(set(y[row : row + plan.batch][y[row : row + plan.batch] >= 0]))
              for row in range(0, len(y) - plan.batch + 1, plan.batch)]  # fmt: skip
    assert np.mean(labels) > 0.7 * 8 * (1 - (7 / 8) ** batch)


@pytest.fixture(scope="module")
def tagging(bert, files):
    """A task whose tokens include the mask token."""
    given = config(bert, files, "tag", None, ".conll", mlm_loss_weight=0.5)
    return runner.prepare(given)


def with_options(task, **options):
    """Returns the same task with other flags."""
    options = {"mlm_loss_weight": 0.0, **options}
    given = dataclasses.replace(task.config, test=None, **options)
    shape = dataclasses.replace(
        task.shape,
        head=given.head,
        hidden=given.head_hidden,
        gradient=given.gradient,
    )
    rows = {part: task.rows[part] for part in ("train", "dev")}
    return dataclasses.replace(task, config=given, shape=shape, rows=rows)


def test_seeds_together_are_seeds_in_turn(tagging, tmp_path, monkeypatch):
    task = with_options(tagging, seeds=2, epochs=4.0)
    found = []
    for most in (2, 1):
        monkeypatch.setattr(trainer, "runs_that_fit", lambda *_: most)  # noqa: B023
        runs = trainer.train(task.config, task, tmp_path / str(most))
        assert [run.seed for run in runs] == [0, 1]
        found.append(runs)
    for one, other in zip(*found, strict=True):
        assert one.record.best_step == other.record.best_step
        curves = [run.record.scores[MONITORED] for run in (one, other)]
        np.testing.assert_allclose(*curves, atol=0.02)
        for run in (one, other):
            assert run.scores["dev"][MONITORED] == pytest.approx(run.record.best)
    one, other = (run.record.scores[MONITORED].tolist() for run in found[0])
    assert one != other


def test_a_run_that_fails_beside_another_keeps_finite_parameters(tagging, tmp_path):
    """Two rates, of which one is far too high; the other run goes on to the end."""
    task = with_options(tagging, optimizer="sgd", clip=0.0, epochs=4.0)
    plan = trainer.make_plan(task.config, task)
    predictors = trainer.make_predictors(task, plan, ["dev"], None)
    with trainer.Progress(plan.steps, "steps") as progress:
        work = trainer.Work(task.config, task, tmp_path, plan, progress, predictors)
        programs = trainer.make_programs(work, 2)
        calm, wild = trainer.train_members(work, [0], [1e-2, 1e9], programs)
    assert calm.record.diverged == -1 and np.isfinite(calm.record.loss).all()
    assert 0 < wild.record.diverged < plan.steps
    assert wild.record.best_step < wild.record.diverged
    for leaf in jax.tree.leaves(wild.params):
        assert np.isfinite(leaf).all()
    assert diverged_runs.best_run([wild, calm]) is calm
    diverged_runs.write(task.config, task, tmp_path, [calm])
    assert not (tmp_path / "diverged.json").exists()


def gradient_of(learner):
    """Returns the gradient that a step of a learner takes."""
    mean = gradients.mean_gradient(mean_loss(learner.model, learner.objective))
    return learner.gradient or mean


def gradients_of(task, variants, **common):
    """The first step's gradient of one array, by variant, of one compiled program."""
    first = with_options(task, **common)
    plan = trainer.make_plan(first.config, first)
    learners = {}
    for name, options in variants.items():
        variant = with_options(task, **{**common, **options})
        arguments = trainer.fit_arguments(variant.config, variant, plan)
        learners[name] = arguments["learner"]

    @jax.jit
    def program(batch, key):
        params = trainer.init_from_checkpoint(first.config, first).init(KEY)
        found = {}
        for name, learner in learners.items():
            own = jax.eval_shape(learner.model.init, KEY)
            given = {part: params[part] for part in own}
            _, gradient = gradient_of(learner)(given, batch, key)
            found[name] = gradient["encoder"]["layer_0"]["ffn"]["up"]["kernel"]
        return found

    rows = jax.device_put(task.rows["train"].arrays)
    batch = data.take(rows, np.arange(2 * (plan.batch // 2)))
    return jax.tree.map(np.asarray, program(batch, jax.random.key(1)))


OFF = {"mlm_loss_weight": 0.0}
METHODS = {
    "fgm": {**OFF, "adversarial": "fgm"},
    "freelb": {**OFF, "adversarial": "freelb"},
    "r_drop": {**OFF, "r_drop_alpha": 1.0},
    "mlm": {},
    "accumulation": {**OFF, "gradient_accumulation_steps": 2},
    "bfloat16": {**OFF, "dtype": "bfloat16"},
    "smoothing": {**OFF, "label_smoothing": 0.1},
    "class weights": {**OFF, "class_weights": "balanced"},
    "all": {
        "adversarial": "fgm",
        "r_drop_alpha": 1.0,
        "gradient_accumulation_steps": 2,
    },
}


@pytest.fixture(scope="module")
def descents(tagging):
    return gradients_of(tagging, {"plain": OFF, **METHODS}, mlm_loss_weight=0.5)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_descends_otherwise(descents, method):
    found = descents[method]
    assert np.isfinite(found).all()
    assert np.abs(found - descents["plain"]).max() > 1e-6


def test_both_gradients_of_the_feedback_head_agree(tagging):
    variants = {name: {"gradient": name} for name in ("implicit", "bptt")}
    found = gradients_of(tagging, variants, head="feedback", head_hidden=6)
    np.testing.assert_allclose(*found.values(), rtol=1e-2, atol=1e-5)
    assert np.abs(found["implicit"]).max() > 1e-4


def test_r_drop_of_answers_compares_the_tokens_of_each_window(bert, asked):
    """By hand, window by window, from two passes that share a batch."""
    more = {"max_seq_length": 16, "doc_stride": 4, "r_drop_alpha": 0.5}
    task = runner.prepare(config(bert, asked, "qa", None, ".json", **more))
    plan = trainer.make_plan(task.config, task)
    learner = trainer.fit_arguments(task.config, task, plan)["learner"]
    batch = {
        name: jax.numpy.asarray(array[:3])
        for name, array in task.rows["train"].arrays.items()
    }
    batch = data.take(batch, np.arange(3))

    @jax.jit
    def program(batch, key):
        params = learner.model.init(KEY)
        params["head"] = jax.tree.map(lambda p: 20 * p, params["head"])
        value, grads = gradient_of(learner)(params, batch, key)
        twice = jax.tree.map(lambda a: jax.numpy.concatenate([a, a]), batch)
        finite = [jax.numpy.isfinite(leaf).all() for leaf in jax.tree.leaves(grads)]
        return value, finite, learner.model.apply(params, twice["x"], key)[0]

    value, finite, logits = program(batch, jax.random.key(1))
    assert all(finite)
    logits, losses, apart = np.asarray(logits, np.float64), [], []
    x, y = jax.tree.map(np.asarray, (batch["x"], batch["y"]))
    for row, slot in np.argwhere(x["label_positions"] >= 0):
        segment_ids = x["segment_ids"][row]
        window = segment_ids == segment_ids[x["label_positions"][row, slot]]
        for side in range(2):
            place = np.flatnonzero(np.flatnonzero(window) == y[row, slot, side])
            p, q = (scipy.special.log_softmax(logits[row + n, window, side])
                    for n in (0, 3))  # fmt: skip
            losses += [-p[place[0]], -q[place[0]]]
            apart.append(((np.exp(p) - np.exp(q)) * (p - q)).sum() / 2)
    assert np.mean(apart) > 1e-3
    np.testing.assert_allclose(value, np.mean(losses) + 0.5 * np.mean(apart), rtol=1e-4)


def test_layers_wait_for_their_turn(two_layers, files):
    """A turn is 0.3 epochs of 6.5 steps: the last layer moves at the third step."""
    given = config(two_layers, files, "tag", None, ".conll", unfreeze_every_epochs=0.3)
    task = runner.prepare(given)
    plan = trainer.make_plan(given, task)
    assert round(0.3 * trainer.steps_per_epoch(task, plan)) == 2
    learner = trainer.fit_arguments(given, task, plan)["learner"]

    @jax.jit
    def moved():
        params = learner.model.init(KEY)
        parts = {"head": params["head"], **params["encoder"]}
        state, steps = learner.optimizer.init(params), []
        for _ in range(3):
            updates, state = learner.optimizer.update(params, state, params)
            parts = {"head": updates["head"], **updates["encoder"]}
            steps.append({
                part: jax.numpy.array([(leaf != 0).any() for leaf in
                                       jax.tree.leaves(arrays)]).any()
                for part, arrays in parts.items()
            })  # fmt: skip
        return steps

    turns = {part: [bool(step[part]) for step in moved()] for part in moved()[0]}
    assert turns["head"] == [True, True, True]
    assert turns["layer_1"] == [False, False, True]
    assert turns["layer_0"] == turns["embed"] == [False, False, False]


def test_further_files_and_copies_are_learned_from(two_layers, files):
    extra = {"extra": (str(files / "dev.conll"),)}
    sizes = {}
    for names in (("delete",), ("mlm_substitute",), ("swap", "mention_replace")):
        more = {**extra, "augment": names, "augment_copies": 2, "augment_rate": 0.3}
        task = runner.prepare(config(two_layers, files, "tag", None, ".conll", **more))
        assert task.sizes["dev"] == 16 and task.sizes["test"] == 16
        assert task.examples["train"].texts[48:64] == task.examples["dev"].texts
        sizes[names] = task.sizes["train"] - 64
    one, two, both = sizes.values()
    assert 32 < one <= 128 and 32 < two <= 128 and 64 < both <= 256
