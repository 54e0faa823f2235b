"""How much time and memory does a feed-forward block take?

Prints tables for one block of width 384 with 1536 hidden units, in float32:

- Time per step (forward, backward to the weights and to x, gradient descent) on 4096
  tokens, for ffnlab, the same equation in plain JAX, and torch with and without
  `torch.compile`. The matrix products of the step alone are the limit. All rows are
  checked to have equal parameters after 3 steps.
- The same for the block as it is trained: a call scans several steps, as
  `ffnlab.train.fit` does, so that they share their temporary memory. torch.compile
  still takes one step per call, since that is how it trains.
- Arrays that the forward pass keeps for the backward pass, in units of `[tokens, h]`.
- Temporary memory of 6 layers, scanned and unrolled, in the same unit.
- Time of a dropout mask of the hidden units against `jax.random.bernoulli`. Every bit
  of the two masks is equal.

    python -m benchmarks.ffn
    python -m benchmarks.ffn --rounds=1    (a smoke run)
"""

import contextlib
import functools
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import print_saved_residuals

from benchmarks import protocol
from benchmarks.protocol import Config, Entry, Work
from experiments import launch
from ffnlab import trees
from ffnlab.nn import pure
from ffnlab.nn.dropout import keep_mask
from ffnlab.nn.ffn import BlockConfig, FeedForward
from ffnlab.nn.precision import cast
from ffnlab.report.table import Table
from ffnlab.types import Array, Model, Params

WIDTH, HIDDEN = 384, 1536
TOKENS, CHECKED, RATE = 4096, 3, 0.1
LAYERS, LAYER_TOKENS = 6, 2048
DROPOUT, DROPOUT_TARGET = 0.1, 0.2
LIMIT, COMPILED = "limit: its matrix products alone", "torch.compile"
STEPS = 8  # of a call, for a block as it is trained
SCANNED = f"scan of {STEPS} steps a call"
# The largest ratios of a step as it is trained: to its own products, and to
# torch.compile on a CPU with and without AVX-512.
PRODUCTS_TARGET = 1.06
COMPILED_TARGETS = {True: 0.65, False: 1.08}

# The kind of block in ffnlab, and its activation in JAX and in torch.
KINDS = {
    "relu": ("mlp:relu", jax.nn.relu, "relu"),
    "gelu": ("mlp:gelu", functools.partial(jax.nn.gelu, approximate=False), "gelu"),
    "swiglu": ("swiglu", jax.nn.silu, "silu"),
    "geglu": ("geglu", functools.partial(jax.nn.gelu, approximate=False), "gelu"),
}
TIMED = ("relu", "gelu", "swiglu")
Apply = Callable[[Params, Array], Array]


class Shape(NamedTuple):
    """The sizes of a block.

    Attributes:
      tokens: Number of tokens.
      width: Model width D.
      hidden: Hidden width H.
      bias: Whether the projections have biases.
      dtype: The dtype of all arrays.
    """

    tokens: int = TOKENS
    width: int = WIDTH
    hidden: int = HIDDEN
    bias: bool = True
    dtype: Any = jnp.float32


SHAPE = Shape()


def block(kind: str, shape: Shape = SHAPE) -> Model:
    """Returns the block alone, without norm and residual connection."""
    config = BlockConfig(
        KINDS[kind][0],
        shape.width,
        shape.hidden,
        bias=shape.bias,
        norm="none",
        residual=False,
    )
    return pure.functional(lambda rngs: FeedForward(config, rngs=rngs))


def ours(kind: str, shape: Shape = SHAPE) -> Apply:
    """Returns the forward pass of `ffnlab.nn.ffn.FeedForward`."""
    model = block(kind, shape)
    return lambda params, x: model.apply(params, x)[0]


