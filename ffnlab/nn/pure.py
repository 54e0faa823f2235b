"""NNX modules as pure functions, and their parameter and operation counts."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from ffnlab import trees
from ffnlab.errors import InputError
from ffnlab.nn.adapters import attach, detach
from ffnlab.types import Key, Model, Params


def functional(build: Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """Returns a module as a pair of pure functions over a plain dict of arrays.

    Args:
      build: Function that builds the module from random streams. All of its state must
        be `nnx.Param`. It is called abstractly, so no arrays are allocated here.

    Returns:
      `Model(init, apply)`: `init(key) -> params`, and `apply(params, ...)`, which calls
      the module, with the adapters that the parameters hold (see `ffnlab.nn.adapters`).
      Any `jax.*` transform applies to both.

    Raises:
      InputError: The module has other state, such as running means.

    >>> model = functional(lambda rngs: nnx.Linear(2, 3, rngs=rngs))
    >>> params = model.init(jax.random.key(0))
    >>> model.apply(params, jax.numpy.ones((5, 2))).shape
    (5, 3)
    """
    abstract = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
    graphdef, _, rest = nnx.split(abstract, nnx.Param, ...)
    others = jax.tree.leaves(rest, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    if others:
        kinds = sorted({type(variable).__name__ for variable in others})
        raise InputError(
            f"functional: the module holds {', '.join(kinds)} beside Param; return "
            "such state from the call and take keys there, so that the model is pure"
        )

    def init(key: Key) -> Params:
        return nnx.to_pure_dict(nnx.state(build(nnx.Rngs(key)), nnx.Param))

    def apply(params: Params, *inputs: Any, **options: Any) -> Any:
        return _merge(graphdef, params)(*inputs, **options)

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
    graphdef = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))[0]
    return _merge(graphdef, params)


def _merge(graphdef: Any, params: Params) -> nnx.Module:
    """Returns a module with its parameters and their adapters."""
    plain, adapters = detach(params)
    module = nnx.merge(graphdef, plain)
    attach(module, adapters)
    return module


def parameters(model: Model) -> int:
    """Returns the number of parameters of a model, without allocating them.

    >>> parameters(functional(lambda rngs: nnx.Linear(2, 3, rngs=rngs)))
    9
    """
    return trees.count(jax.eval_shape(model.init, jax.random.key(0)))


def flops(model: Model) -> int:
    """Returns the floating-point operations of the matrix products for one example.

    This is one forward pass of a model that uses every kernel `[D, H]` once per
    example. A multiplication and an addition count as two; elementwise work and
    look-ups are not counted.

    >>> flops(functional(lambda rngs: nnx.Linear(2, 3, rngs=rngs)))
    12
    """
    shapes = trees.flatten(jax.eval_shape(model.init, jax.random.key(0)))
    kernels = {k: v for k, v in shapes.items() if k.endswith("kernel")}
    return 2 * trees.count(kernels)


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
