"""The gradient of a batch that devices divide equals that of one, as one exchange."""

import re
from functools import partial

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ffnlab.data.dataset import IGNORE
from ffnlab.models import EncoderConfig, language_model
from ffnlab.nn.batch_axis import draw_rows
from ffnlab.nn.dropout import keep_mask
from ffnlab.train import optimizers, placement, sharding
from ffnlab.train.divided_gradient import applies
from ffnlab.train.learner import Learner, Parts
from ffnlab.train.loop import fit
from ffnlab.train.mesh_config import parse
from ffnlab.train.record import Plan

CONFIG = EncoderConfig.tiny(
    layers=1, features=16, heads=2, hidden=32, vocabulary=32, length=8,
    dropout=0.2, head="tied",
)  # fmt: skip


def layout(*entries, fsdp=False):
    return sharding.make_layout(parse(entries or ["data:2"]), fsdp)


def learner(**options):
    model = language_model.masked_lm(CONFIG, 1)
    optimizer = optimizers.make("sgd", 0.1, clip=1.0)
    options = {"independent": True, **options}
    return Learner(model, language_model.objective(1.0), optimizer, **options)


def texts(count):
    rng = np.random.default_rng(count)
    tokens = rng.integers(0, 32, (count, 8), np.int32)
    mask = np.arange(8) < rng.integers(2, 9, (count, 1))  # rows of unequal weight
    labels = np.where(mask, tokens, IGNORE)
    return {"x/tokens": tokens, "x/mask": mask, "y": labels}


def test_a_divided_batch_trains_as_on_one_device():
    dataset, plan = Parts("texts", texts(12), texts(4)), Plan(6, 6, 4)
    one = fit(learner(), dataset, plan).record.loss
    divided = fit(learner(), dataset, plan, layout=layout()).record.loss
    np.testing.assert_allclose(divided, one, rtol=2e-6)


def test_the_gradients_of_a_step_are_exchanged_at_once():
    def exchanges(learner):
        key, where = jax.random.key(0), layout()
        program = placement.make_program(learner, key, where)
        state = placement.init_placed(learner, key, 0, None, where)
        arrays = placement.place_arrays(learner, texts(4), where)
        hlo = program.lower(state, arrays, np.zeros((1, 4), int)).compile().as_text()
        results = re.findall(r"= (.*) all-reduce\(", hlo)
        return sum(len(re.findall(r"f32\[", arrays)) for arrays in results)

    assert exchanges(learner()) == 1
    assert exchanges(learner(independent=False)) > 10


def test_who_exchanges_at_once():
    assert applies(learner(), layout())
    assert not applies(learner(independent=False), layout())
    assert not applies(learner(gradient=lambda *_: None), layout())
    assert not applies(learner(), None)
    assert not applies(learner(), layout(fsdp=True))
    assert not applies(learner(), layout()._replace(positions=True))
    assert not applies(learner(), layout("model:2"))
    assert not applies(learner(), layout("replicas:2"))


@pytest.mark.parametrize("wide", [False, True])
def test_a_device_draws_its_rows_of_the_whole_batch(wide):
    def drawn(draw):
        own = partial(draw, shape=(2, 3))
        whole = {"mesh": layout().mesh, "in_specs": P(), "out_specs": P("data")}
        return jax.jit(jax.shard_map(own, **whole, check_vma=False))

    key = jax.random.key(3)

    def uniform(key, shape):
        return draw_rows(partial(jax.random.uniform, key), shape)

    with jax.enable_x64(wide):
        keep = drawn(lambda key, shape: keep_mask(key, 0.5, shape))(key)
        np.testing.assert_array_equal(keep, keep_mask(key, 0.5, (4, 3)))
        np.testing.assert_array_equal(drawn(uniform)(key), uniform(key, (4, 3)))
