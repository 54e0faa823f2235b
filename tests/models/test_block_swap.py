"""Swapped blocks: what is kept exactly, what is approximated, and bad input."""

import dataclasses
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from ffnlab import io
from ffnlab.data.packing import pack_sequences, pad_sequences
from ffnlab.errors import InputError
from ffnlab.models import block_distillation, block_swap
from ffnlab.models.transformer import EncoderConfig, transformer_model
from ffnlab.pretrain import swap_experiment
from ffnlab.pretrain.swap_experiment import SwapConfig, swap_blocks
from ffnlab.train.checkpoint import Checkpoints
from tests import oracles
from tests.conftest import check_refused

CONFIG = EncoderConfig(vocabulary=31, features=8, layers=2, heads=2, hidden=12)
HERE = Path(__file__).parents[1] / "checkpoints"


@pytest.fixture(scope="module")
def old():
    rng = np.random.default_rng(0)
    params = oracles.random_params(transformer_model(CONFIG), 0.3)
    tokens = [rng.integers(0, 31, n) for n in rng.integers(3, 12, 200)]
    return params, tokens, pack_sequences([len(row) for row in tokens], 24, 8)


@pytest.fixture(scope="module")
def recorded(old):
    """The inputs and outputs of the old blocks."""
    return block_swap.record_layers(CONFIG, *old)


@pytest.fixture
def swap_block(old, recorded):
    """`swap_block` of the old model, whose blocks are recorded only once."""
    params, tokens, layouts = old

    def swap(block, **options):
        return block_swap.swap_block(
            CONFIG, params, block, tokens, layouts, recorded=recorded, **options
        )

    return swap


def test_inputs_and_outputs_of_blocks_are_recorded(old, recorded):
    """The same in any layout; the block makes the outputs of the inputs."""
    params, tokens, _ = old
    inputs, outputs = recorded
    assert inputs.shape == outputs.shape == (2, sum(map(len, tokens)), 8)
    block = CONFIG.feed_forward(0)
    for layer in (0, 1):
        error = block_distillation.relative_error(
            block, params[f"layer_{layer}"]["ffn"], inputs[layer], outputs[layer]
        )
        assert error < 1e-10
    other = pad_sequences([len(row) for row in tokens], 12, 8)
    plain, _ = block_swap.record_layers(CONFIG, params, tokens, other)
    order = [np.argsort(part[0, :, 0]) for part in (inputs, plain)]
    chex.assert_trees_all_close(
        inputs[:, order[0]][0], plain[:, order[1]][0], atol=1e-4
    )


def test_the_same_block_is_the_same_model(old, swap_block):
    """Least squares over all old neurons finds the old down projection."""
    config, new, records = swap_block("mlp:gelu", steps=0)
    assert config == CONFIG
    assert max(record.initial_error for record in records) < 1e-4
    assert all(record.trained_error == record.initial_error for record in records)
    apply, x = jax.jit(transformer_model(CONFIG).apply), np.arange(12)[None]
    before, after = (apply(params, x)[0] for params in (old[0], new))
    chex.assert_trees_all_close(before, after, atol=0.05)


def test_the_head_keeps_its_activation():
    """It was trained with that of the old blocks."""
    with_head = dataclasses.replace(CONFIG, head="tied", block="mlp:relu")
    change = block_swap._with_head_activation
    assert change(with_head, "relu").head_activation == "relu"
    assert change(with_head, "own").head_activation is None
    assert change(CONFIG, "relu") == CONFIG
    kept = dataclasses.replace(with_head, head_activation="gelu")
    assert change(kept, "relu") == kept
    swapped = dataclasses.replace(change(with_head, "relu"), block="swiglu")
    assert swapped.head_function == with_head.head_function


def test_a_gate_starts_as_the_old_neurons(old, swap_block):
    """With a linear half of 1, a gate of gelu is the plain block of gelu."""
    params = old[0]
    config, new, records = swap_block("geglu", hidden=12, steps=0)
    assert config.block == "geglu" and config.hidden == 12
    assert max(record.initial_error for record in records) < 1e-4
    ffn = new["layer_1"]["ffn"]
    assert set(np.unique(ffn["up"]["kernel"])) == {0.0}
    assert sorted(ffn["gate"]["bias"]) == sorted(params["layer_1"]["ffn"]["up"]["bias"])


@pytest.mark.parametrize("block", ["swiglu", "mlp:tanh"])
def test_training_reduces_the_error(old, swap_block, block):
    params = old[0]
    config, new, records = swap_block(block, steps=400, learning_rate=1e-2)
    for record in records:
        assert record.trained_error < 0.7 * record.initial_error < 0.7
    shapes = jax.eval_shape(transformer_model(config).init, jax.random.key(0))
    chex.assert_trees_all_equal_shapes(new, shapes)
    for part in ("attention", "attention_norm", "ffn_norm"):  # the rest is as it was
        chex.assert_trees_all_equal(new["layer_0"][part], params["layer_0"][part])
    parameters = [c.feed_forward(0).parameters for c in (config, CONFIG)]
    assert abs(parameters[0] / parameters[1] - 1) < 0.1


