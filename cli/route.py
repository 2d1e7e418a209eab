"""`costroute-rt route`: the decision alone, with its reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from costroute_rt.cli import option
from costroute_rt.cli.choice import EngineChoice, ImageChoice
from costroute_rt.cli.engine_report import show_choice
from costroute_rt.cli.failure import say
from costroute_rt.cli.progress import building_notice
from costroute_rt.cli.table import format_bytes, show, show_json, show_table
from costroute_rt.plain_text import one_line

if TYPE_CHECKING:
    from costroute_rt.route import Route


@click.command()
@click.argument("prompt")
@option.image
@option.allowed
@option.memory
@option.engine
@option.as_json()
def route(prompt: str, image: ImageChoice, engine: EngineChoice, as_json: bool) -> None:
    """Show which candidate PROMPT would get, and why.

    \b
    costroute-rt route "a red house by a lake" --max-ms 300
    costroute-rt route "a red house by a lake" --max-ms 300 --json
    """
    image = image.with_images()
    with engine.open_runtime(building_notice("first use: building"), init_images=image.init_image is not None) as runtime:
        decision = image.route(runtime, prompt)
    if as_json:
        choice = None if runtime.choice is None else runtime.choice.to_json()
        show_json({"fallback": runtime.fallback, "assumes": runtime.assumes, "choice": choice, **decision.to_json()})
    else:
        _show(decision)
        if runtime.choice is not None and runtime.choice.basis != "environment":
            show_choice(runtime.choice)


def _show(decision: Route) -> None:
    rows = [
        (
            "*" if option.candidate.name == decision.chosen.name else "",
            option.candidate.name,
            option.quality,
            option.quality_error,
            option.ms,
            option.p95_ms,
            format_bytes(option.memory_bytes),
            option.resident,
            option.why,
        )
        for option in decision.options
    ]
    show_table(("", "candidate", "quality", "+-", "ms", "p95 ms", "memory", "loaded", "why"), rows)
    show(f"\n{decision.chosen.name}: {one_line(decision.reason)}; sampled with {decision.scheduler}")
    for name, reason in decision.unfit.items():
        show(f"{name} cannot serve it: {one_line(reason)}")
    judgement = decision.judgement
    if judgement is not None:
        show(f"quality by {one_line(judgement.basis)}")
        for each in judgement.nearest:
            show(f"  {each.similarity:.2f} like {each.prompt!r}")
        if judgement.note and len(decision.options) > 1:
            say(f"note: {judgement.note}")
