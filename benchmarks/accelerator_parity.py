"""Does an accelerator compute what the CPU computes?

Every case is a function of arrays, with its gradients. It runs in float32 on the CPU,
which is the reference, and on the accelerator in float32 with the highest precision of
matrix products and in bfloat16.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.figures import Figure
from ffnlab import trees
from ffnlab.feedback.chain import solve_chain
from ffnlab.feedback.solvers import SOLVERS, Unrolled
from ffnlab.models import language_model
from ffnlab.models.classifier import ClassifierConfig, classifier_model
from ffnlab.models.transformer_config import DecoderConfig, EncoderConfig
from ffnlab.nn import activations, pure
from ffnlab.nn.ffn import BLOCKS, BlockConfig, FeedForward
from ffnlab.nn.linear import Linear
from ffnlab.nn.precision import cast, mixed_precision
from ffnlab.types import Array, Model, Params

# Largest error of any array, by its norm. A bfloat16 has 8 bits, the errors of a dozen
# operations in a row add up, and a relu near 0 turns on or off. Another mask or another
# order of axes gives an error near 1.
BOUNDS = {"float32": 1e-4, "bfloat16": 1e-1}
# The least norm that an error is relative to, as a share of the norm of all arrays.
# Gradients of queries and keys are differences of large numbers, which cuDNN rounds.
FLOORS = {"float32": 1e-3, "bfloat16": 1e-2}
TOKENS, WIDTH, HIDDEN = 64, 32, 48
LENGTH, SWEEPS = 32, 60
TERMS = 4096  # of a sum that a bfloat16 cannot count to: it ends at 256


class Case(NamedTuple):
    """A function whose results are compared.

    Attributes:
      name: What it is.
      function: `function(args, dtype)`, which casts what it computes in a dtype.
      args: A tree of NumPy arrays.
      dtypes: The dtypes to compute in.
    """

    name: str
    function: Callable[[Any, str], Any]
    args: Any
    dtypes: tuple[str, ...] = tuple(BOUNDS)


def error(reference: Any, result: Any, dtype: str = "float32") -> float:
    """Returns the largest error of an array of a tree, relative to its norm.

    Arrays that are close to 0 beside the others, such as the gradient of the bias of
    keys, are measured by a share of the norm of all.

    Args:
      reference: A tree of arrays.
      result: A tree of arrays of the same shapes.
      dtype: A key of `FLOORS`, which has that share.

    >>> reference = {"a": np.ones(4), "b": np.zeros(4)}
    >>> error(reference, {"a": np.ones(4) + 0.01, "b": np.zeros(4)}) < 0.0101
    True
    >>> error(reference, {"a": np.full(4, np.nan), "b": np.zeros(4)})
    inf
    """
    pairs = zip(jax.tree.leaves(reference), jax.tree.leaves(result), strict=True)
    pairs = [tuple(np.asarray(each, np.float64) for each in pair) for pair in pairs]
    whole = np.sqrt(sum(np.sum(np.square(first)) for first, _ in pairs))
    errors = [
        np.linalg.norm(first - second) / (np.linalg.norm(first) + FLOORS[dtype] * whole)
        for first, second in pairs
    ]
    worst = float(np.max(errors))
    return worst if np.isfinite(worst) else float("inf")


def compare(cases: Iterable[Case]) -> list[Figure]:
    """Returns the errors of cases on the first device, beside their bounds.

    What cannot be computed has an infinite error, and its setting holds the reason.
    """
    device, figures = jax.devices()[0], []
    for case in cases:
        runs = {dtype: make_run(case, dtype) for dtype in {"float32", *case.dtypes}}
        reference = runs["float32"](jax.devices("cpu")[0])
        for dtype in case.dtypes:
            try:
                setting, value = dtype, error(reference, runs[dtype](device), dtype)
            except Exception as problem:  # the other cases go on
                setting, value = f"{dtype}: {reason(problem)}", float("inf")
            figures.append(Figure(case.name, setting, value, BOUNDS[dtype]))
    return [*figures, accumulation(device)]


def make_run(case: Case, dtype: str) -> Callable[[jax.Device], Any]:
    """Returns a function from a device to the results of a case, as NumPy arrays."""
    jitted = jax.jit(lambda args: cast(case.function(args, dtype), jnp.float32))

    def run(device: jax.Device) -> Any:
        with jax.default_matmul_precision("highest"), jax.default_device(device):
            return jax.device_get(jitted(jax.device_put(case.args, device)))

    return run


def reason(problem: BaseException) -> str:
    """Returns what went wrong in one line of at most 200 characters.

    >>> reason(ValueError("no room"))
    'ValueError: no room'
    """
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    text = f"{type(problem).__name__}: {lines[0]}" if lines else type(problem).__name__
    return text if len(text) <= 200 else f"{text[:199]}…"


def all_cases() -> Iterator[Case]:
    """Yields the cases: blocks, activations, feedback, an encoder and a decoder."""
    yield from (_block(kind) for kind in BLOCKS)
    yield _activations()
    for solver in sorted({*SOLVERS} - {"krylov"}):
        for gradient in ("implicit", "bptt"):
            yield _feedback(solver, gradient)
    yield _encoder()
    yield _decoder()


def few_cases() -> Iterator[Case]:
    """Yields one case of each kind, those that compile soonest."""
    yield _block("swiglu")
    yield _feedback("jacobi", "implicit")
    yield _encoder()
    yield _decoder()


def accumulation(device: jax.Device) -> Figure:
    """Returns the error of sums of ones by products of bfloat16 arrays.

    A layer is a sum over its inputs, and the gradient of its kernel one over tokens. A
    sum in bfloat16 would end at 256.
    """
    model = pure.functional(lambda rngs: Linear(TERMS, 8, use_bias=False, rngs=rngs))

    def function(args: Params, dtype: str) -> tuple[Array, Array]:
        params, x = cast((args["params"], args["x"]), dtype)
        y, pullback = jax.vjp(lambda p: model.apply(p, x)[0], params)
        return y, pullback(jnp.ones_like(y))[0]["kernel"]

    args = {
        "params": {"kernel": np.ones((TERMS, 8), np.float32)},
        "x": np.ones((TERMS, TERMS), np.float32),
    }
    sums = make_run(Case("", function, args), "bfloat16")(device)
    value = max(float(np.abs(each / TERMS - 1.0).max()) for each in sums)
    return Figure("sums of products of a layer", f"bfloat16, {TERMS} ones", value, 0.0)


def _gradients(function: Callable[..., Array], *args: Any) -> tuple[Array, Any]:
    """Returns y and the gradients of a sum of y with random weights."""
    y, pullback = jax.vjp(function, *args)
    return y, pullback(jnp.asarray(_normal(*y.shape), y.dtype))


def _draw(model: Model, seed: int = 0) -> Params:
    """Returns random parameters in which no bias is 0."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    rng = np.random.default_rng(seed)

    def draw(name: str, leaf: Any) -> np.ndarray:
        scale = 1.0 / np.sqrt(leaf.shape[0]) if len(leaf.shape) > 1 else 0.1
        values = scale * rng.normal(size=leaf.shape)
        return np.asarray(values + name.endswith("scale"), np.float32)

    return jax.tree.map(draw, trees.names(shapes), shapes)


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def _block(kind: str) -> Case:
    config = BlockConfig(kind, WIDTH, HIDDEN, norm="pre")
    model = pure.functional(lambda rngs: FeedForward(config, rngs=rngs))

    def function(args: Any, dtype: str) -> Any:
        narrow = mixed_precision(model, dtype, keep=())
        return _gradients(lambda p, x: narrow.apply(p, x)[0], *args)

    return Case(f"block {kind}", function, (_draw(model), _normal(TOKENS, WIDTH)))


