"""Does the engine written from scratch compute what JAX and optax do?"""

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab import options
from ffnlab.options import names_in, option
from ffnlab.report.run_directory import choose_directory

if TYPE_CHECKING:
    from collections.abc import Callable

    import jax
    import numpy as np

    from ffnlab.data import Dataset
    from ffnlab.report.table import Table

LIMIT = 1e-9
QUICK = {"optimizers": ("sgd", "adam"), "seeds": 1, "steps": 40, "hidden": (16,)}


@dataclasses.dataclass(frozen=True)
class ScratchParityConfig:
    """What to train, twice; each field is a flag."""

    data: str = option(
        "digits",
        "digits, breast_cancer or wine",
        known=lambda: ("digits", "breast_cancer", "wine"),
    )
    optimizers: tuple[str, ...] = option(
        ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"),
        "what to train with, in turn",
        known=names_in("ffnlab.scratch.optimizers", "OPTIMIZERS"),
    )
    hidden: tuple[int, ...] = option(
        (128,), "widths of the hidden layers; empty for none", least=1, empty=True
    )
    activation: str = option(
        "relu", "relu, tanh or sigmoid", known=lambda: ("relu", "tanh", "sigmoid")
    )
    learning_rate: float | None = option(
        None, "of all; 0.1 for the first four optimizers and 0.003 else", above=0
    )
    weight_decay: float = option(1e-2, "of adamw", least=0)
    seeds: int = option(3, "runs an optimizer", least=1)
    steps: int = option(200, "steps of a run", least=1)
    batch_size: int = option(128, "examples a step", least=1)
    seed: int = option(0, "of the split and of all else", least=0, below=2**31)
    out: str | None = option(None, "directory to write; runs/… if not given")

    def __post_init__(self):
        options.check(self)

    def rate(self, optimizer: str) -> float:
        """Returns the learning rate of an optimizer."""
        coarse = ("sgd", "momentum", "nesterov", "adagrad")
        return self.learning_rate or (0.1 if optimizer in coarse else 3e-3)


class ScratchParityResult(NamedTuple):
    """What a comparison found.

    Attributes:
      out: the directory that holds it.
      runs: a dict for each epoch of each run, as in results.jsonl.
      epochs: the differences by epoch, as they were printed.
      optimizers: the differences, scores and times by optimizer, likewise.
      largest: the largest difference of a loss or a parameter at any time.
    """

    out: Path
    runs: list[dict[str, Any]]
    epochs: "Table"
    optimizers: "Table"
    largest: float


class Side(NamedTuple):
    """One of the two programs.

    Attributes:
      start: initial parameters to what its step takes.
      step: `step(state, x, y) -> (state, loss)`.
      params: what the step takes to parameters, as arrays.
    """

    start: "Callable[[dict], Any]"
    step: "Callable[..., tuple[Any, Any]]"
    params: "Callable[[Any], dict]"


def check_parity(config: ScratchParityConfig) -> ScratchParityResult:
    """Runs the comparison and writes its report.

    Raises:
      InputError: a directory cannot be used.
    """
    from ffnlab import data
    from ffnlab.report import run_directory
    from ffnlab.report.progress import Progress

    out = choose_directory(config.out, "from_scratch")
    dataset = data.load(config.data, config.seed)

    import jax

    flags = options.to_flags(config, leave_out=("out",))
    with run_directory.open_run(out, flags, resume=None) as directory:
        print(f"writing to {directory}", flush=True)
        runs = []
        total = config.steps * config.seeds * len(config.optimizers)
        with jax.enable_x64(True), Progress(total, "steps") as progress:
            for optimizer in config.optimizers:
                sides = _engine(config, dataset, optimizer), _jax(config, optimizer)
                progress.begin(optimizer)
                for seed in range(config.seeds):
                    runs += _compared(config, dataset, optimizer, seed, sides)
                    progress.reach(config.steps * (seed + 1))
                progress.end()
        return _published(config, directory, runs)


def _sizes(config: ScratchParityConfig, dataset: "Dataset") -> list[int]:
    return [dataset.features, *config.hidden, dataset.classes]


