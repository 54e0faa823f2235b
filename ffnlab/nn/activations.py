"""Activations: pure elementwise functions, and the table that names them.

A row of `ACTIVATIONS` holds the function, its Lipschitz constant over the real line
(the largest absolute slope; infinite for relu²), its formula and its source.
`ffnlab.feedback.layers` uses the constants to bound how much a feedback network
expands.

In bfloat16 and float16 every activation that rounds is computed in float32, and so is
its derivative; the result and the gradient are rounded once.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ffnlab.errors import choose
from ffnlab.types import Array


def in_float32(function: Callable[..., Array]) -> Callable[..., Array]:
    """Returns a function that computes in float32 inside, for half precision.

    The derivative is computed in float32 too: that of a sigmoid, y (1 − y), loses most
    of its digits where y is near 1 in bfloat16. Other dtypes are left as they are.

    Args:
      function: `function(x, ...)`, elementwise in x.

    >>> slope = jax.grad(in_float32(jax.nn.sigmoid))(jnp.bfloat16(3.0))
    >>> round(float(slope), 4)  # 0.045177 exactly; 0.041 without
    0.0452
    """

    @functools.wraps(function)
    def apply(x: Array, *args: Any, **options: Any) -> Array:
        dtype = jnp.result_type(x)
        if dtype not in (jnp.bfloat16, jnp.float16):
            return function(x, *args, **options)
        wide = jnp.asarray(x, jnp.float32)
        return function(wide, *args, **options).astype(dtype)

    return apply


sigmoid = in_float32(jax.nn.sigmoid)
tanh = in_float32(jnp.tanh)


def identity(x: Array) -> Array:
    """Returns `x` unchanged, as the gate of a bilinear block does.

    >>> float(identity(jnp.float32(-2.0)))
    -2.0
    """
    return x


def relu_squared(x: Array) -> Array:
    """Returns max(x, 0)², elementwise (So et al. 2021, "Primer").

    >>> float(relu_squared(jnp.float32(3.0)))
    9.0
    """
    return jnp.square(jax.nn.relu(x))


@in_float32
def gelu(x: Array) -> Array:
    """Returns x Φ(x), Φ being the exact normal CDF (Hendrycks & Gimpel 2016).

    >>> round(float(gelu(jnp.float32(1.0))), 4)
    0.8413
    """
    return jax.nn.gelu(x, approximate=False)


@in_float32
def gelu_tanh(x: Array) -> Array:
    """Returns the tanh approximation of GELU, as in GPT-2.

    It takes about half the time of the exact function on CPU.

    >>> round(float(gelu_tanh(jnp.float32(1.0))), 4)
    0.8412
    """
    return jax.nn.gelu(x, approximate=True)


@in_float32
def swish(x: Array, beta: Array | float = 1.0) -> Array:
    """Returns x σ(βx), elementwise (Ramachandran et al. 2017).

    Args:
      x: Values `[..., H]`.
      beta: A number, or an array `[H]` with one β per channel.

    Returns:
      `[..., H]`. β = 0 gives x/2, and β → ∞ gives relu.

    >>> [round(float(swish(jnp.float32(v))), 4) for v in (-2.0, 0.0, 2.0)]
    [-0.2384, 0.0, 1.7616]
    """
    beta = jnp.asarray(beta, x.dtype)
    if beta.ndim:
        beta = beta.reshape((1,) * (x.ndim - beta.ndim) + beta.shape)  # [..., H]
    return x * jax.nn.sigmoid(beta * x)


class Activation(NamedTuple):
    """A row of `ACTIVATIONS`.

    Attributes:
      function: `function(x)`, or `function(x, beta)` if β is learned.
      lipschitz: Largest |slope| over the real line; it does not depend on β.
      formula: The formula in plain text.
      source: The paper that proposed it.
      beta: Whether a block learns one β per `layer`, one per `channel`, or none.
    """

    function: Callable[..., Array]
    lipschitz: float
    formula: str
    source: str
    beta: Literal["layer", "channel"] | None = None


_SELU_SLOPE = 1.0507009873554805 * 1.6732632423543772
_SWISH_SLOPE = 1.0998393201312137
_SWISH_SOURCE = "Ramachandran et al. 2017"

ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(identity, 1.0, "x", "linear"),
    "relu": Activation(jax.nn.relu, 1.0, "max(x, 0)", "Nair & Hinton 2010"),
    "relu2": Activation(relu_squared, math.inf, "max(x, 0)²", "So et al. 2021"),
    "leaky_relu": Activation(
        in_float32(jax.nn.leaky_relu), 1.0, "x if x > 0 else x/100", "Maas et al. 2013"
    ),
    "elu": Activation(
        in_float32(jax.nn.elu), 1.0, "x if x > 0 else eˣ − 1", "Clevert et al. 2015"
    ),
    "selu": Activation(
        in_float32(jax.nn.selu),
        _SELU_SLOPE,
        "λx if x > 0 else λα(eˣ − 1)",
        "Klambauer et al. 2017",
    ),
    "sigmoid": Activation(sigmoid, 0.25, "1/(1 + e⁻ˣ)", "logistic function"),
    "tanh": Activation(tanh, 1.0, "tanh x", "hyperbolic tangent"),
    "gelu": Activation(gelu, 1.1289041453, "x Φ(x)", "Hendrycks & Gimpel 2016"),
    "gelu_tanh": Activation(
        gelu_tanh,
        1.1289930687,
        "x/2 (1 + tanh(√(2/π)(x + 0.044715 x³)))",
        "Hendrycks & Gimpel 2016",
    ),
    "silu": Activation(
        in_float32(jax.nn.silu), _SWISH_SLOPE, "x σ(x)", "Elfwing et al. 2017"
    ),
    "swish": Activation(swish, _SWISH_SLOPE, "x σ(βx)", _SWISH_SOURCE, "layer"),
    "swish_channel": Activation(
        swish, _SWISH_SLOPE, "x σ(βx), a β per channel", _SWISH_SOURCE, "channel"
    ),
    "mish": Activation(
        in_float32(jax.nn.mish), 1.0884981613, "x tanh(ln(1 + eˣ))", "Misra 2019"
    ),
    "softplus": Activation(
        in_float32(jax.nn.softplus), 1.0, "ln(1 + eˣ)", "Dugas et al. 2000"
    ),
    "hard_swish": Activation(
        in_float32(jax.nn.hard_swish),
        1.5,
        "x min(max(x + 3, 0), 6)/6",
        "Howard et al. 2019",
    ),
}


def get(name: str) -> Activation:
    """Returns the row of `ACTIVATIONS` with a name.

    Args:
      name: A key of `ACTIVATIONS`.

    Raises:
      InputError: The name is unknown; the message offers the nearest names.

    >>> get("sigmoid").lipschitz
    0.25
    """
    return ACTIVATIONS[choose("activation", name, ACTIVATIONS)]


def add_beta(module: nnx.Module, activation: Activation, hidden: int) -> None:
    """Adds the parameter `beta`, initialised to 1, if the activation learns one.

    Args:
      module: The module that gets the parameter.
      activation: A row of `ACTIVATIONS`.
      hidden: Number of channels H, for one β per channel.

    >>> module = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    >>> add_beta(module, get("swish_channel"), 3)
    >>> module.beta.shape
    (3,)
    """
    if activation.beta:
        shape = (hidden,) if activation.beta == "channel" else ()
        module.beta = nnx.Param(jnp.ones(shape))


def with_beta(module: nnx.Module, activation: Activation) -> Callable[[Array], Array]:
    """Returns an activation as a function of x alone.

    Args:
      module: The module that `add_beta` was called on; unused without a β.
      activation: A row of `ACTIVATIONS`.

    >>> float(with_beta(None, get("relu"))(jnp.float32(-1.0)))
    0.0
    """
    if not activation.beta:
        return activation.function
    return functools.partial(activation.function, beta=module.beta[...])
