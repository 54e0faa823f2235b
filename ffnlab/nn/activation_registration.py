"""Activations of a user's own: checked, and added to `ACTIVATIONS`."""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab.errors import InputError, choose
from ffnlab.nn.activations import ACTIVATIONS, Activation
from ffnlab.nn.registration import check_name
from ffnlab.types import Array

_HIDDEN = 5  # the width at which an activation is checked
_POINTS = np.linspace(-8.0, 8.0, 1601, dtype=np.float32)  # 0.01 apart


def register_activation(
    name: str,
    function: Callable[..., Array],
    *,
    lipschitz: float = math.inf,
    formula: str = "",
    source: str = "own",
    beta: Literal["layer", "channel"] | None = None,
    replace: bool = False,
) -> Activation:
    """Adds an activation to `ACTIVATIONS`, after a check of what it returns.

    It is then known wherever an activation has a name: to blocks, such as `mlp:cube`,
    to `BlockConfig`, and to feedback and recurrent networks.

    Args:
      name: Name of the activation: letters, digits and `_`.
      function: `function(x)`, elementwise, with the shape and dtype of x; or
        `function(x, beta)` if β is learned. One that is not elementwise is given to
        `register(..., activation=function)`.
      lipschitz: Its largest |slope|, of which `contractive` makes a certificate;
        infinite if it is not known, which `contractive` then refuses. A number that is
        too small for some x in [-8, 8] is an error.
      formula: The formula in plain text.
      source: The paper that proposed it.
      beta: Whether a block learns one β per `layer`, one per `channel`, or none. It is
        1 at first.
      replace: Whether an activation of this name may be replaced. What was compiled
        before keeps the old one.

    Returns:
      The row of `ACTIVATIONS`.

    Raises:
      InputError: The name is known, an argument is malformed, or the function fails,
        is not elementwise, changes the dtype, or is steeper than its constant.

    >>> from ffnlab.nn import BlockConfig
    >>> row = register_activation("cube", lambda x: x**3, formula="x³")
    >>> BlockConfig("mlp:cube", 4, 6).activation is row
    True
    >>> del ACTIVATIONS["cube"]
    """
    check_name("an activation", name, ACTIVATIONS, replace)
    if not callable(function):
        raise InputError(f"function: {function!r} should be a function")
    if beta is not None:
        choose("beta", beta, ("layer", "channel"))
    valid = isinstance(lipschitz, int | float) and not isinstance(lipschitz, bool)
    if not valid or not lipschitz > 0:
        raise InputError(f"lipschitz: {lipschitz!r} should be a number above 0, or inf")
    row = Activation(function, float(lipschitz), formula or name, source, beta)
    _check_form(name, row)
    _check_values(name, row)
    ACTIVATIONS[name] = row
    return row


def _check_form(name: str, row: Activation) -> None:
    """Raises if an activation fails, or changes a shape or a dtype."""
    form = f"it is called as {_call(name, row)} and should return an array like x"
    for shape in ((), (_HIDDEN,), (2, 3, _HIDDEN)):
        for dtype in (jnp.float32, jnp.bfloat16):
            size = shape[-1:] if row.beta == "channel" else ()
            given = [jax.ShapeDtypeStruct(shape, dtype)]
            given += [jax.ShapeDtypeStruct(size, dtype)] if row.beta else []
            output = _trace(name, row, given, form)
            if output.shape != shape:
                raise InputError(
                    f"function: {name} returns the shape {[*output.shape]} for x "
                    f"{[*shape]}; {form}"
                )
            if output.dtype != dtype:
                raise InputError(
                    f"function: {name} returns {output.dtype} for x in "
                    f"{jnp.dtype(dtype)}; give constants no dtype, or that of x"
                )


def _call(name: str, row: Activation) -> str:
    """Returns how an activation is called."""
    sizes = {"layer": "[]", "channel": "[H]"}
    return f"{name}(x, beta {sizes[row.beta]})" if row.beta else f"{name}(x)"


def _trace(name: str, row: Activation, given: list[Any], form: str) -> Any:
    """Returns the shape and dtype of what an activation returns for abstract arrays."""
    try:
        with jax.numpy_rank_promotion("allow"):
            output = jax.eval_shape(lambda *given: row.function(*given), *given)
    except jax.errors.TracerArrayConversionError as error:
        raise InputError(
            f"function: {name} calls NumPy; use jax.numpy in its place"
        ) from error
    except Exception as error:
        text = " ".join(str(error).split())
        what = f"{type(error).__name__}: {text[:200]}".removesuffix(": ")
        shape = [*given[0].shape]
        raise InputError(
            f"function: {name} fails for x {shape}: {what}; {form}, for any shape"
        ) from error
    if not hasattr(output, "shape"):
        raise InputError(
            f"function: {name} returns {type(output).__name__}, not an array; {form}"
        )
    return output


def _check_values(name: str, row: Activation) -> None:
    """Raises if an activation is not elementwise, or steeper than its constant."""

    def of_one(x: Array) -> Array:
        return row.function(x, jnp.ones(())) if row.beta else row.function(x)

    @jax.jit
    def measure(x: Array) -> tuple[Array, Array, Array]:
        beta = [jnp.ones(x.shape if row.beta == "channel" else ())] * bool(row.beta)
        slope = jax.vmap(jax.grad(of_one))(x)
        return row.function(x, *beta), jax.vmap(of_one)(x), slope

    try:
        together, alone, slope = map(np.asarray, measure(_POINTS))
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise InputError(f"function: {name} has no gradient: {text}") from error
    if not np.allclose(together, alone, rtol=1e-4, atol=1e-5, equal_nan=True):
        raise InputError(
            f"function: {name} is not elementwise, a value depends on others; give it "
            "to register(..., activation=function) of a block"
        )
    if not np.isfinite(alone).all():
        place = float(_POINTS[~np.isfinite(alone)][0])
        raise InputError(
            f"function: {name} is {alone[~np.isfinite(alone)][0]} at {place:g}; it "
            "should be finite for every x"
        )
    steepest = float(np.nanmax(np.abs(slope)))
    if steepest > row.lipschitz * (1 + 1e-4):
        place = float(_POINTS[np.nanargmax(np.abs(slope))])
        raise InputError(
            f"lipschitz: {row.lipschitz:g} is too small: the slope of {name} at "
            f"{place:.3g} is {steepest:.5g}"
        )
