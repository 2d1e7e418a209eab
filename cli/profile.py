"""`costroute-rt profile`: measure the engines on this machine again."""

from __future__ import annotations

import click

from costroute_rt.cli import option
from costroute_rt.cli.choice import EngineChoice, choose_names
from costroute_rt.cli.progress import building_notice
from costroute_rt.cli.table import show_json, show_table


@click.command()
@option.size
@option.engine
@option.as_json()
def profile(
    height: int | None,
    width: int | None,
    engine: EngineChoice,
    as_json: bool,
) -> None:
    """Measure the engines again, as this machine is now.

    Budgets depend on these times: run it on an idle machine, and after a change of power mode.

    \b
    costroute-rt profile
    costroute-rt profile --json
    """
    from costroute_rt.engines.building.profile import profile_engines
    from costroute_rt.engines.store.store import Store

    opened, setup = engine.open_bundle(), engine.setup()
    names = choose_names(opened, setup, size=option.check_both(height, width))
    with building_notice("measuring") as progress:
        costs = profile_engines(opened, Store.open(), names, setup, progress=progress)
    header = ("graph", "engine", "median_ms", "p95_ms", "spread_ms", "calls", "load_ms")
    rows = [
        (each.engine, each.digest[:12], each.call.median_ms, each.call.p95_ms, each.call.spread_ms, each.call.calls, each.load.median_ms)
        for each in costs
    ]
    if as_json:
        show_json({"fallback": setup.fallback, "costs": [dict(zip(header, row, strict=True)) for row in rows]})
    else:
        show_table([name.replace("_", " ") for name in header], rows)
