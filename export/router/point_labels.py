"""Names beside the points of a plot, placed so that they cover as little as possible."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.export.router.drawing import QUIET
from costroute_rt.routing.array import FloatArray

MOST_NAMES = 40
_HEIGHT, _PER_LETTER, _SIZE = 9.0, 5.0, 8
_DISTANCES = (5.0, 9.0, 16.0, 26.0, 38.0, 54.0, 74.0, 100.0, 130.0)
_ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False) - np.pi / 4
_ROUNDS = 4
_MARGIN = 20.0
"""How far a text may reach beyond the right end of the axes, in points."""
_FAR = 12.0
"""A name further away than this is joined to its point by a line."""
_ALONG = np.linspace(0, 1, 16)[:, None]
_WEIGHTS = {"text": 300.0, "outside": 300.0, "joint": 60.0, "point": 12.0, "curve": 4.0, "distance": 0.16}


def label_points(axes: Any, texts: Sequence[str], x: Sequence[float], y: Sequence[float], curves: Iterable[tuple[Any, Any]] = ()) -> None:
    """Writes each text beside its point, or further away with a line to it, where it covers few points, texts and curves.

    curves: x and y of lines that are better left free. Of more than MOST_NAMES points the highest are named.
    """
    axes.figure.draw_without_rendering()  # lays out
    scale = axes.figure.dpi / 72
    points = axes.transData.transform(np.column_stack([x, y])) / scale
    frame = np.array(axes.get_window_extent().extents) / scale
    lines = [_sampled(axes.transData.transform(np.column_stack(each)) / scale) for each in curves]
    samples = np.concatenate([*lines, np.empty((0, 2))])
    named = np.sort(np.argsort(-np.asarray(y), kind="stable")[:MOST_NAMES])
    places = [_places(points[index], _PER_LETTER * len(texts[index])) for index in named]
    fixed = [_fixed_cost(boxes, points[index], points, samples, frame) for boxes, index in zip(places, named, strict=True)]
    for index, box in zip(named.tolist(), _best_places(places, fixed, points[named]), strict=True):
        _write(axes, texts[index], (x[index], y[index]), box, points[index])


def _best_places(places: Sequence[FloatArray], fixed: Sequence[FloatArray], points: FloatArray) -> list[FloatArray]:
    """float64[4] for each text: the best place that the others leave, the crowded points last, and after that again in turn.

    places: float64[places, 4] for each text. fixed: float64[places], their costs apart from other texts. points: float64[texts, 2].
    """
    crowd = (np.linalg.norm(points[:, None] - points[None], axis=2) < 40).sum(1)
    taken: dict[int, FloatArray] = {}
    for _ in range(_ROUNDS):
        for index in np.lexsort((points[:, 0], crowd)).tolist():
            others = [each for each in taken if each != index]
            boxes = np.array([taken[each] for each in others]).reshape(-1, 4)
            joints = np.concatenate([_joints(taken[each][None], points[each])[0] for each in others] or [np.empty((0, 2))])
            cost = fixed[index] + _shared_cost(places[index], points[index], boxes, joints)
            taken[index] = places[index][int(cost.argmin())]
    return [taken[index] for index in range(len(places))]


def _places(point: FloatArray, width: float) -> FloatArray:
    """float64[places, 4]: boxes (left, bottom, right, top) around a point, in points of the page."""
    distance, angle = (each.ravel() for each in np.meshgrid(_DISTANCES, _ANGLES, indexing="ij"))
    centre = point + np.column_stack([np.cos(angle) * (distance + width / 2), np.sin(angle) * (distance + _HEIGHT / 2)])
    half = np.array([width / 2, _HEIGHT / 2])
    return np.hstack([centre - half, centre + half])


def _fixed_cost(boxes: FloatArray, own: FloatArray, points: FloatArray, samples: FloatArray, frame: FloatArray) -> FloatArray:
    """float64[places]: what each place covers of points, curves and the outside, and how far it is away."""
    outside = (boxes[:, :2] < frame[:2]).any(1) | (boxes[:, 2] > frame[2] + _MARGIN) | (boxes[:, 3] > frame[3])
    found = _WEIGHTS["outside"] * outside + _WEIGHTS["distance"] * np.linalg.norm(_nearest(boxes, own) - own, axis=1)
    found += _WEIGHTS["point"] * _inside(points, boxes, 3.0).sum(1) + _WEIGHTS["curve"] * _inside(samples, boxes, 1.0).sum(1)
    return np.asarray(found, dtype=np.float64)


def _shared_cost(boxes: FloatArray, own: FloatArray, others: FloatArray, joints: FloatArray) -> FloatArray:
    """float64[places]: what each place, and the line from it to its point, covers of other texts and their lines.

    others: float64[texts, 4]. joints: float64[samples, 2].
    """
    meets = (boxes[:, None, :2] < others[:, 2:] + 1).all(2) & (others[:, :2] < boxes[:, None, 2:] + 1).all(2)
    crossed = _inside(_joints(boxes, own).reshape(-1, 2), others, 0.0).reshape(len(others), len(boxes), len(_ALONG)).any(2).sum(0)
    covered = _inside(joints, boxes, 1.0).any(1)
    return np.asarray(_WEIGHTS["text"] * meets.sum(1) + _WEIGHTS["joint"] * (crossed + covered), dtype=np.float64)


def _nearest(boxes: FloatArray, point: FloatArray) -> FloatArray:
    """float64[places, 2]: the point of each box that is nearest to a point."""
    return np.asarray(np.clip(point, boxes[:, :2], boxes[:, 2:]), dtype=np.float64)


def _joints(boxes: FloatArray, point: FloatArray) -> FloatArray:
    """float64[places, samples, 2]: points along the line from each box to its point; far outside where there is no line."""
    nearest = _nearest(boxes, point)
    is_far = np.linalg.norm(nearest - point, axis=1) > _FAR
    line = point + _ALONG * (nearest - point)[:, None]
    return np.where(is_far[:, None, None], line, -1e9)


def _inside(points: FloatArray, boxes: FloatArray, margin: float) -> npt.NDArray[np.bool_]:
    """bool[boxes, points]"""
    return np.asarray(((points > boxes[:, None, :2] - margin) & (points < boxes[:, None, 2:] + margin)).all(2))


def _sampled(line: FloatArray, step: float = 5.0) -> FloatArray:
    """float64[samples, 2]: points along a line, about `step` apart."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    at = np.arange(0, along[-1] + step, step)
    return np.column_stack([np.interp(at, along, line[:, 0]), np.interp(at, along, line[:, 1])])


def _write(axes: Any, text: str, place: tuple[float, float], box: FloatArray, point: FloatArray) -> None:
    nearest = _nearest(box[None], point)[0] - point
    how: dict[str, Any] = {"textcoords": "offset points", "annotation_clip": False}
    if np.linalg.norm(nearest) > _FAR:
        line = {"arrowstyle": "-", "color": QUIET, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        axes.annotate("", place, tuple(nearest), arrowprops=line, **how)
    axes.annotate(text, place, (box[0] - point[0], box[1] - point[1] + 1.5), fontsize=_SIZE, color=QUIET, **how)
