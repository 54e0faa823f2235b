"""What does a pretrained checkpoint make of your files?"""

import dataclasses
from typing import TYPE_CHECKING

from ffnlab.errors import InputError, choose
from ffnlab.options import names_in, option
from ffnlab.train.config import Steps

if TYPE_CHECKING:
    pass

_BLOCKS = names_in("ffnlab.nn.ffn", "BLOCKS")

# Flags that say nothing to a task, and are refused there.
_LABELS = ("classify", "pairs", "tag")
_ONLY_FOR = {
    "head": _LABELS,
    "head_hidden": _LABELS,
    "gradient": _LABELS,
    "class_weights": _LABELS,
    "unseen_labels": _LABELS,
    "augment": _LABELS,
    "label_smoothing": (*_LABELS, "generate"),
    "mlm_loss_weight": (*_LABELS, "qa"),
    "pair_column": ("pairs",),
    "marks": ("pairs",),
    "doc_stride": ("qa",),
    "max_answer_length": ("qa",),
    "null_score_diff_threshold": ("qa",),
    "template": ("generate",),
    "max_target_length": ("generate",),
    "num_beams": ("generate",),
}


@dataclasses.dataclass(frozen=True)
class Config(Steps):
    """What to fine-tune, on which files; each field is a flag."""

    task: str = option(
        "classify",
        "classify a text, pairs of texts, tag words, qa, or generate",
        known=lambda: ("classify", "pairs", "tag", "qa", "generate"),
    )
    checkpoint: str | None = option(
        None,
        "a directory of a BERT, RoBERTa or DistilBERT, or of a GPT-2 for generate; or "
        "tiny, a small one from scratch; needed",
    )
    train: str | None = option(None, "a file to learn from; needed")
    extra: tuple[str, ...] = option(
        (), "more files to learn from, such as back-translations", empty=True
    )
    dev: str | None = option(None, "a file to choose the best epoch by")
    test: str | None = option(None, "a file to report on")
    split: tuple[float, ...] = option(
        (), "shares of train, dev and test, where --train is the only file",
        above=0, empty=True, repeats=True,
    )  # fmt: skip
    text_column: str = option(
        "text", "a name, or a number if there is no header; of CoNLL the first"
    )
    pair_column: str = option("text2", "of the second text")
    marks: tuple[str, ...] = option(
        (), "e1,e2: pairs are entities, marked so in one text: <e1>Ada</e1>", empty=True
    )
    label_column: str = option(
        "label",
        "of the label, or of the text to write; tags of JSON lines: a list; of CoNLL "
        "the last, or a number",
    )
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
    max_seq_length: int | None = option(
        None,
        "the most tokens of a text; 384 for qa, otherwise 128, if not given",
        least=8,
    )
    doc_stride: int | None = option(
        None,
        "tokens that two windows of a long context share, for qa; 128, or a third of "
        "--max_seq_length if that is less, if not given",
        least=0,
    )
    max_answer_length: int = option(30, "tokens of an answer, for qa", least=1)
    null_score_diff_threshold: float = option(
        0.0, "by how much no answer must score above the best one, for qa"
    )
    template: str = option(
        "{text} => ", "what is to be gone on with, around a text, for generate"
    )
    max_target_length: int = option(
        48, "the most tokens to write, for generate", least=1
    )
    num_beams: int | None = option(
        None, "width of the search, for generate; greedy if not given", least=1
    )
    epochs: float = option(3.0, "of training", above=0)
    steps: int | None = option(None, "of a run, instead of --epochs", least=1)
    evaluations: int | None = option(
        None, "looks at the dev part; one an epoch if not given", least=1
    )
    batch_size: int = option(
        16, "texts a step, as near as whole rows come, which they share", least=1
    )
    learning_rate: float = option(5e-5, "at its peak", above=0)
    schedule: str = option(
        "linear",
        "of the learning rate: constant, linear or cosine",
        known=names_in("ffnlab.train.optimizers", "SCHEDULES"),
    )
    warmup_steps: int = option(0, "steps over which the learning rate rises", least=0)
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
    unfreeze_every_epochs: float = option(
        0.0, "epochs from layer to layer, the last first; 0: all learn at once", least=0
    )
    adversarial: str = option(
        "none",
        "fgm or freelb: embeddings are moved to where the loss is higher",
        known=lambda: ("none", "fgm", "freelb"),
    )
    adversarial_epsilon: float = option(
        0.5, "the most that a text's embeddings move by", above=0
    )
    r_drop_alpha: float = option(
        0.0, "weight of what two draws of dropout differ by (R-Drop)", least=0
    )
    mlm_loss_weight: float = option(
        0.0, "weight of a masked language model's loss on the same texts", least=0
    )
    augment: tuple[str, ...] = option(
        (),
        "altered copies: swap, delete, mention_replace, mlm_substitute",
        known=lambda: ("swap", "delete", "mention_replace", "mlm_substitute"),
        empty=True,
    )
    augment_copies: int = option(1, "of each text, for each of them", least=1)
    augment_rate: float = option(0.1, "of words to swap or delete", above=0, below=1)
    gradient_accumulation_steps: int = option(
        1, "batches of --batch_size a step", least=1
    )
    dtype: str = option(
        "float32",
        "to compute in: float32 or bfloat16; parameters stay float32",
        known=lambda: ("float32", "bfloat16"),
    )
    class_weights: str = option(
        "none",
        "none, or balanced: rare labels count more",
        known=lambda: ("none", "balanced"),
    )
    patience: int | None = option(
        None, "stop after so many evaluations without a better one", least=1
    )
    gradient_checkpointing: bool = option(
        False, "compute layers again in the backward pass"
    )
    seeds: int = option(
        1, "runs, together where memory allows; the best on dev is kept", least=1
    )

    def __post_init__(self):
        super().__post_init__()
        for name in ("checkpoint", "train"):
            if not getattr(self, name):
                raise InputError(f"{name}: is needed")
        for field in dataclasses.fields(self):
            tasks = _ONLY_FOR.get(field.name, (self.task,))
            if self.task not in tasks and getattr(self, field.name) != field.default:
                raise InputError(
                    f"{field.name}: for task={', '.join(tasks)}, not {self.task}"
                )
        if self.head not in ("linear", "feedback"):
            known = ["linear", "feedback", *_BLOCKS()]
            choose("head", self.head.partition(":")[0], known)
        if len(self.marks) not in (0, 2):
            raise InputError("marks: those of two entities are needed, such as e1,e2")
        if self.scratch and "mlm_substitute" in self.augment:
            raise InputError(
                "augment: mlm_substitute needs a checkpoint that was pretrained, "
                "which tiny is not"
            )
        if self.marks and self.augment:
            raise InputError("augment: marks of entities would be torn; leave it out")
        if self.layer_decay > 1:
            raise InputError(f"layer_decay: {self.layer_decay:g} should be at most 1")
        if self.split and (self.dev or self.test):
            raise InputError("split: train is cut up; leave out dev and test")
        if self.split and (len(self.split) != 3 or abs(sum(self.split) - 1) > 1e-6):
            raise InputError("split: three shares that add up to 1 are needed")
        if not self.split and not self.dev and not self.lists:
            raise InputError("dev: needed, or split to take it from train")

    @property
    def scratch(self) -> bool:
        """Whether there is no checkpoint to begin with."""
        return self.checkpoint == "tiny"

    @property
    def lists(self) -> bool:
        """Whether one file holds all parts, as lists."""
        whole = self.task == "classify" and not self.dev and not self.split
        return whole and self.train.endswith(".json")

    @property
    def overlap(self) -> int:
        """The tokens that two windows share."""
        return min(128, self.most // 3) if self.doc_stride is None else self.doc_stride

    @property
    def most(self) -> int:
        """The most tokens of a text."""
        return self.max_seq_length or (384 if self.task == "qa" else 128)
