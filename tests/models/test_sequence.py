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
from ffnlab.train import loop, objectives, optimizers
from ffnlab.train.record import Plan
from ffnlab.types import Model

TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 5, (3, 7)))
MASK = jnp.arange(7)[None] < jnp.array([7, 4, 0])[:, None]
CONFIG = SequenceConfig(3, vocabulary=5, hidden=6, embedding=4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per", ["position", "sequence"])
def test_every_kind_is_built_and_padding_is_not_heard(kind, per):
    config = dataclasses.replace(CONFIG, kind=kind, per=per, layers=2)
    model = sequence_model(config)
    params = model.init(jax.random.key(0))
    logits, aux = model.apply(params, {"tokens": TOKENS, "mask": MASK})
    assert logits.shape == ((3, 7, 3) if per == "position" else (3, 3))
    assert set(aux) == {"report"} and jnp.isfinite(logits).all()
    assert ("radius" in aux["report"]) == (kind == "feedback")
    other = {"tokens": jnp.where(MASK, TOKENS, 4), "mask": MASK}
    chex.assert_trees_all_close(model.apply(params, other)[0], logits, atol=1e-6)
    _, trained = model.apply(params, other, jax.random.key(1))
    assert "radius" not in trained["report"]  # it takes time


def test_embeddings_of_a_position_are_summed():
    model = sequence_model(CONFIG)
    params = model.init(jax.random.key(0))
    pair = jnp.stack([TOKENS, TOKENS], axis=-1)
    twice, _ = model.apply(params, {"tokens": pair, "mask": MASK})
    doubled = params | {"embed": {"embedding": 2 * params["embed"]["embedding"]}}
    wanted, _ = model.apply(doubled, {"tokens": TOKENS, "mask": MASK})
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
    found = sequence.match(dataclasses.replace(given, layers=1), reference)
    errors = []
    for hidden in (found.hidden, found.hidden - 2, found.hidden + 2):
        other = dataclasses.replace(found, hidden=max(hidden, 1))
        errors.append(abs(other.parameters - reference.parameters))
    assert errors[0] == min(errors)
    assert found.hidden == 9 or kind != "feedback"
    learned = dataclasses.replace(reference, boundary="learned")
    assert learned.parameters == pure.parameters(sequence_model(learned))


def test_a_population_of_feedback_networks_learns_and_reports():
    dataset = SEQUENCES["two_sided_copy"](length=8, distance=1, sizes=(256, 64, 64))
    config = SequenceConfig(4, vocabulary=2, hidden=16, embedding=4)
    plan = Plan(60, 30, 32, monitor="accuracy", higher_is_better=True)
    found = population.fit_population(
        sequence_model(config), objectives.OBJECTIVES["classes"],
        optimizers.make("adam", flat=True), dataset, plan,
        seeds=[0, 1], learning_rates=[3e-2],
    )  # fmt: skip
    scores = found.fit.record.scores
    assert (found.fit.record.best > 0.9).all()
    assert set(scores) == {
        "loss", "accuracy", "residual", "iterations", "converged", "radius",
        "adjoint residual",
    }  # fmt: skip
    assert (scores["iterations"] > 1).all() and (scores["radius"] > 0).all()


def test_what_a_model_tells_is_averaged_over_examples():
    """With a last batch that is filled up, and more than one label an example."""
    dataset = SEQUENCES["two_sided_copy"](length=8, distance=1, sizes=(8, 7, 4))
    valid = dataset.valid

    def apply(params, x, key=None):
        told = {"length": x["mask"].sum(axis=1)}
        return jnp.zeros((*x["mask"].shape, 4)), {"report": told}

    model = Model(lambda key: {}, apply)
    evaluate = loop.make_evaluate(
        model, objectives.OBJECTIVES["classes"], data.take, 7, batch=3
    )
    lengths = valid["x/mask"].sum(axis=1)
    wanted = (lengths * lengths).sum() / lengths.sum()  # each label counts once
    found = evaluate({}, jax.device_put(valid))["length"]
    assert float(found) == pytest.approx(wanted, rel=1e-6)


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
