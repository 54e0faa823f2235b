"""The report of an experiment: tables on the screen, report.md and pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffnlab import io
from ffnlab.escape import markdown, terminal
from ffnlab.report import plots, validation_plots, verdict_plots
from ffnlab.sweep.joint import Joint
from ffnlab.sweep.ranking import Ranking
from ffnlab.sweep.report_facts import FILES, REPEAT, about_as_text
from ffnlab.sweep.result_lines import Line, curves, rate_scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PICTURES = ("differences", "rates", "curves")
# File name to caption and figure, or the PNG that a run has drawn before.
Pictures = Mapping[str, "tuple[str, Figure | bytes]"]


class Section(NamedTuple):
    """One ranking of an experiment.

    Attributes:
      name: Its name if there are several, part of the names of its pictures; or "".
      ranking: The ranking.
      runs: The lines it was computed from.
      about: Facts about the data.
      marks: Scores to draw a line at, by name.
    """

    name: str
    ranking: Ranking
    runs: Sequence[Line]
    about: dict[str, Any]
    marks: dict[str, float] = {}  # noqa: RUF012

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of its pictures; there is no picture of rates without any."""
        rated = all(run["learning_rate"] is not None for run in self.runs)
        return PICTURES if rated else tuple(k for k in PICTURES if k != "rates")

    def picture(self, kind: str) -> str:
        """Returns the file name of one of its pictures."""
        return "-".join(filter(None, (kind, self.name))) + ".png"


class Report(NamedTuple):
    """The report of an experiment.

    Attributes:
      title: The heading of the report.
      sections: The rankings.
      note: How the numbers were computed, in Markdown.
      opening: The joint verdict on all sections, if there is one.
      repeat: How to repeat the experiment, a sentence or two.
      more: A section of its own before that, in Markdown, or empty.
    """

    title: str
    sections: Sequence[Section]
    note: str
    opening: Joint | None = None
    repeat: str = REPEAT
    more: str = ""

    def show(self) -> None:
        """Prints the rankings."""
        for section in self.sections:
            _show(self.title, section)
        if self.opening:
            print(f"\n{terminal(self.opening.verdict)}\n")
            self.opening.table.show("all data sets: effects in standard deviations")

    def write(self, directory: Path, pictures: "Pictures | None" = None) -> list[str]:
        """Writes report.md and the pictures, and returns the names of the files.

        Args:
          directory: The run directory.
          pictures: For the end of the report.
        """
        pictures = pictures or {}
        for section in self.sections:
            _draw(directory, section)
        save_pictures(directory, pictures)
        io.write(directory / "report.md", _markdown(self, pictures))
        drawn = [
            section.picture(kind)
            for kind in PICTURES
            for section in self.sections
            if kind in section.kinds
        ]
        return ["report.md", *drawn, *pictures]


def publish(
    directory: Path,
    title: str,
    sections: Sequence[Section],
    note: str,
    pictures: "Pictures | None" = None,
    opening: Joint | None = None,
) -> None:
    """Prints rankings, and writes report.md and the pictures.

    Args:
      directory: The run directory.
      title: The heading of the report.
      sections: The rankings.
      note: How the numbers were computed, in Markdown.
      pictures: For the end of the report.
      opening: The joint verdict on all sections, if there is one.
    """
    report = Report(title, sections, note, opening)
    report.show()
    written = [*report.write(directory, pictures), "results.jsonl"]
    print(f"\n{terminal(f'written to {directory}: ' + ', '.join(written))}")


def _show(title: str, section: Section) -> None:
    ranking = section.ranking
    better = "higher" if ranking.higher_is_better else "lower"
    print(f"\n{terminal(ranking.verdict)}\n")
    ranking.table.show(
        f"{section.name or title}: {ranking.unit}, {better} is better; means with 95 % "
        "intervals; Δ is the mean of paired differences, with simultaneous intervals",
        essential=ranking.essential,
    )
    for name, value in section.marks.items():
        print(f"{terminal(name)}: {value * ranking.scale:.4g}")
    for remark in ranking.remarks:
        print(f"note: {terminal(remark)}")


def _draw(directory: Path, section: Section) -> None:
    """Draws the differences, the scores at each learning rate, and the curves."""
    ranking, runs = section.ranking, section.runs
    scale, higher = ranking.scale, ranking.higher_is_better
    valid = ranking.unit.replace("test", "validation")
    scores, chosen = rate_scores(runs, ranking.score)
    rated = "rates" in section.kinds
    figures = {
        "differences": verdict_plots.forest(
            ranking.comparisons,
            ranking.unit,
            scale,
            ranking.margin,
            higher,
            section.marks,
        ),
        "curves": validation_plots.curves(
            runs[0]["curve"]["step"],
            curves(runs, ranking.score),
            ranking.baseline,
            valid,
            scale,
            higher,
            {n: _with_rate(n, counts) if rated else n for n, counts in chosen.items()},
        ),
    }
    if rated:
        figures["rates"] = validation_plots.rates(scores, chosen, valid, scale, higher)
    for kind, figure in figures.items():
        plots.save(figure, directory / section.picture(kind))


def _with_rate(name: str, counts: dict[float, int]) -> str:
    """Returns the name of a block with the learning rate that most runs chose."""
    return f"{name}, {max(counts, key=lambda rate: counts[rate]):g}"


def save_pictures(directory: Path, pictures: Pictures) -> None:
    """Writes pictures to a run directory."""
    for name, (_, figure) in pictures.items():
        if isinstance(figure, bytes):
            io.write(directory / name, figure)
        else:
            plots.save(figure, directory / name)


def list_pictures(pictures: Pictures) -> str:
    """Returns pictures with their captions in Markdown."""
    return "".join(
        f"![{markdown(caption)}]({name})\n\n{markdown(caption)}\n\n"
        for name, (caption, _) in pictures.items()
    )


def _markdown(report: Report, pictures: Pictures) -> str:
    title, sections, note, opening, repeat, more = report
    first = ""
    if opening:
        verdict = markdown(opening.verdict)
        first = f"{verdict}\n\n{opening.table.markdown()}\n\n{opening.note}\n\n"
    parts = "".join(map(_section, sections))
    extra = list_pictures(pictures)
    return f"""# {markdown(title)}

{first}{parts}{extra}## How the numbers were computed

{note}

{more}## How to repeat it

{repeat} {FILES}
"""


def _section(section: Section) -> str:
    ranking = section.ranking
    heading = f"## {markdown(section.name)}\n\n" if section.name else ""
    marks = "".join(
        f"- {markdown(name)}: {value * ranking.scale:.4g}\n"
        for name, value in section.marks.items()
    )
    remarks = "".join(f"- {markdown(remark)}\n" for remark in ranking.remarks)
    return f"""{heading}{markdown(ranking.verdict)}

{ranking.table.markdown()}

{marks}{remarks}
{_pictures(section)}

The data:

{_facts(section.about)}

"""


_CAPTIONS = {
    "differences": "differences from the baseline",
    "rates": "validation score by learning rate",
    "curves": "validation score over training",
}


def _pictures(section: Section) -> str:
    """Returns the pictures of a section in Markdown."""
    return "\n".join(
        f"![{_CAPTIONS[kind]}]({section.picture(kind)})" for kind in section.kinds
    )


def _facts(about: dict[str, Any]) -> str:
    """Returns the facts about the data, one per line; of long lists only the number."""
    lines = []
    for name, fact in about_as_text(about).items():
        heading = name.replace("_", " ")
        lines.append(f"- {markdown(f'{heading}: {fact}')}")
    return "\n".join(lines)
