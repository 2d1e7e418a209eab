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
    """Engines by name, `family/component/graph[@HEIGHTxWIDTH]`; an open engine is called resident.

    Engines must not be opened from several threads at once.
    """

    def __init__(self, open_engine: Callable[[str], Engine]) -> None:
        """open_engine: opens the engine of a name; raises EngineError if it does not exist."""
        self._open_engine = open_engine
        self._resident: dict[str, Engine] = {}
        self._replaced: set[str] = set()

    def get(self, name: str) -> Engine:
        """The engine, opened if it is not resident."""
        engine = self._resident.get(name)
        if engine is None:
            engine = self._resident[name] = self._open_engine(name)
            _log.info("loaded engine %s on %s", name, engine.provider)
        return engine

    def of_family(self, family: str) -> Callable[[str, str], Engine]:
        """`get` for the usual engines of one family, by component and graph."""
        return lambda component, graph: self.get(f"{family}/{component}/{graph}")

    def find(self, name: str) -> Engine | None:
        """The engine if it is resident, else None."""
        return self._resident.get(name)

    def replace(self, name: str, engine: Engine) -> None:
        """Use another engine of the same graph from now on, perhaps of another backend, and close the one in use."""
        former = self._resident.get(name)
        self._resident[name] = engine
        self._replaced.add(name)
        _log.info("engine %s now runs on %s", name, engine.provider)
        if former is not None:
            self._close(name, former)

    def move(self, value: Any, source: str, target: str) -> Any:
        """An output of engine `source`, moved to where engine `target` can read it; both are resident."""
        if (source in self._replaced) == (target in self._replaced):
            return value
        return self._resident[target].to_device(self._resident[source].to_host(value))

    def close(self) -> None:
        """Close every engine, even if closing another one fails."""
        while self._resident:
            self._close(*self._resident.popitem())

    def _close(self, name: str, engine: Engine) -> None:
        try:
            engine.close()
        except Exception:  # whatever a backend raises, the other engines must be closed too
            _log.warning("engine %s could not be closed", name, exc_info=True)


def run_on_host(engine: Engine, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Run an engine on arrays in host memory; returns its outputs in host memory."""
    outputs = engine.run({name: engine.to_device(array) for name, array in arrays.items()})
    return {name: engine.to_host(value) for name, value in outputs.items()}
