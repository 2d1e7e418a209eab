"""Names beside the points of a plot, placed so that they cover as little as possible."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from costroute_rt.export.router.drawing import QUIET
from costroute_rt.routing.array import FloatArray

_HEIGHT, _PER_LETTER, _SIZE = 9.0, 5.0, 8
_DISTANCES = (5.0, 9.0, 16.0, 26.0, 38.0, 54.0, 74.0, 100.0, 130.0)
_MARGIN = 20.0
"""How far a text may reach beyond the right end of the axes."""
_FAR = 12.0
"""A name further away than this, in points, is joined to its point by a line."""
_WEIGHTS = {"text": 100.0, "point": 12.0, "curve": 4.0, "joint": 60.0, "outside": 150.0, "distance": 0.16}


def label_points(axes: Any, texts: Sequence[str], x: Sequence[float], y: Sequence[float], curves: Iterable[tuple[Any, Any]] = ()) -> None:
    """Writes each text beside its point, or further away with a line to it, where it covers few points, texts and curves.

    curves: x and y of lines that are better left free. A greedy search over places around each point, the crowded points last.
    """
    axes.figure.draw_without_rendering()  # lays out
    scale = axes.figure.dpi / 72
    points = axes.transData.transform(np.column_stack([x, y])) / scale
    frame = np.array(axes.get_window_extent().extents) / scale
    lines = [_sampled(axes.transData.transform(np.column_stack(each)) / scale) for each in curves]
    scene = _Scene(points, np.concatenate([*lines, np.empty((0, 2))]), frame, [], [np.full(2, -1e9)])
    crowd = (np.linalg.norm(points[:, None] - points[None], axis=2) < 40).sum(1)
    for index in np.lexsort((points[:, 0], crowd)).tolist():
        width = _PER_LETTER * len(texts[index])
        boxes = _boxes(points[index], width)
        best = int(np.argmin([scene.cost(box, points[index]) for box in boxes]))
        scene.take(boxes[best], points[index])
        _write(axes, texts[index], (x[index], y[index]), boxes[best], points[index])


def _boxes(point: FloatArray, width: float) -> list[FloatArray]:
    """float64[4] (left, bottom, right, top) of each place around a point."""
    found = []
    for distance in _DISTANCES:
        for angle in np.linspace(0, 2 * np.pi, 24, endpoint=False) - np.pi / 4:
            right, up = np.cos(angle), np.sin(angle)
            x, y = point[0] + right * (distance + width / 2), point[1] + up * (distance + _HEIGHT / 2)
            found.append(np.array([x - width / 2, y - _HEIGHT / 2, x + width / 2, y + _HEIGHT / 2]))
    return found


@dataclass(frozen=True, slots=True)
class _Scene:
    """What is in the plot already; everything in points."""

    points: FloatArray
    """float64[points, 2]"""
    samples: FloatArray
    """float64[samples, 2]: points on the curves."""
    frame: FloatArray
    """float64[4]"""
    taken: list[FloatArray]
    """float64[4] each: boxes of the texts."""
    joints: list[FloatArray]
    """float64[2] each: points on the lines from texts to their points."""

    def cost(self, box: FloatArray, own: FloatArray) -> float:
        """How bad a place is for the text of the point `own`, float64[2]."""
        nearest = np.clip(own, box[:2], box[2:])
        away = float(np.linalg.norm(nearest - own))
        joint = _sampled(np.stack([own, nearest])) if away > _FAR else np.empty((0, 2))
        outside = (box[:2] < self.frame[:2]).any() or box[2] > self.frame[2] + _MARGIN or box[3] > self.frame[3]
        found = {
            "text": sum(_meets(box, other) for other in self.taken),
            "outside": int(outside),
            "point": int(_inside(self.points, box, 3.0).sum()),
            "curve": int(_inside(self.samples, box, 1.0).sum()),
            "joint": sum(bool(_inside(joint, other, 0.0).any()) for other in self.taken)
            + int(_inside(np.array(self.joints), box, 1.0).any()),
            "distance": away,
        }
        return sum(_WEIGHTS[name] * value for name, value in found.items())

    def take(self, box: FloatArray, own: FloatArray) -> None:
        """Adds the text of the point `own`."""
        self.taken.append(box)
        nearest = np.clip(own, box[:2], box[2:])
        if np.linalg.norm(nearest - own) > _FAR:
            self.joints.extend(_sampled(np.stack([own, nearest])))


def _meets(one: FloatArray, other: FloatArray) -> bool:
    return bool((one[:2] < other[2:] + 1).all() and (other[:2] < one[2:] + 1).all())


def _inside(points: FloatArray, box: FloatArray, margin: float) -> Any:
    return ((points > box[:2] - margin) & (points < box[2:] + margin)).all(1)


def _sampled(line: FloatArray, step: float = 5.0) -> FloatArray:
    """float64[samples, 2]: points along a line, about `step` apart."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    at = np.arange(0, along[-1] + step, step)
    return np.column_stack([np.interp(at, along, line[:, 0]), np.interp(at, along, line[:, 1])])


def _write(axes: Any, text: str, place: tuple[float, float], box: FloatArray, point: FloatArray) -> None:
    nearest = np.clip(point, box[:2], box[2:]) - point
    how: dict[str, Any] = {"textcoords": "offset points", "annotation_clip": False}
    if np.linalg.norm(nearest) > _FAR:
        line = {"arrowstyle": "-", "color": QUIET, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        axes.annotate("", place, tuple(nearest), arrowprops=line, **how)
    axes.annotate(text, place, (box[0] - point[0], box[1] - point[1] + 1.5), fontsize=_SIZE, color=QUIET, **how)
