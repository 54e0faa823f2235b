"""NNX modules as pure functions, and what they cost without being made."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from ffnlab import trees
from ffnlab.errors import InputError
from ffnlab.types import Key, Model, Params


def functional(build: Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """Returns a module as a pair of pure functions over a plain dict of arrays.

    Args:
      build: makes the module from its random streams. Only its structure is kept;
        building costs no arrays. All it holds must be `nnx.Param`.

    Returns:
      `Model(init, apply)`: `init(key) -> params`, and `apply(params, ...)`, which is
      the module's own `__call__`. Both may be transformed by `jax.*` at will.

    Raises:
      InputError: the module holds other state, such as running means.

    >>> model = functional(lambda rngs: nnx.Linear(2, 3, rngs=rngs))
    >>> params = model.init(jax.random.key(0))
    >>> model.apply(params, jax.numpy.ones((5, 2))).shape
    (5, 3)
    """
    abstract = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
    graphdef, _, rest = nnx.split(abstract, nnx.Param, ...)
    held = jax.tree.leaves(rest, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    if held:
        kept = sorted({type(variable).__name__ for variable in held})
        raise InputError(
            f"functional: the module holds {', '.join(kept)} beside Param; return such "
            "state from the call, and take keys there, so that the model stays pure"
        )

    def init(key: Key) -> Params:
        return nnx.to_pure_dict(nnx.state(build(nnx.Rngs(key)), nnx.Param))

    def apply(params: Params, *inputs: Any, **options: Any) -> Any:
        return nnx.merge(graphdef, params)(*inputs, **options)

    return Model(init, apply)


def bind(build: Callable[[nnx.Rngs], nnx.Module], params: Params) -> nnx.Module:
    """Returns the module itself, holding these parameters, to look at its parts.

    Args:
      build: as for `functional`.
      params: as the model's `init` makes them, or as they were trained.

    >>> def build(rngs):
    ...     return nnx.Linear(2, 3, rngs=rngs)
    >>> params = functional(build).init(jax.random.key(0))
    >>> bind(build, params).kernel.shape
    (2, 3)
    """
    graphdef = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))[0]
    return nnx.merge(graphdef, params)


def parameters(model: Model) -> int:
    """Returns how many numbers a model learns, without making them.

    >>> parameters(functional(lambda rngs: nnx.Linear(2, 3, rngs=rngs)))
    9
    """
    return trees.count(jax.eval_shape(model.init, jax.random.key(0)))


def flops(model: Model) -> int:
    """Returns the operations of the products of one forward pass of one example.

    A multiplication and an addition count as two. Every kernel `[D, H]` is used once
    an example in a tower; elementwise work and look-ups are left out.

    >>> flops(functional(lambda rngs: nnx.Linear(2, 3, rngs=rngs)))
    12
    """
    shapes = trees.flatten(jax.eval_shape(model.init, jax.random.key(0)))
    kernels = {k: v for k, v in shapes.items() if k.endswith("kernel")}
    return 2 * trees.count(kernels)
