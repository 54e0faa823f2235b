"""Whole models around the blocks, and the step from a module to pure functions."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from ffnlab import trees
from ffnlab.errors import InputError
from ffnlab.ffn import NORMS, BlockConfig, FeedForward
from ffnlab.types import Array, Key, Model, Params


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


@dataclasses.dataclass(frozen=True)
class TowerConfig:
    """A stack of feed-forward blocks between a stem and a head.

    Attributes:
      inputs: the width F of x; for tokens, how many there are in a row.
      outputs: the width K of the outputs.
      block: what each block is made of; its `features` is the model width D.
      layers: how many blocks.
      vocabulary: the number of tokens if x holds tokens, otherwise None.
      embedding: the width of a token's embedding.
    """

    inputs: int
    outputs: int
    block: BlockConfig
    layers: int = 2
    vocabulary: int | None = None
    embedding: int = 16

    def __post_init__(self):
        if min(self.inputs, self.outputs, self.layers, self.embedding) < 1:
            raise InputError(
                f"inputs={self.inputs}, outputs={self.outputs}, layers={self.layers}, "
                f"embedding={self.embedding} must all be at least 1"
            )


class Tower(nnx.Module):
    """Stem, feed-forward blocks, final norm, head.

    With a vocabulary it is the language model of Bengio et al. 2003: the tokens of a
    context are embedded, concatenated, and given to the stem.

    Args:
      config: what it is made of.
      rngs: where the arrays are drawn from.

    >>> tower = Tower(TowerConfig(5, 3, BlockConfig("reglu", 8, 6)), rngs=nnx.Rngs(0))
    >>> logits, aux = tower(jax.numpy.ones((2, 5)))
    >>> logits.shape, sorted(aux)
    ((2, 3), ['block_0', 'block_1'])
    """

    def __init__(self, config: TowerConfig, *, rngs: nnx.Rngs):
        self.config = config
        width = config.inputs
        if config.vocabulary:
            self.embed = nnx.Embed(config.vocabulary, config.embedding, rngs=rngs)
            width *= config.embedding
        self.stem = nnx.Linear(width, config.block.features, rngs=rngs)
        for layer in range(config.layers):
            setattr(self, f"block_{layer}", FeedForward(config.block, rngs=rngs))
        norm = NORMS[config.block.norm_kind]
        self.norm = norm(config.block.features, epsilon=config.block.epsilon, rngs=rngs)
        self.head = nnx.Linear(config.block.features, config.outputs, rngs=rngs)

    def __call__(self, x: Array, key: Key | None = None) -> tuple[Array, dict]:
        """Applies the model.

        Args:
          x: float `[..., F]`, or tokens int `[..., F]`.
          key: the key of this call's dropout; None in evaluation.

        Returns:
          Outputs `[..., K]`, and what each block showed, by its name.
        """
        if self.config.vocabulary:
            x = self.embed(x)  # [..., F, embedding]
            x = x.reshape(x.shape[:-2] + (-1,))  # [..., F · embedding]
        x, aux = self.stem(x), {}  # [..., D]
        for layer in range(self.config.layers):
            name = f"block_{layer}"
            drop = None if key is None else jax.random.fold_in(key, layer)
            x, aux[name] = getattr(self, name)(x, drop)
        return self.head(self.norm(x)), aux


def tower(config: TowerConfig) -> Model:
    """Returns a tower as pure functions.

    >>> model = tower(TowerConfig(5, 3, BlockConfig("mlp", 8, 16)))
    >>> logits, _ = model.apply(model.init(jax.random.key(0)), jax.numpy.ones((2, 5)))
    >>> logits.shape
    (2, 3)
    """
    return functional(lambda rngs: Tower(config, rngs=rngs))


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
