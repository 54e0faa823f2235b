"""Labels by a fine-tuned encoder: the data, the training and the report."""

import dataclasses
import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from experiments.training import check_finite, dropouts, follow
from ffnlab import (
    checkpoint,
    data,
    finetuning,
    pretrained,
    report,
    reports,
    train,
)
from ffnlab.data.dataset import Dataset
from ffnlab.data.labelled import (
    PARTS,
    Columns,
    Examples,
    label_ids,
    label_names,
    read_labelled,
)
from ffnlab.data.places import Rows, pack
from ffnlab.data.tokens import Encoded, Tokenizer, read_tokenizer
from ffnlab.errors import InputError
from ffnlab.heads import LabelConfig, Predictor, labeller
from ffnlab.pretrained import Checkpoint
from ffnlab.record import Plan
from ffnlab.report import Table
from ffnlab.types import Model, Params

if TYPE_CHECKING:
    from experiments.finetune import Config


class Job(NamedTuple):
    """What is trained, on what.

    Attributes:
      task: classify, pairs or tag.
      names: of the labels.
      examples: by part, as they were read.
      labels: by part, as numbers; −1 is one that training does not show.
      rows: by part, packed; tokens are numbered by their place in `used`.
      used: the tokens that occur in any part, ascending: the others have no gradient,
        and their embeddings wait outside until the end.
      found: the checkpoint.
      shape: what the labeller is made of, its vocabulary being `used`.
      told: what a reader should know of the data.
      digest: of all arrays.
    """

    task: str
    names: list[str]
    examples: dict[str, Examples]
    labels: dict[str, list]
    rows: dict[str, Rows]
    used: np.ndarray
    found: Checkpoint
    shape: LabelConfig
    told: str
    digest: str


class Run(NamedTuple):
    """One seed's training.

    Attributes:
      seed: its number.
      params: the best by the dev part.
      record: what was written down.
      scores: by part, see `score`.
      predicted: by part, a label number and a probability for each place.
      seconds: of a step, without compiling.
    """

    seed: int
    params: Params
    record: Any
    scores: dict[str, dict[str, Any]]
    predicted: dict[str, tuple[np.ndarray, np.ndarray]]
    seconds: float


def encode(task: str, tokenizer: Tokenizer, found: Examples, length: int) -> Encoded:
    """Returns the tokens of examples."""
    if task == "tag":
        return tokenizer.words(found.texts, length)
    return tokenizer.texts(found.texts, found.pairs or None, length)


def prepare(config: "Config") -> Job:
    """Reads all files and packs them; everything that can be wrong is found here."""
    examples = _examples(config)
    names = label_names(examples["train"], config.task)
    options = dropouts(config.dropout)
    found = pretrained.load(
        config.checkpoint,
        head=False,
        pooler=None if config.task != "tag" else False,
        remat=config.remat,
        **options,
    )
    if found.config.causal:
        raise InputError(f"--checkpoint: {config.checkpoint}: not an encoder")
    finetuning.frozen_patterns(config.freeze, found.config.layers)
    tokenizer = read_tokenizer(config.checkpoint)
    _check_length(config, found)
    labels, rows, told = {}, {}, []
    for part, each in examples.items():
        ignore = part != "train" and config.unseen_labels == "ignore"
        labels[part] = label_ids(str(_path(config, part)), each, names, ignore)
        encoded = encode(config.task, tokenizer, each, config.length)
        rows[part] = pack(encoded, labels[part], config.length)
        told.append(_told(part, each, encoded, rows[part]))
    used = _renumbered(rows)
    shape = LabelConfig(
        dataclasses.replace(found.config, vocabulary=len(used)),
        len(names),
        config.head,
        config.head_hidden,
        found.config.dropout,
        config.gradient,
    )
    digest = hashlib.sha256()
    for part in rows.values():
        for name, array in sorted(part.arrays.items()):
            digest.update(name.encode() + array.tobytes())
    return Job(config.task, names, examples, labels, rows, used, found, shape,
               "\n".join(told), digest.hexdigest())  # fmt: skip


def _renumbered(rows: dict[str, Rows]) -> np.ndarray:
    """Numbers the tokens of rows anew, in place; returns the old ones by new number."""
    every = [np.unique(part.arrays["x/tokens"]) for part in rows.values()]
    used = np.unique(np.concatenate(every))
    for part in rows.values():
        tokens = np.searchsorted(used, part.arrays["x/tokens"])
        part.arrays["x/tokens"] = tokens.astype(np.int32)
    return used


