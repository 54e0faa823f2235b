"""Which derivatives there are of an implicit solve, and what is said of the others."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffnlab.errors import InputError
from ffnlab.feedback.fixed_point import solve
from ffnlab.feedback.iteration import System
from ffnlab.feedback.modes import refuse_second_gradient

W, ALONG = np.array([[0.7, -0.4]]), np.array([[1.0, 2.0]])
SYSTEM = System(step=lambda args, h: 0.5 * jnp.tanh(h * args["w"]) + args["b"])


def loss(w, gradient="implicit"):
    """Has integers and constants among its arguments, too."""
    args = {"w": w, "b": np.array([[0.3, 0.2]]), "unused": np.arange(2)}
    solution = solve(SYSTEM, args, jnp.zeros((1, 2)), "jacobi", gradient)
    return (solution.state**2).sum() * solution.state[0, 0]


def bptt(w):
    return loss(w, "bptt")


FORWARD = {
    "jvp": lambda f: jax.jvp(f, (W,), (ALONG,)),
    "jvp of jit": lambda f: jax.jvp(jax.jit(f), (W,), (ALONG,)),
    "jit of jvp": lambda f: jax.jit(lambda w: jax.jvp(f, (w,), (ALONG,)))(W),
    "jacfwd": lambda f: jax.jacfwd(f)(W),
    "jacfwd of jit": lambda f: jax.jacfwd(jax.jit(f))(W),
    "linearize": lambda f: jax.linearize(f, W)[1](ALONG),
}


@pytest.mark.parametrize("name", FORWARD)
def test_forward_mode_is_refused_in_one_sentence(x64, name):
    with pytest.raises(InputError) as error:
        FORWARD[name](loss)
    assert str(error.value) == (
        "gradient: 'implicit' has no forward mode (jax.jvp, jax.jacfwd); use 'bptt'"
    )


SECOND = {
    "grad of grad": lambda f: jax.grad(lambda w: (jax.grad(f)(w) * ALONG).sum())(W),
    "jit": lambda f: jax.jit(
        jax.grad(lambda w: (jax.jit(jax.grad(f))(w) * ALONG).sum())
    )(W),
    "jacrev": lambda f: jax.jacrev(jax.jacrev(f))(W),
}


@pytest.mark.parametrize("name", SECOND)
def test_a_gradient_of_a_gradient_is_refused_in_one_sentence(x64, name):
    with pytest.raises(InputError) as error:
        SECOND[name](loss)
    assert str(error.value) == (
        "gradient: 'implicit' has no gradient of its gradient in reverse mode "
        "(jax.grad of jax.grad); use 'bptt', or jax.hessian"
    )


def test_bptt_has_all_and_implicit_has_hessians(x64):
    """Forward over reverse, with and without jit, as bptt over bptt has it."""

    @jax.jit
    def run(w):
        expected = {
            "slope": jax.grad(bptt)(w),
            "along": jax.jvp(jax.grad(bptt), (w,), (ALONG,))[1],
            "hessian": jax.jacrev(jax.jacrev(bptt))(w),
        }
        ours = {
            "slope": jax.vmap(jax.grad(jax.checkpoint(loss)))(w[None])[0],
            "along": jax.jvp(jax.grad(loss), (w,), (ALONG,))[1],
            "hessian": jax.hessian(jax.jit(loss))(w),
        }
        return ours, expected, jax.jacfwd(bptt)(w)

    ours, expected, forward = run(W)
    chex.assert_trees_all_close(ours, expected, atol=1e-8)
    chex.assert_trees_all_close(forward, expected["slope"], atol=1e-10)
    step = 1e-5
    ends = [jax.grad(loss)(W + sign * step * ALONG) for sign in (1, -1)]
    chex.assert_trees_all_close(
        ours["along"], (ends[0] - ends[1]) / (2 * step), atol=1e-7
    )


def test_marks_leave_no_trace_in_a_program():
    marked = jax.jit(lambda x: refuse_second_gradient(x) + 1.0).lower(W).as_text()
    plain = jax.jit(lambda x: x + 1.0).lower(W).as_text()
    assert marked.splitlines()[1:] == plain.splitlines()[1:]
