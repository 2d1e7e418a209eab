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
from costroute_rt.engines.store.cost import EngineCost, identity, read_cost_file
from costroute_rt.engines.store.store import Store
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
        graph=str(found._replace(size=None)),
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


def locate(error: EngineError, bundle: Bundle, name: str, key: EngineKey) -> EngineError:
    """The error with engine, setup and bundle filled in where it lacks them."""
    return error.located(engine=name, setup=key.setup, bundle=bundle.root)


def read_cost(bundle: Bundle, store: Store, name: str, setup: Setup) -> EngineCost:
    """What the engine costs on this device; raises EngineError where that was not measured, or there is no good engine."""
    key = engine_key(bundle, name, setup)
    try:
        stored = store.peek(key)
        if stored is None or stored.quarantined:
            raise EngineError("there is no such engine that was measured", reason=Reason.MISSING, path=store.folder)
        return read_cost_file(store.cost_folder(stored), identity(key, stored.sha256), name, stored.digest)
    except EngineError as error:
        raise locate(error, bundle, name, key) from error


def find_recorded_cost(bundle: Bundle, store: Store, name: str, setup: Setup) -> EngineCost | None:
    """What such an engine cost on this device when it was last built, with an older library, driver or weights too."""
    key = engine_key(bundle, name, setup)
    same = ("graph", "backend", "provider", "precision", "shapes", "device")
    for stored in sorted(store.engines(), key=lambda each: each.built_at, reverse=True):
        if all(getattr(stored.key, field) == getattr(key, field) for field in same):
            with suppress(EngineError):
                return read_cost_file(store.cost_folder(stored), {}, name, stored.digest)
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
        cost, other = (read_cost(bundle, store, name, each) for each in (setup, replaced))
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
