"""Draws postcards: the order of the layers, the land and the water (needs skia-python).

Coordinates are in units of 1/128 of the image's width; y grows downwards.
"""

import math
import random
from collections.abc import Sequence

import numpy as np
import skia
from numpy.typing import NDArray

from costroute_rt.export.postcard.backdrop import Backdrop
from costroute_rt.export.postcard.brush import BLACK, WHITE, Box, Colour, gradient, mix, paint, rgb
from costroute_rt.export.postcard.layout import Spot, arrange
from costroute_rt.export.postcard.scene import BOAT_COUNT, Scene, Value

SIZE_PX = 256
UNITS = 128.0

MEADOW_COLOURS: dict[Value, str] = {"summer": "66b040", "spring": "8ccf55", "autumn": "cda346", "winter": "eef3fb"}
SAND, BEACH = "e6bc6b", "ecd8a0"


DOUBLED = {"landmark": ("none", 56.0), "balloon": ("none", 48.0), "celestial": ("none", 56.0)}
"""Attributes whose thing occurs at most once in a scene: the value without one, and how far away `DoublePainter` draws a second one."""


class Painter(Backdrop):
    """Draws one scene; keeps what later layers need from earlier ones."""

    def draw(self) -> list[Box]:
        """Draws all layers, back to front."""
        scene, rng = self.scene, self.rng
        self.horizon = rng.uniform(66, 75)
        self.haze = self.sky()
        base, self.water_y = self.measure()
        self.layout = arrange(scene, self.horizon, base, rng)
        self.place_backdrop()
        self.high_sky()
        self.mountains()
        self.ground()
        if scene["landmark"] != "none":
            self.landmark(self.landmark_spot)
        if scene["path"]:
            self.path()
        if scene["bridge"]:
            self.bridge(self.river_x(self.horizon + 20), self.horizon + 20, self.river_width(self.horizon + 20) / 2 + 8)
        self.low_sky()
        if scene["boat"] != "none":
            for spot in self.boat_spots(int(scene.get(BOAT_COUNT, 1))):
                self.boat(spot)
        self.flowers_and_things(base)
        if scene["fence"]:
            self.fence()
        return self.boxes

    def measure(self) -> tuple[float, float]:
        """Returns the y on which houses and trees stand, and the y of the water's middle; chooses the course of the water."""
        rng, horizon, ground = self.rng, self.horizon, self.scene["ground"]
        self.lake_depth, self.river_bend, self.river_mouth = (
            rng.uniform(10.5, 12.5),
            rng.uniform(5, 9) * rng.choice((-1, 1)),
            rng.uniform(60, 68),
        )
        if ground == "sea":
            self.shore = rng.uniform(103, 108)
            return self.shore + 9, (horizon + self.shore) / 2
        if ground == "lake":
            middle = horizon + rng.uniform(16, 18)
            return min(113.0, middle + self.lake_depth + rng.uniform(8, 10)), middle
        return horizon + (rng.uniform(24, 27) if self.scene["animal"] != "none" else rng.uniform(25, 31)), horizon + 30

    def place_backdrop(self) -> None:
        """Chooses the places of boat, landmark, volcano and sun or moon."""
        layout, rng, scene = self.layout, self.rng, self.scene
        self.boat_x = layout.clear_column((46, 82) if scene["tree_side"] in ("none", "both") else (38, 90), rng)
        self.landmark_spot = Spot(0, 0, 0)
        if scene["landmark"] != "none":
            if scene["boat"] != "none" and scene["ground"] != "river":
                layout.taken.append((self.boat_x, 80, 4))
            x, size = layout.clear_column((20, 108), rng), rng.uniform(1.0, 1.18)
            if scene["ground"] == "river" and abs(x - 64) < 22:
                x = 64 + math.copysign(24, x - 64)
            drop = {"sea": 3.0, "lake": 4.0, "desert": 11.0}.get(str(scene["ground"]), 8.0)
            self.landmark_spot = Spot(x, self.horizon + drop, size)
            layout.taken.append((x, self.horizon - 26, 15))
            if abs(self.boat_x - x) < 23:
                self.boat_x = x + math.copysign(23, 64 - x)
        self.volcano_x = 64.0
        if scene["mountains"] == "volcano":
            self.volcano_x = layout.clear_column((38, 90), rng)
            layout.taken.append((self.volcano_x, self.horizon - 44, 17))
        low = scene["sky"] in ("sunset", "dawn") and scene["mountains"] == "none" and scene["landmark"] == "none"
        rows = (self.horizon - 34, self.horizon - 15) if low and scene["celestial"] == "sun" else (15.0, 26.0)
        self.light = layout.clear_spot((18, 110), rows, 12, rng) if scene["celestial"] != "none" else (64.0, 20.0)

    # -- land and water

    def ground(self) -> None:
        {"sea": self.sea, "lake": self.lake, "desert": self.desert, "river": self.river}.get(str(self.scene["ground"]), self.field)()

    def grass(self) -> tuple[Colour, Colour]:
        """The colour of the meadow and a darker one."""
        colour = self.lit(self.jitter(MEADOW_COLOURS[self.scene["season"]], 0.02 if self.winter else 0.035))
        return colour, mix(colour, rgb("8fa6cc") if self.winter else BLACK, 0.35 if self.winter else 0.17)

    def field(self) -> None:
        (colour, dark), y = self.grass(), self.horizon
        self.fill(self.ridge(y + 3, 4), gradient(y, y + 26, [mix(colour, self.haze, 0.25), mix(colour, dark, 0.25)]))
        self.fill(self.ridge(y + 22, 9), gradient(y + 12, 128, [colour, dark]))

    def desert(self) -> None:
        colour, y = self.lit(self.jitter(SAND)), self.horizon
        for drop, height, tone in ((4, 9, mix(colour, self.haze, 0.25)), (16, 10, mix(colour, BLACK, 0.06)), (28, 9, colour)):
            self.fill(self.ridge(y + drop, height, 0.1), gradient(y + drop - height, y + drop + 26, [tone, mix(tone, rgb("8a4a30"), 0.22)]))

    def water(self, y0: float, y1: float) -> skia.Paint:
        """The fill of water between two heights: the colour of the sky far away, deep blue nearby."""
        return gradient(y0, y1, [mix(self.lit("4aa3cf"), self.haze, 0.4), self.lit(self.jitter("1f6a9c", 0.03))])

    def ripples(self, spans: Sequence[tuple[float, float, float]]) -> None:
        """Draws short waves, each within one span (x0, x1, y)."""
        for x0, x1, y in spans:
            w = self.rng.uniform(7, 14)
            if x1 - x0 > w + 2:
                x = self.rng.uniform(x0 + 1, x1 - w - 1)
                self.line(x, y, x + w, y, mix(self.lit_thing(WHITE), self.haze, 0.2), 1.3, 0.4)

    def glitter(self, y: float, rows: int, x_range: tuple[float, float]) -> None:
        """Draws the reflection of sun or moon from `y` downwards."""
        x = self.light[0]
        if self.scene["celestial"] == "none" or not x_range[0] + 8 < x < x_range[1] - 8:
            return
        colour = rgb("ffe9b0" if self.scene["celestial"] == "sun" else "f4f2e0")
        for i in range(rows):
            w = self.rng.uniform(3, 5) + 0.5 * i
            self.line(x - w, y + i * 4, x + w, y + i * 4, colour, 1.9, 0.6 - 0.05 * i)

    def sea(self) -> None:
        y, shore = self.horizon, self.shore
        self.canvas.drawRect(skia.Rect(0, y, 128, 128), self.water(y, shore))
        self.ripples([(0, 128, self.rng.uniform(y + 4, shore - 5)) for _ in range(8)])
        self.glitter(y + 3, 6, (0, 128))
        sand = self.lit(self.jitter(BEACH))
        line = self.ridge(shore + 3, 6)
        self.fill([(px, py - 1.8) for px, py in line], mix(self.lit_thing(WHITE), self.haze, 0.2), 0.75)
        self.fill(line, gradient(shore - 3, 128, [sand, mix(sand, rgb("8a5a30"), 0.22)]))

    def lake(self) -> None:
        self.field()
        y, h, rng = self.water_y, self.lake_depth, self.rng
        x, left, right = rng.uniform(54, 74), rng.uniform(54, 70), rng.uniform(54, 70)
        oval = skia.Rect(x - left, y - h, x + right, y + h)
        bank = skia.Rect(x - left - 1.5, y - h - 0.8, x + right + 1.5, y + h + 1.6)
        self.canvas.drawOval(bank, paint(mix(self.grass()[1], rgb("7a6a48"), 0.3)))
        self.canvas.drawOval(oval, self.water(y - h, y + h))
        self.ripples([(x - 40, x + 40, rng.uniform(y - h * 0.6, y + h * 0.6)) for _ in range(5)])
        self.glitter(y - h * 0.7, 4, (x - 40, x + 40))

    def river_x(self, y: float) -> float:
        """Middle of the river at height `y`."""
        t = (y - self.horizon) / (UNITS - self.horizon)
        return self.river_mouth + (64 - self.river_mouth) * t + self.river_bend * math.sin(5.2 * t) * (1 - 0.5 * t)

    def river_width(self, y: float) -> float:
        return 5 + 43 * (y - self.horizon) / (UNITS - self.horizon)

    def river(self) -> None:
        self.field()
        rows = [self.horizon + 1.5 + (130 - self.horizon) * i / 18 for i in range(19)]
        for widen, fill in ((2.2, paint(mix(self.grass()[1], rgb("7a6a48"), 0.35))), (0.0, self.water(self.horizon, 128))):
            left = [(self.river_x(y) - self.river_width(y) / 2 - widen, y) for y in rows]
            right = [(self.river_x(y) + self.river_width(y) / 2 + widen, y) for y in reversed(rows)]
            self.fill(left + right, fill)
        waves = [self.rng.uniform(self.horizon + 18, 124) for _ in range(6)]
        self.ripples([(self.river_x(y) - self.river_width(y) / 2, self.river_x(y) + self.river_width(y) / 2, y) for y in waves])

    def path(self) -> None:
        near, far, y = self.rng.uniform(54, 74), self.rng.uniform(52, 76), self.horizon + 8
        path = skia.Path()
        path.moveTo(near - 11, 130)
        path.cubicTo(near - 14, 112, far + 8, 104, far - 2, y)
        path.lineTo(far + 2, y)
        path.cubicTo(far + 17, 104, near + 6, 114, near + 13, 130)
        path.close()
        tone = {"desert": "b07c4c"}.get(str(self.scene["ground"]), "a8977f" if self.winter else "d6b583")
        self.canvas.drawPath(path, paint(self.lit(tone)))

    # -- places of the things in front

    def boat_spot(self) -> Spot:
        rng, ground = self.rng, self.scene["ground"]
        if ground == "river":
            y = rng.uniform(112, 118)
            return Spot(self.river_x(y) + rng.uniform(-3, 3), y, rng.uniform(1.12, 1.22))
        y = self.horizon + rng.uniform(14, 20) if ground == "sea" else self.water_y + rng.uniform(1, 4)
        return Spot(self.boat_x, y, rng.uniform(1.35, 1.55))

    def boat_spots(self, number: int) -> list[Spot]:
        """Places of the boats, the farthest first; several stand side by side over the whole width."""
        if number == 1:
            return [self.boat_spot()]
        rng, width = self.rng, 104 / number
        y = self.horizon + 15 if self.scene["ground"] == "sea" else self.water_y + 1
        places = [(12 + width * (i + 0.5) + rng.uniform(-0.12, 0.12) * width, y + rng.uniform(0, 4)) for i in range(number)]
        return [Spot(x, py, rng.uniform(1.05, 1.2)) for x, py in sorted(places, key=lambda place: place[1])]

    def flowers_and_things(self, base: float) -> None:
        """Draws houses and trees from back to front, then flowers and animals in front of them."""
        for tree in sorted(self.layout.trees, key=lambda spot: spot.y):
            self.tree(tree)
        colours = (self.scene["house"], self.scene["house2"])
        for colour, house in zip(colours, self.layout.houses, strict=False):
            self.house(house, colour)
        if self.scene["flowers"]:
            self.flowers([spot for spot in self.dry_spots(base + 4, 26) if spot[1] > base + 3])
        if self.scene["animal"] != "none":
            self.animals(base)

    def dry_spots(self, y0: float, number: int) -> list[tuple[float, float]]:
        """Random places in the foreground outside the river."""
        spots = [(self.rng.uniform(3, 125), self.rng.uniform(y0, 125)) for _ in range(number)]
        if self.scene["ground"] != "river":
            return spots
        return [(x, y) for x, y in spots if abs(x - self.river_x(y)) > self.river_width(y) / 2 + 4]

    def animals(self, base: float) -> None:
        """Places two or three animals in front of houses and trees."""
        rng = self.rng
        drop = 11.0 if self.scene["fence"] else rng.uniform(14, 16)
        y, number = min(base + drop, 119.0), rng.choice((2, 3, 3))
        if self.scene["ground"] == "lake":
            y = 121.0
        river = self.scene["ground"] == "river"
        middle, step = rng.choice((20.0, 108.0)) if river else rng.uniform(36, 92), 15.0 if river else rng.uniform(17, 22)
        if river:
            number, y = 2, 119.0
        for i in range(number):
            self.animal(
                Spot(
                    middle + (i - (number - 1) / 2) * step + rng.uniform(-2, 2), y + (i % 2) * 3 + rng.uniform(0, 2), rng.uniform(1.0, 1.12)
                )
            )


