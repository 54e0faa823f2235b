"""Optimizers by name, and those of your own: any transformation of optax.

By name there is an optax optimizer with a schedule, weight decay and clipping.

The peak learning rate is a traced value in the optimizer's state, so that runs that
differ in it share one compiled program.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from ffnlab import trees
from ffnlab.errors import InputError, choose
from ffnlab.nn.stacks import stack_axes
from ffnlab.types import Array, Params

Schedule = Callable[[Array], Any]


def decayed(params: Params) -> Any:
    """Returns a tree of bools: True for kernels and embeddings, which are decayed.

    Biases, the scales of norms and learnable parameters of activations are not: weight
    decay does not regularise them.

    >>> decayed({"up": {"kernel": 0.0, "bias": 0.0}})
    {'up': {'bias': False, 'kernel': True}}
    """
    return jax.tree.map(
        lambda name: name.endswith(("kernel", "embedding")), trees.names(params)
    )


def _matrices(params: Params) -> Any:
    """Returns which axes of each array are a matrix; None where it holds none.

    An array of stacked layers holds a matrix for each layer.
    """

    def axes(name: str, leaf: Array) -> contrib.MuonDimensionNumbers | None:
        first = stack_axes(name)
        matrix = leaf.ndim == first + 2
        return contrib.MuonDimensionNumbers(first, first + 1) if matrix else None

    return jax.tree.map(axes, trees.names(params), params)


class Recipe(NamedTuple):
    """An optimizer of `OPTIMIZERS`.

    Attributes:
      build: `build(learning_rate)` returns an optax transformation; the learning rate
        is a number or a function of the step.
      weight_decay: λ, the default weight decay.
      elementwise: Whether the update of an entry depends on that entry alone.
    """

    build: Callable[[Any], optax.GradientTransformation]
    weight_decay: float = 0.0
    elementwise: bool = True


OPTIMIZERS: dict[str, Recipe] = {
    "sgd": Recipe(optax.sgd),
    "momentum": Recipe(functools.partial(optax.sgd, momentum=0.9)),
    "nesterov": Recipe(functools.partial(optax.sgd, momentum=0.9, nesterov=True)),
    "adagrad": Recipe(optax.adagrad),
    "rmsprop": Recipe(functools.partial(optax.rmsprop, decay=0.9)),
    "adam": Recipe(optax.adam),
    "adamw": Recipe(optax.adam, weight_decay=1e-4),
    "lion": Recipe(functools.partial(optax.lion, weight_decay=0.0), weight_decay=1e-3),
    # Orthogonalised momentum for matrices, Adam for the other arrays.
    "muon": Recipe(
        functools.partial(contrib.muon, muon_weight_dimension_numbers=_matrices),
        elementwise=False,
    ),
}


def _constant(progress: Array) -> Array:
    return jnp.ones_like(progress)


def _linear(progress: Array) -> Array:
    return 1.0 - progress


def _cosine(progress: Array) -> Array:
    return 0.5 * (1.0 + jnp.cos(jnp.pi * progress))


SCHEDULES: dict[str, Callable[[Array], Array]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
}


def schedule(name: str, steps: int, warmup: int = 0) -> Schedule:
    """Returns a function from the step to the factor of the peak learning rate.

    Args:
      name: What follows the warm-up: `constant`, or `linear` or `cosine`, which decay
        to 0 at `steps`.
      steps: The number of steps of the run.
      warmup: The number of steps over which the factor rises linearly. Step t uses
        (t + 1) / warmup, so that no step is wasted at 0.

    Returns:
      `factor(step)`, in [0, 1].

    Raises:
      InputError: The name is unknown, or the warm-up does not end before the run.

    Source: cosine as in Loshchilov & Hutter 2017, without restarts.

    >>> factor = schedule("linear", steps=10, warmup=2)
    >>> [round(float(factor(jnp.array(step))), 3) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    decay = SCHEDULES[choose("schedule", name, SCHEDULES)]
    if not 0 <= warmup < steps:
        raise InputError(f"warmup: {warmup} must be at least 0 and below {steps}")

    def factor(count: Array) -> Array:
        rise = jnp.minimum((count + 1) / max(warmup, 1), 1.0)
        progress = jnp.clip((count - warmup) / (steps - warmup), 0.0, 1.0)
        return rise * decay(progress)

    return factor


def make(
    name: str,
    learning_rate: float = 1e-3,
    *,
    schedule: Schedule = lambda count: 1.0,
    weight_decay: float | None = None,
    clip: float | None = None,
    mask: Any = decayed,
    flat: bool = False,
) -> optax.GradientTransformation:
    """Returns an optimizer whose peak learning rate is part of its state.

    Args:
      name: A key of `OPTIMIZERS`.
      learning_rate: The peak learning rate. `with_learning_rate` replaces it in a
        state.
      schedule: `schedule(step)` returns the factor of the peak learning rate; see the
        function `schedule`.
      weight_decay: λ of θ ← θ − rate · λθ, for any optimizer: decoupled, and scaled by
        the learning rate, as in optax's AdamW (Loshchilov & Hutter leave the learning
        rate out). None is the optimizer's own: 1e-4 for adamw, 1e-3 for lion,
        otherwise 0.
      clip: The largest norm of the whole gradient; None does not clip.
      mask: Which parameters are decayed: a tree of bools, or a function from the
        parameters to it.
      flat: Whether to update all parameters as one vector. A step of a model of many
        small arrays then compiles and launches a fraction of the kernels. It changes
        no value, and is ignored by muon, which needs the matrices.

    Raises:
      InputError: The name is unknown.

    Source: Loshchilov & Hutter 2019 for the decay; Pascanu et al. 2013 for clipping.

    >>> optimizer = make("sgd", 0.5)
    >>> params = {"kernel": jnp.ones(2)}
    >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
    >>> updates["kernel"].tolist()
    [-0.5, -0.5]
    """
    recipe = OPTIMIZERS[choose("optimizer", name, OPTIMIZERS)]
    decay = recipe.weight_decay if weight_decay is None else weight_decay

    @optax.inject_hyperparams
    def build(learning_rate: Any) -> optax.GradientTransformation:
        def rate(count: Array) -> Array:
            return learning_rate * schedule(count)

        parts = [optax.clip_by_global_norm(clip)] if clip else []
        parts.append(recipe.build(rate))
        if flat and recipe.elementwise:
            parts = [optax.flatten(optax.chain(*parts))]
        if decay:
            parts.append(
                optax.add_decayed_weights(lambda count: -decay * rate(count), mask)
            )
        return optax.chain(*parts)

    return build(learning_rate)


def as_optimizer(optimizer: Any) -> optax.GradientTransformation:
    """Returns an optimizer as `Learner` holds it.

    Args:
      optimizer: An optax transformation; a function of the peak learning rate that
        returns one, such as `optax.adam` or `lambda rate: optax.sgd(rate, 0.9)`; or a
        key of `OPTIMIZERS`.

    Returns:
      A transformation as it is, with the learning rate that it was made with. From a
      function, one whose learning rate is part of its state, as that of `make`: the
      default of the function's parameter, or 0.001, until `with_learning_rate` replaces
      it.

    Raises:
      InputError: It is none of these, or JAX cannot trace the function.

    >>> optimizer = as_optimizer(lambda learning_rate: optax.sgd(2 * learning_rate))
    >>> params = {"kernel": jnp.ones(2)}
    >>> state = with_learning_rate(optimizer.init(params), 0.25)
    >>> optimizer.update(params, state, params)[0]["kernel"].tolist()
    [-0.5, -0.5]
    """
    if isinstance(optimizer, str):
        return make(optimizer)
    if is_transformation(optimizer):
        return optimizer
    wanted = (
        "expected an optax transformation, or a function of the learning rate that "
        "returns one"
    )
    if not callable(optimizer) or isinstance(optimizer, type):
        raise InputError(f"optimizer: {wanted}, got {type(optimizer).__name__}")
    _check_rated(optimizer, wanted)

    @optax.inject_hyperparams
    def build(learning_rate: Any) -> optax.GradientTransformation:
        return optimizer(learning_rate)

    return build(_default_rate(optimizer))


def is_transformation(optimizer: Any) -> bool:
    """Returns whether something is an optax transformation."""
    made = not isinstance(optimizer, type)
    return made and hasattr(optimizer, "init") and hasattr(optimizer, "update")


def _check_rated(optimizer: Callable[[Any], Any], wanted: str) -> None:
    """Raises unless a function of the learning rate returns a transformation."""
    results = []
    try:
        jax.eval_shape(lambda rate: results.append(optimizer(rate)), 1e-3)
    except jax.errors.ConcretizationTypeError:
        raise InputError(
            "optimizer: the function of the learning rate compares or converts it, "
            "and JAX cannot trace that; make the schedule a function of the step, "
            "lambda rate: optax.adam(lambda step: rate * factor(step))"
        ) from None
    except TypeError as error:
        raise InputError(f"optimizer: {wanted}; the call failed: {error}") from None
    if not is_transformation(results[0]):
        returned = type(results[0]).__name__
        raise InputError(f"optimizer: {wanted}; it returned {returned}")


def _default_rate(optimizer: Callable[[Any], Any]) -> float:
    """Returns the default of the learning rate of a function, or 0.001."""
    first = next(iter(inspect.signature(optimizer).parameters.values()))
    number = isinstance(first.default, (int, float))
    return float(first.default) if number else 1e-3


def has_learning_rate(optimizer: optax.GradientTransformation, params: Params) -> bool:
    """Returns whether `with_learning_rate` can replace the rate of an optimizer.

    Args:
      optimizer: The optimizer.
      params: What it is for; shapes are enough.

    >>> params = {"kernel": jnp.ones(2)}
    >>> [has_learning_rate(o, params) for o in (make("adam"), optax.adam(0.1))]
    [True, False]
    """
    return _holds_rate(jax.eval_shape(optimizer.init, params))


def _holds_rate(state: Any) -> bool:
    """Returns whether a state holds a learning rate that no schedule overwrites."""
    paths = jax.tree.leaves(trees.names(state))
    scheduled = any("hyperparams_states/learning_rate/" in path for path in paths)
    return any(map(_is_rate, paths)) and not scheduled


def _is_rate(path: str) -> bool:
    return path.endswith("hyperparams/learning_rate")


def with_learning_rate(state: Any, learning_rate: Array) -> Any:
    """Returns the state of an optimizer with another peak learning rate.

    Args:
      state: The state of an optimizer of `make`, or of a function of the learning rate
        (`as_optimizer`), alone or inside of others.
      learning_rate: The peak learning rate.

    Raises:
      InputError: The state holds no learning rate that could be replaced.

    >>> state = make("adam", 0.5).init({"kernel": jnp.ones(2)})
    >>> float(with_learning_rate(state, jnp.array(0.25)).hyperparams["learning_rate"])
    0.25
    """
    if not _holds_rate(state):
        raise InputError(
            "learning_rate: the optimizer has a rate or a schedule of its own, so that "
            "the one given would not be used; leave it out, or give the optimizer as a "
            "function of it, lambda learning_rate: optax.adam(learning_rate)"
        )

    def replace(name: str, leaf: Any) -> Any:
        if not _is_rate(name):
            return leaf
        return jnp.asarray(learning_rate, jnp.asarray(leaf).dtype)

    return jax.tree.map(replace, trees.names(state), state)
