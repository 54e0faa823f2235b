"""The flags of fine-tuning, in groups."""

import dataclasses
from typing import ClassVar

from ffnlab.data.column_names import Columns
from ffnlab.errors import InputError, choose
from ffnlab.finetune.adapt_options import AdaptOptions
from ffnlab.finetune.data_options import DataOptions
from ffnlab.finetune.target_options import TargetOptions
from ffnlab.finetune.usage import TASKS
from ffnlab.models.transformer_options import TransformerOptions
from ffnlab.nn.user_code import ImportOptions
from ffnlab.options import names_in, option
from ffnlab.report.trackers import TrackOptions
from ffnlab.train.config import Steps
from ffnlab.train.mesh_config import MeshOptions
from ffnlab.train.process_config import ProcessOptions

_BLOCKS = names_in("ffnlab.nn.ffn", "BLOCKS")

# Flags that only some tasks have; another task refuses them.
_LABELS = ("classify", "pairs", "tag")
_ONLY_FOR = {
    "head": _LABELS,
    "head_hidden": _LABELS,
    "gradient": _LABELS,
    "class_weights": _LABELS,
    "unseen_labels": _LABELS,
    "augment": _LABELS,
    "augment_file": _LABELS,
    "id_column": _LABELS,
    "label_smoothing": (*_LABELS, "generate"),
    "mlm_loss_weight": (*_LABELS, "qa"),
    "label_names": _LABELS,
    "pair_column": ("pairs",),
    "marks": ("pairs",),
    "doc_stride": ("qa",),
    "max_answer_length": ("qa",),
    "null_score_diff_threshold": ("qa",),
    "template": ("generate",),
    "max_target_length": ("generate",),
    "num_beams": ("generate",),
}


# Flags that choose which arrays train, or how fast, by their own rule.
_ONLY_FULL = ("freeze", "unfreeze_every_epochs", "layer_decay", "mlm_loss_weight")


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """Model: checkpoint, head and precision."""

    checkpoint: str | None = option(
        None,
        "Directory of a BERT, RoBERTa, XLM-RoBERTa, DistilBERT or ELECTRA, or of a "
        "GPT-2 for generate; or tiny, a small model from scratch. Required.",
    )
    strict: bool = option(
        False,
        "Refuse a checkpoint with arrays of other modules, such as crf.transitions, or "
        "with a prefix of all names, such as module. Otherwise both are only reported.",
    )
    head: str = option(
        "linear",
        "Classification head: linear; a feed-forward block such as swiglu before the "
        "linear layer; or feedback, in which neighbouring words exchange states.",
    )
    head_hidden: int = option(128, "Hidden width of the head, unless linear.", least=1)
    gradient: str = option(
        "implicit",
        "Gradient of the feedback head.",
        known=lambda: ("implicit", "bptt"),
    )
    dropout: float | None = option(
        None, "Dropout rate. If not given, that of the checkpoint.", least=0, below=1
    )
    dtype: str = option(
        "float32",
        "Precision to compute in. Parameters stay in float32.",
        known=lambda: ("float32", "bfloat16"),
    )


@dataclasses.dataclass(frozen=True)
class TaskOptions:
    """Task: what to predict, and options of single tasks."""

    task: str = option(
        "classify",
        "Task: a label for each text (classify), pair of texts (pairs) or word (tag), "
        "the span of a context that answers a question (qa), or text-to-text "
        "generation (generate).",
        known=lambda: TASKS,
    )
    doc_stride: int | None = option(
        None,
        "Tokens that two windows of a long context share, for qa. If not given, 128 "
        "or a third of --max_seq_length, whichever is less.",
        least=0,
    )
    max_answer_length: int = option(
        30, "Maximum number of tokens of an answer, for qa.", least=1
    )
    null_score_diff_threshold: float = option(
        0.0,
        "How much the score of no answer must exceed that of the best answer, for qa.",
    )
    template: str = option(
        "{text} => ",
        "Prompt around the input text, for generate. {text} is replaced.",
    )
    max_target_length: int = option(
        48, "Maximum number of tokens to generate, for generate.", least=1
    )
    num_beams: int | None = option(
        None,
        "Width of the beam search, for generate. If not given, decoding is greedy.",
        least=1,
    )


