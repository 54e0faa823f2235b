"""Operations and the rules of their gradients, under the names that NumPy gives them.

A rule takes the gradient g of the result y, y itself and the inputs, and returns the
gradient of one input. Rules consist of the same operations, so they can be
differentiated again. `graph` sums gradients over axes along which an input was
broadcast. Options may follow the inputs by position: `sum(x, 0)`.

Where a derivative is not unique it is that of JAX: equal largest entries share it
(`max`, `min`, `maximum`, `minimum`, and so `clip` at a bound), `relu` has 0 at 0, and
`sort` gives it to the entry that came first. Only `abs` differs: it has 0 at 0, the
mean of both sides, where JAX has 1.

>>> from ffnlab.scratch import grad, ops
>>> grad(lambda x: ops.sum(ops.tanh(x), 0))(np.array([0.0, 1.0])).round(4)
array([1.  , 0.42])
"""

from ffnlab.scratch.ops.arrange import *  # noqa: F403
from ffnlab.scratch.ops.contractions import *  # noqa: F403
from ffnlab.scratch.ops.elementwise import *  # noqa: F403
from ffnlab.scratch.ops.products import *  # noqa: F403
from ffnlab.scratch.ops.reductions import *  # noqa: F403
from ffnlab.scratch.ops.shapes import *  # noqa: F403
