"""Classification heads against what transformers computed with the same arrays."""

import dataclasses

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from ffnlab import trees
from ffnlab.finetune.text_parts import DENSE
from ffnlab.models.classifier import ClassifierConfig, classifier_model
from ffnlab.pretrained import checkpoint
from ffnlab.pretrained.safetensors_io import load_classifier
from tests.pretrained.test_checkpoint import HERE, expected

PURPOSE = "SequenceClassification"
ARRAYS = {
    "dense": "classifier/classifier.dense",
    "out": "classifier/classifier.out_proj",
}


@pytest.mark.parametrize("name", ["xlm-roberta", "electra"])
def test_logits_are_those_of_transformers_also_when_saved(name, tmp_path):
    """The head has the names and the arrays that transformers has."""
    wanted = expected(name)
    base = checkpoint.load(HERE / name, head=False)
    head = {
        layer: {
            "kernel": wanted[f"{array}.weight"].T,
            "bias": wanted[f"{array}.bias"],
        }
        for layer, array in ARRAYS.items()
    }
    about = {"classifier": head, "purpose": PURPOSE, "like": base}
    checkpoint.save(tmp_path / "out", base.config, base.params, **about)
    saved = load_file(tmp_path / "out" / "model.safetensors")
    theirs = {k.removeprefix("classifier/") for k in wanted if k.startswith("classif")}
    assert {key for key in saved if key.startswith("classifier.")} == theirs
    for key in theirs:
        np.testing.assert_array_equal(saved[key], wanted[f"classifier/{key}"])
    again = checkpoint.load(tmp_path / "out", head=False)
    found = load_classifier(tmp_path / "out", PURPOSE, name)
    assert trees.flatten(found).keys() == trees.flatten(head).keys()
    plain = dataclasses.replace(again.config, dropout=0.0, attention_dropout=0.0)
    model = classifier_model(ClassifierConfig(plain, 3, dense=DENSE[name]))
    mask = wanted["mask"]
    x = {
        "tokens": wanted["tokens"],
        "mask": mask,
        "segment_ids": np.where(mask, 0, -1),
        "label_positions": np.zeros((2, 1), int),
    }
    params = {"encoder": again.params, "head": found}
    logits = jax.jit(model.apply)(params, x)[0][:, 0]
    np.testing.assert_allclose(logits, wanted["class_logits"], rtol=1e-5, atol=1e-5)
