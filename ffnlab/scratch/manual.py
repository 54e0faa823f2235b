"""Backpropagation written out by hand, for a perceptron of any depth.

With z^l = a^(l−1) W^l + b^l, a^l = σ(z^l), a⁰ = x, the rows of a batch of B, and the
mean cross-entropy of softmax(z^L) as the loss E, the error δ^l = ∂E/∂z^l is

    δ^L = (softmax(z^L) − onehot(y)) / B            of the last layer
    δ^l = (δ^(l+1) W^(l+1)ᵀ) ⊙ σ′(z^l)              of the others, from the last back
    ∂E/∂W^l = a^(l−1)ᵀ δ^l,   ∂E/∂b^l = Σ over rows of δ^l

There is no graph and no tensor, only arrays. The engine computes the same numbers.
"""

from collections.abc import Callable

import numpy as np

Params = dict[str, dict[str, np.ndarray]]


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-z))


# Functions of z: σ and σ′.
ACTIVATIONS: dict[str, tuple[Callable, Callable]] = {
    "relu": (lambda z: np.maximum(z, 0.0), lambda z: (z > 0).astype(z.dtype)),
    "tanh": (np.tanh, lambda z: 1.0 - np.tanh(z) ** 2),
    "sigmoid": (_sigmoid, lambda z: _sigmoid(z) * (1.0 - _sigmoid(z))),
}


def forward(
    params: Params, x: np.ndarray, activation: str = "relu"
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns every z and every a: `[z¹, …, z^L]` and `[x, a¹, …, a^(L−1)]`.

    Args:
      params: `layer_1` to `layer_L`, each with `kernel` `[D, H]` and `bias` `[H]`.
      x: `[B, D]`.
      activation: σ: `relu`, `tanh` or `sigmoid`.
    """
    function, _ = ACTIVATIONS[activation]
    zs, activations = [], [x]
    for number in range(1, len(params) + 1):
        layer = params[f"layer_{number}"]
        zs.append(activations[-1] @ layer["kernel"] + layer["bias"])
        activations.append(function(zs[-1]))
    return zs, activations[:-1]


def backpropagate(
    params: Params, x: np.ndarray, labels: np.ndarray, activation: str = "relu"
) -> tuple[float, Params, list[np.ndarray]]:
    """Returns the loss, its gradient, and the error δ of every layer.

    Args:
      params: As for `forward`.
      x: `[B, D]`.
      labels: Int `[B]` in 0…K−1.
      activation: σ: `relu`, `tanh` or `sigmoid`.

    Returns:
      The mean cross-entropy in nats, its gradient, a tree like `params`, and
      `[δ¹, …, δ^L]`, `[B, H]` each.

    >>> params = {"layer_1": {"kernel": np.zeros((2, 2)), "bias": np.zeros(2)}}
    >>> loss, gradient, errors = backpropagate(params, np.eye(2), np.array([0, 1]))
    >>> gradient["layer_1"]["kernel"]
    array([[-0.25,  0.25],
           [ 0.25, -0.25]])
    """
    _, slope = ACTIVATIONS[activation]
    zs, activations = forward(params, x, activation)
    softmax, rows = _softmax(zs[-1]), np.arange(len(x))
    loss = -np.log(softmax[rows, labels]).mean()
    error = softmax.copy()
    error[rows, labels] -= 1.0
    errors = [error / len(x)]
    for number in range(len(params), 1, -1):
        kernel = params[f"layer_{number}"]["kernel"]
        errors.insert(0, errors[0] @ kernel.T * slope(zs[number - 2]))
    gradient = {
        f"layer_{number}": {"kernel": a.T @ error, "bias": error.sum(axis=0)}
        for number, (a, error) in enumerate(zip(activations, errors, strict=True), 1)
    }
    return float(loss), gradient, errors


def _softmax(z: np.ndarray) -> np.ndarray:
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def descend(params: Params, gradient: Params, learning_rate: float) -> Params:
    """Returns the parameters after one step of gradient descent.

    >>> descend({"layer_1": {"bias": 1.0}}, {"layer_1": {"bias": 4.0}}, 0.25)
    {'layer_1': {'bias': 0.0}}
    """

    return {
        layer: {
            name: parameter - learning_rate * gradient[layer][name]
            for name, parameter in parameters.items()
        }
        for layer, parameters in params.items()
    }
