"""What the store knows about a bundle's engines: the keys they have, their costs, and why one is missing or not used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from costroute_rt.engines.backends.engine import Backend
from costroute_rt.engines.backends.key import EngineKey, FieldDifference
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.backends.spec import BuildSpec
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import GraphSpec
from costroute_rt.engines.bundle.name import find_graph
from costroute_rt.engines.bundle.size import with_size
from costroute_rt.engines.machine import device
from costroute_rt.engines.machine.condition import Condition
from costroute_rt.engines.store.cost import CostFiles, EngineCost, identity, nearest_cost
from costroute_rt.engines.store.store import Store, StoredEngine
from costroute_rt.error import BackendError, ConfigError, EngineError, Reason


def names_to_build(bundle: Bundle, names: Sequence[str], setup: Setup) -> list[str]:
    """These engines and, for backends that build for ranges of lengths, also those built for the bundle's usual size, which are faster."""
    usual = with_size(bundle, names, (bundle.image.height, bundle.image.width)) if setup.tool().needs_ranges else []
    return list(dict.fromkeys([*names, *usual]))


def engine_key(bundle: Bundle, name: str, setup: Setup) -> EngineKey:
    """The key under which the store has the engine; raises ConfigError for a graph that the bundle does not have, BackendError."""
    return make_key(bundle, name, setup.tool(), setup.spec(bundle, name))


def make_key(bundle: Bundle, name: str, tool: Backend, spec: BuildSpec) -> EngineKey:
    """The key of the engine that this backend builds to this specification."""
    found = find_graph(bundle, name)
    path = bundle.graph_path(found.component, found.graph)
    device_name, driver = tool.device(spec)
    return EngineKey(
        graph=str(found._replace(family=bundle.family, size=None)),
        weights_sha256=bundle.weights_sha256(found.component),
        graph_sha256=bundle.files[path].sha256,
        backend=tool.name,
        backend_version=tool.version,
        provider=spec.provider,
        precision=spec.precision,
        shapes=_describe_shapes(bundle.graphs[path], spec),
        options=tool.options(spec),
        device=device_name,
        driver=driver,
        os=device.os_name(),
    )


def _describe_shapes(graph: GraphSpec, spec: BuildSpec) -> str:
    """Fixed axes, and the ranges of those the graph has beside them."""
    fixed = dict(spec.shapes)
    free = {axis for port in graph.inputs.values() for axis in port.shape} - fixed.keys()
    ranges = [f"{axis}={least}..{usual}..{most}" for axis, least, usual, most in spec.ranges if axis in free]
    return " ".join([*(f"{axis}={length}" for axis, length in spec.shapes), *ranges])


def describe_setup(key: EngineKey, threads: int | None) -> dict[str, str]:
    """What asks for such engines, as errors carry it; threads: None for this machine's default, which nobody has to ask for."""
    return key.setup if threads is None else {**key.setup, "threads": str(threads)}


def locate(error: EngineError, bundle: Bundle, name: str, key: EngineKey, threads: int | None = None) -> EngineError:
    """The error with engine, setup and bundle filled in where it lacks them."""
    return error.located(engine=name, setup=describe_setup(key, threads), bundle=bundle.root)


def read_cost(bundle: Bundle, store: Store, name: str, setup: Setup, *, condition: Condition | None = None) -> EngineCost:
    """What the engine costs on this device, measured under this condition or else the nearest; condition: None for the present one.

    Raises EngineError where that was never measured, or there is no good engine.
    """
    key = engine_key(bundle, name, setup)
    try:
        stored = store.peek(key)
        if stored is None or stored.quarantined:
            raise EngineError("there is no such engine that was measured", reason=Reason.MISSING, path=store.folder)
        return nearest_cost(read_costs(store, stored, name), condition or setup.condition())
    except EngineError as error:
        raise locate(error, bundle, name, key, setup.threads) from error


def read_costs(store: Store, stored: StoredEngine, name: str) -> list[EngineCost]:
    """The costs of a stored engine on this device, one for each condition; raises EngineError where there are none."""
    return CostFiles(store.root, stored.path).read(identity(stored.key, stored.sha256), name)


