"""Command lines of transformers' scripts, as flags of experiments.finetune."""

import dataclasses
import json

import pytest

from experiments import launch, run_scripts
from experiments.run_scripts import translate
from ffnlab.errors import InputError
from ffnlab.finetune import runner
from ffnlab.finetune.config import Config


def parse(line):
    argv, notes = translate(["finetune", *line.split()])
    return launch.parse(Config, argv, aliases=run_scripts.ALIASES), notes


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("columns")
    rows = {
        "ner.json": {"tokens": ["Ada", "sang"], "ner_tags": ["B-PER", "O"]},
        "squad.json": {
            "data": [{"question": "Who?", "context": "Ada.", "answers": {}}]
        },
        "text.json": {"text": "a", "label": "b"},
    }
    for name, row in rows.items():
        (directory / name).write_text(json.dumps(row))
    (directory / "pairs.csv").write_text('"sentence1","sentence2",label\na,b,c\n')
    (directory / "text.csv").write_text("label,sentence\na,b\n")
    return directory


def test_a_command_of_run_ner(files):
    given, notes = parse(
        f"--model_name_or_path bert --train_file {files}/ner.json --validation_file "
        f"{files}/ner.json --output_dir out --do_train --do_eval --fp16 True "
        "--pad_to_max_length --label_all_tokens False --save_strategy epoch "
        "--lr_scheduler_type constant_with_warmup --warmup_ratio 0.1 "
        "--per_device_train_batch_size 12 --per_device_eval_batch_size=8 "
        "--max_steps -1 --max_grad_norm 0.5 --seed 3 --overwrite_output_dir "
        "--optim adamw_torch_fused --gradient_checkpointing False "
        "--return_entity_level_metrics"
    )
    assert (given.task, given.checkpoint, given.out) == ("tag", "bert", "out")
    assert (given.batch_size, given.clip, given.seed) == (12, 0.5, 3)
    assert (given.schedule, given.warmup_ratio) == ("constant", 0.1)
    assert (given.dtype, given.optimizer, given.steps) == ("bfloat16", "adamw", None)
    assert given.gradient_checkpointing is False
    assert notes[-1] == "task: tag, by the columns of ner.json; --task chooses another"
    silent = {note.split()[0] for note in notes if "has no effect: " in note}
    assert {"--do_train", "--label_all_tokens", "--save_strategy"} <= silent
    assert len(silent) == 8


@pytest.mark.parametrize(
    "flags, task",
    [
        ("--train_file {}/squad.json --doc_stride 64", "qa"),
        ("--train_file {}/text.json", "classify"),
        ("--train_file {}/text.csv --text_column_names sentence", "classify"),
        ("--train_file {}/pairs.csv", "pairs"),
        ("--train_file {}/text.csv --text_column_names sentence,other", "pairs"),
        ("--train_file {}/absent.csv", "classify"),
        ("--train_file {}/ner.json --task generate", "generate"),
    ],
)
def test_the_task_follows_from_the_columns(files, flags, task):
    shared = "--model_name_or_path=m --validation_file=d --do_train "
    assert parse(shared + flags.format(files))[0].task == task


def test_columns_and_steps():
    files = "--checkpoint=m --train_file=a --validation_file=b "
    given, _ = parse(f"{files} --text_column_names one,two --max_steps 7")
    assert (given.text_column, given.pair_column, given.steps) == ("one", "two", 7)
    given, _ = parse(f"{files} --warmup_steps 0.1 --task_name pos --task tag --no_cuda")
    assert (given.warmup_ratio, given.warmup_steps) == (0.1, 0)
    assert (given.label_column, given.device) == ("pos_tags", "cpu")
    given, _ = parse(f"{files} --bf16=False --resume_from_checkpoint out/c --out=out")
    assert given.dtype == "float32" and given.resume


@pytest.mark.parametrize(
    "value, names, note",
    [
        ("none", ("none",), None),
        ("tensorboard", ("tensorboard",), None),
        ("tensorboard,wandb", ("tensorboard", "wandb"), None),
        ("tensorboard wandb", ("tensorboard", "wandb"), None),
        ("all", ("wandb",), None),
        ("mlflow", ("none",), "--report_to=mlflow has no effect"),
        ("wandb neptune", ("wandb",), "--report_to=neptune has no effect"),
    ],
)
def test_where_a_run_is_reported_to(monkeypatch, value, names, note):
    installed = {"wandb"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name in installed)
    line = f"--checkpoint=m --train=a --dev=b --report_to {value} --seed=1"
    given, notes = parse(line)
    assert given.report_to == names and given.seed == 1
    assert [each.split(":")[0] for each in notes] == ([note] if note else [])


