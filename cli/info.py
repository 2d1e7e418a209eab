"""`costroute-rt info`: how an image was made, read back from its file."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

import click

from costroute_rt.cli import option
from costroute_rt.cli.table import show_json

SHIPPED_FAMILY = "postcard"
DEFAULTS = {"backend": "onnxruntime", "provider": "cpu", "precision": "float32"}


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
    command, note = reproduce(settings), _caveat(settings)
    if as_json:
        show_json({**settings, "command": command, "note": note})
        return
    rows = {_plain(name): _plain(value) for name, value in settings.items()}
    width = max(map(len, rows), default=0)
    for name, value in rows.items():
        click.echo(f"{name:{width}}  {value}")
    click.echo(f"\n{command}")
    if note:
        click.echo(f"note: {_plain(note)}")


def reproduce(settings: Mapping[str, Any]) -> str:
    """The shell command that makes an image with these settings: its candidate is forced, its budget left out."""
    prompt = str(settings.get("prompt", ""))
    words = ["costroute-rt", "gen", *([] if prompt.startswith("-") else [prompt]), "--seed", str(settings.get("seed", 0))]
    for name in ("candidate", "negative_prompt", "height", "width", "backend", "provider", "precision"):
        if settings.get(name) not in (None, DEFAULTS.get(name)):
            words += ["--" + name.replace("_", "-"), str(settings[name])]
    words += ["--", prompt] if prompt.startswith("-") else []
    return " ".join(map(_quote, words))


def _caveat(settings: Mapping[str, Any]) -> str | None:
    """Why the command alone would not make the same image; None if it would."""
    if settings.get("replanned"):
        return f"{settings['replanned']} steps were left out to keep a deadline; the command runs all of them"
    if settings.get("family") != SHIPPED_FAMILY:
        return f"add --bundle with the folder of the {settings.get('family')} bundle, revision {settings.get('revision')}"
    return None


def _plain(value: object) -> str:
    """Text for a terminal; a file from elsewhere may hold control characters, which are escaped."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(text)


def _quote(word: str) -> str:
    """A word for the shell; bash's $'...' form where it cannot be printed as it is."""
    if word.isprintable():
        return shlex.quote(word)
    escapes = {"\\": "\\\\", "'": "\\'"}
    return "$'" + "".join(escapes.get(c, c) if c.isprintable() else _escape(c) for c in word) + "'"


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"
