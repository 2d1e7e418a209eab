"""`costroute-rt profile`: measure the engines on this machine again."""

from __future__ import annotations

import click

from costroute_rt.cli import option
from costroute_rt.cli.choice import EngineChoice, choose_names
from costroute_rt.cli.progress import building_notice
from costroute_rt.cli.table import show, show_json, show_table


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

    Budgets depend on these times: run it on an idle machine. Times are kept for each condition (threads, limits of the
    processor, power mode); under one that was never measured, those of the nearest are used and corrected by the times
    of images, until this command measures it.

    \b
    costroute-rt profile
    costroute-rt profile --threads 1
    costroute-rt profile --json
    """
    from costroute_rt.engines.building.lookup import measured_conditions
    from costroute_rt.engines.building.profile import profile_engines
    from costroute_rt.engines.store.store import Store
    from costroute_rt.error import ConfigError

    pool, store = engine.open_pool(), Store.open()
    setup = engine.setup(pool, store)
    chosen = choose_names(pool, setup, size=option.check_both(height, width))
    with building_notice("measuring") as progress:
        costs = [cost for bundle, names in chosen for cost in profile_engines(bundle, store, names, setup, progress=progress)]
    if not costs:
        raise ConfigError("pool", str(pool.root), "one with a bundle: there is no engine to measure")
    now = costs[0].condition
    known = {each for bundle, names in chosen for each in measured_conditions(bundle, store, names, setup)}
    others = sorted(known - {now}, key=now.distance)
    header = ("graph", "engine", "median_ms", "p95_ms", "spread_ms", "calls", "load_ms")
    rows = [
        (each.engine, each.digest[:12], each.call.median_ms, each.call.p95_ms, each.call.spread_ms, each.call.calls, each.load.median_ms)
        for each in costs
    ]
    if as_json:
        show_json(
            {
                "fallback": setup.fallback,
                "condition": now.to_json(),
                "costs": [dict(zip(header, row, strict=True)) for row in rows],
                "other_conditions": [each.to_json() for each in others],
            }
        )
        return
    show_table([name.replace("_", " ") for name in header], rows)
    show(f"\nmeasured with {now}")
    for each in others:
        show(f"kept: costs measured with {each}")