def plain(kind: str) -> Apply:
    """Returns the same equation in plain JAX, differentiated by autodiff."""
    activation = KINDS[kind][1]

    def apply(params: Params, x: Array) -> Array:
        def dense(name: str, x: Array) -> Array:
            y = x @ params[name]["kernel"]
            return y + params[name]["bias"] if "bias" in params[name] else y

        if "gate" in params:
            hidden = activation(dense("gate", x)) * dense("up", x)
        else:
            hidden = activation(dense("up", x))
        return dense("down", hidden)

    return apply


def stepping(apply: Apply, data: dict[str, Any], steps: int | None = None) -> Work:
    """Returns a step: forward, backward to the weights and to x, gradient descent.

    Its state is the parameters, the loss and the gradient with respect to x.

    Args:
      apply: The forward pass.
      data: From `make_data`.
      steps: The number of steps that a call scans; None is one step without a scan.
    """

    def loss(params: Params, x: Array) -> Array:
        return jnp.mean(jnp.square(apply(params, x) - data["target"]))

    def step(params: Params, x: Array) -> tuple:
        value, (grads, x_grad) = jax.value_and_grad(loss, argnums=(0, 1))(params, x)
        return jax.tree.map(lambda p, g: p - RATE * g, params, grads), value, x_grad

    def scan(params: Params, x: Array) -> tuple:
        first = params, jnp.zeros((), x.dtype), jnp.zeros_like(x)
        return jax.lax.scan(lambda s, _: (step(s[0], x), None), first, length=steps)[0]

    call = jax.jit(scan if steps else step, donate_argnums=0)

    def start() -> tuple:
        return (jax.block_until_ready(jax.tree.map(jnp.copy, data["params"])),)

    return Work(lambda s: jax.block_until_ready(call(s[0], data["x"])), start)


def products(inputs: int, shape: Shape = SHAPE, steps: int | None = None) -> Work:
    """Returns the matrix products of a step alone.

    The arrays are random, since accelerators multiply constant ones faster.

    Args:
      inputs: The number of projections of x: 2 for a gated block, otherwise 1.
      shape: The sizes of the block.
      steps: The number of steps that a call scans; None is one step without a scan.
    """
    keys = iter(jax.random.split(jax.random.key(0), 2 + 2 * inputs))

    def draw(*sizes: int) -> Array:
        return jax.random.normal(next(keys), sizes, shape.dtype)

    x, tall = draw(shape.tokens, shape.width), draw(shape.hidden, shape.width)
    pairs = [
        (draw(shape.tokens, shape.hidden), draw(shape.width, shape.hidden))
        for _ in range(inputs)
    ]
    given = x, tall, pairs
    call = jax.jit(_multiply if steps is None else scan_products(steps))
    return Work(lambda _: jax.block_until_ready(call(*given)))


def _multiply(x: Array, tall: Array, pairs: list[tuple[Array, Array]]) -> list[Array]:
    hidden = pairs[0][0]
    outs = [hidden @ tall, x @ tall.T, hidden.T @ x]
    for hidden, wide in pairs:
        outs += [x @ wide, x.T @ hidden, hidden @ wide.T]
    return outs


def scan_products(steps: int) -> Callable[..., list[Array]]:
    """Returns a function that makes the products of a step several times.

    Each step has a condition that always holds, since the compiler would otherwise
    multiply once, before the loop.

    >>> pair = jnp.ones((4, 3)), jnp.ones((2, 3))
    >>> outs = scan_products(5)(jnp.ones((4, 2)), jnp.ones((3, 2)), [pair])
    >>> [out.shape for out in outs]
    [(4, 2), (4, 3), (3, 2), (4, 3), (2, 3), (4, 2)]
    """

    def scan(*given: Any) -> list[Array]:
        def step(outs: list[Array], i: Array) -> tuple[list[Array], None]:
            new = jax.lax.cond(
                i < steps, lambda _: _multiply(*given), lambda old: old, outs
            )
            return new, None

        shapes = jax.eval_shape(_multiply, *given)
        first = jax.tree.map(lambda out: jnp.zeros(out.shape, out.dtype), shapes)
        return jax.lax.scan(step, first, jnp.arange(steps))[0]

    return scan


