"""costroute-rt: text to image within a latency budget measured on this device.

    from costroute_rt import Runtime

    with Runtime.open(build=True) as runtime:
        result = runtime.generate("a red house by a lake", max_ms=300, seed=7)
        result.save("postcard.png")

Every public name is loaded when it is first used: importing this package loads neither NumPy nor an inference library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costroute_rt.backend_choice import BackendChoice
    from costroute_rt.candidate import Candidate
    from costroute_rt.engines.building.progress import OpenEvent
    from costroute_rt.engines.bundle.bundle import Bundle, shipped_bundle
    from costroute_rt.error import (
        BackendError,
        BudgetError,
        BundleError,
        BusyError,
        CancelledError,
        ConfigError,
        CostrouteError,
        EngineError,
        LabelError,
        OutputError,
        PromptError,
        Reason,
        StateError,
        StoreFullError,
    )
    from costroute_rt.family.upgrade import Building
    from costroute_rt.generation.job import Job
    from costroute_rt.generation.stream import Stream
    from costroute_rt.image_settings import read_settings
    from costroute_rt.judgement import Judgement, Neighbour
    from costroute_rt.request import Request, RequestOptions
    from costroute_rt.result import OnStep, Result, StepEvent, Timings
    from costroute_rt.route import Cost, Option, Route
    from costroute_rt.runtime import Runtime

    __version__: str

__all__ = [
    "BackendChoice",
    "BackendError",
    "BudgetError",
    "Building",
    "Bundle",
    "BundleError",
    "BusyError",
    "CancelledError",
    "Candidate",
    "ConfigError",
    "Cost",
    "CostrouteError",
    "EngineError",
    "Job",
    "Judgement",
    "LabelError",
    "Neighbour",
    "OnStep",
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
    "StateError",
    "StepEvent",
    "StoreFullError",
    "Stream",
    "Timings",
    "__version__",
    "read_settings",
    "shipped_bundle",
]

_MODULES = {
    "BackendChoice": "backend_choice",
    "Building": "family.upgrade",
    "Bundle": "engines.bundle.bundle",
    "Candidate": "candidate",
    "Cost": "route",
    "Job": "generation.job",
    "Judgement": "judgement",
    "Neighbour": "judgement",
    "OnStep": "result",
    "OpenEvent": "engines.building.progress",
    "Option": "route",
    "Request": "request",
    "RequestOptions": "request",
    "Result": "result",
    "Route": "route",
    "Runtime": "runtime",
    "StepEvent": "result",
    "Stream": "generation.stream",
    "Timings": "result",
    "read_settings": "image_settings",
    "shipped_bundle": "engines.bundle.bundle",
}


def __getattr__(name: str) -> Any:
    value: Any
    if name == "__version__":
        from costroute_rt.version import read_version

        value = read_version()
    elif name in __all__:
        from importlib import import_module

        try:
            module = import_module(f"costroute_rt.{_MODULES.get(name, 'error')}")
        except AttributeError as error:  # `from costroute_rt import ...` would drop it: it reads as if the name did not exist
            raise ImportError(str(error), name=getattr(error.obj, "__name__", None)) from error
        value = getattr(module, name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
