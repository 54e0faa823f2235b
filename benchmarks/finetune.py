"""How fast and how well is a checkpoint fine-tuned, beside the recipe of transformers?

The same checkpoint, texts, batch size, epochs and rates. Times are of an epoch over
the first texts of the training part, run in turn. With --scores both are trained in
full, in several seeds, and scored on the test part by the same code.

    python -m benchmarks.finetune --checkpoint=minilm --train=train.conll \\
        --dev=dev.conll --test=test.conll
    python -m benchmarks.finetune --checkpoint=minilm --task=classify \\
        --train=intents.json
    python -m benchmarks.finetune ... --scores --seeds=3
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from benchmarks import protocol
from benchmarks.protocol import Entry, Work
from experiments import launch
from ffnlab import finetune, options
from ffnlab.errors import InputError
from ffnlab.finetune import runner
from ffnlab.options import option
from ffnlab.train.record import Plan


@dataclasses.dataclass(frozen=True)
class Config(protocol.Config):
    """What to train on; each field is a flag."""

    task: str = option("tag", "tag or classify", known=lambda: ("tag", "classify"))
    checkpoint: str | None = option(None, "a directory of a BERT; needed")
    train: str | None = option(None, "a file, as experiments.finetune reads it; needed")
    dev: str | None = option(None, "likewise")
    test: str | None = option(None, "likewise")
    texts: int = option(512, "how many texts an epoch has that is timed", least=16)
    batch_size: int = option(16, "texts a step", least=1)
    learning_rate: float = option(5e-5, "at its peak", above=0)
    epochs: int = option(3, "of a run that is scored", least=1)
    seeds: int = option(3, "runs that are scored", least=1)
    scores: bool = option(False, "train in full and compare scores, instead of times")

    def __post_init__(self):
        options.check(self)
        for name in ("checkpoint", "train"):
            if not getattr(self, name):
                raise InputError(f"--{name}: needed; --help says what it is")

    def asked(self, **more: Any) -> finetune.Config:
        """Returns the same as a fine-tuning of ours."""
        names = ("task", "checkpoint", "train", "dev", "test", "batch_size", "epochs")
        given = {name: getattr(self, name) for name in (*names, "learning_rate")}
        return finetune.Config(**given, **more)


def run(config: Config) -> Any:
    """Prints the times, or the scores, and returns the table."""
    protocol.use_cpu()
    protocol.describe()
    task = runner.prepare(config.asked())
    if not protocol.has_torch():
        recipes = None
    else:
        from benchmarks import recipe as recipes
    return (_scores if config.scores else _times)(config, task, recipes)


def _recipe(config: Config, task: Any, recipes: Any, texts: int | None) -> Any:
    found = task.examples["train"]
    return recipes.Recipe(
        config.checkpoint,
        config.task,
        len(task.names),
        found.texts[:texts],
        task.labels["train"][:texts],
        config.batch_size,
        config.asked().most,
    )


def _times(config: Config, task: Any, recipes: Any) -> Any:
    part = task.examples["train"].subset(range(config.texts))
    entries = [Entry("ffnlab", "packed rows, a scan", _ours(config, task, part),
                     len(part.texts), None, False)]  # fmt: skip
    if recipes:
        recipe, threads = _recipe(config, task, recipes, config.texts), protocol.cores()
        work = recipes.epoch(recipe, threads, config.learning_rate)
        target = 1 / 2 if config.task == "tag" else 1 / 1.5
        setting = f"padded to the longest, {threads} threads"
        entries.append(Entry("transformers", setting, work, len(part.texts), target))
    for each in entries:
        each.work.once()  # compiles
    return protocol.contest("training, a text", "µs", entries, config)


def _ours(config: Config, task: Any, part: Any) -> Work:
    """Returns an epoch as `train.fit` runs it."""
    from ffnlab import data
    from ffnlab.data.examples import label_ids
    from ffnlab.data.packed_rows import pack
    from ffnlab.finetune import classification, trainer
    from ffnlab.finetune.task import packing_options
    from ffnlab.train import loop

    asked = config.asked()
    labels = label_ids(config.train, part, task.names)
    encoded = classification.encode(config.task, task.tokenizer, part, asked.most)
    how = packing_options(asked, task.found, "train", encoded.tokens, len(part.texts))
    rows = pack(encoded, labels, **how)
    tokens = np.searchsorted(task.used, rows.arrays["x/tokens"])
    rows.arrays["x/tokens"] = tokens.astype(np.int32)
    count = max(round(config.batch_size * len(rows.example_index) / len(part.texts)), 1)
    steps = len(rows.example_index) // count
    given = trainer.fit_arguments(asked, task, Plan(10_000, 10_000, count))
    model, optimizer = given["model"], given["optimizer"]
    step = loop.make_step(model, task.objective, optimizer, given["gradient"])
    many = loop.Program(loop.scan_steps(step, data.take), donate=(0,))
    arrays = jax.device_put(rows.arrays)
    indices = np.arange(steps * count).reshape(steps, count)
    state = loop.init_state(model, optimizer, jax.random.key(0), 0)

    def run(_: None) -> Any:
        nonlocal state
        state, losses = many(state, arrays, indices)
        return jax.block_until_ready(losses)

    return Work(run)


def _scores(config: Config, task: Any, recipes: Any) -> Any:
    """Trains both in full, and prints their scores on the test part."""
    import tempfile

    from ffnlab.report.table import Table

    if "test" not in task.examples:
        raise InputError("--test: needed with --scores")
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/run"
        asked = config.asked(seeds=config.seeds, out=out)
        ours = [each["headline"] for each in runner.run(asked).scores["test"]]
    found = {"ffnlab": ours}
    if recipes:
        recipe, theirs = _recipe(config, task, recipes, None), []
        for seed in range(config.seeds):
            model = recipe.trained(seed, config.epochs, config.learning_rate)
            labels = recipe.predicted(model, task.examples["test"].texts)
            if config.task == "tag":
                labels = [k for row in labels for k in row]
            labels = np.array(labels)
            score = task.score("test", (labels, np.ones(len(labels))))["headline"]
            print(f"transformers, seed {seed}: {100 * score:.2f}", flush=True)
            theirs.append(score)
        found["transformers"] = theirs
    rows = [
        [name, f"{100 * np.median(each):.2f}",
         ", ".join(f"{100 * score:.2f}" for score in sorted(each))]
        for name, each in found.items()
    ]  # fmt: skip
    title = f"test {task.monitor}, %: median"
    table = Table(["", title, "each seed"], rows, words=1)
    table.show(f"{config.epochs} epochs, {config.seeds} seeds")
    return table


if __name__ == "__main__":
    launch.main(Config, run, __doc__)
