"""How fast and how well does ffnlab fine-tune, compared with transformers?

Both use the same checkpoint, texts, batch size, epochs and learning rate; transformers
follows the recipe of its run_ner and run_glue (`benchmarks/recipe.py`). Measures the
time of an epoch over the first texts of the training split, per text. With --scores,
trains both in full with several seeds and scores them on the test split by the same
code. With --dtype=bfloat16 both compute in bfloat16, transformers by autocast. Without
torch and transformers only ffnlab runs.

    python -m benchmarks.finetune --checkpoint=minilm --train=train.conll \\
        --dev=dev.conll --test=test.conll
    python -m benchmarks.finetune --checkpoint=minilm --task=classify \\
        --train=intents.json
    python -m benchmarks.finetune ... --scores --seeds=3
"""

import dataclasses
import tempfile
from typing import Any

import jax
import numpy as np

from benchmarks import protocol
from benchmarks.protocol import Entry, Work
from experiments import launch
from ffnlab import data, finetune, options
from ffnlab.data.labels import label_ids
from ffnlab.data.packed_rows import pack
from ffnlab.errors import InputError
from ffnlab.finetune import runner, text_parts, trainer
from ffnlab.finetune.task import packing_options
from ffnlab.options import option
from ffnlab.report.table import Table
from ffnlab.train import train_step
from ffnlab.train.program import Program
from ffnlab.train.record import Plan


@dataclasses.dataclass(frozen=True)
class Config(protocol.Config):
    """What to train on; each field is a flag."""

    task: str = option(
        "tag", "Task: tag or classify.", known=lambda: ("tag", "classify")
    )
    checkpoint: str | None = option(None, "Checkpoint directory of BERT; required.")
    train: str | None = option(
        None, "Training file, as for experiments.finetune; required."
    )
    dev: str | None = option(None, "Validation file.")
    test: str | None = option(None, "Test file.")
    texts: int = option(512, "Number of texts in the timed epoch.", least=16)
    batch_size: int = option(16, "Texts per step.", least=1)
    learning_rate: float = option(5e-5, "Peak learning rate.", above=0)
    epochs: int = option(3, "Epochs of a scored run.", least=1)
    seeds: int = option(3, "Number of scored runs.", least=1)
    dtype: str = option(
        "float32",
        "Precision to compute in. Parameters stay in float32.",
        known=lambda: ("float32", "bfloat16"),
    )
    scores: bool = option(False, "Train in full and compare scores instead of times.")

    def __post_init__(self):
        options.check(self)
        for name in ("checkpoint", "train"):
            if not getattr(self, name):
                raise InputError(f"{name}: is required; see --help")

    def finetuning(self, **options: Any) -> finetune.Config:
        """Returns the configuration of the same run in ffnlab."""
        names = ("task", "checkpoint", "train", "dev", "test", "batch_size", "epochs")
        names += ("learning_rate", "dtype")
        fields = {name: getattr(self, name) for name in names}
        return finetune.Config(**fields, **options)


def run(config: Config) -> Any:
    """Prints and returns the table of times, or of scores."""
    protocol.use_cpu()
    protocol.describe()
    task = runner.prepare(config.finetuning())
    recipes = None
    if protocol.has("torch"):
        from benchmarks import recipe as recipes
    return (_scores if config.scores else _times)(config, task, recipes)


def _recipe(config: Config, task: Any, recipes: Any, texts: int | None) -> Any:
    return recipes.Recipe(
        config.checkpoint,
        config.task,
        len(task.label_names),
        task.examples["train"].texts[:texts],
        task.labels["train"][:texts],
        config.batch_size,
        config.finetuning().max_length,
        config.dtype,
    )


