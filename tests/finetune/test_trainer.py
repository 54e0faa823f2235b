"""How fine-tuning trains: steps, seeds together, what goes beyond the plain recipe."""

import jax
import numpy as np
import pytest
import scipy.special

from ffnlab import data, finetune, io
from ffnlab.finetune import predict_files, runner, trainer
from ffnlab.pretrained import checkpoint
from tests.tuned import config


@pytest.mark.parametrize("batch", [4, 8, 16])
def test_a_step_has_the_texts_asked_for_of_all_labels(tmp_path, batch):
    """Also where a file is sorted by label, as many are."""
    lines = [f"w{k}\t{' '.join(['w9'] * (2 + n % 3))}\n" for k in range(8)
             for n in range(40)]  # fmt: skip
    for part in ("train", "dev"):
        (tmp_path / f"{part}.tsv").write_text("label\ttext\n" + "".join(lines))
    given = finetune.Config(
        checkpoint="tiny",
        train=str(tmp_path / "train.tsv"),
        dev=str(tmp_path / "dev.tsv"),
        batch_size=batch,
    )
    task = runner.prepare(given)
    plan, y = trainer.make_plan(given, task), task.rows["train"].arrays["y"]
    texts = plan.batch * (y >= 0).sum() / len(y)
    assert abs(texts - batch) < 0.1 * batch
    assert abs(plan.steps - 3 * 320 / batch) < 0.1 * plan.steps
    each = [len(set(y[row : row + plan.batch][y[row : row + plan.batch] >= 0]))
            for row in range(0, len(y) - plan.batch + 1, plan.batch)]  # fmt: skip
    assert np.mean(each) > 0.7 * 8 * (1 - (7 / 8) ** batch)


def test_seeds_together_are_seeds_in_turn(bert, files, tmp_path, monkeypatch):
    found = []
    for fits in (True, False):
        monkeypatch.setattr(trainer, "_fits", lambda *_: fits)  # noqa: B023
        given = config(bert, files, "tag", tmp_path / str(fits), ".conll", seeds=2,
                       epochs=4.0)  # fmt: skip
        runs = runner.run(given)
        assert len(runs.scores["test"]) == 2 and "[" in runs.table.rows[0][2]
        found.append(io.read_lines(runs.out / "results.jsonl"))
    for one, other in zip(*found, strict=True):
        assert one["seed"] == other["seed"] and one["best_step"] == other["best_step"]
        np.testing.assert_allclose(one["dev_curve"], other["dev_curve"], atol=0.02)
    assert found[0][0]["dev_curve"] != found[0][1]["dev_curve"]


def descent(bert, files, **more):
    """What the first step of the first batch descends along, in one array."""
    given = config(bert, files, "tag", None, ".conll", **more)
    task = runner.prepare(given)
    plan = trainer.make_plan(given, task)
    parts = trainer.fit_arguments(given, task, plan)
    params = parts["model"].init(jax.random.key(0))
    batch = data.take(jax.device_put(task.rows["train"].arrays), np.arange(plan.batch))
    _, found = jax.jit(parts["gradient"])(params, batch, jax.random.key(1))
    return np.asarray(found["encoder"]["layer_1"]["ffn"]["up"]["kernel"])


@pytest.fixture(scope="module")
def plain(bert, files):
    return descent(bert, files)


@pytest.mark.parametrize(
    "more",
    [
        {"adversarial": "fgm"},
        {"adversarial": "freelb"},
        {"r_drop_alpha": 1.0},
        {"mlm_loss_weight": 0.5},
        {"gradient_accumulation_steps": 2},
        {"dtype": "bfloat16"},
        {"label_smoothing": 0.1},
        {
            "mlm_loss_weight": 0.5,
            "adversarial": "fgm",
            "r_drop_alpha": 1.0,
            "gradient_accumulation_steps": 2,
        },
    ],
    ids=lambda more: "-".join(more),
)
def test_every_method_descends_otherwise(bert, files, plain, more):
    found = descent(bert, files, **more)
    assert np.isfinite(found).all() and np.abs(found - plain).max() > 1e-6


