"""Does the engine from scratch compute the same as JAX and optax?"""

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab import options
from ffnlab.escape import terminal
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
    """Parity: the data, the network and the optimizers."""

    data: str = option(
        "digits",
        "Built-in data set.",
        known=lambda: ("digits", "breast_cancer", "wine"),
    )
    optimizers: tuple[str, ...] = option(
        ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"),
        "Optimizers to compare.",
        known=names_in("ffnlab.scratch.optimizers", "OPTIMIZERS"),
    )
    hidden: tuple[int, ...] = option(
        (128,), "Widths of the hidden layers, possibly none.", least=1, empty=True
    )
    activation: str = option(
        "relu",
        "Activation of the hidden layers.",
        known=lambda: ("relu", "tanh", "sigmoid"),
    )
    learning_rate: float | None = option(
        None,
        "Learning rate of all optimizers. The default is 0.1 for sgd, momentum, "
        "nesterov and adagrad, and 0.003 for the others.",
        above=0,
    )
    weight_decay: float = option(1e-2, "Weight decay of adamw.", least=0)
    seeds: int = option(3, "Runs per optimizer.", least=1)
    steps: int = option(200, "Steps per run.", least=1)
    batch_size: int = option(128, "Examples per step.", least=1)
    seed: int = option(
        0, "Random seed of the split and of everything else.", least=0, below=2**31
    )
    out: str | None = option(
        None, "Output directory. The default is a new directory below runs/."
    )

    def __post_init__(self):
        options.check(self)

    def rate(self, optimizer: str) -> float:
        """Returns the learning rate of an optimizer."""
        coarse = ("sgd", "momentum", "nesterov", "adagrad")
        return self.learning_rate or (0.1 if optimizer in coarse else 3e-3)


class ScratchParityResult(NamedTuple):
    """The result of a comparison of the two programs.

    Attributes:
      out: The run directory.
      runs: A dict for each epoch of each run, as in results.jsonl.
      epochs: The differences by epoch, as printed.
      optimizers: The differences, scores and times by optimizer, as printed.
      largest: The largest difference of a loss or a parameter in any epoch.
    """

    out: Path
    runs: list[dict[str, Any]]
    epochs: "Table"
    optimizers: "Table"
    largest: float


class Trainer(NamedTuple):
    """One of the two programs.

    Attributes:
      init: `init(params) -> state`.
      step: `step(state, x, y) -> (state, loss)`.
      params: `params(state) -> params`, as NumPy arrays.
    """

    init: "Callable[[dict], Any]"
    step: "Callable[..., tuple[Any, Any]]"
    params: "Callable[[Any], dict]"


def check_parity(config: ScratchParityConfig) -> ScratchParityResult:
    """Runs the comparison and writes its report to the run directory.

    Args:
      config: What to train, and how.

    Raises:
      InputError: A directory cannot be used.
    """
    from ffnlab import data
    from ffnlab.report import run_directory
    from ffnlab.report.progress import Progress

    out = choose_directory(config.out, "from_scratch")
    dataset = data.load(config.data, config.seed)

    import jax

    with run_directory.open_run(out, config, resume=None) as directory:
        print(terminal(f"writing to {directory}"), flush=True)
        runs = []
        total = config.steps * config.seeds * len(config.optimizers)
        with jax.enable_x64(True), Progress(total, "steps") as progress:
            for optimizer in config.optimizers:
                trainers = (
                    _scratch_trainer(config, dataset, optimizer),
                    _jax_trainer(config, optimizer),
                )
                progress.begin(optimizer)
                for seed in range(config.seeds):
                    runs += _compare(config, dataset, optimizer, seed, trainers)
                    progress.reach(config.steps * (seed + 1))
                progress.end()
        return _publish(config, directory, runs)


def _sizes(config: ScratchParityConfig, dataset: "Dataset") -> list[int]:
    """Returns the widths of the perceptron."""
    return [dataset.features, *config.hidden, dataset.classes]


