"""Convolution against JAX, in float64: the value, the vjp, and theirs."""

import functools
import itertools

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from ffnlab.scratch import conv2d
from tests.scratch.agreement import SEEDS, SETTINGS, check_functions, normals

pytestmark = pytest.mark.usefixtures("x64")


@SETTINGS
@hypothesis.given(
    sides=st.tuples(st.integers(3, 6), st.integers(3, 6)),
    window=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    seed=SEEDS,
)
def test_convolution(sides, window, seed):
    inputs = normals(seed, (2, *sides, 2), (*window, 2, 3))

    def theirs(x, kernel, stride, padding):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            padding.upper(),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    cases = {}
    for stride, padding in itertools.product((1, 2, 3), ("same", "valid")):
        options = {"stride": stride, "padding": padding}
        pair = (functools.partial(f, **options) for f in (conv2d, theirs))
        cases[f"{stride}, {padding}"] = (*pair, inputs)
    check_functions(cases, seed)


def test_dilation_and_groups():
    """Every channel alone, too, with more results than channels."""
    (x,) = normals(0, (2, 7, 6, 4))
    cases = {}
    for stride, dilation, groups, padding in [
        (1, 2, 1, "same"),
        (2, 3, 1, "same"),
        (2, 2, 2, "valid"),
        (1, 1, 4, "same"),
    ]:
        (kernel,) = normals(1, (3, 2, 4 // groups, 8))

        def theirs(x, kernel, stride=stride, dilation=dilation, groups=groups,
                   padding=padding):  # fmt: skip
            return jax.lax.conv_general_dilated(
                x, kernel, (stride, stride), padding.upper(),
                rhs_dilation=(dilation, dilation), feature_group_count=groups,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )  # fmt: skip

        ours = functools.partial(
            conv2d, stride=stride, padding=padding, dilation=dilation, groups=groups
        )
        name = f"{stride}, {dilation}, {groups}, {padding}"
        cases[name] = (ours, theirs, [x, kernel])
    check_functions(cases)


@pytest.mark.parametrize(
    ("depth", "outputs", "options", "message"),
    [
        (2, 4, {"groups": 2}, r"expected \[B, R, C, D\] and \[h, w, D / 2, H\] with H"),
        (1, 3, {"groups": 2}, "with H a multiple of 2"),
        (2, 3, {"groups": 0}, "groups 0 at least 1"),
        (2, 3, {"dilation": 0}, "dilation 0 and groups 1 at least 1"),
        (2, 3, {"padding": "full"}, "padding 'full' should be"),
        (2, 3, {"dilation": 4, "padding": "valid"}, "window shape cannot be larger"),
    ],
)
def test_bad_convolutions_are_refused(depth, outputs, options, message):
    with pytest.raises(ValueError, match=message):
        conv2d(np.ones((1, 4, 4, 2)), np.ones((2, 2, depth, outputs)), **options)
