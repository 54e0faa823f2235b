"""Sequence models: every kind is built, counted and matched; populations learn."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab import data
from ffnlab.data import SEQUENCES
from ffnlab.errors import InputError
from ffnlab.models import sequence
from ffnlab.models.sequence import KINDS, SequenceConfig, sequence_model
from ffnlab.nn import pure
from ffnlab.sweep import population
from ffnlab.train import objectives, optimizers
from ffnlab.train.evaluation import make_evaluate
from ffnlab.train.loop import Learner
from ffnlab.train.record import Plan
from ffnlab.types import Model
from tests import oracles

TOKENS = np.random.default_rng(0).integers(0, 5, (3, 7))
MASK = np.arange(7)[None] < np.array([7, 4, 0])[:, None]
CONFIG = SequenceConfig(3, vocabulary=5, hidden=6, embedding=4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_built_and_padding_is_ignored(kind):
    models = {
        per: sequence_model(dataclasses.replace(CONFIG, kind=kind, per=per, layers=2))
        for per in ("position", "sequence")
    }
    params = oracles.random_params(models["position"])

    @jax.jit
    def run(tokens):
        x = {"tokens": tokens, "mask": MASK}
        return {per: model.apply(params, x) for per, model in models.items()}

    results, others = run(TOKENS), run(np.where(MASK, TOKENS, 4))
    for per, (logits, aux) in results.items():
        assert logits.shape == ((3, 7, 3) if per == "position" else (3, 3))
        assert set(aux) == {"report"} and np.isfinite(logits).all()
        assert ("radius" in aux["report"]) == (kind == "feedback")
        chex.assert_trees_all_close(others[per][0], logits, atol=1e-6)
        _, trained = jax.eval_shape(
            models[per].apply,
            params,
            {"tokens": TOKENS, "mask": MASK},
            jax.random.key(1),
        )
        assert "radius" not in trained["report"]  # it takes time


def test_embeddings_of_a_position_are_summed():
    model = sequence_model(CONFIG)
    params = oracles.random_params(model)
    doubled = params | {"embed": {"embedding": 2 * params["embed"]["embedding"]}}
    pair = np.stack([TOKENS, TOKENS], axis=-1)
    twice, wanted = jax.jit(
        lambda: (
            model.apply(params, {"tokens": pair, "mask": MASK})[0],
            model.apply(doubled, {"tokens": TOKENS, "mask": MASK})[0],
        )
    )()
    chex.assert_trees_all_close(twice, wanted, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["relu", "swish", "swish_channel"])
def test_parameters_are_counted_and_matched(kind, activation):
    reference = dataclasses.replace(CONFIG, hidden=9, activation=activation)
    for layers in (1, 3):
        given = dataclasses.replace(
            reference, kind=kind, layers=layers, top_down=True, hidden=4
        )
        assert given.parameters == pure.parameters(sequence_model(given))
    matched = sequence.match(dataclasses.replace(given, layers=1), reference)
    errors = []
    for hidden in (matched.hidden, matched.hidden - 2, matched.hidden + 2):
        other = dataclasses.replace(matched, hidden=max(hidden, 1))
        errors.append(abs(other.parameters - reference.parameters))
    assert errors[0] == min(errors)
    assert matched.hidden == 9 or kind != "feedback"


@pytest.mark.parametrize("activation", ["relu", "swish", "swish_channel"])
def test_learned_boundaries_are_counted(activation):
    learned = dataclasses.replace(
        CONFIG, hidden=9, activation=activation, boundary="learned"
    )
    assert learned.parameters == pure.parameters(sequence_model(learned))


@pytest.mark.slow
def test_a_population_of_feedback_networks_learns_and_reports():
    dataset = SEQUENCES["two_sided_copy"](length=8, distance=1, sizes=(256, 64, 64))
    config = SequenceConfig(4, vocabulary=2, hidden=16, embedding=4)
    learner = Learner(
        sequence_model(config),
        objectives.OBJECTIVES["classes"],
        optimizers.make("adam", flat=True),
    )
    plan = Plan(60, 30, 32, monitor="accuracy", higher_is_better=True)
    result = population.fit_population(
        learner, dataset, plan, seeds=[0, 1], learning_rates=[3e-2]
    )
    scores = result.fit.record.scores
    assert (result.fit.record.best > 0.9).all()
    assert set(scores) == {
        "loss", "accuracy", "residual", "iterations", "converged", "radius",
        "adjoint residual",
    }  # fmt: skip
    assert (scores["iterations"] > 1).all() and (scores["radius"] > 0).all()


def test_reports_of_a_model_are_averaged_over_examples():
    """With a last batch that is filled up, and more than one label per example."""
    dataset = SEQUENCES["two_sided_copy"](length=8, distance=1, sizes=(8, 7, 4))
    valid = dataset.valid

    def apply(params, x, key=None):
        report = {"length": x["mask"].sum(axis=1)}
        return jnp.zeros((*x["mask"].shape, 4)), {"report": report}

    model = Model(lambda key: {}, apply)
    evaluate = make_evaluate(
        model, objectives.OBJECTIVES["classes"], data.take, 7, batch=3
    )
    lengths = valid["x/mask"].sum(axis=1)
    wanted = (lengths * lengths).sum() / lengths.sum()  # each label counts once
    mean = jax.jit(evaluate)({}, jax.device_put(valid))["length"]
    assert float(mean) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "elmna"}, "kind: unknown 'elmna'; nearest: elman"),
        ({"per": "word"}, "per: unknown 'word'"),
        ({"hidden": 0}, "hidden=0"),
        ({"radius": -1}, "radius=-1"),
    ],
)
def test_bad_configs_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        SequenceConfig(3, **change)
