"""Adapters in the layout of peft, against what peft computes; see make.py."""

import functools
import json
import shutil
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ffnlab import adapt, trees
from ffnlab.adapt import adalora, load_peft, save_peft
from ffnlab.errors import InputError
from tests.adapt.small import (
    OURS,
    PURPOSES,
    family_of,
    ours,
    positions,
    task_model,
    write_ours,
)

DATA = Path(__file__).parent / "peft"
THEIRS = sorted(path.name for path in DATA.iterdir() if path.is_dir())


@functools.cache
def expected():
    with np.load(DATA / "expected.npz") as file:
        return dict(file)


def check_logits(family, apply, trainable, frozen, logits):
    x = positions(family)
    outputs = jax.jit(apply)(trainable, frozen, x)[0]
    if logits.ndim == 2:
        logits = logits[:, None]
    mask = (x["label_positions"] >= 0)[..., None]
    chex.assert_trees_all_close(
        np.where(mask, outputs, 0), np.where(mask, logits, 0), rtol=2e-5, atol=2e-5
    )


def read(directory, name):
    model, params, config = task_model(family_of(name))
    trainable, methods = load_peft(
        directory, params, family=family_of(name), transformer=config
    )
    return model, params, trainable, methods


def halves(model, params, trainable, methods):
    """Returns the frozen part and the function that belong to a trained part."""
    whole = trees.flatten(trainable)
    kept = {p: leaf for p, leaf in trees.flatten(params).items() if p not in whole}

    def apply(trainable, frozen, x):
        return model.apply(adapt.join(trainable, frozen, methods), x)

    return trees.unflatten(kept), apply


@pytest.mark.parametrize("name", THEIRS)
def test_adapters_of_peft(name):
    model, params, trainable, methods = read(DATA / name, name)
    frozen, apply = halves(model, params, trainable, methods)
    check_logits(family_of(name), apply, trainable, frozen, expected()[name])
    if PURPOSES[family_of(name)]:
        assert "head" in trainable
    if name == "bert-adalora":  # peft leaves out the pruned triplets
        ranks = adalora.ranks(trainable)
        assert sum(ranks.values()) == 1 * len(ranks) and max(ranks.values()) > 1


@pytest.mark.parametrize("name", OURS)
def test_peft_computes_the_same_with_ours(name, tmp_path):
    """And what we wrote is read back; the values are those that peft was given."""
    trainable, frozen, apply, params, config = ours(name)
    family, logits = family_of(name), expected()[f"ours/{name}"]
    check_logits(family, apply, trainable, frozen, logits)
    write_ours(tmp_path / "out", name)
    model, params, again, methods = read(tmp_path / "out", name)
    if name.startswith("gpt2") or "prefix" in name:  # fused layers have other factors
        frozen, apply = halves(model, params, again, methods)
        check_logits(family, apply, again, frozen, logits)
    else:
        chex.assert_trees_all_close(again, trainable, rtol=1e-6)
        scales = [getattr(m, "scale", None) for m in (*methods, OURS[name])]
        assert scales[0] == scales[1]


def test_what_peft_wrote_is_written_again(tmp_path):
    for name in ("gpt2-lora", "distilbert-ia3", "bert-dora"):
        _, params, trainable, methods = read(DATA / name, name)
        save_peft(
            tmp_path / name,
            trainable,
            methods,
            params,
            family=family_of(name),
            transformer=task_model(family_of(name))[2],
            purpose=PURPOSES[family_of(name)],
        )
        file = "adapter_model.safetensors"
        chex.assert_trees_all_close(
            load_file(tmp_path / name / file), load_file(DATA / name / file)
        )