def _activations() -> Case:
    """Returns the case of all elementwise activations."""

    def function(x: Array, dtype: str) -> Any:
        results = {}
        for name, row in activations.ACTIVATIONS.items():
            beta = {} if row.beta is None else {"beta": jnp.ones((), dtype)}
            results[name] = _gradients(
                lambda x, row=row, beta=beta: row.function(x, **beta), cast(x, dtype)
            )
        return results

    # Exact in bfloat16, so that its gradients are those of equal inputs.
    x = np.asarray(jnp.asarray(_normal(TOKENS), jnp.bfloat16), np.float32)
    return Case("all activations", function, x)


def _feedback(solver: str, gradient: str) -> Case:
    """Returns the case of a certified chain, which has one solution."""
    chosen = Unrolled(SWEEPS) if solver == "unrolled" else SOLVERS[solver](1e-6, SWEEPS)
    # Rotations, whose norms are 0.7 together.
    rng, size = np.random.default_rng(2), (8, 8)
    kernels = [0.35 * np.linalg.qr(rng.normal(size=size))[0] for _ in range(2)]

    def states(drive: Array, left: Array, right: Array) -> Array:
        return solve_chain(
            drive, left, right, solver=chosen, gradient=gradient, warn=False
        ).state

    def function(args: Any, dtype: str) -> Any:
        return _gradients(states, *cast(args, dtype))

    args = (_normal(4, LENGTH, 8), *(np.float32(kernel) for kernel in kernels))
    # It is solved in float32 in any case, so that one bfloat16 stands for all.
    dtypes = tuple(BOUNDS) if solver == "jacobi" else ("float32",)
    return Case(f"feedback by {solver}, {gradient}", function, args, dtypes)


def _transformer(name: str, model: Model, x: dict[str, np.ndarray]) -> Case:
    def function(params: Any, dtype: str) -> Any:
        narrow = mixed_precision(model, dtype)
        return _gradients(lambda p: narrow.apply(p, x)[0], params)

    return Case(name, function, _draw(model))


def _sizes() -> dict[str, Any]:
    return {"vocabulary": 97, "features": 64, "heads": 4, "hidden": 96, "layers": 2}


def _encoder() -> Case:
    """Returns the case of an encoder over rows that several texts share.

    The last quarter of a row is padding, whose states nothing depends on.
    """
    rng = np.random.default_rng(3)
    segments = np.repeat(np.arange(4), LENGTH // 4)[None].repeat(4, axis=0)
    x = {
        "tokens": rng.integers(0, 97, (4, LENGTH)),
        "mask": np.ones((4, LENGTH), bool),
        "segment_ids": np.where(segments < 3, segments, -1),
        "label_positions": np.arange(0, 3 * LENGTH // 4, 4)[None].repeat(4, axis=0),
    }
    x["mask"] &= x["segment_ids"] >= 0
    encoder = EncoderConfig(**_sizes())
    model = classifier_model(ClassifierConfig(encoder, classes=5, dropout=0.0))
    return _transformer("encoder, texts share rows", model, x)


def _decoder() -> Case:
    tokens = np.random.default_rng(4).integers(0, 97, (4, LENGTH))
    config = DecoderConfig(**_sizes(), positions="rotary", block="swiglu")
    model = language_model.causal_lm(config)
    return _transformer("decoder, rotary, swiglu", model, {"tokens": tokens})
