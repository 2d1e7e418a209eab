"""Engines of a pool's bundles in the store: building them, opening them, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from costroute_rt.engines.backends.engine import Engine
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.build import build_each, open_engine, raise_quarantined
from costroute_rt.engines.building.lookup import engine_key, is_ready, may_replace, read_cost
from costroute_rt.engines.building.progress import Tracker
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.name import EngineName
from costroute_rt.engines.bundle.size import has_one_size, known_size, with_size
from costroute_rt.engines.machine.condition import Condition
from costroute_rt.engines.store.cost import EngineCost
from costroute_rt.engines.store.store import Store
from costroute_rt.error import EngineError
from costroute_rt.family.family import EngineSizes


class EngineSource:
    """Engines of several bundles and one setup in one store."""

    def __init__(self, bundles: Mapping[str, Bundle] | Bundle, store: Store, setup: Setup) -> None:
        """bundles: by the first part of the names of their engines."""
        self.bundles = {bundles.name: bundles} if isinstance(bundles, Bundle) else dict(bundles)
        self.store, self.setup = store, setup

    def bundle(self, name: str) -> Bundle:
        """The bundle that an engine belongs to."""
        return self.bundles[EngineName.parse(name).family]

    def by_bundle(self, names: Iterable[str]) -> list[tuple[Bundle, list[str]]]:
        """The names of each bundle, in their order."""
        ordered = sorted(names, key=lambda name: list(self.bundles).index(EngineName.parse(name).family))
        return [(bundle, list(own)) for bundle, own in groupby(ordered, key=self.bundle)]

    def build(self, names: Sequence[str], tracker: Tracker) -> None:
        """Build and measure the engines that are missing."""
        for bundle, own in self.by_bundle(names):
            reports = build_each(bundle, self.store, own, self.setup, tracker=tracker)
            raise_quarantined(bundle, self.store, reports, self.setup.threads)

    def open(self, name: str) -> Engine:
        """The engine of that name; raises EngineError."""
        return open_engine(self.bundle(name), self.store, name, self.setup)

    def cost(self, name: str, condition: Condition) -> EngineCost:
        """Cost of the engine on this device, under this condition or else the nearest.

        Raises EngineError, which says how the nearest stored engine differs.
        """
        try:
            return read_cost(self.bundle(name), self.store, name, self.setup, condition=condition)
        except EngineError:
            self.open(name).close()  # if the engine itself is missing, this reports what differs
            raise

    def image_ms(self, names: Iterable[str], condition: Condition) -> float:
        """Sum of the times of these engines, with the threads of this setup and otherwise under this condition or else the nearest."""
        wanted = replace(condition, threads=self.setup.condition().threads)
        return sum(self.cost(name, wanted).call.median_ms for name in names)

    def costs(self, names: Iterable[str]) -> dict[str, EngineCost]:
        """Costs by engine name."""
        now = self.setup.condition()
        return {name: self.cost(name, now) for name in dict.fromkeys(names)}

    def is_ready(self, names: Iterable[str]) -> bool:
        """Whether all these engines exist, are measured, and can run."""
        return all(is_ready(bundle, self.store, own, self.setup) for bundle, own in self.by_bundle(names))

    def may_replace(self, replaced: EngineSource, names: Iterable[str]) -> bool:
        """Whether these engines may all replace those of another source."""
        return all(may_replace(self.bundle(name), self.store, name, self.setup, replaced.setup) for name in names)


def find_sizes(source: EngineSource, bundle: Bundle, names: Sequence[str]) -> EngineSizes:
    """Image sizes whose engines exist and are measured; the usual engines count as existing if no size has its own.

    names: of the bundle's usual engines.
    """
    built = {known_size(bundle, stored.key.shapes) for stored in source.store.engines()} if not has_one_size(bundle) else set()
    sizes = {size for size in built if size is not None and source.is_ready(with_size(bundle, names, size))}
    return EngineSizes(frozenset(sizes), has_usual=not sizes or source.is_ready(names))


def names_of_sizes(bundle: Bundle, sizes: EngineSizes, names: Sequence[str]) -> list[str]:
    """The usual engines, if they exist, and the engines built for single sizes."""
    return [*(names if sizes.has_usual else ()), *(name for size in sizes.sizes for name in with_size(bundle, names, size))]


def choose_start(wanted: EngineSource, names: Sequence[str], tracker: Tracker) -> EngineSource:
    """The engines to run until those of `wanted` are built.

    If all engines of `wanted` are ready, these, unless some of them lost their race against another setup that is ready, or have yet to
    run it: then that setup. Otherwise the fastest setup that is ready, or ONNX Runtime on the CPU, which is built here within seconds.
    """
    bundles, store, threads = wanted.bundles, wanted.store, wanted.setup.threads
    engine_key(wanted.bundle(names[0]), names[0], wanted.setup)  # raises if the backend or provider is missing, before anything is built
    stored = {(each.key.backend, each.key.provider, each.key.precision) for each in store.engines()}
    setups = [
        Setup(backend=backend, provider=provider, precision=precision, threads=threads) for backend, provider, precision in sorted(stored)
    ]
    ready = [source for setup in setups if setup != wanted.setup and (source := EngineSource(bundles, store, setup)).is_ready(names)]
    now = wanted.setup.condition()
    # The condition measured last may not be known of every setup: compared are times under one that is, if there are any.
    shared = max((source.cost(name, now).condition for source in ready for name in names), key=now.distance, default=now)
    ready.sort(key=lambda source: source.image_ms(names, shared))
    if wanted.is_ready(names):
        return next((each for each in ready if not wanted.may_replace(each, names)), wanted)
    if ready:
        return ready[0]
    base = EngineSource(bundles, store, Setup(backend="onnxruntime", threads=threads))
    base.build(names, tracker)
    return base
