"""Layers: pairs of pure functions over plain nested dicts of arrays.

    layer = dense(3, 4)
    params = layer.init(key=0)             # {"kernel": [3, 4], "bias": [4]}
    y, aux = layer.apply(params, x)        # [..., 4]

`apply(params, x, key=None, state=None)` takes a key in training and None in evaluation;
only dropout and batch norm use it. A key is an integer or a tuple of integers; equal
keys give equal random numbers. Running statistics are a `state`, which is an argument
and is returned as `aux["state"]`. Parameters have the names and shapes of the Flax
layers that they agree with.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ffnlab.scratch import ops
from ffnlab.scratch.convolution import conv2d
from ffnlab.scratch.tensor import Tensor, tensor

Key = int | tuple[int, ...]
Params = dict[str, Any]
Applied = tuple[Tensor, dict[str, Any]]


class Layer(NamedTuple):
    """A layer, or a model of layers.

    Attributes:
      init: `init(key) -> params`.
      apply: `apply(params, x, key=None, state=None) -> (y, aux)`.
      init_state: `init_state() -> state`, for the first call; empty for most layers.
    """

    init: Callable[[Key], Params]
    apply: Callable[..., Applied]
    init_state: Callable[[], dict[str, Any]] = dict


def fold_in(key: Key, number: int) -> Key:
    """Returns a new key derived from a key and a number.

    >>> fold_in(fold_in(0, 3), 1)
    (0, 3, 1)
    """
    return (*key, number) if isinstance(key, tuple) else (key, number)


def generator(key: Key) -> np.random.Generator:
    """Returns the random number generator of a key; different keys are independent.

    >>> [round(float(generator(key).random()), 3) for key in (0, (0, 0), (0, 0))]
    [0.637, 0.943, 0.943]
    """
    first, *rest = key if isinstance(key, tuple) else (key,)
    return np.random.default_rng(np.random.SeedSequence(first, spawn_key=rest))


INITIALIZERS: dict[str, Callable[[int, int], float]] = {
    "zeros": lambda fan_in, fan_out: 0.0,
    "lecun": lambda fan_in, fan_out: math.sqrt(1 / fan_in),
    "he": lambda fan_in, fan_out: math.sqrt(2 / fan_in),
    "xavier": lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out)),
}


def draw_kernel(key: Key, shape: tuple[int, ...], initializer: str) -> np.ndarray:
    """Returns a normal kernel `[..., D, H]` with the scale of an initializer.

    Raises:
      ValueError: The initializer is unknown, or a width is below 1.

    >>> draw_kernel(0, (2, 3), "he").shape
    (2, 3)
    """
    if initializer not in INITIALIZERS:
        known = ", ".join(INITIALIZERS)
        raise ValueError(f"initializer {initializer!r} should be one of {known}")
    if min(shape) < 1:
        raise ValueError(f"a kernel of shape {shape}: widths should be at least 1")
    area = math.prod(shape[:-2])
    deviation = INITIALIZERS[initializer](area * shape[-2], area * shape[-1])
    return deviation * generator(key).standard_normal(shape)


def gelu(x: Any) -> Tensor:
    """Returns x Φ(x), with the exact normal distribution function.

    >>> float(gelu(1.0)).__round__(4)
    0.8413
    """
    x = tensor(x)
    return x * (0.5 * (1.0 + ops.erf(x / math.sqrt(2.0))))


def silu(x: Any) -> Tensor:
    """Returns x σ(x).

    >>> [float(silu(v)).__round__(4) for v in (-2.0, 0.0, 2.0)]
    [-0.2384, 0.0, 1.7616]
    """
    return x * ops.sigmoid(x)


ACTIVATIONS: dict[str, Callable[[Any], Tensor]] = {
    "identity": ops.identity,
    "relu": ops.relu,
    "tanh": ops.tanh,
    "sigmoid": ops.sigmoid,
    "softplus": ops.softplus,
    "gelu": gelu,
    "silu": silu,
}


def get_activation(name: str) -> Callable[[Any], Tensor]:
    """Returns a function of `ACTIVATIONS`.

    Raises:
      ValueError: There is none of that name.
    """
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"activation {name!r} should be one of {known}")
    return ACTIVATIONS[name]


def dense(
    features: int, outputs: int, *, bias: bool = True, initializer: str = "lecun"
) -> Layer:
    """Returns the layer x W + b, `[..., D]` → `[..., H]`.

    The parameters are `kernel` `[D, H]` and `bias` `[H]`.

    >>> params = {"kernel": [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]], "bias": [0.0, 1.0]}
    >>> dense(3, 2).apply(params, [1.0, 2.0, 3.0])[0].data
    array([14., 33.])
    """

    def init(key: Key) -> Params:
        kernel = draw_kernel(key, (features, outputs), initializer)
        return {"kernel": kernel} | ({"bias": np.zeros(outputs)} if bias else {})

    def apply(params: Params, x: Any, key: Any = None, state: Any = None) -> Applied:
        y = ops.matmul(x, params["kernel"])
        return (y + params["bias"] if bias else y), {}

    return Layer(init, apply)


def convolution(
    features: int,
    outputs: int,
    window: tuple[int, int] = (3, 3),
    *,
    stride: int = 1,
    padding: str = "same",
    initializer: str = "lecun",
) -> Layer:
    """Returns a convolution of images, see `conv2d`.

    The parameters are `kernel` `[h, w, D, H]` and `bias` `[H]`.

    >>> layer = convolution(1, 4)
    >>> layer.apply(layer.init(0), np.ones((2, 8, 8, 1)))[0].shape
    (2, 8, 8, 4)
    """

    def init(key: Key) -> Params:
        kernel = draw_kernel(key, (*window, features, outputs), initializer)
        return {"kernel": kernel, "bias": np.zeros(outputs)}

    def apply(params: Params, x: Any, key: Any = None, state: Any = None) -> Applied:
        y = conv2d(x, params["kernel"], stride=stride, padding=padding)
        return y + params["bias"], {}

    return Layer(init, apply)


def embedding(vocabulary: int, features: int) -> Layer:
    """Returns the layer that looks tokens up, int `[...]` → `[..., D]`.

    The parameter is `embedding` `[V, D]`.

    >>> layer = embedding(5, 3)
    >>> layer.apply(layer.init(0), np.array([[1, 4]]))[0].shape
    (1, 2, 3)
    """

    def init(key: Key) -> Params:
        return {"embedding": draw_kernel(key, (features, vocabulary), "lecun").T.copy()}

    def apply(params: Params, x: Any, key: Any = None, state: Any = None) -> Applied:
        return tensor(params["embedding"])[x], {}

    return Layer(init, apply)


def dropout(rate: float) -> Layer:
    """Returns the layer that zeroes entries of x at a rate and scales up the others.

    In evaluation it returns x.

    >>> dropout(0.5).apply({}, np.ones(4))[0].data.tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"dropout: rate {rate} should be at least 0 and below 1")

    def apply(params: Params, x: Any, key: Any = None, state: Any = None) -> Applied:
        x = tensor(x)
        if key is None or not rate:
            return x, {}
        mask = generator(key).random(x.shape) >= rate
        dtype = x.dtype if x.dtype.kind == "f" else float
        return x * (mask / (1.0 - rate)).astype(dtype), {}

    return Layer(lambda key: {}, apply)


