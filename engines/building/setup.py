"""What compiles and runs a bundle's engines, as one value that can be handed to another process."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

from costroute_rt.engines.backends.engine import Backend
from costroute_rt.engines.backends.key import EngineKey
from costroute_rt.engines.backends.registry import get_backend
from costroute_rt.engines.backends.spec import AUTO, BuildSpec, make_spec
from costroute_rt.engines.building.shape import fixed_axes
from costroute_rt.engines.building.specification import engine_key, free_axes, locate
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.cost import EngineCost, identity, read_cost_file
from costroute_rt.engines.store.store import Store
from costroute_rt.error import BackendError, ConfigError, EngineError, Reason

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Backend, provider, precision and threads: with a bundle, they say which engines there are to be."""

    backend: str = "onnxruntime"
    provider: str = "cpu"
    precision: str = "float32"
    threads: int | None = None
    """None: this machine's default."""
    target: str = ""
    """Cards to build for, such as `ampere+`, where the backend can build for others than this machine's."""
    fallback: str | None = field(default=None, compare=False)
    """Why this is not what was asked for: what that lacks on this machine, and what mends it; None: it is."""

    @classmethod
    def of(
        cls,
        backend: str = "onnxruntime",
        provider: str = AUTO,
        precision: str = AUTO,
        threads: int | None = None,
        *,
        target: str = "",
        allow_fallback: bool = False,
    ) -> Setup:
        """With what the backend is best at for `auto`; raises ConfigError for an unknown backend, BackendError for one not installed.

        allow_fallback: where such engines cannot run on this machine, ONNX Runtime on the CPU in its usual precision instead. A wrong
        value is a ConfigError all the same.
        """
        make_spec(threads=threads, precision="float32" if precision == AUTO else precision)
        try:
            tool = get_backend(backend)
            setup = cls(
                backend=backend,
                provider=tool.default_provider if provider == AUTO else provider,
                precision=tool.default_precision if precision == AUTO else precision,
                threads=threads,
                target=target,
            )
            obstacle = setup.obstacle() if allow_fallback else None
        except BackendError as error:
            if not allow_fallback:
                raise
            obstacle = error
        if obstacle is None:
            return setup
        instead = replace(cls.of(threads=threads), fallback=str(obstacle))
        _log.warning("running on %s: %s", instead, instead.fallback)
        return instead

    def __str__(self) -> str:
        return f"{self.backend} {self.provider} {self.precision}"

    def to_json(self) -> dict[str, str | int | None]:
        """Plain data, for `Setup(**data)`."""
        return asdict(self)

    def tool(self) -> Backend:
        """The backend; raises BackendError where it is not installed."""
        return get_backend(self.backend)

    def obstacle(self) -> BackendError | None:
        """What keeps its engines from running on this machine; None: nothing. Raises ConfigError for what the backend does not know."""
        try:
            tool = self.tool()
            tool.device(make_spec(self.provider, self.threads, precision=self.precision, target=self.target))
        except BackendError as error:
            return error
        return tool.obstacle()

    def spec(self, bundle: Bundle) -> BuildSpec:
        """The specification of the bundle's usual engines."""
        spec = make_spec(self.provider, self.threads, fixed_axes(bundle), self.precision, self.target)
        return replace(spec, ranges=free_axes(bundle)) if self.tool().needs_ranges else spec

    def key(self, bundle: Bundle, name: str) -> EngineKey:
        """The key of the engine called `name`, component/graph, which may name a size."""
        return engine_key(bundle, name, self.tool(), self.spec(bundle))

    def cost(self, bundle: Bundle, store: Store, name: str) -> EngineCost:
        """What the engine costs on this device; raises EngineError where that was not measured, or there is no good engine."""
        key = self.key(bundle, name)
        try:
            stored = store.peek(key)
            if stored is None or stored.quarantined:
                raise EngineError("there is no such engine that was measured", reason=Reason.MISSING, path=store.folder)
            return read_cost_file(stored.path, identity(key, stored.sha256), name, stored.digest)
        except EngineError as error:
            raise locate(error, bundle, name, key) from error

    def rejection(self, bundle: Bundle, store: Store, name: str, replaced: Setup) -> str | None:
        """Why the engine is not to replace that of `replaced`, by what is known: it is quarantined, or lost a race against it."""
        try:
            stored = store.peek(self.key(bundle, name))
            if stored is not None and stored.quarantined:
                return stored.quarantined
            cost, other = self.cost(bundle, store, name), replaced.cost(bundle, store, name)
        except EngineError:
            return None
        if not cost.is_slower or cost.relative_to != other.digest:
            return None
        if cost.slower_pictures is not None:
            return cost.slower_pictures
        times = f"{cost.batch[1].median_ms:.2f} ms a call, that of {replaced} {other.batch[1].median_ms:.2f} ms"
        return f"it is slower than the engine it would replace: {times}"

    def is_proved(self, bundle: Bundle, store: Store, name: str, replaced: Setup) -> bool:
        """Whether nothing keeps the engine, which is there, from replacing that of `replaced`: no lost race, and none still to be run."""
        if self.rejection(bundle, store, name, replaced) is not None:
            return False
        cost = self.cost(bundle, store, name)
        return cost.is_proved or cost.relative_to != replaced.cost(bundle, store, name).digest

    def recorded_cost(self, bundle: Bundle, store: Store, name: str) -> EngineCost | None:
        """What such an engine cost on this device when it was last built, with an older library, driver or weights too."""
        key = self.key(bundle, name)
        same = ("graph", "backend", "provider", "precision", "shapes", "device")
        for stored in sorted(store.engines(), key=lambda each: each.built_at, reverse=True):
            if all(getattr(stored.key, field) == getattr(key, field) for field in same):
                with suppress(EngineError):
                    return read_cost_file(stored.path, {}, name, stored.digest)
        return None

    def is_ready(self, bundle: Bundle, store: Store, names: Iterable[str]) -> bool:
        """Whether all these engines are there, measured, and can run."""
        try:
            if self.obstacle() is not None:
                return False
            for name in names:
                self.cost(bundle, store, name)
        except (BackendError, ConfigError, EngineError):
            return False
        return True


USUAL = Setup()
"""ONNX Runtime on the CPU."""
