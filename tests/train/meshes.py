"""Trains five kinds of model on eight devices in several meshes, and on one of them.

In float32 all but a population have one mesh, and other optimizers than in float64.

    JAX_NUM_CPU_DEVICES=8 python -m tests.train.meshes
    JAX_NUM_CPU_DEVICES=8 python -m tests.train.meshes float64

Prints the largest differences of the losses of 20 steps and of the parameters after
them as JSON, by model and mesh.
"""

import json
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab import adapt, data
from ffnlab.data.packed_rows import pack
from ffnlab.data.tokenizer import Encoded
from ffnlab.finetune import adapting
from ffnlab.models import (
    DecoderConfig,
    EncoderConfig,
    SequenceConfig,
    TowerConfig,
    language_model,
    sequence_model,
    tower,
)
from ffnlab.models.classifier import ClassifierConfig, classifier_model
from ffnlab.nn import BlockConfig
from ffnlab.sweep import fit_population
from ffnlab.train import OBJECTIVES, optimizers, sharding
from ffnlab.train.checkpoint import Checkpoints
from ffnlab.train.learner import Learner, Parts
from ffnlab.train.loop import NO_HOOKS, Hooks, fit
from ffnlab.train.mesh_config import parse
from ffnlab.train.objectives import cross_entropy_objective
from ffnlab.train.record import Plan

PLAN = Plan(steps=20, every=20, batch=8)
SHAPE = {"layers": 1, "features": 16, "heads": 8, "hidden": 32, "vocabulary": 32}
MESHES = {
    "data:8": ("data:8",),
    "data:8,fsdp": ("data:8",),
    "model:8": ("model:8",),
    "data:4,model:2,fsdp": ("data:4", "model:2"),
}


def optimizer(name="adam"):
    """Returns an optimizer; in float64 one without divisions by small gradients."""
    name = "nesterov" if jax.config.jax_enable_x64 else name
    return optimizers.make(name, 1e-3, clip=1.0)


def wide(tree):
    """Returns a tree whose floating-point arrays are float64 where JAX allows it."""

    def widen(leaf):
        inexact = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(leaf, float) if inexact else leaf

    return jax.tree.map(widen, tree)


def make_learner(model, *rest, **options):
    """Returns a learner whose parameters are as wide as JAX allows."""
    init = model.init
    return Learner(model._replace(init=lambda key: wide(init(key))), *rest, **options)


def texts():
    def part(count):
        tokens = np.random.default_rng(count).integers(0, 32, (count, 8), np.int32)
        return {"x/tokens": tokens, "x/mask": np.ones((count, 8), bool), "y": tokens}

    return Parts("tokens", part(24), part(8))


def labelled_texts():
    def part(count):
        rng = np.random.default_rng(count)
        tokens = [rng.integers(0, 32, 8) for _ in range(count)]
        types = [np.zeros(8, np.int32)] * count
        labels = rng.integers(0, 3, count)
        return pack(Encoded(tokens, types, [], 0), labels, 8).arrays

    return Parts("texts", part(24), part(8))


def decoder(layout, hooks=NO_HOOKS):
    config = DecoderConfig.tiny(**SHAPE | {"layers": 2}, length=8, scan=True)
    model = language_model.causal_lm(config)
    learner = make_learner(model, language_model.objective(1.0), optimizer("muon"))
    return fit(learner, texts(), PLAN, layout=layout, hooks=hooks)


def encoder(layout):
    config = EncoderConfig.tiny(**SHAPE, length=8, dropout=0.1, head="tied")
    model = language_model.masked_lm(config, 1)
    objective = language_model.objective(1.0)
    learner = make_learner(model, objective, optimizer(), independent=True)
    return fit(learner, texts(), PLAN, layout=layout)


def lora(layout):
    config = EncoderConfig.tiny(**SHAPE, length=8, pooler=True)
    model = classifier_model(ClassifierConfig(config, 3, dropout=0.1))
    params, methods = wide(model.init(jax.random.key(0))), adapt.parse("lora")
    trainable, frozen, _ = adapt.apply(params, methods, model)
    whole = adapting.Adaptation(
        methods, model._replace(init=lambda key: params), frozen, frozen,
        adapt.summary(trainable, frozen),
    )  # fmt: skip
    learner = adapting.make_learner(
        whole,
        lambda model: make_learner(
            model, cross_entropy_objective(), optimizer(), independent=True
        ),
    )
    return fit(learner, labelled_texts(), PLAN, layout=layout)


def population(layout):
    wine = data.load("wine")
    block = BlockConfig("swiglu", features=16, hidden=16, dropout=0.1)
    model = tower(TowerConfig(wine.features, wine.classes, block))
    learner = make_learner(model, OBJECTIVES["classes"], optimizer())
    return fit_population(learner, wine, PLAN, seeds=range(4), layout=layout).fit


def feedback(layout):
    task = data.SEQUENCES["two_sided_copy"](0)
    config = SequenceConfig(
        task.classes, task.features, task.about["vocabulary"], hidden=8,
        per=task.about["per"], contractive=0.5, kind="feedback",
    )  # fmt: skip
    model = sequence_model(config)
    learner = make_learner(model, OBJECTIVES[task.task], optimizer())
    if layout and layout.sizes["data"] == 8 and not layout.fsdp:
        layout = layout._replace(positions=True)
    return fit(learner, task, PLAN, layout=layout)


def difference(one, other):
    """Returns the largest difference of two fits."""
    pairs = [
        (fitted.record.loss, *map(np.asarray, jax.tree.leaves(fitted.state.params)))
        for fitted in (one, other)
    ]
    largest = [float(np.abs(a - b).max()) for a, b in zip(*pairs, strict=True)]
    dtypes = {array.dtype.name for array in pairs[0][1:]}
    return {"loss": largest[0], "params": max(largest[1:]), "dtypes": sorted(dtypes)}


def reread():
    """Returns how a decoder differs after its checkpoint is read on other meshes."""
    with tempfile.TemporaryDirectory() as folder:
        hooks, written = Hooks(Checkpoints(Path(folder))), MESHES["data:8"]
        saved = decoder(sharding.make_layout(parse(written), fsdp=True), hooks)
        found = {}
        for name in ("data:4,model:2", "one device"):
            layout = name != "one device" and sharding.make_layout(
                parse(name.split(","))
            )
            read = decoder(layout or None, hooks)
            assert np.isnan(read.seconds_per_step)  # no step was left
            found[f"checkpoint read on {name}"] = difference(saved, read)
    return found


def main():
    jax.config.update("jax_enable_x64", "float64" in sys.argv)
    differences = {}
    for train in (decoder, encoder, lora, population, feedback):
        one = train(None)
        meshes = dict(MESHES)
        if not jax.config.jax_enable_x64:  # float64 is the sharper check
            meshes = {name: MESHES[name] for name in ("data:4,model:2,fsdp",)}
        if train is population:
            meshes = {"replicas:2,data:2,model:2": ("replicas:2", "data:2", "model:2")}
        for name, entries in meshes.items():
            layout = sharding.make_layout(parse(entries), "fsdp" in name)
            other, key = train(layout), f"{train.__name__} {name}"
            differences[key] = difference(one, other)
    print(json.dumps({**differences, **reread()}))


if __name__ == "__main__":
    main()
