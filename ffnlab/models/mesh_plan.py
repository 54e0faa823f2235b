"""Which mesh should I train a decoder on? Prices on paper, from published figures.

`plan_mesh` prices every mesh that the decoder and the batch allow, ranks them by the
time of a step, and names one. docs/scale.md derives the formulas.
"""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from ffnlab import names
from ffnlab.errors import InputError, choose
from ffnlab.models.accelerators import ACCELERATORS
from ffnlab.models.decoder_costs import (
    SIZES,
    DecoderShape,
    find_divisors,
)
from ffnlab.models.mesh_cost import Mesh, MeshCost, Setting, mesh_cost
from ffnlab.options import check, option
from ffnlab.train.mesh_config import check_divides, parse

if TYPE_CHECKING:
    from ffnlab.report.table import Table

_LARGE = 10**7  # above all widths


@dataclasses.dataclass(frozen=True)
class Decoder:
    """Decoder: rotary positions, RMS norms, no biases, logits by the embeddings."""

    model: str = option(
        "1b",
        "Size of the decoder: the shapes of Llama 3.2 1B, Llama 3 8B and Llama 3 70B, "
        "here always with one table for embeddings and logits.",
        known=lambda: SIZES,
    )
    features: int | None = option(
        None,
        "Width of the model. The default is that of the size.",
        least=1,
        below=_LARGE,
    )
    layers: int | None = option(
        None,
        "Number of layers. The default is that of the size.",
        least=1,
        below=_LARGE,
    )
    heads: int | None = option(
        None,
        "Number of attention heads. The default is that of the size.",
        least=1,
        below=_LARGE,
    )
    key_value_heads: int | None = option(
        None,
        "Number of key and value heads. The default is that of the size.",
        least=1,
        below=_LARGE,
    )
    hidden: int | None = option(
        None,
        "Hidden width of a block. The default is that of the size.",
        least=1,
        below=_LARGE,
    )
    vocabulary: int | None = option(
        None,
        "Number of different tokens. The default is that of the size.",
        least=1,
        below=_LARGE,
    )
    block: str = option("swiglu", "Feed-forward block, such as mlp:gelu.")
    max_seq_length: int = option(4096, "Tokens per sequence.", least=1, below=_LARGE)

    @property
    def shape(self) -> DecoderShape:
        """The shape of the decoder."""
        own = {name: getattr(self, name) or n for name, n in SIZES[self.model].items()}
        inputs = 1 if self.block.partition(":")[0] == "mlp" else 2
        return DecoderShape(**own, length=self.max_seq_length, inputs=inputs)


@dataclasses.dataclass(frozen=True)
class Devices:
    """Devices, and how well they are used."""

    device: str = option("h100", "Kind of device.", known=lambda: ACCELERATORS)
    devices: int = option(64, "Number of devices.", least=1, below=10**6)
    efficiency: float = option(
        0.78,
        "Share of the peak that matrix products reach, at most 1. The default is what "
        "bfloat16 products of random numbers reach on an H200: 770 of 989 TFLOP/s.",
        above=0,
    )
    link_efficiency: float = option(
        0.8,
        "Share of the bandwidth of links that messages reach, at most 1. The default "
        "is about what is reported for all-reduces of NVLink hosts.",
        above=0,
    )
    usable_memory: float = option(
        0.9, "Share of the memory that arrays can fill, at most 1.", above=0
    )


