"""Pictures of the report of feedback networks, made from facts or taken from a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ffnlab import digests
from ffnlab.sweep import solver_plots
from ffnlab.sweep.report_facts import Facts
from ffnlab.sweep.result_lines import Line
from ffnlab.train.objectives import OBJECTIVES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_certificates(
    facts: Facts, runs: Sequence[Line]
) -> "dict[str, tuple[str, Figure]]":
    """Returns the picture of the score against the certificate, if there is one.

    Args:
      facts: The facts of a comparison.
      runs: The lines of all runs.

    Returns:
      File name to caption and figure.
    """
    if not facts.feedback or not facts.feedback.bounds:
        return {}
    source, dataset = next(iter(facts.sources.items()))
    lines = [run for run in runs if run.get("task") == source]
    names = {bound: name for name, bound in facts.feedback.bounds.items()}
    drawn = solver_plots.plot_certificates(
        lines, dict(sorted(names.items())), OBJECTIVES[dataset.task], dataset.marks
    )
    return {"coupling.png": drawn}


def read_solver_pictures(directory: Path) -> dict[str, tuple[str, bytes]]:
    """Returns the pictures of the solvers that a run has drawn, as PNG.

    They show the networks of replicate 0, so that any run of it has the same.

    Args:
      directory: The run directory.

    Returns:
      File name to caption and contents; none for a run without feedback networks.

    Raises:
      InputError: A picture is damaged or missing, by its digest.
    """
    remedy = "delete it, and resume the run, which draws it again"
    places = {n: digests.check(directory / n, remedy) for n in solver_plots.CAPTIONS}
    return {
        name: (solver_plots.CAPTIONS[name], place.read_bytes())
        for name, place in places.items()
        if place.exists()
    }
