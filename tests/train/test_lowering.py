"""Every step of training lowers for accelerators, on a machine that has none.

Nothing is compiled or computed: arrays are shapes, and a step is traced and lowered as
`train.fit` runs it, a scan over batches that it takes from the data.
"""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax import export

from ffnlab import adapt
from ffnlab.feedback.solvers import SOLVERS
from ffnlab.finetune import adapting
from ffnlab.models import classifier, language_model, mlp, sequence
from ffnlab.models.transformer_config import DecoderConfig, EncoderConfig
from ffnlab.nn import ffn
from ffnlab.nn.activations import ACTIVATIONS
from ffnlab.nn.ffn import BlockConfig
from ffnlab.nn.precision import mixed_precision
from ffnlab.sweep import population
from ffnlab.train import objectives, optimizers, train_step
from ffnlab.train.learner import Learner, with_frozen
from tests.conftest import draw

PLATFORMS = ("cuda", "tpu")
CLASSES = objectives.OBJECTIVES["classes"]
ROWS, STEPS, BATCH, LENGTH = 8, 2, 4, 6
# Libraries that come with JAX, whose calls JAX does not promise to keep for six months.
CHECKS = [
    export.DisabledSafetyCheck.custom_call(name)
    for name in (
        "cusolver_getrf_ffi",
        "cu_lu_pivots_to_permutation",
        "cuhybrid_eig_real",
    )
]
TINY = {"vocabulary": 7, "features": 8, "heads": 2, "hidden": 8, "layers": 2}
DROPOUT = {"dropout": 0.1, "attention_dropout": 0.1}


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


integers = functools.partial(shape, dtype=jnp.int32)
TOKENS = {
    "x/tokens": integers(ROWS, LENGTH),
    "x/mask": shape(ROWS, LENGTH, dtype=bool),
}
LABELS = {
    **TOKENS,
    "x/segment_ids": integers(ROWS, LENGTH),
    "x/label_positions": integers(ROWS, 2),
    "y": integers(ROWS, 2),
}


def lower(function, *args):
    """Returns a function lowered for all platforms; what one lacks is an error."""
    lowered = export.export(
        jax.jit(function), platforms=PLATFORMS, disabled_checks=CHECKS
    )
    text = lowered(*args).mlir_module()
    assert "cudnn" not in text  # there is none to ask for its version
    return text


def lower_steps(learner, arrays):
    """Lowers the steps of a learner on a batch of some rows."""
    state = jax.eval_shape(lambda: train_step.init_state(learner, jax.random.key(0), 0))
    arrays = with_frozen(learner, arrays)
    text = lower(train_step.make_steps(learner), state, arrays, integers(STEPS, BATCH))
    assert "stablehlo.while" in text and "stablehlo.dot_general" in text


def slow(*values):
    """Returns parameters of slow tests."""
    return [pytest.param(*value, marks=pytest.mark.slow) for value in values]


def lower_tower(kind, optimizer, **options):
    block = BlockConfig(kind, 8, 16, dropout=0.1, **options)
    model = mlp.tower(mlp.TowerConfig(5, 3, block, layers=1))
    learner = Learner(model, CLASSES, optimizers.make(optimizer, clip=1.0))
    lower_steps(learner, {"x": shape(ROWS, 5), "y": integers(ROWS)})


ADAMW = [(kind, "adamw") for kind in ffn.BLOCKS]
MUON = [(kind, "muon") for kind in ffn.BLOCKS if kind != "swiglu"]


@pytest.mark.parametrize("kind, optimizer", [*ADAMW, ("swiglu", "muon"), *slow(*MUON)])
def test_blocks(kind, optimizer):
    lower_tower(kind, optimizer)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation):
    lower_tower(f"glu:{activation}", "adamw")


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", optimizers.OPTIMIZERS)
def test_optimizers(optimizer):
    lower_tower("mlp", optimizer, norm="sandwich", norm_kind="batch")


# Krylov solves adjoint systems only.
ALONE = sorted({*SOLVERS} - {"krylov"})
IMPLICIT = [(solver, "implicit") for solver in ALONE]
UNROLLED = [(solver, "bptt") for solver in ALONE]


@pytest.mark.parametrize("solver, gradient", IMPLICIT + slow(*UNROLLED))
def test_feedback(solver, gradient):
    config = sequence.SequenceConfig(
        3, features=2, hidden=4, solver=SOLVERS[solver](), gradient=gradient
    )
    model = sequence.sequence_model(config)
    values = {"x/values": shape(ROWS, LENGTH, 2), "x/mask": TOKENS["x/mask"]}
    learner = Learner(model, CLASSES, optimizers.make("adamw", flat=True))
    lower_steps(learner, {**values, "y": integers(ROWS, LENGTH)})


def tagger(dtype="float32", **options):
    encoder = EncoderConfig(**TINY, **DROPOUT, **options)
    model = classifier.classifier_model(classifier.ClassifierConfig(encoder, classes=3))
    return model if dtype == "float32" else mixed_precision(model)


@pytest.mark.parametrize("dtype", ["bfloat16", *slow(("float32",))])
def test_an_encoder(dtype):
    objective = objectives.cross_entropy_objective()
    learner = Learner(tagger(dtype), objective, optimizers.make("adamw", clip=1.0))
    lower_steps(learner, LABELS)


@pytest.mark.parametrize("options", [{"scan": True, "remat": True}, *slow(({},))])
def test_a_decoder(options):
    config = DecoderConfig(**TINY, **DROPOUT, **options, positions="rotary")
    model, objective = language_model.causal_lm(config), language_model.objective(1.0)
    learner = Learner(mixed_precision(model), objective, optimizers.make("muon"))
    lower_steps(learner, {**TOKENS, "y": integers(ROWS, LENGTH)})


def test_low_rank_fine_tuning():
    model, methods = tagger("bfloat16"), adapt.parse("lora", rank=2)
    params, optimizer = draw(model), optimizers.make("adamw")
    trainable, frozen, _ = adapt.apply(params, methods, model)
    adaptation = adapting.Adaptation(
        methods, model, frozen, frozen, adapt.summary(trainable, frozen)
    )
    objective = objectives.cross_entropy_objective()
    learner = adapting.make_learner(
        adaptation, lambda model: Learner(model, objective, optimizer)
    )
    lower_steps(learner, LABELS)


@pytest.mark.parametrize("batching", ["vmap", *slow(("map",))])
def test_a_population(batching):
    block = BlockConfig("swiglu", 8, 16, dropout=0.1)
    model = mlp.tower(mlp.TowerConfig(5, 3, block, layers=1))
    learner = Learner(model, CLASSES, optimizers.make("adamw"))
    steps, _ = population.make_programs(learner, batching=batching)
    members = jax.local_device_count()
    state = jax.eval_shape(
        jax.vmap(lambda seed: train_step.init_state(learner, jax.random.key(0), seed)),
        integers(members),
    )
    arrays = {"x": shape(ROWS, 5), "y": integers(ROWS)}
    lower(steps._function, state, arrays, integers(members, STEPS, BATCH))


def test_what_an_accelerator_lacks_is_an_error():
    with pytest.raises(NotImplementedError, match="eig"):
        lower(jnp.linalg.eigvals, shape(3, 3))
