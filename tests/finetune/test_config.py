"""The flags of fine-tuning: which go together, old names, and what `--help` shows."""

import dataclasses
import json
import subprocess
import sys

import pytest

from experiments import launch
from experiments.run_scripts import ALIASES
from ffnlab.finetune.config import Config
from tests.conftest import ROOT, check_refused

FILES = ["--checkpoint=a", "--train=b", "--dev=c"]
REFUSED = [
    (["--train=a", "--dev=b"], "--checkpoint: is needed"),
    (["--checkpoint=a", "--dev=b"], "--train: is needed"),
    (["--checkpoint=a", "--train=b"], "--dev: is needed, or split"),
    (["--checkpoint=a", "--train=b", "--split=0.5,0.5"], "--split: three shares"),
    ([*FILES, "--split=0.8,0.1,0.1"], "--split: it divides train"),
    ([*FILES, "--head=linaer"], "nearest: linear"),
    (["--task=tags"], "nearest: tag"),
    ([*FILES, "--layer_decay=2"], "--layer_decay: 2 should be at most 1"),
    (
        [*FILES, "--warmup_steps=2", "--warmup_ratio=0.1"],
        "--warmup_steps and --warmup_ratio: give one of them",
    ),
    (["--epochs=0"], "--epochs: 0.0 should be"),
    ([*FILES, "--task=tag", "--doc_stride=4"], "--doc_stride: for --task=qa, not tag"),
    ([*FILES, "--task=qa", "--head=swiglu"], "--head: for --task=classify, pairs, tag"),
    ([*FILES, "--task=qa", "--label_smoothing=0.1"], "--label_smoothing: for --task="),
    ([*FILES, "--task=generate", "--augment=swap"], "--augment: for --task="),
    (
        [*FILES, "--task=generate", "--mlm_loss_weight=1"],
        "--mlm_loss_weight: for --task=",
    ),
    ([*FILES, "--augment=swapp"], "nearest: swap"),
    ([*FILES, "--checkpoint=tiny", "--augment=mlm_substitute"], "which tiny is not"),
    ([*FILES, "--checkpoint=tiny", "--method=lora"], "tiny is not; use --method=full"),
    ([*FILES, "--task=pairs", "--marks=a"], "--marks: those of two entities"),
    ([*FILES, "--task=pairs", "--marks=a,b", "--augment=swap"], "would tear"),
    ([*FILES, "--adversarial=fgsm"], "nearest: fgm"),
    ([*FILES, "--dtype=bf16"], "--dtype"),
    (
        [*FILES, "--gradient_accumulation_steps=0"],
        "--gradient_accumulation_steps: 0 should be",
    ),
    ([*FILES, "--adversarial_epsilon=nan"], "--adversarial_epsilon: nan should be"),
]
PARSE_ALL = """
import json, sys
sys.modules["jax"] = None  # importing it is an error
from experiments import launch
from experiments.run_scripts import ALIASES
from ffnlab.errors import InputError
from ffnlab.finetune.config import Config

errors = []
for flags in json.loads(sys.argv[1]):
    try:
        launch.parse(Config, ["finetune", *flags], aliases=ALIASES)
        errors.append("")
    except InputError as error:
        errors.append(launch.with_flags(str(error), Config))
print(json.dumps(errors))
"""


@pytest.fixture(scope="module")
def errors():
    """The error of each of REFUSED, in a process that cannot import JAX."""
    argv = [
        sys.executable,
        "-c",
        PARSE_ALL,
        json.dumps([flags for flags, _ in REFUSED]),
    ]
    got = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert got.returncode == 0, got.stderr
    return json.loads(got.stdout)


@pytest.mark.parametrize("number", range(len(REFUSED)), ids=lambda n: REFUSED[n][0][-1])
def test_wrong_flags_are_refused_before_jax(errors, number):
    assert REFUSED[number][1] in errors[number]
    assert "\n" not in errors[number]


def test_the_launcher_refuses_a_wrong_flag(tmp_path):
    check_refused("finetune", [*FILES, "--head=linaer"], "nearest: linear", tmp_path)


def parse(*flags):
    return launch.parse(Config, ["finetune", *FILES, *flags], aliases=ALIASES)


