"""Plain output: aligned columns without rules or colours, or one JSON object."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from costroute_rt.plain_text import printable


def show(text: str = "") -> None:
    """Prints a result; control characters but line feeds are escaped, because the text may hold names of anybody's files."""
    click.echo(printable(text, keep_lines=True))


def show_json(value: object, *, indent: int | None = 1) -> None:
    """Prints JSON in ASCII, which no encoding of stdout can spoil."""
    click.echo(json.dumps(value, indent=indent, allow_nan=False))


def show_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints rows under their header, numbers to the right, the rest to the left."""
    click.echo("\n".join(format_table(header, rows)))


def format_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    columns = list(zip(map(printable, header), *([_text(cell) for cell in row] for row in rows), strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [_is_numeric([row[index] for row in rows]) for index in range(len(header))]
    lines = zip(*columns, strict=True)
    return ["  ".join(_pad(*cell) for cell in zip(line, widths, right, strict=True)).rstrip() for line in lines]


def format_bytes(count: float) -> str:
    """`12.3 MB`: powers of 1000, as disks are sold."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _pad(text: str, width: int, to_the_right: bool) -> str:
    return text.rjust(width) if to_the_right else text.ljust(width)


def _is_numeric(cells: Sequence[object]) -> bool:
    return any(isinstance(cell, int | float) for cell in cells) and all(
        cell is None or (isinstance(cell, int | float) and not isinstance(cell, bool)) for cell in cells
    )


def _text(cell: object) -> str:
    """One cell: `-` for nothing, yes or no, three significant figures or a decimal for numbers."""
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.3f}"
    return printable(str(cell))
