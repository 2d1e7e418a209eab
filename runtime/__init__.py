"""costroute-rt: text to image within a latency budget measured on this device.

    from costroute_rt import Runtime

    with Runtime.open() as runtime:
        result = runtime.generate("a red house by a lake", max_ms=300, seed=7)
        result.save("postcard.png")

Every public name is loaded when it is first used: importing this package loads neither NumPy nor an inference library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costroute_rt.candidate import Candidate
    from costroute_rt.engines.building.progress import OpenEvent
    from costroute_rt.engines.bundle.bundle import Bundle, shipped_bundle
    from costroute_rt.error import (
        BackendError,
        BudgetError,
        BundleError,
        CancelledError,
        ConfigError,
        CostrouteError,
        EngineError,
        LabelError,
        OutputError,
        PromptError,
        Reason,
        StoreFullError,
    )
    from costroute_rt.family.upgrade import Building
    from costroute_rt.judgement import Judgement
    from costroute_rt.png import read_settings
    from costroute_rt.request import Request, RequestOptions
    from costroute_rt.result import Result, StepEvent, Timings
    from costroute_rt.route import Cost, Option, Route
    from costroute_rt.runtime import Runtime

    __version__: str

__all__ = [
    "BackendError",
    "BudgetError",
    "Building",
    "Bundle",
    "BundleError",
    "CancelledError",
    "Candidate",
    "ConfigError",
    "Cost",
    "CostrouteError",
    "EngineError",
    "Judgement",
    "LabelError",
    "OpenEvent",
    "Option",
    "OutputError",
    "PromptError",
    "Reason",
    "Request",
    "RequestOptions",
    "Result",
    "Route",
    "Runtime",
    "StepEvent",
    "StoreFullError",
    "Timings",
    "__version__",
    "read_settings",
    "shipped_bundle",
]

_MODULES = {
    "Building": "family.upgrade",
    "Bundle": "engines.bundle.bundle",
    "Candidate": "candidate",
    "Cost": "route",
    "Judgement": "judgement",
    "OpenEvent": "engines.building.progress",
    "Option": "route",
    "Request": "request",
    "RequestOptions": "request",
    "Result": "result",
    "Route": "route",
    "Runtime": "runtime",
    "StepEvent": "result",
    "Timings": "result",
    "read_settings": "png",
    "shipped_bundle": "engines.bundle.bundle",
}


def __getattr__(name: str) -> Any:
    value: Any
    if name == "__version__":
        from costroute_rt.version import read_version

        value = read_version()
    elif name in __all__:
        from importlib import import_module

        value = getattr(import_module(f"costroute_rt.{_MODULES.get(name, 'error')}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
