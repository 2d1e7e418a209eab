"""Draws the background: sky, sun and moon, clouds, mountains (needs skia-python).

Coordinates are in units of 1/128 of the image's width; y grows downwards.
"""

import math

import skia

from costroute_rt.export.postcard.brush import BLACK, WHITE, Colour, Point, glow, gradient, mix, paint, rgb
from costroute_rt.export.postcard.layout import Layout
from costroute_rt.export.postcard.scene import Value
from costroute_rt.export.postcard.things import Things

SKY_COLOURS: dict[Value, tuple[str, ...]] = {
    "clear": ("3f8fe0", "bfe3fa"),
    "overcast": ("8792a0", "cdd4da"),
    "sunset": ("5b4a8a", "e0607a", "ffb35c"),
    "dawn": ("8fb0e0", "d8c4e0", "ffd9cc"),
    "night": ("16286a", "4465a8"),
    "starry": ("0c1140", "333f92"),
}
CLOUD_COLOURS: dict[Value, str] = {
    "clear": "ffffff",
    "overcast": "b0b8c1",
    "sunset": "f9b7a2",
    "dawn": "fff2f2",
    "night": "6476ac",
    "starry": "6476ac",
}
SUN_COLOURS: dict[Value, str] = {"clear": "ffe45c", "sunset": "ffd867", "dawn": "ffe68a"}
RAINBOW_COLOURS = ("e5484d", "f5923e", "f7d84a", "5cc46a", "4a90e2", "8a5fd0")
HILL_COLOURS: dict[Value, tuple[str, str]] = {
    "summer": ("7fae8a", "4f8f5a"),
    "spring": ("8fbf92", "5ea560"),
    "autumn": ("93a878", "6d9150"),
    "winter": ("8fb0a4", "5c9078"),
}


