"""The report's plots, as SVG for a page."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from costroute_rt.engines.error import BackendError
from costroute_rt.export.router.curve import Curve
from costroute_rt.export.router.evaluate import Evaluation

INK, QUIET, GRID = "#1d2433", "#6b7486", "#e4e8ef"
ACCENT, GOLD = "#2563eb", "#d97706"
STEPS = ("#c7dbf7", "#9dc0f0", "#6e9fe6", "#417bd6", "#2458b3", "#173d80", "#0d2650")
"""From the cheapest candidate to the dearest."""
_STYLE = {
    "svg.fonttype": "none",
    "font.family": ["sans-serif"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": QUIET,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}
_CURVES = {
    "oracle": ("as labels allow (chosen on other seeds)", {"color": GOLD, "linestyle": (0, (1, 1.5)), "linewidth": 1.6}),
    "length": ("longer prompts get more", {"color": QUIET, "linestyle": (0, (4, 2)), "linewidth": 1.3}),
    "hull": ("random mixing", {"color": QUIET, "linestyle": "solid", "linewidth": 1.3}),
    "router": ("router", {"color": ACCENT, "linestyle": "solid", "linewidth": 2.6}),
}


def plot_curves(found: Evaluation) -> str:
    """Mean quality by mean cost: the router over everything that needs none."""
    with _axes("curves", 7.4, 4.4) as (axes, out):
        ends = [row["cost_ms"] for row in found.candidates]
        for name, (label, style) in _CURVES.items():
            if name in found.curves:
                costs, quality = _in_order(found.curves[name], max(ends))
                axes.plot(costs, quality, label=label, solid_capstyle="round", **style)
        base, router = found.curves["hull"], found.curves["router"]
        grid = np.linspace(min(ends), max(ends), 200)
        axes.fill_between(grid, base.at(grid), router.at(grid), color=ACCENT, alpha=0.10, linewidth=0)
        axes.scatter(ends, [row["quality"] for row in found.candidates], color=INK, s=22, zorder=5)
        for row in found.candidates:
            axes.annotate(row["name"], (row["cost_ms"], row["quality"]), (5, -11), textcoords="offset points", fontsize=8, color=QUIET)
        axes.set_xlabel("mean milliseconds of an image")
        axes.set_ylabel("mean quality")
        axes.legend(loc="lower right", fontsize=9)
    return out[0]


def plot_shares(found: Evaluation) -> str:
    """Which candidates the prompts get, from thrifty to generous."""
    order = sorted(range(len(found.candidates)), key=lambda index: found.candidates[index]["cost_ms"])
    names = [found.candidates[index]["name"] for index in order]
    with _axes("shares", 7.4, 3.0) as (axes, out):
        at, bottom = np.arange(len(found.shares)), np.zeros(len(found.shares))
        for name, colour in zip(names, _shades(len(names)), strict=True):
            height = np.array([level["candidates"][name]["share"] for level in found.shares])
            axes.bar(at, height, 0.72, bottom=bottom, color=colour, label=name, edgecolor="white", linewidth=0.8)
            bottom += height
        axes.set_xticks(at, [f"{level['cost_ms']:.0f} ms\n{level['quality']:.3f}" for level in found.shares])
        axes.set_yticks([0, 0.5, 1], ["0", "half", "all"])
        axes.set_xlabel("mean cost and quality")
        axes.grid(axis="x", visible=False)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, reverse=True)
    return out[0]


def plot_calibration(found: Evaluation) -> str:
    """Found by predicted quality, in bins of equally many cells."""
    bins = found.calibration["bins"]
    predicted, seen = [row["predicted"] for row in bins], [row["found"] for row in bins]
    with _axes("calibration", 3.6, 3.2) as (axes, out):
        low, high = min(predicted + seen), max(predicted + seen)
        axes.plot([low, high], [low, high], color=QUIET, linewidth=1.2)
        axes.plot(predicted, seen, color=ACCENT, marker="o", markersize=5, linewidth=1.4)
        axes.set_xlabel("predicted quality")
        axes.set_ylabel("found")
    return out[0]


def plot_categories(rows: Sequence[Mapping[str, Any]]) -> str:
    """Each category's gain with its interval."""
    ordered = sorted(rows, key=lambda row: row["gain"]["value"])
    values = np.array([row["gain"]["value"] for row in ordered])
    reach = np.abs(np.array([[row["gain"]["low"], row["gain"]["high"]] for row in ordered]).T - values)
    with _axes("categories", 7.4, 0.9 + 0.27 * len(ordered)) as (axes, out):
        axes.axvline(0, color=QUIET, linewidth=1.2)
        axes.errorbar(values, np.arange(len(ordered)), xerr=reach, fmt="o", color=ACCENT, ecolor=STEPS[1], elinewidth=2.5, markersize=5)
        axes.set_yticks(np.arange(len(ordered)), [f"{row['name']} ({row['prompts']})" for row in ordered])
        axes.set_xlabel("gain over the best single candidate")
    return out[0]


@contextmanager
def _axes(name: str, width: float, height: float) -> Iterator[tuple[Any, list[str]]]:
    """Axes to draw on, and a list that holds the SVG element when the block ends; raises BackendError without matplotlib."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendError("matplotlib", "nothing of that name", "pip install 'costroute-rt[report]'") from error
    out: list[str] = []
    style: Any = {**_STYLE, "svg.hashsalt": name}  # ids in one page must differ from plot to plot
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.add_subplot(), out
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    out.append(svg[svg.index("<svg") :])


def _in_order(found: Curve, end: float) -> tuple[Any, Any]:
    """Its points by rising cost, level to the dearest candidate's."""
    order = np.lexsort((found.quality, found.cost))
    costs, quality = found.cost[order], found.quality[order]
    return (np.append(costs, end), np.append(quality, quality[-1])) if costs[-1] < end else (costs, quality)


def _shades(count: int) -> list[str]:
    places = np.linspace(0, len(STEPS) - 1, count) if count > 1 else np.array([3])
    return [STEPS[round(place)] for place in places] if count <= len(STEPS) else [STEPS[index % len(STEPS)] for index in range(count)]
