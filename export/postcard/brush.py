"""Colours and drawing tools of the postcard painter (needs skia-python).

All coordinates are in units of 1/128 of the image's width; y grows downwards. Colours are (red, green, blue), 0..1.
"""

import math
import random
from collections.abc import Sequence

import skia

from costroute_rt.export.postcard.scene import Scene, Value

Colour = tuple[float, float, float]
Point = tuple[float, float]
Box = tuple[str, float, float, float, float]
"""Kind, x0, y0, x1, y1."""

BLACK: Colour = (0.0, 0.0, 0.0)
WHITE: Colour = (1.0, 1.0, 1.0)
AMBIENT: dict[Value, Colour] = {
    "clear": (1, 1, 1),
    "overcast": (0.85, 0.87, 0.89),
    "sunset": (0.97, 0.79, 0.71),
    "dawn": (1, 0.92, 0.92),
    "night": (0.55, 0.62, 0.86),
    "starry": (0.48, 0.54, 0.80),
}
# How far the light on objects is shifted from ambient to white, so that their colours can be distinguished.
OBJECT_LIFT: dict[Value, float] = {"night": 0.66, "starry": 0.66, "sunset": 0.45}


def rgb(text: str) -> Colour:
    """Parses six hexadecimal digits."""
    return int(text[0:2], 16) / 255, int(text[2:4], 16) / 255, int(text[4:6], 16) / 255


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Interpolates from `a` (share 0) to `b` (share 1)."""
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share


def clamp(colour: Colour) -> Colour:
    """Clips the colour to 0..1."""
    r, g, b = colour
    return min(1.0, max(0.0, r)), min(1.0, max(0.0, g)), min(1.0, max(0.0, b))


def paint(colour: Colour, alpha: float = 1.0, stroke: float = 0.0) -> skia.Paint:
    """A flat fill, or a round line of width `stroke`."""
    p = skia.Paint(AntiAlias=True)
    p.setColor4f(skia.Color4f(*clamp(colour), alpha))
    if stroke:
        p.setStyle(skia.Paint.kStroke_Style)
        p.setStrokeWidth(stroke)
        p.setStrokeCap(skia.Paint.kRound_Cap)
    return p


def gradient(y0: float, y1: float, colours: Sequence[Colour], stops: list[float] | None = None, alpha: float = 1.0) -> skia.Paint:
    """A fill that runs from the first colour at `y0` to the last at `y1`."""
    p = skia.Paint(AntiAlias=True)
    packed = [skia.Color4f(*clamp(c), alpha).toColor() for c in colours]
    p.setShader(skia.GradientShader.MakeLinear([(0, y0), (0, y1)], packed, stops))
    return p


def glow(x: float, y: float, radius: float, colour: Colour, alpha: float) -> skia.Paint:
    """A round light that fades to nothing at `radius`."""
    p = skia.Paint(AntiAlias=True)
    inner, outer = (skia.Color4f(*clamp(colour), a).toColor() for a in (alpha, 0.0))
    p.setShader(skia.GradientShader.MakeRadial((x, y), radius, [inner, outer]))
    return p


def polygon(points: Sequence[Point]) -> skia.Path:
    """A closed outline."""
    path = skia.Path()
    path.addPoly([skia.Point(x, y) for x, y in points], True)
    return path


class Brush:
    """The canvas, the light of the scene, and the boxes of all things drawn so far."""

    def __init__(self, canvas: skia.Canvas, scene: Scene, rng: random.Random) -> None:
        self.canvas, self.scene, self.rng = canvas, scene, rng
        r, g, b = AMBIENT[scene["sky"]]
        self.ambient: Colour = (r * rng.uniform(0.97, 1.03), g * rng.uniform(0.97, 1.03), b * rng.uniform(0.97, 1.03))
        self.object_light = mix(self.ambient, WHITE, OBJECT_LIFT.get(scene["sky"], 0.3))
        self.winter = scene["season"] == "winter"
        self.boxes: list[Box] = []

    def lit(self, colour: Colour | str) -> Colour:
        """Colour of land in the ambient light of the scene."""
        r, g, b = rgb(colour) if isinstance(colour, str) else colour
        return r * self.ambient[0], g * self.ambient[1], b * self.ambient[2]

    def lit_thing(self, colour: Colour | str) -> Colour:
        """Colour of an object in whiter light than land, so that it stays recognisable."""
        r, g, b = rgb(colour) if isinstance(colour, str) else colour
        return r * self.object_light[0], g * self.object_light[1], b * self.object_light[2]

    def jitter(self, text: str, amount: float = 0.04) -> Colour:
        """The colour of six hexadecimal digits, changed at random by up to `amount`."""
        r, g, b = rgb(text)
        u = self.rng.uniform
        return r + u(-amount, amount), g + u(-amount, amount), b + u(-amount, amount)

    def box(self, kind: str, x0: float, y0: float, x1: float, y1: float) -> None:
        """Records the bounding box of a thing."""
        left, top, right, bottom = (round(min(128.0, max(0.0, v)), 1) for v in (x0, y0, x1, y1))
        self.boxes.append((kind, left, top, right, bottom))

    def fill(self, points: Sequence[Point], colour: Colour | skia.Paint, alpha: float = 1.0) -> None:
        """Fills a polygon."""
        self.canvas.drawPath(polygon(points), colour if isinstance(colour, skia.Paint) else paint(colour, alpha))

    def rect(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """Fills a rectangle."""
        self.canvas.drawRect(skia.Rect(x0, y0, x1, y1), paint(colour))

    def oval(self, x: float, y: float, w: float, h: float, colour: Colour, alpha: float = 1.0) -> None:
        """Fills an ellipse with half-axes `w` and `h`."""
        self.canvas.drawOval(skia.Rect(x - w, y - h, x + w, y + h), paint(colour, alpha))

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, width: float, alpha: float = 1.0) -> None:
        """Draws a round-ended line."""
        self.canvas.drawLine(x0, y0, x1, y1, paint(colour, alpha, width))

    def shadow(self, x: float, y: float, w: float) -> None:
        """Draws the shadow at the foot of a thing of half-width `w`."""
        self.oval(x, y + 0.3, w, 1.7, (0.05, 0.05, 0.15), 0.2)

    def ridge(self, y: float, height: float, rough: float = 0.2, points: int = 28) -> list[Point]:
        """A rolling line across the image between `y - height` and `y`, closed below the bottom edge."""
        u = self.rng.uniform
        waves = [(u(0.8, 1.3) * k * 0.0392, u(0, 6.28), a) for k, a in ((1, 0.5), (2.1, 0.3), (4.3, 0.13 * rough), (9, 0.07 * rough))]
        (f0, p0, a0), (f1, p1, a1), (f2, p2, a2), (f3, p3, a3) = waves
        line = []
        for i in range(points):
            x = -2 + 132 * i / (points - 1)
            swell = a0 * math.sin(f0 * x + p0) + a1 * math.sin(f1 * x + p1) + a2 * math.sin(f2 * x + p2) + a3 * math.sin(f3 * x + p3)
            line.append((x, y - height * (0.5 + 0.5 * swell)))
        return [*line, (130.0, 130.0), (-2.0, 130.0)]
