"""What Transformers are made of: frozen configs, and the well-known sizes."""

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from ffnlab.errors import InputError, choose
from ffnlab.nn.ffn import NORMS, BlockConfig, parse

if TYPE_CHECKING:
    pass

POSITIONS = ("learned", "sinusoidal", "rotary", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """What a Transformer is made of.

    Attributes:
      vocabulary: V, the number of tokens.
      features: model width D.
      layers: L.
      heads: attention heads N, of width D / N.
      key_value_heads: heads of keys and values; None is N, 1 is multi-query attention.
      hidden: hidden width H of the feed-forward blocks.
      block: a key of `ffn.BLOCKS`, with its activation if it takes one; or one a layer.
      positions: `learned`, `sinusoidal` (fixed), `rotary` (queries and keys) or none.
      length: the most positions; rotary and sinusoidal ones know no limit.
      offset: the number of the first position (2 in RoBERTa).
      types: how many kinds of segments are told apart (2 in BERT), or 0.
      norm: `post`, N(x + f(x)), or `pre`, x + f(N(x)) with a norm at the end.
      norm_kind: `layer` or `rms`.
      epsilon: what the norm adds to the variance.
      embed_norm: whether the embeddings are normalised.
      causal: whether a position sees only what came before.
      bias: whether projections have one.
      dropout: the rate on embeddings and on what a layer adds, in [0, 1).
      attention_dropout: the rate on attention weights, in [0, 1).
      pooler: whether there is a dense tanh layer on the first position.
      head: `none`, or `tied`: logits by the token embeddings.
      head_dense: whether the head has a dense layer, activation and norm before that.
      head_bias: whether it has a bias for each token.
      remat: whether a layer's inside is computed again in the backward pass.
      scan: whether the layers are one stack, see above.

    Raises:
      InputError: a value is out of its range or a name unknown.
    """

    vocabulary: int = 256
    features: int = 64
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
    remat: bool = False
    scan: bool = False

    def __post_init__(self):
        counts = ("vocabulary", "features", "layers", "heads", "hidden", "length")
        for name in counts:
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1")
        choose("positions", self.positions, POSITIONS)
        choose("norm", self.norm, ("post", "pre"))
        choose("norm_kind", self.norm_kind, NORMS)
        choose("head", self.head, ("none", "tied"))
        if self.features % self.heads or self.heads % (self.key_value_heads or 1):
            raise InputError(
                f"features={self.features} must be divisible by heads={self.heads}, "
                f"and that by key_value_heads={self.key_value_heads}"
            )
        if self.positions == "rotary" and self.features // self.heads % 2:
            raise InputError("rotary positions need heads of even width")
        for name in ("dropout", "attention_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"{name}={getattr(self, name)} must be in [0, 1)")
        if len(self.blocks) != self.layers:
            raise InputError(f"block names {len(self.blocks)} for {self.layers} layers")
        for name in self.blocks:
            parse(name)
        if self.scan and len(set(self.blocks)) > 1:
            raise InputError("scan: a stack of layers needs one kind of block")

    @property
    def blocks(self) -> tuple[str, ...]:
        """The feed-forward block of each layer."""
        one = isinstance(self.block, str)
        return (self.block,) * self.layers if one else tuple(self.block)

    def feed_forward(self, layer: int) -> BlockConfig:
        """Returns what a layer's feed-forward block is made of."""
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
    """A Transformer in which every token sees every other, by default as BERT.

    Source: Devlin et al. 2019.

    >>> EncoderConfig.bert_base().features, EncoderConfig.minilm_l6().layers
    (768, 6)
    """

    types: int = 2

    @classmethod
    def bert_base(cls, **options: Any) -> "EncoderConfig":
        """Returns BERT base, uncased: 12 layers of width 768."""
        size = {"vocabulary": 30522, "features": 768, "layers": 12, "heads": 12}
        return cls(**{**size, "hidden": 3072, "pooler": True, **options})

    @classmethod
    def minilm_l6(cls, **options: Any) -> "EncoderConfig":
        """Returns MiniLM, uncased: 6 layers of width 384 (Wang et al. 2020)."""
        size = {"vocabulary": 30522, "features": 384, "layers": 6, "heads": 12}
        return cls(**{**size, "hidden": 1536, "pooler": True, **options})

    @classmethod
    def tiny(cls, **options: Any) -> "EncoderConfig":
        """Returns one to try things with: 2 layers of width 64 over bytes."""
        return cls(**options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig(TransformerConfig):
    """A Transformer in which a token sees what came before it, by default as GPT-2.

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
        """Returns GPT-2, the smallest: 12 layers of width 768."""
        size = {"vocabulary": 50257, "features": 768, "layers": 12, "heads": 12}
        return cls(**{**size, "hidden": 3072, "length": 1024, **options})

    @classmethod
    def tiny(cls, **options: Any) -> "DecoderConfig":
        """Returns one to try things with: 2 layers of width 64 over bytes."""
        return cls(**options)


def dropouts(rate: float | None) -> dict[str, float]:
    """Returns the fields of a Transformer that a dropout flag sets; None sets none."""
    return {} if rate is None else {"dropout": rate, "attention_dropout": rate}
