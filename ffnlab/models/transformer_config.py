"""Configurations of Transformers, and the well-known sizes."""

import dataclasses
from typing import Any, Literal

from ffnlab.errors import InputError, choose
from ffnlab.nn.activations import ACTIVATIONS, Activation, get
from ffnlab.nn.attention_kernel import IMPLEMENTATIONS
from ffnlab.nn.ffn import BlockConfig, parse
from ffnlab.nn.norms import NORMS

POSITIONS = ("learned", "sinusoidal", "rotary", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Configuration of a Transformer.

    Attributes:
      vocabulary: Number of different tokens V.
      features: Model width D.
      embedding: Width E of the embeddings, projected to the model width, as in ELECTRA;
        None means D, without a projection.
      layers: Number of layers L.
      heads: Number of attention heads N, each of width D / N.
      key_value_heads: Number of key and value heads; None means N, and 1 is multi-query
        attention.
      hidden: Hidden width H of the feed-forward blocks.
      block: A key of `ffn.BLOCKS`, with its activation if it takes one; or a tuple with
        one block per layer.
      positions: `learned`, `sinusoidal` (fixed), `rotary` (queries and keys) or `none`.
      length: Maximum number of positions; it only limits learned positions.
      offset: Index of the first learned position (2 in RoBERTa).
      types: Number of token types (2 in BERT), or 0.
      norm: `post`, N(x + f(x)), or `pre`, x + f(N(x)) with a final norm.
      norm_kind: `layer` or `rms`.
      epsilon: Number that the norm adds to the variance.
      embed_norm: Whether the embeddings are normalised.
      causal: Whether a position attends only to itself and to earlier positions.
      bias: Whether projections have biases.
      dropout: Dropout rate of embeddings and of layer outputs, in [0, 1).
      attention_dropout: Dropout rate of attention weights, in [0, 1).
      pooler: Whether there is a dense tanh layer for the first position.
      head: `none`, or `tied`: logits by the token embeddings.
      head_dense: Whether the head starts with a dense layer, activation and norm.
      head_bias: Whether the head has a bias for each token.
      head_activation: Activation of the dense layer of the head; None means that of
        the last feed-forward block, as in BERT.
      attention_implementation: `auto` computes attention by cuDNN where JAX uses a GPU
        and cuDNN takes the shapes and the dtype, and otherwise by XLA; `xla`; or
        `cudnn`, where anything else is an error.
      remat: Whether the backward pass recomputes the inside of each layer.
      remat_policy: What it recomputes: `full`, all; or `dots`, all but the products
        with kernels, which it keeps.
      scan: Whether the parameters of all layers are stacked; see `transformer`.

    Raises:
      InputError: A value is out of its range, or a name is unknown.
    """

    vocabulary: int = 256
    features: int = 64
    embedding: int | None = None
    layers: int = 2
    heads: int = 4
    key_value_heads: int | None = None
    hidden: int = 256
    block: str | tuple[str, ...] = "mlp:gelu"
    positions: Literal["learned", "sinusoidal", "rotary", "none"] = "learned"
    length: int = 512
    offset: int = 0
    types: int = 0
    norm: Literal["post", "pre"] = "post"
    norm_kind: Literal["layer", "rms"] = "layer"
    epsilon: float = 1e-12
    embed_norm: bool = True
    causal: bool = False
    bias: bool = True
    dropout: float = 0.0
    attention_dropout: float = 0.0
    pooler: bool = False
    head: Literal["none", "tied"] = "none"
    head_dense: bool = True
    head_bias: bool = True
    head_activation: str | None = None
    attention_implementation: Literal["auto", "xla", "cudnn"] = "auto"
    remat: bool = False
    remat_policy: Literal["full", "dots"] = "full"
    scan: bool = False

    def __post_init__(self):
        if isinstance(self.block, list):  # JSON has no tuples
            object.__setattr__(self, "block", tuple(self.block))
        self._check_sizes()
        self._check_choices()
        self._check_blocks()

    def _check_sizes(self) -> None:
        counts = ("vocabulary", "features", "layers", "heads", "hidden", "length")
        for name in counts:
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1")
        if self.embedding is not None and self.embedding < 1:
            raise InputError(f"embedding={self.embedding} must be at least 1, or None")
        if self.embedding and self.head == "tied" and not self.head_dense:
            raise InputError(
                "embedding: a head tied to embeddings of another width needs "
                "head_dense=True, whose dense layer ends in their width"
            )
        if self.features % self.heads or self.heads % (self.key_value_heads or 1):
            raise InputError(
                f"features={self.features} must be divisible by heads={self.heads}, "
                f"and heads by key_value_heads={self.key_value_heads}"
            )
        if self.positions == "rotary" and self.features // self.heads % 2:
            raise InputError("rotary positions need heads of even width")
        for name in ("dropout", "attention_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"{name}={getattr(self, name)} must be in [0, 1)")

    def _check_choices(self) -> None:
        if self.head_activation is not None:
            choose("head_activation", self.head_activation, ACTIVATIONS)
        choose("positions", self.positions, POSITIONS)
        choose("norm", self.norm, ("post", "pre"))
        choose("norm_kind", self.norm_kind, NORMS)
        if self.norm_kind == "batch":
            raise InputError(
                "norm_kind: batch would take its statistics over padding, over other "
                "texts, and in a causal model over later tokens; use layer or rms"
            )
        choose("head", self.head, ("none", "tied"))
        choose(
            "attention_implementation", self.attention_implementation, IMPLEMENTATIONS
        )
        choose("remat_policy", self.remat_policy, ("full", "dots"))

    def _check_blocks(self) -> None:
        if len(self.blocks) != self.layers:
            raise InputError(
                f"block has {len(self.blocks)} names for {self.layers} layers"
            )
        for name in self.blocks:
            parse(name)
        if self.scan and len(set(self.blocks)) > 1:
            raise InputError(
                "scan: all layers need the same block, and there are "
                f"{', '.join(sorted(set(self.blocks)))}; leave it out"
            )

    @property
    def blocks(self) -> tuple[str, ...]:
        """The feed-forward block of each layer."""
        if isinstance(self.block, str):
            return (self.block,) * self.layers
        return tuple(self.block)

    @property
    def head_function(self) -> Activation:
        """The activation of the dense layer of the head."""
        if self.head_activation is not None:
            return get(self.head_activation)
        return self.feed_forward(self.layers - 1).activation

    @property
    def embedding_width(self) -> int:
        """The width of the embeddings, before a projection to the model width."""
        return self.embedding or self.features

    def feed_forward(self, layer: int) -> BlockConfig:
        """Returns the configuration of the feed-forward block of a layer."""
        return BlockConfig(
            self.blocks[layer],
            self.features,
            self.hidden,
            bias=self.bias,
            norm="none",
            initializer="normal",
            residual=False,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig(TransformerConfig):
    """Configuration of a bidirectional Transformer, by default like BERT.

    Source: Devlin et al. 2019.

    >>> EncoderConfig.bert_base().features, EncoderConfig.minilm_l6().layers
    (768, 6)
    """

    types: int = 2

    @classmethod
    def bert_base(cls, **options: Any) -> "EncoderConfig":
        """Returns the configuration of BERT base, uncased: 12 layers of width 768."""
        size = {"vocabulary": 30522, "features": 768, "layers": 12, "heads": 12}
        return cls(**{**size, "hidden": 3072, "pooler": True, **options})

    @classmethod
    def minilm_l6(cls, **options: Any) -> "EncoderConfig":
        """Returns MiniLM-L6, uncased: 6 layers of width 384 (Wang et al. 2020)."""
        size = {"vocabulary": 30522, "features": 384, "layers": 6, "heads": 12}
        return cls(**{**size, "hidden": 1536, "pooler": True, **options})

    @classmethod
    def tiny(cls, **options: Any) -> "EncoderConfig":
        """Returns a small configuration for tests: 2 layers of width 64 over bytes."""
        return cls(**options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig(TransformerConfig):
    """Configuration of a causal Transformer, by default like GPT-2.

    Source: Radford et al. 2019.

    >>> DecoderConfig.gpt2().layers, DecoderConfig.tiny(positions="rotary").causal
    (12, True)
    """

    block: str | tuple[str, ...] = "mlp:gelu_tanh"
    norm: Literal["post", "pre"] = "pre"
    epsilon: float = 1e-5
    embed_norm: bool = False
    causal: bool = True
    head: Literal["none", "tied"] = "tied"
    head_dense: bool = False
    head_bias: bool = False

    @classmethod
    def gpt2(cls, **options: Any) -> "DecoderConfig":
        """Returns the smallest GPT-2: 12 layers of width 768."""
        size = {"vocabulary": 50257, "features": 768, "layers": 12, "heads": 12}
        return cls(**{**size, "hidden": 3072, "length": 1024, **options})

    @classmethod
    def tiny(cls, **options: Any) -> "DecoderConfig":
        """Returns a small configuration for tests: 2 layers of width 64 over bytes."""
        return cls(**options)


def dropout_fields(rate: float | None) -> dict[str, float]:
    """Returns both dropout fields of a config for one rate; none for None.

    >>> dropout_fields(0.1)
    {'dropout': 0.1, 'attention_dropout': 0.1}
    """
    return {} if rate is None else {"dropout": rate, "attention_dropout": rate}