@dataclasses.dataclass(frozen=True)
class Step:
    """Training step."""

    batch_tokens: int = option(
        2**20, "Tokens per batch of one decoder.", least=1, below=10**9
    )
    dtype: str = option(
        "bfloat16",
        "Type of the numbers in products, activations and messages. Parameters, "
        "gradients and Adam's moments are always in float32.",
        known=lambda: ("bfloat16", "float32"),
    )
    attention: str | None = option(
        None,
        "How attention is computed: cudnn keeps no attention weights for the backward "
        "pass, xla keeps them. The default is cudnn for GPUs and xla for TPUs.",
        known=lambda: ("cudnn", "xla"),
    )
    mesh: tuple[str, ...] = option(
        (),
        "Mesh to price, such as data:16,model:4; an axis that is not named has one "
        "device. The default prices all meshes that the shape and the batch allow.",
        empty=True,
    )
    fsdp: bool | None = option(
        None,
        "Divide parameters and optimizer state over data too. The default prices both.",
    )
    gradient_checkpointing: bool | None = option(
        None,
        "Recompute layers in the backward pass, to save memory. The default prices "
        "both.",
    )


@dataclasses.dataclass(frozen=True)
class MeshPlanConfig(Decoder, Devices, Step):
    """Output."""

    show: int = option(10, "Number of meshes in the table.", least=1)
    markdown: bool = option(False, "Print the tables in Markdown.")

    def __post_init__(self):
        check(self)
        for name in ("efficiency", "link_efficiency", "usable_memory"):
            if getattr(self, name) > 1:
                raise InputError(f"{name}: {getattr(self, name)} should be at most 1")
        if self.batch_tokens % self.max_seq_length:
            below = self.batch_tokens // self.max_seq_length
            nearest = {max(n, 1) * self.max_seq_length for n in (below, below + 1)}
            raise InputError(
                f"batch_tokens={self.batch_tokens} must be whole sequences of "
                f"max_seq_length={self.max_seq_length}; nearest: "
                f"{', '.join(map(str, sorted(nearest)))}"
            )
        self._check_block()
        if self.attention == "cudnn" and ACCELERATORS[self.device].torus:
            raise InputError("attention: cudnn is for GPUs; TPUs use xla")
        if self.mesh:
            self.check_mesh(Mesh(**parse(self.mesh)), self.fsdp is True)
        _ = self.setting

    @property
    def setting(self) -> Setting:
        """What all meshes have in common."""
        accelerator = ACCELERATORS[self.device]
        attention = self.attention or ("xla" if accelerator.torus else "cudnn")
        return Setting(
            self.shape,
            accelerator,
            self.batch_tokens,
            itemsize=2 if self.dtype == "bfloat16" else 4,
            flash=attention == "cudnn",
            efficiency=self.efficiency,
            link_efficiency=self.link_efficiency,
            usable_memory=self.usable_memory,
        )

    def check_mesh(self, mesh: Mesh, fsdp: bool) -> None:
        """Raises if a mesh does not divide the devices, the shape or the batch."""
        if mesh.devices != self.devices:
            raise InputError(
                f"mesh: {mesh} makes {mesh.devices} devices, not devices="
                f"{self.devices}; {self._nearest_mesh(mesh)}"
            )
        for axis, name, total in self.divided(fsdp):
            check_divides(axis, getattr(mesh, axis), f"{name}={total}", total)

    def _check_block(self) -> None:
        """Raises if the block or its activation is unknown."""
        kind, colon, activation = self.block.partition(":")
        choose("block", kind, names.TABLES["ffnlab.nn.ffn", "BLOCKS"])
        if colon and kind not in names.OPEN_BLOCKS:
            raise InputError(f"block: {kind} takes no activation; give it alone")
        if colon:
            known = names.TABLES["ffnlab.nn.activations", "ACTIVATIONS"]
            choose("activation", activation, known)

    def divided(self, fsdp: bool) -> Iterator[tuple[str, str, int]]:
        """Yields the axes with the names and the sizes of what they divide."""
        for name in ("heads", "key_value_heads", "hidden", "vocabulary"):
            yield "model", name, getattr(self.shape, name)
        yield "data", "sequences", self.batch_tokens // self.max_seq_length
        if fsdp:
            yield "data", "features", self.shape.features

    def _nearest_mesh(self, mesh: Mesh) -> str:
        """Returns what to do about a mesh of another number of devices, in words."""
        left, rest = divmod(self.devices, mesh.replicas * mesh.model)
        if left and not rest:
            return f"nearest: {mesh._replace(data=left)}"
        return f"the product of its axes must be {self.devices}"


