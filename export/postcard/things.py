"""Draws the things of a postcard: houses, trees, boats, landmarks, animals (needs skia-python).

Every method draws one thing whose foot is at (x, y); size 1 is about 20 units high. Units: 1/128 of the image's width.
"""

import math

import skia

from costroute_rt.export.postcard.brush import BLACK, WHITE, Brush, Colour, gradient, mix, paint, polygon, rgb
from costroute_rt.export.postcard.layout import Spot
from costroute_rt.export.postcard.scene import DARK, Value

# Wall and roof.
HOUSE_COLOURS: dict[Value, tuple[str, str]] = {
    "red": ("d2342a", "5a4038"),
    "white": ("f7f3ec", "a8483c"),
    "blue": ("3a6fd8", "46465a"),
    "yellow": ("f8ca38", "8a4a38"),
    "green": ("3aa65e", "5b3d2e"),
}
BOAT_COLOURS: dict[Value, str] = {"white": "ffffff", "red": "e0322c", "yellow": "f8cf2c", "blue": "3c78f2"}
BALLOON_COLOURS: dict[Value, str] = {"red": "e0342e", "yellow": "fbd034", "blue": "2f66dc"}
FLOWER_COLOURS = ("ffdc3a", "ff6f91", "ffffff", "e8483f", "b06ee0")
OAK_COLOURS: dict[Value, tuple[str, ...]] = {
    "summer": ("4f9c38", "5aa540"),
    "spring": ("f5a3c2", "f9bcd2", "fdeef2"),
    "autumn": ("e27a26", "d0472a", "e8982e"),
    "winter": ("cfddef", "c6d6ea"),
}
SNOW = "f5f8ff"
BARK = "6b4628"


