"""Assembles the resources of a runtime from a bundle and the store."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from costroute_rt.cost.correction import Clock
from costroute_rt.cost.cost_model import CostModel
from costroute_rt.engines.backends.engine import Engine
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.build import build_each, open_engine, raise_quarantined
from costroute_rt.engines.building.duration import work_size
from costroute_rt.engines.building.lookup import (
    describe_setup,
    engine_key,
    find_recorded_cost,
    find_rejection,
    is_ready,
    may_replace,
    names_to_build,
    read_cost,
)
from costroute_rt.engines.building.progress import Stage, Step, Tracker
from costroute_rt.engines.bundle.bundle import Bundle, shipped_bundle
from costroute_rt.engines.bundle.size import has_one_size, known_size, with_size
from costroute_rt.engines.machine.condition import Condition, describe_assumption
from costroute_rt.engines.store.cost import EngineCost
from costroute_rt.engines.store.store import Store
from costroute_rt.error import ConfigError, EngineError
from costroute_rt.family.calls import engine_names, image_calls, image_encoder_names, router_calls
from costroute_rt.family.conditioning import StatesSource
from costroute_rt.family.engine_set import EngineSet
from costroute_rt.family.family import EngineSizes, Family
from costroute_rt.family.image_encoders import check_image_encoders, find_image_encoders
from costroute_rt.family.resources import Resources
from costroute_rt.family.upgrade import Upgrade
from costroute_rt.request import check_flag
from costroute_rt.routing.quality import AverageQuality, QualityEstimator
from costroute_rt.routing.router_bundle import open_router
from costroute_rt.version import read_version

_log = logging.getLogger(__name__)


def open_resources(
    path: str | Path | None,
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
    tracker: Tracker,
) -> Resources:
    """The resources of a runtime, with no engine opened yet; the other arguments and the errors are those of `Runtime.open`.

    tracker: gets the plan of all that is left to do, warming up included if `preload` is true.
    """
    flags = {"allow_fallback": allow_fallback, "build": build, "background_build": background_build, "preload": preload}
    flags["init_images"] = init_images
    for name, flag in flags.items():
        check_flag(name, flag)
    if build and background_build:
        raise ConfigError("build and background_build", (build, background_build), "one of them")
    bundle = Bundle.open(shipped_bundle() if path is None else path, verify=False)
    store = Store.open(home, extra_stores)
    wanted = Setup.of(backend, provider, precision, threads, allow_fallback=allow_fallback)
    if (obstacle := wanted.obstacle()) is not None:
        raise obstacle
    bundle.check_hashes(hash_files=store.hash_files)
    tracker.check()
    family = Family.open(bundle)
    source = EngineSource(bundle, store, wanted)
    names = engine_names(bundle)
    if preload and tracker.poll is not None:
        for stage in (Stage.LOAD, Stage.WARM_UP):
            tracker.plan(stage, [Step(stage=stage, engine=name, size=work_size(bundle, name, stage)) for name in names])
    if background_build:
        source = choose_start(source, names, tracker)
    elif build:
        source.build(names_to_build(bundle, names, wanted), tracker)
    family = family.with_sizes(find_sizes(source, names))
    if init_images and (build or background_build):
        source.build(names_to_build(bundle, image_encoder_names(bundle), source.setup), tracker)
    encoders = find_image_encoders(bundle, family.sizes.sizes, source.is_ready)
    setup = describe_setup(engine_key(bundle, names[0], source.setup), source.setup.threads)
    if init_images:
        check_image_encoders(bundle, encoders, setup)
    family = family.with_image_encoders(encoders)
    engines = EngineSet(source.open)
    quality: QualityEstimator = AverageQuality.from_bundle(bundle, family.pool)
    if bundle.router is not None:
        quality = open_router(bundle, engines.of_family(family.name))
    calls = router_calls(bundle) if quality.engines else ()
    costs = {**source.costs(family.sizes, names), **{name: source.cost(name, source.setup.condition()) for name in encoders}}
    assumes = describe_assumption(source.setup.condition(), (cost.condition for cost in costs.values()))
    if assumes is not None:
        _log.warning("%s", assumes)
    return Resources(
        families={family.name: family},
        pool=family.pool,
        engines=engines,
        costs=CostModel(costs, clock, routing_ms=sum(costs[call.engine].call.median_ms for call in calls)),
        quality=quality,
        router_calls=calls,
        init_images=init_images,
        states_source=StatesSource.open(bundle) if quality.needs_states else None,
        clock=clock,
        setup=setup,
        fallback=wanted.fallback,
        assumes=assumes,
        store=store.root,
        versions={"costroute-rt": read_version(), **_versions(source.setup, wanted), "numpy": np.__version__},
        upgrade=start_upgrade(source, wanted, names) if source.setup != wanted else None,
    )


class EngineSource:
    """Engines of one bundle and one setup in one store."""

    def __init__(self, bundle: Bundle, store: Store, setup: Setup) -> None:
        self.bundle, self.store, self.setup = bundle, store, setup

    def build(self, names: Sequence[str], tracker: Tracker) -> None:
        """Build and measure the engines that are missing."""
        reports = build_each(self.bundle, self.store, names, self.setup, tracker=tracker)
        raise_quarantined(self.bundle, self.store, reports, self.setup.threads)

    def open(self, name: str) -> Engine:
        """The engine of that name; raises EngineError."""
        return open_engine(self.bundle, self.store, name, self.setup)

    def cost(self, name: str, condition: Condition) -> EngineCost:
        """Cost of the engine on this device, under this condition or else the nearest.

        Raises EngineError, which says how the nearest stored engine differs.
        """
        try:
            return read_cost(self.bundle, self.store, name, self.setup, condition=condition)
        except EngineError:
            self.open(name).close()  # if the engine itself is missing, this reports what differs
            raise

    def image_ms(self, names: Iterable[str], condition: Condition) -> float:
        """Sum of the times of these engines, with the threads of this setup and otherwise under this condition or else the nearest."""
        wanted = replace(condition, threads=self.setup.condition().threads)
        return sum(self.cost(name, wanted).call.median_ms for name in names)

    def costs(self, sizes: EngineSizes, names: Sequence[str]) -> dict[str, EngineCost]:
        """Costs by engine name: of the usual engines, and of the engines built for single sizes."""
        wanted = [*(names if sizes.has_usual else ()), *(name for size in sizes.sizes for name in with_size(self.bundle, names, size))]
        now = self.setup.condition()
        return {name: self.cost(name, now) for name in dict.fromkeys(wanted)}

    def is_ready(self, names: Iterable[str]) -> bool:
        """Whether all these engines exist, are measured, and can run."""
        return is_ready(self.bundle, self.store, names, self.setup)


def find_sizes(source: EngineSource, names: Sequence[str]) -> EngineSizes:
    """Image sizes whose engines exist and are measured; the usual engines count as existing if no size has its own."""
    bundle = source.bundle
    built = {known_size(bundle, stored.key.shapes) for stored in source.store.engines()} if not has_one_size(bundle) else set()
    sizes = {size for size in built if size is not None and source.is_ready(with_size(bundle, names, size))}
    return EngineSizes(frozenset(sizes), has_usual=not sizes or source.is_ready(names))


def choose_start(wanted: EngineSource, names: Sequence[str], tracker: Tracker) -> EngineSource:
    """The engines to run until those of `wanted` are built.

    If all engines of `wanted` are ready, these, unless some of them lost their race against another setup that is ready, or have yet to
    run it: then that setup. Otherwise the fastest setup that is ready, or ONNX Runtime on the CPU, which is built here within seconds.
    """
    bundle, store, threads = wanted.bundle, wanted.store, wanted.setup.threads
    engine_key(bundle, names[0], wanted.setup)  # raises if the backend or provider is missing, before anything is built
    stored = {(each.key.backend, each.key.provider, each.key.precision) for each in store.engines()}
    setups = [
        Setup(backend=backend, provider=provider, precision=precision, threads=threads) for backend, provider, precision in sorted(stored)
    ]
    ready = [source for setup in setups if setup != wanted.setup and (source := EngineSource(bundle, store, setup)).is_ready(names)]
    now = wanted.setup.condition()
    # The condition measured last may not be known of every setup: compared are times under one that is, if there are any.
    shared = max((source.cost(name, now).condition for source in ready for name in names), key=now.distance, default=now)
    ready.sort(key=lambda source: source.image_ms(names, shared))
    if wanted.is_ready(names):
        return next((each for each in ready if not _may_replace(wanted, each, names)), wanted)
    if ready:
        return ready[0]
    base = EngineSource(bundle, store, Setup(backend="onnxruntime", threads=threads))
    base.build(names, tracker)
    return base


def _may_replace(wanted: EngineSource, replaced: EngineSource, names: Sequence[str]) -> bool:
    return all(may_replace(wanted.bundle, wanted.store, name, wanted.setup, replaced.setup) for name in names)


def start_upgrade(source: EngineSource, wanted: Setup, names: Sequence[str]) -> Upgrade:
    """Start building the missing engines of `wanted`; they replace those of `source`, all at once, after they have passed their checks."""
    from costroute_rt.engines.building.background import start_builder  # loaded only if a build starts
    from costroute_rt.engines.building.plan import plan_builds
    from costroute_rt.engines.building.profile import example_call

    bundle, store = source.bundle, source.store
    planned = plan_builds(bundle, store, names, wanted)
    complete = [each.engine for each in planned if not each.builds]
    rejected = {name: why for name in complete if (why := find_rejection(bundle, store, name, wanted, source.setup)) is not None}
    remaining = [name for name in names if name not in rejected]
    recorded = {name: cost for name in names if (cost := find_recorded_cost(bundle, store, name, wanted)) is not None}

    def open_ready(name: str) -> Engine:
        engine = open_engine(bundle, store, name, wanted)
        try:
            example_call(engine, bundle, name, wanted)()
        except BaseException:
            engine.close()
            raise
        return engine

    builder = start_builder(bundle, store, remaining, wanted, source.setup, image_calls(bundle)) if remaining else None
    try:
        return Upgrade(
            builder,
            open_ready,
            lambda name: read_cost(bundle, store, name, wanted),
            setup=wanted,
            steps=[
                Step(stage=Stage.BUILD, engine=each.engine, expected_s=each.build_s, size=work_size(bundle, each.engine, Stage.BUILD))
                for each in planned
            ],
            recorded=recorded,
            rejected=rejected,
        )
    except BaseException:  # such as Ctrl-C: nobody else would end the process
        if builder is not None:
            builder.close()
            builder.release()
        raise


def _versions(*setups: Setup) -> dict[str, str]:
    return {setup.backend: setup.tool().version for setup in setups}