def _scratch_trainer(
    config: ScratchParityConfig, dataset: "Dataset", optimizer: str
) -> Trainer:
    """Returns the program that uses `ffnlab.scratch`."""
    from ffnlab.scratch import losses, models, optimizers, value_and_grad

    model = models.perceptron(_sizes(config, dataset), activation=config.activation)
    decay = {"weight_decay": config.weight_decay} if optimizer == "adamw" else {}
    rule = optimizers.OPTIMIZERS[optimizer](config.rate(optimizer), **decay)
    loss_and_grads = value_and_grad(
        lambda params, x, y: losses.cross_entropy(model.apply(params, x)[0], y)
    )

    def step(state: tuple, x: "np.ndarray", y: "np.ndarray") -> tuple:
        params, memory = state
        loss, grads = loss_and_grads(params, x, y)
        updates, memory = rule.update(grads, memory, params)
        return (optimizers.apply_updates(params, updates), memory), loss

    return Trainer(
        lambda params: (params, rule.init(params)), step, lambda state: state[0]
    )


def _jax_trainer(config: ScratchParityConfig, optimizer: str) -> Trainer:
    """Returns the program that uses JAX and optax, compiled."""
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
        loss_and_grads = jax.value_and_grad(loss_by_jax)
        loss, grads = loss_and_grads(params, x, y, config.activation)
        updates, memory = rule.update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory), loss

    def init(params: dict) -> tuple:
        params = jax.tree.map(jax.numpy.array, params)
        return params, rule.init(params)

    return Trainer(init, step, lambda state: jax.device_get(state[0]))


def loss_by_jax(
    params: dict, x: "jax.Array", y: "jax.Array", activation: str
) -> "jax.Array":
    """Returns the mean cross-entropy of a perceptron, computed by JAX and optax.

    Args:
      params: `layer_1` and so on, each with `kernel` `[D, H]` and `bias` `[H]`.
      x: `[B, D]`.
      y: Int `[B]`.
      activation: The name of a function of `jax.nn`.
    """
    import jax
    import optax

    a = x
    for number in range(1, len(params) + 1):
        layer = params[f"layer_{number}"]
        z = a @ layer["kernel"] + layer["bias"][None]
        a = getattr(jax.nn, activation)(z)
    return optax.softmax_cross_entropy_with_integer_labels(z, y).mean()


