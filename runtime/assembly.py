"""Putting a runtime's parts together from a bundle and the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import costroute_rt
from costroute_rt.budget import CostModel
from costroute_rt.candidate import Pool
from costroute_rt.correction import Clock
from costroute_rt.engine_set import EngineSet
from costroute_rt.engines.build import build_engines, open_engine
from costroute_rt.engines.bundle import Bundle
from costroute_rt.engines.bundle_manifest import MANIFEST
from costroute_rt.engines.cost import EngineCost
from costroute_rt.engines.engine import Engine, get_backend
from costroute_rt.engines.error import BundleError, ConfigError, EngineError
from costroute_rt.engines.profile import read_costs
from costroute_rt.engines.store import Store
from costroute_rt.parts import Parts, Tables, engine_names
from costroute_rt.prompt import Tokenizer
from costroute_rt.quality import AverageQuality
from costroute_rt.router_bundle import open_router

Progress = Callable[[str, int, int], None]


def assemble_parts(
    path: str | Path | None,
    clock: Clock,
    *,
    home: str | Path | None,
    backend: str,
    provider: str,
    threads: int | None,
    build: bool,
    progress: Progress | None,
) -> Parts:
    """The parts of a runtime, no engine opened yet; arguments and errors are those of `Runtime.open`."""
    bundle = Bundle.open(costroute_rt.shipped_bundle() if path is None else path, verify=False)
    bundle.check_hashes()
    pool, store = Pool.from_bundle(bundle), Store.open(home)
    tables = _compile_tables(bundle, pool)
    how: dict[str, Any] = {"backend": backend, "provider": provider, "threads": threads}
    if build:
        build_engines(bundle, store, progress=progress, **how)

    def open_one(component: str, graph: str) -> Engine:
        return open_engine(bundle, store, component, graph, **how)

    def read_one(component: str, graph: str) -> EngineCost:
        try:
            return read_costs(bundle, store, component, graph, **how)
        except EngineError:
            open_one(component, graph).close()  # where the engine itself is missing, this says what differs
            raise

    costs = {name: read_one(*name.split("/")) for name in engine_names(bundle, pool)}
    engines = EngineSet(open_one)
    quality = (
        open_router(bundle, lambda component, graph: engines.get(f"{component}/{graph}"))
        if bundle.router
        else AverageQuality.from_bundle(bundle, pool)
    )
    return Parts(
        bundle=bundle,
        pool=pool,
        tokenizer=Tokenizer.from_bundle(bundle),
        tables=tables,
        engines=engines,
        costs=CostModel(costs, clock, routing_ms=sum(costs[name].batch[1].median_ms for name in quality.engines)),
        quality=quality,
        clock=clock,
        backend=backend,
        versions={"costroute-rt": costroute_rt.__version__, backend: get_backend(backend).version, "numpy": np.__version__},
    )


def _compile_tables(bundle: Bundle, pool: Pool) -> Tables:
    """The step tables of every candidate; raises BundleError for a scheduler that cannot be compiled, or not to that many steps."""
    try:
        tables = Tables(bundle.schedulers)
        for candidate in pool:
            tables.table(candidate)
    except ConfigError as error:
        raise BundleError(bundle.root / MANIFEST, f"a scheduler in it cannot be used: {error}", "export the bundle again") from error
    return tables