def test_r_drop_of_answers_compares_the_tokens_of_each_window(bert, asked):
    """By hand, window by window, from two passes that share a batch."""
    more = {"max_seq_length": 16, "doc_stride": 4, "r_drop_alpha": 0.5}
    given = config(bert, asked, "qa", None, ".json", **more)
    task = runner.prepare(given)
    plan = trainer.make_plan(given, task)
    setting, key = trainer.fit_arguments(given, task, plan), jax.random.key(1)
    model, rows = setting["model"], task.rows["train"].arrays
    params = model.init(jax.random.key(0))
    params["head"] = jax.tree.map(lambda each: 20 * each, params["head"])
    batch = data.take(jax.device_put(rows), np.arange(3))
    value, grads = jax.jit(setting["gradient"])(params, batch, key)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    twice = jax.tree.map(lambda each: np.concatenate([each, each]), batch)
    logits = np.asarray(model.apply(params, twice["x"], key)[0], np.float64)
    losses, apart = [], []
    for row, slot in np.argwhere(batch["x"]["label_positions"] >= 0):
        segment_ids = np.asarray(batch["x"]["segment_ids"][row])
        there = segment_ids == segment_ids[batch["x"]["label_positions"][row, slot]]
        for side in range(2):
            place = np.flatnonzero(np.flatnonzero(there) == batch["y"][row, slot, side])
            p, q = (scipy.special.log_softmax(logits[row + n, there, side])
                    for n in (0, 3))  # fmt: skip
            losses += [-p[place[0]], -q[place[0]]]
            apart.append(((np.exp(p) - np.exp(q)) * (p - q)).sum() / 2)
    assert np.mean(apart) > 1e-3
    np.testing.assert_allclose(value, np.mean(losses) + 0.5 * np.mean(apart), rtol=1e-4)


def test_both_gradients_of_the_feedback_head_agree(bert, files):
    one, two = (
        descent(bert, files, head="feedback", head_hidden=6, gradient=gradient)
        for gradient in ("implicit", "bptt")
    )
    np.testing.assert_allclose(one, two, rtol=1e-2, atol=1e-5)
    assert np.abs(one).max() > 1e-4


def test_layers_wait_for_their_turn(bert, files, tmp_path):
    before = checkpoint.load(bert, head=False, pooler=False).params
    given = {
        "steps": 3,
        "evaluations": 1,
        "unfreeze_every_epochs": 0.3,
    }  # an epoch has 6.5 steps
    found = runner.run(config(bert, files, "tag", tmp_path / "o", ".conll", **given))
    after = checkpoint.load(found.out / "best", head=False, pooler=False).params
    moved = [
        not np.array_equal(before[part][where]["scale"], after[part][where]["scale"])
        for part, where in (("layer_1", "ffn_norm"), ("layer_0", "ffn_norm"),
                            ("embed", "norm"))
    ]  # fmt: skip
    assert moved == [True, False, False]


def test_bfloat16_predicts_what_evaluation_gave(bert, files, tmp_path):
    given = config(bert, files, "tag", tmp_path / "o", ".conll", dtype="bfloat16",
                   epochs=5.0)  # fmt: skip
    found, out = runner.run(given), tmp_path / "p.conll"
    predict_files.predict(
        predict_files.PredictConfig(str(found.out), str(files / "test.conll"), str(out))
    )
    assert out.read_text() == (found.out / "predictions-test.conll").read_text()


def test_further_files_and_copies_are_learned_from(bert, files):
    extra = {"extra": (str(files / "dev.conll"),)}
    sizes = {}
    for names in (("delete",), ("mlm_substitute",), ("swap", "mention_replace")):
        more = {**extra, "augment": names, "augment_copies": 2, "augment_rate": 0.3}
        task = runner.prepare(config(bert, files, "tag", None, ".conll", **more))
        assert task.sizes["dev"] == 16 and task.sizes["test"] == 16
        assert task.examples["train"].texts[48:64] == task.examples["dev"].texts
        sizes[names] = task.sizes["train"] - 64
    one, two, both = sizes.values()
    assert 32 < one <= 128 and 32 < two <= 128 and 64 < both <= 256