def test_aliases_of_transformers():
    given = launch.parse(
        Config,
        ["finetune", "--model_name_or_path=m", "--train_file=a", "--validation_file=b",
         "--num_train_epochs=2", "--per_device_train_batch_size=4",
         "--max_seq_length=64", "--text_column_name=t", "--label_column_name=l",
         "--learning_rate=1e-4"],
        aliases=ALIASES,
    )  # fmt: skip
    assert (given.checkpoint, given.train, given.dev) == ("m", "a", "b")
    assert (given.epochs, given.batch_size) == (2.0, 4)
    assert (given.text_column, given.label_column) == ("t", "l")
    assert given.max_seq_length == 64 and given.learning_rate == 1e-4


OLD = [
    ("length=64", "max_seq_length=64"),
    ("stride=8", "doc_stride=8"),
    ("longest=5", "max_answer_length=5"),
    ("threshold=0.5", "null_score_diff_threshold=0.5"),
    ("accumulate=2", "gradient_accumulation_steps=2"),
    ("warmup=3", "warmup_steps=3"),
    ("radius=0.25", "adversarial_epsilon=0.25"),
    ("unfreeze=1.5", "unfreeze_every_epochs=1.5"),
    ("masked_loss=0.1", "mlm_loss_weight=0.1"),
    ("r_drop=2", "r_drop_alpha=2"),
    ("remat", "gradient_checkpointing"),
]


def test_old_names_of_flags_still_work():
    old, new = zip(*OLD, strict=True)
    given = parse("--task=qa", *(f"--{flag}" for flag in old))
    assert given == parse("--task=qa", *(f"--{flag}" for flag in new))
    assert given.gradient_checkpointing and given.doc_stride == 8
    given = parse("--task=generate", "--beam=3", "--target_length=9")
    assert (given.num_beams, given.max_target_length) == (3, 9)
    names = {flag.partition("=")[0] for flag in old}
    assert Config.RENAMED.keys() == names | {"beam", "target_length"}


def test_every_other_name_is_of_a_flag():
    names = {field.name for field in dataclasses.fields(Config)}
    assert {*Config.RENAMED.values(), *ALIASES.values()} <= names
    assert not names & {*Config.RENAMED, *ALIASES}
    assert not Config.RENAMED.keys() & ALIASES.keys()


def test_help_shows_flags_in_groups():
    text = launch.usage(Config, "What?")
    places = [
        text.index(f"\n{heading}")
        for heading in ("Data: ", "Model: ", "Task: ", "Training: ", "Methods: ")
    ]
    assert places == sorted(places)
    for flag, group in (("train=", 0), ("head=", 1), ("num_beams=", 2), ("epochs=", 3)):
        assert places[group] < text.index(f"  --{flag}") < places[group + 1]
    assert text.index("  --freeze=") > places[4]


def test_every_help_text_is_a_sentence():
    for field in dataclasses.fields(Config):
        text = field.metadata["text"]
        assert text[0].isupper() and text.endswith("."), field.name


@pytest.mark.parametrize(
    ("options", "length", "stride"),
    [
        ({}, 128, 42),
        ({"task": "qa"}, 384, 128),
        ({"task": "qa", "max_seq_length": 90}, 90, 30),
        ({"task": "qa", "max_seq_length": 90, "doc_stride": 0}, 90, 0),
    ],
)
def test_lengths_that_are_not_given_depend_on_the_task(options, length, stride):
    given = Config(checkpoint="a", train="b", dev="c", **options)
    assert (given.max_length, given.window_stride) == (length, stride)


@pytest.mark.parametrize(
    ("options", "warmup"),
    [
        ({}, 0),
        ({"warmup_steps": 7}, 7),
        ({"warmup_steps": 70}, 25),
        ({"warmup_ratio": 0.1}, 5),
        ({"warmup_ratio": 0.9}, 25),
    ],
)
def test_a_warmup_is_a_number_or_a_share_of_at_most_half_of_the_steps(options, warmup):
    given = Config(checkpoint="a", train="b", dev="c", **options)
    assert given.warmup(50) == warmup


def test_parts_are_in_their_files_or_in_that_of_train():
    given = Config(checkpoint="a", train="b", dev="c")
    assert [given.file_of(part) for part in ("train", "dev", "test")] == ["b", "c", "b"]
    assert Config(checkpoint="a", train="b.json").one_file
    assert not Config(checkpoint="a", train="b.json", dev="c").one_file
    assert Config(checkpoint="tiny", train="b", dev="c").scratch
