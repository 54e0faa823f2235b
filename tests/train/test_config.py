import jax.numpy as jnp
import pytest

from ffnlab import data
from ffnlab.errors import InputError
from ffnlab.train.config import Training
from ffnlab.train.objectives import OBJECTIVES


def test_epochs_come_before_steps():
    wine = data.load("wine")
    score = OBJECTIVES["classes"]
    long = Training(epochs=3, steps=7, batch_size=20, evaluations=4)
    plan = long.plan(wine, score)
    assert (plan.steps, plan.every) == (16, 4)  # 106 examples
    assert Training(steps=7, evaluations=2).plan(wine, score).every == 4
    assert plan.monitor == "accuracy" and plan.higher_is_better


def test_a_run_to_resume_must_be_named():
    wanted = "^resume: out=DIRECTORY must name the run to continue$"
    with pytest.raises(InputError, match=wanted):
        Training(resume=True)


def test_a_population_has_a_member_per_seed_and_rate():
    assert Training(seeds=3, learning_rates=(0.1, 0.2)).members == 6


@pytest.mark.parametrize(("warmup_steps", "factor"), [(2, 0.5), (20, 0.2), (0, 1.0)])
def test_the_optimizer_has_the_options_and_at_most_half_of_the_run_to_warm_up(
    warmup_steps, factor
):
    options = {"optimizer": "sgd", "schedule": "constant", "clip": 1.0}
    config = Training(**options, warmup_steps=warmup_steps)
    optimizer = config.make_optimizer(10, learning_rate=0.5)
    params = {"kernel": jnp.array([0.0, 0.0])}
    grads = {"kernel": jnp.array([30.0, 40.0])}  # clipped to a norm of 1
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    wanted = [-0.5 * factor * 0.6, -0.5 * factor * 0.8]
    assert updates["kernel"].tolist() == pytest.approx(wanted, rel=1e-5)
