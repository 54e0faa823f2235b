"""The training steps that `benchmarks.anatomy` takes apart, at the sizes of its flags.

All are `steps(state, arrays, indices) -> (state, losses)`, a scan as training runs it.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import adapt, feedback, ffn
from ffnlab import data, pretrained
from ffnlab.errors import InputError
from ffnlab.feedback.solvers import Jacobi
from ffnlab.models import (
    DecoderConfig,
    EncoderConfig,
    TowerConfig,
    language_model,
    tower,
    transformer_model,
)
from ffnlab.models.classifier import ClassifierConfig, classifier_model
from ffnlab.models.transformer_config import dropout_fields
from ffnlab.nn import BlockConfig
from ffnlab.nn.precision import mixed_precision
from ffnlab.sweep import population
from ffnlab.train import OBJECTIVES, Learner, optimizers, train_step
from ffnlab.train.learner import with_frozen
from ffnlab.types import Array, Model

Sizes = Mapping[str, Any]
SHORTEST = 4  # tokens of a text


class Step(NamedTuple):
    """A training step.

    Attributes:
      steps: A pure function of the state, the arrays and the indices of the batches.
      state: The state before the first step; `steps` may reuse its memory.
      arrays: The data on the device.
      batches: `batches(n)` is the indices of n steps.
    """

    steps: Callable[[Any, Any, Array], tuple[Any, Array]]
    state: Any
    arrays: Any
    batches: Callable[[int], np.ndarray]


def _same(batch: int) -> Callable[[int], np.ndarray]:
    """Returns the indices of steps that all take the first examples."""
    return lambda steps: np.tile(np.arange(batch), (steps, 1))


def _whole(arrays: Any, _: Array) -> Any:
    """Returns all of the arrays as the batch."""
    return arrays


def block(sizes: Sizes, checkpoint: str | None = None) -> Step:
    """Returns the step of one block by gradient descent, as in `benchmarks.ffn`."""
    shape = ffn.Shape(sizes["batch_size"], sizes["features"], sizes["hidden"])
    kind = sizes["block"]
    apply, arrays = ffn.ours(kind, shape), ffn.make_data(kind, shape)

    def square_loss(params: Any, x: Array, target: Array) -> Array:
        return jnp.mean(jnp.square(apply(params, x) - target))

    def step(state: Any, batch: Any) -> tuple[Any, Array]:
        gradient = jax.value_and_grad(square_loss, argnums=(0, 1))
        loss, (grads, x_grad) = gradient(state[0], batch["x"], batch["target"])
        return (descend(state[0], grads, ffn.RATE), x_grad), loss

    start = arrays.pop("params"), jnp.zeros_like(arrays["x"])
    return Step(train_step.scan_steps(step, _whole), start, arrays, _same(1))


def descend(params: Any, grads: Any, rate: float) -> Any:
    """Returns the parameters after a step of gradient descent."""
    return jax.tree.map(lambda p, g: p - rate * g, params, grads)


def solve(sizes: Sizes, checkpoint: str | None = None) -> Step:
    """Returns a step by the implicit gradient of a chain, as in `benchmarks.feedback`.

    The chain is certified, and solved by Jacobi sweeps.
    """
    shape = (sizes["batch_size"], sizes["length"], sizes["hidden"])
    task = feedback.make_task("certified", *shape[1:])
    drive = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    solver = Jacobi(feedback.TOLERANCE, feedback.LIMIT)

    def mean_loss(drive: Array, left: Array, right: Array) -> Array:
        solution = feedback.solve_chain(
            drive, left, right, solver=solver, gradient="implicit"
        )
        return jnp.mean(solution.state**2)

    def step(state: Any, drive: Array) -> tuple[Any, Array]:
        gradient = jax.value_and_grad(mean_loss, argnums=(0, 1, 2))
        loss, (slope, *grads) = gradient(drive, *state[0])
        return (descend(state[0], tuple(grads), 1e-3), slope), loss

    start = (task.left, task.right), jnp.zeros_like(drive)
    return Step(train_step.scan_steps(step, _whole), start, drive, _same(1))


def towers(sizes: Sizes, checkpoint: str | None = None) -> Step:
    """Returns the step of a population of digits MLPs, as sweeps train it."""
    block = BlockConfig("mlp:relu", sizes["features"], sizes["hidden"])
    model = tower(TowerConfig(64, 10, block, sizes["layers"]))
    learner = Learner(model, OBJECTIVES["classes"], optimizers.make("adam", 1e-3))
    arrays, members = data.load("digits").train, sizes["members"]

    def start(seed: Array) -> Any:
        return train_step.init_state(learner, jax.random.key(0), seed)

    def batches(steps: int) -> np.ndarray:
        count, batch = data.size(arrays), sizes["batch_size"]
        order = data.indices(range(members), 0, steps, batch, count)
        return np.asarray(order).swapaxes(0, 1)  # [S, steps, B]

    scan = train_step.make_steps(learner)

    def member(own: tuple, shared: Any) -> Any:
        return scan(own[0], shared, own[1])

    def steps(state: Any, arrays: Any, indices: Array) -> Any:
        run = population.spread(member)
        return run((state, indices), arrays)

    state = jax.vmap(start)(jnp.arange(members))
    return Step(steps, state, jax.device_put(arrays), batches)


def decoder(sizes: Sizes, checkpoint: str | None = None) -> Step:
    """Returns the step of a causal language model, as in `benchmarks.sharding`."""
    shape = DecoderConfig(
        vocabulary=sizes["vocabulary"],
        features=sizes["features"],
        layers=sizes["layers"],
        heads=sizes["heads"],
        hidden=sizes["hidden"],
        block="swiglu",
        positions="rotary",
        length=sizes["length"],
        **dropout_fields(sizes["dropout"]),
    )
    optimizer = optimizers.make("adam", 1e-3, clip=1.0)
    model = in_dtype(language_model.causal_lm(shape), sizes["dtype"])
    learner = Learner(model, language_model.objective(1.0), optimizer)
    batch = sizes["batch_size"], sizes["length"]
    tokens = np.random.default_rng(0).integers(0, shape.vocabulary, batch, np.int32)
    arrays = {"x/tokens": tokens, "x/mask": np.ones(batch, bool), "y": tokens}
    state = train_step.init_state(learner, jax.random.key(0), 0)
    scan = train_step.make_steps(learner)
    return Step(scan, state, jax.device_put(arrays), _same(batch[0]))


def in_dtype(model: Model, dtype: str) -> Model:
    """Returns a model that computes in a dtype."""
    return model if dtype == "float32" else mixed_precision(model, dtype)


def encoder(sizes: Sizes, checkpoint: str | None = None, method: str = "full") -> Step:
    """Returns the step of fine-tuning a classifier on texts of 4 tokens to `length`.

    The texts are packed into rows. Without a checkpoint, a BERT of the sizes is drawn.

    Raises:
      InputError: The longest text has more tokens than the checkpoint has positions.
    """
    most = pretrained.load(checkpoint, head=False).config.length if checkpoint else None
    if most and sizes["length"] > most:
        raise InputError(
            f"length: {sizes['length']} exceeds the {most} positions of the checkpoint"
        )
    with tempfile.TemporaryDirectory() as folder:
        options = adapt.Config(
            checkpoint=checkpoint or _draw(sizes, Path(folder) / "drawn"),
            batch_size=sizes["batch_size"],
            min_seq_length=min(SHORTEST, sizes["length"]),
            max_seq_length=sizes["length"],
            vocab_ids=sizes["vocabulary"],
        )
        setup = adapt.make_setup(options, Path(folder))
    dropout = sizes["dropout"]
    shape = dataclasses.replace(
        setup.checkpoint.config,
        vocabulary=len(setup.vocab_ids),
        **dropout_fields(dropout),
    )
    model = classifier_model(ClassifierConfig(shape, adapt.CLASSES, dropout=dropout))
    setup = setup._replace(model=model)
    learner = adapt.make_learner(setup, method, sizes["dtype"])
    state = train_step.init_state(learner, jax.random.key(0), 0)
    arrays = with_frozen(learner, jax.device_put(setup.arrays))
    return Step(
        train_step.make_steps(learner), state, arrays, _same(len(setup.arrays["y"]))
    )


def _draw(sizes: Sizes, directory: Path) -> str:
    """Writes a BERT with random arrays, and returns its directory."""
    names = ("vocabulary", "features", "layers", "heads", "hidden")
    fields = {name: sizes[name] for name in names}
    length = max(512, sizes["length"])
    shape = EncoderConfig(pooler=True, length=length, **fields)
    params = transformer_model(shape).init(jax.random.key(0))
    pretrained.save(directory, shape, params, family="bert")
    return str(directory)


def lora(sizes: Sizes, checkpoint: str | None = None) -> Step:
    """Returns the step of `encoder` with LoRA."""
    return encoder(sizes, checkpoint, "lora")


_MINILM = {
    "batch_size": 16, "length": 60, "features": 384, "hidden": 1536, "layers": 6,
    "heads": 12, "vocabulary": 10_000, "dropout": 0.1, "dtype": "float32",
}  # fmt: skip
STEPS: dict[str, Callable[[Sizes, str | None], Step]] = {
    "block": block,
    "tower": towers,
    "encoder": encoder,
    "decoder": decoder,
    "feedback": solve,
    "lora": lora,
}
# The sizes of each step, and what they are if no flag is given.
DEFAULTS: dict[str, dict[str, Any]] = {
    "block": {"batch_size": 4096, "features": 384, "hidden": 1536, "block": "relu"},
    "tower": {
        "members": 32, "batch_size": 256, "features": 64, "hidden": 128, "layers": 2,
    },
    "encoder": _MINILM,
    "decoder": {
        "batch_size": 16, "length": 128, "features": 256, "hidden": 512, "layers": 4,
        "heads": 4, "vocabulary": 256, "dropout": 0.0, "dtype": "float32",
    },
    "feedback": {"batch_size": 8, "length": 512, "hidden": 64},
    "lora": _MINILM,
}  # fmt: skip
