"""The state of an NNX module as plain nested dicts, and the module put together again.

Arrays of `nnx.Param` are parameters. Those of `nnx.BatchStat` are running statistics,
the entry `stats` of the parameters. The keys and counts of NNX's random streams are no
part of either: they are derived from the key of each call.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ffnlab.errors import InputError
from ffnlab.nn.adapters import attach, detach, fold_name
from ffnlab.nn.random_streams import random_streams
from ffnlab.nn.statistics import STATS, join_stats, split_stats
from ffnlab.types import Key, Params

_MODES = ("deterministic", "use_running_average")


class Form(NamedTuple):
    """What the modules of a builder have in common, whatever their arrays hold.

    Attributes:
      graphdef: The module without its arrays.
      shapes: The shapes of all arrays, as nested dicts; the keys of lists are integers.
      streams: The arrays of random streams by path: a shape, and whether it is a key.
      stats: Whether there are running statistics.
      modes: Whether a part has a training and an evaluation mode, as `nnx.Dropout`.
      signature: That of `__call__`, without `self`.
    """

    graphdef: Any
    shapes: dict[Any, Any]
    streams: dict[tuple[Any, ...], tuple[tuple[int, ...], bool]]
    stats: bool
    modes: bool
    signature: inspect.Signature

    def merge(self, params: Params, key: Key | None = None) -> nnx.Module:
        """Returns the module with its arrays and adapters, in the mode of a call."""
        params, stats = split_stats(params) if self.stats else (params, None)
        if self.stats and stats is None:
            raise InputError(
                f"params: the entry {STATS!r} is missing, the running statistics; give "
                "the parameters as init returns them"
            )
        plain, adapters = detach(params)
        plain = _merge_dicts(plain, stats or {})
        plain = _with_keys_of(self.shapes, plain)
        for path, (shape, is_key) in self.streams.items():
            plain = _merge_dicts(plain, _nest(path, _stream(key, path, shape, is_key)))
        module = nnx.merge(self.graphdef, plain)
        attach(module, adapters)
        if self.modes:
            set_mode = module.eval if key is None else module.train
            set_mode()
        return module

    def take_key(
        self, inputs: tuple, options: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any], Key | None]:
        """Returns the arguments of a call of the module, and the key among them.

        A module without a parameter `key` does not receive it: its random streams do.
        """
        parameters = self.signature.parameters
        if "key" in parameters:
            if not (self.modes or self.stats or self.streams):
                return inputs, options, None
            bound = self.signature.bind_partial(*inputs, **options)
            return inputs, options, bound.arguments.get("key")
        if "key" in options:
            options = dict(options)
            key = options.pop("key")
            return inputs, options, _checked(key)
        if inputs[1:] and (_is_key(inputs[-1]) or len(inputs) > self._named):
            *inputs, key = inputs
            return tuple(inputs), options, _checked(key)
        return inputs, options, None

    @property
    def _named(self) -> int:
        """The number of arguments that `__call__` names and takes by position."""
        kinds = (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        )
        return sum(each.kind in kinds for each in self.signature.parameters.values())

    def outputs(self, module: nnx.Module, outputs: Any, key: Key | None) -> Any:
        """Returns what `apply` returns, given what the module returned.

        A value that is not a tuple becomes `(y, aux)`. With a key, `aux` holds the new
        running statistics if there are any.
        """
        if not isinstance(outputs, tuple):
            outputs = (outputs, {})
        if not self.stats or key is None:
            return outputs
        if len(outputs) != 2 or not isinstance(outputs[1], dict):
            raise InputError(
                "functional: a module with running statistics should return y alone, "
                f"or (y, aux) with a dict, not a tuple of {len(outputs)}"
            )
        y, aux = outputs
        return y, {**aux, STATS: plain_state(module, nnx.BatchStat)}


def call_with_rngs(build: Callable[..., nnx.Module], rngs: nnx.Rngs) -> nnx.Module:
    """Returns the module of a builder, which takes `rngs` by name or as the first.

    >>> class Net(nnx.Module):
    ...     def __init__(self, *, rngs: nnx.Rngs):
    ...         self.up = nnx.Linear(2, 3, rngs=rngs)
    >>> call_with_rngs(Net, nnx.Rngs(0)).up.kernel.shape
    (2, 3)
    """
    function = build.__init__ if isinstance(build, type) else build
    rngs_parameter = inspect.signature(function).parameters.get("rngs")
    if rngs_parameter and rngs_parameter.kind is inspect.Parameter.KEYWORD_ONLY:
        return build(rngs=rngs)
    return build(rngs)


def form_of(build: Callable[[nnx.Rngs], nnx.Module]) -> Form:
    """Returns the form of the modules of a builder, which is called abstractly.

    Raises:
      InputError: A module holds state of another kind, or has parameters named `stats`.
    """
    abstract = nnx.eval_shape(lambda: call_with_rngs(build, random_streams(0)))
    if not isinstance(abstract, nnx.Module):
        raise InputError(
            f"build: should return an nnx.Module, not {type(abstract).__name__}"
        )
    graphdef, params, stats, streams, rest = nnx.split(
        abstract, nnx.Param, nnx.BatchStat, nnx.RngState, ...
    )
    others = jax.tree.leaves(rest, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    if others:
        kinds = sorted({type(variable).__name__ for variable in others})
        raise InputError(
            f"functional: the module holds {', '.join(kinds)} beside Param, BatchStat "
            "and random streams; return such state from the call, or declare arrays "
            "that are not trained as nnx.BatchStat"
        )
    params, stats = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
    if STATS in params:
        raise InputError(
            f"functional: {STATS!r} is the name of the running statistics of a model; "
            "give that part of the module another name"
        )
    return Form(
        graphdef,
        _merge_dicts(params, stats),
        {
            path: (variable.get_value().shape, isinstance(variable, nnx.RngKey))
            for path, variable in nnx.to_flat_state(streams)
        },
        bool(stats),
        any(hasattr(m, mode) for _, m in nnx.iter_modules(abstract) for mode in _MODES),
        inspect.signature(type(abstract).__call__.__get__(abstract)),
    )


def plain_state(module: nnx.Module, kind: type[nnx.Variable]) -> dict[str, Any]:
    """Returns the arrays of a kind of variable as nested dicts whose keys are texts."""
    return _with_text_keys(nnx.to_pure_dict(nnx.state(module, kind)))


def init(module: nnx.Module, form: Form) -> Params:
    """Returns the parameters and running statistics of a new module."""
    stats = plain_state(module, nnx.BatchStat) if form.stats else None
    return join_stats(plain_state(module, nnx.Param), stats)


def _is_key(value: Any) -> bool:
    """Returns whether a value is a key of `jax.random.key`."""
    dtype = getattr(value, "dtype", None)
    return dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def _checked(key: Any) -> Key | None:
    """Returns what was given as a key; raises if it is none."""
    if key is None or _is_key(key):
        return key
    raise InputError(
        "key: the module takes x alone, so the last argument of apply should be a key "
        f"of jax.random.key, or None, not {type(key).__name__}"
    )


def _stream(
    key: Key | None, path: tuple[Any, ...], shape: tuple[int, ...], is_key: bool
) -> Any:
    """Returns an array of a random stream, derived from the key of a call."""
    if not is_key:
        return jnp.zeros(shape, jnp.uint32)
    own = fold_name(jax.random.key(0) if key is None else key, "/".join(map(str, path)))
    return jax.random.split(own, shape) if shape else own


def _nest(path: tuple[Any, ...], leaf: Any) -> Any:
    """Returns nested dicts that hold one leaf."""
    return {path[0]: _nest(path[1:], leaf)} if path else leaf


def _merge_dicts(one: dict, two: dict) -> dict:
    """Returns nested dicts with the leaves of both."""
    merged = dict(one)
    for name, part in two.items():
        both = name in one and isinstance(part, dict)
        merged[name] = _merge_dicts(one[name], part) if both else part
    return merged


def _with_text_keys(tree: Any) -> Any:
    """Returns nested dicts whose keys are texts, as files have them."""
    if not isinstance(tree, dict):
        return tree
    return {str(name): _with_text_keys(part) for name, part in tree.items()}


def _with_keys_of(shapes: Any, tree: Any) -> Any:
    """Returns nested dicts with the keys of `shapes`, of which lists have integers."""
    if not isinstance(shapes, dict) or not isinstance(tree, dict):
        return tree
    names = {str(name): name for name in shapes}
    return {
        names.get(name, name): _with_keys_of(shapes.get(names.get(name, name)), part)
        for name, part in tree.items()
    }