@dataclasses.dataclass(frozen=True)
class TrainingOptions(Steps):
    """Training: length, batches and learning rate."""

    epochs: float = option(3.0, "Number of epochs.", above=0)
    steps: int | None = option(None, "Number of steps, instead of --epochs.", least=1)
    evaluations: int | None = option(
        None,
        "Number of evaluations on the dev part, at equal distances. If not given, one "
        "per epoch.",
        least=1,
    )
    patience: int | None = option(
        None, "Evaluations without improvement before training stops.", least=1
    )
    batch_size: int = option(
        16,
        "Examples per step. Short texts are packed into rows, so the number is met on "
        "average.",
        least=1,
    )
    gradient_accumulation_steps: int = option(
        1, "Batches of --batch_size whose gradients make one step.", least=1
    )
    learning_rate: float | None = option(
        None,
        "Peak learning rate. If not given, 5e-5, or what is common for --method.",
        above=0,
    )
    schedule: str = option(
        "linear",
        "Schedule of the learning rate after the warm-up.",
        known=names_in("ffnlab.train.optimizers", "SCHEDULES"),
    )
    warmup_steps: int = option(
        0, "Steps over which the learning rate rises to its peak.", least=0
    )
    warmup_ratio: float = option(
        0.0, "Share of the steps, instead of --warmup_steps.", least=0, below=1
    )
    weight_decay: float = option(
        0.01, "Decoupled weight decay. Biases and norms have none.", least=0
    )
    layer_decay: float = option(
        1.0,
        "Factor, at most 1, from the learning rate of a layer to that of the layer "
        "below.",
        above=0,
    )
    seeds: int = option(
        1,
        "Number of runs, trained together where memory allows. The best on dev is "
        "kept.",
        least=1,
    )

    def warmup(self, steps: int) -> int:
        """Returns the number of steps of the warm-up of a run."""
        share = round(self.warmup_ratio * steps)
        return min(self.warmup_steps or share, steps // 2)


@dataclasses.dataclass(frozen=True)
class MethodOptions:
    """Methods: frozen parts, regularization, class weights and augmentation."""

    freeze: tuple[str, ...] = option(
        (),
        "Parts that are not trained, such as embeddings, encoder or layers.0-3.",
        empty=True,
    )
    unfreeze_every_epochs: float = option(
        0.0,
        "Epochs after which one more layer is trained, from the last to the first; 0 "
        "trains all from the start.",
        least=0,
    )
    label_smoothing: float = option(
        0.0, "Share of the target that is spread over all labels.", least=0, below=1
    )
    class_weights: str = option(
        "none",
        "Weights of labels in the loss: none, or balanced, by which rare labels weigh "
        "more.",
        known=lambda: ("none", "balanced"),
    )
    adversarial: str = option(
        "none",
        "Adversarial training, which moves embeddings to where the loss is higher.",
        known=lambda: ("none", "fgm", "freelb"),
    )
    adversarial_epsilon: float = option(
        0.5,
        "Maximum norm of the adversarial offset of a text's embeddings.",
        above=0,
    )
    r_drop_alpha: float = option(
        0.0,
        "Weight of the divergence between two passes with dropout (R-Drop).",
        least=0,
    )
    mlm_loss_weight: float = option(
        0.0,
        "Weight of an additional masked-language-model loss on the same texts.",
        least=0,
    )
    augment: tuple[str, ...] = option(
        (),
        "Augmentations that make altered copies of the training examples.",
        known=names_in("ffnlab.data.augment", "AUGMENTATIONS"),
        empty=True,
    )
    augment_file: str | None = option(
        None,
        "File of altered examples, such as paraphrases: the columns of train, and "
        "source, the text of the example that one was made from. Those whose source is "
        "in dev or test are left out. Without a label column, labels are those of the "
        "sources.",
    )
    id_column: str | None = option(
        None,
        "Column of train whose values are in source of --augment_file, in place of "
        "texts.",
    )
    augment_copies: int = option(
        1, "Copies of each example for each augmentation.", least=1
    )
    augment_rate: float = option(
        0.1, "Share of words that are swapped or deleted.", above=0, below=1
    )


@dataclasses.dataclass(frozen=True)
class Config(
    DataOptions,
    ModelOptions,
    TaskOptions,
    TargetOptions,
    TrainingOptions,
    AdaptOptions,
    MethodOptions,
    ImportOptions,
    TrackOptions,
    MeshOptions,
    TransformerOptions,
    ProcessOptions,
):
    """The configuration of a fine-tuning; each field is a flag."""

    # What a flag file of an earlier version, without the flag, stands for.
    ADDED: ClassVar[dict[str, str]] = {
        **ImportOptions.ADDED,
        **TransformerOptions.ADDED,
        "label_names": "",
        "strict": "false",
        "method": "full",
        "target_modules": "",
        "warmup_ratio": "0.0",
        "stratify": "false",
    }

    # Old names of flags, kept for one release.
    RENAMED: ClassVar[dict[str, str]] = {
        **Steps.RENAMED,
        "length": "max_seq_length",
        "stride": "doc_stride",
        "longest": "max_answer_length",
        "threshold": "null_score_diff_threshold",
        "accumulate": "gradient_accumulation_steps",
        "radius": "adversarial_epsilon",
        "unfreeze": "unfreeze_every_epochs",
        "masked_loss": "mlm_loss_weight",
        "r_drop": "r_drop_alpha",
        "remat": "gradient_checkpointing",
        "beam": "num_beams",
        "target_length": "max_target_length",
    }

    def __post_init__(self):
        super().__post_init__()
        for name in ("checkpoint", "train"):
            if not getattr(self, name):
                raise InputError(f"{name}: is needed")
        self._check_task()
        self.check_targets(self.task)
        self._check_method()
        self._check_augmentation()
        self.check_split()
        if self.head not in ("linear", "feedback"):
            known = ["linear", "feedback", *_BLOCKS()]
            choose("head", self.head.partition(":")[0], known)
        if self.warmup_steps and self.warmup_ratio:
            raise InputError("warmup_steps and warmup_ratio: give one of them")
        if self.layer_decay > 1:
            raise InputError(f"layer_decay: {self.layer_decay:g} should be at most 1")

    def _check_task(self) -> None:
        for field in dataclasses.fields(self):
            tasks = _ONLY_FOR.get(field.name, (self.task,))
            if self.task not in tasks and getattr(self, field.name) != field.default:
                raise InputError(
                    f"{field.name}: for task={', '.join(tasks)}, not {self.task}"
                )
        if len(self.marks) not in (0, 2):
            raise InputError("marks: those of two entities are needed, such as e1,e2")

    def _check_method(self) -> None:
        """Checks the method, and fills in the learning rate that is common for it."""
        if self.adapt_methods(steps=10**6) is not None:
            if self.scratch:
                raise InputError(
                    f"method: {self.method} adapts a checkpoint that was pretrained, "
                    "which tiny is not; use method=full"
                )
            for name in ("freeze", "unfreeze_every_epochs", "mlm_loss_weight"):
                if getattr(self, name):
                    raise InputError(f"{name}: it needs method=full, not {self.method}")
            if self.layer_decay != 1.0:
                raise InputError(
                    f"layer_decay: it needs method=full, not {self.method}"
                )
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", self.common_rate)

    def _check_augmentation(self) -> None:
        if self.scratch and "mlm_substitute" in self.augment:
            raise InputError(
                "augment: mlm_substitute needs a checkpoint that was pretrained, "
                "which tiny is not"
            )
        if self.marks and self.augment:
            raise InputError(
                "augment: it would tear the markers of entities apart; leave it out"
            )
        if self.id_column and not self.augment_file:
            raise InputError("id_column: it needs augment_file")

    @property
    def scratch(self) -> bool:
        """Whether a small model from scratch is trained."""
        return self.checkpoint == "tiny"

    @property
    def columns(self) -> Columns:
        """The columns of the files, by the flags."""
        names = [name.strip() for name in self.label_column.split(",")]
        several = len(names) > 1 and bool(self.targets and self.targets.several)
        given = (self.text_column, self.pair_column, self.label_column)
        return Columns(*given, tuple(names) if several else ())

    @property
    def window_stride(self) -> int:
        """The number of tokens that two windows of a context share."""
        if self.doc_stride is None:
            return min(128, self.max_length // 3)
        return self.doc_stride

    @property
    def max_length(self) -> int:
        """The maximum number of tokens of a text or window."""
        return self.max_seq_length or (384 if self.task == "qa" else 128)
