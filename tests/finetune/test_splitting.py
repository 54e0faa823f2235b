"""Splits of one file: by label, at random, and as runs of before had them."""

from types import SimpleNamespace

import pytest

from experiments import flag_parsing
from ffnlab import options
from ffnlab.data.examples import Examples
from ffnlab.errors import InputError
from ffnlab.finetune import runner, splitting
from ffnlab.finetune.config import Config
from ffnlab.finetune.task import digest
from ffnlab.report import run_directory
from tests.tuned import config

SHARES = (0.5, 0.25, 0.25)
GIVEN = {"checkpoint": "a", "train": "b", "split": (0.8, 0.1, 0.1)}


def split(labels, stratify=True, seed=3):
    """Returns the numbers of the examples of each part, and the remark."""
    texts = [str(number) for number in range(len(labels))]
    examples = Examples(texts, [], labels, [])
    flags = SimpleNamespace(split=SHARES, seed=seed, stratify=stratify)
    parts, remark = splitting.read_parts(flags, lambda part: examples)
    numbers = {name: [int(text) for text in part.texts] for name, part in parts.items()}
    return numbers, remark


def test_every_part_has_the_same_shares_of_each_label():
    labels = ["rare"] * 4 + ["frequent"] * 40
    parts, remark = split(labels)
    assert sorted(sum(parts.values(), [])) == list(range(44))
    counts = {name: sum(n < 4 for n in part) for name, part in parts.items()}
    assert counts == {"train": 2, "dev": 1, "test": 1}
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 22,
        "dev": 11,
        "test": 11,
    }
    assert remark == "split by label: every part has the same shares"
    assert split(labels)[0] == parts != split(labels, seed=4)[0]


def test_a_label_with_too_few_texts_makes_it_random():
    labels = ["once"] + ["frequent"] * 11
    parts, remark = split(labels)
    assert parts == split(labels, stratify=False)[0]
    assert remark == ("split at random: label once has 1 text, too few for three parts")
    _, remark = split(["od\x1bd"] * 2 + ["frequent"] * 11)
    assert r"label od\x1bd has 2 texts" in remark


def test_a_random_split_is_that_of_earlier_versions():
    parts, remark = split(["a"] * 12, stratify=False)
    assert list(parts.values()) == EARLIER
    assert remark == "split at random"


EARLIER = [[0, 1, 4, 7, 8, 11], [6, 9, 10], [2, 3, 5]]


@pytest.mark.parametrize(
    "more,wanted",
    [
        ({}, True),
        ({"stratify": False}, False),
        ({"task": "pairs"}, True),
        ({"task": "tag"}, False),
        ({"task": "generate"}, False),
        ({"split": (), "dev": "c"}, False),
    ],
)
def test_it_is_the_default_where_labels_are_split(more, wanted):
    assert Config(**{**GIVEN, **more}).stratify is wanted


@pytest.mark.parametrize("more", [{"task": "tag"}, {"split": (), "dev": "c"}])
def test_where_there_are_no_labels_to_split_it_is_refused(more):
    with pytest.raises(InputError, match="^stratify: it needs split, and the task"):
        Config(**{**GIVEN, **more}, stratify=True)


def test_a_run_of_an_earlier_version_is_resumed_with_its_split(bert, files, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    columns = {"text_column": "2", "label_column": "1", "dev": None, "test": None}
    given = {"split": (0.6, 0.2, 0.2), **columns}
    before = config(bert, files, "classify", out, ".tsv", stratify=False, **given)
    lines = options.to_flags(before).splitlines()
    (out / "flags").write_text(
        "\n".join(line for line in lines if not line.startswith("--stratify")) + "\n"
    )
    flags = [f"--flagfile={out / 'flags'}", f"--out={out}"]
    resumed = flag_parsing.parse(Config, ["program", *flags, "--resume"])
    assert resumed.stratify is False
    run_directory._check_same_flags(out / "flags", resumed)
    assert digest(runner.prepare(resumed)) == digest(runner.prepare(before))
    repeated = flag_parsing.parse(Config, ["program", f"--flagfile={out / 'flags'}"])
    assert repeated.stratify is True
    assert digest(runner.prepare(repeated)) != digest(runner.prepare(before))
    (out / "flags").write_text(options.to_flags(repeated))
    assert flag_parsing.parse(Config, ["program", *flags, "--resume"]).stratify is True


def test_how_it_was_split_is_said(bert, files):
    columns = {"text_column": "2", "label_column": "1", "dev": None, "test": None}
    given = config(bert, files, "classify", None, ".tsv", split=SHARES, **columns)
    assert "\nsplit by label: " in "\n" + runner.prepare(given).summary
