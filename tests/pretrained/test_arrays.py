"""Which arrays of a checkpoint are taken, and what is wrong with the others."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab import io
from ffnlab.errors import InputError
from ffnlab.models.transformer import DecoderConfig, transformer_model
from ffnlab.pretrained import checkpoint
from ffnlab.pretrained.conversion import FAMILIES
from tests import oracles
from tests.pretrained.test_checkpoint import HERE, copied, loaded


def old_names(tensors):
    """No prefix, gamma and beta, a buffer, copies of the tied arrays, no pooler."""
    found = {}
    for name, array in tensors.items():
        name = name.removeprefix("bert.")
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        found[name.replace("LayerNorm.bias", "LayerNorm.beta")] = array
    del found["pooler.dense.weight"], found["pooler.dense.bias"]
    found["embeddings.position_ids"] = np.arange(16)[None]
    found["cls.predictions.decoder.weight"] = found["embeddings.word_embeddings.weight"]
    found["cls.predictions.decoder.bias"] = found["cls.predictions.bias"]
    return found


def test_old_names_buffers_and_copies(tmp_path):
    found = checkpoint.load(copied("bert", tmp_path, old_names))
    new = checkpoint.load(HERE / "bert", pooler=False)
    chex.assert_trees_all_equal(found.params, new.params)
    assert "embeddings.LayerNorm.gamma" in found.summary.loaded
    assert found.summary.unused == [
        "cls.predictions.decoder.bias",
        "cls.predictions.decoder.weight",
        "cls.seq_relationship.bias",
        "cls.seq_relationship.weight",
        "embeddings.position_ids",
    ]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype, tmp_path):
    def halved(tensors):
        return {k: v.astype(jnp.dtype(dtype)) for k, v in tensors.items()}

    found = checkpoint.load(copied("bert", tmp_path, halved))
    full = loaded("bert")
    chex.assert_trees_all_equal_dtypes(found.params, full.params)
    chex.assert_trees_all_close(found.params, full.params, rtol=1e-2, atol=1e-3)
    kept = checkpoint.load(copied("gpt2", tmp_path, halved), dtype=dtype)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(kept.params)} == {dtype}
    checkpoint.save(
        tmp_path / "out", kept.config, kept.params, like=kept, dtype=jnp.dtype(dtype)
    )
    again = checkpoint.load(tmp_path / "out", dtype=dtype)
    chex.assert_trees_all_equal(again.params, kept.params)


def test_parts_may_be_left_out_or_added():
    plain = checkpoint.load(HERE / "bert", head=False, pooler=False)
    assert {"head", "pooler"}.isdisjoint(plain.params)
    assert "cls.predictions.bias" in plain.summary.unused
    assert "bert.pooler.dense.bias" in plain.summary.unused
    added = checkpoint.load(HERE / "roberta", pooler=True)
    assert added.summary.initialised == ["pooler/bias", "pooler/kernel"]
    other = checkpoint.load(HERE / "roberta", pooler=True, key=jax.random.key(1))
    assert (added.params["pooler"]["kernel"] != other.params["pooler"]["kernel"]).any()
    with pytest.raises(InputError, match="pooler: this family of models has none"):
        checkpoint.load(HERE / "gpt2", pooler=True)
    remat = checkpoint.load(HERE / "bert", remat=True, dropout=0.0)
    assert remat.config.remat and remat.config.dropout == 0.0


def without(name):
    return lambda tensors: {k: v for k, v in tensors.items() if k != name}


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (
            without("bert.embeddings.LayerNorm.bias"),
            None,
            "1 arrays of the model are missing: bert.embeddings.LayerNorm.bias;",
        ),
        (lambda t: {**t, "bert.odd": np.ones(2)}, None, "no part of .* bert.odd"),
        (None, {"hidden_size": 24}, r"word_embeddings.weight has the shape \[31, 12\]"),
        (None, {"num_hidden_layers": 1}, "no part of the model .*layer.1"),
        (None, {"num_hidden_layers": 3}, "num_hidden_layers: should be at most 2, as"),
        (None, {"model_type": "t5"}, "model_type 't5' should be one of bert"),
        (None, {"hidden_act": "xielu"}, "activation 'xielu' should be one of gelu"),
        (None, {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        (None, {"num_attention_heads": 5}, "must be divisible by heads=5"),
        (
            lambda t: {**t, "cls.predictions.decoder.bias": np.ones(31, np.float32)},
            None,
            "decoder.bias differs from cls.predictions.bias",
        ),
    ],
)
def test_what_does_not_fit_is_named(change, settings, message, tmp_path):
    directory = copied("bert", tmp_path, change, settings)
    with pytest.raises(InputError, match=message) as caught:
        checkpoint.load(directory)
    assert "\n" not in str(caught.value)


CRF = {f"crf.{name}": np.ones(2, np.float32) for name in "abcdefg"}


def test_arrays_of_other_modules_are_reported_or_refused(tmp_path):
    directory = copied("bert", tmp_path, lambda t: {**t, **CRF})
    found = checkpoint.load(directory)
    chex.assert_trees_all_equal(found.params, loaded("bert").params)
    assert found.summary.unknown == sorted(CRF) and found.summary.wrapper == ""
    some = "crf.a, crf.b, crf.c, crf.d, crf.e and 2 more"
    assert found.summary.notes == [f"checkpoint: 7 arrays unused: {some}"]
    assert set(CRF) < set(found.summary.unused)
    with pytest.raises(InputError, match=f"^strict: .*7 arrays are of no .*: {some}"):
        checkpoint.load(directory, strict=True)
    checkpoint.load(HERE / "bert", strict=True, head=False)  # known heads are no error


@pytest.mark.parametrize(
    ("name", "outer"), [("bert", "module."), ("electra", "model."), ("gpt2", "a.b.")]
)
def test_a_prefix_of_all_names_is_left_out(name, outer, tmp_path):
    directory = copied(
        name, tmp_path, lambda t: {outer + k: a for k, a in t.items()} | CRF
    )
    found = checkpoint.load(directory)
    chex.assert_trees_all_equal(found.params, loaded(name).params)
    assert found.summary.wrapper == outer
    assert found.summary.notes[0] == f"checkpoint: names are read without {outer}"
    with pytest.raises(InputError, match=f"^strict: .*begin with {outer}"):
        checkpoint.load(directory, strict=True)


def test_missing_parts_are_named():
    found = checkpoint.load(HERE / "roberta", pooler=True)
    assert found.summary.notes == [
        "checkpoint: 2 arrays missing, drawn at random: pooler/bias, pooler/kernel"
    ]


def test_tied_arrays_may_have_the_name_of_the_copy_alone(tmp_path):
    first, second = (
        "lm_head.decoder.weight",
        "roberta.embeddings.word_embeddings.weight",
    )
    directory = copied(
        "roberta",
        tmp_path,
        lambda t: {first if k == second else k: a for k, a in t.items()},
    )
    found = checkpoint.load(directory)
    chex.assert_trees_all_equal(found.params, loaded("roberta").params)
    assert first in found.summary.loaded


def test_the_same_array_twice_is_refused(tmp_path):
    name = "bert.embeddings.LayerNorm.weight"
    directory = copied(
        "bert", tmp_path, lambda t: {**t, name.replace("weight", "gamma"): t[name]}
    )
    with pytest.raises(InputError, match=r"LayerNorm.* and .*LayerNorm.* are the same"):
        checkpoint.load(directory)


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("size", [10**9, 2**31 - 1])
def test_sizes_are_bounded_by_the_arrays(size, scan, tmp_path):
    config = DecoderConfig.tiny(positions="rotary", features=8, heads=2, scan=scan)
    params = oracles.random_params(transformer_model(config))
    checkpoint.save(tmp_path / "own", config, params, family="ffnlab")
    cases = {tmp_path / "own": ("vocabulary", "features", "layers", "hidden")}
    keys = {
        FAMILIES["bert"].fields[name] for name in (*cases[tmp_path / "own"], "length")
    }
    for directory, names in {**cases, copied("bert", tmp_path): keys}.items():
        path = directory / "config.json"
        settings = json.loads(path.read_text())
        for key in names:
            io.write(path, json.dumps({**settings, key: size}))
            with pytest.raises(InputError, match=f"{key}: should be at most .*there"):
                checkpoint.load(directory)


def test_arrays_of_integers_are_no_parameters(tmp_path):
    name = "bert.embeddings.LayerNorm.bias"
    directory = copied("bert", tmp_path, lambda t: {**t, name: np.ones(12, np.int32)})
    with pytest.raises(InputError, match=f"{name} should be of floating-point numbers"):
        checkpoint.load(directory)
