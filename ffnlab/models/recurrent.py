"""Baselines for feedback networks: recurrent, bidirectional, gated and window layers.

Every module here is `module(x, mask) -> (h, aux)` with x `[..., T, D]`, an optional
mask bool `[..., T]` and h `[..., T, H]`. The state of a masked position is 0, so that
padding does not change the states of other positions.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ffnlab.errors import InputError
from ffnlab.feedback.iteration import shift
from ffnlab.feedback.layers import mask_inputs
from ffnlab.nn import activations
from ffnlab.nn.initializers import INITIALIZERS
from ffnlab.types import Array

Cell = Callable[[Array, Array], Array]


def scan_states(
    cell: Cell, drive: Array, width: int, mask: Array | None, back: bool
) -> Array:
    """Returns h_t = cell(h_{t−1}, drive_t) for all t.

    Args:
      cell: `cell(h, drive) -> h`, on `[..., H]` and `[..., G]`.
      drive: Projected inputs `[..., T, G]`.
      width: Width H of a state.
      mask: Bool `[..., T]`; the state of a masked position is 0.
      back: Whether the scan runs from right to left: h_t = cell(h_{t+1}, drive_t).

    Returns:
      `[..., T, H]`.

    >>> scan_states(lambda h, x: h + x, jnp.ones((3, 1)), 1, None, False)[:, 0].tolist()
    [1.0, 2.0, 3.0]
    """
    rows = [jnp.moveaxis(drive, -2, 0)]
    if mask is not None:
        rows.append(jnp.moveaxis(mask, -1, 0)[..., None])

    def step(h: Array, row: list[Array]) -> tuple[Array, Array]:
        h = cell(h, row[0])
        h = jnp.where(row[1], h, 0.0) if len(row) > 1 else h
        return h, h

    first = jnp.zeros((*rows[0].shape[1:-1], width), drive.dtype)
    _, states = jax.lax.scan(step, first, rows, reverse=back)
    return jnp.moveaxis(states, 0, -2)


class Elman(nnx.Module):
    """The recurrent layer h_t = f(U x_t + W h_{t−1} + b).

    It is the feedback layer without the right neighbour.

    Args:
      features: Input width D.
      hidden: State width H.
      activation: Activation f, a key of `ACTIVATIONS`.
      back: Whether it reads from right to left.
      rngs: Random streams that initialise the arrays.

    Source: Elman 1990.

    >>> h, _ = Elman(3, 4, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 3)))
    >>> h.shape
    (2, 5, 4)
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        activation: str = "tanh",
        back: bool = False,
        *,
        rngs: nnx.Rngs,
    ):
        self.features, self.hidden, self.back = features, hidden, back
        self.activation = activation
        self.up = nnx.Linear(features, hidden, rngs=rngs)
        kernel = INITIALIZERS["orthogonal"](
            rngs.params(), (hidden, hidden), jnp.float32
        )
        self.left = nnx.Param(kernel)
        activations.add_beta(self, activations.get(activation), hidden)

    def __call__(self, x: Array, mask: Array | None = None) -> tuple[Array, dict]:
        """Returns the states `[..., T, H]` and an empty dict."""
        x = mask_inputs(x, mask, self.features)
        function = activations.with_beta(self, activations.get(self.activation))
        kernel = self.left[...]

        def cell(h: Array, drive: Array) -> Array:
            return function(drive + h @ kernel)

        return scan_states(cell, self.up(x), self.hidden, mask, self.back), {}


