"""Assembles the resources of a runtime from a pool's bundles and the store."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from costroute_rt.call import Call
from costroute_rt.candidate import Candidate
from costroute_rt.cost.correction import Clock
from costroute_rt.cost.cost_model import CostModel
from costroute_rt.engines.backends.engine import Engine
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.build import open_engine
from costroute_rt.engines.building.duration import work_size
from costroute_rt.engines.building.lookup import describe_setup, engine_key, find_recorded_cost, find_rejection, names_to_build, read_cost
from costroute_rt.engines.building.progress import Stage, Step, Tracker
from costroute_rt.engines.building.twin import find_twins
from costroute_rt.engines.bundle.bundle import Bundle, shipped_bundle
from costroute_rt.engines.bundle.name import EngineName
from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.engines.machine.condition import describe_assumption
from costroute_rt.engines.machine.memory import give_back_memory, resident_bytes
from costroute_rt.engines.store.cost import EngineCost
from costroute_rt.engines.store.store import Store
from costroute_rt.error import ConfigError
from costroute_rt.family.auto_backend import choose_backend
from costroute_rt.family.calls import engine_names, image_calls, router_calls
from costroute_rt.family.conditioning import StatesSource
from costroute_rt.family.engine_set import EngineSet
from costroute_rt.family.engine_source import EngineSource, choose_start, find_sizes, names_of_sizes
from costroute_rt.family.family import Family
from costroute_rt.family.image_encoders import build_image_encoders, check_image_encoders, find_image_encoders
from costroute_rt.family.left_out import leave_out_quarantined
from costroute_rt.family.memory import MemoryLimit, estimate_bytes
from costroute_rt.family.resources import Resources
from costroute_rt.family.upgrade import Builders, Upgrade
from costroute_rt.request import check_flag, check_list, check_name, check_whole
from costroute_rt.routing.quality import AverageQuality, QualityEstimator, Selected
from costroute_rt.routing.router_bundle import open_pool_router
from costroute_rt.version import read_version

if TYPE_CHECKING:
    from costroute_rt.engines.building.background import Builder

_TYPICAL_BASE_BYTES = 160 << 20
"""Memory of a process with the libraries, where the system does not report it."""
_log = logging.getLogger(__name__)


def open_pool(
    bundle: str | Path | None,
    pool: str | Path | None,
    *,
    candidates: Sequence[str] = (),
    exclude: Sequence[str] = (),
    licenses: Sequence[str] = (),
) -> Pool:
    """The pool at `pool`, or the bundle at `bundle` or the shipped one as a pool, with the candidates that these options allow.

    Their files are not hashed. Raises BundleError, ConfigError.
    """
    if bundle is not None and pool is not None:
        raise ConfigError("bundle and pool", f"{bundle} and {pool}", "one of them")
    choice = {"candidates": candidates, "exclude": exclude, "licenses": licenses}
    names = {option: [check_name(option, name) for name in check_list(option, given)] for option, given in choice.items()}
    path = shipped_bundle() if bundle is None else bundle
    opened = Pool.of_bundle(Bundle.open(path, verify=False)) if pool is None else Pool.open(pool)
    return opened.select(**names)


def open_resources(
    pool: Pool,
    clock: Clock,
    *,
    home: str | Path | None,
    extra_stores: Sequence[str | Path],
    backend: str,
    provider: str,
    precision: str,
    threads: int | None,
    allow_fallback: bool,
    build: bool,
    background_build: bool,
    preload: bool,
    init_images: bool,
    max_memory_bytes: int | None,
    tracker: Tracker,
) -> Resources:
    """The resources of a runtime, with no engine opened yet; the other arguments and the errors are those of `Runtime.open`.

    tracker: gets the plan of all that is left to do, warming up included if `preload` is true.
    """
    flags = {"allow_fallback": allow_fallback, "build": build, "background_build": background_build, "preload": preload}
    flags["init_images"] = init_images
    _check_options(flags, max_memory_bytes)
    store = Store.open(home, extra_stores)
    chosen = choose_backend(
        pool, store, backend=backend, provider=provider, precision=precision, threads=threads, allow_fallback=allow_fallback
    )
    wanted = chosen.setup
    if (obstacle := wanted.obstacle()) is not None:
        raise obstacle
    pool = leave_out_quarantined(pool, store, wanted)
    for holder in pool.holders.values():
        holder.check_hashes(hash_files=store.hash_files)
    tracker.check()
    families = {bundle.name: Family.open(bundle) for bundle in _states_first(pool)}
    source = EngineSource(pool.holders, store, wanted)
    own = {name: engine_names(family.bundle) for name, family in families.items()}
    routers = [call.engine for call in _router_calls(pool)]
    names = list(dict.fromkeys([*(name for each in own.values() for name in each), *routers]))
    if preload and tracker.poll is not None:
        for stage in (Stage.LOAD, Stage.WARM_UP):
            tracker.plan(stage, [Step(stage=stage, engine=name, size=work_size(source.bundle(name), name, stage)) for name in names])
    if names and background_build:
        source = choose_start(source, names, tracker)
    elif build:
        source.build([name for bundle, each in source.by_bundle(names) for name in names_to_build(bundle, each, wanted)], tracker)
    if init_images and (build or background_build):
        build_image_encoders(families, source, tracker)
    families, every = _with_engines(families, own, source)
    if max_memory_bytes is not None:
        families = {name: replace(family, whole_area=1.0) for name, family in families.items()}
    if init_images:
        check_image_encoders(families.values(), _describe_setup(source, names))
    costs = source.costs([*every, *routers])
    engines = EngineSet(source.open, None if max_memory_bytes is None else _limit_memory(source, costs, max_memory_bytes))
    quality = _open_quality(pool, engines)
    calls = tuple(_router_calls(pool)) if quality.engines else ()
    assumes = describe_assumption(source.setup.condition(), (cost.condition for cost in costs.values()))
    if assumes is not None:
        _log.warning("%s", assumes)
    twins = next((family.twins for family in families.values()), {})
    upgraded = [name for name in names if name not in twins and EngineName.parse(name).family in families]
    return Resources(
        families=families,
        router_bundle=pool.router,
        pool=tuple(_candidates(pool, families)),
        stated_ms={each.name: each.cost_ms for each in pool.candidates if each.bundle is None},
        engines=engines,
        costs=CostModel(costs, clock, routing_ms=sum(costs[call.engine].call.median_ms for call in calls)),
        quality=quality,
        router_calls=calls,
        init_images=init_images,
        states_source=_states_source(families, twins) if quality.needs_states else None,
        clock=clock,
        setup=_describe_setup(source, names),
        fallback=wanted.fallback,
        choice=chosen.choice,
        assumes=assumes,
        store=store.root,
        versions={"costroute-rt": read_version(), **_versions(source.setup, wanted), "numpy": np.__version__},
        upgrade=start_upgrade(source, wanted, upgraded) if source.setup != wanted and upgraded else None,
    )


def _check_options(flags: Mapping[str, object], max_memory_bytes: int | None) -> None:
    """Raises ConfigError for options that are wrong, or exclude each other."""
    for name, flag in flags.items():
        check_flag(name, flag)
    if flags["build"] and flags["background_build"]:
        raise ConfigError("build and background_build", (True, True), "one of them")
    if max_memory_bytes is not None and check_whole("max_memory_bytes", max_memory_bytes) < 1:
        raise ConfigError("max_memory_bytes", max_memory_bytes, "a number of bytes above 0")
    if max_memory_bytes is not None and flags["background_build"]:
        raise ConfigError("max_memory_bytes and background_build", (max_memory_bytes, True), "one of them")


def _with_engines(
    families: Mapping[str, Family], own: Mapping[str, Sequence[str]], source: EngineSource
) -> tuple[dict[str, Family], list[str]]:
    """The families with the sizes that engines were built for, and with the engines that they share; and the names of all engines.

    own: names of the usual engines of each family.
    """
    sizes = {name: find_sizes(source, family.bundle, own[name]) for name, family in families.items()}
    every = [name for key, family in families.items() for name in names_of_sizes(family.bundle, sizes[key], own[key])]
    encoders = {name: find_image_encoders(family.bundle, sizes[name].sizes, source.is_ready) for name, family in families.items()}
    every += [name for ready in encoders.values() for name in sorted(ready)]
    twins = find_twins(source.bundles, every, source.setup) if len(families) > 1 else {}
    return {name: family.with_sizes(sizes[name], twins).with_image_encoders(encoders[name]) for name, family in families.items()}, every


def _states_first(pool: Pool) -> list[Bundle]:
    """The bundles; that whose text encoder the router reads comes first."""
    return sorted(pool.bundles.values(), key=lambda bundle: bundle.name != pool.states_bundle)


def _router_calls(pool: Pool) -> tuple[Call, ...]:
    return () if pool.router is None else router_calls(pool.router)


def _limit_memory(source: EngineSource, costs: Mapping[str, EngineCost], max_bytes: int) -> MemoryLimit:
    """The limit, with what the process needs without engines: with the library that runs them. Raises ConfigError for other devices."""
    setup = source.setup
    if setup.condition().threads is None:
        raise ConfigError("max_memory_bytes", max_bytes, f"None with {setup}: the limit is for engines on the processor")
    precision = setup.precision

    def size_of(name: str) -> int:
        measured = costs[name].memory_bytes if name in costs else None
        return estimate_bytes(source.bundle(name), name, precision) if measured is None else measured

    def peak_of(name: str) -> int:
        measured = costs[name].peak_bytes if name in costs else None
        return 2 * size_of(name) if measured is None else measured

    if costs:
        source.open(min(costs, key=size_of)).close()  # loads the library
    give_back_memory()
    return MemoryLimit(
        max_bytes=max_bytes, base_bytes=resident_bytes() or _TYPICAL_BASE_BYTES, size_of=size_of, peak_of=peak_of, used=resident_bytes
    )


def _open_quality(pool: Pool, engines: EngineSet) -> QualityEstimator:
    """The pool's router, else its means, for the candidates that may be used."""
    if pool.router is None:
        return AverageQuality([each.mean for each in pool.candidates], [each.standard_error for each in pool.candidates], pool.metric)
    router = open_pool_router(pool, engines.of_family(pool.router.name))
    columns = [pool.judged.index(each) for each in pool.candidates]
    return router if columns == list(range(len(pool.judged))) else Selected(router, columns)


