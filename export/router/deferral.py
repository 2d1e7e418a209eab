"""The figures of the CATImage paper (arXiv 2506.14753): deferral curve with intervals and uniform reductions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from costroute_rt.export.router import curve, drawing
from costroute_rt.export.router.band import Band
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.curve import Curve, Routed
from costroute_rt.export.router.point_labels import label_points
from costroute_rt.export.router.uniform import UniformReduction

_REDUCTION_COLOURS = ("#0f766e", "#c2410c", "#6d28d9", "#be185d", "#475569", "#a16207")


def plot_deferral(routed: Routed, band: Band, cells: Cells, reductions: Sequence[UniformReduction], others: Mapping[str, Curve]) -> str:
    """SVG: the router's curve with its interval, every single candidate, random mixing, and a line for each uniform reduction.

    others: further curves by label, such as the oracle's.
    """
    quality, at = dict(zip(cells.candidates, cells.mean.mean(0), strict=True)), dict(zip(cells.candidates, cells.cost_ms, strict=True))
    most = float(cells.cost_ms.max())
    with drawing.axes_on("deferral", 7.8, 5.0) as (axes, out):
        axes.fill_between(
            band.cost, band.low, band.high, color=drawing.ACCENT, alpha=0.14, linewidth=0, label="95 % interval of the router"
        )
        for label, found in others.items():
            axes.plot(*drawing.in_order(found, most), color=drawing.GOLD, linewidth=1.5, linestyle=(0, (1, 1.5)), label=label)
        mixing = curve.hull(cells.cost_ms, cells.mean.mean(0))
        axes.plot(*drawing.in_order(mixing, most), color=drawing.QUIET, linewidth=1.4, label="random mixing")
        for reduction, colour in zip(reductions, _REDUCTION_COLOURS * len(reductions), strict=False):
            names = reduction.candidates
            costs, heights = [at[name] for name in names], [quality[name] for name in names]
            axes.plot(costs, heights, color=colour, linewidth=1.2, linestyle=(0, (5, 2)), label=reduction.label)
        points = routed.points(cells.cost_ms, cells.mean)
        axes.plot(*drawing.in_order(points, most), color=drawing.ACCENT, linewidth=2.6, label="router")
        axes.scatter(list(at.values()), list(quality.values()), color=drawing.INK, s=22, zorder=5)
        low, high = _frame(band, list(quality.values()))
        axes.set_ylim(low, high)
        axes.set_xlim(*drawing.cost_limits(list(at.values())))
        axes.set_xlabel("mean milliseconds of an image")
        axes.set_ylabel("mean quality")
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, fontsize=8.5, borderaxespad=0.2)
        label_points(axes, drawing.short_names(cells.candidates), list(at.values()), list(quality.values()))
    return out[0]


def _frame(band: Band, quality: Sequence[float]) -> tuple[float, float]:
    low, high = min(*quality, float(band.low.min())), max(*quality, float(band.high.max()))
    reach = max(high - low, 1e-3)
    return low - 0.08 * reach, high + 0.08 * reach
