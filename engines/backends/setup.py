"""What compiles and runs a bundle's engines, as one value that can be passed to another process."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field, replace

from costroute_rt.engines.backends.engine import Backend
from costroute_rt.engines.backends.registry import get_backend
from costroute_rt.engines.backends.spec import AUTO, BuildSpec, check_threads, make_spec
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.name import EngineName
from costroute_rt.engines.bundle.size import check_bundle_size, fixed_axes, free_axes, size_axes
from costroute_rt.engines.machine import device
from costroute_rt.engines.machine.condition import Condition
from costroute_rt.error import BackendError, ConfigError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Backend, provider and precision, which with a bundle decide how its engines are built, and the threads they run with."""

    backend: str = "onnxruntime"
    provider: str = "cpu"
    precision: str = "float32"
    threads: int | None = None
    """None means this machine's default."""
    target: str = ""
    """Cards to build for, such as `ampere+`, where the backend can build for others than this machine's."""
    fallback: str | None = field(default=None, compare=False)
    """Reason for the fallback, with the remedy; None if this is what was asked for."""

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
        """The setup with the backend's usual values for `auto`.

        Raises ConfigError for an unknown backend, BackendError for one not installed.

        allow_fallback: where such engines cannot run on this machine, ONNX Runtime on the CPU in its usual precision instead. A wrong
        value is a ConfigError all the same.
        """
        for name, value in (("backend", backend), ("provider", provider), ("precision", precision), ("target", target)):
            if not isinstance(value, str):
                raise ConfigError(name, value, "a name")
        threads = check_threads(threads)
        make_spec(precision="float32" if precision == AUTO else precision)
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

    def condition(self) -> Condition:
        """What the times of its engines depend on now, besides the engines and the device."""
        return Condition.now((self.threads or device.default_threads()) if self.provider == "cpu" else None)

    def tool(self) -> Backend:
        """The backend; raises BackendError where it is not installed."""
        return get_backend(self.backend)

    def obstacle(self) -> BackendError | None:
        """Why its engines cannot run on this machine, None if they can; raises ConfigError for a value that the backend does not know."""
        try:
            tool = self.tool()
            tool.device(make_spec(self.provider, self.threads, precision=self.precision, target=self.target))
        except BackendError as error:
            return error
        return tool.obstacle()

    def spec(self, bundle: Bundle, name: str) -> BuildSpec:
        """How the engine called `name` is built: for the size in its name, else for every size that the bundle makes."""
        size = EngineName.parse(name).size
        shapes = fixed_axes(bundle) if size is None else size_axes(bundle, check_bundle_size(bundle.image, *size))
        spec = make_spec(self.provider, self.threads, shapes, self.precision, self.target)
        return replace(spec, ranges=free_axes(bundle)) if self.tool().needs_ranges else spec


USUAL = Setup()
"""ONNX Runtime on the CPU."""
