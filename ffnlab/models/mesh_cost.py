"""What a training step of a decoder costs on a mesh: memory, traffic and time."""

import dataclasses
from typing import NamedTuple

from ffnlab.models.accelerators import (
    Accelerator,
    Level,
    bytes_sent,
    mesh_levels,
    seconds_sent,
)
from ffnlab.models.decoder_costs import DecoderShape
from ffnlab.train.mesh_config import AXES, as_text

_MASTER = 4  # bytes of a parameter, its gradient, and each of Adam's two moments
_UPDATE = 7 * _MASTER  # reads of all four; writes of the parameter and the moments


class Mesh(NamedTuple):
    """A mesh, and how a step uses it.

    Attributes:
      replicas: Number of decoders that are trained side by side.
      data: Number of parts of a batch.
      model: Number of parts of each matrix.
      fsdp: Whether parameters and optimizer state are divided over data too.
      recompute: Whether the backward pass recomputes the layers.

    >>> str(Mesh(1, 16, 4, fsdp=True)), Mesh(1, 16, 4).devices
    ('data:16,model:4', 64)
    """

    replicas: int = 1
    data: int = 1
    model: int = 1
    fsdp: bool = False
    recompute: bool = False

    @property
    def devices(self) -> int:
        """Number of devices."""
        return self.replicas * self.data * self.model

    def __str__(self) -> str:
        return as_text({axis: getattr(self, axis) for axis in AXES})


class Setting(NamedTuple):
    """What all meshes of a plan have in common.

    Attributes:
      shape: Shape of the decoder.
      accelerator: The kind of device.
      tokens: Tokens of a batch of one decoder.
      itemsize: Bytes of a number in products, activations and messages: 2 or 4.
      flash: Whether a kernel recomputes the attention weights.
      efficiency: Share of the peak that products reach.
      link_efficiency: Share of the bandwidth of links that messages reach.
      usable_memory: Share of the memory that arrays can fill.
    """

    shape: DecoderShape
    accelerator: Accelerator
    tokens: int
    itemsize: int = 2
    flash: bool = True
    efficiency: float = 0.78
    link_efficiency: float = 0.8
    usable_memory: float = 0.9

    @property
    def peak(self) -> float:
        """Peak operations a second of a device in the dtype of the products."""
        share = 1.0 if self.itemsize == 2 else self.accelerator.float32
        return share * self.accelerator.flops


@dataclasses.dataclass(frozen=True)
class MeshCost:
    """The cost of a step on a mesh.

    Attributes:
      mesh: The mesh.
      memory: Bytes of a device, by purpose.
      capacity: Bytes of a device that arrays can fill.
      flops: Operations of a device, with those of recomputation.
      model_flops: Operations of a device, without those of recomputation.
      read: Bytes that products move from and to memory.
      sent: Bytes that a device sends, by purpose and link.
      seconds: Time of each part of a step, by purpose.
      peak: Peak operations a second of a device.
    """

    mesh: Mesh
    memory: dict[str, float]
    capacity: float
    flops: float
    model_flops: float
    read: float
    sent: dict[tuple[str, str], float]
    seconds: dict[str, float]
    peak: float

    @property
    def fits(self) -> bool:
        """Whether the arrays fit into the memory."""
        return sum(self.memory.values()) <= self.capacity

    @property
    def busy(self) -> float:
        """Seconds in which a device computes: products or their memory, and update."""
        products = max(self.seconds["products"], self.seconds["memory"])
        return products + self.seconds["update"]

    @property
    def intensities(self) -> dict[str, tuple[float, float]]:
        """Operations for each byte moved, and those at which both take equally long.

        The roofline: below the second number the memory or the link is slower than the
        products. Source: Williams et al. 2009.
        """
        bytes_moved = {"memory": self.read}
        bytes_moved |= {f"{p} over {link}": n for (p, link), n in self.sent.items()}
        return {
            name: (
                self.flops / size,
                self.flops / size * self.seconds[name] / self.seconds["products"],
            )
            for name, size in bytes_moved.items()
        }

    @property
    def with_overlap(self) -> float:
        """Seconds of a step whose weights and gradients travel during products.

        Sums over the model axis are waited for, since the next product needs them.
        """
        update, model = self.seconds["update"], self._time("activations")
        hidden = [t for name, t in self.seconds.items() if name.startswith("weights")]
        return max(self.busy - update, *hidden, 0.0) + update + model

    @property
    def without_overlap(self) -> float:
        """Seconds of a step in which nothing travels during products."""
        return self.busy + self._time("weights") + self._time("activations")

    @property
    def bound(self) -> str:
        """The part of the step that takes the longest."""
        return max(self.seconds, key=lambda name: self.seconds[name])

    def utilization(self, seconds: float) -> float:
        """Returns the share of the peak that the model's operations make of a time.

        Source: Chowdhery et al. 2022, appendix B (model FLOPs utilization).
        """
        return self.model_flops / (self.peak * seconds)

    def _time(self, purpose: str) -> float:
        """Returns the seconds of all links for a purpose."""
        return sum(t for name, t in self.seconds.items() if name.startswith(purpose))


