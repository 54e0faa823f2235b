"""A tensor: an array of numbers with a place in a graph.

What is computed from a tensor that requires a gradient is recorded: every result
remembers the operation that made it, and from what. Nothing else is recorded. There is
no tape, and a graph lives as long as the result it ends in.

>>> x = Tensor([1.0, 2.0], requires_grad=True)
>>> y = x * x
>>> y.node.op.name, y.node.inputs[0] is x
('multiply', True)
"""

import contextvars
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

# What looks at every operation, if anything: `look(operation, arrays, result)`.
looking = contextvars.ContextVar("looking", default=None)

# glibc gives freed arrays back to the system page by page, and fetching those again
# costs more than computing on them, until a block as large as this was freed once.
np.ones(2**24, np.uint8)


class Node(NamedTuple):
    """How a tensor was made: a node of the graph, with its edges to the inputs.

    Attributes:
      op: the operation; None for a leaf, which was given and not made.
      inputs: what it was made from: tensors, and plain numbers.
      options: what else the operation was told, such as an axis.
    """

    op: "Primitive | None" = None
    inputs: tuple[Any, ...] = ()
    options: dict[str, Any] = {}  # noqa: RUF012


class Tensor:
    """An n-dimensional array over NumPy, with a place in a graph.

    Operators broadcast as NumPy's do; a comparison gives a plain array of bools. Of
    NumPy's functions, take those in `ops`.

    Args:
      data: numbers, of any shape. They are copied, so that no later change of theirs
        can falsify a gradient; the array of a tensor cannot be written to.
      requires_grad: whether derivatives with respect to it will be asked for.

    Attributes:
      data: the array.
      node: how it was made, if a gradient flows through it, otherwise None.
      grad: of a leaf, what `backward` found: a tensor of its shape.

    Raises:
      TypeError: it holds no numbers, or holds integers and requires a gradient.

    >>> x = Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> (x * [1.0, 10.0]).sum().backward()
    >>> x.grad.data.tolist()
    [[1.0, 10.0], [1.0, 10.0]]
    """

    __slots__ = ("__weakref__", "_data", "grad", "node")
    __array_ufunc__ = None  # so that array * tensor asks the tensor
    __hash__ = object.__hash__

    data = property(operator.attrgetter("_data"), doc="The array.")
    shape = property(lambda self: self.data.shape, doc="The length of each axis.")
    dtype = property(lambda self: self.data.dtype, doc="The type of the entries.")
    ndim = property(lambda self: self.data.ndim, doc="The number of axes.")
    size = property(lambda self: self.data.size, doc="The number of entries.")

    def __init__(self, data: Any, *, requires_grad: bool = False):
        self._data = np.array(array(data))
        self._data.flags.writeable = False
        if self.dtype.kind not in "biuf":
            raise TypeError(f"Tensor: expected numbers, found {self.dtype}")
        if requires_grad and self.dtype.kind != "f":
            raise TypeError(
                f"Tensor: {self.dtype} has no gradient, since only floating-point "
                "numbers can change a little; convert it by .astype(float)"
            )
        self.node = Node() if requires_grad else None
        self.grad: Tensor | None = None

    @property
    def requires_grad(self) -> bool:
        """Whether a gradient flows to it or through it."""
        return self.node is not None

    def detach(self) -> "Tensor":
        """Returns the same numbers without their history."""
        made = Tensor.__new__(Tensor)
        made._data, made.node, made.grad = self._data, None, None
        return made

    def __float__(self) -> float:
        return float(self.data)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __array__(self, *args: Any, **options: Any) -> np.ndarray:
        raise TypeError("NumPy would forget the graph: use scratch.ops, or .data")

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        text = np.array2string(self.data, separator=", ", prefix="Tensor(")
        made = f" by {self.node.op.name}" if self.node and self.node.op else ""
        return f"Tensor({text}{', requires_grad' * self.requires_grad}{made})"


