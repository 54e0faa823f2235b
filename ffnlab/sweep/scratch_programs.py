"""Steps of training a perceptron, by the engine from scratch and by JAX with optax."""

from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab.sweep.scratch_parity_config import ScratchParityConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    import jax
    import numpy as np

    from ffnlab.data import Dataset


class Trainer(NamedTuple):
    """One of the two programs.

    Attributes:
      init: `init(params) -> state`.
      step: `step(state, x, y) -> (state, loss)`.
      params: `params(state) -> params`, as NumPy arrays.
    """

    init: "Callable[[dict], Any]"
    step: "Callable[..., tuple[Any, Any]]"
    params: "Callable[[Any], dict]"


def layer_sizes(config: ScratchParityConfig, dataset: "Dataset") -> list[int]:
    """Returns the widths of the perceptron."""
    return [dataset.features, *config.hidden, dataset.classes]


def scratch_trainer(
    config: ScratchParityConfig, dataset: "Dataset", optimizer: str
) -> Trainer:
    """Returns the program that uses `ffnlab.scratch`."""
    from ffnlab.scratch import losses, models, optimizers, value_and_grad

    model = models.perceptron(
        layer_sizes(config, dataset), activation=config.activation
    )
    decay = {"weight_decay": config.weight_decay} if optimizer == "adamw" else {}
    rule = optimizers.OPTIMIZERS[optimizer](config.rate(optimizer), **decay)
    loss_and_grads = value_and_grad(
        lambda params, x, y: losses.cross_entropy(model.apply(params, x)[0], y)
    )

    def step(state: tuple, x: "np.ndarray", y: "np.ndarray") -> tuple:
        params, memory = state
        loss, grads = loss_and_grads(params, x, y)
        updates, memory = rule.update(grads, memory, params)
        return (optimizers.apply_updates(params, updates), memory), loss

    return Trainer(
        lambda params: (params, rule.init(params)), step, lambda state: state[0]
    )


def jax_trainer(config: ScratchParityConfig, optimizer: str) -> Trainer:
    """Returns the program that uses JAX and optax, compiled."""
    import jax
    import optax

    build = {
        "sgd": optax.sgd,
        "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
        "nesterov": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
        "adagrad": optax.adagrad,
        "rmsprop": optax.rmsprop,
        "adam": optax.adam,
        "adamw": lambda rate: optax.adamw(rate, weight_decay=config.weight_decay),
    }
    rule = build[optimizer](config.rate(optimizer))

    @jax.jit
    def step(state: tuple, x: jax.Array, y: jax.Array) -> tuple:
        params, memory = state
        loss_and_grads = jax.value_and_grad(loss_by_jax)
        loss, grads = loss_and_grads(params, x, y, config.activation)
        updates, memory = rule.update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory), loss

    def init(params: dict) -> tuple:
        params = jax.tree.map(jax.numpy.array, params)
        return params, rule.init(params)

    return Trainer(init, step, lambda state: jax.device_get(state[0]))


def loss_by_jax(
    params: dict, x: "jax.Array", y: "jax.Array", activation: str
) -> "jax.Array":
    """Returns the mean cross-entropy of a perceptron, computed by JAX and optax.

    Args:
      params: `layer_1` and so on, each with `kernel` `[D, H]` and `bias` `[H]`.
      x: `[B, D]`.
      y: Int `[B]`.
      activation: The name of a function of `jax.nn`.
    """
    import jax
    import optax

    a = x
    for number in range(1, len(params) + 1):
        layer = params[f"layer_{number}"]
        z = a @ layer["kernel"] + layer["bias"][None]
        a = getattr(jax.nn, activation)(z)
    return optax.softmax_cross_entropy_with_integer_labels(z, y).mean()
