"""A small deep-learning framework on NumPy alone, to understand the large ones.

    from ffnlab import scratch

    x = scratch.Tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    x.grad                                            # [2., 4.]
    scratch.grad(scratch.grad(lambda x: x**3))(2.0)   # 12.

Read it in this order: `tensor` (arrays that record operations), `ops` (operations and
the rules of their gradients, by subject: `elementwise`, `shapes`, `reductions`,
`products`; `arrange` and `contractions` are made of these, and `operators` adds them
to tensors), `graph` (the reverse sweep), `derivatives` (of functions), `implicit`
(fixed points), `convolution`, `losses`, `layers`, `recurrent`, `models`, `optimizers`;
and `manual`, the same backpropagation by hand.
"""

from ffnlab.scratch import (
    layers,
    losses,
    manual,
    models,
    operators,
    ops,
    optimizers,
    recurrent,
    trees,
)
from ffnlab.scratch.check import check_gradients, detect_nan
from ffnlab.scratch.convolution import conv2d
from ffnlab.scratch.derivatives import grad, hessian_vector, jvp, value_and_grad, vjp
from ffnlab.scratch.diagram import draw, drawing
from ffnlab.scratch.graph import backward, gradients, order
from ffnlab.scratch.implicit import fixed_point
from ffnlab.scratch.tensor import Primitive, Tensor

__all__ = [
    "Primitive",
    "Tensor",
    "backward",
    "check_gradients",
    "conv2d",
    "detect_nan",
    "draw",
    "drawing",
    "fixed_point",
    "grad",
    "gradients",
    "hessian_vector",
    "jvp",
    "layers",
    "losses",
    "manual",
    "models",
    "operators",
    "ops",
    "optimizers",
    "order",
    "recurrent",
    "trees",
    "value_and_grad",
    "vjp",
]
