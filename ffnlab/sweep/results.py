"""The results of comparisons: tables, frames and pictures, and reports of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab.errors import InputError, choose

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

    from ffnlab.options import RunOptions
    from ffnlab.report.table import Table
    from ffnlab.stats import Comparison
    from ffnlab.sweep.ranking import Ranking
    from ffnlab.sweep.report import Report


class CompareResult(NamedTuple):
    """The result of a comparison.

    Attributes:
      out: The run directory; None where nothing was kept.
      runs: A dict for each run, as in results.jsonl.
      comparisons: The blocks, ranked from best to worst; of several data sets those of
        the first.
      table: The ranking as a table; of several data sets the joint table.
      verdict: The ranking in two sentences; of several data sets the joint verdict.
      rankings: Name of the data set to its ranking.
      report: What the report is written from.
      config: The configuration.
    """

    out: Path | None
    runs: list[dict[str, Any]]
    comparisons: "list[Comparison]"
    table: "Table"
    verdict: str
    rankings: "dict[str, Ranking]"
    report: "Report"
    config: "RunOptions"

    def __repr__(self) -> str:
        return f"CompareResult({self.verdict!r})"

    def _repr_markdown_(self) -> str:
        from ffnlab.escape import markdown

        return f"{markdown(self.verdict)}\n\n{self.table.markdown()}"

    def frame(self) -> "pandas.DataFrame":
        """Returns a DataFrame with a row for each run; see `frame_of`.

        Raises:
          InputError: pandas is not installed.
        """
        return frame_of(self.runs)

    def plot(self, ax: "Axes | None" = None, dataset: str | None = None) -> "Axes":
        """Draws the differences from the baseline, as differences.png.

        Args:
          ax: The axes of matplotlib to draw on; None makes a figure by pyplot.
          dataset: One of several data sets; None is the first.

        Returns:
          The axes.
        """
        return plot_ranking(self.rankings, ax, dataset)

    def save(self, directory: str | Path) -> Path:
        """Writes report.md, the pictures and results.jsonl to a new directory.

        Parameters of the chosen runs are kept only in a directory that the comparison
        was given as `out`.

        Raises:
          InputError: The directory cannot be used.
        """
        return save_report(directory, self.report, self.runs, self.config)


def frame_of(runs: Sequence[Mapping[str, Any]]) -> "pandas.DataFrame":
    """Returns a DataFrame with a row for each run.

    Its columns are `task` (the data set, if there are several), `block` (the name of
    what is compared), `replicate`, `learning_rate` (missing for an optimizer with a
    rate of its own), `chosen` (whether it is the rate of its replicate, and was scored
    on the test part), `valid_SCORE` and `test_SCORE` for each score, `best_step`,
    `diverged_at` (missing for a run that did not diverge), `trivial` (the score of a
    trivial predictor), the facts of the block such as `parameters`, and
    `microseconds_per_step` and `compile_seconds`.

    Args:
      runs: The lines of results.jsonl.

    Raises:
      InputError: pandas is not installed.
    """
    return import_pandas().DataFrame([_row(run) for run in runs])


def import_pandas() -> Any:
    """Returns pandas; raises if it is not installed."""
    try:
        import pandas
    except ImportError:
        raise InputError(
            "frame: pandas is not installed; pip install 'ffnlab[frames]'"
        ) from None
    return pandas


def _row(run: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the row of a run."""
    row = {"task": run["task"]} if "task" in run else {}
    row |= {"block": run["block"], "replicate": run["seed"]}
    row |= {name: run[name] for name in ("learning_rate", "chosen")}
    for part in ("valid", "test"):
        row |= {f"{part}_{name}": value for name, value in (run[part] or {}).items()}
    rest = {
        name: value
        for name, value in run.items()
        if name not in ("seed", "tried", "valid", "test", "curve") and name not in row
    }
    return row | rest


def plot_ranking(
    rankings: "Mapping[str, Ranking]", axes: "Axes | None", name: str | None = None
) -> "Axes":
    """Draws the differences of a ranking on given axes, or on those of a new figure.

    Args:
      rankings: The rankings by name.
      axes: The axes; None makes a figure by pyplot.
      name: The name of the ranking to draw; None is the first.
    """
    if not rankings:
        raise InputError("plot: a shard has no ranking; join all shards by judge")
    name = next(iter(rankings)) if name is None else name
    ranking = rankings[choose("ranking", name, rankings)]
    return plot_differences(
        ranking.comparisons,
        axes,
        label=ranking.unit,
        scale=ranking.scale,
        margin=ranking.margin,
        higher_is_better=ranking.higher_is_better,
    )


def plot_differences(
    comparisons: "Sequence[Comparison]", axes: "Axes | None", **options: Any
) -> "Axes":
    """Draws differences on given axes, or on those of a new figure, and returns them.

    Args:
      comparisons: From `stats.compare`.
      axes: The axes; None makes a figure by pyplot.
      **options: See `report.verdict_plots.forest`.
    """
    from ffnlab.report import verdict_plots

    alone = axes is None
    if alone:
        from matplotlib import pyplot

        size = verdict_plots.forest_size(comparisons)
        axes = pyplot.figure(figsize=size, layout="constrained").add_subplot()
    elif not hasattr(axes, "set_xlabel"):
        raise InputError(
            f"ax: expected axes of matplotlib, got {type(axes).__name__}; of several "
            "give one, such as axes[0]"
        )
    verdict_plots.draw_forest(axes, comparisons, whole_figure=alone, **options)
    return axes


def save_report(
    directory: str | Path,
    report: "Report",
    runs: Sequence[Mapping[str, Any]],
    config: "RunOptions",
) -> Path:
    """Writes a report and the lines of its runs to a new directory.

    Raises:
      InputError: The directory cannot be used.
    """
    from ffnlab import io
    from ffnlab.report import run_directory

    check_new(directory)
    with run_directory.open_run(directory, config, None, quiet=True) as path:
        io.write_lines(path / "results.jsonl", runs)
        report.write(path)
        run_directory.finish(path)
    return path


def check_new(directory: str | Path, way: str = "") -> None:
    """Raises if a directory exists and holds something.

    Args:
      directory: The directory.
      way: What the error adds: another way out.
    """
    path = Path(directory)
    if path.is_dir() and any(path.iterdir()):
        raise InputError(f"out: {path} is not empty; name a new directory{way}")
