"""A model card, for those who find best/ without its run."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from ffnlab import options
from ffnlab.finetune.task import PURPOSES, Task, loads_in_transformers
from ffnlab.report.table import Table

if TYPE_CHECKING:
    from ffnlab.finetune.config import Config

# What the tasks are called where models are looked for.
PIPELINES = {
    "classify": "text-classification",
    "pairs": "text-classification",
    "tag": "token-classification",
    "qa": "question-answering",
    "generate": "text-generation",
}
_USES = {
    "classify": "gives a text one label",
    "pairs": "gives two texts one label",
    "tag": "gives every word a label",
    "qa": "finds the answer to a question in a text, or that there is none",
    "generate": "writes a text for a text",
}
_FILES = ("train", "extra", "dev", "test")
_ALWAYS = ("epochs", "batch_size", "learning_rate", "seed")
_LEFT_OUT = (*_FILES, "task", "checkpoint", "out", "resume")


def checkpoint_name(config: "Config") -> str:
    """Returns what the checkpoint is called."""
    if config.scratch:
        return "a small model from scratch"
    path = Path(config.checkpoint).resolve()
    return f"{path.parent.name}/model" if path.name == "model" else path.name


def model_card(config: "Config", task: Task, table: Table) -> str:
    """Returns the card, in Markdown with a head for machines."""
    loads = loads_in_transformers(config, task)
    head = {"pipeline_tag": PIPELINES[config.task]}
    head |= {"library_name": "transformers"} if loads else {}
    lines = "".join(f"{name}: {value}\n" for name, value in head.items())
    return f"""---
{lines}---
# {checkpoint_name(config)}, fine-tuned on {Path(config.train).name}

It {_USES[config.task]}{_labels(task)}.

{table.markdown()}

{_seeds(config)} Scores hold for texts like those of the files below, and for no others
without a test.

## Data
{"".join(f"- {line}{chr(10)}" for line in task.summary.splitlines())}
## Training
{_training(config)}
## Use
    python -m experiments.predict --run=DIR --input=new.txt
{_loading(config) if loads else ""}"""


def _seeds(config: "Config") -> str:
    if config.seeds == 1:
        return "One seed was trained."
    many = f"The best of {config.seeds} seeds by the dev part is here;"
    return f"{many} the table is of all."


def _labels(task: Task) -> str:
    names = list(task.about().get("id2label", {}).values())
    if not names:
        return ""
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f": {', '.join(f'`{name}`' for name in names[:20])}{more}"


def _training(config: "Config") -> str:
    """Returns some flags, and all that were not left as they are."""
    alike = [
        field.name
        for field in dataclasses.fields(config)
        if field.name not in _ALWAYS and getattr(config, field.name) == field.default
    ]
    flags = options.to_flags(config, leave_out=(*_LEFT_OUT, *alike)).splitlines()
    begun = f"- from {checkpoint_name(config)}, `--task={config.task}`, {config.optimizer}\n"
    return begun + "".join(f"- `{flag}`\n" for flag in flags)


def _loading(config: "Config") -> str:
    purpose = {"generate": "CausalLM"}.get(config.task)
    name = f"AutoModelFor{purpose or PURPOSES[config.task]}"
    return f"""
    from transformers import AutoTokenizer, {name}
    model = {name}.from_pretrained(DIR)
    tokenizer = AutoTokenizer.from_pretrained(DIR)
"""
