"""Command lines of transformers' run_ner, run_glue, run_classification and run_qa.

A flag of theirs becomes one of `experiments.finetune`, or has no effect there, which a
line says with its reason, or is refused with what to give instead. Flags of
`experiments.finetune` are left as they are.
"""

import csv
import importlib.util
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ffnlab.errors import InputError
from ffnlab.report.trackers import PACKAGES

# Flags that have another name here, with the same values.
ALIASES = {
    "model_name_or_path": "checkpoint",
    "train_file": "train",
    "validation_file": "dev",
    "test_file": "test",
    "output_dir": "out",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "max_steps": "steps",
    "max_length": "max_seq_length",
    "num_warmup_steps": "warmup_steps",
    "max_grad_norm": "clip",
    "lr_scheduler_type": "schedule",
    "optim": "optimizer",
    "label_smoothing_factor": "label_smoothing",
    "text_column_name": "text_column",
    "label_column_name": "label_column",
    # The peft library.
    "r": "rank",
    "lora_alpha": "alpha",
    "num_virtual_tokens": "virtual_tokens",
}

# Flags without an effect here, by the reason.
_WITHOUT_EFFECT = {
    "the three parts are trained on, scored and predicted in any case": (
        "do_train do_eval do_predict return_entity_level_metrics eval_on_start "
        "eval_delay prediction_loss_only include_for_metrics batch_eval_metrics "
        "metric_name"
    ),
    "texts are packed into rows, in training and in prediction": (
        "pad_to_max_length per_device_eval_batch_size eval_accumulation_steps "
        "eval_do_concat_batches group_by_length length_column_name "
        "train_sampling_strategy auto_find_batch_size dataloader_drop_last"
    ),
    "dev is scored after each epoch, or as --evaluations says": (
        "eval_strategy evaluation_strategy eval_steps"
    ),
    "a run saves after each evaluation and each minute, and keeps the best epoch": (
        "save_strategy save_steps save_total_limit save_only_model save_on_each_node "
        "load_best_model_at_end save_safetensors enable_jit_checkpoint"
    ),
    "the best epoch is chosen by the score of the task on dev": (
        "metric_for_best_model greater_is_better"
    ),
    "progress is shown in any case": (
        "logging_strategy logging_steps logging_first_step logging_nan_inf_filter "
        "disable_tqdm log_level log_level_replica log_on_each_node run_name "
        "logging_dir skip_memory_metrics debug project "
        "include_num_input_tokens_seen"
    ),
    "a directory that holds a run is not overwritten; give a new one": (
        "overwrite_output_dir"
    ),
    "files are read by one process, and nothing is cached": (
        "overwrite_cache preprocessing_num_workers cache_dir dataloader_num_workers "
        "dataloader_pin_memory dataloader_persistent_workers dataloader_in_order "
        "dataloader_prefetch_factor dataloader_multiprocessing_context "
        "remove_unused_columns use_cache"
    ),
    "nothing is sent to or taken from a hub": (
        "push_to_hub hub_model_id hub_token hub_strategy hub_private_repo "
        "hub_always_push hub_revision token use_auth_token model_revision "
        "trust_remote_code trackio_space_id trackio_bucket_id trackio_static_space_id"
    ),
    "the configuration and the tokenizer are those of --checkpoint": (
        "config_name tokenizer_name use_fast_tokenizer use_slow_tokenizer "
        "ignore_mismatched_sizes"
    ),
    "the first token of a word has its label, and the others none": "label_all_tokens",
    "questions without an answer are found in the file": "version_2_with_negative",
    "all answers within --max_answer_length are compared": "n_best_size",
    "JAX compiles every step and places it on the devices it finds": (
        "torch_compile torch_compile_backend torch_compile_mode tf32 deepspeed "
        "fsdp_config ddp_backend ddp_find_unused_parameters ddp_bucket_cap_mb "
        "ddp_broadcast_buffers ddp_timeout ddp_static_graph local_rank "
        "accelerator_config parallelism_config torch_empty_cache_steps "
        "use_liger_kernel liger_kernel_config average_tokens_across_devices "
        "eval_use_gather_object full_determinism gradient_checkpointing_kwargs "
        "activation_checkpointing activation_checkpointing_kwargs bf16_full_eval "
        "fp16_full_eval fp16_opt_level half_precision_backend"
    ),
    "Adam has b1 = 0.9, b2 = 0.999 and eps = 1e-8 here": (
        "adam_beta1 adam_beta2 adam_epsilon optim_args optim_target_modules"
    ),
    "--seed is that of everything": "data_seed shuffle_seed shuffle_train_dataset",
    "all examples of a file are used": (
        "max_train_samples max_eval_samples max_predict_samples ignore_data_skip"
    ),
    "there is no such part": (
        "train_split_name validation_split_name test_split_name remove_splits "
        "remove_columns text_column_delimiter neftune_noise_alpha lr_scheduler_kwargs "
        "restore_callback_states_from_checkpoint past_index"
    ),
}
_REASONS = {
    name: reason for reason, names in _WITHOUT_EFFECT.items() for name in names.split()
}
_GLUE = ["cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli"]
_SCHEDULES = {"constant_with_warmup": "constant"}
# Values of --report_to that stand for packages without a counterpart here.
_OTHER_TRACKERS = {
    "azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "flyte",
    "mlflow", "neptune", "swanlab", "trackio",
}  # fmt: skip
# Names of columns that show what the rows of a file are, the most telling first.
_COLUMNS = {
    "qa": ({"question", "context"},),
    "tag": ({"tokens"}, {"words"}, {"ner_tags"}, {"pos_tags"}, {"chunk_tags"}),
    "pairs": (
        {"sentence1", "sentence2"},
        {"premise", "hypothesis"},
        {"question1", "question2"},
        {"text", "text2"},
    ),
}
_HEAD = 2**16  # bytes of a file that are looked at


