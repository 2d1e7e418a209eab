"""What a build would do, without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from costroute_rt.engines.backends.key import EngineKey, FieldDifference
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.build import room_needed
from costroute_rt.engines.building.duration import expected_build_s, similar_builds
from costroute_rt.engines.building.lookup import describe_miss, engine_key
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.store import Store, StoredEngine
from costroute_rt.error import EngineError


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedBuild:
    """What would happen to one engine."""

    engine: str
    digest: str
    builds: bool
    why: str
    differences: tuple[FieldDifference, ...]
    """From the nearest stored engine of the graph; empty where it would not be built, or none was ever built."""
    build_s: float | None
    """From recorded builds of the same graph, else of others by the same backend, by size; None without records, 0 if not built."""
    disk_bytes: int
    """Of the last such engine; where there was none, the most it may need; 0 if not built."""


def plan_builds(bundle: Bundle, store: Store, names: Sequence[str], setup: Setup, *, force: bool = False) -> list[PlannedBuild]:
    """What `build_each` would do now with the same arguments, one entry for each name."""
    keys = {name: engine_key(bundle, name, setup) for name in names}
    records = store.engines()
    can_run = setup.tool().obstacle() is None
    return [_plan(bundle, store, name, key, records, can_run=can_run, force=force) for name, key in keys.items()]


def _plan(
    bundle: Bundle, store: Store, name: str, key: EngineKey, records: Sequence[StoredEngine], *, can_run: bool, force: bool
) -> PlannedBuild:
    builds, why, differences = _decide(store, key, can_run, force)
    similar = similar_builds(key, records)
    disk_bytes = next((record.size_bytes for record in similar if record.size_bytes), room_needed(bundle, name))
    return PlannedBuild(
        engine=name,
        digest=key.digest,
        builds=builds,
        why=why,
        differences=differences,
        build_s=expected_build_s(key, records, disk_bytes) if builds else 0.0,
        disk_bytes=disk_bytes if builds else 0,
    )


def _decide(store: Store, key: EngineKey, can_run: bool, force: bool) -> tuple[bool, str, tuple[FieldDifference, ...]]:
    """Whether the engine would be built, why, and how its key differs from the nearest stored one's."""
    try:
        stored = store.peek(key)
        if stored is not None:
            store.check_files(stored)
    except EngineError as error:
        return True, f"damaged: {error.problem}", ()
    if stored is None:
        differences = store.explain(key)
        return True, describe_miss(differences), tuple(differences)
    if force:
        return True, "forced", ()
    is_new_here = can_run and not stored.was_checked
    if stored.quarantined:
        return is_new_here, f"quarantined{' on another device' if is_new_here else ''}: {stored.quarantined}", ()
    return False, "it exists, and will be checked on this device" if is_new_here else "it exists", ()
