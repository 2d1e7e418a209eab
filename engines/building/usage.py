"""What is in the store, what uses it, and what may go when it grows too large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from filelock import Timeout

from costroute_rt.engines.backends.key import ANY_DRIVER, FieldDifference
from costroute_rt.engines.building.build import is_proved
from costroute_rt.engines.building.setup import Setup
from costroute_rt.engines.building.shape import known_size, with_size
from costroute_rt.engines.building.specification import router_graphs, row_graphs
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.machine.durable import store_errors
from costroute_rt.engines.store.cost import EngineCost, identity, read_cost_file
from costroute_rt.engines.store.store import Store, StoredEngine
from costroute_rt.error import BackendError, BundleError, ConfigError, EngineError

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
    unknown: str | None = None
    """Why it cannot be told now whether it is as it would be: its backend or its device is not there."""

    @property
    def state(self) -> str:
        """In a few words."""
        if self.stored.quarantined:
            return f"quarantined: {self.stored.quarantined}" if self.stored.sha256 else DAMAGED
        if self.differences:
            return f"stale: another {', '.join(d.field for d in self.differences)}"
        if self.unknown is not None:
            return f"cannot tell now: {self.unknown}"
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


def survey(bundle: Bundle, store: Store, threads: int | None = None) -> list[Usage]:
    """Every directory of the store, damaged ones too, by graph.

    threads: of the engines that the bundle uses; None: this machine's default.
    """
    rows = {row["name"]: [*row_graphs(bundle, row), *router_graphs(bundle)] for row in bundle.pool}
    found = []
    for stored in store.everything():
        differences, unknown = _compare_with_now(bundle, stored, threads)
        name = stored.key.graph.partition("/")[2]
        users = () if differences or unknown or stored.quarantined else tuple(row for row, graphs in rows.items() if name in graphs)
        usage = Usage(
            stored=stored,
            disk_bytes=_disk_bytes(stored),
            used_by=users,
            differences=differences,
            cost=_cost(stored, name),
            unknown=unknown,
        )
        found.append(usage)
    return found


def collect_garbage(bundle: Bundle, store: Store, max_bytes: int, *, threads: int | None = None, dry_run: bool = False) -> Collection:
    """Remove engines until the store has at most `max_bytes`: damaged ones, then those not used for longest.

    What the bundle uses stays, unless it alone needs more, and so does that of which this cannot be told now. Records of engines that
    are quarantined stay: they are small, and without them these would be built again. An engine that somebody is building stays too.
    """
    if not dry_run:
        store.sweep()
    found = survey(bundle, store, threads)
    before = after = sum(each.disk_bytes for each in found)
    removed = []
    for each in _by_worth(found):
        if after <= max_bytes:
            break
        try:
            if not dry_run:
                store.remove(each.stored.digest, timeout_s=0)
            removed.append(Removal(each, _why(each)))
        except Timeout:
            continue
        except EngineError:
            if each.stored.path.exists():
                raise
        after -= each.disk_bytes  # also where somebody else removed it
    return Collection(removed=removed, before_bytes=before, after_bytes=after, max_bytes=max_bytes)


def _by_worth(found: Sequence[Usage]) -> list[Usage]:
    """What may go, in the order in which it goes."""
    going = [each for each in found if each.state == DAMAGED or not each.stored.quarantined]
    return sorted(going, key=lambda each: (each.state != DAMAGED, bool(each.used_by or each.unknown), each.stored.used_at_s))


def _why(usage: Usage) -> str:
    if usage.used_by or usage.unknown is not None:
        return "what the bundle uses alone needs more"
    return usage.state if usage.differences or usage.stored.quarantined else "the bundle does not use it"


def _compare_with_now(bundle: Bundle, stored: StoredEngine, threads: int | None) -> tuple[tuple[FieldDifference, ...], str | None]:
    """Its key beside the one that the same graph, backend, provider, precision and size would have now; why this cannot be told, else."""
    key = stored.key
    family, _, name = key.graph.partition("/")
    if family != bundle.family:
        return (FieldDifference("graph", f"one of {bundle.family}", key.graph),), None
    size = known_size(bundle, key.shapes)
    try:
        target = key.device if key.driver == ANY_DRIVER else ""
        setup = Setup(backend=key.backend, provider=key.provider, precision=key.precision, threads=threads, target=target)
        now = setup.key(bundle, with_size(bundle, [name], size)[0] if size is not None else name)
    except BundleError:
        return (FieldDifference("graph", "one of the bundle", key.graph),), None
    except BackendError as error:
        return (), error.found
    except ConfigError as error:
        return (FieldDifference("backend", str(error), key.backend),), None
    differences = tuple(now.differences(key))
    is_away = now.device == "none" != key.device
    if is_away and {each.field for each in differences} <= {"device", "driver"}:
        return (), f"{key.device} is not there"
    return differences, None


def _cost(stored: StoredEngine, name: str) -> EngineCost | None:
    try:
        return read_cost_file(stored.path, identity(stored.key, stored.sha256), name, stored.digest)
    except EngineError:
        return None


def _disk_bytes(stored: StoredEngine) -> int:
    """0 for one that somebody removed meanwhile."""
    if not stored.path.exists():
        return 0
    with store_errors(stored.path):
        return sum(file.stat().st_size for file in stored.path.iterdir() if file.is_file())
