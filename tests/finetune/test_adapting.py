"""Fine-tuning of few parameters, from files to files."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ffnlab import adapt, finetune, io
from ffnlab.errors import InputError
from ffnlab.finetune import adapting, predict_files, work
from ffnlab.finetune.finetuned_model import read_adapter, read_finetuned
from ffnlab.finetune.predict_files import PredictConfig
from ffnlab.finetune.runner import run
from tests.finetune.fake import make_config
from tests.tuned import config

SENTENCES = ["w1 w2 w3", "w7 w20 w14 w4"]


def probabilities(model):
    pipe = predict_files_pipeline(model)
    return np.concatenate([each.probability for each in pipe.tags(SENTENCES)])


def predict_files_pipeline(model):
    from ffnlab.finetune.predictor import Pipeline

    return Pipeline(model)


@pytest.fixture(scope="module")
def low_rank(bert, files, tmp_path_factory):
    """A tagger of LoRA with biases, two runs together."""
    out = tmp_path_factory.mktemp("runs") / "lora"
    options = {"method": "lora+bitfit", "rank": 4, "alpha": 16.0, "seeds": 2}
    options |= {"learning_rate": 2e-2, "target_modules": ("query", "value", "ffn")}
    return run(config(bert, files, "tag", out, ".conll", **options))


@pytest.fixture(scope="module")
def bottleneck(bert, files, tmp_path_factory):
    """A tagger with adapters that cannot be merged."""
    out = tmp_path_factory.mktemp("runs") / "houlsby"
    options = {"method": "houlsby", "bottleneck_width": 16, "learning_rate": 1e-2}
    return run(config(bert, files, "tag", out, ".conll", **options))


def test_they_learn_and_say_what_was_trained(low_rank, bottleneck):
    assert min(each["f1"] for each in low_rank.scores["test"]) > 0.5
    assert min(each["f1"] for each in bottleneck.scores["test"]) > 0.3
    for result, name in ((low_rank, "lora+bitfit"), (bottleneck, "houlsby")):
        text = (result.out / "report.md").read_text()
        size = adapting.size(result.out / "adapter")
        assert f"Method {name}: " in text and "parameters train (" in text
        assert f"adapter/ has {size:,} bytes" in text


def test_the_share_is_one_of_all_that_is_saved(low_rank):
    """With the embeddings of tokens that do not occur, which do not train."""
    saved = load_file(low_rank.out / "best" / "model.safetensors")
    adapter = load_file(low_rank.out / "adapter" / "adapter.safetensors")
    added = [array for path, array in adapter.items() if "/lora/" in path]
    total = sum(array.size for array in [*saved.values(), *added])
    text = (low_rank.out / "report.md").read_text()
    assert f" of {total:,} parameters train" in text


def test_the_base_is_bitwise_what_it_was(low_rank, bert):
    """But for what trains: merged kernels of query and value, biases and the head."""
    base = load_file(f"{bert}/model.safetensors")
    tuned = load_file(low_rank.out / "best" / "model.safetensors")
    same = {k: np.array_equal(base[k], tuned[k]) for k in base.keys() & tuned.keys()}
    trained = ("query", "value", "intermediate.dense", "output.dense", "pooler")
    kept = {k for k in same if k.endswith(".weight")}
    kept -= {k for k in kept if any(name in k for name in trained)}
    kept |= {k for k in same if k.endswith("attention.output.dense.weight")}
    assert len(kept) > 5 and all(same[k] for k in kept)
    assert not any(same[k] for k in same if "query.weight" in k or "value.weight" in k)


@pytest.mark.parametrize("name", ["low_rank", "bottleneck"])
def test_best_and_the_adapter_alone_predict_the_same(name, bert, request):
    result = request.getfixturevalue(name)
    best = probabilities(read_finetuned(result.out))
    alone = probabilities(read_adapter(result.out / "adapter", bert))
    np.testing.assert_allclose(best, alone, rtol=2e-5)
    piped = finetune.pipeline(result.out / "adapter").tags(SENTENCES)
    found = np.concatenate([each.probability for each in piped])
    np.testing.assert_allclose(found, alone, rtol=1e-6)
    assert (result.out / "best" / "adapter").is_dir() == (name == "bottleneck")


def test_predictions_by_an_adapter_on_a_file(bottleneck, bert, tmp_path):
    given, first, second = (tmp_path / name for name in ("in.txt", "a", "b"))
    given.write_text("\n".join(SENTENCES) + "\n")
    common = {"input": str(given), "probabilities": True}
    best = PredictConfig(run=str(bottleneck.out), output=str(first), **common)
    adapter = {"adapter": str(bottleneck.out / "adapter"), "checkpoint": bert}
    alone = PredictConfig(**adapter, output=str(second), **common)
    assert predict_files.predict(best) == predict_files.predict(alone) == 2
    assert first.read_text() == second.read_text()


def test_a_base_without_a_pooler_gets_that_of_its_adapter(bert, files, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(bert, base)
    arrays = load_file(f"{bert}/model.safetensors")
    kept = {name: array for name, array in arrays.items() if "pooler" not in name}
    assert len(kept) < len(arrays)
    save_file(kept, base / "model.safetensors", {"format": "pt"})
    options = {"method": "lora", "rank": 2, "epochs": 1.0}
    options |= {"text_column": "2", "label_column": "1"}
    result = run(
        config(str(base), files, "classify", tmp_path / "out", ".tsv", **options)
    )
    best = finetune.pipeline(result.out)(SENTENCES)
    alone = finetune.pipeline(result.out / "adapter")(SENTENCES)
    assert [each.text for each in best] == [each.text for each in alone]
    np.testing.assert_allclose(
        [each.probability for each in best],
        [each.probability for each in alone],
        rtol=1e-5,
    )


def test_an_adapter_of_another_base_is_refused(bottleneck, two_layers, tmp_path):
    folder = bottleneck.out / "adapter"
    with pytest.raises(InputError, match="the adapter is of another base"):
        read_adapter(folder, two_layers)
    with pytest.raises(InputError, match="^checkpoint: .* holds no checkpoint"):
        read_adapter(folder, tmp_path)
    with pytest.raises(InputError, match=r"adapter.json: not found"):
        read_adapter(tmp_path)
    with pytest.raises(InputError, match="^run and adapter: give the directory of one"):
        PredictConfig(run="a", adapter="b")
    with pytest.raises(InputError, match="^checkpoint: it is the base of adapter"):
        PredictConfig(run="a", checkpoint="b")


class Stopped(Exception):
    """Stands for a kill after an evaluation."""


@pytest.mark.parametrize("method", ["adalora"])
def test_a_run_that_was_killed_resumes_bit_for_bit(
    method, bert, files, tmp_path, monkeypatch
):
    """One seed, by AdaLoRA: moments, importance and mask are part of the state."""
    options = {"method": method, "rank": 4, "target_rank": 2, "epochs": 6.0}
    options |= {"evaluations": 3}

    def given(name, **more):
        return config(bert, files, "tag", tmp_path / name, ".conll", **options, **more)

    once = work.Checkpoints
    monkeypatch.setattr(work, "Checkpoints", lambda path, **_: once(path))
    run(given("whole"))
    report = work.progress_callback

    def stop_after_one(*arguments):
        def call(record):
            report(*arguments)(record)
            raise Stopped

        return call

    with monkeypatch.context() as patch:
        patch.setattr(work, "progress_callback", stop_after_one)
        with pytest.raises(Stopped):
            run(given("cut"))
    run(given("cut", resume=True))
    whole, cut = (load_file(tmp_path / n / "adapter" / "adapter.safetensors")
                  for n in ("whole", "cut"))  # fmt: skip
    assert whole.keys() == cut.keys()
    assert all(np.array_equal(whole[name], cut[name]) for name in whole)
    lines = [io.read_lines(tmp_path / n / "results.jsonl")[0] for n in ("whole", "cut")]
    assert [each.pop("seconds_per_step") for each in lines]
    assert lines[0] == lines[1]


def test_adalora_ends_at_its_budget():
    """Whatever the optimizer does to what was pruned."""
    import optax

    from ffnlab.adapt import adalora

    method = adapt.AdaLoRA(
        rank=4, target_rank=2, total_steps=12, interval=2, warmup_steps=2, final_steps=4
    )
    rng = np.random.default_rng(0)
    shapes = {"p": (6, 4), "lambda": (4,), "q": (4, 5)}
    trainable = {
        f"layer_{n}": {"adalora": {k: rng.normal(size=s) for k, s in shapes.items()}}
        for n in range(3)
    }
    trainable = jax.tree.map(lambda leaf: leaf.astype("f4"), trainable)
    optimizer = adalora.pruned(optax.adam(0.05), method)
    state = optimizer.init(trainable)

    @jax.jit
    def step(state, trainable, grads):
        updates, state = optimizer.update(grads, state, trainable)
        return state, optax.apply_updates(trainable, updates)

    counts = []
    for number in range(12):
        grads = jax.tree.map(lambda x: np.cos(x + number).astype("f4"), trainable)  # noqa: B023
        state, trainable = step(state, trainable, grads)
        counts.append(sum(adalora.ranks(trainable).values()))
    assert counts[0] == 12 and counts[-5:] == [6] * 5
    assert int(state.pruning.mask.sum()) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "lroa"}, "method: unknown 'lroa'; nearest: lora"),
        ({"method": "lora", "rank": 0}, "rank: 0 must be at least 1"),
        ({"rank": 4}, "rank: method=full has no such value"),
        ({"method": "bitfit", "rank": 4}, "rank: the method bitfit has no such field"),
        ({"method": "full+lora"}, "method: full trains everything; give it alone"),
        ({"method": "lora+lora"}, "method: lora occurs twice; give it once"),
        ({"method": "lora", "lora_dropout": 1.5}, "lora_dropout: 1.5 must be in"),
        ({"method": "houlsby", "bottleneck_block": "swigul"}, "bottleneck_block: unk"),
        ({"method": "adalora", "target_rank": 20}, "target_rank: 20 must be at most"),
        ({"method": "lora", "freeze": ("encoder",)}, "freeze: it needs method=full"),
        ({"method": "lora", "layer_decay": 0.9}, "layer_decay: it needs method=full"),
        ({"method": "top", "top_layers": 0}, "top_layers: 0 must be at least 1"),
    ],
)
def test_wrong_flags_are_refused(options, message):
    with pytest.raises(InputError, match=f"^{message}"):
        make_config(**options)


def test_what_the_model_lacks_is_refused(bert, files, tmp_path):
    refused = [
        ({"method": "lora", "rank": 1000}, "rank: 1000 must be at most"),
        ({"method": "lora", "target_modules": ("qurey",)}, "target_modules: unknown"),
        ({"method": "top", "top_layers": 9}, "top_layers: 9 must be at most"),
    ]
    for options, message in refused:
        given = config(bert, files, "tag", tmp_path / "run", ".conll", **options)
        with pytest.raises(InputError, match=f"^{message}"):
            run(given)
    assert not (tmp_path / "run").exists()


def test_each_method_has_a_common_rate():
    rates = {
        name: make_config(method=name).learning_rate
        for name in ("full", "lora", "lora+prefix", "top", "bitfit")
    }
    assert rates == {
        "full": 5e-5, "lora": 5e-4, "lora+prefix": 5e-3, "top": 5e-5, "bitfit": 1e-3,
    }  # fmt: skip
    assert make_config(method="lora", learning_rate=1e-2).learning_rate == 1e-2


def test_the_settings_name_the_base(low_rank, bert):
    settings = json.loads((low_rank.out / "adapter" / "adapter.json").read_text())
    assert settings["about"]["checkpoint"] == bert
    assert [each["method"] for each in settings["methods"]] == ["lora", "bitfit"]
