"""Names of engines: family/component/graph, with @HEIGHTxWIDTH for an engine that is built for a single image size."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from costroute_rt.error import ConfigError

if TYPE_CHECKING:
    from costroute_rt.engines.bundle.bundle import Bundle

Size = tuple[int, int]
"""Height and width of an image, in pixels."""

_SIZED = re.compile(r"(.+)@(\d+)x(\d+)")


class EngineName(NamedTuple):
    """A parsed engine name, such as `postcard/base/guided_step` or `postcard/base/guided_step@512x768`."""

    family: str
    component: str
    graph: str
    size: Size | None = None
    """The single size that the engine is built for; None if it takes any size of its bundle, or if the bundle has one size only."""

    def __str__(self) -> str:
        size = "" if self.size is None else f"@{self.size[0]}x{self.size[1]}"
        return f"{self.family}/{self.component}/{self.graph}{size}"

    @classmethod
    def parse(cls, name: str) -> EngineName:
        """The parts of a name; raises ConfigError if it is not an engine's name."""
        parts = name.split("/", 2)
        if len(parts) < 3 or not all(parts):
            raise ConfigError("engine", name, "family/component/graph, such as postcard/base/guided_step")
        family, component, graph = parts
        sized = _SIZED.fullmatch(graph)
        return cls(family, component, graph) if sized is None else cls(family, component, sized[1], (int(sized[2]), int(sized[3])))


def find_graph(bundle: Bundle, name: str) -> EngineName:
    """The parts of an engine's name; raises ConfigError if the bundle has no such graph."""
    found = EngineName.parse(name)
    component = bundle.components.get(found.component)
    if found.family != bundle.name or component is None or found.graph not in component.graphs:
        known = [f"{bundle.name}/{each.name}/{graph}" for each in bundle.components.values() for graph in each.graphs]
        raise ConfigError("engine", name, f"family/component/graph, one of {', '.join(known)}")
    return found