def layer_norm(features: int, *, epsilon: float = 1e-6) -> Layer:
    """Returns the layer (x − mean) / √(variance + ε) · scale + bias over the last axis.

    Source: Ba et al. 2016.

    >>> layer = layer_norm(2)
    >>> layer.apply(layer.init(0), [14.0, 32.0])[0].data.round(6)
    array([-1.,  1.])
    """

    def apply(params: Params, x: Any, key: Any = None, state: Any = None) -> Applied:
        x = tensor(x)
        centered = x - ops.mean(x, axis=-1, keepdims=True)
        variance = ops.mean(centered * centered, axis=-1, keepdims=True)
        y = centered / (variance + epsilon) ** 0.5
        return y * params["scale"] + params["bias"], {}

    return Layer(lambda key: _scale_and_bias(features), apply)


def _scale_and_bias(features: int) -> Params:
    return {"scale": np.ones(features), "bias": np.zeros(features)}


def batch_norm(
    features: int, *, momentum: float = 0.99, epsilon: float = 1e-5
) -> Layer:
    """Returns the layer that normalises x `[..., D]` over all axes but the last.

    In training, with a key, it uses the mean and variance of the batch, and updates the
    state: state ← momentum · state + (1 − momentum) · batch. In evaluation it uses the
    state, `{"mean": [D], "var": [D]}`.

    Source: Ioffe & Szegedy 2015; momentum is the fraction that is kept, as in Flax.

    >>> layer = batch_norm(2)
    >>> y, aux = layer.apply(layer.init(0), np.eye(2), key=0, state=layer.init_state())
    >>> aux["state"]["mean"].tolist()
    [0.0050000000000000044, 0.0050000000000000044]
    """

    def apply(params: Params, x: Any, key: Any = None, state: Any = None) -> Applied:
        x = tensor(x)
        if state is None:
            raise ValueError("batch_norm: state is needed, at first init_state()")
        stats = {name: tensor(row).astype(x.dtype) for name, row in state.items()}
        if key is not None:
            axes = tuple(range(x.ndim - 1))
            mean = ops.mean(x, axis=axes)
            stats = {"mean": mean, "var": ops.mean((x - mean) ** 2, axis=axes)}
            state = {
                name: momentum * old + (1 - momentum) * stats[name].data
                for name, old in state.items()
            }
        y = (x - stats["mean"]) / (stats["var"] + epsilon) ** 0.5
        return y * params["scale"] + params["bias"], {"state": state}

    def init_state() -> dict[str, np.ndarray]:
        return {"mean": np.zeros(features), "var": np.ones(features)}

    return Layer(lambda key: _scale_and_bias(features), apply, init_state)


