"""`costroute-rt info`: how an image was made, read back from its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any

import click

from costroute_rt.cli import option
from costroute_rt.cli.command import quote
from costroute_rt.cli.table import show, show_json

SHIPPED_FAMILY = "postcard"
_MOST_ROWS, _WIDEST, _LONGEST_VALUE = 64, 40, 4000
_LONGEST_COMMAND = 100_000
"""Linux takes no argument of more than 128 KiB."""
DEFAULTS = {"provider": "cpu", "precision": "float32"}
"""The backend is always named: what `auto` stands for differs between machines."""


@click.command()
@click.argument("image", type=click.Path(exists=True, dir_okay=False))
@option.as_json()
def info(image: str, as_json: bool) -> None:
    """Show how IMAGE (PNG, JPEG or WebP) was made, and the command to repeat it.

    \b
    costroute-rt info postcard.png
    costroute-rt info postcard.jpg --json
    """
    from costroute_rt import read_settings

    settings = read_settings(image)
    command: str | None = reproduce(settings)
    note = _caveat(settings)
    if command is not None and len(command) > _LONGEST_COMMAND:
        command, note = None, "its prompt is too long for a command"
    if as_json:
        show_json({**settings, "command": command, "note": note})
        return
    rows = {_cut(_plain(name), _WIDEST): _cut(_plain(value), _LONGEST_VALUE) for name, value in islice(settings.items(), _MOST_ROWS)}
    width = max(map(len, rows), default=0)
    for name, value in rows.items():
        show(f"{name:{width}}  {value}")
    if len(settings) > _MOST_ROWS:
        show(f"... and {len(settings) - _MOST_ROWS} more")
    if command is not None:
        show(f"\n{command}")
    if note:
        show(f"note: {_cut(_plain(note), _LONGEST_VALUE)}")


def reproduce(settings: Mapping[str, Any]) -> str:
    """The shell command that makes an image with these settings: its candidate is forced, its budget left out."""
    prompt = str(settings.get("prompt", ""))
    words = ["costroute-rt", "gen", *([] if prompt.startswith("-") else [prompt]), "--seed", str(settings.get("seed", 0))]
    for name in ("candidate", "negative_prompt", "height", "width", "strength", "backend", "provider", "precision"):
        if settings.get(name) not in (None, DEFAULTS.get(name)):
            words += ["--" + name.replace("_", "-"), str(settings[name])]
    words += [] if settings.get("requested_scheduler") is None else ["--scheduler", str(settings["requested_scheduler"])]
    words += ["--plain-prompt"] if settings.get("plain_prompt") is True else []
    words += ["--", prompt] if prompt.startswith("-") else []
    return " ".join(map(quote, words))


def _caveat(settings: Mapping[str, Any]) -> str | None:
    """Why the command alone would not make the same image; None if it would."""
    if settings.get("init_image_sha256") is not None:
        has_mask = settings.get("mask_sha256") is not None
        options = f"--init-image{' and --mask' if has_mask else ''}"
        return f"add {options} with the image{' and the mask' if has_mask else ''} that it was made from, whose pixels are not kept in it"
    if settings.get("replanned"):
        return f"{settings['replanned']} steps were left out to keep a deadline; the command runs all of them"
    if settings.get("added"):
        return (
            f"{settings['added']} steps were added on the way because time was left; the command runs those of the candidate from the start"
        )
    if settings.get("family") != SHIPPED_FAMILY:
        where = f"the folder of the {settings.get('family')} bundle, revision {settings.get('revision')}"
        return f"add --bundle with {where}, or --pool with its pool"
    return None


def _plain(value: object) -> str:
    """Text for a terminal; a file from elsewhere may hold control characters, which are escaped."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(text)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"