def array(value: Any) -> Any:
    """Returns the array of a tensor, and anything else as it is."""
    return value.data if isinstance(value, Tensor) else value


def tensor(value: Any) -> Tensor:
    """Returns a tensor as it is, and anything else as a tensor."""
    return value if isinstance(value, Tensor) else Tensor(value)


def floating(value: Any) -> Tensor:
    """Returns a tensor of floating-point numbers, of value's type if that is one."""
    found = tensor(value)
    return found if found.dtype.kind == "f" else Tensor(found.data.astype(float))


def followed(value: Any) -> bool:
    """Returns whether a gradient flows to or through a value."""
    return isinstance(value, Tensor) and value.node is not None


def wrap(data: Any) -> Tensor:
    """Returns a tensor over an array that nobody else writes to, without a copy."""
    made = Tensor.__new__(Tensor)
    made._data, made.node, made.grad = np.asarray(data), None, None
    made._data.flags.writeable = False
    return made


class Primitive:
    """An operation on tensors: what it does to arrays, and the rule of its gradient.

    Args:
      forward: `forward(*arrays, **options) -> array`.
      *rules: for each input `rule(g, y, *inputs, **options) -> gradient` or None, g
        being the gradient of the result y. All are tensors, and a rule is made of
        operations itself, so that gradients have gradients. It may leave axes that
        were broadcast as they are: its caller sums over them.
      joint: one rule for all inputs instead, which returns a gradient for each.

    >>> cube = Primitive(lambda x: x * x * x, lambda g, y, x: g * 3.0 * x * x)
    >>> x = Tensor(2.0, requires_grad=True)
    >>> cube(x).backward()
    >>> float(x.grad)
    12.0
    """

    def __init__(
        self,
        forward: Callable[..., np.ndarray],
        *rules: Callable[..., Any] | None,
        joint: Callable[..., Sequence[Any]] | None = None,
    ):
        self.name = forward.__name__.strip("_")
        self.__name__ = self.name
        own = forward.__doc__ if forward.__name__ != self.name else None
        self.__doc__ = own or f"As `numpy.{self.name}`, without its `out` and `where`."
        self.forward, self.rules, self.joint = forward, rules, joint

    def __call__(self, *inputs: Any, **options: Any) -> Tensor:
        """Applies the operation, and records it if an input requires a gradient."""
        # Beside an array, a number of Python stays one, and takes the array's type.
        kept = (Tensor, int, float) if len(inputs) > 1 else Tensor
        inputs = [x if isinstance(x, kept) else Tensor(x) for x in inputs]
        arrays = [array(x) for x in inputs]
        try:
            data = self.forward(*arrays, **options)
        except (ValueError, IndexError) as error:
            kind = IndexError if isinstance(error, IndexError) else ValueError
            raise kind(f"{self.of(arrays)}: {error}") from None
        if look := looking.get():
            look(self, arrays, data)
        made = wrap(data)
        if made.dtype.kind == "f" and any([followed(x) for x in inputs]):
            if not self.joint and len(self.rules) != len(inputs):
                found = f"{len(self.rules)} rules for {len(inputs)} inputs"
                raise TypeError(
                    f"{self.name} has {found}; give a rule, or None, for each"
                )
            made.node = Node(self, tuple(inputs), options)
        return made

    def gradients(
        self, g: Tensor, y: Tensor, inputs: Sequence, options: dict, wanted: Sequence
    ) -> Sequence[Any]:
        """Returns the gradient of each input that is wanted."""
        if self.joint:
            return self.joint(g, y, *inputs, **options)
        return [
            rule(g, y, *inputs, **options) if asked and rule else None
            for rule, asked in zip(self.rules, wanted, strict=True)
        ]

    def of(self, arrays: Sequence[Any]) -> str:
        """Returns its name and the shapes of its inputs."""
        shapes = " and ".join(str(np.shape(x)) for x in arrays)
        return f"{self.name} of shape{'s' * (len(arrays) > 1)} {shapes}"
