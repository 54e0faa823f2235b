"""The model card, a README for those who find best/ without its run."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from ffnlab import options
from ffnlab.escape import markdown, markdown_code
from ffnlab.finetune.task import PURPOSES, Task, loads_in_transformers
from ffnlab.report.table import Table

if TYPE_CHECKING:
    from ffnlab.finetune.config import Config

# The names of the tasks on model hubs.
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
    "generate": "generates a text from a text",
}
_USES_OF_TARGETS = {
    "regression": "gives {} a number",
    "multi_label_classification": "gives {} any number of labels",
}
_FILES = ("train", "extra", "dev", "test")
_ALWAYS = ("epochs", "batch_size", "learning_rate", "seed")
# The data section says how the texts were split.
_LEFT_OUT = (*_FILES, "task", "checkpoint", "out", "resume", "stratify")


def checkpoint_name(config: "Config") -> str:
    """Returns the name of the checkpoint."""
    if config.scratch:
        return "a small model from scratch"
    path = Path(config.checkpoint).resolve()
    return f"{path.parent.name}/model" if path.name == "model" else path.name


def model_card(config: "Config", task: Task, table: Table, failed: str = "") -> str:
    """Returns the card, in Markdown after a head of metadata.

    Args:
      config: The flags.
      task: The task.
      table: The scores by part.
      failed: Sentences on runs whose loss was not finite.
    """
    loads = loads_in_transformers(config, task)
    head = {"pipeline_tag": PIPELINES[config.task]}
    if loads:
        head["library_name"] = "transformers"
    lines = "".join(f"{name}: {value}\n" for name, value in head.items())
    return f"""---
{lines}---
# {markdown(checkpoint_name(config))}, fine-tuned on {markdown(Path(config.train).name)}

It {_use(config)}{_labels(task)}.

{table.markdown()}

{_seeds(config)} Scores hold for texts like those of the files below, and for no others
without a test.

{f"{markdown(failed)}{chr(10) * 2}" if failed else ""}## Data
{"".join(f"- {markdown(line)}{chr(10)}" for line in task.summary.splitlines())}
## Training
{_training(config)}
## Use
    python -m experiments.predict --run=DIR --input=new.txt
{_loading(config) if loads else ""}"""


def _seeds(config: "Config") -> str:
    if config.seeds == 1:
        return "One seed was trained."
    best = f"The best of {config.seeds} seeds by the dev part is here;"
    return f"{best} the table is of all."


def _use(config: "Config") -> str:
    """Returns what the model does, in words."""
    texts = "two texts" if config.task == "pairs" else "a text"
    known = _USES_OF_TARGETS.get(config.problem_type or "", _USES[config.task])
    return known.format(texts)


def _labels(task: Task) -> str:
    names = task.label_names
    if not names:
        return ""
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f": {', '.join(map(markdown_code, names[:20]))}{more}"


def _training(config: "Config") -> str:
    """Returns the main flags, and all others that differ from their defaults."""
    defaults = [
        field.name
        for field in dataclasses.fields(config)
        if field.name not in _ALWAYS and getattr(config, field.name) == field.default
    ]
    flags = options.to_flags(config, leave_out=(*_LEFT_OUT, *defaults)).splitlines()
    name = markdown(checkpoint_name(config))
    lines = [f"from {name}, `--task={config.task}`, {config.optimizer}"]
    lines += [markdown_code(flag) for flag in flags]
    return "".join(f"- {line}\n" for line in lines)


def _loading(config: "Config") -> str:
    purpose = {"generate": "CausalLM"}.get(config.task)
    name = f"AutoModelFor{purpose or PURPOSES[config.task]}"
    return f"""
    from transformers import AutoTokenizer, {name}
    model = {name}.from_pretrained(DIR)
    tokenizer = AutoTokenizer.from_pretrained(DIR)
"""