class Things(Brush):
    """A brush with one method per thing."""

    def snow(self) -> Colour:
        return mix(self.lit_thing(SNOW), WHITE, 0.15)

    # -- houses

    def house(self, spot: Spot, colour: Value) -> None:
        x, y, k = spot.x, spot.y, spot.size
        wall_text, roof_text = HOUSE_COLOURS[colour]
        wall, roof = self.lit_thing(wall_text), self.lit_thing(roof_text)
        w, h, top = 10.0 * k, 11.5 * k, y - 11.5 * k
        self.shadow(x, y, 13 * k)
        self.rect(x + 4.4 * k, top - 8.6 * k, x + 7.4 * k, top - 1 * k, mix(roof, self.lit_thing("b06a50"), 0.5))
        self.rect(x - w, top, x + w, y, wall)
        self.rect(x + w * 0.62, top, x + w, y, mix(wall, BLACK, 0.13))
        self.rect(x - w, top, x + w, top + 1.6 * k, mix(wall, BLACK, 0.2))
        eaves = [(x - 12.6 * k, top + 0.6 * k), (x - 8.4 * k, top - 7.4 * k), (x + 8.4 * k, top - 7.4 * k), (x + 12.6 * k, top + 0.6 * k)]
        self.fill(eaves, roof)
        if self.winter:
            drip = [
                (x + 11 * k, top - 2.4 * k),
                (x + 6 * k, top - 1.2 * k),
                (x + 1 * k, top - 2.8 * k),
                (x - 5 * k, top - 1 * k),
                (x - 11 * k, top - 2.4 * k),
            ]
            self.fill([*eaves[1:3], *drip], self.snow())
        self.openings(x, y, k, h, colour)
        self.box("house", x - 12.6 * k, top - 8.6 * k, x + 12.6 * k, y)

    def openings(self, x: float, y: float, k: float, h: float, wall: Value) -> None:
        """Draws door and windows; the windows glow at night and at sunset."""
        glowing = self.scene["sky"] in DARK or self.scene["sky"] == "sunset"
        pane = rgb("ffdf7a") if glowing else self.lit_thing("cfe8f8")
        frame = self.lit_thing("fffaf0" if wall != "white" else "8a7060")
        for wx in (-5.6, 5.6):
            left, top = x + (wx - 2.4) * k, y - h * 0.74
            self.rect(left - 0.6, top - 0.6, left + 4.8 * k + 0.6, top + 4.6 * k + 0.6, frame)
            self.rect(left, top, left + 4.8 * k, top + 4.6 * k, pane)
            self.rect(left + 2.1 * k, top, left + 2.7 * k, top + 4.6 * k, frame)
        self.rect(x - 1.9 * k, y - h * 0.6, x + 1.9 * k, y, self.lit_thing("6b4326"))

    # -- trees

    def tree(self, spot: Spot) -> None:
        x, y, k = spot.x, spot.y, spot.size
        self.shadow(x, y, 6 * k)
        {"pine": self.pine, "oak": self.oak, "palm": self.palm}.get(str(self.scene["tree"]), self.cactus)(x, y, k)

    def pine(self, x: float, y: float, k: float) -> None:
        colour = self.jitter("2b7345", 0.03)
        self.rect(x - 1.3 * k, y - 5 * k, x + 1.3 * k, y, self.lit_thing(BARK))
        for i, (w, bottom, h) in enumerate(((7, 4, 12), (5.6, 11, 11), (4, 18, 10))):
            base, green = y - bottom * k, self.lit_thing(mix(colour, WHITE, 0.06 * i))
            self.fill([(x - w * k, base), (x + w * k, base), (x, base - h * k)], green)
            self.fill([(x + 0.5 * k, base), (x + w * k, base), (x, base - h * k)], mix(green, BLACK, 0.18))
            if self.winter:
                low, half = base - h * 0.42 * k, w * 0.58 * k
                tips = [
                    (x + half, low),
                    (x + half * 0.4, low - 1.2 * k),
                    (x, low + 0.8 * k),
                    (x - half * 0.4, low - 1.2 * k),
                    (x - half, low),
                ]
                self.fill([(x, base - h * k), *tips], self.snow())
        self.box("tree", x - 7 * k, y - 28 * k, x + 7 * k, y)

    def oak(self, x: float, y: float, k: float) -> None:
        colour = self.lit_thing(self.jitter(self.rng.choice(OAK_COLOURS[self.scene["season"]]), 0.03))
        bark = self.lit_thing(BARK)
        self.fill([(x - 2 * k, y), (x + 2 * k, y), (x + 1.3 * k, y - 12 * k), (x - 1.3 * k, y - 12 * k)], bark)
        crown = skia.Path()
        for dx, dy, r in ((-3.9, -13, 5), (3.9, -13, 5), (0, -18, 6.2), (-3, -19, 4.5), (3.2, -18.5, 4.7)):
            crown.addCircle(x + dx * k, y + dy * k, r * k)
        self.canvas.drawPath(crown, gradient(y - 24 * k, y - 8 * k, [mix(colour, WHITE, 0.12), mix(colour, BLACK, 0.16)]))
        self.canvas.drawCircle(x - 2.4 * k, y - 19 * k, 3.4 * k, paint(mix(colour, (1, 1, 0.75), 0.25), 0.8))
        if self.winter:
            for dx, dy in ((-4.5, -15), (0.5, -19), (4.5, -15)):
                self.line(x, y - 9 * k, x + dx * k, y + dy * k, mix(bark, WHITE, 0.1), 1.1 * k)
        self.box("tree", x - 9 * k, y - 24 * k, x + 9 * k, y)

    def palm(self, x: float, y: float, k: float) -> None:
        lean = self.rng.choice((-1, 1)) * self.rng.uniform(1.5, 4) * k
        trunk = skia.Path()
        trunk.moveTo(x, y)
        trunk.quadTo(x, y - 12 * k, x + lean, y - 20 * k)
        self.canvas.drawPath(trunk, paint(self.lit_thing("8f673c"), 1, 2.4 * k))
        tx, ty, leaf = x + lean, y - 20 * k, self.lit_thing(self.jitter("35994a", 0.03))
        for i, angle in enumerate((-160, -122, -62, -20, 22, 158)):
            ex, ey = tx + math.cos(math.radians(angle)) * 9.5 * k, ty + math.sin(math.radians(angle)) * 6 * k + 3.5 * k
            bend = min(ty, ey) - 4.5 * k
            frond = skia.Path()
            frond.moveTo(tx, ty)
            frond.quadTo((tx + ex) / 2, bend, ex, ey)
            frond.quadTo((tx + ex) / 2, bend + 4.6 * k, tx, ty + 1.2 * k)
            self.canvas.drawPath(frond, paint(mix(leaf, BLACK, 0.1 * (i % 2))))
        self.canvas.drawCircle(tx, ty + 1.2 * k, 1.5 * k, paint(self.lit_thing("7a4a28")))
        self.box("tree", x - 9.5 * k, y - 26 * k, x + 9.5 * k, y)

    def cactus(self, x: float, y: float, k: float) -> None:
        green = self.lit_thing(self.jitter("3f8f4a", 0.03))
        side, light = self.rng.choice((-1, 1)), mix(green, WHITE, 0.2)
        stem, arms = paint(green, 1, 5 * k), skia.Path()
        self.canvas.drawLine(x, y - 2.2 * k, x, y - 21 * k, stem)
        arms.addPoly([skia.Point(x, y - 7 * k), skia.Point(x - side * 6 * k, y - 7 * k), skia.Point(x - side * 6 * k, y - 14 * k)], False)
        arms.addPoly([skia.Point(x, y - 10 * k), skia.Point(x + side * 6 * k, y - 10 * k), skia.Point(x + side * 6 * k, y - 18 * k)], False)
        arm = paint(green, 1, 3.4 * k)
        arm.setStrokeJoin(skia.Paint.kRound_Join)
        self.canvas.drawPath(arms, arm)
        self.line(x - 0.9 * k, y - 4 * k, x - 0.9 * k, y - 20.5 * k, light, 0.9 * k)
        self.box("tree", x - 7.7 * k, y - 23.5 * k, x + 7.7 * k, y)

    # -- on the water

    def boat(self, spot: Spot) -> None:
        x, y, k = spot.x, spot.y, spot.size
        light = mix(self.object_light, WHITE, 0.4)
        red, green, blue = rgb(BOAT_COLOURS[self.scene["boat"]])
        sail = (red * light[0], green * light[1], blue * light[2])
        hull = self.lit_thing("7a4a2a")
        self.oval(x, y + 5.4 * k, 7.5 * k, 1.7 * k, BLACK, 0.16)
        self.fill([(x - 5 * k, y + 4.5 * k), (x + 6 * k, y + 4.5 * k), (x + 2 * k, y + 11 * k)], sail, 0.22)
        self.fill([(x - 8.5 * k, y), (x + 8.5 * k, y), (x + 5.6 * k, y + 4.4 * k), (x - 5.6 * k, y + 4.4 * k)], hull)
        self.line(x - 8.2 * k, y + 0.3, x + 8.2 * k, y + 0.3, mix(hull, WHITE, 0.35), 1.0)
        self.line(x, y, x, y - 16.5 * k, self.lit_thing("5a3a22"), 1.6)
        self.fill([(x + 0.9 * k, y - 16 * k), (x + 8.4 * k, y - 1.8 * k), (x + 0.9 * k, y - 1.8 * k)], sail)
        self.fill([(x - 0.9 * k, y - 14 * k), (x - 6.6 * k, y - 1.8 * k), (x - 0.9 * k, y - 1.8 * k)], mix(sail, BLACK, 0.13))
        self.box("boat", x - 8.5 * k, y - 16.5 * k, x + 8.5 * k, y + 5 * k)

    def bridge(self, x: float, y: float, half: float) -> None:
        """Draws an arched bridge; x: middle; y: water level under it; half: half its length."""
        stone = self.lit_thing("b9a58c" if self.rng.random() < 0.5 else "a06a3c")
        rise, foot = 9.0, y + 4
        arch = skia.Path()
        arch.moveTo(x - half - 3, foot)
        arch.quadTo(x - half, y - 4, x - half * 0.6, y - rise * 0.75)
        arch.quadTo(x, y - rise * 1.7, x + half * 0.6, y - rise * 0.75)
        arch.quadTo(x + half, y - 4, x + half + 3, foot)
        arch.lineTo(x + half * 0.68, foot)
        arch.quadTo(x, y - rise * 1.75, x - half * 0.68, foot)
        arch.close()
        self.canvas.drawPath(arch, gradient(y - rise, foot, [mix(stone, WHITE, 0.12), mix(stone, BLACK, 0.22)]))
        rail, post = skia.Path(), mix(stone, BLACK, 0.4)
        rail.moveTo(x - half, y - 6.5)
        rail.quadTo(x, y - rise * 2.1, x + half, y - 6.5)
        self.canvas.drawPath(rail, paint(post, 1, 1.7))
        for i in range(7):
            u = i / 6
            top = (y - 6.5) * ((1 - u) ** 2 + u**2) + (y - rise * 2.1) * 2 * u * (1 - u)
            self.line(x - half + 2 * half * u, top, x - half + 2 * half * u, top + 5, post, 1.3)
        self.box("bridge", x - half - 3, y - 15, x + half + 3, foot)

    # -- landmarks

    def landmark(self, spot: Spot) -> None:
        kind = str(self.scene["landmark"])
        x, y, k = spot.x, spot.y, spot.size
        if self.scene["ground"] == "sea":
            self.headland(x, y + 5, 19)
        else:
            self.shadow(x, y, 11 * k)
        {"lighthouse": self.lighthouse, "windmill": self.windmill, "church": self.church}.get(kind, self.castle)(x, y, k)

    def headland(self, x: float, y: float, half: float) -> None:
        """Draws a rocky islet under a landmark."""
        rock = self.lit_thing("7c7468")
        outline = [
            (x - half, y),
            (x - half * 0.8, y - 3.5),
            (x - half * 0.5, y - 6.5),
            (x + half * 0.55, y - 6.8),
            (x + half * 0.85, y - 3),
            (x + half, y),
        ]
        self.fill(outline, gradient(y - 7, y, [self.lit_thing("7fa45c"), rock], [0.0, 0.55]))
        self.oval(x, y + 0.6, half * 1.02, 1.2, BLACK, 0.18)

    def lighthouse(self, x: float, y: float, k: float) -> None:
        white, red, h = self.lit_thing("f8f4ee"), self.lit_thing("d8362e"), 31 * k
        rows = 5
        for i in range(rows):
            low, high = i / rows, (i + 1) / rows
            a, b = (5.2 - 2.0 * low) * k, (5.2 - 2.0 * high) * k
            y0, y1 = y - h * low * 0.8, y - h * high * 0.8
            self.fill([(x - a, y0), (x + a, y0), (x + b, y1), (x - b, y1)], white if i % 2 else red)
        self.fill([(x + 1.6 * k, y), (x + 5.2 * k, y), (x + 3.2 * k, y - h * 0.8), (x + 1.2 * k, y - h * 0.8)], BLACK, 0.13)
        top = y - h * 0.8
        self.rect(x - 4.8 * k, top - 1.4 * k, x + 4.8 * k, top, self.lit_thing("4a4a55"))
        self.rect(x - 2.7 * k, top - 5.2 * k, x + 2.7 * k, top - 1.4 * k, rgb("ffe98a"))
        self.fill([(x - 3.8 * k, top - 5.2 * k), (x + 3.8 * k, top - 5.2 * k), (x, top - 9 * k)], red)
        if self.scene["sky"] in DARK:
            beam = [(x, top - 3.5 * k), (x - 40, top - 11), (x - 40, top + 3)]
            self.fill(beam, rgb("fff3b0"), 0.25)
        self.box("landmark", x - 5.4 * k, top - 9 * k, x + 5.4 * k, y)

    def windmill(self, x: float, y: float, k: float) -> None:
        wall, cap, hub = self.lit_thing("efe2cc"), self.lit_thing("8a4a36"), y - 22 * k
        self.fill([(x - 7 * k, y), (x + 7 * k, y), (x + 4.2 * k, hub), (x - 4.2 * k, hub)], wall)
        self.fill([(x + 2 * k, y), (x + 7 * k, y), (x + 4.2 * k, hub), (x + 1.2 * k, hub)], BLACK, 0.12)
        self.fill([(x - 5.2 * k, hub), (x + 5.2 * k, hub), (x + 2 * k, hub - 5.5 * k), (x - 2 * k, hub - 5.5 * k)], cap)
        self.rect(x - 1.8 * k, y - 6 * k, x + 1.8 * k, y, self.lit_thing("6b4326"))
        turn = self.rng.uniform(0.5, 1.1)
        pole, sail = self.lit_thing("4a3526"), self.lit_thing("fffaf0")
        for i in range(4):
            c, s = math.cos(turn + i * math.pi / 2), math.sin(turn + i * math.pi / 2)
            ends = [(4.0, 0.0), (15.0, 0.0), (15.0, 4.2), (4.0, 3.4)]
            blade = [(x + (u * c - v * s) * k, hub + (u * s + v * c) * k) for u, v in ends]
            self.fill(blade, sail)
            self.canvas.drawPath(polygon(blade), paint(pole, 1, 0.7))
            self.line(x, hub, x + 15.5 * c * k, hub + 15.5 * s * k, pole, 1.3)
        self.box("landmark", x - 12 * k, hub - 12 * k, x + 12 * k, y)

    def church(self, x: float, y: float, k: float) -> None:
        wall, roof = self.lit_thing("f4eee2"), self.lit_thing("5a5f78")
        shade, tower = mix(wall, BLACK, 0.13), x - 6.5 * k
        self.rect(x - 3 * k, y - 11 * k, x + 12 * k, y, shade)
        nave = [(x - 4 * k, y - 10.5 * k), (x - 3 * k, y - 18 * k), (x + 10.5 * k, y - 18 * k), (x + 13.4 * k, y - 10.5 * k)]
        self.fill(nave, self.snow() if self.winter else roof)
        self.rect(tower - 4.2 * k, y - 20 * k, tower + 4.2 * k, y, wall)
        self.fill([(tower - 5 * k, y - 20 * k), (tower + 5 * k, y - 20 * k), (tower, y - 33 * k)], roof)
        cross = self.lit_thing("e8b83a")
        self.line(tower, y - 32.5 * k, tower, y - 38.5 * k, cross, 1.3)
        self.line(tower - 2 * k, y - 36.3 * k, tower + 2 * k, y - 36.3 * k, cross, 1.3)
        glass = rgb("ffdf7a") if self.scene["sky"] in DARK else self.lit_thing("3c5a86")
        self.oval(tower, y - 15.5 * k, 1.5 * k, 2.2 * k, glass)
        for wx in (1.5, 5.6, 9.7):
            self.rect(x + (wx - 0.9) * k, y - 8 * k, x + (wx + 0.9) * k, y - 3.2 * k, glass)
        self.rect(tower - 1.6 * k, y - 6 * k, tower + 1.6 * k, y, self.lit_thing("6b4326"))
        self.box("landmark", x - 11.5 * k, y - 38 * k, x + 13.4 * k, y)

    def castle(self, x: float, y: float, k: float) -> None:
        stone = self.lit_thing("b4afb2")
        dark, roof = mix(stone, BLACK, 0.2), self.lit_thing("b8443c")
        window = rgb("ffdf7a") if self.scene["sky"] in DARK else self.lit_thing("4a4652")
        self.rect(x - 5 * k, y - 23 * k, x + 5 * k, y - 8 * k, mix(stone, BLACK, 0.1))
        self.fill([(x - 6.2 * k, y - 23 * k), (x + 6.2 * k, y - 23 * k), (x, y - 34 * k)], roof)
        self.rect(x - 11 * k, y - 12 * k, x + 11 * k, y, stone)
        for i in range(5):
            self.rect(x + (-9.6 + 4.2 * i) * k, y - 14.4 * k, x + (-7.2 + 4.2 * i) * k, y - 11.5 * k, stone)
        for side in (-1, 1):
            middle = x + side * 11.5 * k
            self.rect(middle - 3.4 * k, y - 19 * k, middle + 3.4 * k, y, mix(stone, WHITE, 0.1) if side < 0 else dark)
            self.fill([(middle - 4.4 * k, y - 19 * k), (middle + 4.4 * k, y - 19 * k), (middle, y - 28 * k)], roof)
            self.rect(middle - 0.9 * k, y - 15.5 * k, middle + 0.9 * k, y - 11.5 * k, window)
        self.rect(x - 1.1 * k, y - 20 * k, x + 1.1 * k, y - 15.5 * k, window)
        self.rect(x - 2.4 * k, y - 5 * k, x + 2.4 * k, y, self.lit_thing("5a3c26"))
        self.oval(x, y - 5 * k, 2.4 * k, 2.2 * k, self.lit_thing("5a3c26"))
        self.box("landmark", x - 16 * k, y - 34 * k, x + 16 * k, y)

    # -- in the air

    def balloon(self, x: float, y: float) -> None:
        colour, r = self.lit_thing(BALLOON_COLOURS[self.scene["balloon"]]), self.rng.uniform(9.5, 11.5)
        path = skia.Path()
        path.moveTo(x - r, y)
        path.cubicTo(x - r, y - r * 1.35, x + r, y - r * 1.35, x + r, y)
        path.cubicTo(x + r, y + r * 0.75, x + r * 0.3, y + r * 1.1, x + r * 0.26, y + r * 1.45)
        path.lineTo(x - r * 0.26, y + r * 1.45)
        path.cubicTo(x - r * 0.3, y + r * 1.1, x - r, y + r * 0.75, x - r, y)
        self.canvas.drawPath(path, paint(colour))
        self.canvas.save()
        self.canvas.clipPath(path, skia.ClipOp.kIntersect, True)
        self.oval(x, y + r * 0.2, r * 0.36, r * 1.5, mix(colour, WHITE, 0.55))
        self.oval(x + r, y + r * 0.3, r * 0.42, r * 1.8, BLACK, 0.14)
        self.canvas.restore()
        rope, basket = self.lit_thing("5a4030"), self.lit_thing("8a5a30")
        for side in (-1, 1):
            self.line(x + side * r * 0.24, y + r * 1.45, x + side * r * 0.2, y + r * 1.8, rope, 0.7)
        self.rect(x - r * 0.27, y + r * 1.75, x + r * 0.27, y + r * 2.12, basket)
        self.box("balloon", x - r, y - r, x + r, y + r * 2.12)

    def birds(self, x: float, y: float) -> None:
        rng, colour = self.rng, (0.09, 0.09, 0.15)
        number = rng.randint(2, 4)
        for i in range(number):
            k = rng.uniform(6, 7.4)
            bx, by = x + (i - (number - 1) / 2) * 12.5 + rng.uniform(-1.5, 1.5), y + (i % 2 - 0.5) * 11 + rng.uniform(-2, 2)
            wings = skia.Path()
            wings.moveTo(bx - k, by - k * 0.45)
            wings.quadTo(bx - k * 0.45, by - k * 0.95, bx, by)
            wings.quadTo(bx + k * 0.45, by - k * 0.95, bx + k, by - k * 0.45)
            wings.quadTo(bx + k * 0.45, by - k * 0.45, bx, by + k * 0.32)
            wings.quadTo(bx - k * 0.45, by - k * 0.45, bx - k, by - k * 0.45)
            self.canvas.drawPath(wings, paint(colour))
            self.canvas.drawPath(wings, paint(colour, 1, 0.9))
            self.box("bird", bx - k, by - k, bx + k, by + k * 0.4)

    # -- on the meadow

    def flowers(self, spots: list[tuple[float, float]]) -> None:
        for x, y in spots[:16]:
            r, petal = self.rng.uniform(1.3, 1.7), paint(self.lit_thing(self.rng.choice(FLOWER_COLOURS)))
            self.line(x, y + r, x, y + r * 2.4, self.lit_thing("3f8a38"), 0.9)
            for angle in (0.3, 1.56, 2.8, 4.07, 5.33):
                self.canvas.drawCircle(x + math.cos(angle) * r, y + math.sin(angle) * r, r * 0.8, petal)
            self.canvas.drawCircle(x, y, r * 0.6, paint(self.lit_thing("f2a922")))

    def animal(self, spot: Spot) -> None:
        x, y, k = spot.x, spot.y, spot.size
        self.shadow(x, y, 6 * k)
        facing = self.rng.choice((-1, 1))
        (self.sheep if self.scene["animal"] == "sheep" else self.cow)(x, y, k, facing)

    def sheep(self, x: float, y: float, k: float, facing: int) -> None:
        wool, face = self.lit_thing("fbf8f0"), self.lit_thing("3a3436")
        for dx in (-3, -1.4, 1.6, 3):
            self.rect(x + (dx - 0.6) * k, y - 3.4 * k, x + (dx + 0.6) * k, y, face)
        for dx, dy, r in ((-3.4, -5, 2.6), (0, -4.6, 3), (3.4, -5, 2.6), (-1.8, -7, 2.6), (1.8, -7, 2.6)):
            self.canvas.drawCircle(x + dx * k, y + dy * k, r * k, paint(wool))
        self.oval(x + facing * 6.2 * k, y - 6.4 * k, 1.9 * k, 2.3 * k, face)
        self.box("animal", x - 8 * k, y - 9.6 * k, x + 8 * k, y)

    def cow(self, x: float, y: float, k: float, facing: int) -> None:
        hide, spot = self.lit_thing("faf6f0"), self.lit_thing("4a3028")
        for dx in (-4.6, -2.6, 2.6, 4.6):
            self.rect(x + (dx - 0.7) * k, y - 4 * k, x + (dx + 0.7) * k, y, mix(hide, BLACK, 0.25))
        self.canvas.drawRoundRect(skia.Rect(x - 6 * k, y - 9.5 * k, x + 6 * k, y - 3.2 * k), 2.4 * k, 2.4 * k, paint(hide))
        self.oval(x - facing * 3 * k, y - 7.2 * k, 2.4 * k, 2 * k, spot)
        self.oval(x + facing * 1.6 * k, y - 5.6 * k, 2.1 * k, 1.7 * k, spot)
        head = x + facing * 7.4 * k
        self.oval(head, y - 9.4 * k, 2.3 * k, 2.5 * k, spot)
        self.oval(head + facing * 0.8 * k, y - 8 * k, 1.5 * k, 1.2 * k, self.lit_thing("f0b8a8"))
        self.line(head - 2 * k, y - 12.4 * k, head - 1.2 * k, y - 11 * k, mix(hide, BLACK, 0.2), 0.9)
        self.line(head + 2 * k, y - 12.4 * k, head + 1.2 * k, y - 11 * k, mix(hide, BLACK, 0.2), 0.9)
        self.box("animal", x - 9 * k, y - 12 * k, x + 9 * k, y)

    def fence(self) -> None:
        low = self.scene["animal"] != "none" or self.scene["ground"] == "lake"
        y = self.rng.uniform(120, 122) if low else self.rng.uniform(116, 120)
        colour = self.lit_thing("8a6238" if self.winter else "f2eadc")
        for i in range(-1, 12):
            x = i * 12 + 3.5
            self.fill([(x - 1.5, y + 8), (x - 1.5, y - 7.4), (x, y - 9), (x + 1.5, y - 7.4), (x + 1.5, y + 8)], colour)
        for dy in (-5.2, 0.8):
            self.rect(0, y + dy, 128, y + dy + 2.2, mix(colour, BLACK, 0.08))
        self.box("fence", 0, y - 9, 128, y + 6)
