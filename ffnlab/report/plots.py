"""Pictures of results. What draws returns a figure, and `save` writes it.

Names and titles may hold any text: what draws escapes them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ffnlab import fonts, io
from ffnlab.escape import picture, terminal

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save(figure: "Figure", path: Path) -> None:
    """Writes a figure as PNG, and prints which characters no font has."""
    with io.atomic(path, "wb") as file:
        figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    if note := fonts.note():
        print(terminal(f"note: {note}"), flush=True)


def convergence(panels: Mapping[str, Mapping[str, np.ndarray]]) -> "Figure":
    """Draws the residual of each solver over the iterations.

    Args:
      panels: Title to solver to residuals, `[iterations + 1, sequences]`. The line is
        the median over sequences, the shaded area the middle half.

    >>> len(convergence({"a": {"jacobi": np.ones((3, 5))}, "b": {}}).axes)
    2
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(panels), 4.0), layout="constrained")
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, solvers) in zip(row, panels.items(), strict=True):
        for place, (name, residuals) in enumerate(solvers.items()):
            shown = np.maximum(np.nan_to_num(residuals, nan=1e3), 1e-8)
            low, middle, high = np.percentile(shown, [25, 50, 75], axis=1)
            steps, color = range(len(residuals)), f"C{place}"
            axes.semilogy(steps, middle, color=color, label=picture(name))
            axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
        axes.set_title(picture(title, 60), fontsize=9)
        axes.set_xlabel("iteration")
        axes.grid(alpha=0.3)
    row[0].set_ylabel("residual")
    row[0].legend(fontsize=8)
    return fonts.complete(figure)


def relaxation(panels: Mapping[str, np.ndarray]) -> "Figure":
    """Draws the distance of each state from the solution, iteration after iteration.

    Args:
      panels: Title to distances, `[iterations + 1, T]`.

    >>> len(relaxation({"certified": np.ones((4, 6))}).axes)  # with a colour bar
    2
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0 * len(panels), 4.0), layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, distances) in zip(row, panels.items(), strict=True):
        shown = np.log10(np.maximum(distances, 1e-6))
        image = axes.imshow(shown, aspect="auto", cmap="viridis", vmin=-6, vmax=0)
        axes.set_title(picture(title, 60), fontsize=9)
        axes.set_xlabel("position t")
        axes.set_ylabel("iteration")
    label = "log₁₀ distance from the last iteration"
    figure.colorbar(image, ax=list(row), label=label)
    return fonts.complete(figure)


def parity(
    losses: Mapping[str, tuple[np.ndarray, np.ndarray]],
    gaps: Mapping[str, np.ndarray],
    names: tuple[str, str],
    limit: float,
) -> "Figure":
    """Draws the losses of two programs, and the differences of their parameters.

    Args:
      losses: Setting to the losses of every step of the first and the second program.
      gaps: Setting to the largest difference of the parameters after every epoch.
      names: The names of the programs.
      limit: A difference to draw a line at.

    >>> one = np.array([1.0, 0.5])
    >>> figure = parity({"sgd": (one, one)}, {"sgd": one}, ("ours", "JAX"), 1e-9)
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss', 'largest difference of parameters']
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, (name, (first, second)) in enumerate(losses.items()):
        every = max(len(second) // 40, 1)
        steps = range(0, len(second), every)
        left.semilogy(first, color=f"C{place}", linewidth=1.2, label=picture(name))
        left.semilogy(steps, second[::every], ".", color=f"C{place}", markersize=5)
        shown = np.maximum(gaps[name], 1e-17)
        epochs = range(1, len(shown) + 1)
        right.semilogy(epochs, shown, color=f"C{place}", marker="o", markersize=3)
    title = picture(f"lines: {names[0]}, dots: {names[1]}", 60)
    left.set(xlabel="step", ylabel="loss", title=title)
    right.axhline(limit, color="black", linestyle="--", linewidth=0.8)
    right.set(xlabel="epoch", ylabel="largest difference of parameters")
    left.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return fonts.complete(figure)


def training_curve(
    losses: np.ndarray,
    steps: Sequence[int],
    scores: np.ndarray,
    label: str,
    marks: Mapping[str, float] | None = None,
) -> "Figure":
    """Draws the training loss and the validation score of a run.

    Args:
      losses: The loss of each step, in the unit of the scores.
      steps: The steps of the evaluations.
      scores: The validation score of each evaluation.
      label: The label of the score, with its unit.
      marks: Scores to draw a line at, by name.

    >>> training_curve(np.ones(4), [2, 4], np.ones(2), "bits").axes[0].get_ylabel()
    'bits'
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    line = {"color": "0.75", "linewidth": 0.6, "label": "training, each step"}
    axes.plot(np.arange(1, len(losses) + 1), losses, **line)
    axes.plot(steps, scores, "o-", color="C0", markersize=4, label="validation")
    for place, (name, value) in enumerate((marks or {}).items(), 1):
        axes.axhline(value, color=f"C{place}", linestyle="--", label=picture(name))
    worst = max(scores[0], *(marks or {"": scores[0]}).values())
    axes.set(xlabel="step", ylim=(0.9 * scores.min(), 1.2 * worst))
    axes.set_ylabel(picture(label, 60))
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return fonts.complete(figure)


def scores_by_label(scores: Mapping[str, float], name: str = "F1") -> "Figure":
    """Draws the score of each label as a bar, the best on top.

    Args:
      scores: Label to score, from 0 to 1; only the 30 worst are drawn.
      name: The name of the score.

    >>> len(scores_by_label({"LOC": 0.5, "PER": 0.8}).axes[0].patches)
    2
    """
    from matplotlib.figure import Figure

    worst = sorted(scores, key=scores.__getitem__)[:30]
    figure = Figure(figsize=(7.0, 1.0 + 0.28 * len(worst)), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(worst))
    axes.barh(places, [100 * scores[label] for label in worst], color="C0")
    axes.set_yticks(places, [picture(label) for label in worst])
    axes.set(xlabel=f"{picture(name)}, %", xlim=(0, 100))
    axes.grid(axis="x", alpha=0.3)
    return fonts.complete(figure)


def confusion(counts: np.ndarray, names: Sequence[str]) -> "Figure":
    """Draws a confusion matrix, each row by its share of the true label.

    Args:
      counts: The number of examples of each true label, predicted as each label,
        `[K, K]`.
      names: The names of the labels.

    >>> confusion(np.eye(2), ["a", "b"]).axes[0].get_xlabel()
    'predicted'
    """
    from matplotlib.figure import Figure

    names = [picture(name, 24) for name in names]
    side = 2.5 + 0.35 * len(names) + 0.07 * max(0, max(map(len, names)) - 12)  # inches
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts > 0) if len(names) <= 20 else ():
        color = "white" if shares[row, column] > 0.5 else "black"
        style = {"color": color, "ha": "center", "va": "center", "fontsize": 8}
        axes.text(column, row, f"{counts[row, column]:.0f}", **style)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true")
    return fonts.complete(figure)


def predicted_against_true(predicted: np.ndarray, true: np.ndarray) -> "Figure":
    """Draws predicted numbers against the true ones, and the line where they are equal.

    Args:
      predicted: The predicted numbers, `[N]`.
      true: The true numbers, `[N]`.

    >>> figure = predicted_against_true(np.array([1.0, 2.0]), np.array([1.0, 3.0]))
    >>> figure.axes[0].get_xlabel()
    'true'
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 5.0), layout="constrained")
    axes = figure.add_subplot()
    size, alpha = (12.0, 0.6) if len(true) <= 500 else (6.0, 0.3)
    axes.scatter(true, predicted, s=size, alpha=alpha, color="C0", linewidths=0)
    ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
    axes.plot(ends, ends, color="gray", linewidth=1.0, label="equal")
    axes.set(xlabel="true", ylabel="predicted")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return figure


