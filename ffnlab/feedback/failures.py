"""What follows when a solve does not converge: an error or a warning, also inside jit.

A compiled program calls back to Python only where a solve failed, so that the check
costs nothing while all of them converge.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab.feedback.iteration import Solution
from ffnlab.types import Array

_ADVICE = "allow more iterations, damp, use Newton, or make the map contractive"
_WARNING = (
    "an implicit gradient was taken at a state that has not converged, so it is not "
    f"the gradient of a solution: {_ADVICE}, or use gradient='bptt'; "
    "`converged` says which sequences are meant"
)
# The messages of failed solves, for each call of a `checked` function that is running.
_calls: list[list[str]] = []


class NotConverged(RuntimeError):
    """Raised by a solve with `throw` that did not converge."""


class NotConvergedWarning(RuntimeWarning):
    """Warns of an implicit gradient at a state that has not converged."""


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a jitted function in which a failed solve raises `NotConverged`.

    A compiled program cannot raise an error of Python: without this, JAX raises a
    JaxRuntimeError that quotes the traceback of a callback. The call waits for its
    results.

    Args:
      function: A function whose solves have `throw=True`, for instance a jitted step.

    >>> from ffnlab.feedback import FeedbackConfig, FeedbackLayer
    >>> from flax import nnx
    >>> layer = FeedbackLayer(FeedbackConfig(2, 2, solver="unrolled"), rngs=nnx.Rngs(0))
    >>> states = checked(jax.jit(lambda x: layer(x, throw=True)[0]))
    >>> try:
    ...     states(jnp.ones((3, 4, 2)))
    ... except NotConverged as error:
    ...     print(str(error).partition(";")[0])
    3 of 3 systems did not converge
    """

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        messages: list[str] = []
        _calls.append(messages)
        try:
            results = jax.block_until_ready(function(*args, **options))
        finally:
            _calls.remove(messages)
        if messages:
            raise NotConverged(messages[0])
        return results

    return call


def require_convergence(solution: Solution) -> Solution:
    """Returns a solution whose state cannot be computed unless it has converged."""
    outcome = solution.converged, solution.residual
    if any(isinstance(array, jax.core.Tracer) for array in outcome):
        return _call_if_failed(solution, _fail)
    if not np.all(solution.converged):
        raise NotConverged(_describe(*_summarize(*outcome)))
    return solution


def warn_unless_converged(solution: Solution) -> Solution:
    """Returns a solution whose state, when computed, warns if it has not converged."""
    return _call_if_failed(solution, _warn)


def _call_if_failed(solution: Solution, callback: Callable[..., Any]) -> Solution:
    """Returns a solution whose state is NaN where a callback returns True.

    It is a pure callback, and the state depends on it: an effect would take a slower
    path of dispatch at each call, whether a solve fails or not.
    """
    # Before the summary, whose own rule `jax.hessian` would call without end.
    outcome = jax.lax.stop_gradient((solution.converged, solution.residual))
    facts = jax.lax.stop_gradient(_summarize(*outcome))
    result = jax.ShapeDtypeStruct((), bool)
    failed = jax.lax.cond(
        facts[0] > 0,
        lambda *facts: jax.pure_callback(callback, result, *facts),
        lambda *_: jnp.zeros((), bool),
        *facts,
    )
    return solution._replace(state=jnp.where(failed, jnp.nan, solution.state))


# With a rule of its own, since `vmap` would make both branches of the `cond` run.
@jax.custom_batching.custom_vmap
def _summarize(converged: Array, residual: Array) -> tuple[Array, Array, Array]:
    """Returns how many systems failed, how many there are, and the largest residual."""
    return (~converged).sum(), jnp.asarray(converged.size), residual.max()


@_summarize.def_vmap
def _summarize_batch(
    _: int, batched: list[bool], converged: Array, residual: Array
) -> tuple[tuple[Array, Array, Array], tuple[bool, bool, bool]]:
    return _summarize(converged, residual), (False, False, False)


def _describe(failed: Any, count: Any, residual: Any) -> str:
    """Returns the message of an error."""
    return (
        f"{int(failed)} of {int(count)} systems did not converge; "
        f"the largest residual is {float(residual):.2g}; {_ADVICE}"
    )


def _fail(failed: Any, count: Any, residual: Any) -> np.ndarray:
    """Raises `NotConverged`, or leaves the message to the calls that are checked."""
    message = _describe(failed, count, residual)
    if not _calls:
        raise NotConverged(
            f"{message}. Call the jitted function through ffnlab.feedback.checked to "
            "see this sentence alone"
        )
    for messages in _calls:
        messages.append(message)
    return np.ones((), bool)


def _warn(*_: Any) -> np.ndarray:
    """Warns; by Python's default filter, once in a process, since the text is fixed."""
    warnings.warn(_WARNING, NotConvergedWarning, stacklevel=1)
    return np.zeros((), bool)
