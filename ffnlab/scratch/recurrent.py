"""Layers whose states hear their neighbours: the left one, or both."""

from typing import Any

import numpy as np

from ffnlab.scratch import ops
from ffnlab.scratch.implicit import fixed_point
from ffnlab.scratch.layers import (
    Applied,
    Key,
    Layer,
    Params,
    activation_named,
    dense,
    draw_kernel,
    fold_in,
)
from ffnlab.scratch.tensor import Tensor


def _shifted(h: Tensor, back: bool = False) -> Tensor:
    """Returns the left neighbour of every state `[..., T, H]`, 0 for the first."""
    none = Tensor(np.zeros((*h.shape[:-2], 1, h.shape[-1]), h.dtype))
    parts = (h[..., 1:, :], none) if back else (none, h[..., :-1, :])
    return ops.concatenate(*parts, axis=-2)


def _drive(up: Layer, params: Params, x: Any) -> Tensor:
    drive, _ = up.apply(params["up"], x)
    if drive.ndim < 2:
        raise ValueError(f"a sequence is [..., T, D], found the shape {np.shape(x)}")
    return drive


def elman(features: int, hidden: int, *, activation: str = "tanh") -> Layer:
    """Returns h_t = f(U x_t + W h_{t−1} + b), h_0 = 0: `[..., T, D]` → `[..., T, H]`.

    Its parameters are `up`, a dense layer, and `left` `[H, H]`, which is Wᵀ.

    Source: Elman 1990.

    >>> layer = elman(3, 4)
    >>> layer.apply(layer.init(0), np.ones((2, 5, 3)))[0].shape
    (2, 5, 4)
    """
    function, up = activation_named(activation), dense(features, hidden)

    def init(key: Key) -> Params:
        left = draw_kernel(fold_in(key, 1), (hidden, hidden), "lecun")
        return {"up": up.init(fold_in(key, 0)), "left": left}

    def apply(params: Params, x: Any, key: Any = None, state: Any = None) -> Applied:
        drive = _drive(up, params, x)  # [..., T, H]
        h, states = None, []
        for position in range(drive.shape[-2]):
            heard = drive[..., position : position + 1, :]
            h = function(heard if h is None else heard + h @ params["left"])
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

    Every state hears both neighbours, so there is no order to compute them in: they
    are a fixed point, found by repetition and differentiated by the implicit rule.

    Args:
      features: the width D of x.
      hidden: H.
      activation: f, a key of `ACTIVATIONS`.
      coupling: about the spectral norm of W and of V at the start. Where the two add
        up to more than 1, there may be no solution.
      tolerance: of the solution, see `fixed_point`.

    Returns:
      `[..., T, D]` → `[..., T, H]`, with parameters `up`, a dense layer, and `left`
      and `right` `[H, H]`, which are Wᵀ and Vᵀ.

    Raises:
      ArithmeticError: when applied, if no solution was found.

    >>> layer = feedback(3, 4)
    >>> layer.apply(layer.init(0), np.ones((2, 5, 3)))[0].shape
    (2, 5, 4)
    """
    function, up = activation_named(activation), dense(features, hidden)

    def init(key: Key) -> Params:
        drawn = [
            0.5 * coupling * draw_kernel(fold_in(key, i), (hidden, hidden), "lecun")
            for i in (1, 2)
        ]
        return {"up": up.init(fold_in(key, 0)), "left": drawn[0], "right": drawn[1]}

    def renewed(h: Tensor, drive: Tensor, left: Tensor, right: Tensor) -> Tensor:
        return function(drive + _shifted(h) @ left + _shifted(h, back=True) @ right)

    def apply(params: Params, x: Any, key: Any = None, state: Any = None) -> Applied:
        drive = _drive(up, params, x)
        args = drive, params["left"], params["right"]
        start = np.zeros_like(drive.data)
        return fixed_point(renewed, start, *args, tolerance=tolerance), {}

    return Layer(init, apply)