def _times(config: Config, task: Any, recipes: Any) -> Any:
    examples = task.examples["train"]
    count = min(config.texts, len(examples.texts))
    work = _epoch(config, task, examples.subset(range(count)))
    setting = "packed rows, one scan"
    entries = [Entry("ffnlab", setting, work, count, peer=False)]
    if recipes:
        recipe, threads = _recipe(config, task, recipes, count), protocol.cores()
        work = recipes.epoch(recipe, threads, config.learning_rate)
        target = 1 / 2 if config.task == "tag" else 1 / 1.5
        setting = f"padded to the longest, {threads} threads"
        entries.append(Entry("transformers", setting, work, count, target))
    for entry in entries:
        entry.work.once()  # compiles
    return protocol.compare("training, time per text", "µs", entries, config)


def _epoch(config: Config, task: Any, examples: Any) -> Work:
    """Returns an epoch over the examples, as `train.fit` runs it."""
    finetuning = config.finetuning()
    rows = _rows(config, task, examples)
    per_step = config.batch_size * len(rows.example_index) / len(examples.texts)
    batch = max(round(per_step), 1)
    steps = len(rows.example_index) // batch
    arguments = trainer.fit_arguments(finetuning, task, Plan(10_000, 10_000, batch))
    learner = arguments["learner"]
    program = Program(
        train_step.scan_steps(train_step.make_step(learner), data.take), donate=(0,)
    )
    arrays = jax.device_put(rows.arrays)
    indices = np.arange(steps * batch).reshape(steps, batch)
    state = train_step.init_state(learner, jax.random.key(0), 0)

    def run(_: None) -> Any:
        nonlocal state
        state, losses = program(state, arrays, indices)
        return jax.block_until_ready(losses)

    return Work(run)


def _rows(config: Config, task: Any, examples: Any) -> Any:
    """Returns the examples packed into rows, with the token ids of the task."""
    finetuning, tokenizer = config.finetuning(), task.tokenizer
    labels = label_ids(config.train, examples, task.label_names)
    encoded = text_parts.encode(config.task, tokenizer, examples, finetuning.max_length)
    options = packing_options(
        finetuning, task.checkpoint, "train", encoded.tokens, len(examples.texts)
    )
    rows = pack(encoded, labels, **options)
    tokens = np.searchsorted(task.vocab_ids, rows.arrays["x/tokens"])
    rows.arrays["x/tokens"] = tokens.astype(np.int32)
    return rows


def _scores(config: Config, task: Any, recipes: Any) -> Any:
    """Trains both in full; prints and returns the table of test scores."""
    if "test" not in task.examples:
        raise InputError("test: is required with scores")
    scores = {"ffnlab": _our_scores(config)}
    if recipes:
        scores["transformers"] = _their_scores(config, task, recipes)
    rows = [
        [name, f"{100 * np.median(seeds):.2f}",
         ", ".join(f"{100 * score:.2f}" for score in sorted(seeds))]
        for name, seeds in scores.items()
    ]  # fmt: skip
    title = f"test {task.monitor}, %: median"
    table = Table(["", title, "by seed"], rows, words=1)
    table.show(f"{config.epochs} epochs, {config.seeds} seeds")
    return table


def _our_scores(config: Config) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        finetuning = config.finetuning(seeds=config.seeds, out=f"{folder}/run")
        seeds = finetune.run(finetuning).scores["test"]
    return [scores["headline"] for scores in seeds]


def _their_scores(config: Config, task: Any, recipes: Any) -> list[float]:
    recipe, seeds = _recipe(config, task, recipes, None), []
    for seed in range(config.seeds):
        model = recipe.train(seed, config.epochs, config.learning_rate)
        labels = recipe.predict(model, task.examples["test"].texts)
        if config.task == "tag":
            labels = [label for sentence in labels for label in sentence]
        predicted = np.array(labels), np.ones(len(labels))
        score = task.score("test", predicted)["headline"]
        print(f"transformers, seed {seed}: {100 * score:.2f}", flush=True)
        seeds.append(score)
    return seeds


if __name__ == "__main__":
    launch.main(Config, run, __doc__)