class Translated(NamedTuple):
    """A command line of `experiments.finetune`.

    Attributes:
      argv: The words, with the program's name first.
      notes: A line about each flag that was changed or has no effect.
    """

    argv: list[str]
    notes: list[str]


class _Flag(NamedTuple):
    """A flag with its value; None where it stands alone."""

    name: str
    value: str | None

    @property
    def on(self) -> bool:
        """Whether a switch is on."""
        return self.value is None or self.value.lower() in ("true", "1", "yes", "t")


def translate(argv: list[str]) -> Translated:
    """Returns a command line in which the flags of transformers' scripts are ours.

    Args:
      argv: The words, with the program's name first.

    Raises:
      InputError: A flag asks for what there is not, such as a download.

    >>> line = ["finetune", "--train_file", "a.csv", "--bf16", "--do_train"]
    >>> translate([*line, "--task=classify"]).argv
    ['finetune', '--train=a.csv', '--dtype=bfloat16', '--task=classify']
    """
    words, notes = [], []
    for flag, given in _split(argv[1:]):
        if flag is None or not is_translated(flag.name):
            words += given
            continue
        taken, note = _translate(flag)
        words += taken
        notes += [note] if note else []
    names = {flag.name for flag, _ in _split(argv[1:]) if flag}
    if names & {"train_file", "do_eval", "do_predict"}:
        _refuse_prediction_alone(argv)
        task, why = _task_of(words)
        words += task
        notes += why
    return Translated([argv[0], *words], notes)


def is_translated(name: str) -> bool:
    """Returns whether a flag is written otherwise in transformers' scripts."""
    return name in {**ALIASES, **_REASONS, **_RULES}


def _split(words: Iterable[str]) -> Iterator[tuple[_Flag | None, list[str]]]:
    """Yields flags with the words that give them; None for other words."""
    words = list(words)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or word == "--":
            yield None, [word]
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if equals:
            yield _Flag(name, value), [word]
        elif words and not words[0].startswith("--") and is_translated(name):
            given = [words.pop(0)]
            while name == "report_to" and words and not words[0].startswith("--"):
                given.append(words.pop(0))  # a list with blanks between
            yield _Flag(name, ",".join(given)), [word, *given]
        else:
            yield _Flag(name, None), [word]


def _translate(flag: _Flag) -> tuple[list[str], str | None]:
    """Returns the words for one of their flags, and what is said about it."""
    if flag.name in _RULES:
        return _RULES[flag.name](flag)
    if flag.name in _REASONS:
        return [], f"--{flag.name} has no effect: {_REASONS[flag.name]}"
    name = ALIASES[flag.name]
    return [f"--{name}" if flag.value is None else f"--{name}={flag.value}"], None


def _steps(flag: _Flag) -> tuple[list[str], None]:
    """Returns the number of steps; -1 stands for that of the epochs."""
    none = flag.value is not None and flag.value.startswith("-")
    return [] if none else [f"--steps={flag.value}"], None


def _schedule(flag: _Flag) -> tuple[list[str], None]:
    return [f"--schedule={_SCHEDULES.get(flag.value, flag.value)}"], None


def _optimizer(flag: _Flag) -> tuple[list[str], None]:
    name = flag.value or ""
    return [f"--optimizer={'adamw' if name.startswith('adamw') else name}"], None


def _half(flag: _Flag) -> tuple[list[str], str | None]:
    if not flag.on:
        return [], None
    note = "--fp16 is --dtype=bfloat16 here, whose range needs no scaling of the loss"
    return ["--dtype=bfloat16"], note if flag.name == "fp16" else None


def _cpu(flag: _Flag) -> tuple[list[str], None]:
    return ["--device=cpu"] if flag.on else [], None


def _fsdp(flag: _Flag) -> tuple[list[str], str | None]:
    """Returns our switch as it is; theirs is a list of words such as full_shard."""
    if flag.value is None or flag.value.lower() in ("true", "false", "1", "0"):
        return ["--fsdp" if flag.on else "--nofsdp"], None
    how = "--mesh=data:N --fsdp divides the parameters over N devices"
    return [], f"--fsdp={flag.value} has no effect: {how}"


def _regression(flag: _Flag) -> tuple[list[str], None]:
    return ["--problem_type=regression"] if flag.on else [], None


