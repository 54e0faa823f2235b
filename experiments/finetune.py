"""What does a pretrained checkpoint make of your labels?

Fine-tunes a BERT, RoBERTa or DistilBERT on files of labelled texts, chooses the best
epoch on the dev part, and tells what it gets right on the test part.

    python -m experiments.finetune --task=tag --checkpoint=minilm \\
        --train=train.conll --dev=dev.conll --test=test.conll
    python -m experiments.finetune --task=classify --checkpoint=minilm \\
        --train=sms.tsv --text_column=2 --label_column=1 --split=0.7,0.1,0.2
    python -m experiments.finetune --task=pairs --checkpoint=minilm --train=a.jsonl \\
        --dev=b.jsonl --text_column=premise --pair_column=hypothesis
    python -m experiments.finetune --flagfile=OUT/flags    (repeats a run)

Tasks: classify, a label for a text; pairs, a label for two texts; tag, a label for each
word. Files: CSV, TSV, JSON lines, CoNLL columns, and JSON of lists [text, label] under
train, val and test; tags of spans are in IO, IOB1, IOB2 or BIOES. OUT receives
report.md, pictures, results.jsonl, predictions of dev and test, flags, versions.json
and best/, a directory that experiments.predict and, with a linear head on a BERT,
transformers load.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments import launch
from experiments.launch import names_in, option
from experiments.training import Steps, claim_unfinished
from ffnlab.errors import InputError, choose

if TYPE_CHECKING:
    from ffnlab.report import Table

_BLOCKS = names_in("ffnlab.ffn", "BLOCKS")

# What users of transformers' run_ner and run_glue call these flags.
ALIASES = {
    "model_name_or_path": "checkpoint",
    "train_file": "train",
    "validation_file": "dev",
    "test_file": "test",
    "output_dir": "out",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "max_seq_length": "length",
    "text_column_name": "text_column",
    "label_column_name": "label_column",
}


@dataclasses.dataclass(frozen=True)
class Config(Steps):
    """What to fine-tune, on which files; each field is a flag."""

    task: str = option(
        "classify",
        "classify a text, pairs of texts, or tag words",
        known=lambda: ("classify", "pairs", "tag"),
    )
    checkpoint: str | None = option(
        None, "a directory of a BERT, RoBERTa or DistilBERT; needed"
    )
    train: str | None = option(None, "a file to learn from; needed")
    dev: str | None = option(None, "a file to choose the best epoch by")
    test: str | None = option(None, "a file to report on")
    split: tuple[float, ...] = option(
        (), "shares of train, dev and test, where --train is the only file",
        above=0, empty=True, repeats=True,
    )  # fmt: skip
    text_column: str = option("text", "a name, or a number if there is no header")
    pair_column: str = option("text2", "of the second text")
    label_column: str = option("label", "of the label; tags of JSON lines: a list")
    unseen_labels: str = option(
        "error",
        "of dev and test, that train does not show: error, or ignore, which counts "
        "them as missed",
        known=lambda: ("error", "ignore"),
    )
    head: str = option(
        "linear",
        "linear, a block such as swiglu before that, or feedback, in which "
        "neighbouring words hear each other",
    )
    head_hidden: int = option(128, "the width inside such a head", least=1)
    gradient: str = option(
        "implicit",
        "of the feedback head: implicit or bptt",
        known=lambda: ("implicit", "bptt"),
    )
    length: int = option(
        128, "the most tokens of a text, and those of a row that texts share", least=8
    )
    epochs: float = option(3.0, "of training", above=0)
    steps: int | None = option(None, "of a run, instead of --epochs", least=1)
    evaluations: int | None = option(
        None, "looks at the dev part; one an epoch if not given", least=1
    )
    batch_size: int = option(16, "texts a step, about: rows are packed", least=1)
    learning_rate: float = option(5e-5, "at its peak", above=0)
    schedule: str = option(
        "linear",
        "of the learning rate: constant, linear or cosine",
        known=names_in("ffnlab.optimizers", "SCHEDULES"),
    )
    warmup: int = option(0, "steps over which the learning rate rises", least=0)
    weight_decay: float = option(0.01, "decoupled; not of biases and norms", least=0)
    layer_decay: float = option(
        1.0, "the learning rate of a layer over that of the one above", above=0
    )
    freeze: tuple[str, ...] = option(
        (), "embeddings, encoder, layers.0-3: parts that do not learn", empty=True
    )
    dropout: float | None = option(
        None, "the checkpoint's own if not given", least=0, below=1
    )
    label_smoothing: float = option(
        0.0, "the share of the target spread over all labels", least=0, below=1
    )
    class_weights: str = option(
        "none",
        "none, or balanced: rare labels count more",
        known=lambda: ("none", "balanced"),
    )
    patience: int | None = option(
        None, "stop after so many evaluations without a better one", least=1
    )
    remat: bool = option(False, "compute layers again in the backward pass")
    seeds: int = option(1, "runs, in turn; the best on dev is kept", least=1)

    def __post_init__(self):
        super().__post_init__()
        for name in ("checkpoint", "train"):
            if not getattr(self, name):
                raise InputError(f"--{name}: needed; --help says what it is")
        if self.head not in ("linear", "feedback"):
            known = ["linear", "feedback", *_BLOCKS()]
            choose("--head", self.head.partition(":")[0], known)
        if self.layer_decay > 1:
            raise InputError(f"--layer_decay: {self.layer_decay:g} should be at most 1")
        if self.split and (self.dev or self.test):
            raise InputError("--split: --train is cut up; leave out --dev and --test")
        if self.split and (len(self.split) != 3 or abs(sum(self.split) - 1) > 1e-6):
            raise InputError("--split: three shares that add up to 1 are needed")
        if not self.split and not self.dev and not self.train.endswith(".json"):
            raise InputError("--dev: needed, or --split to take it from --train")


class Result(NamedTuple):
    """What a fine-tuning found.

    Attributes:
      out: the directory that holds it.
      scores: by part, for each seed a report, see `ffnlab.reports`.
      table: what was printed.
    """

    out: Path
    scores: dict[str, list[dict[str, Any]]]
    table: "Table"


def run(config: Config) -> Result:
    """Fine-tunes and writes a report.

    Raises:
      InputError: a file or directory cannot be used, or flags do not fit together.
    """
    from experiments import labelling
    from ffnlab import report

    out = claim_unfinished(config, "finetune")
    job = labelling.prepare(config)
    flags = launch.to_flags(config, leave_out=("out", "resume"))
    with report.run_directory(out, flags, config.resume) as directory:
        report.same_data(directory, job.digest)
        print(f"writing to {directory}\n{job.told}", flush=True)
        runs = labelling.trained(config, job, directory)
        table = labelling.publish(config, job, directory, runs)
    scores = {part: [each.scores[part] for each in runs] for part in runs[0].scores}
    return Result(directory, scores, table)


if __name__ == "__main__":
    launch.main(Config, run, __doc__, aliases=ALIASES)
