"""Tensors: arrays that record the operations they result from.

An operation is recorded if one of its inputs requires a gradient: its result refers to
the operation and to the inputs. There is no tape, and a graph lives as long as the
result it ends in.

>>> x = Tensor([1.0, 2.0], requires_grad=True)
>>> y = x * x
>>> y.node.op.name, y.node.inputs[0] is x
('multiply', True)
"""

import contextvars
import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

# Called after every operation, if not None: `observe(operation, arrays, result)`.
observer = contextvars.ContextVar("observer", default=None)

# glibc returns freed arrays to the system page by page, and getting the pages back
# costs more than computing on them, until a block as large as this was freed once.
np.ones(2**24, np.uint8)


class Node(NamedTuple):
    """A node of the graph: the operation a tensor results from, and its inputs.

    Attributes:
      op: The operation; None for a leaf.
      inputs: The inputs of the operation, tensors and plain numbers.
      options: The keyword arguments of the operation, such as an axis.
    """

    op: "Primitive | None" = None
    inputs: tuple[Any, ...] = ()
    options: dict[str, Any] = {}  # noqa: RUF012


def _refuse_data(x: "Tensor", value: Any) -> None:
    raise AttributeError(
        "the data of a tensor cannot be changed, since its gradient would be wrong: "
        "make a new one, Tensor(array, requires_grad=True)"
    )


class Tensor:
    """An n-dimensional NumPy array that is part of a graph.

    Operators broadcast as NumPy's do; a comparison returns a plain array of bools. Use
    the functions of `ops` instead of NumPy's.

    Args:
      data: Numbers, of any shape. They are copied, so that changing them later cannot
        falsify a gradient; the array of a tensor is read-only.
      requires_grad: Whether to compute derivatives with respect to it.
      name: Its name in a diagram.

    Attributes:
      data: The array.
      name: Its name in a diagram, empty if it has none; it may be set: `y.name = "y"`.
      node: The node of the graph, or None if the tensor requires no gradient.
      grad: The gradient that `backward` sets on a leaf, a tensor of the same shape.

    Raises:
      TypeError: The data are not numbers, or are integers and a gradient is required.

    >>> x = Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> (x * [1.0, 10.0]).sum().backward()
    >>> x.grad.data.tolist()
    [[1.0, 10.0], [1.0, 10.0]]
    """

    __slots__ = ("__weakref__", "_data", "grad", "name", "node")
    __hash__ = object.__hash__

    data = property(operator.attrgetter("_data"), _refuse_data, doc="The array.")
    shape = property(lambda self: self.data.shape, doc="The length of each axis.")
    dtype = property(lambda self: self.data.dtype, doc="The type of the entries.")
    ndim = property(lambda self: self.data.ndim, doc="The number of axes.")
    size = property(lambda self: self.data.size, doc="The number of entries.")

    def __init__(self, data: Any, *, requires_grad: bool = False, name: str = ""):
        self._data = np.array(array(data))
        self._data.flags.writeable = False
        if self.dtype.kind not in "biuf":
            raise TypeError(f"Tensor: expected numbers, found {self.dtype}")
        if requires_grad and self.dtype.kind != "f":
            raise TypeError(
                f"Tensor: {self.dtype} has no gradient, since only floating-point "
                "numbers can change a little; convert it by .astype(float)"
            )
        self.name = name
        self.node = Node() if requires_grad else None
        self.grad: Tensor | None = None

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(
            "a tensor does not support item assignment, since its gradient would be "
            "wrong: make a new one, for instance by ops.where(mask, value, x)"
        )

    @property
    def requires_grad(self) -> bool:
        """Whether derivatives are propagated to it or through it."""
        return self.node is not None

    def detach(self) -> "Tensor":
        """Returns a tensor of the same data that is not part of a graph."""
        return wrap(self._data)

    def __float__(self) -> float:
        return float(self.data)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __array__(self, *args: Any, **options: Any) -> np.ndarray:
        raise TypeError(
            "NumPy does not record the graph: use scratch.ops, such as ops.stack for "
            "a list of tensors, or .data"
        )

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        text = np.array2string(self.data, separator=", ", prefix="Tensor(")
        origin = f" by {self.node.op.name}" if self.node and self.node.op else ""
        return f"Tensor({text}{', requires_grad' * self.requires_grad}{origin})"


def array(value: Any) -> Any:
    """Returns the array of a tensor, and any other value unchanged."""
    return value.data if isinstance(value, Tensor) else value


def tensor(value: Any) -> Tensor:
    """Returns a tensor unchanged, and any other value as a tensor."""
    return value if isinstance(value, Tensor) else Tensor(value)


