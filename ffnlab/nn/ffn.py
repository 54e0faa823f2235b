"""Feed-forward blocks: their equations, and the module that owns their arrays.

A plain block computes `down(σ(up(x)))`, a gated block `down(σ(gate(x)) ⊙ up(x))`; the
gate is the activated half. An equation is a pure function of arrays. `FeedForward` is
the NNX module that owns the arrays of any block and adds bias, norm, dropout and
residual. A new block is one equation and one row of `BLOCKS`; `ffnlab.nn.register`
checks it and adds it.

    config = BlockConfig("swiglu", features=64, hidden=128, norm="pre")
    block = FeedForward(config, rngs=nnx.Rngs(0))
    y, aux = block(x)  # [..., 64], {"hidden": [..., 128]}
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
from flax import nnx

from ffnlab.errors import InputError, choose
from ffnlab.nn import activations
from ffnlab.nn.batch_norm import normalize
from ffnlab.nn.block_parameters import BlockParameter
from ffnlab.nn.dropout import dropout
from ffnlab.nn.initializers import INITIALIZERS
from ffnlab.nn.linear import Linear, Weights, as_rows, dense, from_rows, weights
from ffnlab.nn.norms import NORM_PLACEMENTS, NORMS
from ffnlab.nn.random_streams import check_rngs
from ffnlab.types import Array, Key

Elementwise = Callable[[Array], Array]
Aux = dict[str, Array]


def _finish(
    combine: Callable[..., Array],
    inputs: tuple[Array, ...],
    down: Weights,
    between: Elementwise | None,
) -> tuple[Array, Aux]:
    """Returns `down` of the combined inputs; the backward pass keeps the inputs alone.

    The backward pass recomputes the hidden units from `inputs`, a few elementwise
    operations, instead of keeping an array of them. The inner checkpoint stops XLA from
    saving the slope of the activation (`benchmarks/ffn.py` measures the bytes).
    """
    combine = jax.checkpoint(combine)

    @jax.checkpoint
    def finish(down: Weights, *inputs: Array) -> tuple[Array, Array]:
        hidden = combine(*inputs)  # [..., H]
        if between is not None:
            hidden = between(hidden)
        return dense(hidden, down), hidden

    y, hidden = finish(down, *inputs)
    return y, {"hidden": hidden}


def mlp(
    x: Array,
    up: Weights,
    down: Weights,
    *,
    activation: Elementwise = jax.nn.relu,
    between: Elementwise | None = None,
) -> tuple[Array, Aux]:
    """Returns the plain block `down(σ(up(x)))`.

    Args:
      x: `[..., D]`.
      up: Weights `[D, H]`.
      down: Weights `[H, D]`.
      activation: σ, elementwise.
      between: Function applied to the hidden units before `down` (dropout, norm).

    Returns:
      `y` `[..., D]` and `{"hidden": [..., H]}`.

    Source: Vaswani et al. 2017, equation 2.

    >>> eye = {"kernel": jax.numpy.eye(2)}
    >>> y, aux = mlp(jax.numpy.array([-1.0, 2.0]), eye, eye)
    >>> y
    Array([0., 2.], dtype=float32)
    """
    return _finish(activation, (dense(x, up),), down, between)


def glu(
    x: Array,
    gate: Weights,
    up: Weights,
    down: Weights,
    *,
    activation: Elementwise = activations.sigmoid,
    between: Elementwise | None = None,
) -> tuple[Array, Aux]:
    """Returns the gated block `down(σ(gate(x)) ⊙ up(x))`.

    Args:
      x: `[..., D]`.
      gate: Weights `[D, H]` of the activated half.
      up: Weights `[D, H]` of the linear half.
      down: Weights `[H, D]`.
      activation: σ, elementwise: sigmoid for GLU, identity for the bilinear block,
        silu for SwiGLU.
      between: Function applied to the hidden units before `down` (dropout, norm).

    Returns:
      `y` `[..., D]` and `{"hidden": [..., H]}`.

    Source: Dauphin et al. 2017; Shazeer 2020, equations 5 and 6.

    >>> eye = {"kernel": jax.numpy.eye(2)}
    >>> x = jax.numpy.array([-1.0, 2.0])
    >>> y, aux = glu(x, eye, eye, eye, activation=jax.nn.relu)
    >>> y
    Array([0., 4.], dtype=float32)
    """

    def combine(gate: Array, up: Array) -> Array:
        return activation(gate) * up

    rows = as_rows(x)
    inputs = (from_rows(dense(rows, each), x) for each in (gate, up))  # [..., H] each
    return _finish(combine, tuple(inputs), down, between)


class Block(NamedTuple):
    """A row of `BLOCKS`.

    Attributes:
      equation: `equation(x, *inputs, down, activation=..., between=...) -> (y, aux)`,
        which also takes the parameters, by name.
      inputs: Names of the projections into the hidden width, in order.
      activation: The activation of the block, or its default; a key of `ACTIVATIONS`,
        or the name of `function`.
      fixed: Whether the block always has that activation.
      parameters: Its learnable parameters beside the projections, with their names.
      function: The activation itself, if it is none of `ACTIVATIONS`.
    """

    equation: Callable[..., tuple[Array, Aux]]
    inputs: tuple[str, ...]
    activation: str
    fixed: bool = True
    parameters: tuple[tuple[str, BlockParameter], ...] = ()
    function: Elementwise | None = None

    def flops(self, features: int, hidden: int) -> int:
        """Returns the operations of the products for one token; see `BlockConfig`."""
        kernels = (each for name, each in self.parameters if name.endswith("kernel"))
        products = (len(self.inputs) + 1) * features * hidden
        return 2 * (products + sum(each.size(features, hidden) for each in kernels))


BLOCKS: dict[str, Block] = {
    "mlp": Block(mlp, ("up",), "relu", fixed=False),
    "glu": Block(glu, ("gate", "up"), "sigmoid", fixed=False),
    "bilinear": Block(glu, ("gate", "up"), "identity"),
    "reglu": Block(glu, ("gate", "up"), "relu"),
    "geglu": Block(glu, ("gate", "up"), "gelu"),
    "swiglu": Block(glu, ("gate", "up"), "silu"),
    "miglu": Block(glu, ("gate", "up"), "mish"),
}


def parse(name: str) -> tuple[str, str]:
    """Returns the block and the activation of a name such as `mlp:gelu`.

    Args:
      name: A key of `BLOCKS`; `mlp` and `glu` may be followed by `:` and an activation.

    Raises:
      InputError: The block or activation is unknown, or the block has a fixed
        activation.

    >>> parse("swiglu"), parse("mlp:gelu")
    (('swiglu', 'silu'), ('mlp', 'gelu'))
    """
    kind, _, activation = name.partition(":")
    if kind not in BLOCKS and kind in activations.ACTIVATIONS:
        raise InputError(
            f"block: {kind} is an activation; write mlp:{kind} or glu:{kind}"
        )
    try:
        row = BLOCKS[choose("block", kind, BLOCKS)]
    except InputError as error:
        raise InputError(
            f"{error}; a block of your own needs the file that registers it: import "
            "it first, or --import=FILE"
        ) from None
    activation = activation or row.activation
    if row.function is None or activation != row.activation:
        choose("activation", activation, activations.ACTIVATIONS)
    if row.fixed and ":" in name:
        raise InputError(
            f"block {name!r}: {kind} always has the activation {row.activation}; "
            f"write {kind} alone, or glu:{activation}"
        )
    return kind, activation


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """Configuration of a feed-forward block.

    Attributes:
      kind: A key of `BLOCKS`, or one with its activation, such as `mlp:gelu`.
      features: Model width D.
      hidden: Hidden width H.
      bias: Whether every projection has a bias.
      dropout: Dropout rate of the hidden units in training, in [0, 1).
      norm: Where to normalise: `none`; `pre` x + f(N(x)); `post` N(x + f(x));
        `hidden` between the activation and `down`; `sandwich` x + N(f(N(x))).
      norm_kind: `layer`, `rms`, or `batch` (see `BatchNorm`).
      epsilon: Number that the norm adds to the variance (BERT uses 1e-12).
      initializer: A key of `INITIALIZERS`, for the kernels; biases start at 0.
      residual: Whether x is added to f(x).
      residual_scale: Factor of f(x) before x is added.
      block: The row of `BLOCKS` at the time of creation.

    Raises:
      InputError: A value is out of its range, or a name is unknown.
    """

    kind: str = "mlp"
    features: int = 64
    hidden: int = 256
    bias: bool = True
    dropout: float = 0.0
    norm: Literal["none", "pre", "post", "hidden", "sandwich"] = "pre"
    norm_kind: Literal["layer", "rms", "batch"] = "layer"
    epsilon: float = 1e-6
    initializer: str = "lecun"
    residual: bool = True
    residual_scale: float = 1.0
    block: Block = dataclasses.field(init=False, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "block", BLOCKS[parse(self.kind)[0]])
        choose("norm", self.norm, NORM_PLACEMENTS)
        choose("norm_kind", self.norm_kind, NORMS)
        choose("initializer", self.initializer, INITIALIZERS)
        if min(self.features, self.hidden) < 1:
            raise InputError(
                f"features={self.features} and hidden={self.hidden} must be at least 1"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"dropout={self.dropout} must be in [0, 1)")
        if not 0.0 < self.epsilon < 1.0:
            raise InputError(f"epsilon={self.epsilon} must be in (0, 1)")

    @property
    def activation(self) -> activations.Activation:
        """The row of `ACTIVATIONS`, or one that holds the block's own activation."""
        name, function = self.activation_name, self.block.function
        if function is not None and name == self.block.activation:
            return activations.Activation(function, math.inf, name, "own")
        return activations.get(name)

    @property
    def activation_name(self) -> str:
        """The key of `ACTIVATIONS`, or the name of the block's own activation."""
        return self.kind.partition(":")[2] or self.block.activation

    @property
    def parameters(self) -> int:
        """Number of parameters; running statistics are none."""
        width, hidden, inputs = self.features, self.hidden, len(self.block.inputs)
        total = (inputs + 1) * width * hidden
        if self.bias:
            total += inputs * hidden + width
        total += {None: 0, "layer": 1, "channel": hidden}[self.activation.beta]
        total += sum(each.size(width, hidden) for _, each in self.block.parameters)
        per_unit = 1 if self.norm_kind == "rms" else 2
        sizes = {"none": 0, "hidden": hidden, "sandwich": 2 * width}
        return total + per_unit * sizes.get(self.norm, width)

    @property
    def flops(self) -> int:
        """Floating-point operations of the matrix products for one token.

        This is one forward pass. A multiplication and an addition count as two;
        elementwise work is not counted.
        """
        return self.block.flops(self.features, self.hidden)


