"""The engines of one runtime, opened when they are first needed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:
    from costroute_rt.engines.backends.engine import Engine

_log = logging.getLogger(__name__)


class EngineSet:
    """Engines by name, `family/component/graph[@HEIGHTxWIDTH]`; one that is open is resident.

    Not safe to open from several threads at once.
    """

    def __init__(self, open_engine: Callable[[str], Engine]) -> None:
        """open_engine: called with a name; raises EngineError where no such engine exists."""
        self._open_engine = open_engine
        self._resident: dict[str, Engine] = {}
        self._replaced: set[str] = set()

    def get(self, name: str) -> Engine:
        """The engine, opened if need be."""
        engine = self._resident.get(name)
        if engine is None:
            engine = self._resident[name] = self._open_engine(name)
            _log.info("loaded engine %s on %s", name, engine.provider)
        return engine

    def of_family(self, family: str) -> Callable[[str, str], Engine]:
        """`get` for the usual engines of one family, by component and graph."""
        return lambda component, graph: self.get(f"{family}/{component}/{graph}")

    def find(self, name: str) -> Engine | None:
        """The engine where it is resident."""
        return self._resident.get(name)

    def replace(self, name: str, engine: Engine) -> None:
        """Use another engine of the same graph from now on, which may be of another backend than those opened when needed."""
        former = self._resident.get(name)
        self._resident[name] = engine
        self._replaced.add(name)
        _log.info("engine %s is on %s now", name, engine.provider)
        if former is not None:
            self._close(name, former)

    def move(self, value: Any, source: str, target: str) -> Any:
        """An output of the engine called `source`, where the one called `target` can read it; both are resident."""
        if (source in self._replaced) == (target in self._replaced):
            return value
        return self._resident[target].to_device(self._resident[source].to_host(value))

    def close(self) -> None:
        """Close every engine; each is closed even where another fails to."""
        while self._resident:
            self._close(*self._resident.popitem())

    def _close(self, name: str, engine: Engine) -> None:
        try:
            engine.close()
        except Exception:  # whatever a backend raises, the others are still to be closed
            _log.warning("engine %s could not be closed", name, exc_info=True)


def run_on_host(engine: Engine, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """One run of an engine, from arrays in host memory to arrays in host memory."""
    outputs = engine.run({name: engine.to_device(array) for name, array in arrays.items()})
    return {name: engine.to_host(value) for name, value in outputs.items()}
