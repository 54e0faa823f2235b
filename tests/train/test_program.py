import jax.numpy as jnp
import numpy as np

from ffnlab.train.program import Program


def test_a_shape_is_compiled_once_and_timed():
    traced = []

    def function(state, x):
        traced.append(x.shape)
        return state + x.sum()

    program = Program(function)
    assert program.outputs(1.0, np.ones(3, "f4")).shape == ()
    assert program.compilations == 0 and program.compile_seconds == 0.0
    for size in (3, 3, 4, 3):
        assert float(program(np.float32(1), np.ones(size, "f4"))) == 1 + size
    assert program.compilations == 2 and program.compile_seconds > 0.0
    assert traced.count((4,)) == 1


def test_a_fingerprint_is_of_what_is_computed():
    def print_of(function, size=3):
        return Program(function).fingerprint(np.ones(size, "f4"))

    one = print_of(lambda x: 2 * x)
    assert one == print_of(lambda x: 2 * x)
    assert one not in (print_of(lambda x: 3 * x), print_of(lambda x: 2 * x, 4))


def test_memory_that_is_donated_is_taken_over():
    program = Program(lambda state, x: state + x, donate=(0,))
    state = jnp.zeros(3)
    assert program(state, jnp.ones(3)).tolist() == [1.0, 1.0, 1.0]
    assert state.is_deleted()
