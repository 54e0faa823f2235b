"""What the machine can do: its rates of products and of memory, and its page faults."""

import functools
import mmap
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import anatomy_trace
from benchmarks.anatomy_hlo import Dimensions, Instruction, Module, Shape, parse
from benchmarks.anatomy_kinds import leaves
from ffnlab.nn.attention_kernel import uses_gpu

DTYPES = {
    "f64": jnp.float64, "f32": jnp.float32, "bf16": jnp.bfloat16, "f16": jnp.float16,
    "s32": jnp.int32, "s8": jnp.int8,
}  # fmt: skip
_ENOUGH = 0.03  # seconds of a measurement
_REPEATS = 3
# Values of float32, which fit into no cache of a CPU, and of a GPU.
_COPIED, _COPIED_BY_GPU = 1 << 25, 1 << 28
_TOUCHED = 1 << 26  # bytes
_TURNS = 20  # of a loop that is profiled


class Product(NamedTuple):
    """A matrix product.

    Attributes:
      left, right: The shapes of its operands.
      result: The dtype of its result, as XLA names it.
      dimensions: As `jax.lax.dot_general` takes them.
    """

    left: Shape
    right: Shape
    result: str
    dimensions: Dimensions


class Limits(NamedTuple):
    """The rates of a machine.

    Attributes:
      flops: Operations per second of the fastest of the step's products.
      bandwidth: Bytes per second that are read and written from and to memory.
      fault: Seconds of a page fault, or 0.0 where none was seen.
    """

    flops: float
    bandwidth: float
    fault: float


def product_of(module: Module, product: Instruction) -> Product:
    """Returns what a matrix product multiplies."""
    left, right, *_ = module.operand_shapes(product)
    return Product(left, right, product.shapes[0].dtype, product.dimensions)


def seconds_of(product: Product) -> float:
    """Returns the time of a matrix product alone, the best of a few.

    On a GPU it is that of its kernels, since a turn of a loop takes longer than many of
    them.
    """
    rng = np.random.default_rng(0)
    left, right = (
        jnp.asarray(rng.standard_normal(side.sizes), DTYPES[side.dtype])
        for side in product[:2]
    )
    repeat = jax.jit(repeating(product))
    if uses_gpu():
        return _kernel_seconds(repeat, left, right)
    return _best(lambda count: repeat(left, right, count))


def _kernel_seconds(repeat: Any, left: Any, right: Any) -> float:
    """Returns the median time of the kernels of one turn of a loop that multiplies."""
    lowered = repeat.lower(left, right, _TURNS)
    compiled = anatomy_trace.compile_for_profile(lowered)
    module = parse(compiled.as_text())

    def run() -> None:
        jax.block_until_ready(compiled(left, right, _TURNS))

    run()
    with tempfile.TemporaryDirectory() as folder:
        trace = anatomy_trace.profile(run, _REPEATS, Path(folder), module.name)
    names = leaves(module, (event.name for event in trace.events))
    products = {
        name: module.products(module.instructions[name])
        for name in names & module.instructions.keys()
    }
    return sum(
        float(np.median([e.stop - e.start for e in trace.events if e.name == name]))
        for name, found in products.items()
        if found
    )


def repeating(product: Product) -> Callable[[Any, Any, int], Any]:
    """Returns a function of two operands, and of how often to multiply them.

    A value of the left one depends on the last result, so that the compiler can neither
    leave the product out nor take it out of the loop.
    """

    def multiply(left: Any, right: Any) -> Any:
        dtype = DTYPES[product.result]
        return jax.lax.dot_general(
            left, right, product.dimensions, preferred_element_type=dtype
        )

    def repeat(left: Any, right: Any, count: int) -> Any:
        def again(_: int, carry: Any) -> Any:
            left, out = carry
            value = (1e-30 * out.ravel()[0]).astype(left.dtype)
            left = left.at[(0,) * left.ndim].set(value)
            return left, multiply(left, right)

        shape = jax.eval_shape(multiply, left, right)
        start = left, jnp.zeros(shape.shape, shape.dtype)
        return jax.lax.fori_loop(0, count, again, start)

    return repeat


def bandwidth() -> float:
    """Returns the bytes per second of a jitted loop that reads and writes an array."""

    @functools.partial(jax.jit, donate_argnums=0)
    def add(x: Any, count: int) -> Any:
        return jax.lax.fori_loop(0, count, lambda _, x: x + 1.0, x)

    x = jnp.zeros(_COPIED_BY_GPU if uses_gpu() else _COPIED)

    def run(count: int) -> Any:
        nonlocal x
        x = add(x, count)  # in place, without new memory
        return x

    return 2 * x.nbytes / _best(run)


def _best(run: Callable[[int], Any]) -> float:
    """Returns the time of one turn of a loop, the best of a few."""
    _time(run, 1)  # compiles
    first = max(_time(run, 2) / 2, 1e-7)
    count = int(np.clip(_ENOUGH / first, 4, 10_000))
    return min(_time(run, count) for _ in range(_REPEATS)) / count


def _time(run: Callable[[int], Any], count: int) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run(count))
    return time.perf_counter() - start


def faults() -> int:
    """Returns the page faults of this process so far that no disk had to serve."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def fault_seconds() -> float:
    """Returns the time of a page fault, the best of a few.

    It is the time to write to new memory, without that to write to it again.
    """
    return min(_fault_seconds() for _ in range(_REPEATS))


def _fault_seconds() -> float:
    with mmap.mmap(-1, _TOUCHED) as memory:
        pages = np.frombuffer(memory, np.uint8)[:: mmap.PAGESIZE]
        before, times = faults(), []
        for _ in range(2):
            start = time.perf_counter()
            pages[:] = 1
            times.append(time.perf_counter() - start)
        count = faults() - before
        del pages  # or the memory cannot be closed
    return max(times[0] - times[1], 0.0) / count if count else 0.0


def measure(products: Mapping[Product, int]) -> tuple[Limits, dict[Product, float]]:
    """Returns the limits, and the time of each product alone.

    Args:
      products: Those of the step, with the operations of each.
    """
    times = {product: seconds_of(product) for product in products}
    best = max((products[each] / times[each] for each in products), default=0.0)
    return Limits(best, bandwidth(), fault_seconds()), times