def mesh_cost(setting: Setting, mesh: Mesh) -> MeshCost:
    """Returns what a step costs on a mesh.

    Args:
      setting: The decoder, the devices and the batch.
      mesh: The mesh. Model divides the heads, the hidden units and the vocabulary;
        data divides the sequences of a batch and, with fsdp, the features.

    >>> from ffnlab.models.accelerators import ACCELERATORS
    >>> from ffnlab.models.decoder_costs import SIZES
    >>> shape = DecoderShape(**SIZES["1b"], length=4096)
    >>> setting = Setting(shape, ACCELERATORS["h100"], 2**20)
    >>> cost = mesh_cost(setting, Mesh(1, 64, 1, fsdp=True))
    >>> f"{cost.memory['moments'] / 1e9:.2f} GB", cost.bound
    ('0.15 GB', 'products')
    """
    shape, accelerator = setting.shape, setting.accelerator
    tokens = setting.tokens / mesh.data
    model, data, _ = mesh_levels(
        accelerator, mesh.devices, (mesh.model, mesh.data, mesh.replicas)
    )
    activations = shape.activations(
        setting.itemsize, mesh.model, setting.flash, mesh.recompute
    )
    memory = {
        **parameter_bytes(setting, mesh),
        "activations": tokens * activations,
        "logits": tokens * shape.logit_bytes(setting.itemsize, mesh.model),
    }
    model_flops = tokens * shape.flops / mesh.model
    extra = tokens * shape.recomputed_flops / mesh.model if mesh.recompute else 0.0
    messages = {
        "weights": (data, _weight_gathers(setting, mesh)),
        "activations": (model, _activation_gathers(setting, mesh, tokens)),
    }
    read, bandwidth = _bytes_read(setting, mesh, tokens), accelerator.memory_bandwidth
    return MeshCost(
        mesh=mesh,
        memory=memory,
        capacity=setting.usable_memory * accelerator.memory,
        flops=model_flops + extra,
        model_flops=model_flops,
        read=read,
        sent=_message_bytes(messages),
        seconds={
            "products": (model_flops + extra) / (setting.peak * setting.efficiency),
            "memory": read / bandwidth,
            "update": _UPDATE * local_parameters(shape, mesh) / bandwidth,
            **_message_seconds(setting, messages),
        },
        peak=setting.peak,
    )


def _message_bytes(
    messages: dict[str, tuple[list[Level], float]],
) -> dict[tuple[str, str], float]:
    """Returns the bytes of messages by purpose and link."""
    return {
        (purpose, link): sent
        for purpose, (levels, size) in messages.items()
        for link, sent in bytes_sent(levels, size).items()
    }


def _message_seconds(
    setting: Setting, messages: dict[str, tuple[list[Level], float]]
) -> dict[str, float]:
    """Returns the seconds of messages by purpose and link."""
    return {
        f"{purpose} over {link}": seconds / setting.link_efficiency
        for purpose, (levels, size) in messages.items()
        for link, seconds in seconds_sent(levels, size).items()
    }


def local_parameters(shape: DecoderShape, mesh: Mesh) -> float:
    """Returns the number of parameters that a device stores.

    Matrices are divided over model, as are embeddings by tokens; norms are whole. With
    fsdp all of them are divided over data too, along the model width.
    """
    stored = shape.matrices / mesh.model + shape.norms
    return stored / mesh.data if mesh.fsdp else stored


def parameter_bytes(setting: Setting, mesh: Mesh) -> dict[str, float]:
    """Returns the bytes of a device for parameters and their state, by purpose.

    Parameters, gradients and Adam's moments are in float32. Where products are in
    bfloat16, there is a copy of the parameters in it. With fsdp, a device holds what is
    gathered: the embeddings, and the weights of two layers, one of them on its way, or
    of all layers where XLA keeps them for the backward pass, which it does without
    recomputation; and the gradients of a layer and of the embeddings.
    """
    shape, stored = setting.shape, local_parameters(setting.shape, mesh)
    copy = setting.itemsize * stored if setting.itemsize < _MASTER else 0.0
    gathered = 0.0
    if mesh.fsdp and mesh.data > 1:
        layers = 2 if mesh.recompute else shape.layers
        whole = (layers + 1) * shape.layer_matrices + 2 * shape.embeddings
        gathered = setting.itemsize * whole / mesh.model
    return {
        "parameters": _MASTER * stored + copy,
        "gradients": _MASTER * stored,
        "moments": 2 * _MASTER * stored,
        "gathered": gathered,
    }


def _weight_gathers(setting: Setting, mesh: Mesh) -> float:
    """Returns the bytes that are gathered or scattered over data in a step.

    Without fsdp, gradients are summed: one scatter and one gather. With fsdp, weights
    are gathered forward and backward, and gradients scattered.
    """
    shape = setting.shape
    weights = setting.itemsize * (shape.matrices / mesh.model + shape.norms)
    return (3 if mesh.fsdp else 2) * weights


def _activation_gathers(setting: Setting, mesh: Mesh, tokens: float) -> float:
    """Returns the bytes that are gathered or scattered over model in a step.

    In each layer the outputs of attention and of the block are summed, and backward
    the gradients of their inputs; recomputing a layer sums the output of attention
    again. The embeddings and the gradient of the head's input are summed too. A sum is
    a scatter and a gather.
    """
    shape = setting.shape
    sums = shape.layers * (5 if mesh.recompute else 4) + 2
    return 2 * sums * setting.itemsize * tokens * shape.features


def _bytes_read(setting: Setting, mesh: Mesh, tokens: float) -> float:
    """Returns the fewest bytes that products move from and to memory in a step.

    Weights are read forward, backward, and to recompute; their gradients are written.
    What the backward pass needs is written and read once.
    """
    shape = setting.shape
    weights = setting.itemsize * shape.matrices / mesh.model
    passes = 4 if mesh.recompute else 3
    layer = shape.layer_activations(setting.itemsize, mesh.model, setting.flash)
    kept = shape.layers * layer
    if mesh.recompute:
        kept += shape.layers * setting.itemsize * shape.features
    logits = shape.logit_bytes(setting.itemsize, mesh.model)
    return passes * weights + 2 * tokens * (kept + logits)