def _path(config: "Config", part: str) -> str:
    return getattr(config, part) or config.train


def _examples(config: "Config") -> dict[str, Examples]:
    """Returns the parts that there are."""
    columns = Columns(config.text_column, config.pair_column, config.label_column)
    if config.split:
        whole = read_labelled(config.train, config.task, columns)
        order = data.order(config.seed, 0, len(whole.texts), len(whole.texts))
        ends = np.round(np.cumsum(config.split) * len(order)).astype(int)[:2]
        pieces = dict(zip(PARTS, np.split(order, ends), strict=True))
        if not all(map(len, pieces.values())):
            raise InputError(f"--split: {len(order)} examples do not fill three parts")
        return {part: whole.subset(index) for part, index in pieces.items()}
    parts = [part for part in PARTS if getattr(config, part)]
    if config.train.endswith(".json") and not config.dev:
        parts = list(PARTS)
    return {
        part: read_labelled(_path(config, part), config.task, columns, part)
        for part in parts
    }


def _check_length(config: "Config", found: Checkpoint) -> None:
    most = found.config.length
    if config.length > most and found.config.positions == "learned":
        raise InputError(
            f"--length: {config.length} is more than the {most} positions of the "
            "checkpoint"
        )


def _told(part: str, found: Examples, encoded: Encoded, rows: Rows) -> str:
    """Returns a line on a part: its size, how full its rows are, what was cut off."""
    full = rows.arrays["x/mask"].mean()
    scheme = f", tags in {found.scheme}" if found.scheme else ""
    lost = f", {encoded.lost:,} words or tokens cut off" if encoded.lost else ""
    return (
        f"{part}: {len(found.texts):,} texts in {len(rows.owner):,} rows, {full:.0%} "
        f"full{scheme}{lost}"
    )


def score(job: Job, part: str, labels: np.ndarray) -> dict[str, Any]:
    """Returns the report of predictions, `[count]`, `headline` among them."""
    if job.task != "tag":
        found = reports.classes(labels, job.labels[part], job.names)
        return {"headline": found["accuracy"], **found}
    gold = job.examples[part].labels
    predicted = in_sentences(labels, gold, job.names)
    words = reports.words(predicted, gold, job.names)
    if job.examples["train"].scheme is None:
        return {"headline": words["accuracy"], **words}
    found = reports.spans(predicted, gold)
    return {"headline": found["f1"], **found, "words": words}


def in_sentences(labels: np.ndarray, like: list, names: list[str]) -> list[list[str]]:
    """Returns predicted tags by sentence; words that were cut off have the first."""
    flat, place, found = [names[k] for k in labels], 0, []
    for row in like:
        found.append(flat[place : place + len(row)])
        place += len(row)
    return found


def headline(job: Job) -> str:
    """Returns what the best epoch is chosen by."""
    spans = job.task == "tag" and job.examples["train"].scheme
    return "span F1" if spans else "accuracy"


class Judge:
    """Scores parameters on the dev part, on the host, for `train.fit`."""

    def __init__(self, job: Job, model: Model, batch: int):
        self._job, self._rows = job, job.rows["dev"]
        self._predict = Predictor(model, self._rows.arrays, batch)

    def outputs(self, params: Params, arrays: Any) -> dict[str, None]:
        """Returns the names of the scores."""
        return {"headline": None}

    def __call__(self, params: Params, arrays: Any) -> dict[str, float]:
        """Returns the scores."""
        labels = self._rows.flat(self._predict(params)[0])
        return {"headline": score(self._job, "dev", labels)["headline"]}


def trained(config: "Config", job: Job, directory: Path) -> list[Run]:
    """Trains each seed in turn, and scores its best epoch."""
    plan = _plan(config, job)
    with report.Progress(plan.steps * config.seeds, "steps") as progress:
        return [
            _one(config, job, directory, seed, plan, progress)
            for seed in range(config.seeds)
        ]


