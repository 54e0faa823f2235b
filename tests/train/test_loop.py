import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ffnlab import data
from ffnlab.errors import InputError
from ffnlab.models import mlp
from ffnlab.nn.ffn import BlockConfig
from ffnlab.train import gradients, loop, objectives, optimizers
from ffnlab.train.checkpoint import Checkpoints
from ffnlab.train.evaluation import make_evaluate
from ffnlab.train.record import Plan, add_evaluation, empty_record

OBJECTIVE = objectives.OBJECTIVES["classes"]


@pytest.fixture(scope="module")
def wine():
    return data.load("wine")


def tower(kind="swiglu", dropout=0.0):
    block = BlockConfig(kind, 8, 8, dropout=dropout)
    return mlp.tower(mlp.TowerConfig(13, 3, block, layers=1))


def test_fit_learns_real_data(wine):
    optimizer = optimizers.make("adamw", clip=1.0)
    plan = Plan(60, 20, 32, monitor="accuracy", higher_is_better=True)
    found = loop.fit(
        loop.Learner(tower(), OBJECTIVE, optimizer), wine, plan, learning_rate=1e-2
    )
    assert found.record.scores["accuracy"][-1] > 0.9
    assert found.record.loss[-1] < 0.5 * found.record.loss[0]
    assert int(found.state.step) == 60
    assert found.record.diverged == -1


def test_step_is_what_is_written_out(wine):
    """Against the loss, its gradient and SGD, spelled out."""
    model, optimizer = tower(), optimizers.make("sgd")
    state = loop.init_state(
        loop.Learner(model, OBJECTIVE, optimizer), jax.random.key(0), 3, 0.1
    )
    batch = {
        "x": jnp.asarray(wine.train["x"][:9]),
        "y": jnp.asarray(wine.train["y"][:9]),
    }

    def loss(params):
        logits, _ = model.apply(params, batch["x"])
        labels = batch["y"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    value, grads = jax.value_and_grad(loss)(state.params)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads)
    after, got = loop.make_step(loop.Learner(model, OBJECTIVE, optimizer))(state, batch)
    assert float(got) == pytest.approx(float(value), rel=1e-6)
    chex.assert_trees_all_close(after.params, expected, rtol=1e-5, atol=1e-7)


def test_scan_is_the_same_as_steps(wine):
    model, optimizer = tower(dropout=0.2), optimizers.make("adam")
    step = loop.make_step(loop.Learner(model, OBJECTIVE, optimizer))
    start = loop.init_state(
        loop.Learner(model, OBJECTIVE, optimizer), jax.random.key(0), 0, 1e-2
    )
    arrays = jax.device_put(wine.train)
    indices = data.indices([0], 0, 6, 16, data.size(wine.train))[:, 0]
    state = start
    for row in indices:
        state, _ = step(state, data.take(arrays, row))
    scanned, _ = jax.jit(loop.scan_steps(step, data.take))(start, arrays, indices)
    chex.assert_trees_all_close(scanned.params, state.params, rtol=1e-5, atol=1e-6)


def test_steps_draw_different_dropout(wine):
    model, optimizer = tower(dropout=0.5), optimizers.make("sgd")
    step = loop.make_step(loop.Learner(model, OBJECTIVE, optimizer))
    state = loop.init_state(
        loop.Learner(model, OBJECTIVE, optimizer), jax.random.key(0), 0, 0.0
    )
    batch = data.take(jax.device_put(wine.train), jnp.arange(16))
    state, first = step(state, batch)
    _, second = step(state, batch)
    assert float(first) != float(second)  # with a rate of 0 only dropout differs


@pytest.mark.parametrize("size", [1, 3, 8, 9, 35])
def test_evaluation_counts_every_example_once(wine, size):
    model = tower()
    params = model.init(jax.random.key(0))
    part = {name: array[:size] for name, array in wine.valid.items()}
    evaluate = make_evaluate(model, OBJECTIVE, data.take, size, batch=8)
    got = evaluate(params, jax.device_put(part))
    logits, _ = model.apply(params, jnp.asarray(part["x"]))
    scores = OBJECTIVE.score(logits, part)
    for name, value in got.items():
        expected = float(scores.values[name].mean())
        assert float(value) == pytest.approx(expected, rel=1e-5)