def _engine(config: ScratchParityConfig, dataset: "Dataset", optimizer: str) -> Side:
    """Returns the program of `ffnlab.scratch`."""
    from ffnlab.scratch import losses, models, optimizers, value_and_grad

    model = models.perceptron(_sizes(config, dataset), activation=config.activation)
    decay = {"weight_decay": config.weight_decay} if optimizer == "adamw" else {}
    rule = optimizers.OPTIMIZERS[optimizer](config.rate(optimizer), **decay)
    slope = value_and_grad(
        lambda params, x, y: losses.cross_entropy(model.apply(params, x)[0], y)
    )

    def step(state: tuple, x: "np.ndarray", y: "np.ndarray") -> tuple:
        params, memory = state
        loss, grads = slope(params, x, y)
        updates, memory = rule.update(grads, memory, params)
        return (optimizers.apply_updates(params, updates), memory), loss

    return Side(
        lambda params: (params, rule.init(params)), step, lambda state: state[0]
    )


def _jax(config: ScratchParityConfig, optimizer: str) -> Side:
    """Returns the program of JAX and optax, compiled."""
    import jax
    import optax

    build = {
        "sgd": optax.sgd,
        "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
        "nesterov": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
        "adagrad": optax.adagrad,
        "rmsprop": optax.rmsprop,
        "adam": optax.adam,
        "adamw": lambda rate: optax.adamw(rate, weight_decay=config.weight_decay),
    }
    rule = build[optimizer](config.rate(optimizer))

    @jax.jit
    def step(state: tuple, x: jax.Array, y: jax.Array) -> tuple:
        params, memory = state
        slope = jax.value_and_grad(loss_by_jax)
        value, grads = slope(params, x, y, config.activation)
        updates, memory = rule.update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory), value

    def start(params: dict) -> tuple:
        params = jax.tree.map(jax.numpy.array, params)
        return params, rule.init(params)

    return Side(start, step, lambda state: jax.device_get(state[0]))


def loss_by_jax(
    params: dict, x: "jax.Array", y: "jax.Array", activation: str
) -> "jax.Array":
    """Returns the mean cross-entropy of a perceptron, in JAX and optax."""
    import jax
    import optax

    a = x
    for number in range(1, len(params) + 1):
        layer = params[f"layer_{number}"]
        z = a @ layer["kernel"] + layer["bias"][None]
        a = getattr(jax.nn, activation)(z)
    return optax.softmax_cross_entropy_with_integer_labels(z, y).mean()


