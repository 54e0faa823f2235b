"""What `benchmarks.anatomy` found, as tables, a picture and JSON."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.anatomy_kinds import KINDS, WAITING, Part
from benchmarks.anatomy_limits import Limits
from ffnlab import fonts
from ffnlab.escape import picture
from ffnlab.report.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Ran(NamedTuple):
    """An instruction that ran.

    Attributes:
      name: Its name.
      part: Its kind and its least work; None if the program's text does not have it.
      kind: One of `anatomy_kinds.KINDS`.
      seconds: Its share of the time of a step.
      count: How often it runs in a step.
    """

    name: str
    part: Part | None
    kind: str
    seconds: float
    count: float

    def limit(self, limits: Limits) -> float:
        """Returns the time that its products or else its memory need at the limits."""
        if self.part is None:
            return 0.0
        if self.part.flops:
            return self.count * self.part.flops / limits.flops
        return self.count * self.part.bytes / limits.bandwidth


class Row(NamedTuple):
    """A kind of work.

    Attributes:
      kind: One of `anatomy_kinds.KINDS`.
      seconds: Its time in a step.
      alone: The time of its matrix products alone, or None.
      limit: The time that it would take at the limits of the machine, or None.
      count: How many instructions of it run in a step.
    """

    kind: str
    seconds: float
    alone: float | None
    limit: float | None
    count: float


class Calls(NamedTuple):
    """The calls without a profile.

    Attributes:
      seconds: The time of a step in each call, its median.
      faults: The page faults of a step.
    """

    seconds: float
    faults: float


class Anatomy(NamedTuple):
    """What a step takes.

    Attributes:
      rows: Its kinds, in the order of `KINDS`, without those that it does not have.
      seconds: Its time in the profile, which is the sum of those of the rows.
      shared: The time in which several instructions run at once.
      ran: Its instructions, the longest first.
      limits: The limits of the machine.
      scanned: The calls of several steps, without a profile.
      single: The calls of one step each.
    """

    rows: list[Row]
    seconds: float
    shared: float
    ran: list[Ran]
    limits: Limits
    scanned: Calls
    single: Calls

    @property
    def products(self) -> tuple[float, float]:
        """The time of all its products alone, and its share of a step of a scan."""
        seconds = sum(row.alone or 0.0 for row in self.rows)
        return seconds, seconds / self.scanned.seconds

    def to_json(self) -> dict[str, Any]:
        """Returns all but the single instructions ready for JSON."""
        return {
            "kinds": [row._asdict() for row in self.rows],
            "seconds": self.seconds,
            "shared": self.shared,
            "limits": self.limits._asdict(),
            "scanned": self.scanned._asdict(),
            "single": self.single._asdict(),
            "products": self.products[0],
        }


def make_rows(
    ran: Sequence[Ran], idle: float, alone: Mapping[str, float], limits: Limits
) -> list[Row]:
    """Returns the kinds of a step.

    Args:
      ran: The instructions.
      idle: The time in which none runs.
      alone: Kind to the time of its matrix products alone.
      limits: The limits of the machine.
    """
    rows = []
    for kind in KINDS:
        if members := [each for each in ran if each.kind == kind]:
            seconds = sum(each.seconds for each in members)
            limit = sum(each.limit(limits) for each in members)
            count = sum(each.count for each in members)
            rows.append(Row(kind, seconds, alone.get(kind), limit, count))
    return [*rows, Row(WAITING, idle, None, None, 0.0)]


def tabulate(anatomy: Anatomy) -> Table:
    """Returns the table of the kinds, their sum, and the page faults among them."""
    rows = [_cells(row, anatomy.seconds) for row in anatomy.rows]
    limits = [row.limit for row in anatomy.rows if row.limit is not None]
    count = sum(row.count for row in anatomy.rows)
    whole = Row("whole step", anatomy.seconds, None, sum(limits), count)
    rows.append(_cells(whole, anatomy.seconds))
    faults = anatomy.scanned.faults
    lost = Row(
        "page faults, in the above", faults * anatomy.limits.fault, None, None, 0
    )
    rows.append([*_cells(lost, anatomy.seconds)[:-1], f"{faults:.0f}"])
    columns = ["kind", "ms", "share", "products alone, ms", "limit, ms"]
    return Table([*columns, "times its limit", "per step"], rows)


def _cells(row: Row, whole: float) -> list[str]:
    """Returns the cells of a row."""
    limit = row.limit or None
    return [
        row.kind,
        f"{1e3 * row.seconds:.4g}",
        f"{100 * row.seconds / whole:.1f} %",
        "" if row.alone is None else f"{1e3 * row.alone:.4g}",
        "" if limit is None else f"{1e3 * limit:.4g}",
        "" if limit is None else f"{row.seconds / limit:.2f}",
        f"{row.count:.0f}",
    ]


def tabulate_longest(anatomy: Anatomy, most: int) -> Table:
    """Returns the table of the instructions that take the most time.

    Instructions of one kind, opcode, shape and line of Python share a row.
    """
    groups: dict[tuple[str, ...], list[Ran]] = {}
    for each in anatomy.ran:
        groups.setdefault(_labels(each), []).append(each)
    order = sorted(groups, key=lambda key: -_total(groups[key]))
    rows = []
    for key in order[:most]:
        seconds, members = _total(groups[key]), groups[key]
        limit = sum(each.limit(anatomy.limits) for each in members)
        count = sum(each.count for each in members)
        cells = [f"{1e3 * seconds:.4g}", f"{100 * seconds / anatomy.seconds:.1f} %"]
        cells += [f"{seconds / limit:.2f}" if limit else "", f"{count:.0f}"]
        rows.append([*key, *cells])
    columns = ["kind", "instruction", "result", "line"]
    return Table([*columns, "ms", "share", "times its limit", "per step"], rows, 4)


def _total(members: Sequence[Ran]) -> float:
    return sum(each.seconds for each in members)


def _labels(ran: Ran) -> tuple[str, ...]:
    """Returns the words of an instruction: kind, opcode, shape and line of Python."""
    if ran.part is None:
        return ran.kind, ran.name, "", ""
    instruction = ran.part.instruction
    shape = instruction.shapes[0] if instruction.shapes else None
    result = f"{shape.dtype}{[*shape.sizes]}" if shape else ""
    line = ""
    if instruction.frames:
        file, function = instruction.frames[0]
        tail = "/".join(file.replace("\\", "/").split("/")[-2:])
        line = f"{tail} {re.sub('.<locals>', '', function)}"
    backward = "transpose(" in instruction.text
    opcode = f"{instruction.opcode}{', backward' if backward else ''}"
    return ran.kind, opcode, result, line


def draw(anatomy: Anatomy, title: str) -> "Figure":
    """Draws the kinds of a step as two stacked bars: as measured, and at their limits.

    Args:
      anatomy: What the step takes.
      title: The title of the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for bar, values in enumerate(
        ([row.seconds for row in anatomy.rows], [row.limit for row in anatomy.rows])
    ):
        left = 0.0
        for row, seconds in zip(anatomy.rows, values, strict=True):
            width = 1e3 * (seconds or 0.0)
            color = f"C{KINDS.index(row.kind) % 10}"
            hatch = "//" if KINDS.index(row.kind) >= 10 else None
            style = {"color": color, "hatch": hatch, "edgecolor": "white"}
            label = picture(row.kind) if bar == 0 else None
            axes.barh(bar, width, left=left, label=label, linewidth=0.5, **style)
            left += width
    axes.set_yticks([0, 1], ["measured", "at its limits"])
    axes.invert_yaxis()
    axes.set_xlabel("ms per step")
    axes.set_title(picture(title, 150), fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fonts.complete(figure)
