"""Blocks of a user's own: checked without computing anything, and added to `BLOCKS`."""

import keyword
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ffnlab.errors import InputError, choose
from ffnlab.nn import activations, ffn, jaxprs
from ffnlab.nn.block_parameters import BlockParameter, as_parameter
from ffnlab.nn.ffn import Block
from ffnlab.types import Array

_FEATURES, _HIDDEN = 3, 5  # widths at which a block is checked
_SHAPES = ((2, 7, _FEATURES), (7, _FEATURES), (_FEATURES,))
_RESERVED = {
    *("x", "down", "activation", "between"),  # arguments of an equation
    *("config", "norm", "norm_out", "beta", "adapter", "stats"),  # of the module
}


def register(
    name: str,
    equation: Callable[..., tuple[Array, dict[str, Array]]],
    inputs: Iterable[str] = ("up",),
    parameters: Mapping[str, Any] | None = None,
    *,
    activation: str | Callable[[Array], Array] = "relu",
    fixed: bool = True,
    replace: bool = False,
) -> Block:
    """Adds a block to `BLOCKS`, after a check that nothing of it is without effect.

    The block is then known wherever a block has a name: to `BlockConfig`, to `match`,
    to towers and Transformers, and to comparisons.

    Args:
      name: Name of the block: letters, digits and `_`.
      equation: `equation(x, *inputs, down, *, activation, between, **parameters)`,
        which returns `(y, {"hidden": hidden})`; `x` and `y` are `[..., D]`. Projections
        are called by `ffnlab.nn.dense(x, gate)`, from D to H units, `down` from H to D.
        `hidden` `[..., H]` is what `down` is called with: the hidden units after
        `between(hidden)`, which is dropout and the norm `hidden`.
      inputs: Names of the projections from D to H, in the order of the arguments.
      parameters: Further learnable parameters by name. A number or an array is the
        initial value; `"H"` is one number for each hidden unit, `"D"` for each feature,
        and a tuple of sizes a shape, all 1 at first; a `BlockParameter(shape, value)`
        is both. A matrix that is multiplied has a name that ends in `kernel`: it starts
        like a projection, decays, and counts as operations.
      activation: A key of `ACTIVATIONS`, or a function `[..., H] -> [..., H]`, which
        need not be elementwise.
      fixed: Whether the block always has that activation. Otherwise `name:gelu` is the
        block with another one.
      replace: Whether a block of this name may be replaced. Configurations that were
        made before keep theirs.

    Returns:
      The row of `BLOCKS`.

    Raises:
      InputError: The name is known, an argument is malformed, or the equation fails,
        returns something else, or leaves a projection, a parameter, x or `between`
        without effect.

    >>> from ffnlab.nn import BlockConfig, dense
    >>> def gated_sq(x, gate, up, down, *, alpha, activation, between):
    ...     squares = jnp.square(activation(dense(x, gate)))
    ...     hidden = between(alpha * squares * dense(x, up))
    ...     return dense(hidden, down), {"hidden": hidden}
    >>> block = register("gated_sq", gated_sq, ("gate", "up"), {"alpha": 0.5})
    >>> BlockConfig("gated_sq", 4, 6, norm="none").parameters
    89
    >>> del ffn.BLOCKS["gated_sq"]
    """
    check_name("a block", name, ffn.BLOCKS, replace)
    inputs = _checked_inputs(inputs)
    specs = _checked_parameters(parameters or {}, inputs)
    if not callable(equation):
        raise InputError(f"equation: {equation!r} should be a function")
    row = Block(equation, inputs, *_checked_activation(activation, fixed, specs))
    _check(name, row)
    ffn.BLOCKS[name] = row
    return row


def check_name(kind: str, name: str, table: Mapping[str, Any], replace: bool) -> None:
    """Raises if a name cannot be that of a new row of a table.

    Args:
      kind: What the rows are, with an article, for errors.
      name: The name.
      table: The table.
      replace: Whether a row of this name may be replaced.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        raise InputError(
            f"name: {name!r} should be letters, digits and _, after a first letter"
        )
    if name in table and not replace:
        raise InputError(
            f"name: there is {kind} {name!r}; give another name, or replace=True"
        )


def _checked_inputs(inputs: Iterable[str]) -> tuple[str, ...]:
    """Returns the names of the projections."""
    if isinstance(inputs, str) or not isinstance(inputs, Iterable):
        raise InputError(
            f'inputs: {inputs!r} should be a tuple, such as ("gate", "up")'
        )
    inputs = tuple(inputs)
    if not inputs:
        raise InputError('inputs: at least one is needed, such as ("up",)')
    for each in inputs:
        _check_part("inputs", each)
    if len(set(inputs)) < len(inputs):
        raise InputError(f"inputs: {', '.join(inputs)} has a name twice")
    return inputs


def _checked_parameters(
    parameters: Mapping[str, Any], inputs: tuple[str, ...]
) -> tuple[tuple[str, BlockParameter], ...]:
    """Returns the parameters with their names."""
    if not isinstance(parameters, Mapping):
        raise InputError(
            f'parameters: {parameters!r} should be a dict, such as {{"alpha": 0.5}}'
        )
    for each in parameters:
        _check_part("parameters", each)
        if each in inputs:
            raise InputError(f"parameters: {each!r} is the name of a projection too")
    return tuple((each, as_parameter(each, spec)) for each, spec in parameters.items())


def _checked_activation(
    activation: Any, fixed: bool, parameters: tuple
) -> tuple[str, bool, tuple, Callable[[Array], Array] | None]:
    """Returns the last fields of a row: the activation's name, and so on."""
    if isinstance(activation, str):
        choose("activation", activation, activations.ACTIVATIONS)
        return activation, fixed, parameters, None
    if not callable(activation):
        raise InputError(
            f"activation: {activation!r} should be the name of an activation, or a "
            "function"
        )
    name = getattr(activation, "__name__", "")
    return (name if name.isidentifier() else "own"), fixed, parameters, activation


