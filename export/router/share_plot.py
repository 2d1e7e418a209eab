"""Plots of the shares of prompts that candidates get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from costroute_rt.export.router.drawing import OTHERS, PAPER, axes_on, plain_name, shades, short_names
from costroute_rt.export.router.evaluate import Evaluation
from costroute_rt.routing.array import FloatArray

MOST_NAMED, MOST_KINDS, _LONGEST_KIND = 12, 40, 40
"""More candidates are drawn together; more kinds of prompts are left out of the plot."""


def plot_shares(found: Evaluation) -> str:
    """Shares of the candidates, from the least to the greatest mean cost."""
    cost_ms = {row["name"]: row["cost_ms"] for row in found.candidates}
    texts = [f"{level['cost_ms']:.0f} ms\n{level['quality']:.4g}" for level in found.shares]
    shares = [{name: each["share"] for name, each in level["candidates"].items()} for level in found.shares]
    with axes_on("shares", 7.8, 3.6) as (axes, out):
        _stack(axes, shares, cost_ms, upright=True)
        axes.set_xticks(np.arange(len(texts)), texts)
        axes.set_yticks([0, 0.5, 1], ["none", "half", "all"])
        axes.set_ylabel("share of prompts")
        axes.set_xlabel("mean milliseconds of an image, and mean quality")
        axes.grid(axis="x", visible=False)
    return out[0]


def plot_complexity(shares: Mapping[str, Mapping[str, float]], cost_ms: Mapping[str, float | None]) -> str:
    """SVG: for each kind of prompts, the share that each candidate gets, the cheapest at the left; for the first MOST_KINDS."""
    kinds = list(shares)[:MOST_KINDS]
    with axes_on("complexity", 7.8, max(2.9, 1.0 + 0.3 * len(kinds))) as (axes, out):
        _stack(axes, [shares[kind] for kind in kinds], cost_ms, upright=False)
        axes.set_yticks(np.arange(len(kinds)), [plain_name(kind, _LONGEST_KIND) for kind in kinds])
        axes.invert_yaxis()
        axes.set_xticks([0, 0.5, 1], ["none", "half", "all"])
        axes.set_xlabel("share of prompts")
        axes.grid(axis="y", visible=False)
    return out[0]


def _stack(axes: Any, shares: Sequence[Mapping[str, float]], cost_ms: Mapping[str, float | None], *, upright: bool) -> None:
    """Bars of the candidates on each other, the cheapest first, and a legend beside them."""
    names = sorted(cost_ms, key=lambda name: cost_ms[name] or 0.0)
    height = np.array([[each[name] for each in shares] for name in names])
    named = main_candidates(height)
    colours, shorts = shades(names), short_names(names)
    layers = [(_legible(shorts[index]), colours[index], height[index]) for index in named]
    rest = np.delete(height, named, axis=0)
    rest = rest[rest.any(1)]
    if len(rest):
        layers.append((f"{len(rest)} others", OTHERS, rest.sum(0)))
    draw = partial(_bar, axes, upright=upright)
    at, reached = np.arange(len(shares), dtype=np.float64), np.zeros(len(shares))
    for label, colour, each in layers:
        draw(at, each, 0.74, reached, color=colour, label=label, edgecolor=PAPER, linewidth=0.8)
        reached = reached + each
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9, reverse=upright)


def _legible(name: str) -> str:
    """The name in a form that legends show: those that start with an underscore, or are empty, would be left out."""
    return f" {name}" if name.startswith("_") or not name else name


def _bar(axes: Any, at: FloatArray, length: FloatArray, size: float, start: FloatArray, *, upright: bool, **style: Any) -> None:
    if upright:
        axes.bar(at, length, size, bottom=start, **style)
    else:
        axes.barh(at, length, size, left=start, **style)


def main_candidates(height: FloatArray) -> list[int]:
    """Numbers of the candidates that are drawn by themselves: those with prompts; if they are too many, those with the greatest shares.

    height: float64[candidates, bars].
    """
    most = height.max(1)
    return sorted(index for index in np.argsort(-most, kind="stable")[:MOST_NAMED].tolist() if most[index] > 0)
