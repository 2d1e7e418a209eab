"""The engines of one runtime, opened when they are first needed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costroute_rt.engines.backends.engine import Engine

_log = logging.getLogger(__name__)


class EngineSet:
    """Engines by name, such as `postcard/base/step`; one that is open is resident.

    Not safe to open from several threads at once.
    """

    def __init__(self, open_engine: Callable[[str], Engine]) -> None:
        """open_engine: called with a name; raises EngineError where there is no such engine."""
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

    def find(self, name: str) -> Engine | None:
        """The engine where it is resident."""
        return self._resident.get(name)

    def replace(self, name: str, engine: Engine) -> None:
        """Use another engine of the same graph from now on, of another setup than those that are opened when needed."""
        former = self._resident.get(name)
        self._resident[name] = engine
        self._replaced.add(name)
        _log.info("engine %s is on %s now", name, engine.provider)
        if former is not None:
            self._close(name, former)

    def move(self, value: Any, source: str, target: str) -> Any:
        """A value that the engine called `source` made, where the one called `target` can read it; both are resident."""
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
