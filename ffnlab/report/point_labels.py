"""Labels beside points of a picture, none of them over another."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Offsets of a label from its point in points, and its alignment, the best first.
_PLACES = [
    (side * 6, height, "left" if side > 0 else "right")
    for height in (4, -12, 16, -24, 28, -36, 40, -48)
    for side in (1, -1)
]
_RADIUS = 5  # of a marker, in pixels


def write(axes: "Axes", points: Sequence[tuple[float, float, str]]) -> None:
    """Writes a label beside each point, at the first place that is free.

    Limits and scales of the axes must be set before.

    Args:
      axes: The axes, of a figure whose layout is otherwise complete.
      points: Horizontal and vertical position and label of each point.

    >>> from matplotlib.figure import Figure
    >>> axes = Figure().add_subplot()
    >>> write(axes, [(0.5, 0.5, "lora"), (0.5, 0.51, "dora")])
    >>> [label.xyann for label in axes.texts]
    [(6, 4), (-6, 4)]
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    FigureCanvasAgg(axes.figure).draw()  # places the axes
    middles = axes.transData.transform([(x, y) for x, y, _ in points])
    taken = [Bbox([middle - _RADIUS, middle + _RADIUS]) for middle in middles]
    for x, y, text in points:
        label = axes.annotate(
            text, (x, y), (0, 0), textcoords="offset points", fontsize=8
        )
        for *offset, side in _PLACES:
            label.xyann = tuple(offset)
            label.set_horizontalalignment(side)
            box = label.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