def _candidates(pool: Pool, families: Mapping[str, Family]) -> Iterator[Candidate]:
    known = {candidate.name: candidate for family in families.values() for candidate in family.pool}
    for each in pool.candidates:
        yield known[each.name] if each.bundle is not None else Candidate.without_bundle(each.name)


def _states_source(families: Mapping[str, Family], twins: Mapping[str, str]) -> StatesSource:
    """Where the router's text states come from: a text encoder of the first family."""
    source = StatesSource.open(next(iter(families.values())).bundle)
    return replace(source, call=replace(source.call, engine=twins.get(source.call.engine, source.call.engine)))


def _describe_setup(source: EngineSource, names: Sequence[str]) -> dict[str, str]:
    """As errors carry it; names: of the engines, none if no candidate has a bundle."""
    setup = source.setup
    if not names:
        return {"backend": setup.backend, "provider": setup.provider, "precision": setup.precision, "target": ""}
    return describe_setup(engine_key(source.bundle(names[0]), names[0], setup), setup.threads)


def start_upgrade(source: EngineSource, wanted: Setup, names: Sequence[str]) -> Upgrade:
    """Start building the missing engines of `wanted`; they replace those of `source`, all at once, after they have passed their checks."""
    from costroute_rt.engines.building.background import start_builder  # loaded only if a build starts
    from costroute_rt.engines.building.plan import plan_builds
    from costroute_rt.engines.building.profile import example_call

    store, bundle_of, groups = source.store, source.bundle, source.by_bundle(names)
    planned = [each for bundle, own in groups for each in plan_builds(bundle, store, own, wanted)]
    complete = [each.engine for each in planned if not each.builds]
    rejected = {name: why for name in complete if (why := find_rejection(bundle_of(name), store, name, wanted, source.setup)) is not None}
    recorded = {name: cost for name in names if (cost := find_recorded_cost(bundle_of(name), store, name, wanted)) is not None}

    def open_ready(name: str) -> Engine:
        engine = open_engine(bundle_of(name), store, name, wanted)
        try:
            example_call(engine, bundle_of(name), name, wanted)()
        except BaseException:
            engine.close()
            raise
        return engine

    def read(name: str) -> EngineCost:
        return read_cost(bundle_of(name), store, name, wanted)

    def start(bundle: Bundle, own: Sequence[str]) -> Builder:
        return start_builder(bundle, store, own, wanted, source.setup, image_calls(bundle))

    remaining = [(bundle, left) for bundle, own in groups if (left := [name for name in own if name not in rejected])]
    builder: Any = None
    if remaining:
        starts = [partial(start, bundle, left) for bundle, left in remaining]
        builder = starts[0]() if len(starts) == 1 else Builders(starts)
    try:
        return Upgrade(
            builder,
            open_ready,
            read,
            setup=wanted,
            steps=[_build_step(source, each.engine, each.build_s) for each in planned],
            recorded=recorded,
            rejected=rejected,
        )
    except BaseException:  # such as Ctrl-C: nobody else would end the process
        if builder is not None:
            builder.close()
            builder.release()
        raise


def _build_step(source: EngineSource, name: str, expected_s: float | None) -> Step:
    return Step(stage=Stage.BUILD, engine=name, expected_s=expected_s, size=work_size(source.bundle(name), name, Stage.BUILD))


def _versions(*setups: Setup) -> dict[str, str]:
    return {setup.backend: setup.tool().version for setup in setups}
