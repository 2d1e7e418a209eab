"""A contact sheet: one prompt per row, one candidate per column, and under each image its score. And sheets of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

TILE_PX, GAP_PX, TEXT_PX, SCORE_PX, MARGIN_PX, HEAD_PX = 168, 8, 270, 24, 28, 96
PAPER, INK, FAINT = "#faf8f4", "#2b2a28", "#8b877f"
GOOD, FAIR, POOR = "#3f7d4e", "#b07a1e", "#b5432f"

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One image with its score."""

    pixels: Pixels
    """uint8[height, width, 3]"""
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetRow:
    """One prompt with its images."""

    text: str
    remark: str
    tiles: Sequence[Tile | None]
    """One per column; None where the image is missing."""


def draw_sheet(title: str, columns: Sequence[str], rows: Sequence[SheetRow], path: Path) -> None:
    """Writes the sheet as a PNG."""
    from PIL import Image, ImageDraw

    width = 2 * MARGIN_PX + TEXT_PX + len(columns) * (TILE_PX + GAP_PX) - GAP_PX
    pitch = TILE_PX + SCORE_PX + GAP_PX
    sheet = Image.new("RGB", (width, HEAD_PX + len(rows) * pitch + MARGIN_PX), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN_PX, 22), title, INK, _font(24))
    for index, name in enumerate(columns):
        _centred(draw, _left(index) + TILE_PX / 2, HEAD_PX - 26, name, INK, 16)
    for number, row in enumerate(rows):
        top = HEAD_PX + number * pitch
        _write_prompt(draw, top, row)
        for index, tile in enumerate(row.tiles):
            if tile is not None:
                image = Image.fromarray(tile.pixels).resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
                sheet.paste(image, (_left(index), top))
                _centred(draw, _left(index) + TILE_PX / 2, top + TILE_PX + 3, f"{tile.score:.2f}", _tint(tile.score), 14)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


PAIR_PX, PAIR_TEXT_PX, PAIR_COLUMNS = 208, 40, 4


def draw_pairs(rows: Sequence[tuple[str, Pixels, Pixels]], path: Path) -> None:
    """Writes a PNG of pairs of images side by side, each below its text, four pairs in a row."""
    from PIL import Image, ImageDraw

    width, height = 2 * PAIR_PX + 3 * GAP_PX, PAIR_TEXT_PX + PAIR_PX + GAP_PX
    sheet = Image.new("RGB", (PAIR_COLUMNS * width, -(-len(rows) // PAIR_COLUMNS) * height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (text, *images) in enumerate(rows):
        x, y = index % PAIR_COLUMNS * width, index // PAIR_COLUMNS * height
        for line, part in enumerate(wrap(text, 12, width - 2 * GAP_PX)[:2]):
            draw.text((x + GAP_PX, y + 4 + 16 * line), part, INK, _font(12))
        for side, pixels in enumerate(images):
            image = Image.fromarray(pixels).resize((PAIR_PX, PAIR_PX), Image.Resampling.LANCZOS)
            sheet.paste(image, (x + GAP_PX + side * (PAIR_PX + GAP_PX // 2), y + PAIR_TEXT_PX))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


def wrap(text: str, size: int, limit_px: float) -> list[str]:
    """Breaks the text into lines no wider than the limit; a longer word is not broken."""
    lines: list[str] = []
    for word in text.split():
        if lines and _font(size).getlength(f"{lines[-1]} {word}") <= limit_px:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _write_prompt(draw: ImageDraw, top: int, row: SheetRow) -> None:
    """Writes the prompt in the largest font size that fits beside its images."""
    for size in (17, 15, 13, 11):
        lines = wrap(row.text, size, TEXT_PX - 24)
        if len(lines) * (size + 5) + 22 <= TILE_PX:
            break
    y = float(top)
    for line in lines:
        draw.text((MARGIN_PX, y), line, INK, _font(size))
        y += size + 5
    draw.text((MARGIN_PX, y + 4), row.remark, FAINT, _font(13))


def _left(column: int) -> int:
    return MARGIN_PX + TEXT_PX + column * (TILE_PX + GAP_PX)


def _tint(score: float) -> str:
    return GOOD if score >= 0.95 else FAIR if score >= 0.8 else POOR


def _centred(draw: ImageDraw, x: float, y: float, text: str, colour: str, size: int) -> None:
    draw.text((x - _font(size).getlength(text) / 2, y), text, colour, _font(size))


def _font(size: int) -> Any:
    """Pillow's built-in font, so that sheets look the same on every machine."""
    from PIL import ImageFont

    return ImageFont.load_default(size)
