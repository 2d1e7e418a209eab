"""Plots of the report, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from costroute_rt.export.router.drawing import (
    ACCENT,
    GOLD,
    INK,
    ORANGE,
    PALE_BLUE,
    QUIET,
    TEAL,
    VIOLET,
    axes_on,
    cost_limits,
    figure_on,
    in_order,
    plain_name,
    short_names,
)
from costroute_rt.export.router.evaluate import Evaluation
from costroute_rt.export.router.point_labels import label_points

MOST_CATEGORIES = 100
LEAST_FAR = 20
"""With fewer labels, no coverage is drawn for them."""
_CURVES: dict[str, tuple[str, dict[str, Any]]] = {
    "oracle": ("upper bound (oracle on other seeds)", {"color": GOLD, "linestyle": (0, (1, 1.5)), "linewidth": 1.6}),
    "length": ("longer prompts get more time", {"color": TEAL, "linestyle": (0, (4, 2)), "linewidth": 1.3}),
    "hull": ("random mixing", {"color": QUIET, "linestyle": "solid", "linewidth": 1.3}),
    "average": ("averages only", {"color": VIOLET, "linestyle": (0, (5, 1.5, 1, 1.5)), "linewidth": 1.4}),
    "router": ("router", {"color": ACCENT, "linestyle": "solid", "linewidth": 2.6}),
}


def plot_curves(found: Evaluation) -> str:
    """Mean quality by mean cost with 95 % intervals: the router and the choices that need none."""
    names = short_names([row["name"] for row in found.candidates])
    with axes_on("curves", 7.8, 5.2) as (axes, out):
        costs, quality = ([row[key] for row in found.candidates] for key in ("cost_ms", "quality"))
        lines = {name: in_order(found.curves[name], max(costs)) for name in _CURVES if name in found.curves}
        for name, line in lines.items():
            label, style = _CURVES[name]
            band, alpha = found.bands[name], 0.20 if name == "router" else 0.07
            axes.fill_between(band.cost, band.low, band.high, color=style["color"], alpha=alpha, linewidth=0)
            axes.plot(*line, label=label, solid_capstyle="round", **style)
        low, high = _frame(found, quality)
        axes.set_xlim(*cost_limits(costs))
        axes.set_ylim(low, high)
        heights = [max(value, low + 0.03 * (high - low)) for value in quality]
        for row, height in zip(found.candidates, heights, strict=True):
            _single(axes, row, height, is_below=row["quality"] < low)
        texts = [f"{name} {value:.4g}" if value < low else name for name, value in zip(names, quality, strict=True)]
        axes.set_xlabel("mean milliseconds of an image")
        axes.set_ylabel("mean quality")
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, fontsize=9, borderaxespad=0.2)
        whiskers = [([row["cost_ms"]] * 2, row["quality_interval"]) for row in found.candidates if row["quality"] >= low]
        label_points(axes, texts, costs, heights, [*lines.values(), *whiskers])
    return out[0]


def _single(axes: Any, row: Mapping[str, Any], height: float, *, is_below: bool) -> None:
    """A single candidate with its interval; at the lower edge, without, if it is below the plot."""
    if not is_below:
        axes.vlines(row["cost_ms"], *row["quality_interval"], color=INK, alpha=0.45, linewidth=1.0, zorder=4)
    axes.scatter(row["cost_ms"], height, color=QUIET if is_below else INK, s=22, marker="v" if is_below else "o", zorder=5)


def _frame(found: Evaluation, quality: Sequence[float]) -> tuple[float, float]:
    """Ends of the quality axis: the curves, the interval of the router, and single candidates that are not far below them."""
    curves = [found.curves[name].quality for name in ("hull", "router", "oracle") if name in found.curves]
    curves += [found.bands["router"].low, found.bands["router"].high]
    low, high = (float(end(np.concatenate(curves))) for end in (np.min, np.max))
    reach = max(high - low, 1e-3)
    low = min([low, *(value for value in quality if value > low - 0.5 * reach)])
    return low - 0.15 * reach, high + 0.12 * reach


def plot_decides(found: Evaluation) -> str:
    """Where the prompt decides: heights above averages at equal mean cost, and how many prompts get another candidate than by averages."""
    with figure_on("decides", 7.8, 5.4) as (figure, out):
        upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1.5))
        for start, end in found.sure_ms:
            upper.axvspan(start, end, color=ACCENT, alpha=0.06, linewidth=0)
        upper.axhline(0, color=_CURVES["average"][1]["color"], linewidth=1.3, label="averages only")
        for name, (label, style) in _CURVES.items():
            if name in found.above_averages and name != "average":
                band = found.above_averages[name]
                if name == "router":
                    upper.fill_between(band.cost, band.low, band.high, color=ACCENT, alpha=0.20, linewidth=0)
                upper.plot(band.cost, band.value, label=label, **style)
        upper.set_ylabel("quality above averages")
        upper.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, fontsize=9, borderaxespad=0.2)
        settings = sorted(found.decided, key=lambda row: row["cost_ms"])
        lower.plot(
            [row["cost_ms"] for row in settings],
            [100 * row["share"] for row in settings],
            color=ACCENT,
            marker=".",
            markersize=3.5,
            linewidth=1.6,
        )
        lower.set_ylim(-4, 104)
        lower.set_ylabel("% decided\nby the prompt")
        lower.set_xlabel("mean milliseconds of an image")
    return out[0]


def plot_coverage(rows: Sequence[Mapping[str, Any]]) -> str:
    """Share of the labels inside their intervals by the share that is promised, near and far from the fitted labels where there are any."""
    parts = [("", "all prompts", ACCENT, "o", 0.0)]
    if min(rows[0]["near"], rows[0]["far"]) >= LEAST_FAR:
        parts += [("_near", "near the fitted labels", TEAL, "^", -0.8), ("_far", "far from them", ORANGE, "s", 0.8)]
    with axes_on("coverage", 3.8, 3.9) as (axes, out):
        axes.plot([40, 100], [40, 100], color=QUIET, linewidth=1.2)
        for part, label, colour, marker, aside in parts:
            level, share = (np.array([100 * row[key] for row in rows]) for key in ("level", f"covered{part}"))
            ends = 100 * np.array([row[f"covered{part}_interval"] for row in rows]).T
            axes.vlines(level + aside, *ends, color=colour, linewidth=1.6, alpha=0.6)
            axes.plot(level + aside, share, color=colour, marker=marker, markersize=5, linewidth=1.2, label=label)
        axes.set_xlabel("promised, %")
        axes.set_ylabel("labels inside, %")
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), fontsize=9, borderaxespad=0.2)
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
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlabel("gain over the best single candidate")
    return out[0]


def _category(row: Mapping[str, Any]) -> str:
    spent = "" if row["mean_ms"] is None else f", {row['mean_ms']:.0f} ms"
    return f"{plain_name(row['name'])} ({row['prompts']} prompts{spent})"
