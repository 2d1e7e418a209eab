"""`costroute-rt eval-router`: judge a bundle's router by labels it has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from costroute_rt.cli import option
from costroute_rt.cli.choice import EngineChoice
from costroute_rt.cli.failure import say
from costroute_rt.cli.label_choice import LabelChoice
from costroute_rt.cli.table import show, show_json, show_table
from costroute_rt.plain_text import one_line

if TYPE_CHECKING:
    from costroute_rt.export.router.evaluate import Evaluation

FIGURES = {
    "area": "area above mixing",
    "qnc": "QNC",
    "gain": "gain over the best",
    "gain_at_mean_cost": "gain at mean cost",
    "over_hull_at_mean_cost": "over mixing there",
}


@click.command("eval-router")
@option.labels("CSV of labels that the router was not fitted to.", "Also report each kind of prompts.")
@click.option("--html", type=click.Path(), metavar="FILE", help="Write a page with plots and example images.")
@option.engine
@option.as_json()
def eval_router(
    labels: LabelChoice,
    html: str | None,
    engine: EngineChoice,
    as_json: bool,
) -> None:
    """Judge the router of a bundle or pool on labels kept aside.

    It is compared with each single candidate, random mixing of candidates, more expensive candidates for longer prompts,
    averages, and an oracle that knows the labels of other seeds. Intervals are 95 % over prompts.

    \b
    costroute-rt eval-router --labels heldout.csv --bundle my-bundle
    costroute-rt eval-router --labels heldout.csv --bundle my-bundle --html report.html
    """
    from pathlib import Path

    from costroute_rt.export.router.job import evaluate_pool

    opened = engine.open_pool()
    setup = engine.setup(opened)
    source = labels.source(setup)
    found = evaluate_pool(opened, source, html=Path(html) if html else None, say=say)
    if as_json:
        show_json({"fallback": setup.fallback, **found.to_json()})
    else:
        _show(found)
    if html:
        say(f"wrote {html}")


def _show(found: Evaluation) -> None:
    predicted = {row["name"]: row["predicted_ms"] for row in found.ms}
    show_table(
        ("candidate", "quality", "predicted", "ms", "ms predicted", "best for"),
        [
            (row["name"], row["quality"], row["predicted"], row["cost_ms"], predicted.get(row["name"]), f"{100 * row['best_for']:.0f} %")
            for row in found.candidates
        ],
    )
    routers = [name for name in ("router", "length", "average") if name in found.figures]
    rows = [
        (label, *(_interval(found.figures[router].get(name), signed=name != "qnc") for router in routers))
        for name, label in FIGURES.items()
        if name in found.figures["router"]
    ]
    show()
    show_table(("", *routers), rows)
    if found.shares:
        show()
        show_table(*_shares(found))
    if found.categories:
        show()
        show_table(
            ("category", "prompts", "gain", "low", "high", "trust", "ms"),
            [
                (row["name"], row["prompts"], *(row["gain"][end] for end in ("value", "low", "high")), row["trust"], row["mean_ms"])
                for row in found.categories
            ],
        )
    show("\n" + "\n".join(_lines(found)))


def _shares(found: Evaluation) -> tuple[list[str], list[list[object]]]:
    """A column for each mean cost: its quality, and the percentage of the prompts that each candidate gets, the cheapest first."""
    rows: list[list[object]] = [["quality", *(level["quality"] for level in found.shares)]]
    for each in sorted(found.candidates, key=lambda row: row["cost_ms"]):
        parts = [level["candidates"][each["name"]]["share"] for level in found.shares]
        rows.append([f"{each['name']}, %", *(round(100 * part) if part else None for part in parts)])
    return ["at a mean of", *(f"{level['cost_ms']:.0f} ms" for level in found.shares)], rows


def _lines(found: Evaluation) -> list[str]:
    about = found.calibration
    lines = [f"{found.prompts} prompts" + (f", {found.incomplete} of them with missing labels" if found.incomplete else "")]
    lines.append(f"predicted quality: bias {about['bias']:+.4f}, root mean square error {about['rms_error']:.3f}")
    for row in about["coverage"]:
        if row["level"] in (0.8, 0.95):
            lines.append(
                f"{row['level']:.0%} intervals cover {row['covered']:.0%} of the labels, at ± {row['half_width']:.3f}{_apart(row)}"
            )
    if found.has_cost:
        ranges = ", ".join(f"{low:.0f} to {high:.0f} ms" for low, high in found.sure_ms)
        lines.append(f"surely above averages at a mean of {ranges}" if ranges else "nowhere surely above averages at the same mean time")
    if found.oracle is not None:
        lines.append(f"oracle by other seeds' labels: gain {found.oracle['gain']:+.4f}")
    if found.reachable_share is not None:
        lines.append(f"the router reaches {100 * found.reachable_share:.0f} % of the oracle's gain")
    if found.router_ms is not None:
        lines.append(f"judging a prompt takes {found.router_ms:.3f} ms; mean trust {found.mean_trust:.2f}")
    router = found.facts["router"]
    return [*lines, one_line(f"routes on {router['routes_on']}: {router['reason']}")]


def _apart(row: Mapping[str, Any]) -> str:
    """Coverage near and far from the labels that the router was fitted to, where there are both."""
    both = row["covered_near"] is not None and row["covered_far"] is not None
    return f" ({row['covered_near']:.0%} near the fitted labels, {row['covered_far']:.0%} far from them)" if both else ""


def _interval(found: object, *, signed: bool) -> str:
    from costroute_rt.export.router.curve import Interval
    from costroute_rt.export.router.report import show_interval

    return show_interval(found, signed=signed) if isinstance(found, Interval) else "-"