def make_data(kind: str, shape: Shape = SHAPE) -> dict[str, Any]:
    """Returns the initial parameters, x and the target of a kind of block."""
    keys = jax.random.split(jax.random.key(0), 3)
    sizes = (shape.tokens, shape.width)
    return {
        "params": cast(block(kind, shape).init(keys[0]), shape.dtype),
        "x": jax.random.normal(keys[1], sizes, shape.dtype),
        "target": jax.random.normal(keys[2], sizes, shape.dtype),
    }


def torch_rows(kind: str, data: dict[str, Any]) -> list[tuple[str, str, Work]]:
    """Returns name, setting and work of each row of torch."""
    from benchmarks import peers

    task = peers.Block(
        params=jax.tree.map(np.asarray, trees.flatten(data["params"])),
        activation=KINDS[kind][2],
        x=np.asarray(data["x"]),
        target=np.asarray(data["target"]),
        rate=RATE,
    )
    rows = []
    for threads in (1, protocol.cores()):
        make = functools.partial(peers.threaded, threads)
        setting = f"threads: {threads}"
        rows += [
            (COMPILED, setting, make(peers.compiled_step, task, False)),
            ("torch, eager", setting, make(peers.eager_step, task)),
            (LIMIT, f"torch.mm, {setting}", make(peers.block_products, task)),
        ]
    tuned = make(peers.compiled_step, task, True)
    return [*rows, (COMPILED, f"{setting}, autotuned", tuned)]


def check(
    name: str, first: Work, other: Work, calls: tuple[int, int] = (CHECKED, CHECKED)
) -> None:
    """Checks parameters, loss and gradient of x, after some calls of each work."""
    results = []
    for work, count in zip((first, other), calls, strict=True):
        state = work.start()
        for _ in range(count):
            state = work.run(state)
        results.append((trees.flatten(state[0]), *state[1:]))
    protocol.check_equal(name, *results, rtol=1e-4, atol=1e-6)


def time_steps(kind: str, config: Config) -> list[Table]:
    """Prints and returns the tables of times per step: one a call, and as trained."""
    data = make_data(kind)
    first = stepping(ours(kind), data)
    rows = [("plain JAX", "autodiff", stepping(plain(kind), data))]
    rows.append((LIMIT, "XLA", products(len(data["params"]) - 1)))
    peers = torch_rows(kind, data) if protocol.has("torch") else []
    rows += peers
    for name, setting, work in rows:
        if name == LIMIT:
            work.once()
        else:
            check(f"{kind}: {name}, {setting}", first, work)
    print(f"{kind}: all rows are equal after {CHECKED} steps")
    entries = [Entry("ffnlab", "functional(FeedForward)", first, peer=False)]
    entries += [Entry(*row, peer=row[0] != LIMIT) for row in rows]
    title = f"{kind}, time per step on [{TOKENS}, {WIDTH}], {HIDDEN} hidden units"
    tables = [protocol.compare(title, "ms", entries, config)]
    entries = trained_entries(kind, data, first, peers)
    return [*tables, protocol.compare(f"{title}, as trained", "ms", entries, config)]


def trained_entries(
    kind: str,
    data: dict[str, Any],
    one: Work,
    peers: list[tuple[str, str, Work]],
    shape: Shape = SHAPE,
) -> list[Entry]:
    """Returns the rows for a block as it is trained.

    Args:
      kind: A key of `KINDS`.
      data: From `make_data`.
      one: Our step, one a call.
      peers: From `torch_rows`; those that are not compiled are left out.
      shape: The sizes of the block.
    """
    scanned = stepping(ours(kind, shape), data, STEPS)
    check(f"{kind}: {SCANNED}", one, scanned, (STEPS, 1))
    multiplied = products(len(data["params"]) - 1, shape, STEPS)
    multiplied.once()
    target = COMPILED_TARGETS["avx512f" in protocol.processor()[1]]
    entries = [
        Entry("ffnlab", SCANNED, scanned, STEPS, peer=False),
        Entry("ffnlab, the same steps", "one step a call", one, peer=False),
        Entry("its products alone", SCANNED, multiplied, STEPS, PRODUCTS_TARGET, False),
    ]
    for name, setting, work in peers:
        limit = None if name == LIMIT else target
        if name in (LIMIT, COMPILED):
            setting = f"{setting}, one step a call"
            entries.append(Entry(name, setting, work, 1, limit, name != LIMIT))
    return entries