class MeshPlan(NamedTuple):
    """Priced meshes.

    Attributes:
      costs: The costs of the meshes: those that fit first, then by time.
      table: The first of them as a table, as it was printed.
      details: The parts of the cost of the best mesh, as a table.
      advice: The mesh to choose and why, in one sentence.
      config: The configuration.
    """

    costs: list[MeshCost]
    table: "Table"
    details: "Table"
    advice: str
    config: MeshPlanConfig


def plan_mesh(config: MeshPlanConfig) -> MeshPlan:
    """Returns and prints what a training step costs on meshes, and which to choose.

    Args:
      config: The decoder, the devices and the step.

    Raises:
      InputError: No mesh divides the devices, the shape and the batch.
    """
    from ffnlab.models import mesh_report

    setting = config.setting
    costs = [mesh_cost(setting, mesh) for mesh in _meshes(config)]
    if not costs:
        raise InputError(
            f"devices: no data and model axes that multiply to {config.devices} divide "
            f"{_join_divided(config)}; give another number of devices or batch_tokens"
        )
    costs.sort(key=_rank)
    table = mesh_report.table(costs[: config.show])
    details = mesh_report.details(costs[0])
    plan = MeshPlan(costs, table, details, mesh_report.advice(costs), config)
    _show(plan)
    return plan


def _show(plan: MeshPlan) -> None:
    """Prints a plan."""
    from ffnlab.models.mesh_report import describe

    config, shape = plan.config, plan.config.shape
    heading = (
        f"{shape.parameters / 1e9:.2f} B parameters, {config.batch_tokens:,} tokens a "
        f"step in sequences of {config.max_seq_length:,}, on {config.devices} "
        f"{config.device}, {config.dtype}"
    )
    titles = heading, f"One device, {describe(plan.costs[0])}"
    for title, table in zip(titles, (plan.table, plan.details), strict=True):
        if config.markdown:
            print(f"{title}\n\n{table}\n")
        else:
            table.show(title)
    print(plan.advice)
    left = len(plan.costs) - len(plan.table.rows)
    if left:
        print(f"{left} more meshes were priced; --show={len(plan.costs)} prints all.")


def _rank(cost: MeshCost) -> tuple:
    """Returns the key that sorts costs; equal ones by the simpler mesh."""
    mesh = cost.mesh
    over = max(sum(cost.memory.values()) - cost.capacity, 0.0)
    time = cost.with_overlap, cost.without_overlap
    return over, *time, mesh.model, mesh.fsdp, mesh.recompute


def _meshes(config: MeshPlanConfig) -> Iterator[Mesh]:
    """Yields the meshes to price, with all ways to use each that are not given."""
    again = config.gradient_checkpointing
    for fsdp in (False, True) if config.fsdp is None else (config.fsdp,):
        divided = [*config.divided(fsdp)]
        for mesh in _shapes(config):
            fits = all(size % getattr(mesh, axis) == 0 for axis, _, size in divided)
            alone = config.fsdp is None and fsdp and mesh.data == 1  # nothing to divide
            if fits and not alone:
                for recompute in (False, True) if again is None else (again,):
                    yield mesh._replace(fsdp=fsdp, recompute=recompute)


def _shapes(config: MeshPlanConfig) -> list[Mesh]:
    """Returns the mesh that was given, or all of data and model axes."""
    if config.mesh:
        return [Mesh(**parse(config.mesh))]
    sizes = find_divisors(config.devices)
    return [Mesh(data=config.devices // model, model=model) for model in sizes]


def _join_divided(config: MeshPlanConfig) -> str:
    """Returns what axes must divide, in words."""
    parts = [f"{name}={size}" for _, name, size in config.divided(bool(config.fsdp))]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