class GRU(nnx.Module):
    """The gated recurrent unit, with the reset gate after the matrix product.

    r, z = σ(U x + W h + b),  n = tanh(Uₙ x + bₙ + r ⊙ (Wₙ h + cₙ)),
    h ← (1 − z) ⊙ n + z ⊙ h.

    Args:
      features: Input width D.
      hidden: State width H.
      back: Whether it reads from right to left.
      rngs: Random streams that initialise the arrays.

    Source: Cho et al. 2014, in the variant of cuDNN.

    >>> h, _ = GRU(3, 4, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 3)))
    >>> h.shape
    (2, 5, 4)
    """

    def __init__(
        self, features: int, hidden: int, back: bool = False, *, rngs: nnx.Rngs
    ):
        self.features, self.hidden, self.back = features, hidden, back
        self.up = nnx.Linear(features, 3 * hidden, rngs=rngs)
        rotation = INITIALIZERS["orthogonal"]
        kernels = [
            rotation(rngs.params(), (hidden, hidden), jnp.float32) for _ in range(3)
        ]
        self.left = nnx.Param(jnp.concatenate(kernels, axis=1))
        self.inner = nnx.Param(jnp.zeros(hidden))

    def __call__(self, x: Array, mask: Array | None = None) -> tuple[Array, dict]:
        """Returns the states `[..., T, H]` and an empty dict."""
        x = mask_inputs(x, mask, self.features)
        kernel, inner = self.left[...], self.inner[...]

        def cell(h: Array, drive: Array) -> Array:
            recurrent = h @ kernel  # [..., 3H]
            gates, new = jnp.split(drive, [2 * self.hidden], axis=-1)
            from_gates, from_new = jnp.split(recurrent, [2 * self.hidden], axis=-1)
            reset, keep = jnp.split(activations.sigmoid(gates + from_gates), 2, axis=-1)
            bias = inner.reshape((1,) * (h.ndim - 1) + (-1,))
            new = activations.tanh(new + reset * (from_new + bias))
            return (1.0 - keep) * new + keep * h

        return scan_states(cell, self.up(x), self.hidden, mask, self.back), {}


class Bidirectional(nnx.Module):
    """Two recurrent layers side by side, one per direction.

    Args:
      make: `make(features, hidden, back=..., rngs=...)`, such as `Elman` or `GRU`.
      features: Input width D.
      hidden: State width H, even; each direction has half of it.
      rngs: Random streams that initialise the arrays.

    Source: Schuster and Paliwal 1997.

    >>> h, _ = Bidirectional(GRU, 3, 4, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 3)))
    >>> h.shape
    (2, 5, 4)
    """

    def __init__(
        self, make: Callable[..., Any], features: int, hidden: int, *, rngs: nnx.Rngs
    ):
        if hidden % 2:
            raise InputError(f"hidden={hidden} must be even: half for each direction")
        self.forward = make(features, hidden // 2, back=False, rngs=rngs)
        self.backward = make(features, hidden // 2, back=True, rngs=rngs)

    def __call__(self, x: Array, mask: Array | None = None) -> tuple[Array, dict]:
        """Returns the states `[..., T, H]` and an empty dict."""
        states = [layer(x, mask)[0] for layer in (self.forward, self.backward)]
        return jnp.concatenate(states, axis=-1), {}


class Window(nnx.Module):
    """The window layer h_t = f(U [x_{t−r} … x_{t+r}] + b).

    Args:
      features: Input width D.
      hidden: State width H.
      activation: Activation f, a key of `ACTIVATIONS`.
      radius: Number of positions r on either side.
      rngs: Random streams that initialise the arrays.

    Source: Collobert et al. 2011, the window approach.

    >>> h, _ = Window(3, 4, radius=2, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 3)))
    >>> h.shape
    (2, 5, 4)
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        activation: str = "tanh",
        radius: int = 3,
        *,
        rngs: nnx.Rngs,
    ):
        self.features, self.radius = features, radius
        self.activation = activation
        self.up = nnx.Linear((2 * radius + 1) * features, hidden, rngs=rngs)
        activations.add_beta(self, activations.get(activation), hidden)

    def __call__(self, x: Array, mask: Array | None = None) -> tuple[Array, dict]:
        """Returns the states `[..., T, H]` and an empty dict."""
        x = mask_inputs(x, mask, self.features)
        left, right = [x], [x]
        for _ in range(self.radius):
            left.append(shift(left[-1]))
            right.append(shift(right[-1], back=True))
        window = jnp.concatenate([*left[:0:-1], *right], axis=-1)  # [..., T, (2r+1)·D]
        function = activations.with_beta(self, activations.get(self.activation))
        h = function(self.up(window))
        return (h if mask is None else jnp.where(mask[..., None], h, 0.0)), {}
