"""Training, evaluation and report of a language model, for `pretrain.run`."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab.escape import markdown, markdown_block, terminal, terminal_lines
from ffnlab.report.progress import Progress, progress_callback
from ffnlab.report.trackers import Tracker

if TYPE_CHECKING:
    from ffnlab.data import Dataset
    from ffnlab.data.corpus import Tokenizes
    from ffnlab.models.transformer import TransformerConfig
    from ffnlab.pretrain.config import Config
    from ffnlab.pretrained.checkpoint import Checkpoint
    from ffnlab.report.table import Table
    from ffnlab.train.evaluation import Evaluate
    from ffnlab.train.loop import Hooks
    from ffnlab.train.record import Plan, Record
    from ffnlab.train.sharding import Layout
    from ffnlab.types import Model, Objective, Params


class Job(NamedTuple):
    """Model, data and tokenizer of a run.

    Attributes:
      transformer: Configuration of the Transformer.
      model: The language model as pure functions.
      dataset: Windows of text.
      tokenizer: The tokenizer of the text.
      checkpoint: The checkpoint to continue from, if any.
    """

    transformer: "TransformerConfig"
    model: "Model"
    dataset: "Dataset"
    tokenizer: "Tokenizes"
    checkpoint: "Checkpoint | None"

    def objective(self, part: str) -> "Objective":
        """Returns the objective for a part of the data."""
        from ffnlab.models import language_model

        return language_model.objective(self.dataset.about["tokens_per_byte"][part])


_TAGS = {"loss": "valid/loss", "bits": "valid/bits", "accuracy": "valid/accuracy"}


def train(
    config: "Config",
    job: Job,
    directory: Path,
    tracker: Tracker,
    layout: "Layout | None" = None,
) -> "tuple[Params, Record | None]":
    """Returns the parameters with the best validation score, and the record."""
    import jax

    from ffnlab.train import loop, placement

    model = _model(job)
    key = jax.random.key(config.seed)
    if not config.steps:
        return model.init(key), None
    objective = job.objective("valid")
    plan = config.plan(job.dataset, objective)
    with Progress(plan.steps, "steps") as progress:
        progress.begin(job.dataset.name, compiling=True)
        fitted = loop.fit(
            loop.Learner(
                model,
                objective,
                config.make_optimizer(plan.steps, flat=False),
                independent=True,
            ),
            job.dataset,
            plan,
            learning_rate=config.learning_rate,
            key=key,
            evaluator=placement.on_mesh(
                _evaluate(config, job, "valid", layout), layout
            ),
            hooks=_hooks(config, directory, plan, tracker, progress),
            layout=layout,
        )
    return fitted.best, fitted.record


def _model(job: Job) -> "Model":
    """Returns the model of a job; a checkpoint gives its initial values, if any."""
    import jax

    from ffnlab.types import Model

    if not job.checkpoint:
        return job.model

    def init(key: jax.Array) -> "Params":  # copies, since training donates them
        return jax.tree.map(jax.numpy.array, job.checkpoint.params)

    return Model(init, job.model.apply)


def _hooks(
    config: "Config",
    directory: Path,
    plan: "Plan",
    tracker: Tracker,
    progress: Progress,
) -> "Hooks":
    """Returns the checkpoints of a run, its progress and what is tracked of it."""
    from ffnlab.train import loop
    from ffnlab.train.checkpoint import Checkpoints

    rates = config.rate_curve(plan.steps, config.learning_rate)
    show = progress_callback(progress, plan, "bits", "valid {:.3f} bits")
    return loop.Hooks(
        Checkpoints(directory / "checkpoints", 60.0, config.strict_resume),
        tracker.callback(plan, rates, _TAGS, also=show),
    )


def score(config: "Config", job: Job, part: str, params: "Params") -> dict[str, float]:
    """Returns the mean scores of a part, and its perplexity per token."""
    import jax
    import numpy as np

    arrays = jax.device_put(getattr(job.dataset, part))
    scores = jax.jit(_evaluate(config, job, part))(params, arrays)
    means = {name: float(value) for name, value in scores.items()}
    with np.errstate(over="ignore"):
        return {**means, "perplexity": float(np.exp(means["loss"]))}


def _evaluate(
    config: "Config", job: Job, part: str, layout: "Layout | None" = None
) -> "Evaluate":
    """Returns a function that scores parameters on a part, in batches."""
    from ffnlab import data
    from ffnlab.train.evaluation import make_evaluate
    from ffnlab.train.train_step import take_along

    size, take = data.size(getattr(job.dataset, part)), take_along(layout)
    return make_evaluate(job.model, job.objective(part), take, size, config.batch_size)


def generate_samples(config: "Config", job: Job, params: "Params") -> list[str]:
    """Returns texts that the model generates; none if it is not causal."""
    if config.masked or not config.samples:
        return []
    import jax
    import jax.numpy as jnp
    import numpy as np

    from ffnlab.models import decoding

    prompt = job.tokenizer.stream(config.prompt.encode()).tokens
    steps = min(config.sample_length, job.transformer.length - len(prompt))
    rows = jnp.tile(jnp.asarray(prompt)[None], (config.samples, 1))
    if config.num_beams:
        width = max(config.num_beams, config.samples)
        beams, _ = decoding.beam_search(
            job.transformer,
            params,
            rows[:1],
            steps,
            width=width,
            stop=job.tokenizer.end,
        )
        texts = beams[0, : config.samples]
    else:
        texts = decoding.generate(
            job.transformer,
            params,
            rows,
            steps,
            key=jax.random.key(config.seed),
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
            stop=job.tokenizer.end,
        )
    return [job.tokenizer.decode(row[row >= 0].tolist()) for row in np.asarray(texts)]


def save(config: "Config", job: Job, params: "Params", directory: Path) -> None:
    """Writes the model as a checkpoint directory, in place of an older one."""
    import jax

    from ffnlab.models.layer_stack import with_scan
    from ffnlab.pretrained import checkpoint

    best, like = directory / "best", job.checkpoint
    shutil.rmtree(best, ignore_errors=True)
    transformer, params = with_scan(job.transformer, jax.device_get(params), False)
    family = like.family if like else checkpoint.family_of(transformer)
    checkpoint.save(best, transformer, params, family=family, like=like)
    if not like and hasattr(job.tokenizer, "save"):
        job.tokenizer.save(best)


def publish(
    config: "Config",
    job: Job,
    directory: Path,
    record: "Record | None",
    scores: dict[str, dict[str, float]],
    samples: list[str],
) -> "Table":
    """Prints the results; writes report.md, results.jsonl, the plot and the samples.

    If the loss was not finite, it says so, and writes the windows of that batch.

    Returns:
      The table of scores.
    """
    from ffnlab import io

    table, lines = _table(job, scores), []
    xz = job.dataset.about.get("xz_bits_per_byte")
    note = f"xz packs the test part to {xz:.3f} bits per byte." if xz else ""
    note = " ".join(filter(None, (note, _failure(config, job, record, directory))))
    print()
    table.show("scores of the best parameters on held-out text")
    print(f"\n{note}" if note else "")
    if record:
        interval = config.plan(job.dataset, job.objective("valid")).every
        lines = _evaluation_lines(record, interval)
    curve = bool(lines)
    if curve:
        _plot(record, lines, xz, directory)
    lines += [{"part": part, **means} for part, means in scores.items()]
    io.write_lines(directory / "results.jsonl", lines)
    for number, sample in enumerate(samples, 1):
        print(f"--- sample {number} {'-' * 60}\n{terminal_lines(sample)}")
    if samples:
        io.write(directory / "samples.txt", "\n\n".join(samples) + "\n")
    io.write(directory / "report.md", _report(job, table, note, curve, samples))
    names = ", ".join(sorted(_visible(directory)))
    print(terminal(f"written to {directory}: {names}"))
    return table


def _failure(
    config: "Config", job: Job, record: "Record | None", directory: Path
) -> str:
    """Writes the windows at which the loss was not finite; returns a sentence on it."""
    import numpy as np

    from ffnlab import data
    from ffnlab.train import divergence

    found = record and divergence.divergence_of(record)
    if not found:
        return ""
    train, plan = job.dataset.train, config.plan(job.dataset, job.objective("valid"))

    def contents(rows: Any) -> dict[str, Any]:
        return {"windows": [{"number": n + 1, "text": text(n)} for n in rows.tolist()]}

    def text(row: int) -> str:
        window = data.rows(train, np.array([row]))
        tokens = window["x/tokens"][window["x/mask"]]
        return job.tokenizer.decode(tokens.tolist())[:80]

    rate, size = config.learning_rate, data.size(train)
    described = divergence.describe(record, plan, 0, rate, size, contents)
    divergence.write(directory, [{**described, "seed": config.seed}])
    return f"{found} {divergence.NAME} has the batch."


def _visible(directory: Path) -> list[str]:
    hidden = ("lock", "data.sha256", "checkpoints")
    return [path.name for path in directory.iterdir() if path.name not in hidden]


def _table(job: Job, scores: dict[str, dict[str, float]]) -> "Table":
    from ffnlab import data
    from ffnlab.report.table import Table

    rows = [
        [
            part,
            f"{data.size(getattr(job.dataset, part)):,}",
            f"{means['loss']:.4f}",
            f"{means['perplexity']:.3f}",
            f"{100 * means['accuracy']:.2f}",
            f"{means['bits']:.4f}",
        ]
        for part, means in scores.items()
    ]
    columns = [
        "part",
        "windows",
        "nats/token",
        "perplexity",
        "accuracy, %",
        "bits/byte",
    ]
    return Table(columns, rows, words=1)


def _evaluation_lines(record: "Record", interval: int) -> list[dict[str, Any]]:
    """Returns a line of results.jsonl for each evaluation."""
    import numpy as np

    steps, lines, failed = len(record.loss), [], int(record.diverged)
    for index, start in enumerate(range(0, steps, interval)):
        end = min(start + interval, steps)
        scores = {name: float(curve[index]) for name, curve in record.scores.items()}
        if failed >= 0 and not np.isfinite(scores["loss"]):
            break
        if 0 <= failed < end:  # evaluated before that step
            end = int(record.best_step)
        loss = float(np.mean(record.loss[max(end - interval, 0) : end]))
        lines.append({"step": end, "train_loss": loss, **scores})
    return lines


def _plot(
    record: "Record", lines: list[dict[str, Any]], xz: float | None, directory: Path
) -> None:
    """Writes curve.png, the bits per byte over training."""
    import numpy as np

    from ffnlab.report import plots

    bits_per_nat = lines[0]["bits"] / lines[0]["loss"]
    figure = plots.training_curve(
        record.loss * bits_per_nat,
        [line["step"] for line in lines],
        np.array([line["bits"] for line in lines]),
        "bits per byte",
        {"xz": xz} if xz else {},
    )
    plots.save(figure, directory / "curve.png")


def _report(
    job: Job, table: "Table", note: str, curve: bool, samples: list[str]
) -> str:
    """Returns report.md."""
    from ffnlab.nn import pure

    transformer, about = job.transformer, job.dataset.about
    kind = "causal" if transformer.causal else "masked"
    blocks = ", ".join(dict.fromkeys(transformer.blocks))
    title = (
        f"How well does a {kind} Transformer with {blocks} learn {job.dataset.name}?"
    )
    picture = "![bits per byte over training](curve.png)\n\n" if curve else ""
    generated = "".join(f"{markdown_block(sample)}\n\n" for sample in samples)
    return f"""# {markdown(title)}

{table.markdown()}

{note}

{picture}The model has {transformer.layers} layers of width {transformer.features},
{transformer.heads} heads, {transformer.positions} positions, blocks of hidden width
{transformer.hidden}, {pure.parameters(job.model):,} parameters and
{transformer.vocabulary:,} tokens. The text is {markdown(about["source"])},
{sum(about["sizes"].values()):,} bytes. Perplexity is per token, bits are per byte of
the text.

{generated}"""
