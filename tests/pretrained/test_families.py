"""What sets one family of checkpoints apart from another."""

import dataclasses
import json

import chex
import pytest

from ffnlab import io
from ffnlab.errors import InputError
from ffnlab.models.layer_stack import stack_layers
from ffnlab.models.transformer import DecoderConfig, EncoderConfig, transformer_model
from ffnlab.pretrained import checkpoint
from ffnlab.pretrained.config_json import read_config
from tests import oracles
from tests.pretrained.test_checkpoint import HERE, copied, loaded


def test_heads_of_roberta_and_electra_have_gelu_whatever_config_json_says(tmp_path):
    """The stored XLM-RoBERTa and ELECTRA have relu blocks; so may a RoBERTa."""
    directory = copied("roberta", tmp_path, settings={"hidden_act": "relu"})
    for config in (
        checkpoint.load(directory).config,
        loaded("xlm-roberta").config,
        loaded("electra").config,
    ):
        assert (config.blocks[0], config.head_activation) == ("mlp:relu", "gelu")
    config = dataclasses.replace(loaded("roberta").config, head_activation="relu")
    with pytest.raises(InputError, match="cannot hold head_function"):
        checkpoint.save(tmp_path / "out", config, {}, family="roberta")
    changed = dataclasses.replace(loaded("bert").config, head_activation="relu")
    assert checkpoint.family_of(changed) == "ffnlab"


def test_an_electra_with_embeddings_of_the_model_width():
    settings = json.loads((HERE / "electra" / "config.json").read_text())
    assert loaded("electra").config.embedding == 10
    for change, expected in (({"embedding_size": 12}, None), ({}, 10)):
        _, fields = read_config("config.json", {**settings, **change})
        assert fields["embedding"] == expected
    del settings["embedding_size"]  # as transformers, where it is left out
    assert read_config("config.json", settings)[1]["embedding"] == 128


def test_our_own_files_from_before_a_field_are_read(tmp_path):
    """What a later version added is left out where it is None, and may be missing."""
    config = DecoderConfig.tiny(positions="rotary")
    params = oracles.random_params(transformer_model(config))
    checkpoint.save(tmp_path / "own", config, params, family="ffnlab")
    settings = json.loads((tmp_path / "own" / "config.json").read_text())
    assert {"embedding", "head_activation"}.isdisjoint(settings)
    narrow = EncoderConfig.tiny(
        block="swiglu", embedding=8, head="tied", head_activation="gelu"
    )
    params = oracles.random_params(transformer_model(narrow))
    checkpoint.save(tmp_path / "narrow", narrow, params, family="ffnlab")
    found = checkpoint.load(tmp_path / "narrow")
    assert dataclasses.asdict(found.config) == dataclasses.asdict(narrow)
    chex.assert_trees_all_equal(found.params, params)


def test_the_family_of_a_model():
    decoders = {"gpt2": {}, "ffnlab": {"positions": "rotary"}}
    encoders = {
        "roberta": {"offset": 2, "types": 1, "epsilon": 1e-12},
        "electra": {"embedding": 8},
    }
    for family, options in encoders.items():
        assert checkpoint.family_of(EncoderConfig.tiny(**options)) == family
    for family, options in decoders.items():
        assert checkpoint.family_of(DecoderConfig.tiny(**options)) == family
    assert checkpoint.family_of(EncoderConfig.tiny()) == "bert"
    assert checkpoint.family_of(EncoderConfig.tiny(block="swiglu")) == "ffnlab"


def test_stacked_layers_are_read_from_and_saved_as_layers(tmp_path):
    plain = checkpoint.load(HERE / "bert")
    stack = checkpoint.load(HERE / "bert", scan=True)
    assert stack.config == dataclasses.replace(plain.config, scan=True)
    chex.assert_trees_all_equal(stack.params, stack_layers(plain.params))
    for name, each in (("plain", plain), ("stack", stack)):
        checkpoint.save(tmp_path / name, each.config, each.params, like=plain)
    for name in ("model.safetensors", "config.json"):
        written = [(tmp_path / each / name).read_bytes() for each in ("plain", "stack")]
        assert written[0] == written[1]
    own = tmp_path / "own"
    checkpoint.save(own, stack.config, stack.params, family="ffnlab")
    chex.assert_trees_all_equal(checkpoint.load(own).params, stack.params)
    found = checkpoint.load(own, scan=False)
    assert not found.config.scan
    chex.assert_trees_all_equal(found.params, plain.params)


def test_our_own_family_represents_any_model(tmp_path):
    config = DecoderConfig.tiny(block=("swiglu", "mlp:relu"), positions="rotary")
    params = oracles.random_params(transformer_model(config))
    checkpoint.save(tmp_path / "own", config, params, family="ffnlab")
    found = checkpoint.load(tmp_path / "own")
    assert (found.family, found.summary.initialised) == ("ffnlab", [])
    assert dataclasses.asdict(found.config) == dataclasses.asdict(config)
    chex.assert_trees_all_equal(found.params, params)
    bare = checkpoint.load(tmp_path / "own", head=False)
    assert bare.config.head == "none" and "head" not in bare.params
    settings = json.loads((tmp_path / "own" / "config.json").read_text())
    for change, message in (({"features": "x"}, "config.json"), ({"layers": 3}, "3")):
        text = json.dumps({**settings, **change})
        io.write(tmp_path / "own" / "config.json", text)
        with pytest.raises(InputError, match=message):
            checkpoint.load(tmp_path / "own")
