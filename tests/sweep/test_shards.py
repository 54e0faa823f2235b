"""A part of the replicates: which they are, and what a shard refuses."""

import numpy as np
import pytest

from ffnlab.errors import InputError
from ffnlab.sweep import compare, shards
from ffnlab.sweep.comparison_config import CompareConfig
from ffnlab.sweep.shards import Shard
from tests.conftest import check_refusal, refusals


@pytest.mark.parametrize("replicates", [1, 2, 7, 8, 16, 100])
def test_shards_divide_the_replicates_evenly_and_in_order(replicates):
    for count in range(1, min(replicates, 9) + 1):
        parts = [Shard(i, count).numbers(replicates) for i in range(1, count + 1)]
        assert np.concatenate(parts).tolist() == [*range(replicates)]
        sizes = {len(part) for part in parts}
        assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1


def test_a_shard_is_text_or_a_pair():
    assert CompareConfig(shard="3/8").part_of == Shard(3, 8)
    assert CompareConfig(shard=(3, 8)).shard == "3/8"
    assert CompareConfig(shard="03/8").shard == "3/8"
    assert CompareConfig(shard="3/8", seeds=16).design.part == range(4, 6)
    assert CompareConfig().design.part is None


WRONG = [
    (["--shard=0/4"], "--shard: 0/4: there is no shard 0 of 4"),
    (["--shard=5/4"], "shards are numbered from 1 to 4"),
    (["--shard=0/0"], "there is no shard 0 of 0"),
    (["--shard=a/b"], "--shard: 'a/b' should be I/N, for instance 3/8"),
    (["--shard=4"], "--shard: '4' should be I/N"),
    (["--shard=-1/4"], "--shard: '-1/4' should be I/N"),
    (["--shard=1/4/2"], "--shard: '1/4/2' should be I/N"),
    (["--shard="], "--shard: '' should be I/N"),
    (["--shard=1/17"], "--shard: 17 shards of 16 replicates"),
    (["--shard=1/2", "--until=decided"], "--shard: --until=decided adds replicates"),
    (["--shard=1/2", "--split=fixed"], "share a learning rate"),
    (["--shard=1/2", "--budget=time", "--widths=glu=9"], "missing: mlp:relu, mlp:gelu"),
]


def test_bad_shards_are_refused_before_jax_is_imported(tmp_path):
    results = refusals("compare", [flags for flags, _ in WRONG], tmp_path)
    for result, (_, message) in zip(results, WRONG, strict=True):
        check_refusal(result, message)


def test_bad_shards_are_refused_in_python():
    with pytest.raises(InputError, match="'2.5/4' should be I/N"):
        compare(["mlp:relu", "bilinear"], "iris", shard=(2.5, 4))
    with pytest.raises(InputError, match="^shard: 4 shards of 3 replicates"):
        compare(["mlp:relu", "bilinear"], "iris", replicates=3, shard=(1, 4))
    with pytest.raises(InputError, match="shard: with a CompareConfig"):
        compare(CompareConfig(), shard=(1, 2))
    with pytest.raises(InputError, match="I/N"):
        shards.parse("1 / 2")
