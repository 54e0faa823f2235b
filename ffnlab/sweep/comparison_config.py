"""What is compared with what, on which data, and how it is trained."""

import dataclasses
import itertools
import re
import sys
from pathlib import Path
from typing import ClassVar

from ffnlab import names
from ffnlab.errors import InputError, choose
from ffnlab.nn.user_code import ImportOptions
from ffnlab.options import names_in, option
from ffnlab.report.trackers import TrackOptions
from ffnlab.stats.stages import stages_for
from ffnlab.sweep.replicate_options import ReplicateOptions
from ffnlab.sweep.shards import ShardOptions
from ffnlab.train.process_config import ProcessOptions

_BLOCKS = names_in("ffnlab.nn.ffn", "BLOCKS")
_INITIALIZERS = names_in("ffnlab.nn.initializers", "INITIALIZERS")
MATCHED = "matched"
_DATASETS = names_in("ffnlab.data.builtin", "DATASETS")
_ACTIVATIONS = names_in("ffnlab.nn.activations", "ACTIVATIONS")

QUICK = {
    "blocks": ("mlp", "swiglu"),
    "activations": ("relu", "gelu"),
    "seeds": 6,
    "learning_rates": (3e-3,),
    "steps": 100,
    "layers": 1,
}


@dataclasses.dataclass(frozen=True)
class CompareConfig(ShardOptions, ImportOptions, TrackOptions, ProcessOptions):
    """Comparison: the data, the blocks and their budget."""

    # What a flag file of an earlier version, without the flag, stands for.
    ADDED: ClassVar[dict[str, str]] = {
        **ReplicateOptions.ADDED,
        **ImportOptions.ADDED,
        "widths": "",
        "until": "seeds",
    }

    data: str | None = option(
        None,
        "Built-in data set, or several with commas between them for a joint verdict: "
        "digits (the default), breast_cancer, wine, iris, mnist1d, diabetes, patches, "
        "bytes (the source text of Python's own library) or help_topics (the prose of "
        "its help).",
    )
    csv: str | None = option(
        None, "CSV or TSV file with a header line, instead of a built-in data set."
    )
    target: str | None = option(None, "Column of the CSV file to predict.")
    npz: str | None = option(
        None, "npz file with arrays x and y, instead of a built-in data set."
    )
    task: str = option(
        "auto",
        "Kind of the target of a CSV or npz file; auto infers it from the values.",
        known=lambda: ("auto", "classes", "values"),
    )
    blocks: tuple[str, ...] = option(
        ("mlp", "glu", "reglu", "geglu", "swiglu", "bilinear"),
        "Blocks to compare. mlp:NAME and glu:NAME take any activation.",
    )
    activations: tuple[str, ...] = option(
        ("relu", "gelu", "swish", "mish", "relu2", "tanh", "sigmoid"),
        "Activations of a plain mlp in --blocks; each counts as one block.",
        known=_ACTIVATIONS,
    )
    baseline: str | None = option(
        None,
        "Block that the others are compared with. The default is mlp:relu, or the "
        "first block.",
    )
    until: str = option(
        "seeds",
        "When to stop: after --seeds replicates of every block, or when every block is "
        "decided. decided adds --seeds replicates at a time, to those blocks that are "
        "undecided and whose decision is not improbable.",
        known=lambda: ("seeds", "decided"),
    )
    max_replicates: int | None = option(
        None,
        "Largest number of replicates of a block with --until=decided. If not given, "
        "four times --seeds.",
        least=1,
        below=100_000,
    )
    eval_examples: int = option(
        16384,
        "Largest number of examples of the validation and of the test part to score; "
        "a larger part is thinned evenly.",
        least=1,
    )
    features: int = option(32, "Model width D.", least=1)
    hidden: int = option(
        128,
        "Hidden width of a plain mlp; that of other blocks follows from the budget.",
        least=1,
    )
    layers: int = option(2, "Blocks per model.", least=1)
    budget: str = option(
        "parameters",
        "Cost that is equal for all blocks; time is that of a training step, which is "
        "measured before the first run.",
        known=lambda: ("parameters", "flops", "time"),
    )
    widths: tuple[str, ...] = option(
        (),
        "Hidden widths of some blocks, BLOCK=WIDTH each; those of the others follow "
        "from the budget. A run at equal time adds all widths to its flags.",
        empty=True,
    )
    norm: str = option(
        "pre",
        "Position of the normalization in a block.",
        known=lambda: ("none", "pre", "post", "hidden", "sandwich"),
    )
    norm_kind: str = option(
        "layer", "Kind of normalization.", known=names_in("ffnlab.nn.norms", "NORMS")
    )
    initializer: str = option(
        "lecun",
        "Initializer of the kernels of a block. matched is lecun, scaled so that the "
        "outputs of all blocks start with a variance of 1 on training examples.",
        known=lambda: (*_INITIALIZERS(), MATCHED),
    )
    dropout: float = option(0.0, "Dropout rate of the hidden units.", least=0, below=1)

    def __post_init__(self):
        super().__post_init__()
        if sum(map(bool, (self.data, self.csv, self.npz))) > 1:
            raise InputError("data, csv and npz: give one of them")
        for name in self.data.split(",") if self.data is not None else ():
            choose("data", name, _DATASETS())
        if self.task != "auto" and not (self.csv or self.npz):
            raise InputError(f"task={self.task} needs csv=FILE or npz=FILE")
        if bool(self.csv) != bool(self.target):
            raise InputError("csv and target: give both or neither")
        self._check_blocks()
        if self.baseline is not None:
            choose("baseline", self.baseline, self.names)
        self._check_stages()
        self._check_shard()
        if self.coordinator and self.budget == "time":
            raise InputError(
                "budget: time is measured in one process, and several would differ; "
                "measure it there, and give the widths that it prints as widths=..."
            )
        widths = self.given_widths
        ordered = (f"{name}={widths[name]}" for name in self.names if name in widths)
        object.__setattr__(self, "widths", tuple(ordered))

    def _check_blocks(self) -> None:
        """Raises if a block or its activation is unknown."""
        for name in self.names:
            kind, _, activation = name.partition(":")
            choose("blocks", kind, _BLOCKS())
            if activation:
                choose("blocks", activation, _ACTIVATIONS())
                self._check_open(name, kind)

    def _check_stages(self) -> None:
        """Raises if replicates cannot be added until every block is decided."""
        if self.until == "seeds":
            if self.max_replicates is not None:
                raise InputError("max_replicates: it needs until=decided")
            return
        if self.split == "fixed":
            raise InputError(
                "until=decided needs split=replicates; with split=fixed all runs of a "
                "block share a learning rate, which further runs would change"
            )
        if len(self.sources) > 1:
            raise InputError(
                "until=decided needs one data set; a joint verdict on several would be "
                "biased by stopping each by its own results"
            )
        if self.replicates < self.seeds:
            raise InputError(
                f"max_replicates: {self.max_replicates} is less than the {self.seeds} "
                "seeds of the first stage"
            )
        try:
            self.stages  # noqa: B018
        except InputError as error:
            raise InputError(f"seeds: {error}") from None

    def _check_shard(self) -> None:
        """Raises if a part of the replicates cannot be run without the others."""
        if self.part_of is None:
            return
        if self.until == "decided":
            raise InputError(
                "shard: until=decided adds replicates by the results of those before, "
                "which a shard does not have; leave one of them out"
            )
        unknown = [name for name in self.names if name not in self.given_widths]
        if self.budget == "time" and unknown:
            raise InputError(
                "shard: with budget=time every shard would measure widths of its own; "
                "give those that one run without shard has added to its flags, as "
                f"widths; missing: {', '.join(unknown)}"
            )

    @property
    def replicates(self) -> int:
        """The largest number of replicates of a block."""
        if self.until == "seeds":
            return self.seeds
        return self.max_replicates or 4 * self.seeds

    @property
    def stages(self) -> tuple[int, ...] | None:
        """The number of replicates after each stage; None for a single stage."""
        if self.until == "seeds":
            return None
        return stages_for(self.seeds, self.replicates)

    def _check_open(self, name: str, kind: str) -> None:
        """Raises if a block with an activation of its own is given another."""
        if kind not in _open_blocks():
            forms = " or ".join(f"{block}:NAME" for block in _open_blocks())
            raise InputError(
                f"blocks: {name!r}: {kind} has an activation of its own; "
                f"write {kind} alone, or {forms}"
            )

    @property
    def names(self) -> list[str]:
        """The blocks to compare, each once."""
        plain = [f"mlp:{name}" for name in self.activations]
        blocks = ([block] if block != "mlp" else plain for block in self.blocks)
        return list(dict.fromkeys(itertools.chain.from_iterable(blocks)))

    @property
    def given_widths(self) -> dict[str, int]:
        """The hidden widths that do not follow from the budget, by block."""
        widths: dict[str, int] = {}
        for entry in self.widths:
            name, _, width = entry.rpartition("=")
            choose("widths", name or entry, self.names)
            if name in widths:
                raise InputError(f"widths: {name} has two widths; give one")
            if not re.fullmatch(r"[1-9]\d{0,8}", width, re.ASCII):
                raise InputError(
                    f"widths: {entry!r} should be BLOCK=WIDTH with an integer of at "
                    f"least 1, for instance {name or entry}=64"
                )
            widths[name] = int(width)
        return widths

    @property
    def reference(self) -> str:
        """The block that the others are tested against."""
        default = "mlp:relu" if "mlp:relu" in self.names else self.names[0]
        return self.baseline or default

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the data sets in a report."""
        if self.csv or self.npz:
            return (Path(self.csv or self.npz).stem,)
        return tuple(dict.fromkeys((self.data or "digits").split(",")))


def _open_blocks() -> list[str]:
    """Returns the blocks that take any activation: `mlp:NAME`, `glu:NAME`."""
    loaded = sys.modules.get("ffnlab.nn.ffn")
    if loaded is None:
        return list(names.OPEN_BLOCKS)
    return [name for name, block in loaded.BLOCKS.items() if not block.fixed]
