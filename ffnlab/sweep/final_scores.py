"""The scores of the chosen runs of a population on the test part."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from ffnlab import trees
from ffnlab.data import Replicates
from ffnlab.sweep import fillers, result_lines, run_files, scoring
from ffnlab.sweep.design import Design
from ffnlab.sweep.population import Population
from ffnlab.sweep.trivial import trivial_scores
from ffnlab.train.program import Program
from ffnlab.train.record import Plan

if TYPE_CHECKING:
    from ffnlab.sweep.job import Job


def score_chosen(
    job: "Job",
    plan: Plan,
    population: Population,
    directory: Path,
    design: Design,
    program: Program | None,
) -> list[dict[str, Any]]:
    """Scores the chosen members on the test part, and writes their parameters.

    The test part is used once, at the learning rate that validation chose.

    Args:
      job: What was trained.
      plan: How long it was trained.
      population: All runs of some replicates.
      directory: Receives best/NAME.npz and examples/NAME.npz; see `jobs.train_all`.
      design: What the runs of a model have in common.
      program: What has scored the validation part, and is not compiled again for a test
        part of its shapes; None compiles one.

    Returns:
      The lines of all runs.
    """
    chosen = result_lines.choose_members(population, plan, shared_rate=design.fixed)
    before = int(population.seeds[chosen[0]]) - design.first  # rows of earlier stages
    scored, count = fillers.fill(chosen) if design.part else chosen, len(chosen)
    params = jax.tree.map(
        lambda array: jax.device_get(array)[scored], population.fit.best
    )
    replicated = isinstance(job.dataset, Replicates)
    rows = job.dataset.rows["test"][population.seeds[scored]] if replicated else None
    part = scoring.scored_parts(job.dataset)[1]
    given = (job.model, job.objective, part, params)
    scores = scoring.evaluate_members(*given, rows, program=program)
    scores = {name: values[:count] for name, values in scores.items()}
    params = jax.tree.map(lambda array: array[:count], params)
    path = run_files.path_of(directory, "best", job.slug)
    run_files.append(path, trees.flatten(params), before)
    if job.scores_examples(design):
        entries = {plan.monitor: scoring.score_examples(*given)[:count]}
        path = run_files.path_of(directory, "examples", job.slug)
        run_files.append(path, entries, before)
    trivial = trivial_scores(job.dataset, plan.monitor)
    return result_lines.lines(job.facts, population, plan, chosen, scores, trivial)