def _compared(
    config: ScratchParityConfig,
    dataset: "Dataset",
    optimizer: str,
    seed: int,
    sides: tuple[Side, Side],
) -> list[dict[str, Any]]:
    """Returns a line for each epoch of a run of both programs."""
    import numpy as np

    from ffnlab import data
    from ffnlab.scratch import models

    train, size = dataset.train, data.size(dataset.train)
    x, y = train["x"].astype(np.float64), train["y"].astype(np.int64)
    batches = data.indices([seed], 0, config.steps, config.batch_size, size)[:, 0]
    model = models.perceptron(_sizes(config, dataset), activation=config.activation)
    states = [side.start(model.init((config.seed, seed))) for side in sides]
    sides[1].step(states[1], x[batches[0]], y[batches[0]])  # compiles
    lines, epoch = [], max(size // config.batch_size, 1)
    for begin in range(0, config.steps, epoch):
        chunk = batches[begin : begin + epoch]
        turns = [_turn(*each, x, y, chunk) for each in zip(sides, states, strict=True)]
        states, losses, seconds = zip(*turns, strict=True)
        params = [side.params(state) for side, state in zip(sides, states, strict=True)]
        lines.append(
            {
                "optimizer": optimizer,
                "seed": seed,
                "epoch": len(lines) + 1,
                "steps": begin + len(chunk),
                "loss_difference": _gap(*losses),
                "parameter_difference": max(map(_gap, *map(_arrays, params))),
                "losses": losses,
                "seconds_per_step": seconds,
                "test_accuracy": [
                    _accuracy(config, dataset.test, each) for each in params
                ],
            }
        )
    return lines


def _turn(
    side: Side, state: Any, x: "np.ndarray", y: "np.ndarray", batches: "np.ndarray"
) -> tuple[Any, list[float], float]:
    """Returns the state after some steps, their losses, and the seconds a step took."""
    clock, told = time.perf_counter(), []
    for rows in batches:
        state, loss = side.step(state, x[rows], y[rows])
        told.append(loss)
    losses = [float(loss) for loss in told]
    return state, losses, (time.perf_counter() - clock) / len(batches)


def _arrays(params: dict) -> "list[np.ndarray]":
    from ffnlab.scratch import trees

    return [leaf for _, leaf in sorted(trees.named_leaves(params))]


def _gap(one: Any, other: Any) -> float:
    import numpy as np

    return float(np.abs(np.asarray(one) - np.asarray(other)).max())


def _accuracy(config: ScratchParityConfig, part: dict, params: dict) -> float:
    import numpy as np

    from ffnlab.scratch import manual

    zs, _ = manual.forward(params, part["x"].astype(np.float64), config.activation)
    return float((zs[-1].argmax(axis=1) == part["y"]).mean())


def _published(
    config: ScratchParityConfig, directory: Path, runs: list[dict[str, Any]]
) -> ScratchParityResult:
    from ffnlab import io
    from ffnlab.report import plots

    epochs, optimizers = _by_epoch(runs), _by_optimizer(config, runs)
    names = ("loss_difference", "parameter_difference")
    largest = max(line[name] for line in runs for name in names)
    way = "below" if largest < LIMIT else "NOT below"
    verdict = f"largest difference of all: {largest:.2g}, {way} {LIMIT:g}"
    print()
    epochs.show("largest difference between the engine and JAX, over all runs")
    print()
    optimizers.show(
        f"over {config.steps} steps: largest differences, the test score at the end, "
        "the median time of a step"
    )
    print(f"\n{verdict}")
    figure = plots.agreement(
        {name: _losses(runs, name) for name in config.optimizers},
        {name: _gaps(runs, name) for name in config.optimizers},
        ("the engine", "JAX"),
        LIMIT,
    )
    plots.save(figure, directory / "curves.png")
    io.write_lines(directory / "results.jsonl", runs)
    text = f"""# Does the engine from scratch compute what JAX and optax do?

{verdict}

{epochs.markdown()}

{optimizers.markdown()}

Equal parameters at the start, equal batches, float64. The times of a step are of the
engine and of one compiled call of JAX, gathering the batch included.

![losses and differences](curves.png)
"""
    io.write(directory / "report.md", text)
    print(f"written to {directory}: report.md, curves.png, results.jsonl")
    return ScratchParityResult(directory, runs, epochs, optimizers, largest)


def _by_epoch(runs: list[dict[str, Any]]) -> "Table":
    from ffnlab.report.table import Table

    rows = []
    for epoch in sorted({line["epoch"] for line in runs}):
        lines = [line for line in runs if line["epoch"] == epoch]
        farthest = max(lines, key=lambda line: line["parameter_difference"])
        cells = [
            f"{max(line['loss_difference'] for line in lines):.1e}",
            f"{farthest['parameter_difference']:.1e}",
            farthest["optimizer"],
        ]
        rows.append([str(epoch), str(lines[0]["steps"]), *cells])
    return Table(["epoch", "steps", "loss", "parameters", "that of"], rows, words=0)


def _by_optimizer(config: ScratchParityConfig, runs: list[dict[str, Any]]) -> "Table":
    import numpy as np

    from ffnlab.report.table import Table

    rows = []
    for name in config.optimizers:
        lines = [line for line in runs if line["optimizer"] == name]
        last = [line for line in lines if line["steps"] == config.steps]
        scores = np.mean([line["test_accuracy"] for line in last], axis=0)
        ours, theirs = np.median([line["seconds_per_step"] for line in lines], axis=0)
        cells = [
            f"{config.rate(name):g}",
            f"{max(line['loss_difference'] for line in lines):.1e}",
            f"{max(line['parameter_difference'] for line in lines):.1e}",
            *(f"{100 * score:.2f}" for score in scores),
            f"{1e6 * ours:.0f}",
            f"{1e6 * theirs:.0f}",
            f"{ours / theirs:.2f}",
        ]
        rows.append([name, *cells])
    scored = ["test accuracy, engine", "JAX"]
    timed = ["µs/step, engine", "JAX", "ratio"]
    columns = ["optimizer", "rate", "loss", "parameters", *scored, *timed]
    return Table(columns, rows, words=1)


def _losses(runs: list[dict[str, Any]], name: str) -> "tuple[np.ndarray, np.ndarray]":
    """Returns the loss of every step of the first run, in the one and in the other."""
    import numpy as np

    lines = [run for run in runs if run["optimizer"] == name and run["seed"] == 0]
    ours, theirs = (np.concatenate([run["losses"][i] for run in lines]) for i in (0, 1))
    return ours, theirs


def _gaps(runs: list[dict[str, Any]], name: str) -> "np.ndarray":
    """Returns the largest difference of parameters after each epoch, over all seeds."""
    import numpy as np

    epochs = sorted({run["epoch"] for run in runs})
    return np.array(
        [
            max(
                run["parameter_difference"]
                for run in runs
                if run["optimizer"] == name and run["epoch"] == epoch
            )
            for epoch in epochs
        ]
    )
