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
from ffnlab.train import gradients, loop, objectives, optimizers, train_step
from ffnlab.train.checkpoint import Checkpoints
from ffnlab.train.loop import Hooks, Learner
from ffnlab.train.program import Program
from ffnlab.train.record import Plan
from ffnlab.types import Model

OBJECTIVE = objectives.OBJECTIVES["classes"]
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def wine():
    return data.load("wine")


def tower(kind="swiglu", dropout=0.0):
    block = BlockConfig(kind, 8, 8, dropout=dropout)
    return mlp.tower(mlp.TowerConfig(13, 3, block, layers=1))


def linear():
    """A model that compiles fast, where the model is not the subject."""

    def init(key):
        return {"kernel": jax.random.normal(key, (13, 3))}

    return Model(init, lambda params, x, key=None: (x @ params["kernel"], {}))


def test_fit_learns_real_data(wine):
    optimizer = optimizers.make("adamw", clip=1.0)
    plan = Plan(60, 20, 32, monitor="accuracy", higher_is_better=True)
    result = loop.fit(
        Learner(tower(), OBJECTIVE, optimizer), wine, plan, learning_rate=1e-2
    )
    assert result.record.scores["accuracy"][-1] > 0.9
    assert result.record.loss[-1] < 0.5 * result.record.loss[0]
    assert int(result.state.step) == 60
    assert result.record.diverged == -1


def test_step_is_what_is_written_out(wine):
    """Against the loss, its gradient and SGD, spelled out."""
    model, optimizer = tower(), optimizers.make("sgd")
    learner = Learner(model, OBJECTIVE, optimizer)
    state = train_step.init_state(learner, KEY, 3, 0.1)
    batch = {name: array[:9] for name, array in wine.train.items()}

    @jax.jit
    def both(state, batch):
        def loss(params):
            logits, _ = model.apply(params, batch["x"])
            labels = batch["y"]
            return optax.softmax_cross_entropy_with_integer_labels(
                logits, labels
            ).mean()

        return jax.value_and_grad(loss)(state.params), train_step.make_step(learner)(
            state, batch
        )

    (value, grads), (after, loss) = both(state, batch)
    assert float(loss) == pytest.approx(float(value), rel=1e-6)
    for name in ("head", "block_0"):
        expected = jax.tree.map(
            lambda p, g: np.asarray(p) - np.float32(0.1) * np.asarray(g),
            state.params[name],
            grads[name],
        )
        chex.assert_trees_all_close(after.params[name], expected, rtol=1e-5, atol=1e-7)


