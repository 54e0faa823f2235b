"""Several adapters over one base: a stack of them, one per row, sums and averages.

adapters = {"sentiment": one, "topics": two}  # of the same methods and ranks
outputs, aux = apply(adapters[name], frozen, x)  # compiled once for all names
stacked = stack([one, two])  # leaves [N, ...]
outputs, aux = by_row(apply)(stacked, frozen, index, x)  # one adapter per row
both, config = combine([one, two], [0.5, 0.5], config)
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab import trees
from ffnlab.adapt.methods import AdaLoRA, Config, LoRA, Method, as_methods
from ffnlab.adapt.surgery import SURGERY, split_path
from ffnlab.errors import InputError
from ffnlab.nn.precision import full_precision
from ffnlab.types import Array, Batch, Key, Params


def stack(adapters: Sequence[Params]) -> Params:
    """Returns trained parts of the same methods as one, `[N, ...]`.

    Raises:
      InputError: There is none, or names or shapes of arrays differ.

    >>> stack([{"b": jnp.zeros(2)}, {"b": jnp.ones(2)}])["b"].tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    if not adapters:
        raise InputError("adapters: at least one is needed")
    _check_same(adapters)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *adapters)


def _check_same(adapters: Sequence[Params]) -> None:
    """Raises if names or shapes of the arrays of several adapters differ."""
    first = {path: leaf.shape for path, leaf in trees.flatten(adapters[0]).items()}
    for number, adapter in enumerate(adapters[1:], 1):
        other = {path: leaf.shape for path, leaf in trees.flatten(adapter).items()}
        for path in sorted(first.keys() | other.keys()):
            if first.get(path) != other.get(path):
                shapes = (each.get(path, "no array") for each in (first, other))
                words = [str([*s]) if isinstance(s, tuple) else s for s in shapes]
                raise InputError(
                    f"adapters: {path} is {words[0]} in the first and {words[1]} in "
                    f"number {number + 1}; all need the same methods and ranks"
                )


def select(adapters: Params, index: Array | int) -> Params:
    """Returns one adapter of a stack, or one per row for `index` int `[B]`."""
    return jax.tree.map(lambda leaf: leaf[index], adapters)


