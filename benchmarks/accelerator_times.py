"""The times of `benchmarks.accelerator`, each as ratios within a round.

All work ends with the device: compiled and run once before it is timed, and waited for.
"""

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import adapt, feedback, ffn, protocol, sweep
from benchmarks.accelerator_parity import BOUNDS, error, reason
from benchmarks.figures import Figure, timed
from benchmarks.protocol import Entry, Work
from ffnlab import pretrained
from ffnlab.feedback.solvers import Jacobi, Unrolled
from ffnlab.models import EncoderConfig, transformer_model
from ffnlab.nn.attention import attend, attention_mask
from ffnlab.nn.attention_kernel import XLA, Kernel, choose_kernel, uses_gpu
from ffnlab.nn.precision import mixed_precision
from ffnlab.types import Array, Params

# What the figures should be; see docs/benchmarks.md.
PRODUCTS_TARGET, FUSED_TARGET, TOGETHER_TARGET = 0.85, 1.05, 20.0
IMPLICIT_TARGET, FINE_TUNING_TARGET = 0.4, 0.5


class Sizes(NamedTuple):
    """The sizes of what is timed.

    Attributes:
      blocks: Kinds of `ffn.KINDS` with their shapes.
      fused: The shape of the SwiGLU that peers compute too.
      members: Sizes of populations; the first is trained one after another.
      chains: Lengths T and widths H of the chains of feedback.
      steps: Steps of fine-tuning per round.
      texts: Texts per step.
      most: Tokens of the longest text.
      attention: Sequences, tokens, heads and width of a head.
      encoder: The shape of the BERT if no checkpoint is given; None is MiniLM.
    """

    blocks: tuple[tuple[str, ffn.Shape], ...]
    fused: ffn.Shape
    members: tuple[int, ...]
    chains: tuple[tuple[int, int], ...]
    steps: int
    texts: int
    most: int
    attention: tuple[int, int, int, int]
    encoder: EncoderConfig | None = None


def _shape(tokens: int, width: int, hidden: int) -> ffn.Shape:
    return ffn.Shape(tokens, width, hidden, bias=False, dtype=jnp.bfloat16)


SIZES = {
    "full": Sizes(
        (
            ("relu", _shape(8192, 4096, 16384)),
            ("swiglu", _shape(8192, 4096, 11008)),
            ("swiglu", _shape(8192, 4096, 16384)),
        ),
        _shape(8192, 4096, 11008),
        (1, 16, 128, 1024),
        ((512, 64), (512, 256)),
        20,
        16,
        60,
        (8, 2048, 16, 64),
    ),
    "small": Sizes(
        (("relu", _shape(128, 32, 64)), ("swiglu", _shape(128, 32, 64))),
        _shape(128, 32, 64),
        (1, 4),
        ((64, 16),),
        1,
        2,
        8,
        (2, 16, 2, 8),
        EncoderConfig.tiny(pooler=True),
    ),
}


def _work(function: Callable[..., Any], *args: Any) -> Work:
    """Returns a jitted call that has run once and waits for the device."""
    run = jax.jit(function)
    work = Work(lambda _: jax.block_until_ready(run(*args)))
    work.once()
    return work


def _measure(title: str, works: Sequence[Work], config: protocol.Config) -> np.ndarray:
    """Returns the seconds of each work in each round, `[rounds, N]`."""
    entries = [Entry(str(number), "", work) for number, work in enumerate(works)]
    return protocol.measure(title, entries, config)


def _gradient(apply: ffn.Apply) -> Callable[..., tuple]:
    """Returns a forward and backward pass, to the weights and to x."""

    def both(params: Params, x: Array, slope: Array) -> tuple:
        y, pullback = jax.vjp(apply, params, x)
        return y, pullback(slope)

    return both


def _check(name: str, reference: Any, result: Any, dtype: str = "bfloat16") -> None:
    value = error(*jax.device_get((reference, result)))
    assert value <= BOUNDS[dtype], f"{name} differs by {value:.2g}"


def time_blocks(sizes: Sizes, config: protocol.Config) -> list[Figure]:
    """Returns the share of blocks' time that their matrix products alone take."""
    figures = []
    for kind, shape in sizes.blocks:
        data = ffn.make_data(kind, shape)
        args = (data["params"], data["x"], data["target"])
        block = _work(_gradient(ffn.ours(kind, shape)), *args)
        inputs = len(data["params"]) - 1
        products = ffn.products(inputs, shape)
        products.once()
        times = _measure(f"{kind}, {shape.hidden}", (block, products), config)
        operations = 6 * shape.tokens * shape.width * shape.hidden * (inputs + 1)
        rate = operations / np.median(times[:, 0]) / 1e12
        setting = f"{_sizes_of(shape)}, {rate:.3g} TFLOP/s"
        shares = times[:, 1] / times[:, 0]
        name = f"{kind}, forward and backward"
        figures.append(
            timed(name, setting, times[:, 0], shares, PRODUCTS_TARGET, at_least=True)
        )
    return figures


