"""The report of a comparison, made from its facts and the lines of its runs."""

from collections.abc import Sequence
from pathlib import Path

from ffnlab.options import RunOptions
from ffnlab.sweep import joint, ranking, run_files
from ffnlab.sweep.ranking import Ranking
from ffnlab.sweep.report import Report, Section
from ffnlab.sweep.report_facts import Facts
from ffnlab.sweep.result_lines import Line
from ffnlab.sweep.results import CompareResult
from ffnlab.train.objectives import OBJECTIVES

_DIAGNOSTICS = ("iterations", "residual", "radius", "converged")  # of feedback


def make_report(facts: Facts, runs: Sequence[Line], directory: Path) -> Report:
    """Returns the report of the runs on all data sets.

    Args:
      facts: The facts of the comparison.
      runs: The lines of all runs.
      directory: The run directory, which has the scores on shared test parts.
    """
    sections = [
        Section(
            facts.task(source),
            rank_source(facts, source, runs, directory),
            _lines(facts, source, runs),
            facts.sources[source].about,
            facts.sources[source].marks,
        )
        for source in facts.sources
    ]
    most = f"at most {facts.replicates}" if facts.stages else str(facts.replicates)
    note = facts.note.replace("{runs}", most)
    if facts.feedback and facts.feedback.from_files:
        from ffnlab.sweep import tagger_scores

        (source,) = facts.sources
        remark = tagger_scores.remark(directory, _slugs(facts, source))
        sections[0].ranking.remarks.append(remark)
    together = len(sections) > 1 and not facts.feedback
    opening = joint.judge_together(rankings(facts, sections)) if together else None
    return Report(facts.title, sections, note, opening, facts.repeat)


def rankings(facts: Facts, sections: Sequence[Section]) -> dict[str, Ranking]:
    """Returns the ranking of each data set by its name."""
    names = zip(facts.sources, sections, strict=True)
    return {source: section.ranking for source, section in names}


def rank_source(
    facts: Facts, source: str, runs: Sequence[Line], directory: Path
) -> Ranking:
    """Returns the ranking of the blocks on a data set; see `make_report`."""
    dataset, lines = facts.sources[source], _lines(facts, source, runs)
    examples = None
    if facts.shares_test_part(source):
        slugs = _slugs(facts, source)
        examples = run_files.read_examples(directory, slugs, lines)
    return ranking.rank(
        lines,
        facts.baseline,
        OBJECTIVES[dataset.task],
        facts.seed,
        _DIAGNOSTICS if facts.feedback else (),
        margin=facts.margin,
        test_ratio=dataset.test_ratio,
        examples=examples,
        stages=facts.stages,
    )


def _lines(facts: Facts, source: str, runs: Sequence[Line]) -> list[Line]:
    """Returns the runs of what is ranked on a data set."""
    task, blocks = facts.task(source), facts.blocks
    return [r for r in runs if r.get("task", "") == task and r["block"] in blocks]


def _slugs(facts: Facts, source: str) -> dict[str, str]:
    """Returns the name of each job on a data set as part of a path, by its name."""
    task = facts.task(source)
    return {name: run_files.slug_of(task, name) for name in facts.blocks}


def result(
    config: RunOptions, facts: Facts, report: Report, runs: list[Line], out: Path | None
) -> CompareResult:
    """Returns the result of a comparison.

    Args:
      config: The configuration of the run.
      facts: The facts of the comparison.
      report: From `make_report`.
      runs: The lines of all runs.
      out: The run directory; None where nothing was kept.
    """
    ranked = rankings(facts, report.sections)
    first = next(iter(ranked.values()))
    shown = report.opening or first
    return CompareResult(
        out, runs, first.comparisons, shown.table, shown.verdict, ranked, report, config
    )