def _plan(config: "Config", job: Job) -> Plan:
    """Returns how long to train; a batch is the rows of about so many texts."""
    texts, rows = len(job.examples["train"].texts), len(job.rows["train"].owner)
    batch = min(max(round(config.batch_size * rows / texts), 1), rows)
    steps = config.steps or max(round(config.epochs * rows / batch), 1)
    looks = config.evaluations or max(round(steps * batch / rows), 1)
    return Plan(
        steps,
        -(-steps // looks),
        batch,
        patience=config.patience,
        monitor="headline",
        higher_is_better=True,
    )


def _one(
    config: "Config",
    job: Job,
    directory: Path,
    seed: int,
    plan: Plan,
    progress: report.Progress,
) -> Run:
    """Trains one seed."""
    key, model = jax.random.key(config.seed), begun(job)
    rates = finetuning.rates_of(
        jax.eval_shape(model.init, key),
        job.found.config.layers,
        config.layer_decay,
        config.freeze,
    )
    optimizer = config.make_optimizer(
        plan.steps, flat=False, learning_rate=config.learning_rate
    )
    progress.begin(f"seed {seed}")
    fitted = train.fit(
        finetuning.frozen(model, rates),
        finetuning.objective(config.label_smoothing, _weights(config, job)),
        finetuning.scaled(optimizer, rates),
        _dataset(config, job),
        plan,
        seed=seed,
        key=key,
        checkpoints=checkpoint.Checkpoints(
            directory / "checkpoints" / str(seed), seconds=60.0
        ),
        watch=follow(progress, plan, "headline", headline(job) + " {:.2%}"),
        evaluate=Judge(job, model, plan.batch),
    )
    check_finite(fitted.record, config.learning_rate)
    predicted = predictions(job, model, fitted.best, plan.batch)
    scores = {part: score(job, part, labels) for part, (labels, _) in predicted.items()}
    return Run(seed, fitted.best, fitted.record, scores, predicted,
               fitted.seconds_per_step)  # fmt: skip


def _dataset(config: "Config", job: Job) -> Dataset:
    """Returns the rows as what `train.fit` takes; it does not look at the test part."""
    seen, chosen = (job.rows[part].arrays for part in ("train", "dev"))
    name = Path(config.train).name
    return Dataset(name, seen, chosen, {}, "classes", 1, len(job.names), {})


def _weights(config: "Config", job: Job) -> list[float] | None:
    if config.class_weights == "none":
        return None
    labels = job.rows["train"].arrays["y"].ravel()
    return finetuning.balanced(labels[labels >= 0], len(job.names))


def begun(job: Job) -> Model:
    """Returns the labeller that begins with the checkpoint's encoder."""
    model = labeller(job.shape)

    def init(key: jax.Array) -> Params:
        encoder = finetuning.trimmed(job.found.params, job.used)
        return {**model.init(key), "encoder": jax.tree.map(jax.numpy.array, encoder)}

    return Model(init, model.apply)


def predictions(
    job: Job, model: Model, params: Params, batch: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns labels and probabilities of dev and test, in the order of the files."""
    found = {}
    for part in [part for part in ("dev", "test") if part in job.rows]:
        labels, chances = Predictor(model, job.rows[part].arrays, batch)(params)
        rows = job.rows[part]
        found[part] = rows.flat(labels), rows.flat(chances, 0.0)
    return found


def publish(config: "Config", job: Job, directory: Path, runs: list[Run]) -> Table:
    """Prints and writes the tables, the pictures, the predictions and the model."""
    from experiments import labels_report

    best = max(runs, key=lambda run: run.scores["dev"]["headline"])
    _save(config, job, best, directory)
    table = labels_report.publish(config, job, directory, runs, best)
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    return table


def _save(config: "Config", job: Job, best: Run, directory: Path) -> None:
    """Writes best/, a checkpoint directory with the head and how to use it."""
    folder = directory / "best"
    shutil.rmtree(folder, ignore_errors=True)
    kind = {"tag": "TokenClassification"}.get(job.task, "SequenceClassification")
    about: dict[str, Any] = {
        "id2label": {str(number): name for number, name in enumerate(job.names)},
        "label2id": {name: number for number, name in enumerate(job.names)},
        "ffnlab_labels": {
            "task": job.task,
            "head": config.head,
            "hidden": config.head_hidden,
            "length": config.length,
            "scheme": job.examples["train"].scheme,
            "text_column": config.text_column,
            "pair_column": config.pair_column,
        },
    }
    stem = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert"}
    if job.found.family in stem and config.head == "linear":
        about["architectures"] = [f"{stem[job.found.family]}For{kind}"]
    pretrained.save(
        folder,
        job.found.config,
        finetuning.restored(best.params["encoder"], job.found.params, job.used),
        like=job.found,
        classifier=best.params["head"],
        about=about,
    )