def _sizes_of(shape: ffn.Shape) -> str:
    dtype = jnp.dtype(shape.dtype).name
    return f"[{shape.tokens}, {shape.width}] to {shape.hidden}, {dtype}"


def time_fused(sizes: Sizes, config: protocol.Config) -> list[Figure]:
    """Returns the times of SwiGLU beside the better of plain XLA and tokamax."""
    shape, figures = sizes.fused, []
    data = ffn.make_data("swiglu", shape)
    args = (data["params"], data["x"], data["target"])
    for passes, wrap in (("forward", _forward), ("forward and backward", _gradient)):
        rows = {}
        for name, apply in _fused_rows(shape).items():
            try:
                rows[name] = _work(wrap(apply), *args)
                if name != "ffnlab":
                    _check(name, rows["ffnlab"].once(), rows[name].once())
            except Exception as problem:  # of a peer, which is no part of ours
                if name != "tokamax":
                    raise
                print(f"tokamax is left out: {reason(problem)}")
                rows.pop(name, None)
        times = _measure(f"swiglu, {passes}", [*rows.values()], config)
        medians = dict(zip(rows, np.median(times, axis=0), strict=True))
        best = min((name for name in rows if name != "ffnlab"), key=medians.get)
        ratios = times[:, 0] / times[:, [*rows].index(best)]
        setting = f"{_sizes_of(shape)}; best peer: {best}"
        figures.append(
            timed(f"swiglu, {passes}", setting, times[:, 0], ratios, FUSED_TARGET)
        )
    return figures


def _forward(apply: ffn.Apply) -> Callable[..., Array]:
    return lambda params, x, _: apply(params, x)


def _fused_rows(shape: ffn.Shape) -> dict[str, ffn.Apply]:
    """Returns the implementations of SwiGLU, that of ffnlab first."""
    rows = {"ffnlab": ffn.ours("swiglu", shape), "XLA": ffn.plain("swiglu")}
    if importlib.util.find_spec("tokamax") is None:
        print("tokamax is not installed: SwiGLU is compared with XLA alone")
        return rows
    import tokamax

    def apply(params: Params, x: Array) -> Array:
        kernels = [params[name]["kernel"] for name in ("gate", "up")]
        hidden = tokamax.gated_linear_unit(
            x, jnp.stack(kernels, axis=1), activation=jax.nn.swish
        )
        return hidden @ params["down"]["kernel"]

    return {**rows, "tokamax": apply}


def time_populations(sizes: Sizes, config: protocol.Config) -> list[Figure]:
    """Returns how many times faster digit MLPs train together than one by one.

    One by one, S runs take S times as long as the smallest population.
    """
    devices = jax.local_device_count()
    counts = [count * devices for count in sizes.members]
    works = []
    for count in counts:
        ours = sweep.Ours("vmap", members=count)
        works.append(Work(ours.run, ours.start))
        works[-1].once()
    times = _measure("populations", works, config) / sweep.CHUNK
    figures = []
    for column, count in enumerate(counts):
        members = count / counts[0]
        speedups = members * times[:, 0] / times[:, column]
        last = column == len(counts) - 1
        figures.append(
            timed(
                f"{count} digit MLPs together",
                f"a step of all, batch {sweep.BATCH}",
                times[:, column],
                speedups,
                TOGETHER_TARGET if last else None,
                at_least=True,
            )
        )
    return figures


def time_feedback(sizes: Sizes, config: protocol.Config) -> list[Figure]:
    """Returns the time of implicit gradients beside that of unrolled ones."""
    figures = []
    for length, width in sizes.chains:
        task = feedback.make_task("certified", length, width)
        solver, args = Jacobi(feedback.TOLERANCE, feedback.LIMIT), tuple(task[:3])
        solution = feedback.solving(task, None, solver=solver)(*args)
        iterations = int(solution.iterations.max())
        share = float(solution.converged.mean())
        gradients = {
            "implicit": feedback.solving(task, "implicit", solver=solver),
            "bptt": feedback.solving(task, "bptt", solver=Unrolled(iterations)),
        }
        works = [_work(run, *args) for run in gradients.values()]
        _check("bptt", *(work.once() for work in works))
        times = _measure(f"feedback, T = {length}, H = {width}", works, config)
        setting = f"{iterations} iterations, {share:.0%} converged"
        ratios = times[:, 0] / times[:, 1]
        name = f"implicit gradient, T = {length}, H = {width}"
        figures.append(timed(name, setting, times[:, 0], ratios, IMPLICIT_TARGET))
    return figures


