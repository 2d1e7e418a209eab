"""Plots of the report, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from costroute_rt.export.router.curve import Curve
from costroute_rt.export.router.drawing import (
    ACCENT,
    GOLD,
    INK,
    PALE_BLUE,
    QUIET,
    axes_on,
    in_order,
    label_points,
    plain_name,
    shades,
    short_names,
)
from costroute_rt.export.router.evaluate import Evaluation

MOST_CATEGORIES = 100
_CURVES = {
    "oracle": ("upper bound (oracle on other seeds)", {"color": GOLD, "linestyle": (0, (1, 1.5)), "linewidth": 1.6}),
    "length": ("longer prompts get more time", {"color": QUIET, "linestyle": (0, (4, 2)), "linewidth": 1.3}),
    "hull": ("random mixing", {"color": QUIET, "linestyle": "solid", "linewidth": 1.3}),
    "router": ("router", {"color": ACCENT, "linestyle": "solid", "linewidth": 2.6}),
}


def plot_curves(found: Evaluation) -> str:
    """Mean quality by mean cost: the router and the choices that need none."""
    names = short_names([row["name"] for row in found.candidates])
    with axes_on("curves", 7.8, 4.7) as (axes, out):
        costs, quality = ([row[key] for row in found.candidates] for key in ("cost_ms", "quality"))
        for name, (label, style) in _CURVES.items():
            if name in found.curves:
                axes.plot(*in_order(found.curves[name], max(costs)), label=label, solid_capstyle="round", **style)
        base, router = found.curves["hull"], found.curves["router"]
        grid = np.linspace(min(costs), max(costs), 200)
        axes.fill_between(grid, base.at(grid), router.at(grid), color=ACCENT, alpha=0.10, linewidth=0)
        low, high = _frame([found.curves[name] for name in ("hull", "router", "oracle") if name in found.curves])
        below = [value < low for value in quality]
        axes.set_xlim(min(costs) - 0.05 * np.ptp(costs), max(costs) + 0.11 * np.ptp(costs))
        axes.set_ylim(low, high)
        heights = [max(value, low + 0.03 * (high - low)) for value in quality]
        for cost, height, is_below in zip(costs, heights, below, strict=True):
            axes.scatter(cost, height, color=QUIET if is_below else INK, s=22, marker="v" if is_below else "o", zorder=5)
        texts = [f"{name} {value:.3f}" if is_below else name for name, value, is_below in zip(names, quality, below, strict=True)]
        axes.set_xlabel("mean milliseconds of an image")
        axes.set_ylabel("mean quality")
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, fontsize=9, borderaxespad=0.2)
        label_points(axes, texts, costs, heights)
    return out[0]


def plot_shares(found: Evaluation) -> str:
    """Shares of the candidates, from the least to the greatest mean cost."""
    order = sorted(range(len(found.candidates)), key=lambda index: found.candidates[index]["cost_ms"])
    names = [found.candidates[index]["name"] for index in order]
    with axes_on("shares", 7.8, 3.4) as (axes, out):
        at, bottom = np.arange(len(found.shares)), np.zeros(len(found.shares))
        for name, short, colour in zip(names, short_names(names), shades(names), strict=True):
            height = np.array([level["candidates"][name]["share"] for level in found.shares])
            axes.bar(at, height, 0.74, bottom=bottom, color=colour, label=short, edgecolor="white", linewidth=0.8)
            bottom += height
        axes.set_xticks(at, [f"{level['cost_ms']:.0f} ms\n{level['quality']:.3f}" for level in found.shares])
        axes.set_yticks([0, 0.5, 1], ["none", "half", "all"])
        axes.set_ylabel("share of prompts")
        axes.set_xlabel("mean milliseconds of an image, and mean quality")
        axes.grid(axis="x", visible=False)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9, reverse=True)
    return out[0]


def plot_calibration(found: Evaluation) -> str:
    """Actual quality by predicted quality, in bins of equally many cells."""
    bins = found.calibration["bins"]
    predicted, seen = [row["predicted"] for row in bins], [row["found"] for row in bins]
    with axes_on("calibration", 3.6, 3.2) as (axes, out):
        low, high = min(predicted + seen), max(predicted + seen)
        axes.plot([low, high], [low, high], color=QUIET, linewidth=1.2)
        axes.plot(predicted, seen, color=ACCENT, marker="o", markersize=5, linewidth=1.4)
        axes.set_xlabel("predicted quality")
        axes.set_ylabel("actual quality")
    return out[0]


def plot_categories(rows: Sequence[Mapping[str, Any]]) -> str:
    """Each category's gain with its interval, for the first MOST_CATEGORIES."""
    ordered = rows[:MOST_CATEGORIES][::-1]
    values = np.array([row["gain"]["value"] for row in ordered])
    reach = np.abs(np.array([[row["gain"]["low"], row["gain"]["high"]] for row in ordered]).T - values)
    with axes_on("categories", 7.4, 0.9 + 0.27 * len(ordered)) as (axes, out):
        axes.axvline(0, color=QUIET, linewidth=1.2)
        axes.errorbar(values, np.arange(len(ordered)), xerr=reach, fmt="o", color=ACCENT, ecolor=PALE_BLUE, elinewidth=2.5, markersize=5)
        axes.set_yticks(np.arange(len(ordered)), [_category(row) for row in ordered])
        axes.set_ylim(-0.6, len(ordered) - 0.4)
        axes.set_xlabel("gain over the best single candidate")
    return out[0]


def _category(row: Mapping[str, Any]) -> str:
    spent = "" if row["mean_ms"] is None else f", {row['mean_ms']:.0f} ms"
    return f"{plain_name(row['name'])} ({row['prompts']} prompts{spent})"


def _frame(curves: Sequence[Curve]) -> tuple[float, float]:
    """Ends of the quality axis: these curves, with some space around them."""
    low, high = (float(end(np.concatenate([each.quality for each in curves]))) for end in (np.min, np.max))
    reach = max(high - low, 1e-3)
    return low - 0.15 * reach, high + 0.10 * reach
