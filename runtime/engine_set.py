"""The engines of one runtime, opened when they are first needed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from costroute_rt.engines.engine import Engine

_log = logging.getLogger(__name__)


class EngineSet:
    """Engines by name, `component/graph`; one that is open is resident. Not safe to open from several threads at once."""

    def __init__(self, open_engine: Callable[[str, str], Engine]) -> None:
        """open_engine: called with component and graph; raises EngineError where there is no such engine."""
        self._open_engine = open_engine
        self._resident: dict[str, Engine] = {}

    def get(self, name: str) -> Engine:
        """The engine, opened if need be."""
        engine = self._resident.get(name)
        if engine is None:
            component, graph = name.split("/")
            engine = self._resident[name] = self._open_engine(component, graph)
            _log.info("loaded engine %s on %s", name, engine.provider)
        return engine

    def find(self, name: str) -> Engine | None:
        """The engine where it is resident."""
        return self._resident.get(name)

    def close(self) -> None:
        """Close every engine; each is closed even where another fails to."""
        while self._resident:
            name, engine = self._resident.popitem()
            try:
                engine.close()
            except Exception:  # whatever a backend raises, the others are still to be closed
                _log.warning("engine %s could not be closed", name, exc_info=True)