def _check_part(what: str, name: Any) -> None:
    """Raises if a name cannot be that of a projection or a parameter."""
    valid = (
        isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name)
    )
    if not valid or name.startswith("_"):
        raise InputError(f"{what}: {name!r} should be a name that an argument can have")
    if name in _RESERVED:
        raise InputError(f"{what}: {name!r} has a meaning already; give another name")


class _Trace(NamedTuple):
    """What an equation did when it was traced.

    Attributes:
      jaxpr: The operations.
      leaves: The names of the inputs of the jaxpr; `between` is a factor that stands
        for what happens there.
      outputs: The shapes and dtypes of y and the hidden units.
      dense: The projections that were called by `dense`.
      between: The shapes that `between` was called with.
    """

    jaxpr: Any
    leaves: list[str]
    outputs: tuple[Any, Any]
    dense: set[str]
    between: list[tuple[int, ...]]


@jax.tree_util.register_static
class _Spy:
    """An adapter that changes nothing, and notes that a projection was called."""

    def __init__(self, name: str, called: set[str]):
        self.name, self.called = name, called

    def __call__(self, call: Callable, x: Array, weights: Any) -> Array:
        self.called.add(self.name)
        return call(x)


def _check(name: str, row: Block) -> None:
    """Raises if a block is not what `register` asks for."""
    form = _form(name, row)
    for shape in _SHAPES:
        for dtype in (jnp.float32, jnp.bfloat16):
            _check_outputs(_trace(name, row, shape, dtype, True), shape, dtype, form)
    _trace(name, row, _SHAPES[1], jnp.float32, bias=False)
    trace = _trace(name, row, _SHAPES[1], jnp.float32, bias=True)
    _check_between(trace, form)
    _check_use(name, row, trace, form)
    _check_products(name, row, trace)


def _form(name: str, row: Block) -> str:
    """Returns the sentence that says what an equation gets and returns."""
    named = [each for each, _ in row.parameters] + ["activation", "between"]
    arguments = ["x", *row.inputs, "down", *(f"{each}=..." for each in named)]
    return (
        f"it is called as {name}({', '.join(arguments)}) and should return "
        '(y [..., D], {"hidden": [..., H]})'
    )


def _trace(
    name: str, row: Block, shape: tuple[int, ...], dtype: Any, bias: bool
) -> _Trace:
    """Traces an equation with abstract arrays.

    Raises:
      InputError: It fails, or does not return a pair of an array and a dict.
    """
    form, dense, shapes = _form(name, row), set(), []
    arrays = jax.tree.map(
        lambda size: jax.ShapeDtypeStruct(size, dtype),
        _arrays(row, shape, bias),
        is_leaf=lambda node: isinstance(node, tuple),
    )

    def run(arrays: dict[str, Any]) -> tuple[Array, Array]:
        def with_spy(each: str) -> dict[str, Any]:
            return {**arrays[each], "adapters": (_Spy(each, dense),), "key": None}

        def between(hidden: Array) -> Array:
            shapes.append(jnp.shape(hidden))
            return hidden * arrays["between"]

        returned = row.equation(
            arrays["x"],
            *map(with_spy, (*row.inputs, "down")),
            **{each: arrays[each] for each, _ in row.parameters},
            activation=row.function or activations.get(row.activation).function,
            between=between,
        )
        return _unpack(returned, form)

    try:
        with jax.numpy_rank_promotion("allow"):
            jaxpr, outputs = jax.make_jaxpr(run, return_shape=True)(arrays)
    except InputError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        what = f"{type(error).__name__}: {text[:200]}".removesuffix(": ")
        where = "" if bias else " with bias=False"
        raise InputError(f"equation: {name} fails{where}: {what}; {form}") from error
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(arrays)]
    leaves = [jax.tree_util.keystr(p, simple=True, separator="/") for p in paths]
    return _Trace(jaxpr, leaves, outputs, dense, shapes)


