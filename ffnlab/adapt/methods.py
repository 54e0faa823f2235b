"""Configurations of the methods of parameter-efficient fine-tuning, and their names.

    LoRA(rank=8) + BitFit()  # a configuration is a method, or a tuple of methods

In all methods, everything outside the pretrained encoder (the task head) trains too.
"""

import dataclasses
from collections.abc import Iterable
from typing import ClassVar

from ffnlab.errors import InputError, choose
from ffnlab.options import names_in

_BLOCKS = names_in("ffnlab.nn.ffn", "BLOCKS")
_ACTIVATIONS = names_in("ffnlab.nn.activations", "ACTIVATIONS")


def _at_least(method: "Method", least: float, *fields: str) -> None:
    """Raises if a field is less than a number."""
    for field in fields:
        value = getattr(method, field)
        if not value >= least:
            raise InputError(f"{field}: {value} must be at least {least}")


def _is_rate(method: "Method", *fields: str) -> None:
    """Raises if a field is not in [0, 1)."""
    for field in fields:
        value = getattr(method, field)
        if not 0.0 <= value < 1.0:
            raise InputError(f"{field}: {value} must be in [0, 1)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A method of fine-tuning. The sum of methods is a tuple of them."""

    name: ClassVar[str]

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):  # JSON has no tuples
                object.__setattr__(self, field.name, tuple(value))
        if getattr(self, "targets", None) == ():
            raise InputError("targets: at least one is needed")

    def __add__(self, other: "Config") -> "tuple[Method, ...]":
        return as_methods(self) + as_methods(other)

    def __radd__(self, other: "Config") -> "tuple[Method, ...]":
        return as_methods(other) + as_methods(self)


