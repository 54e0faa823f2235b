"""What an experiment leaves for its reader: tables, a report and pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab import io
from ffnlab.report import plots
from ffnlab.sweep import ranking
from ffnlab.sweep.ranking import Line, Ranking

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Section(NamedTuple):
    """One ranking of an experiment.

    Attributes:
      name: what it is of, if there are several; part of the names of its pictures.
      found: the answer.
      runs: the lines it was made from.
      about: facts about the data.
      marks: scores to draw a line at, by what they are called.
    """

    name: str
    found: Ranking
    runs: Sequence[Line]
    about: dict[str, Any]
    marks: dict[str, float] = {}  # noqa: RUF012

    def picture(self, kind: str) -> str:
        """Returns the name of one of its pictures."""
        return "-".join(filter(None, (kind, self.name))) + ".png"


def publish(
    directory: Path,
    title: str,
    sections: Sequence[Section],
    note: str,
    pictures: "dict[str, tuple[str, Figure]] | None" = None,
) -> None:
    """Prints rankings, and writes report.md and the pictures.

    Args:
      directory: the directory of the run.
      title: the question, for the heading.
      sections: the rankings.
      note: how the numbers came about.
      pictures: file name to caption and figure, for the end of the report.
    """
    for section in sections:
        _show(title, section)
        _draw(directory, section)
    for name, (_, figure) in (pictures or {}).items():
        plots.save(figure, directory / name)
    io.write(directory / "report.md", _markdown(title, sections, note, pictures or {}))
    drawn = [s.picture(kind) for kind in ("ranking", "curves") for s in sections]
    written = ["report.md", *drawn, *(pictures or {}), "results.jsonl"]
    print(f"\nwritten to {directory}: {', '.join(written)}")


def _show(title: str, section: Section) -> None:
    found = section.found
    way = "higher" if found.higher_is_better else "lower"
    print()
    found.table.show(
        f"{section.name or title}: {found.unit}, {way} is better; ranked by the "
        "interquartile mean, Δ is the mean over equal seeds",
        essential=found.essential,
    )
    print(f"\n{found.verdict}")
    for name, value in section.marks.items():
        print(f"{name}: {value * found.scale:.4g}")
    for remark in found.remarks:
        print(f"note: {remark}")


def _draw(directory: Path, section: Section) -> None:
    found = section.found
    plots.save(
        plots.ranking(
            found.comparisons, found.baseline, found.unit, found.scale, section.marks
        ),
        directory / section.picture("ranking"),
    )
    plots.save(
        plots.curves(
            section.runs[0]["curve"]["step"],
            ranking.curves(section.runs, found.score),
            found.baseline,
            found.unit.replace("test", "validation"),
            found.scale,
            found.higher_is_better,
        ),
        directory / section.picture("curves"),
    )


def _markdown(
    title: str,
    sections: Sequence[Section],
    note: str,
    pictures: "dict[str, tuple[str, Figure]]",
) -> str:
    parts = "".join(map(_section, sections))
    extra = "".join(
        f"![{caption}]({name})\n\n{caption}\n\n"
        for name, (caption, _) in pictures.items()
    )
    return f"""# {title}

{note}

{parts}{extra}## To repeat it

Give the launcher `--flagfile` with the file `flags` beside this one. The versions of
all that matters are in versions.json, every run with its curve in results.jsonl, the
parameters of the chosen runs in best/.
"""


def _section(section: Section) -> str:
    found = section.found
    heading = f"## {section.name}\n\n" if section.name else ""
    marks = "".join(
        f"- {name}: {value * found.scale:.4g}\n"
        for name, value in section.marks.items()
    )
    remarks = "".join(f"- {remark}\n" for remark in found.remarks)
    return f"""{heading}{found.verdict}

{found.table.markdown()}

{marks}{remarks}
![ranking]({section.picture("ranking")})
![curves]({section.picture("curves")})

The data:

{_facts(section.about)}

"""


def _facts(about: dict[str, Any]) -> str:
    """Returns what is known of the data, a line a fact; long lists are counted."""
    lines = []
    for name, fact in about.items():
        if isinstance(fact, (list, tuple, dict)) and len(fact) > 12:
            fact = f"{len(fact)} of them"
        lines.append(f"- {name.replace('_', ' ')}: {fact}")
    return "\n".join(lines)