def _resume(flag: _Flag) -> tuple[list[str], str | None]:
    if flag.value is not None and flag.value.lower() in ("false", "none"):
        return [], None
    note = "--resume_from_checkpoint is --resume here: the run in --out continues"
    return ["--resume"], note


def _checkpointing(flag: _Flag) -> tuple[list[str], None]:
    return [f"--gradient_checkpointing={str(flag.on).lower()}"], None


def _trackers(flag: _Flag) -> tuple[list[str], str | None]:
    """Returns the trackers; `all` stands for those that are installed."""
    names = [name.strip() for name in (flag.value or "all").split(",")]
    if "all" in names:
        installed = [n for n, p in PACKAGES.items() if importlib.util.find_spec(p)]
        names = [
            *installed,
            *(name for name in names if name not in ("all", *PACKAGES)),
        ]
    others = [name for name in names if name in _OTHER_TRACKERS]
    kept = [name for name in names if name not in _OTHER_TRACKERS] or ["none"]
    note = f"--report_to={','.join(others)} has no effect: it takes " + ", ".join(
        PACKAGES
    )
    return [f"--report_to={','.join(kept)}"], note if others else None


def _warmup(flag: _Flag) -> tuple[list[str], None]:
    """Returns the warm-up; a number below 1 is a share of the steps."""
    share = re.fullmatch(r"0?\.\d+", flag.value or "")
    return [f"--warmup_{'ratio' if share else 'steps'}={flag.value}"], None


def _columns(flag: _Flag) -> tuple[list[str], None]:
    names = [name.strip() for name in (flag.value or "").split(",")]
    flags = ["text_column", "pair_column"]
    if len(names) > len(flags):
        raise InputError(
            f"--text_column_names: {flag.value!r} has {len(names)} columns, and a text "
            "or a pair is needed; join them in the file"
        )
    return [f"--{one}={name}" for one, name in zip(flags, names, strict=False)], None


def _task_name(flag: _Flag) -> tuple[list[str], str | None]:
    name = (flag.value or "").lower()
    if name in _GLUE:
        raise InputError(
            f"--task_name: {name} is downloaded by run_glue, and nothing is downloaded "
            "here; give its files by --train_file and --validation_file"
        )
    if name == "ner":
        return [], "--task_name has no effect: the columns of the file have names"
    return [f"--label_column={name}_tags"], None


def _download(flag: _Flag) -> tuple[list[str], None]:
    raise InputError(
        f"--{flag.name}: {flag.value} would be downloaded, and nothing is downloaded "
        "here; save it as JSON lines or CSV, and give --train_file and "
        "--validation_file"
    )


# Flags with a rule of their own.
_RULES: Mapping[str, Callable[[_Flag], tuple[list[str], str | None]]] = {
    "max_steps": _steps,
    "lr_scheduler_type": _schedule,
    "optim": _optimizer,
    "fp16": _half,
    "bf16": _half,
    "gradient_checkpointing": _checkpointing,
    "warmup_steps": _warmup,
    "report_to": _trackers,
    "use_cpu": _cpu,
    "fsdp": _fsdp,
    "do_regression": _regression,
    "no_cuda": _cpu,
    "resume_from_checkpoint": _resume,
    "text_column_names": _columns,
    "task_name": _task_name,
    "dataset_name": _download,
    "dataset_config_name": _download,
}


def _refuse_prediction_alone(argv: list[str]) -> None:
    """Raises if a line asks for scores or predictions without a training."""
    given = {flag.name for flag, _ in _split(argv[1:]) if flag and flag.on}
    if given & {"do_eval", "do_predict"} and "do_train" not in given:
        raise InputError(
            "--do_train: without it there is nothing to fine-tune; python -m "
            "experiments.predict --run=DIRECTORY --input=FILE scores and predicts"
        )


def _task_of(words: list[str]) -> tuple[list[str], list[str]]:
    """Returns the flag of the task, by the columns of the file, and a line on it."""
    flags = {flag.name: flag for flag, _ in _split(words) if flag}
    if {"task", "flagfile"} & flags.keys() or "train" not in flags:
        return [], []
    if "pair_column" in flags:
        return ["--task=pairs"], ["task: pairs, as there are two columns of texts"]
    path = Path(flags["train"].value or "")
    names = _names_of_columns(path)
    found = (
        task
        for task, columns in _COLUMNS.items()
        if any(each <= names for each in columns)
    )
    task = next(found, "classify")
    note = f"task: {task}, by the columns of {path.name}; --task chooses another"
    return [f"--task={task}"], [note]


def _names_of_columns(path: Path) -> set[str]:
    """Returns the names of the columns or keys at the beginning of a file."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD).decode("utf-8-sig", "replace")
    except OSError:
        return set()  # what reads the file says what is wrong
    if path.suffix.startswith(".json"):
        return set(re.findall(r'"(\w{1,40})"\s*:', head))
    first = itertools.islice(csv.reader(head.splitlines()[:1]), 1)
    return {name.strip() for row in first for name in row}