def test_blocks_that_cannot_be_swapped(old):
    params, tokens, layouts = old
    for config in (
        EncoderConfig.tiny(block="swiglu"),
        EncoderConfig.tiny(block=("mlp:gelu", "mlp:relu")),
    ):
        with pytest.raises(InputError, match="cannot be swapped; all layers need"):
            block_swap.swap_block(config, params, "mlp", tokens, layouts)
    for options in ({"bias": False}, {"scan": True}):
        with pytest.raises(InputError, match="needs bias=True and scan=False"):
            block_swap.swap_block(
                EncoderConfig.tiny(**options), params, "mlp", tokens, layouts
            )
    few = [tokens[0][:3]]
    with pytest.raises(InputError, match="3 tokens are too few"):
        block_swap.swap_block(CONFIG, params, "mlp", few, pack_sequences([3], 4, 1))


class Killed(BaseException):
    """What ends a run as a signal would."""


def test_a_swap_that_was_killed_resumes_bit_for_bit(swap_block, tmp_path):
    """Killed in the training of a layer, after a layer, and in the next one."""
    whole, reached = swap_block("swiglu", steps=70, learning_rate=1e-2), []

    def on_steps(done):
        reached.append(done)
        if len(reached) in (1, 3, 4):
            raise Killed

    options = {"checkpoints": Checkpoints(tmp_path / "saved"), "on_steps": on_steps}
    for _ in range(3):
        with pytest.raises(Killed):
            swap_block("swiglu", steps=70, learning_rate=1e-2, **options)
    resumed = swap_block("swiglu", steps=70, learning_rate=1e-2, **options)
    assert reached == [50, 70, 71, 121, 141, 142]
    assert resumed[0] == whole[0] and resumed[2] == whole[2]
    chex.assert_trees_all_equal(resumed[1], whole[1])


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """What swaps the blocks of the small BERT, given a vocabulary and lines."""
    folder = tmp_path_factory.mktemp("swap")
    directory = folder / "bert"
    directory.mkdir()
    for name in ("config.json", "model.safetensors"):
        (directory / name).write_bytes((HERE / "bert" / name).read_bytes())
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = special + [f"w{n}" for n in range(26)]
    (directory / "vocab.txt").write_text("\n".join(words))
    rng = np.random.default_rng(0)
    lines = [" ".join(f"w{n}" for n in rng.integers(0, 26, 9)) for _ in range(60)]
    (folder / "lines.txt").write_text("\n".join(lines) + "\n\n")
    return SwapConfig(
        str(directory),
        str(folder / "lines.txt"),
        ("swiglu", "mlp:gelu"),
        max_seq_length=14,
        steps=50,
        out=str(folder / "whole"),
    )


@pytest.fixture(scope="module")
def result(config):
    """The result of the experiment."""
    return swap_blocks(config)


def test_the_experiment(result, config, tmp_path):
    swiglu, same = result.runs
    assert same["states"] < 1e-4 < swiglu["states"] < 0.1
    assert same["cosine"] > 0.99 and len(swiglu["trained"]) == 2
    before, after = same["loss"]
    assert after == pytest.approx(before, abs=1e-3)
    assert abs(swiglu["loss"][1] - before) > 1e-6 and swiglu["loss"][0] == before
    assert result.table.columns[-2:] == ["loss before", "loss after"]
    report = (result.out / "report.md").read_text()
    assert "# What does it cost to change the block of bert?" in report
    short = tmp_path / "short.txt"
    short.write_text("one\n")
    with pytest.raises(InputError, match="short.txt: 1 lines of text"):
        swap_blocks(SwapConfig(config.checkpoint, str(short), out=str(tmp_path / "p")))
    assert not (tmp_path / "p").exists()


def test_an_experiment_that_was_killed_goes_on(result, config, tmp_path, monkeypatch):
    """In its second block, and again in its report."""
    lines = tmp_path / "lines.txt"
    lines.write_bytes(Path(config.text).read_bytes())
    killed = tmp_path / "killed"
    config = dataclasses.replace(config, text=str(lines), out=str(killed))
    swap_block, swapped = block_swap.swap_block, []

    def fail_at_the_second(old, params, block, *args, **options):
        swapped.append(block)
        if len(swapped) == 2:
            raise Killed
        return swap_block(old, params, block, *args, **options)

    monkeypatch.setattr(block_swap, "swap_block", fail_at_the_second)
    with pytest.raises(Killed):
        swap_blocks(config)
    (line,) = io.read_lines(killed / "results.jsonl")
    assert line["block"] == "swiglu"
    resume = dataclasses.replace(config, resume=True)
    with monkeypatch.context() as patch:
        patch.setattr(swap_experiment, "_report", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            swap_blocks(resume)
    assert swapped == ["swiglu", "mlp:gelu", "mlp:gelu"]
    assert swap_blocks(resume).runs == result.runs and len(swapped) == 3
    for name in ("results.jsonl", "report.md"):
        assert (killed / name).read_text() == (result.out / name).read_text()
    with pytest.raises(InputError, match="is finished"):
        swap_blocks(resume)
    (killed / "report.md").unlink()
    lines.write_text(lines.read_text() + "w1 w2\n")
    with pytest.raises(InputError, match="the data has changed since"):
        swap_blocks(resume)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--text=x"], "--checkpoint: is needed"),
        (["--checkpoint=x"], "--text: is needed"),
        (["--checkpoint=x", "--text=x", "--blocks=swiglo"], "nearest: swiglu"),
        (["--checkpoint=x", "--text=x", "--hidden=0"], "--hidden: 0 should be"),
    ],
)
def test_wrong_flags_are_refused_before_jax(flags, message, tmp_path):
    check_refused("exchange", flags, message, tmp_path)
