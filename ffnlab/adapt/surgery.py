"""Splits a model into what trains and what stays frozen, and joins both again.

    trainable, frozen, apply = adapt.apply(params, LoRA(rank=8), model)
    outputs, aux = apply(trainable, frozen, x, key)

`trainable` mirrors the parameters: arrays that train are at their own paths, as
float32, and new arrays are below the module that they adapt:

    encoder/layer_0/attention/query/lora/a      [D, r]
    encoder/layer_0/ffn/down/ia3/input          [H]
    encoder/layer_0/bottleneck/ffn/up/kernel    [D, h]
    encoder/prefix/key                          [L, P, heads · h]

`frozen` holds the other arrays of the parameters, the same objects. Take gradients by
`trainable` alone: JAX then computes none for the kernels of `frozen`, and runs the
layers below the lowest trained array forward only.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ffnlab import trees
from ffnlab.adapt.bottleneck import bottleneck_layer, init_bottleneck
from ffnlab.adapt.low_rank import (
    adalora_layer,
    init_adalora,
    init_lora,
    lora_layer,
)
from ffnlab.adapt.methods import (
    IA3,
    AdaLoRA,
    Bottleneck,
    Config,
    LoRA,
    Prefix,
    Prompt,
    as_methods,
)
from ffnlab.adapt.scaling import ia3_layer, init_ia3
from ffnlab.adapt.selection import encoder_arrays, encoder_prefix, select
from ffnlab.adapt.targets import trained_dtype
from ffnlab.adapt.virtual import init_prefix, init_prompt, prefix_layer, prompt_layer
from ffnlab.errors import InputError
from ffnlab.nn.adapters import ADAPTER
from ffnlab.types import Array, Key, Model, Params


class Surgery(NamedTuple):
    """How a method adds arrays to a model.

    Attributes:
      init: `init(method, encoder, key)` returns the new arrays by path.
      layer: `layer(method, arrays)` returns the adapter with the arrays of a module.
    """

    init: Callable[[Any, Mapping[str, Array], Key], dict[str, Array]]
    layer: Callable[[Any, Mapping[str, Array]], Callable[..., Any]]


# By the name of a method, in the order in which adapters of a module apply.
SURGERY: dict[str, Surgery] = {
    LoRA.name: Surgery(init_lora, lora_layer),
    AdaLoRA.name: Surgery(init_adalora, adalora_layer),
    IA3.name: Surgery(init_ia3, ia3_layer),
    Bottleneck.name: Surgery(init_bottleneck, bottleneck_layer),
    Prefix.name: Surgery(init_prefix, prefix_layer),
    Prompt.name: Surgery(init_prompt, prompt_layer),
}


class Adapted(NamedTuple):
    """A model in two parts.

    Attributes:
      trainable: The arrays that train, a nested dict, at least float32.
      frozen: The other arrays of the parameters.
      apply: `apply(trainable, frozen, *inputs, **options)`, as `model.apply`.
    """

    trainable: Params
    frozen: Params
    apply: Callable[..., tuple[Any, dict[str, Any]]]


def apply(
    params: Params,
    config: Config,
    model: Model,
    *,
    key: Key | None = None,
    pooler: bool = True,
) -> Adapted:
    """Returns a model in two parts, of which one trains.

    Args:
      params: Parameters of the model. Their pretrained part is `encoder`, if they have
        such an entry, and otherwise all of them.
      config: A method, or several, which are all applied.
      model: The model.
      key: Random key of the new arrays; `jax.random.key(0)` if None.
      pooler: Whether the pooler of the encoder, if it has one, trains like the task
        head. Everything outside the encoder trains in any case.

    Raises:
      InputError: A pattern matches no layer, a rank is above a width, or nothing would
        train.

    >>> from ffnlab import EncoderConfig
    >>> from ffnlab.models import transformer_model
    >>> model = transformer_model(EncoderConfig.tiny(layers=1))
    >>> params = model.init(jax.random.key(0))
    >>> trainable, frozen, apply_both = apply(params, LoRA(rank=2), model)
    >>> sorted(trees.flatten(trainable))[:2]
    ['layer_0/attention/query/lora/a', 'layer_0/attention/query/lora/b']
    >>> apply_both(trainable, frozen, jnp.array([[1, 2, 3]]))[0].shape
    (1, 3, 64)
    """
    methods = as_methods(config)
    trainable = init(params, methods, key=key, pooler=pooler)
    leaves = trees.flatten(params)
    counts = select(params, methods, pooler)
    whole = {path for path, count in counts.items() if count is None}
    kept = {path: leaf for path, leaf in leaves.items() if path not in whole}
    dtypes = {path: leaves[path].dtype for path in counts}

    def apply_both(trainable: Params, frozen: Params, *inputs: Any, **options: Any):
        joined = join(trainable, frozen, methods, dtypes)
        return model.apply(joined, *inputs, **options)

    return Adapted(trainable, trees.unflatten(kept), apply_both)


def init(
    params: Params, config: Config, *, key: Key | None = None, pooler: bool = True
) -> Params:
    """Returns the trainable part alone; see `apply`.

    It can be mapped over keys, for a population over one frozen part.
    """
    methods = as_methods(config)
    key = jax.random.key(0) if key is None else key
    leaves, trained = trees.flatten(params), {}
    for path, count in select(params, methods, pooler).items():
        leaf = leaves[path] if count is None else leaves[path][-count:]
        trained[path] = jnp.array(leaf, trained_dtype(leaf))
    prefix, encoder = encoder_prefix(params), encoder_arrays(params)
    for method in methods:
        if method.name in SURGERY:
            new = SURGERY[method.name].init(method, encoder, key)
            trained |= {prefix + path: leaf for path, leaf in new.items()}
    if not trained:
        raise InputError(
            f"method: nothing would train by {'+'.join(m.name for m in methods)}; "
            "the model has no arrays outside its encoder, so add another method"
        )
    return trees.unflatten(trained)


def split_path(path: str) -> tuple[str, str, str]:
    """Returns the module, the method and the rest of the path of a new array.

    The method is empty for an array of the model itself.

    >>> split_path("layer_0/ffn/up/lora/a"), split_path("norm/scale")
    (('layer_0/ffn/up', 'lora', 'a'), ('norm/scale', '', ''))
    """
    parts = path.split("/")
    for number, name in enumerate(parts):
        if name in SURGERY:
            return "/".join(parts[:number]), name, "/".join(parts[number + 1 :])
    return path, "", ""


def partition(trainable: Params) -> tuple[dict, dict]:
    """Returns the trained arrays of the model by path, and the new ones.

    The new ones are dicts of arrays by module and method, in the order of `SURGERY`.
    """
    own: dict[str, Array] = {}
    new: dict[tuple[str, str], dict[str, Array]] = {}
    for path, leaf in trees.flatten(trainable).items():
        module, method, rest = split_path(path)
        if method:
            new.setdefault((module, method), {})[rest] = leaf
        else:
            own[path] = leaf
    order = [*SURGERY]
    return own, dict(sorted(new.items(), key=lambda item: order.index(item[0][1])))


def join(
    trainable: Params,
    frozen: Params,
    config: Config,
    dtypes: Mapping[str, Any] | None = None,
) -> Params:
    """Returns parameters with adapters, which any function of the model takes.

    Args:
      trainable: The trained part.
      frozen: The frozen part.
      config: The methods.
      dtypes: Data types by path, to which trained arrays of the model are cast; None
        casts none.

    Raises:
      InputError: The trained part has arrays of a method that `config` lacks.
    """
    methods = {method.name: method for method in as_methods(config)}
    own, new = partition(trainable)
    tree = trees.unflatten(overlay(trees.flatten(frozen), own, dtypes or {}))
    for (path, name), arrays in new.items():
        if name not in methods:
            raise InputError(f"config: {path} was adapted by {name}, which it lacks")
        module = tree
        for part in path.split("/") if path else ():
            module = module[part]
        layer = SURGERY[name].layer(methods[name], arrays)
        module[ADAPTER] = (*module.get(ADAPTER, ()), layer)
    return tree


def overlay(
    leaves: dict[str, Array], own: Mapping[str, Array], dtypes: Mapping[str, Any]
) -> dict[str, Array]:
    """Returns arrays by path, of which some are replaced by trained ones.

    A trained array with fewer layers replaces the last layers of a stack.
    """
    for path, leaf in own.items():
        leaf = leaf.astype(dtypes.get(path, leaf.dtype))
        old = leaves.get(path)
        if old is not None and old.shape != leaf.shape:
            leaf = jnp.asarray(old).at[-len(leaf) :].set(leaf)
        leaves[path] = leaf
    return leaves


def rates(trainable: Params, config: Config) -> Params:
    """Returns a factor of the learning rate of each trained array.

    It is `rate_ratio` for B of LoRA and 1 for all others; see
    `ffnlab.train.layerwise.scale_by_layer`.

    Source: Hayou et al. 2024, "LoRA+".
    """
    ratios = {m.name: m.rate_ratio for m in as_methods(config) if isinstance(m, LoRA)}

    def rate(path: str) -> float:
        _, method, rest = split_path(path)
        return ratios[method] if method in ratios and rest == "b" else 1.0

    return jax.tree.map(rate, trees.names(trainable))


class Summary(NamedTuple):
    """How much of a model trains.

    Attributes:
      trained: Number of trained parameters.
      total: Number of all parameters, new ones included.
      bytes: Bytes of the trained arrays.
    """

    trained: int
    total: int
    bytes: int

    @property
    def share(self) -> float:
        """Trained parameters as a share of all."""
        return self.trained / self.total

    def __str__(self) -> str:
        return (
            f"{self.trained:,} of {self.total:,} parameters train ({self.share:.2%}, "
            f"{self.bytes:,} bytes)"
        )


def summary(trainable: Params, frozen: Params) -> Summary:
    """Returns how much of a model trains.

    >>> print(summary({"b": jnp.zeros(2)}, {"a": jnp.zeros(6)}))
    2 of 8 parameters train (25.00%, 8 bytes)
    """
    leaves = trees.flatten(trainable)
    twice = trees.count(
        [leaf for p, leaf in leaves.items() if p in trees.flatten(frozen)]
    )
    trained = trees.count(trainable)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves.values())
    return Summary(trained, trained + trees.count(frozen) - twice, size)