def as_floating(value: Any) -> Tensor:
    """Returns a floating-point tensor; integers become float64."""
    x = tensor(value)
    return x if x.dtype.kind == "f" else Tensor(x.data.astype(float))


def requires_gradient(value: Any) -> bool:
    """Returns whether a value is a tensor that requires a gradient."""
    return isinstance(value, Tensor) and value.node is not None


def wrap(data: Any) -> Tensor:
    """Returns a tensor over an array without a copy; the array becomes read-only."""
    x = Tensor.__new__(Tensor)
    x._data, x.name, x.node, x.grad = np.asarray(data), "", None, None
    x._data.flags.writeable = False
    return x


def _remedy(error: Exception) -> str:
    """Returns what to do about an error of NumPy in an operation, if it is known."""
    if "read-only" in str(error):
        return "; make a new array, as in y = x + 1, and do not change x, as in x += 1"
    return ""


def _option_names(rules: Sequence[Callable[..., Any] | None]) -> tuple[str, ...]:
    """Returns the names of the options of an operation, which its rules take last."""
    rule = next(filter(None, rules), None)
    parameters = inspect.signature(rule).parameters if rule else {}
    named = [name for name, each in parameters.items() if each.kind in _NAMED]
    return tuple(named[2 + len(rules) :])


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Primitive:
    """An operation on tensors: a function of arrays, and the rules of its gradients.

    Args:
      forward: `forward(*arrays, **options) -> array`.
      *rules: For each input `rule(g, y, *inputs, **options) -> gradient`, or None for
        an input without a gradient. g is the gradient with respect to the result y.
        All are tensors, and rules consist of operations, so that gradients can be
        differentiated. The caller sums a gradient over axes that were broadcast.
      joint: A single rule for all inputs instead, which returns a list of gradients.

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
        self.options = () if isinstance(forward, np.ufunc) else _option_names(rules)

    def __call__(self, *inputs: Any, name: str = "", **options: Any) -> Tensor:
        """Applies the operation, and records it if an input requires a gradient.

        Args:
          *inputs: Tensors, arrays and numbers. Options may follow them.
          name: The name of the result in a diagram.
          **options: Of the operation, such as an axis.
        """
        if self.options and len(inputs) > len(self.rules):
            inputs, options = self._name_options(inputs, options)
        # Python numbers stay as they are beside an array, so that they take its type.
        allowed = (Tensor, int, float) if len(inputs) > 1 else Tensor
        inputs = [x if isinstance(x, allowed) else Tensor(x) for x in inputs]
        arrays = [array(x) for x in inputs]
        try:
            data = self.forward(*arrays, **options)
        except (ValueError, IndexError) as error:
            kind = IndexError if isinstance(error, IndexError) else ValueError
            raise kind(f"{self.describe(arrays)}: {error}{_remedy(error)}") from None
        if observe := observer.get():
            observe(self, arrays, data)
        y = wrap(data)
        y.name = name
        if y.dtype.kind == "f" and any([requires_gradient(x) for x in inputs]):
            if not self.joint and len(self.rules) != len(inputs):
                counts = f"{len(self.rules)} rules for {len(inputs)} inputs"
                raise TypeError(
                    f"{self.name} has {counts}; give a rule, or None, for each"
                )
            y.node = Node(self, tuple(inputs), options)
        return y

    def _name_options(self, inputs: Sequence, options: dict) -> tuple[Sequence, dict]:
        """Returns the inputs without options that follow them, and all options."""
        count = len(self.rules)
        extra = inputs[count:]
        if len(extra) > len(self.options):
            allowed = f"{count} inputs and {', '.join(self.options)}"
            raise TypeError(f"{self.name} takes {allowed}, found {len(inputs)} values")
        named = dict(zip(self.options, extra, strict=False))
        for name in named.keys() & options:
            raise TypeError(f"{self.name} has two values for {name}")
        return inputs[:count], options | named

    def gradients(
        self, g: Tensor, y: Tensor, inputs: Sequence, options: dict, needed: Sequence
    ) -> Sequence[Any]:
        """Returns a gradient for each input, or None for those that need none."""
        if self.joint:
            return self.joint(g, y, *inputs, **options)
        return [
            rule(g, y, *inputs, **options) if need and rule else None
            for rule, need in zip(self.rules, needed, strict=True)
        ]

    def describe(self, arrays: Sequence[Any]) -> str:
        """Returns the name of the operation and the shapes of its inputs."""
        shapes = " and ".join(str(np.shape(x)) for x in arrays)
        return f"{self.name} of shape{'s' * (len(arrays) > 1)} {shapes}"