def test_scan_is_the_same_as_steps_and_each_draws_its_dropout(wine):
    learner = Learner(tower(dropout=0.2), OBJECTIVE, optimizers.make("adam"))
    step, arrays = train_step.make_step(learner), jax.device_put(wine.train)
    one = jax.jit(lambda state, row: step(state, data.take(arrays, row)))
    scan = jax.jit(train_step.scan_steps(step, data.take))
    start = train_step.init_state(learner, KEY, 0, 1e-2)
    indices = data.indices([0], 0, 6, 16, data.size(wine.train))[:, 0]
    state, losses = start, []
    for row in indices:
        state, loss = one(state, row)
        losses.append(float(loss))
    scanned, all_losses = scan(start, arrays, indices)
    chex.assert_trees_all_close(scanned.params, state.params, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(all_losses, losses, rtol=1e-5)
    # With a rate of 0 and one batch, only dropout differs.
    still = optimizers.with_learning_rate(start.optimizer, 0.0)
    same = np.tile(indices[:1], (6, 1))
    after, losses = scan(start._replace(optimizer=still), arrays, same)
    chex.assert_trees_all_equal(after.params, start.params)
    assert len(set(losses.tolist())) == 6


def test_resumed_is_the_same_bit_for_bit(wine, tmp_path):
    learner = Learner(tower(dropout=0.3), OBJECTIVE, optimizers.make("adamw"))
    plan = Plan(40, 10, 16)

    def run(steps, directory=None):
        checkpoints = Checkpoints(tmp_path / directory) if directory else None
        seen = []

        def on_progress(record):
            seen.append(int(record.step))
            if record.step >= steps:
                raise KeyboardInterrupt

        hooks = Hooks(checkpoints, on_progress)
        try:
            return loop.fit(learner, wine, plan, learning_rate=1e-2, hooks=hooks), seen
        except KeyboardInterrupt:
            return None, seen

    uninterrupted, _ = run(99)
    interrupted, _ = run(20, "run")
    assert interrupted is None
    resumed, seen = run(99, "run")
    assert seen == [30, 40]
    for part in ("state", "best", "record"):
        chex.assert_trees_all_equal(
            getattr(uninterrupted, part), getattr(resumed, part)
        )


def test_a_checkpoint_of_another_run_is_refused(wine, tmp_path):
    def fit(model=None, optimizer="sgd", steps=2, **options):
        return loop.fit(
            Learner(model or linear(), OBJECTIVE, optimizers.make(optimizer)),
            wine,
            Plan(steps, 1, 16),
            **options,
            hooks=Hooks(Checkpoints(tmp_path / "run")),
        )

    fit()
    fit()  # the same again is no error: there is nothing left to run
    for change, named in (
        ({"model": tower("glu")}, "program was"),
        ({"optimizer": "adam"}, "program was"),
        ({"steps": 3}, "steps was 2 and is now 3"),
        ({"seed": 7}, "seed was 0 and is now 7"),
        ({"learning_rate": 0.5}, "learning_rate was None and is now 0.5"),
        ({"key": jax.random.key(1)}, "key was"),
    ):
        with pytest.raises(InputError, match=f"is of another run: {named}"):
            fit(**change)


def test_models_that_differ_in_their_block_are_other_programs(wine):
    batch = {name: array[:9] for name, array in wine.train.items()}
    prints = set()
    for kind in ("swiglu", "glu"):
        learner = Learner(tower(kind), OBJECTIVE, optimizers.make("sgd"))
        state = jax.eval_shape(lambda: train_step.init_state(learner, KEY, 0))  # noqa: B023
        program = Program(train_step.make_step(learner))
        prints.add(program.fingerprint(state, batch))
    assert len(prints) == 2


def test_the_optimizers_own_rate_is_kept_unless_another_is_given(wine):
    learner = Learner(linear(), OBJECTIVE, optimizers.make("sgd", 0.5))
    for given, expected in ((None, 0.5), (0.25, 0.25)):
        result = loop.fit(learner, wine, Plan(1, 1, 16), learning_rate=given)
        rate = result.state.optimizer.hyperparams["learning_rate"]
        assert float(rate) == expected


def test_an_unknown_score_to_monitor_is_refused(wine):
    plan = Plan(1, 1, 16, monitor="acuracy", higher_is_better=True)
    learner = Learner(linear(), OBJECTIVE, optimizers.make("sgd"))
    wanted = "monitor: unknown 'acuracy'; nearest: accuracy"
    with pytest.raises(InputError, match=wanted):
        loop.fit(learner, wine, plan)


def test_early_stopping_keeps_the_best(wine):
    model, plan = tower(), Plan(60, 5, 16, patience=2)
    learner = Learner(model, OBJECTIVE, optimizers.make("sgd"))
    result = loop.fit(learner, wine, plan, learning_rate=0.3)
    scores, best = result.record.scores["loss"], int(result.record.best_step)
    assert result.record.best == np.nanmin(scores)
    assert int(result.record.step) == best + 10 < 60
    logits = np.asarray(jax.jit(model.apply)(result.best, wine.valid["x"])[0])
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    again = -logs[np.arange(len(logs)), wine.valid["y"]].mean()
    assert again == pytest.approx(float(result.record.best), rel=1e-4)


def test_an_evaluator_on_the_host_gives_float32_records(wine):
    """Python floats, of which equal ones are not better after rounding either."""

    class Evaluator:
        def __init__(self):
            self.scores = iter([0.3, 0.1, 0.1, 0.1])

        def outputs(self, params, arrays):
            return {"f1": None}

        def __call__(self, params, arrays):
            return {"f1": next(self.scores)}

    learner = Learner(linear(), OBJECTIVE, optimizers.make("sgd"))
    plan = Plan(4, 1, 16, monitor="f1", higher_is_better=False)
    record = loop.fit(learner, wine, plan, evaluator=Evaluator()).record
    assert record.scores["f1"].dtype == record.best.dtype == np.float32
    np.testing.assert_array_equal(record.scores["f1"], np.float32([0.3, 0.1, 0.1, 0.1]))
    assert record.best == np.float32(0.1) and int(record.best_step) == 2


def test_compiles_one_program_for_all_steps(wine):
    chex.clear_trace_counter()
    learner = Learner(linear(), OBJECTIVE, optimizers.make("adam"))
    step = chex.assert_max_traces(train_step.make_step(learner), n=1)
    steps = Program(train_step.scan_steps(step, data.take), donate=(0,))
    state = train_step.init_state(learner, KEY, 0, 1e-3)
    arrays = jax.device_put(wine.train)
    for start in (0, 5, 10):
        rows = data.indices([0], start, start + 5, 8, data.size(wine.train))[:, 0]
        state, _ = steps(state, arrays, rows)
    assert steps.compilations == 1


def test_a_second_training_of_the_same_shapes_compiles_its_own_programs_alone(wine):
    """What keeps and checks parameters is compiled once for all of a process."""
    learner, names = Learner(linear(), OBJECTIVE, optimizers.make("adam")), set()

    def collect(event, start, end, fun_name="", **_):
        if event == "/jax/core/compile/backend_compile_duration":
            names.add(fun_name)

    loop.fit(learner, wine, Plan(2, 1, 8), learning_rate=1e-2)
    jax.monitoring.register_event_time_span_listener(collect)
    loop.fit(learner, wine, Plan(2, 1, 8), learning_rate=1e-2)
    jax.monitoring.unregister_event_time_span_listener(collect)
    assert names == {"jit(steps)", "jit(evaluate)"}


def test_a_gradient_of_ones_own_is_what_the_optimizer_gets(wine):
    """That of the mean is the very program of None; another one is another run."""
    model, optimizer = tower(dropout=0.2), optimizers.make("sgd")
    state = train_step.init_state(Learner(model, OBJECTIVE, optimizer), KEY, 0, 0.1)
    batch = {name: array[:16] for name, array in wine.train.items()}
    mean = gradients.mean_gradient(objectives.mean_loss(model, OBJECTIVE))

    def halved(params, batch, key):
        value, grads = mean(params, batch, key)
        return value, jax.tree.map(lambda leaf: leaf / 2, grads)

    steps = [
        train_step.make_step(Learner(model, OBJECTIVE, optimizer, gradient))
        for gradient in (None, mean, halved)
    ]
    prints = [Program(step).fingerprint(state, batch) for step in steps]
    assert prints[0] == prints[1] != prints[2]

    @jax.jit
    def both(state, batch):
        (full, value), (half, same) = (steps[i](state, batch) for i in (0, 2))
        moved = [
            jax.tree.map(jnp.subtract, after.params, state.params)
            for after in (full, half)
        ]
        return moved, value, same

    (moved, less), value, same = both(state, batch)
    assert float(value) == float(same)
    half = jax.tree.map(lambda leaf: np.asarray(leaf) / 2, moved)
    chex.assert_trees_all_close(less, half, atol=1e-7)


def test_fit_trains_by_the_gradient_that_it_is_given(wine):
    def none(params, batch, key):
        return jnp.float32(7.0), jax.tree.map(jnp.zeros_like, params)

    learner = Learner(linear(), OBJECTIVE, optimizers.make("sgd", 0.5), none)
    result = loop.fit(learner, wine, Plan(2, 1, 16))
    assert result.record.loss.tolist() == [7.0, 7.0]
    start = train_step.init_state(learner, KEY, 0)
    chex.assert_trees_all_equal(result.state.params, start.params)


def breaking(at, what):
    """A learner whose loss, or gradient of some parameters, is NaN from a step on.

    Steps are counted in the parameters; the others approach 1, half of the way each.
    """

    def init(key):
        return {"count": jnp.zeros(()), "kernel": jnp.zeros((13, 3))}

    def gradient(params, batch, key):
        bad = jnp.where(params["count"] >= at, jnp.nan, 0.0)
        loss, move = jnp.square(params["kernel"] - 1).mean(), params["kernel"] - 1
        if what == "loss":
            return loss + bad, {"count": jnp.float32(-2), "kernel": move}
        return loss, {"count": jnp.float32(-2), "kernel": move + bad}

    model = Model(init, lambda params, x, key=None: (x @ params["kernel"], {}))
    return Learner(model, OBJECTIVE, optimizers.make("sgd", 0.5), gradient)


def test_a_run_that_fails_unscored_keeps_its_last_good_step(wine):
    """The NaN is in the loss of step 4, or in the parameters after it."""
    fits = {
        what: loop.fit(breaking(4, what), wine, Plan(20, 10, 16))
        for what in ("loss", "kernel")
    }
    for what, step, kept in (("loss", 4, 3), ("kernel", 5, 4)):
        record, best = fits[what].record, fits[what].best
        assert (int(record.diverged), int(record.best_step)) == (step, kept)
        assert np.isfinite(record.loss[:step]).all() and np.isnan(record.loss[step])
        assert np.isfinite(record.best) and record.scores["loss"][0] == record.best
        np.testing.assert_allclose(best["kernel"], 1 - 0.5**kept, rtol=1e-6)
        assert float(best["count"]) == kept


def test_a_run_that_fails_later_keeps_its_best_evaluation(wine):
    fit = loop.fit(breaking(7, "loss"), wine, Plan(20, 5, 16))
    assert (int(fit.record.diverged), int(fit.record.best_step)) == (7, 5)
    assert float(fit.best["count"]) == 5


@pytest.mark.parametrize("at", [0, 1])
def test_a_run_without_a_good_step_keeps_its_initial_parameters(wine, at):
    fit = loop.fit(breaking(at, "loss"), wine, Plan(20, 5, 16))
    assert (int(fit.record.diverged), int(fit.record.best_step)) == (at, 0)
    assert float(fit.best["count"]) == 0


def test_parameters_that_no_loss_shows_are_noticed_and_left(wine):
    """They are checked at the end of a call, and then step by step."""
    learner = breaking(3, "kernel")

    def gradient(params, batch, key):
        loss, grads = learner.gradient(params, batch, key)
        return jnp.float32(1.0), grads

    fit = loop.fit(learner._replace(gradient=gradient), wine, Plan(20, 10, 16))
    assert (int(fit.record.diverged), int(fit.record.best_step)) == (10, 3)
    assert np.isfinite(fit.best["kernel"]).all() and float(fit.best["count"]) == 3


@pytest.mark.parametrize(("at", "size"), [(4, 2), (5, 3)])
def test_a_run_that_fails_is_the_same_resumed(wine, tmp_path, monkeypatch, at, size):
    """Its newest checkpoint is at the step that fails, or before the last good one."""
    learner, plan = breaking(at, "loss"), Plan(20, 10, 16)
    whole = loop.fit(learner, wine, plan)
    monkeypatch.setattr(loop.Calls, "within", lambda self, _: self._replace(size=size))
    hooks = Hooks(Checkpoints(tmp_path / "run"))
    for _ in range(2):
        fit = loop.fit(learner, wine, plan, hooks=hooks)
        chex.assert_trees_all_equal(whole.best, fit.best)
        chex.assert_trees_all_equal(
            whole.record._replace(step=0, loss=0), fit.record._replace(step=0, loss=0)
        )


def test_a_shape_is_compiled_once_and_timed():
    traced = []

    def function(state, x):
        traced.append(x.shape)
        return state + x.sum()

    program = Program(function)
    assert program.outputs(1.0, np.ones(3, "f4")).shape == ()
    assert program.compilations == 0 and program.compile_seconds == 0.0
    for size in (3, 3, 4, 3):
        assert float(program(np.float32(1), np.ones(size, "f4"))) == 1 + size
    assert program.compilations == 2 and program.compile_seconds > 0.0
    assert traced.count((4,)) == 1


def test_a_fingerprint_is_of_what_is_computed():
    def print_of(function, size=3):
        return Program(function).fingerprint(np.ones(size, "f4"))

    one = print_of(lambda x: 2 * x)
    assert one == print_of(lambda x: 2 * x)
    assert one not in (print_of(lambda x: 3 * x), print_of(lambda x: 2 * x, 4))


def test_memory_that_is_donated_is_taken_over():
    program = Program(lambda state, x: state + x, donate=(0,))
    state = jnp.zeros(3)
    assert program(state, jnp.ones(3)).tolist() == [1.0, 1.0, 1.0]
    assert state.is_deleted()