def measured_conditions(bundle: Bundle, store: Store, names: Iterable[str], setup: Setup) -> set[Condition]:
    """The conditions under which any of these engines was measured on this device."""
    found = set[Condition]()
    for name in names:
        stored = store.peek(engine_key(bundle, name, setup))
        if stored is not None:
            with suppress(EngineError):
                found.update(cost.condition for cost in read_costs(store, stored, name))
    return found


def write_cost(store: Store, stored: StoredEngine, cost: EngineCost) -> None:
    """Keep the costs of a stored engine, beside those of other conditions."""
    with store.lock(stored.digest):
        CostFiles(store.root, stored.path).write(identity(stored.key, stored.sha256), cost)


def find_recorded_cost(bundle: Bundle, store: Store, name: str, setup: Setup) -> EngineCost | None:
    """What such an engine cost on this device when it was last built, with an older library, driver or weights too."""
    key, condition = engine_key(bundle, name, setup), setup.condition()
    same = ("graph", "backend", "provider", "precision", "shapes", "device")
    for stored in sorted(store.engines(), key=lambda each: each.built_at, reverse=True):
        if all(getattr(stored.key, field) == getattr(key, field) for field in same):
            with suppress(EngineError):
                return nearest_cost(CostFiles(store.root, stored.path).read({}, name), condition)
    return None


def is_ready(bundle: Bundle, store: Store, names: Iterable[str], setup: Setup) -> bool:
    """Whether all these engines are stored, measured, and can run."""
    try:
        if setup.obstacle() is not None:
            return False
        for name in names:
            read_cost(bundle, store, name, setup)
    except (BackendError, ConfigError, EngineError):
        return False
    return True


def find_rejection(bundle: Bundle, store: Store, name: str, setup: Setup, replaced: Setup) -> str | None:
    """Why the engine must not replace that of `replaced`, as far as known: it is quarantined, or lost a race against it."""
    try:
        stored = store.peek(engine_key(bundle, name, setup))
        if stored is not None and stored.quarantined:
            return stored.quarantined
        cost = read_cost(bundle, store, name, setup)
        other = read_cost(bundle, store, name, replaced, condition=cost.condition)
    except EngineError:
        return None
    if not cost.is_slower or cost.relative_to != other.digest:
        return None
    if cost.slower_images is not None:
        return cost.slower_images
    times = f"{cost.call.median_ms:.2f} ms a call, that of {replaced} {other.call.median_ms:.2f} ms"
    return f"it is slower than the engine it would replace: {times}"


def may_replace(bundle: Bundle, store: Store, name: str, setup: Setup, replaced: Setup) -> bool:
    """Whether the stored engine may replace that of `replaced`: it lost no race, and has no race left to run."""
    if find_rejection(bundle, store, name, setup, replaced) is not None:
        return False
    cost = read_cost(bundle, store, name, setup)
    return cost.is_proved or cost.relative_to != read_cost(bundle, store, name, replaced).digest


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether an engine would be found, and why not."""

    engine: str
    digest: str
    problem: str | None
    """Why it would not be found; None if it would be."""
    differences: list[FieldDifference]
    """From the nearest stored engine of the same graph."""


def explain_engines(bundle: Bundle, store: Store, names: Iterable[str], setup: Setup) -> list[Explanation]:
    """For each engine: would it be found, and if not, why."""
    return [_explain(store, name, engine_key(bundle, name, setup)) for name in names]


def _explain(store: Store, name: str, key: EngineKey) -> Explanation:
    try:
        if store.find(key) is not None:
            return Explanation(name, key.digest, None, [])
    except EngineError as error:
        return Explanation(name, key.digest, str(error), [])
    differences = store.explain(key)
    return Explanation(name, key.digest, describe_miss(differences), differences)


def describe_miss(differences: Iterable[FieldDifference]) -> str:
    """Why an engine is missing, from how the nearest stored one differs."""
    found = {each.field: each for each in differences}
    if "backend" in found:  # then everything else differs too, and means nothing
        return f"built by {found['backend'].found}"
    return "; ".join(map(str, found.values())) or "none was built"
