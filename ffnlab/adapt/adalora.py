"""The training of AdaLoRA: how ranks are lowered, and the orthogonality loss.

    config = AdaLoRA(rank=12, target_rank=8, total_steps=1000)
    optimizer = adalora.pruned(optax.adam(1e-3), config)
    # Train on loss + adalora.orthogonality_loss(config, trainable).

A triplet is one entry of Λ with its column of P and its row of Q. Its importance is
that of the entry plus the means of those of the column and the row. The importance of
an entry of an array is its smoothed sensitivity |w · ∂L/∂w| times the uncertainty of
that. All functions are pure, and arrays keep their shapes.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ffnlab import trees
from ffnlab.adapt.methods import AdaLoRA
from ffnlab.adapt.surgery import partition
from ffnlab.errors import InputError
from ffnlab.types import Array, Params


class AdaLoRAState(NamedTuple):
    """The state of the pruning.

    Attributes:
      sensitivity: Smoothed |w · ∂L/∂w| of every array of AdaLoRA, by path.
      uncertainty: Smoothed deviation of the sensitivity, by path.
      mask: Bool `[N]`, True for the triplets that are kept, of all modules in order.
    """

    sensitivity: dict[str, Array]
    uncertainty: dict[str, Array]
    mask: Array


def init(trainable: Params) -> AdaLoRAState:
    """Returns the state before training.

    Raises:
      InputError: AdaLoRA adapts no module.
    """
    arrays = _arrays(trainable)

    def zeros() -> dict[str, Array]:  # each its own, since steps donate them
        return {path: jnp.zeros_like(leaf) for path, leaf in arrays.items()}

    return AdaLoRAState(zeros(), zeros(), jnp.ones(_values(arrays).shape, bool))


def budget(config: AdaLoRA, modules: int, step: Array | int) -> Array:
    """Returns the number of triplets that are kept after a step, over all modules.

    It falls by a cubic from `rank` to `target_rank` per module.

    Args:
      config: The configuration.
      modules: Number of adapted modules.
      step: Number of steps taken, int `[]`.

    Source: Zhang et al. 2023, equation 12.

    >>> config = AdaLoRA(rank=4, target_rank=2, total_steps=9)
    >>> [int(budget(config, 1, step)) for step in range(9)]
    [4, 3, 2, 2, 2, 2, 2, 2, 2]
    """
    least, most = config.target_rank * modules, config.rank * modules
    done = (jnp.asarray(step) - config.first) / (config.last - config.first)
    rest = (1.0 - jnp.clip(done, 0.0, 1.0)) ** 3
    return least + jnp.floor((most - least) * rest).astype(int)


def update(
    config: AdaLoRA, state: AdaLoRAState, trainable: Params, grads: Params, step: Array
) -> tuple[AdaLoRAState, Params]:
    """Returns the state and the trainable arrays after a step, pruned if it is due.

    Ranks are lowered every `interval` steps, and at the last of them to the target
    exactly. Pruned entries of Λ are 0; until the last pruning they may grow again.

    Args:
      config: The configuration.
      state: The state before the step.
      trainable: The trainable arrays after the optimizer's update.
      grads: The gradient that the optimizer received.
      step: Number of steps taken, this one included, int `[]`.

    Source: Zhang et al. 2023, equations 8 to 12 and algorithm 1.
    """
    arrays, slopes = _arrays(trainable), _arrays(grads)
    sensitivity, uncertainty = {}, {}
    for path, leaf in arrays.items():
        new = jnp.abs(leaf * slopes[path])
        smooth = config.beta1 * state.sensitivity[path] + (1 - config.beta1) * new
        spread = jnp.abs(new - smooth)
        sensitivity[path] = smooth
        uncertainty[path] = (
            config.beta2 * state.uncertainty[path] + (1 - config.beta2) * spread
        )
    entries = {path: sensitivity[path] * uncertainty[path] for path in arrays}
    state = AdaLoRAState(sensitivity, uncertainty, state.mask)
    return _prune(config, state, trainable, entries, step)


def _prune(
    config: AdaLoRA,
    state: AdaLoRAState,
    trainable: Params,
    entries: dict[str, Array],
    step: Array,
) -> tuple[AdaLoRAState, Params]:
    """Returns the state with the mask of a step, and the arrays after pruning."""
    scores = triplet_importance(entries)
    count = budget(config, len(scores) // config.rank, step)
    order = jnp.argsort(-scores, stable=True)
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)))
    due = (step >= config.first) & (step % config.interval == 0) | (step == config.last)
    frozen = step > config.last
    mask = jnp.where(due & (step <= config.last), rank < count, state.mask)
    keep = jnp.where(due | frozen, mask, True)  # in between, entries may grow again
    return state._replace(mask=mask), _masked(trainable, keep)


def triplet_importance(entries: dict[str, Array]) -> Array:
    """Returns the importance of every triplet, `[N]`, in the order of the mask.

    Args:
      entries: Importance of the entries of `p` `[..., D, r]`, `lambda` `[..., r]` and
        `q` `[..., r, H]` by path.
    """
    scores = []
    for root in _roots(entries):
        column = entries[f"{root}/p"].mean(axis=-2)
        row = entries[f"{root}/q"].mean(axis=-1)
        scores.append((entries[f"{root}/lambda"] + column + row).reshape(-1))
    return jnp.concatenate(scores)


class PrunedState(NamedTuple):
    """The state of `pruned`.

    Attributes:
      count: The number of steps taken, int32 `[]`.
      inner: The state of the inner optimizer.
      pruning: The state of the pruning.
    """

    count: Array
    inner: Any
    pruning: AdaLoRAState


def pruned(
    optimizer: optax.GradientTransformation, config: AdaLoRA
) -> optax.GradientTransformation:
    """Returns an optimizer that also lowers the ranks of AdaLoRA, by `update`.

    Args:
      optimizer: Any optimizer of the trainable arrays.
      config: The configuration.
    """

    def init_state(trainable: Params) -> PrunedState:
        count = jnp.zeros((), jnp.int32)
        return PrunedState(count, optimizer.init(trainable), init(trainable))

    def step(grads: Params, state: PrunedState, trainable: Params) -> tuple:
        updates, inner = optimizer.update(grads, state.inner, trainable)
        before, count = optax.apply_updates(trainable, updates), state.count + 1
        pruning, after = update(config, state.pruning, before, grads, count)

        def change(update: Array, old: Array, new: Array, kept: Array) -> Array:
            return jnp.where(new == kept, update, kept - old)

        updates = jax.tree.map(change, updates, trainable, before, after)
        return updates, PrunedState(count, inner, pruning)

    return optax.GradientTransformation(init_state, step)


def orthogonality_loss(config: AdaLoRA, trainable: Params) -> Array:
    """Returns γ Σ ‖PᵀP − I‖² + ‖QQᵀ − I‖², over all adapted modules.

    Source: Zhang et al. 2023, equation 4.
    """
    total = jnp.zeros(())
    for (_, method), arrays in partition(trainable)[1].items():
        if method == AdaLoRA.name:
            for columns in (arrays["p"], arrays["q"].swapaxes(-1, -2)):
                gram = columns.swapaxes(-1, -2) @ columns  # [..., r, r]
                identity = jnp.eye(gram.shape[-1]).reshape(
                    (1,) * (gram.ndim - 2) + gram.shape[-2:]
                )
                total = total + jnp.square(gram - identity).sum()
    return config.orthogonality * total


def ranks(trainable: Params) -> dict[str, int]:
    """Returns the number of entries of Λ that are not 0, by path of a module."""
    arrays, counts = _arrays(trainable), {}
    for root in _roots(arrays):
        kept = int((arrays[f"{root}/lambda"] != 0).sum())
        counts[root.removesuffix(f"/{AdaLoRA.name}")] = kept
    return counts


def _arrays(trainable: Params) -> dict[str, Array]:
    """Returns the arrays of AdaLoRA by path."""
    arrays = {
        f"{module}/{method}/{name}": leaf
        for (module, method), parts in partition(trainable)[1].items()
        for name, leaf in parts.items()
        if method == AdaLoRA.name
    }
    if not arrays:
        raise InputError("adalora: no module is adapted by it; add it to the methods")
    return arrays


def _roots(arrays: dict[str, Array]) -> Iterator[str]:
    """Yields the path of the adapter of each module."""
    for path in sorted(arrays):
        if path.endswith("/lambda"):
            yield path.removesuffix("/lambda")


def _values(arrays: dict[str, Array]) -> Array:
    """Returns the entries of Λ of all modules, `[N]`."""
    parts = [arrays[f"{root}/lambda"].reshape(-1) for root in _roots(arrays)]
    return jnp.concatenate(parts)


def _masked(trainable: Params, keep: Array) -> Params:
    """Returns the arrays with 0 in those entries of Λ that are not kept."""
    leaves, start = trees.flatten(trainable), 0
    for root in _roots(_arrays(trainable)):
        values = leaves[f"{root}/lambda"]
        part = keep[start : start + values.size].reshape(values.shape)
        leaves[f"{root}/lambda"] = jnp.where(part, values, 0.0)
        start += values.size
    return trees.unflatten(leaves)
