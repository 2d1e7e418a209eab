"""How long work on engines takes: builds by the records of the store, everything else by the size of its networks."""

from __future__ import annotations

from collections.abc import Sequence

from costroute_rt.engines.backends.key import EngineKey
from costroute_rt.engines.building.progress import Stage
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.name import EngineName
from costroute_rt.engines.store.store import StoredEngine

_WORK = {Stage.BUILD: 1.0, Stage.MEASURE: 0.3, Stage.LOAD: 0.1, Stage.WARM_UP: 0.05}
"""Time that a stage takes for an engine, relative to building it."""
_LEAST_BYTES = 1 << 20
"""Added to the size of each network: the smallest take time too."""


def work_size(bundle: Bundle, name: str, stage: Stage) -> float:
    """Rough amount of work on an engine, to compare steps that have no record."""
    return _WORK[stage] * (_LEAST_BYTES + stored_bytes(bundle, name))


def stored_bytes(bundle: Bundle, name: str) -> int:
    """Size of an engine's graph and of its component's weights in the bundle."""
    _, component, graph, _ = EngineName.parse(name)
    return bundle.files[bundle.graph_path(component, graph)].bytes + bundle.weights_bytes(component)


def similar_builds(key: EngineKey, records: Sequence[StoredEngine]) -> list[StoredEngine]:
    """Recorded builds of the same graph by the same backend for the same provider and precision, the last one first."""
    how = (key.graph, key.backend, key.provider, key.precision)
    found = [each for each in records if (each.key.graph, each.key.backend, each.key.provider, each.key.precision) == how]
    return sorted(found, key=lambda each: (each.key.shapes == key.shapes, each.built_at), reverse=True)


def expected_build_s(key: EngineKey, records: Sequence[StoredEngine], disk_bytes: int) -> float | None:
    """Seconds that a build takes, by the last one of the graph, else by size from all builds of the backend; None without records.

    disk_bytes: the size of the engine, at most.
    """
    similar = similar_builds(key, records)
    if similar:
        return similar[0].build_s
    same = [each for each in records if (each.key.backend, each.key.provider) == (key.backend, key.provider) and each.size_bytes]
    if not same:
        return None
    return sum(each.build_s for each in same) / sum(each.size_bytes for each in same) * disk_bytes
