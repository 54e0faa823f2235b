"""NNX modules as pure functions, and their parameter and operation counts."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from ffnlab import trees
from ffnlab.nn import module_state
from ffnlab.nn.random_streams import random_streams
from ffnlab.nn.statistics import split_stats
from ffnlab.types import Key, Model, Params


def functional(build: Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """Returns a module as a pair of pure functions over a plain dict of arrays.

    A module may take a key, as those of this package do, or x alone. Such a plain
    module may have dropout and batch norm of NNX: a key puts them into training mode
    and starts their random streams; without one they are deterministic.

    Args:
      build: Function that builds the module from random streams. Its state may be
        `nnx.Param`, `nnx.BatchStat`, and the random streams of dropout. It is called
        abstractly, so no arrays are allocated here.

    Returns:
      `Model(init, apply)`: `init(key) -> params`, and `apply(params, x, ..., key)`,
      which calls the module, with the adapters that the parameters hold (see
      `ffnlab.nn.adapters`). What a module returns is returned as it is, but a single
      value y as `(y, {})`. Arrays of `nnx.BatchStat` are `params["stats"]`, and with a
      key the new ones are `aux["stats"]` (see `ffnlab.nn.statistics`). Any `jax.*`
      transform applies to both.

    Raises:
      InputError: The module has other state, such as a cache.

    >>> model = functional(lambda rngs: nnx.Linear(2, 3, rngs=rngs))
    >>> params = model.init(jax.random.key(0))
    >>> y, aux = model.apply(params, jax.numpy.ones((5, 2)))
    >>> y.shape
    (5, 3)
    >>> model = functional(lambda rngs: nnx.BatchNorm(2, rngs=rngs))
    >>> params = model.init(jax.random.key(0))
    >>> y, aux = model.apply(params, jax.numpy.ones((5, 2)), jax.random.key(1))
    >>> sorted(params), sorted(aux["stats"])
    (['bias', 'scale', 'stats'], ['mean', 'var'])
    """
    form = module_state.form_of(build)

    def init(key: Key) -> Params:
        module = module_state.call_with_rngs(build, random_streams(key))
        return module_state.init(module, form)

    def apply(params: Params, *inputs: Any, **options: Any) -> Any:
        inputs, options, key = form.take_key(inputs, options)
        module = form.merge(params, key)
        return form.outputs(module, module(*inputs, **options), key)

    return Model(init, apply)


def bind(build: Callable[[nnx.Rngs], nnx.Module], params: Params) -> nnx.Module:
    """Returns the module with given parameters, to inspect its parts.

    Args:
      build: See `functional`.
      params: Parameters in the form that `init` returns.

    >>> def build(rngs):
    ...     return nnx.Linear(2, 3, rngs=rngs)
    >>> params = functional(build).init(jax.random.key(0))
    >>> bind(build, params).kernel.shape
    (2, 3)
    """
    return module_state.form_of(build).merge(params)


def parameters(model: Model) -> int:
    """Returns the number of parameters of a model, without allocating them.

    Running statistics are not trained and do not count.

    >>> parameters(functional(lambda rngs: nnx.Linear(2, 3, rngs=rngs)))
    9
    """
    return trees.count(_trained_shapes(model))


def flops(model: Model) -> int:
    """Returns the floating-point operations of the matrix products for one example.

    This is one forward pass of a model that uses every kernel `[D, H]` once per
    example. A multiplication and an addition count as two; elementwise work and
    look-ups are not counted.

    >>> flops(functional(lambda rngs: nnx.Linear(2, 3, rngs=rngs)))
    12
    """
    shapes = trees.flatten(_trained_shapes(model))
    kernels = {k: v for k, v in shapes.items() if k.endswith("kernel")}
    return 2 * trees.count(kernels)


def _trained_shapes(model: Model) -> Params:
    """Returns the shapes of all parameters but the running statistics."""
    return split_stats(jax.eval_shape(model.init, jax.random.key(0)))[0]


def xla_flops(model: Model, x: Any) -> int | None:
    """Returns the floating-point operations of one example, as XLA counts them.

    This is one compiled forward pass with everything in it: products, biases, norms and
    elementwise work. Functions that XLA expands, such as erf, count as what they are
    expanded to; exp, log and tanh are not counted.

    Args:
      model: The model, as `flops` takes it; its outputs, or the first of them, are
        computed.
      x: Inputs or their shapes and types, `[N, ...]`.

    Returns:
      The number for one of the N examples; None where XLA does not count, or leaves out
      products since a library computes them.

    >>> model = functional(lambda rngs: nnx.Linear(2, 3, use_bias=False, rngs=rngs))
    >>> xla_flops(model, jax.ShapeDtypeStruct((8, 2), "float32"))
    12
    """

    def forward(params: Params, x: Any) -> Any:
        outputs = model.apply(params, x)
        return outputs[0] if isinstance(outputs, tuple) else outputs

    params = jax.eval_shape(model.init, jax.random.key(0))
    lowered = jax.jit(forward).lower(params, x)
    costs = lowered.compile(compiler_options=quick_to_compile()).cost_analysis()
    costs = costs[0] if isinstance(costs, list) and costs else costs
    count = round((costs or {}).get("flops", 0.0) / x.shape[0])
    return count if count >= flops(model) else None


def quick_to_compile() -> dict[str, Any]:
    """Returns options for a program that runs once: it compiles in half the time."""
    cpu = jax.default_backend() == "cpu"
    return {"xla_backend_optimization_level": 0} if cpu else {}