def test_configurations_are_read():
    _, _, trainable, (lora,) = read(DATA / "bert-lora", "bert-lora")
    assert lora.rslora and lora.rank == 3 and lora.alpha == 5.0
    assert lora.targets == ("attention/query", "attention/value", "ffn/up")
    attention = trainable["encoder"]["layer_1"]["attention"]
    assert attention["query"]["lora"]["a"].shape == (12, 2)
    assert "pooler" in trainable["encoder"]
    _, _, some, _ = read(DATA / "roberta-lora", "roberta-lora")
    assert {*some["encoder"]} == {"layer_1"}


def copied(name, tmp_path, change=None, settings=None):
    """A copy of an adapter of peft with other arrays or settings."""
    directory = tmp_path / name
    shutil.copytree(DATA / name, directory)
    if change:
        tensors = load_file(directory / "adapter_model.safetensors")
        save_file(change(tensors), directory / "adapter_model.safetensors")
    if settings:
        path = directory / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return directory


ROOT = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_"


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (None, {"peft_type": "LOHA"}, "peft_type 'LOHA' should be one of LORA, ADAL"),
        (None, {"bias": "all"}, "bias 'all' cannot be loaded"),
        (None, {"r": None}, "adapter_config.json: r is missing"),
        (None, {"lora_alpha": "5"}, 'lora_alpha: should be a finite number.* not "5"'),
        (None, {"r": 0}, "adapter_config.json: r: should be a whole number at least 1"),
        (None, {"rank_pattern": {"(": 3}}, r"rank_pattern: '\(' is no pattern"),
        (None, {"alpha_pattern": {"(a+)+b": 3}}, r"'\(a\+\)\+b' is no pattern"),
        (
            lambda t: {**t, f"{ROOT}B.weight": np.zeros((12, 2), np.float32)},
            None,
            r"query: its arrays have the ranks \[3, 2\]",
        ),
        (
            lambda t: {**t, f"{ROOT}B.weight": np.zeros(12, np.float32)},
            None,
            r"lora_B.weight is \[12\], not an array of 2 axes",
        ),
        (
            lambda t: {**t, "base_model.model.x.lora_A.weight": t[f"{ROOT}A.weight"]},
            None,
            "1 arrays are of modules that cannot be adapted in this model, the first",
        ),
        (
            lambda t: {k: v for k, v in t.items() if k != f"{ROOT}B.weight"},
            None,
            "lora_B.weight is missing, though .*lora_A.weight is there",
        ),
        (
            lambda t: {**t, f"{ROOT}A.weight": np.zeros((3, 24), np.float32)},
            None,
            r"adapter of layer_0/attention/query is \[24, 3\], its kernel \[12, 12\]",
        ),
        (
            lambda t: {**t, "base_model.model.classifier.bias": np.zeros(4, "f4")},
            None,
            r"classifier.bias is \[4\], the model has \[3\]",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(change, settings, message, tmp_path):
    directory = copied("bert-dora", tmp_path, change, settings)
    with pytest.raises(InputError, match=message) as caught:
        read(directory, "bert")
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match="adapter_config.json: not found"):
        read(tmp_path, "bert")
    directory = copied("bert-ia3", tmp_path)
    (directory / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match="pickle such as adapter_model.bin"):
        read(directory, "bert")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            adapt.LoRA(rank=1) + adapt.IA3(),
            "one of lora, adalora, ia3 and prefix",
        ),
        (adapt.Bottleneck(), "not bottleneck"),
        (adapt.Prefix(), "shift_positions: peft counts the positions"),
        (
            adapt.IA3(targets=("down",), input_targets=("down",)),
            "peft scales either outputs or inputs of encoder.layer.0.output.dense",
        ),
    ],
)
def test_what_peft_cannot_hold_is_refused(config, message, tmp_path):
    model, params, transformer = task_model("bert")
    trainable, _, _ = adapt.apply(params, config, model)
    with pytest.raises(InputError, match=message):
        save_peft(
            tmp_path / "out",
            trainable,
            config,
            params,
            family="bert",
            transformer=transformer,
            purpose="SequenceClassification",
        )
    assert not list(tmp_path.iterdir())