class Backdrop(Things):
    """A brush with methods for sky and mountains; the painter sets the attributes below before it draws."""

    horizon: float
    haze: Colour
    """Colour of the sky at the horizon."""
    layout: Layout
    light: Point
    """Position of sun or moon."""
    volcano_x: float

    # -- sky

    def sky(self) -> Colour:
        """Fills the sky; returns its colour at the horizon."""
        colours = [self.jitter(c, 0.03) for c in SKY_COLOURS[self.scene["sky"]]]
        stops = [0.0, 0.55, 1.0] if len(colours) == 3 else None
        self.canvas.drawPaint(gradient(0, self.horizon, colours, stops))
        return colours[-1]

    def high_sky(self) -> None:
        """Draws the parts of the sky behind the mountains: stars, sun or moon, rainbow, clouds."""
        scene = self.scene
        if scene["sky"] == "starry":
            self.stars()
        if scene["celestial"] == "sun":
            self.sun(*self.light)
        elif scene["celestial"] == "moon":
            self.moon(*self.light)
        if scene["rainbow"]:
            self.rainbow()
        self.birds_spot = self.layout.clear_spot((30, 98), (16, 36), 21, self.rng, tries=24) if scene["birds"] else (0.0, 0.0)
        self.balloon_spot = (
            self.layout.clear_spot((16, 112), (19, 36), 15, self.rng, tries=16) if scene["balloon"] != "none" else (0.0, 0.0)
        )
        if scene["clouds"]:
            self.clouds()

    def low_sky(self) -> None:
        """Draws balloon and birds, which are in front of the mountains."""
        if self.scene["balloon"] != "none":
            self.balloon(*self.balloon_spot)
        if self.scene["birds"]:
            self.birds(*self.birds_spot)

    def stars(self) -> None:
        rng, disc = self.rng, paint((1, 1, 0.93))
        halo = paint((1, 1, 0.95), 0.2)
        for _ in range(rng.randint(18, 28)):
            x, y, r = rng.uniform(2, 126), rng.uniform(2, self.horizon - 8), rng.uniform(0.9, 1.6)
            if self.scene["celestial"] == "moon" and math.dist((x, y), self.light) < 15:
                continue
            self.canvas.drawCircle(x, y, r * 2.2, halo)
            self.canvas.drawCircle(x, y, r, disc)

    def sun(self, x: float, y: float) -> None:
        r, colour = self.rng.uniform(8.5, 11), rgb(SUN_COLOURS.get(self.scene["sky"], "ffe45c"))
        self.canvas.drawCircle(x, y, r * 3.2, glow(x, y, r * 3.2, mix(colour, WHITE, 0.3), 0.75))
        self.canvas.drawCircle(x, y, r, paint(colour))
        self.box("sun", x - r, y - r, x + r, y + r)

    def moon(self, x: float, y: float) -> None:
        r, colour = self.rng.uniform(8.5, 10.5), rgb("f8f2d2")
        self.canvas.drawCircle(x, y, r * 2.4, glow(x, y, r * 2.4, colour, 0.45))
        full, shade = skia.Path(), skia.Path()
        full.addCircle(x, y, r)
        if self.scene["sky"] == "dawn" or self.rng.random() < 0.5:  # at dawn a full moon would look like a pale sun
            shade.addCircle(x + r * 0.55, y - r * 0.25, r * 0.85)
            full = skia.Op(full, shade, skia.PathOp.kDifference_PathOp)
        self.canvas.drawPath(full, paint(colour))
        self.box("moon", x - r, y - r, x + r, y + r)

    def rainbow(self) -> None:
        r = self.rng.uniform(48, 56)
        x = self.rng.uniform(44, 84)
        if self.scene["celestial"] != "none":
            x = self.light[0] + (62 if self.light[0] < 64 else -62)
        for i, colour in enumerate(RAINBOW_COLOURS):
            self.canvas.drawCircle(x, self.horizon + 6, r - i * 2.4, paint(rgb(colour), 0.85, 2.6))

    def clouds(self) -> None:
        rng, sky = self.rng, self.scene["sky"]
        number = rng.randint(5, 7) if sky == "overcast" else rng.randint(2, 3)
        for _ in range(number):
            w = rng.uniform(12, 18)
            x, y = self.layout.clear_spot((4, 124), (8, 34), w * 0.8, rng, tries=16)
            self.cloud(x, y, w, mix(self.jitter(CLOUD_COLOURS[sky], 0.015), BLACK, rng.uniform(0, 0.1) if sky == "overcast" else 0.0))

    def cloud(self, x: float, y: float, w: float, colour: Colour) -> None:
        path = skia.Path()
        for dx, dy, k in ((-0.72, 0.1, 0.25), (-0.28, -0.14, 0.34), (0.22, -0.08, 0.38), (0.7, 0.1, 0.24)):
            path.addCircle(x + dx * w, y + dy * w, k * w)
        path.addRoundRect(skia.Rect.MakeXYWH(x - w * 1.05, y, w * 2.1, w * 0.36), w * 0.18, w * 0.18)
        path.setFillType(skia.PathFillType.kWinding)
        self.canvas.drawPath(path, gradient(y - w * 0.4, y + w * 0.4, [colour, mix(colour, self.haze, 0.35)], alpha=0.95))

    # -- mountains

    def mountains(self) -> None:
        kind = self.scene["mountains"]
        if kind == "green":
            self.hills(self.rng.uniform(22, 30), self.rng.uniform(13, 19))
        elif kind == "volcano":
            self.hills(self.rng.uniform(10, 14), self.rng.uniform(5, 8))
            self.volcano(self.volcano_x)
        elif kind != "none":
            self.peaks(snowy=kind == "snowy")

    def hills(self, far: float, near: float) -> None:
        far_colour, near_colour = HILL_COLOURS[self.scene["season"]]
        y = self.horizon + 2
        self.fill(self.ridge(y, far, 0.3), self.lit(mix(self.jitter(far_colour), self.haze, 0.3)))
        self.fill(self.ridge(y, near, 0.3), self.lit(mix(self.jitter(near_colour), self.haze, 0.08)))

    def peaks(self, snowy: bool) -> None:
        rng, y0 = self.rng, self.horizon + 4
        n, height = rng.choice((2, 3, 3, 4)), rng.uniform(31, 40)
        peaks = []
        for i in range(n):
            h = height * rng.uniform(0.64, 1.0)
            peaks.append((h, 128 * (i + 0.5) / n + rng.uniform(-12, 12), h * rng.uniform(0.95, 1.35)))
        for h, x, w in sorted(peaks, reverse=True):
            self.peak(x, y0, w, h, snowy)

    def peak(self, x: float, y0: float, w: float, h: float, snowy: bool) -> None:
        rng, top = self.rng, y0 - h
        colour = self.lit(self.jitter("6c7f9e" if snowy else "8d7763", 0.03))
        foot = mix(colour, self.haze, 0.25)
        fold = rng.uniform(-0.15, 0.15) * w
        self.fill([(x, top), (x + w, y0), (x - w, y0)], gradient(top, y0, [colour, foot]))
        dark = [(x, top), (x + w, y0), (x + fold, y0), (x + w * 0.14, y0 - h * 0.45), (x - w * 0.04, y0 - h * 0.7)]
        self.fill(dark, mix(colour, BLACK, 0.3), 0.75)
        if snowy:
            self.snow_cap(x, top, h, w)
            return
        for _ in range(2):
            u = rng.uniform(0.35, 0.8)
            self.line(x - w * u * 0.5, top + h * u, x - w * u * 0.2, top + h * u + 5, mix(colour, BLACK, 0.3), 1.4, 0.8)

    def snow_cap(self, x: float, top: float, h: float, w: float) -> None:
        k = self.rng.uniform(0.38, 0.5)
        y, z = top + h * k, w * k
        snow = mix(self.lit("f8faff"), WHITE, 0.25)
        edge = [(z, 0.0), (z * 0.55, -0.09), (z * 0.2, 0.05), (-z * 0.15, -0.08), (-z * 0.55, 0.03), (-z, 0.0)]
        self.fill([(x, top)] + [(x + dx, y + dy * h) for dx, dy in edge], snow)
        shade = [(x, top), (x + z, y), (x + z * 0.55, y - 0.09 * h), (x + z * 0.2, y + 0.05 * h), (x + z * 0.1, top + h * k * 0.5)]
        self.fill(shade, mix(snow, rgb("7f9bc8"), 0.4))

    def volcano(self, x: float) -> None:
        rng, y0 = self.rng, self.horizon + 4
        h, w = rng.uniform(36, 41), rng.uniform(38, 46)
        top = y0 - h
        for i in range(5):
            drift = (i + 1) * rng.uniform(0.6, 2.2)
            self.canvas.drawCircle(
                x + drift, top - 3 - i * 4.2, 3.8 + i * 1.1, paint(self.lit(mix(rgb("8a8488"), WHITE, 0.08 * i)), 0.85 - 0.1 * i)
            )
        self.canvas.drawCircle(x, top, 17, glow(x, top, 17, rgb("ff7a30"), 0.7))
        colour = self.lit(self.jitter("6a5054", 0.03))
        left, right = [(x - 7.5, top), (x - 14, top + h * 0.35), (x - w, y0)], [(x + w, y0), (x + 14, top + h * 0.35), (x + 7.5, top)]
        self.fill(left + right, gradient(top, y0, [mix(colour, BLACK, 0.15), mix(colour, self.haze, 0.12)]))
        self.fill([(x + 2, top), (x + 5, y0), *right], mix(colour, BLACK, 0.35), 0.6)
        hot = rgb("ff6a28")
        self.oval(x, top + 0.3, 7.5, 2.2, rgb("ffb13c"))
        for dx, length in ((-3.8, rng.uniform(9, 14)), (0.5, rng.uniform(15, 22)), (4.2, rng.uniform(8, 13))):
            self.line(x + dx, top + 1.5, x + dx * 2.1, top + length, hot, 2.3)
        self.box("volcano", x - 14, top - 4, x + 14, top + 20)