def test_resumed_is_the_same_bit_for_bit(wine, tmp_path):
    model, optimizer = tower(dropout=0.3), optimizers.make("adamw")

    def run(steps, directory=None):
        checkpoints = Checkpoints(tmp_path / directory) if directory else None
        plan = Plan(40, 10, 16)
        seen = []

        def on_evaluation(record):
            seen.append(int(record.step))
            if record.step >= steps:
                raise KeyboardInterrupt

        try:
            found = loop.fit(
                loop.Learner(model, OBJECTIVE, optimizer),
                wine,
                plan,
                learning_rate=1e-2,
                hooks=loop.Hooks(checkpoints=checkpoints, on_evaluation=on_evaluation),
            )
        except KeyboardInterrupt:
            return None, seen
        return found, seen

    whole, _ = run(99)
    interrupted, _ = run(20, "run")
    assert interrupted is None
    resumed, seen = run(99, "run")
    assert seen == [30, 40]
    for part in ("state", "best", "record"):
        chex.assert_trees_all_equal(getattr(whole, part), getattr(resumed, part))


def test_a_checkpoint_of_another_run_is_refused(wine, tmp_path):
    def fit(kind="swiglu", optimizer="sgd", steps=2, **options):
        return loop.fit(
            loop.Learner(tower(kind), OBJECTIVE, optimizers.make(optimizer)),
            wine,
            Plan(steps, 1, 16),
            **options,
            hooks=loop.Hooks(checkpoints=Checkpoints(tmp_path / "run")),
        )

    fit()
    fit()  # the same again is no error: there is nothing left to run
    for change, named in (
        ({"kind": "glu"}, "program was"),
        ({"optimizer": "adam"}, "program was"),
        ({"steps": 3}, "steps was 2 and is now 3"),
        ({"seed": 7}, "seed was 0 and is now 7"),
        ({"learning_rate": 0.5}, "learning_rate was None and is now 0.5"),
        ({"key": jax.random.key(1)}, "key was"),
    ):
        with pytest.raises(InputError, match=f"is of another run: {named}"):
            fit(**change)


def test_the_optimizers_own_rate_is_kept_unless_another_is_given(wine):
    model, plan = tower(), Plan(1, 1, 16)
    for given, expected in ((None, 0.5), (0.25, 0.25)):
        found = loop.fit(
            loop.Learner(model, OBJECTIVE, optimizers.make("sgd", 0.5)),
            wine,
            plan,
            learning_rate=given,
        )
        rate = found.state.optimizer.hyperparams["learning_rate"]
        assert float(rate) == expected


def test_an_unknown_score_to_monitor_is_refused(wine):
    plan = Plan(1, 1, 16, monitor="acuracy", higher_is_better=True)
    with pytest.raises(
        InputError, match="monitor: unknown 'acuracy'; nearest: accuracy"
    ):
        loop.fit(loop.Learner(tower(), OBJECTIVE, optimizers.make("sgd")), wine, plan)
    with pytest.raises(InputError, match="needs higher_is_better"):
        Plan(1, 1, 16, monitor="accuracy")


def test_early_stopping_keeps_the_best(wine):
    plan = Plan(60, 5, 16, patience=2)
    found = loop.fit(
        loop.Learner(tower(), OBJECTIVE, optimizers.make("sgd")),
        wine,
        plan,
        learning_rate=0.3,
    )
    scores, best = found.record.scores["loss"], int(found.record.best_step)
    assert found.record.best == np.nanmin(scores)
    assert int(found.record.step) == best + 10 < 60
    evaluate = make_evaluate(tower(), OBJECTIVE, data.take, data.size(wine.valid))
    again = evaluate(found.best, jax.device_put(wine.valid))["loss"]
    assert float(again) == pytest.approx(float(found.record.best), rel=1e-4)