def feed_forward(
    features: int,
    hidden: int,
    *,
    activation: str = "relu",
    gated: bool = False,
    norm: str = "none",
    residual: bool = True,
    rate: float = 0.0,
) -> Layer:
    """Returns the block down(σ(up(x))), or gated down(σ(gate(x)) ⊙ up(x)).

    Args:
      features: The width D of x and y.
      hidden: H.
      activation: σ, a key of `ACTIVATIONS`; in a gated block only the gate has it.
      gated: Whether there is a gate.
      norm: `none`, `pre` for x + f(N(x)), or `post` for N(x + f(x)).
      residual: Whether x is added.
      rate: The dropout rate of the hidden units.

    Raises:
      ValueError: The norm or the activation is unknown, or the rate out of range.

    Source: Vaswani et al. 2017; Shazeer 2020 for the gate.

    >>> layer = feed_forward(4, 8, activation="silu", gated=True, norm="pre")
    >>> sorted(layer.init(0))
    ['down', 'gate', 'norm', 'up']
    """
    if norm not in ("none", "pre", "post"):
        raise ValueError(f"feed_forward: norm {norm!r} should be none, pre or post")
    function, drop = get_activation(activation), dropout(rate)
    parts = {"gate": dense(features, hidden)} if gated else {}
    parts |= {"up": dense(features, hidden), "down": dense(hidden, features)}
    parts |= {"norm": layer_norm(features)} if norm != "none" else {}

    def apply(params: Params, x: Any, key: Any = None, state: Any = None) -> Applied:
        def part(name: str, x: Any) -> Tensor:
            return parts[name].apply(params[name], x)[0]

        normed = part("norm", x) if norm == "pre" else x
        units = part("up", normed)
        units = function(part("gate", normed)) * units if gated else function(units)
        units, _ = drop.apply({}, units, key)
        y = part("down", units)
        y = y + x if residual else y
        return (part("norm", y) if norm == "post" else y), {"hidden": units}

    return Layer(lambda key: _init_parts(parts, key), apply)


def _init_parts(parts: dict[str, Layer], key: Key) -> Params:
    """Returns the parameters of several layers, each drawn with a key of its own."""
    return {
        name: part.init(fold_in(key, number))
        for number, (name, part) in enumerate(parts.items())
    }


def sequential(*layers: Layer | Callable[[Any], Tensor]) -> Layer:
    """Returns layers one after another; functions are layers without parameters.

    Parameters, state and aux are dicts with the keys `layer_0`, `layer_1` and so on.
    `aux["state"]` is the next state of all layers.

    Raises:
      TypeError: An argument is neither a layer nor a function.

    >>> model = sequential(dense(4, 8), ops.relu, dropout(0.1), dense(8, 2))
    >>> sorted(model.init(0)), model.apply(model.init(0), np.ones((3, 4)))[0].shape
    (['layer_0', 'layer_3'], (3, 2))
    """
    parts = {
        f"layer_{number}": layer if isinstance(layer, Layer) else _as_layer(layer)
        for number, layer in enumerate(layers)
    }

    def apply(params: Params, x: Any, key: Any = None, state: Any = None) -> Applied:
        aux, state = {}, state or {}
        for number, (name, part) in enumerate(parts.items()):
            part_key = None if key is None else fold_in(key, number)
            x, aux[name] = part.apply(
                params.get(name, {}), x, part_key, state.get(name)
            )
        states = {name: row["state"] for name, row in aux.items() if "state" in row}
        return x, {**aux, "state": states}

    def init_state() -> dict[str, Any]:
        states = {name: part.init_state() for name, part in parts.items()}
        return {name: state for name, state in states.items() if state}

    def init(key: Key) -> Params:
        drawn = _init_parts(parts, key)
        return {name: params for name, params in drawn.items() if params}

    return Layer(init, apply, init_state)


def _as_layer(function: Callable[[Any], Tensor]) -> Layer:
    if not callable(function):
        raise TypeError(f"sequential: expected layers, found {type(function).__name__}")
    return Layer(lambda key: {}, lambda params, x, key, state: (function(x), {}))