def _arrays(row: Block, shape: tuple[int, ...], bias: bool) -> dict[str, Any]:
    """Returns the shapes of all arrays of a block."""
    arrays: dict[str, Any] = {"x": shape, "between": ()}
    for each in (*row.inputs, "down"):
        size = (_HIDDEN, _FEATURES) if each == "down" else (_FEATURES, _HIDDEN)
        arrays[each] = {"kernel": size} | ({"bias": size[1:]} if bias else {})
    for each, parameter in row.parameters:
        arrays[each] = parameter.sizes(_FEATURES, _HIDDEN)
    return arrays


def _unpack(returned: Any, form: str) -> tuple[Array, Array]:
    """Returns y and the hidden units that an equation returned."""
    pair = isinstance(returned, tuple) and len(returned) == 2
    if not pair or not isinstance(returned[1], dict) or "hidden" not in returned[1]:
        got = _kind(returned)
        if isinstance(returned, tuple):
            got = f"({', '.join(map(_kind, returned))})"
        raise InputError(f"equation: returns {got}; {form}")
    return returned[0], returned[1]["hidden"]


def _kind(value: Any) -> str:
    """Returns what a value is, for a message."""
    if isinstance(value, dict):
        return f"a dict with {', '.join(map(repr, value)) or 'nothing'}"
    return "an array" if isinstance(value, jax.Array) else type(value).__name__


def _check_outputs(
    trace: _Trace, shape: tuple[int, ...], dtype: Any, form: str
) -> None:
    """Raises if y or the hidden units have a wrong shape or dtype."""
    widths = {"D": _FEATURES, "H": _HIDDEN}
    for what, letter, output in zip(("y", "hidden"), "DH", trace.outputs, strict=True):
        if output.shape != (*shape[:-1], widths[letter]):
            raise InputError(
                f"equation: {what} has the shape {[*output.shape]} for x {[*shape]}, "
                f"where D is {_FEATURES} and H is {_HIDDEN}; {form}"
            )
        if output.dtype != dtype:
            raise InputError(
                f"equation: {what} is {output.dtype} where all arrays are "
                f"{jnp.dtype(dtype)}; give constants no dtype, or that of x"
            )


def _check_between(trace: _Trace, form: str) -> None:
    """Raises if `between` is not applied to the hidden units."""
    effect = (
        "dropout and norm=hidden would do nothing; call down with "
        "hidden = between(hidden), and return that"
    )
    if not trace.between:
        raise InputError(f"equation: between is not called, so {effect}; {form}")
    if trace.between[0][-1:] != (_HIDDEN,):
        raise InputError(
            f"equation: between is called with the shape {[*trace.between[0]]}, not "
            f"with hidden units [..., H], where H is {_HIDDEN}; {form}"
        )
    for output, what in enumerate(("y", "hidden")):
        if "between" not in _used(trace, [output]):
            raise InputError(
                f"equation: {what} does not depend on what between returns, so "
                f"{effect}; {form}"
            )


def _check_use(name: str, row: Block, trace: _Trace, form: str) -> None:
    """Raises if an array has no effect on y, or a projection is not called by dense."""
    used = _used(trace, [0])
    if "x" not in used:
        raise InputError(f"equation: y does not depend on x; {form}")
    unused = [leaf for leaf in trace.leaves if leaf not in used]
    if unused:
        calls = dict.fromkeys(_use_of(leaf, row) for leaf in unused)
        wasted = sum(
            int(np.prod(var.aval.shape))
            for leaf, var in zip(trace.leaves, trace.jaxpr.jaxpr.invars, strict=True)
            if leaf in unused
        )
        raise InputError(
            f"equation: y does not depend on {', '.join(unused)}: {wasted} parameters "
            f"of a block with D={_FEATURES} and H={_HIDDEN} that match would count; "
            f"use {', '.join(calls)}, or leave it out of inputs and parameters"
        )
    for each in (*row.inputs, "down"):
        if each not in trace.dense:
            raise InputError(
                f"equation: {name} uses the arrays of {each} itself, so adapters would "
                f"do nothing; call ffnlab.nn.dense(x, {each})"
            )


def _use_of(leaf: str, row: Block) -> str:
    """Returns how an equation uses the part that a leaf belongs to."""
    name = leaf.partition("/")[0]
    if name == "down":
        return "dense(hidden, down)"
    return f"dense(x, {name})" if name in row.inputs else name


def _used(trace: _Trace, outputs: list[int]) -> set[str]:
    """Returns the names of the inputs that some outputs depend on."""
    used = jaxprs.used_inputs(trace.jaxpr.jaxpr, outputs)
    return {leaf for leaf, use in zip(trace.leaves, used, strict=True) if use}


def _check_products(name: str, row: Block, trace: _Trace) -> None:
    """Raises if the operations of the products are not those that match counts."""
    rows = int(np.prod(_SHAPES[1][:-1]))
    counted = jaxprs.product_flops(trace.jaxpr.jaxpr) / rows
    assumed = row.flops(_FEATURES, _HIDDEN)
    if counted != assumed:
        raise InputError(
            f"equation: the products of {name} take {counted:g} operations for a row "
            f"of x with D={_FEATURES} and H={_HIDDEN}, where match would count "
            f"{assumed}; use each projection once, and give a matrix parameter that is "
            "multiplied a name that ends in kernel"
        )
