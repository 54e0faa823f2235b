"""Models of several layers: a feed-forward block and the multi-layer perceptron."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ffnlab.scratch import ops
from ffnlab.scratch.layers import (
    Applied,
    Key,
    Layer,
    Params,
    dense,
    fold_in,
    get_activation,
    layer_norm,
)


def ffn(features: int, hidden: int) -> Layer:
    """Returns N(W₂ swish(W₁ x + b₁) + b₂), where N is layer norm and β is learned.

    swish(v) = v σ(βv). The parameters are `up` and `down`, dense; `norm`; `beta`, `[]`.

    Args:
      features: The width D of x and of y.
      hidden: H.

    Source: Ramachandran et al. 2017 for swish.

    >>> model = ffn(4, 8)
    >>> model.apply(model.init(0), np.ones((2, 4)))[0].shape
    (2, 4)
    """
    up, down = dense(features, hidden), dense(hidden, features)
    norm = layer_norm(features)

    def init(key: Key) -> Params:
        return {
            "up": up.init(fold_in(key, 0)),
            "down": down.init(fold_in(key, 1)),
            "norm": norm.init(key),
            "beta": np.ones(()),
        }

    def apply(params: Params, x: Any, key: Any = None, state: Any = None) -> Applied:
        units, _ = up.apply(params["up"], x)
        units = units * ops.sigmoid(units * params["beta"])
        y, _ = down.apply(params["down"], units)
        return norm.apply(params["norm"], y)[0], {"hidden": units}

    return Layer(init, apply)


def perceptron(sizes: Sequence[int], *, activation: str = "relu") -> Layer:
    """Returns z¹ = x W¹ + b¹, a¹ = σ(z¹), z² = a¹ W² + b² and so on, to the last z.

    Args:
      sizes: The widths of x, of every hidden layer, and of the last z.
      activation: σ, a key of `layers.ACTIVATIONS`; the last layer has none.

    Returns:
      The model. Its parameters are `layer_1` and so on, dense; its aux holds `z_1`,
      `a_1` and so on, named as in the formula.

    Raises:
      ValueError: There are fewer than two widths, or the activation is unknown.

    >>> model = perceptron([4, 8, 8, 3])
    >>> z, aux = model.apply(model.init(0), np.ones((2, 4)))
    >>> z.shape, sorted(aux)
    ((2, 3), ['a_1', 'a_2', 'z_1', 'z_2', 'z_3'])
    """
    function = get_activation(activation)
    layers = [dense(*pair) for pair in zip(sizes[:-1], sizes[1:], strict=True)]
    if not layers:
        raise ValueError(
            f"perceptron: sizes {list(sizes)} should be at least two widths"
        )

    def init(key: Key) -> Params:
        return {
            f"layer_{number}": layer.init(fold_in(key, number))
            for number, layer in enumerate(layers, 1)
        }

    def apply(params: Params, x: Any, key: Any = None, state: Any = None) -> Applied:
        aux, a = {}, x
        for number, layer in enumerate(layers, 1):
            z, _ = layer.apply(params[f"layer_{number}"], a)
            aux[f"z_{number}"] = z
            if number < len(layers):
                a = aux[f"a_{number}"] = function(z)
        return z, aux

    return Layer(init, apply)