class DoublePainter(Painter):
    """Draws one of the things that a scene has once a second time, beside or across the first: a fault of generated images."""

    def draw(self) -> list[Box]:
        """As `Painter`; the scene has at least one of DOUBLED."""
        self.doubled = self.rng.choice([name for name, (absent, _) in DOUBLED.items() if self.scene[name] != absent])
        return super().draw()

    def beside(self, name: str, x: float) -> float | None:
        """The x of a second thing, towards the middle of the image or beyond; None if this is not the thing to double."""
        return x + math.copysign(self.rng.uniform(5, DOUBLED[name][1]), 64 - x) if name == self.doubled else None

    def landmark(self, spot: Spot) -> None:
        if (x := self.beside("landmark", spot.x)) is not None:
            super().landmark(Spot(x, spot.y, spot.size * self.rng.uniform(0.8, 1.0)))
        super().landmark(spot)

    def balloon(self, x: float, y: float) -> None:
        super().balloon(x, y)
        if (other := self.beside("balloon", x)) is not None:
            super().balloon(other, y + self.rng.uniform(-6, 6))

    def sun(self, x: float, y: float) -> None:
        super().sun(x, y)
        if (other := self.beside("celestial", x)) is not None:
            super().sun(other, y + self.rng.uniform(-3, 6))

    def moon(self, x: float, y: float) -> None:
        super().moon(x, y)
        if (other := self.beside("celestial", x)) is not None:
            super().moon(other, y + self.rng.uniform(-3, 6))