def kept(apply: Apply, params: Params, x: Array) -> str:
    """Returns how many arrays `[tokens, h]` are kept for the backward pass."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        print_saved_residuals(lambda p, x: apply(p, x).sum(), params, x)
    return str(printed.getvalue().count(f"f32[{x.shape[0]},{HIDDEN}]"))


def temporary(apply: Apply, params: Params, x: Array, scanned: bool) -> str:
    """Returns the temporary memory of the gradient of 6 layers, in `[tokens, h]`."""

    def loss(layers: Params, x: Array) -> Array:
        if scanned:
            x, _ = jax.lax.scan(lambda x, layer: (apply(layer, x), None), x, layers)
        else:
            for i in range(LAYERS):
                x = apply(jax.tree.map(lambda leaf, i=i: leaf[i], layers), x)
        return jnp.sum(jnp.square(x))

    compiled = jax.jit(jax.grad(loss)).lower(params, x).compile()
    unit = x.shape[0] * HIDDEN * x.dtype.itemsize
    return f"{compiled.memory_analysis().temp_size_in_bytes / unit:.1f}"


def measure_memory() -> Table:
    """Prints and returns the table of kept arrays and of temporary memory."""
    x = jax.ShapeDtypeStruct((LAYER_TOKENS, WIDTH), jnp.float32)
    rows = []
    for kind in KINDS:
        init = block(kind).init
        layer = jax.eval_shape(init, jax.random.key(0))
        keys = jax.random.split(jax.random.key(0), LAYERS)
        layers = jax.eval_shape(jax.vmap(init), keys)
        for name, apply in (("ffnlab", ours(kind)), ("plain JAX", plain(kind))):
            both = [temporary(apply, layers, x, scanned) for scanned in (True, False)]
            rows.append([kind, name, kept(apply, layer, x), *both])
    columns = ["", "", "kept per block", "6 layers, scanned", "6 layers, unrolled"]
    table = Table(columns, rows, words=2)
    print()
    table.show(f"memory in float32 arrays of shape [{LAYER_TOKENS}, {HIDDEN}]")
    return table


def time_masks(config: Config) -> Table:
    """Prints and returns the table of times of a dropout mask."""
    shape, key = (TOKENS, HIDDEN), jax.random.key(0)
    mask = jax.jit(lambda key: keep_mask(key, DROPOUT, shape))
    drawn = jax.jit(lambda key: jax.random.bernoulli(key, 1.0 - DROPOUT, shape))
    np.testing.assert_array_equal(mask(key), drawn(key))
    print("both masks are equal in every bit")
    entries = [
        Entry("ffnlab", "keep_mask", Work(lambda _: mask(key).block_until_ready())),
        Entry(
            "jax.random.bernoulli",
            "threefry",
            Work(lambda _: drawn(key).block_until_ready()),
            target=DROPOUT_TARGET,
        ),
    ]
    title = f"dropout mask of shape [{TOKENS}, {HIDDEN}]"
    return protocol.compare(title, "ms", entries, config)


def run(config: Config) -> list[Table]:
    """Prints the tables and returns them."""
    protocol.use_cpu()
    protocol.describe()
    tables = [table for kind in TIMED for table in time_steps(kind, config)]
    return [*tables, measure_memory(), time_masks(config)]


if __name__ == "__main__":
    launch.main(Config, run, __doc__)
