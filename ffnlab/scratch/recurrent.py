"""Layers whose states depend on the left neighbour, or on both neighbours."""

from typing import Any

import numpy as np

from ffnlab.scratch import ops
from ffnlab.scratch.implicit import fixed_point
from ffnlab.scratch.layers import (
    Applied,
    Key,
    Layer,
    Params,
    dense,
    draw_kernel,
    fold_in,
    get_activation,
)
from ffnlab.scratch.tensor import Tensor


def _shift(h: Tensor, back: bool = False) -> Tensor:
    """Returns the left neighbour of every state `[..., T, H]`, or the right one."""
    zeros = Tensor(np.zeros((*h.shape[:-2], 1, h.shape[-1]), h.dtype))
    parts = (h[..., 1:, :], zeros) if back else (zeros, h[..., :-1, :])
    return ops.concatenate(*parts, axis=-2)


def _drive(up: Layer, params: Params, x: Any) -> Tensor:
    """Returns the input of the states, U x + b, `[..., T, H]`."""
    drive, _ = up.apply(params["up"], x)
    if drive.ndim < 2:
        raise ValueError(f"a sequence is [..., T, D], found the shape {np.shape(x)}")
    return drive


def elman(features: int, hidden: int, *, activation: str = "tanh") -> Layer:
    """Returns h_t = f(U x_t + W h_{t−1} + b), h_0 = 0: `[..., T, D]` → `[..., T, H]`.

    The parameters are `up`, a dense layer, and `left` `[H, H]`, which is Wᵀ.

    Source: Elman 1990.

    >>> layer = elman(3, 4)
    >>> layer.apply(layer.init(0), np.ones((2, 5, 3)))[0].shape
    (2, 5, 4)
    """
    function, up = get_activation(activation), dense(features, hidden)

    def init(key: Key) -> Params:
        left = draw_kernel(fold_in(key, 1), (hidden, hidden), "lecun")
        return {"up": up.init(fold_in(key, 0)), "left": left}

    def apply(params: Params, x: Any, key: Any = None, state: Any = None) -> Applied:
        drive = _drive(up, params, x)  # [..., T, H]
        h, states = None, []
        for position in range(drive.shape[-2]):
            z = drive[..., position : position + 1, :]
            h = function(z if h is None else z + h @ params["left"])
            states.append(h)  # [..., 1, H]
        return (ops.concatenate(*states, axis=-2) if states else drive), {}

    return Layer(init, apply)


def feedback(
    features: int,
    hidden: int,
    *,
    activation: str = "tanh",
    coupling: float = 0.4,
    tolerance: float | None = None,
) -> Layer:
    """Returns h_t = f(U x_t + W h_{t−1} + V h_{t+1} + b), solved for all t at once.

    Every state depends on both neighbours, so they cannot be computed one after
    another: they are a fixed point, which is iterated and differentiated implicitly.

    Args:
      features: The width D of x.
      hidden: H.
      activation: Activation f, a key of `ACTIVATIONS`.
      coupling: The approximate spectral norm of initial W and V. If their norms add up
        to more than 1, the iteration may not converge.
      tolerance: The tolerance of the solution, see `fixed_point`.

    Returns:
      `[..., T, D]` → `[..., T, H]`, with parameters `up`, a dense layer, and `left`
      and `right` `[H, H]`, which are Wᵀ and Vᵀ.

    Raises:
      ArithmeticError: By `apply`, if the iteration does not converge.

    >>> layer = feedback(3, 4)
    >>> layer.apply(layer.init(0), np.ones((2, 5, 3)))[0].shape
    (2, 5, 4)
    """
    function, up = get_activation(activation), dense(features, hidden)

    def init(key: Key) -> Params:
        left, right = (
            0.5 * coupling * draw_kernel(fold_in(key, i), (hidden, hidden), "lecun")
            for i in (1, 2)
        )
        return {"up": up.init(fold_in(key, 0)), "left": left, "right": right}

    def update(h: Tensor, drive: Tensor, left: Tensor, right: Tensor) -> Tensor:
        return function(drive + _shift(h) @ left + _shift(h, back=True) @ right)

    def apply(params: Params, x: Any, key: Any = None, state: Any = None) -> Applied:
        drive = _drive(up, params, x)
        args = drive, params["left"], params["right"]
        start = np.zeros_like(drive.data)
        return fixed_point(update, start, *args, tolerance=tolerance), {}

    return Layer(init, apply)
