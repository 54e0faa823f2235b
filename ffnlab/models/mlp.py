"""Stacks of feed-forward blocks (multilayer perceptrons)."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from ffnlab.errors import InputError
from ffnlab.nn.batch_norm import normalize
from ffnlab.nn.ffn import BlockConfig, FeedForward
from ffnlab.nn.indices import check_indices
from ffnlab.nn.linear import dense
from ffnlab.nn.norms import NORMS
from ffnlab.nn.pure import functional
from ffnlab.nn.random_streams import check_rngs
from ffnlab.nn.statistics import STATS
from ffnlab.types import Array, Key, Model, Params


@dataclasses.dataclass(frozen=True)
class TowerConfig:
    """Configuration of a stack of feed-forward blocks between a stem and a head.

    Attributes:
      inputs: Width F of x; for tokens, the number of tokens per example.
      outputs: Width K of the outputs.
      block: Configuration of each block; its `features` is the model width D.
      layers: Number of blocks.
      vocabulary: Number of different tokens if x holds tokens, otherwise None.
      embedding: Width of a token embedding.

    Raises:
      InputError: A size is less than 1.
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
    """A stem, feed-forward blocks, a final norm and a head.

    With a vocabulary it is the language model of Bengio et al. 2003: the tokens of a
    context are embedded and concatenated, and the stem projects them.

    Args:
      config: Configuration of the model.
      rngs: Random streams that initialise the arrays.

    >>> tower = Tower(TowerConfig(5, 3, BlockConfig("reglu", 8, 6)), rngs=nnx.Rngs(0))
    >>> logits, aux = tower(jax.numpy.ones((2, 5)))
    >>> logits.shape, sorted(aux)
    ((2, 3), ['block_0', 'block_1'])
    """

    def __init__(self, config: TowerConfig, *, rngs: nnx.Rngs):
        check_rngs(rngs)
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
        """Returns the outputs of the model.

        Args:
          x: Float `[..., F]`, or tokens int `[..., F]`.
          key: Dropout key; None in evaluation.

        Returns:
          Outputs `[..., K]`, and the `aux` of each block by its name.
        """
        if self.config.vocabulary:
            check_indices("x", x, self.config.vocabulary, "embeddings")
            x = self.embed(x)  # [..., F, embedding]
            x = x.reshape(x.shape[:-2] + (-1,))  # [..., F · embedding]
        x, aux = self.stem(x), {}  # [..., D]
        for layer in range(self.config.layers):
            name = f"block_{layer}"
            layer_key = None if key is None else jax.random.fold_in(key, layer)
            x, aux[name] = getattr(self, name)(x, layer_key)
        return self.head(normalize(self.norm, x, key is not None)), aux


def tower(config: TowerConfig) -> Model:
    """Returns a `Tower` as pure functions.

    >>> model = tower(TowerConfig(5, 3, BlockConfig("mlp", 8, 16)))
    >>> logits, _ = model.apply(model.init(jax.random.key(0)), jax.numpy.ones((2, 5)))
    >>> logits.shape
    (2, 3)
    """
    return functional(lambda rngs: Tower(config, rngs=rngs))


def output_variances(model: Model, params: Params, x: Array) -> Array:
    """Returns the variance of what each block of a tower adds to its input.

    Args:
      model: From `tower`.
      params: Its parameters.
      x: Inputs as `Tower` takes them, `[N, F]`.

    Returns:
      A variance for each block, over examples, the mean of all features, `[layers]`.

    >>> model = tower(TowerConfig(5, 3, BlockConfig("mlp", 8, 16)))
    >>> params = model.init(jax.random.key(0))
    >>> output_variances(model, params, jnp.eye(5)).shape
    (2,)
    """
    aux = _aux(model, params, x)
    names = sorted(name for name in aux if name.startswith("block_"))
    return jnp.stack([_output_variance(params, aux, name) for name in names])


def _aux(model: Model, params: Params, x: Array) -> dict:
    """Returns what each block returns beside its output, as in the first step.

    Batch norms then normalize by the statistics of `x`, for which a key is needed.
    """
    key = jax.random.key(0) if STATS in params else None
    return model.apply(params, x, key)[1]


def _output_variance(params: Params, aux: dict, name: str) -> Array:
    output = dense(aux[name]["hidden"], params[name]["down"])  # [N, D]
    return output.var(axis=0).mean()


def with_output_variance(model: Model, x: Array, variance: float = 1.0) -> Model:
    """Returns a tower whose blocks all start with outputs of one variance.

    The initial kernels of `down` are scaled, block after block, so that what each block
    adds to its input has the given variance on some data.

    Args:
      model: From `tower`.
      x: Inputs as `Tower` takes them, `[N, F]`.
      variance: The variance, over examples, the mean of all features.

    Source: Mishkin and Matas 2016, "All you need is a good init", with one pass, since
    the output is linear in the kernel.

    >>> model = tower(TowerConfig(5, 3, BlockConfig("mlp:sigmoid", 8, 16)))
    >>> x = jax.random.normal(jax.random.key(1), (64, 5))
    >>> params = with_output_variance(model, x).init(jax.random.key(0))
    >>> output_variances(model, params, x).round(3).tolist()
    [1.0, 1.0]
    """

    @jax.jit
    def scale(params: Params) -> Params:
        names = sorted(name for name in params if name.startswith("block_"))
        for name in names:
            aux = _aux(model, params, x)
            now = jnp.maximum(_output_variance(params, aux, name), 1e-12)
            down = dict(params[name]["down"])
            down["kernel"] *= jnp.sqrt(variance / now)
            params = params | {name: params[name] | {"down": down}}
        return params

    return Model(lambda key: scale(model.init(key)), model.apply)