@pytest.mark.parametrize(
    "line, message",
    [
        ("--task_name mrpc --do_train", "--task_name: mrpc is downloaded by run_glue"),
        ("--dataset_name imdb", "--dataset_name: imdb would be downloaded"),
        ("--do_predict --train_file=a", "--do_train: without it there is nothing"),
        ("--do_train False --do_eval", "experiments.predict"),
        ("--text_column_names a,b,c", "has 3 columns"),
        ("--lr_scheduler_type polynomial --train=a --checkpoint=b", "--schedule"),
        ("--optim adafactor --train=a --checkpoint=b", "--optimizer"),
        ("--report_to tensorbord --train=a --checkpoint=b", "--report_to"),
    ],
)
def test_what_cannot_be_is_refused(line, message):
    with pytest.raises(InputError, match=message):
        parse(line)


def test_own_flags_are_left_alone():
    line = ["finetune", "--train=a", "--nofoo", "--split", "0.8,0.1,0.1", "--r=4", "x"]
    expected = [*line[:-2], "--rank=4", "x"]
    assert translate(line) == (expected, [])


@pytest.mark.parametrize(
    ("given", "words", "noted"),
    [("--fsdp", "--fsdp", False), ("--fsdp=false", "--nofsdp", False),
     ("--fsdp=full_shard auto_wrap", "", True)],
)  # fmt: skip
def test_fsdp_is_a_switch_here_and_a_list_there(given, words, noted):
    argv, notes = run_scripts.translate(["finetune", given])
    assert argv[1:] == words.split()
    assert bool(notes) == noted


def test_every_name_is_of_a_flag_and_has_one_rule():
    names = {field.name for field in dataclasses.fields(Config)}
    assert {*run_scripts.ALIASES.values()} <= names
    assert not run_scripts._REASONS.keys() & names
    assert "report_to" in run_scripts._RULES
    assert not run_scripts._REASONS.keys() & run_scripts.ALIASES.keys()
    assert not run_scripts._REASONS.keys() & run_scripts._RULES.keys()
    for reason, flags in run_scripts._WITHOUT_EFFECT.items():
        assert reason.isprintable() and len(flags.split()) == len({*flags.split()})


def test_regression_is_a_kind_of_target(files):
    shared = f"--model_name_or_path=m --train_file {files}/pairs.csv "
    shared += "--validation_file=d --do_train "
    given = parse(shared + "--do_regression True")[0]
    assert (given.task, given.problem_type) == ("pairs", "regression")
    assert parse(shared + "--do_regression False")[0].problem_type is None


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Small files as run_ner, run_glue and run_qa take them."""
    directory = tmp_path_factory.mktemp("scripts")
    words = [f"w{n}" for n in range(8)]
    tagged = {"tokens": words[:3], "ner_tags": ["B-CITY", "I-CITY", "O"]}
    (directory / "ner.json").write_text(f"{json.dumps(tagged)}\n" * 8)
    rows = ["w1 w2,w3,same", "w4,w5 w6,other"] * 4
    (directory / "glue.csv").write_text("\n".join(["sentence1,sentence2,label", *rows]))
    asked = {
        "id": "a", "title": "t", "question": "w1 w2", "context": "w3 w4 w5",
        "answers": {"text": ["w4"], "answer_start": [3]},
    }  # fmt: skip
    data = [{**asked, "id": str(number)} for number in range(4)]
    (directory / "qa.json").write_text(json.dumps({"version": "1", "data": data}))
    return directory


COMMANDS = {
    "ner.json": "--do_train --do_eval --max_seq_length 14",
    "glue.csv": "--do_train --do_eval --max_seq_length 14 "
    "--per_device_train_batch_size 32 --learning_rate 2e-5 --num_train_epochs 3",
    "qa.json": "--do_train --do_eval --per_device_train_batch_size 12 "
    "--learning_rate 3e-5 --num_train_epochs 2 --max_seq_length 12 --doc_stride 4",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_the_documented_commands_train(name, bert, examples, tmp_path):
    """The examples of the scripts' pages, with own files and a checkpoint directory."""
    line = (
        f"--model_name_or_path {bert} --train_file {examples / name} "
        f"--validation_file {examples / name} {COMMANDS[name]} "
        f"--output_dir {tmp_path / 'out'}/"
    )
    given, notes = parse(line)
    result = runner.run(given)
    assert {"ner.json": "tag", "glue.csv": "pairs", "qa.json": "qa"}[name] in notes[-1]
    assert (tmp_path / "out" / "best" / "config.json").is_file()
    assert (tmp_path / "out" / "report.md").is_file() and result.scores["dev"]