def time_fine_tuning(
    sizes: Sizes, config: protocol.Config, checkpoint: str | None
) -> list[Figure]:
    """Returns the time of a step on MiniLM in bfloat16 beside that of torch.

    Texts have 4 tokens to `sizes.most`. ffnlab packs them, torch pads them.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = adapt.Config(
            checkpoint=checkpoint or _random_checkpoint(sizes.encoder, Path(folder)),
            methods=("full",),
            batch_size=sizes.texts,
            min_seq_length=4,
            max_seq_length=sizes.most,
            steps=sizes.steps,
        )
        setup = adapt.make_setup(options, Path(folder))
        setup = setup._replace(model=mixed_precision(setup.model))
        ours = adapt.make_work(options, setup, adapt.make_learner(setup, "full"))
        losses, works = ours.once(), [ours]
        assert np.isfinite(losses).all(), "the loss is not finite"
        if peers := _import_peers():
            start = Path(folder) / "start"
            works.append(peers.fine_tuning(start, setup, sizes.steps))
            theirs = works[1].once()  # compiles
            first = losses[0], theirs[0]
            message = f"the first losses differ: {first[0]:.4f} and {first[1]:.4f}"
            assert np.isclose(*first, rtol=BOUNDS["bfloat16"]), message
            works[1].once()  # compiles what the first call could not
    times = _measure("fine-tuning", works, config) / sizes.steps
    setting = f"{sizes.texts} texts of 4 to {sizes.most} tokens, bfloat16"
    ratios = times[:, 0] / times[:, 1] if len(works) > 1 else None
    name = "step, ÷ torch.compile" if len(works) > 1 else "step, no peer"
    return [timed(name, setting, times[:, 0], ratios, FINE_TUNING_TARGET)]


def _random_checkpoint(encoder: EncoderConfig | None, folder: Path) -> str | None:
    """Returns the directory of a new BERT of a shape; None if there is no shape."""
    if encoder is None:
        return None
    params = transformer_model(encoder).init(jax.random.key(0))
    pretrained.save(folder / "small", encoder, params, family="bert")
    return str(folder / "small")


def time_attention(sizes: Sizes, config: protocol.Config) -> list[Figure]:
    """Returns the time of attention by cuDNN beside that by XLA.

    Without a GPU, only XLA runs. On a GPU without cuDNN this is an error.
    """
    batch, length, heads, width = sizes.attention
    shape = jax.ShapeDtypeStruct((batch, length, heads, width), jnp.bfloat16)
    keys = jax.random.split(jax.random.key(0), 4)
    arrays = [jax.random.normal(key, shape.shape, shape.dtype) for key in keys]
    segments = jnp.repeat(jnp.arange(4), length // 4)[None].repeat(batch, axis=0)
    figures = []
    for name, causal, packed in (
        ("causal", True, None),
        ("causal, 4 texts in a row", True, segments),
        ("4 texts in a row", False, segments),
    ):
        asked = "cudnn" if uses_gpu() else "auto"
        masked = packed is not None
        kernel = choose_kernel(asked, shape, shape, causal=causal, masked=masked)
        left = causal and not kernel.causal
        mask = attention_mask(length, causal=left, segment_ids=packed)
        whole = attention_mask(length, causal=causal, segment_ids=packed)
        works = [_attention(arrays, mask, kernel), _attention(arrays, whole, XLA)]
        _check(name, *(work.once() for work in works))
        times = _measure(f"attention, {name}", works, config)
        setting = f"{[*shape.shape]}, bfloat16, by {kernel.name}"
        figures.append(timed(name, setting, times[:, 0], times[:, 0] / times[:, 1]))
    return figures


def _attention(arrays: list[Array], mask: Array | None, kernel: Kernel) -> Work:
    """Returns attention, forward and backward."""

    def both(query: Array, key: Array, value: Array, slope: Array, mask: Any) -> Any:
        def run(*args: Array) -> Array:
            return attend(*args, mask, kernel=kernel)

        y, pullback = jax.vjp(run, query, key, value)
        return y, pullback(slope)

    return _work(both, *arrays, mask)


def _import_peers() -> Any:
    """Returns the peers in torch; None, and a line, if it has no GPU or is missing."""
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            print(f"{name} is not installed: fine-tuning has no peer")
            return None
    from benchmarks import accelerator_peers

    if accelerator_peers.has_gpu():
        return accelerator_peers
    print("torch finds no GPU: fine-tuning has no peer")
    return None


TIMED: dict[str, Callable[[Sizes, Any], list[Figure]]] = {
    "ffn": time_blocks,
    "swiglu": time_fused,
    "attention": time_attention,
    "population": time_populations,
    "feedback": time_feedback,
    "finetune": lambda sizes, config: time_fine_tuning(
        sizes, config, config.checkpoint
    ),
}
