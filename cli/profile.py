"""`costroute-rt profile`: measure the engines on this machine again."""

from __future__ import annotations

import click

from costroute_rt.cli import option
from costroute_rt.cli.progress import building_notice
from costroute_rt.cli.table import show_json, show_table


@click.command()
@option.size
@option.engine
@option.as_json()
def profile(
    height: int | None,
    width: int | None,
    bundle: str | None,
    backend: str,
    provider: str,
    precision: str,
    allow_fallback: bool,
    as_json: bool,
) -> None:
    """Measure the engines again, as this machine is now.

    Budgets rest on these times: run it on an idle machine, and after a change of power mode.

    \b
    costroute-rt profile
    costroute-rt profile --json
    """
    from costroute_rt import Bundle, shipped_bundle
    from costroute_rt.engines.building.profile import profile_engines
    from costroute_rt.engines.building.setup import Setup
    from costroute_rt.engines.store.store import Store

    setup = Setup.of(backend, provider, precision, allow_fallback=allow_fallback)
    costs = profile_engines(
        Bundle.open(bundle or shipped_bundle()),
        Store.open(),
        setup,
        size=option.check_both(height, width),
        progress=building_notice("measuring"),
    )
    names = ("graph", "engine", "batch", "median_ms", "p95_ms", "spread_ms", "calls", "load_ms")
    rows = [(c.graph, c.digest[:12], c.batch, c.median_ms, c.p95_ms, c.spread_ms, c.calls, c.load_ms) for c in costs]
    if as_json:
        show_json({"fallback": setup.fallback, "costs": [dict(zip(names, row, strict=True)) for row in rows]})
    else:
        show_table([name.replace("_", " ") for name in names], rows)
