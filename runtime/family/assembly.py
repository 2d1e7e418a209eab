"""Putting a runtime's parts together from a bundle and the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import costroute_rt
from costroute_rt.candidate import Pool
from costroute_rt.cost.correction import Clock
from costroute_rt.cost.cost_model import CostModel
from costroute_rt.engines.backends.engine import Engine
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.build import build_engines, open_engine
from costroute_rt.engines.building.lookup import (
    engine_key,
    find_recorded_cost,
    find_rejection,
    is_ready,
    may_replace,
    names_to_build,
    read_cost,
)
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import MANIFEST
from costroute_rt.engines.bundle.size import has_one_size, known_size, with_size
from costroute_rt.engines.store.cost import EngineCost
from costroute_rt.engines.store.store import Store
from costroute_rt.error import BundleError, ConfigError, EngineError
from costroute_rt.family.calls import engine_names, image_calls
from costroute_rt.family.engine_set import EngineSet
from costroute_rt.family.parts import Parts, Profiles, Tables
from costroute_rt.family.prompt import Tokenizer
from costroute_rt.family.upgrade import Upgrade
from costroute_rt.routing.quality import AverageQuality
from costroute_rt.routing.router_bundle import open_router

Progress = Callable[[str, int, int], None]


def assemble_parts(
    path: str | Path | None,
    clock: Clock,
    *,
    home: str | Path | None,
    backend: str,
    provider: str,
    precision: str,
    threads: int | None,
    allow_fallback: bool,
    build: bool,
    background_build: bool,
    progress: Progress | None,
) -> Parts:
    """The parts of a runtime, no engine opened yet; arguments and errors are those of `Runtime.open`."""
    if build and background_build:
        raise ConfigError("build and background_build", (build, background_build), "one of them")
    bundle = Bundle.open(costroute_rt.shipped_bundle() if path is None else path, verify=False)
    bundle.check_hashes()
    pool, store = Pool.from_bundle(bundle), Store.open(home)
    tables = _compile_tables(bundle, pool)
    setup = wanted = Setup.of(backend, provider, precision, threads, allow_fallback=allow_fallback)
    names = engine_names(bundle)
    if (obstacle := wanted.obstacle()) is not None:
        raise obstacle
    if background_build:
        setup = choose_start(bundle, store, wanted, names, progress)
    elif build:
        build_engines(bundle, store, names_to_build(bundle, names, wanted), wanted, progress=progress)

    def open_one(name: str) -> Engine:
        return open_engine(bundle, store, name, setup)

    def find_cost(name: str) -> EngineCost:
        try:
            return read_cost(bundle, store, name, setup)
        except EngineError:
            open_engine(bundle, store, name, setup).close()  # where the engine itself is missing, this says what differs
            raise

    profiles = find_profiles(bundle, store, setup, names)
    found = [*(names if profiles.has_usual else ()), *(name for size in profiles.sizes for name in with_size(bundle, names, size))]
    costs = {name: find_cost(name) for name in dict.fromkeys(found)}
    engines = EngineSet(open_one)
    quality = (
        open_router(bundle, lambda component, graph: engines.get(f"{bundle.family}/{component}/{graph}"))
        if bundle.router
        else AverageQuality.from_bundle(bundle, pool)
    )
    return Parts(
        bundle=bundle,
        pool=pool,
        tokenizer=Tokenizer.from_bundle(bundle),
        tables=tables,
        engines=engines,
        costs=CostModel(costs, clock, routing_ms=sum(costs[f"{bundle.family}/{name}"].call.median_ms for name in quality.engines)),
        quality=quality,
        clock=clock,
        backend=setup.backend,
        precision=setup.precision,
        fallback=wanted.fallback,
        versions={"costroute-rt": costroute_rt.__version__, **_versions(setup, wanted), "numpy": np.__version__},
        profiles=profiles,
        upgrade=start_upgrade(bundle, store, wanted, setup, names) if setup != wanted else None,
    )


def find_profiles(bundle: Bundle, store: Store, setup: Setup, names: Sequence[str]) -> Profiles:
    """For which sizes the engines called `names` are there and measured; the usual ones count as there where no others are."""
    built = {known_size(bundle, stored.key.shapes) for stored in store.engines()} if not has_one_size(bundle) else set()
    sizes = {size for size in built if size is not None and is_ready(bundle, store, with_size(bundle, names, size), setup)}
    has_usual = not sizes or is_ready(bundle, store, names, setup)
    return Profiles(frozenset(sizes), has_usual=has_usual, setup=engine_key(bundle, names[0], setup).setup)


def choose_start(bundle: Bundle, store: Store, wanted: Setup, names: Sequence[str], progress: Progress | None) -> Setup:
    """What to run until the engines of `wanted` are built: itself where they are, else the fastest that is ready.

    Where none is, ONNX Runtime on the CPU, which takes seconds to build. Where engines of `wanted` lost races, or were not in all of them
    yet, those they ran against.
    """
    engine_key(bundle, names[0], wanted)  # raises where the backend or provider is not there: building would be in vain
    stored = {(each.key.backend, each.key.provider, each.key.precision) for each in store.engines()}
    others = [
        Setup(backend=backend, provider=provider, precision=precision, threads=wanted.threads)
        for backend, provider, precision in sorted(stored)
    ]
    ready = [setup for setup in others if setup != wanted and is_ready(bundle, store, names, setup)]
    ready.sort(key=lambda setup: sum(read_cost(bundle, store, name, setup).call.median_ms for name in names))
    if is_ready(bundle, store, names, wanted):
        return next((setup for setup in ready if not all(may_replace(bundle, store, name, wanted, setup) for name in names)), wanted)
    if ready:
        return ready[0]
    base = Setup(backend="onnxruntime", threads=wanted.threads)
    build_engines(bundle, store, names, base, progress=progress)
    return base


def start_upgrade(bundle: Bundle, store: Store, wanted: Setup, setup: Setup, names: Sequence[str]) -> Upgrade:
    """Start building what `wanted` lacks; its engines are to replace those of `setup`, all at once, when they are proved together."""
    from costroute_rt.engines.building.background import start_builder  # not loaded by those who start nothing
    from costroute_rt.engines.building.plan import plan_builds
    from costroute_rt.engines.building.profile import example_call

    planned = plan_builds(bundle, store, names, wanted)
    there = [each.engine for each in planned if not each.builds]
    rejected = {name: why for name in there if (why := find_rejection(bundle, store, name, wanted, setup)) is not None}
    wanting = [name for name in names if name not in rejected]
    recorded = {name: cost for name in names if (cost := find_recorded_cost(bundle, store, name, wanted)) is not None}

    def open_ready(name: str) -> Engine:
        engine = open_engine(bundle, store, name, wanted)
        try:
            example_call(engine, bundle, name, wanted)()
        except BaseException:
            engine.close()
            raise
        return engine

    return Upgrade(
        start_builder(bundle, store, wanting, wanted, setup, image_calls(bundle)) if wanting else None,
        open_ready,
        lambda name: read_cost(bundle, store, name, wanted),
        setup=wanted,
        expected_s={each.engine: each.build_s for each in planned},
        recorded=recorded,
        rejected=rejected,
    )


def _versions(*setups: Setup) -> dict[str, str]:
    return {setup.backend: setup.tool().version for setup in setups}


def _compile_tables(bundle: Bundle, pool: Pool) -> Tables:
    """The step tables of every candidate; raises BundleError for a scheduler that cannot be compiled, or not to that many steps."""
    try:
        tables = Tables(bundle.schedulers)
        for candidate in pool:
            tables.table(candidate)
    except ConfigError as error:
        raise BundleError(bundle.root / MANIFEST, f"a scheduler in it cannot be used: {error}", "export the bundle again") from error
    return tables
