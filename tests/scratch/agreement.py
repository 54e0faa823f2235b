"""Checks that the engine computes what JAX does: values and gradients, twice.

Each reference is one jitted function of everything that is checked: eager operations of
JAX would compile a program per operation and shape.
"""

import functools

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from ffnlab.nn.pure import functional
from ffnlab.scratch import ops, trees, value_and_grad, vjp

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
SETTINGS = hypothesis.settings(
    max_examples=5,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
SEEDS = st.integers(0, 2**32 - 1)


def normals(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def positives(seed, *shapes):
    return [0.5 + np.abs(x) for x in normals(seed, *shapes)]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def draw_like(params, seed=0):
    """Returns a tree of the same shapes, but with nothing at 0 or 1."""
    rng = np.random.default_rng(seed)
    return trees.map_leaves(lambda p: 0.3 * rng.standard_normal(p.shape), params)


def by_module(build):
    """Returns `apply(params, x)` of an NNX module, whose first output is the value."""
    model = functional(build)

    def apply(params, x):
        y = model.apply(params, x)
        return y[0] if isinstance(y, tuple) else y

    apply.shapes = jax.eval_shape(model.init, jax.random.key(0))
    return apply


def check_functions(cases, seed=0):
    """Checks functions of arrays: the value, the vjp, and the vjp of the vjp.

    Args:
      cases: name to `(ours, theirs, inputs)`; `theirs` in one program for all cases.
      seed: of the directions of the derivatives.
    """
    rng = np.random.default_rng(seed + 1)
    results, references = {}, {}
    for name, (ours, theirs, inputs) in cases.items():
        value, pullback = vjp(ours, *inputs)
        assert type(value) is np.ndarray and value.dtype == np.float64, name
        g = rng.standard_normal(value.shape)
        directions = [rng.standard_normal(np.shape(x)) for x in inputs]

        def along(*xs, f=ours, vjp=vjp, directions=directions, g=g):
            gradients = vjp(f, *xs)[1](g)
            return sum(
                (v * x).sum() for v, x in zip(directions, gradients, strict=True)
            )

        second = vjp(along, *inputs)[1](np.ones(()))
        results[name] = value, pullback(g), second

        def reference(*xs, f=theirs, along=along, g=g):
            expected, pullback = jax.vjp(f, *xs)
            second = jax.grad(lambda xs: along(*xs, f=f, vjp=jax.vjp))(xs)
            return expected, pullback(g), second

        references[name] = reference

    @jax.jit
    def run(inputs):
        return {name: f(*inputs[name]) for name, f in references.items()}

    with jax.numpy_rank_promotion("allow"):
        expected = run({name: tuple(case[2]) for name, case in cases.items()})
    for name in cases:
        chex.assert_trees_all_close(
            results[name], expected[name], custom_message=name, **CLOSE
        )


def check_function(ours, theirs, inputs, seed=0):
    """Checks one function of arrays, as `check_functions` checks several."""
    check_functions({"function": (ours, theirs, inputs)}, seed)


def check_numpy(cases, seed=0):
    """Checks functions that `ops` and `jax.numpy` have under the same names.

    Args:
      cases: name to `(f, *inputs)`; f is called as `f(ops, *inputs)`, and with
        `jax.numpy` in place of `ops`.
      seed: of the directions of the derivatives.
    """
    check_functions(
        {
            name: (functools.partial(f, ops), functools.partial(f, jnp), inputs)
            for name, (f, *inputs) in cases.items()
        },
        seed,
    )


def check_layers(cases, second=False):
    """Checks layers: parameters' names and shapes, the value, its vjp, and theirs.

    Args:
      cases: name to `(layer, theirs, x)` or `(layer, theirs, x, ours)`. The layer is
        from `ffnlab.scratch`; `theirs` is `apply(params, x)` in JAX, whose `shapes` are
        compared if it has them; integers x have no gradient; `ours` is
        `apply(params, x)` of the layer, if not `layer.apply`.
      second: whether to take the gradient of the gradient, too.
    """
    results, references, inputs = {}, {}, {}
    for name, (layer, theirs, x, *ours) in cases.items():
        params = draw_like(layer.init(0))
        if hasattr(theirs, "shapes"):
            chex.assert_trees_all_equal_shapes(params, theirs.shapes)
        apply = ours[0] if ours else lambda p, x, layer=layer: layer.apply(p, x)[0]
        fixed = (x,) if np.issubdtype(x.dtype, np.integer) else ()
        args = (params,) if fixed else (params, x)
        value, pullback = vjp(lambda *args, f=apply, c=fixed: f(*args, *c), *args)
        g = normal(*value.shape, seed=1)

        def reference(*args, f=theirs, c=fixed, g=g, x=x):
            value, pullback = jax.vjp(lambda *args: f(*args, *c), *args)
            norm = jax.value_and_grad(lambda p: gradient_norm(jax.vjp, f, p, x, g))
            return value, pullback(g), norm(args[0]) if second else ()

        def norm(params, f=apply, x=x, g=g):
            return gradient_norm(vjp, f, params, x, g)

        results[name] = (
            value,
            pullback(g),
            value_and_grad(norm)(params) if second else (),
        )
        references[name], inputs[name] = reference, args

    expected = jax.jit(
        lambda inputs: {name: f(*inputs[name]) for name, f in references.items()}
    )(inputs)
    for name in cases:
        chex.assert_trees_all_close(
            results[name], expected[name], custom_message=name, **CLOSE
        )


def gradient_norm(vjp, f, params, x, g):
    """Returns the squared norm of the gradient of f by its parameters."""
    (gradient,) = vjp(lambda params: f(params, x), params)[1](g)
    return sum((leaf**2).sum() for _, leaf in trees.named_leaves(gradient))


def check_layer(layer, theirs, x, *ours, second=False):
    """Checks one layer, as `check_layers` checks several."""
    check_layers({"layer": (layer, theirs, x, *ours)}, second)
