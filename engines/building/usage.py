"""What is in the store, what uses it, and what may be removed when it grows too large."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from costroute_rt.engines.backends.key import FieldDifference
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.lookup import engine_key, read_costs
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.name import find_graph
from costroute_rt.engines.bundle.size import known_size, with_size
from costroute_rt.engines.store.access import check_access
from costroute_rt.engines.store.cost import EngineCost
from costroute_rt.engines.store.store import DAMAGED, Store, StoredEngine, disk_bytes
from costroute_rt.error import BackendError, ConfigError, EngineError, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One engine in the store, compared with what a bundle needs on this machine now."""

    stored: StoredEngine
    engine: str
    """Its name, with the size that it is built for."""
    disk_bytes: int
    used_by: tuple[str, ...]
    """Candidates of the bundle that need it; empty where it is stale."""
    differences: tuple[FieldDifference, ...]
    """Fields in which its key is not what it would be now: wanted is now, found is the engine's."""
    costs: tuple[EngineCost, ...]
    """On this machine, one for each condition, the nearest to the present one first; empty where it was not measured here."""
    unknown: str | None = None
    """Why staleness cannot be determined: backend or device missing."""
    is_extra: bool = False
    """Whether it lies in an extra store, from which nothing is removed."""

    @property
    def cost(self) -> EngineCost | None:
        """What the runtime would predict with; None where it was not measured on this machine."""
        return next(iter(self.costs), None)

    @property
    def state(self) -> str:
        """Ready, stale, quarantined ... in a few words."""
        if self.stored.quarantined:
            return f"quarantined: {self.stored.quarantined}" if self.stored.sha256 else self.stored.quarantined
        if self.differences:
            return f"stale: another {', '.join(d.field for d in self.differences)}"
        if self.unknown is not None:
            return f"unknown: {self.unknown}"
        return "ready" if self.stored.is_proved else "not proved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What `collect_garbage` did, or would do."""

    removed: list[tuple[Usage, str]]
    """Each with the reason."""
    kept: list[tuple[Usage, EngineError]]
    """Those that could not be removed, and why."""
    before_bytes: int
    after_bytes: int


def survey(bundle: Bundle | Sequence[Bundle], store: Store, users: Mapping[str, Container[str]]) -> list[Usage]:
    """Every directory of the store and its extra stores, damaged ones too, by graph.

    bundle: one, or all of a pool. users: the engines that each candidate needs; a name without a size counts for every size.
    """
    bundles = [bundle] if isinstance(bundle, Bundle) else bundle
    return [_describe_best(bundles, store, stored, users) for stored in store.everything()]


def _describe_best(bundles: Sequence[Bundle], store: Store, stored: StoredEngine, users: Mapping[str, Container[str]]) -> Usage:
    """Beside what the bundle needs that it is nearest to; used by the candidates of all bundles."""
    found = [_describe(bundle, store, stored, users) for bundle in bundles]
    best = min(found, key=lambda each: (any(d.field == "graph" for d in each.differences), len(each.differences)))
    return replace(best, used_by=tuple(dict.fromkeys(name for each in found for name in each.used_by)))


def _describe(bundle: Bundle, store: Store, stored: StoredEngine, users: Mapping[str, Container[str]]) -> Usage:
    family, _, rest = stored.key.graph.partition("/")
    graph, size = f"{bundle.name if family == bundle.family else family}/{rest}", known_size(bundle, stored.key.shapes)
    name = graph
    with suppress(ConfigError):  # it is none of this bundle's
        name = with_size(bundle, [graph], size)[0] if size is not None else str(find_graph(bundle, graph))
    setup = _setup(stored)
    differences, unknown = _compare_with_now(bundle, stored, name, setup)
    is_usable = not (differences or unknown or stored.quarantined)
    return Usage(
        stored=stored,
        engine=name,
        disk_bytes=disk_bytes(stored.path),
        used_by=tuple(candidate for candidate, names in users.items() if is_usable and (graph in names or name in names)),
        differences=differences,
        costs=_costs(store, stored, name, setup),
        unknown=unknown,
        is_extra=not store.owns(stored),
    )


def collect_garbage(
    bundle: Bundle | Sequence[Bundle],
    store: Store,
    users: Mapping[str, Container[str]],
    max_bytes: int,
    *,
    dry_run: bool = False,
) -> Collection:
    """Remove engines until the store has at most `max_bytes`: damaged ones, then those not used for longest.

    Engines in use are kept unless they alone exceed the limit; so are engines whose status is unknown. Records of quarantined engines
    stay: they are small, and without them these engines would be built again. An engine that is being built, that another process uses or
    that this user must not remove stays too, and extra stores are left alone. Raises EngineError if others can write the store.
    """
    check_access(store.root)
    if not dry_run:
        store.sweep()
    found = [each for each in survey(bundle, store, users) if not each.is_extra]
    before = after = sum(each.disk_bytes for each in found)
    removed, kept = [], []
    for each in _by_worth(found):
        if after <= max_bytes:
            break
        try:
            if not dry_run:
                store.remove(each.stored.digest, timeout_s=0)
            removed.append((each, _why(each)))
        except TimeoutError:
            continue
        except EngineError as error:
            if error.reason in (Reason.IN_USE, Reason.PERMISSION):
                kept.append((each, error))
                continue
            if each.stored.path.exists():
                raise
        after -= each.disk_bytes  # also where somebody else removed it
    return Collection(removed=removed, kept=kept, before_bytes=before, after_bytes=after)


def _by_worth(found: Sequence[Usage]) -> list[Usage]:
    """What may be removed, in the order in which it is removed."""
    removable = [each for each in found if each.state == DAMAGED or not each.stored.quarantined]
    return sorted(removable, key=lambda each: (each.state != DAMAGED, bool(each.used_by or each.unknown), each.stored.used_at_s))


def _why(usage: Usage) -> str:
    if usage.used_by or usage.unknown is not None:
        return "the engines in use alone exceed the limit"
    return usage.state if usage.differences or usage.stored.quarantined else "the bundle does not use it"


def _setup(stored: StoredEngine) -> Setup:
    """The setup that asks for such engines."""
    key = stored.key
    return Setup(backend=key.backend, provider=key.provider, precision=key.precision, target=key.setup["target"])


def _compare_with_now(bundle: Bundle, stored: StoredEngine, name: str, setup: Setup) -> tuple[tuple[FieldDifference, ...], str | None]:
    """Its key beside the one that such an engine would have now; else why that is unknown."""
    key = stored.key
    if not key.graph.startswith(f"{bundle.family}/"):
        return (FieldDifference("graph", f"one of {bundle.family}", key.graph),), None
    try:
        find_graph(bundle, name)
    except ConfigError:
        return (FieldDifference("graph", "one of the bundle", key.graph),), None
    try:
        now = engine_key(bundle, name, setup)
    except BackendError as error:
        return (), error.found
    except ConfigError as error:
        return (FieldDifference("backend", str(error), key.backend),), None
    differences = tuple(now.differences(key))
    is_away = now.device == "none" != key.device
    if is_away and {each.field for each in differences} <= {"device", "driver"}:
        return (), f"{key.device} is missing"
    return differences, None


def _costs(store: Store, stored: StoredEngine, name: str, setup: Setup) -> tuple[EngineCost, ...]:
    now = setup.condition()
    try:
        return tuple(sorted(read_costs(store, stored, name), key=lambda cost: now.distance(cost.condition)))
    except EngineError:
        return ()
