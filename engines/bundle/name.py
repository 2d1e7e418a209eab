"""Names of engines: which graph of which component of which family, and the image size that an engine of its own knows."""

from __future__ import annotations

import re
from typing import NamedTuple

Size = tuple[int, int]
"""Height and width of an image, in pixels."""

_NAME = re.compile(r"(?P<family>[^/@]+)/(?P<component>[^/]+)/(?P<graph>[^/@]+)(?:@(?P<height>\d+)x(?P<width>\d+))?")


class EngineName(NamedTuple):
    """`family/component/graph`, or `family/component/graph@HEIGHTxWIDTH`."""

    family: str
    component: str
    graph: str
    size: Size | None = None
    """None: the engine of the graph's usual profile."""

    def __str__(self) -> str:
        name = f"{self.family}/{self.component}/{self.graph}"
        return name if self.size is None else f"{name}@{self.size[0]}x{self.size[1]}"

    @classmethod
    def parse(cls, name: str) -> EngineName:
        """The parts of a name; raises ValueError for text of another form."""
        found = _NAME.fullmatch(name)
        if found is None:
            raise ValueError(f"{name!r} is not the name of an engine: expected family/component/graph")
        size = None if found["height"] is None else (int(found["height"]), int(found["width"]))
        return cls(found["family"], found["component"], found["graph"], size)