class FeedForward(nnx.Module):
    """A block of `BLOCKS` with its arrays.

    Args:
      config: Configuration of the block.
      rngs: Random streams that initialise the kernels.

    >>> block = FeedForward(BlockConfig("geglu", 4, 6), rngs=nnx.Rngs(0))
    >>> y, aux = block(jax.numpy.ones((2, 4)))
    >>> y.shape, aux["hidden"].shape
    ((2, 4), (2, 6))
    """

    def __init__(self, config: BlockConfig, *, rngs: nnx.Rngs):
        check_rngs(rngs)
        self.config = config
        width, hidden = config.features, config.hidden
        linear = functools.partial(
            Linear,
            use_bias=config.bias,
            kernel_init=INITIALIZERS[config.initializer],
            rngs=rngs,
        )
        for name in config.block.inputs:
            setattr(self, name, linear(width, hidden))
        self.down = linear(hidden, width)
        activations.add_beta(self, config.activation, hidden)
        for name, parameter in config.block.parameters:
            initializer = INITIALIZERS[config.initializer]
            array = parameter.init(width, hidden, initializer, rngs)
            setattr(self, name, nnx.Param(array))
        norm = functools.partial(
            NORMS[config.norm_kind], epsilon=config.epsilon, rngs=rngs
        )
        if config.norm != "none":
            self.norm = norm(hidden if config.norm == "hidden" else width)
        if config.norm == "sandwich":
            self.norm_out = norm(width)

    def __call__(self, x: Array, key: Key | None = None) -> tuple[Array, Aux]:
        """Returns the output of the block.

        Args:
          x: `[..., D]`.
          key: Dropout key, also of adapters; None in evaluation, where `batch` norms
            use their running statistics.

        Returns:
          `y` `[..., D]`, and `{"hidden": [..., H]}`, the input of `down`.
        """
        placement, training = self.config.norm, key is not None
        before = placement in ("pre", "sandwich")
        inside = normalize(self.norm, x, training) if before else x
        y, aux = self._equation(inside, key)
        if placement == "sandwich":
            y = normalize(self.norm_out, y, training)
        if self.config.residual:
            y = x + self.config.residual_scale * y
        return (normalize(self.norm, y, training) if placement == "post" else y), aux

    def _equation(self, x: Array, key: Key | None) -> tuple[Array, Aux]:
        row = self.config.block
        inputs = [weights(getattr(self, name), key, name) for name in row.inputs]
        batch = self.config.norm == "hidden" and self.config.norm_kind == "batch"

        def between(hidden: Array) -> Array:
            if batch:
                hidden = self.norm.normalize(hidden, key is not None)
            elif self.config.norm == "hidden":
                hidden = self.norm(hidden)
            return dropout(hidden, key, self.config.dropout)

        def call(between: Elementwise) -> tuple[Array, Aux]:
            return row.equation(
                x,
                *inputs,
                weights(self.down, key, "down"),
                **{name: getattr(self, name)[...] for name, _ in row.parameters},
                activation=activations.with_beta(self, self.config.activation),
                between=between,
            )

        if batch and key is not None:
            # An equation may recompute what is inside of it, so statistics are updated
            # outside. XLA computes what the two calls share once.
            self.norm.update(call(lambda hidden: hidden)[1]["hidden"])
        return call(between)


def _block_class(name: str, kind: str) -> type[FeedForward]:
    """Returns the subclass for a kind; `options` are other fields of `BlockConfig`."""

    def init(self, features: int, hidden: int, *, rngs: nnx.Rngs, **options: Any):
        config = BlockConfig(kind, features, hidden, **options)
        FeedForward.__init__(self, config, rngs=rngs)

    doc = f"The `{kind}` block of `BLOCKS`: `{name}(features, hidden, rngs=rngs)`."
    return type(name, (FeedForward,), {"__init__": init, "__doc__": doc})


MLP = _block_class("MLP", "mlp")
GLU = _block_class("GLU", "glu")
Bilinear = _block_class("Bilinear", "bilinear")
ReGLU = _block_class("ReGLU", "reglu")
GEGLU = _block_class("GEGLU", "geglu")
SwiGLU = _block_class("SwiGLU", "swiglu")
MiGLU = _block_class("MiGLU", "miglu")