def _compare(
    config: ScratchParityConfig,
    dataset: "Dataset",
    optimizer: str,
    seed: int,
    trainers: tuple[Trainer, Trainer],
) -> list[dict[str, Any]]:
    """Returns a line for each epoch of a run of both programs."""
    import numpy as np

    from ffnlab import data
    from ffnlab.scratch import models

    train, size = dataset.train, data.size(dataset.train)
    x, y = train["x"].astype(np.float64), train["y"].astype(np.int64)
    batches = data.indices([seed], 0, config.steps, config.batch_size, size)[:, 0]
    model = models.perceptron(_sizes(config, dataset), activation=config.activation)
    states = [trainer.init(model.init((config.seed, seed))) for trainer in trainers]
    trainers[1].step(states[1], x[batches[0]], y[batches[0]])  # compiles
    lines, epoch = [], max(size // config.batch_size, 1)
    for begin in range(0, config.steps, epoch):
        rows = batches[begin : begin + epoch]
        results = map(lambda *pair: _run_steps(*pair, x, y, rows), trainers, states)
        states, losses, seconds, params = zip(*results, strict=True)
        differences = map(_largest_difference, *map(_arrays, params))
        lines.append(
            {
                "optimizer": optimizer,
                "seed": seed,
                "epoch": len(lines) + 1,
                "steps": begin + len(rows),
                "loss_difference": _largest_difference(*losses),
                "parameter_difference": max(differences),
                "losses": losses,
                "seconds_per_step": seconds,
                "test_accuracy": [_accuracy(config, dataset.test, p) for p in params],
            }
        )
    return lines


def _run_steps(
    trainer: Trainer, state: Any, x: "np.ndarray", y: "np.ndarray", rows: "np.ndarray"
) -> tuple[Any, list[float], float, dict]:
    """Returns the state after some steps, their losses, seconds per step and params."""
    start, losses = time.perf_counter(), []
    for batch in rows:
        state, loss = trainer.step(state, x[batch], y[batch])
        losses.append(loss)
    losses = [float(loss) for loss in losses]  # waits for the last step
    seconds = (time.perf_counter() - start) / len(rows)
    return state, losses, seconds, trainer.params(state)


def _arrays(params: dict) -> "list[np.ndarray]":
    """Returns the arrays of parameters, sorted by path."""
    from ffnlab.scratch import trees

    return [leaf for _, leaf in sorted(trees.named_leaves(params))]


def _largest_difference(first: Any, second: Any) -> float:
    """Returns the largest absolute difference of two arrays."""
    import numpy as np

    return float(np.abs(np.asarray(first) - np.asarray(second)).max())


def _accuracy(config: ScratchParityConfig, part: dict, params: dict) -> float:
    """Returns the accuracy of a perceptron on a part of the data."""
    import numpy as np

    from ffnlab.scratch import manual

    zs, _ = manual.forward(params, part["x"].astype(np.float64), config.activation)
    return float((zs[-1].argmax(axis=1) == part["y"]).mean())


def _publish(
    config: ScratchParityConfig, directory: Path, runs: list[dict[str, Any]]
) -> ScratchParityResult:
    """Prints the tables, and writes report.md, results.jsonl and the picture."""
    from ffnlab import io
    from ffnlab.report import plots

    epochs, optimizers = _by_epoch(runs), _by_optimizer(config, runs)
    names = ("loss_difference", "parameter_difference")
    largest = max(line[name] for line in runs for name in names)
    relation = "below" if largest < LIMIT else "NOT below"
    verdict = f"largest difference of all: {largest:.2g}, {relation} {LIMIT:g}"
    print()
    epochs.show("largest differences between the engine and JAX, over all runs")
    print()
    optimizers.show(
        f"largest differences over {config.steps} steps, final test accuracy in %, and "
        "median time of a step"
    )
    print(f"\n{verdict}")
    figure = plots.parity(
        {name: _losses(runs, name) for name in config.optimizers},
        {name: _gaps(runs, name) for name in config.optimizers},
        ("the engine", "JAX"),
        LIMIT,
    )
    plots.save(figure, directory / "curves.png")
    io.write_lines(directory / "results.jsonl", runs)
    io.write(directory / "report.md", _markdown(verdict, epochs, optimizers))
    print(terminal(f"written to {directory}: report.md, curves.png, results.jsonl"))
    return ScratchParityResult(directory, runs, epochs, optimizers, largest)


def _markdown(verdict: str, epochs: "Table", optimizers: "Table") -> str:
    """Returns the text of report.md."""
    return f"""# Does the engine from scratch compute the same as JAX and optax?

{verdict}

{epochs.markdown()}

{optimizers.markdown()}

Both programs start from equal parameters and use equal batches, in float64. The time of
a step includes gathering the batch; a step of JAX is one compiled call.

![losses and differences](curves.png)
"""


def _by_epoch(runs: list[dict[str, Any]]) -> "Table":
    """Returns the largest differences of every epoch."""
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
    return Table(
        ["epoch", "steps", "loss", "parameters", "optimizer of the largest"],
        rows,
        words=0,
    )


def _by_optimizer(config: ScratchParityConfig, runs: list[dict[str, Any]]) -> "Table":
    """Returns the differences, scores and times of every optimizer."""
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
    scores = ["test accuracy, engine", "test accuracy, JAX"]
    times = ["µs/step, engine", "µs/step, JAX", "ratio"]
    columns = ["optimizer", "rate", "loss", "parameters", *scores, *times]
    return Table(columns, rows, words=1)


def _losses(runs: list[dict[str, Any]], name: str) -> "tuple[np.ndarray, np.ndarray]":
    """Returns the loss of every step of the first run of both programs."""
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