def test_compiles_two_programs(wine):
    chex.clear_trace_counter()
    model, optimizer = tower(), optimizers.make("adam")
    step = chex.assert_max_traces(
        loop.make_step(loop.Learner(model, OBJECTIVE, optimizer)), n=1
    )
    many = loop.Program(loop.scan_steps(step, data.take), donate=(0,))
    state = loop.init_state(
        loop.Learner(model, OBJECTIVE, optimizer), jax.random.key(0), 0, 1e-3
    )
    arrays = jax.device_put(wine.train)
    for start in (0, 5, 10):
        rows = data.indices([0], start, start + 5, 8, data.size(wine.train))[:, 0]
        state, _ = many(state, arrays, rows)
    assert many.compilations == 1


PLAN = Plan(6, 2, 4, patience=1)


def test_record_of_a_population():
    record = empty_record(PLAN, ["loss"], (3,))
    losses_ = np.array([[1, 1], [1, np.nan], [1, 1]], np.float32)
    record, better = add_evaluation(
        record, PLAN, losses_, {"loss": np.array([3.0, 3.0, 3.0])}
    )
    assert better.tolist() == [True, False, True]
    assert record.diverged.tolist() == [-1, 1, -1]
    good = np.ones((3, 2), np.float32)
    record, better = add_evaluation(
        record, PLAN, good, {"loss": np.array([2.0, 0.0, 4.0])}
    )
    assert better.tolist() == [True, False, False]
    assert record.stopped(PLAN).tolist() == [False, True, True]
    record, better = add_evaluation(
        record, PLAN, good, {"loss": np.array([9.0, 9.0, 0.0])}
    )
    assert better.tolist() == [False, False, False]  # the third had stopped
    assert record.best.tolist() == [2.0, np.inf, 3.0]
    assert record.best_step.tolist() == [4, 0, 2]
    assert record.finished(PLAN)


def test_a_score_of_nan_is_never_better():
    record = empty_record(Plan(2, 1, 4), ["loss"])
    one = np.ones(1, np.float32)
    record, better = add_evaluation(
        record, Plan(2, 1, 4), one, {"loss": np.float32(np.nan)}
    )
    assert not better


@pytest.mark.parametrize(
    "change", [{"steps": 0}, {"every": 0}, {"batch": 0}, {"patience": 0}]
)
def test_bad_plans(change):
    with pytest.raises(InputError, match="at least 1"):
        Plan(**{"steps": 1, "every": 1, "batch": 1, **change})


def test_a_gradient_of_ones_own_is_what_the_optimizer_gets(wine):
    """That of the mean is the very program of None; another one is another run."""
    model, optimizer = tower(dropout=0.2), optimizers.make("sgd")
    state = loop.init_state(
        loop.Learner(model, OBJECTIVE, optimizer), jax.random.key(0), 0, 0.1
    )
    batch = data.take(jax.device_put(wine.train), jnp.arange(16))
    mean = gradients.mean_gradient(objectives.mean_loss(model, OBJECTIVE))

    def halved(params, batch, key):
        value, grads = mean(params, batch, key)
        return value, jax.tree.map(lambda each: each / 2, grads)

    steps = [
        loop.make_step(loop.Learner(model, OBJECTIVE, optimizer, g))
        for g in (None, mean)
    ]
    prints = [loop.Program(step).fingerprint(state, batch) for step in steps]
    assert prints[0] == prints[1]
    whole, value = steps[0](state, batch)
    half, same = loop.make_step(loop.Learner(model, OBJECTIVE, optimizer, halved))(
        state, batch
    )
    assert float(value) == float(same)
    moved = jax.tree.map(jnp.subtract, whole.params, state.params)
    less = jax.tree.map(jnp.subtract, half.params, state.params)
    chex.assert_trees_all_close(
        less, jax.tree.map(lambda each: each / 2, moved), atol=1e-7
    )


def test_fit_trains_by_the_gradient_that_it_is_given(wine):
    def none(params, batch, key):
        return jnp.float32(7.0), jax.tree.map(jnp.zeros_like, params)

    plan, optimizer = Plan(2, 1, 16), optimizers.make("sgd", 0.5)
    found = loop.fit(loop.Learner(tower(), OBJECTIVE, optimizer, none), wine, plan)
    assert found.record.loss.tolist() == [7.0, 7.0]
    began = loop.init_state(
        loop.Learner(tower(), OBJECTIVE, optimizer), jax.random.key(0), 0
    )
    chex.assert_trees_all_equal(found.state.params, began.params)
