"""An upper bound for routers on labels of several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from costroute_rt.export.router import curve
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.curve import Curve, Routed
from costroute_rt.routing.array import FloatArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle:
    """Choices by the labels of half of the seeds, scored by those of the other half, both ways."""

    curve: Curve
    figures: dict[str, float]
    """Only the gain if costs are unknown."""
    routed: tuple[Routed, ...]
    truths: tuple[FloatArray, ...]
    """float64[prompts, candidates] for each way: the labels that it is scored by."""
    groups: IntArray
    """int64[prompts], as in `Cells`."""


def find_oracle(halves: Sequence[Cells]) -> Oracle | None:
    """The oracle of two halves of the seeds; None without halves.

    Labels are shrunk towards their candidate's average according to their noise, estimated from the difference between the halves.
    """
    if not halves:
        return None
    first, second = halves
    cost = (first.cost_ms + second.cost_ms) / 2
    noise = ((first.mean - second.mean) ** 2 / (1 / first.count + 1 / second.count)).mean(0)
    pairs = [(curve.shrink(a.mean, noise / a.count), b.mean) for a, b in ((first, second), (second, first))]
    found, gain = curve.oracle(pairs, cost)
    figures = {"gain": gain}
    if first.has_cost and second.has_cost:
        figures = {**curve.curve_figures(found, cost, (first.mean.mean(0) + second.mean.mean(0)) / 2), "gain": gain}
    routed = tuple(curve.route_halves(pairs, cost))
    return Oracle(curve=found, figures=figures, routed=routed, truths=(second.mean, first.mean), groups=first.groups)
