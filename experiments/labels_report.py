"""What is told of fine-tuned labels: tables, pictures, predictions, the model card."""

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.labelling import Job, Run, headline, in_sentences
from ffnlab import plots, report, stats, tags
from ffnlab.report import Table

if TYPE_CHECKING:
    from experiments.finetune import Config


def publish(
    config: "Config", job: Job, directory: Path, runs: list[Run], best: Run
) -> Table:
    """Prints and writes what the runs found; the predictions are the best run's."""
    table, types = _table(job, runs), _types(job, best)
    part = "test" if "test" in best.scores else "dev"
    print()
    table.show(f"the best epoch by the dev part, {len(runs)} seeds")
    print()
    types.show(f"seed {best.seed}, {part} part, by label")
    report.write_lines(directory / "results.jsonl", [_line(run) for run in runs])
    for name, (labels, chances) in best.predicted.items():
        write_predictions(config, job, directory, name, labels, chances)
    scores = best.scores[part]
    figure = plots.by_type({k: v["f1"] for k, v in scores["types"].items()})
    plots.save(figure, directory / "types.png")
    if "confusion" in scores and len(job.names) <= 40:
        figure = plots.confusion(np.array(scores["confusion"]), job.names)
        plots.save(figure, directory / "confusion.png")
    report.write(directory / "report.md", _report(config, job, runs, table, types))
    hidden = ("lock", "data.sha256", "checkpoints")
    names = sorted(p.name for p in directory.iterdir() if p.name not in hidden)
    print(f"\nwritten to {directory}: {', '.join(names)}")
    return table


def _line(run: Run) -> dict[str, Any]:
    return {
        "seed": run.seed,
        "best_step": int(run.record.best_step),
        "dev_curve": run.record.scores["headline"].tolist(),
        "seconds_per_step": None if np.isnan(run.seconds) else run.seconds,
        **run.scores,
    }


def _columns(job: Job) -> dict[str, str]:
    """Returns the scores to show: what they are called, and their keys."""
    if headline(job) == "span F1":
        return {
            "precision": "precision",
            "recall": "recall",
            "F1": "f1",
            "macro F1": "macro",
            "weighted F1": "weighted",
            "strict F1": "strict",
        }
    return {
        "accuracy": "accuracy",
        "macro F1": "macro",
        "weighted F1": "weighted",
        "Matthews": "matthews",
    }


def _table(job: Job, runs: list[Run]) -> Table:
    """Returns a line for each part: the mean over seeds, and its interval."""
    rows = []
    for part in runs[0].scores:
        cells = []
        for key in _columns(job).values():
            values = 100 * np.array([run.scores[part][key] for run in runs])
            shown = f"{values.mean():.2f}"
            if len(values) > 1:
                low, high = stats.bootstrap_interval(values, np.mean)
                shown += f" [{low:.2f}, {high:.2f}]"
            cells.append(shown)
        rows.append([part, f"{len(job.examples[part].texts):,}", *cells])
    return Table(["part", "texts", *(f"{n}, %" for n in _columns(job))], rows, words=1)


def _types(job: Job, best: Run) -> Table:
    part = "test" if "test" in best.scores else "dev"
    types = best.scores[part]["types"]
    worst = sorted(types, key=lambda name: types[name]["f1"])
    shown = types if len(types) <= 40 else {name: types[name] for name in worst[:20]}
    rows = [
        [
            name,
            *(f"{100 * each[key]:.2f}" for key in ("precision", "recall", "f1")),
            f"{each['support']:,.0f}",
        ]
        for name, each in shown.items()
    ]
    first = "label" if len(shown) == len(types) else "label (the 20 worst)"
    return Table(
        [first, "precision, %", "recall, %", "F1, %", "support"], rows, words=1
    )


def write_predictions(
    config: "Config",
    job: Job,
    directory: Path,
    part: str,
    labels: np.ndarray,
    chances: np.ndarray,
) -> None:
    """Writes predictions in the format that the part was read in."""
    found = job.examples[part]
    kind = Path(getattr(config, part) or config.train).suffix.lower()
    if job.task == "tag" and kind != ".jsonl":
        predicted = in_sentences(labels, found.labels, job.names)
        # A part may lack a B- by chance; what touches is then to be kept apart.
        alike = found.scheme != "io" or job.examples["train"].scheme == "io"
        text = conll(found.texts, predicted, found.scheme if alike else "iob1")
        report.write(directory / f"predictions-{part}.conll", text)
        return
    if job.task == "tag":
        predicted = in_sentences(labels, found.labels, job.names)
        pairs = zip(found.texts, predicted, strict=True)
        records = [{config.text_column: w, "predicted": t} for w, t in pairs]
    else:
        records = [
            {
                config.text_column: text,
                **({config.pair_column: found.pairs[i]} if found.pairs else {}),
                "predicted": job.names[labels[i]],
                "probability": round(float(chances[i]), 6),
            }
            for i, text in enumerate(found.texts)
        ]
    kind = kind if kind in (".csv", ".tsv") else ".jsonl"
    report.write(directory / f"predictions-{part}{kind}", as_text(records, kind))


def conll(words: list[list[str]], tagged: list[list[str]], scheme: str | None) -> str:
    """Returns sentences in CoNLL columns, in the scheme they were read in.

    >>> conll([["Ada", "sings"]], [["B-PER", "O"]], "iob1")
    'Ada\\tI-PER\\nsings\\tO\\n\\n'
    """
    blocks = []
    for row, guess in zip(words, tagged, strict=True):
        shown = tags.convert(guess, "iob2", scheme) if scheme else guess
        lines = [f"{w}\t{t}\n" for w, t in zip(row, shown, strict=True)]
        blocks.append("".join(lines) + "\n")
    return "".join(blocks)


def as_text(records: list[dict[str, Any]], kind: str) -> str:
    """Returns records as CSV, TSV or JSON lines."""
    if kind == ".jsonl":
        return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    if kind == ".tsv":
        rows = [list(records[0]), *([str(v) for v in r.values()] for r in records)]
        return "".join("\t".join(row) + "\n" for row in rows)
    into = io.StringIO()
    writer = csv.DictWriter(into, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return into.getvalue()


def _report(
    config: "Config", job: Job, runs: list[Run], table: Table, types: Table
) -> str:
    name = Path(config.checkpoint).resolve().name
    told = "".join(f"- {line}\n" for line in job.told.splitlines())
    pictures = "![F1 by label](types.png)\n"
    if "confusion" in runs[0].scores["dev"] and len(job.names) <= 40:
        pictures += "![confusion of labels](confusion.png)\n"
    shape = job.found.config
    return f"""# What does {name} make of {Path(config.train).name}?

{table.markdown()}

{types.markdown()}

{pictures}
Fine-tuned: a {job.found.family} of {shape.layers} layers of width {shape.features},
with a {config.head} head for {len(job.names)} labels, {config.epochs:g} epochs. The
epoch was chosen by {headline(job)} of the dev part; over several seeds there are means
with bootstrap 95 % intervals. Words cut off at {config.length} tokens count as missed.

{told}
`python -m experiments.predict --run=DIR` labels new text with best/.
"""
