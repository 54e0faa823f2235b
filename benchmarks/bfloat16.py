"""How fast are linear layers and attention in bfloat16 on a CPU, with their gradients?

Each row takes steps of gradient descent on the input, the kernel and the bias of one
layer: by `ffnlab.nn.bfloat16_linear`, by XLA as `x @ kernel + bias` in bfloat16 and in
float32, and by torch in bfloat16 if it is installed. Attention without a mask is
measured likewise, on queries, keys and values: by `ffnlab.nn.bfloat16_attention`, and
as what XLA and torch call scaled dot-product attention. Values and gradients are
checked to be equal to the bits of bfloat16. Models take the first way by themselves on
a CPU with AMX; elsewhere the benchmark still runs, and shows what it would do.

    python -m benchmarks.bfloat16
    python -m benchmarks.bfloat16 --shapes=462x384x1536 --rounds=9
    python -m benchmarks.bfloat16 --shapes=64x64x64 --attention=2x16x2x16 --rounds=1
"""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import protocol
from benchmarks.protocol import Entry, Work
from experiments import launch
from ffnlab import options
from ffnlab.errors import InputError
from ffnlab.nn import bfloat16_attention, bfloat16_linear
from ffnlab.options import option
from ffnlab.report.table import Table
from ffnlab.types import Array

RATE = 1e-6
EQUAL = 2**-6  # times the largest value of an array
TARGET = 0.6
SHAPES = (
    "64x64x64", "256x64x128", "128x256x256", "462x384x384", "462x384x1536",
    "462x1536x384", "1024x1024x1024",
)  # fmt: skip
ATTENTION = ("8x32x8x32", "7x66x12x32", "3x128x12x32", "4x64x12x64", "2x256x12x64")


@dataclasses.dataclass(frozen=True)
class Config(protocol.Config):
    """What to measure; each field is a flag."""

    shapes: tuple[str, ...] = option(
        SHAPES, "Layers: rows, inputs and outputs, as in 462x384x1536."
    )
    attention: tuple[str, ...] = option(
        ATTENTION,
        "Attention: sequences, tokens, heads and width of a head, as in 7x66x12x32.",
    )
    steps: int = option(20, "Steps of a call.", least=1)

    def __post_init__(self):
        options.check(self)
        for shape in self.shapes:
            if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){2}", shape):
                raise InputError(f"shapes: {shape!r} is not of the form ROWSxINxOUT")
        for shape in self.attention:
            if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){3}", shape):
                raise InputError(
                    f"attention: {shape!r} is not of the form "
                    "SEQUENCESxTOKENSxHEADSxWIDTH"
                )


def run(config: Config) -> list[Table]:
    """Prints and returns a table for each shape."""
    protocol.use_cpu()
    protocol.describe()
    units = bfloat16_linear.has_matrix_units()
    print(f"units for products of bfloat16 matrices: {'yes' if units else 'no'}")
    tables = []
    for shape in config.shapes + config.attention:
        entries = make_entries(shape, config.steps)
        what = "attention" if shape in config.attention else "a layer"
        title = f"{what} of {shape} with its gradients"
        tables.append(protocol.compare(title, "ms", entries, config))
    return tables


def make_entries(shape: str, steps: int) -> list[Entry]:
    """Returns the rows of a shape, checked to compute the same.

    Args:
      shape: Three sizes of a layer, or four of attention.
      steps: Steps of a call.
    """
    sizes = [*map(int, shape.split("x"))]
    if len(sizes) == 3:
        rows, inputs, outputs = sizes
        ours, plain = bfloat16_linear.linear, xla_layer
        shapes = ((rows, inputs), (inputs, outputs), (outputs,))
    else:
        ours, plain = attention, jax.nn.dot_product_attention
        shapes = (tuple(sizes),) * 3
    rng = np.random.default_rng(0)
    arrays = tuple(jnp.asarray(rng.normal(size=each), jnp.bfloat16) for each in shapes)
    wide = tuple(each.astype(jnp.float32) for each in arrays)
    for name, other in (("bfloat16", plain(*arrays)), ("float32", plain(*wide))):
        _check(f"XLA, {name}", ours(*arrays), other)
    expected = gradients(plain, *wide)
    for mine, other in zip(gradients(ours, *arrays), expected, strict=True):
        _check("gradients", mine, other)

    def entry(name: str, setting: str, layer: Any, start: Any, **options: Any) -> Entry:
        return Entry(name, setting, make_work(layer, start, steps), steps, **options)

    entries = [
        entry("ffnlab", "bfloat16", ours, arrays),
        entry("XLA", "bfloat16", plain, arrays, target=TARGET, peer=False),
        entry("XLA, float32", "float32", plain, wide, peer=False),
    ]
    if protocol.has("torch"):
        from benchmarks import bfloat16_peers

        copies = [np.array(each) for each in wide]
        for threads in sorted({1, protocol.cores()}):
            layer = bfloat16_peers.LAYERS[len(sizes)]
            work = bfloat16_peers.make_work(layer, copies, steps, RATE, threads)
            entries.append(Entry("torch", f"bfloat16, {threads} threads", work, steps))
    return entries


def xla_layer(x: Array, kernel: Array, bias: Array) -> Array:
    """Returns `x @ kernel + bias` by XLA."""
    return x @ kernel + bias[None]


def attention(query: Array, key: Array, value: Array) -> Array:
    """Returns attention `[B, T, N, h]` as models with such units compute it."""
    scores = bfloat16_attention.scores(query, key) / math.sqrt(query.shape[-1])
    weights = jax.nn.softmax(scores).astype(value.dtype)
    return bfloat16_attention.weighted_sum(weights, value)


def gradients(layer: Callable[..., Array], *arrays: Array) -> tuple[Array, ...]:
    """Returns the gradients of half the sum of squares of a layer."""

    def loss(*arrays: Array) -> Array:
        return 0.5 * jnp.sum(jnp.square(layer(*arrays).astype(jnp.float32)))

    return jax.grad(loss, argnums=(0, 1, 2))(*arrays)


def make_work(layer: Callable[..., Array], arrays: tuple, steps: int) -> Work:
    """Returns steps of gradient descent on the arrays of a layer, as one scan."""

    def step(arrays: tuple, _: None) -> tuple[tuple, None]:
        slopes = gradients(layer, *arrays)
        pairs = zip(arrays, slopes, strict=True)
        return tuple(array - RATE * slope for array, slope in pairs), None

    descend = jax.jit(lambda start: jax.lax.scan(step, start, length=steps)[0])
    jax.block_until_ready(descend(arrays))  # compiles
    return Work(lambda _: jax.block_until_ready(descend(arrays)))


def _check(name: str, ours: Array, theirs: Array) -> None:
    ours, theirs = (np.asarray(each, np.float32) for each in (ours, theirs))
    bound = EQUAL * float(np.abs(theirs).max())
    protocol.check_equal(name, ours, theirs, rtol=0, atol=bound)


if __name__ == "__main__":
    launch.main(Config, run, __doc__)