Config = Method | Iterable[Method]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRA(Method):
    """Low-rank adaptation: y = x W + s · dropout(x) A B, which starts as x W.

    Attributes:
      rank: Rank r, at most the smaller width of a target.
      alpha: Numerator of the scale s = alpha / r.
      dropout: Dropout rate of the input of A, in [0, 1).
      targets: Linear layers to adapt: regular expressions of the ends of their paths,
        such as `query`, `ffn/up` or `layer_[01]/attention/.*`, or the names `ffn`,
        `attention` and `all`.
      rslora: Whether s is alpha / √r.
      dora: Whether each column of W + s A B has a trained norm (DoRA). The gradient of
        the norm by A and B is left out, as in the paper.
      rate_ratio: Learning rate of B divided by that of A (LoRA+); see `rates`.

    Source: Hu et al. 2021; Kalajdzievski 2023 for rsLoRA; Liu et al. 2024 for DoRA;
      Hayou et al. 2024 for LoRA+.

    >>> LoRA(rank=4, alpha=8.0).scale, LoRA(rank=4, alpha=8.0, rslora=True).scale
    (2.0, 4.0)
    """

    name: ClassVar[str] = "lora"
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("query", "value")
    rslora: bool = False
    dora: bool = False
    rate_ratio: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        _at_least(self, 1, "rank")
        _is_rate(self, "dropout")
        if not self.rate_ratio > 0.0:
            raise InputError(f"rate_ratio: {self.rate_ratio} must be above 0")

    @property
    def scale(self) -> float:
        """The factor s of A B."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaLoRA(Method):
    """Low-rank adaptation with a rank per layer: y = x W + s · dropout(x) P Λ Q.

    Training starts at `rank` in every target. The least important entries of Λ are then
    set to 0 until `target_rank` of them per target are left on average; `adalora` has
    the functions for the training step.

    Attributes:
      rank: Rank at the start.
      target_rank: Average rank at the end, at most `rank`.
      alpha: Numerator of the scale s = alpha / rank.
      dropout: Dropout rate of the input of P, in [0, 1).
      targets: See `LoRA`.
      total_steps: Number of training steps. It must be given.
      warmup_steps: Steps before the first pruning; None means a tenth of all.
      final_steps: Steps at the target, after the last pruning; None means a third.
      interval: Steps from one pruning to the next.
      beta1: Decay of the smoothed sensitivity, in [0, 1).
      beta2: Decay of its uncertainty, in [0, 1).
      orthogonality: Weight γ of the orthogonality loss.

    Raises:
      InputError: A value is out of its range, or the schedule cannot reach its target.

    Source: Zhang et al. 2023, "AdaLoRA".
    """

    name: ClassVar[str] = "adalora"
    rank: int = 12
    target_rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("query", "value")
    total_steps: int = 0
    warmup_steps: int | None = None
    final_steps: int | None = None
    interval: int = 10
    beta1: float = 0.85
    beta2: float = 0.85
    orthogonality: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        _at_least(self, 1, "rank", "target_rank", "interval")
        _is_rate(self, "dropout", "beta1", "beta2")
        _at_least(self, 0.0, "orthogonality")
        if self.target_rank > self.rank:
            raise InputError(
                f"target_rank: {self.target_rank} must be at most rank={self.rank}, "
                "since AdaLoRA only lowers ranks"
            )
        if self.total_steps < 1:
            raise InputError(
                f"total_steps: {self.total_steps} must be the number of training "
                "steps, by which AdaLoRA plans its ranks"
            )
        if min(self.first, self.total_steps - self.last) < 0:
            raise InputError("warmup_steps and final_steps: must be at least 0")
        if not self.first < self.last:
            raise InputError(
                f"total_steps: {self.total_steps} steps leave none to lower the ranks "
                f"in, after {self.first} of warmup_steps and before "
                f"{self.total_steps - self.last} of final_steps"
            )

    @property
    def scale(self) -> float:
        """The factor s of P Λ Q."""
        return self.alpha / self.rank

    @property
    def first(self) -> int:
        """The number of steps before ranks are lowered."""
        share = self.total_steps // 10
        return share if self.warmup_steps is None else self.warmup_steps

    @property
    def last(self) -> int:
        """The step after which ranks stay as they are."""
        share = self.total_steps // 3
        return self.total_steps - (
            share if self.final_steps is None else self.final_steps
        )


PLACEMENTS = ("houlsby", "pfeiffer", "parallel")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bottleneck(Method):
    """Bottleneck adapters: small feed-forward blocks, which start as 0, are added.

    Attributes:
      placement: `houlsby`, y + A(y) after attention and after the feed-forward block;
        `pfeiffer`, after the feed-forward block alone; or `parallel`, y + A(x) beside
        the feed-forward block of input x.
      hidden: Hidden width of A.
      block: A key of `ffn.BLOCKS`, with its activation if it takes one.
      scale: Factor of A; 4 in the paper on parallel adapters.

    Source: Houlsby et al. 2019; Pfeiffer et al. 2021; He et al. 2022 for parallel.
    """

    name: ClassVar[str] = "bottleneck"
    placement: str = "houlsby"
    hidden: int = 64
    block: str = "mlp:gelu"
    scale: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        choose("placement", self.placement, PLACEMENTS)
        _at_least(self, 1, "hidden")
        kind, _, activation = self.block.partition(":")
        choose("block", kind, _BLOCKS())
        if activation:
            choose("block", activation, _ACTIVATIONS())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prefix(Method):
    """Prefix tuning: trained keys and values before those of the text, in every layer.

    All texts that share a row attend to them.

    Attributes:
      virtual_tokens: Number of keys and values P per layer.
      projection: Hidden width of an MLP that computes them from vectors of the model's
        width; `fold` removes it after training. 0 means that they are trained directly.
      shift_positions: Whether the positions of the text start at P, as in the peft
        library. The model then takes P tokens less.

    Source: Li & Liang 2021; Liu et al. 2022, "P-Tuning v2".
    """

    name: ClassVar[str] = "prefix"
    virtual_tokens: int = 20
    projection: int = 0
    shift_positions: bool = False

    def __post_init__(self):
        super().__post_init__()
        _at_least(self, 1, "virtual_tokens")
        _at_least(self, 0, "projection")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt(Method):
    """Prompt tuning: trained vectors before the token embeddings.

    The virtual tokens attend to each other alone, also in a bidirectional model. Their
    states therefore do not depend on the text, are computed once for all rows, and are
    seen by all texts that share a row. In a causal model this is the usual definition.

    Attributes:
      virtual_tokens: Number of virtual tokens P.
      shift_positions: Whether the positions of the text start at P, after those of the
        virtual tokens. The model then takes P tokens less.

    Source: Lester et al. 2021.
    """

    name: ClassVar[str] = "prompt"
    virtual_tokens: int = 20
    shift_positions: bool = True

    def __post_init__(self):
        super().__post_init__()
        _at_least(self, 1, "virtual_tokens")


@dataclasses.dataclass(frozen=True, kw_only=True)
class IA3(Method):
    """(IA)³: trained factors, which start at 1, of keys, values and hidden units.

    Attributes:
      targets: Linear layers whose outputs are scaled; see `LoRA`.
      input_targets: Linear layers whose inputs are scaled.

    Source: Liu et al. 2022, "Few-shot parameter-efficient fine-tuning is better".
    """

    name: ClassVar[str] = "ia3"
    targets: tuple[str, ...] = ("key", "value")
    input_targets: tuple[str, ...] = ("down",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BitFit(Method):
    """Trains all biases of the encoder (Ben Zaken et al. 2022)."""

    name: ClassVar[str] = "bitfit"


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadOnly(Method):
    """Trains the task head alone."""

    name: ClassVar[str] = "head"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopLayers(Method):
    """Trains the last layers, and the norm after them.

    With `scan=True` the stack of all layers still computes a gradient, of which the
    part of these layers is used; without it, lower layers run forward only.

    Attributes:
      layers: Number of layers.
    """

    name: ClassVar[str] = "top"
    layers: int = 1

    def __post_init__(self):
        super().__post_init__()
        _at_least(self, 1, "layers")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FFNOnly(Method):
    """Trains the feed-forward blocks."""

    name: ClassVar[str] = "ffn"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionOnly(Method):
    """Trains the attention layers."""

    name: ClassVar[str] = "attention"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Full(Method):
    """Trains all parameters."""

    name: ClassVar[str] = "full"


def as_methods(config: Config) -> tuple[Method, ...]:
    """Returns the methods of a configuration.

    Raises:
      InputError: There is none, a method occurs twice, or something is no method.

    >>> [method.name for method in as_methods(LoRA() + BitFit() + HeadOnly())]
    ['lora', 'bitfit', 'head']
    """
    methods = (config,) if isinstance(config, Method) else tuple(config)
    for method in methods:
        if not isinstance(method, Method):
            raise InputError(f"method: {method!r} is no method; known: LoRA() and kin")
    listed = [method.name for method in methods]
    twice = [name for name in listed if listed.count(name) > 1]
    if twice:
        raise InputError(f"method: {twice[0]} occurs twice; give it once")
    if not methods:
        raise InputError("method: at least one is needed")
    return methods
