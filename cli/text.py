"""Text on the command line: what the terminal sent in another encoding is refused, with the encoding and the remedy."""

from __future__ import annotations

import re
import sys
from typing import Any

import click

_UNDECODED = re.compile("[\ud800-\udfff]")
"""Bytes of the command line that are not in the locale's encoding, which Python keeps as U+DC80 to U+DCFF; other halves of characters."""


class Text(click.types.StringParamType):
    """Text that can be decoded in the encoding of the locale."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = super().convert(value, param, ctx)
        found = _UNDECODED.search(text)
        if found is not None:
            self.fail(undecoded_problem(ord(found.group()), text[: found.start()], sys.getfilesystemencoding()), param, ctx)
        return text


def undecoded_problem(code: int, before: str, encoding: str) -> str:
    """What is wrong and what to do. code: of the surrogate found; before: the text before it; encoding: of the command line."""
    after = f" after {before[-20:]!r}" if before else " at its start"
    if not 0xDC80 <= code <= 0xDCFF:
        return f"it has half of a character, U+{code:04X},{after}: type it again"
    what = f"byte 0x{code - 0xDC00:02X}{after} is not {encoding.upper()}, the encoding of the command line"
    return f"{what}: let terminal and locale use UTF-8 (such as LC_ALL=C.UTF-8), or put prompts into a UTF-8 file for gen --prompts FILE"


def check_texts(command: click.Command) -> None:
    """Makes every parameter of a command, and of the commands below it, that takes any text take `Text`."""
    for param in command.params:
        if param.type is click.STRING:
            param.type = Text()
    if isinstance(command, click.Group):
        for each in command.commands.values():
            check_texts(each)
