"""What a program says of itself before it is compiled."""

import jax
import numpy as np
import pytest

from ffnlab.models import DecoderConfig, language_model
from ffnlab.train import optimizers
from ffnlab.train.learner import Learner
from ffnlab.train.placement import make_program
from ffnlab.train.train_step import init_state

SHAPE = {"layers": 6, "features": 64, "heads": 2, "hidden": 256, "vocabulary": 9}
CASES = ((False, 1), (False, 5), (True, 5))  # scan, steps
KEY = jax.random.key(0)


def operations(scan, steps):
    config = DecoderConfig.tiny(**SHAPE, length=32, scan=scan)
    model = language_model.causal_lm(config)
    learner = Learner(model, language_model.objective(1.0), optimizers.make("sgd"))
    state = jax.eval_shape(lambda: init_state(learner, KEY, 0))
    tokens = np.zeros((8, 32), np.int32)
    arrays = {"x/tokens": tokens, "x/mask": tokens > 0, "y": tokens}
    program = make_program(learner, KEY, None)
    return program.operations(state, arrays, np.zeros((steps, 4), int))


def test_operations_are_of_a_step_and_of_all_layers():
    one, more, stacked = (operations(*case) for case in CASES)
    assert more == pytest.approx(one, rel=1e-3)
    assert stacked == pytest.approx(more, rel=0.1)