def graph(
    labels: Sequence[str],
    depths: Sequence[int],
    leaves: Sequence[bool],
    edges: Sequence[tuple[int, int]],
) -> "Figure":
    """Draws a graph in columns, from the leaves on the left to the result.

    Args:
      labels: The text of each node.
      depths: The column of each node.
      leaves: Whether each node is a leaf.
      edges: Pairs of nodes, from an input to a result.

    >>> len(graph(["x", "y"], [0, 1], [True, False], [(0, 1)]).axes)
    1
    """
    from matplotlib.figure import Figure

    columns = [[i for i, d in enumerate(depths) if d == c] for c in sorted({*depths})]
    tallest = max(map(len, columns))
    figure = Figure(figsize=(1.7 * len(columns), 0.8 + 0.7 * tallest))
    axes = figure.add_subplot()
    places = {
        node: (column, (tallest - len(nodes)) / 2 + row)
        for column, nodes in enumerate(columns)
        for row, node in enumerate(nodes)
    }
    for start, end in edges:
        arrow = {"arrowstyle": "->", "color": "0.5", "shrinkA": 22, "shrinkB": 22}
        axes.annotate("", places[end], places[start], arrowprops=arrow)
    for node, (x, y) in places.items():
        box = {"boxstyle": "round", "fc": "C1" if leaves[node] else "C0", "alpha": 0.9}
        label = picture(labels[node], 60).replace(" [", "\n[").replace(" ", "\n", 1)
        axes.text(x, y, label, ha="center", va="center", fontsize=8, bbox=box)
    axes.set(xlim=(-0.6, len(columns) - 0.4), ylim=(tallest - 0.4, -0.6))
    axes.axis("off")
    return fonts.complete(figure)


def scores_by_setting(
    values: Sequence[float],
    middles: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    labels: tuple[str, str],
    marks: Mapping[str, float] | None = None,
) -> "Figure":
    """Draws scores and their intervals against a setting.

    Args:
      values: The values of the setting.
      middles: The score for each value.
      intervals: The interval of each score.
      labels: The labels of the two axes.
      marks: Scores to draw a line at, by name.

    >>> intervals, labels = [(2, 4), (3, 5)], ("γ", "accuracy")
    >>> scores_by_setting([1, 2], [3, 4], intervals, labels).axes[0].get_xlabel()
    'γ'
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 4.0), layout="constrained")
    axes = figure.add_subplot()
    ends = np.abs(np.array(intervals) - np.array(middles)[:, None]).T  # [2, N]
    axes.errorbar(values, middles, yerr=ends, fmt="o-", capsize=3)
    for place, (name, value) in enumerate((marks or {}).items(), 1):
        axes.axhline(value, color=f"C{place}", linestyle="--", label=picture(name))
    axes.set_xlabel(picture(labels[0], 60))
    axes.set_ylabel(picture(labels[1], 60))
    axes.grid(alpha=0.3)
    if marks:
        axes.legend(fontsize=8)
    return fonts.complete(figure)
