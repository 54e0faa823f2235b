"""Small checkpoints as models to adapt, with two texts in the first of two rows."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab import trees
from ffnlab.models.classifier import ClassifierConfig, classifier_model
from ffnlab.models.language_model import seq2seq_lm
from ffnlab.models.layer_stack import stack_layers
from ffnlab.pretrained import load

HERE = Path(__file__).parents[1] / "checkpoints"
FAMILIES = ("bert", "roberta", "distilbert", "gpt2")
X = {
    "tokens": np.array([[2, 7, 5, 9, 3, 30, 4], [2, 8, 4, 6, 1, 1, 1]]),
    "mask": np.array([[True] * 7, [True] * 4 + [False] * 3]),
    "segment_ids": np.array([[0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, -1, -1, -1]]),
    "label_positions": np.array([[2, 5], [3, -1]]),
}


@functools.cache
def build(family, scan=False, **options):
    """Returns a classifier, or GPT-2, and its parameters."""
    checkpoint = load(HERE / family, head=family == "gpt2")
    options = {"dropout": 0.0, "attention_dropout": 0.0, **options}
    config = dataclasses.replace(checkpoint.config, scan=scan, **options)
    encoder = stack_layers(checkpoint.params) if scan else checkpoint.params
    if family == "gpt2":
        return seq2seq_lm(config), {"encoder": encoder}
    model = classifier_model(ClassifierConfig(config, classes=3, dropout=0.0))
    head = random_like(jax.eval_shape(model.init, jax.random.key(0))["head"], 0.5)
    return model, {"encoder": encoder, "head": head}


def random_like(tree, scale=0.3, seed=0, dtype=None):
    """Returns normal arrays of the shapes of a tree."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(
            scale * rng.normal(size=leaf.shape), dtype or leaf.dtype
        ),
        tree,
    )


def moved(trainable, scale=0.3, seed=0):
    """Returns arrays as after training: none is at its initial value."""
    noise = random_like(trainable, scale, seed)
    return jax.tree.map(jnp.add, trainable, noise)


def shapes(tree):
    """Returns the shapes of a tree by path."""
    return {path: leaf.shape for path, leaf in trees.flatten(tree).items()}


def loss(apply, trainable, frozen, x=X):
    """Returns a mean over all outputs in which no gradient vanishes."""
    return jnp.sin(apply(trainable, frozen, x)[0]).mean()
