"""Tests of the labels of points."""

import itertools

import numpy as np
from matplotlib.figure import Figure

from ffnlab.report import point_labels


def test_no_label_is_over_another_or_over_a_point():
    figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    axes.set(xscale="log", xlim=(1e3, 1e7), ylim=(0, 100))
    values = [40.0, 40.5, 41.0, 41.2, 39.8]
    points = [(8e4 + 1e4 * i, y, f"method {i}") for i, y in enumerate(values)]
    point_labels.write(axes, points)
    boxes = [label.get_window_extent() for label in axes.texts]
    assert [label.get_text() for label in axes.texts] == [text for *_, text in points]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    marks = axes.transData.transform([(x, y) for x, y, _ in points])
    inside = [[box.contains(*mark) for mark in marks] for box in boxes]
    assert not np.any(inside)