def new_surface() -> skia.Surface:
    """A canvas of the right size, which `render` can reuse."""
    return skia.Surface(SIZE_PX, SIZE_PX)


def render(
    scene: Scene, rng: random.Random, surface: skia.Surface | None = None, painter: type[Painter] = Painter
) -> tuple[NDArray[np.uint8], list[Box]]:
    """Draws `scene`; `rng` decides everything that the attributes do not determine.

    surface: from `new_surface`; None for a new one. painter: what draws.
    Returns RGB uint8[256, 256, 3], and the boxes of the things in units of 1/128 of the width.
    """
    surface = surface or new_surface()
    canvas = surface.getCanvas()
    canvas.save()
    canvas.scale(SIZE_PX / UNITS, SIZE_PX / UNITS)
    boxes = painter(canvas, scene, rng).draw()
    canvas.restore()
    pixels: NDArray[np.uint8] = surface.toarray(colorType=skia.kRGBA_8888_ColorType)[:, :, :3]
    return pixels, boxes


def box_mask(boxes: Sequence[Box], size: int = 16) -> NDArray[np.float32]:
    """float32[size, size], 0..1: share of each cell of a `size` x `size` grid that is inside a box."""
    mask, cell = np.zeros((size, size), np.float32), UNITS / size
    edges = np.arange(size) * cell
    for _, x0, y0, x1, y1 in boxes:
        across = np.clip(np.minimum(edges + cell, x1) - np.maximum(edges, x0), 0, cell) / cell
        down = np.clip(np.minimum(edges + cell, y1) - np.maximum(edges, y0), 0, cell) / cell
        mask = np.maximum(mask, (down[:, None] * across[None, :]).astype(np.float32))
    return mask
