"""Checks that what is written from scratch does what ffnlab or Flax does."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from ffnlab.nn.pure import functional
from ffnlab.scratch import trees, value_and_grad, vjp


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def drawn(params, seed=0):
    """Returns a tree of the same shapes, but with nothing at 0 or 1."""
    rng = np.random.default_rng(seed)
    return trees.mapped(lambda p: 0.3 * rng.standard_normal(p.shape), params)


def by_module(build):
    """Returns `apply(params, x)` of an NNX module, whose first output is the value."""
    model = functional(build)

    def apply(params, x):
        y = model.apply(params, x)
        return y[0] if isinstance(y, tuple) else y

    apply.shapes = jax.eval_shape(model.init, jax.random.key(0))
    return apply


def agree(layer, theirs, x, *, ours=None, second=False):
    """Checks parameters' names and shapes, the value, its vjp, and the vjp of that.

    Args:
      layer: from `ffnlab.scratch`.
      theirs: `apply(params, x)` in JAX; with `shapes` those of parameters must agree.
      x: what it is applied to; integers have no gradient.
      ours: `apply(params, x)` of the layer, if it is not what applies it alone.
      second: whether to take the vjp of the vjp, too.
    """
    params = drawn(layer.init(0))
    if hasattr(theirs, "shapes"):
        chex.assert_trees_all_equal_shapes(params, theirs.shapes)
    ours = ours or (lambda params, x: layer.apply(params, x)[0])
    args, first, other = (params, x), ours, theirs
    if np.issubdtype(x.dtype, np.integer):
        args = (params,)
        first, other = lambda p: ours(p, x), lambda p: theirs(p, x)
    expected, theirs_back = jax.vjp(other, *args)
    found, ours_back = vjp(first, *args)
    g = normal(*found.shape, seed=1)
    close = {"rtol": 1e-10, "atol": 1e-10}
    chex.assert_trees_all_close(found, expected, **close)
    chex.assert_trees_all_close(ours_back(g), theirs_back(jnp.asarray(g)), **close)
    if not second:
        return

    def size(grown):
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(grown))

    again = value_and_grad(lambda p: size(vjp(lambda p: ours(p, x), p)[1](g)[0]))
    expected = jax.value_and_grad(
        lambda p: size(jax.vjp(lambda p: theirs(p, x), p)[1](g)[0])
    )
    chex.assert_trees_all_close(again(params), expected(params), **close)
