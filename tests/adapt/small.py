"""Small checkpoints as models to adapt, with two texts in the first of two rows."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab import adapt, trees
from ffnlab.models.classifier import ClassifierConfig, classifier_model
from ffnlab.models.language_model import seq2seq_lm
from ffnlab.models.layer_stack import stack_layers
from ffnlab.pretrained import load

HERE = Path(__file__).parents[1] / "checkpoints"
FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert", "electra", "gpt2")
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


# What test_peft and make.py write and read: the task of a model, its head, and what is
# adapted by ours, with all modules and parts of fused ones.
PURPOSES = {
    "bert": "SequenceClassification",
    "roberta": "TokenClassification",
    "xlm-roberta": "TokenClassification",
    "distilbert": "SequenceClassification",
    "electra": "SequenceClassification",
    "gpt2": None,
}
EVERY = {"rank": 2, "alpha": 3.0, "targets": ("all",)}
OURS = {
    "bert-lora": adapt.LoRA(**EVERY, rslora=True),
    "bert-dora": adapt.LoRA(rank=2, alpha=3.0, dora=True),
    "bert-adalora": adapt.AdaLoRA(**EVERY, target_rank=1, total_steps=9),
    "bert-ia3": adapt.IA3(),
    "roberta-lora": adapt.LoRA(**{**EVERY, "targets": ("layer_1/.*",)}),
    "xlm-roberta-lora": adapt.LoRA(**EVERY),
    "electra-lora": adapt.LoRA(**EVERY),
    "distilbert-lora": adapt.LoRA(**EVERY),
    "gpt2-lora": adapt.LoRA(rank=2, alpha=3.0),
    "gpt2-dora": adapt.LoRA(rank=2, targets=("value", "up"), dora=True, rslora=True),
    "gpt2-adalora": adapt.AdaLoRA(**EVERY, target_rank=1, total_steps=9),
    "gpt2-ia3": adapt.IA3(),
    "gpt2-prefix": adapt.Prefix(virtual_tokens=3, projection=5, shift_positions=True),
}
PLAIN = {
    "tokens": X["tokens"],
    "mask": X["mask"],
    "segment_ids": np.where(X["mask"], 0, -1),
    "label_positions": np.array([[*range(7)], [*range(4), -1, -1, -1]]),
}


def family_of(name):
    """Returns the family of an adapter's name, such as `xlm-roberta-lora`."""
    return name.rsplit("-", 1)[0]


@functools.cache
def task_model(family):
    """Returns a model as transformers has it for a task, its parameters and config."""
    pooler = True if family == "bert" else None
    checkpoint = load(HERE / family, head=family == "gpt2", pooler=pooler)
    if family != "bert":
        checkpoint = load(HERE / family, head=family == "gpt2")
    config = dataclasses.replace(checkpoint.config, dropout=0.0, attention_dropout=0.0)
    encoder = checkpoint.params
    if family == "gpt2":
        return seq2seq_lm(config), {"encoder": encoder}, config
    dense = {"distilbert": "relu", "electra": "gelu"}.get(family)
    head = ClassifierConfig(config, classes=3, dropout=0.0, dense=dense)
    model = classifier_model(head)
    shapes = jax.eval_shape(model.init, jax.random.key(0))["head"]
    return model, {"encoder": encoder, "head": random_like(shapes, 0.5)}, config


def ours(name):
    """Returns a trained part of ours, its method, and the model that it adapts."""
    model, params, config = task_model(family_of(name))
    trainable, frozen, apply = adapt.apply(params, OURS[name], model)
    return moved(trainable), frozen, apply, params, config


def write_ours(directory, name):
    """Writes an adapter of ours in the layout of peft."""
    family, (trainable, _, _, params, transformer) = family_of(name), ours(name)
    adapt.save_peft(
        directory,
        trainable,
        OURS[name],
        params,
        family=family,
        transformer=transformer,
        purpose=PURPOSES[family],
    )


def positions(family):
    """Returns the label positions whose logits are compared: of texts, or of tokens."""
    if PURPOSES[family] == "SequenceClassification":
        return {**PLAIN, "label_positions": np.array([[0], [0]])}
    return PLAIN


# Every method by name, with small sizes; and most of them at once.
FIELDS = {
    "lora": {"rank": 2},
    "dora": {"rank": 2},
    "adalora": {"rank": 3, "target_rank": 2, "total_steps": 100},
    "ia3": {},
    "houlsby": {"hidden": 4},
    "pfeiffer": {"hidden": 4, "block": "swiglu"},
    "parallel": {"hidden": 4, "block": "mlp:relu", "scale": 4.0},
    "prefix": {"virtual_tokens": 3},
    "prompt": {"virtual_tokens": 3},
    "bitfit": {},
    "head": {},
    "top": {},
    "ffn": {},
    "attention": {},
    "full": {},
    "lora+bitfit+ia3": {"rank": 2},
}
SUM = adapt.parse(
    "dora+adalora+ia3+houlsby+prefix+prompt+bitfit",
    **FIELDS["adalora"],
    hidden=4,
    virtual_tokens=2,
    projection=5,
)
