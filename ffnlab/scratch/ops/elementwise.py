"""Operations on each entry: arithmetic, functions, and choices between two inputs.

>>> from ffnlab.scratch import grad
>>> grad(lambda x: sin(x) * x)(0.0)
array(0.)
"""

import math
from typing import Any

import numpy as np

from ffnlab.scratch.tensor import Primitive, Tensor, array, tensor, wrap

# Arithmetic: a rule for a and a rule for b.

add = Primitive(np.add, lambda g, y, a, b: g, lambda g, y, a, b: g)
subtract = Primitive(np.subtract, lambda g, y, a, b: g, lambda g, y, a, b: -g)
multiply = Primitive(np.multiply, lambda g, y, a, b: g * b, lambda g, y, a, b: g * a)
divide = Primitive(np.divide, lambda g, y, a, b: g / b, lambda g, y, a, b: -g * y / b)
negative = Primitive(np.negative, lambda g, y, x: -g)
floor_divide = Primitive(np.floor_divide, None, None)
remainder = Primitive(
    np.remainder, lambda g, y, a, b: g, lambda g, y, a, b: -g * floor_divide(a, b)
)


def _power_base(g, y, a, b):
    """Returns g b a^(b−1), which is 0 where b is 0, even for infinite a^(b−1)."""
    if isinstance(b, Tensor):
        zero = b.data == 0
        return g * where(zero, 0.0, b * a ** where(zero, 1.0, b - 1.0))
    return g * (b * a ** (b - 1)) if b else g * 0.0


def _power_exponent(g, y, a, b):
    """Returns g a^b log a, which is 0 where a is 0."""
    return g * y * log(where(array(a) == 0, 1.0, a))


power = Primitive(np.power, _power_base, _power_exponent)

# Functions of one input.


def _identity(x):
    return x


def _cast(x, *, dtype):
    return x.astype(dtype)


def _erf(x):
    dtype = x.dtype if x.dtype.kind == "f" else float
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x), dtype)  # a slow Python loop


def _sigmoid(x):
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))  # no overflow


def _softplus(x):
    return np.logaddexp(x, 0)


def _relu(x):
    return np.maximum(x, 0)


identity = Primitive(_identity, lambda g, y, x: g)
cast = Primitive(_cast, lambda g, y, x, dtype: g)

exp = Primitive(np.exp, lambda g, y, x: g * y)
exp2 = Primitive(np.exp2, lambda g, y, x: g * y * math.log(2))
expm1 = Primitive(np.expm1, lambda g, y, x: g * (y + 1))
log = Primitive(np.log, lambda g, y, x: g / x)
log2 = Primitive(np.log2, lambda g, y, x: g / (x * math.log(2)))
log10 = Primitive(np.log10, lambda g, y, x: g / (x * math.log(10)))
log1p = Primitive(np.log1p, lambda g, y, x: g / (x + 1))
sqrt = Primitive(np.sqrt, lambda g, y, x: g * (0.5 / y))
square = Primitive(np.square, lambda g, y, x: g * (2 * x))
reciprocal = Primitive(np.reciprocal, lambda g, y, x: -g * y * y)

sin = Primitive(np.sin, lambda g, y, x: g * cos(x))
cos = Primitive(np.cos, lambda g, y, x: -g * sin(x))
tan = Primitive(np.tan, lambda g, y, x: g * (1 + y * y))
arcsin = Primitive(np.arcsin, lambda g, y, x: g / sqrt(1 - x * x))
arccos = Primitive(np.arccos, lambda g, y, x: -g / sqrt(1 - x * x))
arctan = Primitive(np.arctan, lambda g, y, x: g / (1 + x * x))
sinh = Primitive(np.sinh, lambda g, y, x: g * cosh(x))
cosh = Primitive(np.cosh, lambda g, y, x: g * sinh(x))
tanh = Primitive(np.tanh, lambda g, y, x: g * (1 - y * y))
arcsinh = Primitive(np.arcsinh, lambda g, y, x: g / sqrt(x * x + 1))
arccosh = Primitive(np.arccosh, lambda g, y, x: g / sqrt(x * x - 1))
arctanh = Primitive(np.arctanh, lambda g, y, x: g / (1 - x * x))
degrees = rad2deg = Primitive(np.degrees, lambda g, y, x: g * (180 / math.pi))
radians = deg2rad = Primitive(np.radians, lambda g, y, x: g * (math.pi / 180))

sigmoid = Primitive(_sigmoid, lambda g, y, x: g * (y * (1 - y)))
relu = Primitive(_relu, lambda g, y, x: g * wrap((x.data > 0).astype(x.dtype)))
erf = Primitive(_erf, lambda g, y, x: g * (2 / math.sqrt(math.pi) * exp(-x * x)))
softplus = Primitive(_softplus, lambda g, y, x: g * sigmoid(x))

abs = absolute = fabs = Primitive(np.absolute, lambda g, y, x: g * sign(x))
sign = Primitive(
    np.sign, None
)  # constant between its steps, as floor, ceil and round are
floor = Primitive(np.floor, None)
ceil = Primitive(np.ceil, None)
nan_to_num = Primitive(
    np.nan_to_num, lambda g, y, x: where(np.isfinite(x.data), g, 0.0)
)
round = Primitive(np.round, lambda g, y, x, decimals=0: g * 0.0)

# Choices between two inputs, and functions of both.


def _share(y, x, other):
    """Returns 1 where x was chosen and ½ where both were, since they are equal."""
    equal = np.equal(array(x), y.data) / (1.0 + np.equal(array(x), array(other)))
    return wrap(equal.astype(y.dtype))


_CHOICE = (
    lambda g, y, a, b: g * _share(y, a, b),
    lambda g, y, a, b: g * _share(y, b, a),
)

where = Primitive(  # g passes to the side that was chosen, so that no NaN leaks
    np.where,
    None,
    lambda g, y, condition, a, b: where(condition, g, 0.0),
    lambda g, y, condition, a, b: where(condition, 0.0, g),
)
maximum = Primitive(np.maximum, *_CHOICE)
minimum = Primitive(np.minimum, *_CHOICE)
fmax = Primitive(np.fmax, *_CHOICE)  # these two pass over NaN
fmin = Primitive(np.fmin, *_CHOICE)
arctan2 = Primitive(
    np.arctan2,
    lambda g, y, a, b: g * b / (a * a + b * b),
    lambda g, y, a, b: -g * a / (a * a + b * b),
)
hypot = Primitive(
    np.hypot, lambda g, y, a, b: g * (a / y), lambda g, y, a, b: g * (b / y)
)
logaddexp = Primitive(
    np.logaddexp,
    lambda g, y, a, b: g * exp(a - y),
    lambda g, y, a, b: g * exp(b - y),
)
logaddexp2 = Primitive(
    np.logaddexp2,
    lambda g, y, a, b: g * exp2(a - y),
    lambda g, y, a, b: g * exp2(b - y),
)


def clip(x: Any, a_min: Any = None, a_max: Any = None) -> Tensor:
    """Returns x within bounds, each of which may be None.

    >>> clip([-1.0, 0.5, 2.0], 0.0, 1.0).data
    array([0. , 0.5, 1. ])
    """
    x = tensor(x) if a_min is None else maximum(x, a_min)
    return x if a_max is None else minimum(x, a_max)
