"""What is in the store, what uses it, and what may go when it grows too large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from filelock import Timeout

from costroute_rt.engines.build import engine_key, is_proved, make_spec, router_graphs, row_graphs
from costroute_rt.engines.bundle import Bundle
from costroute_rt.engines.cost import EngineCost, identity, read_cost_file
from costroute_rt.engines.durable import store_errors
from costroute_rt.engines.engine import ANY_DRIVER, FieldDifference, get_backend
from costroute_rt.engines.error import BackendError, BundleError, ConfigError, EngineError
from costroute_rt.engines.store import Store, StoredEngine

DAMAGED = "damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One engine in the store, seen from a bundle on this machine as they are now."""

    stored: StoredEngine
    disk_bytes: int
    used_by: tuple[str, ...]
    """Candidates of the bundle that need it; empty where its key is not what it would be now."""
    differences: tuple[FieldDifference, ...]
    """In what its key is not what it would be now: wanted is now, found is the engine's."""
    cost: EngineCost | None
    """None where it was not measured, or not as things are now."""

    @property
    def state(self) -> str:
        """In a few words."""
        if self.stored.quarantined:
            return f"set aside: {self.stored.quarantined}" if self.stored.sha256 else DAMAGED
        if self.differences:
            return f"stale: another {', '.join(d.field for d in self.differences)}"
        return "ready" if is_proved(self.stored) else "not proved"


@dataclass(frozen=True, slots=True)
class Removal:
    """An engine that went, or would go, and why."""

    usage: Usage
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What `collect_garbage` did, or would do."""

    removed: list[Removal]
    before_bytes: int
    after_bytes: int
    max_bytes: int


def survey(bundle: Bundle, store: Store) -> list[Usage]:
    """Every directory of the store, damaged ones too, by graph."""
    rows = {row["name"]: [*row_graphs(bundle, row), *router_graphs(bundle)] for row in bundle.pool}
    found = []
    for stored in store.everything():
        differences = _differences_from_now(bundle, stored)
        name = stored.key.graph.partition("/")[2]
        users = () if differences or stored.quarantined else tuple(row for row, graphs in rows.items() if name in graphs)
        found.append(Usage(stored=stored, disk_bytes=_disk_bytes(stored), used_by=users, differences=differences, cost=_cost(stored, name)))
    return found


def collect_garbage(bundle: Bundle, store: Store, max_bytes: int, *, dry_run: bool = False) -> Collection:
    """Remove engines until the store has at most `max_bytes`: damaged ones, then those not used for longest.

    What the bundle uses stays, unless it alone needs more. Records of engines that were set aside stay: they are small, and without
    them these would be built again. An engine that somebody is building stays too.
    """
    if not dry_run:
        store.sweep()
    found = survey(bundle, store)
    before = after = sum(each.disk_bytes for each in found)
    removed = []
    for each in _by_worth(found):
        if after <= max_bytes:
            break
        if not dry_run and not _remove(store, each):
            continue
        removed.append(Removal(each, _why(each)))
        after -= each.disk_bytes
    return Collection(removed=removed, before_bytes=before, after_bytes=after, max_bytes=max_bytes)


def _by_worth(found: Sequence[Usage]) -> list[Usage]:
    """What may go, in the order in which it goes."""
    going = [each for each in found if each.state == DAMAGED or not each.stored.quarantined]
    return sorted(going, key=lambda each: (each.state != DAMAGED, bool(each.used_by), each.stored.used_at_s))


def _why(usage: Usage) -> str:
    if usage.used_by:
        return "what the bundle uses alone needs more"
    return usage.state if usage.differences or usage.stored.quarantined else "the bundle does not use it"


def _remove(store: Store, usage: Usage) -> bool:
    try:
        store.remove(usage.stored.digest, timeout_s=0)
    except Timeout:
        return False
    return True


def _differences_from_now(bundle: Bundle, stored: StoredEngine) -> tuple[FieldDifference, ...]:
    """Its key beside the one that the same graph, backend, provider, precision, shapes and options would have now."""
    key = stored.key
    family, _, name = key.graph.partition("/")
    component, _, graph = name.partition("/")
    if family != bundle.family:
        return (FieldDifference("graph", f"one of {bundle.family}", key.graph),)
    try:
        spec = make_spec(key.provider, precision=key.precision, target=key.device if key.driver == ANY_DRIVER else "")
        now = engine_key(bundle, component, graph, get_backend(key.backend), spec)
    except BundleError:
        return (FieldDifference("graph", "one of the bundle", key.graph),)
    except (BackendError, ConfigError) as error:
        return (FieldDifference("backend", str(error), key.backend),)
    return tuple(replace(now, shapes=key.shapes, options=key.options).differences(key))


def _cost(stored: StoredEngine, name: str) -> EngineCost | None:
    try:
        return read_cost_file(stored.path, identity(stored.key, stored.sha256), name, stored.digest)
    except EngineError:
        return None


def _disk_bytes(stored: StoredEngine) -> int:
    with store_errors(stored.path):
        return sum(file.stat().st_size for file in stored.path.iterdir() if file.is_file())
