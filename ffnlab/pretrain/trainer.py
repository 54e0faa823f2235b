"""A language model's training, and what is told of it, for experiments.pretrain."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab.report.progress import progress_callback
from ffnlab.train.record import check_finite

if TYPE_CHECKING:
    from ffnlab.data import Dataset
    from ffnlab.data.corpus import Tokenizes
    from ffnlab.models.transformer import TransformerConfig
    from ffnlab.pretrain.config import Config
    from ffnlab.pretrained.checkpoint import Checkpoint
    from ffnlab.report.table import Table
    from ffnlab.train.evaluation import Evaluate
    from ffnlab.train.record import Record
    from ffnlab.types import Model, Objective, Params


class Job(NamedTuple):
    """What is trained, on what.

    Attributes:
      shape: what the Transformer is made of.
      model: it, as what `train.fit` takes.
      dataset: windows of text.
      tokenizer: what made its tokens.
      found: the checkpoint to go on from, if any.
    """

    shape: "TransformerConfig"
    model: "Model"
    dataset: "Dataset"
    tokenizer: "Tokenizes"
    found: "Checkpoint | None"

    def objective(self, part: str) -> "Objective":
        """Returns what a part is scored by."""
        from ffnlab.models import language_model

        return language_model.objective(self.dataset.about["tokens_per_byte"][part])


def train(
    config: "Config", job: Job, directory: Path
) -> "tuple[Params, Record | None]":
    """Returns the best parameters by the validation part, and the record."""
    import jax

    from ffnlab.report.progress import Progress
    from ffnlab.train import loop
    from ffnlab.train.checkpoint import Checkpoints
    from ffnlab.train.program import Program
    from ffnlab.types import Model

    model = job.model
    if job.found:
        model = Model(lambda key: jax.tree.map(jax.numpy.array, job.found.params),
                      model.apply)  # fmt: skip
    key = jax.random.key(config.seed)
    if not config.steps:
        return model.init(key), None
    objective = job.objective("valid")
    plan = config.plan(job.dataset, objective)
    with Progress(plan.steps, "steps") as progress:
        progress.begin(job.dataset.name)
        fitted = loop.fit(
            loop.Learner(
                model, objective, config.make_optimizer(plan.steps, flat=False)
            ),
            job.dataset,
            plan,
            learning_rate=config.learning_rate,
            key=key,
            evaluator=Program(_evaluate(config, job, "valid")),
            hooks=loop.Hooks(
                Checkpoints(directory / "checkpoints", seconds=60.0),
                progress_callback(progress, plan, "bits", "valid {:.3f} bits"),
            ),
        )
    check_finite(fitted.record, config.learning_rate)
    return fitted.best, fitted.record


def score(config: "Config", job: Job, part: str, params: "Params") -> dict[str, float]:
    """Returns the mean scores of a part, and its perplexity by token."""
    import jax
    import numpy as np

    arrays = jax.device_put(getattr(job.dataset, part))
    found = jax.jit(_evaluate(config, job, part))(params, arrays)
    means = {name: float(value) for name, value in found.items()}
    return {**means, "perplexity": float(np.exp(means["loss"]))}


def _evaluate(config: "Config", job: Job, part: str) -> "Evaluate":
    """Returns what scores parameters on a part, `--batch_size` windows at a time."""
    from ffnlab import data
    from ffnlab.train.evaluation import make_evaluate

    size = data.size(getattr(job.dataset, part))
    return make_evaluate(
        job.model, job.objective(part), data.take, size, config.batch_size
    )


def generate_samples(config: "Config", job: Job, params: "Params") -> list[str]:
    """Returns what the model writes."""
    if config.masked or not config.samples:
        return []
    import jax
    import jax.numpy as jnp

    from ffnlab.models import decoding

    prompt = job.tokenizer.stream(config.prompt.encode()).tokens
    steps = min(config.sample_length, job.shape.length - len(prompt))
    rows = jnp.tile(jnp.asarray(prompt)[None], (config.samples, 1))
    if config.num_beams:
        width = max(config.num_beams, config.samples)
        found, _ = decoding.beam_search(
            job.shape, params, rows[:1], steps, width=width, stop=job.tokenizer.end
        )
        found = found[0, : config.samples]
    else:
        found = decoding.generate(
            job.shape,
            params,
            rows,
            steps,
            key=jax.random.key(config.seed),
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
            stop=job.tokenizer.end,
        )
    return [job.tokenizer.decode(row.tolist()) for row in found]


def save(config: "Config", job: Job, params: "Params", directory: Path) -> None:
    """Writes the model as a checkpoint directory, in place of an older one."""
    best = directory / "best"
    shutil.rmtree(best, ignore_errors=True)
    from ffnlab.pretrained import checkpoint

    kind = job.found.family if job.found else checkpoint.family_of(job.shape)
    checkpoint.save(best, job.shape, params, family=kind, like=job.found)
    if config.tokenizer:
        job.tokenizer.save(best)


def publish(
    config: "Config",
    job: Job,
    directory: Path,
    record: "Record | None",
    scores: dict[str, dict[str, float]],
    samples: list[str],
) -> "Table":
    """Prints what was found, and writes report.md, the picture and the samples."""
    from ffnlab import io

    table, lines = _table(job, scores), []
    xz = job.dataset.about.get("xz_bits_per_byte")
    mark = f"xz packs the test part to {xz:.3f} bits per byte." if xz else ""
    print()
    table.show("what the best parameters score on text kept apart")
    print(f"\n{mark}" if mark else "")
    if record:
        every = config.plan(job.dataset, job.objective("valid")).every
        lines = _drawn(record, every, xz, directory)
    lines += [{"part": part, **found} for part, found in scores.items()]
    io.write_lines(directory / "results.jsonl", lines)
    for number, sample in enumerate(samples, 1):
        print(f"--- sample {number} " + "-" * 60 + f"\n{sample}")
    if samples:
        io.write(directory / "samples.txt", "\n\n".join(samples) + "\n")
    io.write(directory / "report.md", _report(job, table, mark, bool(record), samples))
    print(f"written to {directory}: {', '.join(sorted(_visible(directory)))}")
    return table


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
            f"{found['loss']:.4f}",
            f"{found['perplexity']:.3f}",
            f"{100 * found['accuracy']:.2f}",
            f"{found['bits']:.4f}",
        ]
        for part, found in scores.items()
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


def _drawn(
    record: "Record", every: int, xz: float | None, directory: Path
) -> list[dict[str, Any]]:
    """Draws the curve; returns a line for each evaluation."""
    import numpy as np

    from ffnlab.report import plots

    ends = [min(s + every, len(record.loss)) for s in range(0, len(record.loss), every)]
    scores = record.scores
    lines = [
        {
            "step": end,
            "train_loss": float(np.mean(record.loss[end - every : end])),
            **{name: float(curve[place]) for name, curve in scores.items()},
        }
        for place, end in enumerate(ends)
    ]
    ratio = scores["bits"][0] / scores["loss"][0]
    marks = {"xz": xz} if xz else {}
    figure = plots.learning(record.loss * ratio, ends, scores["bits"], "bits per byte",
                            marks)  # fmt: skip
    plots.save(figure, directory / "curve.png")
    return lines


def _report(
    job: Job, table: "Table", mark: str, curve: bool, samples: list[str]
) -> str:
    from ffnlab.nn import pure

    shape, about = job.shape, job.dataset.about
    kind = "causal" if shape.causal else "masked"
    blocks = ", ".join(dict.fromkeys(shape.blocks))
    picture = "![bits per byte over training](curve.png)\n\n" if curve else ""
    written = "".join(f"```\n{sample}\n```\n\n" for sample in samples)
    title = (
        f"How well does a {kind} Transformer with {blocks} learn {job.dataset.name}?"
    )
    return f"""# {title}

{table.markdown()}

{mark}

{picture}The model: {shape.layers} layers of width {shape.features},
{shape.heads} heads, {shape.positions} positions, blocks of hidden width {shape.hidden},
{pure.parameters(job.model):,} parameters, {shape.vocabulary:,} tokens. The text:
{about["source"]}, {sum(about["sizes"].values()):,} bytes. Perplexity is of a token,
bits are of a byte of the text.

{written}"""
