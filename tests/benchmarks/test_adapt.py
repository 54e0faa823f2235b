"""The benchmark runs without torch, and its tables divide the right times."""

import importlib.util
import shutil

import numpy as np
import pytest

from benchmarks import adapt, protocol
from benchmarks.adapt import Config
from benchmarks.protocol import Entry, Work
from ffnlab import trees
from ffnlab.errors import InputError
from tests.adapt.small import HERE

SMALL = {"checkpoint": str(HERE / "bert"), "batch_size": 4}
SMALL |= {"min_seq_length": 2, "max_seq_length": 6}
WORK = Work(lambda _: None)


@pytest.fixture
def without_torch(monkeypatch):
    """No library of the peers is found, and JAX stays as it is."""
    find = importlib.util.find_spec

    def find_others(name):
        return None if name in ("torch", "transformers", "peft") else find(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_others)
    monkeypatch.setattr(protocol, "use_cpu", lambda: None)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_smoke_run_without_torch(without_torch, capsys, dtype):
    methods = ("full", "lora")
    config = Config(**SMALL, methods=methods, rounds=1, steps=1, dtype=dtype)
    (table,) = adapt.run(config)
    assert [row[0] for row in table.rows] == ["full", "lora"]
    assert float(table.rows[1][2]) > 0 and table.rows[0][2:] == [""] * 4
    assert "torch is not installed" in capsys.readouterr().out


def test_setup_holds_the_tokens_that_occur_and_writes_the_rest(tmp_path):
    setup = adapt.make_setup(Config(**SMALL, vocab_ids=7), tmp_path)
    table = trees.flatten(setup.params)["encoder/embed/tokens/embedding"]
    whole = trees.flatten(setup.checkpoint.params)["embed/tokens/embedding"]
    np.testing.assert_array_equal(table, whole[setup.vocab_ids])
    tokens = setup.arrays["x/tokens"][setup.arrays["x/mask"]]
    assert table.shape[0] == 7 and tokens.max() < 7
    padded = setup.tokens[setup.tokens >= 0]
    np.testing.assert_array_equal(np.sort(setup.vocab_ids[tokens]), np.sort(padded))
    start = adapt.pretrained.load(tmp_path / "start", head=False)
    np.testing.assert_array_equal(
        trees.flatten(start.params)["embed/tokens/embedding"], whole
    )


def test_lengths_of_texts_are_those_of_sentences_of_a_file(tmp_path):
    directory = shutil.copytree(HERE / "bert", tmp_path / "bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    (directory / "vocab.txt").write_text("\n".join(words))
    path = tmp_path / "a.conll"
    path.write_text("a O\n\na O\nb O\n\n")
    changed = {"checkpoint": str(directory), "conll": str(path), "batch_size": 2}
    config = Config(**SMALL | changed)
    setup = adapt.make_setup(config, tmp_path)
    lengths = (setup.tokens >= 0).sum(1)
    assert sorted(lengths - 2) == [1, 2]  # beside the special tokens


def test_each_peer_is_compared_at_its_best_setting():
    entries = [
        Entry("ffnlab, lora", "one scan", WORK),
        Entry("peer, lora", "peft, 1 threads", WORK),
        Entry("peer, lora", "peft, 2 threads", WORK),
        Entry("ffnlab, head", "one scan", WORK),
        Entry("ffnlab, full", "one scan", WORK),
    ]
    times = np.array([[2.0, 8.0, 4.0, 3.0, 4.0], [1.0, 8.0, 2.0, 6.0, 8.0]])
    config = Config(methods=("full", "lora", "head"), rounds=2)
    (row,) = adapt.beside_peers(config, entries, times).rows
    assert row[:2] == ["lora", "peft, 2 threads"]
    assert row[4:] == ["0.50", "0.50–0.50", "0.50–0.50", "ahead", "≤ 0.6 met"]
    rows = adapt.beside_full(config, entries, times).rows
    assert [row[2] for row in rows] == ["", "0.31", "0.75"]
    assert [row[5] for row in rows] == ["", "≤ 1 met", "≤ 0.7 not met"]


def test_wrong_flags_are_refused():
    with pytest.raises(InputError, match="^method: unknown 'lore'; nearest: lora"):
        Config(methods=("lore",))
    with pytest.raises(InputError, match="^min_seq_length: 33 must be at most max_seq"):
        Config(min_seq_length=33)
