import json

import chex
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ffnlab import adapt, trees
from ffnlab.adapt.method_names import CLASSES, from_json, to_json
from ffnlab.errors import InputError
from tests.adapt.small import X, build, moved

CONFIG = adapt.LoRA(rank=2, dora=True, targets=("all",)) + adapt.Prefix(
    virtual_tokens=2, projection=3
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model, params = build("bert")
    trainable, frozen, apply = adapt.apply(params, CONFIG, model)
    trainable = moved(trainable)
    directory = tmp_path_factory.mktemp("saved") / "adapter"
    adapt.save(directory, trainable, CONFIG, params, about={"labels": ["a", "b", "c"]})
    return directory, trainable, frozen, apply, params


def test_an_adapter_is_loaded_as_it_was_saved(saved):
    directory, trainable, frozen, apply, params = saved
    shapes = jax.eval_shape(lambda: params)  # the base is not read
    loaded = adapt.load(directory, shapes)
    chex.assert_trees_all_equal(loaded.trainable, trainable)
    assert loaded.config == CONFIG and loaded.about == {"labels": ["a", "b", "c"]}
    assert {path.name for path in directory.iterdir()} == {
        "adapter.json",
        "adapter.safetensors",
        "manifest.sha256",
    }
    size = (directory / "adapter.safetensors").stat().st_size
    assert size < adapt.summary(trainable, frozen).bytes + 100 * 60
    with pytest.raises(InputError, match="exists already; choose another directory"):
        adapt.save(directory, trainable, CONFIG, params)


def test_an_adapter_of_another_base_is_refused(saved):
    directory, _, _, _, params = saved
    _, other = build("roberta")
    with pytest.raises(InputError, match="the adapter is of another base: names or sh"):
        adapt.load(directory, other)
    bare = {**params, "encoder": {**params["encoder"]}}
    del bare["encoder"]["pooler"], bare["head"]
    assert adapt.base_digest(bare) == adapt.base_digest(params)
    assert adapt.base_digest(bare["encoder"]) == adapt.base_digest(params)


@pytest.mark.parametrize("kind", CLASSES)
def test_configurations_survive_json(kind):
    config = kind(total_steps=50) if kind is adapt.AdaLoRA else kind()
    assert from_json(json.loads(json.dumps(to_json(config)))) == (config,)


WRONG = (True, "x", [[]], {"a": 1}, -1, 1.5, 10**30, float("nan"), float("inf"))


@pytest.mark.parametrize("kind", CLASSES)
def test_fields_of_methods_are_of_their_types(kind):
    """What is read has the type of its field; anything else is one line."""
    config = kind(total_steps=50) if kind is adapt.AdaLoRA else kind()
    (row,) = json.loads(json.dumps(to_json(config)))
    for name in row:
        for value in WRONG:
            try:
                (method,) = from_json([{**row, name: value}])
            except InputError as error:
                assert "\n" not in str(error)
            else:
                old, new = type(getattr(config, name)), type(getattr(method, name))
                assert new is old or {old, new} <= {int, float, type(None)}


ROOT = "encoder/layer_0/attention/query"


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (None, {"format": 7}, "adapter.json: format 7 is unknown, only 1 can be"),
        (None, {"methods": [{"method": "lorra"}]}, "adapter.json: method: unknown 'lo"),
        (
            None,
            {"methods": [{"method": "lora", "rnk": 1}]},
            "of lora: unknown 'rnk'",
        ),
        (
            None,
            {"methods": [{"method": "lora", "rank": "x"}]},
            'lora: rank: should be a whole number, not "x"',
        ),
        (
            None,
            {"methods": [{"method": "lora", "rank": 0}]},
            "rank: 0 must be at",
        ),
        (None, {"methods": ["lora"]}, '"lora" is no object with fields'),
        (
            None,
            {"methods": [{"method": "lora"}]},
            "is of prefix, no method",
        ),
        (
            {f"{ROOT}/lora/a": np.ones((2, 2), int)},
            None,
            "is int64, not floating",
        ),
        (
            {"encoder/layer_9/ffn/up/lora/a": np.ones((2, 2))},
            None,
            "that the model l",
        ),
        ({"encoder/layer_9/bias": np.ones(2)}, None, "is no array of the model"),
        (
            {"head/out/bias": np.ones(4)},
            None,
            r"has the shape \[4\], the model's is",
        ),
    ],
)
def test_what_does_not_fit_is_named(change, settings, message, saved, tmp_path):
    directory, *_, params = saved
    tensors = load_file(directory / "adapter.safetensors") | (change or {})
    save_file(tensors, tmp_path / "adapter.safetensors")
    text = json.loads((directory / "adapter.json").read_text()) | (settings or {})
    (tmp_path / "adapter.json").write_text(json.dumps(text))
    with pytest.raises(InputError, match=message) as caught:
        adapt.load(tmp_path, params)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="adapter.json: not found; an adapter has it"):
        adapt.load(tmp_path, {})


def test_a_folded_prefix_is_the_same_model(saved):
    _, trainable, frozen, apply, _ = saved
    folded, config = adapt.fold(trainable, CONFIG)
    assert config[1].projection == 0
    assert set(folded["encoder"]["prefix"]) == {"key", "value"}
    model, params = build("bert")
    _, _, apply_folded = adapt.apply(params, config, model)
    both = jax.jit(
        lambda one, two: (apply(one, frozen, X)[0], apply_folded(two, frozen, X)[0])
    )(trainable, folded)
    chex.assert_trees_all_close(*both, rtol=1e-5, atol=1e-6)
    assert trees.count(folded["encoder"]["prefix"]) == 2 * 2 * 2 * 12
    with pytest.raises(InputError, match="no prefix with a projection to fold"):
        adapt.fold(folded, config)