def by_row(apply: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
    """Returns a function that applies another adapter to each row of a batch.

    The products with frozen kernels are of the whole batch, and those with the
    adapters of each row by itself.

    Args:
      apply: `apply(trainable, frozen, x, key)` of `adapt.apply`.

    Returns:
      `apply(adapters, frozen, index, x, key=None)`, where `adapters` is a stack, and
      `index` int `[B]` the number of the adapter of each row. The outputs are those of
      the batch; other values that the model returns are stacked over rows.

    Source: Sheng et al. 2023, "S-LoRA", for the products.
    """

    def apply_rows(
        adapters: Params, frozen: Params, index: Array, x: Batch, key: Key | None = None
    ) -> tuple[Any, Any]:
        def one(adapter: Params, x: Batch, key: Key | None) -> tuple[Any, Any]:
            row = jax.tree.map(lambda leaf: leaf[None], x)
            outputs, aux = apply(adapter, frozen, row, key)
            return jax.tree.map(lambda leaf: leaf[0], outputs), aux

        x = jax.tree.map(jnp.asarray, x)
        rows = len(jax.tree.leaves(x)[0])
        keys = None if key is None else jax.random.split(key, rows)
        return jax.vmap(one)(select(adapters, jnp.asarray(index)), x, keys)

    return apply_rows


def combine(
    adapters: Sequence[Params],
    weights: Sequence[float],
    config: Config,
    *,
    params: Params | None = None,
    rank: int | None = None,
) -> tuple[Params, tuple[Method, ...]]:
    """Returns the weighted sum of what adapters change, and its configuration.

    The sum is that of the changes of the kernels. The products A B of LoRA are summed,
    not the factors, whose sum would have cross terms: the result has the sum of their
    ranks, and computes exactly the weighted sum. The factors of (IA)³ change as
    1 + Σ w (l − 1), and arrays of the model by Σ w (θ − θ₀). Of arrays without a
    neutral value (bottlenecks, prefixes) there are only averages.

    Args:
      adapters: Trained parts of the same methods.
      weights: A factor for each.
      config: The methods of all.
      params: Parameters of the base, θ₀. They are needed if the weights do not sum to 1
        and arrays of the model train, such as biases or a head.
      rank: Rank of the result of LoRA: its best approximation. None keeps all.

    Raises:
      InputError: The adapters do not fit together, are of DoRA, whose change is not
        linear, or only their averages are defined.

    Source: Ilharco et al. 2023, "Editing models with task arithmetic".
    """
    methods = {method.name: method for method in as_methods(config)}
    if len(adapters) != len(weights) or not adapters:
        raise InputError(
            f"weights: {len(weights)} for {len(adapters)} adapters; give one for each"
        )
    _check_same(adapters)
    lora = methods.get(LoRA.name)
    if isinstance(lora, LoRA) and lora.dora:
        raise InputError(
            "lora: DoRA changes norms, which do not add up; merge the adapters instead"
        )
    leaves, base = [trees.flatten(a) for a in adapters], trees.flatten(params or {})
    combined = {
        path: _combine_leaf(path, [each[path] for each in leaves], weights, base)
        for path in leaves[0]
    }
    if rank is not None:
        _truncate(combined, rank)
    widths = {
        split_path(path)[1]: leaf.shape[-1]
        for path, leaf in combined.items()
        if path.endswith(("/lora/a", "/adalora/p"))
    }
    changed = (_with_rank(m, widths.get(m.name)) for m in methods.values())
    return trees.unflatten(combined), tuple(changed)


# The axis of the ranks of the arrays of LoRA and AdaLoRA, and which holds the weight.
_RANKS = {
    ("lora", "a"): (-1, False),
    ("lora", "b"): (-2, True),
    ("adalora", "p"): (-1, False),
    ("adalora", "lambda"): (-1, True),
    ("adalora", "q"): (-2, False),
}


def _combine_leaf(
    path: str,
    leaves: Sequence[Array],
    weights: Sequence[float],
    base: dict[str, Array],
) -> Array:
    """Returns the array of a combination at a path."""
    _, method, name = split_path(path)
    if (method, name) in _RANKS:
        axis, weighted = _RANKS[method, name]
        factors = weights if weighted else [1.0] * len(weights)
        parts = [f * leaf for f, leaf in zip(factors, leaves, strict=True)]
        return jnp.concatenate(parts, axis=axis)
    start = 1.0 if method == "ia3" else base.get(path)
    if start is None and not np.isclose(sum(weights), 1.0, rtol=1e-6):
        todo = "" if method in SURGERY else "; give params for other sums"
        raise InputError(
            f"weights: they sum to {sum(weights):g}, but of {path} only averages are "
            f"defined, whose weights sum to 1{todo}"
        )
    start = 0.0 if start is None else start
    deltas = (w * (leaf - start) for w, leaf in zip(weights, leaves, strict=True))
    return start + sum(deltas)


@full_precision
def _truncate(leaves: dict[str, Array], rank: int) -> None:
    """Replaces the factors of LoRA by those of the best product of a lower rank."""
    for path in [path for path in leaves if path.endswith("/lora/a")]:
        root = path.removesuffix("a")
        a, b = leaves[f"{root}a"], leaves[f"{root}b"]
        if rank > a.shape[-1]:
            raise InputError(f"rank: {rank} must be at most {a.shape[-1]}, all of them")
        left, upper = jnp.linalg.qr(a)
        right, lower = jnp.linalg.qr(b.swapaxes(-1, -2))
        u, s, vt = jnp.linalg.svd(upper @ lower.swapaxes(-1, -2))
        leaves[f"{root}a"] = left @ (u * s[..., None, :])[..., :rank]
        leaves[f"{root}b"] = vt[..., :rank, :] @ right.swapaxes(-1, -2)


def _with_rank(method: Method, rank: int | None) -> Method:
    """Returns a configuration of another rank and the same scale."""
    if rank is None or not isinstance(method, (LoRA, AdaLoRA)):
        return method
    root = isinstance(method, LoRA) and method.rslora
    alpha = method.scale * (rank**0.5 if root else rank)
    return dataclasses.replace(method, rank=rank, alpha=alpha)
