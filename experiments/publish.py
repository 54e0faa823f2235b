"""What a comparison leaves for its reader: the table, the report and the pictures."""

from pathlib import Path
from typing import Any

from ffnlab import plots, report, results
from ffnlab.results import Line, Ranking


def publish(
    directory: Path,
    title: str,
    found: Ranking,
    runs: list[Line],
    about: dict[str, Any],
    note: str,
) -> None:
    """Prints a ranking, and writes report.md, ranking.png and curves.png.

    Args:
      directory: the directory of the run.
      title: the question, for the heading.
      found: the answer.
      runs: the lines it was made from.
      about: facts about the data.
      note: how the numbers came about.
    """
    print()
    found.table.show(f"{title}: {found.unit}, ranked by the test part")
    print(f"\n{found.verdict}")
    for remark in found.remarks:
        print(f"note: {remark}")
    report.write(directory / "report.md", _markdown(title, found, about, note))
    plots.save(
        plots.ranking(found.comparisons, found.baseline, found.unit, found.scale),
        directory / "ranking.png",
    )
    plots.save(
        plots.curves(
            runs[0]["curve"]["step"],
            results.curves(runs, found.score),
            found.baseline,
            found.unit.replace("test", "validation"),
            found.scale,
            found.higher_is_better,
        ),
        directory / "curves.png",
    )
    print(
        f"\nwritten to {directory}: report.md, ranking.png, curves.png, results.jsonl"
    )


def _markdown(title: str, found: Ranking, about: dict[str, Any], note: str) -> str:
    remarks = "".join(f"- {remark}\n" for remark in found.remarks)
    return f"""# {title}

{found.verdict}

{found.table.markdown()}

{note}

{remarks}
![ranking](ranking.png)
![curves](curves.png)

## To repeat it

Give the launcher `--flagfile` with the file `flags` beside this one. The versions of
all that matters are in versions.json, every run with its curve in results.jsonl.

## The data

{_facts(about)}
"""


def _facts(about: dict[str, Any]) -> str:
    """Returns what is known of the data, a line a fact; long lists are counted."""
    lines = []
    for name, fact in about.items():
        if isinstance(fact, (list, tuple, dict)) and len(fact) > 12:
            fact = f"{len(fact)} of them"
        lines.append(f"- {name.replace('_', ' ')}: {fact}")
    return "\n".join(lines)
