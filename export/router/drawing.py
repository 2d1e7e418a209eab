"""What all plots of a report share: axes that become SVG, colours, names of candidates."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from costroute_rt.engines.machine.fix import Fix
from costroute_rt.engines.machine.installation import explain_import
from costroute_rt.export.router.curve import Curve
from costroute_rt.plain_text import printable

INK, QUIET, GRID = "#1d2433", "#6b7486", "#e4e8ef"
ACCENT, GOLD = "#2563eb", "#d97706"
PALE_BLUE = "#9dc0f0"
FAMILIES = (("#a7d8cf", "#0f766e"), ("#fbd9a5", "#c2410c"), ("#bcd3fb", "#1d4ed8"), ("#dccbfb", "#6d28d9"), ("#f9c6d3", "#be185d"))
"""Lightest and darkest colour for the candidates of one denoiser."""
_LONGEST_NAME = 60
_STYLE = {
    "text.parse_math": False,  # names may have dollar signs
    "text.usetex": False,
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


def plain_name(name: str) -> str:
    """A name from a table, short and without characters that SVG cannot hold."""
    return printable(name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}...")


@contextmanager
def axes_on(name: str, width: float, height: float) -> Iterator[tuple[Any, list[str]]]:
    """Axes to draw on, and a list that holds the SVG element when the block ends; raises BackendError without matplotlib.

    width, height: in inches.
    """
    try:
        import matplotlib.style
        from matplotlib.figure import Figure
    except ImportError as error:
        raise explain_import(error, "matplotlib", Fix.extra("report")) from error
    out: list[str] = []
    style: Any = {**_STYLE, "svg.hashsalt": name}  # ids in one page must differ from plot to plot
    # Defaults, whatever a matplotlibrc in the working directory says; glyphs are the browser's.
    with matplotlib.style.context(["default", style]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.add_subplot(), out
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    out.append(svg[svg.index("<svg") :])


def in_order(found: Curve, end: float) -> tuple[Any, Any]:
    """Its points by rising cost, continued to the cost `end`."""
    order = np.lexsort((found.quality, found.cost))
    costs, quality = found.cost[order], found.quality[order]
    return (np.append(costs, end), np.append(quality, quality[-1])) if costs[-1] < end else (costs, quality)


def short_names(names: Sequence[str]) -> list[str]:
    """The names without their first word, up to a hyphen, if all share it."""
    first = {name.partition("-")[:2] for name in names}
    is_shared = len(names) > 1 and len(first) == 1 and all(hyphen for _, hyphen in first)
    return [plain_name(name.partition("-")[2] if is_shared else name) for name in names]


def shades(names: Sequence[str]) -> list[str]:
    """A colour for each candidate, the cheapest first: one hue per denoiser (the name up to @), darker for higher cost."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(name.partition("@")[0], []).append(name)
    colours = {}
    for number, family in enumerate(members.values()):
        scale = LinearSegmentedColormap.from_list("", FAMILIES[number % len(FAMILIES)])
        for name, place in zip(family, np.linspace(0, 1, len(family)) if len(family) > 1 else [0.7], strict=True):
            colours[name] = to_hex(scale(place))
    return [colours[name] for name in names]


def label_points(axes: Any, texts: Sequence[str], x: Sequence[float], y: Sequence[float]) -> None:
    """Writes each text beside its point, where it covers as few points, texts and axes as possible."""
    axes.figure.draw_without_rendering()  # lays out
    scale = axes.figure.dpi / 72
    points = axes.transData.transform(np.column_stack([x, y])) / scale
    floor = axes.get_window_extent().y0 / scale
    taken = [(px - 3, py - 3, px + 3, py + 3) for px, py in points]
    for text, place, (px, py) in zip(texts, zip(x, y, strict=True), points, strict=True):
        width, height = 4.9 * len(text), 9.0
        places = [(right, up) for up in (-11, 5, -20, 14, -3) for right in (6, -6 - width)]
        boxes = [(px + right, py + up, px + right + width, py + up + height) for right, up in places]
        clashes = [sum(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in taken) + (a[1] < floor) for a in boxes]
        best = clashes.index(min(clashes))
        taken.append(boxes[best])
        axes.annotate(text, place, places[best], textcoords="offset points", fontsize=8, color=QUIET)
