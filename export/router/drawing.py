"""What all plots of a report share: axes that become SVG, colours, names of candidates."""

from __future__ import annotations

import colorsys
import io
import re
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
TEAL, VIOLET, ORANGE = "#0f766e", "#7c3aed", "#c2410c"
PALE_BLUE, PAPER, OTHERS = "#9dc0f0", "#ffffff", "#b6bdca"
THEMED = {
    "ink": INK,
    "quiet": QUIET,
    "line": GRID,
    "accent": ACCENT,
    "gold": GOLD,
    "teal": TEAL,
    "violet": VIOLET,
    "orange": ORANGE,
    "pale": PALE_BLUE,
    "paper": PAPER,
    "others": OTHERS,
}
"""Colours that a page replaces by its own, by the name of the page's variable."""
FAMILIES = (("#a7d8cf", "#0f766e"), ("#fbd9a5", "#c2410c"), ("#bcd3fb", "#1d4ed8"), ("#dccbfb", "#6d28d9"), ("#f9c6d3", "#be185d"))
"""Lightest and darkest colour for the candidates of one denoiser."""
LONGEST_CANDIDATE = 32
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


def plain_name(name: str, longest: int = 60) -> str:
    """A name from a table without characters that SVG cannot hold; a long one loses its middle, because names often differ at the end."""
    head = (longest - 3) // 2
    return printable(name if len(name) <= longest else f"{name[:head]}...{name[head + 3 - longest :]}")


@contextmanager
def axes_on(name: str, width: float, height: float) -> Iterator[tuple[Any, list[str]]]:
    """Axes to draw on, and a list that holds the SVG element when the block ends; raises BackendError without matplotlib.

    width, height: in inches.
    """
    with figure_on(name, width, height) as (figure, out):
        yield figure.add_subplot(), out


@contextmanager
def figure_on(name: str, width: float, height: float) -> Iterator[tuple[Any, list[str]]]:
    """Like `axes_on`, for a figure without axes."""
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
        yield figure, out
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    out.append(svg[svg.index("<svg") :])


def themed(svg: str) -> str:
    """The SVG for a page whose variables give the colours of THEMED, so that it is readable on any background."""
    found = {value: name for name, value in THEMED.items()}
    wanted = re.compile(f'(?<=[:] )({"|".join(found)})(?=[;"])')
    return re.sub(r'style="[^"<>]*"', lambda style: wanted.sub(lambda colour: f"var(--{found[colour[0]]})", style[0]), svg)


def cost_limits(costs: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis of costs: those of the candidates, with space for names at the right."""
    low, high = min(costs), max(costs)
    reach = high - low or abs(high) or 1.0
    return low - 0.05 * reach, high + 0.11 * reach


def in_order(found: Curve, end: float) -> tuple[Any, Any]:
    """Its points by rising cost, continued to the cost `end`."""
    order = np.lexsort((found.quality, found.cost))
    costs, quality = found.cost[order], found.quality[order]
    return (np.append(costs, end), np.append(quality, quality[-1])) if costs[-1] < end else (costs, quality)


def short_names(names: Sequence[str]) -> list[str]:
    """The names without their first word, up to a hyphen, if all share it."""
    first = {name.partition("-")[:2] for name in names}
    is_shared = len(names) > 1 and len(first) == 1 and all(hyphen for _, hyphen in first)
    return [plain_name(name.partition("-")[2] if is_shared else name, LONGEST_CANDIDATE) for name in names]


def shades(names: Sequence[str]) -> list[str]:
    """A colour for each candidate, the cheapest first: one hue per denoiser (the name up to @), darker for higher cost."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(name.partition("@")[0], []).append(name)
    colours = {}
    for number, family in enumerate(members.values()):
        scale = LinearSegmentedColormap.from_list("", _family_ends(number, len(members)))
        for name, place in zip(family, np.linspace(0, 1, len(family)) if len(family) > 1 else [0.55], strict=True):
            colours[name] = to_hex(scale(place))
    return [colours[name] for name in names]


def _family_ends(number: int, families: int) -> Sequence[Any]:
    """The lightest and darkest colour of a family; with many families, hues around the circle, every other one lighter."""
    if families <= len(FAMILIES):
        return FAMILIES[number]
    hue, lighter = number / families, 0.12 * (number % 2)
    return [colorsys.hls_to_rgb(hue, lightness + lighter, 0.55) for lightness in (0.66, 0.34)]
