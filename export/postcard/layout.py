"""Places the things of a scene so that they do not hide each other. Units: 1/128 of the image's width."""

import math
import random
from dataclasses import dataclass, field

from costroute_rt.export.postcard.scene import Scene, Value

TREE_WIDTH: dict[Value, float] = {"pine": 14.5, "oak": 19.0, "palm": 19.0, "cactus": 15.0}
"""Width of a tree of size 1."""
TREE_SIZE = {1: 1.75, 2: 1.5, 3: 1.3, 4: 1.12}
"""Largest size of a tree, by the number of trees that stand together."""


@dataclass(slots=True)
class Spot:
    """A place on the ground: foot at (x, y), and size as a factor."""

    x: float
    y: float
    size: float


@dataclass(slots=True)
class Layout:
    """Places of houses and trees; and `taken`, the occupied circles (x, y, radius), mostly in the sky."""

    horizon: float
    houses: list[Spot] = field(default_factory=list)
    trees: list[Spot] = field(default_factory=list)
    taken: list[tuple[float, float, float]] = field(default_factory=list)

    def clear_spot(
        self, x: tuple[float, float], y: tuple[float, float], radius: float, rng: random.Random, tries: int = 10
    ) -> tuple[float, float]:
        """The place with most room among `tries` random ones in a rectangle; marks a circle of `radius` there as taken."""
        best, room = (0.0, 0.0), -math.inf
        for _ in range(tries):
            px, py = rng.uniform(*x), rng.uniform(*y)
            free = min((math.hypot(px - qx, py - qy) - r for qx, qy, r in self.taken), default=0.0)
            if free > room:
                best, room = (px, py), free
                if free > radius + 2:
                    break
        self.taken.append((*best, radius))
        return best

    def clear_column(self, x: tuple[float, float], rng: random.Random) -> float:
        """The x, of ten random ones, that is farthest from trees, houses and taken circles."""
        ground = [(t.x, 2.0) for t in self.trees] + [(h.x, 0.6) for h in self.houses] + [(t[0], 2.0) for t in self.taken]

        def crowd(px: float) -> float:
            return sum(weight / (1 + ((px - qx) / 9) ** 4) for qx, weight in ground)

        return min((rng.uniform(*x) for _ in range(10)), key=crowd)


def arrange(scene: Scene, horizon: float, base: float, rng: random.Random) -> Layout:
    """Places houses and trees; base: the y on which they stand."""
    layout = Layout(horizon)
    count, side = int(scene["tree_count"]), scene["tree_side"]
    for half in ("left", "right"):
        trees = count // 2 if side == "both" else count if side == half else 0
        arrange_half(layout, scene, half, trees, base, rng)
    for tree in layout.trees:
        layout.taken.append((tree.x, tree.y - 32 * tree.size, 5.0))
    return layout


def arrange_half(layout: Layout, scene: Scene, half: str, trees: int, base: float, rng: random.Random) -> None:
    """Places house and trees of the left or right half side by side, from the edge to the middle."""
    low, high = (2.0, 51.0 if scene["ground"] == "river" else 62.0)
    has_house = scene["house_side"] in (half, "both")
    places: list[float] = []
    if has_house:
        size = rng.uniform(1.18, 1.32) if trees else rng.uniform(1.25, 1.45)
        room = 13.5 * size
        if not trees:
            x = rng.uniform(low + room, min(38.0, high - room))
        elif rng.random() < 0.5:
            x, low = low + room, low + 2 * room - 1
        else:
            x, high = high - room, high - 2 * room + 1
        layout.houses.append(Spot(x if half == "left" else 128 - x, base + rng.uniform(0, 3), size))
    if trees:
        step = (high - low) / trees
        size = min(TREE_SIZE[trees], max(0.9, step / TREE_WIDTH[scene["tree"]]))
        places = [low + step * (i + 0.5) + rng.uniform(-0.1, 0.1) * max(0.0, step - 10) for i in range(trees)]
    for x in places:
        y = base + (rng.uniform(-1.5, 1.5) if has_house else rng.uniform(0, 6))
        layout.trees.append(Spot(x if half == "left" else 128 - x, y, size * rng.uniform(0.93, 1.05)))
